//! Copies store paths into a directory, bit for bit, on all cores.
//! It must never touch an inode of the store: a linked file's mode, owner and times are the store's.
//!
//! A task is a directory, or some of the names of a large one. Directories are opened by their path
//! relative to the store directory, so no descriptor waits in a queue and no depth is too deep. A
//! directory gets its final mode and time from whoever places its last name.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use rustix::fs::{FileType, RawDir};

use super::link::{LinkMode, Method, Verdict, ladder, verdict};
use super::mounts::Mounts;
use super::receipt::{Reason, Tally};
use super::{CallFailed, bytes, overlay, pool};
use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::store::{StoreDirectory, StorePath};

/// What is to be copied, and how.
#[derive(Debug)]
pub struct Copying<'a> {
    /// The store directory that holds the paths.
    pub store: &'a StoreDirectory,
    /// The store paths, each once.
    pub paths: &'a [StorePath],
    /// An empty directory, `…/nix/store` of the new root.
    pub destination: &'a Path,
    /// A directory of ours beside it, for questions to overlayfs.
    pub scratch: &'a Path,
    /// The user's choice.
    pub mode: LinkMode,
    /// How many threads.
    pub jobs: usize,
}

/// Store files and directories have this time, in seconds (`mtimeStore` in libstore).
const STORE_TIME: i64 = 1;
/// Store directories have this mode (`canonicaliseTimestampAndPermissions` in libstore).
const STORE_DIRECTORY_MODE: u32 = 0o555;
/// A directory with more names than this is cut into tasks of so many, since one may hold half of a closure.
const NAMES_PER_TASK: usize = 512;
/// Store paths that one task begins.
const STORE_PATHS_PER_TASK: usize = 8;
/// The kernel takes paths of up to 4096 bytes with their NUL (`PATH_MAX`).
const LONGEST_PATH: usize = 4000;
/// What getdents64 fills at once; the C library uses as much.
const DIRECTORY_BUFFER: usize = 32 * 1024;
/// Locks over which inodes with several names are spread.
const SHARDS: usize = 64;

/// Copies the store paths. On failure or interrupt the destination is left as it is then, for the caller to remove.
pub fn copy_store_paths(copying: &Copying<'_>, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Tally> {
    let open = |path: &Path| {
        nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| CallFailed::new(format!("cannot open `{}`", shown(path)), errno))
    };
    let store = open(copying.store.as_path())?;
    let lower = match copying.mode {
        LinkMode::Auto | LinkMode::Hardlink => {
            overlay::in_lower_layer(store.as_fd(), copying.store.as_path(), copying.paths, copying.scratch)?
        }
        LinkMode::Reflink | LinkMode::Copy => None,
    };
    let engine = Engine {
        copying,
        lower,
        top: Folder { source: store, destination: open(copying.destination)?, path: Vec::new() },
        pairs: Mutex::default(),
        inodes: Inodes::default(),
        progress,
        interrupt,
    };
    let count = copying.paths.len();
    let tasks = (0..count)
        .step_by(STORE_PATHS_PER_TASK)
        .map(|from| Task::StorePaths(from..count.min(from + STORE_PATHS_PER_TASK)))
        .collect();
    let workers =
        pool::run(copying.jobs, tasks, Worker::default, |task, worker, pushed| engine.run(task, worker, pushed))?;
    let mut total = Tally::default();
    for worker in &workers {
        total.add(&worker.tally);
    }
    if let (Some(lower), LinkMode::Auto) = (&engine.lower, copying.mode) {
        for _ in lower.iter().filter(|lower| **lower) {
            total.refuse(Method::HardLink, Reason::LowerLayer);
        }
    }
    Ok(total)
}

/// A directory on both sides.
struct Folder {
    source: OwnedFd,
    destination: OwnedFd,
    /// Relative to the store directory.
    path: Vec<u8>,
}

impl Folder {
    fn join(&self, name: &CStr) -> Vec<u8> {
        let name = name.to_bytes();
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }
}

