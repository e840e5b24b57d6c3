//! What `update-images` says: the table of jobs, the matrix for a CI, and the summary.
//! It must never leave a failure out, however many there are.

use indicatif::HumanDuration;
use serde_json::{Value, json};

use super::{Level, Voice, data, pass_on, to_json};
use crate::update::config::System;
use crate::update::judge::{Job, Reason};
use crate::update::receipt::{JobReceipt, Outcome, Receipt};

/// GitHub runs no more jobs of one matrix.
const MOST_MATRIX_JOBS: usize = 256;

impl Voice {
    /// What another program prints, as it is.
    pub fn pass_on(&self, chunk: &[u8]) {
        if self.level >= Level::Normal {
            pass_on(chunk);
        }
    }

    /// The jobs as a table, on stdout. `here` are the systems that are built on this machine.
    pub fn jobs(&self, jobs: &[Job], here: &[System], json: bool) -> anyhow::Result<()> {
        if json {
            return data(&to_json(&json!({ "dryRun": true, "jobs": jobs.iter().map(job_json).collect::<Vec<_>>() }))?);
        }
        let rows: Vec<_> = jobs.iter().map(|job| row(job, here)).collect();
        data(&table(&["CHANNEL", "COMMIT", "RELEASE", "BUILD", "WRITE", "REASON"].map(str::to_owned), &rows))
    }

    /// The jobs as the matrix of a CI, on stdout: one entry for each image that is built, and one for each
    /// commit that needs no more than tags.
    pub fn matrix(&self, jobs: &[Job], systems: &[System]) -> anyhow::Result<()> {
        let mut entries: Vec<Value> = jobs.iter().flat_map(|job| matrix_entries(job, systems)).collect();
        if entries.len() > MOST_MATRIX_JOBS {
            let left = entries.len() - MOST_MATRIX_JOBS;
            self.warning(&format!("{left} jobs are left for the next run: no matrix has more than {MOST_MATRIX_JOBS}"));
            entries.truncate(MOST_MATRIX_JOBS);
        }
        data(&(serde_json::to_string(&json!({ "include": entries }))? + "\n"))
    }

    /// What was done, on stderr; with `json` the receipt too, on stdout.
    pub fn updated(&self, receipt: &Receipt, json: bool) -> anyhow::Result<()> {
        for job in &receipt.jobs {
            match job.outcome {
                Outcome::Failed => self.say(Level::Quiet, &format!("failed: {}", line(job))),
                _ => self.note(&line(job)),
            }
        }
        for problem in &receipt.problems {
            let channel = problem.channel.as_ref().map_or_else(String::new, |channel| format!("{channel}: "));
            self.say(Level::Quiet, &format!("left alone: {channel}{}", problem.reason));
        }
        for note in &receipt.notes {
            self.warning(note);
        }
        self.note(&summary(receipt));
        if json { data(&to_json(receipt)?) } else { Ok(()) }
    }
}

fn job_json(job: &Job) -> Value {
    let builds: Vec<_> =
        job.builds.iter().map(|(system, reason)| json!({ "system": system, "reason": reason })).collect();
    json!({
        "channel": job.channel,
        "commit": job.update.commit,
        "release": job.update.release,
        "newest": job.newest,
        "builds": builds,
        "writes": writes(job),
    })
}

fn matrix_entries(job: &Job, systems: &[System]) -> Vec<Value> {
    let entry = |system: System, reason: &str| json!({ "channel": job.channel, "commit": job.update.commit, "system": system, "reason": reason });
    if job.builds.is_empty() {
        return systems.first().map(|system| entry(*system, "a tag is missing")).into_iter().collect();
    }
    job.builds.iter().map(|(system, reason)| entry(*system, reason.text())).collect()
}

fn writes(job: &Job) -> Vec<String> {
    let release = job.update.release.as_ref().filter(|_| job.release).map(ToString::to_string);
    let index = job.index.then(|| "<commit>".to_owned());
    let latest = job.latest.then(|| "latest".to_owned());
    index.into_iter().chain(release).chain(latest).collect()
}

fn row(job: &Job, here: &[System]) -> [String; 6] {
    let or_none = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    let build = |(system, _): &(System, Reason)| {
        if here.contains(system) { system.to_string() } else { format!("{system} (not here)") }
    };
    let reason = match job.builds.first() {
        None => "a tag is missing",
        Some((_, Reason::OtherInputs)) => "the recipe changed",
        Some((_, Reason::Missing)) => "no image",
    };
    [
        job.channel.to_string(),
        job.update.commit.to_string(),
        job.update.release.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        or_none(job.builds.iter().map(build).collect()),
        or_none(writes(job)),
        reason.to_owned(),
    ]
}

/// Columns as wide as they need to be.
fn table(head: &[String; 6], rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().chain([head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in [head].into_iter().chain(rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn line(job: &JobReceipt) -> String {
    let release = job.release.as_ref().map_or_else(String::new, |release| format!(" ({release})"));
    let names = |systems: &[System]| systems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !job.built.is_empty() {
        parts.push(format!("built {}", names(&job.built)));
    }
    if job.outcome == Outcome::Waiting && !job.missing.is_empty() {
        parts.push(format!("waits for {}", names(&job.missing)));
    }
    if !job.tags.is_empty() {
        parts.push(format!("wrote {}", job.tags.join(", ")));
    }
    if job.outcome == Outcome::DoneElsewhere {
        parts.push("another run has done it".to_owned());
    }
    parts.extend(job.reasons.iter().cloned());
    if parts.is_empty() {
        parts.push("nothing was left to do".to_owned());
    }
    format!("{} {}{release}: {}", job.channel, job.commit.short(), parts.join("; "))
}

fn summary(receipt: &Receipt) -> String {
    let built: usize = receipt.jobs.iter().map(|job| job.built.len()).sum();
    let count = |outcome| receipt.jobs.iter().filter(|job| job.outcome == outcome).count();
    let failed = count(Outcome::Failed);
    let mut text = format!(
        "{} channels, {built} images built, {} commits completed",
        receipt.channels.len(),
        count(Outcome::Done)
    );
    for (count, what) in
        [(count(Outcome::Waiting), "waiting"), (failed, "failed"), (receipt.problems.len(), "left alone")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    let took = std::time::Duration::from_secs_f64(receipt.seconds);
    text.push_str(&format!(", in {}", HumanDuration(took)));
    text
}
