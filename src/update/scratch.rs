//! A folder for images that are being made and for credentials, gone when the run ends.
//! It must never be readable by others, nor outlive the next run after a kill.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::failure::shown;

/// Its name begins with this; the rest is the process's number.
const PREFIX: &str = "nixkit-update-images-";

/// The folder of this run.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Held while the run lives, so that the next one knows.
    _lock: Flock<File>,
}

impl Scratch {
    /// Makes one in `parent`, after it has removed those of dead runs.
    pub fn create(parent: &Path) -> anyhow::Result<Self> {
        remove_left_overs(parent);
        for attempt in 0..100 {
            let path = parent.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot make `{}`", shown(&path))),
            }
            let folder = File::open(&path).with_context(|| format!("cannot open `{}`", shown(&path)))?;
            let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock);
            // Another run may have taken it for a left-over between the two.
            if let Some(lock) = lock.ok().filter(|_| path.exists()) {
                return Ok(Self { path, _lock: lock });
            }
        }
        bail!("cannot make a folder in `{}`", shown(parent))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.path)?)
    }
}

/// Removes the folders of this user that no living run holds. What cannot be removed stays.
fn remove_left_overs(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let own = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw());
        let Some(folder) = own.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        if let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_runs_are_cleared_away() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::create(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}1-0"));
        fs::create_dir_all(dead.join("auth")).unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        let second = Scratch::create(parent.path()).unwrap();
        assert!(living.path().exists() && second.path().exists() && living.path() != second.path());
        assert!(!dead.exists() && parent.path().join("other").exists());
        assert_eq!(fs::metadata(second.path()).unwrap().mode() & 0o777, 0o700);
        let path = second.path().to_owned();
        second.remove().unwrap();
        assert!(!path.exists() && living.path().exists());
    }
}
