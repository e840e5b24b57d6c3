//! Nix's words: store paths, registrations, profiles, and the trees that profiles are.
//! Everything here is pure but [`query`], the only module that asks Nix or reads a profile.

pub mod manifest;
pub mod naming;
pub mod path;
pub mod query;
pub mod registration;
pub mod tree;

pub use path::{StoreDirectory, StorePath};
pub use registration::Registration;
