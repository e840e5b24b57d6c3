//! What is said of a failure: one line for the log, and the lines that a session begins with.
//! It must never show the values of variables, which may be secrets: commands stand as they were written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::Signal;

use super::invocation::Runs;
use super::restored::whose;
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
    /// The state of the shell that failed, if it is known.
    pub snapshot: Option<&'a Snapshot>,
    /// What an ERR trap wrote: the command that failed, and the one inside it.
    pub trace: Option<(&'a Record, Option<&'a Record>)>,
    /// Why the session's shell does not restore the state, if so.
    pub not_restored: Option<String>,
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

    /// What the ERR trap wrote of the command to tell first, and of one inside it. A script of GitLab's runner is a
    /// single `eval`: the command inside is the one that people have written.
    fn records(&self) -> Option<(&Record, Option<&Record>)> {
        match self.trace? {
            (outer, inner) if outer.is_an_eval() => inner.map(|inner| (inner, None)),
            both => Some(both),
        }
    }

    fn command(&self) -> Option<String> {
        if let Some((record, _)) = self.records() {
            return Some(command_and_place(&record.command, &record.stack, Some(record.line)));
        }
        let snapshot = self.snapshot?;
        // For `-c` bash has forgotten the command, and says one that it ran before; within `eval` it says the `eval`.
        let is_known =
            !matches!(self.runs, Runs::CommandString(_)) && !snapshot.command.is_empty() && !snapshot.is_an_eval();
        is_known.then(|| command_and_place(&snapshot.command, &snapshot.stack, None))
    }

    /// What a session begins with, a line each. What the session's shell has restored it says itself.
    pub fn greeting(&self) -> Vec<String> {
        let mut lines = vec![self.line()];
        if let Some((_, Some(inner))) = self.records() {
            lines.push(format!("  inside: {}", command_and_place(&inner.command, &inner.stack, Some(inner.line))));
        }
        let stack = match (self.records(), self.snapshot) {
            (Some((record, _)), _) => &record.stack[..],
            (None, Some(snapshot)) => &snapshot.stack[..],
            (None, None) => &[],
        };
        if let (None, Runs::CommandString(_), Some(frame)) = (self.trace, self.runs, stack.first()) {
            lines.push(format!("  it failed{}", place(frame, None)));
        }
        lines.extend(calls(stack).map(|call| format!("  called{call}")));
        if let Some(snapshot) = self.snapshot.filter(|snapshot| snapshot.depth > 0) {
            lines.push(format!("  in {}", whose(snapshot)));
        }
        if let Runs::CommandString(Some(command)) = self.runs {
            lines.push("command string:".to_owned());
            let mut text = command.as_bytes().split(|&byte| byte == b'\n');
            lines.extend(text.by_ref().take(MOST_LINES).map(|line| format!("  {}", shown(OsStr::from_bytes(line)))));
            if text.next().is_some() {
                lines.push("  …".to_owned());
            }
        }
        if let Some(why) = &self.not_restored {
            lines.push(format!(
                "The session's shell does not have the directory and the variables of the script: {why}."
            ));
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
            status: 2,
            depth: 0,
            pipe_status: vec![2],
            options_on: ["errexit", "pipefail", "xtrace"].map(str::to_owned).to_vec(),
            command: "make \"$target\"\nx".into(),
            stack: vec![frame("g", "lib.sh", 4), frame("f", "a.sh", 9), frame("main", "a.sh", 0)],
            directory: "/".into(),
            shopts: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            functions: Vec::new(),
            function_attributes: Vec::new(),
        }
    }

    fn record(command: &str, line: u64) -> Record {
        let stack = vec![frame("g", "lib.sh", 4), frame("main", "a.sh", 0)];
        Record { has_inner: false, status: 1, line, command: command.into(), stack, locals: b"declare".to_vec() }
    }

    fn failure<'a>(runs: &'a Runs, status: u8, snapshot: &'a Snapshot) -> Failure<'a> {
        let ending = Ending::Exited(status);
        Failure { runs, ending, snapshot: Some(snapshot), trace: None, not_restored: None }
    }

    #[test]
    fn one_line_says_what_failed_and_how() {
        let (file, string) = (Runs::File("a.sh\n".into()), Runs::CommandString(Some("x".into())));
        let snapshot = snapshot();
        for (runs, ending, snapshot, expected) in [
            (&file, Ending::Exited(3), None, "`a.sh\\n` failed with exit status 3"),
            (&string, Ending::Killed(9), None, "the command string was killed by SIGKILL (exit status 137)"),
            (
                &Runs::StandardInput,
                Ending::Killed(40),
                None,
                "the script on standard input was killed by signal 40 (exit status 168)",
            ),
            (
                &file,
                Ending::Exited(2),
                Some(&snapshot),
                "`a.sh\\n` failed with exit status 2: `make \"$target\"\\nx` in g of lib.sh",
            ),
        ] {
            assert_eq!(Failure { runs, ending, snapshot, trace: None, not_restored: None }.line(), expected);
        }
        let traced = record("false", 4);
        let failure = Failure { trace: Some((&traced, None)), ..failure(&string, 1, &snapshot) };
        assert_eq!(failure.line(), "the command string failed with exit status 1: `false` in g at lib.sh:4");
    }

    #[test]
    fn the_greeting_tells_the_calls_and_what_is_left_out() {
        let snapshot = snapshot();
        let string = Runs::CommandString(Some("cd x\nmake".into()));
        assert_eq!(
            failure(&string, 2, &snapshot).greeting(),
            [
                "the command string failed with exit status 2",
                "  it failed in g of lib.sh",
                "  called in f at a.sh:4",
                "  called at a.sh:9",
                "command string:",
                "  cd x",
                "  make",
            ]
        );
        let (outer, inner) = (record("x=$(f)", 7), record("false", 2));
        let traced = Failure {
            snapshot: None,
            trace: Some((&outer, Some(&inner))),
            not_restored: Some("reason".into()),
            ..failure(&Runs::StandardInput, 2, &snapshot)
        };
        assert_eq!(
            traced.greeting(),
            [
                "the script on standard input failed with exit status 2: `x=$(f)` in g at lib.sh:7",
                "  inside: `false` in g at lib.sh:2",
                "  called at a.sh:4",
                "The session's shell does not have the directory and the variables of the script: reason.",
            ]
        );
    }

    /// The steps of a GitLab job are one `eval`.
    #[test]
    fn the_greeting_tells_which_shell_failed_and_leaves_the_runners_command_out() {
        let inside = Snapshot { depth: 1, command: "eval $'make'".into(), stack: Vec::new(), ..snapshot() };
        let untraced = failure(&Runs::StandardInput, 2, &inside);
        let line = "the script on standard input failed with exit status 2";
        assert_eq!(untraced.greeting(), [line, "  in the subshell that failed (level 1)"]);
        let (outer, inner) = (record("eval $'make'", 7), record("make", 2));
        for outer in [outer.clone(), Record { command: "( eval $'make' )".into(), ..outer.clone() }] {
            let traced = Failure { trace: Some((&outer, Some(&inner))), ..failure(&Runs::StandardInput, 2, &inside) };
            let line = format!("{line}: `make` in g at lib.sh:2");
            assert_eq!(traced.greeting(), [&line, "  called at a.sh:4", "  in the subshell that failed (level 1)"]);
        }
        let traced = Failure { trace: Some((&outer, None)), ..failure(&Runs::StandardInput, 2, &inside) };
        assert_eq!(traced.greeting(), [line, "  in the subshell that failed (level 1)"]);
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "x\n".repeat(30);
        let runs = Runs::CommandString(Some(long.clone().into()));
        let snapshot = Snapshot { command: "\u{fc}".repeat(500).into(), stack: Vec::new(), ..snapshot() };
        let file = Runs::File("x".into());
        assert!(failure(&file, 1, &snapshot).line().ends_with(&format!(": `{}…`", "\u{fc}".repeat(200))));
        let greeting = failure(&runs, 1, &snapshot).greeting();
        assert_eq!(greeting.iter().filter(|line| *line == "  x").count(), 20);
        assert_eq!(greeting.last().unwrap(), "  …");
    }
}
