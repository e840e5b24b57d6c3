//! The file that ends a session when it appears.
//! It must never take one that lay there before, nor one of another user, for a sign.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::unistd::geteuid;

use super::folder::Folder;

/// The file whose appearance ends a session.
#[derive(Debug)]
pub(super) struct ContinueFile {
    pub(super) path: PathBuf,
    /// The one that lay there before.
    before: Option<FileId>,
}

/// Which file it is, and when it was last touched.
type FileId = (u64, u64, i64, i64);

impl ContinueFile {
    /// At `path`, or in the session's folder.
    pub(super) fn new(path: Option<&Path>, folder: &Folder) -> anyhow::Result<Self> {
        let path = match path {
            Some(path) => std::path::absolute(path).context("cannot name the continue file")?,
            None => folder.path().join("continue"),
        };
        let before = Self::id(&path);
        Ok(Self { path, before })
    }

    /// Of a file that is ours or root's: in a directory that others can write to they could end the session.
    fn id(path: &Path) -> Option<FileId> {
        let data = path.symlink_metadata().ok()?;
        let ours = data.uid() == 0 || data.uid() == geteuid().as_raw();
        ours.then(|| (data.dev(), data.ino(), data.mtime(), data.mtime_nsec()))
    }

    /// Whether it is there, and was not there as it is.
    pub(super) fn has_appeared(&self) -> bool {
        Self::id(&self.path).is_some_and(|id| Some(id) != self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_file_counts_when_it_is_new_or_touched() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::make(Some(place.path())).unwrap();
        let path = place.path().join("go on");
        let fresh = ContinueFile::new(Some(&path), &folder).unwrap();
        assert!(!fresh.has_appeared());
        fs_err::write(&path, "").unwrap();
        assert!(fresh.has_appeared());

        let old = ContinueFile::new(Some(&path), &folder).unwrap();
        assert!(!old.has_appeared(), "it lay there before");
        let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
        file.file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(old.has_appeared(), "it was touched");
        fs_err::remove_file(&path).unwrap();
        assert!(!old.has_appeared());

        let own = ContinueFile::new(None, &folder).unwrap();
        assert_eq!(own.path, folder.path().join("continue"));
        folder.remove().unwrap();
    }
}
