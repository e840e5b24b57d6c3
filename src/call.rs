//! Calls of other programs that have a time limit: git, curl, skopeo, and a recipe's own; tried again where the
//! network may be at fault. It must never leave one running, or give one the registry's credentials.
//!
//! [`crate::program`] is for those that answer at once and from this machine.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};

use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;

/// Variables with credentials. They go to skopeo alone, and there by a file.
pub const SECRETS: [&str; 5] =
    ["REGISTRY_AUTH_FILE", "REGISTRY_USER", "REGISTRY_PASSWORD", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"];
/// How long a signal, or the end of a program, may go unnoticed.
const POLL: Duration = Duration::from_millis(20);
/// How long a program that is told to end has for it, and a pipe for its rest after the program's end.
const GRACE: Duration = Duration::from_secs(5);
/// Some of what a program said last is kept for the message about its failure.
const TAIL: usize = 2000;

/// A program on this machine.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    interrupt: Interrupt,
}

/// One call of it.
#[derive(Clone, Debug)]
pub struct Call {
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
    limit: Duration,
}

impl Call {
    /// A call that may take as long as `limit`.
    pub fn new<A: Into<OsString>>(limit: Duration, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { arguments, variables: Vec::new(), input: Vec::new(), limit }
    }

    /// Sets what it reads from its standard input. Every user of the machine can read a command line, but not this.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    /// Exit status or signal.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Program {
    /// Finds `name` in `PATH`.
    pub fn find(name: &str, hint: &str, interrupt: Interrupt) -> anyhow::Result<Self> {
        let path = which::which(name).map_err(|_| hinted(anyhow!("cannot find `{name}` in PATH"), hint))?;
        Ok(Self { path, interrupt })
    }

    /// The program at `path`, which must be there.
    pub fn at(path: &Path, interrupt: Interrupt) -> anyhow::Result<Self> {
        let path = which::which(path).map_err(|_| anyhow!("`{}` is no program", shown(path)))?;
        Ok(Self { path, interrupt })
    }

    /// The file's name.
    pub fn name(&self) -> String {
        shown(self.path.file_name().unwrap_or(OsStr::new("?")))
    }

