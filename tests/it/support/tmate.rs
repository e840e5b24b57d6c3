//! Runs `start-tmate` with the fake tmate or with the real one, and looks at what it leaves behind.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

use super::{folder, installed, names};

/// Nothing here takes as long on any machine: what does hangs.
const LONGEST: Duration = Duration::from_secs(60);
/// In the environment of `start-tmate` and all that comes of it.
const MARK: &str = "NIXKIT_TEST_SESSION";

/// A program that `cargo build -p NAME` has put beside the tests.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.exists(),
        "`{}` is missing: cargo build --manifest-path tests/Cargo.toml --target-dir target",
        path.display()
    );
    path
}

/// Lines of a process, read by a thread so that waiting for one can end.
struct Lines {
    receiver: Receiver<String>,
    thread: JoinHandle<()>,
    seen: Vec<String>,
}

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { receiver, thread, seen: Vec::new() }
    }

    /// The next line for which `is_it` holds; the ones before are seen too.
    fn wait(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LONGEST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("{error} after\n{}", self.seen.join("\n")),
            }
        }
    }

    /// All lines to the end.
    fn finish(mut self) -> Vec<String> {
        self.thread.join().unwrap();
        self.seen.extend(self.receiver.try_iter());
        self.seen
    }
}

/// Waits for something that no pipe tells of. The nap spares the processor and decides nothing.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LONGEST;
    while !is_so() {
        assert!(Instant::now() < until, "it never was so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How `start-tmate`, or `bash-tmate`, is to be called.
pub(crate) struct SessionBuilder {
    program: &'static str,
    under: Vec<OsString>,
    /// The words of another program, which runs it.
    instead: Option<Vec<OsString>>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    /// Its `TMPDIR`, with nothing else in it.
    place: TempDir,
}

impl SessionBuilder {
    pub(crate) fn new(path: &str) -> Self {
        let place = folder();
        super::set_mode(place.path(), 0o777);
        let mut new = Self {
            program: "start-tmate",
            under: Vec::new(),
            instead: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: None,
            place,
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("BASH_TMATE_") || text.starts_with("TMATE_") {
                new.environment.push((name, None));
            }
        }
        let tmpdir = new.place.path().to_owned();
        // No conf of whoever runs the tests.
        new.env("PATH", path).env("TMPDIR", &tmpdir).env("HOME", "/nowhere")
    }

    /// Runs `command`, which is to run `bash-tmate` somewhere, with its environment besides what the session has.
    pub(crate) fn instead(mut self, command: &Command) -> Self {
        self.program = "bash-tmate";
        self.instead =
            Some([command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_owned).collect());
        for (name, value) in command.get_envs() {
            self.environment.push((name.to_owned(), value.map(OsStr::to_owned)));
        }
        self
    }

    /// `bash-tmate` in place of `start-tmate`.
    pub(crate) fn bash(mut self) -> Self {
        self.program = "bash-tmate";
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(OsString::from));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), Some(value.as_ref().to_owned())));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    pub(crate) fn under<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.under.extend(command.map(OsString::from));
        self
    }

    pub(crate) fn directory(mut self, path: &Path) -> Self {
        self.directory = Some(path.to_owned());
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.into());
        self
    }

    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn start(self) -> Session {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let program = self.instead.clone().unwrap_or_else(|| vec![installed().join(self.program).into()]);
        let mut words = self.under.iter().cloned().chain(program);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(&self.arguments);
        // Each is a job of its own: tests run beside each other.
        command.env("CI_JOB_ID", &mark);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env(MARK, &mark).current_dir(self.directory.as_deref().unwrap_or(self.place.path()));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(text) = &self.stdin {
            child.stdin.take().unwrap().write_all(text).unwrap();
        }
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Session { program: self.program, child, stdout, stderr, mark, place: self.place }
    }
}

/// A `start-tmate`, or `bash-tmate`, that runs.
pub(crate) struct Session {
    program: &'static str,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    mark: String,
    place: TempDir,
}

