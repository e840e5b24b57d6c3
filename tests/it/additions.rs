//! `--rootfs` and `--mkdir` of `export-profile`, and that an image gets the same of them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{
    Entry, Export, ImageExport, Store, Tree, What, call, folder, is_root, judge, root_for, set_mode, unpack,
};

/// Two folders to be laid over a root, below `place`.
fn folders(place: &Path) -> [PathBuf; 2] {
    let (first, second) = (place.join("first"), place.join("second"));
    for directory in [first.join("etc/app"), first.join("srv/data"), second.join("etc"), second.join("usr/bin")] {
        fs_err::create_dir_all(directory).unwrap();
    }
    fs_err::write(first.join("etc/app/conf"), "first").unwrap();
    fs_err::write(first.join("etc/hosts"), "9.9.9.9 mine\n").unwrap();
    fs_err::write(second.join("etc/hosts"), "8.8.8.8 theirs\n").unwrap();
    fs_err::write(first.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n").unwrap();
    fs_err::write(second.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    set_mode(&first.join("etc/app/conf"), 0o640);
    set_mode(&first.join("srv/data"), 0o770);
    set_mode(&second.join("usr/bin/tool"), 0o4755);
    // In place of the link into the profile.
    symlink("tool", second.join("usr/bin/env")).unwrap();
    [first, second]
}

const ADDED: [&str; 10] = [
    "--user",
    "app:7",
    "--mkdir",
    "/var/log/app:0750:app",
    "--mkdir",
    "/var/run/web:2775:web",
    "--mkdir",
    "/srv/data::web:app",
    "--mkdir",
    "/cache",
];

/// Place, mode, user and group of what must be there, and the text of files.
const EXPECTED: &[(&str, u32, (u32, u32), &str)] = &[
    ("etc/app", 0o755, (0, 0), ""),
    ("etc/app/conf", 0o640, (0, 0), "first"),
    ("etc/hosts", 0o644, (0, 0), "8.8.8.8 theirs\n"),
    (
        "etc/passwd",
        0o644,
        (0, 0),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\napp:x:7:7:app:/home/app:/bin/sh\n",
    ),
    ("usr/bin/tool", 0o4755, (0, 0), "#!/bin/sh\n"),
    ("var/log/app", 0o750, (7, 7), ""),
    ("run/web", 0o2775, (33, 44), ""),
    ("srv/data", 0o770, (33, 7), ""),
    ("cache", 0o755, (0, 0), ""),
    ("home/app", 0o755, (7, 7), ""),
];

#[test]
fn folders_and_directories_are_added_with_their_modes_and_owners() {
    let store = Store::new();
    let path = store.build("everything");
    let folder = folder();
    let [first, second] = folders(folder.path());
    let export = Export::new(&store).profile(&path).arg("--rootfs").arg(&first).arg("--rootfs").arg(&second);
    let export = export.args(ADDED).env("SOURCE_DATE_EPOCH", "5");
    let root = folder.path().join("roots/root");
    fs_err::create_dir(folder.path().join("roots")).unwrap();
    if !is_root() {
        let run = export.root(&root).run();
        assert!(run.stderr.contains("`/var/log/app` belongs to you: only root can give a directory"), "{}", run.stderr);
        return;
    }
    let receipt = export.clone().root(&root).exports();
    judge(&store, &[&path], &receipt);
    let tree = Tree::read(&root);
    for (place, mode, owner, text) in EXPECTED {
        let Entry { mode: found, owner: whose, time, .. } = tree.0[Path::new(place)].clone();
        assert_eq!((found, whose, time), (*mode, *owner, (5, 0)), "{place}");
        if !text.is_empty() {
            assert_eq!(fs_err::read_to_string(root.join(place)).unwrap(), *text, "{place}");
        }
    }
    assert_eq!(tree.0[Path::new("usr/bin/env")].what, What::Symlink("tool".into()));
    assert_eq!(tree.0[Path::new("var/run")].what, What::Symlink("../run".into()));

    // In layers, in the last.
    let layers = folder.path().join("roots/layers");
    export.args(["--layers", "3", "--quiet"]).root(&layers).run();
    let last = Tree::read(&layers.join("2"));
    for place in EXPECTED.iter().map(|(place, ..)| Path::new(place)) {
        assert_eq!(last.0[place].mode, tree.0[place].mode, "{}", place.display());
        assert_eq!(last.0[place].owner, tree.0[place].owner, "{}", place.display());
    }
}

#[test]
fn an_image_gets_the_same_additions() {
    if !root_for("umoci") {
        return;
    }
    let store = Store::new();
    let path = store.build("everything");
    let folder = folder();
    let [first, second] = folders(folder.path());
    let export = Export::new(&store).profile(&path).arg("--rootfs").arg(&first).arg("--rootfs").arg(&second);
    let root = folder.path().join("root");
    export.args(ADDED).root(&root).exports();
    let image = ImageExport::new(&store, &path, folder.path().join("layout")).arg("--rootfs").arg(&first);
    image.arg("--rootfs").arg(&second).args(ADDED).args(["--tag", "x", "--compression", "none"]).exports();
    let unpacked = unpack(&folder.path().join("layout"), "x", &folder.path().join("bundle"));
    let shape = |root: &Path| {
        let mut shape = Tree::read(root).shape();
        // A file system's own sizes of directories.
        shape.retain(|path, _| !path.as_os_str().is_empty());
        shape.values_mut().filter(|(what, ..)| *what == What::Directory).for_each(|(.., size)| *size = 0);
        shape
    };
    assert!(shape(&root) == shape(&unpacked));
}

#[test]
fn what_cannot_be_added_is_said_and_nothing_is_written() {
    let (store, path) = Store::with("plain");
    let folder = folder();
    let root = folder.path().join("root/root");
    fs_err::create_dir(folder.path().join("root")).unwrap();
    let at = |name: &str| folder.path().join(name);
    fs_err::create_dir_all(at("store").join(store.directory.strip_prefix("/").unwrap()).join("x")).unwrap();
    fs_err::write(at("file"), "").unwrap();
    fs_err::create_dir(at("pipe")).unwrap();
    nix::unistd::mkfifo(&at("pipe/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let export = Export::new(&store).profile(&path).root(&root);
    for (arguments, status, words) in [
        (["--rootfs", "missing"], 1, "cannot lay `missing` over the root"),
        (["--rootfs", at("file").to_str().unwrap()], 1, "cannot lay `"),
        (["--rootfs", at("store").to_str().unwrap()], 1, "would lie in the store"),
        (["--rootfs", at("pipe").to_str().unwrap()], 1, "file, directory or symlink"),
        (["--mkdir", "var"], 2, "`var` is not an absolute path"),
        (["--mkdir", "/x:999"], 2, "`999` is not a mode: give up to four octal digits, such as 0750"),
        (
            ["--mkdir", "/x::me"],
            1,
            "cannot make `--mkdir /x::me`: the root's `/etc/passwd` has no user `me`\nhint: add it",
        ),
        (["--mkdir", "/x:::me"], 1, "the root's `/etc/group` has no group `me`"),
        (["--mkdir", "/etc/passwd"], 1, "`/etc/passwd` is a file"),
        (["--mkdir", store.directory.to_str().unwrap()], 1, "is in the store, to which nothing can be added"),
        (["--mkdir", "/nix/profile/x"], 1, "is in the store, to which nothing can be added"),
    ] {
        let before = Tree::read(folder.path());
        let outcome = export.clone().args(arguments).run();
        assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(status), ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(words), "no `{words}` in:\n{}", outcome.stderr);
        assert_eq!(Tree::read(folder.path()), before);
    }
}

#[test]
fn only_root_gives_directories_away() {
    let (store, path) = Store::with("plain");
    if !root_for("another user") {
        return;
    }
    call("chown", [&"-R", &"65534:65534", &store.state()]);
    let folder = folder();
    set_mode(folder.path(), 0o777);
    let root = folder.path().join("root");
    let export =
        Export::new(&store).profile(&path).by_nobody().args(["--mkdir", "/data:0700:7", "--mkdir", "/own:0700"]);
    let warning = "`/data` belongs to you: only root can give a directory to another user".to_owned();
    export.mode("copy").root(&root).exports_with(&[warning]);
    for place in ["data", "own"] {
        let Entry { mode, owner, .. } = Entry::read(&root.join(place));
        assert_eq!((mode, owner.0), (0o700, 65534), "{place}");
    }
}
