//! The channels of nixpkgs: their names, the updates that each has had, and which of them are wanted.
//! It must never trust a name: one that does not match the pattern whole reaches no matrix, shell or tag.
//!
//! A channel is a branch of the nixpkgs repository, and its updates are the directories of the public
//! listing of releases. Only [`source`] asks for either; all else here is pure.

mod listing;
mod refs;
mod release;
pub mod source;

pub use crate::nixpkgs::{Channel, Commit, Release};
pub use listing::{Listing, MOST_PAGES, parse_page, prefix};
pub use refs::{Heads, Selection, Unselected, parse_heads, select};
pub use release::{Update, release_of, updates, window};
