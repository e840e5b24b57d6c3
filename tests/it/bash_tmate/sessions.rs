//! What follows a failure: a session, the scene in it, and bash's exit code whatever happens with tmate.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::support::{Fake, SessionBuilder, TmateServer, folder, root_for};

pub(super) const PRINT: &str = "ed25519:SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI";

fn ready() -> Fake {
    Fake::new(&[("link", "ssh x"), ("lines", "Connecting to h...\nssh session: ssh x")])
}

fn session(fake: &Fake) -> SessionBuilder {
    fake.session()
        .bash()
        .env("BASH_TMATE_SERVER", "h")
        .env("BASH_TMATE_FINGERPRINT", PRINT)
        .env("BASH_TMATE_MAX_IDLE", "1")
        .env("BASH_TMATE_CONNECT_TIMEOUT", "1")
}

#[test]
fn a_failure_is_told_in_one_line_and_a_session_follows() {
    for (arguments, stdin, status, line) in [
        (&["-c", "exit 3"][..], "", 3, "the command string failed with exit status 3"),
        (&["-c", "kill -KILL $$"], "", 137, "the command string was killed by SIGKILL (exit status 137)"),
        (&[], "f() {\nfalse a\n}\nf\n", 1, "the script on standard input failed with exit status 1: `false a` in f"),
        (&["/dev/stdin"], "no-such\n", 127, "`/dev/stdin` failed with exit status 127: `no-such`"),
    ] {
        let fake = ready();
        let mut builder = session(&fake).stdin(stdin);
        for word in arguments {
            builder = builder.args([word]);
        }
        let mut running = builder.start();
        running.line(line);
        running.line("connect with: ssh x");
        let (ended, stderr) = running.finish();
        assert_eq!(ended, status, "{stderr:?}");
        assert_eq!(stderr.last().unwrap(), "bash-tmate: the session has ended: nobody was connected for 1 s");
    }
}

#[test]
fn the_trace_knows_the_command_and_its_line() {
    let script = "f() {\n  local a=1\n  x=$(\n    false b)\n}\nf\n";
    let fake = ready();
    let running = session(&fake).env("BASH_TMATE_TRACE", "1").stdin(script).start();
    let (ended, stderr) = running.finish();
    let line = "bash-tmate: the script on standard input failed with exit status 1: `x=$(false b)` in f at line 4";
    assert!(stderr.iter().any(|said| said == line), "{stderr:?}");
    assert_eq!(ended, 1);
}

#[test]
fn no_session_where_nobody_wants_one() {
    for (variable, value, script) in [
        ("BASH_TMATE_DISABLE", "1", "exit 3"),
        ("BASH_TMATE_ONLY_CODES", "1,2,4-9", "exit 3"),
        ("BASH_TMATE_SKIP_CODES", "2-4", "exit 3"),
        ("BASH_TMATE_SCENE", "1", "set -n; exit 3"),
        ("BASH_TMATE_SCENE", "1", "true"),
    ] {
        let fake = ready();
        let (ended, stderr) = session(&fake).env(variable, value).args(["-c", script]).start().finish();
        assert_eq!((ended, stderr), (if script == "exit 3" { 3 } else { 0 }, Vec::new()), "{variable}={value}");
        assert_eq!(fake.asked(), 0);
    }
    let fake = ready();
    let wanted = session(&fake).env("BASH_TMATE_ONLY_CODES", "1-5").env("BASH_TMATE_SKIP_CODES", "2");
    assert_eq!(wanted.args(["-c", "exit 3"]).start().finish().0, 3);
    assert!(fake.asked() > 0);
}

/// Its last words name what is wrong, and the exit code is bash's.
fn fails(builder: SessionBuilder, words: &str) {
    let (ended, stderr) = builder.args(["-c", "exit 43"]).start().finish();
    assert_eq!(ended, 43, "{stderr:?}");
    assert_eq!(stderr[0], "bash-tmate: the command string failed with exit status 43");
    assert!(stderr.iter().any(|line| line.contains(words)), "no `{words}` in {stderr:?}");
}

