//! Reads all files, finds what each is to follow, and judges them.
//! It must never write.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::configuration::{self, Images};
use super::discovery::{self, Followed, Pins};
use super::{Arguments, channel, digest_rule, files, revision};
use crate::dockerfile::diff;
use crate::dockerfile::reference::ImagePrefix;
use crate::dockerfile::rewrite::{DigestRule, Kind, Reading, Refusal, Revision, Wanted};
use crate::failure::{Usage, hinted, shown};
use crate::input;
use crate::interrupt::Interrupt;
use crate::nixpkgs::Channel;
use crate::report::Voice;
use crate::report::sync::{At, Synced};

/// What has been judged.
pub(super) struct Judged {
    /// The files that name the base image.
    pub(super) synced: Vec<Synced>,
    /// Their paths and contents.
    pub(super) sources: Vec<Source>,
    /// The files that do not, by `--if-present`.
    pub(super) skipped: Vec<String>,
}

/// A file that has been read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    kind: Kind,
    folder: PathBuf,
    image: ImagePrefix,
}

/// A file with what it is to follow.
struct Job<'a> {
    source: &'a Source,
    reading: Reading<'a>,
    followed: Rc<Followed>,
    /// The tags of its base images, if the commit is not whole.
    tags: Vec<String>,
}

/// What the command line asks for.
struct Goal<'a> {
    channel: Option<Channel>,
    digest: DigestRule,
    arguments: &'a Arguments,
}

impl Goal<'_> {
    fn wanted<'b>(&'b self, job: &'b Job<'_>, revision: &'b Revision) -> Wanted<'b> {
        Wanted {
            image: &job.source.image,
            channel: self.channel.as_ref().or(job.followed.pin.channel.as_ref()).map(Channel::as_str),
            channel_is_told: self.channel.is_some(),
            revision,
            stage: self.arguments.stage.as_deref(),
            convert: self.arguments.convert,
            digest: &self.digest,
        }
    }
}

