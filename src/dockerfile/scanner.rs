//! Cuts a Dockerfile into instructions by the rules of `BuildKit`'s `parser.go`: directives, comments,
//! continuations and heredocs.
//! It must never ask what an instruction means, beyond what decides where the next one begins.

use std::borrow::Cow;
use std::ops::Range;

use super::chars::{trim_newline, trim_start};
use super::words::{self, Command, Keyword};
use super::{Reason, Refused, heredoc};

/// Go's `bufio.MaxScanTokenSize - 1`: a longer line is an error for the whole file.
const LONGEST_LINE: usize = 65_535;
/// Only at the very beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The keys that a directive can have.
const DIRECTIVES: [&str; 3] = ["syntax", "escape", "check"];

/// A file cut into instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// `\`, or the character of the `escape` directive.
    pub escape: u8,
    /// Whether a frontend of its own reads the file, by `# syntax=`: it may have other instructions and flags.
    pub has_own_frontend: bool,
    /// In the order of the file.
    pub instructions: Vec<Instruction<'a>>,
}

/// One instruction with all its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// The first and the last line, heredocs included, from 1.
    pub lines: (usize, usize),
    /// Its text without heredocs.
    pub line: Line<'a>,
    /// What it is split into; of `ONBUILD …` the instruction behind it.
    pub command: Command,
    /// How many times `ONBUILD` stands before it.
    pub onbuild: usize,
    /// How many heredocs follow it.
    pub heredocs: usize,
}

/// The text of an instruction: its physical lines, put together without the escape characters and line
/// ends between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The joined text.
    pub text: Cow<'a, [u8]>,
    first: usize,
    /// For each further physical line: where it begins in the joined text, and in the file.
    more: Vec<(usize, usize)>,
}

impl Line<'_> {
    /// The offset in the file of a byte of the joined text.
    pub fn place(&self, joined: usize) -> usize {
        match self.more.partition_point(|(start, _)| *start <= joined) {
            0 => self.first + joined,
            piece => {
                let (start, place) = self.more[piece - 1];
                place + joined - start
            }
        }
    }
}

/// The physical lines of a file, line ends included.
struct Lines<'a> {
    source: &'a [u8],
    at: usize,
    /// The line that was read last, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line and the offset of its first byte.
    fn next(&mut self) -> Result<Option<(usize, &'a [u8])>, Refused> {
        let rest = &self.source[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', rest);
        self.number += 1;
        if end.unwrap_or(rest.len()) > LONGEST_LINE {
            return Err(Refused { line: self.number, reason: Reason::LineTooLong });
        }
        let start = self.at;
        let line = &rest[..end.map_or(rest.len(), |end| end + 1)];
        self.at += line.len();
        Ok(Some((start, line)))
    }
}

/// Reads a file one instruction after the other.
pub struct Scanner<'a> {
    lines: Lines<'a>,
    directives: Directives,
    /// Whether there was an instruction yet.
    any: bool,
}

/// Cuts `source` into instructions. Fails where `docker build` would refuse the whole file before it
/// looks at a single instruction.
pub fn scan(source: &[u8]) -> Result<Script<'_>, Refused> {
    let mut scanner = Scanner::new(source);
    let mut instructions = Vec::new();
    while let Some(instruction) = scanner.instruction()? {
        instructions.push(instruction);
    }
    let has_own_frontend = scanner.has_own_frontend();
    Ok(Script { escape: scanner.escape(), has_own_frontend, instructions })
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of `source`.
    pub fn new(source: &'a [u8]) -> Self {
        Self { lines: Lines { source, at: 0, number: 0 }, directives: Directives::default(), any: false }
    }

    /// The escape character, which is settled once there is an instruction.
    pub fn escape(&self) -> u8 {
        self.directives.escape()
    }

    /// Whether the `syntax` directive names another frontend than Docker's, once there is an instruction.
    pub fn has_own_frontend(&self) -> bool {
        self.directives.has_own_frontend
    }

    /// The next instruction. Fails as [`scan`] does: only a file that is read to its end is not refused.
    pub fn instruction(&mut self) -> Result<Option<Instruction<'a>>, Refused> {
        while let Some((mut start, mut line)) = self.lines.next()? {
            let number = self.lines.number;
            if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line = &line[BYTE_ORDER_MARK.len()..];
                start += BYTE_ORDER_MARK.len();
            }
            let trimmed = trim_start(trim_newline(line));
            start += trim_newline(line).len() - trimmed.len();
            let refused = |reason| Refused { line: number, reason };
            self.directives.read(trimmed).map_err(refused)?;
            let text = if is_comment(trimmed) { &[] } else { trimmed };
            let (text, goes_on) = without_continuation(text, self.escape());
            if text.is_empty() && !goes_on {
                continue;
            }
            let line = self.joined(start, text, goes_on)?;
            let (command, onbuild) = split(&line.text, self.escape()).map_err(refused)?;
            let mut heredocs = 0;
            if can_have_heredocs(&command, onbuild) {
                for heredoc in heredoc::find(&line.text).map_err(refused)? {
                    skip(&mut self.lines, &heredoc, number)?;
                    heredocs += 1;
                }
            }
            self.any = true;
            let lines = (number, self.lines.number);
            return Ok(Some(Instruction { lines, line, command, onbuild, heredocs }));
        }
        if self.any { Ok(None) } else { Err(Refused { line: self.lines.number, reason: Reason::NoInstruction }) }
    }

    /// A first line together with those that continue it.
    fn joined(&mut self, start: usize, text: &'a [u8], mut goes_on: bool) -> Result<Line<'a>, Refused> {
        let mut joined = Line { text: Cow::Borrowed(text), first: start, more: Vec::new() };
        while goes_on {
            let Some((start, line)) = self.lines.next()? else { break };
            let line = trim_newline(line);
            // Neither ends the instruction. (An empty one is deprecated.)
            if is_comment(line) || trim_start(line).is_empty() {
                continue;
            }
            let text;
            (text, goes_on) = without_continuation(line, self.directives.escape());
            joined.more.push((joined.text.len(), start));
            joined.text.to_mut().extend_from_slice(text);
        }
        Ok(joined)
    }
}

