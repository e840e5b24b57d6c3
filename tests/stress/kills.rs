//! KILL, TERM and INT at random moments: ROOT is absent or complete after each, and after the next run
//! nothing is left.
//!
//! The moments are spread over a run as long as one that was measured, and beyond its end. Some of them are
//! counted from when it has begun to write, since before that it waits for Nix, and some from when ROOT appears.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::place::{on_disk, say};
use crate::random::Random;
use crate::support::{Export, FileSystem, Kind, Store, Tree, call, drafts_beside, judge, names};

/// For each of the four cases.
const MOMENTS: u32 = 50;
/// For all of them, with the runs between.
const LONGEST: Duration = Duration::from_secs(4 * 60);

/// What ROOT is before a run.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Absent,
    Empty,
    MountPoint,
}

/// From when the time to a signal is counted.
#[derive(Clone, Copy, Debug)]
enum From {
    Start,
    /// Of its draft.
    Writing,
    /// Of the first entry in ROOT, or of ROOT itself.
    Appearing,
}

struct Case<'a> {
    what: String,
    export: Export,
    root: PathBuf,
    before: Before,
    /// Its complete root.
    whole: Tree,
    random: &'a mut Random,
    hits: Hits,
}

/// When the signals came.
#[derive(Default)]
struct Hits {
    before_writing: u32,
    writing: u32,
    publishing: u32,
    published: u32,
}

#[test]
#[ignore = "under stress: `make stress`"]
fn at_200_random_moments_a_signal_leaves_no_root_or_all_of_it() {
    let mut random = Random::new();
    let started = Instant::now();
    let ext4 = on_disk(Kind::Ext4, 2 << 10, "");
    let store = Store::at(&ext4.point);
    let profile = store.build("everything");
    let tmpfs = FileSystem::new(Kind::Tmpfs).expect("a tmpfs can be mounted");
    let folder = ext4.folder();
    // Of one case alone it may well be none: only while it waits for Nix.
    let mut before_writing = 0;
    for (mode, arguments, before) in [
        ("copy", &["--jobs", "1"][..], Before::Absent),
        ("hardlink", &["--jobs", "4"], Before::Absent),
        ("hardlink", &["--verify"], Before::Empty),
        ("copy", &["--jobs", "2"], Before::MountPoint),
    ] {
        let root = if before == Before::MountPoint { tmpfs.point.clone() } else { folder.path().join("root") };
        let export = Export::new(&store).profile(&profile).mode(mode).root(&root);
        let export = arguments.iter().fold(export, Export::arg);
        prepare(&root, before);
        judge(&store, &[&profile], &export.exports());
        let whole = Tree::read(&root);
        let export = export.arg("--quiet");
        let what = format!("{mode} {}", arguments.join(" "));
        let mut case = Case { what, export, root, before, whole, random: &mut random, hits: Hits::default() };
        case.clear();
        case.signals(started);
        before_writing += case.hits.before_writing;
        assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    }
    assert!(before_writing > 0, "none came before it wrote");
    say(&format!("200 signals and the runs between: {:.0} s", started.elapsed().as_secs_f64()));
}

fn prepare(root: &Path, before: Before) {
    if before == Before::Empty {
        fs_err::create_dir(root).unwrap();
    }
}

