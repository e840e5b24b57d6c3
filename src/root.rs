//! What a root has beside its store: the profile link, `/etc`, `/bin/sh`, `/usr/bin/env`, and what makes it complete.
//! It must never touch the disk: it plans from trees that were read, and a sink writes the plan.

pub mod accounts;
mod complete;
mod dead_links;
mod merge;
pub mod new_directory;
pub mod runtime_files;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::failure::{Usage, shown};
use crate::store::tree::Tree;
use crate::store::{StoreDirectory, StorePath};
use accounts::Account;
use dead_links::{End, OutOfStore, dead_links};
use merge::{Merged, MergedTree, merge};

/// Something made beside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A directory.
    Directory {
        /// Its permissions, with the sticky bit: 0755 for most, 1777 for `/tmp`.
        mode: u32,
        /// Whose it is, user and group: 0 for all but home directories.
        owner: u32,
    },
    /// A symlink with this target.
    Symlink(PathBuf),
    /// A small regular file, owned by root.
    File {
        /// All that is in it.
        contents: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
}

impl Made {
    /// A directory that anybody may read and root may change.
    pub const DIRECTORY: Self = Self::Directory { mode: 0o755, owner: 0 };
}

/// What is made beside the store. Paths are relative to the root; every parent is in it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order, so that a directory comes before what is in it.
    pub made: BTreeMap<PathBuf, Made>,
}

impl Plan {
    /// The store and nothing else, for a base that has a root of its own.
    pub fn store_only(store: &StoreDirectory) -> Self {
        let mut plan = Self::default();
        plan.directory(store.relative());
        plan
    }

    fn directory(&mut self, place: &Path) {
        for directory in place.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            self.made.entry(directory.to_owned()).or_insert(Made::DIRECTORY);
        }
    }

    /// Whether `place` is taken, or lies below something that is no directory.
    fn is_taken(&self, place: &Path) -> bool {
        let in_the_way = |path: &Path| self.made.get(path).is_some_and(|made| !matches!(made, Made::Directory { .. }));
        self.made.contains_key(place) || place.ancestors().skip(1).any(in_the_way)
    }

    /// Puts `what` at `place`, with its parents, unless something of the profile's is there.
    fn put_unless_taken(&mut self, place: &Path, what: Made) -> bool {
        if self.is_taken(place) {
            return false;
        }
        if let Some(parent) = place.parent() {
            self.directory(parent);
        }
        self.made.insert(place.to_owned(), what);
        true
    }
}

/// How much a root has beside what its profiles bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing more, as with nix-docker-base.
    Bare,
    /// What programs expect of a system: the table in the module `complete`.
    Complete {
        /// One more user.
        user: Option<Account>,
    },
}

/// Something in a profile that is not in the root as it might be expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A link to nothing was left out.
    Broken(PathBuf),
    /// A link that leads back to itself or above was left out.
    Cycle(PathBuf),
    /// The profile's `etc` is no directory in the store; it was left out.
    NoDirectory(PathBuf),
    /// Two profiles have the same name; the first one named wins.
    Conflict {
        /// What is in the root.
        kept: PathBuf,
        /// What is not.
        left_out: PathBuf,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::Broken(path) => write!(f, "left out `{}`: the link leads to nothing that a root has", shown(path)),
            Warning::Cycle(path) => write!(f, "left out `{}`: the link leads back to where it lies", shown(path)),
            Warning::NoDirectory(path) => write!(f, "left out `{}`: it is no directory in the store", shown(path)),
            Warning::Conflict { kept, left_out } => {
                write!(f, "left out `{}`: `{}` comes first", shown(left_out), shown(kept))
            }
        }
    }
}

/// A profile with the names that were read of it.
#[derive(Clone, Debug)]
pub struct NamedTree {
    /// Where it lies.
    pub path: StorePath,
    /// Its names; of a single profile only those that [`plan`] asks for.
    pub tree: Tree,
    /// The contents of [`runtime_files::names`] in its `etc`, by the place in the store to which each leads.
    pub texts: BTreeMap<PathBuf, Vec<u8>>,
}

/// Where the profile link goes unless the user says otherwise, as in nix-docker-base.
pub const PROFILE_PATH: &str = "/run/profile";
/// Where a profile is found too, in every root: container runtimes mount over `/run`, but never over this.
pub const STABLE_PROFILE_PATH: &str = "/nix/profile";

/// Checks a path for the profile link, and makes it relative to the root.
pub fn profile_path(path: &Path, store: &StoreDirectory) -> Result<PathBuf, Usage> {
    let fail = |reason: &str| Err(Usage(format!("`{}` cannot be the profile's path: {reason}", shown(path))));
    let Some(clean) = StoreDirectory::new(path).map(|clean| clean.relative().to_owned()) else {
        return fail("it must be absolute, without `..`, and not `/`");
    };
    if clean.starts_with(store.relative()) || store.relative().starts_with(&clean) {
        return fail(&format!("`{store}` is there"));
    }
    Ok(clean)
}

