//! INT, QUIT, TERM and HUP as a flag that long work looks at.
//! It must never do work inside a signal handler: the work itself stops, cleans up and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

use crate::failure::Interrupted;

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
        let interrupt = Self::default();
        let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if is_ignored(&status, signal) {
                continue;
            }
            let number = usize::try_from(signal)?;
            flag::register_usize(signal, Arc::clone(&interrupt.signal), number)
                .with_context(|| format!("cannot handle signal {signal}"))?;
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

/// Whether `signal` is ignored according to the text of `/proc/self/status` (`SigIgn`, proc(5)).
fn is_ignored(status: &str, signal: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\tffff\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored(status, SIGTERM));
        assert!(!is_ignored("", SIGHUP));
        assert!(!is_ignored("SigIgn:\trubbish\n", SIGHUP));
    }

    #[test]
    fn the_signal_is_named() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.check(), Ok(()));
        interrupt.signal.store(15, Ordering::Relaxed);
        let error = interrupt.check().unwrap_err();
        assert_eq!(error.to_string(), "interrupted by SIGTERM; nothing was written");
    }
}
