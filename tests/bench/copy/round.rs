//! Runs the ways on a stage, one after the other, and takes their times.
//! It must never delete anything within a round: ext4 is slow for minutes after that.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::closure::{self, Closure, STORE};
use crate::command::{Commands, command, last_words};
use crate::results::{Facts, Run};
use crate::ways::{Task, Way, quoted};

/// What all runs have in common.
pub(crate) struct Bench<'a> {
    pub(crate) commands: &'a Commands,
    pub(crate) nixkit: PathBuf,
    pub(crate) limit: PathBuf,
    /// For small files, not on the file system under test.
    pub(crate) scratch: PathBuf,
    pub(crate) cores: usize,
}

/// The lists of a closure, ready-made for those ways that need them.
pub(crate) struct Lists {
    paths: PathBuf,
    names: PathBuf,
    files: PathBuf,
}

/// Which run of which way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) round: usize,
    pub(crate) group: usize,
    pub(crate) way: Way,
    /// Counts on within a round.
    pub(crate) number: usize,
    /// Whether every entry of the copy is counted.
    pub(crate) check: bool,
}

impl Bench<'_> {
    pub(crate) fn lists(&self, closure: &Closure) -> anyhow::Result<Lists> {
        let lines = |paths: &mut dyn Iterator<Item = &Path>, end: &[u8]| {
            let mut text = Vec::new();
            for path in paths {
                text.extend_from_slice(path.as_os_str().as_encoded_bytes());
                text.extend_from_slice(end);
            }
            text
        };
        let [paths, names, files] = ["paths", "names", "files"].map(|name| self.scratch.join(name));
        let base_name = |path: &PathBuf| path.file_name().map(PathBuf::from);
        let base_names: Vec<PathBuf> = closure.paths.iter().filter_map(base_name).collect();
        fs_err::write(&paths, lines(&mut closure.paths.iter().map(PathBuf::as_path), b"\n"))?;
        fs_err::write(&names, lines(&mut base_names.iter().map(PathBuf::as_path), b"\n"))?;
        fs_err::write(&files, lines(&mut closure.files.iter().map(PathBuf::as_path), b"\0"))?;
        Ok(Lists { paths, names, files })
    }

    /// Runs a way once, on the store that is on `/nix` now, into a new directory.
    pub(crate) fn run(&self, closure: &Closure, lists: &Lists, turn: Turn) -> anyhow::Result<Run> {
        let Turn { round, group, way, number, check } = turn;
        let destination = PathBuf::from(format!("/nix/out/{number}"));
        if !way.makes_its_store() {
            fs_err::create_dir_all(destination.join("nix/store"))?;
        }
        let [script, errors, memory, json, receipt] =
            ["script", "errors", "memory", "json", "receipt"].map(|name| self.scratch.join(name));
        let task = Task {
            profile: &closure.top,
            paths: &lists.paths,
            names: &lists.names,
            files: &lists.files,
            destination: &destination,
            receipt: &receipt,
            nixkit: &self.nixkit,
            limit: &self.limit,
            cores: self.cores,
        };
        fs_err::write(&script, format!("exec 2>{}\n{}\n", quoted(&errors), way.script(&task)))?;
        // What earlier runs wrote must neither be written during this one nor have pushed the store out of memory.
        nix::unistd::sync();
        closure::read(&closure.files, self.cores)?;
        let timed = format!("/usr/bin/time -f %M -o {} sh -f {}", quoted(&memory), quoted(&script));
        let mut hyperfine = command("hyperfine", ["-N", "--runs", "1", "--style", "none", "--export-json"]);
        let output = self.commands.output(hyperfine.arg(&json).arg(timed))?;
        if !output.status.success() {
            let said = fs_err::read(&errors).unwrap_or_default();
            bail!("`{}` failed: {} {}", way.label(), last_words(&said), last_words(&output.stderr));
        }
        let measured: Value = serde_json::from_slice(&fs_err::read(&json)?)?;
        let number = |key: &str| {
            let value = measured.pointer(&format!("/results/0/{key}")).and_then(Value::as_f64);
            value.with_context(|| format!("hyperfine says nothing of `{key}`"))
        };
        let peak = fs_err::read_to_string(&memory)?;
        let peak_kib = peak.trim().parse().with_context(|| format!("`time` printed {peak:?}"))?;
        let run = Run {
            round,
            group,
            way,
            entries: closure.facts.entries(),
            seconds: number("mean")?,
            user: number("user")?,
            system: number("system")?,
            peak_kib,
        };
        if way != Way::Openssl {
            let said = || String::from_utf8_lossy(&fs_err::read(&errors).unwrap_or_default()).into_owned();
            let receipt = if way.is_ours() { Some(fs_err::read(&receipt)?) } else { None };
            check_copy(closure, &destination, check, receipt.as_deref()).with_context(|| {
                format!("`{}` did not copy the closure; it said: {}", way.label(), last_words(said().as_bytes()))
            })?;
        }
        Ok(run)
    }
}

