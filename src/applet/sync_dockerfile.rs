//! `sync-dockerfile`: lets the base image that a file names follow the nixpkgs that its project pins.
//! It must never write one file before all are judged, nor say of one that it is in step unseen.

mod configuration;
mod discovery;
mod revision;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{CommandFactory, Parser};
use fs_err as fs;

use crate::dockerfile::diff;
use crate::dockerfile::reference::ImagePrefix;
use crate::dockerfile::rewrite::{DigestRule, Kind, Reading, Refusal, Revision, Wanted};
use crate::failure::{Usage, hinted, shown};
use crate::interrupt::survive_file_size_limit;
use crate::pins::{self, Pin};
use crate::report::sync::{Synced, are_in_step};
use crate::report::{self, Level, Voice};
use crate::sink::replace::Replacement;

const NAME: &str = "sync-dockerfile";
/// The base image where neither the command line nor `nixkit.toml` names one.
const IMAGE: &str = "niteo/nixpkgs-";
/// What is read where no file is named.
const DEFAULT_FILES: [&str; 2] = ["Dockerfile", "Containerfile"];
/// Exit status of a check that found a difference.
const OUT_OF_STEP: u8 = 1;
/// Exit status of a check that could not judge.
const NOT_JUDGED: u8 = 2;

/// Let the base image in a Dockerfile follow the nixpkgs that the project pins with niv, npins or a flake.
///
/// Changes channel and commit in `niteo/nixpkgs-<channel>:<commit>`, wherever FROM, `COPY --from=` or
/// `RUN --mount=…,from=` name it, and nothing else. In a file that is no Dockerfile, such as `compose.yaml`,
/// every whole token that is such an image.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// What to change. [default: `Dockerfile` and `Containerfile`, where they exist]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Write nothing: print what would change as a unified diff, and the command that changes it.
    #[arg(long)]
    check: bool,

    /// The file with the pin, in any of the formats, or a `.nix` file that fetches a literal
    /// `…/nixpkgs/archive/<commit>`. [default: `nix/sources.json`, `npins/sources.json` or `flake.lock`, in
    /// the file's folder or above it, up to the repository's root]
    #[arg(long, value_name = "FILE")]
    pins: Option<PathBuf>,

    /// Which of the pinned inputs.
    #[arg(long, value_name = "NAME", default_value = "nixpkgs")]
    input: String,

    /// How the base image's name begins, before the channel; with or without a registry. [default: `image`
    /// in `[sync]` of `nixkit.toml`, or `niteo/nixpkgs-`]
    #[arg(long, value_name = "PREFIX")]
    image: Option<String>,

    /// The channel, where the pin states none or another one. Without both each image keeps its own.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,

    /// Only the images of this build stage: its name, or its number from 0.
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,

    /// Put the base image in the place of the stage's image, whatever that is.
    #[arg(long, requires = "stage", requires = "image")]
    convert: bool,

    /// Remove a digest behind the tag; it would win over it.
    #[arg(long)]
    drop_digest: bool,

    /// Replace a digest behind the tag by this one.
    #[arg(long, value_name = "sha256:…", conflicts_with = "drop_digest")]
    digest: Option<String>,

    /// Output of `git ls-remote`, to complete the commit of a pin that holds its first digits only.
    #[arg(long, value_name = "FILE")]
    revisions: Option<PathBuf>,

    /// Ask the network (with `curl`) for what such a pin lacks.
    #[arg(long)]
    online: bool,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    /// Say nothing on stderr but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say what is decided and why.
    #[arg(short, long)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  niv update nixpkgs && sync-dockerfile
          After each update of the pin
  sync-dockerfile --check Dockerfile compose.yaml
          In CI: fails where the two have drifted apart
  sync-dockerfile --convert --stage build --image niteo/nixpkgs- --channel nixos-25.11
          The first time, in a Dockerfile that builds on another image

Exit status: 0 done, 1 failed or refused (nothing was written), 2 usage. With --check: 0 in step,
1 out of step, 2 anything that kept it from judging.";

