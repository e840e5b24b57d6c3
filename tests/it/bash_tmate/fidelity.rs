//! Some 200 scripts by `bash -eo pipefail` and by `bash-tmate`: stdout, stderr, status and files are the same.

use super::scripts::{NOTICE, SAME};
use super::{Place, Seen};

const STDIN: &str = "first line\nsecond\n\tthird without an end";

/// How a script is given.
#[derive(Clone, Copy, Debug)]
enum Form {
    File,
    String,
    Stdin,
}

const FORMS: [Form; 3] = [Form::File, Form::String, Form::Stdin];

/// Runs `script` by `shell`.
fn run(place: &Place, shell: &[&str], form: Form, script: &str) -> Seen {
    let (file, stdin) = (place.beside("script.sh"), place.beside("stdin"));
    std::fs::write(&file, script).unwrap();
    std::fs::write(&stdin, STDIN).unwrap();
    let (more, stdin): (&[&str], _) = match form {
        Form::File => (&["../script.sh", "a", "b c"], &stdin),
        Form::String => (&["-c", script, "name", "a", "b c"], &stdin),
        Form::Stdin => (&["-s", "a", "b c"], &file),
    };
    place.see(&[shell, more].concat(), Some(stdin))
}

/// Compares a part of the scripts, in every form: the parts are tests of their own, to run beside each other.
fn compare(scene: &str, scripts: &[&str]) {
    let reference = Place::new();
    let place = Place::new().with("BASH_TMATE_SCENE", scene);
    // Both see the same paths.
    let place = Place { folder: reference.folder, ..place };
    let reference = |form, script: &str| run(&place, &["bash", "-eo", "pipefail"], form, script);
    let mut different = Vec::new();
    for script in scripts {
        for form in FORMS {
            let (expected, found) = (reference(form, script), run(&place, &["bash-tmate"], form, script));
            if found != expected {
                different.push(format!("{form:?}: {script}\nbash: {expected:#?}\nbash-tmate: {found:#?}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

fn halves() -> (&'static [&'static str], &'static [&'static str]) {
    assert!(SAME.len() + NOTICE.len() >= 200, "{} scripts", SAME.len() + NOTICE.len());
    SAME.split_at(SAME.len() / 2)
}

#[test]
fn without_the_scene_nothing_differs_1() {
    compare("0", halves().0);
}

#[test]
fn without_the_scene_nothing_differs_2() {
    compare("0", halves().1);
    compare("0", NOTICE);
}

#[test]
fn with_the_scene_nothing_differs_but_what_is_listed_1() {
    compare("1", halves().0);
}

#[test]
fn with_the_scene_nothing_differs_but_what_is_listed_2() {
    compare("1", halves().1);
}
