//! Whether a session's shell has the state of the script: both snapshots compared, and said in words.
//! It must never claim what was not compared.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::replay::{left_out, lines, option_lines};
use super::snapshot::Snapshot;
use crate::failure::shown;

/// Options of `shopt` that a shell sets for itself, or that change how the snapshot is read.
const OWN_SHOPTS: [&str; 3] = ["expand_aliases", "login_shell", "restricted_shell"];
/// As many names of a kind are told.
const MOST_NAMES: usize = 10;

/// Whose state a snapshot is.
pub fn whose(snapshot: &Snapshot) -> String {
    match snapshot.depth {
        0 => "the script".to_owned(),
        depth => format!("the subshell that failed (level {depth})"),
    }
}

/// What a session's shell says of itself, a line each. `before` is the state that it is to have, `after` the one that
/// it has, if that is known, and `locals` restore the variables of the function that failed.
pub fn report(before: &Snapshot, after: Option<&Snapshot>, locals: &[u8]) -> Vec<String> {
    let whose = whose(before);
    let Some(after) = after else {
        return vec![format!("This shell could not check whether it has the directory and the variables of {whose}.")];
    };
    let missing = missing(before, after, locals);
    let left_out = left_out(before);
    let except = if left_out.is_empty() { String::new() } else { format!(", except {}", left_out.join(", ")) };
    let mut report = if missing.is_empty() {
        vec![format!("This shell has the directory, variables, functions and options of {whose}{except}.")]
    } else {
        vec![
            format!("This shell has the directory, variables, functions and options of {whose}{except},"),
            format!("  but could not restore: {}.", missing.join("; ")),
        ]
    };
    if !locals.is_empty() {
        report.push("The local variables of the function that failed are set too.".to_owned());
    }
    report.push(format!("You are in {}", shown(&after.directory)));
    report
}

/// What is not as it was.
fn missing(before: &Snapshot, after: &Snapshot, locals: &[u8]) -> Vec<String> {
    let mut missing = Vec::new();
    if before.directory.is_empty() {
        missing.push("the directory, which no longer exists".to_owned());
    } else if before.directory != after.directory {
        missing.push(format!("the directory `{}`", shown(&before.directory)));
    }
    let variables = before.variables.iter().filter(|variable| {
        !variable.declaration.is_empty() && !is_local(locals, &variable.name) && !after.variables.contains(variable)
    });
    missing.extend(names("variable", variables.map(|variable| shown(&variable.name))));
    let last_word = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        shown(OsStr::from_bytes(line.rsplit(|&byte| byte == b' ').next().unwrap_or_default()))
    };
    let has = |text: &[u8], line: &[u8]| lines(text).any(|other| other == line);
    let functions = lines(&before.function_attributes).filter(|line| !has(&after.function_attributes, line));
    missing.extend(names("function", functions.map(last_word)));
    let options = option_lines(before).filter(|line| !has(&after.options, line));
    let shopts = lines(&before.shopts).filter(|line| !has(&after.shopts, line));
    let options = options.chain(shopts).map(last_word).filter(|name| !OWN_SHOPTS.contains(&&**name));
    missing.extend(names("option", options));
    missing
}

/// Whether `locals`, one declaration after the other, give `name` another value.
fn is_local(locals: &[u8], name: &OsStr) -> bool {
    lines(locals).any(|line| {
        // `declare -ATTRIBUTES NAME=VALUE`, or `NAME=VALUE` from older versions of bash.
        let start = line.split(|&byte| byte == b'=' || byte == b'\n').next().unwrap_or_default();
        start.rsplit(|&byte| byte == b' ').next() == Some(name.as_bytes())
    })
}