/// How the files of one store path get to the root.
#[derive(Clone)]
struct Way {
    ladder: &'static [Method],
    in_lower_layer: bool,
    refused: Arc<Refused>,
}

/// What a pair of file systems, the store path's and the root's, has refused for good.
#[derive(Default)]
struct Refused {
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

    fn holds(&self, method: Method) -> bool {
        self.of(method).is_some_and(|refused| refused.load(Ordering::Relaxed))
    }
}

enum Task {
    StorePaths(std::ops::Range<usize>),
    Folder { path: Vec<u8>, way: Way },
    Names { folder: Arc<Folder>, names: Names, way: Way },
}

/// What one thread has for itself.
struct Worker {
    tally: Tally,
    names: Names,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Default for Worker {
    fn default() -> Self {
        let buffer = vec![MaybeUninit::uninit(); DIRECTORY_BUFFER];
        Self { tally: Tally::default(), names: Names::default(), buffer }
    }
}

/// Names of a directory with their types, in one piece of memory.
#[derive(Default)]
struct Names {
    /// Each with its NUL.
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<(usize, FileType)>,
}

impl Names {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: &CStr, kind: FileType) {
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.ends.push((self.bytes.len(), kind));
    }

    fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&(end, kind)| {
            let bytes = &self.bytes[start..end];
            start = end;
            Some((CStr::from_bytes_with_nul(bytes).ok()?, kind))
        })
    }

    /// In pieces of at most `most` names.
    fn pieces(&self, most: usize) -> Vec<Names> {
        let mut pieces = vec![Names::default()];
        for (name, kind) in self.iter() {
            if pieces.last().is_some_and(|piece| piece.ends.len() == most) {
                pieces.push(Names::default());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push(name, kind);
            }
        }
        pieces
    }
}

/// Inodes of the store that have several names: device and inode number.
type Inode = (u64, u64);

/// Where an inode of the store went.
#[derive(Default)]
struct Placed {
    /// A name of its copy in the root, relative to the root's store, and how the copy was made.
    copy: Option<(Box<[u8]>, Method)>,
}

/// What became of the inodes with several names. A lock is held while a name is made, so that the names
/// that other threads meet have something to link to.
struct Inodes(Vec<Mutex<HashMap<Inode, Placed>>>);

impl Default for Inodes {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Inodes {
    fn shard(&self, inode: Inode) -> std::sync::MutexGuard<'_, HashMap<Inode, Placed>> {
        let shard = usize::try_from(inode.1 % SHARDS as u64).unwrap_or_default();
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first time that `inode` is met.
    fn is_new(&self, inode: Inode) -> bool {
        let mut new = false;
        self.shard(inode).entry(inode).or_insert_with(|| {
            new = true;
            Placed::default()
        });
        new
    }
}

struct Engine<'a> {
    copying: &'a Copying<'a>,
    /// For each store path whether it lies in a lower layer, where the store is on overlayfs.
    lower: Option<Vec<bool>>,
    top: Folder,
    /// By the device of the store path; the root is on one device.
    pairs: Mutex<HashMap<u64, Arc<Refused>>>,
    inodes: Inodes,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

impl Engine<'_> {
    fn run(&self, task: Task, worker: &mut Worker, pushed: &mut Vec<Task>) -> anyhow::Result<()> {
        let before = (worker.tally.files + worker.tally.symlinks + worker.tally.directories, worker.tally.bytes);
        match task {
            Task::StorePaths(range) => self.store_paths(range, worker, pushed)?,
            Task::Folder { path, way } => self.folder(path, &way, worker, pushed)?,
            Task::Names { folder, names, way } => {
                self.names(&folder, &names, &way, worker, pushed)?;
                if let Some(folder) = Arc::into_inner(folder) {
                    self.finish(&folder)?;
                }
            }
        }
        let after = (worker.tally.files + worker.tally.symlinks + worker.tally.directories, worker.tally.bytes);
        self.progress.add(after.0 - before.0, after.1 - before.1);
        Ok(())
    }

