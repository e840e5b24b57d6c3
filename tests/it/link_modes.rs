//! Every link mode on every file system: what the receipt says is what lies on the disk.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Entry, Export, FileSystem, Kind, Receipt, Refusal, Stocked, Tree, What, content, finish, judge, stocked,
};

const LOWER_LAYER: &str = "store paths in a lower layer of overlayfs are faster copied than linked";
const UNKNOWN_LAYER: &str =
    "overlayfs does not tell the layer of these store paths, and from a lower one a link is slow";
const NOT_SUPPORTED: &str = "EOPNOTSUPP: Not supported by this file system";
const CROSS_DEVICE: &str = "EXDEV: Cross-device link";

fn refusal(method: &str, reason: &str, count: u64) -> Refusal {
    Refusal { method: method.into(), reason: reason.into(), count }
}

/// Names that were hard-linked, reflinked and copied.
fn counts(receipt: &Receipt) -> (u64, u64, u64) {
    (receipt.hard_linked.count, receipt.reflinked.count, receipt.copied.count)
}

/// The inodes of the store keep everything but the number of their names.
fn assert_untouched(store: &Path, before: &Tree) {
    let mut after = Tree::read(store);
    for (path, entry) in &mut after.0 {
        entry.links = before.0[path].links;
    }
    assert!(&after == before, "the store has changed");
}

/// Exports the whole fixture to its own file system and judges what came of it.
fn export(stocked: &Stocked, mode: &str, jobs: u32) -> Receipt {
    let folder = stocked.file_system.folder();
    let export = Export::new(&stocked.store).profile(&stocked.profile).mode(mode).arg(format!("--jobs={jobs}"));
    let receipt = export.root(folder.path().join("root")).exports();
    let exported = judge(&stocked.store, &[&stocked.profile], &receipt);
    let (names, shared) = (exported.0.len(), exported.shared_inodes().len());
    assert!(names > 2900 && shared > 8, "the fixture is too poor: {names} names, {shared} with others");
    // What lies in a layer of a container goes with it.
    assert_eq!(receipt.shares_store, receipt.hard_linked.count > 0 && !stocked.kind.is_overlay());
    receipt
}

fn refuses(stocked: &Stocked, mode: &str, errno: &str) {
    let folder = stocked.file_system.folder();
    let outcome = Export::new(&stocked.store)
        .profile(&stocked.profile)
        .mode(mode)
        .args(["--jobs", "1"])
        .root(folder.path().join("root"))
        .run();
    let (name, type_name) = match mode {
        "reflink" => ("reflink", stocked.type_name()),
        _ => ("hard link", stocked.type_name()),
    };
    let point = stocked.file_system.point.display();
    let store = stocked.store.directory.display();
    let hint = format!(
        "hint: no {name} is possible on {type_name} at `{point}`; use `--link-mode auto`, or `copy`, instead of `{mode}`\n"
    );
    let (first, second) = outcome.stderr.split_once('\n').unwrap();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(first.starts_with(&format!("export-profile: error: cannot {name} `{store}/")), "{first}");
    assert!(first.ends_with(&format!("`: {errno}")), "{first}");
    assert_eq!(second, hint);
    assert_eq!(crate::support::names(folder.path()), [""; 0], "nothing is left");
}

#[test]
fn ext4_links_and_copies_and_refuses_reflinks() {
    links_and_copies(Kind::Ext4);
}

#[test]
fn tmpfs_links_and_copies_and_refuses_reflinks() {
    links_and_copies(Kind::Tmpfs);
}

fn links_and_copies(kind: Kind) {
    let Some(stocked) = stocked(kind) else { return };
    for mode in ["auto", "hardlink", "copy"] {
        let before = Tree::read(&stocked.store.directory);
        let receipt = export(stocked, mode, 4);
        let names = receipt.files + receipt.symlinks;
        assert_eq!(counts(&receipt), if mode == "copy" { (0, 0, names) } else { (names, 0, 0) }, "{mode}");
        assert_eq!(receipt.refusals, [], "{mode}");
        assert_untouched(&stocked.store.directory, &before);
    }
    refuses(stocked, "reflink", "Not supported by this file system (EOPNOTSUPP)");
}

#[test]
fn xfs_does_all_that_is_asked() {
    all_modes(Kind::Xfs);
}

#[test]
fn btrfs_does_all_that_is_asked() {
    all_modes(Kind::Btrfs);
}

fn all_modes(kind: Kind) {
    let Some(stocked) = stocked(kind) else { return };
    for mode in ["auto", "hardlink", "reflink", "copy"] {
        let before = Tree::read(&stocked.store.directory);
        let receipt = export(stocked, mode, 4);
        let (files, symlinks) = (receipt.files, receipt.symlinks);
        let expected = match mode {
            // A symlink has no data to share.
            "reflink" => (0, files, symlinks),
            "copy" => (0, 0, files + symlinks),
            _ => (files + symlinks, 0, 0),
        };
        assert_eq!(counts(&receipt), expected, "{mode}");
        assert_eq!(receipt.refusals, [], "{mode}");
        assert_untouched(&stocked.store.directory, &before);
    }
}

