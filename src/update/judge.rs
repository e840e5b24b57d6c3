//! From a channel's updates and what the registry has of them to the jobs that are left to do.
//! It must never ask for work on an image of an older commit that is there, nor take anything away.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tables;

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::System;
use super::moving::{self, Pointed, Verdict};
use crate::channel::{Channel, Commit, Update};
use crate::oci::{Descriptor, Digest};
use crate::registry::short;

/// The image of one system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemImage {
    /// As it stands in an index.
    pub entry: Descriptor,
    /// Its label: hash of what it was made from.
    pub inputs: Option<String>,
}

/// An index of images that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Digest, and what tells its age.
    pub pointed: Pointed,
    /// The images of the systems that are known here.
    pub images: BTreeMap<System, SystemImage>,
    /// All others, which are kept as they are.
    pub others: Vec<Descriptor>,
}

/// What lies under a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tag<T> {
    /// Nothing: the registry said so.
    #[default]
    Absent,
    /// Something, which need not be read.
    Unread,
    /// This.
    Read(T),
}

/// What the registry has of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitState {
    /// Under `<commit>`.
    pub index: Tag<Index>,
    /// Under `<commit>-<system>`: the images that an index is made from.
    pub staged: BTreeMap<System, SystemImage>,
    /// Under `<release number>`.
    pub release: Tag<Digest>,
}

/// What the registry has of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// Of each of its updates.
    pub commits: BTreeMap<Commit, CommitState>,
    /// Under `latest`.
    pub latest: Option<Pointed>,
}

/// What there shall be.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The systems of each image.
    pub systems: &'a [System],
    /// The input hash of each system's image of the newest commit.
    pub inputs: &'a BTreeMap<System, String>,
}

/// Why an image is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// There is none.
    Missing,
    /// That of the newest commit was made from something else.
    OtherInputs,
}

impl Reason {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "no image",
            Self::OtherInputs => "the recipe changed",
        }
    }
}

/// What is left to do for one commit. A step needs all before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The channel.
    pub channel: Channel,
    /// The commit and its release.
    pub update: Update,
    /// Whether it is the commit that the channel points to.
    pub newest: bool,
    /// Images to build, test and push.
    pub builds: Vec<(System, Reason)>,
    /// Whether the index under `<commit>` is written.
    pub index: bool,
    /// Whether the tag `<release number>` is written.
    pub release: bool,
    /// Whether the tag `latest` is written.
    pub latest: bool,
}

impl Job {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.builds.is_empty() && !self.index && !self.release && !self.latest
    }
}

/// The jobs of a channel, the newest commit's first, and what stands in the way of others. `updates` are
/// oldest first, and the last is the one that the channel points to. A commit of which `state` says nothing
/// is left alone.
pub fn judge(
    channel: &Channel,
    updates: &[Update],
    state: &ChannelState,
    wanted: &Wanted<'_>,
) -> (Vec<Job>, Vec<String>) {
    let (mut jobs, mut problems) = (Vec::new(), Vec::new());
    for (at, update) in updates.iter().enumerate().rev() {
        let Some(commit) = state.commits.get(&update.commit) else { continue };
        let newest = at + 1 == updates.len();
        let (job, problem) = judge_commit(channel, updates, (update, newest), (commit, state.latest.as_ref()), wanted);
        problems.extend(problem);
        if !job.is_done() {
            jobs.push(job);
        }
    }
    (jobs, problems)
}

