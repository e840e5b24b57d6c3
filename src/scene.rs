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

use crate::bash::evidence::Evidence;
use crate::bash::hook::{self, Files, SubshellFiles, TraceFiles};
use crate::bash::replay;
use crate::bash::snapshot::{self, LARGEST, Record, Snapshot};
use crate::bash::watch::{Trace, Watch};
use crate::supervise::processes::own_number;
use crate::tmate::conf::shell_quoted;

/// The first word that makes this program compare what a session's shell has restored: `RESTORED SNAPSHOT RESTORED
/// RECORD TRACED`.
pub const RESTORED: &str = "tmate-restored";

/// A piece of this size without a byte is the end of what was written.
const PIECE: usize = 64 << 10;

/// A limit of files' sizes that leaves room for a snapshot, and for what is made of it.
const SMALLEST_LIMIT: u64 = 2 * LARGEST as u64;

/// The hook's files.
#[derive(Debug)]
pub struct Stage {
    watch: Watch,
    files: Files,
    start: OwnedFd,
    shell: OwnedFd,
    subshell: Option<OwnedFd>,
    /// What the ERR trap writes of the shell, and of a subshell.
    trace: Option<(OwnedFd, OwnedFd)>,
    /// Scripts, open as long as bash may read them.
    _scripts: Vec<OwnedFd>,
}

impl Stage {
    /// Makes them; `bash_env` is the user's own, `last_argument` what `$_` is at first. Fails with why the state of the
    /// script cannot be saved.
    pub fn set(bash_env: Option<&OsStr>, last_argument: &OsStr, watch: Watch) -> Result<Self, &'static str> {
        let process = own_number().ok_or("there is no /proc")?;
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
        let stage = Self::make(process, bash_env, last_argument, watch)
            .map_err(|_| "this kernel has no files in memory for it")?;
        // Where `/proc` shows another namespace's processes the number is somebody else's.
        let seen = std::fs::metadata(stage.bash_env()).map(|file| (file.dev(), file.ino()));
        let own = stage.start.try_clone().and_then(|file| File::from(file).metadata());
        match (seen, own) {
            (Ok(seen), Ok(own)) if seen == (own.dev(), own.ino()) => Ok(stage),
            _ => Err("/proc does not show this process"),
        }
    }

    fn make(process: i32, bash_env: Option<&OsStr>, last_argument: &OsStr, watch: Watch) -> nix::Result<Self> {
        let mut scripts = vec![fill(empty()?, hook::dump().as_bytes())?];
        let (shell, mut subshell, mut trace) = (fixed()?, None, None);
        let mut files =
            Files { process, dump: scripts[0].as_raw_fd(), shell: shell.as_raw_fd(), subshell: None, trace: None };
        if watch.subshells() {
            let (snapshot, keep, begin) = (fixed()?, empty()?, empty()?);
            let numbers =
                SubshellFiles { snapshot: snapshot.as_raw_fd(), keep: keep.as_raw_fd(), begin: begin.as_raw_fd() };
            files.subshell = Some(numbers);
            scripts.push(fill(keep, hook::keep(&files, numbers).as_bytes())?);
            scripts.push(fill(begin, hook::begin(&files, numbers).as_bytes())?);
            subshell = Some(snapshot);
            if watch.trace != Trace::Never {
                let (script, of_shell, of_subshell) = (empty()?, fixed()?, fixed()?);
                let traced = TraceFiles {
                    script: script.as_raw_fd(),
                    shell: of_shell.as_raw_fd(),
                    subshell: of_subshell.as_raw_fd(),
                };
                files.trace = Some(traced);
                scripts.push(fill(script, hook::trace(&files, numbers, traced).as_bytes())?);
                trace = Some((of_shell, of_subshell));
            }
        }
        let start = fill(empty()?, &hook::start(&files, watch, bash_env, last_argument))?;
        Ok(Self { watch, files, start, shell, subshell, trace, _scripts: scripts })
    }

    /// What `BASH_ENV` is to be.
    pub fn bash_env(&self) -> String {
        self.files.path(self.start.as_raw_fd())
    }

    /// What is left of what bash wrote.
    pub fn evidence(&self, status: u8) -> Evidence {
        let plain = |text: Vec<u8>| self.without_alias(text);
        let read = |file: &OwnedFd| {
            let snapshot = snapshot::parse(&plain(contents(file)))?;
            Ok(if self.watch.trace == Trace::Never { snapshot } else { snapshot.without_errtrace() })
        };
        let record = |file: &OwnedFd| snapshot::parse_record(&plain(contents(file)));
        let trace = self.trace.as_ref().and_then(|(shell, subshell)| {
            // One of an earlier command, which the script has gone on after, may be left.
            let outer = record(shell).filter(|record| record.status == status)?;
            let inner = outer.has_inner.then(|| record(subshell)).flatten();
            Some((outer, inner))
        });
        let subshell = self.subshell.as_ref().and_then(|file| read(file).ok());
        Evidence { watch: self.watch, shell: read(&self.shell), subshell, trace }
    }

    /// `text` as it would be without the alias for `eval`.
    fn without_alias(&self, text: Vec<u8>) -> Vec<u8> {
        let Some(alias) = self.files.subshell.filter(|_| self.watch.evals).map(|files| hook::alias(&self.files, files))
        else {
            return text;
        };
        let mut plain = Vec::with_capacity(text.len());
        let mut rest = &text[..];
        for at in memchr::memmem::find_iter(&text, alias.as_bytes()) {
            let end = text.len() - rest.len();
            plain.extend_from_slice(&text[end..at]);
            plain.extend_from_slice(b"eval");
            rest = &text[at + alias.len()..];
        }
        plain.extend_from_slice(rest);
        plain
    }

    /// Files for a shell that is to have the state in `snapshot`, and how to call it. They last as long as what is
    /// returned, in the process that calls this.
    pub fn shell(&self, snapshot: &Snapshot, given: &[OsString], locals: &[u8]) -> nix::Result<Shell> {
        // This may be a child of the process that made the stage: new files are in its own table alone.
        let process = own_number().ok_or(nix::errno::Errno::ENOENT)?;
        let path = |file: i32| format!("/proc/{process}/fd/{file}");
        let (scene, restored) = (fill(empty()?, &replay::scene(snapshot, given, locals))?, fixed()?);
        let of_shell = if snapshot.depth > 0 { self.subshell.as_ref() } else { Some(&self.shell) };
        let record = match &self.trace {
            Some((_, inner)) if snapshot.depth > 0 => path(inner.as_raw_fd()),
            Some((outer, _)) => path(outer.as_raw_fd()),
            None => String::new(),
        };
        let has_locals = if locals.is_empty() { String::new() } else { record };
        let report = [
            format!("/proc/{process}/exe"),
            RESTORED.to_owned(),
            path(of_shell.unwrap_or(&self.shell).as_raw_fd()),
            path(restored.as_raw_fd()),
            has_locals,
            u8::from(self.watch.trace != Trace::Never).to_string(),
        ];
        let report = report.map(|word| String::from_utf8_lossy(&shell_quoted(word.as_ref())).into_owned()).join(" ");
        let paths = replay::Paths {
            scene: path(scene.as_raw_fd()),
            dump: path(self.files.dump),
            restored: path(restored.as_raw_fd()),
            report,
        };
        let start = fill(empty()?, &replay::start_file(&paths))?;
        let command = ["bash", "--rcfile", &path(start.as_raw_fd()), "-i"].map(OsString::from).to_vec();
        Ok(Shell { command, _files: [scene, restored, start] })
    }
}