#[test]
fn a_reflinked_file_shares_its_data_with_the_store() {
    for kind in [Kind::Xfs, Kind::Btrfs] {
        let Some(stocked) = stocked(kind) else { return };
        let folder = stocked.file_system.folder();
        let root = folder.path().join("root");
        let path = stocked.path("sizes");
        Export::new(&stocked.store).profile(&path).mode("reflink").root(&root).exports();
        let extents = |path: &Path| {
            let text = finish(Command::new("filefrag").args(["-s", "-v"]).arg(path.join("size-5000001")));
            let extent = |line: &str| {
                let mut fields = line.split(':');
                let number = fields.next()?.trim().parse::<u32>().is_ok();
                number.then(|| (fields.nth(1).unwrap().trim().to_owned(), line.contains("shared")))
            };
            text.lines().filter_map(extent).collect::<Vec<_>>()
        };
        let (original, exported) = (extents(&path), extents(&root.join(path.strip_prefix("/").unwrap())));
        assert!(!original.is_empty() && original.iter().all(|(_, shared)| *shared), "{kind:?}: {original:?}");
        assert_eq!(original, exported, "{kind:?}");
    }
}

#[test]
fn in_the_upper_layer_of_overlayfs_store_paths_are_linked() {
    let Some(stocked) = stocked(Kind::OverlayUpper) else { return };
    let single = ["file", "program", "link"].map(|name| Entry::read(&stocked.path(name)).inode);
    let closure = Tree::of(&stocked.store.directory, &stocked.store.closure(&stocked.profile));
    // Of a store path that is no directory overlayfs does not tell the layer, and one inode stays one.
    let may_be_copied = closure.count(|entry| single.contains(&entry.inode));
    // What `nix-store --optimise` makes one inode differs between versions of Nix.
    assert!(may_be_copied > single.len() as u64, "no other name of them was made one inode with them");

    let before = Tree::read(&stocked.store.directory);
    for jobs in [1, 4] {
        let receipt = export(stocked, "auto", jobs);
        let names = receipt.files + receipt.symlinks;
        let (linked, reflinked, copied) = counts(&receipt);
        assert_eq!((linked + copied, reflinked), (names, 0));
        assert!((1..=may_be_copied).contains(&copied), "{copied} copied");
        assert_eq!(receipt.refusals[0], refusal("hardLink", UNKNOWN_LAYER, 3));
        assert_untouched(&stocked.store.directory, &before);

        for (mode, expected) in [("hardlink", (names, 0, 0)), ("copy", (0, 0, names))] {
            let receipt = export(stocked, mode, jobs);
            assert_eq!((counts(&receipt), receipt.refusals.as_slice()), (expected, &[][..]), "{mode}");
            assert_untouched(&stocked.store.directory, &before);
        }
    }
    refuses(stocked, "reflink", "Not supported by this file system (EOPNOTSUPP)");
}

#[test]
fn in_a_lower_layer_of_overlayfs_store_paths_are_copied() {
    let refusals = [refusal("hardLink", LOWER_LAYER, 6), refusal("hardLink", UNKNOWN_LAYER, 3)];
    copied_from_lower_layer(Kind::OverlayLower, &refusals);
}

#[test]
fn where_overlayfs_can_rename_lower_directories_all_is_taken_to_be_lower() {
    copied_from_lower_layer(Kind::OverlayRedirect, &[refusal("hardLink", UNKNOWN_LAYER, 9)]);
}

fn copied_from_lower_layer(kind: Kind, refusals: &[Refusal]) {
    let Some(stocked) = stocked(kind) else { return };
    let before = Tree::read(&stocked.store.directory);
    for mode in ["auto", "copy"] {
        let receipt = export(stocked, mode, 1);
        assert_eq!(counts(&receipt), (0, 0, receipt.files + receipt.symlinks), "{mode}");
        let expected = [refusals, &[refusal("reflink", NOT_SUPPORTED, 1)]].concat();
        assert_eq!(receipt.refusals, if mode == "auto" { expected } else { Vec::new() }, "{mode}");
        // Nothing was copied up: even the inode numbers are as they were.
        assert!(Tree::read(&stocked.store.directory) == before, "the store has changed");
    }
    refuses(stocked, "reflink", "Not supported by this file system (EOPNOTSUPP)");
}

