//! What a root has beside its store: the profile link, `/etc`, `/bin/sh` and `/usr/bin/env`.
//! It must never touch the disk: it plans from trees that were read, and a sink writes the plan.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::failure::{Usage, shown};
use crate::store::tree::{Node, Tree};
use crate::store::{StoreDirectory, StorePath};

/// Something made beside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A directory, mode 0755.
    Directory,
    /// A symlink with this target.
    Symlink(PathBuf),
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
            self.made.entry(directory.to_owned()).or_insert(Made::Directory);
        }
    }
}

/// Something in a profile that is not in the root as it might be expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A link to nothing was left out.
    Broken(PathBuf),
    /// A link that leads back to itself or above was left out.
    Cycle(PathBuf),
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
            Warning::Broken(path) => write!(f, "left out `{}`: the link leads nowhere", shown(path)),
            Warning::Cycle(path) => write!(f, "left out `{}`: the link leads back to where it lies", shown(path)),
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
}

/// Where the profile link goes unless the user says otherwise, as in nix-docker-base.
pub const PROFILE_PATH: &str = "/run/profile";

/// Files that describe one profile to Nix, not what is in it.
const MANIFESTS: [&str; 2] = ["manifest.nix", "manifest.json"];

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
/// where a container runtime mounts something over `/run`.
pub fn plan(
    profiles: &[NamedTree],
    profile_path: &Path,
    store: &StoreDirectory,
) -> Result<(Plan, Vec<Warning>), Usage> {
    let mut planner = Planner { plan: Plan::store_only(store), warnings: Vec::new(), store };

    let merged = planner.merge(profiles);
    match profiles {
        [only] => planner.link(profile_path, store.join(&only.path))?,
        _ => planner.fill(profile_path, &merged)?,
    }
    if let Some(Merged::Directory { names: etc, .. }) = merged.get(OsStr::new("etc")) {
        planner.fill(Path::new("etc"), etc)?;
    }
    for (name, place) in [("env", "usr/bin/env"), ("sh", "bin/sh")] {
        if let Some(Merged::Directory { names: bin, .. }) = merged.get(OsStr::new("bin"))
            && let Some(Merged::Link { target, .. }) = bin.get(OsStr::new(name))
        {
            planner.link(Path::new(place), target.clone())?;
        }
    }
    Ok((planner.plan, planner.warnings))
}

/// The names of all profiles together.
type MergedTree = BTreeMap<std::ffi::OsString, Merged>;

enum Merged {
    Directory { first: PathBuf, names: MergedTree },
    Link { target: PathBuf, outside: Option<PathBuf> },
}

struct Planner<'a> {
    plan: Plan,
    warnings: Vec<Warning>,
    store: &'a StoreDirectory,
}

impl Planner<'_> {
    fn merge(&mut self, profiles: &[NamedTree]) -> MergedTree {
        let mut merged = MergedTree::new();
        for profile in profiles {
            let at = self.store.join(&profile.path);
            for (name, node) in &profile.tree {
                if profiles.len() == 1 || MANIFESTS.iter().all(|manifest| name != manifest) {
                    self.add(&mut merged, name, node, &at.join(name));
                }
            }
        }
        merged
    }

    fn add(&mut self, into: &mut MergedTree, name: &OsStr, node: &Node, at: &Path) {
        match (node, into.get_mut(name)) {
            (Node::Broken, _) => self.warnings.push(Warning::Broken(at.to_owned())),
            (Node::Cycle, _) => self.warnings.push(Warning::Cycle(at.to_owned())),
            (Node::Directory(tree), None) => {
                let mut names = MergedTree::new();
                for (name, node) in tree {
                    self.add(&mut names, name, node, &at.join(name));
                }
                into.insert(name.to_owned(), Merged::Directory { first: at.to_owned(), names });
            }
            (Node::Directory(tree), Some(Merged::Directory { names, .. })) => {
                for (name, node) in tree {
                    self.add(names, name, node, &at.join(name));
                }
            }
            (Node::Leaf { outside }, None) => {
                into.insert(name.to_owned(), Merged::Link { target: at.to_owned(), outside: outside.clone() });
            }
            (_, Some(Merged::Link { target: kept, .. } | Merged::Directory { first: kept, .. })) => {
                self.warnings.push(Warning::Conflict { kept: kept.clone(), left_out: at.to_owned() });
            }
        }
    }

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
                // The link leaves the store for the very place where it would lie.
                Merged::Link { target, outside: Some(outside) } if *outside == Path::new("/").join(&place) => {
                    self.warnings.push(Warning::Cycle(target.clone()));
                }
                Merged::Link { target, .. } => self.link(&place, target.clone())?,
            }
        }
        Ok(())
    }

    fn link(&mut self, place: &Path, target: PathBuf) -> Result<(), Usage> {
        let in_the_way = place.ancestors().skip(1).any(|p| matches!(self.plan.made.get(p), Some(Made::Symlink(_))));
        if in_the_way || self.plan.made.contains_key(place) {
            return Err(collision(place));
        }
        if let Some(parent) = place.parent() {
            self.plan.directory(parent);
        }
        self.plan.made.insert(place.to_owned(), Made::Symlink(target));
        Ok(())
    }
}

