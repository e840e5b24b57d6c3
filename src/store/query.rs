//! Asks Nix about the store through `nix-store`, and reads the profiles that lie in it.
//! It must never write, neither to the store nor anywhere else.

mod location;
mod names;
mod profile;

pub use location::locate;
pub use names::{Wanted, read_texts, read_tree};
pub use profile::{Environment, Profile, default_candidates, find_default, home_directory, resolve};

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};

use super::{Registration, StoreDirectory, StorePath, manifest, registration};
use crate::interrupt::Interrupt;
use crate::program;

/// The `nix-store` program and the store that it is asked about.
#[derive(Debug)]
pub struct NixStore {
    program: PathBuf,
    directory: StoreDirectory,
    interrupt: Interrupt,
}

impl NixStore {
    /// Finds `nix-store` in `PATH`.
    pub fn find(directory: StoreDirectory, interrupt: Interrupt) -> anyhow::Result<Self> {
        let program =
            program::find("nix-store", "run this where Nix is installed, such as the build stage of a Dockerfile")?;
        Ok(Self { program, directory, interrupt })
    }

    /// The closure of `roots`: they and all that they refer to, each once, in Nix's order (references
    /// before what refers to them). A path that is not valid is an error in Nix's own words.
    pub fn closure(&self, roots: &[StorePath]) -> anyhow::Result<Vec<StorePath>> {
        let mut closure = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for text in self.ask(&["--query", "--requisites"], roots)? {
            for line in text.lines() {
                let path = self.directory.parse(line).context("cannot understand `nix-store --query --requisites`")?;
                if seen.insert(path.clone()) {
                    closure.push(path);
                }
            }
        }
        match roots.iter().find(|root| !seen.contains(root)) {
            Some(root) => bail!("`nix-store --query --requisites` did not answer for `{root}`"),
            None => Ok(closure),
        }
    }

    /// What Nix has registered about `paths`, in the same order.
    pub fn registration(&self, paths: &[StorePath]) -> anyhow::Result<Vec<Registration>> {
        let mut registrations = Vec::with_capacity(paths.len());
        for text in self.ask(&["--dump-db"], paths)? {
            let read =
                registration::parse_dump(&text, &self.directory).context("cannot understand `nix-store --dump-db`")?;
            registrations.extend(read);
        }
        if let Some(path) = paths.iter().zip(&registrations).find(|(path, read)| **path != read.path) {
            bail!("`nix-store --dump-db` answered for `{}` when asked for `{}`", path.1.path, path.0);
        }
        if registrations.len() != paths.len() {
            bail!("`nix-store --dump-db` answered for {} of {} paths", registrations.len(), paths.len());
        }
        Ok(registrations)
    }

    /// Runs `nix-store FLAGS PATH…`, in as few processes as the argument limit allows.
    fn ask(&self, flags: &[&str], paths: &[StorePath]) -> anyhow::Result<Vec<String>> {
        let arguments: Vec<OsString> = paths.iter().map(|path| self.directory.join(path).into()).collect();
        batches(&arguments, argument_space()).into_iter().map(|batch| self.run(flags, batch)).collect()
    }

    fn run(&self, flags: &[&str], arguments: &[OsString]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(flags).args(arguments).stdin(Stdio::null());
        program::output(&mut command, &format!("nix-store {}", flags.join(" ")), &self.interrupt)
    }
}

/// The commits of nixpkgs that `profile` has written down; none for a profile of `nix-env` or a `./result`.
pub fn nixpkgs_revisions(profile: &StorePath, store: &StoreDirectory) -> Vec<(StorePath, String)> {
    let text = std::fs::read_to_string(store.real_path(profile).join("manifest.json")).unwrap_or_default();
    manifest::nixpkgs_revisions(&text, store)
}

/// Bytes that the arguments of one process may take: half of what the kernel allows for arguments and
/// environment together, less the environment (execve(2), "Limits on size").
fn argument_space() -> usize {
    let limit = sysconf(SysconfVar::ARG_MAX).ok().flatten().and_then(|limit| usize::try_from(limit).ok());
    let environment: usize = std::env::vars_os().map(|(name, value)| name.len() + value.len() + 10).sum();
    (limit.unwrap_or(128 * 1024) / 2).saturating_sub(environment).max(4096)
}

/// Cuts `arguments` into runs of at most `space` bytes, each argument counted with its NUL and its pointer.
fn batches(arguments: &[OsString], space: usize) -> Vec<&[OsString]> {
    let mut batches = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (i, argument) in arguments.iter().enumerate() {
        let size = argument.len() + 1 + size_of::<usize>();
        if used + size > space && i > start {
            batches.push(&arguments[start..i]);
            (start, used) = (i, 0);
        }
        used += size;
    }
    if start < arguments.len() {
        batches.push(&arguments[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_hold_everything_in_order_within_the_space(
            lengths in prop::collection::vec(0_usize..300, 0..60), space in 300_usize..2000,
        ) {
            let arguments: Vec<OsString> = lengths.iter().map(|&n| "x".repeat(n).into()).collect();
            let batches = batches(&arguments, space);
            prop_assert_eq!(&batches.concat(), &arguments);
            for batch in &batches {
                let used: usize = batch.iter().map(|a| a.len() + 1 + size_of::<usize>()).sum();
                prop_assert!(used <= space || batch.len() == 1);
                prop_assert!(!batch.is_empty());
            }
            for pair in batches.windows(2) {
                let next = pair[1][0].len() + 1 + size_of::<usize>();
                let used: usize = pair[0].iter().map(|a| a.len() + 1 + size_of::<usize>()).sum();
                prop_assert!(used + next > space, "one process too many");
            }
        }
    }
}