#[test]
fn hard_links_from_a_lower_layer_keep_the_names_of_one_inode_together() {
    // In one of its own: hard links copy the store up.
    for kind in [Kind::OverlayLower, Kind::OverlayRedirect] {
        let Some(stocked) = Stocked::anew(kind) else { return };
        let folder = stocked.file_system.folder();
        let root = folder.path().join("root");
        let closure = stocked.store.closure(&stocked.profile);
        let before = Tree::of(&stocked.store.directory, &closure);
        // One thread: the kernel restores a directory's time after each copy-up, and two at once can spoil it.
        let export = Export::new(&stocked.store).profile(&stocked.profile).mode("hardlink").args(["--jobs", "1"]);
        let receipt = export.root(&root).exports();
        let exported = Tree::read(&root).below(stocked.store.directory.strip_prefix("/").unwrap());
        assert_eq!(exported.shared_inodes(), before.shared_inodes(), "{kind:?}");
        assert!(exported.shape() == before.shape(), "{kind:?}");
        assert!(Tree::of(&stocked.store.directory, &closure).shape() == before.shape(), "{kind:?}");
        assert_eq!(counts(&receipt), (exported.files() + exported.symlinks(), 0, 0), "{kind:?}");
        assert_eq!(receipt.bytes, exported.bytes(), "{kind:?}");
        content(&stocked.store, &[&stocked.profile], &root);
    }
}

#[test]
fn auto_copies_across_file_systems_and_the_receipt_says_why() {
    let Some(stocked) = stocked(Kind::Ext4) else { return };
    let Some(other) = FileSystem::new(Kind::Tmpfs) else { return };
    let root = other.point.join("root");
    let export = Export::new(&stocked.store).profile(&stocked.profile).args(["--jobs", "1"]);
    let receipt = export.root(&root).exports();
    judge(&stocked.store, &[&stocked.profile], &receipt);
    assert_eq!(counts(&receipt), (0, 0, receipt.files + receipt.symlinks));
    let refusals = [refusal("hardLink", CROSS_DEVICE, 1), refusal("reflink", CROSS_DEVICE, 1)];
    assert_eq!(receipt.refusals, refusals);
    assert!(!receipt.shares_store);
    // The summary is one plain line; the reasons are for whoever asks.
    let root = other.point.join("again");
    let outcome = Export::new(&stocked.store).profile(&stocked.profile).arg("--verbose").root(&root).run();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let [.., summary, links, reflinks] = lines.as_slice() else { panic!("{}", outcome.stderr) };
    assert!(summary.contains(" copied (") && !summary.contains("EXDEV"), "{summary}");
    assert_eq!(*links, format!("export-profile: hard links refused: {CROSS_DEVICE}"));
    assert_eq!(*reflinks, format!("export-profile: reflinks refused: {CROSS_DEVICE}"));
}

#[test]
fn from_overlayfs_to_another_file_system_nothing_is_said_of_layers() {
    let Some(stocked) = stocked(Kind::OverlayUpper) else { return };
    let Some(other) = FileSystem::new(Kind::Tmpfs) else { return };
    let export = Export::new(&stocked.store).profile(&stocked.profile).args(["--jobs", "1"]);
    let receipt = export.root(other.point.join("root")).exports();
    judge(&stocked.store, &[&stocked.profile], &receipt);
    assert_eq!(receipt.refusals[0], refusal("hardLink", CROSS_DEVICE, 1));
}

#[test]
fn a_mode_that_was_asked_for_by_name_does_not_copy_across_file_systems() {
    let Some(stocked) = stocked(Kind::Btrfs) else { return };
    let Some(other) = FileSystem::new(Kind::Tmpfs) else { return };
    let (from, to) = (stocked.file_system.point.display(), other.point.display());
    for (mode, name) in [("hardlink", "hard link"), ("reflink", "reflink")] {
        // A store path that is a file, so that the first name to be refused is known.
        let path = stocked.path("file");
        let stderr = format!(
            "export-profile: error: cannot {name} `{}`: Cross-device link (EXDEV)\n\
             hint: no {name} is possible between btrfs at `{from}` and tmpfs at `{to}`; use `--link-mode auto`, or `copy`, \
             instead of `{mode}`\n",
            path.display()
        );
        let export = Export::new(&stocked.store).profile(&path).mode(mode);
        export.root(other.point.join("root")).fails(1, &stderr);
    }
}

#[test]
fn a_copy_of_a_sparse_file_has_its_holes() {
    let Some(stocked) = stocked(Kind::Ext4) else { return };
    let Some(other) = FileSystem::tmpfs("size=16m") else { return };
    let path = stocked.path("sizes");
    let root = other.point.join("root");
    let receipt = Export::new(&stocked.store).profile(&path).mode("copy").arg("--bare").root(&root).exports();
    judge(&stocked.store, &[&path], &receipt);
    let sparse = root.join(path.strip_prefix("/").unwrap()).join("sparse");
    let metadata = fs_err::metadata(sparse).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
    assert_eq!(metadata.len(), 8 << 20);
    assert!(blocks * 512 <= 64 << 10, "{blocks} blocks");
    assert_eq!(Tree::read(&root).count(|entry| entry.what == What::File), 10);
}
