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

/// A variable that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: OsString,
    /// The command that restores it; empty for one that is not restored.
    pub declaration: Vec<u8>,
}

/// The state of a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its exit status.
    pub status: u8,
    /// How many subshells deep it is: 0 for the shell itself.
    pub depth: u32,
    /// `$PIPESTATUS`.
    pub pipe_status: Vec<u8>,
    /// Options of `set -o` that were on, by name.
    pub options_on: Vec<String>,
    /// `$BASH_COMMAND`.
    pub command: OsString,
    /// The innermost first.
    pub stack: Vec<Frame>,
    /// Working directory; empty for one that no longer exists.
    pub directory: OsString,
    /// Commands that restore the options of `shopt`.
    pub shopts: Vec<u8>,
    /// Commands that restore those of `set -o`.
    pub options: Vec<u8>,
    /// All variables that have a value.
    pub variables: Vec<Variable>,
    /// Commands that restore functions.
    pub functions: Vec<u8>,
    /// Commands that restore the attributes of functions, one line for each function.
    pub function_attributes: Vec<u8>,
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

    /// Names up to an empty one, and as many declarations.
    fn variables(&mut self) -> Option<Vec<Variable>> {
        let mut variables = Vec::new();
        loop {
            match self.text()? {
                name if name.is_empty() => break,
                name => variables.push(Variable { name, declaration: Vec::new() }),
            }
        }
        for variable in &mut variables {
            variable.declaration = self.next()?.to_vec();
        }
        Some(variables)
    }

    /// Two numbers with a blank between.
    fn pair<A: std::str::FromStr, B: std::str::FromStr>(&mut self) -> Option<(A, B)> {
        let (first, second) = std::str::from_utf8(self.next()?).ok()?.split_once(' ')?;
        Some((first.parse().ok()?, second.parse().ok()?))
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
    let (status, depth) = fields.pair()?;
    let pipe_status = fields.list()?.iter().map(|status| status.to_str()?.parse().ok()).collect::<Option<_>>()?;
    let options_on = String::from_utf8_lossy(fields.next()?).split(':').map(str::to_owned).collect();
    let (command, stack) = fields.stack()?;
    let directory = fields.text()?.into_vec();
    let directory = match directory.strip_prefix(b"=") {
        Some(directory) => directory,
        None if directory.is_empty() => b"",
        // `pwd` ends it with a newline.
        None => directory.strip_suffix(b"\n")?,
    };
    let snapshot = Snapshot {
        status,
        depth,
        pipe_status,
        options_on,
        command,
        stack,
        directory: OsStr::from_bytes(directory).to_owned(),
        shopts: fields.next()?.to_vec(),
        options: fields.next()?.to_vec(),
        variables: fields.variables()?,
        functions: fields.next()?.to_vec(),
        function_attributes: fields.next()?.to_vec(),
    };
    fields.is_at_end()?.then_some(snapshot)
}

impl Snapshot {
    /// Without the option `errtrace`, which the hook has set.
    #[must_use]
    pub fn without_errtrace(mut self) -> Self {
        self.options_on.retain(|name| name != "errtrace");
        let lines = self.options.split_inclusive(|&byte| byte == b'\n').filter(|line| *line != b"set -o errtrace\n");
        self.options = lines.collect::<Vec<_>>().concat();
        self
    }
}

impl Record {
    /// Whether the command is what GitLab's runner puts all steps into.
    pub fn is_an_eval(&self) -> bool {
        is_an_eval(&self.command)
    }
}

impl Snapshot {
    /// Whether the command is what GitLab's runner puts all steps into.
    pub fn is_an_eval(&self) -> bool {
        is_an_eval(&self.command)
    }
}

fn is_an_eval(command: &OsStr) -> bool {
    [&b"eval "[..], b"( eval "].iter().any(|start| command.as_bytes().starts_with(start))
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
