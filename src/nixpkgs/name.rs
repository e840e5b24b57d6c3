//! The names of channels and the ids of commits.
//! It must never let a character through that means something to a shell, a URL or a tag.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Hexadecimal digits of a whole commit.
const WHOLE: usize = 40;
/// Fewer digits are not taken for a commit.
pub(super) const SHORTEST: usize = 7;

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
        if text.len() == WHOLE && is_lower_hex(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoCommit(text.to_owned()))
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    /// All of it.
    Full(Commit),
    /// The first digits only, in lower case, as in the name of a channel's release.
    Prefix(String),
}

impl Revision {
    /// Reads the first 7 to 40 hexadecimal digits of a commit, in either case.
    pub fn read(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        match lower.parse() {
            Ok(commit) => Some(Self::Full(commit)),
            Err(_) if (SHORTEST..WHOLE).contains(&lower.len()) && is_lower_hex(&lower) => Some(Self::Prefix(lower)),
            Err(_) => None,
        }
    }

    /// Reads a whole commit, in either case.
    pub fn whole(text: &str) -> Option<Self> {
        Self::read(text).filter(Self::is_whole)
    }

    /// The digits that are known.
    pub fn digits(&self) -> &str {
        match self {
            Self::Full(commit) => commit.as_str(),
            Self::Prefix(digits) => digits,
        }
    }

    /// Whether all digits are known.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether `tag` names this commit.
    pub fn is_named_by(&self, tag: &str) -> bool {
        match self {
            Self::Full(commit) => tag == commit.as_str(),
            Self::Prefix(digits) => tag.starts_with(digits.as_str()),
        }
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
    fn a_revision_has_seven_to_forty_digits() {
        let whole = "3b1789322fcbcb5cf51228d732752714f1bf77da";
        assert_eq!(Revision::read(whole), Some(Revision::Full(whole.parse().unwrap())));
        assert_eq!(Revision::read(&whole.to_uppercase()), Revision::read(whole));
        assert_eq!(Revision::read("EABC3821918"), Some(Revision::Prefix("eabc3821918".to_owned())));
        for bad in ["", "eabc38", "eabc382191x", "nixos-25.11", &format!("{whole}0")] {
            assert_eq!(Revision::read(bad), None, "{bad}");
        }
        assert_eq!(Revision::whole("eabc3821918"), None);
        for (own, tag, named) in [
            (whole, whole, true),
            (whole, &whole[..12], false),
            (&whole[..12], whole, true),
            (&whole[..12], &whole[..12], true),
            (&whole[..12], &whole[..11], false),
        ] {
            assert_eq!(Revision::read(own).unwrap().is_named_by(tag), named, "{own} {tag}");
        }
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