    /// Runs it and returns all that it printed. Fails where it cannot be started or does not end in time.
    pub fn ask(&self, call: &Call) -> anyhow::Result<Answer> {
        let mut child = self.start(call, Stdio::piped(), Stdio::piped())?;
        let stdout = child.stdout.take().map(in_background);
        let stderr = child.stderr.take().map(in_background);
        let deadline = Instant::now() + call.limit;
        let collect = |pipe: Option<Receiver<Vec<u8>>>, child: &mut Child| -> anyhow::Result<Vec<u8>> {
            let mut all = Vec::new();
            let Some(pipe) = pipe else { return Ok(all) };
            self.listen(&pipe, child, deadline, call, &mut |chunk| all.extend_from_slice(chunk))?;
            Ok(all)
        };
        let stdout = collect(stdout, &mut child)?;
        let stderr = collect(stderr, &mut child)?;
        let status = child.wait().with_context(|| format!("cannot wait for `{}`", self.name()))?;
        Ok(Answer { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }

    /// Runs it and hands all that it prints, on whichever stream, to `listen` at once. Fails with the end of that
    /// where it fails.
    pub fn run(&self, call: &Call, listen: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let both = writer.try_clone().context("cannot make a pipe")?;
        let mut child = self.start(call, writer.into(), both.into())?;
        let deadline = Instant::now() + call.limit;
        let mut tail = Vec::new();
        let mut keep = |chunk: &[u8]| {
            listen(chunk);
            tail.extend_from_slice(chunk);
            let much = tail.len().saturating_sub(TAIL);
            tail.drain(..much);
        };
        self.listen(&in_background(File::from(reader)), &mut child, deadline, call, &mut keep)?;
        let status = child.wait().with_context(|| format!("cannot wait for `{}`", self.name()))?;
        if status.success() {
            return Ok(());
        }
        // A signal from the terminal reaches the child first.
        self.interrupt.check()?;
        let tail = String::from_utf8_lossy(&tail);
        match tail.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => bail!("`{}` failed ({status}): {}", self.name(), shown(line.trim())),
            None => bail!("`{}` failed ({status}) and did not say why", self.name()),
        }
    }

    fn start(&self, call: &Call, stdout: Stdio, stderr: Stdio) -> anyhow::Result<Child> {
        self.interrupt.check()?;
        let mut command = Command::new(&self.path);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let mut child = command
            .args(&call.arguments)
            .envs(call.variables.iter().map(|(name, value)| (name, value)))
            .stdin(if call.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(stdout)
            .stderr(stderr)
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run `{}`", shown(&self.path)))?;
        if let Some(mut stdin) = child.stdin.take() {
            let input = call.input.clone();
            // In a thread, since the program may print before it reads. One that fails at once does not read it: its
            // own message says more than the broken pipe.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        Ok(child)
    }

    /// Reads `pipe` to its end, or until the program has ended: what it left behind may hold the pipe open.
    fn listen(
        &self,
        pipe: &Receiver<Vec<u8>>,
        child: &mut Child,
        deadline: Instant,
        call: &Call,
        listen: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let mut ended: Option<Instant> = None;
        loop {
            match pipe.recv_timeout(POLL) {
                Ok(chunk) => {
                    listen(&chunk);
                    ended = ended.map(|_| Instant::now());
                }
                Err(RecvTimeoutError::Disconnected) if ended.is_some() => return Ok(()),
                // Its pipes are closed, but it may live on.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
                Err(RecvTimeoutError::Timeout) if ended.is_some_and(|ended| ended.elapsed() > GRACE) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ended.is_none() {
                let status = child.try_wait().with_context(|| format!("cannot wait for `{}`", self.name()))?;
                ended = status.map(|_| Instant::now());
            }
            let late = ended.is_none() && Instant::now() > deadline;
            if let Err(interrupted) = self.interrupt.check() {
                end(child);
                return Err(interrupted.into());
            }
            if late {
                end(child);
                bail!("`{}` did not end within {} s", self.name(), call.limit.as_secs());
            }
        }
    }
}

/// Ends a program and all that it started: first by TERM, then by KILL.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let signal = |signal| group.is_ok_and(|group| killpg(group, signal).is_ok());
    signal(Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(POLL);
    }
    signal(Signal::SIGKILL);
    let _ = child.wait();
}

fn in_background(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if send.send(buffer[..length].to_vec()).is_ok() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
    });
    receive
}

/// Three tries with growing pauses, for what goes over the network.
#[derive(Clone, Debug)]
pub struct Tries {
    /// The first pause; the second is three times as long.
    pub pause: Duration,
    /// Ends a pause.
    pub interrupt: Interrupt,
}

/// How a try ended, if not well.
#[derive(Debug)]
pub enum Failure {
    /// It would end so again.
    Final(anyhow::Error),
    /// Another try may help.
    Passing(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Passing(error.into())
    }
}

impl Tries {
    /// Tries until it works, the failure is final, or three times.
    pub fn run<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> anyhow::Result<T> {
        for pause in [self.pause, self.pause * 3] {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(_)) => self.sleep(pause)?,
            }
        }
        attempt().map_err(|(Failure::Final(error) | Failure::Passing(error))| error)
    }

    fn sleep(&self, pause: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + pause;
        loop {
            self.interrupt.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(limit: u64, script: &str) -> (Program, Call) {
        let program = Program::find("sh", "", Interrupt::default()).unwrap();
        (program, Call::new(Duration::from_secs(limit), ["-c", script]))
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let (program, call) = shell(60, "echo out; echo err >&2; exit 3");
        let answer = program.ask(&call).unwrap();
        assert_eq!((answer.stdout.as_slice(), answer.stderr.as_str()), (&b"out\n"[..], "err\n"));
        assert_eq!(answer.status.code(), Some(3));
    }

    #[test]
    fn input_is_read_and_a_program_need_not_read_it() {
        let (program, call) = shell(60, "cat");
        let large = vec![b'x'; 1 << 20];
        assert_eq!(program.ask(&call.input(large.clone())).unwrap().stdout, large);
        let (program, call) = shell(60, "exit 3");
        assert_eq!(program.ask(&call.input(large)).unwrap().status.code(), Some(3));
        let (program, call) = shell(60, "cat");
        assert_eq!(program.ask(&call).unwrap().stdout, b"");
    }

    #[test]
    fn what_is_printed_is_handed_on_and_its_end_is_the_reason() {
        let (program, call) = shell(60, "echo one; echo two >&2; echo; exit 1");
        let mut heard = Vec::new();
        let error = program.run(&call, &mut |chunk| heard.extend_from_slice(chunk)).unwrap_err();
        assert_eq!(heard, b"one\ntwo\n\n");
        assert_eq!(error.to_string(), "`sh` failed (exit status: 1): two");
        let (program, call) = shell(60, "exit 1");
        let error = program.run(&call, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status: 1) and did not say why");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_all_that_it_started() {
        let started = Instant::now();
        let (program, call) = shell(1, "sleep 600 & echo $!; wait");
        let mut pid = Vec::new();
        let error = program.run(&call, &mut |chunk| pid.extend_from_slice(chunk)).unwrap_err();
        assert_eq!(error.to_string(), "`sh` did not end within 1 s");
        let pid: i32 = String::from_utf8(pid).unwrap().trim().parse().unwrap();
        // It is not a child of this process, so this process cannot wait for it.
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !ended() {
            assert!(started.elapsed() < Duration::from_secs(60), "it is still running");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_leaves_one_behind_is_not_waited_for() {
        let started = Instant::now();
        let (program, call) = shell(60, "sleep 50 2>/dev/null & echo done");
        assert_eq!(program.ask(&call).unwrap().stdout, b"done\n");
        assert!(started.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn three_tries_and_no_more() {
        let tries = Tries { pause: Duration::ZERO, interrupt: Interrupt::default() };
        let mut count = 0;
        let error = tries.run(|| -> Result<(), Failure> {
            count += 1;
            Err(anyhow!("try {count}").into())
        });
        assert_eq!(error.unwrap_err().to_string(), "try 3");
        let mut count = 0;
        let error = tries.run(|| -> Result<(), Failure> {
            count += 1;
            Err(Failure::Final(anyhow!("try {count}")))
        });
        assert_eq!(error.unwrap_err().to_string(), "try 1");
        let mut count = 0;
        let done = tries.run(|| {
            count += 1;
            if count == 2 { Ok(count) } else { Err(anyhow!("no").into()) }
        });
        assert_eq!(done.unwrap(), 2);
    }
}
