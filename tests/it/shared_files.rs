//! Roots with hard links and without: the same files, and what happens to the store that shares them.

use std::os::unix::fs::{chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Export, Refusal, Store, Tree, What, call, finish, folder, is_root, names, remove, root_for};

const OTHER_OWNER: &str = "files of another user or group are copied, so that all of the root has one owner";
const OTHER_MODE: &str = "files without the mode and time that Nix gives are copied";

/// A store with one of each kind of file, and where they are.
fn kinds() -> (Store, PathBuf) {
    let store = Store::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kinds.nix");
    let path = finish(store.command("nix-build").arg(file).arg("--no-out-link"));
    (store, path.into())
}

fn set_time(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let times = std::fs::FileTimes::new().set_modified(time);
    fs_err::File::open(path).unwrap().set_times(times).unwrap();
}

/// A tar archive of a root, as a builder makes a layer of it.
fn tar(root: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--numeric-owner", "--format=gnu", "--directory"]).arg(root).arg(".");
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_root_is_the_same_with_and_without_hard_links_whatever_the_files_of_the_store_have() {
    if !root_for("a file of another group") {
        return;
    }
    let (store, path) = kinds();
    let at = |name: &str| path.join(name);
    // What a builder that runs as root may leave of a Debian package, and a backup that keeps no times.
    chown(at("deep/er/1"), None, Some(5)).unwrap();
    chown(at("one"), None, Some(6)).unwrap();
    lchown(at("link"), None, Some(7)).unwrap();
    lchown(at("deep/dangling"), None, Some(8)).unwrap();
    set_time(&at("deep/er/2"), 9);
    let folder = folder();
    let export = |name: &str| Export::new(&store).profile(&path).args(["--jobs", "1"]).root(folder.path().join(name));
    let linked = export("linked").arg("--verify").exports();
    let copied = export("copied").mode("copy").exports();
    let root = |name: &str| folder.path().join(name);
    assert!(tar(&root("linked")) == tar(&root("copied")), "other archives");
    let inside = store.directory.strip_prefix("/").unwrap();
    for (name, entry) in Tree::read(&root("linked").join(inside)).0 {
        assert_eq!((entry.owner, entry.time), ((0, 0), (1, 0)), "{}", name.display());
    }
    // `one` has three names.
    let refusal = |reason: &str, count| Refusal { method: "hardLink".into(), reason: reason.into(), count };
    assert_eq!(linked.refusals[..2], [refusal(OTHER_OWNER, 6), refusal(OTHER_MODE, 1)]);
    assert_eq!((linked.copied.count, copied.copied.count), (7, linked.files + linked.symlinks));

    // Hard links alone cannot do that.
    for (file, why) in [
        ("deep/er/1", "its owner is 0:5 and that of the root 0:0"),
        ("deep/er/2", "it has mode 0444 and time 9 instead of 0444 and 1"),
    ] {
        let (store, path) = kinds();
        let file = path.join(file);
        if why.contains("owner") {
            chown(&file, None, Some(5)).unwrap();
        } else {
            set_time(&file, 9);
        }
        let message = format!(
            "export-profile: error: cannot hard link `{}`: {why}\nhint: `--link-mode auto` copies such files\n",
            file.display()
        );
        Export::new(&store).profile(&path).mode("hardlink").root(root("alone")).fails(1, &message);
    }
}

#[test]
fn a_store_of_another_user_is_copied() {
    if !root_for("a store of another user") {
        return;
    }
    let (store, path) = kinds();
    call("chown", [&"-hR", &"1234:1234", &path]);
    let folder = folder();
    let root = folder.path().join("root");
    // Nothing of it was changed: all of it has one owner.
    let receipt = Export::new(&store).profile(&path).arg("--verify").root(&root).exports();
    assert_eq!(receipt.hard_linked.count, 0);
    assert!(!receipt.shares_store);
    for (name, entry) in Tree::read(&root.join(store.directory.strip_prefix("/").unwrap())).0 {
        assert_eq!(entry.owner, (0, 0), "{}", name.display());
    }
}

#[test]
fn what_was_changed_through_a_hard_linked_root_is_noticed_and_can_be_restored() {
    let (store, path) = kinds();
    let before = Tree::read(&store.directory).shape();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| Export::new(&store).profile(&path).args(["--jobs", "2"]).root(at(name));
    let receipt = export("first").exports();
    assert!(receipt.shares_store);
    assert!(
        receipt.summary().ends_with("; the hard-linked files are the store's own, so never change them in place\n")
    );
    call("chmod", [&"-R", &"u+w", &at("first")]);

    let first = path.join("bin/sh");
    let start = format!("9 files in the store were changed: `{}` has mode 0755 instead of 0555", first.display());
    let hint = format!(
        "hint: a hard-linked root shares its files with the store, so `chmod` or `chown` there changes the store; \
         to restore the modes: find {} -type f -perm /222 -exec chmod a-w {{}} +\n",
        store.directory.display()
    );
    for mode in ["auto", "copy"] {
        let message = format!("export-profile: error: verification failed: {start}\n{hint}");
        export("second").mode(mode).arg("--verify").fails(1, &message);
        // Without it the root is right all the same, and the store's state a warning.
        let receipt = export("second")
            .mode(mode)
            .exports_with(&[format!("{start}; the root has copies with the right mode and owner")]);
        // Symlinks have no mode.
        assert_eq!(receipt.hard_linked.count, if mode == "auto" { 2 } else { 0 });
        remove(&at("second"));
    }
    let command = hint.trim_end().split_once("modes: ").unwrap().1;
    call("sh", [&"-c", &command]);
    export("second").arg("--verify").exports();

    if is_root() {
        call("chown", [&"-hR", &"1234", &at("second").join(store.directory.strip_prefix("/").unwrap())]);
        let owner = "has owner 1234 instead of 0";
        let outcome = export("third").arg("--verify").run();
        assert_eq!(outcome.status.code(), Some(1));
        assert!(outcome.stderr.lines().next().unwrap().ends_with(owner), "{}", outcome.stderr);
        call("chown", [&"-hR", &"0:0", &store.directory]);
    }
    assert!(Tree::read(&store.directory).shape() == before);
}

/// The commands of docs/export-profile.md that remove a root, one for each line.
fn removing() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/export-profile.md");
    let text = fs_err::read_to_string(page).unwrap();
    let section = text.split("## Removing a root").nth(1).expect("the section is gone");
    section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[test]
fn the_documented_command_removes_a_root_and_leaves_the_store_as_it_is() {
    let (store, path) = kinds();
    let before = Tree::read(&store.directory).shape();
    let folder = folder();
    let root = folder.path().join("root");
    let command = removing().replace("ROOT", root.to_str().unwrap());
    Export::new(&store).profile(&path).root(&root).exports();
    call("sh", [&"-ec", &command]);
    assert_eq!(names(folder.path()), [""; 0]);
    assert!(Tree::read(&store.directory).shape() == before);
    if !is_root() {
        return;
    }
    // A user who is not root owns the store and the root.
    call("chown", [&"-hR", &"65534:65534", &store.directory, &store.state(), &folder.path()]);
    let by_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let receipt = Export::new(&store).under(by_user).profile(&path).root(&root).exports();
    assert!(receipt.hard_linked.count > 0);
    call(by_user[0], [&by_user[1], &by_user[2], &by_user[3], &by_user[4], &by_user[5], &"sh", &"-ec", &command]);
    assert_eq!(names(folder.path()), [""; 0]);
    for (name, entry) in Tree::read(&store.directory).0 {
        if entry.what == What::File && name.starts_with(path.file_name().unwrap()) {
            assert!([0o444, 0o555].contains(&entry.mode), "{}", name.display());
        }
    }
}