/// Splits an instruction, and each `ONBUILD` before it.
fn split(line: &[u8], escape: u8) -> Result<(Command, usize), Reason> {
    let mut onbuild = 0;
    let mut command = words::split(line, 0..line.len(), escape)?;
    while command.keyword == Keyword::Onbuild && !command.arguments.is_empty() {
        if !command.flags.is_empty() {
            return Err(Reason::UnknownFlag);
        }
        onbuild += 1;
        command = words::split(line, command.arguments, escape)?;
    }
    Ok((command, onbuild))
}

/// `canContainHeredoc`: it looks behind one ONBUILD, not behind two.
fn can_have_heredocs(command: &Command, onbuild: usize) -> bool {
    matches!(command.keyword, Keyword::Run | Keyword::Copy | Keyword::Add) && !command.is_json && onbuild <= 1
}

/// Reads up to the end of a heredoc, in which nothing is an instruction.
fn skip(lines: &mut Lines<'_>, heredoc: &heredoc::Heredoc, first_line: usize) -> Result<(), Refused> {
    while let Some((_, line)) = lines.next()? {
        let mut line = trim_newline(line);
        if heredoc.chomp {
            line = &line[line.iter().take_while(|&&byte| byte == b'\t').count()..];
        }
        if line == heredoc.name.as_bytes() {
            return Ok(());
        }
    }
    Err(Refused { line: first_line, reason: Reason::Unterminated })
}

fn is_comment(line: &[u8]) -> bool {
    trim_start(line).first() == Some(&b'#')
}

/// `([^E])E[ \t]*$|^E[ \t]*$` with E for the escape character, so an escaped one does not continue the
/// line: the line without it, and whether it goes on.
fn without_continuation(line: &[u8], escape: u8) -> (&[u8], bool) {
    let mut rest = line;
    while let [before @ .., b' ' | b'\t'] = rest {
        rest = before;
    }
    match rest {
        [before @ .., last] if *last == escape && before.last() != Some(&escape) => (before, true),
        _ => (line, false),
    }
}

/// The parser directives, `# key=value` above everything else.
#[derive(Default)]
struct Directives {
    escape: Option<u8>,
    has_own_frontend: bool,
    seen: [bool; DIRECTIVES.len()],
    /// Once a line is none, no later line is one.
    done: bool,
}

impl Directives {
    fn escape(&self) -> u8 {
        self.escape.unwrap_or(b'\\')
    }

    fn read(&mut self, line: &[u8]) -> Result<(), Reason> {
        if self.done {
            return Ok(());
        }
        let Some((key, value)) = directive(line) else {
            self.done = true;
            return Ok(());
        };
        if std::mem::replace(&mut self.seen[key], true) {
            return Err(Reason::DirectiveTwice);
        }
        if DIRECTIVES[key] == "syntax" {
            // Also those of a mirror.
            self.has_own_frontend = memchr::memmem::find(value, b"docker/dockerfile").is_none();
        }
        if DIRECTIVES[key] == "escape" {
            self.escape = match value {
                [escape @ (b'`' | b'\\')] => Some(*escape),
                _ => return Err(Reason::EscapeDirective),
            };
        }
        Ok(())
    }
}

/// `^#`, white space, `([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$`, with one of the known keys: its index
/// and the value. Go's `\s` is ASCII without the vertical tab.
fn directive(line: &[u8]) -> Option<(usize, &[u8])> {
    let blank = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    let skip = |bytes: &'_ [u8]| bytes.iter().take_while(|byte| blank(byte)).count();
    let line = trim_start(line.strip_prefix(b"#")?);
    let key = line.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (key, rest) = line.split_at(key);
    let key = DIRECTIVES.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(key))?;
    let mut value = rest[skip(rest)..].strip_prefix(b"=")?;
    value = &value[skip(value)..];
    while value.last().is_some_and(blank) {
        value = &value[..value.len() - 1];
    }
    (!value.is_empty()).then_some((key, value))
}

/// Where the bytes `joined` of the joined text stand in the file, with what lies between its lines.
pub fn span(line: &Line<'_>, joined: &Range<usize>) -> Range<usize> {
    let start = line.place(joined.start);
    if joined.is_empty() { start..start } else { start..line.place(joined.end - 1) + 1 }
}
