//! Reads what the registry has of a channel.
//! It must never fill a gap in what it could read: then there is no state of that channel.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

use super::config::System;
use super::judge::{ChannelState, CommitState, Index, SystemImage, Tag, Wanted};
use super::moving::Pointed;
use crate::channel::{Commit, Update};
use crate::oci::{Descriptor, Digest, labels};
use crate::registry::skopeo::{Skopeo, Tags};
use crate::registry::{Labels, Manifest, parse_manifest};

/// The tag that people get without naming one.
pub const LATEST: &str = "latest";

/// The tag of one system's image.
pub fn staged_tag(commit: &Commit, system: System) -> String {
    format!("{commit}-{system}")
}

/// A repository that is asked.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    /// Asks.
    pub skopeo: &'a Skopeo,
    /// Registry and name.
    pub repository: &'a str,
    /// The systems of each image, and the input hash of each for the newest commit.
    pub wanted: Wanted<'a>,
}

impl Survey<'_> {
    /// Everything of a channel with these updates, the newest last. Of older ones only what is not there is
    /// looked at more closely: registries count the manifests that are read.
    pub fn channel(&self, updates: &[Update]) -> anyhow::Result<ChannelState> {
        let listed = match self.skopeo.tags(self.repository)? {
            Tags::Listed(tags) => tags.into_iter().collect(),
            Tags::Unlisted(message) => {
                // So says a registry of a repository that does not exist, which the newest tag tells.
                let newest = updates.last().context("no update")?.commit.as_str();
                if self.skopeo.raw(&self.reference(newest))?.is_some() {
                    bail!("cannot list the tags of `{}`: {message}", self.repository);
                }
                BTreeSet::new()
            }
        };
        let mut commits = BTreeMap::new();
        for (at, update) in updates.iter().enumerate() {
            let newest = at + 1 == updates.len();
            let state = self
                .listed_commit(update, newest, &listed)
                .with_context(|| format!("cannot find out which images of {} there are", update.commit.short()))?;
            commits.insert(update.commit.clone(), state);
        }
        let newest =
            updates.last().and_then(|update| commits.get(&update.commit)).map(|state: &CommitState| &state.index);
        let newest = newest.and_then(|index| if let Tag::Read(index) = index { Some(&index.pointed) } else { None });
        let latest = self.pointed(LATEST, newest)?;
        Ok(ChannelState { commits, latest })
    }

    /// One commit, read without regard to any list.
    pub fn commit(&self, update: &Update) -> anyhow::Result<CommitState> {
        let index = self.index(update.commit.as_str())?.map_or(Tag::Absent, Tag::Read);
        let staged = self.all_staged(&update.commit, |_| true)?;
        let release = match &update.release {
            None => Tag::Absent,
            Some(release) => self.digest(&release.to_string())?.map_or(Tag::Absent, Tag::Read),
        };
        Ok(CommitState { index, staged, release })
    }

    fn listed_commit(&self, update: &Update, newest: bool, listed: &BTreeSet<String>) -> anyhow::Result<CommitState> {
        let tag = update.commit.as_str();
        let index = match (listed.contains(tag), newest) {
            (true, false) => Tag::Unread,
            // A list may be older than the tag: the tag itself is asked before anything is built.
            (_, true) => self.index(tag)?.map_or(Tag::Absent, Tag::Read),
            (false, false) => self.skopeo.raw(&self.reference(tag))?.map_or(Tag::Absent, |_| Tag::Unread),
        };
        // Where all is in the index, nobody needs to know what it was made from.
        let staged = match &index {
            Tag::Unread => BTreeMap::new(),
            Tag::Read(index) if self.is_up_to_date(index) => BTreeMap::new(),
            _ => self.all_staged(&update.commit, |tag| newest || listed.contains(tag))?,
        };
        let release = match &update.release {
            None => Tag::Absent,
            Some(release) if newest => self.digest(&release.to_string())?.map_or(Tag::Absent, Tag::Read),
            Some(release) if listed.contains(&release.to_string()) => Tag::Unread,
            Some(release) => self.digest(&release.to_string())?.map_or(Tag::Absent, |_| Tag::Unread),
        };
        Ok(CommitState { index, staged, release })
    }

    fn is_up_to_date(&self, index: &Index) -> bool {
        self.wanted.systems.iter().all(|system| {
            let inputs = index.images.get(system).and_then(|image| image.inputs.as_ref());
            inputs.is_some() && inputs == self.wanted.inputs.get(system)
        })
    }

    fn all_staged(
        &self,
        commit: &Commit,
        is_asked: impl Fn(&str) -> bool,
    ) -> anyhow::Result<BTreeMap<System, SystemImage>> {
        let mut staged = BTreeMap::new();
        for &system in self.wanted.systems {
            let tag = staged_tag(commit, system);
            if !is_asked(&tag) {
                continue;
            }
            let Some((digest, raw)) = self.skopeo.raw(&self.reference(&tag))? else { continue };
            let Manifest::Image { media_type, size } = parse_manifest(&raw).with_context(|| self.reference(&tag))?
            else {
                bail!("`{}` is an index and not one image", self.reference(&tag));
            };
            let entry = Descriptor { platform: Some(system.platform()), ..Descriptor::new(&media_type, digest, size) };
            if let Some((image, _)) = self.image(entry)? {
                staged.insert(system, image);
            }
        }
        Ok(staged)
    }

    /// The index under a tag. An image of it that is gone is none of it.
    pub fn index(&self, tag: &str) -> anyhow::Result<Option<Index>> {
        let reference = self.reference(tag);
        let Some((digest, raw)) = self.skopeo.raw(&reference)? else { return Ok(None) };
        let Manifest::Index(entries) =
            parse_manifest(&raw).with_context(|| format!("cannot understand `{reference}`"))?
        else {
            bail!("`{reference}` is one image and not an index of images: this program did not write it");
        };
        let (mut images, mut others, mut labels) = (BTreeMap::new(), Vec::new(), None);
        for entry in entries {
            match entry.platform.as_ref().and_then(System::of_platform) {
                Some(system) => {
                    if let Some((image, read)) = self.image(entry)? {
                        images.insert(system, image);
                        labels.get_or_insert(read);
                    }
                }
                None => others.push(entry),
            }
        }
        let pointed = Pointed::new(digest, &labels.unwrap_or_default());
        Ok(Some(Index { pointed, images, others }))
    }

    /// What a moving tag points to. If that is `known`, nothing more is asked.
    pub fn pointed(&self, tag: &str, known: Option<&Pointed>) -> anyhow::Result<Option<Pointed>> {
        let reference = self.reference(tag);
        let Some((digest, raw)) = self.skopeo.raw(&reference)? else { return Ok(None) };
        if let Some(known) = known.filter(|known| known.digest == digest) {
            return Ok(Some(known.clone()));
        }
        // Somebody else's image has labels too, or none, and then its age is unknown.
        let image = match parse_manifest(&raw).with_context(|| format!("cannot understand `{reference}`"))? {
            Manifest::Index(entries) => entries.into_iter().next().map(|entry| entry.digest),
            Manifest::Image { .. } => Some(digest.clone()),
        };
        let labels = match image {
            Some(image) => self.skopeo.config(&self.by_digest(&image))?.map(|config| config.labels),
            None => None,
        };
        Ok(Some(Pointed::new(digest, &labels.unwrap_or_default())))
    }

    /// The labels of an image that is there.
    pub fn labels(&self, digest: &Digest) -> anyhow::Result<Labels> {
        Ok(self.skopeo.config(&self.by_digest(digest))?.map(|config| config.labels).unwrap_or_default())
    }

    fn digest(&self, tag: &str) -> anyhow::Result<Option<Digest>> {
        Ok(self.skopeo.raw(&self.reference(tag))?.map(|(digest, _)| digest))
    }

    fn image(&self, entry: Descriptor) -> anyhow::Result<Option<(SystemImage, Labels)>> {
        let Some(config) = self.skopeo.config(&self.by_digest(&entry.digest))? else { return Ok(None) };
        let inputs = labels::value(&config.labels, labels::INPUTS).map(ToOwned::to_owned);
        Ok(Some((SystemImage { entry, inputs }, config.labels)))
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }

    fn by_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository)
    }
}
