//! What a root has beside its store: the profile link, `/etc`, `/bin/sh`, `/usr/bin/env`, and what makes it complete.
//! It must never touch the disk: it plans from trees that were read, and a sink writes the plan.

pub mod accounts;
mod complete;
mod dead_links;
mod merge;

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
mod tests {
    use super::*;
    use crate::store::tree::Node;

    pub(super) fn leaf(leads_to: &str) -> Node {
        Node::Leaf { leads_to: leads_to.into() }
    }

    /// A file in the store that is only in one profile.
    pub(super) fn file() -> Node {
        leaf("/nix/store/cccccccccccccccccccccccccccccccc-package/file")
    }

    pub(super) fn store() -> StoreDirectory {
        StoreDirectory::new(Path::new("/nix/store")).unwrap()
    }

    pub(super) fn directory<const N: usize>(nodes: [(&str, Node); N]) -> Node {
        Node::Directory(nodes.into_iter().map(|(name, node)| (name.into(), node)).collect())
    }

    pub(super) fn profile<const N: usize>(letter: &str, nodes: [(&str, Node); N]) -> NamedTree {
        let path = StorePath::parse(&format!("{}-env", letter.repeat(32))).unwrap();
        let Node::Directory(tree) = directory(nodes) else { unreachable!() };
        NamedTree { path, tree }
    }

    fn at(letter: &str, rest: &str) -> PathBuf {
        Path::new("/nix/store").join(format!("{}-env", letter.repeat(32))).join(rest)
    }

    /// The plan as lines `path` or `path -> target`, with the hash parts cut short.
    pub(super) fn lines(plan: &Plan) -> Vec<String> {
        let line = |(path, made): (&PathBuf, &Made)| match made {
            Made::Directory { .. } | Made::File { .. } => path.display().to_string(),
            Made::Symlink(target) => format!("{} -> {}", path.display(), target.display()),
        };
        let short = |line: String| line.replace(&"a".repeat(31), "").replace(&"b".repeat(31), "");
        plan.made.iter().map(line).map(short).collect()
    }

    #[test]
    fn one_profile_is_linked_with_etc_and_shells_beside_it() {
        let profile = profile(
            "a",
            [
                ("bin", directory([("sh", file()), ("env", file())])),
                (
                    "etc",
                    directory([
                        ("ssl", directory([("ca.crt", file())])),
                        ("bashrc", file()),
                        ("gone", Node::Broken),
                        ("up", Node::Cycle),
                        ("mtab", leaf("/proc/mounts")),
                        ("resolv.conf", leaf("/etc/resolv.conf")),
                        ("ssl2", leaf("/etc/ssl2/x")),
                        ("host", leaf("/etc/hosts")),
                        ("ring", leaf("/etc/ring2")),
                        ("ring2", leaf("/etc/ring")),
                        ("nothing", leaf("/usr/share/none")),
                        ("late", leaf("/etc/nothing")),
                        ("shell", leaf("/bin/sh")),
                        ("tree", leaf("/etc/ssl")),
                        ("all", leaf("/")),
                    ]),
                ),
            ],
        );
        let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
        assert_eq!(
            lines(&plan),
            [
                "bin",
                "bin/sh -> /nix/store/a-env/bin/sh",
                "etc",
                "etc/all -> /nix/store/a-env/etc/all",
                "etc/bashrc -> /nix/store/a-env/etc/bashrc",
                "etc/host -> /nix/store/a-env/etc/host",
                "etc/mtab -> /nix/store/a-env/etc/mtab",
                "etc/shell -> /nix/store/a-env/etc/shell",
                "etc/ssl",
                "etc/ssl/ca.crt -> /nix/store/a-env/etc/ssl/ca.crt",
                "etc/tree -> /nix/store/a-env/etc/tree",
                "nix",
                "nix/store",
                "run",
                "run/profile -> /nix/store/a-env",
                "usr",
                "usr/bin",
                "usr/bin/env -> /nix/store/a-env/bin/env",
            ]
        );
        assert_eq!(
            warnings,
            [
                Warning::Broken(at("a", "etc/gone")),
                Warning::Cycle(at("a", "etc/up")),
                Warning::Broken(at("a", "etc/late")),
                Warning::Broken(at("a", "etc/nothing")),
                Warning::Cycle(at("a", "etc/resolv.conf")),
                Warning::Cycle(at("a", "etc/ring")),
                Warning::Cycle(at("a", "etc/ring2")),
                Warning::Cycle(at("a", "etc/ssl2")),
            ]
        );
    }

