//! Runs the README and the pages in `docs`: each `console` block in a fresh directory, its output compared with the
//! block's.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support;

/// A line that is only this stands for any lines, within a line for any characters.
const ANYTHING: char = '…';

struct Example {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands of each block in `page`, called `name`, with the output below each.
fn examples(name: &str, page: &str) -> Vec<Vec<Example>> {
    let mut blocks = Vec::new();
    let mut block: Option<Vec<Example>> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut block, line) {
            (None, "```console") => block = Some(Vec::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(examples), _) => match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => {
                    examples.push(Example { line: number + 1, command: command.to_owned(), output: Vec::new() });
                }
                (None, Some(example)) => example.output.push(line.to_owned()),
                (None, None) => panic!("{name}:{}: output without a command", number + 1),
            },
            (None, _) => {}
        }
    }
    blocks
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split(ANYTHING);
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(found) = rest.find(piece) else { return false };
        rest = &rest[found + piece.len()..];
    }
    rest.is_empty()
}

fn matches(patterns: &[String], lines: &[&str]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((first, patterns)), _) if first.chars().eq([ANYTHING]) => {
            (0..=lines.len()).any(|skipped| matches(patterns, &lines[skipped..]))
        }
        (Some((first, patterns)), Some((line, lines))) => line_matches(first, line) && matches(patterns, lines),
        _ => false,
    }
}

#[test]
fn patterns_stand_for_what_they_should() {
    for (pattern, line, expected) in [
        ("same", "same", true),
        ("same", "other", false),
        ("… MB", "3.1 MB", true),
        ("… MB", "3.1 MB!", false),
        ("a … b … c", "a 1 b 2 c", true),
        ("a … b … c", "a 1 c 2 b", false),
        ("", "x", false),
    ] {
        assert_eq!(line_matches(pattern, line), expected, "{pattern}");
    }
    let patterns = ["a", "…", "z"].map(str::to_owned);
    assert!(matches(&patterns, &["a", "z"]) && matches(&patterns, &["a", "b", "c", "z"]));
    assert!(!matches(&patterns, &["a", "b"]) && !matches(&patterns, &[]));
}

#[test]
fn the_readme_shows_what_happens() {
    assert!(shows_what_happens("README.md") >= 3, "only few console blocks were found");
}

#[test]
fn the_other_pages_show_what_happens() {
    let mut blocks = 0;
    for page in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        let path = page.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            blocks += shows_what_happens(&format!("docs/{}", path.file_name().unwrap().display()));
        }
    }
    assert!(blocks >= 1, "no console blocks were found");
}

/// Runs the blocks of a page, and returns how many it has.
fn shows_what_happens(page: &str) -> usize {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let blocks = examples(page, &std::fs::read_to_string(repository.join(page)).unwrap());
    let count = blocks.len();
    let bin = tempfile::tempdir().unwrap();
    symlink(support::nixkit(), bin.path().join("nixkit")).unwrap();
    let installed = Command::new(support::nixkit()).arg("--install").arg(bin.path()).status().unwrap();
    assert!(installed.success());
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        symlink(repository.join("tests"), folder.path().join("tests")).unwrap();
        // What one command exports, the next ones have.
        let mut exports = String::new();
        for example in block {
            let script = format!("exec 2>&1\n{exports}{}", example.command);
            if example.command.starts_with("export ") {
                exports += &format!("{}\n", example.command);
            }
            let output = Command::new("bash")
                .args(["-c", &script])
                .current_dir(folder.path())
                .env("PATH", &path)
                .env("HOME", folder.path())
                // Both nix-env and export-profile go by it; the user's own profile stays as it is.
                .env("NIX_PROFILE", folder.path().join("profile"))
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert!(
                matches(&example.output, &lines),
                "{page}:{}: `{}` printed\n{text}\ninstead of\n{}",
                example.line,
                example.command,
                example.output.join("\n")
            );
        }
    }
    count
}
