//! Writes a file that the user named: all of it, or nothing.
//!
//! The new content goes to a draft, a file next to the target with a random name, which is then renamed. The draft is
//! created with `O_EXCL`: in a directory that others can write to, such as `/tmp`, no link or file of theirs is
//! followed or written to. A symlink to the target stays a symlink. A file that is changed keeps its mode, owner and
//! attributes, or a remark says which were lost.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Gid, Uid, fchown, geteuid, syncfs};

use crate::failure::{hinted, shown};
use crate::{file, input};

/// Between the file's name and the random part in the name of a draft.
const INFIX: &str = ".nixkit-";
/// Hexadecimal digits of the random part; the process id that stood there before has at least as many with its number.
const FEWEST_DIGITS: usize = 4;
/// Characters of the file's name in that of its draft: a name has at most 255 bytes.
const LONGEST_STEM: usize = 50;
/// Permissions of a draft until it gets those of the file.
const PRIVATE: u32 = 0o600;
/// Permissions of a file that did not exist, before the umask.
const NEW_FILE: u32 = 0o666;
/// Random names that are tried for a draft.
const MOST_TRIES: usize = 16;
/// So many files are brought to the disk one by one, more of them with all else that waits.
const ONE_BY_ONE: usize = 16;
/// The access control list of a file. A draft may get one from its folder.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// Attributes that the kernel computes by itself.
const COMPUTED: [&str; 2] = ["security.ima", "security.evm"];

/// New content for a file, written beside it. It is removed again unless it is published.
#[derive(Debug)]
pub struct Replacement {
    /// Empty once it is published, and where the folder takes no draft.
    draft: PathBuf,
    target: PathBuf,
    /// The draft, if it is open.
    file: Option<Held>,
    content: Vec<u8>,
    /// What could not be kept of the file, as sentences.
    pub remarks: Vec<String>,
}

/// An open draft.
#[derive(Debug)]
enum Held {
    /// Locked while this run lives, so that the next one knows what a dead run has left.
    Locked(Flock<File>),
    /// On a file system without locks.
    Free(File),
}

impl Held {
    fn file(&self) -> &File {
        match self {
            Self::Locked(lock) => lock,
            Self::Free(file) => file,
        }
    }
}

impl Replacement {
    /// Writes `content` beside the file that `path` leads to, with that file's mode, owner and attributes. Fails if
    /// the file is not `expected` any more; `None` if another run has already given it this content.
    pub fn prepare(path: &Path, expected: &[u8], content: &[u8]) -> anyhow::Result<Option<Self>> {
        let target = fs::canonicalize(path)?;
        let metadata = fs::metadata(&target)?;
        let now = input::read(&target, input::LIMIT)?;
        if now == content {
            return Ok(None);
        }
        if now != expected {
            return Err(hinted(anyhow!("it was changed while this program ran"), "run it again"));
        }
        let (draft, file) = match draft(&target, PRIVATE) {
            Ok((draft, held, writer)) => (draft, Some((held, writer))),
            // A file that is mounted into a folder which cannot be written.
            Err(_) if is_mount_point(&target) => (PathBuf::new(), None),
            Err(error) => return Err(error),
        };
        let mut replacement = Self { draft, target, file: None, content: content.to_owned(), remarks: Vec::new() };
        if let Some((held, writer)) = file {
            replacement.fill(writer)?;
            replacement.keep(path, &metadata, held.file())?;
            replacement.file = Some(held);
        }
        Ok(Some(replacement))
    }

    /// Writes the content to the draft, and closes it: the lock has a descriptor of its own.
    fn fill(&self, mut writer: File) -> anyhow::Result<()> {
        writer.write_all(&self.content).with_context(|| format!("cannot write `{}`", shown(&self.draft)))?;
        file::close_at(&self.draft, writer)
    }

    /// Closes the draft, for a run that may not open as many files as it writes. It is not locked any more.
    pub fn close(&mut self) -> anyhow::Result<()> {
        if let Some(held) = self.file.take() {
            held.file().sync_all().with_context(|| format!("cannot write `{}`", shown(&self.draft)))?;
        }
        Ok(())
    }

    /// Gives the draft the owner, attributes and mode of the file.
    fn keep(&mut self, path: &Path, metadata: &Metadata, draft: &File) -> anyhow::Result<()> {
        let own = draft.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(draft, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))
                .with_context(|| format!("cannot keep the owner of `{}`", shown(path)))?;
        }
        let lost = copy_attributes(&self.target, draft);
        if !lost.is_empty() {
            self.remarks.push(format!("`{}` loses its attributes `{}`", shown(path), lost.join("`, `")));
        }
        // After the owner, whose change takes set-user-ID bits away, and after the access list, of which it is a part.
        draft.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        if metadata.nlink() > 1 {
            let others = metadata.nlink() - 1;
            self.remarks.push(format!(
                "`{}` has {others} other {} (hard links), with the old content",
                shown(path),
                if others == 1 { "name" } else { "names" }
            ));
        }
        Ok(())
    }

    /// Puts it in the file's place. Returns whether it had to be written into the file itself, since that is a mount
    /// point, whose name belongs to the mount.
    pub fn publish(mut self) -> anyhow::Result<bool> {
        if self.draft.as_os_str().is_empty() {
            return self.write_in_place().map(|()| true);
        }
        match std::fs::rename(&self.draft, &self.target) {
            Ok(()) => {
                self.draft = PathBuf::new();
                Ok(false)
            }
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => match self.write_in_place() {
                Ok(()) => Ok(true),
                Err(error) => {
                    let draft = std::mem::take(&mut self.draft);
                    Err(hinted(error, format!("the new content is in `{}`", shown(draft))))
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    fn write_in_place(&self) -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(&self.target)?;
        file.write_all(&self.content)?;
        let end = file.stream_position()?;
        file.set_len(end)?;
        file.sync_all()?;
        file::close_at(&self.target, file.into_parts().0)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.draft.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.draft);
        }
    }
}

