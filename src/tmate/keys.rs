//! Whether a list of public keys lets in exactly those whom it names.
//! It must never take a line that tmate would silently ignore.

use std::fmt;

/// The kinds of keys that tmate's server knows.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Why a list is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No line holds a key.
    Empty,
    /// A line is not what tmate takes.
    Line {
        /// Its number, from one.
        number: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it holds no key, so nobody could get in"),
            Self::Line { number, why } => write!(f, "line {number} {why}, so tmate would ignore it"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The keys of `text`, one a line, as tmate takes them: `KIND BASE64 [COMMENT]`. Blank lines and comments are
/// left out.
pub fn check(text: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    let mut keys = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        check_line(line).map_err(|why| Refusal::Line { number: index + 1, why })?;
        keys.push(line);
    }
    if keys.is_empty() { Err(Refusal::Empty) } else { Ok(keys) }
}

fn check_line(line: &[u8]) -> Result<(), &'static str> {
    if line.contains(&0) {
        return Err("holds a NUL byte");
    }
    if line.ends_with(b"\\") {
        return Err("ends in a backslash, which joins the next one to it");
    }
    if line[0].is_ascii_whitespace() {
        return Err("begins with a blank");
    }
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let kind = words.next().unwrap_or_default();
    if !KINDS.iter().any(|known| known.as_bytes() == kind) {
        let holds_key = KINDS.iter().any(|known| {
            let known = known.as_bytes();
            line.windows(known.len()).any(|window| window == known)
        });
        return Err(if kind.starts_with(b"-----") {
            "is of a private key or a certificate"
        } else if holds_key && !kind.ends_with(b"-cert-v01@openssh.com") {
            "has options before the key"
        } else {
            "does not begin with a kind of key that tmate knows"
        });
    }
    let encoded = words.next().unwrap_or_default();
    let decoded = decode(encoded).ok_or("holds no base64 after the kind of key and one space")?;
    // RFC 4253, 6.6: a string with the kind comes first, its length in four bytes.
    let (length, rest) = decoded.split_first_chunk().ok_or("holds a key that is cut off")?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    match rest.get(..length) {
        Some(named) if named != kind => Err("names another kind than its key is of"),
        Some(_) if rest.len() > length => Ok(()),
        _ => Err("holds a key that is cut off"),
    }
}

/// Base64 with its padding (RFC 4648).
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqRdFjqSKuTmpDTE3l1N1jJj7LAI7Wl4VIlXEnrXBgI";

    fn refused(text: &str) -> Option<String> {
        check(text.as_bytes()).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn good_lists_are_taken() {
        for text in [
            KEY.to_owned(),
            format!("{KEY}\n"),
            format!("{KEY} a comment with words\r\n"),
            format!("# mine\n\n   \n{KEY}\n\t\n"),
        ] {
            assert_eq!(check(text.as_bytes()).unwrap().len(), 1, "{text}");
        }
        assert_eq!(check(format!("{KEY}\n{KEY} x").as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn what_tmate_would_ignore_is_refused() {
        for (text, expected) in [
            (String::new(), "it holds no key, so nobody could get in"),
            ("# nothing\n\n".into(), "it holds no key, so nobody could get in"),
            (format!("{KEY}\n {KEY}"), "line 2 begins with a blank, so tmate would ignore it"),
            (format!("no-pty {KEY}"), "line 1 has options before the key, so tmate would ignore it"),
            (
                format!("{KEY}\nNot Found"),
                "line 2 does not begin with a kind of key that tmate knows, so tmate would ignore it",
            ),
            (
                KEY.replace("ssh-ed25519", "ssh-rsa"),
                "line 1 names another kind than its key is of, so tmate would ignore it",
            ),
            (
                KEY.replace(' ', "  "),
                "line 1 holds no base64 after the kind of key and one space, so tmate would ignore it",
            ),
            (KEY.replace(' ', "\t"), "line 1 has options before the key, so tmate would ignore it"),
            (
                "ssh-ed25519".into(),
                "line 1 holds no base64 after the kind of key and one space, so tmate would ignore it",
            ),
            ("ssh-ed25519 AAAA".into(), "line 1 holds a key that is cut off, so tmate would ignore it"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".into(), "line 1 holds a key that is cut off, so tmate would ignore it"),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
                "line 1 is of a private key or a certificate, so tmate would ignore it",
            ),
            (
                format!("{KEY} me\\\n{KEY}"),
                "line 1 ends in a backslash, which joins the next one to it, so tmate would ignore it",
            ),
            (format!("{KEY}\0"), "line 1 holds a NUL byte, so tmate would ignore it"),
        ] {
            assert_eq!(refused(&text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn keys_of_ssh_keygen_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for arguments in [&["-t", "ed25519"][..], &["-t", "rsa", "-b", "2048"], &["-t", "ecdsa", "-b", "384"]] {
            let path = folder.path().join(arguments[1]);
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-C", "me"])
                .args(arguments)
                .arg("-f")
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            assert_eq!(refused(&std::fs::read_to_string(path.with_extension("pub")).unwrap()), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut text in proptest::collection::vec(any::<u8>(), 0..300), at in 0..80_usize, byte: u8) {
            let _ = check(&text);
            text = KEY.as_bytes().to_vec();
            let end = text.len();
            text[at % end] = byte;
            // A key that is taken begins with its kind, wherever it was damaged.
            if let Ok(keys) = check(&text) {
                prop_assert!(keys.iter().all(|key| KINDS.iter().any(|kind| key.starts_with(kind.as_bytes()))));
            }
        }
    }
}
