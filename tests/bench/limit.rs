//! The kernel's limit: a bare loop of the system calls that a copy of store paths needs, in so many threads,
//! with no other work. It must never be mistaken for a tool: it looks at no answer but success, keeps no hard
//! links, falls back on nothing, and leaves what it wrote when it fails.
//!
//! `limit hardlink|reflink|copy STORE DESTINATION PATHS JOBS`, as root: PATHS is a file of store paths, a line each.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, Timespec, Timestamps, UTIME_OMIT, copy_file_range, fchmod, fstat,
    futimens, ioctl_ficlone, linkat, mkdirat, openat, readlinkat_raw, statat, symlinkat, utimensat,
};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = READ.union(OFlags::DIRECTORY);
/// What Nix gives every store file.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

#[derive(Clone, Copy, PartialEq)]
enum How {
    HardLink,
    Reflink,
    Copy,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, store, destination, paths, jobs] = arguments.as_slice() else {
        bail!("usage: limit hardlink|reflink|copy STORE DESTINATION PATHS JOBS");
    };
    let how = match how.as_str() {
        "hardlink" => How::HardLink,
        "reflink" => How::Reflink,
        "copy" => How::Copy,
        other => bail!("there is no way called `{other}`: hardlink, reflink or copy"),
    };
    fs_err::create_dir_all(destination)?;
    let open =
        |path: &str| openat(CWD, path, DIRECTORY, Mode::empty()).with_context(|| format!("cannot open `{path}`"));
    let (from, to) = (open(store)?, open(destination)?);
    let mut directories = Vec::new();
    for path in fs_err::read_to_string(paths)?.lines() {
        let name = Path::new(path).file_name().with_context(|| format!("`{path}` is no store path"))?;
        let name = CString::new(name.as_encoded_bytes())?;
        let stat = statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        place(how, &from, &to, b"", &name, kind, &mut directories).with_context(|| format!("cannot place `{path}`"))?;
    }
    let waiting = Mutex::new(Waiting { directories, begun: 0 });
    let work = Work { how, from, to, waiting, changed: Condvar::new() };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.parse()?).map(|_| scope.spawn(|| work.run())).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

struct Work {
    how: How,
    from: OwnedFd,
    to: OwnedFd,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    /// Relative to the store; each has been made.
    directories: Vec<Vec<u8>>,
    begun: usize,
}

impl Work {
    fn run(&self) -> anyhow::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let (mut found, mut outcome) = (Vec::new(), Ok(()));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_ok() {
            let Some(path) = waiting.directories.pop() else {
                if waiting.begun == 0 {
                    break;
                }
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.begun += 1;
            drop(waiting);
            outcome = self
                .directory(&path, &mut buffer, &mut found)
                .with_context(|| format!("cannot copy `{}`", String::from_utf8_lossy(&path)));
            waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.begun -= 1;
            waiting.directories.append(&mut found);
            self.changed.notify_all();
        }
        outcome
    }

    fn directory(&self, path: &[u8], buffer: &mut [MaybeUninit<u8>], found: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
        let source = openat(&self.from, path, DIRECTORY, Mode::empty())?;
        let destination = openat(&self.to, path, DIRECTORY, Mode::empty())?;
        let mut names = RawDir::new(&source, buffer);
        while let Some(entry) = names.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                place(self.how, &source, &destination, path, entry.file_name(), entry.file_type(), found)?;
            }
        }
        Ok(futimens(&destination, &TIMES)?)
    }
}

/// Gets one name of the directory `path` from `source` to `destination`; what is a directory is made and `found`.
fn place(
    how: How,
    source: &OwnedFd,
    destination: &OwnedFd,
    path: &[u8],
    name: &CStr,
    kind: FileType,
    found: &mut Vec<Vec<u8>>,
) -> anyhow::Result<()> {
    match kind {
        FileType::Directory => {
            // Root can write into it all the same.
            mkdirat(destination, name, Mode::from_bits_retain(0o555))?;
            found.push(if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() });
        }
        _ if how == How::HardLink => linkat(source, name, destination, name, AtFlags::empty())?,
        FileType::Symlink => {
            let mut target = [MaybeUninit::uninit(); 4096];
            let (target, _) = readlinkat_raw(source, name, &mut target)?;
            symlinkat(&*target, destination, name)?;
            utimensat(destination, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        _ => {
            let from = openat(source, name, READ, Mode::empty())?;
            let to = openat(destination, name, CREATE, Mode::RUSR)?;
            let stat = fstat(&from)?;
            if how == How::Reflink {
                ioctl_ficlone(&to, &from)?;
            } else {
                let mut left = usize::try_from(stat.st_size)?;
                while left > 0 {
                    left -= copy_file_range(&from, None, &to, None, left)?;
                }
            }
            fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
            futimens(&to, &TIMES)?;
        }
    }
    Ok(())
}