/// A file that has been read, with what it is to follow.
struct Job {
    path: PathBuf,
    source: Vec<u8>,
    kind: Kind,
    pin_file: PathBuf,
    pin: Pin,
    image: ImagePrefix,
}

/// What it understands.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    survive_file_size_limit();
    let arguments = Arguments::try_parse_from(&argv)?;
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    };
    let voice = Voice { name: NAME, level };
    if !arguments.check {
        return sync(&arguments, voice);
    }
    let mend = mend(argv);
    match judge_all(&arguments, voice).and_then(|(synced, _)| {
        voice.synced(&synced, Some(&mend), arguments.json)?;
        Ok(if are_in_step(&synced) { 0 } else { OUT_OF_STEP })
    }) {
        Ok(status) => Ok(status),
        Err(error) => {
            report::outcome(NAME, Err(error));
            Ok(NOT_JUDGED)
        }
    }
}

fn sync(arguments: &Arguments, voice: Voice) -> anyhow::Result<u8> {
    let (synced, jobs) = judge_all(arguments, voice)?;
    // All drafts are written before the first is renamed: what fails, fails here.
    let mut replacements = Vec::new();
    for (job, file) in jobs.iter().zip(&synced) {
        if let Some(text) = &file.judgement.text {
            let prepared = Replacement::prepare(&job.path, text);
            replacements.push(prepared.with_context(|| format!("cannot write `{}`", shown(&job.path)))?);
        }
    }
    for (done, replacement) in replacements.into_iter().enumerate() {
        let context = || format!("cannot put a file in its place, after {done} others");
        replacement.publish().with_context(context)?;
    }
    voice.synced(&synced, None, arguments.json)?;
    Ok(0)
}

