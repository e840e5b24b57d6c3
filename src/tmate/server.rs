//! Which tmate server a session goes through, and the fingerprints by which it is known.
//! It must never let a session start at a server that was not named, or without a fingerprint.

use std::ffi::OsStr;
use std::fmt;

use crate::failure::{Usage, shown};

/// The public server, shut down in 2025.
pub const PUBLIC_HOST: &str = "ssh.tmate.io";
/// The port of SSH, and tmate's default.
pub const DEFAULT_PORT: u16 = 22;
/// What the host is set to before the user's conf is read: no connection to this address can be made, so
/// while it stands nobody has named a server, and nothing has been contacted.
pub const NO_HOST: &str = "255.255.255.255";

/// Which server was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// By an option or a variable.
    Named {
        /// A name or an address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// By the user's `~/.tmate.conf`, if at all.
    OfConf {
        /// A port in place of the conf's.
        port: Option<u16>,
    },
    /// ssh.tmate.io, with tmate's own fingerprints.
    Public,
}

/// `SHA256:…` of the host key of each kind. A server shows one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of an RSA key.
    pub rsa: Option<String>,
    /// Of an ECDSA key.
    pub ecdsa: Option<String>,
    /// Of an Ed25519 key.
    pub ed25519: Option<String>,
}

/// The kinds of host keys that tmate has an option for.
pub const KINDS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

impl Fingerprints {
    /// That of `kind`.
    pub fn of(&self, kind: &str) -> Option<&str> {
        match kind {
            "rsa" => self.rsa.as_deref(),
            "ecdsa" => self.ecdsa.as_deref(),
            "ed25519" => self.ed25519.as_deref(),
            _ => None,
        }
    }

    /// That of `kind`, to be changed.
    pub fn slot(&mut self, kind: &str) -> Option<&mut Option<String>> {
        match kind {
            "rsa" => Some(&mut self.rsa),
            "ecdsa" => Some(&mut self.ecdsa),
            "ed25519" => Some(&mut self.ed25519),
            _ => None,
        }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What tmate says it will connect to, after all confs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// `tmate-server-host`.
    pub host: String,
    /// `tmate-server-port`.
    pub port: String,
    /// `tmate-server-*-fingerprint`.
    pub fingerprints: Fingerprints,
    /// `tmate-authorized-keys`.
    pub authorized_keys: String,
    /// `tmate-set`, which may hold keys too.
    pub set: String,
}

/// Why a session must not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has named a server.
    NoServer,
    /// By name, or because that is what tmate would take; `--public-server` was not given.
    PublicServer,
    /// Any server could stand in for this one.
    NoFingerprint {
        /// Its name.
        host: String,
        /// Its port.
        port: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => {
                f.write_str("no tmate server is set, and the public one, ssh.tmate.io, has been shut down")
            }
            Self::PublicServer => f.write_str("the public tmate server, ssh.tmate.io, has been shut down"),
            Self::NoFingerprint { host, port } => {
                write!(f, "no fingerprint is set for the tmate server `{host}`, port {port}")
            }
        }
    }
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoServer | Self::PublicServer => {
                "set `--server` and `--fingerprint`, or TMATE_SERVER_HOST and TMATE_SERVER_ED25519_FINGERPRINT; \
                 docs/tmate.md in nixkit's repository shows how to run your own server (`--public-server` tries \
                 ssh.tmate.io anyway)"
                    .into()
            }
            Self::NoFingerprint { host, port } => {
                let port = if *port == DEFAULT_PORT.to_string() { String::new() } else { format!(" -p {port}") };
                format!("`ssh-keyscan{port} {host} | ssh-keygen -lf -` prints it; give it as `--fingerprint SHA256:…`")
            }
        }
    }
}

/// Whether a session may go on to what tmate says it will connect to.
pub fn check(wanted: &Server, effective: &Effective) -> Result<(), Refusal> {
    let Effective { host, port, fingerprints, .. } = effective;
    if host == NO_HOST || host.is_empty() {
        return Err(Refusal::NoServer);
    }
    if *wanted != Server::Public && host.trim_end_matches('.').eq_ignore_ascii_case(PUBLIC_HOST) {
        return Err(Refusal::PublicServer);
    }
    if fingerprints.is_empty() {
        return Err(Refusal::NoFingerprint { host: host.clone(), port: port.clone() });
    }
    Ok(())
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`, or an IPv6 address.
pub fn parse_server(value: &OsStr, source: &str) -> Result<Server, Usage> {
    let bad = |why: &str| Usage(format!("{source} is `{}`: {why}", shown(value)));
    let text = value.to_str().ok_or_else(|| bad("it is no text"))?;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| bad("the `]` is missing"))?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(bad("after `]` comes `:PORT` or nothing")),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        }
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    if host.is_empty() || host.starts_with('-') || !host.bytes().all(allowed) {
        return Err(bad("it is not HOST[:PORT]"));
    }
    let port = port.map_or(Ok(DEFAULT_PORT), |port| parse_port(OsStr::new(port), source))?;
    Ok(Server::Named { host: host.to_owned(), port })
}

/// A port from 1 to 65535.
pub fn parse_port(value: &OsStr, source: &str) -> Result<u16, Usage> {
    value
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| Usage(format!("{source}: `{}` is no port", shown(value))))
}

/// Each `[KIND:]SHA256:BASE64`. One without a kind fills the slots that no other fills.
pub fn parse_fingerprints<'a>(words: impl Iterator<Item = &'a OsStr>, source: &str) -> Result<Fingerprints, Usage> {
    let (mut found, mut for_all) = (Fingerprints::default(), None);
    for word in words {
        let bad = |why: &str| Usage(format!("{source}: `{}` {why}", shown(word)));
        let text = word.to_str().ok_or_else(|| bad("is no text"))?;
        let (kind, print) = match text.split_once(':') {
            Some((kind, rest)) if KINDS.contains(&kind) => (Some(kind), rest),
            _ => (None, text),
        };
        let digest = print.strip_prefix("SHA256:").ok_or_else(|| bad("is not [rsa:|ecdsa:|ed25519:]SHA256:…"))?;
        // ssh-keygen leaves the padding out, and tmate compares the text.
        let digest = digest.trim_end_matches('=');
        // 32 bytes in base64.
        if digest.len() != 43 || !digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte)) {
            return Err(bad("does not hold the 43 characters of a SHA256 fingerprint"));
        }
        let print = format!("SHA256:{digest}");
        let slot = match kind {
            Some(kind) => found.slot(kind).ok_or_else(|| bad("is of an unknown kind"))?,
            None => &mut for_all,
        };
        if slot.replace(print).is_some() {
            return Err(match kind {
                Some(kind) => Usage(format!("{source}: two fingerprints of kind {kind}")),
                None => Usage(format!("{source}: two fingerprints without a kind; write `ed25519:SHA256:…`")),
            });
        }
    }
    for kind in KINDS {
        if let Some(slot @ None) = found.slot(kind) {
            slot.clone_from(&for_all);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
