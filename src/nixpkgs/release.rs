//! A release of a channel: its number, and the commit that it was made of.
//! It must never order releases as text: 26.05.1000 comes after 26.05.999.

use std::fmt;

use serde::{Serialize, Serializer};

use super::name::version;
use super::{Channel, Commit, Revision};

/// A release as the public listing names it: `nixos-26.05.7273.0123456789ab`, `nixos-26.11pre912345.0123456789ab`.
///
/// They are ordered as they were made: within one version `pre` comes before `beta` and that before the
/// numbers after the release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    version: (u8, u8),
    stage: Stage,
    number: u64,
    commit: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pre,
    Beta,
    Final,
}

impl Release {
    /// Reads the last component of a directory in the listing. `None` if it is not a release of the channel.
    pub fn parse(directory: &str, channel: &Channel) -> Option<Self> {
        Self::parse_any(directory).filter(|(family, _)| *family == channel.parts().0).map(|(_, release)| release)
    }

    /// The same for any channel: the family of the channel, `nixos` or `nixpkgs`, and the release.
    pub fn parse_any(directory: &str) -> Option<(&str, Self)> {
        let (family, rest) = directory.split_once('-').filter(|(family, _)| matches!(*family, "nixos" | "nixpkgs"))?;
        // Releases of nixpkgs-26.05-darwin are called `nixpkgs-darwin-…`.
        let rest = rest.strip_prefix("darwin-").unwrap_or(rest);
        let (number, short) = rest.rsplit_once('.')?;
        let commit = Revision::read(short).filter(|revision| revision.digits() == short)?;
        let (version, stage, number) = parse_number(number)?;
        Some((family, Self { version, stage, number, commit }))
    }

    /// The first digits of the commit, or all of them.
    pub fn revision(&self) -> &Revision {
        &self.commit
    }

    /// Whether it may be the release of `commit`.
    pub fn is_of(&self, commit: &Commit) -> bool {
        commit.as_str().starts_with(self.commit.digits())
    }

    /// Orders two release numbers, such as `26.05.7273`, as the releases were made.
    pub fn compare_numbers(one: &str, other: &str) -> Option<std::cmp::Ordering> {
        Some(parse_number(one)?.cmp(&parse_number(other)?))
    }
}

fn parse_number(text: &str) -> Option<((u8, u8), Stage, u64)> {
    let (head, rest) = text.split_at_checked(5)?;
    let (stage, number) = None
        .or_else(|| Some((Stage::Final, rest.strip_prefix('.')?)))
        .or_else(|| Some((Stage::Pre, rest.strip_prefix("pre")?)))
        .or_else(|| Some((Stage::Beta, rest.strip_prefix("beta")?)))?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((version(head)?, stage, number.parse().ok()?))
}

/// The release number, which is a tag of the image: `26.05.7273` or `26.11pre912345`.
impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = self.version;
        let stage = match self.stage {
            Stage::Pre => "pre",
            Stage::Beta => "beta",
            Stage::Final => ".",
        };
        write!(f, "{year:02}.{month:02}{stage}{}", self.number)
    }
}

impl Serialize for Release {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        name.parse().unwrap()
    }

    #[test]
    fn releases_are_read_as_the_listing_names_them() {
        for (name, directory, number) in [
            ("nixos-26.05", "nixos-26.05.7273.0123456789ab", "26.05.7273"),
            ("nixos-26.05", "nixos-26.05beta12.0123456", "26.05beta12"),
            ("nixos-26.05-small", "nixos-26.05.7273.0123456789ab", "26.05.7273"),
            ("nixos-unstable", "nixos-26.11pre912345.0123456789ab", "26.11pre912345"),
            ("nixpkgs-unstable", "nixpkgs-26.11pre912345.0123456789ab", "26.11pre912345"),
            ("nixpkgs-26.05-darwin", "nixpkgs-darwin-26.05pre1.0123456789ab", "26.05pre1"),
        ] {
            assert_eq!(Release::parse(directory, &channel(name)).unwrap().to_string(), number, "{directory}");
        }
        for bad in [
            "",
            "nixos-",
            "nixos-26.05",
            "nixos-26.05.7273",
            "nixos-26.05.7273.xyz",
            "nixos-26.05.7273.012345",
            "nixos-26.05.-1.0123456789ab",
            "nixos-26.05..0123456789ab",
            "nixos-26.05.99999999999999999999.0123456789ab",
            "nixos-26.13.1.0123456789ab",
            "nixpkgs-26.05.7273.0123456789ab",
            "nixos-26.05rc1.0123456789ab",
            "nixos-ä6.05.1.0123456789ab",
        ] {
            assert_eq!(Release::parse(bad, &channel("nixos-26.05")), None, "{bad}");
        }
    }

    #[test]
    fn releases_are_ordered_as_they_were_made() {
        let numbers = ["25.11.9999", "26.05pre7", "26.05pre10", "26.05beta2", "26.05.999", "26.05.1000", "26.11pre1"];
        for pair in numbers.windows(2) {
            assert_eq!(Release::compare_numbers(pair[0], pair[1]), Some(std::cmp::Ordering::Less), "{pair:?}");
        }
        assert_eq!(Release::compare_numbers("26.05.1", "latest"), None);
    }

    proptest! {
        #[test]
        fn numbers_survive_being_written_and_read(year in 0_u8..100, month in 1_u8..13, number: u64, stage in 0..3) {
            let stage = [Stage::Pre, Stage::Beta, Stage::Final][usize::try_from(stage).unwrap()];
            let written = Release { version: (year, month), stage, number, commit: Revision::Prefix(String::new()) }.to_string();
            prop_assert_eq!(parse_number(&written), Some(((year, month), stage, number)));
        }
    }
}
