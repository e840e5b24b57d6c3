//! KILL at any moment, and what the next run does about what a dead one has left.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::support::{
    Export, FileSystem, Running, Store, Tree, drafts_beside, folder, judge, names, remove, root_for, same_shape,
    set_mode,
};

const MOMENTS: u32 = 60;
const DRAFT: &str = ".root.nixkit-0123456789abcdef";

/// Kills a run of `export` at moments spread over its duration, every second one counted from when it has
/// begun to write. After each, ROOT is absent or `whole`.
fn kill_at_many_moments(export: &Export, root: &Path, moments: u32, whole: &Tree) {
    let duration = (0..3).map(|_| duration(export, root)).min().unwrap();
    let mut left_over = 0;
    for moment in 0..moments {
        let mut running = export.start();
        while moment % 2 == 1 && !running.has_ended() && drafts_beside(root).is_empty() {}
        // Not to wait for anything: the moment itself is what is tested.
        std::thread::sleep(duration * moment / moments / (1 + moment % 2));
        running.signal_if_it_lives(Signal::SIGKILL);
        running.wait();
        left_over += u32::from(!drafts_beside(root).is_empty());
        if root.exists() {
            same_shape(&Tree::read(root).shape(), &whole.shape());
            remove(root);
        }
    }
    assert!(left_over > 0, "no kill came while it was writing");
    export.run().is(0, "", "");
    same_shape(&Tree::read(root).shape(), &whole.shape());
    assert_eq!(drafts_beside(root), [""; 0]);
}

/// Of a complete run, whose root is removed.
fn duration(export: &Export, root: &Path) -> Duration {
    let started = Instant::now();
    export.run().is(0, "", "");
    let duration = started.elapsed();
    remove(root);
    duration
}

#[test]
fn after_a_kill_the_root_is_absent_or_complete_and_the_next_run_cleans_up() {
    let (store, profile) = Store::shared();
    let folder = folder();
    for (mode, jobs) in [("copy", "1"), ("auto", "2")] {
        let root = folder.path().join("root");
        let export = Export::new(store).profile(profile).mode(mode).args(["--jobs", jobs]).root(&root);
        judge(store, &[profile], &export.exports());
        let whole = Tree::read(&root);
        remove(&root);
        kill_at_many_moments(&export.arg("--quiet"), &root, MOMENTS / 2, &whole);
        remove(&root);
    }
}

/// An export to `root` in a new folder beside which a left-over may lie.
struct Case {
    store: &'static (Store, std::path::PathBuf),
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { store: Store::shared(), folder: folder() }
    }

    fn draft(&self) -> std::path::PathBuf {
        self.folder.path().join(DRAFT)
    }

    fn export(&self) -> Export {
        Export::new(&self.store.0).profile(&self.store.1).root(self.folder.path().join("root"))
    }

    /// It succeeds, with this before the summary, and removes nothing that `names` does not.
    fn leaves(&self, warning: Option<&str>, expected: &[&str]) {
        let outcome = self.export().arg("--json").run();
        let receipt = outcome.receipt();
        let warning = warning.map(|warning| format!("export-profile: warning: {warning}\n")).unwrap_or_default();
        assert_eq!(outcome.stderr, warning + &receipt.summary());
        assert_eq!(names(self.folder.path()), expected);
        judge(&self.store.0, &[&self.store.1], &receipt);
    }
}

#[test]
fn what_a_dead_run_left_is_removed_without_following_links() {
    let case = Case::new();
    let outside = folder();
    fs_err::write(outside.path().join("kept"), "kept").unwrap();
    let inside = case.draft().join("nix/store/x");
    fs_err::create_dir_all(&inside).unwrap();
    symlink(outside.path(), inside.join("link")).unwrap();
    symlink(outside.path().join("kept"), case.draft().join("file")).unwrap();
    std::fs::hard_link(outside.path().join("kept"), inside.join("kept")).unwrap();
    set_mode(&inside, 0o555);
    set_mode(&case.draft(), 0o700);
    // Other roots', and names that only look like a draft's.
    let others = [".other.nixkit-0123456789abcdef", ".root.nixkit-0123456789abcde", ".root.nixkit-0123456789abcdefg"];
    for other in others {
        fs_err::create_dir(case.folder.path().join(other)).unwrap();
    }
    let before = Tree::read(outside.path());
    case.leaves(None, &[others[0], others[1], others[2], "root"]);
    let mut after = Tree::read(outside.path());
    after.0.get_mut(Path::new("kept")).unwrap().links += 1;
    assert_eq!(after, before);
}

