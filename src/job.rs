//! The `bash-tmate` processes of one job: what an inner one tells the outer ones, and which one has the session.
//! It must never block on another process that does not answer, nor depend on anything that a killed one leaves behind.
//!
//! Each has a file in memory, the mailbox. An inner one finds those of its ancestors through `/proc`, so nothing has to
//! be passed on in the environment. Whose turn it is, an abstract socket says: the kernel removes it with its process.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, geteuid, getsid};

use crate::bash::inner::{self, InnerFailure};
use crate::supervise::processes;

/// The mailbox's name, and what `/proc/PID/fd` shows of it.
const NAME: &std::ffi::CStr = c"bash-tmate-job";
const LINK: &str = "/memfd:bash-tmate-job (deleted)";
/// No chain of processes is longer.
const MOST_ANCESTORS: usize = 256;
/// As much as a mailbox is read.
const LONGEST: usize = 1 << 20;
/// Variables that tell the jobs of a CI system apart.
const JOB_VARIABLES: [&str; 28] = [
    // GitHub, Forgejo, Gitea
    "GITHUB_RUN_ID",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_JOB",
    "RUNNER_NAME",
    "RUNNER_TRACKING_ID",
    // GitLab
    "CI_JOB_ID",
    "BUILDKITE_JOB_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "CIRCLE_BUILD_NUM",
    "CIRCLE_NODE_INDEX",
    // Jenkins
    "BUILD_TAG",
    "EXECUTOR_NUMBER",
    "WORKSPACE",
    "DRONE_BUILD_NUMBER",
    "DRONE_STEP_NUMBER",
    // Woodpecker
    "CI_PIPELINE_NUMBER",
    "CI_WORKFLOW_NUMBER",
    "CI_STEP_NUMBER",
    // Azure Pipelines, AppVeyor, Bitbucket, CodeBuild, Cirrus, Semaphore, Travis, TeamCity and others
    "SYSTEM_JOBID",
    "APPVEYOR_JOB_ID",
    "BITBUCKET_STEP_UUID",
    "CODEBUILD_BUILD_ID",
    "CIRRUS_TASK_ID",
    "SEMAPHORE_JOB_ID",
    "TRAVIS_JOB_ID",
    "BUILD_ID",
    "BUILD_NUMBER",
    "BUILD_URL",
];

/// Where inner processes leave what they have to tell.
#[derive(Debug)]
pub struct Mailbox(OwnedFd);

impl Mailbox {
    /// An empty one; nothing where the kernel has none.
    pub fn new() -> Option<Self> {
        memfd_create(NAME, MFdFlags::MFD_CLOEXEC).ok().map(Self)
    }

    /// What has been left so far.
    pub fn read(&self) -> Vec<InnerFailure> {
        let Ok(file) = self.0.try_clone().map(File::from) else { return Vec::new() };
        let length = file.metadata().map_or(0, |data| usize::try_from(data.len()).unwrap_or(0)).min(LONGEST);
        let mut bytes = vec![0; length];
        if file.read_exact_at(&mut bytes, 0).is_err() { Vec::new() } else { inner::parse(&bytes) }
    }
}

/// A `bash-tmate` that this one is a part of.
#[derive(Debug)]
struct Outer {
    number: i32,
    mailbox: File,
    /// The command of its bash that led here.
    command: Vec<OsString>,
    is_direct: bool,
}

/// What stands above a `bash-tmate`.
#[derive(Debug)]
pub struct Job {
    /// The nearest first.
    outer: Vec<Outer>,
    name: String,
}

impl Job {
    /// The job of the `bash-tmate` that `/proc` knows as `own`; without a number nothing is found above it.
    pub fn of(own: Option<i32>) -> Self {
        let outer = own.map_or_else(Vec::new, |own| outer(&chain(own)));
        let outermost = outer.last().map(|outer| outer.number);
        let variables = outermost.and_then(environment_of).unwrap_or_else(|| std::env::vars_os().collect());
        let session = outermost.or(own).and_then(processes::session);
        let session = session.unwrap_or_else(|| getsid(None).map_or(0, Pid::as_raw));
        Self { name: name(&variables, session), outer }
    }

    /// What its session's socket is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells all outer ones that a failure with `code` has had its session.
    pub fn tell(&self, code: u8) {
        for outer in &self.outer {
            let failure =
                InnerFailure { code, ended: now(), command: outer.command.clone(), is_direct: outer.is_direct };
            // One write, which others do not come between.
            let _ = (&outer.mailbox).write_all(&failure.encode());
        }
    }
}

