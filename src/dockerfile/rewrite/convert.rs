//! The image of a stage, whatever it is, replaced by the base image.
//! It must never change an ARG that another image is made of.

use super::{Candidate, Change, Edit, Found, Refusal, literal, shown_reference};
use crate::dockerfile::Occurrence;
use crate::dockerfile::chars::LineStarts;
use crate::dockerfile::reference::Reference;

/// Replaces a whole reference: in the default of the ARG that is all of the word, if nothing else is made of it; else
/// the word in the FROM, whatever variables it has.
pub(super) fn converted<'a>(
    lines: &dyn Fn() -> &'a LineStarts,
    source: &[u8],
    candidate: &Candidate<'_>,
    found: &Found,
    new: String,
) -> Result<Change, Refusal> {
    let Candidate { occurrence, text, .. } = candidate;
    let literal = if text.is_empty() { None } else { literal(occurrence, &(0..text.len())) };
    let in_arg = literal.filter(|range| {
        let others = found.occurrences.iter().filter(|other| !std::ptr::eq(*other, *occurrence));
        let is_shared = |other: &Occurrence| other.text.iter().any(|c| c.at().is_some_and(|at| range.contains(&at)));
        range.end <= occurrence.span.start && !others.into_iter().any(is_shared)
    });
    let word = &source[occurrence.span.clone()];
    let range = match in_arg {
        Some(range) if is_one_variable(word) => range,
        _ if word.contains(&b'\n') => {
            return Err(Refusal::Composed { line: occurrence.line, reference: text.iter().collect() });
        }
        _ => occurrence.span.clone(),
    };
    let old = shown_reference(source, occurrence);
    let name = |text: &str| {
        let text: Vec<char> = text.chars().collect();
        text[..Reference::cut(&text).repository.end].iter().collect()
    };
    Ok(Change {
        line: lines().line(range.start),
        old_name: name(&old),
        new_name: name(&new),
        old,
        edits: vec![Edit { range, text: new.clone() }],
        new,
    })
}

/// `$NAME` or `${NAME}`, with or without quotes.
fn is_one_variable(word: &[u8]) -> bool {
    let word = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\"")).unwrap_or(word);
    let Some(name) = word.strip_prefix(b"$") else { return false };
    let name = name.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(name);
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}
