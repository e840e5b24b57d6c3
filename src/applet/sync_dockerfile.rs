//! `sync-dockerfile`: lets the base image that a file names follow the nixpkgs that its project pins.
//! It must never write one file before all are judged, nor call one in step that it has not read.

mod configuration;
mod discovery;
mod files;
mod judge;
mod revision;
mod write;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{CommandFactory, Parser};

use super::options::Loudness;
use crate::dockerfile::rewrite::DigestRule;
use crate::failure::{Usage, shown};
use crate::interrupt::Interrupt;
use crate::nixpkgs::Channel;
use crate::report::sync::{Mode, are_in_step, failed_as_json};
use crate::report::{self, Voice};

const NAME: &str = "sync-dockerfile";
/// The base image where neither the command line nor `nixkit.toml` names one.
const IMAGE: &str = "niteo/nixpkgs-";
/// Exit status of a check that found a difference.
const OUT_OF_STEP: u8 = 1;
/// Exit status of a check that could not judge.
const NOT_JUDGED: u8 = 2;

/// Let the base image in a Dockerfile follow the nixpkgs that the project pins with niv, npins or a flake.
///
/// Changes channel and commit in `niteo/nixpkgs-<channel>:<commit>`, wherever FROM, `COPY --from=` or
/// `RUN --mount=…,from=` name it, and nothing else. In a file that is not a Dockerfile, such as `compose.yaml`,
/// wherever it is named outside of comments.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Files to change. [default: `Dockerfile` and `Containerfile`, where they exist]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Write nothing: print what would change as a unified diff, and the command that changes it.
    #[arg(long)]
    check: bool,

    /// Skip files that do not name the base image.
    #[arg(long, conflicts_with = "convert")]
    if_present: bool,

    /// The file with the pin, in any of the formats, or a `.nix` file that fetches a literal
    /// `…/nixpkgs/archive/<commit>`. [default: `nix/sources.json`, `npins/sources.json` or `flake.lock`, in
    /// the file's folder or above it, up to the repository's root]
    #[arg(long, value_name = "FILE")]
    pins: Option<PathBuf>,

    /// Name of the pinned input.
    #[arg(long, value_name = "NAME", default_value = "nixpkgs", value_parser = NonEmptyStringValueParser::new())]
    input: String,

    /// How the base image's name begins, before the channel; with or without a registry. [default: `image`
    /// in `[sync]` of `nixkit.toml`, or `niteo/nixpkgs-`]
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    image: Option<String>,

    /// The channel, if the pin names none or another one. Without both each image keeps its own.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    channel: Option<String>,

    /// Only the images of this build stage: its name, or its number from 0.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    stage: Option<String>,

    /// Replace the image of the stage by the base image, whatever it is.
    #[arg(long, requires = "stage")]
    convert: bool,

    /// Remove a digest behind the tag; it would win over it.
    #[arg(long)]
    drop_digest: bool,

    /// Replace a digest behind the tag by this one.
    #[arg(long, value_name = "sha256:…", conflicts_with = "drop_digest", value_parser = NonEmptyStringValueParser::new())]
    digest: Option<String>,

    /// Output of `git ls-remote`, to complete the commit of a pin that holds its first digits only.
    #[arg(long, value_name = "FILE")]
    revisions: Option<PathBuf>,

    /// Ask the network (with `curl`) for what such a pin lacks.
    #[arg(long)]
    online: bool,

    /// Print what was done, or the error, as JSON on stdout.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    loudness: Loudness,
}

const EXAMPLES: &str = "\
Examples:
  niv update nixpkgs && sync-dockerfile
          After each update of the pin
  sync-dockerfile --check Dockerfile compose.yaml
          In CI: fails where the two have drifted apart
  sync-dockerfile --convert --stage build --channel nixos-25.11
          The first time, in a Dockerfile that builds on another image

Exit status: 0 done, 1 failed or refused (the error says if anything was written), 2 usage.
With --check: 0 in step, 1 out of step, 2 anything that kept it from judging.";

/// The clap command, for completions and manual pages.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let is_check = argv.iter().take_while(|word| *word != "--").any(|word| word == "--check");
    let as_json = argv.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let outcome = Arguments::try_parse_from(argv).map_err(anyhow::Error::from).and_then(|arguments| {
        let voice = arguments.loudness.voice(NAME);
        let interrupt = Interrupt::install()?;
        if is_check { check(&arguments, voice, &interrupt) } else { write::sync(&arguments, voice, &interrupt) }
    });
    let Err(error) = outcome else { return outcome };
    let is_usage = error.is::<clap::Error>();
    let status =
        if is_check && !is_usage && !report::is_interrupt(&error) { NOT_JUDGED } else { report::status(&error) };
    if as_json && status != 0 {
        // If this cannot be printed, the error below still can.
        let _ = report::data(&failed_as_json(&error, is_check, status)?);
    }
    if is_usage {
        return Err(error);
    }
    report::outcome(NAME, Err(error));
    Ok(status)
}

fn check(arguments: &Arguments, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<u8> {
    let judged = judge::all(arguments, voice, interrupt)?;
    let fix = fix(std::env::args_os());
    voice.synced(&judged.synced, &judged.skipped, Mode::Check { fix: &fix }, arguments.json)?;
    Ok(if are_in_step(&judged.synced) { 0 } else { OUT_OF_STEP })
}

/// The channel of the command line.
fn channel(arguments: &Arguments) -> anyhow::Result<Option<Channel>> {
    let Some(name) = &arguments.channel else { return Ok(None) };
    let wrong =
        |_| Usage(format!("`{}` is not the name of a channel, such as nixos-25.11 or nixpkgs-unstable", shown(name)));
    Ok(Some(name.parse().map_err(wrong)?))
}

fn digest_rule(arguments: &Arguments) -> anyhow::Result<DigestRule> {
    let Some(digest) = &arguments.digest else {
        return Ok(if arguments.drop_digest { DigestRule::Drop } else { DigestRule::Refuse });
    };
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match digest.split_once(':') {
        Some(("sha256", digits)) if digits.len() == 64 && is_hex(digits) => {}
        Some(("sha512", digits)) if digits.len() == 128 && is_hex(digits) => {}
        _ => {
            let what = "is not a digest: `sha256:` and 64 hexadecimal digits in lower case";
            return Err(Usage(format!("`{}` {what}", shown(digest))).into());
        }
    }
    Ok(DigestRule::Replace(digest.clone()))
}

/// The command line, as the user typed it, without what makes it a check.
fn fix(argv: impl Iterator<Item = OsString>) -> String {
    let mut options_end = false;
    let words = argv.filter(|word| {
        options_end |= word == "--";
        options_end || word != "--check" && word != "--json"
    });
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// `word` as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let text = shown(word);
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if word != OsStr::new(&text) {
        return format!("$'{}'", text.replace('\'', r"\'").replace("\\u{", "\\u").replace('}', ""));
    }
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_is_the_command_line_without_the_check() {
        for (words, expected) in [
            (&["sync-dockerfile", "--check"][..], "sync-dockerfile"),
            (&["./nixkit", "sync-dockerfile", "--json", "--check", "a"], "./nixkit sync-dockerfile a"),
            (&["s", "--check", "--", "--check"], "s -- --check"),
            (&["s", "--check", "a b", "it's"], r"s 'a b' 'it'\''s'"),
            (&["s", "--check", ""], "s ''"),
        ] {
            assert_eq!(fix(words.iter().map(OsString::from)), expected);
        }
    }
}