/// Whether `destination` holds the closure: every store path and, `all` being set, as many entries. Our own
/// `receipt` must tell the same.
fn check_copy(closure: &Closure, destination: &Path, all: bool, receipt: Option<&[u8]>) -> anyhow::Result<()> {
    let moved = |path: &PathBuf| Some(destination.join(STORE.trim_start_matches('/')).join(path.file_name()?));
    let copies: Vec<PathBuf> = closure.paths.iter().filter_map(moved).collect();
    if let Some(missing) = copies.iter().find(|copy| fs_err::symlink_metadata(copy).is_err()) {
        bail!("`{}` is missing", missing.display());
    }
    let expected = &closure.facts;
    if let Some(receipt) = receipt {
        let receipt: Value = serde_json::from_slice(receipt).context("the receipt is no JSON")?;
        let number = |key: &str| receipt.get(key).and_then(Value::as_u64).unwrap_or(0);
        let told = [number("storePaths"), number("files"), number("symlinks"), number("directories")];
        let counted = [expected.paths, expected.files, expected.symlinks, expected.directories];
        ensure!(
            told == counted,
            "the receipt tells of {told:?} paths, files, symlinks and directories, not {counted:?}"
        );
    }
    if all {
        let (found, _) = closure::count(&copies)?;
        let numbers = |facts: &Facts| [facts.files, facts.symlinks, facts.directories];
        let (found, expected) = (numbers(&found), numbers(expected));
        ensure!(found == expected, "it holds {found:?} files, symlinks and directories, not {expected:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_lacks_something_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("nix/store/a");
        fs_err::create_dir_all(&copy).unwrap();
        fs_err::write(copy.join("file"), "text").unwrap();
        let facts = Facts { paths: 1, files: 1, directories: 1, ..Facts::default() };
        let closure = |names: &[&str], facts: Facts| Closure {
            top: "/nix/store/a".into(),
            paths: names.iter().map(|name| Path::new(STORE).join(name)).collect(),
            facts,
            registration: String::new(),
            files: Vec::new(),
        };
        let receipt = br#"{"storePaths": 1, "files": 1, "symlinks": 0, "directories": 1}"#;
        let all = closure(&["a"], facts.clone());
        check_copy(&all, folder.path(), true, Some(receipt)).unwrap();
        for (names, files, receipt, expected) in [
            (&["a", "b"][..], 1, None, "store/b` is missing"),
            (&["a"], 2, None, "it holds [1, 0, 1]"),
            (&["a"], 2, Some(&receipt[..]), "the receipt tells of [1, 1, 0, 1]"),
            (&["a"], 1, Some(&b"{}"[..]), "the receipt tells of [0, 0, 0, 0]"),
            (&["a"], 1, Some(&b"gone"[..]), "no JSON"),
        ] {
            let wrong = closure(names, Facts { files, ..facts.clone() });
            let error = check_copy(&wrong, folder.path(), true, receipt).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
