//! What lies in a directory, read without nixkit's help.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Directory,
    File,
    Symlink(PathBuf),
    Special,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) what: What,
    /// Permissions, with the set-id and sticky bits.
    pub(crate) mode: u32,
    /// Seconds and nanoseconds.
    pub(crate) time: (i64, i64),
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// Device and number.
    pub(crate) inode: (u64, u64),
    pub(crate) links: u64,
}

impl Entry {
    pub(crate) fn read(path: &Path) -> Self {
        let metadata = fs_err::symlink_metadata(path).unwrap();
        let kind = metadata.file_type();
        let what = if kind.is_dir() {
            What::Directory
        } else if kind.is_file() {
            What::File
        } else if kind.is_symlink() {
            What::Symlink(fs_err::read_link(path).unwrap())
        } else {
            What::Special
        };
        Self {
            what,
            mode: metadata.mode() & 0o7777,
            time: (metadata.mtime(), metadata.mtime_nsec()),
            owner: (metadata.uid(), metadata.gid()),
            size: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
            links: metadata.nlink(),
        }
    }
}

/// What it is, its mode, seconds, owner, and size.
pub(crate) type Shape = (What, u32, i64, (u32, u32), u64);

/// Fails with the first path at which they differ: all paths of a tree would be too long to read.
#[track_caller]
pub(crate) fn same_shape(found: &BTreeMap<PathBuf, Shape>, expected: &BTreeMap<PathBuf, Shape>) {
    for path in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(path), expected.get(path), "{}", path.display());
    }
}

/// All entries below a directory by their relative path, and the directory itself by the empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<PathBuf, Entry>);

impl Tree {
    pub(crate) fn read(directory: &Path) -> Self {
        let entries = WalkDir::new(directory).follow_root_links(false).into_iter().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().strip_prefix(directory).unwrap().to_owned(), Entry::read(entry.path()))
        });
        Self(entries.collect())
    }

    /// The given directories with all that is in them, as entries of their common `parent`.
    pub(crate) fn of(parent: &Path, paths: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        for path in paths {
            for (relative, entry) in Self::read(path).0 {
                tree.0.insert(path.strip_prefix(parent).unwrap().join(relative), entry);
            }
        }
        tree
    }

    /// Only what lies below `place`.
    pub(crate) fn below(&self, place: &Path) -> Self {
        let inside = |path: &PathBuf| path.strip_prefix(place).is_ok_and(|rest| !rest.as_os_str().is_empty());
        Self(
            self.0
                .iter()
                .filter(|(path, _)| inside(path))
                .map(|(path, entry)| (path.strip_prefix(place).unwrap().to_owned(), entry.clone()))
                .collect(),
        )
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Entry) -> bool) -> u64 {
        self.0.values().filter(|entry| wanted(entry)).count() as u64
    }

    pub(crate) fn files(&self) -> u64 {
        self.count(|entry| entry.what == What::File)
    }

    pub(crate) fn symlinks(&self) -> u64 {
        self.count(|entry| matches!(entry.what, What::Symlink(_)))
    }

    pub(crate) fn directories(&self) -> u64 {
        self.count(|entry| entry.what == What::Directory)
    }

    /// Sizes of the files, each inode once.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.0.values().filter(|entry| entry.what == What::File);
        files.map(|file| (file.inode, file.size)).collect::<BTreeMap<_, _>>().values().sum()
    }

    /// The names of each inode that has several here.
    pub(crate) fn shared_inodes(&self) -> BTreeSet<BTreeSet<PathBuf>> {
        let mut names: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
        for (path, entry) in self.0.iter().filter(|(_, entry)| entry.what != What::Directory) {
            names.entry(entry.inode).or_default().insert(path.clone());
        }
        names.into_values().filter(|names| names.len() > 1).collect()
    }

    /// What two exports of one closure have in common, whatever their inodes.
    pub(crate) fn shape(&self) -> BTreeMap<PathBuf, Shape> {
        let size = |entry: &Entry| if entry.what == What::Directory { 0 } else { entry.size };
        self.0.iter().map(|(path, e)| (path.clone(), (e.what.clone(), e.mode, e.time.0, e.owner, size(e)))).collect()
    }

    /// What lies neither in the store nor is a directory above it, as lines `path`, `path/` or `path -> target`.
    pub(crate) fn beside(&self, store: &Path) -> Vec<String> {
        let store = store.strip_prefix("/").unwrap();
        let line = |(path, entry): (&PathBuf, &Entry)| match &entry.what {
            What::Directory => format!("{}/", path.display()),
            What::Symlink(target) => format!("{} -> {}", path.display(), target.display()),
            What::File | What::Special => path.display().to_string(),
        };
        self.0.iter().filter(|(path, _)| !path.starts_with(store) && !store.starts_with(path)).map(line).collect()
    }
}
