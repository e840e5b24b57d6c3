//! Options that several applets have: how many threads work, and how much is said.
//! It must never hold an option that only one of them has.

use std::num::NonZeroUsize;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::report::{Level, Voice};

/// A thread holds the two sides of a directory and of a file, and of a path too long for one call a step more.
const DESCRIPTORS_PER_JOB: u64 = 6;
/// What is open beside the threads' files: standard streams, store, root, lock, a large directory cut into tasks.
const OTHER_DESCRIPTORS: u64 = 32;
/// More threads than any machine has cores: a larger number is a slip of the hand.
const MOST_JOBS: i64 = 1024;

/// How many threads work.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// How many threads work. [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_JOBS))]
    jobs: Option<u16>,
}

impl Jobs {
    /// As many as the user wants or the machine has cores, as far as there are descriptors for them: this
    /// lets the process open as many files as it may.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        affordable_jobs(self.jobs.map_or_else(cores, usize::from), raise_descriptor_limit())
    }
}

/// How much is said.
#[derive(Debug, Args)]
pub(super) struct Loudness {
    /// Say nothing but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say what is decided and why.
    #[arg(short, long)]
    verbose: bool,
}

impl Loudness {
    /// The voice of the applet `name`.
    pub(super) fn voice(&self, name: &'static str) -> Voice {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        Voice { name, level }
    }
}

/// Lets this process open as many files as it may, and returns how many.
pub(super) fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return DESCRIPTORS_PER_JOB };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// As many threads as there are descriptors for, and at least one.
fn affordable_jobs(jobs: usize, descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_JOB;
    jobs.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_as_many_as_descriptors_allow() {
        for (jobs, descriptors, expected) in
            [(2, 1024, 2), (256, 1024, 165), (16, 64, 5), (4, 32, 1), (4, 0, 1), (1024, u64::MAX, 1024)]
        {
            assert_eq!(affordable_jobs(jobs, descriptors), expected, "{jobs} jobs, {descriptors} descriptors");
        }
    }
}
