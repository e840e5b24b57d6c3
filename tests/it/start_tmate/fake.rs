//! All that tmate can do wrong, played by a tmate that does as it is told.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command_line::PRINT;
use crate::support::{Fake, SessionBuilder, names, processes_of, root_for, until};

const LINK: &str = "ssh -p2200 x@h";
const READY: &str = "Connecting to h...\nssh session: ssh -p2200 x@h";
const RO: &str = "look on with: ssh ro--p2200 x@h";
/// More than the pauses between two looks, on a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(2);

fn session(fake: &Fake) -> SessionBuilder {
    fake.session().args(["--server", "h:2200", "--fingerprint", PRINT])
}

fn ready(more: &[(&'static str, &'static str)]) -> Fake {
    let mut files = vec![("link", LINK), ("lines", READY)];
    files.extend(more);
    Fake::new(&files)
}

/// The link's line without the time that is left.
fn said(left: &str) -> String {
    format!("start-tmate: connect with: {LINK} ({left})")
}

#[test]
fn it_ends_at_max_idle_and_not_at_the_next_round() {
    let fake = ready(&[]);
    let mut session = session(&fake).args(["3"]).start();
    session.line("connect with");
    let started = Instant::now();
    let (status, stderr) = session.finish();
    let took = started.elapsed();
    assert!(took > Duration::from_millis(2900) && took < Duration::from_millis(2900) + SLACK, "{took:?}");
    assert_eq!(status, 0);
    assert!(stderr[0].starts_with("start-tmate: connecting; to end the session: touch /"), "{stderr:?}");
    assert_eq!(
        stderr[1..],
        [
            "start-tmate: warning: there are no keys: whoever reads this log can enter the session; \
             `--authorized-keys` limits that",
            &said("ends in 3 s unless somebody connects"),
            "start-tmate: the session has ended: nobody was connected for 3 s",
        ]
    );
}

