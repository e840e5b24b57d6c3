//! The scripts that bash runs for us, by way of `BASH_ENV`, traps and files in memory, and when it would.
//! They must never print, change what a script sees beyond what `docs/tmate.md` lists, or change how it ends.
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

use super::watch::{Trace, Watch};
use crate::tmate::conf::shell_quoted;

/// Where the files are, as bash can open them. All but `process` are descriptors of that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// The process that holds them, as `/proc` numbers it.
    pub process: i32,
    /// The script that writes a snapshot.
    pub dump: i32,
    /// The snapshot of the shell itself.
    pub shell: i32,
    /// What is needed for subshells, where they are watched.
    pub subshell: Option<SubshellFiles>,
    /// What the ERR trap needs, where there is one.
    pub trace: Option<TraceFiles>,
}

/// Descriptors of what is needed for subshells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubshellFiles {
    /// The snapshot of the innermost subshell that failed.
    pub snapshot: i32,
    /// The script that decides whether to write it.
    pub keep: i32,
    /// The script that a subshell with `eval` begins with.
    pub begin: i32,
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

/// Keeps a group of commands from printing, being traced, or reading what the script reads. The group is not run
/// unless `$?` is a failure.
const ON_FAILURE: &str = "0</dev/null 2</dev/null 3</${?##[1-9]*}dev/null >/dev/null {BASH_XTRACEFD}>/dev/null";

