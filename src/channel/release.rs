//! One update of a channel: the commit, and the release that was made of it.
//! It must never order releases as text: 26.05.1000 comes after 26.05.999.

use std::fmt;

use serde::{Serialize, Serializer};

use super::name::{is_lower_hex, version};
use super::{Channel, Commit};

/// A release as the public listing names it: `nixos-26.05.7273.0123456789ab`, `nixos-26.11pre912345.0123456789ab`.
///
/// They are ordered as they were made: within one version `pre` comes before `beta` and that before the
/// numbers after the release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    version: (u8, u8),
    stage: Stage,
    number: u64,
    /// The first digits of the commit.
    short: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pre,
    Beta,
    Final,
}

impl Release {
    /// Reads the last component of a directory in the listing. `None` for what is none of the channel's.
    pub fn parse(directory: &str, channel: &Channel) -> Option<Self> {
        // Of nixpkgs-26.05-darwin they are called `nixpkgs-darwin-…`.
        let (family, _) = channel.parts();
        let rest = directory.strip_prefix(family)?.strip_prefix('-')?;
        let rest = rest.strip_prefix("darwin-").unwrap_or(rest);
        let (number, short) = rest.rsplit_once('.')?;
        let shortest = 7;
        if !(shortest..=40).contains(&short.len()) || !is_lower_hex(short) {
            return None;
        }
        let (version, stage, number) = parse_number(number)?;
        Some(Self { version, stage, number, short: short.to_owned() })
    }

    /// Whether it may be the release of `commit`.
    pub fn is_of(&self, commit: &Commit) -> bool {
        commit.as_str().starts_with(&self.short)
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

/// What a channel pointed to at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Update {
    /// The commit of nixpkgs.
    pub commit: Commit,
    /// Its release number, where the listing has it.
    pub release: Option<Release>,
}

/// The last `history` of `releases` (oldest first) up to that of `head`, the commit that the channel's branch
/// points to. What was released after it is not the channel's yet: the branch moves later. Where `head` has no
/// release, it is one of the updates beside them.
pub fn window<'a>(releases: &'a [Release], head: &Commit, history: usize) -> &'a [Release] {
    let (end, length) = match releases.iter().rposition(|release| release.is_of(head)) {
        Some(at) => (at + 1, history),
        None => (releases.len(), history.saturating_sub(1)),
    };
    &releases[end.saturating_sub(length)..end]
}

/// A commit's release: the newest that it has.
pub fn release_of(commit: &Commit, releases: &[Release]) -> Option<Release> {
    releases.iter().rfind(|release| release.is_of(commit)).cloned()
}

/// The updates of a channel, oldest first, the one of `head` last. `past` are releases with their commits, in
/// the same order. Each commit stands once, with its newest release.
pub fn updates(head: &Commit, past: &[(Release, Commit)]) -> Vec<Update> {
    let mut updates: Vec<Update> = Vec::new();
    for (release, commit) in past {
        updates.retain(|update| update.commit != *commit);
        updates.push(Update { commit: commit.clone(), release: Some(release.clone()) });
    }
    let known = updates.iter().position(|update| update.commit == *head);
    let last = known.map_or_else(|| Update { commit: head.clone(), release: None }, |at| updates.remove(at));
    updates.push(last);
    updates
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        name.parse().unwrap()
    }

    pub(crate) fn commit(number: u64) -> Commit {
        format!("{number:08x}{}", "0".repeat(32)).parse().unwrap()
    }

    pub(crate) fn release(number: u64) -> Release {
        Release::parse(&format!("nixos-26.05.{number}.{number:08x}0000"), &channel("nixos-26.05")).unwrap()
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

    #[test]
    fn the_window_ends_at_the_branch() {
        let releases: Vec<_> = (1..=9).map(release).collect();
        let numbers = |head: u64, history: usize| -> Vec<u64> {
            window(&releases, &commit(head), history).iter().map(|release| release.number).collect()
        };
        assert_eq!(numbers(9, 3), [7, 8, 9]);
        assert_eq!(numbers(5, 3), [3, 4, 5], "what was released later is not the channel's yet");
        assert_eq!(numbers(2, 16), [1, 2]);
        assert_eq!(numbers(77, 3), [8, 9], "the branch itself is the third");
        assert_eq!(numbers(77, 1), [0; 0]);
        assert_eq!(numbers(77, 0), [0; 0]);
    }

    proptest! {
        #[test]
        fn updates_are_each_commit_once_and_the_branch_last(
            past in proptest::collection::vec((0_u64..50, 0_u64..6), 0..20), head in 0_u64..6
        ) {
            let past: Vec<_> = past.into_iter().map(|(number, c)| (release(number), commit(c))).collect();
            let updates = updates(&commit(head), &past);
            prop_assert_eq!(&updates.last().unwrap().commit, &commit(head));
            for (i, update) in updates.iter().enumerate() {
                prop_assert!(updates[..i].iter().all(|other| other.commit != update.commit));
            }
            for (_, commit) in &past {
                prop_assert!(updates.iter().any(|update| update.commit == *commit));
            }
        }

        #[test]
        fn numbers_survive_being_written_and_read(year in 0_u8..100, month in 1_u8..13, number: u64, stage in 0..3) {
            let stage = [Stage::Pre, Stage::Beta, Stage::Final][usize::try_from(stage).unwrap()];
            let written = Release { version: (year, month), stage, number, short: String::new() }.to_string();
            prop_assert_eq!(parse_number(&written), Some(((year, month), stage, number)));
        }
    }
}