#[test]
fn each_way_not_to_connect_has_its_reason() {
    let scan = "`ssh-keyscan -p 2200 h` tries the same connection";
    let running = format!("hint: does a tmate server run there, and is 2200 its port? {scan}");
    let firewall = format!("hint: is a firewall in the way? {scan}; `--connect-timeout` gives it more time");
    let ignored =
        "hint: is the name right? tmate ignores IPv6 addresses on a machine that has no public one of its own";
    let prints = "hint: `ssh-keyscan -p 2200 h | ssh-keygen -lf -` prints those that the server has now".to_owned();
    for (lines, reason, hint) in [
        ("Connecting to h...", ": the server is silent", Some(firewall)),
        (
            "Connecting to h...\nError connecting: Connection refused\nReconnecting...",
            ": the server refused the connection",
            Some(running.clone()),
        ),
        (
            "SSH keys not found. Run 'ssh-keygen' to create keys.",
            ": the server wants a login: it is no tmate server",
            Some(running),
        ),
        (
            "h lookup failure. Retrying in 2 seconds (unknown)",
            ": the server's name was not found",
            Some(ignored.into()),
        ),
        ("Cannot authenticate server", ": the server's host key has another fingerprint", Some(prints)),
        ("Error connecting: of another kind", "", None),
    ] {
        let fake = Fake::new(&[("lines", lines)]);
        let started = Instant::now();
        let (status, stderr) = session(&fake).args(["--connect-timeout", "1"]).start().finish();
        assert!(started.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", started.elapsed());
        let mut expected: Vec<_> = lines.lines().map(|line| format!("start-tmate: tmate: {line}")).collect();
        expected.push(format!("start-tmate: error: no session through `h`, port 2200 within 1 s{reason}"));
        expected.extend(hint);
        assert_eq!((status, &stderr[1..]), (1, &expected[..]));
    }
}

/// Where tmate says so it is at once, and tmate says it of a machine without a public IPv6 address.
#[test]
fn an_ipv6_address_that_tmate_cannot_use_is_told_at_once() {
    for (server, host, port) in
        [("[::1]:2200", "::1", 2200), ("2001:db8::1", "2001:db8::1", 22), ("[fe80::1%eth0]", "fe80::1%eth0", 22)]
    {
        let line =
            format!("{host} lookup failure. Retrying in 2 seconds (nodename nor servname provided, or not known)");
        let fake = Fake::new(&[("lines", &line)]);
        let session = fake.session().args(["--server", server, "--fingerprint", PRINT]).start();
        session.ends(
            1,
            [
                &format!("start-tmate: tmate: {line}"),
                &format!(
                    "start-tmate: error: no session through `{host}`, port {port}: tmate does not support IPv6 addresses \
                     on a machine that has no public IPv6 address of its own"
                ),
                "hint: name an IPv4 address of the server, or a name that has one",
            ],
        );
    }
}

#[test]
fn a_server_that_wants_keys_is_told_at_once() {
    let fake =
        ready(&[("lines", "ssh session: x\nServer requires authorized_keys but none are given.\nReconnecting...")]);
    let (status, stderr) = session(&fake).start().finish();
    assert_eq!(status, 1);
    let error = &stderr[stderr.len() - 2..];
    assert!(error[0].ends_with("the server wants keys: it takes only sessions with `--authorized-keys`"), "{stderr:?}");
    assert_eq!(error[1], "hint: give a file of public keys with `--authorized-keys`");
}

#[test]
fn a_tmate_that_ends_at_once_has_its_last_lines_told() {
    for (line, error) in [
        ("/home/x/.tmate.conf:3: unknown command: sett", "tmate could not start a session (exit status: 1)"),
        (
            "fatal: Cannot initialize the DNS lookup service",
            "tmate could not start a session (exit status: 1): tmate cannot look up names: `/etc/resolv.conf` is \
             missing or empty",
        ),
    ] {
        let fake = Fake::new(&[("lines", line), ("exit", "1"), ("fail", "")]);
        let lines = [format!("start-tmate: tmate: {line}"), format!("start-tmate: error: {error}")];
        session(&fake).start().ends(1, lines.each_ref().map(String::as_str));
    }
    let fake = Fake::new(&[("lines", "x"), ("exit", "0"), ("fail", "")]);
    session(&fake)
        .start()
        .ends(1, ["start-tmate: tmate: x", "start-tmate: error: the shell ended before the session was ready"]);
}

#[test]
fn control_commands_that_hang_or_fail_do_not_hold_it() {
    for how in ["hang", "fail"] {
        let fake = ready(&[(how, "")]);
        let started = Instant::now();
        let (status, _) = session(&fake).args(["--connect-timeout", "2"]).start().finish();
        assert_eq!(status, 1);
        assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
        assert!(fake.asked() > 0);
    }
    // A session that hangs later is idle at its time too.
    let fake = ready(&[]);
    let mut session = session(&fake).args(["2"]).start();
    session.line("connect with");
    fake.set("hang", "");
    session.ends(0, ["start-tmate: the session has ended: nobody was connected for 2 s"]);
}

#[test]
fn a_signal_ends_it_while_a_control_command_hangs() {
    for (signal, status) in
        [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131), (Signal::SIGHUP, 129)]
    {
        let fake = ready(&[]);
        let mut session = session(&fake).args(["600"]).start();
        session.line("connect with");
        fake.set("hang", "");
        let asked = fake.asked();
        until(|| fake.asked() > asked);
        let sent = Instant::now();
        session.signal(signal);
        session.ends(status, [&format!("start-tmate: the session has ended: interrupted by {signal}")]);
        assert!(sent.elapsed() < SLACK, "{:?}", sent.elapsed());
    }
}

#[test]
fn somebody_who_comes_in_the_last_moment_stays() {
    // The third answer comes when time is up, and is wrong; so it takes the fourth.
    let fake = ready(&[("busy-after", "2")]);
    let mut session = session(&fake).args(["1", "--max-duration", "3"]).start();
    session.line("connect with");
    session.ends(0, ["start-tmate: the session has ended: it has lasted as long as it may"]);
}

#[test]
fn the_servers_count_keeps_a_session_while_the_server_is_there() {
    let fake = ready(&[("count", "1")]);
    let mut session = session(&fake).args(["1", "--max-duration", "600"]).start();
    // Read-only mates are seen by the count.
    let left = "(somebody is connected; ends in 10 min at the latest)";
    let line = session.line("connect with: ");
    assert_eq!(line, format!("{LINK}, look on with: ssh ro--p2200 x@h {left}"));
    let asked = fake.asked();
    until(|| fake.asked() >= asked + 4);
    fake.tell("say Reconnecting...");
    session.line("the connection to the server is lost; tmate tries again");
    session.ends(0, ["start-tmate: the session has ended: nobody was connected for 1 s"]);
}

