//! What is said of a failure: one line for the log, and the lines that a session begins with.
//! It must never show the values of variables, which may be secrets: commands stand as they were written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::Signal;

use super::invocation::Runs;
use super::replay::left_out;
use super::snapshot::{Frame, Missing, Record, Snapshot};
use crate::failure::shown;
use crate::supervise::Ending;

/// A longer command is cut.
const LONGEST_COMMAND: usize = 200;
/// So many lines of a `-c` string are shown, and so many frames of the stack.
const MOST_LINES: usize = 20;

/// All that is known of a failure.
#[derive(Debug)]
pub struct Failure<'a> {
    /// What bash was to run.
    pub runs: &'a Runs,
    /// How it ended.
    pub ending: Ending,
    /// How it stood, or why that is not known.
    pub scene: Result<&'a Snapshot, String>,
    /// With `BASH_TMATE_TRACE=1`: the command that failed, and the one inside it.
    pub trace: Option<(&'a Record, Option<&'a Record>)>,
}

/// Why `missing` is so, in words.
pub fn reason(missing: Missing) -> String {
    match missing {
        Missing::Unwritten => {
            "bash did not run the trap: the script has an EXIT trap of its own, used `exec`, or died of a signal"
        }
        Missing::Cut => "it is larger than 16 MiB",
    }
    .to_owned()
}

/// `number` as a signal's name.
fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// `text` on one line, cut where it is long.
fn brief(text: &OsStr) -> String {
    let text = shown(text);
    match text.char_indices().nth(LONGEST_COMMAND) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn place(frame: &Frame, line: Option<u64>) -> String {
    let mut place = String::new();
    let function = frame.function.as_bytes();
    if function != b"main" && function != b"source" {
        place.push_str(&format!(" in {}", shown(&frame.function)));
    }
    // For what is no file bash has these two words.
    let source = frame.source.as_bytes();
    let is_file = !source.is_empty() && source != b"environment" && source != b"main";
    match (is_file, line) {
        (true, Some(line)) => place.push_str(&format!(" at {}:{line}", shown(&frame.source))),
        // The script itself, which the line begins with.
        (true, None) if function == b"main" => {}
        (true, None) => place.push_str(&format!(" of {}", shown(&frame.source))),
        (false, Some(line)) => place.push_str(&format!(" at line {line}")),
        (false, None) => {}
    }
    place
}

fn command_and_place(command: &OsStr, stack: &[Frame], line: Option<u64>) -> String {
    let place = match (stack.first(), line) {
        (Some(frame), line) => place(frame, line),
        (None, Some(line)) => format!(" at line {line}"),
        (None, None) => String::new(),
    };
    format!("`{}`{place}", brief(command))
}

impl Failure<'_> {
    /// `FILE failed with exit status 3: COMMAND in f at FILE:7`
    pub fn line(&self) -> String {
        let what = match self.runs {
            Runs::File(file) => format!("`{}`", shown(file)),
            Runs::CommandString(_) => "the command string".to_owned(),
            Runs::StandardInput => "the script on standard input".to_owned(),
        };
        let how = match self.ending {
            Ending::Exited(code) => format!("failed with exit status {code}"),
            Ending::Killed(signal) => {
                format!("was killed by {} (exit status {})", signal_name(signal), self.ending.code())
            }
        };
        match self.command() {
            Some(command) => format!("{what} {how}: {command}"),
            None => format!("{what} {how}"),
        }
    }

    fn command(&self) -> Option<String> {
        if let Some((record, _)) = self.trace {
            return Some(command_and_place(&record.command, &record.stack, Some(record.line)));
        }
        let snapshot = self.scene.as_ref().ok()?;
        // For `-c` bash has forgotten the command, and says one that it ran before.
        let is_known = !matches!(self.runs, Runs::CommandString(_)) && !snapshot.command.is_empty();
        is_known.then(|| command_and_place(&snapshot.command, &snapshot.stack, None))
    }

    /// What a session begins with, a line each.
    pub fn greeting(&self) -> Vec<String> {
        let mut lines = vec![self.line()];
        if let Some((_, Some(inner))) = self.trace {
            lines.push(format!("  inside: {}", command_and_place(&inner.command, &inner.stack, Some(inner.line))));
        }
        let stack = match (self.trace, &self.scene) {
            (Some((record, _)), _) => &record.stack[..],
            (None, Ok(snapshot)) => &snapshot.stack[..],
            (None, Err(_)) => &[],
        };
        if let (None, Runs::CommandString(_), Some(frame)) = (self.trace, self.runs, stack.first()) {
            lines.push(format!("  it failed{}", place(frame, None)));
        }
        lines.extend(calls(stack).map(|call| format!("  called{call}")));
        if let Runs::CommandString(Some(command)) = self.runs {
            lines.push("command string:".to_owned());
            let mut text = command.as_bytes().split(|&byte| byte == b'\n');
            lines.extend(text.by_ref().take(MOST_LINES).map(|line| format!("  {}", shown(OsStr::from_bytes(line)))));
            if text.next().is_some() {
                lines.push("  …".to_owned());
            }
        }
        match &self.scene {
            Ok(snapshot) => {
                let left_out = left_out(snapshot);
                let but =
                    if left_out.is_empty() { String::new() } else { format!(", but for {}", left_out.join(", ")) };
                lines.push(format!("Directory, variables, functions and options are the script's{but}."));
                if self.trace.is_some_and(|(record, _)| !record.locals.is_empty()) {
                    lines.push("Local variables of the function that failed are set too.".to_owned());
                }
            }
            Err(why) => lines.push(format!("Directory, variables and functions of the script are not known: {why}.")),
        }
        lines
    }
}

