//! The two hidden programs of a session: tmate's way to end with its parent, and the window's way to its shell.
//! They must never return to a caller that goes on: each becomes another program, or ends.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::failure::shown;
use crate::report;
use crate::tmate::pane::Pane;

/// The first word that makes this program tmate's guard: `WITH_PARENT PID PROGRAM [ARGUMENT]...`.
pub const WITH_PARENT: &str = "tmate-with-parent";
/// The first word that makes this program the window's: `PANE FILE`.
pub const PANE: &str = "tmate-pane";

/// A command for `program` that the kernel kills when this thread ends, however it does. The standard library
/// cannot ask for that without unsafe code; so this program starts itself, asks for it, and becomes `program`.
/// Without `/proc` it is `program` itself.
pub fn with_parent(program: &OsStr) -> Command {
    // Resolved by the child, which is a copy of this process: right even if the file was replaced or removed.
    if !std::path::Path::new("/proc/self/exe").exists() {
        return Command::new(program);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("nixkit").arg(WITH_PARENT).arg(std::process::id().to_string()).arg(program);
    command
}

/// This program by a path that other processes can run while this one lives.
pub fn own_program() -> Option<PathBuf> {
    // The number that this `/proc` knows us by, which is not `getpid` where it belongs to another namespace.
    let pid = fs_err::read_link("/proc/self").ok()?;
    let path = PathBuf::from("/proc").join(pid).join("exe");
    path.exists().then_some(path)
}

/// Becomes the program in the arguments after the parent's process id.
pub fn run_with_parent(arguments: &[OsString]) -> anyhow::Result<u8> {
    let [parent, program, arguments @ ..] = arguments else { bail!("this is for start-tmate alone") };
    let parent = parent.to_str().and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
    // KILL, since a stopped or blocked tmate obeys nothing else.
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the parent")?;
    // It may have ended before that.
    if parent != Some(getppid()) {
        bail!("the parent has ended");
    }
    become_program(Command::new(program).args(arguments), program)
}

/// Greets, and becomes the shell that the file in the arguments describes.
pub fn run_pane(arguments: &[OsString]) -> anyhow::Result<u8> {
    let [file] = arguments else { bail!("this is for start-tmate alone") };
    let pane = Pane::decode(&fs_err::read(file)?).context("the window's description is damaged")?;
    report::data(&pane.greeting)?;
    let Some((program, words)) = pane.command.split_first() else { bail!("there is no shell to run") };
    let mut command = Command::new(program);
    command.args(words);
    set_environment(&mut command, &pane);
    if let Some(directory) = &pane.directory {
        if let Err(error) = std::env::set_current_dir(directory) {
            // Better a shell elsewhere than none.
            report::data(&format!("cannot go to {}: {error}\n", shown(directory)))?;
            command.env_remove("PWD");
        }
    }
    become_program(&mut command, program)
}

/// Gives `command` the environment of the window's shell.
pub(super) fn set_environment(command: &mut Command, pane: &Pane) {
    for (name, value) in &pane.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

fn become_program(command: &mut Command, program: &OsStr) -> anyhow::Result<u8> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run `{}`", shown(program)))
}
