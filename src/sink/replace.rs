//! A file of the user's that gets new content: all of it, or none.
//! It must never change mode or owner, nor put a file in the place of a symlink.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, anyhow};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, fchown};

use crate::failure::shown;

/// Between the file's name and the process id in the name of a draft.
const INFIX: &str = ".nixkit-";
/// Characters of the file's name in that of its draft: a name has at most 255 bytes.
const LONGEST_STEM: usize = 50;
/// Drafts that this run has begun: two files whose names begin alike must not share one.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// New content for a file, written beside it. It is removed again unless it is published.
#[derive(Debug)]
pub struct Replacement {
    draft: PathBuf,
    target: PathBuf,
    /// Locked while this run lives, so that the next one knows what a dead run has left.
    _lock: Option<Flock<std::fs::File>>,
}

impl Replacement {
    /// Writes `content` beside the file that `path` leads to, with that file's mode and owner.
    pub fn prepare(path: &Path, content: &[u8]) -> anyhow::Result<Self> {
        let target = fs::canonicalize(path)?;
        let metadata = fs::metadata(&target)?;
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(anyhow!("`{}` is no file", shown(path)));
        };
        let stem = OsString::from(format!(".{}", shown(name)).chars().take(LONGEST_STEM).collect::<String>());
        remove_left_overs(folder, &stem);
        let mut draft_name = stem;
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        draft_name.push(format!("{INFIX}{}{number:03}", std::process::id()));
        let draft = folder.join(draft_name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let lock =
            file.file().try_clone().ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        let replacement = Self { draft, target, _lock: lock };
        file.write_all(content)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(file.file(), Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))
                .with_context(|| format!("cannot keep the owner of `{}`", shown(path)))?;
        }
        // After the owner, whose change takes set-user-ID bits away.
        file.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        file.sync_all()?;
        Ok(replacement)
    }

    /// Puts it in the file's place.
    pub fn publish(mut self) -> anyhow::Result<()> {
        fs::rename(&self.draft, &self.target)?;
        self.draft = PathBuf::new();
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.draft.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.draft);
        }
    }
}

/// Removes drafts whose runs are dead: nobody holds their locks. What cannot be removed does no harm.
fn remove_left_overs(folder: &Path, stem: &OsString) {
    let mut start = stem.clone();
    start.push(INFIX);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        if !rest.is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        let options = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(entry.path());
        if options.is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
