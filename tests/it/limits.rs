//! Where a file system sets a limit: to the names of a file, to space, to who may link what.

use std::path::Path;

use indicatif::DecimalBytes;

use crate::support::{
    Entry, Export, FileSystem, Kind, Refusal, Store, Tree, folder, is_root, names, remove, root_for, set_mode,
};

/// ext4 allows so many names of one inode (`EXT4_LINK_MAX`).
const EXT4_LINK_MAX: u64 = 65_000;
const TOO_MANY_LINKS: &str = "EMLINK: Too many links";
const OTHER_OWNER: &str = "files of another user or group are copied, so that all of the root has one owner";

/// Gives `file` further names in `folder` until it has `links`.
fn fill_up(file: &Path, folder: &Path, links: u64) {
    fs_err::create_dir_all(folder).unwrap();
    for i in Entry::read(file).links..links {
        std::fs::hard_link(file, folder.join(i.to_string())).unwrap();
    }
    assert_eq!(Entry::read(file).links, links);
}

#[test]
fn a_file_at_its_link_limit_is_copied_once_by_auto_and_refused_by_hardlink() {
    let Some(ext4) = FileSystem::ext4(64) else { return };
    let store = Store::at(&ext4.point);
    let path = store.build("linked");
    let in_store = |name: &str| Entry::read(&path.join(name)).inode;
    // One more name is possible of the file, none of the symlink.
    fill_up(&path.join("one"), &ext4.point.join("file"), EXT4_LINK_MAX - 1);
    fill_up(&path.join("symlink-one"), &ext4.point.join("symlink"), EXT4_LINK_MAX);

    let root = ext4.point.join("root");
    let receipt = Export::new(&store).profile(&path).args(["--jobs", "1"]).root(&root).exports();
    let exported = |name: &str| Entry::read(&root.join(path.strip_prefix("/").unwrap()).join(name)).inode;
    let [mut names, symlinks] = [vec!["one", "two", "three", "other/four"], vec!["symlink-one", "symlink-two"]];
    names.sort_by_key(|name| exported(name) != in_store("one"));
    assert_eq!(exported(names[0]), in_store("one"), "the last name that the file system allows");
    assert_ne!(exported(names[1]), in_store("one"));
    assert_eq!([exported(names[2]), exported(names[3])], [exported(names[1]); 2], "names of the one copy");
    assert_ne!(exported(symlinks[0]), in_store(symlinks[0]));
    assert_eq!(exported(symlinks[0]), exported(symlinks[1]));
    assert_eq!(exported("single"), in_store("single"));

    assert_eq!((receipt.hard_linked.count, receipt.reflinked.count, receipt.copied.count), (2, 0, 5));
    let [refused, no_reflink] = receipt.refusals.as_slice() else { panic!("{:?}", receipt.refusals) };
    let expected = Refusal { method: "hardLink".into(), reason: TOO_MANY_LINKS.into(), count: 5 };
    assert_eq!((refused, no_reflink.method.as_str()), (&expected, "reflink"));
    crate::support::content(&store, &[&path], &root);

    remove(&root);
    // Now the file has no name left either, so it does not matter which of the two is met first.
    fill_up(&path.join("one"), &ext4.point.join("file"), EXT4_LINK_MAX);
    let file = store.build("file");
    fill_up(&file, &ext4.point.join("other"), EXT4_LINK_MAX);
    let message = format!(
        "export-profile: error: cannot hard link `{}`: Too many links (EMLINK)\n\
         hint: it has as many names as a file can have on ext4 at `{}`; `--link-mode auto` copies it\n",
        file.display(),
        ext4.point.display()
    );
    Export::new(&store).profile(&file).mode("hardlink").root(&root).fails(1, &message);
}

/// How many names a file gets in a root: an image of it may be unpacked on another file system.
const MOST_NAMES: u64 = 4000;

/// How many names each file of a root has that has more than one.
fn names_of_files(root: &Path) -> Vec<u64> {
    let mut names: Vec<u64> = Tree::read(root).shared_inodes().iter().map(|names| names.len() as u64).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_file_of_many_names_becomes_several_files() {
    // A tmpfs holds more names of a file than other file systems do.
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let store = Store::at(&tmpfs.point);
    let path = store.build("plain");
    fill_up(&path.join("share/file"), &path.join("names"), 2 * MOST_NAMES + 10);
    for mode in ["copy", "auto"] {
        let root = tmpfs.point.join(mode);
        let receipt = Export::new(&store).profile(&path).mode(mode).root(&root).exports();
        assert_eq!(receipt.bytes, 3 * "plain\n".len() as u64, "{mode}: three files");
        assert_eq!(names_of_files(&root.join(path.strip_prefix("/").unwrap())), [10, MOST_NAMES, MOST_NAMES], "{mode}");
        if mode == "auto" {
            let expected = Refusal { method: "hardLink".into(), reason: TOO_MANY_LINKS.into(), count: MOST_NAMES + 10 };
            assert_eq!(receipt.refusals[0], expected);
        }
    }
}

#[test]
fn dedup_makes_several_files_of_many_equal_ones() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let store = Store::at(&tmpfs.point);
    let path = store.build("throng");
    for mode in ["copy", "auto", "hardlink"] {
        let root = tmpfs.point.join(mode);
        let receipt = Export::new(&store).profile(&path).mode(mode).args(["--dedup"]).root(&root).exports();
        assert_eq!(receipt.deduplicated.count, 9000 - 3, "{mode}");
        let names = names_of_files(&root.join(path.strip_prefix("/").unwrap()));
        assert_eq!((names.len(), names[0], names[2]), (3, 1000, MOST_NAMES), "{mode}");
        remove(&root);
    }
}