    fn store_paths(
        &self,
        range: std::ops::Range<usize>,
        worker: &mut Worker,
        pushed: &mut Vec<Task>,
    ) -> anyhow::Result<()> {
        for i in range {
            self.interrupt.check()?;
            self.progress.begin_store_path();
            let in_lower_layer = self.lower.as_ref().is_some_and(|lower| lower[i]);
            let name = std::ffi::CString::new(self.copying.paths[i].base_name())?;
            let stat = self.stat(&self.top, &name)?;
            let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
            let refused = Arc::clone(pairs.entry(stat.st_dev).or_default());
            drop(pairs);
            let way = Way { ladder: ladder(self.copying.mode, in_lower_layer), in_lower_layer, refused };
            self.name(&self.top, &name, FileType::from_raw_mode(stat.st_mode), &way, worker, pushed)?;
        }
        Ok(())
    }

    fn folder(&self, path: Vec<u8>, way: &Way, worker: &mut Worker, pushed: &mut Vec<Task>) -> anyhow::Result<()> {
        let source = open_below(&self.top.source, &path).map_err(|e| self.failed("open", Side::Store, &path, e))?;
        let destination =
            open_below(&self.top.destination, &path).map_err(|e| self.failed("open", Side::Root, &path, e))?;
        let folder = Folder { source, destination, path };
        let mut names = std::mem::take(&mut worker.names);
        names.clear();
        let mut entries = RawDir::new(&folder.source, &mut worker.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| {
                self.failed("read", Side::Store, &folder.path, Errno::from_raw(errno.raw_os_error()))
            })?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name(), entry.file_type());
            }
        }
        if names.ends.len() <= NAMES_PER_TASK {
            self.names(&folder, &names, way, worker, pushed)?;
            self.finish(&folder)?;
        } else {
            let folder = Arc::new(folder);
            pushed.extend(names.pieces(NAMES_PER_TASK).into_iter().map(|names| Task::Names {
                folder: Arc::clone(&folder),
                names,
                way: way.clone(),
            }));
        }
        worker.names = names;
        Ok(())
    }

    fn names(
        &self,
        folder: &Folder,
        names: &Names,
        way: &Way,
        worker: &mut Worker,
        pushed: &mut Vec<Task>,
    ) -> anyhow::Result<()> {
        for (name, kind) in names.iter() {
            self.interrupt.check()?;
            self.name(folder, name, kind, way, worker, pushed)?;
        }
        Ok(())
    }

    /// Gives a finished directory what Nix gives it. Its subdirectories may still be filled: that
    /// changes neither its mode nor its time.
    fn finish(&self, folder: &Folder) -> anyhow::Result<()> {
        futimens(&folder.destination, &TimeSpec::UTIME_OMIT, &TimeSpec::new(STORE_TIME, 0))
            .and_then(|()| fchmod(&folder.destination, Mode::from_bits_truncate(STORE_DIRECTORY_MODE)))
            .map_err(|errno| self.failed("finish", Side::Root, &folder.path, errno))
    }

    fn name(
        &self,
        folder: &Folder,
        name: &CStr,
        kind: FileType,
        way: &Way,
        worker: &mut Worker,
        pushed: &mut Vec<Task>,
    ) -> anyhow::Result<()> {
        match kind {
            FileType::Directory => {
                mkdirat(&folder.destination, name, Mode::S_IRWXU)
                    .map_err(|errno| self.failed("make", Side::Root, &folder.join(name), errno))?;
                worker.tally.directories += 1;
                pushed.push(Task::Folder { path: folder.join(name), way: way.clone() });
                Ok(())
            }
            FileType::RegularFile => {
                worker.tally.files += 1;
                let stat = self.stat(folder, name)?;
                self.place(folder, name, &stat, way, worker)
            }
            FileType::Symlink => {
                worker.tally.symlinks += 1;
                self.symlink(folder, name, way, worker)
            }
            FileType::Unknown => {
                let stat = self.stat(folder, name)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                self.name(folder, name, kind, way, worker, pushed)
            }
            special => {
                let path = self.path(Side::Store, &folder.join(name));
                Err(anyhow!("`{}` is a {}; a store path cannot hold one", shown(path), special_name(special)))
            }
        }
    }

    fn stat(&self, folder: &Folder, name: &CStr) -> anyhow::Result<FileStat> {
        fstatat(&folder.source, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("read", Side::Store, &folder.join(name), errno))
    }

    /// A symlink that is linked needs no stat; the kernel links it like any inode.
    fn symlink(&self, folder: &Folder, name: &CStr, way: &Way, worker: &mut Worker) -> anyhow::Result<()> {
        let hard_link = way.ladder.contains(&Method::HardLink) && !way.refused.holds(Method::HardLink);
        if hard_link
            && !way.in_lower_layer
            && linkat(&folder.source, name, &folder.destination, name, AtFlags::empty()).is_ok()
        {
            worker.tally.count(Method::HardLink, 0);
            return Ok(());
        }
        let stat = self.stat(folder, name)?;
        self.place(folder, name, &stat, way, worker)
    }

    /// Goes down the ladder with one file or symlink.
    fn place(
        &self,
        folder: &Folder,
        name: &CStr,
        stat: &FileStat,
        way: &Way,
        worker: &mut Worker,
    ) -> anyhow::Result<()> {
        for &method in way.ladder {
            if method != Method::HardLink {
                return self.place_new(folder, name, stat, way, worker);
            }
            if way.refused.holds(method) {
                continue;
            }
            let Err(errno) = self.hard_link(folder, name, stat, way, worker) else { return Ok(()) };
            if verdict(method, errno) == Verdict::Failure {
                return Err(self.failed("hard link", Side::Store, &folder.join(name), errno));
            }
            self.refused(method, errno, folder, name, way, worker)?;
        }
        // Only `hardlink` has no other way, and another thread has been refused for good.
        Err(self.no_other_way(Method::HardLink, Errno::EXDEV, &folder.join(name)))
    }

    /// Notes a refusal, or fails where the user allows no other way.
    fn refused(
        &self,
        method: Method,
        errno: Errno,
        folder: &Folder,
        name: &CStr,
        way: &Way,
        worker: &mut Worker,
    ) -> anyhow::Result<()> {
        if way.ladder.len() == 1 && way.ladder[0] == method {
            return Err(self.no_other_way(method, errno, &folder.join(name)));
        }
        worker.tally.refuse(method, Reason::Errno(errno as i32));
        if verdict(method, errno) == Verdict::RefusedByFileSystems
            && let Some(refused) = way.refused.of(method)
        {
            refused.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn hard_link(
        &self,
        folder: &Folder,
        name: &CStr,
        stat: &FileStat,
        way: &Way,
        worker: &mut Worker,
    ) -> Result<(), Errno> {
        let several = stat.st_nlink > 1;
        if several && way.in_lower_layer {
            // Copying up splits hard links, so the names after the first are linked to it in the root.
            let mut shard = self.inodes.shard(inode(stat));
            let placed = shard.entry(inode(stat)).or_default();
            if let Some((first, _)) = &placed.copy {
                link_below(&self.top.destination, first, folder, name)?;
                worker.tally.count(Method::HardLink, 0);
            } else {
                linkat(&folder.source, name, &folder.destination, name, AtFlags::empty())?;
                placed.copy = Some((folder.join(name).into(), Method::HardLink));
                worker.tally.count(Method::HardLink, size(stat));
            }
            return Ok(());
        }
        linkat(&folder.source, name, &folder.destination, name, AtFlags::empty())?;
        let bytes = if several && !self.inodes.is_new(inode(stat)) { 0 } else { size(stat) };
        worker.tally.count(Method::HardLink, bytes);
        Ok(())
    }

    /// Makes a new inode in the root, or another name for the one that this inode of the store became.
    fn place_new(
        &self,
        folder: &Folder,
        name: &CStr,
        stat: &FileStat,
        way: &Way,
        worker: &mut Worker,
    ) -> anyhow::Result<()> {
        if stat.st_nlink < 2 {
            let begun = self.begin(folder, name, stat, way, worker)?;
            return self.complete(folder, name, stat, begun, worker);
        }
        let mut shard = self.inodes.shard(inode(stat));
        let placed = shard.entry(inode(stat)).or_default();
        if let Some((copy, method)) = &placed.copy {
            match link_below(&self.top.destination, copy, folder, name) {
                Ok(()) => {
                    worker.tally.count(*method, 0);
                    return Ok(());
                }
                Err(errno) if verdict(Method::HardLink, errno) == Verdict::Failure => {
                    return Err(self.failed("hard link", Side::Root, &folder.join(name), errno));
                }
                Err(errno) => worker.tally.refuse(Method::HardLink, Reason::Errno(errno as i32)),
            }
        }
        let begun = self.begin(folder, name, stat, way, worker)?;
        placed.copy = Some((folder.join(name).into(), begun.method));
        drop(shard);
        self.complete(folder, name, stat, begun, worker)
    }

    /// Makes the new inode, under its name, so that others can link to it while it is filled.
    fn begin(
        &self,
        folder: &Folder,
        name: &CStr,
        stat: &FileStat,
        way: &Way,
        worker: &mut Worker,
    ) -> anyhow::Result<Begun> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = nix::fcntl::readlinkat(&folder.source, name)
                .map_err(|errno| self.failed("read", Side::Store, &folder.join(name), errno))?;
            symlinkat(target.as_os_str(), &folder.destination, name)
                .and_then(|()| {
                    let time = TimeSpec::new(STORE_TIME, 0);
                    let flag = UtimensatFlags::NoFollowSymlink;
                    utimensat(&folder.destination, name, &TimeSpec::UTIME_OMIT, &time, flag)
                })
                .map_err(|errno| self.failed("make", Side::Root, &folder.join(name), errno))?;
            return Ok(Begun { method: Method::Copy, files: None });
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let source = openat(&folder.source, name, OFlag::O_RDONLY | flags, Mode::empty())
            .map_err(|errno| self.failed("open", Side::Store, &folder.join(name), errno))?;
        let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | flags;
        let destination = openat(&folder.destination, name, create, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.failed("make", Side::Root, &folder.join(name), errno))?;
        if way.ladder.contains(&Method::Reflink) && !way.refused.holds(Method::Reflink) {
            match rustix::fs::ioctl_ficlone(&destination, &source) {
                Ok(()) => return Ok(Begun { method: Method::Reflink, files: Some((source, destination)) }),
                Err(errno) => {
                    let errno = Errno::from_raw(errno.raw_os_error());
                    if verdict(Method::Reflink, errno) == Verdict::Failure {
                        return Err(self.failed("reflink", Side::Store, &folder.join(name), errno));
                    }
                    self.refused(Method::Reflink, errno, folder, name, way, worker)?;
                }
            }
        }
        Ok(Begun { method: Method::Copy, files: Some((source, destination)) })
    }

    fn complete(
        &self,
        folder: &Folder,
        name: &CStr,
        stat: &FileStat,
        begun: Begun,
        worker: &mut Worker,
    ) -> anyhow::Result<()> {
        let Some((source, destination)) = begun.files else {
            worker.tally.count(begun.method, 0);
            return Ok(());
        };
        if begun.method == Method::Copy {
            bytes::copy(&source, &destination, stat, self.interrupt)
                .with_context(|| format!("cannot copy `{}`", shown(self.path(Side::Store, &folder.join(name)))))?;
        }
        fchmod(&destination, Mode::from_bits_truncate(stat.st_mode & 0o777))
            .and_then(|()| futimens(&destination, &TimeSpec::UTIME_OMIT, &TimeSpec::new(STORE_TIME, 0)))
            .map_err(|errno| self.failed("finish", Side::Root, &folder.join(name), errno))?;
        worker.tally.count(begun.method, size(stat));
        Ok(())
    }

    fn path(&self, side: Side, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let base = match side {
            Side::Store => self.copying.store.as_path(),
            Side::Root => self.copying.destination,
        };
        base.join(std::ffi::OsStr::from_bytes(path))
    }

    fn failed(&self, verb: &str, side: Side, path: &[u8], errno: Errno) -> anyhow::Error {
        let path = self.path(side, path);
        if errno == Errno::ENOENT && matches!(side, Side::Store) {
            return hinted(
                anyhow!("`{}` vanished while it was copied", shown(path)),
                "a garbage collection seems to have run; hold the profile by a GC root and run again",
            );
        }
        CallFailed::new(format!("cannot {verb} `{}`", shown(path)), errno).into()
    }

    /// A mode that the user asked for by name never falls back.
    fn no_other_way(&self, method: Method, errno: Errno, path: &[u8]) -> anyhow::Error {
        let mounts = Mounts::read();
        let real = |path: &Path| fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file_system = |path: &Path| {
            mounts.holding(&real(path)).map_or_else(
                || "an unknown file system".to_owned(),
                |mount| format!("{} at `{}`", mount.file_system, shown(&mount.point)),
            )
        };
        let (name, mode) = match method {
            Method::HardLink => ("hard link", "hardlink"),
            Method::Reflink => ("reflink", "reflink"),
            Method::Copy => ("copy", "copy"),
        };
        let from = file_system(self.copying.store.as_path());
        let to = file_system(self.copying.destination);
        let between = if from == to { from } else { format!("{from} and {to}") };
        let what = CallFailed::new(format!("cannot {name} `{}`", shown(self.path(Side::Store, path))), errno);
        let hint = match errno {
            Errno::EMLINK => format!("the file has as many names as {between} allows; `--link-mode auto` copies it"),
            Errno::EPERM => format!(
                "as another user than its owner it cannot be linked (protected_hardlinks) on {between}; `--link-mode auto` copies it"
            ),
            _ => {
                format!("no {name} is possible with {between}; use `--link-mode auto`, or `copy`, instead of `{mode}`")
            }
        };
        hinted(what, hint)
    }
}

