//! What of a script is watched beyond its end, by what its text says.
//! It must never choose what the script could notice: where the text is not known, it chooses less.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// When the ERR trap records the command that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// Never.
    #[default]
    Never,
    /// Where errexit makes it the last command of its shell.
    Errexit,
    /// Always.
    Always,
}

/// What is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// By an ERR trap, which subshells inherit.
    pub trace: Trace,
    /// Subshells that begin with `eval`, by an EXIT trap of their own: the script is one of GitLab's runner.
    pub evals: bool,
}

impl Watch {
    /// Whether a subshell may write a snapshot.
    pub fn subshells(self) -> bool {
        self.trace != Trace::Never || self.evals
    }
}

/// What is known of the text that bash is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Its beginning.
    pub bytes: Vec<u8>,
    /// That is all of it.
    pub is_whole: bool,
}

/// Chooses by `text`. `trace` is what the user asks for, and `environment` the variables that bash is given.
pub fn choose<'a>(
    text: &Text,
    trace: Option<bool>,
    environment: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
) -> Watch {
    let evals = is_of_a_runner(&text.bytes);
    let is_whole = text.is_whole || (evals && text.bytes.ends_with(RUNNER_END));
    let trace = match trace {
        Some(true) => Trace::Always,
        Some(false) => Trace::Never,
        None if is_whole && !could_notice(&text.bytes) && !environment.into_iter().any(variable_could_notice) => {
            Trace::Errexit
        }
        None => Trace::Never,
    };
    Watch { trace, evals }
}

/// GitLab's runner puts all steps into one argument of `eval`, on one line (`shells/bash.go`, `Finish`): since 2016 in
/// the first form, with `FF_USE_NEW_BASH_EVAL_STRATEGY` in the second.
const RUNNER_LINES: [&[u8]; 2] = [b": | eval ", b": | (eval "];
/// How such a script ends.
const RUNNER_END: &[u8] = b"\nexit 0\n";
/// It asks this of a shell that may be another than bash.
const RUNNER_QUESTION: &str = "set -o | grep pipefail";

fn is_of_a_runner(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| RUNNER_LINES.iter().any(|start| line.starts_with(start)))
}

/// Words by which a script could notice the ERR trap or `set -E`, or be disturbed by them.
const TELLING: [&str; 15] = [
    "bash_tmate",
    "builtin",
    "ERR",
    "DEBUG",
    "RETURN",
    "errtrace",
    "functrace",
    "extdebug",
    "posix",
    "SHELLOPTS",
    "BASH_COMMAND",
    "BASH_XTRACEFD",
    "BASH_ENV",
    "source",
    "ulimit",
];
/// Words after which another command begins.
const BEFORE_COMMANDS: [&str; 9] = ["then", "do", "else", "elif", "if", "while", "until", "!", "time"];

fn variable_could_notice((name, value): (&OsStr, &OsStr)) -> bool {
    match name.as_bytes() {
        // A file that is run first, and options that are passed on.
        b"BASH_ENV" | b"SHELLOPTS" | b"BASH_XTRACEFD" => true,
        name => name.starts_with(b"BASH_FUNC_") && could_notice(value.as_bytes()),
    }
}

/// A part of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// A command ends here.
    End,
}

/// Words between blanks and quotation marks, and where commands end. That is not how bash reads a script, but it
/// finds at least the words and ends that bash does.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let is_end = |c: char| "\n;&|(){}`".contains(c);
    for part in text.split_inclusive(is_end) {
        let words = part.trim_end_matches(is_end).split(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        tokens.extend(words.filter(|word| !word.is_empty()).map(Token::Word));
        tokens.push(Token::End);
    }
    tokens
}

/// Whether a script with this text, or what it reads with `.`, might notice an ERR trap and `set -E`.
fn could_notice(text: &[u8]) -> bool {
    // Within `$'…'` a newline is `\n`, and other characters have a backslash.
    let text = String::from_utf8_lossy(text).replace("\\n", "\n").replace('\\', "").replace(RUNNER_QUESTION, "");
    if has_parameter(&text, '-') || has_parameter(&text, '_') {
        return true;
    }
    let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.split(|c: char| !is_part_of_a_name(c)).any(|word| TELLING.contains(&word)) {
        return true;
    }
    let tokens = tokens(&text);
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Some(*word),
        _ => None,
    };
    (0..tokens.len()).any(|at| {
        let begins = match at.checked_sub(1).map(|before| tokens[before]) {
            None | Some(Token::End) => true,
            Some(Token::Word(before)) => BEFORE_COMMANDS.contains(&before),
        };
        let Some(name) = word(at) else { return false };
        let (first, second) = (word(at + 1), word(at + 2));
        match name {
            // A file whose text is not known.
            "." => begins,
            "set" => match first {
                None => begins,
                Some("-o" | "+o") => second.is_none(),
                Some(flags) => flags.starts_with(['-', '+']) && flags.contains(['E', 'T']),
            },
            "trap" => (first.is_none() && begins) || first == Some("-p"),
            "shopt" => first.is_some_and(|flags| flags.starts_with('-') && flags.contains('o')),
            // All variables, of which `SHELLOPTS` is one.
            "declare" | "typeset" | "readonly" | "local" => match first {
                None => begins,
                Some(flags) => flags.starts_with(['-', '+']) && second.is_none(),
            },
            _ => false,
        }
    })
}

