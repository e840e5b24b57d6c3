//! What is to change in a file so that its base image follows a pin, byte for byte.
//! It must never change a byte that is not part of a repository, a tag or a digest, nor any other image.

mod convert;
mod refusal;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range;

pub use refusal::Refusal;

use super::chars::{LineStarts, to_text};
use super::images::{self, Stage};
use super::reference::{ImagePrefix, Reference};
use super::{Meaning, Occurrence, Place, Reason, Refused, text};
pub use crate::nixpkgs::Revision;
pub use text::Syntax;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As `BuildKit` reads it.
    Dockerfile,
    /// As text in which names are searched.
    Text(Syntax),
}

/// What to do about a digest behind the tag, which wins over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DigestRule {
    /// Never leave an old one behind a new tag: refuse.
    #[default]
    Refuse,
    /// Remove it.
    Drop,
    /// Put this one in its place.
    Replace(String),
}

/// What a file is to name.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Which images are the base image's.
    pub image: &'a ImagePrefix,
    /// The channel of the pin, or the one that the user named; without one each image keeps its own.
    pub channel: Option<&'a str>,
    /// Whether the user named the channel: then images of other channels are changed too.
    pub channel_is_told: bool,
    /// The commit.
    pub revision: &'a Revision,
    /// Only this stage: its name, or its index.
    pub stage: Option<&'a str>,
    /// Whether the stage's image is replaced whatever it is.
    pub convert: bool,
    /// What becomes of digests.
    pub digest: &'a DigestRule,
}

/// Bytes to put in the place of others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edit {
    /// What goes.
    pub range: Range<usize>,
    /// What comes.
    pub text: String,
}

/// One reference that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The line of the first byte that changes.
    pub line: usize,
    /// The whole reference before.
    pub old: String,
    /// And after.
    pub new: String,
    /// The repository with its registry, before.
    pub old_name: String,
    /// And after.
    pub new_name: String,
    /// What changes, in rising order.
    pub edits: Vec<Edit>,
}

/// A reference that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where its word begins.
    pub line: usize,
    /// The whole reference.
    pub reference: String,
}

/// What a file comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// References that change.
    pub changes: Vec<Change>,
    /// Base images that name the pinned commit already.
    pub in_step: Vec<Kept>,
    /// Base images of other channels than the pin's.
    pub left_alone: Vec<Kept>,
    /// The whole new text; `None` where nothing changes.
    pub text: Option<Vec<u8>>,
}

/// A base image that the pin is for.
struct Candidate<'a> {
    occurrence: &'a Occurrence,
    text: Vec<char>,
    reference: Reference,
    /// The part that names the channel; `None` where the whole image is replaced.
    channel: Option<Range<usize>>,
}

impl Candidate<'_> {
    fn part(&self, range: &Range<usize>) -> String {
        to_text(self.text[range.clone()].iter().copied())
    }

    fn tag(&self) -> String {
        self.reference.tag.as_ref().map(|range| self.part(range)).unwrap_or_default()
    }

    fn kept(&self) -> Kept {
        Kept { line: self.occurrence.line, reference: to_text(self.text.iter().copied()) }
    }
}

/// A file that has been read.
struct Found {
    stages: Vec<Stage>,
    occurrences: Vec<Occurrence>,
}

fn read(source: &[u8], kind: Kind, image: &ImagePrefix) -> Result<Found, Refusal> {
    if let Kind::Text(syntax) = kind {
        return Ok(Found { stages: Vec::new(), occurrences: text::read(source, image, syntax)? });
    }
    let images = images::read(source)?;
    match images.refused {
        Some(refused) => Err(refused.into()),
        None => Ok(Found { stages: images.stages, occurrences: images.occurrences }),
    }
}

/// A file that is read once, to be asked for its tags and then judged.
pub struct Reading<'a> {
    source: &'a [u8],
    kind: Kind,
    found: Found,
}

impl<'a> Reading<'a> {
    /// Reads a file, in which `image` is the base image.
    pub fn new(source: &'a [u8], kind: Kind, image: &ImagePrefix) -> Result<Self, Refusal> {
        Ok(Self { source, kind, found: read(source, kind, image)? })
    }

    /// Whether the file, or only this stage of it, names a base image.
    pub fn has_base_image(&self, image: &ImagePrefix, stage: Option<&str>) -> bool {
        let index = stage.map(|name| stage_index(&self.found.stages, name).ok());
        let is_meant =
            |occurrence: &&Occurrence| index.is_none_or(|index| index.is_some() && occurrence.stage == index);
        self.found.occurrences.iter().filter(is_meant).any(|occurrence| names(occurrence, image))
    }

