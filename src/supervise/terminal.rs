//! Which process group a terminal on standard input belongs to, while a shell may have a group of its own.
//! It must never take the terminal from a group that is alive.
//!
//! A shell that does not manage jobs stays in this process's group, and there is nothing to do: what the terminal sends
//! reaches both. One with `set -m` makes a group of its own and gives it the terminal.

use std::io::stdin;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The group of `shell`, if it is another than this process's and has the terminal.
pub(super) fn foreground_of(shell: Pid) -> Option<Pid> {
    let group = getpgid(Some(shell)).ok()?;
    (group != getpgrp() && tcgetpgrp(stdin()) == Ok(group)).then_some(group)
}

/// Gives `group` the terminal again, if this process's group has got it from its caller, and lets `group` go on.
pub(super) fn give_back(group: Pid) {
    if tcgetpgrp(stdin()) == Ok(getpgrp()) {
        let _ = tcsetpgrp(stdin(), group);
    }
    let _ = killpg(group, Signal::SIGCONT);
}

/// Takes the terminal if the group that had it no longer exists. TTOU must be held back, as it is while this process
/// supervises.
pub(super) fn reclaim() {
    let is_gone = |group| group != getpgrp() && killpg(group, None) == Err(Errno::ESRCH);
    if tcgetpgrp(stdin()).is_ok_and(is_gone) {
        let _ = tcsetpgrp(stdin(), getpgrp());
    }
}
