//! Reads the names in a profile, following links as long as they stay in the store.
//! It must never look at anything outside: that is this machine's, not the root's.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use fs_err as fs;
use nix::errno::Errno;
use walkdir::WalkDir;

use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::store::StoreDirectory;
use crate::store::tree::{Node, Tree};

/// Which names of a profile are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What a root needs of one profile: `etc` with all that is in it, of `bin` only [`SHELLS`], and that there is a
    /// directory `share/zoneinfo`.
    ForRoot,
    /// All names: what the merging of several profiles needs.
    Everything,
}

/// Programs that a root has outside of the store too.
const SHELLS: [&str; 3] = ["sh", "env", "bash"];
/// More names than any profile has; links between directories can multiply them without end.
const MOST_NAMES: usize = 500_000;
/// As many links as the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Reads the wanted names of the profile at `profile`, a store path. A profile that is no directory, or a
/// link that leads nowhere or out of the store, has none.
pub fn read_tree(
    profile: &Path,
    wanted: Wanted,
    store: &StoreDirectory,
    interrupt: &Interrupt,
) -> anyhow::Result<Tree> {
    let real_store = fs::canonicalize(store.real())?;
    let mut reader = Reader { store: store.as_path(), real_store, above: Vec::new(), names: 0, interrupt };
    let Followed::Directory(real) = reader.follow(profile)? else { return Ok(Tree::new()) };
    if wanted == Wanted::Everything {
        return reader.directory(real);
    }
    let mut tree = Tree::new();
    reader.above.push(real.clone());
    reader.child(&real, "etc", &mut tree)?;
    match reader.follow(&profile.join("bin"))? {
        Followed::Directory(bin) => {
            let mut shells = Tree::new();
            for shell in SHELLS {
                reader.child(&bin, shell, &mut shells)?;
            }
            tree.insert("bin".into(), Node::Directory(shells));
        }
        _ => reader.child(&real, "bin", &mut tree)?,
    }
    if let Followed::Directory(_) = reader.follow(&profile.join("share/zoneinfo"))? {
        let zones = Tree::from([("zoneinfo".into(), Node::Directory(Tree::new()))]);
        tree.insert("share".into(), Node::Directory(zones));
    }
    Ok(tree)
}

/// The contents of those files in the `etc` of a profile that are called one of `names` and lie in the store, by the places
/// to which they lead. `tree` is what [`read_tree`] read of the profile.
pub fn read_texts<'a>(
    tree: &Tree,
    names: impl Iterator<Item = &'a OsStr>,
    store: &StoreDirectory,
) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let Some(Node::Directory(etc)) = tree.get(OsStr::new("etc")) else { return Ok(BTreeMap::new()) };
    let leaves = names.filter_map(|name| match etc.get(name)? {
        Node::Leaf { leads_to } => Some(leads_to),
        _ => None,
    });
    let files = leaves.filter_map(|path| Some((path, store.real_file(path)?)));
    files.map(|(path, file)| Ok((path.clone(), fs::read(file)?))).collect()
}

/// Where a name leads.
#[derive(Debug, PartialEq, Eq)]
enum Followed {
    Nowhere,
    InACircle,
    /// To this absolute path outside the store.
    Out(PathBuf),
    /// To this file in the store.
    File(PathBuf),
    /// To this directory in the store, with its real path.
    Directory(PathBuf),
}

struct Reader<'a> {
    store: &'a Path,
    /// The store directory with its own links resolved.
    real_store: PathBuf,
    /// Real paths of the directories that are being read, outermost first.
    above: Vec<PathBuf>,
    names: usize,
    interrupt: &'a Interrupt,
}

