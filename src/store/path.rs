//! Store paths: `<store directory>/<hash part>-<name>`.
//! It must never touch the disk.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The characters of Nix's base 32, in which the hash part is written (Nix manual, "Store path").
const BASE32: &str = "0123456789abcdfghijklmnpqrsvwxyz";
/// The hash part is 160 bits in base 32.
const HASH_PART: usize = 32;
/// Nix refuses longer names (`checkName` in libstore).
const LONGEST_NAME: usize = 211;

/// The store directory, absolute and without `.`, `..` or a trailing slash; usually `/nix/store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreDirectory {
    /// By which store paths are known.
    path: PathBuf,
    /// Where its files lie on this machine: elsewhere for a chroot store.
    real: PathBuf,
}

impl StoreDirectory {
    /// `None` unless `path` is absolute, is not the file system's root, and has no `..`.
    pub fn new(path: &Path) -> Option<Self> {
        let mut clean = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => clean.push(name),
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        (path.is_absolute() && clean.parent().is_some()).then(|| Self { real: clean.clone(), path: clean })
    }

    /// The same store directory, whose files lie in `real` on this machine.
    #[must_use]
    pub fn lying_in(self, real: PathBuf) -> Self {
        Self { real, ..self }
    }

    /// The directory as store paths name it.
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// Where its files lie on this machine.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// Where the file `path`, which is below the store directory, lies on this machine. `None` for other paths.
    pub fn real_file(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.strip_prefix(&self.path).ok().filter(|inside| !inside.as_os_str().is_empty())?;
        Some(self.real.join(inside))
    }

    /// Where the files of `path` lie on this machine.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real.join(path.base_name())
    }

    /// The directory relative to the root of a file system: `nix/store`.
    pub fn relative(&self) -> &Path {
        self.path.strip_prefix("/").unwrap_or(&self.path)
    }

    /// The whole path of `path`, as Nix names it.
    pub fn join(&self, path: &StorePath) -> PathBuf {
        self.path.join(path.base_name())
    }

    /// Reads a whole store path, such as a line of `nix-store`'s output.
    pub fn parse(&self, text: &str) -> Result<StorePath, NotAStorePath> {
        Path::new(text)
            .strip_prefix(&self.path)
            .ok()
            .and_then(Path::to_str)
            .ok_or_else(|| NotAStorePath { text: text.to_owned(), reason: "it does not lie in the store directory" })
            .and_then(|base| StorePath::parse(base).map_err(|error| NotAStorePath { text: text.to_owned(), ..error }))
    }
}

impl fmt::Display for StoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::failure::shown(&self.path))
    }
}

/// The last component of a store path: hash part, `-` and name. Always ASCII, without `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

/// A text that is no store path, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAStorePath {
    text: String,
    reason: &'static str,
}

impl fmt::Display for NotAStorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no store path: {}", crate::failure::shown(&self.text), self.reason)
    }
}

impl std::error::Error for NotAStorePath {}

impl StorePath {
    /// Reads `<hash part>-<name>` by the rules of Nix's `StorePath` constructor.
    pub fn parse(base_name: &str) -> Result<Self, NotAStorePath> {
        let fail = |reason| Err(NotAStorePath { text: base_name.to_owned(), reason });
        let Some((hash, name)) = base_name.split_once('-') else {
            return fail("it has no `-` after a hash part");
        };
        if hash.len() != HASH_PART || !hash.chars().all(|c| BASE32.contains(c)) {
            return fail("its hash part is not 32 characters of Nix's base 32");
        }
        if name.is_empty() || name.len() > LONGEST_NAME {
            return fail("its name is empty or longer than 211 characters");
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._?=".contains(c)) {
            return fail("its name has a character that Nix does not allow");
        }
        Ok(Self(base_name.to_owned()))
    }

    /// Hash part, `-` and name.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// What follows the hash part: `hello-2.10`.
    pub fn name(&self) -> &str {
        self.0.get(HASH_PART + 1..).unwrap_or_default()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: &str = "0c5b8vw40dy178xlpddw65q9gf1h2186-hello-2.10";

    #[test]
    fn store_paths_are_read_by_nixs_rules() {
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        assert_eq!(store.parse(&format!("/nix/store/{HELLO}")).unwrap().base_name(), HELLO);
        let long = format!("0c5b8vw40dy178xlpddw65q9gf1h2186-{}", "x".repeat(212));
        for (text, reason) in [
            (HELLO, "does not lie in the store"),
            ("/nix/store", "has no `-`"),
            ("/nix/storex/0c5b8vw40dy178xlpddw65q9gf1h2186-hello", "does not lie in the store"),
            ("/nix/store/hello-2.10", "hash part"),
            ("/nix/store/0c5b8vw40dy178xlpddw65q9gf1h218e-hello", "hash part"),
            ("/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186", "has no `-`"),
            ("/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186-", "name is empty"),
            (&format!("/nix/store/{long}"), "longer than 211"),
            ("/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186-hello/bin", "character"),
            ("/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186-h\u{e9}llo", "character"),
            ("", "does not lie in the store"),
        ] {
            let error = store.parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_name_follows_the_hash_part() {
        assert_eq!(StorePath::parse(HELLO).unwrap().name(), "hello-2.10");
    }

    #[test]
    fn a_store_directory_is_absolute_and_clean() {
        for (path, expected) in [
            ("/nix/store", Some("/nix/store")),
            ("/nix//./store/", Some("/nix/store")),
            ("/", None),
            ("nix/store", None),
            ("/nix/../store", None),
            ("", None),
        ] {
            let store = StoreDirectory::new(Path::new(path));
            assert_eq!(store.as_ref().map(StoreDirectory::as_path), expected.map(Path::new), "{path}");
        }
        assert_eq!(StoreDirectory::new(Path::new("/nix/store")).unwrap().relative(), Path::new("nix/store"));
    }

    const BASE_NAME: &str = "[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+_?=-][0-9a-zA-Z+._?=-]{0,210}";

    proptest! {
        #[test]
        fn a_well_formed_path_is_read_and_kept(base in BASE_NAME) {
            let path = StorePath::parse(&base).unwrap();
            prop_assert_eq!(path.base_name(), &base);
        }

        #[test]
        fn a_damaged_path_is_rejected(
            base in BASE_NAME,
            at in any::<prop::sample::Index>(),
            // Characters that neither the hash part nor the name may have.
            character in "[^0-9a-zA-Z+._?=-]",
        ) {
            let mut damaged = base;
            damaged.insert_str(at.index(damaged.len() + 1), &character);
            prop_assert!(StorePath::parse(&damaged).is_err(), "{:?}", damaged);
        }

        #[test]
        fn a_hash_part_of_other_letters_is_rejected(base in BASE_NAME, at in 0..32_usize, letter in "[eotuA-Z+._?=-]") {
            let mut damaged = base;
            damaged.replace_range(at..=at, &letter);
            prop_assert!(StorePath::parse(&damaged).is_err(), "{:?}", damaged);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = StorePath::parse(&text);
        }
    }
}
