//! As process 1 of a container it stays, reaps what others leave, and obeys signals.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Seen, path_with};
use crate::support::{Fake, folder, installed, root_for, until};

/// `bash-tmate` with `arguments` as the first process of a namespace.
fn first(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(installed().join("bash-tmate"));
    command.args(arguments).env("PATH", path_with(installed())).stdin(Stdio::null());
    command.env("BASH_TMATE_SKIP_CODES", "0-255");
    command
}

fn see(arguments: &[&str]) -> (i32, String, String) {
    let seen = Seen::new(&first(arguments).output().unwrap(), Vec::new());
    (seen.status, seen.stdout, seen.stderr)
}

fn quiet(status: i32, stdout: &str) -> (i32, String, String) {
    (status, stdout.to_owned(), String::new())
}

#[test]
fn it_stays_and_ends_as_bash_does() {
    if !root_for("a pid namespace") {
        return;
    }
    assert_eq!(see(&["-c", "echo $$ $PPID; exit 3"]), quiet(3, "2 1\n"));
    assert_eq!(see(&["-c", "kill -KILL $$"]), quiet(137, ""));
    assert_eq!(see(&["-c", "true"]), quiet(0, ""));
    // Where no session can follow it stays all the same.
    assert_eq!(see(&["-n", "-c", "false"]), quiet(0, ""));
    assert!(see(&["--version"]).1.starts_with("GNU bash"));
}

#[test]
fn it_reaps_orphans() {
    if !root_for("a pid namespace") {
        return;
    }
    // A child of 1 that has ended stays a zombie until 1 waits for it.
    let text = "for i in 1 2 3; do (sh -c 'exit 5' & sleep 0 & exec true); done; \
                for i in {1..2000}; do \
                grep -l '^State:.Z' /proc/[0-9]*/status > /dev/null 2>&1 || { echo reaped; exit 4; }; done";
    assert_eq!(see(&["-c", text]), quiet(4, "reaped\n"));
}

#[test]
fn signals_from_outside_end_the_job() {
    if !root_for("a pid namespace") {
        return;
    }
    let place = folder();
    let ready = place.path().join("ready");
    nix::unistd::mkfifo(&ready, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // Ready once bash waits for a program: one that it is about to start nobody would tell.
        let mut child = first(&["-c", "sh -c 'echo > $READY; exec sleep 1000'; echo no"])
            .env("READY", &ready)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::fs::read(&ready).unwrap();
        let unshare = i32::try_from(child.id()).unwrap();
        let first = child_of(unshare);
        kill(Pid::from_raw(first), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + signal as i32));
    }
}

fn child_of(parent: i32) -> i32 {
    nixkit::supervise::processes::all().into_iter().find(|process| process.parent == parent).unwrap().id
}

/// The session is another process's work, while the first one reaps.
#[test]
fn a_session_runs_beside_the_first_process() {
    if !root_for("a pid namespace") {
        return;
    }
    let fake = Fake::new(&[("link", "ssh x"), ("lines", "ssh session: ssh x")]);
    let mut session = fake
        .session()
        .bash()
        .under(["unshare", "--pid", "--fork", "--mount-proc"])
        .env("BASH_TMATE_SERVER", "h")
        .env("BASH_TMATE_FINGERPRINT", "ed25519:SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI")
        .env("BASH_TMATE_MAX_IDLE", "2")
        .args(["-c", "(sh -c 'exit 5' & sleep 1 & exec true); exit 3"])
        .start();
    session.line("connect with");
    let unshare = session.pid().as_raw();
    let first = child_of(unshare);
    let zombies = |parent| {
        let processes = nixkit::supervise::processes::all();
        let is_zombie =
            |id| std::fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|status| status.contains("State:\tZ"));
        processes.into_iter().filter(|process| process.parent == parent && is_zombie(process.id)).count()
    };
    until(|| zombies(first) == 0);
    let (status, stderr) = session.finish();
    assert_eq!(status, 3, "{stderr:?}");
    assert_eq!(stderr.last().unwrap(), "bash-tmate: the session has ended: nobody was connected for 2 s");
}
