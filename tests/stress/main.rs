//! Exports under stress: more, larger and deeper than what a profile holds, many at once, and killed at any
//! moment. All of it lies in real Nix stores on real file systems, with the harness of the integration tests.
//!
//! `make stress` runs it, as root, one test after the other, in some minutes; each test says what it has
//! measured. `STRESS_SEED=… make stress` repeats the random moments of a run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod at_once;
mod compare;
mod jobs;
mod kills;
mod large;
mod many;
mod place;
mod random;

/// The harness of the integration tests lies with them.
#[path = "../it"]
mod it {
    #[expect(dead_code, unused_imports, reason = "what only the integration tests use")]
    pub(crate) mod support;
}

use it::support;
