//! What the variables `BASH_TMATE_*` ask of `bash-tmate` itself; those of its session are the session's.
//! It must never stop a script: a value that makes no sense is a warning, said when a session is due.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;

use super::invocation::Runs;
use crate::failure::shown;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `BASH_TMATE_DISABLE=1`: bash and nothing else.
    pub disable: bool,
    /// `BASH_TMATE_SCENE=0` turns it off: what the script has set up is brought into the session.
    pub scene: bool,
    /// `BASH_TMATE_TRACE=1`: an ERR trap for the exact command, and `0`: none; else one where a script cannot notice it.
    pub trace: Option<bool>,
    /// `BASH_TMATE_TTY=1`: a session even where standard input is a terminal, and `0`: none there. Else one in CI.
    pub terminal: bool,
    /// `BASH_TMATE_NESTED=1`: a session for each failure, at the same time, and for outer shells too.
    pub nested: bool,
    /// `BASH_TMATE_ONLY_CODES`: no session for other exit codes.
    only: Option<Vec<RangeInclusive<u8>>>,
    /// `BASH_TMATE_SKIP_CODES`: no session for these.
    skip: Vec<RangeInclusive<u8>>,
    /// What is wrong with the values.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads them from `variable`. An empty variable is an unset one.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut warnings = Vec::new();
        let set = |name: &str| variable(name).filter(|value: &OsString| !value.is_empty());
        let mut switch = |name: &str, default: Option<bool>| match set(name) {
            None => default,
            Some(value) if value == "1" => Some(true),
            Some(value) if value == "0" => Some(false),
            Some(value) => {
                warnings.push(format!("{name} is `{}`, neither 1 nor 0", shown(value)));
                default
            }
        };
        let disable = switch("BASH_TMATE_DISABLE", None) == Some(true);
        let scene = switch("BASH_TMATE_SCENE", None) != Some(false);
        let trace = switch("BASH_TMATE_TRACE", None);
        let nested = switch("BASH_TMATE_NESTED", None) == Some(true);
        // CI systems set it to `true`; some tools take `false` for a value too.
        let in_ci = set("CI").is_some_and(|value| value != "false" && value != "0");
        let terminal = switch("BASH_TMATE_TTY", Some(in_ci)) == Some(true);
        let mut codes = |name: &str| {
            let value = set(name)?;
            let codes = parse_codes(&value);
            if codes.is_none() {
                warnings.push(format!("{name} is `{}`, no list of exit codes such as `1,2,126-127`", shown(value)));
            }
            codes
        };
        let only = codes("BASH_TMATE_ONLY_CODES");
        let skip = codes("BASH_TMATE_SKIP_CODES").unwrap_or_default();
        Self { disable, scene, trace, terminal, nested, only, skip, warnings }
    }

    /// Whether a session may follow where bash runs what `runs` says. A terminal on standard input matters for two
    /// kinds of people: one who types commands, and one who has called a script and is there to see it fail.
    pub fn may_follow(&self, runs: &Runs, stdin_is_a_terminal: bool) -> bool {
        !self.disable && (!stdin_is_a_terminal || (self.terminal && *runs != Runs::StandardInput))
    }

    /// Whether an exit with `code` is a failure that somebody wants to look at.
    pub fn wants(&self, code: u8) -> bool {
        let within = |codes: &[RangeInclusive<u8>]| codes.iter().any(|range| range.contains(&code));
        code != 0 && self.only.as_deref().is_none_or(within) && !within(&self.skip)
    }
}

/// `1,2,126-127`, with commas or blanks between.
fn parse_codes(value: &OsStr) -> Option<Vec<RangeInclusive<u8>>> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (parse_code(first)?, parse_code(last)?);
        (first <= last).then_some(first..=last)
    };
    text.split([',', ' ', '\t', '\n']).filter(|item| !item.is_empty()).map(range).collect()
}