/// Only `--profile-path` can put two things in one place.
fn collision(place: &Path) -> Usage {
    Usage(format!("`--profile-path` puts the profile where `/{}` goes", shown(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Node = Node::Leaf { outside: None };

    fn store() -> StoreDirectory {
        StoreDirectory::new(Path::new("/nix/store")).unwrap()
    }

    fn directory<const N: usize>(nodes: [(&str, Node); N]) -> Node {
        Node::Directory(nodes.into_iter().map(|(name, node)| (name.into(), node)).collect())
    }

    fn profile<const N: usize>(letter: &str, nodes: [(&str, Node); N]) -> NamedTree {
        let path = StorePath::parse(&format!("{}-env", letter.repeat(32))).unwrap();
        let Node::Directory(tree) = directory(nodes) else { unreachable!() };
        NamedTree { path, tree }
    }

    fn at(letter: &str, rest: &str) -> PathBuf {
        Path::new("/nix/store").join(format!("{}-env", letter.repeat(32))).join(rest)
    }

    /// The plan as lines `path` or `path -> target`, with the hash parts cut short.
    fn lines(plan: &Plan) -> Vec<String> {
        let line = |(path, made): (&PathBuf, &Made)| match made {
            Made::Directory => path.display().to_string(),
            Made::Symlink(target) => format!("{} -> {}", path.display(), target.display()),
        };
        let short = |line: String| line.replace(&"a".repeat(31), "").replace(&"b".repeat(31), "");
        plan.made.iter().map(line).map(short).collect()
    }

    #[test]
    fn one_profile_is_linked_with_etc_and_shells_beside_it() {
        let outside = |path: &str| Node::Leaf { outside: Some(path.into()) };
        let profile = profile(
            "a",
            [
                ("bin", directory([("sh", LEAF), ("env", LEAF)])),
                (
                    "etc",
                    directory([
                        ("ssl", directory([("ca.crt", LEAF)])),
                        ("bashrc", LEAF),
                        ("gone", Node::Broken),
                        ("up", Node::Cycle),
                        ("mtab", outside("/proc/mounts")),
                        ("resolv.conf", outside("/etc/resolv.conf")),
                    ]),
                ),
            ],
        );
        let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store()).unwrap();
        assert_eq!(
            lines(&plan),
            [
                "bin",
                "bin/sh -> /nix/store/a-env/bin/sh",
                "etc",
                "etc/bashrc -> /nix/store/a-env/etc/bashrc",
                "etc/mtab -> /nix/store/a-env/etc/mtab",
                "etc/ssl",
                "etc/ssl/ca.crt -> /nix/store/a-env/etc/ssl/ca.crt",
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
                Warning::Cycle(at("a", "etc/resolv.conf")),
            ]
        );
    }

    #[test]
    fn several_profiles_are_merged_and_the_first_wins() {
        let first = profile(
            "a",
            [
                ("bin", directory([("sh", LEAF), ("tool", LEAF)])),
                ("share", directory([("x", directory([]))])),
                ("manifest.nix", LEAF),
            ],
        );
        let second = profile(
            "b",
            [
                ("bin", directory([("sh", LEAF), ("tool", directory([])), ("env", LEAF)])),
                ("share", directory([("x", LEAF), ("y", LEAF)])),
                ("manifest.json", LEAF),
                ("manifest.nix", LEAF),
            ],
        );
        let (plan, warnings) = plan(&[first, second], Path::new("run/profile"), &store()).unwrap();
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
        let profile = profile("a", [("bin", directory([("sh", LEAF)])), ("etc", directory([("x", LEAF)]))]);
        for path in ["etc", "etc/x", "bin", "bin/sh", "bin/sh/y"] {
            let result = plan(std::slice::from_ref(&profile), Path::new(path), &store());
            let message = result.unwrap_err().to_string();
            assert!(message.starts_with("`--profile-path` puts the profile where"), "{path}: {message}");
        }
        assert!(plan(std::slice::from_ref(&profile), Path::new("etc/profile"), &store()).is_ok());
    }
}
