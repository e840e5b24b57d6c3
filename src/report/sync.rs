//! What `sync-dockerfile` says: one line per change, a diff, or JSON.
//! It must never decide whether a file is in step.

use serde_json::json;

use super::{Voice, bytes, data, to_json};
use crate::dockerfile::rewrite::{Change, Judgement, Kept};
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

impl Voice {
    /// What was changed, on stdout. A check prints the difference instead, and on stderr the command that
    /// makes it, `mend`.
    pub fn synced(&self, files: &[Synced], mend: Option<&str>, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            data(&to_json(&to_value(files, mend))?)?;
        } else if mend.is_some() {
            bytes(&files.iter().flat_map(|file| file.diff.iter().copied()).collect::<Vec<_>>())?;
        } else {
            let lines = files.iter().flat_map(|file| file.judgement.changes.iter().map(|change| line(file, change)));
            data(&lines.collect::<String>())?;
        }
        for file in files {
            for Kept { line, reference } in &file.judgement.left_alone {
                let channel = file.pin.channel.as_deref().unwrap_or_default();
                self.note(&format!("left alone: `{reference}` ({}:{line}), for `{channel}` is pinned", file.file));
            }
            if file.is_in_step() {
                self.note(&format!("`{}` is in step with `{}`", file.file, file.pin_file));
            } else if mend.is_some() {
                self.note(&format!("`{}` is out of step with `{}`", file.file, file.pin_file));
            }
        }
        if let Some(mend) = mend.filter(|_| !are_in_step(files)) {
            self.note(&format!("to mend it: {mend}"));
        }
        Ok(())
    }
}

/// `Dockerfile:1: niteo/nixpkgs-nixos-25.11:old → new (nix/sources.json)`. Where more changes than what
/// stands behind the name, both are whole.
fn line(file: &Synced, change: &Change) -> String {
    let behind_name = change.new.strip_prefix(&change.new_name).and_then(|rest| rest.strip_prefix(':'));
    let had_tag = change.old.strip_prefix(&change.old_name).is_some_and(|rest| rest.starts_with(':'));
    let new = behind_name.filter(|_| had_tag && change.old_name == change.new_name).unwrap_or(&change.new);
    format!("{}:{}: {} \u{2192} {new} ({})\n", file.file, change.line, change.old, file.pin_file)
}

fn to_value(files: &[Synced], mend: Option<&str>) -> serde_json::Value {
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
                "channel": file.pin.channel,
            },
            "changes": changes.collect::<Vec<_>>(),
            "inStep": kept(&file.judgement.in_step),
            "leftAlone": kept(&file.judgement.left_alone),
            "diff": String::from_utf8_lossy(&file.diff),
        })
    });
    json!({
        "check": mend.is_some(),
        "inStep": are_in_step(files),
        "files": files_in_json.collect::<Vec<_>>(),
        "mend": mend.filter(|_| !are_in_step(files)),
    })
}