/// What `BASH_ENV` names: sets the traps, and gives the user's `BASH_ENV` back and runs it.
///
/// `last_argument` is what `$_` is at the start of a script.
pub fn start(files: &Files, watch: Watch, bash_env: Option<&OsStr>, last_argument: &OsStr) -> Vec<u8> {
    let (dump, shell) = (files.path(files.dump), files.path(files.shell));
    let mut traps = format!("\\builtin trap -- '! {{ \\builtin . {dump} {shell} \"$?\" 0; }} {ON_FAILURE}' EXIT;");
    if let Some(trace) = files.trace {
        let script = files.path(trace.script);
        // With errexit alone `$-` holds an `e`; without it there is no such path.
        let only = if watch.trace == Trace::Errexit { " 3</${-//*e*/}dev/null" } else { "" };
        traps.push_str(&format!(
            " \\builtin trap -- '! {{ \\builtin . {script} \"$?\" \"$LINENO\" || \\builtin :; }} 0</dev/null 2</dev/null{only} >/dev/null' \
             ERR; \\builtin set -E;"
        ));
    }
    if let Some(subshell) = files.subshell.filter(|_| watch.evals) {
        let alias = alias(files, subshell);
        traps.push_str(&format!(" \\builtin alias eval='{alias}'; \\builtin shopt -s expand_aliases;"));
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

/// What stands for `eval`, so that a subshell runs [`begin`] first: `eval` joins its arguments by blanks.
pub fn alias(files: &Files, subshell: SubshellFiles) -> String {
    format!("\\builtin eval \"\\\\builtin . {};\"", files.path(subshell.begin))
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

/// The script that writes a snapshot, which [`super::snapshot`] reads, to the file `$1`. `$2` is the exit status and
/// `$3` how many subshells deep the shell is.
///
/// Options are told before those are turned off that would end it, and the order of the rest keeps what is
/// needed to read it: `nocasematch` would change what `case` matches.
pub fn dump() -> String {
    // All names: `"${!a@}"` expands to one word per name whatever IFS is. `compgen` is not in every bash.
    let letters = ('A'..='Z').chain('a'..='z').chain(['_']);
    let names: Vec<_> = letters.map(|letter| format!("\"${{!{letter}@}}\"")).collect();
    let names = names.join(" ");
    format!(
        r#"bash_tmate=("0${{PIPESTATUS+${{#PIPESTATUS[@]}}}}" ${{PIPESTATUS+"${{PIPESTATUS[@]}}"}})
\builtin trap - DEBUG RETURN ERR
\builtin trap '' XFSZ
{{
\builtin printf '%s\0' "$2 $3" "${{bash_tmate[@]}}" "$SHELLOPTS"
\builtin unset -v bash_tmate
\builtin set +eux
{STACK}
if [[ ${{PWD-}} -ef . ]]; then \builtin printf '=%s\0' "$PWD"; else \builtin pwd -P; \builtin printf '\0'; fi
\builtin shopt -p; \builtin printf '\0'
\builtin set +o; \builtin printf '\0'
\builtin shopt -u nocasematch
\builtin printf '%s\0' {names} ''
for bash_tmate in {names}; do
case $bash_tmate in {KEPT}) ;; *) \builtin declare -p -- "$bash_tmate";; esac
\builtin printf '\0'
done
\builtin declare -f; \builtin printf '\0'; \builtin declare -F; \builtin printf '\0end\0'
}} 1<>"$1"
"#
    )
}

/// What bash knows of where it is: the command, and its stack as three lists. Outside functions `FUNCNAME` is
/// unset, which must not be an error under `set -u`; the other two are of one length.
const STACK: &str = r#"\builtin printf '%s\0' "$BASH_COMMAND" "0${FUNCNAME+${#FUNCNAME[@]}}" ${FUNCNAME+"${FUNCNAME[@]}"}
\builtin printf '%s\0' "${#BASH_SOURCE[@]}" "${BASH_SOURCE[@]}" "${BASH_LINENO[@]}""#;

/// Whether the snapshot of a subshell that is there is that of a shell further inside, whose failure has made the
/// present one fail: it is deeper than `$depth` and has the status `$status`. Reads it into `bash_tmate`.
fn is_further_inside(snapshot: &str, status: &str, depth: &str) -> String {
    format!(
        r#"bash_tmate=
\builtin read -r -d '' bash_tmate <{snapshot}
if [[ $bash_tmate == "{status} "* ]] && ((${{bash_tmate#* }} > {depth})); then"#
    )
}

/// The script that writes the snapshot of a subshell, unless the failure is that of a shell further inside, which
/// the ERR trap may know: in a pipeline bash ends an `eval` with 1 for any status. `$1` is the exit status and `$2` how
/// many subshells deep the shell is.
pub fn keep(files: &Files, subshell: SubshellFiles) -> String {
    let (dump, snapshot) = (files.path(files.dump), files.path(subshell.snapshot));
    let further_inside = is_further_inside(&snapshot, "$1", "$2");
    format!(
        r#"if [[ ${{bash_tmate-}} == inside ]]; then \builtin :; else
{further_inside} \builtin :; else \builtin . {dump} {snapshot} "$1" "$2"; fi
fi
"#
    )
}

/// The script that a subshell with `eval` begins with: it takes the alias away, and sets the EXIT trap that a subshell
/// does not inherit.
pub fn begin(files: &Files, subshell: SubshellFiles) -> String {
    let keep = files.path(subshell.keep);
    format!(
        r#"{{ if ((BASH_SUBSHELL)); then
\builtin unalias eval
\builtin shopt -u expand_aliases
\builtin trap -- '! {{ \builtin . {keep} "$?" "$BASH_SUBSHELL"; }} {ON_FAILURE}' EXIT
fi
}} 2</dev/null || \builtin :
"#
    )
}

/// The script that the ERR trap runs, with the status and the line. What a subshell writes belongs to what
/// the shell writes next: the mark `s` says so. Where errexit is about to end a subshell, its snapshot is written
/// too, by a process of its own: this one must stay as it is.
///
/// All of it is the left side of `||`, so that errexit does not count in it.
pub fn trace(files: &Files, subshell: SubshellFiles, trace: TraceFiles) -> String {
    let (shell, inner, keep) = (files.path(trace.shell), files.path(trace.subshell), files.path(subshell.keep));
    let further_inside = is_further_inside(&files.path(subshell.snapshot), "$1", "BASH_SUBSHELL");
    format!(
        r#"{{
if ((BASH_SUBSHELL)); then
\builtin printf 's\0' 1<>{shell}
{further_inside}
case $- in *e*) bash_tmate=inside;; esac
else
{{ \builtin printf '%s\0' r '' "$1" "$2"; {STACK}; \builtin local; \builtin printf '\0end\0'; }} 1<>{inner}
case $- in *e*) (\builtin . {keep} "$1" "$((BASH_SUBSHELL - 1))") >/dev/null;; esac
fi
else
bash_tmate=
\builtin read -r -d '' bash_tmate <{shell}
{{ \builtin printf '%s\0' r "$bash_tmate" "$1" "$2"; {STACK}; \builtin local; \builtin printf '\0end\0'; }} 1<>{shell}
fi
case $bash_tmate in inside) ;; *) \builtin unset -v bash_tmate;; esac
}} || \builtin :
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files { process: 12, dump: 4, shell: 5, subshell: None, trace: None }
    }

    #[test]
    fn the_users_bash_env_comes_back_quoted_and_is_run() {
        let text = |value: Option<&str>| {
            String::from_utf8(start(&files(), Watch::default(), value.map(OsStr::new), OsStr::new("a b"))).unwrap()
        };
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
