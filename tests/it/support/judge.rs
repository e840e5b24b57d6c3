//! What must hold of every exported root, judged by Nix and by what lies on the disk.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{BesideStore, Receipt, Store, Tree, What, finish, folder, is_root};

/// Compares the root that `receipt` tells of with the store, and returns the root's store as a tree.
pub(crate) fn judge(store: &Store, profiles: &[&Path], receipt: &Receipt) -> Tree {
    let root = Path::new(&receipt.root);
    let closure: BTreeSet<PathBuf> = profiles.iter().flat_map(|profile| store.closure(profile)).collect();
    let closure: Vec<PathBuf> = closure.into_iter().collect();
    let original = Tree::of(&store.directory, &closure);
    let whole = Tree::read(root);
    let exported = whole.below(store.directory.strip_prefix("/").unwrap());

    assert_eq!(exported.shape(), as_stored(&original).shape());
    assert_eq!(exported.shared_inodes(), original.shared_inodes(), "names of one inode");
    counts(receipt, &exported, &whole, closure.len());
    methods(receipt, &exported, &original);
    content(store, profiles, root);
    exported
}

/// As Nix has it, were everything owned by whoever runs the tests.
fn as_stored(original: &Tree) -> Tree {
    let owner = if is_root() { (0, 0) } else { (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()) };
    let mut tree = original.clone();
    for entry in tree.0.values_mut() {
        let modes: &[u32] = match entry.what {
            What::Directory => &[0o555],
            What::File => &[0o444, 0o555],
            What::Symlink(_) => &[0o777],
            What::Special => &[],
        };
        assert!(modes.contains(&entry.mode) && entry.time == (1, 0), "the store itself is not as Nix leaves it");
        entry.owner = owner;
    }
    tree
}

fn counts(receipt: &Receipt, exported: &Tree, whole: &Tree, store_paths: usize) {
    let counted = (receipt.store_paths, receipt.files, receipt.directories, receipt.symlinks, receipt.bytes);
    let there = (store_paths as u64, exported.files(), exported.directories(), exported.symlinks(), exported.bytes());
    assert_eq!(counted, there, "paths, files, directories, symlinks, bytes");
    let BesideStore { directories, symlinks, files } = receipt.beside_store;
    // The root itself is a directory too.
    let there = [
        whole.directories() - exported.directories() - 1,
        whole.symlinks() - exported.symlinks(),
        whole.files() - exported.files(),
    ];
    assert_eq!([directories, symlinks, files], there, "directories, symlinks and files beside the store");
}

/// Every name has come in one way, and those that are counted as hard links, and no others, are the store's inodes.
fn methods(receipt: &Receipt, exported: &Tree, original: &Tree) {
    let ways = [receipt.hard_linked, receipt.reflinked, receipt.copied];
    assert_eq!(ways.iter().map(|way| way.count).sum::<u64>(), receipt.files + receipt.symlinks);
    assert_eq!(ways.iter().map(|way| way.bytes).sum::<u64>(), receipt.bytes);
    let linked = exported
        .0
        .iter()
        .filter(|(path, entry)| entry.what != What::Directory && original.0[*path].inode == entry.inode)
        .count();
    assert_eq!(linked as u64, receipt.hard_linked.count, "names that are inodes of the store");
}

/// Nix itself compares every NAR hash below `root` with the registered one.
pub(crate) fn content(store: &Store, profiles: &[&Path], root: &Path) {
    let state = folder();
    let real = root.join(store.directory.strip_prefix("/").unwrap());
    let before = Tree::read(&real);
    let url = format!("local?real={}&state={}&log={}", real.display(), state.path().display(), state.path().display());
    let registration: String = profiles.iter().map(|profile| store.registration(profile)).collect();
    let mut load = store.nix_store();
    load.arg("--load-db").env("NIX_REMOTE", &url).stdin(Stdio::piped());
    let mut load = load.spawn().unwrap();
    load.stdin.take().unwrap().write_all(registration.as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());

    let verify = store.nix_store().args(["--verify", "--check-contents"]).env("NIX_REMOTE", &url).output().unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success(), "{said}");
    let errors: Vec<_> = said.lines().filter(|line| !line.ends_with("...")).collect();
    assert_eq!(errors, [""; 0], "nix-store --verify --check-contents");
    let mut valid = store.nix_store();
    let valid = finish(valid.args(["--query", "--requisites"]).args(profiles).env("NIX_REMOTE", &url));
    assert_eq!(valid.lines().count(), store_paths(&before));

    // Opening the store has made `.links`; a root is judged as it was.
    fs_err::remove_dir(real.join(".links")).unwrap();
    let times = fs_err::File::open(&real).unwrap();
    let time = before.0[Path::new("")].time.0;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.try_into().unwrap());
    times.set_times(std::fs::FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(Tree::read(&real).shape(), before.shape());
}

/// How many store paths lie in a store directory.
fn store_paths(store: &Tree) -> usize {
    store.0.keys().filter(|path| path.iter().count() == 1).count()
}
