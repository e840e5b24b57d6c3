//! tmate's processes: the session's own, the short ones that ask it, and what users leave in it.
//! It must never wait without a limit, nor leave a process that the session has started.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::interrupt::Interrupt;
use crate::sys;
use crate::tmate::log::key_file;

/// How long a process may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long a signal may go unnoticed while a process is waited for, and that process's end.
const SLICE: Duration = Duration::from_millis(100);
/// As much as an answer of tmate may be.
const LONGEST_ANSWER: usize = 1 << 16;
/// As many lines of tmate's as are kept.
const KEPT_LINES: usize = 200;

/// Sleeps, but no longer than until the next signal.
pub(super) fn doze(duration: Duration) {
    let millis = u16::try_from(duration.as_millis().max(1)).unwrap_or(u16::MAX);
    let _ = poll(&mut [], PollTimeout::from(millis));
}

/// What tmate prints. It lies in memory: on a full disk tmate would end, and with a reader that stalls it would
/// stall too.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    read: u64,
    unfinished: Vec<u8>,
    pending: Vec<String>,
    /// The last lines, for people.
    pub(super) lines: Vec<String>,
    /// The files of keys that tmate said it uses.
    key_files: Vec<String>,
}

impl Output {
    /// Nothing so far.
    pub(super) fn new() -> anyhow::Result<Self> {
        let fd = memfd_create(c"tmate-output", MFdFlags::MFD_CLOEXEC).context("cannot make a file in memory")?;
        Ok(Self {
            file: fd.into(),
            read: 0,
            unfinished: Vec::new(),
            pending: Vec::new(),
            lines: Vec::new(),
            key_files: Vec::new(),
        })
    }

    /// For a process to write to.
    pub(super) fn writer(&self) -> anyhow::Result<Stdio> {
        Ok(self.file.try_clone().context("cannot share a file in memory")?.into())
    }

    /// The whole lines that have come since the last call.
    pub(super) fn new_lines(&mut self) -> Vec<String> {
        self.read();
        std::mem::take(&mut self.pending)
    }

    fn read(&mut self) {
        let mut new = Vec::new();
        let mut buffer = [0; 4096];
        // Not by its position, which is that of tmate too.
        while let Ok(count @ 1..) = self.file.read_at(&mut buffer, self.read) {
            self.read += count as u64;
            self.unfinished.extend(&buffer[..count]);
        }
        while let Some(end) = self.unfinished.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            new.push(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r').to_owned());
        }
        self.key_files.extend(new.iter().filter_map(|line| key_file(line)).map(str::to_owned));
        self.lines.extend(new.iter().cloned());
        let surplus = self.lines.len().saturating_sub(KEPT_LINES);
        self.lines.drain(..surplus);
        self.pending.extend(new);
    }

    /// Whether tmate has said that it goes by the keys in `path`.
    pub(super) fn took_keys(&mut self, path: &str) -> bool {
        self.read();
        self.key_files.iter().any(|file| file == path)
    }
}