/// Whether `text` has the parameter `$NAME` or `${NAME…}`.
fn has_parameter(text: &str, name: char) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name).is_some_and(|rest| {
            // `$_x` is another variable than `$_`.
            name != '_' || !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_could_notice_is_told_from_others() {
        for text in [
            "echo $-",
            "case ${-} in *e*) ;; esac",
            "case ${-#*e} in x) ;; esac",
            "echo $_ x",
            "echo \"${_}\"",
            "trap 'echo failed' ERR",
            "trap",
            "trap -p EXIT",
            "x=$(trap)",
            "set -E",
            "set -eEuo pipefail",
            "set +o",
            "set -o | sort",
            "set",
            "old=$(set +o)",
            "shopt -po errexit",
            "source lib.sh",
            ". lib.sh",
            "if true; then . ./lib.sh; fi",
            "cd x && . venv/bin/activate",
            "! . lib.sh",
            "f() { . lib.sh; }",
            ": | eval $'cd x\\n. venv/bin/activate\\nmake'",
            "set -o posix",
            "declare -p",
            "declare -p | sort",
            "readonly",
            "typeset -r",
            "echo $BASH_COMMAND",
            "printenv SHELLOPTS",
            "ulimit -n 10",
            "shopt -s extdebug",
            "builtin() { echo mine; }",
        ] {
            assert!(could_notice(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "make -j4 test",
            "set -euo pipefail",
            "set -o pipefail; set +e",
            "set -- a b",
            "trap 'rm -rf \"$d\"' EXIT",
            "find . -name x; git add .; docker build -t x . && ls",
            "find . \\( -name x -o -name y \\)",
            "echo $x-$y; echo $_x ${__}",
            "declare -A m=([k]=v); declare -r x=1; local x=1; readonly y=2; declare -p x",
            "shopt -s extglob nullglob",
            "(cd /usr; make)",
            "kill -TERM $$; echo ERROR RETURNS",
            RUNNER,
        ] {
            assert!(!could_notice(text.as_bytes()), "{text}");
        }
    }

    const RUNNER: &str = "#!/usr/bin/env bash\n\ntrap exit 1 TERM\n\nif set -o | grep pipefail > /dev/null; then set -o \
                          pipefail; fi; set -o errexit\nset +o noclobber\n: | eval $'export CI=true\\ncd /builds\\n\
                          make\\n'\nexit 0\n";

    #[test]
    fn a_script_of_a_runner_is_known_by_its_line() {
        let other = RUNNER.replace(": | eval $'", ": | (eval $'").replace("'\nexit 0", "')\nexit 0");
        for (text, expected) in [
            (RUNNER, true),
            (&*other, true),
            ("set -eo pipefail\nset +o noclobber\n: | eval 'make'\nexit 0\n", true),
            ("eval 'make'", false),
            ("echo ': | eval '", false),
            ("# : | eval x", false),
            ("", false),
        ] {
            assert_eq!(is_of_a_runner(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_traced() {
        let chosen = |text: &str, is_whole, trace, variables: &[(&str, &str)]| {
            let text = Text { bytes: text.into(), is_whole };
            let variables: Vec<_> = variables.iter().map(|(n, v)| (OsStr::new(n), OsStr::new(v))).collect();
            choose(&text, trace, variables)
        };
        let watch = |trace, evals| Watch { trace, evals };
        let runner = RUNNER.trim_end_matches("exit 0\n");
        let function = ("BASH_FUNC_f%%", "() {  trap x ERR\n}");
        for (text, is_whole, trace, variables, expected) in [
            ("make", true, None, &[][..], watch(Trace::Errexit, false)),
            ("make", false, None, &[], watch(Trace::Never, false)),
            ("make", true, Some(false), &[], watch(Trace::Never, false)),
            ("echo $-", true, None, &[], watch(Trace::Never, false)),
            ("echo $-", false, Some(true), &[], watch(Trace::Always, false)),
            ("make", true, None, &[("SHELLOPTS", "xtrace")], watch(Trace::Never, false)),
            ("make", true, None, &[("BASH_ENV", "/env")], watch(Trace::Never, false)),
            ("make", true, None, &[function], watch(Trace::Never, false)),
            ("make", true, None, &[("BASH_FUNC_f%%", "() {  :\n}"), ("ERR", "ERR")], watch(Trace::Errexit, false)),
            (RUNNER, false, None, &[], watch(Trace::Errexit, true)),
            (runner, false, None, &[], watch(Trace::Never, true)),
        ] {
            assert_eq!(chosen(text, is_whole, trace, variables), expected, "{text:?} {is_whole} {trace:?}");
        }
        assert!(watch(Trace::Never, true).subshells() && !watch(Trace::Never, false).subshells());
    }
}
