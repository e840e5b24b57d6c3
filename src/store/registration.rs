//! What Nix has registered about store paths: the text that `nix-store --dump-db` prints.
//! It must never run anything; [`super::query`] does.

use std::fmt;

use super::{StoreDirectory, StorePath};

/// One valid store path as Nix registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The store path.
    pub path: StorePath,
    /// SHA-256 of its NAR, as 64 lower-case hexadecimal digits.
    pub nar_hash: String,
    /// Size of its NAR in bytes.
    pub nar_size: u64,
    /// The derivation that it was built from, where Nix knows it.
    pub deriver: Option<StorePath>,
    /// Its direct references, itself included where it refers to itself.
    pub references: Vec<StorePath>,
}

/// Where and why the text is not what `nix-store --dump-db` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDump {
    line: usize,
    reason: String,
}

impl fmt::Display for BadDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the registration: {}", self.line, self.reason)
    }
}

impl std::error::Error for BadDump {}

/// Reads the output of `nix-store --dump-db PATH…`: for each path its own line, then NAR hash (base 16,
/// in some versions after `sha256:`), NAR size, deriver (may be empty), number of references, and a line
/// for each of them. The format has not changed since Nix 2.0 (`makeValidityRegistration` in libstore).
pub fn parse_dump(text: &str, store: &StoreDirectory) -> Result<Vec<Registration>, BadDump> {
    let mut lines = Lines { lines: text.lines(), read: 0 };
    let mut registrations = Vec::new();
    while let Some(line) = lines.lines.next() {
        lines.read += 1;
        let path = store.parse(line).map_err(|error| lines.bad(error.to_string()))?;
        let hash = lines.next("the NAR hash")?;
        let nar_hash = hash.strip_prefix("sha256:").unwrap_or(hash).to_owned();
        if nar_hash.len() != 64 || !nar_hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(lines.bad(format!("`{hash}` is no SHA-256 in base 16")));
        }
        let nar_size = lines.number("the NAR size")?;
        // It need not exist, and older versions of Nix wrote other things for an unknown one.
        let deriver = store.parse(lines.next("the deriver")?).ok();
        let count = lines.number("the number of references")?;
        let mut references = Vec::new();
        for _ in 0..count {
            let reference = lines.next("a reference")?;
            references.push(store.parse(reference).map_err(|error| lines.bad(error.to_string()))?);
        }
        registrations.push(Registration { path, nar_hash, nar_size, deriver, references });
    }
    Ok(registrations)
}

/// Lines with the number of the one read last, from 1.
struct Lines<'a> {
    lines: std::str::Lines<'a>,
    read: usize,
}

impl<'a> Lines<'a> {
    fn bad(&self, reason: String) -> BadDump {
        BadDump { line: self.read, reason }
    }

    fn next(&mut self, what: &str) -> Result<&'a str, BadDump> {
        self.read += 1;
        self.lines.next().ok_or_else(|| self.bad(format!("it ends where {what} should stand")))
    }

    fn number(&mut self, what: &str) -> Result<u64, BadDump> {
        let line = self.next(what)?;
        line.parse().map_err(|_| self.bad(format!("`{line}` is not {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    const HASH: &str = "7b9f4f7ccbbd5d8c2e9b1b2a9d1c9f0e7b9f4f7ccbbd5d8c2e9b1b2a9d1c9f0e";
    const HELLO: &str = "0c5b8vw40dy178xlpddw65q9gf1h2186-hello";
    const GLIBC: &str = "1c5b8vw40dy178xlpddw65q9gf1h2186-glibc";

    fn store() -> StoreDirectory {
        StoreDirectory::new(Path::new("/nix/store")).unwrap()
    }

    #[test]
    fn a_dump_is_read() {
        let text = format!(
            "/nix/store/{HELLO}\n{HASH}\n1234\n/nix/store/{HELLO}.drv\n2\n/nix/store/{GLIBC}\n/nix/store/{HELLO}\n\
             /nix/store/{GLIBC}\nsha256:{HASH}\n5\n\n0\n/nix/store/{GLIBC}\n{HASH}\n5\nunknown-deriver\n0\n"
        );
        let read = parse_dump(&text, &store()).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read[0].path.base_name(), HELLO);
        assert_eq!(read[0].nar_size, 1234);
        let derivers: Vec<_> = read.iter().map(|read| read.deriver.as_ref().map(StorePath::name)).collect();
        assert_eq!(derivers, [Some("hello.drv"), None, None]);
        assert_eq!(read[0].references.iter().map(StorePath::base_name).collect::<Vec<_>>(), [GLIBC, HELLO]);
        assert_eq!(read[1].nar_hash, HASH);
        assert_eq!(read[1].references, []);
        assert_eq!(parse_dump("", &store()), Ok(vec![]));
    }

    #[test]
    fn what_is_no_dump_is_refused_with_the_line() {
        for (text, message) in [
            ("rubbish\n".to_owned(), "line 1 of the registration: `rubbish` is no store path"),
            (format!("/nix/store/{HELLO}\n"), "line 2 of the registration: it ends where the NAR hash"),
            (format!("/nix/store/{HELLO}\nabc\n"), "line 2 of the registration: `abc` is no SHA-256"),
            (format!("/nix/store/{HELLO}\n{HASH}\n-1\n"), "line 3 of the registration: `-1` is not the NAR size"),
            (format!("/nix/store/{HELLO}\n{HASH}\n1\n"), "line 4 of the registration: it ends where the deriver"),
            (format!("/nix/store/{HELLO}\n{HASH}\n1\n\n9999999999\n"), "line 6 of the registration: it ends where a"),
            (format!("/nix/store/{HELLO}\n{HASH}\n1\n\n1\n/tmp\n"), "line 6 of the registration: `/tmp` is no store"),
        ] {
            let error = parse_dump(&text, &store()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186-a\n|[0-9a-f]{64}\n|[0-9]{0,20}\n|\n|.*)*") {
            let _ = parse_dump(&text, &store());
        }
    }
}
