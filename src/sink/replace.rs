//! Writes a file that the user named: all of it, or nothing.
//!
//! The new content goes to a draft, a file next to the target with a random name, which is then renamed. The draft is
//! created with `O_EXCL`: in a directory that others can write to, such as `/tmp`, no link or file of theirs is
//! followed or written to. A symlink to the target stays a symlink.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Gid, Uid, fchown, geteuid};

use crate::failure::shown;
use crate::file;

/// Between the file's name and the number in the name of a draft.
const INFIX: &str = ".nixkit-";
/// Characters of the file's name in that of its draft: a name has at most 255 bytes.
const LONGEST_STEM: usize = 50;
/// Random names that are tried for a draft.
const MOST_TRIES: usize = 16;
/// Permissions of a draft until it gets those of the file.
const PRIVATE: u32 = 0o600;
/// Permissions of a file that did not exist, before the umask.
const NEW_FILE: u32 = 0o666;

/// New content for a file, in a draft. The draft is removed unless it is published.
#[derive(Debug)]
pub struct Replacement {
    draft: PathBuf,
    target: PathBuf,
    /// Locked while this run lives: the next run removes drafts that are not locked.
    _lock: Option<Flock<std::fs::File>>,
}

impl Replacement {
    /// Writes `content` to a draft next to the file that `path` leads to, with that file's mode and owner.
    pub fn prepare(path: &Path, content: &[u8]) -> anyhow::Result<Self> {
        let target = fs::canonicalize(path)?;
        let metadata = fs::metadata(&target)?;
        let (mut file, replacement) = Self::begin(target, PRIVATE)?;
        file.write_all(content)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(file.file(), Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))
                .with_context(|| format!("cannot keep the owner of `{}`", shown(path)))?;
        }
        // After the owner, whose change takes set-user-ID bits away.
        file.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        file.sync_all()?;
        file::close_at(&replacement.draft, file.into_parts().0)?;
        Ok(replacement)
    }

    /// Creates and locks an empty draft for `target`, with the permissions `mode` but for the umask.
    fn begin(target: PathBuf, mode: u32) -> anyhow::Result<(fs::File, Self)> {
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            bail!("`{}` is not a file", shown(&target));
        };
        let stem = OsString::from(format!(".{}", shown(name)).chars().take(LONGEST_STEM).collect::<String>());
        remove_left_overs(folder, &stem);
        let mut names = (0..MOST_TRIES).map(|_| {
            let mut name = stem.clone();
            name.push(format!("{INFIX}{}", file::random()));
            folder.join(name)
        });
        let file = open_first_new(&mut names, mode)?;
        let draft = file.path().to_owned();
        let lock =
            file.file().try_clone().ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        Ok((file, Self { draft, target, _lock: lock }))
    }

    /// Renames the draft to the file.
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
    let (mut file, replacement) = Replacement::begin(target, if mode.is_some() { PRIVATE } else { NEW_FILE })?;
    file.write_all(contents)?;
    if let Some(mode) = mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file::close_at(&replacement.draft, file.into_parts().0)?;
    replacement.publish()
}

/// `name` as `./name`: the directory of every target has a name.
fn absent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").join(path),
        _ => path.to_owned(),
    }
}

/// Creates the first of `names` that does not exist yet.
fn open_first_new(names: &mut dyn Iterator<Item = PathBuf>, mode: u32) -> anyhow::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    loop {
        let name = names.next().context("every name for a draft is taken")?;
        match options.open(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return Ok(opened?),
        }
    }
}

/// Removes drafts of this user whose runs are dead: nothing holds their locks. The others do no harm.
fn remove_left_overs(folder: &Path, stem: &OsStr) {
    let mut start = stem.to_owned();
    start.push(INFIX);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        if !rest.is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        // Another user may have put a pipe there, and opening that would wait for a writer.
        let options = std::fs::OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(entry.path());
        let is_ours = |file: &std::fs::File| {
            file.metadata().is_ok_and(|found| found.is_file() && found.uid() == geteuid().as_raw())
        };
        if let Some(file) = options.ok().filter(is_ours)
            && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
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
        let opened = open_first_new(&mut ["a", "b", "c", "d"].map(at).into_iter(), 0o600).unwrap();
        assert_eq!(opened.path(), at("d"));
        assert!(open_first_new(&mut ["a", "b"].map(at).into_iter(), 0o600).is_err());
        assert_eq!(fs::read_to_string(at("theirs")).unwrap(), "kept");
        assert_eq!(names(folder.path()), ["a", "b", "c", "d", "theirs"]);
    }

    #[test]
    fn drafts_of_dead_runs_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "one").unwrap();
        for name in [".file.nixkit-17", ".file.nixkit-1x", ".other.nixkit-17", "theirs"] {
            fs::write(at(name), "").unwrap();
        }
        symlink("theirs", at(".file.nixkit-18")).unwrap();
        nix::unistd::mkfifo(&at(".file.nixkit-19"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let living = Replacement::prepare(&at("file"), b"two").unwrap();
        let draft = living.draft.file_name().unwrap().to_str().unwrap().to_owned();
        write(&at("file"), "three").unwrap();
        let mut expected =
            vec![".file.nixkit-18", ".file.nixkit-19", ".file.nixkit-1x", ".other.nixkit-17", "file", "theirs", &draft];
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
        living.publish().unwrap();
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "two");
    }
}