fn judge_commit(
    channel: &Channel,
    updates: &[Update],
    (update, newest): (&Update, bool),
    (commit, latest): (&CommitState, Option<&Pointed>),
    wanted: &Wanted<'_>,
) -> (Job, Option<String>) {
    let mut job = Job {
        channel: channel.clone(),
        update: update.clone(),
        newest,
        builds: Vec::new(),
        index: false,
        release: false,
        latest: false,
    };
    let is_older_and_there = !newest && commit.index != Tag::Absent;
    if !is_older_and_there {
        job.builds = wanted
            .systems
            .iter()
            .filter_map(|&system| Some((system, build(commit, system, newest, wanted)?)))
            .collect();
        job.index = !job.builds.is_empty() || entries(commit, wanted, newest).is_ok_and(|new| differs(commit, &new));
    }
    job.release = update.release.is_some()
        && match (&commit.release, &commit.index) {
            (Tag::Absent, _) => true,
            (Tag::Read(digest), Tag::Read(index)) if newest => job.index || *digest != index.pointed.digest,
            _ => newest && job.index,
        };
    let mut problem = None;
    if newest {
        job.latest = match &commit.index {
            Tag::Read(index) => match moving::verdict(&index.pointed, latest, updates) {
                Verdict::Move => true,
                // Where the tag is right, it follows the index that is written.
                Verdict::Same => job.index,
                Verdict::Newer => false,
                Verdict::Unknown => {
                    problem = Some(unknown_age(latest));
                    false
                }
            },
            // Whether it may move can be told when the image is there.
            Tag::Absent | Tag::Unread => job.index,
        };
    }
    (job, problem)
}

/// Says that a moving tag stays since its age cannot be told.
pub fn unknown_age(tag: Option<&Pointed>) -> String {
    let digest = tag.map_or_else(|| "nothing".to_owned(), |pointed| short(&pointed.digest));
    format!("`latest` stays where it is: the image `{digest}` does not say whether it is older or newer")
}

/// Why the image of `system` is built, if it is.
fn build(commit: &CommitState, system: System, newest: bool, wanted: &Wanted<'_>) -> Option<Reason> {
    let Some(image) = choose(commit, system, wanted, newest) else { return Some(Reason::Missing) };
    (newest && image.inputs.as_ref() != wanted.inputs.get(&system)).then_some(Reason::OtherInputs)
}

/// The image of `system` that the index shall have, of those that are in the registry. One that was made
/// from what is wanted now comes first; of two such, the one that is in the index already.
pub fn choose<'a>(
    commit: &'a CommitState,
    system: System,
    wanted: &Wanted<'_>,
    newest: bool,
) -> Option<&'a SystemImage> {
    let indexed = match &commit.index {
        Tag::Read(index) => index.images.get(&system),
        Tag::Absent | Tag::Unread => None,
    };
    let staged = commit.staged.get(&system);
    let inputs = wanted.inputs.get(&system);
    let is_wanted = |image: &&SystemImage| newest && image.inputs.as_ref() == inputs;
    let known = indexed.filter(is_wanted).or(staged.filter(is_wanted));
    // What was staged and is in no index yet is the newer one; an older commit's index stays as it is.
    known.or_else(|| if newest { staged.or(indexed) } else { indexed.or(staged) })
}

/// The images of the index under `<commit>`, or the systems of which there is none.
pub fn entries(commit: &CommitState, wanted: &Wanted<'_>, newest: bool) -> Result<Vec<Descriptor>, Vec<System>> {
    let chosen =
        |&system: &System| choose(commit, system, wanted, newest).map(|image| image.entry.clone()).ok_or(system);
    let (found, missing): (Vec<_>, Vec<_>) = wanted.systems.iter().map(chosen).partition(Result::is_ok);
    if !missing.is_empty() {
        return Err(missing.into_iter().filter_map(Result::err).collect());
    }
    let mut entries: Vec<_> = found.into_iter().filter_map(Result::ok).collect();
    // What the index had beside them stays: no tag ever loses an architecture.
    if let Tag::Read(index) = &commit.index {
        let beside = index.images.iter().filter(|(system, _)| !wanted.systems.contains(system));
        entries.extend(beside.map(|(_, image)| image.entry.clone()));
        entries.extend(index.others.iter().cloned());
    }
    Ok(entries)
}

/// Whether the index under `<commit>` is another than one of `entries`.
pub fn differs(commit: &CommitState, entries: &[Descriptor]) -> bool {
    let Tag::Read(index) = &commit.index else { return commit.index == Tag::Absent };
    let sorted = |mut digests: Vec<Digest>| {
        digests.sort();
        digests
    };
    let present = index.images.values().map(|image| &image.entry).chain(&index.others);
    sorted(present.map(|entry| entry.digest.clone()).collect())
        != sorted(entries.iter().map(|entry| entry.digest.clone()).collect())
}
