//! INT, QUIT, TERM and HUP as a flag that long work looks at.
//! It must never do work inside a signal handler: the work itself stops, cleans up and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use nix::sys::signal::Signal;
use signal_hook::flag;

use crate::failure::Interrupted;
use crate::sys;

/// Which signal arrived last, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Catches INT, QUIT, TERM and HUP from now on, except those that the caller ignores, as `nohup` does.
    /// Further signals change nothing: some supervisors send two, and the second must not cut the clean-up
    /// short. KILL ends the process at once, and the next run removes what it leaves.
    pub fn install() -> anyhow::Result<Self> {
        survive_file_size_limit();
        let interrupt = Self::default();
        let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
        for signal in signals.into_iter().filter(|signal| !sys::was_ignored(*signal)) {
            let number = usize::try_from(signal as i32)?;
            flag::register_usize(signal as i32, Arc::clone(&interrupt.signal), number)
                .with_context(|| format!("cannot handle {signal}"))?;
        }
        Ok(interrupt)
    }

    /// Fails once a signal has arrived. Cheap enough for every directory entry: one relaxed load.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Interrupted { signal: i32::try_from(signal).unwrap_or(i32::MAX) }),
        }
    }
}

/// Makes a write beyond the limit on the size of a file (`ulimit -f`) fail with EFBIG. By default SIGXFSZ ends the
/// process, and a draft would stay.
///
/// It is caught rather than ignored, since execve(2) gives a child the default action again instead of what is caught:
/// programs started by this one behave as they always do.
pub fn survive_file_size_limit() {
    if !sys::was_ignored(Signal::SIGXFSZ) {
        // Without the handler such a write ends the process, as it does with most programs.
        let _ = flag::register(Signal::SIGXFSZ as i32, Arc::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_is_named() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.check(), Ok(()));
        interrupt.signal.store(15, Ordering::Relaxed);
        let error = interrupt.check().unwrap_err();
        assert_eq!(error.to_string(), "interrupted by SIGTERM; nothing was written");
    }
}
