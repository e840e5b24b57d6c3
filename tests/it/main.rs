//! Drives the real static binary against a real Nix store. A module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod architecture;
