//! Stands between a shell and whoever started it: passes signals on, reaps, and learns how it ended.
//! It must never change how the shell ends, nor leave behind what a signal was meant for.

pub mod processes;
pub mod signals;
pub mod terminal;

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, getpid};
use rustix::process::{WaitOptions, WaitStatus};

use self::signals::{Action, FORWARDED, Sender, action, ends_the_job, for_child};
use crate::sys;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status.
    Exited(u8),
    /// Killed by this signal, whose number may be a real-time signal's.
    Killed(i32),
}

impl Ending {
    /// The exit status that a shell would give: 128 + n for signal n.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How its process ended.
    pub ending: Ending,
    /// Whether the job was ended on purpose, with HUP, INT, QUIT or TERM.
    pub interrupted: bool,
}

/// Signals of this process, held back until they are read.
#[derive(Debug)]
pub struct Signals {
    /// The mask as it was: for children, and for later.
    pub before: SigSet,
    held: SigSet,
    incoming: SignalFd,
}

impl Signals {
    /// Holds back what is to be passed on, but for what the caller ignores: such a signal stays ignored.
    pub fn hold() -> nix::Result<Self> {
        let mut held = SigSet::empty();
        held.add(Signal::SIGCHLD);
        for signal in FORWARDED.into_iter().filter(|signal| !sys::was_ignored(*signal)) {
            held.add(signal);
        }
        let incoming = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?;
        let before = SigSet::thread_get_mask()?;
        held.thread_block()?;
        sys::keep_children();
        Ok(Self { before, held, incoming })
    }

    /// Lets signals through again.
    pub fn release(&self) {
        let _ = self.before.thread_set_mask();
    }

    /// Waits until `file` can be read, or has ended. Returns whether that was so before a signal came.
    pub fn come_after(&self, file: &impl AsFd) -> bool {
        let mut both =
            [PollFd::new(file.as_fd(), PollFlags::POLLIN), PollFd::new(self.incoming.as_fd(), PollFlags::POLLIN)];
        while poll(&mut both, PollTimeout::NONE) == Err(Errno::EINTR) {}
        both[0].any() == Some(true) && both[1].any() != Some(true)
    }

    /// The next one, and who sent it.
    fn next(&self) -> Option<(Signal, Sender)> {
        loop {
            match self.incoming.read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).ok()?;
                    return Some((Signal::try_from(number).ok()?, Sender::of(info.ssi_code)));
                }
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Whether one of those that wait says that nobody wants the job any more.
    fn job_is_over(&self) -> bool {
        let Ok(waiting) = SignalFd::with_flags(&self.held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) else {
            return false;
        };
        let mut over = false;
        while let Ok(Some(info)) = waiting.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            over |= signal.is_some_and(ends_the_job);
        }
        over
    }
}

/// Who gets what is meant for the shell's direct children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// They, from us: the shell leaves them alone when it dies.
    Told,
    /// Nobody: the process looks after its own.
    Left,
}

/// Waits until `shell` ends. With `reap`, as process 1 must, it collects every other child as well.
pub fn supervise(shell: Pid, signals: &Signals, children: Children, reap: bool) -> Outcome {
    let leads = nix::unistd::getsid(None) == Ok(getpid());
    let mut interrupted = false;
    loop {
        if let Some(ending) = collect(shell, reap) {
            return Outcome { ending, interrupted: interrupted || signals.job_is_over() };
        }
        let Some((signal, sender)) = signals.next() else { continue };
        // ctrl-C has gone to the shell too, if it is in this group; a shell that manages jobs is not, and
        // then the terminal has nothing to say to us.
        interrupted |= ends_the_job(signal);
        match action(signal, sender, leads) {
            Action::Reap | Action::Leave => {}
            Action::Shell => send(shell, signal),
            Action::ShellAndChildren if children == Children::Left => send(shell, signal),
            Action::ShellAndChildren => {
                if let Some(ending) = send_to_all(shell, signal) {
                    return Outcome { ending, interrupted };
                }
            }
        }
    }
}

/// Whatever has ended. Returns how the shell did, if it did; stops where the shell has stopped.
fn collect(shell: Pid, reap: bool) -> Option<Ending> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    loop {
        let found = if reap {
            rustix::process::wait(options)
        } else {
            rustix::process::waitpid(rustix::process::Pid::from_raw(shell.as_raw()), options)
        };
        let Ok(Some((process, status))) = found else { return None };
        if process.as_raw_nonzero().get() != shell.as_raw() {
            continue;
        }
        if let Some(ending) = ending(status) {
            return Some(ending);
        }
        // A caller that manages jobs must see the job stop, and its CONT is passed on.
        let foreground = terminal::foreground_of(shell);
        stop(status.stopping_signal());
        if let Some(group) = foreground {
            terminal::give_back(group);
        }
    }
}

/// Stops this process as `signal` would, so that its caller sees the same as of the shell.
fn stop(signal: Option<i32>) {
    let signal = signal.and_then(|number| Signal::try_from(number).ok()).unwrap_or(Signal::SIGSTOP);
    if signal == Signal::SIGSTOP || sys::was_ignored(signal) {
        let _ = kill(getpid(), Signal::SIGSTOP);
        return;
    }
    // It is held back, and one from the terminal may wait already: together they are one.
    let _ = raise(signal);
    let alone = SigSet::from_iter([signal]);
    let _ = alone.thread_unblock();
    let _ = alone.thread_block();
}

fn ending(status: WaitStatus) -> Option<Ending> {
    let exited = status.exit_status().map(|code| Ending::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
    exited.or_else(|| status.terminating_signal().map(Ending::Killed))
}

fn send(process: Pid, signal: Signal) {
    // Who is gone needs no signal.
    let _ = kill(process, signal);
}

/// Sends `signal` to `shell` and the processes that it has started. Returns how the shell ended, where it
/// did so meanwhile.
///
/// While they are listed the shell is stopped, or it might start one more that nobody would tell. It hears
/// of the signal before its children do: from a child that dies of INT a shell concludes something else.
fn send_to_all(shell: Pid, signal: Signal) -> Option<Ending> {
    // One that has stopped already would not say so again.
    send(shell, Signal::SIGCONT);
    send(shell, Signal::SIGSTOP);
    let waited = rustix::process::waitpid(rustix::process::Pid::from_raw(shell.as_raw()), WaitOptions::UNTRACED);
    if let Some(ending) = waited.ok().flatten().and_then(|(_, status)| ending(status)) {
        return Some(ending);
    }
    let children = processes::children(shell.as_raw());
    send(shell, signal);
    for child in children {
        send(Pid::from_raw(child.id), for_child(signal, child.is_subshell));
    }
    send(shell, Signal::SIGCONT);
    None
}

/// Runs `work` in a child and returns how that ended; in this process, where there is no room for another. When this
/// process is killed, the child gets TERM and can clean up. `work` has to let signals through again
/// ([`Signals::release`]).
pub fn in_child(signals: &Signals, reap: bool, work: impl FnOnce() -> u8) -> Ending {
    // What has ended may have left it to a group of its own: then ctrl-C would reach nobody.
    terminal::reclaim();
    match sys::fork_here() {
        Ok(ForkResult::Child) => std::process::exit(work().into()),
        Ok(ForkResult::Parent { child }) => supervise(child, signals, Children::Left, reap).ending,
        Err(_) => Ending::Exited(work()),
    }
}

/// Whether this process is the first of its container, or of its machine.
pub fn is_first_process() -> bool {
    getpid().as_raw() == 1
}