/// Plans what a root has beside the store.
///
/// One profile: a link to it, and its `etc`, `bin/sh` and `bin/env`. Several: a directory that merges them, in which
/// the first named wins. Either is at `profile_path` and at [`STABLE_PROFILE_PATH`]. Links lead straight to the store,
/// so that they work where a container runtime mounts something over `/run`. Files that runtimes read are copies of the
/// profile's. What makes the root complete comes last, and only where the profile has nothing.
pub fn plan(
    profiles: &[NamedTree],
    profile_path: &Path,
    store: &StoreDirectory,
    extent: &Extent,
) -> Result<(Plan, Vec<Warning>), Usage> {
    let (merged, warnings) = merge(profiles, store);
    let mut planner = Planner { plan: Plan::store_only(store), out_of_store: OutOfStore::new(), warnings, store };
    let stable = stable_path(profile_path, store);
    match (profiles, stable) {
        ([only], stable) => {
            for place in [Some(profile_path), stable].into_iter().flatten() {
                planner.put(place, Made::Symlink(store.join(&only.path)))?;
            }
        }
        (_, None) => planner.fill(profile_path, &merged)?,
        (_, Some(stable)) => {
            planner.fill(stable, &merged)?;
            planner.put(profile_path, Made::Symlink(relative(profile_path, stable)))?;
        }
    }
    match merged.get(OsStr::new("etc")) {
        Some(Merged::Directory { names, .. }) => {
            planner.fill(Path::new("etc"), names)?;
            runtime_files::copy(&mut planner.plan, names, profiles);
        }
        Some(Merged::Link { target, .. }) => planner.warnings.push(Warning::NoDirectory(target.clone())),
        None => {}
    }
    for (name, place) in [("env", "usr/bin/env"), ("sh", "bin/sh")] {
        if let Some((target, leads_to)) = program(&merged, name) {
            planner.link(Path::new(place), target, leads_to)?;
        }
    }
    if let Extent::Complete { user } = extent {
        planner.bash(&merged)?;
        // What it adds may be what a profile's link leads to; and where such a link is left out, it has one to add.
        complete::complete(&mut planner.plan, &merged, store, user.as_ref());
        planner.leave_out_dead_links();
        complete::complete(&mut planner.plan, &merged, store, user.as_ref());
    } else {
        planner.leave_out_dead_links();
    }
    runtime_files::keep_inside(&mut planner.plan, &planner.out_of_store);
    Ok((planner.plan, planner.warnings))
}

/// Where else than at `profile_path` the profile goes; `None` where the one would lie in the other.
fn stable_path(profile_path: &Path, store: &StoreDirectory) -> Option<&'static Path> {
    let stable = Path::new(STABLE_PROFILE_PATH.trim_start_matches('/'));
    let is_apart = |other: &Path| !other.starts_with(stable) && !stable.starts_with(other);
    (is_apart(profile_path) && is_apart(store.relative())).then_some(stable)
}

/// The target of a link at `place` that leads to `target`; both are relative to the root.
fn relative(place: &Path, target: &Path) -> PathBuf {
    place.iter().skip(1).map(|_| Path::new("..")).chain([target]).collect()
}

/// The profile's `bin/NAME`, and where it leads.
fn program<'a>(profile: &'a MergedTree, name: &str) -> Option<(&'a Path, &'a Path)> {
    let Merged::Directory { names, .. } = profile.get(OsStr::new("bin"))? else { return None };
    let Merged::Link { target, leads_to } = names.get(OsStr::new(name))? else { return None };
    Some((target, leads_to))
}

struct Planner<'a> {
    plan: Plan,
    out_of_store: OutOfStore,
    warnings: Vec<Warning>,
    store: &'a StoreDirectory,
}

impl Planner<'_> {
    /// Makes `place` a directory with real directories and links to files.
    fn fill(&mut self, place: &Path, tree: &MergedTree) -> Result<(), Usage> {
        if let Some(Made::Symlink(_)) = self.plan.made.get(place) {
            return Err(collision(place));
        }
        self.plan.directory(place);
        for (name, node) in tree {
            let place = place.join(name);
            match node {
                Merged::Directory { names, .. } => self.fill(&place, names)?,
                Merged::Link { target, leads_to } => self.link(&place, target, leads_to)?,
            }
        }
        Ok(())
    }

    fn link(&mut self, place: &Path, target: &Path, leads_to: &Path) -> Result<(), Usage> {
        if !leads_to.starts_with(self.store.as_path()) {
            self.out_of_store.insert(place.to_owned(), leads_to.to_owned());
        }
        self.put(place, Made::Symlink(target.to_owned()))
    }

    /// Scripts begin with `#!/bin/bash` nearly as often as with `#!/bin/sh`.
    fn bash(&mut self, profile: &MergedTree) -> Result<(), Usage> {
        let place = Path::new("bin/bash");
        match program(profile, "bash") {
            Some((target, leads_to)) if !self.plan.is_taken(place) => self.link(place, target, leads_to),
            _ => Ok(()),
        }
    }

    fn put(&mut self, place: &Path, what: Made) -> Result<(), Usage> {
        if self.plan.put_unless_taken(place, what) { Ok(()) } else { Err(collision(place)) }
    }

    /// Leaves out the links that come to nothing or to themselves.
    fn leave_out_dead_links(&mut self) {
        loop {
            let dead = dead_links(&self.plan, &self.out_of_store);
            if dead.is_empty() {
                return;
            }
            for (place, end) in dead {
                self.out_of_store.remove(&place);
                let Some(Made::Symlink(target)) = self.plan.made.remove(&place) else { continue };
                let warning = if end == End::Itself { Warning::Cycle(target) } else { Warning::Broken(target) };
                // With several profiles a link has two places.
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
        }
    }
}

/// Only `--profile-path` can put two things in one place.
fn collision(place: &Path) -> Usage {
    Usage(format!("`--profile-path` puts the profile where `/{}` goes", shown(place)))
}

#[cfg(test)]
mod tests;
