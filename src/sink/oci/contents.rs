//! The files of store paths as entries of a layer: the same for the same NARs, whatever the disk's inodes are.
//! It must never keep in memory more than names and hashes of one layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use anyhow::{Context, bail, ensure};
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use super::super::below;
use super::super::link::MOST_NAMES;
use super::super::names::{Buffer, Names};
use super::entries::{self, Output, What};
use crate::failure::shown_bytes;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::store::{StoreDirectory, StorePath};

/// Files up to this size are read once, and compared and written from memory.
const SMALL: usize = 256 * 1024;
/// Of the store's directories above its paths.
const PARENT_MODE: u32 = 0o755;
/// Modes that Nix gives (`canonicalisePathMetaData` in libstore). The bits are those of the NAR, not of the disk.
const PLAIN: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;
const LINK: u32 = 0o777;

/// Reads store paths and writes them as entries.
pub(super) struct Contents<'a> {
    store: &'a StoreDirectory,
    base: OwnedFd,
    names: Buffer,
    data: Vec<u8>,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
    /// The longest path that was written, relative to the root.
    pub(super) longest: Vec<u8>,
}

/// Mode and SHA-256 of a file.
type Content = (u32, [u8; 32]);

/// What must be kept to find equal files in a layer.
#[derive(Default)]
struct Twins {
    /// Sizes of the layer's files: whether more than one file has that size.
    sizes: HashMap<u64, bool>,
    /// Where each content was written.
    by_content: HashMap<Content, First>,
    /// The content of an inode that has several names.
    by_inode: HashMap<(u64, u64), Content>,
}

/// A file of the layer to which equal files are linked.
struct First {
    name: Vec<u8>,
    /// How many names it has, this one included.
    names: u32,
}

impl<'a> Contents<'a> {
    pub(super) fn new(
        store: &'a StoreDirectory,
        interrupt: &'a Interrupt,
        progress: &'a Progress,
    ) -> anyhow::Result<Self> {
        let base = OwnedFd::from(fs_err::File::open(store.real())?.into_parts().0);
        let (names, data, longest) = (Buffer::default(), vec![0; SMALL], Vec::new());
        Ok(Self { store, base, names, data, interrupt, progress, longest })
    }

    /// Writes the directories in which the store paths lie.
    pub(super) fn parents(&self, to: &mut impl Output) -> anyhow::Result<()> {
        let mut parents: Vec<_> = self.store.relative().ancestors().filter(|path| path.file_name().is_some()).collect();
        parents.reverse();
        for parent in parents {
            entries::begin(to, parent.as_os_str().as_encoded_bytes(), PARENT_MODE, &What::Directory)?;
        }
        Ok(())
    }

