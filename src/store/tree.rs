//! The names in a profile, with the links to directories followed: what a root is planned from.
//! It must never touch the disk; [`super::query::read_tree`] makes it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A directory of a profile.
pub type Tree = BTreeMap<OsString, Node>;

/// What a name in a profile is once links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory, or a link to one inside the store.
    Directory(Tree),
    /// Anything else that exists.
    Leaf {
        /// The first place outside the store that the links lead to, where they leave it, as an absolute path.
        outside: Option<PathBuf>,
    },
    /// A link to nothing.
    Broken,
    /// A link that leads back to a directory above it, or to itself.
    Cycle,
}

/// The node at `path`, which is relative to `tree`'s own directory.
pub fn at<'a>(tree: &'a Tree, path: &Path) -> Option<&'a Node> {
    let mut components = path.iter();
    let mut node = tree.get(components.next()?)?;
    for name in components {
        node = child(node, name)?;
    }
    Some(node)
}

fn child<'a>(node: &'a Node, name: &OsStr) -> Option<&'a Node> {
    match node {
        Node::Directory(tree) => tree.get(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_path() {
        let leaf = Node::Leaf { outside: None };
        let bin = Node::Directory(Tree::from([("sh".into(), leaf.clone())]));
        let tree = Tree::from([("bin".into(), bin.clone()), ("etc".into(), Node::Broken)]);
        assert_eq!(at(&tree, Path::new("bin/sh")), Some(&leaf));
        assert_eq!(at(&tree, Path::new("bin")), Some(&bin));
        assert_eq!(at(&tree, Path::new("bin/sh/x")), None);
        assert_eq!(at(&tree, Path::new("etc/x")), None);
        assert_eq!(at(&tree, Path::new("")), None);
    }
}