/// The time on a clock that all processes share.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// `own` and its ancestors, the nearest first.
fn chain(own: i32) -> Vec<i32> {
    let mut chain = vec![own];
    while let Some(parent) = chain.last().and_then(|number| processes::parent(*number)) {
        if parent <= 0 || chain.contains(&parent) || chain.len() > MOST_ANCESTORS {
            break;
        }
        chain.push(parent);
    }
    chain
}

/// Those of `chain` that are a `bash-tmate`, but for the first.
fn outer(chain: &[i32]) -> Vec<Outer> {
    let mut found = Vec::new();
    for (at, &number) in chain.iter().enumerate().skip(1) {
        let Some(mailbox) = mailbox_of(number) else { continue };
        // Below it are its bash and subshells of that, which have its arguments, and then what they have started.
        let shell = arguments(chain[at - 1]);
        let below = chain[..at].iter().rev().find(|process| arguments(**process) != shell);
        let below = below.or(chain.first()).copied().unwrap_or(number);
        found.push(Outer { number, mailbox, command: arguments(below), is_direct: chain.first() == Some(&below) });
    }
    found
}

fn mailbox_of(number: i32) -> Option<File> {
    let descriptors = std::fs::read_dir(format!("/proc/{number}/fd")).ok()?;
    let is_mailbox =
        |path: &std::path::Path| std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == OsStr::new(LINK));
    let path = descriptors.flatten().map(|entry| entry.path()).find(|path| is_mailbox(path))?;
    File::options().append(true).open(path).ok()
}

fn arguments(number: i32) -> Vec<OsString> {
    let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    line.split(|&byte| byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

/// The environment that a process was started with.
fn environment_of(number: i32) -> Option<Vec<(OsString, OsString)>> {
    let block = std::fs::read(format!("/proc/{number}/environ")).ok()?;
    let variable = |entry: &[u8]| {
        let at = entry.iter().position(|&byte| byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    };
    Some(block.split(|&byte| byte == 0).filter_map(variable).collect())
}

/// The same for all processes of one job, and no others: by the variables of the CI system, else by the session of
/// processes. Another container or user has another name.
fn name(variables: &[(OsString, OsString)], session: i32) -> String {
    let mut hasher = DefaultHasher::new();
    let mut is_known = false;
    for name in JOB_VARIABLES {
        if let Some((_, value)) = variables.iter().find(|(other, value)| other == name && !value.is_empty()) {
            (name, value).hash(&mut hasher);
            is_known = true;
        }
    }
    if !is_known {
        session.hash(&mut hasher);
    }
    std::fs::read_link("/proc/self/ns/pid").ok().hash(&mut hasher);
    format!("nixkit-tmate-{}-{:016x}", geteuid(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn jobs_have_different_names() {
        let named = |variables: &[(&str, &str)], session| {
            let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            name(&variables, session)
        };
        assert_eq!(named(&[], 1), named(&[("PATH", "x"), ("CI_JOB_ID", "")], 1));
        assert_ne!(named(&[], 1), named(&[], 2));
        // A step that has made a session of its own is a part of the job.
        assert_eq!(named(&[("CI_JOB_ID", "7")], 1), named(&[("CI_JOB_ID", "7")], 2));
        assert_ne!(named(&[("CI_JOB_ID", "7")], 1), named(&[("CI_JOB_ID", "8")], 1));
        assert_ne!(named(&[("CI_JOB_ID", "7")], 1), named(&[("BUILDKITE_JOB_ID", "7")], 1));
    }

    #[test]
    fn what_is_told_is_read_and_the_chain_ends() {
        let mailbox = Mailbox::new().unwrap();
        assert_eq!(mailbox.read(), []);
        let own = i32::try_from(std::process::id()).unwrap();
        let chain = chain(own);
        assert_eq!((chain[0], chain[1]), (own, nix::unistd::getppid().as_raw()));
        // This process is no ancestor of itself, but it can be found.
        let found = mailbox_of(own).unwrap();
        assert!(found.as_raw_fd() > 2);
        let outer = [Outer { number: own, mailbox: found, command: vec!["make".into()], is_direct: false }].into();
        let job = Job { outer, name: String::new() };
        job.tell(3);
        job.tell(4);
        let read: Vec<_> = mailbox.read().into_iter().map(|failure| (failure.code, failure.command)).collect();
        assert_eq!(read, [(3, vec!["make".into()]), (4, vec!["make".into()])]);
    }
}
