//! A terminal on standard input: it keeps nothing from a script in CI, and the terminal works as it does with bash.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::path_with;
use crate::support::{Fake, folder, installed, script, until};

/// A command in a terminal of its own, which it leads.
pub(super) struct Terminal {
    child: Child,
    place: TempDir,
    reader: Option<JoinHandle<()>>,
    /// What was shown so far.
    output: Arc<Mutex<Vec<u8>>>,
}

/// What is asked of the session, if there is one.
const VARIABLES: [(&str, &str); 3] = [
    ("BASH_TMATE_SERVER", "h"),
    ("BASH_TMATE_FINGERPRINT", "ed25519:SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI"),
    ("BASH_TMATE_MAX_IDLE", "1"),
];

impl Terminal {
    /// Runs the shell script `job` with these FIFOs beside it.
    pub(super) fn start(fake: &Fake, job: &str, variables: &[(&str, &str)], fifos: &[&str]) -> Self {
        let place = folder();
        script(&place.path().join("job"), job);
        for name in fifos {
            nix::unistd::mkfifo(&place.path().join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let path = format!("{}:{}", fake.bin().display(), path_with(installed()));
        let mut command = Command::new("script");
        // `script` has $SHELL run it, and a shell that stays would be ended by the ctrl-C.
        command.args(["-qefc", "exec ./job", "/dev/null"]).current_dir(place.path());
        for name in ["CI", "BASH_TMATE_TTY"] {
            command.env_remove(name);
        }
        command.env("PATH", path).env("FAKE_TMATE", fake.path("")).env("HOME", "/nowhere").env("PS1", "$ ");
        command.env("SHELL", "/bin/sh").env("TMPDIR", place.path());
        command.envs(VARIABLES).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                shared.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self { child, place, reader: Some(reader), output }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Reads the FIFO `name`, and returns what was written to it.
    fn reads(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The exit status as a shell has it, and what was shown.
    pub(super) fn finish(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let output = self.output();
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), output)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fake() -> Fake {
    Fake::new(&[("link", "ssh x"), ("lines", "ssh session: ssh x")])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn in_ci_a_script_on_a_terminal_has_a_session_and_an_interactive_shell_has_none() {
    let ci = ("CI", "true");
    for (job, variables, typed, session) in [
        // As Buildkite's agent calls it.
        ("exec bash-tmate -e -c 'exit 3'", &[ci][..], "", true),
        ("echo 'exit 3' > script; exec bash-tmate -eo pipefail ./script", &[ci], "", true),
        ("exec bash-tmate -c 'exit 3'", &[("BASH_TMATE_TTY", "1")], "", true),
        ("exec bash-tmate -c 'exit 3'", &[], "", false),
        ("exec bash-tmate -c 'exit 3'", &[("CI", "false")], "", false),
        ("exec bash-tmate -c 'exit 3'", &[ci, ("BASH_TMATE_TTY", "0")], "", false),
        ("exec bash-tmate -ic 'exit 3'", &[ci], "", false),
        ("exec bash-tmate --norc", &[ci], "exit 3\n", false),
        ("exec bash-tmate --norc", &[("BASH_TMATE_TTY", "1")], "exit 3\n", false),
    ] {
        let fake = fake();
        let mut terminal = Terminal::start(&fake, job, variables, &[]);
        terminal.types(typed);
        let (status, output) = terminal.finish();
        let found = (status, output.contains("connect with: ssh x"), fake.asked() > 0);
        assert_eq!(found, (3, session, session), "{job} {variables:?}\n{output}");
    }
}

const SHELLS: [&str; 2] = ["bash -eo pipefail", "bash-tmate"];
const CI: [(&str, &str); 1] = [("CI", "true")];

#[test]
fn ctrl_c_arrives_once_and_ends_the_job_without_a_session() {
    for (shell, input) in SHELLS.iter().flat_map(|shell| [(shell, ""), (shell, "< /dev/null")]) {
        let fake = fake();
        // The first INT ends the program; a second one would be counted before the next has ended.
        let job = format!(
            "exec {shell} -c 'trap \"echo int >> count\" INT; sh -c \"echo > ready; exec sleep 1000\" || :; \
             read x < go; exit 4' {input}"
        );
        let mut terminal = Terminal::start(&fake, &job, &CI, &["ready", "go"]);
        terminal.reads("ready");
        terminal.types("\x03");
        std::fs::write(terminal.path("go"), "on\n").unwrap();
        let count = terminal.path("count");
        let status = terminal.child.wait().unwrap();
        assert_eq!((status.code(), &*read(&count), fake.asked()), (Some(4), "int\n", 0), "{shell} {input}");
        let job = format!("exec {shell} -c 'sh -c \"echo > ready; exec sleep 1000\"; echo no'");
        let mut terminal = Terminal::start(&fake, &job, &CI, &["ready"]);
        terminal.reads("ready");
        terminal.types("\x03");
        let (status, output) = terminal.finish();
        assert_eq!((status, output.contains("no"), fake.asked()), (130, false, 0), "{shell}: {output}");
    }
}

#[test]
fn ctrl_c_ends_the_session() {
    let fake = fake();
    let variables = [("CI", "true"), ("BASH_TMATE_MAX_IDLE", "1000")];
    let mut terminal = Terminal::start(&fake, "exec bash-tmate -c 'exit 43'", &variables, &[]);
    until(|| terminal.output().contains("connect with"));
    terminal.types("\x03");
    let (status, output) = terminal.finish();
    assert_eq!(status, 43, "{output}");
    assert!(output.contains("the session has ended: interrupted by SIGINT"), "{output}");
}

/// ctrl-Z stops it, `fg` lets it go on, and what is typed then reaches it. With `set -m` bash has a process group of
/// its own.
#[test]
fn a_job_is_stopped_and_goes_on_in_the_foreground() {
    for mode in ["", "set -m; "] {
        for shell in SHELLS {
            let fake = fake();
            let inner = format!("{mode}echo > ready; read x < go; read y; echo \"<$y>\" > typed; exit 4");
            let job = format!(
                "exec bash -c 'set -m; {shell} -c \"$0\"; echo stopped $? > said; fg > /dev/null; echo ended $? > end' '{}'",
                inner.replace('\'', "'\\''")
            );
            let variables = [("CI", "true"), ("BASH_TMATE_SKIP_CODES", "4")];
            let mut terminal = Terminal::start(&fake, &job, &variables, &["ready", "go", "said"]);
            terminal.reads("ready");
            terminal.types("\x1a");
            assert_eq!(terminal.reads("said"), "stopped 148\n", "{mode}{shell}");
            std::fs::write(terminal.path("go"), "on\n").unwrap();
            terminal.types("answer\n");
            let (typed, end) = (terminal.path("typed"), terminal.path("end"));
            terminal.child.wait().unwrap();
            assert_eq!((&*read(&typed), &*read(&end)), ("<answer>\n", "ended 4\n"), "{mode}{shell}");
        }
    }
}

#[test]
fn a_new_size_of_the_window_arrives_once() {
    for shell in SHELLS {
        let fake = fake();
        let inner = "trap \"echo winch >> count\" WINCH; stty rows 33 cols 99; stty size > size; exit 4";
        let job = format!("exec {shell} -c '{inner}'");
        let variables = [("CI", "true"), ("BASH_TMATE_SKIP_CODES", "4")];
        let mut terminal = Terminal::start(&fake, &job, &variables, &[]);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(4));
        let (count, size) = (read(&terminal.path("count")), read(&terminal.path("size")));
        assert_eq!((&*count, &*size), ("winch\n", "33 99\n"), "{shell}");
    }
}

/// A shell that was killed while a group of its own had the terminal.
#[test]
fn the_terminal_comes_back_from_a_group_that_is_gone() {
    let fake = fake();
    let job = "exec bash-tmate -c 'set -m; kill -KILL $$'";
    let variables = [("CI", "true"), ("BASH_TMATE_MAX_IDLE", "1000")];
    let mut terminal = Terminal::start(&fake, job, &variables, &[]);
    until(|| terminal.output().contains("connect with"));
    terminal.types("\x03");
    let (status, output) = terminal.finish();
    assert_eq!(status, 137, "{output}");
    assert!(output.contains("the session has ended: interrupted by SIGINT"), "{output}");
}