/// Writes `contents` to `path`: a new file, or in place of a regular file, whose mode stays. A device or a pipe, such as
/// `/dev/stdout`, is written to.
pub fn write(path: &Path, contents: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{}`", shown(path));
    let contents = contents.as_bytes();
    match fs::canonicalize(path) {
        Ok(target) => {
            let metadata = fs::metadata(&target).with_context(failed)?;
            if metadata.is_file() {
                return replace(target, contents, Some(metadata.mode() & 0o7777)).with_context(failed);
            }
            // Opening a directory says what it is.
            file::write(path, contents).with_context(failed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => Err(anyhow!("it is a link that leads nowhere")).with_context(failed),
            Err(_) => replace(absent(path), contents, None).with_context(failed),
        },
        Err(error) => Err(error).with_context(failed),
    }
}

fn replace(target: PathBuf, contents: &[u8], mode: Option<u32>) -> anyhow::Result<()> {
    remove_left_overs([target.as_path()]);
    let (draft, held, writer) = draft(&target, if mode.is_some() { PRIVATE } else { NEW_FILE })?;
    let replacement = Replacement { draft, target, file: None, content: contents.to_owned(), remarks: Vec::new() };
    replacement.fill(writer)?;
    if let Some(mode) = mode {
        held.file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    replacement.publish().map(drop)
}

/// `name` as `./name`: the directory of every target has a name.
fn absent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").join(path),
        _ => path.to_owned(),
    }
}

/// Brings the content of all drafts to the disk, so that no rename can come before it.
pub fn sync(replacements: &[Replacement]) -> anyhow::Result<()> {
    let mut devices = HashSet::new();
    for (replacement, file) in replacements.iter().filter_map(|own| Some((own, own.file.as_ref()?.file()))) {
        let synced = if replacements.len() <= ONE_BY_ONE {
            file.sync_all()
        } else if devices.insert(file.metadata()?.dev()) {
            syncfs(file).map_err(std::io::Error::from)
        } else {
            Ok(())
        };
        synced.with_context(|| format!("cannot write `{}`", shown(&replacement.draft)))?;
    }
    Ok(())
}

/// Whether something is mounted at `path` itself.
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A new, locked file next to `target`, with the permissions `mode` but for the umask. A run that looks for left-overs
/// may find it before it is locked, and remove it: then another one is made.
fn draft(target: &Path, mode: u32) -> anyhow::Result<(PathBuf, Held, File)> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("`{}` is not a file", shown(target));
    };
    let names = (0..MOST_TRIES).map(|_| {
        let mut draft_name = stem(name);
        draft_name.push(format!("{INFIX}{:016x}", file::random()));
        folder.join(draft_name)
    });
    first_new(names, mode)?.with_context(|| format!("cannot make a file in `{}`: every name is taken", shown(folder)))
}

/// Creates and locks the first of `names` that does not exist yet. The file is returned twice: to be held, and to be
/// written and closed.
fn first_new(names: impl Iterator<Item = PathBuf>, mode: u32) -> anyhow::Result<Option<(PathBuf, Held, File)>> {
    for path in names {
        let file = match fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error.into()),
        };
        let held = match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Held::Locked(lock),
            Err((_, Errno::EWOULDBLOCK)) => continue,
            // On a file system without locks, no run removes drafts.
            Err((file, _)) => Held::Free(file),
        };
        if held.file().metadata()?.nlink() > 0 {
            return Ok(Some((path, held, file)));
        }
    }
    Ok(None)
}

fn stem(name: &OsStr) -> OsString {
    format!(".{}", shown(name)).chars().take(LONGEST_STEM).collect::<String>().into()
}

/// Copies extended attributes, access lists and security labels among them. Returns the names of those that cannot be
/// kept.
fn copy_attributes(from: &Path, to: &File) -> Vec<String> {
    let mut lost = Vec::new();
    // A file system without attributes has nothing to keep.
    let Ok(names) = attribute_names(|buffer| rustix::fs::listxattr(from, buffer)) else { return lost };
    for name in &names {
        let mut value = vec![0; 65_536];
        let copied = rustix::fs::getxattr(from, name.as_os_str(), &mut value[..]).and_then(|length| {
            rustix::fs::fsetxattr(to, name.as_os_str(), &value[..length], rustix::fs::XattrFlags::empty())
        });
        if copied.is_err() && !COMPUTED.iter().any(|computed| name == computed) {
            lost.push(shown(name));
        }
    }
    if !names.iter().any(|name| name == ACCESS_LIST) {
        // There may be none.
        let _ = rustix::fs::fremovexattr(to, ACCESS_LIST);
    }
    lost
}

fn attribute_names(list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<OsString>> {
    let mut buffer = vec![0; 65_536];
    let length = list(&mut buffer)?;
    let names = buffer[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
}

/// Removes the drafts of dead runs for the files `paths`: those that nobody has locked. Each folder is read once. What
/// cannot be removed does no harm.
pub fn remove_left_overs<'a>(paths: impl IntoIterator<Item = &'a Path>) {
    let mut folders: BTreeMap<PathBuf, HashSet<OsString>> = BTreeMap::new();
    for target in paths.into_iter().filter_map(|path| std::fs::canonicalize(path).ok()) {
        if let (Some(folder), Some(name)) = (target.parent(), target.file_name()) {
            folders.entry(folder.to_owned()).or_default().insert(stem(name));
        }
    }
    for (folder, stems) in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten().filter(|entry| is_draft(&entry.file_name(), &stems)) {
            // Another user may have put a pipe there, and opening that would wait for a writer.
            let mut options = std::fs::OpenOptions::new();
            let opened = options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(entry.path());
            let is_ours = |file: &File| file.metadata().is_ok_and(|at| at.is_file() && at.uid() == geteuid().as_raw());
            let file = opened.ok().filter(is_ours);
            if file.is_some_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether `name` is that of a draft for one of the files with these stems.
fn is_draft(name: &OsStr, stems: &HashSet<OsString>) -> bool {
    let Some(at) = memchr::memmem::rfind(name.as_bytes(), INFIX.as_bytes()) else { return false };
    let (stem, digits) = (&name.as_bytes()[..at], &name.as_bytes()[at + INFIX.len()..]);
    digits.len() >= FEWEST_DIGITS && digits.iter().all(u8::is_ascii_hexdigit) && stems.contains(OsStr::from_bytes(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_devices_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write(&file, "one").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o604)).unwrap();
        symlink("file", &link).unwrap();
        write(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(mode(&file), 0o604);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write(Path::new("/dev/null"), "gone").unwrap();
        assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        for (bad, message) in
            [("", "Is a directory"), ("missing/file", "No such file"), ("dangling", "a link that leads nowhere")]
        {
            let error = format!("{:#}", write(&folder.path().join(bad), "x").unwrap_err());
            assert!(error.contains("cannot write `") && error.contains(message), "{error}");
        }
        assert_eq!(names(folder.path()), ["dangling", "file", "link"], "nothing else is left");
    }

    #[test]
    fn nothing_that_has_a_drafts_name_is_followed_or_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("theirs"), "kept").unwrap();
        symlink("theirs", at("a")).unwrap();
        symlink("nowhere", at("b")).unwrap();
        fs::hard_link(at("theirs"), at("c")).unwrap();
        let opened = first_new(["a", "b", "c", "d"].map(at).into_iter(), 0o600).unwrap().unwrap();
        assert_eq!(opened.0, at("d"));
        assert!(first_new(["a", "b"].map(at).into_iter(), 0o600).unwrap().is_none());
        assert_eq!(fs::read_to_string(at("theirs")).unwrap(), "kept");
        assert_eq!(names(folder.path()), ["a", "b", "c", "d", "theirs"]);
    }

    #[test]
    fn a_file_that_was_changed_in_between_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "theirs").unwrap();
        let error = Replacement::prepare(&file, b"old", b"new").unwrap_err();
        assert_eq!(error.to_string(), "it was changed while this program ran");
        assert!(Replacement::prepare(&file, b"old", b"theirs").unwrap().is_none(), "another run has written it");
        let mut replacement = Replacement::prepare(&file, b"theirs", b"new").unwrap().unwrap();
        replacement.close().unwrap();
        assert!(!replacement.publish().unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        // One that is not published leaves nothing.
        drop(Replacement::prepare(&file, b"new", b"newer").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn only_drafts_of_dead_runs_for_these_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "old").unwrap();
        let live = Replacement::prepare(&path("file"), b"old", b"new").unwrap().unwrap();
        let kept = [
            ".file.nixkit-mine",
            ".file.nixkit-",
            ".other.nixkit-00000001",
            "file.nixkit-00000001",
            ".file.x-00000001",
        ];
        for name in kept.iter().chain(&[".file.nixkit-4000000000", ".file.nixkit-0123456789abcdef"]) {
            fs::write(path(name), "half").unwrap();
        }
        symlink("file", path(".file.nixkit-0000000000000018")).unwrap();
        nix::unistd::mkfifo(&path(".file.nixkit-0000000000000019"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        remove_left_overs([path("file").as_path(), path("gone").as_path()]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), kept.len() + 4);
        assert!(kept.iter().all(|name| path(name).exists()));
        live.publish().unwrap();
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "new");
    }
}
