//! Finds regular files of equal content and mode in store paths.
//! It must never write, and it reads only files of which another has the same size and mode.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use super::names::{Buffer, Names};
use super::pool::{self, Added};
use super::{CallFailed, below};
use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::store::{StoreDirectory, StorePath};

/// What one read takes at most.
const BUFFER: usize = 256 << 10;

/// Device and inode number.
pub(super) type Inode = (u64, u64);

/// Several inodes whose content and mode are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Of each.
    pub size: u64,
    /// A name of each, relative to the store directory; sorted.
    pub files: Vec<Vec<u8>>,
    /// Of each, in the same order.
    inodes: Vec<Inode>,
}

impl Group {
    /// Bytes that would go if they were one.
    pub fn saves(&self) -> u64 {
        self.size * (self.files.len() as u64 - 1)
    }
}

/// Of each inode that is like another, the one that stands for all of them.
pub(super) fn leaders(groups: &[Group]) -> HashMap<Inode, Inode> {
    let pairs = groups.iter().flat_map(|group| group.inodes.iter().map(|&inode| (inode, group.inodes[0])));
    pairs.collect()
}

/// What two files must have in common before it is worth reading them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    size: u64,
    is_executable: bool,
}

/// An inode, with one of its names.
struct Found {
    kind: Kind,
    inode: Inode,
    path: Vec<u8>,
}

/// Finds all of them in `paths`, those first that cost most. Names that are one inode already count as one file.
pub fn find(
    store: &StoreDirectory,
    paths: &[StorePath],
    jobs: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Group>> {
    let base = OwnedFd::from(fs_err::File::open(store.real())?.into_parts().0);
    let reader = Reader { base, store, interrupt };
    let tasks = paths.iter().map(|path| path.base_name().as_bytes().to_vec()).collect();
    let worker = || (Vec::new(), Buffer::default());
    let found =
        pool::run(jobs, tasks, worker, |path, (found, buffer), added| reader.walk(&path, found, buffer, added))?;

    let mut alike: BTreeMap<Kind, BTreeMap<Inode, Vec<u8>>> = BTreeMap::new();
    for Found { kind, inode, path } in found.into_iter().flat_map(|(found, _)| found) {
        let names = alike.entry(kind).or_default();
        if names.get(&inode).is_none_or(|name| path < *name) {
            names.insert(inode, path);
        }
    }
    alike.retain(|_, inodes| inodes.len() > 1);
    let candidate = |kind| move |(inode, path)| Found { kind, inode, path };
    let candidates = alike.into_iter().flat_map(|(kind, inodes)| inodes.into_iter().map(candidate(kind))).collect();

    let worker = || (Vec::new(), vec![0; BUFFER]);
    let hashed = pool::run(jobs, candidates, worker, |file: Found, (hashed, buffer), _| {
        let hash =
            reader.hash(&file, buffer).with_context(|| format!("cannot read `{}`", shown(reader.whole(&file.path))))?;
        hashed.push((file, hash));
        Ok(())
    })?;
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (Found { kind, inode, path }, hash) in hashed.into_iter().flat_map(|(hashed, _)| hashed) {
        groups.entry((kind, hash)).or_default().push((path, inode));
    }
    groups.retain(|_, files| files.len() > 1);
    let group = |((kind, _), mut files): ((Kind, _), Vec<(Vec<u8>, Inode)>)| {
        files.sort_unstable();
        let (files, inodes) = files.into_iter().unzip();
        Group { size: kind.size, files, inodes }
    };
    let mut groups: Vec<_> = groups.into_iter().map(group).collect();
    groups.sort_by(|a, b| b.saves().cmp(&a.saves()).then_with(|| a.files.cmp(&b.files)));
    Ok(groups)
}

/// Reads store paths by descriptors: their paths may be longer than the kernel takes at once.
struct Reader<'a> {
    base: OwnedFd,
    store: &'a StoreDirectory,
    interrupt: &'a Interrupt,
}