#[test]
fn the_draft_of_a_run_that_lives_stays() {
    let case = Case::new();
    fs_err::create_dir(case.draft()).unwrap();
    let folder = std::fs::File::open(case.draft()).unwrap();
    let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap();
    case.leaves(None, &[DRAFT, "root"]);
    // Once it is dead, its draft goes.
    drop(lock);
    remove(&case.folder.path().join("root"));
    case.leaves(None, &["root"]);
}

#[test]
fn what_is_not_ours_stays_with_a_warning() {
    let not_ours = |case: &Case| format!("`{}` is not ours and stays", case.draft().display());

    let case = Case::new();
    fs_err::write(case.draft(), "mine").unwrap();
    case.leaves(Some(&not_ours(&case)), &[DRAFT, "root"]);

    let case = Case::new();
    let target = folder();
    fs_err::write(target.path().join("kept"), "").unwrap();
    symlink(target.path(), case.draft()).unwrap();
    case.leaves(Some(&not_ours(&case)), &[DRAFT, "root"]);
    assert_eq!(names(target.path()), ["kept"]);

    if !root_for("a folder of another user") {
        return;
    }
    let case = Case::new();
    fs_err::create_dir(case.draft()).unwrap();
    std::os::unix::fs::chown(case.draft(), Some(65534), None).unwrap();
    case.leaves(Some(&not_ours(&case)), &[DRAFT, "root"]);
}

#[test]
fn a_left_over_with_something_mounted_in_it_stays_with_a_warning() {
    let case = Case::new();
    let Some(tmpfs) = FileSystem::tmpfs("size=1m") else { return };
    fs_err::write(tmpfs.point.join("kept"), "").unwrap();
    let point = case.draft().join("mnt");
    fs_err::create_dir_all(&point).unwrap();
    crate::support::call("mount", [&"--bind", &tmpfs.point, &point]);
    let warning = format!("`{}` of a dead run stays: something is mounted in it", case.draft().display());
    case.leaves(Some(&warning), &[DRAFT, "root"]);
    assert_eq!(names(&point), ["kept"]);
    crate::support::call("umount", [&point]);
}

#[test]
fn an_export_that_is_refused_clears_nothing_away_but_what_is_dead() {
    let case = Case::new();
    fs_err::create_dir_all(case.draft().join("nix")).unwrap();
    fs_err::create_dir(case.folder.path().join("root")).unwrap();
    fs_err::write(case.folder.path().join("root/mine"), "").unwrap();
    let outcome = case.export().arg("--dry-run").run();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(names(case.folder.path()), [DRAFT, "root"], "a dry run removes nothing");
    let outcome = case.export().run();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(names(case.folder.path()), ["root"]);
    assert_eq!(names(&case.folder.path().join("root")), ["mine"]);
}

#[test]
fn runs_at_one_time_for_one_root_do_not_disturb_each_other() {
    let case = Case::new();
    let root = case.folder.path().join("root");
    let whole = {
        case.export().exports();
        let tree = Tree::read(&root);
        remove(&root);
        tree
    };
    let running: Vec<_> = (0..4).map(|_| case.export().arg("--quiet").start()).collect();
    let mut published = 0;
    for outcome in running.into_iter().map(Running::wait) {
        if outcome.status.code() == Some(0) {
            published += 1;
            assert_eq!(outcome.stderr, "");
        } else {
            assert_eq!(outcome.status.code(), Some(1));
            let late = "hint: something was put there while the export ran\n";
            let found = "hint: name a directory that is empty or does not exist; nothing is ever overwritten\n";
            assert!(outcome.stderr.ends_with(late) || outcome.stderr.ends_with(found), "{}", outcome.stderr);
        }
    }
    assert_eq!(published, 1);
    assert_eq!(names(case.folder.path()), ["root"]);
    same_shape(&Tree::read(&root).shape(), &whole.shape());
}
