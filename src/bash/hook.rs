//! The scripts that bash runs for us, by way of `BASH_ENV`, traps and files in memory, and when it would.
//! They must never print, change what a script sees beyond what the README lists, or change how it ends.
//!
//! What shapes them, each seen with bash 5.2 (`tests/it/bash_tmate/fidelity.rs` checks it):
//! - A trap's commands are traced by `set -x` and followed by a DEBUG trap, but redirections are neither. So
//!   the EXIT trap decides in a redirection: `/${?##[1-9]*}dev/null` exists unless `$?` is 0, and where a
//!   redirection fails the group is not run. `!` keeps errexit and ERR from noticing that.
//! - `2</dev/null`, open for reading, swallows messages and traces, and a restricted shell allows it too.
//!   `{BASH_XTRACEFD}>` takes the trace from a descriptor of the user's.
//! - `0</dev/null` comes first: a script on standard input that has closed it would have `2<` open and close
//!   what bash takes for its script, and bash 5.2 dies of that.
//! - A name after `\builtin` is neither an alias nor one of the user's functions, and a special builtin that
//!   fails behind it does not end a posix shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::invocation::{Runs, Set};
use crate::tmate::conf::shell_quoted;

/// Where the files are, as bash can open them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The process that holds them, as `/proc` numbers it.
    pub process: u32,
    /// Descriptor of the script that writes the snapshot.
    pub dump: i32,
    /// Descriptor of the snapshot.
    pub snapshot: i32,
    /// With `BASH_TMATE_TRACE=1`.
    pub trace: Option<TraceFiles>,
}

/// Descriptors of what the ERR trap needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceFiles {
    /// The script that it runs.
    pub script: i32,
    /// What it writes of the shell itself.
    pub shell: i32,
    /// What it writes of a subshell.
    pub subshell: i32,
}

impl Files {
    /// `descriptor` as a path: digits and slashes only, since bash expands `BASH_ENV`.
    pub fn path(&self, descriptor: i32) -> String {
        format!("/proc/{}/fd/{descriptor}", self.process)
    }
}

/// What decides whether bash would run the hook.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What bash is to run.
    pub runs: &'a Runs,
    /// Options, with those of the environment.
    pub set: Set,
    /// The user's own `BASH_ENV`.
    pub bash_env: Option<&'a OsStr>,
    /// What it names is there, but cannot be read: bash complains of that in its own words.
    pub bash_env_is_unreadable: bool,
    /// `BASH_XTRACEFD` is set.
    pub xtrace_descriptor: bool,
    /// `SHLVL` says that this is the outermost shell.
    pub outermost: bool,
    /// `SSH_CLIENT` or `SSH2_CLIENT` is set, or standard input is a socket.
    pub from_network: bool,
    /// Real and effective user or group differ.
    pub set_user_id: bool,
}

