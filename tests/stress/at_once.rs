//! Many exports at one time from one store.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::compare::counted;
use crate::place::{on_disk, say};
use crate::support::{
    Export, FileSystem, Kind, Running, Store, Tree, call, drafts_beside, folder, judge, names, script,
};

const EXPORTS: usize = 20;

#[test]
#[ignore = "under stress: `make stress`"]
fn twenty_exports_at_once_are_all_right() {
    let ext4 = on_disk(Kind::Ext4, 4 << 10, "");
    let store = Store::at(&ext4.point);
    let profile = store.build("everything");
    store.optimise();
    // Directories keep the times that they have now; `.links` has changed while the store was filled.
    let before = Tree::read(&store.directory).shape();
    for (mode, linked) in [("hardlink", true), ("copy", false)] {
        at_once(&ext4, &store, &profile, mode, linked);
        assert!(Tree::read(&store.directory).shape() == before, "the store has changed");
    }
}

fn at_once(ext4: &FileSystem, store: &Store, profile: &PathBuf, mode: &str, linked: bool) {
    let place = ext4.folder();
    let bin = folder();
    // Each run asks Nix first, and hangs there until all have come so far; then all go on at one moment.
    let (ready, gate) = (bin.path().join("ready"), bin.path().join("gate"));
    mkfifo(&ready, Mode::S_IRWXU).unwrap();
    let closed = Flock::lock(fs_err::File::create(&gate).unwrap().into_parts().0, FlockArg::LockExclusive);
    let closed = closed.map_err(|(_, errno)| errno).unwrap();
    let real = which::which("nix-store").unwrap();
    let text = format!(
        "printf . >{}; exec 9<{}; flock --shared 9; exec 9<&-; exec {} \"$@\"",
        ready.display(),
        gate.display(),
        real.display()
    );
    script(&bin.path().join("nix-store"), &text);

    // Open for both, so that no run waits for a reader and the reader never meets the end.
    let mut arrivals = fs_err::OpenOptions::new().read(true).write(true).open(&ready).unwrap();
    let export = Export::new(store).nix_store_in(bin.path()).profile(profile).mode(mode).arg("--json");
    let roots: Vec<_> = (1..=EXPORTS).map(|number| place.path().join(format!("root-{number}"))).collect();
    let running: Vec<_> = roots.iter().map(|root| export.clone().root(root).start()).collect();
    arrivals.read_exact(&mut [0; EXPORTS]).unwrap();
    let started = Instant::now();
    drop(closed);
    let outcomes: Vec<_> = running.into_iter().map(Running::wait).collect();
    say(&format!("{EXPORTS} exports at once by {mode}: {:.2} s", started.elapsed().as_secs_f64()));

    let first = {
        let receipt = outcomes[0].receipt();
        judge(store, &[profile], &receipt);
        receipt
    };
    let whole = Tree::read(&roots[0]);
    for (root, outcome) in roots.iter().zip(outcomes) {
        let receipt = outcome.receipt();
        assert_eq!(outcome.stderr, receipt.summary());
        assert_eq!(receipt.root, root.to_str().unwrap());
        assert_eq!((receipt.hard_linked, receipt.copied), (first.hard_linked, first.copied));
        assert_eq!(linked, receipt.hard_linked.count == receipt.files + receipt.symlinks);
        counted(store, &receipt);
        let tree = Tree::read(root);
        assert!(tree.shape() == whole.shape(), "`{}` is another", root.display());
        assert_eq!(tree.shared_inodes(), whole.shared_inodes());
        if linked {
            // The same inodes, so the same bytes.
            let inodes = |tree: &Tree| tree.below(store.directory.strip_prefix("/").unwrap());
            let (one, other) = (inodes(&tree), inodes(&whole));
            let differ = |(path, entry): (&PathBuf, &crate::support::Entry)| {
                entry.what != crate::support::What::Directory && entry.inode != other.0[path].inode
            };
            assert!(!one.0.iter().any(differ), "a file that is none of the store's inodes");
        } else {
            assert_eq!(call("diff", [&"-r", &"--no-dereference", &roots[0], root]), "");
        }
        assert_eq!(drafts_beside(root), [""; 0]);
    }
    assert_eq!(names(place.path()).len(), EXPORTS, "something is left");
}
