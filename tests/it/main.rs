//! Drives the real static binary against a real Nix store. A module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod architecture;
mod bad_input;
mod content;
mod documents;
mod image_input;
mod images;
mod interrupts;
mod kills;
mod limits;
mod link_modes;
mod mount_point;
mod multicall;
mod profiles;
mod properties;
mod reports;
mod support;