impl Reader<'_> {
    /// Adds `name` in `directory`, a real path, to `tree` if it is there.
    fn child(&mut self, directory: &Path, name: &str, tree: &mut Tree) -> anyhow::Result<()> {
        let path = directory.join(name);
        if look_at(&path)?.is_some() {
            tree.insert(name.into(), self.node(&path)?);
        }
        Ok(())
    }

    /// `directory` must be a real path.
    fn directory(&mut self, directory: PathBuf) -> anyhow::Result<Tree> {
        let mut tree = Tree::new();
        let entries = WalkDir::new(&directory).min_depth(1).max_depth(1);
        self.above.push(directory);
        for entry in entries {
            let entry = entry?;
            tree.insert(entry.file_name().to_owned(), self.node(entry.path())?);
        }
        self.above.pop();
        Ok(tree)
    }

    fn node(&mut self, path: &Path) -> anyhow::Result<Node> {
        self.interrupt.check()?;
        self.names += 1;
        if self.names > MOST_NAMES {
            bail!("`{}` has more than {MOST_NAMES} names once its links are followed", shown(path));
        }
        Ok(match self.follow(path)? {
            Followed::Nowhere => Node::Broken,
            Followed::InACircle => Node::Cycle,
            Followed::Out(leads_to) | Followed::File(leads_to) => Node::Leaf { leads_to },
            // The store of this machine, of which the root has a part.
            Followed::Directory(real) if real == self.real_store => Node::Leaf { leads_to: self.store.to_owned() },
            Followed::Directory(real) if self.above.contains(&real) => Node::Cycle,
            Followed::Directory(real) => Node::Directory(self.directory(real)?),
        })
    }

    /// Follows `path`, which lies in the store, name by name.
    fn follow(&self, path: &Path) -> anyhow::Result<Followed> {
        let mut here = self.real_store.clone();
        let Some(mut rest) = self.inside(path) else { return Ok(Followed::Out(path.to_owned())) };
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                if here != self.real_store {
                    here.pop();
                    continue;
                }
                // As the kernel does it: up from where the store really lies.
                let above = self.real_store.parent().unwrap_or(Path::new("/"));
                match self.re_enter(above, rest) {
                    Ok(inside) => rest = inside,
                    Err(out) => return Ok(Followed::Out(out)),
                }
                continue;
            }
            let next = here.join(&name);
            let Some(metadata) = look_at(&next)? else { return Ok(Followed::Nowhere) };
            if metadata.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(Followed::InACircle);
                }
                let target = fs::read_link(&next)?;
                rest = names(&target).chain(rest).collect();
                if target.is_absolute() {
                    match self.re_enter(Path::new("/"), rest) {
                        Ok(inside) => (here, rest) = (self.real_store.clone(), inside),
                        Err(out) => return Ok(Followed::Out(out)),
                    }
                }
            } else if metadata.is_dir() {
                here = next;
            } else {
                // By the store directory's own name, as Nix and the plan know it.
                let file = next.strip_prefix(&self.real_store).map(|names| self.store.join(names));
                return Ok(if rest.is_empty() { Followed::File(file?) } else { Followed::Nowhere });
            }
        }
        Ok(Followed::Directory(here))
    }

    /// Goes on outside the store, word by word, since nothing there is looked at: to what is left of `rest`
    /// once it is in the store again, or to where it ends.
    fn re_enter(&self, outside: &Path, mut rest: VecDeque<OsString>) -> Result<VecDeque<OsString>, PathBuf> {
        let mut here = outside.to_owned();
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
            } else {
                here.push(name);
            }
            if here == self.store || here == self.real_store {
                return Ok(rest);
            }
        }
        Err(here)
    }

    /// The names below the store directory that `path` has, if it lies in it.
    fn inside(&self, path: &Path) -> Option<VecDeque<OsString>> {
        let names = path.strip_prefix(self.store).or_else(|_| path.strip_prefix(&self.real_store)).ok()?;
        Some(names.iter().map(OsStr::to_owned).collect())
    }
}

/// What lies at `path`, whose directory is a real path; `None` if nothing does, or nothing can.
fn look_at(path: &Path) -> anyhow::Result<Option<std::fs::Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ENAMETOOLONG as i32) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look at `{}`", shown(path))),
    }
}

