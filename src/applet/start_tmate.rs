//! `start-tmate`: opens a tmate session, says how to connect, and ends it once nobody is connected.
//! It must never outlive its session, nor leave anything of it behind.

use std::ffi::OsString;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::interrupt::Interrupt;
use crate::report::{self, Level, Voice};
use crate::supervise::{Signals, in_child, is_first_process};
use crate::tmate::options::{Options, Words};
use crate::tmate::session::{self, End, Scene};

const NAME: &str = "start-tmate";

/// Open a tmate session, say how to connect, and end it once nobody is connected.
///
/// The session goes through a tmate server, which has to be named: the public one has been shut down. Each
/// option has a variable, `BASH_TMATE_` and its name in capitals, which counts where the option is missing.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// How many seconds nobody may be connected. [default: 60]
    max_idle: Option<OsString>,

    /// The tmate server, else `$TMATE_SERVER_HOST` and `$TMATE_SERVER_PORT`, else that of `~/.tmate.conf`.
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<OsString>,

    /// The fingerprint of the server's key, `[rsa:|ecdsa:|ed25519:]SHA256:…`, for all kinds where none is
    /// named; else `$TMATE_SERVER_ED25519_FINGERPRINT` and those of `RSA` and `ECDSA`. Repeatable.
    #[arg(long = "fingerprint", value_name = "FINGERPRINT")]
    fingerprints: Vec<OsString>,

    /// Try the public server ssh.tmate.io, though it has been shut down.
    #[arg(long)]
    public_server: bool,

    /// How many seconds it may take to get to the server. [default: 30]
    #[arg(long, value_name = "SECONDS")]
    connect_timeout: Option<OsString>,

    /// How often the link is said again; 0 for never. [default: 60]
    #[arg(long, value_name = "SECONDS")]
    repeat: Option<OsString>,

    /// When the session ends, whoever is connected; 0 for never. [default: 10800, three hours]
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<OsString>,

    /// Let in only the owners of the public keys in FILE, or on standard input with `-`. Repeatable. The
    /// variable holds the lines themselves.
    #[arg(long, value_name = "FILE")]
    authorized_keys: Vec<OsString>,

    /// The file that ends the session when it appears. [default: one in the session's own folder]
    #[arg(long, value_name = "PATH")]
    continue_file: Option<OsString>,

    /// What runs in the session in place of `bash -i`, for `sh -c`.
    #[arg(long, value_name = "COMMAND")]
    command: Option<OsString>,

    /// Say what is decided and why, and all that tmate prints.
    #[arg(short, long)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  start-tmate --server tmate.example.org --fingerprint SHA256:…
          A session that ends a minute after the last one has left
  curl -fsS https://github.com/octocat.keys | start-tmate --authorized-keys - 600
          Ten minutes for the owner of these keys alone; the server comes from variables

Exit status: 0 the session ended, 1 it could not start or was lost, 2 usage, 127 no tmate,
128+n ended by signal n.";

/// What it understands.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let arguments = Arguments::try_parse_from(argv)?;
    let words = Words {
        max_idle: arguments.max_idle,
        server: arguments.server,
        fingerprints: arguments.fingerprints,
        public_server: arguments.public_server,
        connect_timeout: arguments.connect_timeout,
        repeat: arguments.repeat,
        max_duration: arguments.max_duration,
        authorized_keys: arguments.authorized_keys,
        continue_file: arguments.continue_file,
        command: arguments.command,
        verbose: arguments.verbose,
    };
    let options = Options::new(words, |name| std::env::var_os(name))?;
    // In a child, which cleans up when this process is killed.
    let signals = Signals::hold().context("cannot read signals")?;
    let ending = in_child(&signals, is_first_process(), || report::outcome(NAME, run_session(&options, &signals)));
    Ok(ending.code())
}

fn run_session(options: &Options, signals: &Signals) -> anyhow::Result<u8> {
    let voice = Voice { name: NAME, level: if options.verbose { Level::Verbose } else { Level::Normal } };
    let interrupt = Interrupt::install()?;
    signals.release();
    let scene = Scene { greeting: vec!["This session was opened by start-tmate.".into()], ..Scene::default() };
    match session::run(options, &scene, voice, &interrupt) {
        End::Idle | End::User | End::ContinueFile | End::Cap => Ok(0),
        End::Signal(signal) => Ok(u8::try_from(128 + signal)?),
        End::Lost(error) | End::NotStarted(error) => Err(error),
    }
}