/// Why there can be no scene, if so. Where bash does not read `BASH_ENV` the variable would stay, for the
/// script's own children; where lines are shown as they are read the hook would be seen.
pub fn obstacle(situation: &Situation<'_>) -> Option<&'static str> {
    let Situation { runs, set, .. } = situation;
    // `run_startup_files` in bash's shell.c: such a shell is taken for one that rshd or sshd started.
    let remote = matches!(runs, Runs::CommandString(_)) && !set.login && !set.norc && situation.outermost;
    let cases = [
        (set.posix, "bash is in posix mode"),
        (set.privileged || situation.set_user_id, "bash is in privileged mode"),
        (set.verbose, "bash shows what it reads (-v)"),
        (set.restricted, "bash is restricted (-r)"),
        (set.xtrace && situation.bash_env.is_some(), "bash traces what BASH_ENV names (-x)"),
        (set.xtrace && situation.xtrace_descriptor, "bash traces to BASH_XTRACEFD"),
        (remote && situation.from_network, "bash takes itself for a remote shell"),
        (situation.bash_env_is_unreadable, "the file that BASH_ENV names cannot be read"),
        (situation.bash_env.is_some_and(|value| value.as_bytes().contains(&b'"')), "BASH_ENV holds a quotation mark"),
    ];
    cases.into_iter().find_map(|(is_so, why)| is_so.then_some(why))
}

/// What `BASH_ENV` names: sets the traps, and gives the user's `BASH_ENV` back and runs it.
///
/// `last_argument` is what `$_` is at the start of a script.
pub fn start(files: &Files, bash_env: Option<&OsStr>, last_argument: &OsStr) -> Vec<u8> {
    let dump = files.path(files.dump);
    let mut traps = format!(
        "\\builtin trap -- '! {{ \\builtin . {dump}; }} 0</dev/null 2</dev/null 3</${{?##[1-9]*}}dev/null >/dev/null \
         {{BASH_XTRACEFD}}>/dev/null' EXIT;"
    );
    if let Some(trace) = files.trace {
        let script = files.path(trace.script);
        traps.push_str(&format!(
            " \\builtin trap -- '{{ \\builtin . {script} \"$?\" \"$LINENO\" || \\builtin :; }} 0</dev/null 2</dev/null' ERR; \
             \\builtin set -E;"
        ));
    }
    let give_back = match bash_env {
        None => b"\\builtin unset -v BASH_ENV".to_vec(),
        Some(value) => [b"BASH_ENV=", shell_quoted(value).as_slice()].concat(),
    };
    // Traps only for our own shell: one that did not read it may have left the variable to its children.
    let mut script = format!("{{ if [[ $PPID == {} ]]; then {traps} fi; ", files.process).into_bytes();
    script.extend_from_slice(&give_back);
    script.extend_from_slice(b"; \\builtin : ");
    script.extend_from_slice(&shell_quoted(last_argument));
    script.extend_from_slice(b"; } 2</dev/null\n");
    if let Some(value) = bash_env.filter(|value| !value.is_empty()) {
        script.extend_from_slice(&run_users(value));
    }
    script
}

/// Runs the file that the user's `BASH_ENV` names, as bash would. A file whose last command fails does not
/// end a shell with errexit, but `.` would: its RETURN trap turns that off for a moment.
fn run_users(value: &OsStr) -> Vec<u8> {
    let bytes = value.as_bytes();
    let mut script = Vec::new();
    let expands = bytes.iter().any(|byte| b"$`\\".contains(byte));
    let name: Vec<u8> = if expands {
        script.extend_from_slice(b"bash_tmate=\"");
        script.extend_from_slice(bytes);
        script.extend_from_slice(b"\"\n[[ $bash_tmate == */* ]] || bash_tmate=./$bash_tmate\n");
        b"\"$bash_tmate\"".to_vec()
    } else if bytes.starts_with(b"~") {
        let end = bytes.iter().position(|&byte| byte == b'/').unwrap_or(bytes.len());
        [&bytes[..end], &shell_quoted(OsStr::from_bytes(&bytes[end..]))].concat()
    } else if bytes.contains(&b'/') {
        shell_quoted(value)
    } else {
        // `.` would look for it in PATH.
        [b"./".as_slice(), &shell_quoted(value)].concat()
    };
    script.extend_from_slice(b"if [[ -r ");
    script.extend_from_slice(&name);
    script.extend_from_slice(b" && ! -d ");
    script.extend_from_slice(&name);
    script.extend_from_slice(
        b" ]]; then\n\
          \\builtin trap -- '{ case $- in *e*) \\builtin set +e; bash_tmate_errexit=1;; esac; } 2</dev/null' RETURN\n\
          \\builtin . ",
    );
    script.extend_from_slice(&name);
    script.extend_from_slice(
        b"\n{ \\builtin trap - RETURN\n\
          case ${bash_tmate_errexit-} in 1) \\builtin unset -v bash_tmate_errexit; \\builtin set -e;; esac\n\
          } 2</dev/null\nfi\n",
    );
    if expands {
        script.extend_from_slice(b"{ \\builtin unset -v bash_tmate; } 2</dev/null\n");
    }
    script
}

/// Variables that stay as the session's shell has them: bash's own, and those of a terminal.
const KEPT: &str = "BASH|BASHOPTS|BASHPID|BASH_ALIASES|BASH_ARGC|BASH_ARGV|BASH_ARGV0|BASH_CMDS|BASH_COMMAND|BASH_ENV|\
BASH_EXECUTION_STRING|BASH_LINENO|BASH_MONOSECONDS|BASH_SOURCE|BASH_SUBSHELL|BASH_TRAPSIG|BASH_VERSINFO|\
BASH_VERSION|BASH_XTRACEFD|COLUMNS|COMP_WORDBREAKS|DIRSTACK|EPOCHREALTIME|EPOCHSECONDS|EUID|FUNCNAME|GROUPS|HISTCMD|\
LINENO|LINES|PIPESTATUS|PPID|PROMPT_COMMAND|PS1|PS2|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TERM|TMOUT|TMUX|\
TMUX_PANE|UID|_|bash_tmate";

/// Whether the variable `name` stays as the session's shell has it.
pub fn is_kept(name: &[u8]) -> bool {
    KEPT.split('|').any(|kept| kept.as_bytes() == name)
}

/// The script that the EXIT trap runs. [`super::snapshot`] reads what it writes.
///
/// Options are told before those are turned off that would end it, and the order of the rest keeps what is
/// needed to read it: `nocasematch` would change what `case` matches.
pub fn dump(files: &Files) -> String {
    // All names: `"${!a@}"` expands to one word per name whatever IFS is. `compgen` is not in every bash.
    let letters = ('A'..='Z').chain('a'..='z').chain(['_']);
    let names: Vec<_> = letters.map(|letter| format!("\"${{!{letter}@}}\"")).collect();
    let (names, snapshot) = (names.join(" "), files.path(files.snapshot));
    format!(
        r#"\builtin trap - DEBUG RETURN ERR
\builtin trap '' XFSZ
{{
\builtin printf '%s\0' "$SHELLOPTS"
\builtin set +eux
{STACK}
if [[ ${{PWD-}} -ef . ]]; then \builtin printf '=%s\0' "$PWD"; else \builtin pwd -P; \builtin printf '\0'; fi
\builtin shopt -p; \builtin printf '\0'
\builtin set +o; \builtin printf '\0'
\builtin shopt -u nocasematch
\builtin printf '%s\0' {names} ''
for bash_tmate in {names}; do
case $bash_tmate in {KEPT}) ;; *) \builtin declare -p -- "$bash_tmate";; esac
done
\builtin printf '\0'
\builtin declare -f; \builtin declare -F; \builtin printf '\0end\0'
}} 1<>{snapshot}
"#
    )
}