/// A new inode that has a name, and the open files where it has data.
struct Begun {
    method: Method,
    files: Option<(OwnedFd, OwnedFd)>,
}

#[derive(Clone, Copy)]
enum Side {
    Store,
    Root,
}

fn inode(stat: &FileStat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// Bytes of data; a symlink's target is none.
fn size(stat: &FileStat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or_default(),
        _ => 0,
    }
}

fn special_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        _ => "device",
    }
}

/// Opens the directory at `path`, relative to `base`, in as many steps as its length needs.
fn open_below(base: &OwnedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut rest = path;
    let mut here = None;
    loop {
        let cut = if rest.len() <= LONGEST_PATH {
            rest.len()
        } else {
            rest[..LONGEST_PATH].iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?
        };
        let next = openat(here.as_ref().unwrap_or(base), &rest[..cut], flags, Mode::empty())?;
        if cut == rest.len() {
            return Ok(next);
        }
        here = Some(next);
        rest = &rest[cut + 1..];
    }
}

/// Gives the file at `path`, relative to `base`, another name in `folder` of the root.
fn link_below(base: &OwnedFd, path: &[u8], folder: &Folder, name: &CStr) -> nix::Result<()> {
    if path.len() <= LONGEST_PATH {
        return linkat(base, path, &folder.destination, name, AtFlags::empty());
    }
    let slash = path.iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
    let parent = open_below(base, &path[..slash])?;
    linkat(&parent, &path[slash + 1..], &folder.destination, name, AtFlags::empty())
}
