//! Runs one tmate session from its folder to its last process.
//! It must never end this process, write to stdout, or leave a process, socket or folder behind.

use std::ffi::OsString;
use std::path::PathBuf;

use super::options::Options;
use crate::interrupt::Interrupt;
use crate::report::Voice;

/// What a user finds in the session.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What is said first, a line each, such as what failed. How to leave is added by [`run`].
    pub greeting: Vec<String>,
    /// Where the shell starts; `None` for where this process is. One that cannot be entered is replaced by
    /// that, with a warning.
    pub directory: Option<PathBuf>,
    /// The shell's program and arguments; `None` for `bash -i`. [`Options::command`] wins.
    pub shell: Option<Vec<OsString>>,
    /// Variables to set (`Some`) or remove (`None`) in this process's own environment for the shell. What
    /// would harm any shell there (`SHELLOPTS`, `BASH_ENV`, `TMOUT`) is removed before that.
    pub environment: Vec<(OsString, Option<OsString>)>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// Nobody was connected for as long as may be.
    Idle,
    /// A user ended it: the last shell exited.
    User,
    /// The continue file appeared.
    ContinueFile,
    /// It had lasted as long as it may.
    Cap,
    /// This signal arrived.
    Signal(i32),
    /// It had started, but then tmate died or answered no more.
    Lost(anyhow::Error),
    /// It could not start.
    NotStarted(anyhow::Error),
}

/// Runs a session to its end. It must be called from the main thread, which has to outlive the session: with
/// the thread that started it tmate ends too.
pub fn run(options: &Options, scene: &Scene, voice: Voice, interrupt: &Interrupt) -> End {
    let _ = (options, scene, voice, interrupt);
    End::NotStarted(anyhow::anyhow!("not there yet"))
}
