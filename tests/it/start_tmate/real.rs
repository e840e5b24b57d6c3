//! The real tmate through a small server: joining, typing, leaving, losing the server, keys, and the shell inside.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{SessionBuilder, TmateServer, folder, names, root_for, script, until};

const OPEN: &str = "start-tmate: warning: there are no keys: whoever reads this log can enter the session; \
     `--authorized-keys` limits that";

#[test]
fn a_session_that_nobody_enters_ends_when_it_should() {
    let server = TmateServer::start("plain");
    let mut session = server.session().args(["2"]).start();
    session.line("connect with");
    let ready = Instant::now();
    let (status, stderr) = session.finish();
    assert!(ready.elapsed() > Duration::from_millis(1900), "{:?}", ready.elapsed());
    assert_eq!(status, 0);
    let expected = [
        OPEN.to_owned(),
        format!(
            "start-tmate: connect with: ssh -p{} token1@127.0.0.1 (ends in 2 s unless somebody connects)",
            server.port()
        ),
        "start-tmate: the session has ended: nobody was connected for 2 s".into(),
    ];
    assert_eq!(stderr[1..], expected);
}

#[test]
fn it_stays_while_somebody_is_there_and_the_shell_ends_it() {
    for kind in ["plain", "counting"] {
        let mut server = TmateServer::start(kind);
        let mut session = server.session().args(["2", "--repeat", "1"]).start();
        let line = session.line("connect with: ");
        let more = ["look on with: ssh -p", " in a browser: http://127.0.0.1/t/token1 "];
        assert!(more.iter().all(|link| line.contains(link) == (kind == "counting")), "{line}");
        server.tell("join");
        // Twice as long as nobody could be away.
        for _ in 0..4 {
            session.line("connect with");
        }
        server.tell("type echo $((6 * 7))");
        server.shows("42\\r\\n");
        server.tell("type exit 3");
        session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
    }
}

#[test]
fn when_the_last_one_leaves_the_clock_starts_again() {
    for kind in ["plain", "counting"] {
        let mut server = TmateServer::start(kind);
        let mut session = server.session().args(["2", "--repeat", "0"]).start();
        session.line("connect with");
        server.tell("join");
        server.tell("type sleep 3; echo d''one");
        server.shows("done");
        server.tell("leave");
        let left = Instant::now();
        let line = session.line("connect with");
        assert!(line.ends_with("(ends in 2 s unless somebody connects)"), "{line}");
        session.ends(0, ["start-tmate: the session has ended: nobody was connected for 2 s"]);
        assert!(left.elapsed() > Duration::from_millis(1900), "{:?}", left.elapsed());
    }
}

/// An end of the connection that libssh sees while it writes, tmate sees at its next write: there must be one.
const TICKS: &str = "type while echo ti''ck; do sleep 0.5; done";

#[test]
fn after_a_lost_connection_the_new_link_is_said() {
    let mut server = TmateServer::start("plain");
    let mut session = server.session().args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.tell(TICKS);
    server.shows("tick");
    server.tell("drop");
    session.line("the connection to the server is lost; tmate tries again");
    let line = session.line("connect with: ssh -p");
    assert!(line.contains(" token2@127.0.0.1 (ends in "), "{line}");
    session.signal(Signal::SIGTERM);
    session.ends(143, ["start-tmate: the session has ended: interrupted by SIGTERM"]);
}

#[test]
fn a_server_that_goes_for_good_does_not_keep_the_session() {
    let mut server = TmateServer::start("counting");
    let mut session = server.session().args(["3", "--repeat", "0"]).start();
    session.line("connect with");
    server.tell("join");
    until(|| {
        let socket = session.folder().join("s");
        fs_err::metadata(socket).is_ok_and(|data| data.permissions().mode() & 0o100 != 0)
    });
    server.tell(TICKS);
    server.shows("tick");
    server.tell("away");
    session.line("the connection to the server is lost");
    session.ends(0, ["start-tmate: the session has ended: nobody was connected for 3 s"]);
}

