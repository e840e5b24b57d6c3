//! Closures of very many entries: one store path each, generated on the file system where it is copied.
//! It must never be taken for a closure that Nix built: its NAR hash is made up, so nothing verifies it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

use crate::closure::{self, Closure, STORE};
use crate::command::Commands;

/// Half of them files of up to some 4 kB, half symlinks, as in a closure of Debian packages.
const ENTRIES_A_DIRECTORY: u64 = 200;

/// The store path with about `entries` entries.
pub(crate) fn store_path(entries: u64) -> PathBuf {
    PathBuf::from(format!("{STORE}/{entries:032}-many-entries"))
}

/// Writes that store path below `root`, on all cores.
pub(crate) fn generate(commands: &Commands, root: &Path, entries: u64, cores: usize) -> anyhow::Result<()> {
    let path = root.join(store_path(entries).strip_prefix("/").unwrap_or(Path::new("")));
    fs_err::create_dir_all(&path)?;
    let next = AtomicU64::new(0);
    let work = || -> anyhow::Result<()> {
        loop {
            let directory = next.fetch_add(1, Ordering::Relaxed);
            if directory * (ENTRIES_A_DIRECTORY + 1) >= entries {
                return Ok(());
            }
            commands.check()?;
            fill(&path.join(directory.to_string()))?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

fn fill(directory: &Path) -> io::Result<()> {
    let text = [b'x'; 4000];
    fs_err::create_dir(directory)?;
    for number in 0..ENTRIES_A_DIRECTORY / 2 {
        let size = usize::try_from(number * 40).map_or(0, |size| size + 40).min(text.len());
        fs_err::write(directory.join(format!("file-{number}")), &text[..size])?;
        symlink(format!("file-{number}"), directory.join(format!("link-{number}")))?;
    }
    Ok(())
}

/// What was generated, once its file system is on `/nix`.
pub(crate) fn examine(entries: u64) -> anyhow::Result<Closure> {
    let top = store_path(entries);
    let paths = vec![top.clone()];
    let (facts, files) = closure::count(&paths)?;
    let registration = registration(entries);
    Ok(Closure { top, paths, facts, registration, files })
}

/// A line each: path, NAR hash, NAR size, no deriver, no references.
pub(crate) fn registration(entries: u64) -> String {
    format!("{}\n{}\n{}\n\n0\n", store_path(entries).display(), "0".repeat(64), 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_about_as_many_entries() {
        let folder = tempfile::tempdir().unwrap();
        let commands = Commands::new().unwrap();
        generate(&commands, folder.path(), 1000, 2).unwrap();
        let path = folder.path().join(store_path(1000).strip_prefix("/").unwrap());
        let (facts, _) = closure::count(&[path]).unwrap();
        assert_eq!((facts.files, facts.symlinks, facts.directories), (500, 500, 6));
    }
}
