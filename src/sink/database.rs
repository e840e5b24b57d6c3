//! A Nix database of an image: exactly its store paths are registered, at a constant time.
//! It must never touch the database of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use fs_err as fs;

use crate::file;
use crate::interrupt::Interrupt;
use crate::program;
use crate::store::{Registration, StoreDirectory};

/// Where Nix looks for it, relative to the root.
pub const PLACE: &str = "nix/var/nix/db";
/// Files of a database that belong into an image: Nix makes `reserved`, `big-lock` and those of the write-ahead log
/// anew.
pub const FILES: [&str; 2] = ["db.sqlite", "schema"];
/// Registration times say when something came into a store: in an image that is no time at all (NixOS/nixpkgs#289813).
/// With the log merged into it and all free pages gone, equal content is equal bytes.
const NORMALISE: &str = "PRAGMA wal_checkpoint(TRUNCATE);
UPDATE ValidPaths SET registrationTime = 1;
PRAGMA journal_mode = DELETE;
VACUUM;
SELECT count(*) FROM ValidPaths;";

/// The programs that make a database.
#[derive(Debug)]
pub struct Programs {
    nix_store: PathBuf,
    sqlite3: PathBuf,
}

impl Programs {
    /// Finds them in `PATH`.
    pub fn find() -> anyhow::Result<Self> {
        let nix_store =
            program::find("nix-store", "run this where Nix is installed, such as the build stage of a Dockerfile")?;
        let sqlite3 = program::find("sqlite3", "`--nix-database` needs it: install sqlite, or leave the database out")?;
        Ok(Self { nix_store, sqlite3 })
    }

    /// Makes a database of `registrations` in the root `scratch`, which is empty, and returns the folder of its files.
    pub fn make(
        &self,
        scratch: &Path,
        registrations: &[Registration],
        store: &StoreDirectory,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PathBuf> {
        let input = scratch.join("registration");
        file::write(&input, registration_text(registrations, store))?;
        let mut load = Command::new(&self.nix_store);
        let url = local_store(scratch);
        // A setting `store` in `nix.conf` would go over the variable.
        load.args(["--option", "store", &url, "--option", "build-users-group", "", "--load-db"])
            .env("NIX_REMOTE", &url)
            .env("NIX_STORE_DIR", store.as_path())
            .env_remove("NIX_STATE_DIR")
            .stdin(fs::File::open(&input)?.into_parts().0);
        program::output(&mut load, "nix-store --load-db", interrupt)
            .context("cannot make a Nix database for the image")?;
        let folder = scratch.join(PLACE);
        let mut normalise = Command::new(&self.sqlite3);
        normalise.args(["-batch", "-bail", "-init", "/dev/null"]).arg(folder.join(FILES[0])).arg(NORMALISE);
        let said = program::output(normalise.stdin(std::process::Stdio::null()), "sqlite3", interrupt)
            .context("cannot make the Nix database of the image reproducible")?;
        let count = said.lines().last().unwrap_or_default();
        ensure!(
            count == registrations.len().to_string(),
            "the Nix database of the image has {count} store paths, not {}",
            registrations.len()
        );
        Ok(folder)
    }
}

/// A local store with another root, as a store URL of Nix.
fn local_store(root: &Path) -> String {
    let mut url = "local?root=".to_owned();
    for &byte in root.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

/// What `nix-store --load-db` reads: the form of `--dump-db`, in a fixed order, and without derivers, which an
/// image does not have.
fn registration_text(registrations: &[Registration], store: &StoreDirectory) -> String {
    let mut sorted: Vec<_> = registrations.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut text = String::new();
    for Registration { path, nar_hash, nar_size, references, .. } in sorted {
        let mut references: Vec<_> = references.iter().collect();
        references.sort();
        let whole = |path| format!("{}\n", store.join(path).display());
        text.push_str(&whole(path));
        text.push_str(&format!("{nar_hash}\n{nar_size}\n\n{}\n", references.len()));
        text.extend(references.into_iter().map(whole));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::registration;

    #[test]
    fn the_registration_is_read_as_it_was_written() {
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let path = |name: &str| store.parse(&format!("/nix/store/{name:0>32}-x")).unwrap();
        let registration = |name: &str, references: &[&str]| Registration {
            path: path(name),
            nar_hash: "0".repeat(64),
            nar_size: 7,
            deriver: None,
            references: references.iter().map(|name| path(name)).collect(),
        };
        let (one, two) = (registration("1", &["1"]), registration("2", &["2", "1"]));
        let text = registration_text(&[two.clone(), one.clone()], &store);
        let sorted = registration("2", &["1", "2"]);
        assert_eq!(registration::parse_dump(&text, &store).unwrap(), [one, sorted]);
        assert!(!text.contains("drv"));
    }

    #[test]
    fn names_of_any_bytes_stand_in_a_url() {
        assert_eq!(local_store(Path::new("/a b/%?&c.-_")), "local?root=/a%20b/%25%3F%26c.-_");
    }
}