#[test]
fn only_the_given_keys_are_taken_whatever_the_users_conf_says() {
    let files = folder();
    let key = |name: &str| {
        let file = files.path().join(name);
        let mut keygen = std::process::Command::new("ssh-keygen");
        crate::support::finish(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&file));
        fs_err::read_to_string(files.path().join(format!("{name}.pub"))).unwrap().trim_end().to_owned()
    };
    let (ours, others) = (key("ours"), key("others"));
    fs_err::write(files.path().join("theirs"), format!("{others}\n")).unwrap();
    let conf = format!("set -g tmate-authorized-keys \"~/theirs\"\nset -g tmate-set \"authorized_keys={others}\"\n");
    fs_err::write(files.path().join(".tmate.conf"), conf).unwrap();

    let server = TmateServer::start("plain");
    let session = server.session().env("HOME", files.path()).args(["1", "--authorized-keys", "-"]);
    let session = session.stdin(&format!("# me\r\n{ours}\r\n")).start();
    let (status, stderr) = session.finish();
    assert_eq!(status, 0);
    assert!(stderr.iter().all(|line| !line.contains("warning")), "{stderr:?}");
    let mut server = server;
    server.tell("leave");
    let options = server.options();
    // The server forgets its keys when the file is set, and takes those that follow.
    let file = options.iter().rposition(|option| option.starts_with("tmate-authorized-keys ")).unwrap();
    let keys: Vec<_> = options[file..].iter().filter(|option| option.contains("authorized_keys=")).collect();
    assert_eq!(keys, [&format!("tmate-set authorized_keys={ours}")], "{options:#?}");

    // Without ours, theirs count.
    let server = TmateServer::start("plain");
    let (status, stderr) = server.session().env("HOME", files.path()).args(["1"]).start().finish();
    assert_eq!(status, 0);
    assert!(stderr.iter().all(|line| !line.contains("warning")), "{stderr:?}");
    fs_err::write(files.path().join("theirs"), "").unwrap();
    let (status, stderr) = server.session().env("HOME", files.path()).args(["1"]).start().finish();
    assert!(status == 1 && stderr.iter().all(|line| !line.contains("connect with")), "{stderr:?}");
}

#[test]
fn the_users_conf_names_the_server_and_its_mistakes_are_told() {
    let server = TmateServer::start("plain");
    let home = folder();
    let home = home.path().join("it's \"home\" $HOME");
    fs_err::create_dir(&home).unwrap();
    let conf = |more: &str| {
        let text = format!(
            "set -g tmate-server-host 127.0.0.1\nset -g tmate-server-port {}\n\
             set -g tmate-server-ed25519-fingerprint \"{}\"\n{more}\n",
            server.port(),
            server.fingerprint()
        );
        fs_err::write(home.join(".tmate.conf"), text).unwrap();
        SessionBuilder::new(&std::env::var("PATH").unwrap()).env("HOME", &home)
    };
    let (status, stderr) = conf("").args(["1"]).start().finish();
    assert_eq!(status, 0, "{stderr:?}");
    let (status, stderr) = conf("sett x").args(["1"]).start().finish();
    assert_eq!(status, 1);
    assert!(stderr.iter().any(|line| line.contains("unknown command: sett")), "{stderr:?}");
    // Without a fingerprint of one's own, those of ssh.tmate.io do not count.
    fs_err::write(home.join(".tmate.conf"), "set -g tmate-server-host 127.0.0.1\n").unwrap();
    let session = SessionBuilder::new(&std::env::var("PATH").unwrap()).env("HOME", &home).start();
    session.ends(
        1,
        [
            "start-tmate: error: no fingerprint is set for the tmate server `127.0.0.1`, port 22",
            "hint: `ssh-keyscan 127.0.0.1 | ssh-keygen -lf -` prints it; give it as `--fingerprint SHA256:…`",
        ],
    );
}