    /// The tags that the base images of the file have: whether one of them begins with a prefix decides
    /// whether the whole commit must be known.
    pub fn tags(&self, wanted: &Wanted<'_>) -> Result<Vec<String>, Refusal> {
        let (candidates, _) = candidates(self.source, &self.found, wanted)?;
        Ok(candidates.iter().map(Candidate::tag).collect())
    }

    /// Judges the file. Nothing is written; the result is checked by reading it again.
    pub fn judge(&self, wanted: &Wanted<'_>) -> Result<Judgement, Refusal> {
        judge_found(self.source, self.kind, &self.found, wanted)
    }
}

/// Reads and judges a file.
pub fn judge(source: &[u8], kind: Kind, wanted: &Wanted<'_>) -> Result<Judgement, Refusal> {
    Reading::new(source, kind, wanted.image)?.judge(wanted)
}

fn judge_found(source: &[u8], kind: Kind, found: &Found, wanted: &Wanted<'_>) -> Result<Judgement, Refusal> {
    let (candidates, left_alone) = candidates(source, found, wanted)?;
    let mut judgement = Judgement { left_alone, ..Judgement::default() };
    // Only what changes needs a line number.
    let lines = OnceCell::new();
    let mut edits: HashSet<Edit> = HashSet::new();
    let mut expected: Vec<(&Occurrence, String)> = Vec::new();
    for candidate in &candidates {
        let lines = || lines.get_or_init(|| LineStarts::of(source));
        let Some(change) = change(&lines, source, candidate, found, wanted)? else {
            judgement.in_step.push(candidate.kept());
            continue;
        };
        expected.push((candidate.occurrence, change.new.clone()));
        // Two stages made of one ARG: the first of them has changed it.
        let mut is_new = false;
        for edit in &change.edits {
            is_new |= edits.insert(edit.clone());
        }
        if is_new {
            judgement.changes.push(change);
        }
    }
    if !edits.is_empty() {
        let text = apply(source, edits.into_iter().collect()).ok_or(Refusal::Overlap)?;
        check(found, &expected, &text, kind, wanted.image)?;
        judgement.text = Some(text);
    }
    Ok(judgement)
}

/// The base images that the pin is for, and those that are left alone.
fn candidates<'a>(
    source: &[u8],
    found: &'a Found,
    wanted: &Wanted<'_>,
) -> Result<(Vec<Candidate<'a>>, Vec<Kept>), Refusal> {
    let stage = wanted.stage.map(|name| stage_index(&found.stages, name)).transpose()?;
    let mut candidates = Vec::new();
    for occurrence in &found.occurrences {
        if stage.is_some() && occurrence.stage != stage {
            continue;
        }
        let is_converted = wanted.convert && occurrence.place == Place::From;
        match &occurrence.meaning {
            Meaning::Image => {}
            Meaning::Unreadable(_) if is_converted => {}
            Meaning::Unreadable(problem) if names(occurrence, wanted.image) => {
                let (line, reference) = (occurrence.line, occurrence.reference());
                return Err(Refusal::Unreadable { line, reference, problem: problem.clone() });
            }
            Meaning::Stage(_) | Meaning::Scratch if is_converted => {
                return Err(Refusal::NoImage { line: occurrence.line, reference: occurrence.reference() });
            }
            _ => continue,
        }
        let text: Vec<char> = occurrence.text.iter().map(|char| char.value).collect();
        let reference = Reference::cut(&text);
        let channel = wanted.image.channel_of(&text, &reference);
        if channel.is_some() || is_converted {
            candidates.push(Candidate { occurrence, text, reference, channel });
        }
    }
    if candidates.is_empty() {
        let images = found.occurrences.iter().filter(|occurrence| occurrence.meaning == Meaning::Image);
        let images = images.map(|image| (image.line, shown_reference(source, image))).collect();
        return Err(Refusal::NoCandidate { wanted: wanted.image.name(None), images });
    }
    leave_other_channels(candidates, wanted)
}

/// The reference, or the word in the file if nothing is left of that.
fn shown_reference(source: &[u8], occurrence: &Occurrence) -> String {
    let reference = occurrence.reference();
    if reference.trim().is_empty() {
        String::from_utf8_lossy(&source[occurrence.span.clone()]).into_owned()
    } else {
        reference
    }
}

