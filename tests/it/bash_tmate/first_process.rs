//! As process 1 of a container it stays, reaps what others leave, and obeys signals.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::sessions::has_state;
use super::{Seen, path_with};
use crate::support::engine::{Docker, tag};
use crate::support::{
    Export, Fake, SessionBuilder, Store, TmateServer, finish, folder, installed, root_for, scratch, until,
};

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

/// What fails as process 1, and what is typed into its session and what that prints.
const SCRIPT: &str = "cd /var; X=1; false";
const TYPED: &str = "echo \"<${X-none} $PWD>\"";

/// The session's shell has the state of the script, and says so.
fn has_the_state(builder: SessionBuilder, server: &mut TmateServer) {
    let mut running = builder.args(["-c", SCRIPT]).start();
    running.line("connect with");
    server.tell("join");
    server.shows(&has_state("the script"));
    server.shows("You are in /var");
    server.tell(&format!("type {TYPED}"));
    server.shows("<1 /var>");
    server.tell("type exit 0");
    assert_eq!(running.finish().0, 1);
}

#[test]
fn as_the_first_process_the_sessions_shell_has_the_scripts_state() {
    if !root_for("a pid namespace") {
        return;
    }
    let mut server = TmateServer::start("plain");
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    has_the_state(server.session().bash().under(namespace), &mut server);
    let user = server.session().bash().directory(Path::new("/")).under(namespace);
    has_the_state(user.under(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]), &mut server);
}

#[test]
fn as_the_first_process_without_proc_it_says_that_the_state_is_missing() {
    if !root_for("a pid namespace") {
        return;
    }
    let mut server = TmateServer::start("plain");
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$@\"";
    let namespace = ["unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-c", hide, "sh"];
    let mut running = server.session().bash().under(namespace).args(["-c", SCRIPT]).start();
    running.line("connect with");
    server.tell("join");
    server.shows("does not have the directory and the variables of the script: there is no /proc.");
    server.tell(&format!("type {TYPED}"));
    server.shows("<none /");
    server.tell("type exit 0");
    assert_eq!(running.finish().0, 1);
}

/// An image of a root that holds bash, tmate and this program, and nothing else.
fn image(docker: &Docker) -> String {
    let store = Store::of_the_machine();
    let place = scratch().join("bash-tmate");
    fs_err::create_dir_all(&place).unwrap();
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
    let mut install = store.command("nix-env");
    install.arg("--file").arg(packages).arg("--profile").arg(place.join("profile"));
    finish(install.args(["-iA", "bash", "coreutils", "tmate"]));
    let root = place.join("root");
    Export::new(&store).profile(place.join("profile")).root(&root).exports();
    fs_err::create_dir_all(root.join("opt")).unwrap();
    fs_err::copy(installed().join("bash-tmate"), root.join("opt/bash-tmate")).unwrap();
    let archive = place.join("root.tar");
    finish(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
    let name = tag("bash-tmate");
    let changes = ["--change", "ENV PATH=/run/profile/bin:/opt"];
    finish(docker.command().arg("import").args(changes).arg(archive).arg(&name));
    name
}

/// How a container is run that has its session through the server of the test.
const RUN: [&str; 10] = [
    "run",
    "--rm",
    "--network",
    "host",
    "--env",
    "TMATE_SERVER_HOST",
    "--env",
    "TMATE_SERVER_PORT",
    "--env",
    "TMATE_SERVER_ED25519_FINGERPRINT",
];

#[test]
fn in_a_container_the_sessions_shell_has_the_scripts_state() {
    let Some(docker) = Docker::get() else { return };
    let image = image(docker);
    let mut server = TmateServer::start("plain");
    for options in [
        &[][..],
        &["--user", "1000:1000"],
        &["--read-only"],
        &["--read-only", "--user", "1000:1000"],
        &["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65532"],
    ] {
        let mut run = docker.command();
        run.args(RUN).args(options).args([&image, "/opt/bash-tmate"]);
        has_the_state(server.session().instead(&run), &mut server);
    }
    // As GitLab's Docker executor does it, with the entrypoint of `docs/ci-shells.md`.
    let (version, runner) = &super::subshells::runner_scripts("cd /var\nX=1\nfalse\n")[0];
    let mut run = docker.command();
    run.args(RUN).args(["--interactive", "--entrypoint", "bash-tmate", &image, "-s", "--", "sh", "-c", "exec bash"]);
    let mut running = server.session().instead(&run).stdin(runner).start();
    running.line("connect with");
    server.tell("join");
    server.shows(&has_state("the subshell that failed (level 1)"));
    server.tell(&format!("type {TYPED}"));
    server.shows("<1 /var>");
    server.tell("type exit 0");
    assert_eq!(running.finish().0, 1, "{version}");
}
