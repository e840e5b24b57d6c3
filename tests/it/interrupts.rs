//! INT, QUIT, TERM and HUP: the run stops, cleans up, and says so with 128 and the signal's number.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkfifo};

use crate::support::{Export, Running, Store, folder, judge, names, remove, script};

/// "Stops within a second" is the promise; the rest is for a busy machine to notice that it has ended.
const SOON: Duration = Duration::from_secs(2);

fn interrupted(signal: Signal) -> String {
    format!("export-profile: error: interrupted by {signal}; nothing was written\n")
}

/// Starts a run and stops it while it copies. Returns it with its draft.
fn stopped_while_copying(export: &Export, parent: &Path) -> (Running, PathBuf) {
    for _ in 0..50 {
        let mut running = export.start();
        while !running.has_ended() {
            let Some(draft) = names(parent).into_iter().find(|name| name.starts_with(".root.nixkit-")) else {
                continue;
            };
            running.signal(Signal::SIGSTOP);
            running.until_stopped();
            let draft = parent.join(draft);
            if draft.exists() {
                return (running, draft);
            }
            running.signal(Signal::SIGCONT);
        }
        // It was too quick for us.
        remove(&parent.join("root"));
    }
    panic!("no run was caught while it copied");
}

#[test]
fn a_signal_while_copying_leaves_nothing() {
    let (store, profile) = Store::shared();
    for (signal, status) in
        [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131), (Signal::SIGTERM, 143)]
    {
        for (mode, jobs) in [("copy", "1"), ("auto", "4")] {
            let folder = folder();
            let export = Export::new(store).profile(profile).mode(mode).args(["--jobs", jobs]);
            let (running, _) = stopped_while_copying(&export.root(folder.path().join("root")), folder.path());
            running.signal(signal);
            let started = Instant::now();
            running.signal(Signal::SIGCONT);
            running.wait().is(status, "", &interrupted(signal));
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
            assert_eq!(names(folder.path()), [""; 0]);
        }
    }
}

#[test]
fn a_signal_that_the_caller_ignores_is_ignored() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let export = Export::new(store).under(["nohup"]).profile(profile).mode("copy").args(["--json", "--jobs", "1"]);
    let (running, _) = stopped_while_copying(&export.root(folder.path().join("root")), folder.path());
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGCONT);
    let outcome = running.wait();
    let receipt = outcome.receipt();
    assert_eq!(outcome.stderr, receipt.summary());
    judge(store, &[profile], &receipt);
    assert_eq!(names(folder.path()), ["root"]);

    let (running, _) = stopped_while_copying(
        &{
            fs_err::rename(folder.path().join("root"), folder.path().join("first")).unwrap();
            Export::new(store).under(["nohup"]).profile(profile).mode("copy").root(folder.path().join("root"))
        },
        folder.path(),
    );
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    running.wait().is(143, "", &interrupted(Signal::SIGTERM));
    assert_eq!(names(folder.path()), ["first"]);
}

#[test]
fn a_second_signal_does_not_cut_the_clean_up_short() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let export =
        Export::new(store).profile(profile).mode("copy").args(["--jobs", "1"]).root(folder.path().join("root"));
    let (running, _) = stopped_while_copying(&export, folder.path());
    // Some supervisors send such a pair. Both are there when it goes on.
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    let outcome = running.wait();
    // The kernel decides in which order they arrive.
    let last = if outcome.status.code() == Some(129) { Signal::SIGHUP } else { Signal::SIGTERM };
    outcome.is(128 + last as i32, "", &interrupted(last));
    assert_eq!(names(folder.path()), [""; 0]);
}

/// A `nix-store` that, called with `flag`, says its process id into the FIFO `ready` and hangs on the FIFO `never`.
fn hanging_nix_store(bin: &Path, flag: &str) {
    for fifo in ["ready", "never"] {
        mkfifo(&bin.join(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let (at, real) = (bin.display(), which::which("nix-store").unwrap());
    let hang = format!("echo $$ >{at}/ready; exec cat {at}/never");
    let text = format!("case \" $* \" in *' {flag} '*) {hang};; *) exec {} \"$@\";; esac", real.display());
    script(&bin.join("nix-store"), &text);
}

#[test]
fn a_signal_while_nix_hangs_ends_both() {
    let (store, profile) = Store::shared();
    for (flag, signal, status) in [("--query", Signal::SIGINT, 130), ("--dump-db", Signal::SIGTERM, 143)] {
        let (folder, bin) = (folder(), folder());
        hanging_nix_store(bin.path(), flag);
        let export = Export::new(store).nix_store_in(bin.path()).profile(profile).mode("copy").arg("--verify");
        let running = export.root(folder.path().join("root")).start();
        let mut child = String::new();
        fs_err::File::open(bin.path().join("ready")).unwrap().read_to_string(&mut child).unwrap();
        let child = Pid::from_raw(child.trim().parse().unwrap());
        assert_eq!(kill(child, None), Ok(()));
        let drafts = names(folder.path());
        assert_eq!(drafts.len(), usize::from(flag == "--dump-db"), "{drafts:?}");

        let started = Instant::now();
        running.signal(signal);
        running.wait().is(status, "", &interrupted(signal));
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        assert_eq!(kill(child, None), Err(Errno::ESRCH), "the child is gone too");
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