    #[test]
    fn several_profiles_are_merged_and_the_first_wins() {
        let first = profile(
            "a",
            [
                ("bin", directory([("sh", file()), ("tool", file()), ("same", file())])),
                ("share", directory([("x", directory([]))])),
                ("manifest.nix", file()),
            ],
        );
        let second = profile(
            "b",
            [
                (
                    "bin",
                    directory([
                        ("sh", leaf("/nix/store/dddddddddddddddddddddddddddddddd-other/file")),
                        ("same", file()),
                        ("tool", directory([])),
                        ("env", file()),
                    ]),
                ),
                ("share", directory([("x", file()), ("y", file())])),
                ("manifest.json", file()),
                ("manifest.nix", file()),
            ],
        );
        let (plan, warnings) = plan(&[first, second], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
        assert_eq!(
            lines(&plan),
            [
                "bin",
                "bin/sh -> /nix/store/a-env/bin/sh",
                "nix",
                "nix/store",
                "run",
                "run/profile",
                "run/profile/bin",
                "run/profile/bin/env -> /nix/store/b-env/bin/env",
                "run/profile/bin/same -> /nix/store/a-env/bin/same",
                "run/profile/bin/sh -> /nix/store/a-env/bin/sh",
                "run/profile/bin/tool -> /nix/store/a-env/bin/tool",
                "run/profile/share",
                "run/profile/share/x",
                "run/profile/share/y -> /nix/store/b-env/share/y",
                "usr",
                "usr/bin",
                "usr/bin/env -> /nix/store/b-env/bin/env",
            ]
        );
        let conflict = |path: &str| Warning::Conflict { kept: at("a", path), left_out: at("b", path) };
        assert_eq!(warnings, [conflict("bin/sh"), conflict("bin/tool"), conflict("share/x")]);
    }

    #[test]
    fn shells_that_lead_to_themselves_and_an_etc_that_is_elsewhere_are_left_out() {
        let bin = directory([("sh", leaf("/bin/sh")), ("env", leaf("/bin/sh"))]);
        let profile = profile("a", [("bin", bin), ("etc", leaf("/etc"))]);
        let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
        assert!(plan.made.values().all(|made| *made == Made::DIRECTORY || *made == Made::Symlink(at("a", ""))));
        assert_eq!(
            warnings,
            [
                Warning::NoDirectory(at("a", "etc")),
                Warning::Cycle(at("a", "bin/sh")),
                Warning::Cycle(at("a", "bin/env")),
            ]
        );
    }

    #[test]
    fn in_layers_the_last_has_what_is_beside_the_store() {
        let (plan, _) = plan(&[profile("a", [])], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
        let layers = plan.in_layers(&store(), &[true, false, false]);
        let expected = [
            "0",
            "0/nix",
            "0/nix/store",
            "1",
            "2",
            "2/nix",
            "2/nix/store",
            "2/run",
            "2/run/profile -> /nix/store/a-env",
        ];
        assert_eq!(lines(&layers), expected);
    }

    #[test]
    fn the_profile_path_is_checked() {
        for (path, expected) in [
            ("/run/profile", Ok("run/profile")),
            ("/app/", Ok("app")),
            ("/", Err("must be absolute")),
            ("", Err("must be absolute")),
            ("run/profile", Err("must be absolute")),
            ("/a/../b", Err("must be absolute")),
            ("/nix", Err("`/nix/store` is there")),
            ("/nix/store/x", Err("`/nix/store` is there")),
            ("/nix/profile", Ok("nix/profile")),
        ] {
            match (profile_path(Path::new(path), &store()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, Path::new(expected)),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_profile_path_in_the_way_is_refused() {
        let profile = profile("a", [("bin", directory([("sh", file())])), ("etc", directory([("x", file())]))]);
        for path in ["etc", "etc/x", "bin", "bin/sh", "bin/sh/y"] {
            let result = plan(std::slice::from_ref(&profile), Path::new(path), &store(), &Extent::Bare);
            let message = result.unwrap_err().to_string();
            assert!(message.starts_with("`--profile-path` puts the profile where"), "{path}: {message}");
        }
        assert!(plan(std::slice::from_ref(&profile), Path::new("etc/profile"), &store(), &Extent::Bare).is_ok());
    }
}
