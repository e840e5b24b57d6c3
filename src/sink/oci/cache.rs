//! Layers that were made before, by what is in them. Several runs may use one folder at once.
//! It must never hand out a blob whose digest it has not computed anew, nor let an export fail: what cannot be read is
//! made again, and what cannot be written is a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pipeline::Written;
use crate::failure::shown;
use crate::file;
use crate::interrupt::Interrupt;
use crate::oci::{Descriptor, Digest};

/// Hexadecimal digits of a key.
const DIGITS: usize = 64;
/// An entry has some hundred bytes.
const LARGEST_ENTRY: u64 = 64 << 10;
/// A file with a temporary name that is older is no run's any more.
const OLDEST_DRAFT: Duration = Duration::from_secs(24 * 3600);

/// A folder of layers: `KEY.blob`, and `KEY.json` with what is known of it. The time of `KEY.json` is that of its last
/// use.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Keys of entries that this run has read or written.
    used: BTreeSet<String>,
    /// Why nothing more is written, or an entry could not be.
    problems: Vec<String>,
    /// Whether nothing more is written.
    is_broken: bool,
}

/// What is known of a layer.
#[derive(Serialize, Deserialize)]
struct Entry {
    diff_id: Digest,
    blob: Descriptor,
}

/// A layer that was found.
pub(super) struct Found {
    pub(super) layer: Written,
    /// Its blob, which was read and found whole. It stays readable when another run removes the entry.
    pub(super) file: File,
    /// Where the blob was found.
    pub(super) path: PathBuf,
}

impl Cache {
    /// Opens the cache in `folder`, which is made where it does not exist.
    pub(super) fn open(folder: &Path) -> Self {
        let cache = Self { folder: folder.to_owned(), state: Mutex::default() };
        if let Err(error) = fs::create_dir_all(folder) {
            cache.give_up(&error.into());
        }
        cache
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, error: &anyhow::Error) {
        let mut state = self.state();
        state.is_broken = true;
        state.problems.push(format!("{error:#}"));
    }

    fn entry(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn blob(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.blob"))
    }

    /// The layer of `key`. One that is damaged or cannot be read counts as missing: it is made again, and kept in its
    /// place. Fails only when interrupted.
    pub(super) fn find(&self, key: &str, interrupt: &Interrupt) -> anyhow::Result<Option<Found>> {
        let mut text = Vec::new();
        let read = open(&self.entry(key)).and_then(|entry| entry.take(LARGEST_ENTRY).read_to_end(&mut text));
        let Ok(Entry { diff_id, blob }) = read.and_then(|_| Ok(serde_json::from_slice(&text)?)) else {
            return Ok(None);
        };
        let path = self.blob(key);
        let Ok(file) = open(&path) else { return Ok(None) };
        if !file.metadata().is_ok_and(|metadata| metadata.len() == blob.size) {
            return Ok(None);
        }
        match digest(&file, interrupt) {
            Ok(digest) if digest == blob.digest => {}
            Err(error) if !error.is::<io::Error>() => return Err(error),
            _ => return Ok(None),
        }
        self.state().used.insert(key.to_owned());
        // Where nothing can be written, there is nothing to remember either.
        let (now, follow) = (TimeSpec::UTIME_NOW, UtimensatFlags::FollowSymlink);
        let _ = utimensat(AT_FDCWD, &self.entry(key), &now, &now, follow);
        Ok(Some(Found { layer: Written { blob, diff_id }, file, path }))
    }

    /// Keeps a layer; `give` makes the file of its blob. After a failure that is not that of one entry nothing more is
    /// written.
    pub(super) fn keep(&self, key: &str, layer: &Written, give: impl FnOnce(&Path) -> anyhow::Result<()>) {
        if self.state().is_broken {
            return;
        }
        let new = self.folder.join(format!(".{key}-{:016x}", file::random()));
        let kept = (|| {
            give(&new)?;
            // The blob first: an entry without a blob is none.
            rename(&new, &self.blob(key))?;
            let entry = Entry { diff_id: layer.diff_id.clone(), blob: layer.blob.clone() };
            file::write(&new, serde_json::to_vec(&entry)?)?;
            rename(&new, &self.entry(key))
        })();
        match kept {
            Ok(()) => _ = self.state().used.insert(key.to_owned()),
            Err(error) => {
                let _ = fs::remove_file(&new);
                if error.is::<InTheWay>() {
                    self.state().problems.push(format!("{error:#}"));
                } else {
                    self.give_up(&error);
                }
            }
        }
    }

    /// Removes entries until all together have at most `most` bytes, those first that were used longest ago. Those that
    /// this run has used stay. Nothing else in the folder is touched.
    pub(super) fn prune(&self, most: u64) {
        if let Err(error) = self.try_prune(most) {
            self.state().problems.push(format!("{:#}", error.context("cannot remove old layers")));
        }
    }

    fn try_prune(&self, most: u64) -> anyhow::Result<()> {
        let mut files = Vec::new();
        match fs::read_dir(&self.folder) {
            // There is nothing to remove in a folder that could not be made.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => {
                for entry in entries? {
                    let entry = entry?;
                    // Another run may have removed it.
                    let Ok(metadata) = entry.metadata() else { continue };
                    let file = entry.file_name().to_str().and_then(|name| Stored::new(name, &metadata));
                    files.extend(file);
                }
            }
        }
        let used = self.state().used.clone();
        for name in superfluous(&files, &used, most, SystemTime::now()) {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What could not be written, as a warning.
    pub(super) fn warning(&self) -> Option<String> {
        let state = self.state();
        let first = state.problems.first()?;
        let others = match state.problems.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let folder = shown(&self.folder);
        Some(format!("cannot write the cache `{folder}`, so that layers will be made again: {first}{others}"))
    }
}

/// Opens a regular file. Nothing else is waited for, such as a pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
}

/// Something lies in the place of an entry that no file can replace.
#[derive(Debug)]
struct InTheWay(PathBuf);

impl std::fmt::Display for InTheWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is a directory", shown(&self.0))
    }
}

