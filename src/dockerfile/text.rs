//! Where a file that is not a Dockerfile (`compose.yaml`, a workflow, `devcontainer.json`) names a base image.
//! It must never parse YAML or JSON, nor pass over a name that it cannot read.

use std::borrow::Cow;
use std::ops::Range;

use super::chars::{Char, LineStarts, decode};
use super::reference::{ImagePrefix, is_host};
use super::{Meaning, Occurrence, Place};

/// Schemes of links to pages and repositories, which name no image.
const LINKS: [&[u8]; 6] = [b"http", b"https", b"git", b"ssh", b"ftp", b"file"];
/// Characters of an unreadable name that an error shows.
const EXCERPT: usize = 80;
/// Of a variable with all in its braces, and of a host: what is longer is neither.
const LONGEST_PART: usize = 1024;
/// Of a tag.
const LONGEST_TAG: usize = 128;

/// What a kind of text file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `# comment`, as in YAML and shell scripts.
    Hash,
    /// `// comment` and `/* comment */`, as in `devcontainer.json`.
    Slashes,
    /// All of these, as in HCL and Nix.
    Both,
    /// `<!-- comment -->`, as in XML.
    Markup,
    /// The same in a document for people, which may name an image without a tag.
    Prose,
}

/// A name that begins as a base image's but is not one with a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// Where, from 1.
    pub line: usize,
    /// The name as it is in the file.
    pub name: String,
}

/// Each reference to one of these images with a tag or a digest, outside of comments.
pub fn read(source: &[u8], image: &ImagePrefix, syntax: Syntax) -> Result<Vec<Occurrence>, Unclear> {
    let name = image.repository().as_bytes();
    let escaped = |slash: &str| image.repository().replace('/', slash);
    let others = [escaped("\\/"), escaped("%2F"), escaped("%2f")];
    let contains = |name: &[u8]| memchr::memmem::find(source, name).is_some();
    if !contains(name) && (!image.repository().contains('/') || !others.iter().any(|name| contains(name.as_bytes()))) {
        return Ok(Vec::new());
    }
    let code = without_comments(source, syntax);
    let lines = LineStarts::of(source);
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(&code, name) {
        let Some(start) = beginning(&code, at, image) else { continue };
        let Some((end, is_clear)) = reference(&code, at + name.len(), image.takes_channel()) else { continue };
        let line = lines.line(start);
        if is_clear {
            let text: Vec<Char> = decode(&code[start..end], |offset| start + offset);
            found.push(Occurrence {
                line,
                place: Place::Text,
                stage: None,
                text,
                span: start..end,
                meaning: Meaning::Image,
            });
        } else if syntax != Syntax::Prose && !is_path(&code, at) {
            return Err(Unclear { line, name: excerpt(&code, start, end) });
        }
    }
    for name in others.iter().filter(|name| image.repository() != name.as_str()) {
        if let Some(at) = memchr::memmem::find_iter(&code, name.as_bytes()).find(|&at| !is_word_before(&code, at)) {
            return Err(Unclear { line: lines.line(at), name: excerpt(&code, at, at + name.len()) });
        }
    }
    Ok(found)
}

/// Where the reference begins whose repository begins at `at`: there, or before its registry. `None` if the name
/// belongs to another repository or is a link.
fn beginning(code: &[u8], at: usize, image: &ImagePrefix) -> Option<usize> {
    let own = image.registry();
    if at == 0 || code[at - 1] != b'/' {
        return (own.is_none() && !is_word_before(code, at)).then_some(at);
    }
    let slash = at - 1;
    if let Some(scheme) = scheme(code, slash) {
        return (own.is_none() && !LINKS.contains(&scheme)).then_some(at);
    }
    let mut start = slash - host_length(&code[..slash]);
    // `image:host/…`: what is behind the last colon is the host, unless it is a port.
    let colon = code[start..slash].iter().rposition(|&byte| byte == b':').map(|colon| start + colon);
    let is_port = |colon: &usize| colon + 1 < slash && code[colon + 1..slash].iter().all(u8::is_ascii_digit);
    if let Some(colon) = colon.filter(|colon| !is_port(colon)) {
        start = colon + 1;
    }
    start = after_default_sign(code, start, slash);
    let host = &code[start..slash];
    if let Some(own) = own {
        let is_free = !is_word_before(code, start) || is_scheme_end(code, start);
        return (host == own.as_bytes() && is_free && is_linkless(code, start)).then_some(start);
    }
    let before = start.checked_sub(1).map(|before| code[before]);
    match before {
        // `$REGISTRY/…`
        Some(b'$') if !host.is_empty() => Some(start - 1),
        // `${REGISTRY}/…`, `{{ registry }}/…`, `"$REGISTRY"/…`: a registry that is known when the image is used.
        Some(b'}' | b')') if host.is_empty() => Some(variable_before(code, start).unwrap_or(at)),
        _ if host.is_empty() => Some(at),
        Some(b'/') if !is_scheme_end(code, start) => None,
        _ => {
            let host: Vec<char> = host.iter().map(|&byte| char::from(byte)).collect();
            (is_host(&host) && host.iter().any(|&c| c != '.') && is_linkless(code, start)).then_some(start)
        }
    }
}

