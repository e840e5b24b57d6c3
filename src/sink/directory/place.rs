//! Gets one file or symlink into the root: down the ladder of [`super::super::link`], call by call.
//! It must never fall back where the user named a mode, nor touch an inode of the store.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstatat, futimens, utimensat};
use nix::unistd::{linkat, symlinkat};
use rustix::fs::FileType;

use super::inodes::{Inode, Inodes};
use super::{Ends, Entry, Folder, STORE_TIME, Side, bytes, canonical};
use crate::failure::{hinted, shown};
use crate::file;
use crate::interrupt::Interrupt;
use crate::sink::kept::{Samples, Wanted};
use crate::sink::link::{MOST_NAMES, Method, Verdict, verdict};
use crate::sink::mounts::Mounts;
use crate::sink::receipt::{Changed, Reason, Tally};
use crate::sink::{CallFailed, below};

/// What a pair of file systems, the store path's and the root's, has refused for good.
#[derive(Default)]
pub(super) struct Refused {
    hard_link: AtomicBool,
    reflink: AtomicBool,
}

impl Refused {
    fn of(&self, method: Method) -> Option<&AtomicBool> {
        match method {
            Method::HardLink => Some(&self.hard_link),
            Method::Reflink => Some(&self.reflink),
            Method::Copy => None,
        }
    }

    pub(super) fn holds(&self, method: Method) -> bool {
        self.of(method).is_some_and(|refused| refused.load(Ordering::Relaxed))
    }
}

/// What placing needs to know of the whole run.
pub(super) struct Placer<'a> {
    pub(super) ends: Ends<'a>,
    /// The store directory and the root's.
    pub(super) top: &'a Folder,
    pub(super) inodes: Inodes,
    /// Of files that are to become one inode, which inode stands for them.
    pub(super) leaders: HashMap<Inode, Inode>,
    /// Looks at what the root's file system keeps.
    pub(super) samples: &'a Samples,
    pub(super) interrupt: &'a Interrupt,
}

/// A new inode that has a name, and the open files, source first, where it has data.
struct Begun {
    method: Method,
    files: Option<(OwnedFd, OwnedFd)>,
}

