//! bash as it is called and as it fails: its command line, and the scene of its failure.
//! It must never run bash, nor touch a script's output: all of it is pure.

pub mod account;
pub mod evidence;
pub mod hook;
pub mod inner;
pub mod invocation;
pub mod replay;
pub mod restored;
pub mod settings;
pub mod situation;
pub mod snapshot;
pub mod watch;
