//! Copies store paths into a directory, bit for bit, on all cores: the walk.
//! It must never touch an inode of the store: a linked file's mode, owner and times are the store's.
//!
//! A task is a directory, or a part of its names. A directory that waits for its turn is a
//! path relative to the store directory, not a descriptor, so no tree is too deep or too wide. It gets
//! its final mode and time from whoever places its last name.
//!
//! Measured on 107,000 entries (`make bench`) and left out: files linked without a stat are 5 to 7 % faster, but
//! the receipt could not say their bytes; creating directories with their final mode saves nothing that shows.

mod bytes;
mod canonical;
mod inodes;
mod overlay;
mod place;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use rustix::fs::FileType;

use super::kept::Samples;
use super::link::{Layer, LinkMode, MOST_NAMES, Method, ladder};
use super::names::{Buffer, Names};
use super::pool::Added;
use super::receipt::{Reason, Tally};
use super::{CallFailed, below, identical, pool};
use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::store::{StoreDirectory, StorePath};
pub(super) use canonical::mode as canonical_mode;
use place::{Placer, Refused};

/// What is to be copied, and how.
#[derive(Debug)]
pub struct Copying<'a> {
    /// The store directory that holds the paths.
    pub store: &'a StoreDirectory,
    /// The store paths, each once.
    pub paths: &'a [StorePath],
    /// An empty directory, `…/nix/store` of the new root.
    pub destination: &'a Path,
    /// The draft that it lies in, for questions to overlayfs. No store path may hold a directory of its name.
    pub scratch: &'a Path,
    /// The user's choice.
    pub mode: LinkMode,
    /// How many threads.
    pub jobs: usize,
    /// Whether files of equal content and mode become one inode.
    pub dedup: bool,
    /// Looks at what the root's file system keeps.
    pub samples: &'a Samples,
}

/// Store files and directories have this time, in seconds (`mtimeStore` in libstore). It is given as the time of the
/// last access too: bindfs and other file systems of FUSE ignore a call that sets only one of the two.
const STORE_TIME: TimeSpec = TimeSpec::new(1, 0);
/// Store directories have this mode (`canonicaliseTimestampAndPermissions` in libstore).
pub(super) const STORE_DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o555);
/// With fewer names left, a directory is not worth sharing.
const SHARED_NAMES: usize = 64;
/// Store paths that one task begins.
const STORE_PATHS_PER_TASK: usize = 8;

/// Copies the store paths. On failure or interrupt the destination is left as it is then, for the caller to remove.
pub fn copy_store_paths(copying: &Copying<'_>, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Tally> {
    let top = Folder { source: open(copying.store.real())?, destination: open(copying.destination)?, path: vec![] };
    let layers = match copying.mode {
        LinkMode::Auto | LinkMode::Hardlink => {
            overlay::layers(top.source.as_fd(), copying.store.real(), copying.paths, copying.scratch)?
        }
        LinkMode::Reflink | LinkMode::Copy => None,
    };
    let ends = Ends { store: copying.store.real(), root: copying.destination };
    let mut total = Tally::default();
    let mut leaders = HashMap::new();
    if copying.dedup {
        let groups = identical::find(copying.store, copying.paths, copying.jobs, interrupt)?;
        leaders = identical::leaders(&groups);
        let shared = |group: &identical::Group| {
            let files = group.files.len() as u64;
            files - files.div_ceil(MOST_NAMES.into())
        };
        total.deduplicated.count = groups.iter().map(shared).sum();
        total.deduplicated.bytes = groups.iter().map(|group| group.size * shared(group)).sum();
    }
    let inodes = inodes::Inodes::default();
    let placer = Placer { ends, top: &top, inodes, leaders, samples: copying.samples, interrupt };
    let walk = Walk { copying, layers: layers.as_deref(), placer, pairs: Mutex::default(), progress };

    let count = copying.paths.len();
    let tasks = (0..count)
        .step_by(STORE_PATHS_PER_TASK)
        .map(|from| Task::StorePaths(from..count.min(from + STORE_PATHS_PER_TASK)))
        .collect();
    let workers = pool::run(copying.jobs, tasks, Worker::default, |task, worker, added| walk.run(task, worker, added))?;

    for worker in &workers {
        total.add(&worker.tally);
    }
    if let (Some(layers), LinkMode::Auto) = (&layers, copying.mode) {
        for &layer in layers.iter().filter(|layer| **layer != Layer::Upper) {
            total.refuse(Method::HardLink, Reason::Layer(layer));
        }
    }
    Ok(total)
}

/// A directory on both sides, open.
struct Folder {
    source: OwnedFd,
    destination: OwnedFd,
    /// Relative to the store directory.
    path: Vec<u8>,
}

