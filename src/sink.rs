//! Writes what was planned, under a temporary name, and publishes it by rename.
//! It must never decide what belongs into a root, nor print: it returns what it did.

mod below;
pub mod database;
pub mod directory;
pub mod draft;
pub mod link;
pub mod mounts;
mod names;
pub mod oci;
mod pool;
pub mod receipt;
mod remove;
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
        write!(f, "{}: {} ({:?})", self.action, self.errno.desc(), self.errno)
    }
}

impl std::error::Error for CallFailed {}

/// Whether a full disk or quota is behind `error`.
pub fn is_out_of_space(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let call = cause.downcast_ref::<CallFailed>().map(|failed| failed.errno);
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(call, Some(Errno::ENOSPC | Errno::EDQUOT))
            || matches!(io, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    })
}
