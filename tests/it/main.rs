//! Drives the real static binary against a real Nix store. A module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod architecture;
mod bad_input;
mod bash_tmate;
mod chroot_store;
mod complete_root;
mod content;
mod dockerfile;
mod documents;
mod export_image;
mod file_systems;
mod image_input;
mod images;
mod injected;
mod inspect;
mod interrupts;
mod kills;
mod layers;
mod limits;
mod link_modes;
mod mount_point;
mod multicall;
mod pins;
mod profiles;
mod properties;
mod reports;
mod sbom;
mod shared_files;
mod start_tmate;
mod support;
mod sync_dockerfile;
mod sync_fixtures;
mod sync_laws;
mod update_images;