/// Runs `command` for at most `limit` and returns what it printed to stdout, if it succeeded. A command that
/// takes longer, or until a signal comes, is killed.
pub(super) fn answer(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> Option<Vec<u8>> {
    let until = Instant::now() + limit;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let text = child.stdout.take().and_then(|pipe| read_until(pipe, until, interrupt));
    let status = text.as_ref().and_then(|_| wait_until(&mut child, until));
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    text.filter(|_| status.is_some_and(|status| status.success()))
}

/// All that `source` gives, or nothing if it does not end in time, a signal comes, or it is too much.
pub(super) fn read_until(mut source: impl Read + AsFd, until: Instant, interrupt: &Interrupt) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || interrupt.check().is_err() || text.len() > LONGEST_ANSWER {
            return None;
        }
        let millis = u16::try_from(left.min(SLICE).as_millis()).unwrap_or(u16::MAX);
        let mut descriptors = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        if poll(&mut descriptors, millis).unwrap_or(0) == 0 {
            continue;
        }
        match source.read(&mut buffer) {
            Ok(0) => return Some(text),
            Ok(count) => text.extend(&buffer[..count]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for an end that is near.
fn wait_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().ok()? {
            return Some(status);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Ends `child`: TERM, at which tmate removes its socket and says goodbye, and KILL if that does nothing.
pub(super) fn end(child: &mut Child) {
    if let Ok(Some(_)) = child.try_wait() {
        return;
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        // A stopped one notices nothing.
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
    if wait_until(child, Instant::now() + GRACE).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Processes of the session whose parents have ended. They become children of this process, as they always do of
/// process 1.
#[derive(Debug)]
pub(super) struct Orphans {
    /// The children that this process had before the session.
    before: HashSet<i32>,
    /// No process of the session has this number or, until the kernel begins again, a lower one.
    oldest: Option<i32>,
    was_subreaper: bool,
}

impl Orphans {
    /// From now on.
    pub(super) fn adopt() -> Self {
        let before = children_in_proc().unwrap_or_default().into_iter().collect();
        let oldest = sys::newest_process().ok().map(Pid::as_raw);
        let was_subreaper = get_child_subreaper().unwrap_or(false);
        let _ = set_child_subreaper(true);
        Self { before, oldest, was_subreaper }
    }

    /// Waits for those that have ended, but not for `own`.
    pub(super) fn reap(&self, own: Option<&Child>) {
        let own = own.and_then(|child| i32::try_from(child.id()).ok());
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // The kernel shows the same one until it is waited for.
        while let Ok(status) = waitid(Id::All, flags) {
            let Some(pid) = status.pid().filter(|_| status != WaitStatus::StillAlive) else { return };
            if Some(pid.as_raw()) == own || self.before.contains(&pid.as_raw()) || waitpid(pid, None).is_err() {
                return;
            }
        }
    }

    /// Ends all that are left: they were started in the session, and it is over.
    pub(super) fn end(self) {
        let started = Instant::now();
        let mut asked = HashSet::new();
        loop {
            self.reap(None);
            let left: Vec<i32> = self.children().into_iter().filter(|pid| !self.before.contains(pid)).collect();
            if left.is_empty() || started.elapsed() > 3 * GRACE {
                break;
            }
            for pid in left {
                let pid = Pid::from_raw(pid);
                if started.elapsed() > GRACE / 2 {
                    let _ = kill(pid, Signal::SIGKILL);
                } else if asked.insert(pid) {
                    // A shell ends by HUP alone, other programs by TERM; a stopped one by neither.
                    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
                        let _ = kill(pid, signal);
                    }
                }
            }
            doze(Duration::from_millis(10));
        }
        if !self.was_subreaper {
            let _ = set_child_subreaper(false);
        }
    }

    /// The process ids of our children.
    fn children(&self) -> Vec<i32> {
        if let Some(children) = children_in_proc() {
            return children;
        }
        // Without `/proc` each number in question is tried.
        let (Some(oldest), Ok(newest)) = (self.oldest, sys::newest_process()) else { return Vec::new() };
        candidates(oldest, newest.as_raw()).filter(|pid| is_child(*pid)).collect()
    }
}

/// The numbers that the kernel has given to processes from `oldest` up to `newest`: in ascending order, but for one
/// jump to the lowest.
fn candidates(oldest: i32, newest: i32) -> impl Iterator<Item = i32> {
    /// `PID_MAX_LIMIT` of 64-bit kernels.
    const LARGEST: i32 = 1 << 22;
    let has_begun_again = oldest > newest;
    let to_the_end = oldest..=if has_begun_again { LARGEST } else { newest };
    to_the_end.chain((2..=newest).take_while(move |_| has_begun_again))
}

/// Whether `pid` is a child of this process, ended or not.
fn is_child(pid: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(pid)), flags).is_ok()
}

/// The process ids of our children, ended ones too (`proc_pid_stat(5)`); nothing without a `/proc` of our namespace.
fn children_in_proc() -> Option<Vec<i32>> {
    let own = std::process::id().to_string();
    // A `/proc` of another process namespace has other numbers than ours.
    if fs_err::read_link("/proc/self").ok()?.as_os_str() != own.as_str() {
        return None;
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs_err::read(entry.path().join("stat")) else { continue };
        if parent_in(&stat) == Some(own.as_bytes()) {
            found.push(pid);
        }
    }
    Some(found)
}

/// The fourth field of a process's `stat`; the second is a name in parentheses, which may hold anything.
fn parent_in(stat: &[u8]) -> Option<&[u8]> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    stat[end + 1..].split(|&byte| byte == b' ').filter(|field| !field.is_empty()).nth(1)
}

/// The version that `program` tells, if it does so in time.
pub(super) fn version(program: &OsStr, interrupt: &Interrupt) -> Option<String> {
    let text = answer(Command::new(program).arg("-V"), 2 * GRACE, interrupt)?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_an_end_is_killed_in_time() {
        let interrupt = Interrupt::default();
        let started = Instant::now();
        for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let text = answer(Command::new("sh").args(["-c", script]), Duration::from_millis(100), &interrupt);
            assert_eq!(text, None);
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        let text = answer(Command::new("echo").arg("x"), Duration::from_secs(60), &interrupt);
        assert_eq!(text, Some(b"x\n".to_vec()));
        assert_eq!(answer(Command::new("false").arg("x"), Duration::from_secs(60), &interrupt), None);
        assert_eq!(answer(&mut Command::new("/nowhere"), Duration::from_secs(60), &interrupt), None);
    }

    #[test]
    fn output_is_told_line_by_line() {
        let mut output = Output::new().unwrap();
        let mut writer = output.file.try_clone().unwrap();
        let mut write = |text: &str| std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        write("one\r\ntw");
        assert_eq!(output.new_lines(), ["one"]);
        assert_eq!(output.new_lines(), [""; 0]);
        write("o\n\nend\n");
        assert_eq!(output.new_lines(), ["two", "", "end"]);
        assert_eq!(output.lines, ["one", "two", "", "end"]);
        write(&"x\n".repeat(300));
        output.new_lines();
        assert_eq!(output.lines.len(), KEPT_LINES);
    }

    #[test]
    fn numbers_begin_again_after_the_largest() {
        for (oldest, newest, expected) in
            [(5, 7, vec![5, 6, 7]), (5, 5, vec![5]), ((1 << 22) - 1, 3, vec![(1 << 22) - 1, 1 << 22, 2, 3])]
        {
            assert_eq!(candidates(oldest, newest).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn children_are_told_from_others_without_proc() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(is_child(pid) && !is_child(1) && !is_child(std::process::id().try_into().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_child(pid));
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        for (stat, expected) in
            [("12 (sh) S 7 12 12", Some("7")), ("12 (a) b) (c) R 99 1", Some("99")), ("12 (x)", None), ("", None)]
        {
            assert_eq!(parent_in(stat.as_bytes()), expected.map(str::as_bytes), "{stat}");
        }
    }
}
