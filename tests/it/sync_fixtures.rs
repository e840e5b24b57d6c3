//! `sync-dockerfile` on the cases of `tests/fixtures/sync`: each has what lies there before, the command,
//! and what must come of it, byte for byte: status, stdout, stderr, and the files that change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{folder, nixkit};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sync");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert!(cases.len() > 80, "only {} cases", cases.len());
    cases
}

/// All files below `folder`, by their relative names.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder).into_iter().filter(|_| folder.exists()) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(folder).unwrap().to_owned();
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Runs the words of a case's `command`, the first of which is the name of a link, in `folder`, with more behind them.
fn run(words: &str, more: &[&str], folder: &Path) -> Output {
    let mut words = words.split_whitespace();
    Command::new(nixkit())
        .arg0(words.next().unwrap())
        .args(words.chain(more.iter().copied()))
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap()
}

#[test]
fn each_case_comes_out_byte_for_byte() {
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(case.join(file)).unwrap_or_default();
        let place = folder();
        let mut expected = files(&case.join("before"));
        for (file, content) in &expected {
            fs::create_dir_all(place.path().join(file).parent().unwrap()).unwrap();
            fs::write(place.path().join(file), content).unwrap();
        }
        // The root of a repository, above which nothing is looked for.
        fs::create_dir(place.path().join(".git")).unwrap();
        let command = read("command");
        let output = run(&command, &[], place.path());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&output.stderr), read("stderr"), "{name}: stderr");
        assert_eq!(text(&output.stdout), read("stdout"), "{name}: stdout");
        assert_eq!(format!("{}\n", output.status.code().unwrap()), read("status"), "{name}: status");
        expected.extend(files(&case.join("after")));
        assert!(files(place.path()) == expected, "{name}: the files are not as they should be");

        if !output.status.success() || command.contains("--check") {
            continue;
        }
        // Running twice is running once, and then all is in step. (A conversion has nothing to convert then.)
        let again = run(&command, &[], place.path());
        assert_eq!(again.status.code(), Some(0), "{name}, again: {}", text(&again.stderr));
        assert!(files(place.path()) == expected, "{name}: the second run changes something");
        let check =
            run(&command, &["--check", "--quiet"][..if command.contains("quiet") { 1 } else { 2 }], place.path());
        if !command.contains("verbose") {
            assert_eq!(check.status.code(), Some(0), "{name}, checked: {}", text(&check.stderr));
        }
    }
}
