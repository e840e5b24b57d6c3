//! The format of OCI images: digests, descriptors, configs, manifests, indexes, names and platforms.
//! It must never touch the disk, and it has no policy: what is in an image is decided elsewhere.
//!
//! Sources: the OCI image specification 1.1 (`image-layout.md`, `manifest.md`, `config.md`, `annotations.md`), and
//! Docker's image specification 1.2 for `manifest.json`.

pub mod config;
pub mod document;
pub mod healthcheck;
pub mod index;
pub mod labels;
pub mod platform;
pub mod reference;
pub mod time;

pub use config::Settings;
pub use document::{Descriptor, Digest, Layer};
pub use platform::Platform;
pub use reference::Tag;