/// A shell for a session.
#[derive(Debug)]
pub struct Shell {
    /// Program and arguments.
    pub command: Vec<OsString>,
    _files: [OwnedFd; 3],
}

/// The snapshot in the file at `path`, if it is whole.
pub fn read_snapshot(path: &OsStr) -> Option<Snapshot> {
    snapshot::parse(&contents(&File::open(path).ok()?.into())).ok()
}

/// The record in the file at `path`, if there is one.
pub fn read_record(path: &OsStr) -> Option<Record> {
    snapshot::parse_record(&contents(&File::open(path).ok()?.into()))
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
    use crate::bash::snapshot::Missing;

    #[test]
    fn files_in_memory_are_found_by_their_path_and_hold_what_was_written() {
        let watch = Watch { trace: Trace::Always, evals: true };
        let stage = Stage::set(None, OsStr::new(""), watch).unwrap();
        let text = std::fs::read_to_string(stage.bash_env()).unwrap();
        assert!(text.starts_with("{ if [[ $PPID == ") && text.contains(" ERR;") && text.contains(" eval="), "{text}");
        let evidence = stage.evidence(1);
        assert_eq!(evidence.shell.err(), Some(Missing::Unwritten));
        assert!(evidence.subshell.is_none() && evidence.trace.is_none());
    }

    #[test]
    fn the_alias_is_not_told() {
        let watch = Watch { trace: Trace::Never, evals: true };
        let stage = Stage::set(None, OsStr::new(""), watch).unwrap();
        let alias = hook::alias(&stage.files, stage.files.subshell.unwrap());
        let text = format!("{alias} x; {alias}");
        assert_eq!(stage.without_alias(text.into_bytes()), b"eval x; eval");
        assert_eq!(stage.without_alias(b"make".to_vec()), b"make");
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
