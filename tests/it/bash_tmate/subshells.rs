//! The state of the innermost shell that failed, above all in the scripts that GitLab's runner writes.

use super::sessions::has_state;
use crate::support::{SessionBuilder, TmateServer, folder};

/// What the steps of a job set before they fail.
const STEPS: &str = "export CI=true\ncd /usr\nX='a b'\n";

/// As Go's `helpers.ShellEscape` in the runner quotes a text.
fn ansi_c(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("$'{text}'")
}

/// As `helpers.PosixShellEscape` quotes it (`FF_POSIXLY_CORRECT_ESCAPES`).
fn posix(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if "\"`$\\".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

/// What the runner feeds to a shell (`BashWriter.Finish`, `shells/bash.go`), of several versions.
pub(super) fn runner_scripts(steps: &str) -> Vec<(&'static str, String)> {
    let new_head = "#!/usr/bin/env bash\n\ntrap exit 1 TERM\n\nif set -o | grep pipefail > /dev/null; then set -o \
                    pipefail; fi; set -o errexit\nset +o noclobber\n";
    let old_head = "#!/usr/bin/env bash\n\nset -eo pipefail\nset +o noclobber\n";
    let check = "_runner_exit_code=$?; if [ $_runner_exit_code -ne 0 ]; then exit $_runner_exit_code; fi\n";
    let checked: String = steps.split_inclusive('\n').flat_map(|step| [step, check]).collect();
    vec![
        ("17: eval", format!("{new_head}: | eval {}\nexit 0\n", ansi_c(steps))),
        ("17: FF_USE_NEW_BASH_EVAL_STRATEGY", format!("{new_head}: | (eval {})\nexit 0\n", ansi_c(steps))),
        ("17: FF_POSIXLY_CORRECT_ESCAPES", format!("{new_head}: | eval {}\nexit 0\n", posix(steps))),
        ("17: FF_ENABLE_BASH_EXIT_CODE_CHECK", format!("{new_head}: | eval {}\nexit 0\n", ansi_c(&checked))),
        (
            "17: CI_DEBUG_TRACE",
            format!("{}: | eval {}\nexit 0\n", new_head.replace("if set", "set -o xtrace\nif set"), ansi_c(steps)),
        ),
        ("10: eval", format!("{old_head}: | eval {}\nexit 0\n", ansi_c(steps))),
    ]
}

/// The session after `script` on standard input shows `told`, and what is typed prints `shown`.
fn shows(builder: SessionBuilder, server: &mut TmateServer, script: &str, status: i32, told: &str, shown: &str) {
    let home = folder();
    let mut running = builder.env("HOME", home.path()).stdin(script).start();
    running.line("connect with");
    server.tell("join");
    server.shows(told);
    server.tell("type echo \"<$X ${Y-} $PWD>\"");
    server.shows(shown);
    server.tell("type exit 0");
    let (ended, _, stderr) = running.finish_with_output();
    assert_eq!(ended, status, "{stderr:?}");
}

#[test]
fn in_a_gitlab_job_it_is_the_shell_of_the_steps() {
    let mut server = TmateServer::start("plain");
    for (end, status, level, shown, versions) in [
        ("false\n", 1, 1, "<a b  /usr>", 6),
        ("test -e /nowhere || exit 3\n", 3, 1, "<a b  /usr>", 6),
        // For a function in `eval` in a pipeline bash itself makes 1 of any status.
        ("f() { Y=f; sh -c 'exit 4'; }\nf\n", 1, 1, "<a b f /usr>", 1),
        ("(cd lib; Y=in; false)\n", 1, 2, "<a b in /usr/lib>", 2),
        ("(cd lib; Y=in; sh -c 'exit 7')\n", 1, 2, "<a b in /usr/lib>", 1),
        // A part that could notice an ERR trap: there is none, and the steps' own shell has its state.
        ("trap 'echo failed' ERR; false\n", 1, 1, "<a b  /usr>", 2),
    ] {
        for (version, script) in runner_scripts(&format!("{STEPS}{end}echo no\n")).into_iter().take(versions) {
            eprintln!("{version}: {end}");
            let mut told = has_state(&format!("the subshell that failed (level {level})"));
            if version.ends_with("TRACE") {
                told = told.replace("errexit", "errexit, xtrace");
            }
            shows(server.session().bash(), &mut server, &script, status, &told, shown);
        }
    }
}

#[test]
fn in_any_script_it_is_the_innermost_that_errexit_has_ended() {
    let mut server = TmateServer::start("plain");
    for (script, status, whose, shown) in [
        ("X='a b'\n(\n  cd /usr\n  Y=1\n  false\n)\n", 1, "the subshell that failed (level 1)", "<a b 1 /usr>"),
        (
            "X='a b'; (cd /usr; (Y=2; cd lib; sh -c 'exit 5'); echo no)",
            5,
            "the subshell that failed (level 2)",
            "<a b 2 /usr/lib>",
        ),
        ("X='a b'; true | { cd /usr; Y=3; false; }", 1, "the subshell that failed (level 1)", "<a b 3 /usr>"),
        ("X='a b'; cd /usr; (Y=4; false) || true; false", 1, "the script", "<a b  /usr>"),
        ("X='a b'; cd /usr; cat <(Y=5; false); wait $!; false", 1, "the script", "<a b  /usr>"),
        ("X='a b'; cd /usr; (cd lib; Y=6; exit 6)", 6, "the script", "<a b  /usr>"),
    ] {
        // With a file the whole script is known.
        let home = folder();
        let file = home.path().join("script");
        std::fs::write(&file, script).unwrap();
        let builder = server.session().bash().args([file.to_str().unwrap()]);
        shows(builder, &mut server, "", status, &has_state(whose), shown);
    }
}