#[test]
fn a_full_file_system_is_told_with_what_is_needed_and_where() {
    let (store, profile) = Store::shared();
    let needed = DecimalBytes(store.nar_size(profile)).to_string();
    for (options, free) in [
        ("size=4m,nr_inodes=8k,mode=755", "4.19 MB and 8191 inodes are"),
        ("size=64m,nr_inodes=100,mode=755", "67.11 MB and 99 inodes are"),
    ] {
        let Some(small) = FileSystem::tmpfs(options) else { return };
        let point = small.point.display();
        for (mode, jobs) in [("copy", "1"), ("auto", "4")] {
            let parent = Tree::read(&small.point).0.len();
            let outcome = Export::new(store)
                .profile(profile)
                .mode(mode)
                .args(["--jobs", jobs])
                .root(small.point.join("root"))
                .run();
            assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
            let start = format!(
                "export-profile: error: no space left on `{point}` (tmpfs): the closure needs up to {needed}, {free} free: cannot "
            );
            assert!(outcome.stderr.starts_with(&start), "{}", outcome.stderr);
            let (error, hint) = outcome.stderr.split_once('\n').unwrap();
            assert!(error.ends_with(": No space left on device (ENOSPC)"), "{error}");
            assert_eq!(hint, "hint: make room, or export to another file system; nothing was written\n");
            assert_eq!(Tree::read(&small.point).0.len(), parent, "something is left");
        }
    }
}

#[test]
fn a_full_ext4_is_left_as_it_was() {
    let Some(small) = FileSystem::ext4(8) else { return };
    let (store, profile) = Store::shared();
    let before = names(&small.point);
    let outcome = Export::new(store).profile(profile).mode("copy").root(small.point.join("root")).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    let start =
        format!("export-profile: error: no space left on `{}` (ext4): the closure needs up to ", small.point.display());
    assert!(outcome.stderr.starts_with(&start), "{}", outcome.stderr);
    assert_eq!(names(&small.point), before);
}

/// A store that root filled, with a database that any user can work with.
fn store_of_root() -> Option<(Store, std::path::PathBuf)> {
    if !root_for("a store of another user") {
        return None;
    }
    let (store, path) = Store::with("small");
    crate::support::call("chown", [&"-R", &"65534:65534", &store.state()]);
    Some((store, path))
}

#[test]
fn who_does_not_own_the_store_gets_copies_by_auto_and_an_error_by_hardlink() {
    let Some((store, path)) = store_of_root() else { return };
    assert!(is_root());
    let folder = folder();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let root = folder.path().join("root");
    let export = || Export::new(&store).by_nobody().args(["--jobs", "1"]).root(&root);

    let program = store.build("program");
    let before = Tree::read(folder.path()).0.len();
    let outcome = export().profile(&program).mode("hardlink").run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    let (error, hint) = outcome.stderr.split_once('\n').unwrap();
    let message =
        format!("cannot hard link `{}`: its owner is 0:0 and that of the root 65534:65534", program.display());
    assert_eq!(error, format!("export-profile: error: {message}"));
    assert_eq!(hint, "hint: `--link-mode auto` copies such files\n");
    assert_eq!(Tree::read(folder.path()).0.len(), before);

    let receipt = export().profile(&path).exports();
    assert_eq!((receipt.files, receipt.symlinks), (2, 1));
    assert_eq!((receipt.hard_linked.count, receipt.copied.count), (0, 3));
    let expected = Refusal { method: "hardLink".into(), reason: OTHER_OWNER.into(), count: 3 };
    assert_eq!(receipt.refusals[0], expected);
    crate::support::content(&store, &[&path], &root);
    for (name, entry) in Tree::read(&root).0 {
        assert_eq!(entry.owner, (65534, 65534), "{}", name.display());
    }
}

#[test]
fn who_owns_nothing_can_make_copies_of_the_whole_closure() {
    let Some((store, _)) = store_of_root() else { return };
    let profile = store.build("everything");
    crate::support::call("chown", [&"-R", &"65534:65534", &store.state()]);
    let folder = folder();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    set_mode(folder.path(), 0o700);
    let export = |name: &str| Export::new(&store).by_nobody().profile(&profile).root(folder.path().join(name));
    let receipt = export("first").exports();
    crate::support::content(&store, &[&profile], &folder.path().join("first"));
    assert_eq!(receipt.hard_linked.count, 0);

    // A draft of this user is cleared away by this user, though its directories are not writable.
    let left_over = folder.path().join(".second.nixkit-0123456789abcdef");
    fs_err::rename(folder.path().join("first"), &left_over).unwrap();
    export("second").exports();
    assert_eq!(names(folder.path()), ["second"]);
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_exported_verified_and_cleared_away() {
    let Some((store, _)) = store_of_root() else { return };
    let path = store.build("abyss");
    crate::support::call("chown", [&"-R", &"65534:65534", &store.state()]);
    let folder = folder();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let name = "x".repeat(200);
    let root = folder.path().join(&name);
    let export = || Export::new(&store).by_nobody().profile(&path).arg("--verify").root(&root);
    let receipt = export().exports();
    assert_eq!((receipt.files, receipt.directories, receipt.symlinks), (2, 20, 1));
    assert!(receipt.verified);
    // All of it is too long for one call, so what looks at it here must not be one either.
    let bottom =
        std::process::Command::new("find").arg(&root).args(["-name", "again", "-links", "2"]).output().unwrap();
    let bottom = String::from_utf8(bottom.stdout).unwrap();
    assert!(bottom.len() > 4096 && bottom.lines().count() == 1, "{bottom}");

    fs_err::rename(&root, folder.path().join(format!(".{name}.nixkit-0123456789abcdef"))).unwrap();
    export().exports();
    assert_eq!(names(folder.path()), [name]);
}