/// Who called what, the innermost first.
fn calls(stack: &[Frame]) -> impl Iterator<Item = String> {
    stack
        .windows(2)
        .filter(|pair| pair[0].called_at > 0)
        .take(MOST_LINES)
        .map(|pair| place(&pair[1], Some(pair[0].called_at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, source: &str, called_at: u64) -> Frame {
        Frame { function: function.into(), source: source.into(), called_at }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            options_on: ["errexit", "pipefail", "xtrace"].map(str::to_owned).to_vec(),
            command: "make \"$target\"\nx".into(),
            stack: vec![frame("g", "lib.sh", 4), frame("f", "a.sh", 9), frame("main", "a.sh", 0)],
            directory: "/".into(),
            shopts: Vec::new(),
            options: Vec::new(),
            names: Vec::new(),
            variables: Vec::new(),
            functions: Vec::new(),
        }
    }

    fn record(command: &str, line: u64) -> Record {
        let stack = vec![frame("g", "lib.sh", 4), frame("main", "a.sh", 0)];
        Record { has_inner: false, status: 1, line, command: command.into(), stack, locals: b"declare".to_vec() }
    }

    #[test]
    fn one_line_says_what_failed_and_how() {
        let (file, string) = (Runs::File("a.sh\n".into()), Runs::CommandString(Some("x".into())));
        let snapshot = snapshot();
        let none = || Err("why".to_owned());
        for (runs, ending, scene, expected) in [
            (&file, Ending::Exited(3), none(), "`a.sh\\n` failed with exit status 3"),
            (&string, Ending::Killed(9), none(), "the command string was killed by SIGKILL (exit status 137)"),
            (
                &Runs::StandardInput,
                Ending::Killed(40),
                none(),
                "the script on standard input was killed by signal 40 (exit status 168)",
            ),
            (
                &file,
                Ending::Exited(2),
                Ok(&snapshot),
                "`a.sh\\n` failed with exit status 2: `make \"$target\"\\nx` in g of lib.sh",
            ),
        ] {
            assert_eq!(Failure { runs, ending, scene, trace: None }.line(), expected);
        }
        let traced = record("false", 4);
        let failure =
            Failure { runs: &string, ending: Ending::Exited(1), scene: Ok(&snapshot), trace: Some((&traced, None)) };
        assert_eq!(failure.line(), "the command string failed with exit status 1: `false` in g at lib.sh:4");
    }

    #[test]
    fn the_greeting_tells_the_calls_and_what_is_left_out() {
        let snapshot = snapshot();
        let string = Runs::CommandString(Some("cd x\nmake".into()));
        let failure = Failure { runs: &string, ending: Ending::Exited(2), scene: Ok(&snapshot), trace: None };
        assert_eq!(
            failure.greeting(),
            [
                "the command string failed with exit status 2",
                "  it failed in g of lib.sh",
                "  called in f at a.sh:4",
                "  called at a.sh:9",
                "command string:",
                "  cd x",
                "  make",
                "Directory, variables, functions and options are the script's, but for errexit, xtrace.",
            ]
        );
        let (outer, inner) = (record("x=$(f)", 7), record("false", 2));
        let failure = Failure {
            runs: &Runs::StandardInput,
            ending: Ending::Exited(2),
            scene: Err("reason".into()),
            trace: Some((&outer, Some(&inner))),
        };
        assert_eq!(
            failure.greeting(),
            [
                "the script on standard input failed with exit status 2: `x=$(f)` in g at lib.sh:7",
                "  inside: `false` in g at lib.sh:2",
                "  called at a.sh:4",
                "Directory, variables and functions of the script are not known: reason.",
            ]
        );
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "x\n".repeat(30);
        let runs = Runs::CommandString(Some(long.clone().into()));
        let snapshot = Snapshot { command: "\u{fc}".repeat(500).into(), stack: Vec::new(), ..snapshot() };
        let file = Runs::File("x".into());
        let failure = Failure { runs: &file, ending: Ending::Exited(1), scene: Ok(&snapshot), trace: None };
        assert!(failure.line().ends_with(&format!(": `{}…`", "\u{fc}".repeat(200))));
        let failure = Failure { runs: &runs, ending: Ending::Exited(1), scene: Ok(&snapshot), trace: None };
        let greeting = failure.greeting();
        assert_eq!(greeting.iter().filter(|line| *line == "  x").count(), 20);
        assert_eq!(greeting[greeting.len() - 2], "  …");
    }
}