/// The names in a link's target, `..` among them.
fn names(target: &Path) -> impl Iterator<Item = OsString> {
    let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_) | Component::ParentDir);
    target.components().filter(is_name).map(|component| component.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
        match path.split_once('/') {
            None => tree.get(OsStr::new(path)),
            Some((first, rest)) => match tree.get(OsStr::new(first))? {
                Node::Directory(tree) => at(tree, rest),
                _ => None,
            },
        }
    }

    #[test]
    fn links_are_followed_inside_the_store_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (profile, package) = (root.join("store/profile"), root.join("store/package"));
        fs::create_dir_all(profile.join("etc/own")).unwrap();
        fs::create_dir_all(package.join("etc/deep")).unwrap();
        fs::create_dir_all(package.join("bin")).unwrap();
        fs::write(package.join("etc/deep/file"), "").unwrap();
        fs::write(package.join("bin/sh"), "text").unwrap();
        for (name, target) in [
            ("etc/package", "../../package/etc"),
            ("etc/dotted", ".././../package/./etc/"),
            ("etc/round", "../../../store/package/bin/sh"),
            ("etc/straight", root.join("store/package/bin/sh").to_str().unwrap()),
            ("etc/broken", "missing"),
            ("etc/broken-file", "package/deep/file/x"),
            ("etc/self", "self"),
            ("etc/up", "."),
            ("etc/profile", ".."),
            // The way of a link into another directory, and up from there.
            ("etc/by-link", &format!("{}/store/profile/bin/../etc/deep/file", root.display())),
            ("etc/too-long", &"x".repeat(300)),
            ("etc/store", root.join("store").to_str().unwrap()),
            ("etc/out", "../../../outside/x"),
            ("etc/host", "/etc/../etc/x"),
            ("bin", "../package/bin"),
        ] {
            symlink(target, profile.join(name)).unwrap();
        }
        symlink("../../package", package.join("etc/again")).unwrap();
        let store = StoreDirectory::new(&root.join("store")).unwrap();
        let read = |path: &Path, wanted| read_tree(path, wanted, &store, &Interrupt::default()).unwrap();

        let tree = read(&profile, Wanted::ForRoot);
        let leaf = |path: PathBuf| Some(Node::Leaf { leads_to: path });
        let shell = leaf(package.join("bin/sh"));
        for (path, expected) in [
            ("etc/own", Some(Node::Directory(Tree::new()))),
            ("etc/package/deep/file", leaf(package.join("etc/deep/file"))),
            ("etc/dotted/deep/file", leaf(package.join("etc/deep/file"))),
            ("etc/package/again/etc", Some(Node::Cycle)),
            ("etc/round", shell.clone()),
            ("etc/straight", shell.clone()),
            ("etc/broken", Some(Node::Broken)),
            ("etc/broken-file", Some(Node::Broken)),
            ("etc/self", Some(Node::Cycle)),
            ("etc/up", Some(Node::Cycle)),
            ("etc/profile", Some(Node::Cycle)),
            ("etc/by-link", leaf(package.join("etc/deep/file"))),
            ("etc/too-long", Some(Node::Broken)),
            ("etc/store", leaf(root.join("store"))),
            ("etc/out", leaf(root.join("outside/x"))),
            ("etc/host", leaf("/etc/x".into())),
            ("bin/sh", shell),
            ("bin/env", None),
        ] {
            assert_eq!(at(&tree, path), expected.as_ref(), "{path}");
        }
        let names = ["straight", "host", "own", "none"].map(OsStr::new);
        let texts = read_texts(&tree, names.into_iter(), &store).unwrap();
        assert_eq!(texts, BTreeMap::from([(package.join("bin/sh"), b"text".to_vec())]));
        let everything = read(&profile, Wanted::Everything);
        assert_eq!(at(&everything, "etc"), at(&tree, "etc"));
        assert_eq!(read(&package.join("bin/sh"), Wanted::Everything), Tree::new());
        assert_eq!(read(&root.join("store/missing"), Wanted::ForRoot), Tree::new());

        let circle = root.join("store/circle");
        fs::create_dir(&circle).unwrap();
        symlink("bin", circle.join("bin")).unwrap();
        assert_eq!(read(&circle, Wanted::ForRoot), Tree::from([("bin".into(), Node::Cycle)]));
        fs::remove_file(circle.join("bin")).unwrap();
        symlink("/usr/bin", circle.join("bin")).unwrap();
        let out = Node::Leaf { leads_to: "/usr/bin".into() };
        assert_eq!(read(&circle, Wanted::ForRoot), Tree::from([("bin".into(), out)]));

        // A store directory that is a link itself.
        symlink("store", root.join("other")).unwrap();
        let other = StoreDirectory::new(&root.join("other")).unwrap();
        let tree = read_tree(&root.join("other/profile"), Wanted::ForRoot, &other, &Interrupt::default()).unwrap();
        assert_eq!(at(&tree, "bin/sh"), leaf(root.join("other/package/bin/sh")).as_ref());
        assert_eq!(at(&tree, "etc/straight"), leaf(root.join("other/package/bin/sh")).as_ref());
    }
}
