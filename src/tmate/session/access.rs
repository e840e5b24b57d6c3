//! Reads the keys of those who get in, wherever they come from.
//! It must never take fewer keys than were given, nor wait for them beyond a signal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::fcntl::OFlag;

use super::process::read_until;
use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::tmate::keys;
use crate::tmate::options::{KeyFile, Keys};

/// How long a pipe may take to bring its keys.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of all keys, for a file; nothing where none were given.
pub(super) fn read(keys: &Keys, interrupt: &Interrupt) -> anyhow::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    match keys {
        Keys::Unset => return Ok(None),
        Keys::Lines(lines) => {
            check(lines, &mut all).context("cannot use the keys in BASH_TMATE_AUTHORIZED_KEYS").map_err(explained)?;
        }
        Keys::Files(files) => {
            for file in files {
                let (name, text) = match file {
                    KeyFile::Stdin => ("standard input".to_owned(), read_all(std::io::stdin(), interrupt)),
                    KeyFile::Path(path) => (format!("`{}`", shown(path)), read_file(path, interrupt)),
                };
                let text = text.with_context(|| format!("cannot read the keys in {name}"))?;
                check(&text, &mut all).with_context(|| format!("cannot use the keys in {name}")).map_err(explained)?;
            }
        }
    }
    Ok(Some(all))
}

/// Checks the file of keys that the user's own conf names.
pub(super) fn check_file(path: &str, interrupt: &Interrupt) -> anyhow::Result<()> {
    // As tmate has it.
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let file = match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    let text = read_file(&file, interrupt).with_context(|| format!("cannot read the keys in `{path}`"))?;
    check(&text, &mut Vec::new()).with_context(|| format!("cannot use the keys in `{path}`")).map_err(explained)
}

fn explained(error: anyhow::Error) -> anyhow::Error {
    hinted(error, "each line is `KIND BASE64 [COMMENT]`, as in `~/.ssh/id_ed25519.pub`, without options before it")
}

fn check(text: &[u8], all: &mut Vec<u8>) -> anyhow::Result<()> {
    for line in keys::check(text)? {
        all.extend(line);
        all.push(b'\n');
    }
    Ok(())
}

fn read_file(path: &Path, interrupt: &Interrupt) -> anyhow::Result<Vec<u8>> {
    // A FIFO that nobody writes to must not hold us.
    let file = fs_err::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_dir() {
        return Err(anyhow!("it is a directory"));
    }
    read_all(file.into_parts().0, interrupt)
}

fn read_all(source: impl std::io::Read + std::os::fd::AsFd, interrupt: &Interrupt) -> anyhow::Result<Vec<u8>> {
    let text = read_until(source, Instant::now() + PATIENCE, interrupt);
    interrupt.check()?;
    text.context("it gave no end in time, or too much")
}