/// What bash knows of where it is: the command, and its stack as three lists. Outside functions `FUNCNAME` is
/// empty; the other two are of one length.
const STACK: &str = r#"\builtin printf '%s\0' "$BASH_COMMAND" "${#FUNCNAME[@]}" "${FUNCNAME[@]}"
\builtin printf '%s\0' "${#BASH_SOURCE[@]}" "${BASH_SOURCE[@]}" "${BASH_LINENO[@]}""#;

/// The script that the ERR trap runs, with the status and the line. What a subshell writes belongs to what
/// the shell writes next: the mark `s` says so.
///
/// All of it is the left side of `||`, so that errexit does not count in it.
pub fn trace(files: &Files, trace: TraceFiles) -> String {
    let (shell, subshell) = (files.path(trace.shell), files.path(trace.subshell));
    format!(
        r#"{{
if ((BASH_SUBSHELL)); then
\builtin printf 's\0' 1<>{shell}
{{ \builtin printf '%s\0' r '' "$1" "$2"; {STACK}; \builtin local; \builtin printf '\0end\0'; }} 1<>{subshell}
else
bash_tmate=
\builtin read -r -d '' bash_tmate <{shell}
{{ \builtin printf '%s\0' r "$bash_tmate" "$1" "$2"; {STACK}; \builtin local; \builtin printf '\0end\0'; }} 1<>{shell}
\builtin unset -v bash_tmate
fi
}} || \builtin :
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files { process: 12, dump: 4, snapshot: 5, trace: None }
    }

    fn situation(runs: &Runs) -> Situation<'_> {
        Situation {
            runs,
            set: Set::default(),
            bash_env: None,
            bash_env_is_unreadable: false,
            xtrace_descriptor: false,
            outermost: false,
            from_network: false,
            set_user_id: false,
        }
    }

    #[test]
    fn obstacles_are_told() {
        let (script, string) = (Runs::StandardInput, Runs::CommandString(Some("x".into())));
        let plain = situation(&script);
        let set = |set| Situation { set, ..plain };
        let user = Some(OsStr::new("/x"));
        let remote = Situation { runs: &string, outermost: true, from_network: true, ..plain };
        for (situation, word) in [
            (plain, None),
            (set(Set { posix: true, ..Set::default() }), Some("posix")),
            (set(Set { privileged: true, ..Set::default() }), Some("privileged")),
            (Situation { set_user_id: true, ..plain }, Some("privileged")),
            (set(Set { verbose: true, ..Set::default() }), Some("-v")),
            (set(Set { restricted: true, ..Set::default() }), Some("restricted")),
            (set(Set { xtrace: true, ..Set::default() }), None),
            (Situation { bash_env: user, ..plain }, None),
            (Situation { bash_env: user, ..set(Set { xtrace: true, ..Set::default() }) }, Some("BASH_ENV")),
            (Situation { xtrace_descriptor: true, ..plain }, None),
            (Situation { xtrace_descriptor: true, ..set(Set { xtrace: true, ..Set::default() }) }, Some("XTRACEFD")),
            (Situation { bash_env_is_unreadable: true, ..plain }, Some("cannot be read")),
            (Situation { bash_env: Some(OsStr::new("a\"b")), ..plain }, Some("quotation")),
            (remote, Some("remote")),
            (Situation { from_network: false, ..remote }, None),
            (Situation { outermost: false, ..remote }, None),
            (Situation { runs: &script, ..remote }, None),
            (Situation { set: Set { login: true, ..Set::default() }, ..remote }, None),
            (Situation { set: Set { norc: true, ..Set::default() }, ..remote }, None),
        ] {
            let found = obstacle(&situation);
            assert_eq!(found.is_some(), word.is_some(), "{situation:?}: {found:?}");
            assert!(found.is_none_or(|found| word.is_some_and(|word| found.contains(word))), "{found:?}");
        }
    }

    #[test]
    fn the_users_bash_env_comes_back_quoted_and_is_run() {
        let text =
            |value: Option<&str>| String::from_utf8(start(&files(), value.map(OsStr::new), OsStr::new("a b"))).unwrap();
        assert!(text(None).ends_with("\\builtin unset -v BASH_ENV; \\builtin : 'a b'; } 2</dev/null\n"));
        assert!(!text(None).contains("RETURN"));
        assert!(text(Some("")).contains("BASH_ENV='';"));
        assert!(!text(Some("")).contains("RETURN"));
        for (value, back, runs) in [
            ("/a b/it's", r"BASH_ENV='/a b/it'\''s';", r". '/a b/it'\''s'"),
            ("env.sh", "BASH_ENV=env.sh;", ". ./env.sh"),
            ("~/env.sh", "BASH_ENV='~/env.sh';", ". ~/env.sh"),
            ("$HOME/env.sh", "BASH_ENV='$HOME/env.sh';", ". \"$bash_tmate\""),
        ] {
            let text = text(Some(value));
            assert!(text.contains(back) && text.contains(&format!("\\builtin {runs}\n")), "{text}");
        }
    }

    #[test]
    fn paths_are_digits_and_slashes() {
        assert_eq!(files().path(7), "/proc/12/fd/7");
        assert!(is_kept(b"TMUX") && is_kept(b"_") && !is_kept(b"PATH") && !is_kept(b""));
    }
}
