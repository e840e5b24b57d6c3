//! A root under construction: a temporary folder beside its place, locked while its run lives, and
//! published by rename.
//! It must never remove what is not a dead run's: only a folder of our own uid whose lock is free, with
//! nothing mounted in it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, lstat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid, syncfs};
use rustix::fs::{FileType, XattrFlags};

use super::kept::{Samples, Wanted};
use super::mounts::Mounts;
use super::oci::{Beside, Item, Properties};
use super::remove::remove_tree;
use super::target::Target;
use super::{CallFailed, receipt::BesideStore};
use crate::failure::{hinted, shown, shown_bytes};
use crate::file;
use crate::interrupt::Interrupt;
use crate::root::Owner;

/// Between the root's name and the random part of a draft's name.
const INFIX: &[u8] = b".nixkit-";
/// Hexadecimal digits of the random part.
const RANDOM_DIGITS: usize = 16;
/// Bytes of the root's name in a draft's name.
const LONGEST_STEM: usize = 200;
/// In a draft inside a mount point: what is being renamed out of it.
const JOURNAL: &str = ".publishing";
const NO_FOLLOW: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// A folder of our own for a root that nobody sees yet.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    folder: File,
    samples: Samples,
    /// `None` where the file system has no locks: then nobody else takes the draft for a dead run's either.
    _lock: Option<Flock<File>>,
}

/// Tries to lock `folder` against other runs. Some file systems lock nothing, or no directories (NFS).
fn lock(folder: File) -> Result<Option<Flock<File>>, Errno> {
    match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EBADF | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL)) => Ok(None),
        Err((_, errno)) => Err(errno),
    }
}

/// What a draft's name has of the root's: a name has at most 255 bytes.
fn stem(root: &OsStr) -> &[u8] {
    let root = root.as_bytes();
    &root[..root.len().min(LONGEST_STEM)]
}

/// Whether `name` is that of a draft for a root called `root`.
pub(super) fn is_draft(root: &OsStr, name: &OsStr) -> bool {
    let random = name
        .as_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(stem(root)))
        .and_then(|rest| rest.strip_prefix(INFIX));
    random.is_some_and(|random| random.len() == RANDOM_DIGITS && random.iter().all(u8::is_ascii_hexdigit))
}

fn draft_name(root: &OsStr) -> OsString {
    let mut name = b".".to_vec();
    name.extend_from_slice(stem(root));
    name.extend_from_slice(INFIX);
    name.extend_from_slice(format!("{:0RANDOM_DIGITS$x}", file::random()).as_bytes());
    OsString::from_vec(name)
}

