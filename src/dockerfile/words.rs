//! How `BuildKit` splits an instruction into its name, its `--flags`, its arguments and their words
//! (`split_command.go`, `line_parsers.go`), with the place of each.
//! It must never look at more than one instruction.

use std::ops::Range;

use serde_json::value::RawValue;

use super::Reason;
use super::chars::{Char, is_blank, is_latin1_space, trim_end, trim_start};

/// Characters that nearly every flag has room in.
const FLAG_LENGTH: usize = 64;

/// The instructions of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is called as the instruction is")]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
    /// Every other word.
    Other,
}

impl Keyword {
    fn of(name: &[u8]) -> Self {
        // The frequent ones first.
        let table: [(&str, Self); 18] = [
            ("run", Self::Run),
            ("copy", Self::Copy),
            ("env", Self::Env),
            ("from", Self::From),
            ("arg", Self::Arg),
            ("add", Self::Add),
            ("workdir", Self::Workdir),
            ("label", Self::Label),
            ("user", Self::User),
            ("cmd", Self::Cmd),
            ("entrypoint", Self::Entrypoint),
            ("expose", Self::Expose),
            ("volume", Self::Volume),
            ("onbuild", Self::Onbuild),
            ("shell", Self::Shell),
            ("healthcheck", Self::Healthcheck),
            ("stopsignal", Self::Stopsignal),
            ("maintainer", Self::Maintainer),
        ];
        let found =
            table.iter().find(|(word, _)| word.len() == name.len() && word.as_bytes().eq_ignore_ascii_case(name));
        found.map_or(Self::Other, |(_, keyword)| *keyword)
    }
}

/// An instruction split up. Offsets are those of the joined line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which instruction.
    pub keyword: Keyword,
    /// Each leading `--flag`, without its quotes; [`Char::at`] gives the offset in the joined line.
    pub flags: Vec<Vec<Char>>,
    /// What stands behind the flags, without white space at both ends.
    pub arguments: Range<usize>,
    /// Whether the arguments are a JSON array of strings, which only some instructions can have.
    pub is_json: bool,
}

/// Splits the instruction in `line[range]`; `escape` is the file's escape character.
pub fn split(line: &[u8], range: Range<usize>, escape: u8) -> Result<Command, Reason> {
    let trimmed = trimmed(line, range);
    let text = &line[trimmed.clone()];
    let name_end = text.iter().position(|&byte| is_blank(byte)).unwrap_or(text.len());
    let blanks = text[name_end..].iter().take_while(|&&byte| is_blank(byte)).count();
    let keyword = Keyword::of(&text[..name_end]);
    let rest = trimmed.start + name_end + blanks..trimmed.end;
    let (flags, rest) = take_flags(line, rest, escape);
    let arguments = self::trimmed(line, rest);
    let is_json = check(keyword, &line[arguments.clone()], escape)?;
    Ok(Command { keyword, flags, arguments, is_json })
}

/// `range` without the white space at its ends.
fn trimmed(line: &[u8], range: Range<usize>) -> Range<usize> {
    let start = range.end - trim_start(&line[range.clone()]).len();
    start..start + trim_end(&line[start..range.end]).len()
}

/// `extractBuilderFlags`: the leading words that begin with `--`, and what stands behind them. It takes
/// bytes for characters, so that a byte 0x85 or 0xA0 within a letter ends a flag. Its escape character is that of the
/// file since dockerfile/1.15; before, it was always `\`.
fn take_flags(line: &[u8], range: Range<usize>, escape: u8) -> (Vec<Vec<Char>>, Range<usize>) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        while at < range.end && is_latin1_space(line[at]) {
            at += 1;
        }
        if !line[at..range.end].starts_with(b"--") {
            return (flags, at..range.end);
        }
        let mut word = Vec::with_capacity(FLAG_LENGTH.min(range.end - at));
        let mut quote = None;
        let mut quoted = false;
        while at < range.end && (quote.is_some() || !is_latin1_space(line[at])) {
            match (line[at], quote) {
                (byte, Some(open)) if byte == open => quote = None,
                (byte @ (b'\'' | b'"'), None) => {
                    quote = Some(byte);
                    quoted = true;
                }
                // At the very end it is skipped, and ends a quote too.
                (byte, _) if byte == escape && at + 1 == range.end => {}
                (byte, _) => {
                    at += usize::from(byte == escape);
                    word.push(Char::new(char::from(line[at]), at));
                }
            }
            at += 1;
        }
        let is_end = word.iter().map(|char| char.value).eq("--".chars());
        if is_end {
            return (flags, at..range.end);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
    }
}