/// How the files of one store path get to the root.
#[derive(Clone)]
struct Way {
    ladder: &'static [Method],
    /// There a hard link may split the inode's names, so each is looked up before it is made.
    on_overlay: bool,
    /// The user who owns the store path.
    user: u32,
    refused: Arc<Refused>,
}

/// A name that is to be placed.
#[derive(Clone, Copy)]
struct Entry<'a> {
    folder: &'a Folder,
    name: &'a CStr,
    way: &'a Way,
}

impl Entry<'_> {
    /// Relative to the store directory.
    fn path(&self) -> Vec<u8> {
        below::join(&self.folder.path, self.name.to_bytes())
    }
}

/// Where the two sides lie, for messages.
#[derive(Clone, Copy)]
struct Ends<'a> {
    store: &'a Path,
    root: &'a Path,
}

#[derive(Clone, Copy)]
enum Side {
    Store,
    Root,
}

impl Ends<'_> {
    fn path(&self, side: Side, path: &[u8]) -> PathBuf {
        let base = match side {
            Side::Store => self.store,
            Side::Root => self.root,
        };
        base.join(OsStr::from_bytes(path))
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
}

enum Task {
    StorePaths(Range<usize>),
    Folder { path: Vec<u8>, way: Way },
    Names { filling: Arc<Filling>, positions: Range<usize> },
}

/// A directory that is being filled, by one task or several.
struct Filling {
    folder: Folder,
    names: Names,
    way: Way,
    /// Whether link(2) is all that its files need.
    linked: bool,
}

/// What one thread has for itself.
#[derive(Default)]
struct Worker {
    tally: Tally,
    buffer: Buffer,
}

struct Walk<'a> {
    copying: &'a Copying<'a>,
    /// Of each store path, where the store is on overlayfs.
    layers: Option<&'a [Layer]>,
    placer: Placer<'a>,
    /// By the device of the store path; the root is on one device.
    pairs: Mutex<HashMap<u64, Arc<Refused>>>,
    progress: &'a Progress,
}

