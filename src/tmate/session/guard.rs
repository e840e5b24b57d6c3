//! The hidden program of a session's window: it greets and becomes the shell.
//! It must never return to a caller that goes on.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::failure::shown;
use crate::report;
use crate::tmate::pane::Pane;

/// The first word that makes this program the window's: `PANE FILE`.
pub const PANE: &str = "tmate-pane";

/// How to run this program as the window's: `PROGRAM [ARGUMENT]...`, to be followed by [`PANE`] and the file.
pub fn own_program() -> Option<Vec<OsString>> {
    // The number by which this `/proc` knows us; another than `getpid` where it belongs to another namespace.
    if let Ok(pid) = fs_err::read_link("/proc/self") {
        // Right even if the file was replaced or removed. Its name, `exe`, is one of this program's.
        let path = Path::new("/proc").join(pid).join("exe");
        if path.exists() {
            return Some(vec![path.into()]);
        }
    }
    // Without `/proc`: the file that was executed, by way of bash, which can give it the name `nixkit`.
    let bash = std::path::absolute(which::which("bash").ok()?).ok()?;
    let file = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let file = std::path::absolute(file).ok().filter(|file| file.is_file())?;
    Some(vec![bash.into(), "-c".into(), "exec -a nixkit \"$0\" \"$@\"".into(), file.into()])
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
