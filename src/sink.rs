//! Writes what was planned, under a temporary name, and publishes it by rename.
//! It must never decide what belongs into a root, nor print: it returns what it did.

mod below;
pub mod database;
pub mod directory;
pub mod draft;
pub mod identical;
pub mod kept;
pub mod link;
pub mod mounts;
mod names;
pub mod oci;
mod pool;
pub mod receipt;
mod remove;
pub mod replace;
pub mod target;
pub mod verify;

use std::fmt;

use nix::errno::Errno;

/// A system call that failed, with what it was for.
#[derive(Debug)]
pub struct CallFailed {
    action: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl CallFailed {
    fn new(action: String, errno: Errno) -> Self {
        Self { action, errno }
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.action, description(self.errno), self.errno)
    }
}

impl std::error::Error for CallFailed {}

/// What an errno means. The C library's text for EOPNOTSUPP is about sockets.
fn description(errno: Errno) -> &'static str {
    if errno == Errno::EOPNOTSUPP { "Not supported by this file system" } else { errno.desc() }
}

/// What to do about a limit on the size of files.
pub const TOO_LARGE: &str = "`ulimit -f` limits the size of files, or the file system does; nothing was written";

/// Whether a limit on the size of a file is behind `error`.
pub fn is_too_large(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let call = cause.downcast_ref::<CallFailed>().is_some_and(|failed| failed.errno == Errno::EFBIG);
        call || cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::FileTooLarge)
    })
}

/// Whether a full disk or quota is behind `error`.
pub fn is_out_of_space(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let call = cause.downcast_ref::<CallFailed>().map(|failed| failed.errno);
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(call, Some(Errno::ENOSPC | Errno::EDQUOT))
            || matches!(io, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    })
}
