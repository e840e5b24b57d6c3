//! What a caller gives reaches bash as it is: words, environment, descriptors, limits, signals, directory.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::{Place, Seen, path_with};
use crate::support::{folder, installed, script};

/// What bash makes of its options.
const TELL: &str = "echo \"$0\" $- $SHELLOPTS $BASHOPTS; printenv BASH_ENV; [[ -o posix ]] && echo posix; \
                    shopt -q login_shell && echo login; false\necho on\n";

/// Sees `bash` with `reference` and `bash-tmate` with `words`, under `variables`, with the scene and without.
fn same(variables: &[(&str, &str)], reference: &[&str], words: &[&str], scenes: &[&str]) {
    let mut place = Place::new();
    for (name, value) in variables {
        place = place.with(name, value);
    }
    for name in ["script.sh", "rc"] {
        std::fs::write(place.beside(name), TELL).unwrap();
    }
    std::fs::create_dir(place.beside("home")).unwrap();
    std::fs::write(place.beside("home/.bash_profile"), "echo profile $-; [ x = y ] && echo no\n").unwrap();
    std::fs::write(
        place.beside("env"),
        "echo env $- ${BASH_SOURCE[0]} $LINENO $#; declare e=1; [ x = y ] && echo no\n",
    )
    .unwrap();
    let stdin = place.beside("script.sh");
    for scene in scenes {
        place.variables.push(("BASH_TMATE_SCENE".into(), scene.into()));
        let expected = place.see(&[&["bash"], reference].concat(), Some(&stdin));
        let found = place.see(&[&["bash-tmate"], words].concat(), Some(&stdin));
        place.variables.pop();
        assert_eq!(found, expected, "{variables:?} {words:?}, scene {scene}");
    }
}

const BOTH: &[&str] = &["0", "1"];

#[test]
fn every_way_to_call_bash_is_a_way_to_call_it() {
    for (reference, words) in [
        ("-eo pipefail", ""),
        ("-eo pipefail ../script.sh a b", "../script.sh a b"),
        ("-eo pipefail -s a b", "-s a b"),
        ("-eo pipefail -", "-"),
        ("-eo pipefail --", "--"),
        ("-eo pipefail -- ../script.sh", "-- ../script.sh"),
        ("-eo pipefail +e ../script.sh", "+e ../script.sh"),
        ("-eo pipefail +eo pipefail ../script.sh", "+eo pipefail ../script.sh"),
        ("-eo pipefail -eo pipefail ../script.sh", "-eo pipefail ../script.sh"),
        ("-eo pipefail -euxo pipefail ../script.sh", "-euxo pipefail ../script.sh"),
        ("--login -eo pipefail ../script.sh", "--login ../script.sh"),
        ("-login -eo pipefail ../script.sh", "-login ../script.sh"),
        ("-eo pipefail -l ../script.sh", "-l ../script.sh"),
        ("--noprofile --norc -eo pipefail ../script.sh", "--noprofile --norc ../script.sh"),
        ("--noprofile --login -eo pipefail ../script.sh", "--noprofile --login ../script.sh"),
        ("--rcfile ../rc -eo pipefail ../script.sh", "--rcfile ../rc ../script.sh"),
        ("--init-file ../rc -eo pipefail -i ../script.sh", "--init-file ../rc -i ../script.sh"),
        ("--rcfile ../rc -eo pipefail -i", "--rcfile ../rc -i"),
        ("--posix -eo pipefail ../script.sh", "--posix ../script.sh"),
        ("-eo pipefail -o posix ../script.sh", "-o posix ../script.sh"),
        ("-eo pipefail -p ../script.sh", "-p ../script.sh"),
        ("-eo pipefail -v ../script.sh", "-v ../script.sh"),
        ("--verbose -eo pipefail ../script.sh", "--verbose ../script.sh"),
        ("-eo pipefail -x ../script.sh", "-x ../script.sh"),
        ("-eo pipefail -o xtrace ../script.sh", "-o xtrace ../script.sh"),
        ("-eo pipefail -r ../script.sh", "-r ../script.sh"),
        ("--restricted -eo pipefail ../script.sh", "--restricted ../script.sh"),
        ("-eo pipefail -n ../script.sh", "-n ../script.sh"),
        ("-eo pipefail -t", "-t"),
        ("-eo pipefail -O extglob +O sourcepath ../script.sh", "-O extglob +O sourcepath ../script.sh"),
        ("-eo pipefail -o", "-o"),
        ("-eo pipefail +O", "+O"),
        ("-eo pipefail -c", "-c"),
        ("-eo pipefail -c false", "-c false"),
        ("-eo pipefail -ce false", "-ce false"),
        ("-eo pipefail +ec false", "+ec false"),
        ("-eo pipefail nothing.sh", "nothing.sh"),
        ("-eo pipefail ..", ".."),
        ("-eo pipefail -Z", "-Z"),
        ("--lost -eo pipefail", "--lost"),
        ("--rcfile", "--rcfile"),
        ("-eo pipefail -o lost", "-o lost"),
        ("-eo pipefail -D ../script.sh", "-D ../script.sh"),
        ("--dump-strings -eo pipefail ../script.sh", "--dump-strings ../script.sh"),
        ("--pretty-print -eo pipefail ../script.sh", "--pretty-print ../script.sh"),
        ("--version -eo pipefail", "--version"),
        ("--help -eo pipefail", "--help"),
    ] {
        let split = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        same(&[], &split(reference), &split(words), BOTH);
    }
    // Words that no split could make.
    let strange = ["-c", "printf '<%s>' \"$0\" \"$@\"; exit 4", "", "a b", "\n", "*", "'"];
    same(&[], &[&["-eo", "pipefail"][..], &strange].concat(), &strange, BOTH);
}

