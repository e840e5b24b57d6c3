//! Reads what bash wrote of itself when it failed ([`super::hook`]).
//! It must never take a snapshot that is not whole for one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A snapshot's file is this large from the start and cannot grow: what does not fit is not written.
pub const LARGEST: usize = 16 << 20;
/// A write that does not fit may be cut as far as this before the end, and a shorter one may follow it.
const UNSAFE_END: usize = 64 << 10;

/// One function or file on bash's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function; `main` for a script itself, `source` for a file that was read with `.`.
    pub function: OsString,
    /// The file that it is written in, or a word of bash's where there is none.
    pub source: OsString,
    /// The line that called it, in the next frame's file; 0 where nothing did.
    pub called_at: u64,
}

/// How bash stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Options of `set -o` that were on, by name.
    pub options_on: Vec<String>,
    /// `$BASH_COMMAND`.
    pub command: OsString,
    /// The innermost first.
    pub stack: Vec<Frame>,
    /// Working directory.
    pub directory: OsString,
    /// Commands that restore the options of `shopt`.
    pub shopts: Vec<u8>,
    /// Commands that restore those of `set -o`.
    pub options: Vec<u8>,
    /// Names of all variables that have a value.
    pub names: Vec<OsString>,
    /// Commands that restore variables.
    pub variables: Vec<u8>,
    /// Commands that restore functions.
    pub functions: Vec<u8>,
}

/// What the ERR trap wrote of a command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// A subshell wrote one too, which led to this.
    pub has_inner: bool,
    /// `$?`.
    pub status: u8,
    /// `$LINENO`.
    pub line: u64,
    /// `$BASH_COMMAND`.
    pub command: OsString,
    /// The innermost first.
    pub stack: Vec<Frame>,
    /// Commands that restore the innermost function's variables.
    pub locals: Vec<u8>,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing was written: the trap did not run.
    Unwritten,
    /// It did not fit, or bash ended while it wrote.
    Cut,
}

/// Fields, each of which ends with a NUL.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        let (field, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(field)
    }

    fn text(&mut self) -> Option<OsString> {
        self.next().map(|field| OsStr::from_bytes(field).to_owned())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(self.next()?).ok()?.parse().ok()
    }

    /// `$BASH_COMMAND`, and the stack without the frame of the script that wrote it.
    fn stack(&mut self) -> Option<(OsString, Vec<Frame>)> {
        let command = self.text()?;
        let mut functions = self.list()?.into_iter();
        let sources = self.list()?;
        let lines: Vec<u64> = sources.iter().map(|_| self.number()).collect::<Option<_>>()?;
        let last = sources.len().saturating_sub(1);
        let frames = sources.into_iter().zip(lines).enumerate().map(|(i, (source, called_at))| {
            let outside = if i == last { "main" } else { "source" };
            Frame { function: functions.next().unwrap_or_else(|| outside.into()), source, called_at }
        });
        Some((command, frames.skip(1).collect()))
    }

    /// A count, and as many fields.
    fn list(&mut self) -> Option<Vec<OsString>> {
        let count: usize = self.number()?;
        // Each takes a byte at least: a larger number is none of ours.
        if count > self.rest.len() {
            return None;
        }
        (0..count).map(|_| self.text()).collect()
    }

    /// The names up to an empty one.
    fn names(&mut self) -> Option<Vec<OsString>> {
        let mut names = Vec::new();
        loop {
            match self.text()? {
                name if name.is_empty() => return Some(names),
                name => names.push(name),
            }
        }
    }

    fn is_at_end(&mut self) -> Option<bool> {
        Some(self.next()? == b"end")
    }
}

/// Reads a snapshot's file: what was written, and then nothing but NULs.
pub fn parse(file: &[u8]) -> Result<Snapshot, Missing> {
    if file.iter().all(|&byte| byte == 0) {
        return Err(Missing::Unwritten);
    }
    let mut fields = Fields { rest: file };
    let snapshot = read(&mut fields).ok_or(Missing::Cut)?;
    if file.len() - fields.rest.len() > LARGEST - UNSAFE_END { Err(Missing::Cut) } else { Ok(snapshot) }
}

fn read(fields: &mut Fields<'_>) -> Option<Snapshot> {
    let options_on = String::from_utf8_lossy(fields.next()?).split(':').map(str::to_owned).collect();
    let (command, stack) = fields.stack()?;
    let directory = fields.text()?.into_vec();
    let directory = match directory.strip_prefix(b"=") {
        Some(directory) => directory,
        // `pwd` ends it with a newline.
        None => directory.strip_suffix(b"\n")?,
    };
    let snapshot = Snapshot {
        options_on,
        command,
        stack,
        directory: OsStr::from_bytes(directory).to_owned(),
        shopts: fields.next()?.to_vec(),
        options: fields.next()?.to_vec(),
        names: fields.names()?,
        variables: fields.next()?.to_vec(),
        functions: fields.next()?.to_vec(),
    };
    fields.is_at_end()?.then_some(snapshot)
}

/// Reads a record's file; what an earlier, longer record left behind it does not count.
pub fn parse_record(file: &[u8]) -> Option<Record> {
    let mut fields = Fields { rest: file };
    if fields.next()? != b"r" {
        return None;
    }
    let has_inner = fields.next()? == b"s";
    let (status, line) = (fields.number()?, fields.number()?);
    let (command, stack) = fields.stack()?;
    let locals = fields.next()?.to_vec();
    fields.is_at_end()?.then_some(Record { has_inner, status, line, command, stack, locals })
}

#[cfg(test)]
mod tests;
