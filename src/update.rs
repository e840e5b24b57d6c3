//! What `update-images` does, from its settings to what it reports.
//! It must never write to a registry what it has not just read to be wanted there.
//!
//! [`config`], [`judge`] and [`moving`] decide and are pure, [`survey`] reads and [`publish`] writes; the
//! others are what these need.

pub mod config;
pub mod credentials;
pub mod judge;
pub mod moving;
pub mod publish;
pub mod receipt;
pub mod recipe;
pub mod scratch;
pub mod survey;