#[test]
fn whatever_happens_with_tmate_the_code_is_bashs() {
    // Nothing else in PATH than bash.
    let bin = folder();
    std::os::unix::fs::symlink(which::which("bash").unwrap(), bin.path().join("bash")).unwrap();
    let fake = ready();
    fails(session(&fake).env("PATH", bin.path()), "cannot find `tmate` in PATH");
    fails(fake.session().bash(), "no tmate server is set");
    for (variable, value, words) in [
        ("BASH_TMATE_MAX_IDLE", "soon", "BASH_TMATE_MAX_IDLE is `soon`"),
        ("BASH_TMATE_FINGERPRINT", "x", "`x`"),
        ("BASH_TMATE_AUTHORIZED_KEYS", "", "BASH_TMATE_AUTHORIZED_KEYS"),
        ("BASH_TMATE_AUTHORIZED_KEYS", "rubbish", "BASH_TMATE_AUTHORIZED_KEYS"),
        ("BASH_TMATE_ONLY_CODES", "x", "warning: BASH_TMATE_ONLY_CODES is `x`"),
        ("BASH_TMATE_TRACE", "maybe", "warning: BASH_TMATE_TRACE is `maybe`"),
    ] {
        let fake = ready();
        fails(session(&fake).env(variable, value), words);
    }
    for (files, words) in [
        (&[("lines", "Connecting to h...")][..], "no session through"),
        (&[("lines", "x"), ("exit", "1"), ("fail", "")], "tmate could not start a session"),
        (&[("lines", "Connecting to h..."), ("hang", "")], "no session through"),
    ] {
        let fake = Fake::new(files);
        fails(session(&fake), words);
    }
}

#[test]
fn a_full_disk_or_none_changes_nothing() {
    if !root_for("a mount") {
        return;
    }
    let fake = ready();
    let place = folder();
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    // It has room for nothing, once its inodes are used.
    let mount =
        format!("mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs {0}; export TMPDIR={0}; exec \"$@\"", full.display());
    let builder = session(&fake).under(["unshare", "--mount", "--propagation", "private", "sh", "-c", &mount, "sh"]);
    let (ended, stderr) = builder.args(["-c", "exit 43"]).start().finish();
    assert_eq!(ended, 43, "{stderr:?}");
}

#[test]
fn a_signal_during_the_session_ends_it_with_bashs_code() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let fake = ready();
        let mut running = session(&fake).env("BASH_TMATE_MAX_IDLE", "100").args(["-c", "exit 43"]).start();
        running.line("connect with");
        running.signal(signal);
        let (ended, stderr) = running.finish();
        assert_eq!(ended, 43, "{signal}: {stderr:?}");
    }
}

/// What the session's shell says where it has the state of `whose`.
pub(super) fn has_state(whose: &str) -> String {
    format!("This shell has the directory, variables, functions and options of {whose}, except errexit.")
}

/// A real session after `script`. Its windows show `told`, and then what the commands that are typed print.
fn screen(script: &str, variables: &[(&str, &str)], told: &str, commands: &[(&str, &str)]) {
    let mut server = TmateServer::start("plain");
    let mut builder = server.session().bash().env("BASH_TMATE_MAX_IDLE", "60").env("PS1", "$ ");
    let home = folder();
    builder = builder.env("HOME", home.path());
    for (name, value) in variables {
        builder = builder.env(name, value);
    }
    let mut running = builder.args(["-c", script]).start();
    running.line("connect with");
    server.tell("join");
    server.shows(told);
    for (command, shown) in commands {
        server.tell(&format!("type {command}"));
        server.shows(shown);
    }
    server.tell("type exit 0");
    let (ended, stderr) = running.finish();
    assert_eq!(ended, 43, "{stderr:?}");
}