#[test]
fn the_environment_makes_no_difference() {
    let script: &[&str] = &["../script.sh", "a"];
    let reference = [&["-eo", "pipefail"], script].concat();
    for variables in [
        &[("BASH_ENV", "../env")][..],
        &[("BASH_ENV", "")],
        &[("BASH_ENV", "../nothing")],
        &[("BASH_ENV", "..")],
        &[("BASH_ENV", "~/../env")],
        &[("BASH_ENV", "$HOME/../env")],
        &[("BASH_ENV", "${BASH_ENV_FILE:-$(echo ../env)}")],
        &[("BASH_ENV", "../a\"b")],
        &[("BASH_ENV", "../env"), ("SHELLOPTS", "xtrace")],
        &[("BASH_ENV", "../env"), ("SHELLOPTS", "nounset")],
        &[("BASH_ENV", "../env"), ("POSIXLY_CORRECT", "1")],
        &[("SHELLOPTS", "xtrace:posix")],
        &[("SHELLOPTS", "verbose")],
        &[("SHELLOPTS", "xtrace"), ("BASH_XTRACEFD", "2")],
        &[("BASH_FUNC_trap%%", "() { echo mine; }"), ("BASH_FUNC_unset%%", "() { echo mine; }")],
        &[("_", "it's")],
        &[("SHLVL", "5")],
        &[("SHLVL", "x"), ("SSH_CLIENT", "1 2 3")],
        &[("LC_ALL", "C.UTF-8"), ("LANG", "tlh")],
    ] {
        same(variables, &reference, script, BOTH);
        let tell = ["-c", "echo \"$_\"; env; printenv BASH_ENV; [ -n \"${e-}\" ] && exit 9; false", "n"];
        let scenes = if variables[0].0 == "BASH_ENV" { &BOTH[..1] } else { BOTH };
        same(variables, &[&["-eo", "pipefail"][..], &tell].concat(), &tell, scenes);
    }
}

/// Runs `set_up; exec SHELL SCRIPT` by sh, and compares.
fn same_after(set_up: &str, script: &str) {
    let place = Place::new();
    for scene in BOTH {
        let see = |shell: &str| {
            let text = format!("{set_up}\nexec {shell} -c \"$1\" name");
            place.see(&["env", &format!("BASH_TMATE_SCENE={scene}"), "sh", "-c", &text, "sh", script], None)
        };
        let (found, expected) = (see("bash-tmate"), see("bash -eo pipefail"));
        assert_eq!(found, expected, "{set_up}; scene {scene}");
    }
}