impl Placer<'_> {
    /// The inode by which a file is known, and whether several names may be names of it.
    fn known_as(&self, stat: &FileStat) -> (Inode, bool) {
        let inode = (stat.st_dev, stat.st_ino);
        match self.leaders.get(&inode) {
            Some(&leader) => (leader, true),
            None => (inode, stat.st_nlink > 1),
        }
    }

    /// Whether a hard link would be the same as a copy.
    pub(super) fn is_as_nix_left_it(&self, entry: Entry<'_>) -> bool {
        fstatat(&entry.folder.source, entry.name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| canonical::difference(&stat, self.samples.owner).is_none())
    }

    /// Goes down the ladder with one file or symlink.
    pub(super) fn place(&self, entry: Entry<'_>, stat: &FileStat, tally: &mut Tally) -> anyhow::Result<()> {
        if let Some(change) = canonical::change(stat, entry.way.user) {
            tally.changed.add(&Changed { count: 1, example: Some((entry.path(), change)) });
        }
        for &method in entry.way.ladder {
            if method != Method::HardLink {
                return self.place_new(entry, stat, tally);
            }
            if entry.way.refused.holds(method) {
                continue;
            }
            if let Some(reason) = canonical::difference(stat, self.samples.owner) {
                if entry.way.ladder == [method] {
                    return Err(self.not_canonical(&reason, stat, entry));
                }
                tally.refuse(method, reason);
                continue;
            }
            let Err(errno) = self.hard_link(entry, stat, tally) else { return Ok(()) };
            self.note_refusal(method, errno, entry, tally)?;
        }
        // Only `hardlink` has no other way, and the refusal that another thread met has ended the run.
        Err(self.no_other_way(Method::HardLink, Errno::EXDEV, entry))
    }

    fn hard_link(&self, entry: Entry<'_>, stat: &FileStat, tally: &mut Tally) -> Result<(), Errno> {
        let (inode, several) = self.known_as(stat);
        let is_led = !self.leaders.is_empty() && self.leaders.contains_key(&inode);
        if several && (entry.way.on_overlay || is_led) {
            // Copying up splits hard links, and a store path that is a single file is copied where others are
            // linked: so all names after the first are linked to that one in the root.
            let mut shard = self.inodes.shard(inode);
            let placed = shard.entry(inode).or_default();
            match placed.to_link().map(|(first, method)| (self.link_in_root(first, entry), method)) {
                Some((Ok(()), method)) => {
                    placed.names += 1;
                    tally.count(method, 0);
                    return Ok(());
                }
                Some((Err(errno), _)) if !is_led || verdict(Method::HardLink, errno) != Verdict::LinkLimit => {
                    return Err(errno);
                }
                // This inode may be the one that has too many names: a copy of it has none.
                None if placed.first.is_some() && stat.st_nlink > 1 && entry.way.ladder.len() > 1 => {
                    return Err(Errno::EMLINK);
                }
                _ => {}
            }
            // The first, or the first after as many names as one inode can have.
            link_from_store(entry)?;
            placed.start(entry.path(), Method::HardLink);
            tally.count(Method::HardLink, size(stat));
            return Ok(());
        }
        if stat.st_nlink > MOST_NAMES.into() && entry.way.ladder.len() > 1 {
            let mut shard = self.inodes.shard(inode);
            let placed = shard.entry(inode).or_default();
            if placed.linked == MOST_NAMES {
                return Err(Errno::EMLINK);
            }
            link_from_store(entry)?;
            placed.linked += 1;
            tally.count(Method::HardLink, if placed.linked == 1 { size(stat) } else { 0 });
            return Ok(());
        }
        link_from_store(entry)?;
        let bytes = if several && !self.inodes.is_new(inode) { 0 } else { size(stat) };
        tally.count(Method::HardLink, bytes);
        Ok(())
    }

    /// Makes a new inode in the root, or another name for the one that this inode of the store became.
    fn place_new(&self, entry: Entry<'_>, stat: &FileStat, tally: &mut Tally) -> anyhow::Result<()> {
        let (inode, several) = self.known_as(stat);
        if !several {
            let begun = self.begin(entry, stat, tally)?;
            return self.complete(entry, stat, begun, tally);
        }
        let mut shard = self.inodes.shard(inode);
        let placed = shard.entry(inode).or_default();
        if let Some((first, method)) = placed.to_link() {
            match self.link_in_root(first, entry) {
                Ok(()) => {
                    placed.names += 1;
                    tally.count(method, 0);
                    return Ok(());
                }
                Err(errno) if verdict(Method::HardLink, errno) == Verdict::Failure => {
                    return Err(self.ends.failed("hard link", Side::Root, &entry.path(), errno));
                }
                // The copy is at its limit, or this file system has no hard links: one more copy.
                Err(errno) => tally.refuse(Method::HardLink, Reason::Errno(errno as i32)),
            }
        }
        let begun = self.begin(entry, stat, tally)?;
        placed.start(entry.path(), begun.method);
        drop(shard);
        self.complete(entry, stat, begun, tally)
    }

    /// Makes the new inode, under its name, so that others can link to it while it is filled.
    fn begin(&self, entry: Entry<'_>, stat: &FileStat, tally: &mut Tally) -> anyhow::Result<Begun> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            self.copy_symlink(entry)?;
            return Ok(Begun { method: Method::Copy, files: None });
        }
        let (source, destination) = self.open_both(entry)?;
        let mut method = Method::Copy;
        if entry.way.ladder.contains(&Method::Reflink) && !entry.way.refused.holds(Method::Reflink) {
            match rustix::fs::ioctl_ficlone(&destination, &source) {
                Ok(()) => method = Method::Reflink,
                Err(errno) => {
                    self.note_refusal(Method::Reflink, Errno::from_raw(errno.raw_os_error()), entry, tally)?;
                }
            }
        }
        Ok(Begun { method, files: Some((source, destination)) })
    }

    fn copy_symlink(&self, entry: Entry<'_>) -> anyhow::Result<()> {
        let target = readlinkat(&entry.folder.source, entry.name)
            .map_err(|errno| self.ends.failed("read", Side::Store, &entry.path(), errno))?;
        let to = &entry.folder.destination;
        let no_follow = UtimensatFlags::NoFollowSymlink;
        symlinkat(target.as_os_str(), to, entry.name)
            .and_then(|()| utimensat(to, entry.name, &STORE_TIME, &STORE_TIME, no_follow))
            .map_err(|errno| self.ends.failed("make", Side::Root, &entry.path(), errno))?;
        self.look_at(FileType::Symlink, 0, entry);
        Ok(())
    }

    /// Looks at what the file system has kept of a finished file or symlink.
    fn look_at(&self, kind: FileType, mode: u32, entry: Entry<'_>) {
        let look = || fstatat(&entry.folder.destination, entry.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if self.samples.are_wanted(kind) {
            self.look(kind, mode, &entry.path(), look);
        }
    }

    /// As [`Placer::look_at`], for what is at `path`, relative to the root's store.
    pub(super) fn look(&self, kind: FileType, mode: u32, path: &[u8], look: impl FnOnce() -> nix::Result<FileStat>) {
        let wanted = Wanted { mode, time: STORE_TIME.tv_sec(), owner: self.samples.owner };
        self.samples.look(kind, wanted, || Some((self.ends.path(Side::Store, path), look().ok()?)));
    }

    /// The file in the store and an empty one in the root.
    fn open_both(&self, entry: Entry<'_>) -> anyhow::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let source = openat(&entry.folder.source, entry.name, OFlag::O_RDONLY | flags, Mode::empty())
            .map_err(|errno| self.ends.failed("open", Side::Store, &entry.path(), errno))?;
        let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | flags;
        let destination = openat(&entry.folder.destination, entry.name, create, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.ends.failed("make", Side::Root, &entry.path(), errno))?;
        Ok((source, destination))
    }

    fn complete(&self, entry: Entry<'_>, stat: &FileStat, begun: Begun, tally: &mut Tally) -> anyhow::Result<()> {
        if let Some((source, destination)) = begun.files {
            if begun.method == Method::Copy {
                bytes::copy(&source, &destination, stat, self.interrupt)
                    .with_context(|| format!("cannot copy `{}`", shown(self.ends.path(Side::Store, &entry.path()))))?;
            }
            let mode = canonical::mode(stat);
            fchmod(&destination, Mode::from_bits_truncate(mode))
                .and_then(|()| futimens(&destination, &STORE_TIME, &STORE_TIME))
                .and_then(|()| file::close(destination))
                .map_err(|errno| self.ends.failed("finish", Side::Root, &entry.path(), errno))?;
            self.look_at(FileType::RegularFile, mode, entry);
        }
        tally.count(begun.method, size(stat));
        Ok(())
    }

    /// Gives the file at `path`, relative to the root's store, another name.
    fn link_in_root(&self, path: &[u8], entry: Entry<'_>) -> nix::Result<()> {
        below::at(&self.top.destination, path, |from, rest| {
            linkat(from, rest, &entry.folder.destination, entry.name, AtFlags::empty())
        })
    }

    /// Counts a refusal and remembers one that holds for good, or fails where there is no other way.
    fn note_refusal(&self, method: Method, errno: Errno, entry: Entry<'_>, tally: &mut Tally) -> anyhow::Result<()> {
        let verdict = verdict(method, errno);
        if verdict == Verdict::Failure {
            let verb = if method == Method::HardLink { "hard link" } else { "reflink" };
            return Err(self.ends.failed(verb, Side::Store, &entry.path(), errno));
        }
        if entry.way.ladder == [method] {
            return Err(self.no_other_way(method, errno, entry));
        }
        tally.refuse(method, Reason::Errno(errno as i32));
        if let (Verdict::RefusedByFileSystems, Some(refused)) = (verdict, entry.way.refused.of(method)) {
            refused.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// With hard links alone, a file that may not be linked is an error.
    fn not_canonical(&self, reason: &Reason, stat: &FileStat, entry: Entry<'_>) -> anyhow::Error {
        let (user, group) = self.samples.owner;
        let why = match reason {
            Reason::Owner => {
                format!("its owner is {}:{} and that of the root {user}:{group}", stat.st_uid, stat.st_gid)
            }
            _ => format!(
                "it has mode {:04o} and time {} instead of {:04o} and {}",
                stat.st_mode & 0o7777,
                stat.st_mtime,
                canonical::mode(stat),
                STORE_TIME.tv_sec()
            ),
        };
        let path = shown(self.ends.path(Side::Store, &entry.path()));
        hinted(anyhow!("cannot hard link `{path}`: {why}"), "`--link-mode auto` copies such files")
    }

    /// A mode that the user asked for by name never falls back.
    fn no_other_way(&self, method: Method, errno: Errno, entry: Entry<'_>) -> anyhow::Error {
        let mounts = Mounts::read();
        let real = |path: &Path| fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file_system = |path: &Path| {
            mounts.holding(&real(path)).map_or_else(
                || "an unknown file system".to_owned(),
                |mount| format!("{} at `{}`", mount.file_system, shown(&mount.point)),
            )
        };
        let (from, to) = (file_system(self.ends.store), file_system(self.ends.root));
        let there = if from == to { format!("on {from}") } else { format!("between {from} and {to}") };
        let (name, mode) = if method == Method::HardLink { ("hard link", "hardlink") } else { ("reflink", "reflink") };
        let path = shown(self.ends.path(Side::Store, &entry.path()));
        let hint = match errno {
            Errno::EMLINK => format!("it has as many names as a file can have {there}; `--link-mode auto` copies it"),
            Errno::EPERM => format!(
                "only its owner may link it {there} (fs.protected_hardlinks), or it is immutable; \
                 `--link-mode auto` copies it"
            ),
            _ => format!("no {name} is possible {there}; use `--link-mode auto`, or `copy`, instead of `{mode}`"),
        };
        hinted(CallFailed::new(format!("cannot {name} `{path}`"), errno), hint)
    }
}

/// Links a symlink without looking at it, where that is the first way to try and it works.
pub(super) fn link_unseen(entry: Entry<'_>, tally: &mut Tally) -> bool {
    let way = entry.way;
    let linked = way.ladder[0] == Method::HardLink
        && !way.on_overlay
        && !way.refused.holds(Method::HardLink)
        && link_from_store(entry).is_ok();
    if linked {
        tally.count(Method::HardLink, 0);
    }
    linked
}

fn link_from_store(entry: Entry<'_>) -> Result<(), Errno> {
    linkat(&entry.folder.source, entry.name, &entry.folder.destination, entry.name, AtFlags::empty())
}

/// Bytes of data; a symlink's target is none.
fn size(stat: &FileStat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or_default(),
        _ => 0,
    }
}