#[test]
fn the_link_is_said_when_somebody_leaves_when_it_changes_and_from_time_to_time() {
    let fake = ready(&[("count", "1")]);
    let mut session = session(&fake).args(["600", "--max-duration", "0"]).start();
    assert_eq!(session.line("connect with: "), format!("{LINK}, {RO} (somebody is connected)"));
    fake.tell("say A mate has left (192.0.2.1) -- 1 client currently connected");
    assert_eq!(session.line("connect with: "), format!("{LINK}, {RO} (somebody is connected)"));
    fake.set("count", "0");
    assert_eq!(session.line("connect with: "), format!("{LINK}, {RO} (ends in 10 min unless somebody connects)"));
    fake.tell("say Reconnecting...");
    session.line("the connection to the server is lost");
    fake.set("link", "ssh y@h");
    fake.tell("say Reconnected");
    let line = session.line("connect with: ");
    assert!(line.starts_with("ssh y@h, look on with: ssh ro-y@h (ends in "), "{line}");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.finish().0, 143);

    let fake = ready(&[]);
    let mut session = super::fake::session(&fake).args(["600", "--repeat", "1"]).start();
    for _ in 0..3 {
        session.line("connect with: ");
    }
    session.signal(Signal::SIGTERM);
    assert_eq!(session.finish().0, 143);
}

#[test]
fn without_a_count_there_is_no_link_for_those_who_only_look_on() {
    let fake = ready(&[]);
    let (_, stderr) = session(&fake).args(["1"]).start().finish();
    assert!(stderr.iter().all(|line| !line.contains("look on")), "{stderr:?}");
}

#[test]
fn keys_that_tmate_did_not_take_stop_it_before_any_link() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqRdFjqSKuTmpDTE3l1N1jJj7LAI7Wl4VIlXEnrXBgI me";
    let taken = "Using {keys} for access control\nssh session: x";
    for (files, error) in [
        (&[("lines", taken)][..], None),
        (&[("lines", "ssh session: x")], Some("tmate did not say that it uses the keys in")),
        (
            &[("lines", taken), ("options", "tmate-authorized-keys \"/other\"")],
            Some("tmate did not take the keys: it goes by `/other` instead"),
        ),
    ] {
        let fake = Fake::new(&[&[("link", LINK)], files].concat());
        let (status, stderr) = session(&fake).args(["1"]).env("BASH_TMATE_AUTHORIZED_KEYS", key).start().finish();
        let is_said = stderr.iter().any(|line| line.contains("connect with"));
        assert!(stderr.iter().all(|line| !line.contains("there are no keys")), "{stderr:?}");
        match error {
            None => assert!(status == 0 && is_said, "{stderr:?}"),
            Some(error) => {
                assert!(status == 1 && !is_said && stderr.last().unwrap().contains(error), "{stderr:?}");
            }
        }
    }
}

#[test]
fn a_tmate_that_ends_ends_the_session() {
    let fake = ready(&[]);
    let mut session = session(&fake).args(["600"]).start();
    session.line("connect with");
    fake.tell("exit 0");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);

    for (command, how) in [("exit 3", "exit status: 3"), ("die", "signal: 6 (SIGABRT)")] {
        let fake = ready(&[]);
        let mut session = super::fake::session(&fake).args(["600"]).start();
        session.line("connect with");
        fake.tell(command);
        let (status, stderr) = session.finish();
        let last = stderr.last().unwrap();
        let expected = format!("start-tmate: error: the session is lost: tmate has died ({how}");
        assert!(status == 1 && last.starts_with(&expected), "{stderr:?}");
    }
}

#[test]
fn a_tmate_that_obeys_no_signal_is_killed() {
    let fake = ready(&[("deaf", "")]);
    let mut session = session(&fake).args(["600"]).start();
    session.line("connect with");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.finish().0, 143);

    // Nor does a stopped one keep us.
    let fake = ready(&[]);
    let mut session = super::fake::session(&fake).args(["600"]).start();
    session.line("connect with");
    let tmate = fs_err::read_to_string(fake.path("pid")).unwrap().parse().unwrap();
    kill(Pid::from_raw(tmate), Signal::SIGSTOP).unwrap();
    session.signal(Signal::SIGTERM);
    assert_eq!(session.finish().0, 143);
}