impl Case<'_> {
    /// Makes ROOT what it is before a run.
    fn clear(&self) {
        if self.before == Before::MountPoint {
            call("find", [&self.root, &"-mindepth", &"1", &"-delete"]);
        } else {
            call("rm", [&"-rf", &self.root]);
            prepare(&self.root, self.before);
        }
    }

    /// Of a whole run, and of the part of it that writes.
    fn durations(&self) -> (Duration, Duration) {
        let durations = (0..3).map(|_| {
            let started = Instant::now();
            let mut running = self.export.start();
            while !running.has_ended() && drafts_beside(&self.root).is_empty() {}
            let begun = Instant::now();
            running.wait().is(0, "", "");
            let durations = (started.elapsed(), begun.elapsed());
            self.clear();
            durations
        });
        durations.min().unwrap()
    }

    fn signals(&mut self, started: Instant) {
        let (whole, writing) = self.durations();
        for moment in 0..MOMENTS {
            assert!(started.elapsed() < LONGEST, "{}: {:?} at {moment}", self.what, started.elapsed());
            let signal = match self.random.below(4) {
                0 => Signal::SIGTERM,
                1 => Signal::SIGINT,
                _ => Signal::SIGKILL,
            };
            let (from, spread) = match self.random.below(5) {
                0 | 1 => (From::Start, whole * 5 / 4),
                2 | 3 => (From::Writing, writing * 5 / 4),
                _ => (From::Appearing, writing / 50),
            };
            let after = spread * self.random.below(1000) / 1000;
            self.signal(signal, from, after, moment);
        }
        let Hits { before_writing, writing, publishing, published } = self.hits;
        say(&format!(
            "{}: a run takes {whole:.0?}; of {MOMENTS} signals {before_writing} came before it wrote, {writing} while \
             it wrote, {publishing} while it published, {published} after that",
            self.what
        ));
        assert!(writing >= MOMENTS / 10, "{}: too few came while it wrote", self.what);
        assert!(published > 0, "{}: none came after it published", self.what);
    }

    fn signal(&mut self, signal: Signal, from: From, after: Duration, moment: u32) {
        let what = format!("{}: {signal} as number {moment}, {after:?} after its {from:?}", self.what);
        let mut running = self.export.start();
        let waits = || match from {
            From::Start => false,
            From::Writing => drafts_beside(&self.root).is_empty(),
            From::Appearing => self.is_untouched(),
        };
        while waits() && !running.has_ended() {}
        // Not to wait for anything: the moment itself is what is tested.
        std::thread::sleep(after);
        let wrote = !drafts_beside(&self.root).is_empty();
        running.signal_if_it_lives(signal);
        let outcome = running.wait();
        let drafts = drafts_beside(&self.root);
        let is_there = self.is_published();
        assert!(is_there || self.before == Before::MountPoint || self.is_untouched(), "{what}: half a root");
        match (outcome.status.code(), is_there) {
            // Killed by it: always so by KILL, and else only before the handlers are there.
            (None, _) => {
                assert!(signal == Signal::SIGKILL || (drafts.is_empty() && !is_there), "{what}: it died by it");
            }
            (Some(0), true) => assert_eq!((drafts.as_slice(), outcome.stderr.as_str()), (&[][..], ""), "{what}"),
            (Some(status), false) => {
                let said = format!("export-profile: error: interrupted by {signal}; nothing was written\n");
                assert_eq!((status, outcome.stderr), (128 + signal as i32, said), "{what}");
                assert!(drafts.is_empty(), "{what}: it left {drafts:?}");
                assert!(self.is_untouched(), "{what}: it left something");
            }
            (Some(status), true) => panic!("{what}: status {status} though the root is there: {}", outcome.stderr),
        }
        assert_eq!(outcome.stdout, "");
        let half_published = !is_there && !self.is_untouched();
        let hit = match (is_there, half_published, !drafts.is_empty() || wrote) {
            (true, ..) => &mut self.hits.published,
            (_, true, _) => &mut self.hits.publishing,
            (_, _, true) => &mut self.hits.writing,
            _ => &mut self.hits.before_writing,
        };
        *hit += 1;

        if is_there {
            self.assert_whole(&what);
        }
        let next = self.export.run();
        assert_eq!(next.stdout, "");
        if is_there {
            // The root is complete, and the next run says so, having cleared the dead one's draft away.
            assert_eq!(next.status.code(), Some(1), "{what}: {}", next.stderr);
            assert!(next.stderr.contains("it is not empty (it holds `"), "{what}: {}", next.stderr);
        } else {
            next.is(0, "", "");
        }
        assert_eq!(drafts_beside(&self.root), [""; 0], "{what}");
        self.assert_whole(&what);
        self.clear();
    }

    /// `run` is what is renamed last into a mount point.
    fn is_published(&self) -> bool {
        match self.before {
            Before::Absent => self.root.exists(),
            Before::Empty => !names(&self.root).is_empty(),
            Before::MountPoint => self.root.join("run").exists(),
        }
    }

    /// As it was before the run, but for the draft that lies in a mount point.
    fn is_untouched(&self) -> bool {
        match self.before {
            Before::Absent => !self.root.exists(),
            Before::Empty | Before::MountPoint => {
                self.root.is_dir() && names(&self.root).iter().all(|name| name.contains(".nixkit-"))
            }
        }
    }

    fn assert_whole(&self, what: &str) {
        let mut tree = Tree::read(&self.root);
        // The draft of who is killed behind the last rename, until the next run.
        tree.0.retain(|path, _| !path.to_str().is_some_and(|path| path.starts_with(".mnt.nixkit-")));
        let mut shape = tree.shape();
        if self.before == Before::MountPoint {
            // Who is killed behind the last rename does not stamp the mount point.
            shape.insert(PathBuf::new(), self.whole.shape()[Path::new("")].clone());
        }
        assert!(shape == self.whole.shape(), "{what}: half a root");
        assert_eq!(tree.shared_inodes(), self.whole.shared_inodes(), "{what}");
    }
}