fn parse_code(text: &str) -> Option<u8> {
    // `parse` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::new(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn plain() -> Settings {
        Settings {
            disable: false,
            scene: true,
            trace: None,
            terminal: false,
            nested: false,
            only: None,
            skip: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn switches_are_one_or_nought() {
        assert_eq!(settings(&[]), plain());
        for (name, value, expected) in [
            ("BASH_TMATE_DISABLE", "1", Settings { disable: true, ..plain() }),
            ("BASH_TMATE_DISABLE", "0", plain()),
            ("BASH_TMATE_DISABLE", "", plain()),
            ("BASH_TMATE_SCENE", "0", Settings { scene: false, ..plain() }),
            ("BASH_TMATE_SCENE", "1", plain()),
            ("BASH_TMATE_SCENE", "", plain()),
            ("BASH_TMATE_TRACE", "1", Settings { trace: Some(true), ..plain() }),
            ("BASH_TMATE_TRACE", "0", Settings { trace: Some(false), ..plain() }),
            ("BASH_TMATE_TTY", "1", Settings { terminal: true, ..plain() }),
            ("BASH_TMATE_TTY", "0", plain()),
            ("BASH_TMATE_NESTED", "1", Settings { nested: true, ..plain() }),
            ("BASH_TMATE_NESTED", "0", plain()),
            ("CI", "true", Settings { terminal: true, ..plain() }),
            ("CI", "1", Settings { terminal: true, ..plain() }),
            ("CI", "false", plain()),
            ("CI", "", plain()),
        ] {
            assert_eq!(settings(&[(name, value)]), expected, "{name}={value}");
        }
        let terminal = |tty| settings(&[("CI", "true"), ("BASH_TMATE_TTY", tty)]).terminal;
        assert!(terminal("1") && terminal("") && terminal("x") && !terminal("0"));
        for name in
            ["BASH_TMATE_DISABLE", "BASH_TMATE_SCENE", "BASH_TMATE_TRACE", "BASH_TMATE_TTY", "BASH_TMATE_NESTED"]
        {
            let warnings = vec![format!("{name} is `yes\\n`, neither 1 nor 0")];
            assert_eq!(settings(&[(name, "yes\n")]), Settings { warnings, ..plain() });
        }
    }

    #[test]
    fn a_terminal_matters_outside_ci_and_for_an_interactive_shell() {
        let (script, string) = (Runs::File("x".into()), Runs::CommandString(Some("x".into())));
        for (variables, runs, terminal, expected) in [
            (&[][..], &script, false, true),
            (&[], &Runs::StandardInput, false, true),
            (&[], &script, true, false),
            (&[], &string, true, false),
            (&[("CI", "true")], &script, true, true),
            (&[("CI", "true")], &string, true, true),
            (&[("CI", "true")], &Runs::StandardInput, true, false),
            (&[("BASH_TMATE_TTY", "1")], &string, true, true),
            (&[("BASH_TMATE_TTY", "1")], &Runs::StandardInput, true, false),
            (&[("CI", "true"), ("BASH_TMATE_TTY", "0")], &script, true, false),
            (&[("CI", "true"), ("BASH_TMATE_DISABLE", "1")], &script, false, false),
        ] {
            assert_eq!(settings(variables).may_follow(runs, terminal), expected, "{variables:?} {runs:?} {terminal}");
        }
    }

    #[test]
    fn codes_choose() {
        for (only, skip, wanted) in [
            ("", "", "1 2 3 126 127 130 255"),
            ("1", "", "1"),
            ("1,3 127", "", "1 3 127"),
            ("2-127", "3", "2 126 127"),
            ("", "130,255", "1 2 3 126 127"),
            ("", "0-255", ""),
            ("0", "", ""),
            (" 1 , 2 ", "", "1 2"),
        ] {
            let settings = settings(&[("BASH_TMATE_ONLY_CODES", only), ("BASH_TMATE_SKIP_CODES", skip)]);
            assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
            let found: Vec<_> =
                [0, 1, 2, 3, 126, 127, 130, 255].into_iter().filter(|&code| settings.wants(code)).collect();
            let wanted: Vec<u8> = wanted.split_whitespace().map(|code| code.parse().unwrap()).collect();
            assert_eq!(found, wanted, "only {only:?}, skip {skip:?}");
        }
    }

    #[test]
    fn a_list_that_makes_no_sense_is_a_warning_and_chooses_nothing() {
        for value in ["x", "1,x", "256", "-1", "+1", "1-", "-", "3-2", "1-2-3", "1;2", "1.5"] {
            for name in ["BASH_TMATE_ONLY_CODES", "BASH_TMATE_SKIP_CODES"] {
                let settings = settings(&[(name, value)]);
                let warning = format!("{name} is `{value}`, no list of exit codes such as `1,2,126-127`");
                assert_eq!(settings.warnings, [warning]);
                assert!(settings.wants(1) && settings.wants(255));
            }
        }
    }
}
