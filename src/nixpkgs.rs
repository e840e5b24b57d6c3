//! How nixpkgs names things: channels, commits and releases. Everything that reads or writes one of these names
//! does it here, so that `update-images` and `sync-dockerfile` accept the same names.
//! It must never do input or output.

mod name;
mod release;

pub use name::{Channel, Commit, NoChannel, Revision};
pub use release::Release;