#[test]
fn what_keeps_it_from_the_server_is_told() {
    let server = TmateServer::start("mute");
    let (status, stderr) = server.session().args(["--connect-timeout", "1"]).start().finish();
    assert_eq!(status, 1);
    assert!(stderr.iter().any(|line| line.ends_with("within 1 s: the server is silent")), "{stderr:?}");

    let server = TmateServer::start("keys");
    let (status, stderr) = server.session().start().finish();
    assert_eq!(status, 1);
    assert!(stderr.iter().any(|line| line.contains("the server wants keys")), "{stderr:?}");

    let server = TmateServer::start("plain");
    let other = super::command_line::PRINT;
    let session = server.session().env("TMATE_SERVER_ED25519_FINGERPRINT", other);
    let (status, stderr) = session.args(["--connect-timeout", "1"]).start().finish();
    assert_eq!(status, 1);
    assert!(stderr.iter().any(|line| line.ends_with("the server's host key has another fingerprint")), "{stderr:?}");

    let closed = server.session().env("TMATE_SERVER_PORT", "1").args(["--connect-timeout", "1"]);
    let (status, stderr) = closed.start().finish();
    assert_eq!(status, 1);
    assert!(stderr.iter().any(|line| line.ends_with("the server refused the connection")), "{stderr:?}");
}

#[test]
fn the_shell_has_the_folder_and_the_environment_of_the_call() {
    let folder = folder();
    let place = folder.path().join("it's a place");
    fs_err::create_dir(&place).unwrap();
    let link = folder.path().join("by link");
    std::os::unix::fs::symlink(&place, &link).unwrap();
    let harm = folder.path().join("harm");
    script(&harm, "echo harmed >&2; exit 9");
    let mut server = TmateServer::start("plain");
    let session = server
        .session()
        .directory(&link)
        .env("PWD", &link)
        .env("SHELL", "/usr/sbin/nologin")
        .env("SHELLOPTS", "braceexpand:errexit:hashall:interactive-comments:nounset")
        .env("BASH_ENV", &harm)
        .env("TMOUT", "1")
        .env("ODD", "a 'b' \"c\" $d #{pid}")
        .without("HOME")
        .without("TERM");
    let mut session = session.args(["600"]).start();
    session.line("connect with");
    server.shows(&format!("You are in {}\\r\\n", link.display()));
    server.tell("join");
    let out = folder.path().join("out");
    let variables = "\"$PWD\" \"$SHELL\" \"${HOME-none}\" \"${BASH_ENV-none}\" \"${TMOUT-none}\" \"$ODD\" $-";
    server.tell(&format!("type false; printf '%s|' {variables} > '{}'; echo writ''ten", out.display()));
    server.shows("written");
    let expected = format!("{}|/usr/sbin/nologin|none|none|none|a 'b' \"c\" $d #{{pid}}|himBHs|", link.display());
    assert_eq!(fs_err::read_to_string(&out).unwrap(), expected);
    server.tell("type exit");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
}

#[test]
fn a_new_window_greets_too_and_the_last_shell_ends_it() {
    let mut server = TmateServer::start("plain");
    let mut session = server.session().args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.shows("opened by start-tmate");
    server.tell("type tmate new-window");
    server.shows("opened by start-tmate");
    server.tell("type exit");
    server.wait(|line| line == "windows 1");
    server.tell("type echo st''ill here");
    server.shows("still here");
    server.tell("type exit");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
}

#[test]
fn another_command_runs_in_place_of_the_shell() {
    let mut server = TmateServer::start("plain");
    let session =
        server.session().args(["600", "--command", "echo \"it's $((40 + 2))\"; read -r line; echo got $line"]);
    let mut session = session.start();
    session.line("connect with");
    server.shows("it's 42");
    server.tell("type x");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
}