impl Reader<'_> {
    /// Adds the files in a directory, or a store path that is one, to `found`, and its directories to the tasks.
    fn walk(
        &self,
        path: &[u8],
        found: &mut Vec<Found>,
        buffer: &mut Buffer,
        added: &mut Added<'_, Vec<u8>>,
    ) -> anyhow::Result<()> {
        self.interrupt.check()?;
        // What is pushed later is a directory for certain.
        let is_store_path = !path.contains(&b'/');
        if is_store_path && self.look(path.to_owned(), found)?.is_none() {
            return Ok(());
        }
        let mut names = Names::default();
        below::directory(&self.base, path)
            .and_then(|directory| names.read(&directory, buffer))
            .map_err(|errno| self.failed(path, errno))?;
        for (name, kind) in names.iter() {
            if kind != FileType::Symlink {
                added.tasks.extend(self.look(below::join(path, name.to_bytes()), found)?);
            }
        }
        Ok(())
    }

    /// Adds a file to `found`; gives a directory back.
    fn look(&self, path: Vec<u8>, found: &mut Vec<Found>) -> anyhow::Result<Option<Vec<u8>>> {
        let stat = below::at(&self.base, &path, |from, rest| fstatat(from, rest, AtFlags::AT_SYMLINK_NOFOLLOW))
            .map_err(|errno| self.failed(&path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Some(path)),
            FileType::RegularFile => {
                let kind = Kind { size: u64::try_from(stat.st_size)?, is_executable: stat.st_mode & 0o100 != 0 };
                found.push(Found { kind, inode: (stat.st_dev, stat.st_ino), path });
            }
            _ => {}
        }
        Ok(None)
    }

    fn hash(&self, file: &Found, buffer: &mut [u8]) -> anyhow::Result<[u8; 32]> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = below::at(&self.base, &file.path, |from, rest| openat(from, rest, flags, Mode::empty()))?;
        let mut data = File::from(open).take(file.kind.size);
        let mut hash = Sha256::new();
        let mut left = file.kind.size;
        while left > 0 {
            self.interrupt.check()?;
            let read = data.read(buffer)?;
            if read == 0 {
                bail!("it became shorter while it was read");
            }
            hash.update(&buffer[..read]);
            left -= read as u64;
        }
        Ok(hash.finalize().into())
    }

    fn failed(&self, path: &[u8], errno: Errno) -> CallFailed {
        CallFailed::new(format!("cannot read `{}`", shown(self.whole(path))), errno)
    }

    fn whole(&self, path: &[u8]) -> PathBuf {
        self.store.real().join(OsStr::from_bytes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn equal_files_are_found_whatever_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreDirectory::new(&fs::canonicalize(folder.path()).unwrap()).unwrap();
        let path = |letter: &str, name: &str| StorePath::parse(&format!("{}-{name}", letter.repeat(32))).unwrap();
        let (a, b, c) = (path("a", "a"), path("b", "b"), path("c", "file"));
        for path in [&a, &b] {
            fs::create_dir_all(store.join(path).join("sub")).unwrap();
        }
        let large = vec![7; BUFFER + 1];
        let mut other = large.clone();
        other[BUFFER] = 8;
        for (path, name, content) in [
            (&a, "one", &large[..]),
            (&a, "sub/two", &large),
            (&b, "sub/three", &large),
            (&b, "other", &other),
            (&b, "alone", b"alone"),
            (&a, "empty", b""),
            (&b, "empty", b""),
            (&a, "program", b"run"),
            (&b, "text", b"run"),
        ] {
            fs::write(store.join(path).join(name), content).unwrap();
        }
        fs::write(store.join(&c), b"run").unwrap();
        fs::set_permissions(store.join(&a).join("program"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::hard_link(store.join(&a).join("one"), store.join(&a).join("again")).unwrap();
        std::os::unix::fs::symlink("one", store.join(&a).join("link")).unwrap();
        let names = |group: &Group| -> Vec<String> {
            let names = group.files.iter().map(|path| String::from_utf8_lossy(path).replace(&"a".repeat(31), ""));
            names.map(|name| name.replace(&"b".repeat(31), "").replace(&"c".repeat(31), "")).collect()
        };
        for jobs in [1, 4] {
            let groups = find(&store, &[c.clone(), a.clone(), b.clone()], jobs, &Interrupt::default()).unwrap();
            let found: Vec<_> = groups.iter().map(|group| (names(group), group.saves())).collect();
            let expected = [
                (vec!["a-a/again", "a-a/sub/two", "b-b/sub/three"], 2 * large.len() as u64),
                (vec!["b-b/text", "c-file"], 3),
                (vec!["a-a/empty", "b-b/empty"], 0),
            ];
            let expected: Vec<(Vec<String>, u64)> = expected
                .into_iter()
                .map(|(names, saves)| (names.into_iter().map(Into::into).collect(), saves))
                .collect();
            assert_eq!(found, expected);
            let leaders = leaders(&groups);
            assert_eq!(leaders.len(), 7);
            assert_eq!(leaders[&groups[0].inodes[2]], groups[0].inodes[0]);
        }
        let missing = find(&store, &[path("d", "d")], 1, &Interrupt::default()).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read `") && missing.contains("ENOENT"), "{missing}");
    }
}
