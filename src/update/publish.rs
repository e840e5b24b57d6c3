//! Does one job: builds, tests, and pushes in an order in which the registry is whole after each step.
//! It must never write a tag that it has not just read, nor an index before all of its images are there.
//!
//! The order is the platforms' images by digest, then each under `<commit>-<system>`, the index under
//! `<commit>`, and the moving tags last. Two runs at once may stage the same image twice; both then read what is
//! staged, so that they write one index.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use fs_err as fs;

use super::config::System;
use super::judge::{CommitState, Index, Job, Tag, differs, entries, judge};
use super::moving::{self, Verdict};
use super::receipt::{JobReceipt, Outcome};
use super::recipe::{Order, Recipe};
use super::survey::{LATEST, Survey, staged_tag};
use crate::channel::Update;
use crate::failure::Interrupted;
use crate::file;
use crate::oci::index::LAYOUT_VERSION;
use crate::oci::{Descriptor, Digest};
use crate::registry::skopeo::What;
use crate::registry::{write_index, write_layout};

/// How often what was written is read again, when another run changes it at the same time.
const ROUNDS: u32 = 3;

/// What all jobs of a channel need.
pub struct Publisher<'a> {
    /// Where the images go.
    pub survey: &'a Survey<'a>,
    /// How they are made.
    pub recipe: &'a Recipe,
    /// The channel's updates, oldest first; that of each job is one of them.
    pub updates: &'a [Update],
    /// The systems whose images are built here.
    pub here: &'a [System],
    /// An empty folder for images.
    pub scratch: &'a Path,
}

