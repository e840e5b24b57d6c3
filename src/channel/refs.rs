//! Reads `git ls-remote` and selects the channels that get images.
//! It must never drop a channel in silence: each that was named and is not there comes back with a reason.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};

use super::{Channel, Commit};

/// Each channel's branch and the commit that it points to.
pub type Heads = BTreeMap<Channel, Commit>;

/// Which channels get images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Channels that move for ever.
    pub rolling: Vec<Channel>,
    /// How many of the newest `nixos-YY.MM`.
    pub stable: usize,
    /// Others, each by its name.
    pub extra: Vec<Channel>,
    /// What is never built, whatever else selects it.
    pub exclude: Vec<Channel>,
}

/// Reads the output of `git ls-remote URL refs/heads/…`. Branches that are no channels are left out; a line
/// that is not git's is an error, since then the answer is somebody else's.
pub fn parse_heads(text: &str) -> anyhow::Result<Heads> {
    let mut heads = Heads::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = || anyhow!("line {} is `{}`", at + 1, line.chars().take(80).collect::<String>().escape_debug());
        let (commit, name) = line.split_once('\t').ok_or_else(wrong)?;
        let commit: Commit = commit.parse().map_err(|_| wrong())?;
        let Some(branch) = name.strip_prefix("refs/heads/") else { continue };
        if let Ok(channel) = branch.parse() {
            heads.insert(channel, commit);
        }
    }
    if heads.is_empty() {
        bail!("it has no branch with the name of a channel");
    }
    Ok(heads)
}

/// Why a channel gets no image now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unselected {
    /// It is named, but the repository has no such branch.
    Missing(Channel),
    /// It was selected once, or would be but for newer ones: its images stay as they are.
    Frozen(Channel),
}

/// The channels that get images, in the order of their names, and the others that are worth a word.
pub fn select(heads: &Heads, selection: &Selection) -> (Vec<Channel>, Vec<Unselected>) {
    let excluded = |channel: &Channel| selection.exclude.contains(channel);
    let mut stable: Vec<_> = heads.keys().filter(|channel| channel.stable().is_some() && !excluded(channel)).collect();
    stable.sort_by_key(|channel| channel.stable());
    let older = stable.len().saturating_sub(selection.stable);
    let (mut channels, mut others) = (Vec::new(), Vec::new());
    for channel in selection.rolling.iter().chain(&selection.extra).filter(|channel| !excluded(channel)) {
        if heads.contains_key(channel) {
            channels.push(channel.clone());
        } else {
            others.push(Unselected::Missing(channel.clone()));
        }
    }
    channels.extend(stable[older..].iter().map(|channel| (*channel).clone()));
    channels.sort();
    channels.dedup();
    let frozen = stable[..older].iter().filter(|channel| !channels.contains(channel));
    others.extend(frozen.map(|channel| Unselected::Frozen((*channel).clone())));
    (channels, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn heads(names: &[&str]) -> Heads {
        let lines: Vec<_> = names.iter().map(|name| format!("{:040x}\trefs/heads/{name}", name.len())).collect();
        parse_heads(&lines.join("\n")).unwrap()
    }

    #[test]
    fn only_channels_are_read_from_the_branches() {
        let heads = heads(&["nixos-26.05", "nixos-unstable", "nixos-evil;reboot", "nixpkgs-$(id)", "master"]);
        let names: Vec<_> = heads.keys().map(Channel::as_str).collect();
        assert_eq!(names, ["nixos-26.05", "nixos-unstable"]);
    }

    #[test]
    fn rubbish_is_an_error_that_shows_it() {
        let good = format!("{:040x}\trefs/heads/nixos-26.05\n", 1);
        for (text, message) in [
            ("", "it has no branch with the name of a channel".to_owned()),
            ("<html>busy</html>", "line 1 is `<html>busy</html>`".into()),
            (&format!("{good}0123\trefs/heads/nixos-25.11"), "line 2 is `0123\\trefs/heads/nixos-25.11`".into()),
            (&format!("{:040x}\trefs/heads/main\n", 1), "it has no branch with the name of a channel".into()),
        ] {
            assert_eq!(parse_heads(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn selection_is_a_table() {
        let all =
            ["nixos-unstable", "nixpkgs-unstable", "nixos-24.11", "nixos-25.05", "nixos-25.11", "nixos-26.05-small"];
        let selection = |rolling: &[&str], stable, extra: &[&str], exclude: &[&str]| Selection {
            rolling: channels(rolling),
            stable,
            extra: channels(extra),
            exclude: channels(exclude),
        };
        let frozen = |names: &[&str]| channels(names).into_iter().map(Unselected::Frozen).collect::<Vec<_>>();
        for (selection, expected, others) in [
            (
                selection(&["nixos-unstable", "nixpkgs-unstable"], 2, &[], &[]),
                &["nixos-25.05", "nixos-25.11", "nixos-unstable", "nixpkgs-unstable"][..],
                frozen(&["nixos-24.11"]),
            ),
            (selection(&[], 9, &[], &[]), &["nixos-24.11", "nixos-25.05", "nixos-25.11"], vec![]),
            (selection(&[], 0, &[], &[]), &[], frozen(&["nixos-24.11", "nixos-25.05", "nixos-25.11"])),
            // A variant is nobody's stable channel, but may be named.
            (
                selection(&[], 1, &["nixos-26.05-small", "nixos-24.11"], &[]),
                &["nixos-24.11", "nixos-25.11", "nixos-26.05-small"],
                frozen(&["nixos-25.05"]),
            ),
            // What is excluded leaves its place to the next.
            (
                selection(&["nixos-unstable"], 1, &[], &["nixos-25.11", "nixos-unstable"]),
                &["nixos-25.05"],
                frozen(&["nixos-24.11"]),
            ),
            (
                selection(&["nixos-unstable-small"], 0, &[], &["nixos-24.11", "nixos-25.05", "nixos-25.11"]),
                &[],
                vec![Unselected::Missing("nixos-unstable-small".parse().unwrap())],
            ),
        ] {
            assert_eq!(select(&heads(&all), &selection), (channels(expected), others), "{selection:?}");
        }
    }

    #[test]
    fn a_new_stable_channel_appears_and_the_oldest_freezes() {
        let selection = Selection { stable: 2, ..Selection::default() };
        let before = select(&heads(&["nixos-25.05", "nixos-25.11"]), &selection);
        assert_eq!(before, (channels(&["nixos-25.05", "nixos-25.11"]), vec![]));
        let after = select(&heads(&["nixos-25.05", "nixos-25.11", "nixos-26.05"]), &selection);
        assert_eq!(after.0, channels(&["nixos-25.11", "nixos-26.05"]));
        assert_eq!(after.1, [Unselected::Frozen("nixos-25.05".parse().unwrap())]);
    }
}
