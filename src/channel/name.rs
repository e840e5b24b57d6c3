//! What may be called a channel, and what a commit.
//! It must never let a character through that means something to a shell, a URL or a tag.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// The name of a channel: `nixos-unstable`, `nixpkgs-unstable`, `nixos-26.05`, `nixos-26.05-small`,
/// `nixpkgs-26.05-darwin`, and others of the same form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Channel(String);

/// The text is no channel's name.
#[derive(Debug, PartialEq, Eq)]
pub struct NoChannel(String);

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no name of a channel, such as `nixos-26.05` or `nixpkgs-unstable`", self.0.escape_debug())
    }
}

impl std::error::Error for NoChannel {}

impl Channel {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `-`, and the rest: `nixos` and `26.05-small`.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('-').unwrap_or((&self.0, ""))
    }

    /// Year and month of a stable channel of NixOS without a variant, `nixos-YY.MM`.
    pub fn stable(&self) -> Option<(u8, u8)> {
        match self.parts() {
            ("nixos", rest) => version(rest),
            _ => None,
        }
    }
}

impl FromStr for Channel {
    type Err = NoChannel;

    fn from_str(text: &str) -> Result<Self, NoChannel> {
        let mut parts = text.split('-');
        let family = matches!(parts.next(), Some("nixos" | "nixpkgs"));
        let branch = parts.next().is_some_and(|branch| branch == "unstable" || version(branch).is_some());
        let is_variant = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if family && branch && parts.all(is_variant) && text.len() <= 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoChannel(text.to_owned()))
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `YY.MM`.
pub(super) fn version(text: &str) -> Option<(u8, u8)> {
    let (year, month) = text.split_once('.')?;
    let number = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u8>().ok()).flatten()
    };
    Some((number(year)?, number(month).filter(|month| (1..=12).contains(month))?))
}

/// The id of a commit: 40 hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Commit(String);

/// The text is no commit's id.
#[derive(Debug, PartialEq, Eq)]
pub struct NoCommit(String);

impl fmt::Display for NoCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.0.chars().take(60).collect();
        write!(f, "`{}` is no commit: it is not 40 hexadecimal digits in lower case", start.escape_debug())
    }
}

impl std::error::Error for NoCommit {}

impl Commit {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for Commit {
    type Err = NoCommit;

    fn from_str(text: &str) -> Result<Self, NoCommit> {
        if text.len() == 40 && is_lower_hex(text) { Ok(Self(text.to_owned())) } else { Err(NoCommit(text.to_owned())) }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_the_pattern_whole() {
        for (name, stable) in [
            ("nixos-unstable", None),
            ("nixos-unstable-small", None),
            ("nixpkgs-unstable", None),
            ("nixos-26.05", Some((26, 5))),
            ("nixos-09.11", Some((9, 11))),
            ("nixos-26.05-small", None),
            ("nixos-18.03-aarch64", None),
            ("nixpkgs-26.05-darwin", None),
            ("nixpkgs-26.05", None),
        ] {
            assert_eq!(name.parse::<Channel>().unwrap().stable(), stable, "{name}");
        }
        for bad in [
            "",
            "nixos",
            "nixos-",
            "nixos-26.5",
            "nixos-26.13",
            "nixos-26.00",
            "nixos-026.05",
            "nixos-+6.05",
            "nixos-26.05-",
            "nixos-26.05--small",
            "nixos-26.05 ",
            " nixos-26.05",
            "nixos-26.05\n",
            "nixos-26.05;reboot",
            "nixos-$(id)",
            "nixos-unstable/../x",
            "Nixos-unstable",
            "nixos-Unstable",
            "release-26.05",
            "xnixos-unstable",
            "nixos-unstable.small",
            "nixos-26.05-smäll",
            "refs/heads/nixos-26.05",
        ] {
            assert!(bad.parse::<Channel>().is_err(), "{bad}");
        }
        let long = format!("nixos-unstable-{}", "x".repeat(64));
        assert!(long.parse::<Channel>().is_err());
    }

    #[test]
    fn a_commit_is_forty_digits() {
        assert!("0123456789abcdef0123456789abcdef01234567".parse::<Commit>().is_ok());
        for bad in ["", "0123456789abcdef0123456789abcdef0123456", "0123456789ABCDEF0123456789abcdef01234567"] {
            assert!(bad.parse::<Commit>().is_err());
        }
        let page = format!("<html>{}", "x".repeat(1000)).parse::<Commit>().unwrap_err().to_string();
        assert!(page.len() < 150, "{page}");
    }
}
