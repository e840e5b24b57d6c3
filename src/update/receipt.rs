//! What a run did, job by job.
//! It must never name a credential, nor call a job done of which something is left.

use serde::Serialize;

use super::config::System;
use crate::channel::{Channel, Commit, Release};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All that it was about is in the registry.
    Done,
    /// Another run had done it.
    DoneElsewhere,
    /// What can be done here is; the index waits for systems that are built elsewhere.
    Waiting,
    /// Something failed.
    Failed,
}

/// What was done for one commit of a channel.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobReceipt {
    /// The channel.
    pub channel: Channel,
    /// The commit.
    pub commit: Commit,
    /// Its release number.
    pub release: Option<Release>,
    /// How it ended.
    pub outcome: Outcome,
    /// Systems whose images were built, tested and pushed.
    pub built: Vec<System>,
    /// Systems whose images were there.
    pub taken_over: Vec<System>,
    /// Systems of which there is no image yet.
    pub missing: Vec<System>,
    /// Tags that were written, in order.
    pub tags: Vec<String>,
    /// What failed, and what else is worth a word.
    pub reasons: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A channel that was left alone, or a part of one, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The channel; without one it is the source of all of them.
    pub channel: Option<Channel>,
    /// What is wrong.
    pub reason: String,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The channels that were looked at.
    pub channels: Vec<Channel>,
    /// In the order in which they were done.
    pub jobs: Vec<JobReceipt>,
    /// What was left alone.
    pub problems: Vec<Problem>,
    /// What is not as might be expected, and no failure.
    pub notes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Receipt {
    /// Whether everything that was tried worked.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.jobs.iter().all(|job| job.outcome != Outcome::Failed)
    }
}
