//! nixkit (draft)
#![forbid(unsafe_code)]

pub mod applet;
pub mod failure;
pub mod interrupt;
pub mod progress;
pub mod report;
pub mod root;
pub mod sink;
pub mod store;
