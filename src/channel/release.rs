//! One update of a channel: the commit, and the release that was made of it.
//! It must never drop the commit to which the channel's branch points.

use serde::Serialize;

use super::{Commit, Release};

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
    use crate::channel::Channel;
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
    fn the_window_ends_at_the_branch() {
        let releases: Vec<_> = (1..=9).map(release).collect();
        let numbers = |head: u64, history: usize| -> Vec<String> {
            window(&releases, &commit(head), history).iter().map(ToString::to_string).collect()
        };
        assert_eq!(numbers(9, 3), ["26.05.7", "26.05.8", "26.05.9"]);
        assert_eq!(numbers(5, 3), ["26.05.3", "26.05.4", "26.05.5"], "later releases are not the channel's yet");
        assert_eq!(numbers(2, 16), ["26.05.1", "26.05.2"]);
        assert_eq!(numbers(77, 3), ["26.05.8", "26.05.9"], "the branch itself is the third");
        assert_eq!(numbers(77, 1), [""; 0]);
        assert_eq!(numbers(77, 0), [""; 0]);
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
    }
}
