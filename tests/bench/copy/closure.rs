//! The closure that is copied: built once into a store of its own, then only read.
//! It must never touch the machine's own store, unless one of its paths is what is to be copied.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use anyhow::{Context, bail, ensure};

use crate::command::{Commands, command};
use crate::debian::{self, Wanted};
use crate::results::Facts;

pub(crate) const STORE: &str = "/nix/store";

/// What the benchmark's own closure holds.
pub(crate) struct Recipe {
    pub(crate) wanted: Wanted,
    pub(crate) small_files: u64,
}

/// A closure in `/nix/store`.
pub(crate) struct Closure {
    pub(crate) top: PathBuf,
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) facts: Facts,
    /// What `nix-store --load-db` takes.
    pub(crate) registration: String,
    /// All files, for those who read them.
    pub(crate) files: Vec<PathBuf>,
}

/// Puts a store of the benchmark's own on `/nix`, builds the closure there and returns its top.
pub(crate) fn build(commands: &Commands, recipe: &Recipe, output: &Path, repository: &Path) -> anyhow::Result<PathBuf> {
    let plan = debian::plan(&debian::installed(commands)?, &recipe.wanted)?;
    let plan_file = output.join("plan.json");
    crate::write(&plan_file, &serde_json::to_vec(&plan)?)?;
    let store = output.join("nix");
    fs_err::create_dir_all(&store)?;
    fs_err::create_dir_all("/nix")?;
    commands.run(command("mount", ["--bind"]).arg(&store).arg("/nix"))?;
    let mut build = command("nix-build", ["--no-out-link"]);
    build.arg(repository.join("tests/bench/closure/default.nix")).arg("--argstr").arg("plan").arg(&plan_file);
    build.args(["--arg", "smallFiles", &recipe.small_files.to_string()]);
    let built = commands.run(&mut build).context("cannot build the closure of the benchmark")?;
    let top = PathBuf::from(built.trim());
    ensure!(top.starts_with(STORE), "`nix-build` printed no store path but {built:?}");
    Ok(top)
}

/// The closure of `top`, which lies in the store that is on `/nix` now.
pub(crate) fn examine(commands: &Commands, top: &Path) -> anyhow::Result<Closure> {
    let listed = commands
        .run(command("nix-store", ["--query", "--requisites"]).arg(top))
        .with_context(|| format!("cannot find the closure of `{}`", top.display()))?;
    let paths: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    if let Some(strange) = paths.iter().find(|path| path.parent() != Some(Path::new(STORE))) {
        bail!("`{}` is no store path of {STORE}", strange.display());
    }
    let registration = commands.run(command("nix-store", ["--dump-db"]).args(&paths))?;
    let (facts, files) = count(&paths)?;
    Ok(Closure { top: top.to_owned(), paths, facts, registration, files })
}

/// What `paths` hold, and their files.
pub(crate) fn count(paths: &[PathBuf]) -> io::Result<(Facts, Vec<PathBuf>)> {
    let mut facts = Facts { paths: paths.len() as u64, ..Facts::default() };
    let mut files = Vec::new();
    // By device and inode: how many names were seen.
    let mut names: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut open = paths.to_vec();
    while let Some(path) = open.pop() {
        let status = fs_err::symlink_metadata(&path)?;
        if status.is_dir() {
            facts.directories += 1;
            facts.disk_bytes += 4096;
            for entry in fs_err::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if status.is_symlink() {
            facts.symlinks += 1;
        } else {
            facts.files += 1;
            let known = names.entry((status.dev(), status.ino())).or_default();
            *known += 1;
            if *known == 1 {
                facts.bytes += status.len();
                facts.disk_bytes += status.len().next_multiple_of(4096);
            }
            files.push(path);
        }
    }
    facts.hard_linked_names = names.values().filter(|count| **count > 1).sum();
    Ok((facts, files))
}

/// Reads all `files`, so that they are in the page cache.
pub(crate) fn read(files: &[PathBuf], cores: usize) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; 1 << 18];
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = read_file(path, &mut buffer) {
                if let Ok(mut failure) = failure.lock() {
                    *failure = Some(error);
                }
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    match failure.into_inner() {
        Ok(Some(error)) => Err(error).context("cannot read the closure into the page cache"),
        _ => Ok(()),
    }
}

fn read_file(path: &Path, buffer: &mut [u8]) -> io::Result<()> {
    let mut file = fs_err::File::open(path)?;
    while io::Read::read(&mut file, buffer)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs_err::create_dir_all(path.join("b")).unwrap();
        fs_err::write(path.join("file"), [7; 5000]).unwrap();
        fs_err::hard_link(path.join("file"), path.join("b/again")).unwrap();
        fs_err::write(path.join("empty"), []).unwrap();
        std::os::unix::fs::symlink("nowhere", path.join("link")).unwrap();
        let (facts, files) = count(&[path]).unwrap();
        let expected = Facts {
            paths: 1,
            files: 3,
            symlinks: 1,
            directories: 2,
            hard_linked_names: 2,
            bytes: 5000,
            disk_bytes: 2 * 4096 + 8192,
        };
        assert_eq!(facts, expected);
        assert_eq!(facts.entries(), 6);
        read(&files, 2).unwrap();
        assert!(read(&[folder.path().join("missing")], 2).is_err());
    }
}