/// The scheme of `scheme://`, of which the last slash is at `slash`.
fn scheme(code: &[u8], slash: usize) -> Option<&[u8]> {
    let rest = code[..=slash].strip_suffix(b"://")?;
    let is_good = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+.-".contains(byte);
    let length = rest.iter().rev().take(LONGEST_PART).take_while(is_good).count();
    Some(&rest[rest.len() - length..])
}

fn is_scheme_end(code: &[u8], at: usize) -> bool {
    code[..at].ends_with(b"://")
}

/// Whether a host at `at` is not behind the scheme of a link.
fn is_linkless(code: &[u8], at: usize) -> bool {
    at.checked_sub(1).and_then(|slash| scheme(code, slash)).is_none_or(|scheme| !LINKS.contains(&scheme))
}

/// Whether the name is a path such as `/srv/…`: then it need not be an image.
fn is_path(code: &[u8], at: usize) -> bool {
    at > 0
        && code[at - 1] == b'/'
        && code[..at - 1].last().is_none_or(|byte| byte.is_ascii_whitespace() || b"\"'`(=:".contains(byte))
}

/// How many bytes at the end of `code` can be a host.
fn host_length(code: &[u8]) -> usize {
    code.iter().rev().take(LONGEST_PART).take_while(|&&byte| is_host_byte(byte)).count()
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)
}