impl std::error::Error for InTheWay {}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => Err(InTheWay(to.to_owned()).into()),
        renamed => renamed.map_err(Into::into),
    }
}

/// A file in the folder that is a cache's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    name: String,
    key: String,
    kind: Kind,
    size: u64,
    time: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Entry,
    Blob,
    /// Not renamed to its place yet.
    Draft,
}

impl Stored {
    /// `None` if the name is not one that a cache gives.
    fn new(name: &str, metadata: &std::fs::Metadata) -> Option<Self> {
        let (key, kind) = match name.strip_prefix('.') {
            Some(draft) => (draft.split_once('-')?.0, Kind::Draft),
            None => match name.split_once('.')? {
                (key, "json") => (key, Kind::Entry),
                (key, "blob") => (key, Kind::Blob),
                _ => return None,
            },
        };
        let is_key = key.len() == DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        (is_key && metadata.is_file()).then(|| Self {
            name: name.to_owned(),
            key: key.to_owned(),
            kind,
            size: metadata.len(),
            time,
        })
    }
}

/// The names of the files to be removed, an entry before its blob, so that `files` have at most `most` bytes together.
/// Entries of which `used` has the key stay, and so do drafts that may be another run's.
fn superfluous<'a>(files: &'a [Stored], used: &BTreeSet<String>, most: u64, now: SystemTime) -> Vec<&'a str> {
    let mut total: u64 = files.iter().map(|file| file.size).sum();
    let mut removed = Vec::new();
    let is_dead = |file: &&Stored| now.duration_since(file.time).is_ok_and(|age| age > OLDEST_DRAFT);
    for draft in files.iter().filter(|file| file.kind == Kind::Draft).filter(is_dead) {
        total -= draft.size;
        removed.push(draft.name.as_str());
    }
    let mut entries: BTreeMap<&str, Vec<&Stored>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.kind != Kind::Draft && !used.contains(&file.key)) {
        entries.entry(&file.key).or_default().push(file);
    }
    let mut entries: Vec<_> = entries.into_values().collect();
    for files in &mut entries {
        files.sort_by_key(|file| file.kind);
    }
    // A blob is not written again when it is used; without an entry it has its own time.
    entries.sort_by_key(|files| files.first().map(|file| (file.time, &file.key)));
    for files in entries {
        if total <= most {
            break;
        }
        total -= files.iter().map(|file| file.size).sum::<u64>();
        removed.extend(files.into_iter().map(|file| file.name.as_str()));
    }
    removed
}

/// The digest of a whole file.
pub(super) fn digest(mut file: impl Read, interrupt: &Interrupt) -> anyhow::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        interrupt.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was used so many hours ago.
    fn stored(name: &str, size: u64, hours: u64) -> Stored {
        let (key, kind) = match name.split_at(1) {
            (key, "-draft") => (key, Kind::Draft),
            (key, ".json") => (key, Kind::Entry),
            (key, _) => (key, Kind::Blob),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_hours(1000 - hours);
        Stored { name: name.to_owned(), key: key.to_owned(), kind, size, time }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let files = [
            stored("a.blob", 100, 90),
            stored("a.json", 1, 3),
            stored("b.blob", 100, 1),
            stored("b.json", 1, 9),
            stored("c.blob", 100, 9),
            stored("c.json", 1, 6),
            // Of which the entry is gone.
            stored("d.blob", 50, 2),
            stored("e-draft", 10, 25),
            stored("f-draft", 10, 23),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * 3600);
        for (most, used, expected) in [
            (1000, "", &["e-draft"][..]),
            (363, "", &["e-draft"]),
            (362, "", &["e-draft", "b.json", "b.blob"]),
            (262, "", &["e-draft", "b.json", "b.blob"]),
            (261, "", &["e-draft", "b.json", "b.blob", "c.json", "c.blob"]),
            (261, "c", &["e-draft", "b.json", "b.blob", "a.json", "a.blob"]),
            (0, "", &["e-draft", "b.json", "b.blob", "c.json", "c.blob", "a.json", "a.blob", "d.blob"]),
            (0, "ab", &["e-draft", "c.json", "c.blob", "d.blob"]),
        ] {
            let used = used.chars().map(String::from).collect();
            assert_eq!(superfluous(&files, &used, most, now), expected, "{most}");
        }
    }

    #[test]
    fn only_files_of_a_cache_are_a_caches() {
        let folder = tempfile::tempdir().unwrap();
        let key = "0123456789abcdef".repeat(4);
        for (name, kind) in [
            (format!("{key}.json"), Some(Kind::Entry)),
            (format!("{key}.blob"), Some(Kind::Blob)),
            (format!(".{key}-0123456789abcdef"), Some(Kind::Draft)),
            (format!("{key}.txt"), None),
            (key.clone(), None),
            (format!("{}.json", &key[1..]), None),
            ("notes.json".to_owned(), None),
            (".git-keep".to_owned(), None),
        ] {
            fs::write(folder.path().join(&name), "x").unwrap();
            let metadata = std::fs::metadata(folder.path().join(&name)).unwrap();
            assert_eq!(Stored::new(&name, &metadata).map(|file| file.kind), kind, "{name}");
        }
        let metadata = std::fs::metadata(folder.path()).unwrap();
        assert_eq!(Stored::new(&format!("{key}.json"), &metadata), None);
    }
}
