//! Where a file that is no Dockerfile (`compose.yaml`, a workflow, `devcontainer.json`) names a base image.
//! It must never parse YAML or JSON: a whole token that is a reference counts, whatever is around it.

use super::chars::{Char, decode};
use super::reference::{ImagePrefix, Reference};
use super::{Meaning, Occurrence, Place};

/// How a workflow writes that an action is an image.
const SCHEME: &[u8] = b"docker://";

/// Each token that names one of these images with a tag or a digest, outside of comments.
pub fn read(source: &[u8], image: &ImagePrefix) -> Vec<Occurrence> {
    let mut found = Vec::new();
    let mut start = 0;
    for (index, line) in source.split(|&byte| byte == b'\n').enumerate() {
        for (from, to) in tokens(&line[..comment(line)]) {
            let from = from + if line[from..to].starts_with(SCHEME) { SCHEME.len() } else { 0 };
            let text = decode(&line[from..to], |at| start + from + at);
            if is_candidate(&text, image) {
                let span = start + from..start + to;
                let (place, meaning) = (Place::Text, Meaning::Image);
                found.push(Occurrence { line: index + 1, place, stage: None, text, span, meaning });
            }
        }
        start += line.len() + 1;
    }
    found
}

fn is_candidate(text: &[Char], image: &ImagePrefix) -> bool {
    let text: Vec<char> = text.iter().map(|char| char.value).collect();
    if !text.contains(&':') && !text.contains(&'@') {
        return false;
    }
    let reference = Reference::cut(&text);
    let tag_is_good = reference.tag.as_ref().is_none_or(|tag| is_tag(&text[tag.clone()]));
    (reference.tag.is_some() || reference.digest.is_some())
        && tag_is_good
        && image.channel_of(&text, &reference).is_some()
}

/// `[\w][\w.-]{0,127}`, or something with a variable in it.
fn is_tag(text: &[char]) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.contains(&'$')
        || (text.len() <= 128
            && text.first().is_some_and(|&c| word(c))
            && text.iter().all(|&c| word(c) || matches!(c, '.' | '-')))
}

/// Where the comment of a line begins: at a `#` with nothing or a blank before it, outside of quotes.
fn comment(line: &[u8]) -> usize {
    let mut at = 0;
    while at < line.len() {
        let after_blank = at == 0 || matches!(line[at - 1], b' ' | b'\t');
        match line[at] {
            b'#' if after_blank => return at,
            quote @ (b'"' | b'\'') => {
                // One that is not closed on its line is an apostrophe.
                let closing = line[at + 1..].iter().position(|&byte| byte == quote);
                at += closing.map_or(0, |length| length + 1);
            }
            _ => {}
        }
        at += 1;
    }
    line.len()
}

/// The pieces between blanks, quotes and commas.
fn tokens(line: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let is_bound = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'"' | b'\'' | b'`' | b',');
    let mut at = 0;
    std::iter::from_fn(move || {
        at += line[at..].iter().take_while(|&&byte| is_bound(byte)).count();
        let start = at;
        at += line[at..].iter().take_while(|&&byte| !is_bound(byte)).count();
        (at > start).then_some((start, at))
    })
}
