//! Closures of very many entries, and the memory that they take.

use crate::compare::{counted, exported, same};
use crate::place::{build, in_memory, measured, on_disk};
use crate::support::{Entry, Export, Kind, Store, call};

#[test]
#[ignore = "under stress: `make stress`"]
fn two_hundred_thousand_empty_files_are_copied() {
    let ext4 = on_disk(Kind::Ext4, 8 << 10, "");
    let store = Store::at(&ext4.point);
    let path = build(&store, "empty");
    let root = ext4.point.join("root");
    let export = Export::new(&store).profile(&path).mode("copy").arg("--verify").root(&root);
    let receipt = measured("a copy of 200,000 empty files, verified", export);
    assert_eq!((receipt.files, receipt.directories, receipt.bytes), (200_000, 103, 0));
    assert_eq!((receipt.copied.count, receipt.verified), (200_000, true));
    counted(&store, &receipt);
    same(&store, &path, &root);
}

#[test]
#[ignore = "under stress: `make stress`"]
fn a_million_entries_fit_the_memory() {
    let tmpfs = in_memory();
    let store = Store::at(&tmpfs.point);
    let path = build(&store, "million");
    let export = |mode: &str| {
        let root = tmpfs.point.join(mode);
        let export = Export::new(&store).profile(&path).mode(mode).root(&root);
        let receipt = measured(&format!("1,000,000 entries by {mode}"), export);
        assert_eq!((receipt.files, receipt.directories, receipt.symlinks), (999_000, 1001, 0));
        counted(&store, &receipt);
        same(&store, &path, &root);
        let first = |path: &std::path::Path| Entry::read(&path.join("1/1"));
        let [in_store, in_root] = [first(&path), first(&exported(&root, &path))];
        assert_eq!(in_store.inode == in_root.inode, mode == "hardlink");
        receipt
    };
    let receipt = export("copy");
    assert_eq!((receipt.hard_linked.count, receipt.copied.count), (0, 999_000));
    call("rm", [&"-r", &tmpfs.point.join("copy")]);
    let receipt = export("hardlink");
    assert_eq!((receipt.hard_linked.count, receipt.copied.count), (999_000, 0));
    call("rm", [&"-r", &tmpfs.point.join("hardlink")]);
}