impl Walk<'_> {
    fn run(&self, task: Task, worker: &mut Worker, added: &mut Added<'_, Task>) -> anyhow::Result<()> {
        let before = (worker.tally.names(), worker.tally.bytes);
        match task {
            Task::StorePaths(range) => self.store_paths(range, worker, added)?,
            Task::Folder { path, way } => self.folder(path, &way, worker, added)?,
            Task::Names { filling, positions } => {
                self.names(&filling, positions, &mut worker.tally, added)?;
                self.finish_last(filling)?;
            }
        }
        self.progress.add(worker.tally.names() - before.0, worker.tally.bytes - before.1);
        Ok(())
    }

    fn store_paths(&self, range: Range<usize>, worker: &mut Worker, added: &mut Added<'_, Task>) -> anyhow::Result<()> {
        for i in range {
            self.placer.interrupt.check()?;
            self.progress.begin_store_path();
            let name = CString::new(self.copying.paths[i].base_name())?;
            let stat = stat(&self.placer, self.placer.top, &name)?;
            let layer = self.layers.map_or(Layer::Upper, |layers| layers[i]);
            let way = Way {
                ladder: ladder(self.copying.mode, layer),
                on_overlay: self.layers.is_some(),
                user: stat.st_uid,
                refused: self.refused_on(stat.st_dev),
            };
            let entry = Entry { folder: self.placer.top, name: &name, way: &way };
            self.entry(entry, FileType::from_raw_mode(stat.st_mode), &mut worker.tally, added)?;
        }
        Ok(())
    }

    fn refused_on(&self, device: u64) -> Arc<Refused> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pairs.entry(device).or_default())
    }

    fn folder(&self, path: Vec<u8>, way: &Way, worker: &mut Worker, added: &mut Added<'_, Task>) -> anyhow::Result<()> {
        let Placer { ends, top, .. } = &self.placer;
        let source = below::directory(&top.source, &path).map_err(|e| ends.failed("open", Side::Store, &path, e))?;
        let destination =
            below::directory(&top.destination, &path).map_err(|e| ends.failed("open", Side::Root, &path, e))?;
        let folder = Folder { source, destination, path };
        let mut names = Names::default();
        names
            .read(&folder.source, &mut worker.buffer)
            .map_err(|errno| ends.failed("read", Side::Store, &folder.path, errno))?;
        // A link changes the inode in the store, and all of them change the one directory.
        let linked = way.ladder[0] == Method::HardLink && !way.refused.holds(Method::HardLink);
        if linked {
            names.sort_by_inode();
        }
        let all = 0..names.len();
        let filling = Arc::new(Filling { folder, names, way: way.clone(), linked });
        self.names(&filling, all, &mut worker.tally, added)?;
        self.finish_last(filling)
    }

    /// Places the names at these positions; the last who does so for a directory finishes it.
    ///
    /// A second thread in one directory mostly waits for its lock, which creating and linking hold: a sixth more
    /// system time for copies. So a directory is shared only with a thread that has nothing else to do, and
    /// not at all where link(2), which holds the lock to the end, is all there is to do.
    fn names(
        &self,
        filling: &Arc<Filling>,
        positions: Range<usize>,
        tally: &mut Tally,
        added: &mut Added<'_, Task>,
    ) -> anyhow::Result<()> {
        let Filling { folder, names, way, linked } = &**filling;
        let mut links_are_nixs = None;
        for (done, (name, kind)) in names.range(positions.clone()).enumerate() {
            self.placer.interrupt.check()?;
            let left = positions.start + done..positions.end;
            if !linked && left.len() >= SHARED_NAMES && added.are_wanted() {
                let middle = left.start.midpoint(left.end);
                let task = |positions| Task::Names { filling: Arc::clone(filling), positions };
                added.tasks.extend([left.start..middle, middle..left.end].map(task));
                return Ok(());
            }
            let entry = Entry { folder, name, way };
            // The kernel links a symlink like any inode. Looking at each first would cost a tenth of the time of a
            // closure of symlinks, so the first of a directory speaks for the others.
            let mut may_link = || *links_are_nixs.get_or_insert_with(|| self.placer.is_as_nix_left_it(entry));
            if kind == FileType::Symlink && *linked && may_link() && place::link_unseen(entry, tally) {
                tally.symlinks += 1;
                continue;
            }
            self.entry(entry, kind, tally, added)?;
        }
        Ok(())
    }

    fn entry(
        &self,
        entry: Entry<'_>,
        kind: FileType,
        tally: &mut Tally,
        added: &mut Added<'_, Task>,
    ) -> anyhow::Result<()> {
        match kind {
            FileType::Directory => {
                // Without /proc a bind mount can hide that the root lies in what is copied: that would never end.
                if self.copying.scratch.file_name().is_some_and(|draft| draft.as_bytes() == entry.name.to_bytes()) {
                    return Err(anyhow!(
                        "the root lies inside store path `{}`",
                        shown(OsStr::from_bytes(&entry.path()))
                    ));
                }
                mkdirat(&entry.folder.destination, entry.name, Mode::S_IRWXU)
                    .map_err(|errno| self.placer.ends.failed("make", Side::Root, &entry.path(), errno))?;
                tally.directories += 1;
                added.tasks.push(Task::Folder { path: entry.path(), way: entry.way.clone() });
                Ok(())
            }
            FileType::RegularFile => {
                tally.files += 1;
                let stat = stat(&self.placer, entry.folder, entry.name)?;
                self.placer.place(entry, &stat, tally)
            }
            FileType::Symlink => {
                tally.symlinks += 1;
                let stat = stat(&self.placer, entry.folder, entry.name)?;
                self.placer.place(entry, &stat, tally)
            }
            FileType::Unknown => {
                let stat = stat(&self.placer, entry.folder, entry.name)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Unknown => Err(self.special(entry, "something unknown")),
                    known => self.entry(entry, known, tally, added),
                }
            }
            FileType::Fifo => Err(self.special(entry, "a FIFO")),
            FileType::Socket => Err(self.special(entry, "a socket")),
            FileType::CharacterDevice | FileType::BlockDevice => Err(self.special(entry, "a device")),
        }
    }

    fn special(&self, entry: Entry<'_>, what: &str) -> anyhow::Error {
        let path = self.placer.ends.path(Side::Store, &entry.path());
        anyhow!("`{}` is {what}; a store path cannot hold one", shown(path))
    }

    /// Finishes the directory where no other task has names of it.
    fn finish_last(&self, filling: Arc<Filling>) -> anyhow::Result<()> {
        Arc::into_inner(filling).map_or(Ok(()), |filling| self.finish(&filling.folder))
    }

    /// Gives a finished directory what Nix gives it. Its subdirectories may still be filled: that
    /// changes neither its mode nor its time.
    fn finish(&self, folder: &Folder) -> anyhow::Result<()> {
        futimens(&folder.destination, &STORE_TIME, &STORE_TIME)
            .and_then(|()| fchmod(&folder.destination, STORE_DIRECTORY_MODE))
            .map_err(|errno| self.placer.ends.failed("finish", Side::Root, &folder.path, errno))?;
        self.placer.look(FileType::Directory, STORE_DIRECTORY_MODE.bits(), &folder.path, || fstat(&folder.destination));
        Ok(())
    }
}

fn stat(placer: &Placer<'_>, folder: &Folder, name: &CStr) -> anyhow::Result<FileStat> {
    fstatat(&folder.source, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| placer.ends.failed("read", Side::Store, &below::join(&folder.path, name.to_bytes()), errno))
}

fn open(path: &Path) -> Result<OwnedFd, CallFailed> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| CallFailed::new(format!("cannot open `{}`", shown(path)), errno))
}
