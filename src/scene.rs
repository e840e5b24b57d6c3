//! Files in memory that bash reads and writes by way of `/proc`: the hook, and the scene of a failure.
//! It must never write to the disk, nor keep bash from running: where something is missing there is no scene.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::get_dumpable;
use nix::sys::resource::{Resource, getrlimit};

use crate::bash::hook::{self, Files, TraceFiles};
use crate::bash::replay;
use crate::bash::snapshot::{self, LARGEST, Missing, Record, Snapshot};

/// A piece of this size without a byte is the end of what was written.
const PIECE: usize = 64 << 10;

/// A limit of files' sizes that leaves room for a snapshot, and for what is made of it.
const SMALLEST_LIMIT: u64 = 2 * LARGEST as u64;

/// The hook's files.
#[derive(Debug)]
pub struct Stage {
    process: u32,
    start: OwnedFd,
    snapshot: OwnedFd,
    trace: Option<(OwnedFd, OwnedFd)>,
    /// Scripts, open as long as bash may read them.
    _scripts: Vec<OwnedFd>,
}

impl Stage {
    /// Makes them; `bash_env` is the user's own, `last_argument` what `$_` is at first. Fails with why there can
    /// be no scene.
    pub fn set(bash_env: Option<&OsStr>, last_argument: &OsStr, trace: bool) -> Result<Self, &'static str> {
        let no_memory = |_| "this kernel has no files in memory for it";
        // The number by which this `/proc` knows us: another than getpid's, where it is another namespace's.
        let process = std::fs::read_link("/proc/self").map_err(|_| "there is no /proc")?;
        let process = process.to_str().and_then(|text| text.parse().ok()).ok_or("there is no /proc")?;
        if !std::path::Path::new("/dev/null").exists() {
            return Err("there is no /dev/null");
        }
        // Beyond the limit the kernel answers with a signal that kills.
        if getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| soft < SMALLEST_LIMIT) {
            return Err("files may not be large enough (ulimit -f)");
        }
        if get_dumpable() != Ok(true) {
            return Err("nobody may read this program's files in /proc");
        }
        let (dump, snapshot) = (empty().map_err(no_memory)?, fixed().map_err(no_memory)?);
        let mut files = Files { process, dump: dump.as_raw_fd(), snapshot: snapshot.as_raw_fd(), trace: None };
        let mut scripts = Vec::new();
        let mut traced = None;
        if trace {
            let (script, shell, subshell) =
                (empty().map_err(no_memory)?, fixed().map_err(no_memory)?, fixed().map_err(no_memory)?);
            let numbers =
                TraceFiles { script: script.as_raw_fd(), shell: shell.as_raw_fd(), subshell: subshell.as_raw_fd() };
            files.trace = Some(numbers);
            scripts.push(fill(script, hook::trace(&files, numbers).as_bytes()).map_err(no_memory)?);
            traced = Some((shell, subshell));
        }
        scripts.push(fill(dump, hook::dump(&files).as_bytes()).map_err(no_memory)?);
        let start =
            fill(empty().map_err(no_memory)?, &hook::start(&files, bash_env, last_argument)).map_err(no_memory)?;
        let stage = Self { process, start, snapshot, trace: traced, _scripts: scripts };
        // Where `/proc` shows another namespace's processes the number is somebody else's.
        let seen = std::fs::metadata(stage.bash_env()).map(|file| (file.dev(), file.ino()));
        let own = stage.start.try_clone().and_then(|file| File::from(file).metadata());
        match (seen, own) {
            (Ok(seen), Ok(own)) if seen == (own.dev(), own.ino()) => Ok(stage),
            _ => Err("/proc does not show this process"),
        }
    }

    /// What `BASH_ENV` is to be.
    pub fn bash_env(&self) -> String {
        self.path(&self.start)
    }

    fn path(&self, file: &OwnedFd) -> String {
        format!("/proc/{}/fd/{}", self.process, file.as_raw_fd())
    }

    /// What bash wrote when it ended.
    pub fn snapshot(&self) -> Result<Snapshot, Missing> {
        snapshot::parse(&contents(&self.snapshot))
    }

    /// What the ERR trap wrote last, if that is the failure with `status`; with what a subshell wrote of it.
    pub fn record(&self, status: u8) -> Option<(Record, Option<Record>)> {
        let (shell, subshell) = self.trace.as_ref()?;
        let record = snapshot::parse_record(&contents(shell)).filter(|record| record.status == status)?;
        let inner = record.has_inner.then(|| snapshot::parse_record(&contents(subshell))).flatten();
        Some((record, inner))
    }

    /// Files for a shell that is to stand where the script stood, and how to call it. They last as long as
    /// what is returned.
    pub fn shell(&self, snapshot: &Snapshot, given: &[OsString], locals: &[u8]) -> nix::Result<Shell> {
        let scene = fill(empty()?, &replay::scene(snapshot, given, locals))?;
        let start = fill(empty()?, &replay::start_file(&self.path(&scene)))?;
        let command = ["bash", "--rcfile", &self.path(&start), "-i"].map(OsString::from).to_vec();
        Ok(Shell { command, _files: [scene, start] })
    }
}

/// A shell for a session.
#[derive(Debug)]
pub struct Shell {
    /// Program and arguments.
    pub command: Vec<OsString>,
    _files: [OwnedFd; 2],
}

fn empty() -> nix::Result<OwnedFd> {
    memfd_create(c"bash-tmate", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
}

/// One that is as large as it may get, and cannot grow. Its memory is taken as it is written.
fn fixed() -> nix::Result<OwnedFd> {
    let file = empty()?;
    nix::unistd::ftruncate(&file, LARGEST.try_into().map_err(|_| nix::errno::Errno::EFBIG)?)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

fn fill(file: OwnedFd, text: &[u8]) -> nix::Result<OwnedFd> {
    let mut file = File::from(file);
    let written = file.write_all(text);
    written.map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    Ok(file.into())
}

/// What was written, and some NULs; nothing where it cannot be read.
fn contents(file: &OwnedFd) -> Vec<u8> {
    let mut found = Vec::new();
    let Ok(mut file) = file.try_clone().map(File::from) else { return found };
    let mut piece = vec![0; PIECE];
    if file.rewind().is_err() {
        return found;
    }
    loop {
        match file.read(&mut piece) {
            Ok(count) if count > 0 && found.len() < LARGEST => {
                found.extend_from_slice(&piece[..count]);
                if piece[..count].iter().all(|&byte| byte == 0) {
                    return found;
                }
            }
            _ => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_are_found_by_their_path_and_hold_what_was_written() {
        let stage = Stage::set(None, OsStr::new(""), true).unwrap();
        let text = std::fs::read_to_string(stage.bash_env()).unwrap();
        assert!(text.starts_with("{ if [[ $PPID == ") && text.contains(" ERR;"), "{text}");
        assert_eq!(stage.snapshot().err(), Some(Missing::Unwritten));
        assert_eq!(stage.record(1), None);
    }

    #[test]
    fn a_snapshots_file_cannot_grow() {
        let file = fixed().unwrap();
        let mut copy = File::from(file.try_clone().unwrap());
        assert_eq!(copy.metadata().unwrap().len(), LARGEST as u64);
        copy.seek(std::io::SeekFrom::End(-3)).unwrap();
        assert!(copy.write_all(b"more").is_err());
        assert!(copy.set_len(1).is_err());
    }
}