/// Whether the word names a base image although its variables cannot be followed.
fn names(occurrence: &Occurrence, image: &ImagePrefix) -> bool {
    let text: Vec<char> = occurrence.text.iter().map(|char| char.value).collect();
    image.channel_of(&text, &Reference::cut(&text)).is_some()
}

fn stage_index(stages: &[Stage], name: &str) -> Result<usize, Refusal> {
    let lower = name.to_lowercase();
    let by_index = || name.parse().ok().filter(|index| *index < stages.len());
    // The last one of a name is the one that `--target` takes.
    let found = stages.iter().rposition(|stage| stage.name.as_ref() == Some(&lower)).or_else(by_index);
    found.ok_or_else(|| Refusal::NoStage {
        name: name.to_owned(),
        stages: stages.iter().filter_map(|stage| stage.name.clone()).collect(),
    })
}

/// A file can follow two pins with images of two channels: the ones that a pin's channel has are its own.
/// Where none is, and they are of several, nobody can tell which.
fn leave_other_channels<'a>(
    candidates: Vec<Candidate<'a>>,
    wanted: &Wanted<'_>,
) -> Result<(Vec<Candidate<'a>>, Vec<Kept>), Refusal> {
    if wanted.channel_is_told || wanted.stage.is_some() {
        return Ok((candidates, Vec::new()));
    }
    let channel_of = |candidate: &Candidate<'_>| candidate.channel.as_ref().map(|range| candidate.part(range));
    let mut channels: Vec<String> = candidates.iter().filter_map(channel_of).collect();
    channels.sort();
    channels.dedup();
    let is_wanted = |channel: &Option<String>| channel.as_deref() == wanted.channel;
    if channels.len() < 2 {
        return Ok((candidates, Vec::new()));
    }
    if wanted.channel.is_none() || !channels.iter().any(|channel| Some(channel.as_str()) == wanted.channel) {
        return Err(Refusal::Channels { line: candidates[0].occurrence.line, channels });
    }
    let (own, others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| is_wanted(&channel_of(candidate)));
    Ok((own, others.iter().map(Candidate::kept).collect()))
}

/// How a reference must change, if it must.
fn change<'a>(
    lines: &dyn Fn() -> &'a LineStarts,
    source: &[u8],
    candidate: &Candidate<'_>,
    found: &Found,
    wanted: &Wanted<'_>,
) -> Result<Option<Change>, Refusal> {
    let Candidate { occurrence, text, reference, .. } = candidate;
    let line = occurrence.line;
    let shown = || text.iter().collect::<String>();
    // Parts of the reference and what comes in their place, in rising order.
    let mut parts: Vec<(Range<usize>, String)> = Vec::new();
    let Some(channel) = &candidate.channel else {
        if wanted.image.takes_channel() && wanted.channel.is_none() {
            return Err(Refusal::NoChannel { line });
        }
        let tag = full_tag(candidate, wanted)?;
        let mut new = format!("{}:{tag}", wanted.image.name(wanted.channel));
        if let DigestRule::Replace(digest) = wanted.digest {
            new.push_str(&format!("@{digest}"));
        }
        return convert::converted(lines, source, candidate, found, new).map(Some);
    };
    if reference.tag.as_ref().is_some_and(Range::is_empty) && !source[occurrence.span.clone()].contains(&b'$') {
        return Err(Refusal::File(Refused { line, reason: Reason::Reference }));
    }
    let refuse_variable = |part: &Range<usize>| -> Result<(), Refusal> {
        if text[part.clone()].contains(&'$') && occurrence.place != Place::From {
            return Err(Refusal::Variable { line, reference: shown() });
        }
        Ok(())
    };
    refuse_variable(channel)?;
    let is_other = |new: &&str| wanted.image.takes_channel() && candidate.part(channel) != *new;
    if let Some(new) = wanted.channel.filter(is_other) {
        parts.push((channel.clone(), new.to_owned()));
    }
    if let Some(tag) = &reference.tag {
        refuse_variable(tag)?;
        if tag.is_empty() {
            return Err(Refusal::Variable { line, reference: shown() });
        }
        if !wanted.revision.is_named_by(&candidate.part(tag)) {
            parts.push((tag.clone(), full_tag(candidate, wanted)?));
        }
    } else {
        let end = reference.repository.end;
        parts.push((end..end, format!(":{}", full_tag(candidate, wanted)?)));
    }
    if let Some(digest) = &reference.digest {
        match wanted.digest {
            DigestRule::Refuse if parts.is_empty() => {}
            DigestRule::Refuse => return Err(Refusal::Digest { line, reference: shown() }),
            DigestRule::Drop => parts.push((digest.start - 1..digest.end, String::new())),
            DigestRule::Replace(new) if candidate.part(digest) == *new => {}
            DigestRule::Replace(new) => parts.push((digest.clone(), new.clone())),
        }
    }
    if parts.is_empty() { Ok(None) } else { finish(lines, candidate, &parts).map(Some) }
}