#[test]
fn the_continue_file_ends_it_if_it_is_new() {
    let fake = ready(&[]);
    let place = crate::support::folder();
    let file = place.path().join("go on");
    fs_err::write(&file, "").unwrap();
    let mut session = session(&fake).args(["600", "--continue-file", file.to_str().unwrap()]).start();
    assert_eq!(session.line("connecting; to end the session: "), format!("touch '{}'", file.display()));
    session.line("connect with");
    // It has looked at it many times by now.
    let look_on = || {
        let asked = fake.asked();
        until(|| fake.asked() >= asked + 4);
    };
    look_on();
    if root_for("a file of another user") {
        let theirs = place.path().join("theirs");
        fs_err::write(&theirs, "").unwrap();
        std::os::unix::fs::chown(&theirs, Some(54321), None).unwrap();
        fs_err::rename(&theirs, &file).unwrap();
        look_on();
    }
    fs_err::remove_file(&file).unwrap();
    fs_err::write(&file, "").unwrap();
    session.ends(0, [&format!("start-tmate: the session has ended: `{}` is there", file.display())]);

    let mut session = super::fake::session(&fake).args(["600"]).start();
    let touch = session.line("connecting; to end the session: ");
    session.line("connect with");
    assert!(std::process::Command::new("sh").args(["-c", &touch]).status().unwrap().success());
    let file = touch.strip_prefix("touch ").unwrap();
    session.ends(0, [&format!("start-tmate: the session has ended: `{file}` is there")]);
}

#[test]
fn the_folder_is_the_owners_alone_and_short_enough_for_a_socket() {
    use std::os::unix::fs::PermissionsExt;

    let fake = ready(&[]);
    let builder = session(&fake).args(["600", "-v"]);
    let long = builder.place().join("x".repeat(100));
    fs_err::create_dir(&long).unwrap();
    let mut session = builder.env("TMPDIR", &long).start();
    let folder = session.line("the session's folder is `");
    let folder = std::path::PathBuf::from(folder.trim_end_matches('`'));
    assert_eq!(folder.parent(), Some(std::path::Path::new("/tmp")));
    session.line("connect with");
    assert_eq!(fs_err::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
    for name in ["conf", "window"] {
        assert_eq!(fs_err::metadata(folder.join(name)).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    session.signal(Signal::SIGTERM);
    fs_err::remove_dir(&long).unwrap();
    assert_eq!(session.finish().0, 143);
    assert!(!folder.exists());
}

#[test]
fn when_it_is_killed_nothing_stays() {
    let fake = ready(&[]);
    let mut session = session(&fake).args(["600"]).start();
    session.line("connect with");
    let tmate = Pid::from_raw(fs_err::read_to_string(fake.path("pid")).unwrap().parse().unwrap());
    let (place, mark) = session.kill();
    until(|| kill(tmate, None) == Err(Errno::ESRCH) && processes_of(&mark).is_empty());
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn when_its_child_is_killed_too_tmate_ends_and_the_next_run_removes_the_folder() {
    let fake = ready(&[]);
    let mut session = session(&fake).args(["600"]).start();
    session.line("connect with");
    let tmate = Pid::from_raw(fs_err::read_to_string(fake.path("pid")).unwrap().parse().unwrap());
    let worker = session.worker().unwrap();
    kill(worker, Signal::SIGSTOP).unwrap();
    let (place, mark) = session.kill();
    kill(worker, Signal::SIGKILL).unwrap();
    until(|| kill(tmate, None) == Err(Errno::ESRCH) && processes_of(&mark).is_empty());
    assert_eq!(names(place.path()).len(), 1);
    let mut next = super::fake::session(&fake).args(["600"]).env("TMPDIR", place.path()).start();
    next.line("connect with");
    assert_eq!(names(place.path()).len(), 1, "the folder of the run that was killed is gone");
    next.signal(Signal::SIGINT);
    assert_eq!(next.finish().0, 130);
    assert_eq!(names(place.path()), [""; 0]);
}
