//! What a root has beside its store: the profile link, `/etc`, `/bin/sh`, `/usr/bin/env`, and what makes it complete.
//! It must never touch the disk: it plans from trees that were read, and a sink writes the plan.

pub mod accounts;
mod complete;
mod dead_links;
mod merge;
pub mod run_as;

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

    /// Roots side by side, called `0`, `1` and so on, that are this one when laid over each other in this order:
    /// the last has what lies beside the store, the others only a store, if they have store paths (`has_paths`).
    #[must_use]
    pub fn in_layers(&self, store: &StoreDirectory, has_paths: &[bool]) -> Self {
        let mut layers = Self::default();
        for (layer, has_paths) in has_paths.iter().enumerate() {
            let layer = PathBuf::from(layer.to_string());
            layers.directory(&layer);
            if *has_paths {
                layers.directory(&layer.join(store.relative()));
            }
        }
        if let Some(last) = has_paths.len().checked_sub(1) {
            let last = PathBuf::from(last.to_string());
            layers.made.extend(self.made.iter().map(|(place, made)| (last.join(place), made.clone())));
        }
        layers
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
    /// A user was asked for, but the profile has a file of users.
    NoUser {
        /// The user's name.
        name: String,
        /// Where the profile's own is in the root.
        place: PathBuf,
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
            Warning::NoUser { name, place } => {
                write!(f, "user `{name}` is not in `/{}`: the profile has its own", shown(place))
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
}

/// Where the profile link goes unless the user says otherwise, as in nix-docker-base.
pub const PROFILE_PATH: &str = "/run/profile";

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
/// One profile: a link to it, and beside that its `etc`, `bin/sh` and `bin/env`. Several: a directory that
/// merges them, in which the first named wins. Links lead straight to the store, so that they hold even
/// where a container runtime mounts something over `/run`. What makes the root complete comes last, and only
/// where nothing of a profile's is.
pub fn plan(
    profiles: &[NamedTree],
    profile_path: &Path,
    store: &StoreDirectory,
    extent: &Extent,
) -> Result<(Plan, Vec<Warning>), Usage> {
    let (merged, warnings) = merge(profiles, store);
    let mut planner = Planner { plan: Plan::store_only(store), out_of_store: OutOfStore::new(), warnings, store };
    match profiles {
        [only] => planner.put(profile_path, Made::Symlink(store.join(&only.path)))?,
        _ => planner.fill(profile_path, &merged)?,
    }
    match merged.get(OsStr::new("etc")) {
        Some(Merged::Directory { names, .. }) => planner.fill(Path::new("etc"), names)?,
        Some(Merged::Link { target, .. }) => planner.warnings.push(Warning::NoDirectory(target.clone())),
        None => {}
    }
    for (name, place) in [("env", "usr/bin/env"), ("sh", "bin/sh")] {
        if let Some(Merged::Directory { names: bin, .. }) = merged.get(OsStr::new("bin"))
            && let Some(Merged::Link { target, leads_to }) = bin.get(OsStr::new(name))
        {
            planner.link(Path::new(place), target, leads_to)?;
        }
    }
    if let Extent::Complete { user } = extent {
        // What it adds may be what a profile's link leads to; and where such a link is left out, it has one to add.
        let warnings = complete::complete(&mut planner.plan, &merged, store, user.as_ref());
        planner.leave_out_dead_links();
        complete::complete(&mut planner.plan, &merged, store, user.as_ref());
        planner.warnings.extend(warnings);
    } else {
        planner.leave_out_dead_links();
    }
    Ok((planner.plan, planner.warnings))
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
