//! Copies of files larger than what 32 bits can say, with data and with holes, and of a deep tree.

use std::os::unix::fs::MetadataExt;

use crate::compare::{counted, data, exported, same, same_holes};
use crate::place::{build, measured, on_disk};
use crate::support::{Export, Kind, Store, call, judge};

/// One more than 33 bits can say.
const SIZE: u64 = 8 << 30;

#[test]
#[ignore = "under stress: `make stress`"]
fn a_file_of_8_gib_without_holes_is_copied() {
    // Written in full, it would take the disk 16 GiB and some minutes. So the store's file is allocated where it
    // is not written, and the copy, every byte of which is written, lies where the file system compresses. From one
    // file system to another all data goes through the process itself; the test of holes has the other way.
    let ext4 = on_disk(Kind::Ext4, 12 << 10, "");
    let btrfs = on_disk(Kind::Btrfs, 12 << 10, "compress-force=zstd:1");
    let store = Store::at(&ext4.point);
    let path = build(&store, "solid");
    let file = fs_err::metadata(path.join("solid")).unwrap();
    assert!(file.len() == SIZE && file.blocks() * 512 >= SIZE, "the store's file has holes: {file:?}");
    let root = btrfs.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").arg("--verify").root(&root);
    let receipt = measured("a copy of 8 GiB, verified", export);
    assert_eq!((receipt.files, receipt.bytes, receipt.copied.count), (1, SIZE, 1));
    assert!(receipt.verified);
    counted(&store, &receipt);
    same(&store, &path, &root);
    assert_eq!(data(&exported(&root, &path).join("solid")), [(0, SIZE)], "not all of it was written");
}

#[test]
#[ignore = "under stress: `make stress`"]
fn files_with_holes_and_deep_directories_are_copied() {
    let ext4 = on_disk(Kind::Ext4, 4 << 10, "");
    let store = Store::at(&ext4.point);
    let path = build(&store, "large");
    let closure = store.closure(&path);
    let ending = |name: &str| closure.iter().find(|path| path.to_str().unwrap().ends_with(name)).unwrap();
    let [giant, sparse, deep] = ["-giant", "-sparse", "-deep"].map(ending);
    assert_eq!(fs_err::metadata(giant.join("giant")).unwrap().len(), SIZE);
    assert_eq!(data(&giant.join("giant")).len(), 6, "the fixture has other holes");

    // On one file system the kernel copies.
    let root = ext4.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").root(&root);
    let receipt = measured("a copy of 8 GiB with holes, and of 1,000 directories in each other", export);
    assert_eq!((receipt.copied.count, receipt.copied.bytes), (receipt.files + receipt.symlinks, receipt.bytes));
    counted(&store, &receipt);
    judge(&store, &[&path], &receipt);
    same_holes(giant, &root);
    same_holes(sparse, &root);
    let depths = call("find", [&exported(&root, deep), &"-type", &"d", &"-printf", &"%d\n"]);
    assert_eq!(depths.lines().map(|depth| depth.parse::<u32>().unwrap()).max(), Some(1000));

    // Between two the process itself reads and writes.
    let xfs = on_disk(Kind::Xfs, 1 << 10, "");
    let root = xfs.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").arg("--verify").root(&root);
    let receipt = measured("the same to another file system, verified", export);
    counted(&store, &receipt);
    for path in &closure {
        same(&store, path, &root);
    }
    same_holes(giant, &root);
    same_holes(sparse, &root);
}
