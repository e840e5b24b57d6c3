//! What an inner `bash-tmate` tells the outer ones when it fails, and whether an outer one fails because of it.
//! It must never be sure without evidence: where nothing is known, a failure right after an inner one is taken for its
//! consequence, and any other for the shell's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::evidence::Evidence;
use super::invocation::Runs;
use super::watch::Trace;
use crate::supervise::Ending;

/// A shell that fails this long after an inner one does so for another reason.
const RECENT: Duration = Duration::from_secs(10);
/// As many words of a command are told, and as many bytes of each.
const MOST_WORDS: usize = 32;
const LONGEST_WORD: usize = 256;

/// The failure of a `bash-tmate` inside, which a session was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerFailure {
    /// Its exit status.
    pub code: u8,
    /// When its session had ended, on a clock that all processes share.
    pub ended: Duration,
    /// The command of the outer shell that it was a part of, as the kernel knows it.
    pub command: Vec<OsString>,
    /// That command is the inner `bash-tmate` itself, so its status is known.
    pub is_direct: bool,
}

impl InnerFailure {
    /// As fields that end in NUL, for [`parse`].
    pub fn encode(&self) -> Vec<u8> {
        let command = &self.command[..self.command.len().min(MOST_WORDS)];
        let head = [
            u64::from(self.code),
            u64::try_from(self.ended.as_millis()).unwrap_or(u64::MAX),
            u64::from(self.is_direct),
            command.len() as u64,
        ];
        let mut bytes = Vec::new();
        for number in head {
            bytes.extend_from_slice(number.to_string().as_bytes());
            bytes.push(0);
        }
        for word in command {
            bytes.extend(word.as_bytes().iter().take(LONGEST_WORD).filter(|&&byte| byte != 0));
            bytes.push(0);
        }
        bytes
    }
}

/// All that [`InnerFailure::encode`] has written, one after the other, up to what is damaged.
pub fn parse(bytes: &[u8]) -> Vec<InnerFailure> {
    let mut fields = bytes.split(|&byte| byte == 0);
    let mut next = || {
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        let (code, ended, is_direct, count) = (number()?, number()?, number()?, number()?);
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST_WORDS)?;
        let command: Vec<_> = fields.by_ref().take(count).map(|word| OsStr::from_bytes(word).to_owned()).collect();
        (command.len() == count).then_some(InnerFailure {
            code: u8::try_from(code).ok()?,
            ended: Duration::from_millis(ended),
            command,
            is_direct: is_direct == 1,
        })
    };
    std::iter::from_fn(&mut next).collect()
}

/// How a shell has come to its end, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This command has failed, and errexit has ended the shell; a part of a pipeline may have failed in its place.
    Command {
        /// As it is written in the script.
        text: String,
        /// It is the last part of a pipeline.
        is_a_pipeline: bool,
    },
    /// `exit`, or the end of the script; whether a command had failed right before.
    Exit {
        /// Of the last command before it.
        after_failure: bool,
    },
    /// That is not known.
    Unknown,
}

impl Cause {
    /// What `evidence` says of the shell itself.
    pub fn of(evidence: Option<&Evidence>, runs: &Runs) -> Self {
        let Some(evidence) = evidence else { return Self::Unknown };
        let shell = evidence.shell.as_ref().ok();
        let statuses = shell.map_or(&[][..], |shell| &shell.pipe_status);
        let (is_a_pipeline, after_failure) = (statuses.len() > 1, statuses.iter().any(|status| *status != 0));
        if let Some((outer, _)) = &evidence.trace {
            return Self::Command { text: outer.command.to_string_lossy().into_owned(), is_a_pipeline };
        }
        let Some(shell) = shell else { return Self::Unknown };
        if evidence.watch.trace != Trace::Never {
            return Self::Exit { after_failure };
        }
        // For `-c` bash has forgotten the command.
        if matches!(runs, Runs::CommandString(_)) {
            return Self::Unknown;
        }
        let text = shell.command.to_string_lossy().into_owned();
        match text.split_whitespace().next() {
            Some("exit") => Self::Exit { after_failure },
            // A command that is no simple one leaves the one before it.
            Some("false" | "test" | "[" | "[[" | "((" | "let" | "cd") => Self::Command { text, is_a_pipeline },
            _ => Self::Unknown,
        }
    }
}

/// The inner failure because of which a shell ended as `ending` says, at the time `now`; nothing where it failed by
/// itself.
pub fn blame<'a>(
    failures: &'a [InnerFailure],
    cause: &Cause,
    ending: Ending,
    now: Duration,
) -> Option<&'a InnerFailure> {
    let Ending::Exited(code) = ending else { return None };
    let is_recent = |failure: &&InnerFailure| now.saturating_sub(failure.ended) <= RECENT;
    let last = failures.iter().max_by_key(|failure| failure.ended).filter(is_recent)?;
    let is_because = match cause {
        Cause::Command { is_a_pipeline: true, .. } => true,
        Cause::Command { text, .. } => is_of(text, &last.command) && (!last.is_direct || code == last.code),
        Cause::Exit { after_failure } => *after_failure || code == last.code,
        Cause::Unknown => !last.is_direct || code == last.code,
    };
    is_because.then_some(last)
}

/// Whether a command that is written as `text` may be the process whose arguments are `words`.
fn is_of(text: &str, words: &[OsString]) -> bool {
    // What bash expands or runs is another text, and `wait` is for any command before it.
    if text.contains(['$', '`', '(', '*', '?', '{']) || ["wait", "fg"].iter().any(|name| text.starts_with(name)) {
        return true;
    }
    let base = |word: &OsStr| word.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
    let parts: Vec<_> = text.split_whitespace().collect();
    let is_plain = !text.contains(['"', '\'', '\\', '<', '>', '~']);
    // The program, or the script that it runs: `#!/bin/sh` makes `./x` the second word. What stands before it in the
    // text may be an assignment, or a program such as `env` or `time`, which becomes the next.
    (0..words.len().min(2)).any(|at| {
        let rest = words[at + 1..].iter().map(|word| word.to_str());
        parts.iter().enumerate().any(|(place, part)| {
            let part = part.trim_matches(['"', '\'']);
            !part.starts_with('-')
                && base(OsStr::new(part)) == base(&words[at])
                && (!is_plain || rest.clone().eq(parts[place + 1..].iter().map(|part| Some(*part))))
        })
    })
}

#[cfg(test)]
mod tests;