/// Reads and judges every file.
pub(super) fn all(arguments: &Arguments, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<Judged> {
    let goal = Goal { channel: channel(arguments)?, digest: digest_rule(arguments)?, arguments };
    let (sources, skipped) = read_all(arguments, voice, interrupt)?;
    let mut projects = Projects::new(arguments, voice);
    let mut jobs = Vec::new();
    for source in &sources {
        interrupt.check()?;
        let reading = Reading::new(&source.bytes, source.kind, &source.image);
        let reading = reading.map_err(|refusal| explain(&source.path, &refusal))?;
        let followed = projects.pin_of(source)?;
        let mut job = Job { source, reading, followed, tags: Vec::new() };
        let revision = job.followed.pin.revision.clone();
        if !revision.is_whole() {
            let tags = job.reading.tags(&goal.wanted(&job, &revision));
            job.tags = tags.map_err(|refusal| explain(&source.path, &refusal))?;
        }
        jobs.push(job);
    }
    let all_tags: Vec<String> = jobs.iter().flat_map(|job| job.tags.iter().cloned()).collect();
    let mut completed: HashMap<&Path, Revision> = HashMap::new();
    let mut synced = Vec::new();
    for job in &jobs {
        interrupt.check()?;
        let mut revision = job.followed.pin.revision.clone();
        // A tag that has the known digits is in step.
        if !revision.is_whole() && (arguments.convert || !job.tags.iter().all(|tag| revision.is_named_by(tag))) {
            let file = job.followed.file.as_path();
            if !completed.contains_key(file) {
                let whole = revision::whole(&job.followed, &all_tags, arguments, voice, interrupt)?;
                completed.insert(file, whole);
            }
            revision = completed[file].clone();
        }
        let judgement = job.reading.judge(&goal.wanted(job, &revision));
        let judgement = judgement.map_err(|refusal| explain(&job.source.path, &refusal))?;
        let file = shown(&job.source.path);
        synced.push(Synced {
            diff: judgement.text.as_ref().map_or_else(Vec::new, |text| diff::unified(&file, &job.source.bytes, text)),
            file,
            pin_file: shown(&job.followed.file),
            input: arguments.input.clone(),
            pin: job.followed.pin.clone(),
            revision: revision.digits().to_owned(),
            judgement,
        });
    }
    Ok(Judged { synced, sources, skipped })
}

/// Reads the files, without those that are skipped.
fn read_all(arguments: &Arguments, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<(Vec<Source>, Vec<String>)> {
    let mut images = Images::new(arguments.image.as_deref());
    let (mut sources, mut skipped) = (Vec::new(), Vec::new());
    for path in files::named(arguments)? {
        interrupt.check()?;
        let bytes = input::read(&path, input::LIMIT)?;
        let kind = files::kind_of(&path, &bytes);
        if kind != Kind::Dockerfile && arguments.stage.is_some() {
            return Err(Usage(format!("`--stage` is for Dockerfiles, and `{}` is not one", shown(&path))).into());
        }
        let folder = discovery::folder_of(&path)?;
        let image = images.of(&folder)?;
        let source = Source { path, bytes, kind, folder, image };
        if arguments.if_present && !is_present(&source, arguments) {
            voice.decision(&format!("`{}` is skipped: it does not name the base image", shown(&source.path)));
            skipped.push(shown(&source.path));
        } else {
            sources.push(source);
        }
    }
    Ok((sources, skipped))
}

/// Whether a file names the base image. One that cannot be read may, if it has the name anywhere.
fn is_present(source: &Source, arguments: &Arguments) -> bool {
    match Reading::new(&source.bytes, source.kind, &source.image) {
        Ok(reading) => reading.has_base_image(&source.image, arguments.stage.as_deref()),
        Err(_) => memchr::memmem::find(&source.bytes, source.image.repository().as_bytes()).is_some(),
    }
}

/// The pins of the folders, each found once.
struct Projects<'a> {
    arguments: &'a Arguments,
    voice: Voice,
    pins: Pins<'a>,
    found: HashMap<(PathBuf, bool), Rc<Followed>>,
    remarks: HashSet<String>,
}

impl<'a> Projects<'a> {
    fn new(arguments: &'a Arguments, voice: Voice) -> Self {
        let pins = Pins::new(&arguments.input);
        Self { arguments, voice, pins, found: HashMap::new(), remarks: HashSet::new() }
    }

    /// The pin that a file follows.
    fn pin_of(&mut self, source: &Source) -> anyhow::Result<Rc<Followed>> {
        let of_nixpkgs = configuration::is_default(&source.image);
        let place = self.arguments.pins.as_ref().unwrap_or(&source.folder);
        let key = (place.clone(), of_nixpkgs);
        if !self.found.contains_key(&key) {
            let followed = match &self.arguments.pins {
                Some(file) => self.pins.of_file(file, of_nixpkgs)?,
                None => self.pins.find(&source.folder, of_nixpkgs)?,
            };
            self.found.insert(key.clone(), Rc::new(followed));
        }
        let followed = Rc::clone(&self.found[&key]);
        if let Some(remark) = followed.remark.as_ref().filter(|remark| self.remarks.insert((*remark).clone())) {
            self.voice.note(remark);
        }
        let pin = &followed.pin;
        self.voice.decision(&format!(
            "`{}` follows `{}`, which pins `{}` to {}{}",
            shown(&source.path),
            shown(&followed.file),
            shown(&self.arguments.input),
            pin.revision.digits(),
            pin.channel.as_ref().map(|channel| format!(" of {channel}")).unwrap_or_default(),
        ));
        Ok(followed)
    }
}

/// `cannot sync `Dockerfile:3`: …`, with what to do.
fn explain(path: &Path, refusal: &Refusal) -> anyhow::Error {
    let error = At { file: shown(path), line: refusal.line(), reason: refusal.to_string() };
    match refusal.hint() {
        Some(hint) => hinted(error, hint),
        None => error.into(),
    }
}