    /// Writes `paths` in their order. Regular files of equal content and mode become names of the first of them.
    pub(super) fn write(&mut self, paths: &[StorePath], to: &mut impl Output) -> anyhow::Result<()> {
        let mut twins = Twins::default();
        self.walk(paths, |_, _, stat| {
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let size = u64::try_from(stat.st_size)?;
                twins.sizes.entry(size).and_modify(|several| *several = true).or_insert(false);
            }
            Ok(())
        })?;
        let prefix = [self.store.relative().as_os_str().as_encoded_bytes(), b"/"].concat();
        let progress = self.progress;
        self.walk(paths, |contents, path, stat| {
            if !path.contains(&b'/') {
                progress.begin_store_path();
            }
            let place = [&prefix, path].concat();
            let size = u64::try_from(stat.st_size)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => entries::begin(to, &place, EXECUTABLE, &What::Directory)?,
                FileType::Symlink => {
                    let target = below::at(&contents.base, path, |from, rest| readlinkat(from, rest))?;
                    entries::begin(to, &place, LINK, &What::Symlink(target.as_encoded_bytes()))?;
                }
                FileType::RegularFile => contents.file(path, &place, stat, &mut twins, to)?,
                _ => bail!("it is not a file, directory or symlink"),
            }
            if place.len() > contents.longest.len() {
                contents.longest = place;
            }
            progress.add(1, size);
            Ok(())
        })?;
        Ok(())
    }

    /// Visits everything in `paths`, each directory before what is in it, names in the order of their bytes.
    fn walk(
        &mut self,
        paths: &[StorePath],
        mut visit: impl FnMut(&mut Self, &[u8], &FileStat) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // A stack instead of recursion, since trees may be very deep.
        let mut steps: Vec<Vec<u8>> = paths.iter().rev().map(|path| path.base_name().as_bytes().to_vec()).collect();
        let mut names = Names::default();
        while let Some(path) = steps.pop() {
            self.interrupt.check()?;
            self.step(&path, &mut names, &mut steps, &mut visit)
                .with_context(|| format!("cannot read `{}/{}`", self.store, shown_bytes(&path)))?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        path: &[u8],
        names: &mut Names,
        steps: &mut Vec<Vec<u8>>,
        visit: &mut impl FnMut(&mut Self, &[u8], &FileStat) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let stat = below::at(&self.base, path, |from, rest| fstatat(from, rest, AtFlags::AT_SYMLINK_NOFOLLOW))?;
        visit(self, path, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            names.read(&below::directory(&self.base, path)?, &mut self.names)?;
            let first = steps.len();
            steps.extend(names.iter().map(|(name, _)| below::join(path, name.to_bytes())));
            // The stack is taken from its end.
            steps[first..].sort_unstable_by(|a, b| b.cmp(a));
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        place: &[u8],
        stat: &FileStat,
        twins: &mut Twins,
        to: &mut impl Output,
    ) -> anyhow::Result<()> {
        let size = u64::try_from(stat.st_size)?;
        let mode = if stat.st_mode & 0o100 == 0 { PLAIN } else { EXECUTABLE };
        let is_alone = twins.sizes.get(&size) != Some(&true);
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            let content = twins.by_inode.get(&inode);
            let first = content.and_then(|content| twins.by_content.get_mut(content)?.another_name());
            if let Some(first) = first {
                return entries::begin(to, place, mode, &What::Link(first));
            }
        }
        let file = self.open(path)?;
        if let Some(content) = usize::try_from(size).ok().and_then(|size| self.data.get_mut(..size)) {
            (&file).read_exact(content).context("it became shorter while it was read")?;
            if !is_alone {
                if let Some(first) = twins.first(place, (mode, Sha256::digest(&*content).into()), stat) {
                    return entries::begin(to, place, mode, &What::Link(first));
                }
            }
            return entries::file(to, place, mode, content);
        }
        if !is_alone {
            let hash = self.hash(self.open(path)?, size)?;
            if let Some(first) = twins.first(place, (mode, hash), stat) {
                return entries::begin(to, place, mode, &What::Link(first));
            }
        }
        entries::begin(to, place, mode, &What::File(size))?;
        self.copy(file, size, |bytes| to.put(bytes))?;
        entries::end(to, size)
    }

    fn open(&self, path: &[u8]) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        below::at(&self.base, path, |from, rest| openat(from, rest, flags, Mode::empty())).map(File::from)
    }

    fn hash(&mut self, file: File, size: u64) -> anyhow::Result<[u8; 32]> {
        let mut hash = Sha256::new();
        self.copy(file, size, |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        Ok(hash.finalize().into())
    }

    /// Hands on `size` bytes of `file`.
    fn copy(
        &mut self,
        mut file: File,
        size: u64,
        mut to: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut left = size;
        while left > 0 {
            self.interrupt.check()?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.data.len());
            let read = file.read(&mut self.data[..most])?;
            ensure!(read > 0, "it became shorter while it was read");
            to(&self.data[..read])?;
            left -= read as u64;
        }
        Ok(())
    }
}

impl First {
    /// The file's name in the layer, for one more link; `None` once it has as many names as it may have.
    fn another_name(&mut self) -> Option<&[u8]> {
        if self.names == MOST_NAMES {
            return None;
        }
        self.names += 1;
        Some(&self.name)
    }
}

impl Twins {
    /// The file to which `place`, a file of this content, is linked. `None` where it has to be written: then the
    /// next equal files are linked to it.
    fn first(&mut self, place: &[u8], content: Content, stat: &FileStat) -> Option<&[u8]> {
        if stat.st_nlink > 1 {
            self.by_inode.insert((stat.st_dev, stat.st_ino), content);
        }
        let first = self.by_content.entry(content).or_insert_with(|| First { name: Vec::new(), names: MOST_NAMES });
        if first.names == MOST_NAMES {
            *first = First { name: place.to_vec(), names: 1 };
            return None;
        }
        first.another_name()
    }
}
