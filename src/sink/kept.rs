//! Whether a file system keeps the modes, times and owners that files are given.
//!
//! Some accept every call and keep nothing: ntfs-3g and SMB keep no modes, NFS with `root_squash` no owners. A few files
//! of each kind are looked at after they are finished; what is found is one warning.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::stat::FileStat;
use nix::unistd::{getegid, geteuid};
use rustix::fs::FileType;

use crate::failure::shown;

/// How many files, directories and symlinks are looked at.
const SAMPLES: u32 = 4;
/// Kinds that have a counter of their own: files, directories, symlinks.
const KINDS: usize = 3;

/// What a finished file should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Permission bits; a symlink has none that can be set.
    pub(super) mode: u32,
    /// Modification time in seconds.
    pub(super) time: i64,
    pub(super) owner: (u32, u32),
}

/// What was not kept, with an example of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotKept(BTreeMap<Attribute, String>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attribute {
    Mode,
    Time,
    Owner,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let examples: Vec<_> = self.0.values().map(String::as_str).collect();
        f.write_str(&examples.join("; "))
    }
}

impl NotKept {
    /// Compares what a file has with what it should have.
    fn compare(path: &Path, wanted: Wanted, found: &FileStat) -> Self {
        let mut different = BTreeMap::new();
        let mut note = |attribute, name: &str, found: String, wanted: String| {
            if found != wanted {
                let path = shown(path);
                different.insert(attribute, format!("`{path}` has {name} {found} instead of {wanted}"));
            }
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            let mode = |mode: u32| format!("{mode:04o}");
            note(Attribute::Mode, "mode", mode(found.st_mode & 0o7777), mode(wanted.mode));
        }
        note(Attribute::Time, "time", found.st_mtime.to_string(), wanted.time.to_string());
        let owner = |(user, group): (u32, u32)| format!("{user}:{group}");
        note(Attribute::Owner, "owner", owner((found.st_uid, found.st_gid)), owner(wanted.owner));
        Self(different)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The looks at one root.
#[derive(Debug)]
pub struct Samples {
    left: [AtomicU32; KINDS],
    /// Who owns what this process makes.
    pub(super) owner: (u32, u32),
    different: Mutex<NotKept>,
}

impl Samples {
    pub(super) fn new() -> Self {
        let owner = (geteuid().as_raw(), getegid().as_raw());
        Self { left: std::array::from_fn(|_| AtomicU32::new(SAMPLES)), owner, different: Mutex::default() }
    }

    /// Whether there were too few of this kind.
    pub(super) fn are_wanted(&self, kind: FileType) -> bool {
        self.left(kind).load(Ordering::Relaxed) > 0
    }

    fn left(&self, kind: FileType) -> &AtomicU32 {
        &self.left[match kind {
            FileType::Directory => 1,
            FileType::Symlink => 2,
            _ => 0,
        }]
    }

    /// Looks at a finished file, unless there were enough of its kind. `look` gives its path in the root and what it has
    /// now; if it cannot be looked at, nothing is said of it.
    pub(super) fn look(&self, kind: FileType, wanted: Wanted, look: impl FnOnce() -> Option<(PathBuf, FileStat)>) {
        let one_less = |left: u32| left.checked_sub(1);
        // Read first: a write would go from one processor to the other for each of a million files.
        if !self.are_wanted(kind)
            || self.left(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
        {
            return;
        }
        if let Some((path, found)) = look() {
            let mut different = self.different.lock().unwrap_or_else(PoisonError::into_inner);
            for (attribute, text) in NotKept::compare(&path, wanted, &found).0 {
                different.0.entry(attribute).or_insert(text);
            }
        }
    }

    /// What was not kept, if there is something.
    pub fn not_kept(&self) -> Option<NotKept> {
        let different = self.different.lock().unwrap_or_else(PoisonError::into_inner);
        (!different.is_empty()).then(|| different.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::stat;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_differs_is_told_with_an_example() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::set_permissions(folder.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let found = stat(folder.path()).unwrap();
        let right = Wanted { mode: 0o750, time: found.st_mtime, owner: (found.st_uid, found.st_gid) };
        let Wanted { owner: (user, group), time, .. } = right;
        let (owner, later) = ((user + 1, group), time + 1);
        for (wanted, expected) in [
            (right, String::new()),
            (Wanted { mode: 0o555, ..right }, "`x` has mode 0750 instead of 0555".into()),
            (Wanted { time: later, ..right }, format!("`x` has time {time} instead of {later}")),
            (
                Wanted { mode: 0o1777, owner, ..right },
                format!(
                    "`x` has mode 0750 instead of 1777; `x` has owner {user}:{group} instead of {}:{group}",
                    user + 1
                ),
            ),
        ] {
            assert_eq!(NotKept::compare(Path::new("x"), wanted, &found).to_string(), expected);
        }
    }

    #[test]
    fn a_few_of_each_kind_are_looked_at() {
        let samples = Samples::new();
        let mut looks = 0;
        for kind in [FileType::RegularFile, FileType::Directory, FileType::Symlink] {
            for _ in 0..100 {
                samples.look(kind, Wanted { mode: 0, time: 0, owner: (0, 0) }, || {
                    looks += 1;
                    None
                });
            }
        }
        assert_eq!(looks, 3 * SAMPLES);
        assert_eq!(samples.not_kept(), None);
    }
}
