//! What was typed and what `BASH_TMATE_*` and `TMATE_SERVER_*` hold, as the options of a session.
//! It must never read a file or the environment itself: both come in as values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::server::{Fingerprints, Server, parse_fingerprints, parse_port, parse_server};
use crate::failure::{Usage, shown};

/// Seconds without anybody connected after which a session ends.
pub const MAX_IDLE: u64 = 60;
/// Seconds after which tmate must have reached its server.
pub const CONNECT_TIMEOUT: u64 = 30;
/// Seconds between two repetitions of the link.
pub const REPEAT: u64 = 60;
/// Seconds after which a session ends whoever is connected: three hours.
pub const MAX_DURATION: u64 = 3 * 60 * 60;
/// A longer time is a slip of the hand: ten years.
const LONGEST: u64 = 10 * 366 * 24 * 60 * 60;

/// The words of a command line, as they were typed. Where one is missing its variable counts.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// `MAX_IDLE`, else `BASH_TMATE_MAX_IDLE`.
    pub max_idle: Option<OsString>,
    /// `--server`, else `BASH_TMATE_SERVER`, else `TMATE_SERVER_HOST` and `TMATE_SERVER_PORT`.
    pub server: Option<OsString>,
    /// `--fingerprint`, else `BASH_TMATE_FINGERPRINT` (between blanks), else `TMATE_SERVER_*_FINGERPRINT`.
    pub fingerprints: Vec<OsString>,
    /// `--public-server`, else `BASH_TMATE_PUBLIC_SERVER=1`.
    pub public_server: bool,
    /// `--connect-timeout`, else `BASH_TMATE_CONNECT_TIMEOUT`.
    pub connect_timeout: Option<OsString>,
    /// `--repeat`, else `BASH_TMATE_REPEAT`.
    pub repeat: Option<OsString>,
    /// `--max-duration`, else `BASH_TMATE_MAX_DURATION`.
    pub max_duration: Option<OsString>,
    /// `--authorized-keys`, else `BASH_TMATE_AUTHORIZED_KEYS`, which holds the lines themselves.
    pub authorized_keys: Vec<OsString>,
    /// `--continue-file`, else `BASH_TMATE_CONTINUE_FILE`.
    pub continue_file: Option<OsString>,
    /// `--command`, else `BASH_TMATE_COMMAND`.
    pub command: Option<OsString>,
    /// `--verbose`, else `BASH_TMATE_VERBOSE=1`.
    pub verbose: bool,
}

/// What a session is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which server it goes through.
    pub server: Server,
    /// Those of the server; those of the user's conf where none are here.
    pub fingerprints: Fingerprints,
    /// How long nobody may be connected.
    pub max_idle: Duration,
    /// How long it may take to reach the server.
    pub connect_timeout: Duration,
    /// How often the link is said again; `None` for never.
    pub repeat: Option<Duration>,
    /// When it ends in any case; `None` for never.
    pub max_duration: Option<Duration>,
    /// Who gets in.
    pub keys: Keys,
    /// The file that ends it once it appears; `None` for one in the session's own folder.
    pub continue_file: Option<PathBuf>,
    /// A command for `sh -c` in place of the shell.
    pub command: Option<OsString>,
    /// Whether decisions are told, and all that tmate prints.
    pub verbose: bool,
}

/// Where the keys of those who get in come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nowhere, or from the user's conf.
    Unset,
    /// From files.
    Files(Vec<KeyFile>),
    /// These lines.
    Lines(Vec<u8>),
}

/// A file of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// `-`.
    Stdin,
    /// Any other.
    Path(PathBuf),
}