impl Draft {
    /// Makes and locks a new folder, mode 0700.
    pub fn create(target: &Target) -> anyhow::Result<Self> {
        for _ in 0..16 {
            let path = target.drafts.join(draft_name(&target.name));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.with_context(|| format!("cannot export to `{}`", shown(&target.root)))?,
            }
            match Self::open(&path) {
                Ok(Some(draft)) => return Ok(draft),
                Ok(None) => {}
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(error).with_context(|| format!("cannot export to `{}`", shown(&target.root)));
                }
            }
        }
        bail!("cannot make a folder of our own in `{}`", shown(&target.drafts))
    }

    /// Opens and locks a new folder. `None` if a run that looks for left-overs was faster: then the folder is its.
    fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let failed = |verb: &str, errno| CallFailed::new(format!("cannot {verb} `{}`", shown(path)), errno);
        let folder = match File::open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{}`", shown(path))),
        };
        let lock = match lock(folder.try_clone()?) {
            Ok(lock) => lock,
            Err(Errno::EWOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(failed("lock", errno).into()),
        };
        if !is_same(&folder, path) {
            return Ok(None);
        }
        inherit_nothing(&folder)
            .and_then(|()| fchmod(&folder, Mode::S_IRWXU))
            .map_err(|errno| failed("set the permissions of", errno))?;
        Ok(Some(Self { path: path.to_owned(), folder, samples: Samples::new(), _lock: lock }))
    }

    /// The folder, which becomes the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at what the file system keeps of what is set in the draft.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Makes what `beside` has. The store directory is made too, for the engine to fill.
    pub fn make(&self, beside: &Beside, interrupt: &Interrupt) -> anyhow::Result<BesideStore> {
        let mut made = BesideStore::default();
        for (place, what) in beside.items() {
            interrupt.check()?;
            let path = self.path.join(place);
            match what {
                // Its mode comes last: it may let nobody in.
                Item::Directory(_) => {
                    fs::create_dir(&path)?;
                    made.directories += 1;
                }
                Item::Text { contents, .. } => {
                    file::write(&path, contents)?;
                    made.files += 1;
                }
                Item::File { from, .. } => {
                    file::copy(from, &path)?;
                    made.files += 1;
                }
                Item::Symlink(target) => {
                    fs::os::unix::fs::symlink(target, &path)?;
                    made.symlinks += 1;
                }
            }
        }
        Ok(made)
    }

    /// Gives what [`Draft::make`] made its final owner, mode, extended attributes and time (seconds since 1970), after
    /// the store has been filled. Only root can give files away: another user keeps everything. Returns warnings about
    /// owners and attributes that could not be set.
    pub fn finish(&self, beside: &Beside, time: i64) -> anyhow::Result<Vec<String>> {
        let times = TimeSpec::new(time, 0);
        let mut warnings = Vec::new();
        // From the inside out: what is made in a directory changes its time.
        for (place, what) in beside.items().rev() {
            let path = self.path.join(place);
            let failed = |errno| CallFailed::new(format!("cannot finish `{}`", shown(&path)), errno);
            match what {
                Item::Directory(properties) | Item::File { properties, .. } => {
                    warnings.extend(set(&path, place, properties)?);
                }
                Item::Text { mode, .. } => fs::set_permissions(&path, PermissionsExt::from_mode(*mode))?,
                Item::Symlink(_) => {}
            }
            let no_follow = UtimensatFlags::NoFollowSymlink;
            utimensat(nix::fcntl::AT_FDCWD, &path, &times, &times, no_follow).map_err(failed)?;
            if let Some((kind, mode)) = wanted(what) {
                let wanted = Wanted { mode, time, owner: self.samples.owner };
                self.samples.look(kind, wanted, || Some((place.to_owned(), lstat(&path).ok()?)));
            }
        }
        warnings.sort();
        Ok(warnings)
    }

    /// Writes everything to the disk, so that a power loss after the rename loses nothing.
    pub fn sync(&self) -> anyhow::Result<()> {
        syncfs(&self.folder)
            .map_err(|errno| CallFailed::new(format!("cannot sync `{}`", shown(&self.path)), errno).into())
    }

    /// Makes the draft the root, with the permissions `mode`. `last` is the entry whose appearance means that all is there, where
    /// the entries must be moved one by one.
    pub fn publish(self, target: &Target, mode: u32, time: i64, last: &OsStr) -> Result<(), (Self, anyhow::Error)> {
        let published =
            if target.is_mount_point { self.move_entries(target, time, last) } else { self.rename(target, mode, time) };
        published.map_err(|error| (self, error))
    }

    fn rename(&self, target: &Target, mode: u32, time: i64) -> anyhow::Result<()> {
        let time = TimeSpec::new(time, 0);
        fchmod(&self.folder, Mode::from_bits_truncate(mode))
            .and_then(|()| futimens(&self.folder, &time, &time))
            .map_err(|errno| CallFailed::new(format!("cannot finish `{}`", shown(&self.path)), errno))?;
        // rename(2) replaces an empty directory, and nothing else.
        std::fs::rename(&self.path, &target.root).map_err(|error| {
            let failed = anyhow!("cannot rename `{}` to `{}`: {error}", shown(&self.path), shown(&target.root));
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {
                    hinted(failed, "something was put there while the export ran")
                }
                Some(Errno::EBUSY) => hinted(failed, "it is a mount point, which cannot be seen without /proc"),
                _ => failed,
            }
        })
    }

    /// rename(2) answers EBUSY for a mount point. Its entries appear one by one; the journal lets the next
    /// run tell what a killed one had moved already.
    fn move_entries(&self, target: &Target, time: i64, last: &OsStr) -> anyhow::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            entries.push((entry.file_name(), Identity::of(&entry.metadata()?)));
        }
        entries.sort_by_key(|(name, _)| (name == last, name.clone()));
        file::write(&self.path.join(JOURNAL), write_journal(&entries))?;
        for (name, _) in &entries {
            let to = target.root.join(name);
            rename_to_nothing(&self.path.join(name), &to)?;
        }
        // From here on all is there; the rest is only tidying up.
        let _ = fs::remove_file(self.path.join(JOURNAL));
        let _ = fs::remove_dir(&self.path);
        // A mount point that is not ours keeps its time.
        let times = TimeSpec::new(time, 0);
        let _ = utimensat(nix::fcntl::AT_FDCWD, &target.root, &times, &times, UtimensatFlags::FollowSymlink);
        Ok(())
    }

    /// Removes the draft and all that is in it.
    pub fn discard(self, target: &Target) -> anyhow::Result<()> {
        // The signal that may have ended the run must not end this.
        let undisturbed = Interrupt::default();
        remove(&parts(self.path.file_name().unwrap_or_default(), target), target, &undisturbed)
    }
}

/// Renames to a name that nothing has, where the file system can promise that (renameat2(2)).
fn rename_to_nothing(from: &Path, to: &Path) -> anyhow::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
        renamed => renamed.map_err(Into::into),
    };
    renamed.map_err(|error| {
        let failed = anyhow!("cannot rename `{}` to `{}`: {error}", shown(from), shown(to));
        hinted(failed, "something was put there while the export ran")
    })
}

/// Takes from a new folder what its parent handed down: the group of a set-group-ID directory, and access-control lists,
/// which everything in the folder would have in place of the umask.
fn inherit_nothing(folder: &File) -> nix::Result<()> {
    use rustix::fs::{fgetxattr, fremovexattr};
    for list in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fremovexattr(folder, list) {
            // Many file systems have no such lists.
            Err(errno) if fgetxattr(folder, list, &mut [0_u8; 0]).is_ok() => {
                return Err(Errno::from_raw(errno.raw_os_error()));
            }
            _ => {}
        }
    }
    let (user, group) = (Uid::effective(), Gid::effective());
    let is_ours = |found: std::fs::Metadata| (found.uid(), found.gid()) == (user.as_raw(), group.as_raw());
    if folder.metadata().is_ok_and(is_ours) {
        return Ok(());
    }
    match fchown(folder, Some(user), Some(group)) {
        // A file system that keeps no owners; `Samples` warns of it.
        Err(Errno::EPERM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        given => given,
    }
}

/// Sets owner, mode and extended attributes of `path`, which is `place` in the root. Returns warnings.
fn set(path: &Path, place: &Path, properties: &Properties) -> anyhow::Result<Vec<String>> {
    let failed = |errno| CallFailed::new(format!("cannot finish `{}`", shown(path)), errno);
    let mut warnings = Vec::new();
    let Properties { mode, owner, attributes } = properties;
    if *owner != Owner::ROOT && geteuid().is_root() {
        let (user, group) = (owner.user.into(), owner.group.into());
        match fchownat(nix::fcntl::AT_FDCWD, path, Some(user), Some(group), NO_FOLLOW) {
            Err(Errno::EINVAL | Errno::EPERM) => warnings.push(format!(
                "`/{}` stays owned by root: user {} is not mapped in this user namespace",
                shown(place),
                owner.user
            )),
            given => given.map_err(failed)?,
        }
    }
    fs::set_permissions(path, PermissionsExt::from_mode(*mode))?;
    for (name, value) in attributes {
        // A change of the owner removes capabilities, so attributes come after it.
        match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(errno @ (rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP)) => {
                warnings.push(format!("`/{}` has lost its attribute `{}`: {errno}", shown(place), shown_bytes(name)));
            }
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot set `{}` of `{}`", shown_bytes(name), shown(path)));
            }
        }
    }
    Ok(warnings)
}

/// The type of an item, and the mode that it has when it is finished; `None` for one that belongs to another user.
fn wanted(item: &Item) -> Option<(FileType, u32)> {
    match item {
        Item::Directory(properties) if properties.owner == Owner::ROOT => Some((FileType::Directory, properties.mode)),
        Item::Directory(_) => None,
        Item::Text { mode, .. } => Some((FileType::RegularFile, *mode)),
        Item::File { properties, .. } => Some((FileType::RegularFile, properties.mode)),
        Item::Symlink(_) => Some((FileType::Symlink, 0)),
    }
}

/// Whether the open file `folder` is what `path` names.
fn is_same(folder: &File, path: &Path) -> bool {
    match (folder.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes what dead runs for the same root left behind. Returns a sentence for each folder that had to stay.
pub fn remove_left_overs(target: &Target, interrupt: &Interrupt) -> anyhow::Result<Vec<String>> {
    let mut stayed = Vec::new();
    let entries = match fs::read_dir(&target.drafts) {
        // A folder that may be written but not read can hold drafts, but nobody can find them.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(stayed),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !is_draft(&target.name, &entry.file_name()) {
            continue;
        }
        let path = entry.path();
        // Another run may have published or removed it in the meantime.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            stayed.push(format!("`{}` is not ours and stays", shown(&path)));
            continue;
        }
        let Ok(folder) = File::open(&path) else { continue };
        // Held by a run that lives, or nobody can tell.
        let Ok(Some(lock)) = lock(folder) else { continue };
        if !is_same(&lock, &path) {
            continue;
        }
        let parts = parts(&entry.file_name(), target);
        let mounts = Mounts::read();
        if parts.iter().any(|part| mounts.any_within(&target.drafts.join(part))) {
            stayed.push(format!("`{}` of a dead run stays: something is mounted in it", shown(&path)));
            continue;
        }
        remove(&parts, target, interrupt).with_context(|| format!("cannot remove `{}` of a dead run", shown(&path)))?;
    }
    Ok(stayed)
}

/// What is left of a run whose draft is locked: what it had moved into a mount point, if it had not moved
/// all, and then the draft with its journal. Names in the directory of drafts.
fn parts(draft: &OsStr, target: &Target) -> Vec<OsString> {
    let mut parts = Vec::new();
    let read = || fs::read(target.drafts.join(draft).join(JOURNAL)).ok();
    if let Some(journal) = target.is_mount_point.then(read).flatten() {
        let entries = read_journal(&journal);
        let count = entries.len();
        let is_moved = |(name, identity): &(OsString, Identity)| {
            fs::symlink_metadata(target.root.join(name)).is_ok_and(|found| Identity::of(&found) == *identity)
        };
        let moved: Vec<_> = entries.into_iter().filter(is_moved).map(|(name, _)| name).collect();
        if moved.len() < count {
            parts = moved;
        }
    }
    parts.push(draft.to_owned());
    parts
}

fn remove(parts: &[OsString], target: &Target, interrupt: &Interrupt) -> anyhow::Result<()> {
    // It need not be readable for this.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let drafts = nix::fcntl::open(&target.drafts, flags, Mode::empty())
        .map_err(|errno| CallFailed::new(format!("cannot open `{}`", shown(&target.drafts)), errno))?;
    for part in parts {
        let removed = remove_tree(&drafts, part.as_bytes(), interrupt);
        interrupt.check()?;
        let path = target.drafts.join(part);
        removed.map_err(|errno| CallFailed::new(format!("cannot remove `{}`", shown(path)), errno))?;
    }
    Ok(())
}

/// What tells an entry of ours from another of the same name: inode numbers are given anew, but what a user
/// makes does not have our time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    /// Modification time in seconds.
    time: i64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { inode: metadata.ino(), time: metadata.mtime() }
    }
}

/// Each entry as inode number, blank, time, blank, name and NUL.
fn write_journal(entries: &[(OsString, Identity)]) -> Vec<u8> {
    let mut journal = Vec::new();
    for (name, Identity { inode, time }) in entries {
        journal.extend_from_slice(format!("{inode} {time} ").as_bytes());
        journal.extend_from_slice(name.as_bytes());
        journal.push(0);
    }
    journal
}

/// What [`write_journal`] wrote; an entry that was cut off is passed over.
fn read_journal(journal: &[u8]) -> Vec<(OsString, Identity)> {
    let entry = |record: &[u8]| {
        let mut fields = record.splitn(3, |&byte| byte == b' ');
        let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let name = fields.next()?;
        let plain = !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
        plain.then(|| (OsString::from_vec(name.to_vec()), Identity { inode, time }))
    };
    let complete = journal.iter().rposition(|&byte| byte == 0).map_or(&[][..], |end| &journal[..end]);
    complete.split(|&byte| byte == 0).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_drafts_of_this_root_are_known_as_such() {
        let root = OsStr::new("dist");
        assert!(is_draft(root, &draft_name(root)));
        assert_ne!(draft_name(root), draft_name(root));
        let long = OsString::from("x".repeat(255));
        assert!(draft_name(&long).len() <= 255 && is_draft(&long, &draft_name(&long)));
        for (name, expected) in [
            (".dist.nixkit-0123456789abcdef", true),
            (".dist.nixkit-0123456789abcde", false),
            (".dist.nixkit-0123456789abcdef0", false),
            (".dist.nixkit-0123456789abcdeg", false),
            ("dist.nixkit-0123456789abcdef", false),
            (".dist2.nixkit-0123456789abcdef", false),
            (".dist.nixkit-", false),
            ("dist", false),
        ] {
            assert_eq!(is_draft(root, OsStr::new(name)), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_journal_is_read_as_it_was_written(
            entries in prop::collection::vec(("[^/\0]{1,20}", any::<u64>(), any::<i64>()), 0..8), cut in 0_usize..40,
        ) {
            let entries: Vec<(OsString, Identity)> = entries
                .into_iter()
                .filter(|(name, ..)| name != "." && name != "..")
                .map(|(name, inode, time)| (name.into(), Identity { inode, time }))
                .collect();
            let journal = write_journal(&entries);
            prop_assert_eq!(&read_journal(&journal), &entries);
            let read = read_journal(&journal[..journal.len().saturating_sub(cut)]);
            prop_assert!(entries.starts_with(&read));
        }
    }
}
