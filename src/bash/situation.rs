//! Whether bash would run the hook ([`super::hook`]) without a trace.
//! It must never judge the script itself: only how bash is called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::invocation::{Runs, Set};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