/// Whether what is before `at` belongs to the same name. `\n` and `%3D` do not, nor does `${NAME-`.
fn is_word_before(code: &[u8], at: usize) -> bool {
    match &code[..at] {
        [.., b'\\', b'n' | b't' | b'r'] => false,
        [.., b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => false,
        [.., last] if is_word_byte(*last) => {
            let start = at - host_length(&code[..at]);
            after_default_sign(code, start, at) < at
        }
        _ => false,
    }
}

/// Behind the sign of `${NAME-` or `${NAME:-` that begins at `start`; else `start`.
fn after_default_sign(code: &[u8], start: usize, end: usize) -> usize {
    let name = code[start..end].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let sign = &code[start + name..end];
    let is_variable = code[..start].ends_with(b"${") && name > 0;
    match sign {
        [b':', b'-', ..] if is_variable => start + name + 2,
        [b'-', ..] if is_variable => start + name + 1,
        // Of `${NAME:-` the colon is not part of a host.
        [b'-', ..] if name == 0 && code[..start].ends_with(b":") => start + 1,
        _ => start,
    }
}

/// The beginning of the `${…}` or `$(…)` whose end is before `at`.
fn variable_before(code: &[u8], at: usize) -> Option<usize> {
    let open: &[u8] = if code[at - 1] == b'}' { b"${" } else { b"$(" };
    let first = at.saturating_sub(LONGEST_PART);
    let line = code[first..at].iter().rposition(|&byte| byte == b'\n').map_or(first, |end| first + end + 1);
    memchr::memmem::rfind(&code[line..at], open).map(|start| line + start)
}

/// Where the reference ends whose repository's fixed part ends at `at`, and whether it is one with a tag or a digest.
/// `None` if the repository goes on, so that it is another one.
fn reference(code: &[u8], at: usize, takes_channel: bool) -> Option<(usize, bool)> {
    let mut end = at;
    if takes_channel {
        end = word(code, at, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
        if end == at {
            return Some((end, false));
        }
    }
    let is_longer = |byte: &u8| *byte == b'/' || !takes_channel && is_word_byte(*byte) && *byte != b'.';
    if code.get(end).is_some_and(is_longer) {
        return None;
    }
    let mut is_named = false;
    if code.get(end) == Some(&b':') {
        let start = end + 1;
        end = word(code, start, |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        // The end of a sentence.
        while end > start && code[end - 1] == b'.' {
            end -= 1;
        }
        let starts_well = code.get(start).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(byte));
        if end == start || !starts_well || end - start > LONGEST_TAG && !code[start..end].contains(&b'$') {
            return Some((end, false));
        }
        is_named = true;
    }
    if code.get(end) == Some(&b'@') {
        let start = end + 1;
        end = word(code, start, |byte| byte.is_ascii_alphanumeric() || b":+._-".contains(&byte));
        is_named = end > start;
    }
    // What goes on so is put together by somebody else.
    let goes_on = code.get(end).is_some_and(|byte| b"{%/+@$".contains(byte) || byte.is_ascii_alphanumeric());
    Some((end, is_named && !goes_on))
}

/// The end of a word of these bytes and of variables: `$NAME`, `${…}`, `$(…)`.
fn word(code: &[u8], start: usize, is_good: impl Fn(u8) -> bool) -> usize {
    let mut at = start;
    while at < code.len() {
        if is_good(code[at]) {
            at += 1;
            continue;
        }
        let Some(length) = variable(&code[at..]) else { break };
        at += length;
    }
    at
}

/// How long the variable at the beginning of `code` is.
fn variable(code: &[u8]) -> Option<usize> {
    match code {
        [b'$', open @ (b'{' | b'('), ..] => {
            let close = if *open == b'{' { b'}' } else { b')' };
            let mut depth = 0_usize;
            let line = code.iter().take(LONGEST_PART).enumerate().skip(1).take_while(|&(_, &byte)| byte != b'\n');
            for (at, &byte) in line {
                if byte == *open {
                    depth += 1;
                } else if byte == close {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
            }
            None
        }
        [b'$', first, ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            Some(1 + code[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count())
        }
        _ => None,
    }
}

/// The name at `start` for an error: up to `end`, and on to the next blank or quote.
fn excerpt(code: &[u8], start: usize, end: usize) -> String {
    let goes_on = |byte: &&u8| !byte.is_ascii_whitespace() && !b"\"'`,".contains(byte);
    let end = end + code[end..].iter().take(EXCERPT).take_while(goes_on).count();
    String::from_utf8_lossy(&code[start..end]).chars().take(EXCERPT).collect()
}

/// The text with blanks in the place of its comments.
fn without_comments(source: &[u8], syntax: Syntax) -> Cow<'_, [u8]> {
    let mut code = Cow::Borrowed(source);
    for comment in comments(source, syntax) {
        code.to_mut()[comment].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    code
}

fn comments(source: &[u8], syntax: Syntax) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    if matches!(syntax, Syntax::Markup | Syntax::Prose) {
        while let Some(start) = memchr::memmem::find(&source[at..], b"<!--").map(|start| at + start) {
            let Some(length) = memchr::memmem::find(&source[start..], b"-->") else { break };
            at = start + length + 3;
            found.push(start..at);
        }
        return found;
    }
    let (hash, slashes) = (syntax != Syntax::Slashes, syntax != Syntax::Hash);
    // Without one after this there is no comment over several lines.
    let last_close = if slashes { memchr::memmem::rfind(source, b"*/") } else { None };
    while at < source.len() {
        let end = memchr::memchr(b'\n', &source[at..]).map_or(source.len(), |length| at + length);
        let mut next = end + 1;
        let mut here = at;
        // Quotes that are not closed on this line: none behind them is.
        let mut open: [bool; 2] = [false; 2];
        while here < end {
            let before = if here == at { b' ' } else { source[here - 1] };
            match source[here] {
                b'#' if hash && before.is_ascii_whitespace() => {
                    found.push(here..end);
                    break;
                }
                b'/' if slashes && source[here..end].starts_with(b"//") && before != b':' => {
                    found.push(here..end);
                    break;
                }
                // Behind a word it is a pattern for names of files.
                b'/' if slashes
                    && source[here..end].starts_with(b"/*")
                    && !is_word_byte(before)
                    && last_close.is_some_and(|close| close >= here + 2) =>
                {
                    let length = memchr::memmem::find(&source[here + 2..], b"*/").map_or(0, |length| length + 4);
                    found.push(here..here + length);
                    here += length;
                    if here > end {
                        next = here;
                        break;
                    }
                    continue;
                }
                quote @ (b'"' | b'\'') if !open[usize::from(quote == b'"')] => {
                    let length = quoted(&source[here..end], quote);
                    open[usize::from(quote == b'"')] = length == 0;
                    here += length;
                }
                _ => {}
            }
            here += 1;
        }
        at = next;
    }
    found
}

/// How much of a text in quotes is behind the first one. One that is not closed on its line is an apostrophe.
fn quoted(line: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < line.len() {
        match line[at] {
            b'\\' if quote == b'"' => at += 1,
            byte if byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    0
}
