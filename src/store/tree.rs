//! The names in a profile, with the links to directories followed: what a root is planned from.
//! It must never touch the disk; [`super::query::read_tree`] makes it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// A directory of a profile.
pub type Tree = BTreeMap<OsString, Node>;

/// What a name in a profile is once links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory, or a link to one inside the store.
    Directory(Tree),
    /// Anything else.
    Leaf {
        /// The real file in the store, or the absolute path outside at which the links leave it; whether
        /// anything is there is the root's affair.
        leads_to: PathBuf,
    },
    /// A link to nothing.
    Broken,
    /// A link that leads back to a directory above it, or to itself.
    Cycle,
}