/// Processes whose environment has the mark of `mark`, with their command lines.
pub(crate) fn processes_of(mark: &str) -> Vec<(i32, String)> {
    let mark = format!("{MARK}={mark}");
    let is_marked = |environment: &[u8]| environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes());
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs_err::read(entry.path().join("environ")).is_ok_and(|environment| is_marked(&environment)) {
            let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

impl Session {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The child that does the work of a session, once it is there.
    pub(crate) fn worker(&self) -> Option<Pid> {
        let parent = self.pid().as_raw();
        let mut processes = nixkit::supervise::processes::all().into_iter();
        processes.find(|process| process.parent == parent).map(|process| Pid::from_raw(process.id))
    }

    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The next line on stderr that begins with the program's name and `text`, without them.
    pub(crate) fn line(&mut self, text: &str) -> String {
        let start = format!("{}: {text}", self.program);
        let line = self.stderr.wait(|line| line.starts_with(&start));
        line[start.len()..].to_owned()
    }

    /// The folder of the session.
    pub(crate) fn folder(&self) -> PathBuf {
        let names = names(self.place.path());
        assert_eq!(names.len(), 1, "{names:?}");
        self.place.path().join(&names[0])
    }

    /// Kills it, but not its child, and returns the place where its folder is.
    pub(crate) fn kill(mut self) -> (TempDir, String) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.place, self.mark)
    }

    /// Waits for the end. Nothing may be left, and nothing may have been printed to stdout. Returns the exit
    /// status as a shell has it, and what was printed to stderr.
    pub(crate) fn finish(self) -> (i32, Vec<String>) {
        let (status, stdout, stderr) = self.finish_with_output();
        assert_eq!(stdout, [""; 0]);
        (status, stderr)
    }

    /// As [`Session::finish`], with what was printed to stdout before what was printed to stderr.
    pub(crate) fn finish_with_output(mut self) -> (i32, Vec<String>, Vec<String>) {
        let until = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                self.child.kill().unwrap();
                panic!("it does not end; it said\n{}", self.stderr.finish().join("\n"));
            }
            // It spares the processor and decides nothing.
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = self.stdout.finish();
        let stderr = self.stderr.finish();
        assert_eq!(processes_of(&self.mark), [], "left behind after\n{}", stderr.join("\n"));
        assert_eq!(names(self.place.path()), [""; 0], "left behind after\n{}", stderr.join("\n"));
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        (status, stdout, stderr)
    }

    /// Waits for the end, which must be with `status` and the last lines of stderr.
    pub(crate) fn ends<const N: usize>(self, status: i32, last: [&str; N]) {
        let (ended, stderr) = self.finish();
        let tail = &stderr[stderr.len().saturating_sub(N)..];
        assert_eq!((ended, tail), (status, &last.map(str::to_owned)[..]), "all of it:\n{}", stderr.join("\n"));
    }
}

/// The fake tmate's folder.
pub(crate) struct Fake {
    files: TempDir,
    bin: TempDir,
}

impl Fake {
    /// One that does what these files say.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let fake = Self { files: folder(), bin: folder() };
        std::os::unix::fs::symlink(built("fake-tmate"), fake.bin.path().join("tmate")).unwrap();
        mkfifo(&fake.files.path().join("control"), Mode::S_IRWXU).unwrap();
        for (name, text) in files {
            fake.set(name, text);
        }
        fake
    }

    pub(crate) fn set(&self, name: &str, text: &str) {
        let temporary = self.files.path().join("new");
        fs_err::write(&temporary, text).unwrap();
        fs_err::rename(temporary, self.files.path().join(name)).unwrap();
    }

    /// Tells `tmate -F` what to do.
    pub(crate) fn tell(&self, command: &str) {
        fs_err::write(self.files.path().join("control"), format!("{command}\n")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Where the program `tmate` is.
    pub(crate) fn bin(&self) -> &Path {
        self.bin.path()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> u64 {
        fs_err::metadata(self.path("asked")).map_or(0, |data| data.len())
    }

    pub(crate) fn session(&self) -> SessionBuilder {
        let path = format!("{}:{}", self.bin.path().display(), std::env::var("PATH").unwrap());
        SessionBuilder::new(&path).env("FAKE_TMATE", self.files.path())
    }
}

/// The small tmate server for the real client.
pub(crate) struct TmateServer {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines,
    key: TempDir,
    port: u16,
    /// What the windows have shown so far, escaped.
    screen: String,
}

impl TmateServer {
    /// One of a kind: `plain`, `counting`, `keys` or `mute`.
    pub(crate) fn start(kind: &str) -> Self {
        let key = folder();
        let file = key.path().join("host_key");
        let mut keygen = Command::new("ssh-keygen");
        super::finish(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file));
        let mut child = Command::new(built("tmate-server"))
            .arg(&file)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = Lines::of(child.stdout.take().unwrap());
        let port = stdout.wait(|line| line.starts_with("listening "))["listening ".len()..].parse().unwrap();
        Self { child, stdin, stdout, key, port, screen: String::new() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// As `ssh-keygen -lf` prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let mut keygen = Command::new("ssh-keygen");
        let line = super::finish(keygen.arg("-lf").arg(self.key.path().join("host_key.pub")));
        line.split(' ').nth(1).unwrap().to_owned()
    }

    /// A session through it.
    pub(crate) fn session(&self) -> SessionBuilder {
        SessionBuilder::new(&std::env::var("PATH").unwrap())
            .env("TMATE_SERVER_HOST", "127.0.0.1")
            .env("TMATE_SERVER_PORT", self.port.to_string())
            .env("TMATE_SERVER_ED25519_FINGERPRINT", self.fingerprint())
    }

    /// Tells it what to do, and waits until it is done.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        let done = format!("done {command}");
        self.wait(|line| line == done);
    }

    /// Waits for what it says.
    pub(crate) fn wait(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let seen = self.stdout.seen.len();
        let line = self.stdout.wait(is_it);
        for line in &self.stdout.seen[seen..] {
            self.screen.push_str(line.strip_prefix("screen ").unwrap_or_default());
        }
        line
    }

    /// Waits until the windows have shown `text`, and forgets all that they have shown up to it.
    pub(crate) fn shows(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return std::mem::replace(&mut self.screen, rest);
            }
            self.wait(|line| line.starts_with("screen "));
        }
    }

    /// The options that the conf of the session has set so far, in order.
    pub(crate) fn options(&self) -> Vec<String> {
        let lines = self.stdout.seen.iter();
        lines.filter_map(|line| line.strip_prefix("set ")).map(str::to_owned).collect()
    }
}

impl Drop for TmateServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
