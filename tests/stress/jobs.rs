//! The number of threads changes nothing in what is exported.

use std::path::Path;

use crate::compare::data;
use crate::place::say;
use crate::support::{Export, Kind, Receipt, Stocked, Tree, What, call, judge, stocked};

/// How often the threads of `--jobs 16` get the chance to disturb each other.
const TIMES: usize = 4;

#[test]
#[ignore = "under stress: `make stress`"]
fn one_job_and_sixteen_give_the_same_on_ext4() {
    same(Kind::Ext4, &["auto", "hardlink", "copy"]);
}

#[test]
#[ignore = "under stress: `make stress`"]
fn one_job_and_sixteen_give_the_same_on_xfs() {
    same(Kind::Xfs, &["auto", "hardlink", "reflink", "copy"]);
}

#[test]
#[ignore = "under stress: `make stress`"]
fn one_job_and_sixteen_give_the_same_on_btrfs() {
    same(Kind::Btrfs, &["auto", "hardlink", "reflink", "copy"]);
}

fn same(kind: Kind, modes: &[&str]) {
    let stocked = stocked(kind).expect("the file system can be mounted");
    for mode in modes {
        let folder = stocked.file_system.folder();
        let one = folder.path().join("1");
        let receipt = export(stocked, mode, 1, &one);
        judge(&stocked.store, &[&stocked.profile], &receipt);
        for _ in 0..TIMES {
            let many = folder.path().join("16");
            let other = export(stocked, mode, 16, &many);
            let counts = |receipt: &Receipt| Receipt { seconds: 0.0, root: String::new(), ..receipt.clone() };
            assert_eq!(counts(&other), counts(&receipt), "{kind:?} {mode}");
            assert_same(mode, stocked, &one, &many);
            crate::support::remove(&many);
        }
    }
    say(&format!("{kind:?}: one job and sixteen give the same by {}", modes.join(", ")));
}

fn export(stocked: &Stocked, mode: &str, jobs: u32, root: &Path) -> Receipt {
    let export =
        Export::new(&stocked.store).profile(&stocked.profile).mode(mode).env("SOURCE_DATE_EPOCH", "1700000000");
    export.arg(format!("--jobs={jobs}")).root(root).exports()
}

/// Everything but the numbers of inodes that are new: types, modes, times to the nanosecond, owners, sizes,
/// which names are one inode, bytes, and holes.
fn assert_same(mode: &str, stocked: &Stocked, one: &Path, many: &Path) {
    let trees = [one, many].map(Tree::read);
    assert_eq!(trees[0].shared_inodes(), trees[1].shared_inodes(), "{mode}: names of one inode");
    let in_store: std::collections::BTreeSet<_> =
        Tree::read(&stocked.store.directory).0.values().map(|entry| entry.inode).collect();
    let [here, there] = trees.map(|mut tree| {
        for entry in tree.0.values_mut() {
            // Those of the store stay to be compared.
            if !in_store.contains(&entry.inode) {
                entry.inode = (0, 0);
            }
            if entry.what == What::Directory {
                entry.size = 0;
            }
        }
        tree
    });
    for (path, entry) in &here.0 {
        assert_eq!(there.0.get(path), Some(entry), "{mode}: `{}`", path.display());
        if entry.what == What::File {
            assert_eq!(data(&many.join(path)), data(&one.join(path)), "{mode}: holes of `{}`", path.display());
        }
    }
    assert_eq!(here.0.len(), there.0.len());
    assert_eq!(call("diff", [&"-r", &"--no-dereference", &one, &many]), "");
}
