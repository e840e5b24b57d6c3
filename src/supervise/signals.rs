//! What a supervisor does with a signal: table only, no I/O.
//! It must never send a signal twice to a process that has it already.

use nix::libc;
use nix::sys::signal::Signal;

/// Signals that reach the shell through its supervisor. Not among them: what cannot be caught, what the
/// kernel sends for an error of the process's own or a limit that it has passed, SIGCHLD, and SIGPIPE.
pub const FORWARDED: [Signal; 18] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
    Signal::SIGURG,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
];

/// Who sent a signal, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A process, with kill(2) or the like.
    Process,
    /// The kernel, for a terminal.
    Terminal,
}

impl Sender {
    /// Reads `si_code` (sigaction(2)).
    pub fn of(code: i32) -> Self {
        if code == libc::SI_KERNEL { Self::Terminal } else { Self::Process }
    }
}

/// What is done with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A child may have changed.
    Reap,
    /// The shell has it already.
    Leave,
    /// The shell gets it.
    Shell,
    /// The shell gets it, and so do its direct children, which it may be waiting for.
    ShellAndChildren,
}

/// What is done with `signal`. `leads` says whether this process leads its terminal session: such a process
/// is the only one to which the kernel says that the terminal has gone; everything else that a terminal
/// sends goes to the whole group in the foreground, and that is the shell's too.
pub fn action(signal: Signal, sender: Sender, leads: bool) -> Action {
    match (signal, sender) {
        (Signal::SIGCHLD, _) => Action::Reap,
        (Signal::SIGHUP, Sender::Terminal) if leads => Action::ShellAndChildren,
        (_, Sender::Terminal) => Action::Leave,
        (Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM, Sender::Process) => {
            Action::ShellAndChildren
        }
        (_, Sender::Process) => Action::Shell,
    }
}

/// What a child gets when its shell gets `signal`. A bash that runs for a command substitution answers HUP by
/// sending it to its whole process group (`termsig_handler` in bash's sig.c), which is the caller's too.
pub fn for_child(signal: Signal, is_subshell: bool) -> Signal {
    if is_subshell && signal == Signal::SIGHUP { Signal::SIGTERM } else { signal }
}

/// Whether `signal` says that nobody wants the job any more.
pub fn ends_the_job(signal: Signal) -> bool {
    matches!(signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_its_action() {
        use Action::{Leave, Reap, Shell, ShellAndChildren};
        use Sender::{Process, Terminal};
        for (signal, sender, leads, expected) in [
            (Signal::SIGCHLD, Process, false, Reap),
            (Signal::SIGCHLD, Terminal, true, Reap),
            (Signal::SIGTERM, Process, false, ShellAndChildren),
            (Signal::SIGINT, Process, false, ShellAndChildren),
            (Signal::SIGHUP, Process, true, ShellAndChildren),
            (Signal::SIGINT, Terminal, false, Leave),
            (Signal::SIGINT, Terminal, true, Leave),
            (Signal::SIGQUIT, Terminal, false, Leave),
            (Signal::SIGTSTP, Terminal, false, Leave),
            (Signal::SIGHUP, Terminal, false, Leave),
            (Signal::SIGHUP, Terminal, true, ShellAndChildren),
            (Signal::SIGUSR1, Process, false, Shell),
            (Signal::SIGQUIT, Process, false, ShellAndChildren),
            (Signal::SIGCONT, Process, true, Shell),
        ] {
            assert_eq!(action(signal, sender, leads), expected, "{signal} from {sender:?}, leads: {leads}");
        }
    }

    #[test]
    fn the_kernel_is_told_from_processes() {
        for (code, expected) in [
            (libc::SI_KERNEL, Sender::Terminal),
            (libc::SI_USER, Sender::Process),
            (libc::SI_QUEUE, Sender::Process),
            (libc::SI_TKILL, Sender::Process),
        ] {
            assert_eq!(Sender::of(code), expected, "{code}");
        }
    }

    #[test]
    fn no_subshell_is_hung_up() {
        for (signal, is_subshell, expected) in [
            (Signal::SIGHUP, true, Signal::SIGTERM),
            (Signal::SIGHUP, false, Signal::SIGHUP),
            (Signal::SIGINT, true, Signal::SIGINT),
            (Signal::SIGTERM, true, Signal::SIGTERM),
        ] {
            assert_eq!(for_child(signal, is_subshell), expected);
        }
    }

    #[test]
    fn four_signals_end_a_job() {
        let ending: Vec<_> = FORWARDED.into_iter().filter(|signal| ends_the_job(*signal)).collect();
        assert_eq!(ending, [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]);
    }
}
