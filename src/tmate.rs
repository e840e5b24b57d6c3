//! A tmate session: how it is asked for, watched and ended, for `start-tmate` and `bash-tmate`.
//! It must never leave anything behind, nor decide anything outside its pure modules.
//!
//! The entry for both applets is [`session::run`]: it takes [`options::Options`] (from flags, or from
//! variables alone: `Options::new(Words::default(), …)`), a [`session::Scene`] (greeting, working directory,
//! shell), an [`Interrupt`](crate::interrupt::Interrupt) and a [`Voice`](crate::report::Voice), and returns
//! how the session ended. It never ends the process and never writes to stdout.
//!
//! Pure are all modules here but [`session`], which does the rest: processes, sockets and files.

pub mod clock;
pub mod conf;
pub mod keys;
pub mod log;
pub mod options;
pub mod pane;
pub mod server;
pub mod session;
