//! The session's own folder: where it lies, and that it is gone afterwards.
//! It must never lie where a socket's path does not fit, nor be readable by anybody else.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{geteuid, mkdtemp};

use crate::failure::shown;
use crate::file;

/// What the names of such folders begin with.
const PREFIX: &str = "nixkit-tmate-";
/// What `mkdtemp` adds.
const SUFFIX: &str = "XXXXXX";
/// The socket in it.
const SOCKET: &str = "s";
/// A path that fits into `sockaddr_un` (unix(7)) with its NUL.
const LONGEST_SOCKET: usize = 107;
/// As much as is written there, and more.
const ENOUGH: usize = 64 << 10;

/// A folder of mode 0700, locked while this process lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// By it the next run sees that the folder is in use.
    _lock: Option<Flock<File>>,
}

impl Folder {
    /// Makes one in the first place that will have it: `$TMPDIR`, if it is not too long, `/tmp`, `/var/tmp`, or
    /// `/dev/shm`. What killed runs left there is removed.
    pub(super) fn make(tmpdir: Option<&Path>) -> anyhow::Result<Self> {
        let mut first_error = None;
        for place in places(tmpdir) {
            remove_left_overs(&place);
            match Self::make_in(&place) {
                Ok(folder) => return Ok(folder),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| anyhow::anyhow!("there is no place for it")))
            .context("cannot make a folder for the session")
    }

    fn make_in(place: &Path) -> anyhow::Result<Self> {
        // Another run may take a folder for a left-over before it is locked.
        for _ in 0..8 {
            let path =
                mkdtemp(&place.join(format!("{PREFIX}{SUFFIX}"))).with_context(|| format!("`{}`", shown(place)))?;
            let lock = File::open(&path).ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
            if path.is_dir() {
                let folder = Self { path, _lock: lock };
                if let Err(error) = folder.probe() {
                    let _ = folder.remove();
                    return Err(error);
                }
                return Ok(folder);
            }
        }
        anyhow::bail!("folders in `{}` do not stay", shown(place))
    }

    /// Fails on a full disk, while another place can still be found.
    fn probe(&self) -> anyhow::Result<()> {
        let path = self.write("probe", &vec![b'x'; ENOUGH])?;
        Ok(fs_err::remove_file(path)?)
    }

    /// Where it lies, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where tmate's socket is to lie.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Writes a file that only this user can read, and returns its path.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        file::write_new(&path, content, 0o600)?;
        Ok(path)
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        Ok(fs_err::remove_dir_all(&self.path)?)
    }
}

fn places(tmpdir: Option<&Path>) -> Vec<PathBuf> {
    let given = tmpdir.and_then(|path| std::path::absolute(path).ok());
    let others = ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from);
    given.into_iter().filter(|place| fits(place)).chain(others).collect()
}

/// Whether a socket's path fits below `place`, and tmate, which reads lines, can name it.
fn fits(place: &Path) -> bool {
    let bytes = place.as_os_str().as_bytes();
    let below = PREFIX.len() + SUFFIX.len() + SOCKET.len() + 2;
    bytes.len() + below <= LONGEST_SOCKET && !bytes.contains(&b'\n')
}

/// Removes this user's folders whose process is gone. What cannot be looked at or removed stays.
fn remove_left_overs(place: &Path) {
    let Ok(entries) = fs_err::read_dir(place) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) || name.len() != PREFIX.len() + SUFFIX.len() {
            continue;
        }
        let ours = path.symlink_metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw());
        let Some(folder) = ours.then(|| File::open(&path).ok()).flatten() else { continue };
        if let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            let _ = fs_err::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_fits_or_the_place_is_left_out() {
        let longest = LONGEST_SOCKET - (PREFIX.len() + SUFFIX.len() + SOCKET.len() + 2);
        for (place, expected) in [
            ("/".repeat(longest), true),
            ("/".repeat(longest + 1), false),
            ("/tmp/it's here".into(), true),
            ("/tmp/two\nlines".into(), false),
        ] {
            assert_eq!(fits(Path::new(&place)), expected, "{place:?}");
        }
    }

    #[test]
    fn only_folders_of_dead_runs_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let living = Folder::make(Some(place.path())).unwrap();
        let mode = fs_err::metadata(living.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        living.write("file", b"x").unwrap();
        let dead = place.path().join("nixkit-tmate-abcdef");
        fs_err::create_dir(&dead).unwrap();
        fs_err::write(dead.join("s"), "").unwrap();
        let other = place.path().join("nixkit-tmate-other-name");
        fs_err::create_dir(&other).unwrap();

        let second = Folder::make(Some(place.path())).unwrap();
        assert!(living.path().join("file").exists() && other.exists() && !dead.exists());
        for folder in [living, second] {
            let path = folder.path().to_owned();
            folder.remove().unwrap();
            assert!(!path.exists());
        }
    }
}