#[test]
fn the_cap_is_announced_in_the_session_and_ends_it() {
    let mut server = TmateServer::start("plain");
    let mut session = server.session().args(["600", "--max-duration", "62", "--repeat", "0"]).start();
    session.line("connect with");
    server.tell("join");
    let line = session.line("the session ends in ");
    assert_eq!(line, "60 s, whoever is connected");
    server.shows("*** This session ends in 60 s, whoever is connected. ***");
    session.signal(Signal::SIGHUP);
    session.ends(129, ["start-tmate: the session has ended: interrupted by SIGHUP"]);

    let mut session = server.session().args(["600", "--max-duration", "3", "--repeat", "0"]).start();
    session.line("connect with");
    server.tell("join");
    session.ends(0, ["start-tmate: the session has ended: it has lasted as long as it may"]);
}

#[test]
fn nothing_that_was_started_in_it_stays() {
    let mut server = TmateServer::start("plain");
    let mut session = server.session().args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.tell("type sleep 1000 & setsid sleep 1001; nohup setsid sleep 1002 >/dev/null 2>&1 & echo st''arted");
    server.tell("type trap '' HUP TERM");
    server.tell("type echo a''ll");
    session.signal(Signal::SIGTERM);
    // `finish` looks for them.
    session.ends(143, ["start-tmate: the session has ended: interrupted by SIGTERM"]);

    let mut session = server.session().args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.tell("type nohup sleep 1003 >/dev/null 2>&1 & setsid -f sleep 1004; echo st''arted; exit");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
}

#[test]
fn when_it_is_killed_nothing_that_was_started_in_it_stays() {
    let mut server = TmateServer::start("plain");
    let mut session = server.session().args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.tell("type setsid sleep 1001 & nohup setsid sleep 1002 >/dev/null 2>&1 & echo st''arted");
    server.shows("started");
    let (place, mark) = session.kill();
    until(|| crate::support::processes_of(&mark).is_empty());
    assert_eq!(names(place.path()), [""; 0]);
}

/// Nothing is mounted on `/proc` but an empty directory.
fn without_proc(session: SessionBuilder) -> SessionBuilder {
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$@\"";
    session.under(["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh"])
}

#[test]
fn without_proc_it_greets_and_nothing_stays() {
    if !root_for("a mount") {
        return;
    }
    let mut server = TmateServer::start("plain");
    let mut session = without_proc(server.session()).args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.shows("opened by start-tmate");
    server.tell("type setsid sleep 1001 & nohup setsid sleep 1002 >/dev/null 2>&1 & trap '' HUP TERM; echo st''arted");
    server.shows("started");
    session.signal(Signal::SIGTERM);
    // `finish` looks for them.
    session.ends(143, ["start-tmate: the session has ended: interrupted by SIGTERM"]);

    let mut session = without_proc(server.session()).args(["600"]).start();
    session.line("connect with");
    server.tell("join");
    server.tell("type setsid -f sleep 1003; echo st''arted");
    server.shows("started");
    let (place, mark) = session.kill();
    until(|| crate::support::processes_of(&mark).is_empty());
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn it_works_as_process_one() {
    if !root_for("a process namespace") {
        return;
    }
    let mut server = TmateServer::start("plain");
    let session = server.session().under(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]).args(["600"]);
    let mut session = session.start();
    session.line("connect with");
    server.tell("join");
    // An orphan falls to it, and is waited for.
    server.tell("type (exec -a orphan sleep 0.01 &); while pgrep -f ^orphan; do sleep 0.01; done; echo re''aped");
    server.shows("reaped");
    server.tell("type exit");
    session.ends(0, ["start-tmate: the session has ended: its last shell has ended"]);
}

#[test]
fn it_works_for_a_user_whom_nobody_knows() {
    if !root_for("another user") {
        return;
    }
    let server = TmateServer::start("plain");
    let session = server.session().without("HOME").without("TERM").without("USER").without("LOGNAME");
    let id = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let mut session = session.under(id).directory(Path::new("/")).args(["600"]).start();
    session.line("connect with");
    session.signal(Signal::SIGINT);
    session.ends(130, ["start-tmate: the session has ended: interrupted by SIGINT"]);
}
