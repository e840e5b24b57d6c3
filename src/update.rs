//! What `update-images` does, from its settings to what it reports.
//! It must never write to a registry what it has not just read to be wanted there.
//!
//! [`config`], [`judge`] and [`moving`] decide and are pure; [`program`] runs what does the work, and the rest
//! puts the two together.

pub mod config;
//TMP pub mod credentials;
pub mod judge;
pub mod moving;
//TMP pub mod program;
//TMP pub mod publish;
//TMP pub mod receipt;
//TMP pub mod recipe;
//TMP pub mod scratch;
//TMP pub mod survey;
