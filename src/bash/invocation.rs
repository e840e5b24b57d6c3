//! Reads a command line as bash reads it, and puts `-eo pipefail` where bash takes it and a user can undo it.
//! It must never judge a command line: what bash refuses is given to bash, which says why.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What makes a failing step be noticed.
const STRICT: [&str; 2] = ["-eo", "pipefail"];
/// Long options with an argument (bash(1), "OPTIONS"; `shell.c`, `long_args`). bash takes them with one `-` too.
const WITH_ARGUMENT: [&[u8]; 2] = [b"rcfile", b"init-file"];
/// Long options that bash knows after a single `-`. After two it takes any word for one.
const WITHOUT_ARGUMENT: [&[u8]; 15] = [
    b"debug",
    b"debugger",
    b"dump-po-strings",
    b"dump-strings",
    b"help",
    b"login",
    b"noediting",
    b"noprofile",
    b"norc",
    b"posix",
    b"pretty-print",
    b"protected",
    b"restricted",
    b"verbose",
    b"version",
];

/// What bash is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The argument of `-c`, if there is one.
    CommandString(Option<OsString>),
    /// A script file.
    File(OsString),
    /// What it reads from standard input.
    StandardInput,
}

/// Options of bash that matter here, as they stand after the whole command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// `-i`.
    pub interactive: bool,
    /// `-l`, `--login`.
    pub login: bool,
    /// `--norc`.
    pub norc: bool,
    /// `--posix`, `-o posix`.
    pub posix: bool,
    /// `-p`.
    pub privileged: bool,
    /// `-r`.
    pub restricted: bool,
    /// `-v`.
    pub verbose: bool,
    /// `-x`.
    pub xtrace: bool,
    /// `-n`, and the options that print something about the script instead of running it.
    pub noexec: bool,
    /// `--help`, `--version`.
    pub informs: bool,
}

/// A command line of bash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `argv[0]`.
    pub name: OsString,
    /// What follows `argv[0]`.
    pub arguments: Vec<OsString>,
    /// What it asks for.
    pub runs: Runs,
    /// With these options.
    pub set: Set,
}

impl Invocation {
    /// Whether bash runs something that can fail: neither an interactive shell nor one that runs nothing.
    pub fn runs_a_job(&self) -> bool {
        !(self.set.interactive || self.set.noexec || self.set.informs)
    }
}

/// What `words` ask bash for, which is called by `name`; with `login` as a login shell.
///
/// `-eo pipefail` goes after the leading long options, which bash wants first, and before the rest.
pub fn parse(name: OsString, words: &[OsString], login: bool) -> Invocation {
    let mut set = Set { login, ..Set::default() };
    let long = leading_long_options(words, &mut set);
    let mut arguments: Vec<OsString> = Vec::with_capacity(words.len() + 3);
    arguments.extend(login.then(|| "--login".into()));
    arguments.extend_from_slice(&words[..long.end]);
    if !long.lacks_argument {
        arguments.extend(STRICT.map(OsString::from));
    }
    arguments.extend_from_slice(&words[long.end..]);
    let runs = short_options(&words[long.end..], &mut set);
    Invocation { name, arguments, runs, set }
}

struct Long {
    end: usize,
    /// The last word is an option that wants an argument: whatever followed would become that.
    lacks_argument: bool,
}

fn leading_long_options(words: &[OsString], set: &mut Set) -> Long {
    let mut end = 0;
    while let Some(word) = words.get(end) {
        let Some(rest) = word.as_bytes().strip_prefix(b"-") else { break };
        let (name, double) = match rest.strip_prefix(b"-") {
            Some(name) if !name.is_empty() => (name, true),
            _ => (rest, false),
        };
        if WITH_ARGUMENT.contains(&name) {
            if end + 1 == words.len() {
                return Long { end: end + 1, lacks_argument: true };
            }
            end += 2;
            continue;
        }
        // A word that bash does not know ends it with a message about that word.
        if !double && !WITHOUT_ARGUMENT.contains(&name) {
            break;
        }
        match name {
            b"help" | b"version" => set.informs = true,
            b"dump-strings" | b"dump-po-strings" | b"pretty-print" => set.noexec = true,
            b"login" => set.login = true,
            b"norc" => set.norc = true,
            b"posix" => set.posix = true,
            b"restricted" => set.restricted = true,
            b"verbose" => set.verbose = true,
            _ => {}
        }
        end += 1;
    }
    Long { end, lacks_argument: false }
}

/// Reads the other options, and what follows them.
fn short_options(words: &[OsString], set: &mut Set) -> Runs {
    let (mut command_string, mut standard_input) = (false, false);
    let mut next = 0;
    while let Some(word) = words.get(next).map(|word| word.as_bytes()) {
        let on = match word.first() {
            Some(b'-') => true,
            Some(b'+') => false,
            _ => break,
        };
        next += 1;
        if word == b"-" || word == b"--" {
            break;
        }
        for letter in &word[1..] {
            match letter {
                b'c' => command_string = true,
                b's' => standard_input = true,
                b'l' => set.login = true,
                b'i' => set.interactive = on,
                b'n' => set.noexec = on,
                b'D' => set.noexec = true,
                b'p' => set.privileged = on,
                b'r' => set.restricted |= on,
                b'v' => set.verbose = on,
                b'x' => set.xtrace = on,
                b'o' | b'O' => {
                    if let (b'o', Some(name)) = (letter, words.get(next)) {
                        set.named(name, on);
                    }
                    next += 1;
                }
                _ => {}
            }
        }
    }
    match words.get(next) {
        command if command_string => Runs::CommandString(command.cloned()),
        Some(file) if !standard_input => Runs::File(file.clone()),
        _ => Runs::StandardInput,
    }
}

impl Set {
    /// `-o NAME`, or `+o NAME`; also a name in `SHELLOPTS`.
    fn named(&mut self, name: &OsStr, on: bool) {
        match name.as_bytes() {
            b"noexec" => self.noexec = on,
            b"posix" => self.posix = on,
            b"privileged" => self.privileged = on,
            b"verbose" => self.verbose = on,
            b"xtrace" => self.xtrace = on,
            _ => {}
        }
    }

    /// With what bash takes from its environment: `SHELLOPTS` and `POSIXLY_CORRECT`.
    #[must_use]
    pub fn with_environment(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let options = variable("SHELLOPTS").unwrap_or_default();
        for name in options.as_bytes().split(|&byte| byte == b':') {
            self.named(OsStr::from_bytes(name), true);
        }
        self.posix |= ["POSIXLY_CORRECT", "POSIX_PEDANTIC"].iter().any(|name| variable(name).is_some());
        self
    }
}

#[cfg(test)]
mod tests;
