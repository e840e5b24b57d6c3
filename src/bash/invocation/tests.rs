//! Tables of bash's command lines, and a law for all of them.

use super::*;
use proptest::prelude::*;

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn parsed(text: &str) -> Invocation {
    parse("bash".into(), &words(text), false)
}

fn file(name: &str) -> Runs {
    Runs::File(name.into())
}

fn string(text: &str) -> Runs {
    Runs::CommandString(Some(text.into()))
}

#[test]
fn strictness_goes_where_bash_takes_it() {
    for (given, expected, runs) in [
        ("", "-eo pipefail", Runs::StandardInput),
        ("script a b", "-eo pipefail script a b", file("script")),
        ("-c echo x", "-eo pipefail -c echo x", string("echo")),
        ("-c", "-eo pipefail -c", Runs::CommandString(None)),
        ("-s a b", "-eo pipefail -s a b", Runs::StandardInput),
        ("-sc echo", "-eo pipefail -sc echo", string("echo")),
        ("-", "-eo pipefail -", Runs::StandardInput),
        ("--", "-eo pipefail --", Runs::StandardInput),
        ("-- -c", "-eo pipefail -- -c", file("-c")),
        ("- script", "-eo pipefail - script", file("script")),
        ("+e script", "-eo pipefail +e script", file("script")),
        ("+eo pipefail -c echo", "-eo pipefail +eo pipefail -c echo", string("echo")),
        ("-eo pipefail script", "-eo pipefail -eo pipefail script", file("script")),
        ("-euxo pipefail -c x", "-eo pipefail -euxo pipefail -c x", string("x")),
        ("-o errexit -o pipefail x", "-eo pipefail -o errexit -o pipefail x", file("x")),
        ("-oo posix pipefail x", "-eo pipefail -oo posix pipefail x", file("x")),
        ("-O extglob +O nullglob x", "-eo pipefail -O extglob +O nullglob x", file("x")),
        ("-o", "-eo pipefail -o", Runs::StandardInput),
        ("-O", "-eo pipefail -O", Runs::StandardInput),
        ("-co nounset echo", "-eo pipefail -co nounset echo", string("echo")),
        ("--login -c x", "--login -eo pipefail -c x", string("x")),
        ("-login -c x", "-login -eo pipefail -c x", string("x")),
        ("--noprofile --norc -e x", "--noprofile --norc -eo pipefail -e x", file("x")),
        ("--rcfile rc -i", "--rcfile rc -eo pipefail -i", Runs::StandardInput),
        ("-rcfile rc -i", "-rcfile rc -eo pipefail -i", Runs::StandardInput),
        ("--init-file --login x", "--init-file --login -eo pipefail x", file("x")),
        ("--norc --rcfile", "--norc --rcfile", Runs::StandardInput),
        ("-init-file", "-init-file", Runs::StandardInput),
        ("--lost x", "--lost -eo pipefail x", file("x")),
        // bash refuses it: after short options a long one is letters.
        ("-e --login x", "-eo pipefail -e --login x", Runs::StandardInput),
        ("script --login", "-eo pipefail script --login", file("script")),
        ("--help", "--help -eo pipefail", Runs::StandardInput),
        ("-help", "-help -eo pipefail", Runs::StandardInput),
        ("-lc x", "-eo pipefail -lc x", string("x")),
        ("-rcfil x", "-eo pipefail -rcfil x", string("x")),
    ] {
        let invocation = parsed(given);
        assert_eq!(invocation.arguments, words(expected), "{given}");
        assert_eq!(invocation.runs, runs, "{given}");
    }
    let login = parse("bash".into(), &words("--norc -c x"), true);
    assert_eq!(login.arguments, words("--login --norc -eo pipefail -c x"));
    assert!(login.set.login);
    // An empty word is a script's name.
    assert_eq!(parse("bash".into(), &["".into(), "x".into()], false).runs, file(""));
    assert_eq!(parse("bash".into(), &["-c".into(), "".into()], false).runs, string(""));
}

#[test]
fn options_count_as_they_stand_at_the_end() {
    let default = Set::default();
    for (given, expected) in [
        ("x -i -n", default),
        ("-c x -i", default),
        ("-- -i", default),
        ("-i", Set { interactive: true, ..default }),
        ("-ic x", Set { interactive: true, ..default }),
        ("-i +i x", default),
        ("-n x", Set { noexec: true, ..default }),
        ("-n +n x", default),
        ("-o noexec x", Set { noexec: true, ..default }),
        ("-D x", Set { noexec: true, ..default }),
        ("--dump-strings x", Set { noexec: true, ..default }),
        ("--dump-po-strings x", Set { noexec: true, ..default }),
        ("--pretty-print x", Set { noexec: true, ..default }),
        ("--version", Set { informs: true, ..default }),
        ("--norc --help", Set { informs: true, norc: true, ..default }),
        ("-login x", Set { login: true, ..default }),
        ("-l x", Set { login: true, ..default }),
        ("--posix x", Set { posix: true, ..default }),
        ("-o posix x", Set { posix: true, ..default }),
        ("-o posix +o posix x", default),
        ("-oo posix verbose x", Set { posix: true, verbose: true, ..default }),
        ("-O posix x", default),
        ("-pvxr", Set { privileged: true, verbose: true, xtrace: true, restricted: true, ..default }),
        ("-pvx +pvx", default),
        // bash lets nobody out.
        ("-r +r x", Set { restricted: true, ..default }),
        ("--restricted --verbose x", Set { restricted: true, verbose: true, ..default }),
        ("-o xtrace x", Set { xtrace: true, ..default }),
        ("-o privileged x", Set { privileged: true, ..default }),
        ("--rcfile --posix x", default),
    ] {
        assert_eq!(parsed(given).set, expected, "{given}");
    }
    for (given, expected) in
        [("x", true), ("-c x", true), ("", true), ("-i", false), ("-n x", false), ("--help", false)]
    {
        assert_eq!(parsed(given).runs_a_job(), expected, "{given}");
    }
}

#[test]
fn the_environment_counts_too() {
    let with = |variables: &[(&str, &str)]| {
        Set::default().with_environment(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        })
    };
    assert_eq!(with(&[]), Set::default());
    assert_eq!(
        with(&[("SHELLOPTS", "braceexpand:xtrace:verbose")]),
        Set { xtrace: true, verbose: true, ..Set::default() }
    );
    for posix in [("SHELLOPTS", "posix"), ("POSIXLY_CORRECT", ""), ("POSIX_PEDANTIC", "1")] {
        assert_eq!(with(&[posix]), Set { posix: true, ..Set::default() }, "{posix:?}");
    }
}

proptest! {
    /// Whatever is typed: nothing is lost, nothing is reordered, and only the two words come in.
    #[test]
    fn only_two_words_come_in(given in proptest::collection::vec("(--?|\\+)?(login|rcfile|init-file|posix|[a-zA-Z]{0,4})", 0..8)) {
        let given: Vec<OsString> = given.into_iter().map(OsString::from).collect();
        let arguments = parse("bash".into(), &given, false).arguments;
        if arguments != given {
            let at = (0..arguments.len()).find(|&i| arguments[i..].starts_with(&["-eo".into(), "pipefail".into()])
                && [&arguments[..i], &arguments[i + 2..]].concat() == given);
            prop_assert!(at.is_some(), "{arguments:?}");
        }
    }
}