fn full_tag(candidate: &Candidate<'_>, wanted: &Wanted<'_>) -> Result<String, Refusal> {
    match wanted.revision {
        Revision::Full(commit) => Ok(commit.as_str().to_owned()),
        Revision::Prefix(digits) => {
            Err(Refusal::Incomplete { line: candidate.occurrence.line, digits: digits.clone() })
        }
    }
}

/// Turns changed parts of the reference into edits of the file.
fn finish<'a>(
    lines: &dyn Fn() -> &'a LineStarts,
    candidate: &Candidate<'_>,
    parts: &[(Range<usize>, String)],
) -> Result<Change, Refusal> {
    let Candidate { occurrence, text, reference, .. } = candidate;
    let mut new = String::new();
    let mut at = 0;
    let mut edits = Vec::new();
    for (part, replacement) in parts {
        new.extend(&text[at..part.start]);
        new.push_str(replacement);
        at = part.end;
        let range = literal(occurrence, part)
            .ok_or_else(|| Refusal::Composed { line: occurrence.line, reference: text.iter().collect() })?;
        edits.push(Edit { range, text: replacement.clone() });
    }
    new.extend(&text[at..]);
    let first = edits.iter().map(|edit| edit.range.start).min().unwrap_or(occurrence.span.start);
    let line = lines().line(first);
    let new_chars: Vec<char> = new.chars().collect();
    let name = |text: &[char]| text[..Reference::cut(text).repository.end].iter().collect();
    Ok(Change {
        line,
        old: text.iter().collect(),
        old_name: text[..reference.repository.end].iter().collect(),
        new_name: name(&new_chars),
        new,
        edits,
    })
}

/// Where a part of the reference stands in the file, if it stands there in one piece.
fn literal(occurrence: &Occurrence, part: &Range<usize>) -> Option<Range<usize>> {
    let chars = &occurrence.text;
    if part.is_empty() {
        // Behind the character before it.
        let end = chars.get(part.start.checked_sub(1)?)?.at()? + 1;
        return Some(end..end);
    }
    let start = chars[part.start].at()?;
    let is_in_one_piece =
        (start..).zip(&chars[part.clone()]).all(|(at, char)| char.at() == Some(at) && char.value.is_ascii());
    is_in_one_piece.then(|| start..start + part.len())
}

/// The text with all edits made; `None` if they lie over each other.
fn apply(source: &[u8], mut edits: Vec<Edit>) -> Option<Vec<u8>> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut text = Vec::with_capacity(source.len() + 64);
    let mut at = 0;
    for edit in &edits {
        text.extend_from_slice(source.get(at..edit.range.start)?);
        text.extend_from_slice(edit.text.as_bytes());
        at = edit.range.end;
    }
    text.extend_from_slice(source.get(at..)?);
    Some(text)
}

/// Reads the new text again: what was to change has changed, and everything else is what it was.
fn check(
    found: &Found,
    expected: &[(&Occurrence, String)],
    new: &[u8],
    kind: Kind,
    image: &ImagePrefix,
) -> Result<(), Refusal> {
    let again = read(new, kind, image)?;
    let changed_line = expected[0].0.line;
    let mut expected = expected.iter().peekable();
    for (index, old) in found.occurrences.iter().enumerate() {
        let wanted = match expected.peek() {
            Some((occurrence, text)) if std::ptr::eq(*occurrence, old) => {
                expected.next();
                text.clone()
            }
            _ => old.reference(),
        };
        let is_so = again.occurrences.get(index).is_some_and(|new| new.reference() == wanted && new.place == old.place);
        if !is_so {
            return Err(Refusal::Shared { line: changed_line, other_line: old.line, other: old.reference() });
        }
    }
    if again.stages == found.stages { Ok(()) } else { Err(Refusal::Overlap) }
}
