//! Reads the names in a profile, following links to directories as long as they stay in the store.
//! It must never follow a link out of the store: that leads to files of this machine, not of the root.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use fs_err as fs;
use nix::errno::Errno;

use crate::failure::shown;
use crate::store::StoreDirectory;
use crate::store::tree::{Node, Tree};

/// Which names of a profile are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `etc` with all that is in it, and of `bin` only `sh` and `env`: what a root needs of one profile.
    EtcAndShells,
    /// All names: what the merging of several profiles needs.
    Everything,
}

/// More names than any profile has; links between directories can multiply them without end.
const MOST_NAMES: usize = 2_000_000;

/// Reads the wanted names of the profile at `profile`, a store path. A profile that is no directory, or a
/// link that leads nowhere or out of the store, has none.
pub fn read_tree(profile: &Path, wanted: Wanted, store: &StoreDirectory) -> anyhow::Result<Tree> {
    let mut reader = Reader { store: fs::canonicalize(store.as_path())?, above: Vec::new(), names: 0 };
    let Followed::Directory(real) = reader.follow(profile)? else { return Ok(Tree::new()) };
    if wanted == Wanted::Everything {
        return reader.directory(&real);
    }
    let mut tree = Tree::new();
    let mut bin = Tree::new();
    if let Some(etc) = reader.node_if_there(&profile.join("etc"))? {
        tree.insert("etc".into(), etc);
    }
    for name in ["sh", "env"] {
        if let Some(node) = reader.node_if_there(&profile.join("bin").join(name))? {
            bin.insert(name.into(), node);
        }
    }
    tree.insert("bin".into(), Node::Directory(bin));
    Ok(tree)
}

/// Where a name leads.
enum Followed {
    Nowhere,
    InACircle,
    OutOfTheStore,
    File,
    /// With its real path.
    Directory(PathBuf),
}

struct Reader {
    /// The store directory with its own links resolved.
    store: PathBuf,
    /// Real paths of the directories that are being read, outermost first.
    above: Vec<PathBuf>,
    names: usize,
}

impl Reader {
    fn node_if_there(&mut self, path: &Path) -> anyhow::Result<Option<Node>> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(Some(self.node(path)?)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `directory` must be a real path.
    fn directory(&mut self, directory: &Path) -> anyhow::Result<Tree> {
        self.above.push(directory.to_owned());
        let mut tree = Tree::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            tree.insert(entry.file_name(), self.node(&entry.path())?);
        }
        self.above.pop();
        Ok(tree)
    }

    fn node(&mut self, path: &Path) -> anyhow::Result<Node> {
        self.names += 1;
        if self.names > MOST_NAMES {
            bail!("`{}` has more than {MOST_NAMES} names once its links are followed", shown(path));
        }
        Ok(match self.follow(path)? {
            Followed::Nowhere => Node::Broken,
            Followed::InACircle => Node::Cycle,
            Followed::OutOfTheStore => Node::Leaf { outside: self.way_out(path) },
            Followed::File => Node::Leaf { outside: None },
            Followed::Directory(real) if self.above.contains(&real) => Node::Cycle,
            Followed::Directory(real) => Node::Directory(self.directory(&real)?),
        })
    }

    fn follow(&self, path: &Path) -> anyhow::Result<Followed> {
        match std::fs::canonicalize(path) {
            Ok(real) if !real.starts_with(&self.store) => Ok(Followed::OutOfTheStore),
            Ok(real) if fs::metadata(&real)?.is_dir() => Ok(Followed::Directory(real)),
            Ok(_) => Ok(Followed::File),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(Followed::Nowhere)
            }
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Ok(Followed::InACircle),
            Err(error) => Err(error).with_context(|| format!("cannot follow `{}`", shown(path))),
        }
    }

    /// The first place outside the store on the way of the links that begin at `path`.
    fn way_out(&self, path: &Path) -> Option<PathBuf> {
        let mut here = path.to_owned();
        for _ in 0..40 {
            let target = fs::read_link(&here).ok()?;
            here = without_dots(&here.parent()?.join(target));
            if !here.starts_with(&self.store) {
                return Some(here);
            }
        }
        None
    }
}

/// `path` without `.` and `..`, taken word by word as a shell's `cd` does.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push::<&OsStr>(other.as_os_str()),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tree::at;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_store_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (profile, package) = (root.join("store/profile"), root.join("store/package"));
        fs::create_dir_all(profile.join("etc/own")).unwrap();
        fs::create_dir_all(package.join("etc/deep")).unwrap();
        fs::create_dir_all(package.join("bin")).unwrap();
        fs::create_dir_all(root.join("outside")).unwrap();
        fs::write(package.join("etc/deep/file"), "").unwrap();
        fs::write(package.join("bin/sh"), "").unwrap();
        for (name, target) in [
            ("etc/package", "../../package/etc"),
            ("etc/broken", "missing"),
            ("etc/broken-file", "package/deep/file/x"),
            ("etc/self", "self"),
            ("etc/up", "."),
            ("etc/out", "../../../outside"),
            ("bin", "../package/bin"),
        ] {
            symlink(target, profile.join(name)).unwrap();
        }
        symlink("../../package", package.join("etc/again")).unwrap();
        let store = StoreDirectory::new(&root.join("store")).unwrap();

        let tree = read_tree(&profile, Wanted::EtcAndShells, &store).unwrap();
        let leaf = Node::Leaf { outside: None };
        for (path, expected) in [
            ("etc/own", Some(Node::Directory(Tree::new()))),
            ("etc/package/deep/file", Some(leaf.clone())),
            ("etc/package/again/etc", Some(Node::Cycle)),
            ("etc/broken", Some(Node::Broken)),
            ("etc/broken-file", Some(Node::Broken)),
            ("etc/self", Some(Node::Cycle)),
            ("etc/up", Some(Node::Cycle)),
            ("etc/out", Some(Node::Leaf { outside: Some(root.join("outside")) })),
            ("bin/sh", Some(leaf)),
            ("bin/env", None),
        ] {
            assert_eq!(at(&tree, Path::new(path)), expected.as_ref(), "{path}");
        }
        let everything = read_tree(&profile, Wanted::Everything, &store).unwrap();
        assert_eq!(at(&everything, Path::new("etc")), at(&tree, Path::new("etc")));
        assert_eq!(read_tree(&package.join("bin/sh"), Wanted::Everything, &store).unwrap(), Tree::new());
    }
}