/// Reads and judges every file.
fn judge_all(arguments: &Arguments, voice: Voice) -> anyhow::Result<(Vec<Synced>, Vec<Job>)> {
    let digest = digest_rule(arguments)?;
    if let Some(channel) = arguments.channel.as_deref().filter(|channel| !pins::is_channel(channel)) {
        return Err(Usage(format!(
            "`{}` is no channel's name, such as nixos-25.11, nixos-unstable or nixpkgs-unstable",
            shown(channel)
        ))
        .into());
    }
    let jobs =
        files(arguments)?.into_iter().map(|path| read(path, arguments, voice)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    let revisions: Vec<Revision> = jobs.iter().map(|job| revision::of(&job.pin)).collect();
    for (job, revision) in jobs.iter().zip(&revisions) {
        wanted.push(Wanted {
            image: &job.image,
            channel: arguments.channel.as_deref().or(job.pin.channel.as_deref()),
            channel_is_told: arguments.channel.is_some(),
            revision,
            stage: arguments.stage.as_deref(),
            convert: arguments.convert,
            digest: &digest,
        });
    }
    let mut readings = Vec::new();
    let mut tags = Vec::new();
    for (job, wanted) in jobs.iter().zip(&wanted) {
        let reading = Reading::new(&job.source, job.kind, &job.image);
        let reading = reading.map_err(|refusal| explain(&job.path, &refusal))?;
        // A whole commit needs no tag to be compared with.
        let needs_tags = !job.pin.is_whole();
        let found = if needs_tags { reading.tags(wanted) } else { Ok(Vec::new()) };
        tags.push(found.map_err(|refusal| explain(&job.path, &refusal))?);
        readings.push(reading);
    }
    let all_tags: Vec<String> = tags.iter().flatten().cloned().collect();
    let mut synced = Vec::new();
    for (((job, reading), mut wanted), tags) in jobs.iter().zip(readings).zip(wanted).zip(&tags) {
        let is_known = tags.iter().all(|tag| wanted.revision.is_named_by(tag));
        let whole = if is_known && (job.pin.is_whole() || !arguments.convert) {
            wanted.revision.clone()
        } else {
            revision::whole(job, &all_tags, arguments, voice)?
        };
        wanted.revision = &whole;
        let judgement = reading.judge(&wanted).map_err(|refusal| explain(&job.path, &refusal))?;
        let file = shown(&job.path);
        synced.push(Synced {
            diff: judgement.text.as_ref().map_or_else(Vec::new, |text| diff::unified(&file, &job.source, text)),
            file,
            pin_file: shown(&job.pin_file),
            input: arguments.input.clone(),
            pin: job.pin.clone(),
            revision: whole.digits().to_owned(),
            judgement,
        });
    }
    Ok((synced, jobs))
}

/// The files to read: each once, though it may be named twice.
fn files(arguments: &Arguments) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    if arguments.files.is_empty() {
        let found = DEFAULT_FILES.iter().map(PathBuf::from).filter(|path| path.exists());
        files.extend(found);
        if files.is_empty() {
            return Err(hinted(anyhow!("there is no `Dockerfile` or `Containerfile` here"), "name the file to change"));
        }
        return Ok(files);
    }
    for path in &arguments.files {
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot read `{}`", shown(path)))?;
        if !metadata.is_file() {
            bail!("cannot read `{}`: it is no regular file", shown(path));
        }
        let real = fs::canonicalize(path)?;
        if !seen.contains(&real) {
            seen.push(real);
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn read(path: PathBuf, arguments: &Arguments, voice: Voice) -> anyhow::Result<Job> {
    let source = fs::read(&path)?;
    let kind = kind_of(&path, &source);
    if kind == Kind::Text && arguments.stage.is_some() {
        return Err(Usage(format!("`--stage` is for Dockerfiles, and `{}` is none", shown(&path))).into());
    }
    let folder = discovery::folder_of(&path)?;
    let image = configuration::image(arguments.image.as_deref(), &folder)?;
    let (pin_file, pin) = match &arguments.pins {
        Some(file) => (file.clone(), discovery::read_pin(file, &arguments.input)?),
        None => discovery::find(&folder, &arguments.input)?,
    };
    voice.decision(&format!(
        "`{}` follows `{}`, which pins `{}` to {}{}",
        shown(&path),
        shown(&pin_file),
        arguments.input,
        pin.revision,
        pin.channel.as_ref().map(|channel| format!(" of {channel}")).unwrap_or_default(),
    ));
    Ok(Job { path, source, kind, pin_file, pin, image })
}

/// A Dockerfile is called so; a file of another name is one if it begins like one.
fn kind_of(path: &Path, source: &[u8]) -> Kind {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let has_data = ["yaml", "yml", "json", "jsonc", "json5", "toml", "hcl", "md"]
        .iter()
        .any(|extension| name.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.')));
    if has_data {
        return Kind::Text;
    }
    if name.contains("dockerfile") || name.contains("containerfile") || begins_as_dockerfile(source) {
        return Kind::Dockerfile;
    }
    Kind::Text
}

fn begins_as_dockerfile(source: &[u8]) -> bool {
    use crate::dockerfile::words::Keyword;
    crate::dockerfile::scanner::scan(source).is_ok_and(|script| {
        let mut keywords = script.instructions.iter().map(|instruction| instruction.command.keyword);
        matches!(keywords.find(|keyword| *keyword != Keyword::Arg), Some(Keyword::From))
    })
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
            let what = "is no digest: `sha256:` and 64 hexadecimal digits in lower case";
            return Err(Usage(format!("`{}` {what}", shown(digest))).into());
        }
    }
    Ok(DigestRule::Replace(digest.clone()))
}

/// `cannot sync `Dockerfile:3`: …`, with what to do.
fn explain(path: &Path, refusal: &Refusal) -> anyhow::Error {
    let place = match refusal.line() {
        Some(line) => format!("{}:{line}", shown(path)),
        None => shown(path),
    };
    let error = anyhow!("cannot sync `{place}`: {refusal}");
    match refusal.hint() {
        Some(hint) => hinted(error, hint),
        None => error,
    }
}

/// The command line without what makes it a check.
fn mend(argv: Vec<OsString>) -> String {
    let words = argv.into_iter().map(shown).filter(|word| word != "--check" && word != "--json");
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// `word` as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
