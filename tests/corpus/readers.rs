//! Runs the readers over real files, beside the tests, and prints what they find: `corpus dockerfiles FILE…`
//! and `corpus pins FOLDER` (`tests/corpus/run` calls both).
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the hand")]

use std::path::{Path, PathBuf};

use nixkit::dockerfile::{Meaning, images, scanner};
use nixkit::nixpkgs::Channel;
use serde_json::json;

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    match arguments.split_first() {
        Some((first, files)) if first == Path::new("dockerfiles") => files.iter().for_each(|file| dockerfile(file)),
        Some((first, [folder])) if first == Path::new("pins") => pins(folder),
        _ => panic!("usage: corpus dockerfiles FILE… | corpus pins FOLDER"),
    }
}

/// Compares what each pin file gives with the row of `EXPECTED.tsv` for it: kind, file, revision, channel.
fn pins(folder: &Path) {
    let table = std::fs::read_to_string(folder.join("EXPECTED.tsv")).unwrap();
    let (mut right, mut wrong) = (0, 0);
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let [kind, file, revision, channel] = cells[..] else { panic!("not four cells: {row}") };
        let path = folder.join(kind).join(file);
        let found = nixkit::pins::read(&std::fs::read(&path).unwrap(), "nixpkgs");
        let (own_revision, own_channel) = match &found {
            Ok(pin) => (pin.revision.digits(), pin.channel.as_ref().map_or("", Channel::as_str)),
            Err(_) => ("", ""),
        };
        if (own_revision, own_channel) == (revision, channel) {
            right += 1;
        } else {
            wrong += 1;
            println!("{}: expected `{revision}` `{channel}`, found {found:?}", path.display());
        }
    }
    println!("{right} passed, {wrong} failed");
    assert!(wrong == 0 && right > 0, "the readers do not agree with the table");
}

/// One line of JSON: what the file is refused for, or its instructions and the images that it names.
fn dockerfile(path: &Path) {
    let source = std::fs::read(path).unwrap();
    let script = match scanner::scan(&source) {
        Ok(script) => script,
        Err(refused) => {
            println!("{}", json!({ "file": path, "line": refused.line, "refused": refused.reason.to_string() }));
            return;
        }
    };
    let images = images::of(&script, &source);
    let instructions: Vec<_> = script
        .instructions
        .iter()
        .map(|instruction| {
            let text =
                |range: std::ops::Range<usize>| String::from_utf8_lossy(&instruction.line.text[range]).into_owned();
            let flags: Vec<String> =
                instruction.command.flags.iter().map(|flag| flag.iter().map(|char| char.value).collect()).collect();
            json!({
                "lines": instruction.lines,
                "text": text(0..instruction.line.text.len()),
                "arguments": text(instruction.command.arguments.clone()),
                "flags": flags,
                "onbuild": instruction.onbuild,
                "heredocs": instruction.heredocs,
            })
        })
        .collect();
    let found: Vec<_> = images
        .occurrences
        .iter()
        .map(|image| {
            let stands_for = match &image.meaning {
                Meaning::Image => json!("image"),
                Meaning::Scratch => json!("scratch"),
                Meaning::Stage(stage) => json!(stage),
                Meaning::Unreadable(problem) => json!(problem.to_string()),
            };
            json!({
                "line": image.line,
                "place": format!("{:?}", image.place).to_lowercase(),
                "span": [image.span.start, image.span.end],
                "word": String::from_utf8_lossy(&source[image.span.clone()]),
                "reference": image.reference(),
                "means": stands_for,
                "stage": image.stage,
            })
        })
        .collect();
    let stages: Vec<_> = images
        .stages
        .iter()
        .map(|stage| json!({ "name": stage.name, "platform": stage.platform, "lines": stage.lines }))
        .collect();
    let refused = images.refused.map(|refused| json!({ "line": refused.line, "reason": refused.reason.to_string() }));
    println!(
        "{}",
        json!({
            "file": path,
            "escape": char::from(script.escape),
            "instructions": instructions,
            "images": found,
            "stages": stages,
            "from": refused,
        })
    );
}
