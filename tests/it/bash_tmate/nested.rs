//! Shells in shells and beside each other: a job has one session at a time, and an outer shell one for its own failure.

use nix::sys::signal::{Signal, kill};

use super::path_with;
use super::sessions::PRINT;
use crate::support::{Fake, SessionBuilder, TmateServer, folder, installed, names, until};

fn fake() -> Fake {
    Fake::new(&[("link", "ssh x"), ("lines", "ssh session: ssh x")])
}

fn session(fake: &Fake) -> SessionBuilder {
    let path = format!("{}:{}", fake.bin().display(), path_with(installed()));
    fake.session()
        .bash()
        .env("PATH", path)
        .env("BASH_TMATE_SERVER", "h")
        .env("BASH_TMATE_FINGERPRINT", PRINT)
        .env("BASH_TMATE_MAX_IDLE", "1")
}

const INSIDE: &str = "no session: a failure inside it has had one (BASH_TMATE_NESTED=1 opens one for each failure)";
const ALREADY: &str = "no session: this job has one already";

/// How many lines of `said` are of an open session, of one that an inner shell has had, and of one that is open.
fn counts(said: &[String]) -> (usize, usize, usize) {
    let count = |text: &str| said.iter().filter(|line| line.starts_with(&format!("bash-tmate: {text}"))).count();
    (count("connect with: "), count(INSIDE), count(ALREADY))
}

#[test]
fn an_outer_shell_has_a_session_for_its_own_failure_alone() {
    for (script, status, expected) in [
        ("bash-tmate -c 'exit 3'", 3, (1, 1, 0)),
        ("bash-tmate -c 'bash-tmate -c \"exit 3\"'", 3, (1, 2, 0)),
        ("x=$(bash-tmate -c 'exit 3')", 3, (1, 1, 0)),
        ("(cd /; bash-tmate -c 'exit 3')", 3, (1, 1, 0)),
        ("bash-tmate -c 'exit 3' | cat", 3, (1, 1, 0)),
        ("bash-tmate -c 'exit 3' || exit 5", 5, (1, 1, 0)),
        ("bash-tmate -c 'exit 3' || { s=$?; echo >&2; exit $s; }", 3, (1, 1, 0)),
        ("sh -c 'bash-tmate -c \"exit 3\" || exit 7'", 7, (1, 1, 0)),
        // Its own: another command fails after the inner failure was tolerated.
        ("bash-tmate -c 'exit 3' || true; exit 4", 4, (2, 0, 0)),
        ("bash-tmate -c false || true; false", 1, (2, 0, 0)),
        ("bash-tmate -c 'exit 3' || :; sh -c 'exit 3'", 3, (2, 0, 0)),
        ("bash-tmate -c 'exit 0'; exit 4", 4, (1, 0, 0)),
        // The inner one wants no session.
        ("BASH_TMATE_SKIP_CODES=3 bash-tmate -c 'exit 3'", 3, (1, 0, 0)),
    ] {
        let place = folder();
        let file = place.path().join("script");
        std::fs::write(&file, script).unwrap();
        for arguments in [["-c", script], ["--", file.to_str().unwrap()]] {
            let fake = fake();
            let (ended, said) = session(&fake).args(arguments).start().finish();
            assert_eq!((ended, counts(&said)), (status, expected), "{script}: {said:#?}");
        }
    }
}

#[test]
fn a_variable_brings_a_session_for_each() {
    let fake = fake();
    let builder = session(&fake).env("BASH_TMATE_NESTED", "1").args(["-c", "bash-tmate -c 'exit 3'"]);
    let (ended, said) = builder.start().finish();
    assert_eq!((ended, counts(&said)), (3, (2, 0, 0)), "{said:#?}");
}

/// Four recipes that fail once all of them run.
const MAKEFILE: &str = "SHELL = bash-tmate
.SHELLFLAGS = -c
all: a b c d
a b c d:
\ttouch here-$@; until [ -e here-a ] && [ -e here-b ] && [ -e here-c ] && [ -e here-d ]; do :; done; exit 3
";

#[test]
fn recipes_of_make_that_fail_together_have_one_session() {
    for (outer, expected) in [(None, (1, 0, 3)), (Some("make -j4"), (1, 1, 3)), (Some("make -j4 || exit 9"), (1, 1, 3))]
    {
        let fake = fake();
        let place = folder();
        std::fs::write(place.path().join("Makefile"), MAKEFILE).unwrap();
        let builder = session(&fake).directory(place.path());
        let builder = if let Some(script) = outer {
            builder.args(["-c", script])
        } else {
            let mut make = std::process::Command::new("make");
            make.arg("-j4");
            builder.instead(&make)
        };
        let (ended, _, said) = builder.start().finish_with_output();
        let status = if outer.is_some_and(|outer| outer.ends_with('9')) { 9 } else { 2 };
        assert_eq!((ended, counts(&said)), (status, expected), "{outer:?}: {said:#?}");
        let also =
            said.iter().filter(|line| line.contains("bash-tmate: also failed: the command string failed")).count();
        assert_eq!(also, 3, "{said:#?}");
    }
}

#[test]
fn other_failures_are_told_in_the_session() {
    let mut server = TmateServer::start("plain");
    let place = folder();
    let fifo = place.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "(read x < \"$GO\"; exec bash-tmate -c 'exit 7') & bash-tmate -c 'exit 3'";
    let path = path_with(installed());
    let builder = server.session().bash().env("PATH", path).env("GO", &fifo).args(["-c", script]);
    let mut running = builder.start();
    let link = running.line("connect with: ");
    server.tell("join");
    std::fs::write(&fifo, "on\n").unwrap();
    let already = running.line(ALREADY);
    let link = link.split(" (").next().unwrap();
    assert_eq!(already, format!(", connect with: {link} (BASH_TMATE_NESTED=1 opens one for each failure)"));
    server.shows("*** Also failed: the command string failed with exit status 7 ***");
    server.tell("type exit 0");
    assert_eq!(running.finish().0, 3);
}

#[test]
fn other_jobs_have_their_own_and_one_that_was_killed_keeps_nobody_from_having_one() {
    let fake = fake();
    let start = |job: &str| {
        session(&fake).env("BASH_TMATE_MAX_IDLE", "1000").env("CI_JOB_ID", job).args(["-c", "exit 3"]).start()
    };
    let own = format!("{}-first", std::process::id());
    let mut first = start(&own);
    first.line("connect with");
    let mut other = start(&format!("{}-second", std::process::id()));
    other.line("connect with");
    other.signal(Signal::SIGTERM);
    assert_eq!(other.finish().0, 3);
    let mut same = start(&own);
    same.line(ALREADY);
    assert_eq!(same.finish().0, 3);
    let worker = first.worker().unwrap();
    kill(worker, Signal::SIGSTOP).unwrap();
    let (place, mark) = first.kill();
    kill(worker, Signal::SIGKILL).unwrap();
    until(|| crate::support::processes_of(&mark).is_empty());
    let mut next = start(&own);
    next.line("connect with");
    next.signal(Signal::SIGTERM);
    assert_eq!(next.finish().0, 3);
    // A folder of those that were killed is removed by the next run in its place.
    assert_eq!(names(place.path()).len(), 1);
}
