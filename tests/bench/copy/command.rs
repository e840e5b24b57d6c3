//! Runs programs, and ends them and all that they started when a signal arrives.
//! It must never leave one running, nor hide what a failed one said.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use nixkit::interrupt::Interrupt;

/// How long programs get to clean up after themselves.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
/// That much of what a program said makes an error message.
const LAST_WORDS: usize = 2000;

/// Runs programs one after the other, each in a process group of its own.
pub(crate) struct Commands {
    /// The group that runs now, or 0.
    group: Arc<AtomicI32>,
    interrupt: Interrupt,
}

impl Commands {
    /// Catches INT, TERM and HUP from now on.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let commands = Self { group: Arc::default(), interrupt: Interrupt::install()? };
        let (group, interrupt) = (Arc::clone(&commands.group), commands.interrupt.clone());
        thread::spawn(move || end_on_signal(&group, &interrupt));
        Ok(commands)
    }

    /// Fails once a signal has arrived.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        Ok(self.interrupt.check()?)
    }

    /// Runs `command`, whatever its exit status.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<Output> {
        self.check()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run `{name}`: `.ci/set-up bench` installs what is missing"))?;
        self.group.store(i32::try_from(child.id())?, Ordering::SeqCst);
        let output = child.wait_with_output();
        self.group.store(0, Ordering::SeqCst);
        self.check()?;
        output.with_context(|| format!("cannot wait for `{name}`"))
    }

    /// Runs `command`, which must succeed, and returns what it printed.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        let output = self.output(command)?;
        if !output.status.success() {
            let said = last_words(&output.stderr);
            bail!("`{}` failed ({}): {said}", shown(command), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A command of `program` and `arguments`.
pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(program: &str, arguments: I) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The end of what a program printed.
pub(crate) fn last_words(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS)..]).trim().to_owned()
}

/// The beginning of a command line.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().take(8).map(OsStr::to_string_lossy));
    words.join(" ")
}

fn end_on_signal(group: &AtomicI32, interrupt: &Interrupt) {
    while interrupt.check().is_ok() {
        thread::sleep(POLL);
    }
    let mut waited = Duration::ZERO;
    loop {
        let running = group.load(Ordering::SeqCst);
        if running > 0 {
            let signal = if waited < PATIENCE { Signal::SIGTERM } else { Signal::SIGKILL };
            // It may have ended meanwhile.
            let _ = killpg(Pid::from_raw(running), signal);
        }
        thread::sleep(POLL);
        waited += POLL;
    }
}