impl Options {
    /// What `words` mean where `variable` gives the value of a variable. An empty variable is an unset one,
    /// but for the keys': a secret that is missing must not open the session to everybody.
    pub fn new(words: Words, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Usage> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let seconds = |word: Option<OsString>, name: &str, flag: &str, least: u64, default: u64| {
            let (value, source) = match word {
                Some(word) => (word, flag),
                None => match set(name) {
                    Some(value) => (value, name),
                    None => return Ok(Duration::from_secs(default)),
                },
            };
            parse_seconds(&value, source, least)
        };
        let max_idle = seconds(words.max_idle, "BASH_TMATE_MAX_IDLE", "MAX_IDLE", 1, MAX_IDLE)?;
        let connect_timeout =
            seconds(words.connect_timeout, "BASH_TMATE_CONNECT_TIMEOUT", "--connect-timeout", 1, CONNECT_TIMEOUT)?;
        let repeat = seconds(words.repeat, "BASH_TMATE_REPEAT", "--repeat", 0, REPEAT)?;
        let max_duration = seconds(words.max_duration, "BASH_TMATE_MAX_DURATION", "--max-duration", 0, MAX_DURATION)?;
        let public = match set("BASH_TMATE_PUBLIC_SERVER") {
            _ if words.public_server => true,
            Some(value) if words.server.is_none() => parse_switch(&value, "BASH_TMATE_PUBLIC_SERVER")?,
            _ => false,
        };
        let verbose = match set("BASH_TMATE_VERBOSE") {
            Some(value) if !words.verbose => parse_switch(&value, "BASH_TMATE_VERBOSE")?,
            _ => words.verbose,
        };
        if words.public_server && words.server.is_some() {
            return Err(Usage("`--public-server` and `--server` name two servers".into()));
        }
        let server = if public { Server::Public } else { find_server(words.server, &set)? };
        Ok(Self {
            fingerprints: find_fingerprints(&words.fingerprints, &server, &set)?,
            server,
            max_idle,
            connect_timeout,
            repeat: Some(repeat).filter(|repeat| !repeat.is_zero()),
            max_duration: Some(max_duration).filter(|duration| !duration.is_zero()),
            keys: find_keys(words.authorized_keys, variable("BASH_TMATE_AUTHORIZED_KEYS"))?,
            continue_file: words.continue_file.or_else(|| set("BASH_TMATE_CONTINUE_FILE")).map(PathBuf::from),
            command: words.command.or_else(|| set("BASH_TMATE_COMMAND")),
            verbose,
        })
    }
}

fn find_server(word: Option<OsString>, set: &impl Fn(&str) -> Option<OsString>) -> Result<Server, Usage> {
    if let Some(word) = word {
        return parse_server(&word, "--server");
    }
    if let Some(value) = set("BASH_TMATE_SERVER") {
        return parse_server(&value, "BASH_TMATE_SERVER");
    }
    let port = set("TMATE_SERVER_PORT").map(|port| parse_port(&port, "TMATE_SERVER_PORT")).transpose()?;
    let Some(host) = set("TMATE_SERVER_HOST") else { return Ok(Server::OfConf { port }) };
    match parse_server(&host, "TMATE_SERVER_HOST")? {
        Server::Named { host, port: in_host } => Ok(Server::Named { host, port: port.unwrap_or(in_host) }),
        other => Ok(other),
    }
}

fn find_fingerprints(
    words: &[OsString],
    server: &Server,
    set: &impl Fn(&str) -> Option<OsString>,
) -> Result<Fingerprints, Usage> {
    if !words.is_empty() {
        return parse_fingerprints(words.iter().map(OsString::as_os_str), "--fingerprint");
    }
    if *server == Server::Public {
        return Ok(Fingerprints::default());
    }
    if let Some(value) = set("BASH_TMATE_FINGERPRINT") {
        let words = value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return parse_fingerprints(words.map(OsStr::from_bytes), "BASH_TMATE_FINGERPRINT");
    }
    let one = |name: &str, kind: &str| {
        let Some(value) = set(name) else { return Ok(None) };
        let typed = OsString::from_vec([kind.as_bytes(), b":", value.as_bytes()].concat());
        parse_fingerprints([typed.as_os_str()].into_iter(), name).map(|parsed| parsed.of(kind).map(str::to_owned))
    };
    Ok(Fingerprints {
        rsa: one("TMATE_SERVER_RSA_FINGERPRINT", "rsa")?,
        ecdsa: one("TMATE_SERVER_ECDSA_FINGERPRINT", "ecdsa")?,
        ed25519: one("TMATE_SERVER_ED25519_FINGERPRINT", "ed25519")?,
    })
}

fn find_keys(words: Vec<OsString>, lines: Option<OsString>) -> Result<Keys, Usage> {
    if words.is_empty() {
        return Ok(lines.map_or(Keys::Unset, |lines| Keys::Lines(lines.into_vec())));
    }
    let files = words.into_iter().map(|word| match word.as_bytes() {
        b"" => Err(Usage("`--authorized-keys` names no file".into())),
        b"-" => Ok(KeyFile::Stdin),
        _ => Ok(KeyFile::Path(word.into())),
    });
    Ok(Keys::Files(files.collect::<Result<_, _>>()?))
}

fn parse_seconds(value: &OsStr, source: &str, least: u64) -> Result<Duration, Usage> {
    let seconds = value
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (least..=LONGEST).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        Usage(format!("{source} is `{}`, which is no number of seconds from {least} to {LONGEST}", shown(value)))
    })
}

fn parse_switch(value: &OsStr, source: &str) -> Result<bool, Usage> {
    match value.as_bytes() {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ => Err(Usage(format!("{source} is `{}`, neither 1 nor 0", shown(value)))),
    }
}

#[cfg(test)]
mod tests;