fn names(kind: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    let told = names[..names.len() - more].join(", ");
    match (names.len(), more) {
        (0, _) => None,
        (1, _) => Some(format!("the {kind} {told}")),
        (_, 0) => Some(format!("the {kind}s {told}")),
        _ => Some(format!("the {kind}s {told} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Variable;
    use super::*;

    fn variable(name: &str, declaration: &str) -> Variable {
        Variable { name: name.into(), declaration: declaration.into() }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            status: 1,
            depth: 0,
            pipe_status: vec![1],
            options_on: ["errexit", "noglob"].map(str::to_owned).to_vec(),
            command: "false".into(),
            stack: Vec::new(),
            directory: "/src".into(),
            shopts: b"shopt -s extglob\nshopt -u expand_aliases\nshopt -u login_shell\n".to_vec(),
            options: b"set -o errexit\nset -o noglob\nset +o vi\n".to_vec(),
            variables: vec![variable("A", "declare -- A=\"1\"\n"), variable("PPID", "")],
            functions: b"f () \n{ \n    :\n}\n".to_vec(),
            function_attributes: b"declare -f f\n".to_vec(),
        }
    }

    /// As an interactive shell has it.
    fn restored() -> Snapshot {
        let mut after = snapshot();
        after.shopts = b"shopt -s extglob\nshopt -s expand_aliases\nshopt -s login_shell\n".to_vec();
        after.options = b"set +o errexit\nset -o noglob\nset -o vi\n".to_vec();
        after.variables =
            vec![variable("A", "declare -- A=\"1\"\n"), variable("HISTFILE", "declare -- HISTFILE=\"h\"\n")];
        after.function_attributes = b"declare -f f\ndeclare -f of_bashrc\n".to_vec();
        after
    }

    #[test]
    fn what_is_restored_is_claimed() {
        assert_eq!(
            report(&snapshot(), Some(&restored()), b""),
            [
                "This shell has the directory, variables, functions and options of the script, except errexit.",
                "You are in /src"
            ]
        );
        let before = Snapshot { depth: 1, options_on: Vec::new(), ..snapshot() };
        assert_eq!(
            report(&before, Some(&restored()), b"declare -- l=\"1\"\n"),
            [
                "This shell has the directory, variables, functions and options of the subshell that failed (level 1).",
                "The local variables of the function that failed are set too.",
                "You are in /src"
            ]
        );
        assert_eq!(
            report(&Snapshot { depth: 2, ..snapshot() }, None, b""),
            ["This shell could not check whether it has the directory and the variables of the subshell that failed \
                 (level 2)."]
        );
    }

    #[test]
    fn what_is_not_restored_is_named() {
        type Change = fn(&mut Snapshot);
        let cases: [(Change, &[u8], Option<&str>); 9] = [
            (|after| after.directory = "/".into(), b"", Some("the directory `/src`")),
            (|after| after.variables.clear(), b"", Some("the variable A")),
            (|after| after.variables[0].declaration = b"declare -x A=\"1\"\n".to_vec(), b"", Some("the variable A")),
            (|after| after.variables.clear(), b"declare -- A=\"2\"\n", None),
            (|after| after.variables.clear(), b"A=2\n", None),
            (|after| after.variables.clear(), b"declare -- B=\"A\"\n", Some("the variable A")),
            (|after| after.function_attributes.clear(), b"", Some("the function f")),
            (|after| after.options.clear(), b"", Some("the option noglob")),
            (|after| after.shopts.clear(), b"", Some("the option extglob")),
        ];
        for (change, locals, expected) in cases {
            let mut after = restored();
            change(&mut after);
            let found = missing(&snapshot(), &after, locals);
            assert_eq!(found, expected.map(str::to_owned).into_iter().collect::<Vec<_>>());
        }
        let before = Snapshot { directory: "".into(), ..snapshot() };
        let after = Snapshot { shopts: Vec::new(), ..restored() };
        assert_eq!(
            report(&before, Some(&after), b"")[1],
            "  but could not restore: the directory, which no longer exists; the option extglob."
        );
        assert_eq!(
            names("variable", (0..12).map(|n| n.to_string())).unwrap(),
            "the variables 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
    }
}