#[test]
fn descriptors_signals_limits_and_the_directory_are_passed_on() {
    // Which of 0 to 9 are open, said in a file, and what fails on a closed one.
    let open = "exec 8>said; for n in 0 1 2 3 4 5 6 7 9; do [ -e /proc/$$/fd/$n ] && echo $n >&8; done; \
                read x || echo no stdin >&8; echo x || echo no stdout >&8; exit 3";
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-", "1>&- 2>&-", "3>&-"] {
        same_after(&format!("exec {closed}"), open);
    }
    same_after("exec 3>three 5<&0 7>&1 9>>nine", "echo x >&3; cat <&5; echo y >&7; echo z >&9; exit 3");
    for ignored in ["PIPE", "HUP", "INT TERM", "CHLD", "QUIT USR1", "HUP INT QUIT PIPE TERM CHLD"] {
        let tell = "grep -E 'Sig(Ign|Blk)' /proc/self/status; trap -p PIPE HUP INT TERM CHLD; \
                    (yes || echo $?) 2> /dev/null | head -n 1 > /dev/null; (exit 3)";
        same_after(&format!("trap '' {ignored}"), tell);
    }
    same_after("ulimit -f 8; ulimit -c 0; ulimit -s 2048", "ulimit -a; exit 3");
    for files in [4, 5, 6, 7, 8, 9, 10, 12, 20] {
        same_after(&format!("ulimit -n {files}"), "ulimit -n; exit 3");
    }
    same_after("umask 027", "umask; echo > file; exit 3");
    same_after("mkdir d; cd d; rmdir ../d", "pwd; exit 3");
    same_after("mkdir d; ln -s d l; cd l", "pwd; pwd -P; exit 3");
    same_after("unset HOME TZ", "echo ~ $HOME; exit 3");
}

#[test]
fn its_own_name_is_bashs_business() {
    let run = |name: &str, words: &[&str]| {
        let mut command = Command::new(installed().join("bash-tmate"));
        command.arg0(name).args(words).env("HOME", "/nowhere").stdin(Stdio::null());
        command.env("BASH_TMATE_SKIP_CODES", "0-255").env("PATH", path_with(installed()));
        let output = command.output().unwrap();
        Seen::new(&output, Vec::new())
    };
    let tell = ["-c", "echo $0; shopt -q login_shell && echo login; exit 3"];
    for (name, stdout) in [
        ("bash-tmate", "bash\n"),
        ("-bash-tmate", "bash\nlogin\n"),
        ("/x/-bash-tmate", "bash\nlogin\n"),
        (".bash-tmate-wrapped", "bash\n"),
        // `exec -a`.
        ("special", "special\n"),
        ("-special", "-special\nlogin\n"),
    ] {
        let seen = run(name, &tell);
        let found = (seen.status, seen.stdout.as_str(), seen.stderr.as_str());
        assert_eq!(found, (3, stdout, ""), "{name}");
    }
    let mut multicall = Command::new(installed().join("nixkit"));
    multicall.args(["bash-tmate", "-c", "echo $0; exit 3"]).env("BASH_TMATE_SKIP_CODES", "3");
    let output = multicall.output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(3), &b"bash\n"[..], &b""[..]));
}

#[test]
fn a_bash_that_cannot_be_run_is_126_or_127() {
    let bin = folder();
    let run = |words: &[&str]| {
        let mut command = Command::new(installed().join("bash-tmate"));
        let output = command.args(words).env("PATH", bin.path()).stdin(Stdio::null()).output().unwrap();
        Seen::new(&output, Vec::new())
    };
    // With a job and without one.
    for words in [&["-c", "x"][..], &["--version"]] {
        let missing = "bash-tmate: error: cannot find `bash` in PATH\nhint: install it, or add its folder to PATH\n";
        let seen = run(words);
        assert_eq!((seen.status, seen.stdout.as_str(), seen.stderr.as_str()), (127, "", missing));
    }
    script(&bin.path().join("bash"), "exit 9");
    assert_eq!(run(&["x"]).status, 9);
    crate::support::set_mode(&bin.path().join("bash"), 0o644);
    let seen = run(&["x"]);
    let refused = "bash-tmate: error: cannot execute `bash`: Permission denied\n";
    assert_eq!((seen.status, seen.stdout.as_str(), seen.stderr.as_str()), (126, "", refused));
}
