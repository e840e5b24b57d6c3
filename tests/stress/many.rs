//! Closures of very many entries, and the memory that they take.

use std::path::Path;

use crate::compare::{counted, exported, same};
use crate::place::{build, in_memory, measured, on_disk};
use crate::support::{Export, Kind, Store, call};

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
    let export = |what: &str, mode: &str| {
        let root = tmpfs.point.join("root");
        let export = Export::new(&store).profile(&path).mode(mode).root(&root);
        let receipt = measured(&format!("1,000,000 entries {what}"), export);
        assert_eq!((receipt.files, receipt.directories, receipt.symlinks), (999_000, 1001, 0));
        let linked = if mode == "hardlink" { (999_000, 0) } else { (0, 999_000) };
        assert_eq!((receipt.hard_linked.count, receipt.copied.count), linked);
        counted(&store, &receipt);
        receipt.root
    };
    let root = export("hard-linked", "hardlink");
    assert_eq!(inodes(&exported(root.as_ref(), &path)), inodes(&path));
    call("rm", [&"-r", &root]);

    // As `nix-store --optimise` leaves them, with another name of each inode in `.links`: then each may have more
    // in the closure too, and has to be remembered.
    call("cp", [&"-al", &path, &tmpfs.point.join("links")]);
    let root = export("copied, each inode with a name beside them", "copy");
    same(&store, &path, root.as_ref());
}

/// A line for each entry that is no directory, with its inode.
fn inodes(directory: &Path) -> String {
    let list =
        r#"cd "$1" && find . ! -type d -printf '%D %i %P\n' | LC_ALL=C sort | sha256sum && find . -printf . | wc -c"#;
    call("sh", [&"-c", &list, &"sh", &directory])
}