/// What `BuildKit` finds wrong with the arguments of `keyword`, and whether they are a JSON array.
fn check(keyword: Keyword, arguments: &[u8], escape: u8) -> Result<bool, Reason> {
    match keyword {
        Keyword::Run
        | Keyword::Copy
        | Keyword::Add
        | Keyword::Cmd
        | Keyword::Entrypoint
        | Keyword::Shell
        | Keyword::Volume => is_json_array(arguments),
        Keyword::Healthcheck => {
            let word = arguments.iter().take_while(|&&byte| !is_latin1_space(byte)).count();
            let blanks = arguments[word..].iter().take_while(|&&byte| is_latin1_space(byte)).count();
            is_json_array(&arguments[word + blanks..])
        }
        Keyword::Env | Keyword::Label => check_pairs(arguments, escape).map(|()| false),
        _ => Ok(false),
    }
}

/// Whether `text` is a JSON array of strings. One of other values is an error for the whole file;
/// anything else is no array.
fn is_json_array(text: &[u8]) -> Result<bool, Reason> {
    let text = trim_start(text);
    if text.first() != Some(&b'[') {
        return Ok(false);
    }
    // Go replaces what is no UTF-8 in strings, and does not mind it.
    let text = String::from_utf8_lossy(text);
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(&text) else { return Ok(false) };
    if items.iter().all(|item| item.get().starts_with('"')) { Ok(true) } else { Err(Reason::JsonArray) }
}

/// `parseNameVal`: `name value`, or `name=value …`.
fn check_pairs(arguments: &[u8], escape: u8) -> Result<(), Reason> {
    let mut words = Words { line: arguments, at: 0, end: arguments.len(), escape, word: Vec::new() };
    let mut is_first = true;
    while let Some(word) = words.next() {
        if word.first().is_some_and(|&(byte, _)| byte == b'=') {
            return Err(Reason::BlankName);
        }
        if word.iter().all(|&(byte, _)| byte != b'=') {
            return match is_first {
                true if arguments.iter().any(|&byte| is_blank(byte)) => Ok(()),
                true => Err(Reason::NoValue),
                false => Err(Reason::NoEqualsSign),
            };
        }
        is_first = false;
    }
    Ok(())
}

/// The words of `line[range]`, with quotes and escapes left in them, and the place of each byte.
pub fn split_words(line: &[u8], range: Range<usize>, escape: u8) -> Vec<Vec<(u8, usize)>> {
    let mut words = Words { line, at: range.start, end: range.end, escape, word: Vec::new() };
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        found.push(word.to_vec());
    }
    found
}

/// `parseWords`: words between white space. A byte at a time: what is no white space, quote or escape goes
/// through as it is.
struct Words<'a> {
    line: &'a [u8],
    at: usize,
    end: usize,
    escape: u8,
    /// One buffer for all of them.
    word: Vec<(u8, usize)>,
}

impl Words<'_> {
    fn next(&mut self) -> Option<&[(u8, usize)]> {
        let Self { line, at, end, escape, word } = self;
        let (line, end, escape) = (*line, *end, *escape);
        loop {
            *at = end - trim_start(&line[*at..end]).len();
            if *at == end {
                return None;
            }
            word.clear();
            let mut quote = None;
            let mut quoted = false;
            while *at < end {
                let byte = line[*at];
                // Only these bytes can begin white space.
                let may_be_space = byte <= b' ' || byte >= 0xc2;
                if quote.is_none() && may_be_space && trim_start(&line[*at..end]).len() < end - *at {
                    break;
                }
                match quote {
                    Some(open) if byte == open => quote = None,
                    None if byte == b'\'' || byte == b'"' => {
                        quote = Some(byte);
                        quoted = true;
                    }
                    _ => {}
                }
                if byte == escape && quote != Some(b'\'') {
                    if *at + 1 == end {
                        *at += 1;
                        break;
                    }
                    word.push((byte, *at));
                    *at += 1;
                }
                word.push((line[*at], *at));
                *at += 1;
            }
            if quoted || !word.is_empty() {
                return Some(&self.word);
            }
        }
    }
}
