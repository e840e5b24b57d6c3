//! Copies of files larger than what 32 bits can say, with data and with holes.

use crate::compare::{counted, data, exported, same, same_holes};
use crate::place::{build, measured, on_disk};
use crate::support::{Export, Kind, Store, call, judge};

#[test]
#[ignore = "under stress: `make stress`"]
fn a_file_of_8_gib_of_data_is_copied() {
    // Where two file systems compress it, 8 GiB of data take 300 MiB; on ext4 they would take the disk 16 GiB and
    // some minutes. From one file system to another, every byte goes through the process itself.
    let [from, to] = [(); 2].map(|()| on_disk(Kind::Btrfs, 10 << 10, "compress-force=zstd:1"));
    let store = Store::at(&from.point);
    let path = build(&store, "solid");
    assert_eq!(data(&path.join("solid")), [(0, 8 << 30)], "it has holes");
    let root = to.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").arg("--verify").root(&root);
    let receipt = measured("a copy of 8 GiB of data, verified", export);
    assert_eq!((receipt.files, receipt.bytes, receipt.copied.count), (1, 8 << 30, 1));
    assert!(receipt.verified);
    counted(&store, &receipt);
    same(&store, &path, &root);
    assert_eq!(data(&exported(&root, &path).join("solid")), [(0, 8 << 30)]);
}

#[test]
#[ignore = "under stress: `make stress`"]
fn files_with_holes_and_deep_directories_are_copied() {
    let ext4 = on_disk(Kind::Ext4, 4 << 10, "");
    let store = Store::at(&ext4.point);
    let path = build(&store, "large");
    let closure = store.closure(&path);
    let root = ext4.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").root(&root);
    let receipt =
        measured("a copy of a sparse file of 8 GiB, others with holes, and 1,000 directories in another", export);
    assert_eq!(receipt.copied.count, receipt.files + receipt.symlinks);
    counted(&store, &receipt);
    for path in &closure {
        same(&store, path, &root);
    }
    let ending = |name: &str| closure.iter().find(|path| path.to_str().unwrap().ends_with(name)).unwrap();
    same_holes(ending("-giant"), &root);
    same_holes(ending("-sparse"), &root);
    let [giant, _] = ["giant", "tail"].map(|name| fs_err::metadata(ending("-giant").join(name)).unwrap().len());
    assert_eq!(giant, 8 << 30);
    assert!(data(&ending("-giant").join("giant")).len() >= 5, "the fixture has too few holes");
    let deepest = call("find", [&exported(&root, ending("-deep")), &"-name", &"d", &"-printf", &"%d\n"]);
    assert_eq!(deepest.lines().map(|depth| depth.parse::<u32>().unwrap()).max(), Some(1000));
    judge(&store, &[&path], &receipt);

    // Between two file systems the process reads and writes itself, and what it writes must have the holes too.
    let other = on_disk(Kind::Xfs, 1 << 10, "");
    let root = other.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").arg("--verify").root(&root);
    let receipt = measured("the same to another file system, verified", export);
    counted(&store, &receipt);
    for path in &closure {
        same(&store, path, &root);
    }
    for name in crate::support::names(ending("-giant")) {
        let [one, other] = [ending("-giant").join(&name), exported(&root, ending("-giant")).join(&name)];
        assert_eq!(data(&other), data(&one), "{name}");
    }
}
