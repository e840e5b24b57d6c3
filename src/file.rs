//! Writes whole files, and closes what was written without losing the kernel's answer.
//!
//! NFS, SMB, FUSE and quotas may report a write that failed only at close(2). Dropping a `File` or an `OwnedFd` ignores
//! that answer, so every file that this program has written is closed here. Nothing is flushed to the disk: fsync(2)
//! costs much more, and is asked for by `--sync` alone.

use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::errno::Errno;

use crate::failure::shown;

/// A number that differs from call to call: the keys of the standard library's hash come from the system's randomness.
pub fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Closes a file or descriptor that was written.
pub fn close(file: impl Into<OwnedFd>) -> nix::Result<()> {
    match nix::unistd::close(file.into()) {
        // Linux has closed the descriptor all the same (close(2), "Dealing with error returns from close()").
        Err(Errno::EINTR) => Ok(()),
        closed => closed,
    }
}

/// [`close`] for the file called `path`.
pub fn close_at(path: &Path, file: impl Into<OwnedFd>) -> anyhow::Result<()> {
    close(file).map_err(io::Error::from).with_context(|| format!("cannot write `{}`", shown(path)))
}

/// Writes `contents` to a new file, or over a file that exists.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    fill(fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?, contents.as_ref())
}

/// Writes `contents` to a file that does not exist yet, with the permissions `mode` but for the umask.
pub fn write_new(path: &Path, contents: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<()> {
    fill(fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?, contents.as_ref())
}

fn fill(mut file: fs::File, contents: &[u8]) -> anyhow::Result<()> {
    file.write_all(contents)?;
    let (file, path) = file.into_parts();
    close_at(&path, file)
}

/// Copies the content of `from` to a new file `to`, inside the kernel where that can do it.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut source = fs::File::open(from)?;
    let mut copy = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(source.file_mut(), copy.file_mut())
        .with_context(|| format!("cannot copy `{}` to `{}`", shown(from), shown(to)))?;
    let (copy, path) = copy.into_parts();
    close_at(&path, copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_written_anew_over_others_or_copied() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("file"), "a longer text").unwrap();
        write(&at("file"), "text").unwrap();
        write_new(&at("secret"), b"x", 0o600).unwrap();
        copy(&at("file"), &at("copy")).unwrap();
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "text");
        assert_eq!(fs::read_to_string(at("copy")).unwrap(), "text");
        assert_eq!(fs::metadata(at("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        for refused in [write_new(&at("file"), "", 0o600), copy(&at("secret"), &at("file"))] {
            assert!(format!("{:#}", refused.unwrap_err()).contains("File exists"));
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "text");
    }

    #[test]
    fn the_answer_of_close_is_returned() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert_eq!(close(reader), Ok(()));
        assert_eq!(close(writer), Ok(()));
    }
}
