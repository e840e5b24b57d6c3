//! What `sync-dockerfile` prints: one line per change, a diff, or JSON.
//! It must never decide whether a file is in step.

use std::fmt;

use serde_json::json;

use super::{Voice, bytes, data, hint, message, to_json};
use crate::dockerfile::rewrite::{Change, Judgement, Kept};
use crate::failure::{Hinted, shown};
use crate::pins::Pin;

/// A file that has been judged, and written unless it was only checked.
#[derive(Debug)]
pub struct Synced {
    /// The file as the user named it, escaped.
    pub file: String,
    /// The pin's file, as seen from the working directory, escaped.
    pub pin_file: String,
    /// The name of the pinned input.
    pub input: String,
    /// What it pins.
    pub pin: Pin,
    /// The revision, completed where that was needed.
    pub revision: String,
    /// What the file comes to.
    pub judgement: Judgement,
    /// The unified diff of its change.
    pub diff: Vec<u8>,
}

impl Synced {
    fn is_in_step(&self) -> bool {
        self.judgement.changes.is_empty()
    }
}

/// Whether all files are in step.
pub fn are_in_step(files: &[Synced]) -> bool {
    files.iter().all(Synced::is_in_step)
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// To write.
    Write,
    /// Only to look.
    Check {
        /// The command that writes.
        fix: &'a str,
    },
}

impl<'a> Mode<'a> {
    fn fix(self) -> Option<&'a str> {
        match self {
            Self::Write => None,
            Self::Check { fix } => Some(fix),
        }
    }
}

/// A file cannot be synced.
#[derive(Debug)]
pub struct At {
    /// The file as the user named it, escaped.
    pub file: String,
    /// The line that it is about, from 1.
    pub line: Option<usize>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "cannot sync `{}:{line}`: {}", self.file, self.reason),
            None => write!(f, "cannot sync `{}`: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for At {}

/// An error as the one JSON document of its run.
pub fn failed_as_json(error: &anyhow::Error, is_check: bool, status: u8) -> anyhow::Result<String> {
    let at = error.downcast_ref::<At>().or_else(|| error.downcast_ref::<Hinted>().and_then(Hinted::downcast_ref::<At>));
    let message = match error.downcast_ref::<clap::Error>() {
        Some(error) => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
        None => message(error),
    };
    to_json(&json!({
        "check": is_check,
        "error": {
            "message": message,
            "hint": hint(error),
            "file": at.map(|at| &at.file),
            "line": at.and_then(|at| at.line),
        },
        "exitStatus": status,
    }))
}

impl Voice {
    /// Prints what was changed, on stdout. A check prints the difference instead, and on stderr the command that
    /// makes it.
    pub fn synced(&self, files: &[Synced], skipped: &[String], mode: Mode<'_>, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            data(&to_json(&to_value(files, skipped, mode))?)?;
        } else if mode.fix().is_some() {
            bytes(&files.iter().flat_map(|file| file.diff.iter().copied()).collect::<Vec<_>>())?;
        } else {
            let lines = files.iter().flat_map(|file| file.judgement.changes.iter().map(|change| line(file, change)));
            data(&lines.collect::<String>())?;
        }
        for file in files {
            for Kept { line, reference } in &file.judgement.left_alone {
                let channel = file.pin.channel.as_ref().map_or("another channel", |channel| channel.as_str());
                let reference = shown(reference);
                self.note(&format!("left alone: `{reference}` ({}:{line}), since `{channel}` is pinned", file.file));
            }
            if file.is_in_step() {
                self.note(&format!("`{}` is in step with `{}`", file.file, file.pin_file));
            } else if mode.fix().is_some() {
                self.note(&format!("`{}` is out of step with `{}`", file.file, file.pin_file));
            }
        }
        if files.is_empty() {
            self.note("no file names the base image");
        }
        if let Some(fix) = mode.fix().filter(|_| !are_in_step(files)) {
            self.note(&format!("to fix, run: {fix}"));
        }
        Ok(())
    }
}

/// `Dockerfile:1: niteo/nixpkgs-nixos-25.11:old → new (nix/sources.json)`. If more changes than what is behind the
/// name, both are whole.
fn line(file: &Synced, change: &Change) -> String {
    let behind_name = change.new.strip_prefix(&change.new_name).and_then(|rest| rest.strip_prefix(':'));
    let had_tag = change.old.strip_prefix(&change.old_name).is_some_and(|rest| rest.starts_with(':'));
    let new = behind_name.filter(|_| had_tag && change.old_name == change.new_name).unwrap_or(&change.new);
    format!("{}:{}: {} \u{2192} {} ({})\n", file.file, change.line, shown(&change.old), shown(new), file.pin_file)
}

fn to_value(files: &[Synced], skipped: &[String], mode: Mode<'_>) -> serde_json::Value {
    let kept = |list: &[Kept]| -> Vec<_> {
        list.iter().map(|kept| json!({ "line": kept.line, "reference": kept.reference })).collect()
    };
    let files_in_json = files.iter().map(|file| {
        let changes = file.judgement.changes.iter().map(|change| {
            let edits = change
                .edits
                .iter()
                .map(|edit| json!({ "start": edit.range.start, "end": edit.range.end, "text": edit.text }));
            json!({
                "line": change.line,
                "old": change.old,
                "new": change.new,
                "edits": edits.collect::<Vec<_>>(),
            })
        });
        json!({
            "file": file.file,
            "pin": {
                "file": file.pin_file,
                "kind": file.pin.kind.name(),
                "input": file.input,
                "revision": file.revision,
                "channel": file.pin.channel.as_ref().map(ToString::to_string),
            },
            "changes": changes.collect::<Vec<_>>(),
            "inStep": kept(&file.judgement.in_step),
            "leftAlone": kept(&file.judgement.left_alone),
            "diff": String::from_utf8_lossy(&file.diff),
        })
    });
    json!({
        "check": mode.fix().is_some(),
        "inStep": are_in_step(files),
        "files": files_in_json.collect::<Vec<_>>(),
        "fix": mode.fix().filter(|_| !are_in_step(files)),
        "skipped": skipped,
    })
}