impl Publisher<'_> {
    /// Does `job` as far as it can be done here. `say` hears what is being done, `listen` what the recipe prints.
    /// What goes wrong stands in the receipt; an interrupt comes back beside it.
    pub fn publish(
        &self,
        job: &Job,
        say: &dyn Fn(&str),
        listen: &mut dyn FnMut(&[u8]),
    ) -> (JobReceipt, Option<Interrupted>) {
        let started = Instant::now();
        let mut receipt = JobReceipt {
            channel: job.channel.clone(),
            commit: job.update.commit.clone(),
            release: job.update.release.clone(),
            outcome: Outcome::Failed,
            built: Vec::new(),
            taken_over: Vec::new(),
            missing: Vec::new(),
            tags: Vec::new(),
            reasons: Vec::new(),
            seconds: 0.0,
        };
        let done = self.work(job, &mut receipt, say, listen);
        receipt.seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        match done {
            Ok(outcome) => receipt.outcome = outcome,
            Err(error) => match error.downcast::<Interrupted>() {
                Ok(interrupted) => {
                    receipt.reasons.push("interrupted".to_owned());
                    return (receipt, Some(interrupted));
                }
                Err(error) => receipt.reasons.push(format!("{error:#}")),
            },
        }
        if receipt.outcome != Outcome::DoneElsewhere && !receipt.reasons.is_empty() {
            receipt.outcome = Outcome::Failed;
        }
        (receipt, None)
    }

    fn work(
        &self,
        job: &Job,
        receipt: &mut JobReceipt,
        say: &dyn Fn(&str),
        listen: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<Outcome> {
        // Hours may have passed since it was judged, and others may have worked.
        let state = self.survey.commit(&job.update)?;
        let Some(job) = self.judge_again(job, state)? else { return Ok(Outcome::DoneElsewhere) };
        for (system, reason) in job.builds.iter().filter(|(system, _)| self.here.contains(system)) {
            say(&format!("building {} {} for {system}: {}", job.channel, job.update.commit.short(), reason.text()));
            match self.make_and_stage(&job, *system, listen) {
                Ok(()) => receipt.built.push(*system),
                Err(error) => match error.downcast::<Interrupted>() {
                    Ok(interrupted) => return Err(interrupted.into()),
                    // The other systems' images are worth having all the same.
                    Err(error) => receipt.reasons.push(format!("{system}: {error:#}")),
                },
            }
        }
        let mut index = self.survey.index(job.update.commit.as_str())?;
        if job.index {
            index = self.write_index(&job, receipt, index)?;
        }
        let Some(index) = index else { return Ok(Outcome::Waiting) };
        self.write_moving_tags(&job, receipt, index)?;
        Ok(if receipt.missing.is_empty() { Outcome::Done } else { Outcome::Waiting })
    }

    /// The same job, from what the registry has now; `None` if nothing is left of it.
    fn judge_again(&self, job: &Job, state: CommitState) -> anyhow::Result<Option<Job>> {
        let known = if let Tag::Read(index) = &state.index { Some(index.pointed.clone()) } else { None };
        let latest = if job.newest { self.survey.pointed(LATEST, known.as_ref())? } else { None };
        let commits = [(job.update.commit.clone(), state)].into();
        let state = super::judge::ChannelState { commits, latest };
        // What stands in the way of a tag was reported when all was judged; the images are made all the same.
        let (jobs, _) = judge(&job.channel, self.updates, &state, &self.survey.wanted);
        Ok(jobs.into_iter().next())
    }

    fn make_and_stage(&self, job: &Job, system: System, listen: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let Survey { skopeo, repository, .. } = self.survey;
        let inputs = self.recipe.inputs(&job.update, system)?;
        let out = self.scratch.join(format!("{}-{}-{system}", job.channel, job.update.commit));
        let order = Order { channel: &job.channel, update: &job.update, system };
        let made = self.recipe.make(order, &inputs, &out, listen).and_then(|entry| {
            skopeo.push(&out, None, &format!("{repository}@{}", entry.digest), What::Image)?;
            let staged = format!("{repository}:{}", staged_tag(&job.update.commit, system));
            skopeo.push(&out, None, &staged, What::Image)?;
            // Otherwise the image would be built again by every run, for ever.
            skopeo.read_back(&staged)
        });
        // An image may have a gigabyte, and others follow.
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        made
    }

    /// Writes the index under `<commit>` if all of its images are there, and returns what is under it.
    fn write_index(&self, job: &Job, receipt: &mut JobReceipt, before: Option<Index>) -> anyhow::Result<Option<Index>> {
        let tag = job.update.commit.as_str();
        let mut last = before;
        for _ in 0..ROUNDS {
            let state = self.survey.commit(&job.update)?;
            let new = match entries(&state, &self.survey.wanted, job.newest) {
                Ok(new) => new,
                Err(missing) => {
                    receipt.missing = missing;
                    return Ok(last);
                }
            };
            if !differs(&state, &new) {
                if let Tag::Read(index) = state.index {
                    last = Some(index);
                }
                break;
            }
            self.push_index(new, tag).context("cannot write the index")?;
            self.survey.skopeo.read_back(&format!("{}:{tag}", self.survey.repository))?;
            if !receipt.tags.iter().any(|written| written == tag) {
                receipt.tags.push(tag.to_owned());
            }
            // Read again in the next round: another run may have staged an image in the meantime.
            last = self.survey.index(tag)?;
        }
        let index = last.with_context(|| format!("the tag `{tag}` is gone as soon as it is written"))?;
        let wanted = self.survey.wanted.systems.iter();
        receipt.taken_over = wanted.filter(|system| !receipt.built.contains(system)).copied().collect();
        // What is in the index but not as it shall be, for want of a machine.
        receipt.missing = job
            .builds
            .iter()
            .map(|(system, _)| *system)
            .filter(|system| !receipt.built.contains(system) && !self.here.contains(system))
            .filter(|system| {
                let inputs = index.images.get(system).and_then(|image| image.inputs.as_ref());
                job.newest && inputs != self.survey.wanted.inputs.get(system)
            })
            .collect();
        Ok(Some(index))
    }

    fn push_index(&self, entries: Vec<Descriptor>, tag: &str) -> anyhow::Result<()> {
        let Survey { skopeo, repository, .. } = self.survey;
        let labels =
            entries.iter().map(|entry| self.survey.labels(&entry.digest)).collect::<anyhow::Result<Vec<_>>>()?;
        let index = write_index(entries, &labels)?;
        let layout = self.scratch.join("index");
        if layout.exists() {
            fs::remove_dir_all(&layout)?;
        }
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        file::write(&blobs.join(Digest::of(&index).hex()), &index)?;
        file::write(&layout.join("oci-layout"), LAYOUT_VERSION)?;
        file::write(&layout.join("index.json"), write_layout(&index, tag)?)?;
        skopeo.push(&layout, Some(tag), &format!("{repository}:{tag}"), What::Index)
    }

    /// Writes `<release number>` and `latest`, each if it may move there, and again if the index is written anew
    /// in the meantime.
    fn write_moving_tags(&self, job: &Job, receipt: &mut JobReceipt, mut index: Index) -> anyhow::Result<()> {
        let Survey { skopeo, repository, .. } = self.survey;
        let release = job.update.release.as_ref().filter(|_| job.release).map(ToString::to_string);
        let tags = release.into_iter().chain(job.latest.then(|| LATEST.to_owned()));
        let tags: Vec<String> = tags.collect();
        for _ in 0..ROUNDS {
            for tag in &tags {
                let there = self.survey.pointed(tag, Some(&index.pointed))?;
                match moving::verdict(&index.pointed, there.as_ref(), self.updates) {
                    Verdict::Same | Verdict::Newer => {}
                    Verdict::Unknown => {
                        bail!("`{tag}` stays: what it points to does not say whether it is older or newer")
                    }
                    Verdict::Move => {
                        skopeo.tag(repository, &index.pointed.digest, tag)?;
                        skopeo.read_back(&format!("{repository}:{tag}"))?;
                        if !receipt.tags.contains(tag) {
                            receipt.tags.push(tag.clone());
                        }
                    }
                }
            }
            let now = self.survey.index(job.update.commit.as_str())?;
            match now {
                Some(now) if now.pointed.digest != index.pointed.digest => index = now,
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
