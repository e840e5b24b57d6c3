//! The names of several profiles as one tree, in which the first profile wins.
//! It must never touch the disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::{NamedTree, Warning};
use crate::store::StoreDirectory;
use crate::store::tree::Node;

/// Files that describe one profile to Nix, not what is in it.
const MANIFESTS: [&str; 2] = ["manifest.nix", "manifest.json"];

/// The names of all profiles together.
pub(super) type MergedTree = BTreeMap<OsString, Merged>;

pub(super) enum Merged {
    /// With the place of the first profile's.
    Directory { first: PathBuf, names: MergedTree },
    /// To a name in a profile, and the real file or the place outside to which that leads.
    Link { target: PathBuf, leads_to: PathBuf },
}

/// Merges `profiles`, the first first. What is left out is in the warnings.
pub(super) fn merge(profiles: &[NamedTree], store: &StoreDirectory) -> (MergedTree, Vec<Warning>) {
    let (mut merged, mut warnings) = (MergedTree::new(), Vec::new());
    for profile in profiles {
        let at = store.join(&profile.path);
        for (name, node) in &profile.tree {
            if profiles.len() == 1 || MANIFESTS.iter().all(|manifest| name != manifest) {
                add(&mut merged, name, node, &at.join(name), &mut warnings);
            }
        }
    }
    (merged, warnings)
}

fn add(into: &mut MergedTree, name: &OsStr, node: &Node, at: &Path, warnings: &mut Vec<Warning>) {
    match (node, into.get_mut(name)) {
        (Node::Broken, _) => warnings.push(Warning::Broken(at.to_owned())),
        (Node::Cycle, _) => warnings.push(Warning::Cycle(at.to_owned())),
        (Node::Directory(tree), None) => {
            let mut names = MergedTree::new();
            for (name, node) in tree {
                add(&mut names, name, node, &at.join(name), warnings);
            }
            into.insert(name.to_owned(), Merged::Directory { first: at.to_owned(), names });
        }
        (Node::Directory(tree), Some(Merged::Directory { names, .. })) => {
            for (name, node) in tree {
                add(names, name, node, &at.join(name), warnings);
            }
        }
        (Node::Leaf { leads_to }, None) => {
            into.insert(name.to_owned(), Merged::Link { target: at.to_owned(), leads_to: leads_to.clone() });
        }
        // One file by way of two profiles.
        (Node::Leaf { leads_to }, Some(Merged::Link { leads_to: kept, .. })) if leads_to == kept => {}
        (_, Some(Merged::Link { target: kept, .. } | Merged::Directory { first: kept, .. })) => {
            warnings.push(Warning::Conflict { kept: kept.clone(), left_out: at.to_owned() });
        }
    }
}