/// So that what is typed is not taken for the answer, answers have brackets that the questions have not.
#[test]
fn the_session_stands_where_the_script_stood() {
    let place: PathBuf = std::fs::canonicalize(std::env::temp_dir()).unwrap();
    let script = "shopt -s nullglob extglob; set -fu; x='a  b'; declare -A m=([k]='v w'); declare -i n=3; \
                  export E=exported; unset GIVEN; readonly r=fixed; \
                  f() { [[ $1 == @(a|b) ]] && echo \"<is $1>\"; }; g() { cd \"$TMPDIR_OF_TEST\"; exit 43; }; g";
    screen(
        script,
        &[("GIVEN", "given"), ("TMPDIR_OF_TEST", place.to_str().unwrap())],
        &format!(
            "This shell has the directory, variables, functions and options of the script, except errexit, nounset.\\r\\nYou are in {}\\r",
            place.display()
        ),
        &[
            ("echo \"<${x}>\"", "<a  b>"),
            ("echo \"<${m[k]}>\" $((n+1))", "<v w> 4"),
            ("printenv E | sed 's/.*/<&>/'", "<exported>"),
            ("echo \"<${GIVEN-removed}>\"", "<removed>"),
            ("f b", "<is b>"),
            ("echo \"<$(pwd)>\"", &format!("<{}>", place.display())),
            ("set -o | grep noglob | tr -d '\\t ' | sed 's/.*/<&>/'", "<noglobon>"),
            ("set -o | grep -E 'pipefail' | tr -d '\\t ' | sed 's/.*/<&>/'", "<pipefailon>"),
            ("shopt nullglob | tr -d '\\t ' | sed 's/.*/<&>/'", "<nullglobon>"),
            ("false; echo \"<$- ${nothing-unset}>\" | tr -d e", "unst>"),
            ("(r=2) 2>&1 | sed 's/.*: /</'", "<readonly variable"),
            ("set -o | grep emacs | tr -d '\\t ' | sed 's/.*/<&>/'", "<emacson>"),
        ],
    );
}

#[test]
fn without_the_scene_the_session_has_what_bash_tmate_was_given() {
    let script = "x=1; cd /; GIVEN=changed; exit 43";
    let tests: &[(&str, &str)] = &[("echo \"<${x-none} $GIVEN>\"", "<none given>")];
    let because =
        |why: &str| format!("The session's shell does not have the directory and the variables of the script: {why}");
    let scene = because("BASH_TMATE_SCENE is 0.");
    screen(script, &[("GIVEN", "given"), ("BASH_TMATE_SCENE", "0")], &scene, tests);
    let own_trap = format!("trap : EXIT; {script}");
    screen(&own_trap, &[("GIVEN", "given")], &because("bash did not run the trap"), tests);
}

/// A scene of more than 16 MiB is left out, and bash's exit code stays.
#[test]
fn a_scene_that_is_too_large_is_left_out() {
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); exit 43";
    let told = "does not have the directory and the variables of the script: it is larger than 16 MiB.";
    screen(script, &[("GIVEN", "given")], told, &[("echo \"<${#x} $GIVEN>\"", "<0 given>")]);
}

#[test]
fn the_trace_brings_the_locals() {
    let script = "f() { local inner='a b'; (exit 43); }; f";
    let told = "The local variables of the function that failed are set too.";
    screen(script, &[("BASH_TMATE_TRACE", "1")], told, &[("echo \"<$inner>\"", "<a b>")]);
}

/// A directory that is gone, and a variable that `~/.bashrc` does not let the shell have.
#[test]
fn what_cannot_be_restored_is_told() {
    let mut server = TmateServer::start("plain");
    let home = folder();
    std::fs::write(home.path().join(".bashrc"), "readonly fixed=bashrc\n").unwrap();
    let script = "d=$(mktemp -d); cd $d; rmdir $d; fixed=script; exit 43";
    let mut running = server.session().bash().env("HOME", home.path()).args(["-c", script]).start();
    running.line("connect with");
    server.tell("join");
    server.shows("options of the script, except errexit,");
    server.shows("but could not restore: the directory, which no longer exists; the variable fixed.");
    server.tell("type exit 0");
    assert_eq!(running.finish().0, 43);
}

#[test]
fn a_command_in_place_of_the_shell_has_nothing_of_the_script() {
    let mut server = TmateServer::start("plain");
    let session = server.session().bash().env("BASH_TMATE_COMMAND", "echo \"<${x-none}>\"; read -r line");
    let mut running = session.args(["-c", "x=1; exit 43"]).start();
    running.line("connect with");
    server.tell("join");
    server.shows("does not have the directory and the variables of the script: BASH_TMATE_COMMAND is set.");
    server.shows("<none>");
    server.tell("type x");
    assert_eq!(running.finish().0, 43);
}
