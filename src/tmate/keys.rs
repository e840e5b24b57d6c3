//! Whether a list of public keys lets in exactly those whom it names.
//! It must never take a line that tmate would silently ignore.

use std::fmt;

/// The kinds of keys that tmate's SSH library can verify.
const KINDS: [&str; 5] =
    ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
/// What other kinds begin with, and why no key of such a kind can be used.
const OTHER_KINDS: [(&str, &str); 3] = [
    ("sk-", "holds the key of a security token, which tmate's SSH library cannot verify"),
    ("ssh-dss", "holds a DSA key, which SSH servers no longer accept"),
    ("ssh-ed448", "holds an Ed448 key, which tmate's SSH library does not know"),
];
/// OpenSSH and libssh refuse shorter ones.
const SHORTEST_RSA: usize = 1024;

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
            Self::Line { number, why } => write!(f, "line {number} {why}"),
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
        return Err("ends in a backslash, with which tmate joins the next line to it");
    }
    if line[0].is_ascii_whitespace() {
        return Err("begins with a blank, so tmate would ignore it");
    }
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let kind = words.next().unwrap_or_default();
    let Some(known) = KINDS.into_iter().find(|known| known.as_bytes() == kind) else {
        return Err(why_not_a_kind(line, kind));
    };
    let encoded = words.next().unwrap_or_default();
    let blob = decode(encoded).ok_or("holds no base64 after the kind of key and one space")?;
    check_blob(known, &blob)
}

/// Why `line`, whose first word is `kind`, does not begin with one of [`KINDS`].
fn why_not_a_kind(line: &[u8], kind: &[u8]) -> &'static str {
    if kind.starts_with(b"-----") {
        return "is part of a private key or a certificate";
    }
    if kind.ends_with(b"-cert-v01@openssh.com") {
        return "holds a certificate, which tmate does not know";
    }
    if let Some((_, why)) = OTHER_KINDS.iter().find(|(start, _)| kind.starts_with(start.as_bytes())) {
        return why;
    }
    let contains = |text: &str| line.windows(text.len()).any(|window| window == text.as_bytes());
    if KINDS.into_iter().chain(OTHER_KINDS.map(|(start, _)| start)).any(contains) {
        "has options before the key, so tmate would ignore it"
    } else {
        "does not begin with a kind of key that tmate knows"
    }
}

/// Checks that `blob` is a whole key of `kind` and nothing more: RFC 4253, section 6.6 (RSA), RFC 5656, section 3.1
/// (ECDSA) and RFC 8709, section 4 (Ed25519).
fn check_blob(kind: &str, blob: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "holds a key that is cut off";
    const DAMAGED: &str = "holds a damaged key";
    let mut rest = blob;
    let mut next = || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (string, after) = after.split_at_checked(length)?;
        rest = after;
        Some(string)
    };
    if next().ok_or(CUT)? != kind.as_bytes() {
        return Err("names another kind of key than it holds");
    }
    match kind {
        "ssh-ed25519" => {
            if next().ok_or(CUT)?.len() != 32 {
                return Err(DAMAGED);
            }
        }
        "ssh-rsa" => {
            let (exponent, modulus) = (next().ok_or(CUT)?, next().ok_or(CUT)?);
            // Both are positive: the highest bit of the first byte is not set, and no byte more than needed is there.
            let is_positive = |number: &[u8]| {
                number
                    .first()
                    .is_some_and(|&byte| byte < 0x80 && (byte > 0 || number.get(1).is_some_and(|&n| n >= 0x80)))
            };
            if !is_positive(exponent) || !is_positive(modulus) {
                return Err(DAMAGED);
            }
            if bits(modulus) < SHORTEST_RSA {
                return Err("holds an RSA key of fewer than 1024 bits, which SSH libraries refuse");
            }
        }
        _ => {
            let curve = kind.rsplit('-').next().unwrap_or_default();
            let (named, point) = (next().ok_or(CUT)?, next().ok_or(CUT)?);
            let size = match curve {
                "nistp256" => 32,
                "nistp384" => 48,
                _ => 66,
            };
            // Uncompressed (SEC 1, section 2.3.3): a 4 and both coordinates.
            if named != curve.as_bytes() || point.len() != 2 * size + 1 || point[0] != 4 {
                return Err(DAMAGED);
            }
        }
    }
    if rest.is_empty() { Ok(()) } else { Err("holds more than a key") }
}

/// How many bits a big-endian number has.
fn bits(number: &[u8]) -> usize {
    let first = number.iter().position(|&byte| byte > 0).unwrap_or(number.len());
    let digits = &number[first..];
    digits.first().map_or(0, |byte| digits.len() * 8 - byte.leading_zeros() as usize)
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

    /// A key of `kind` with these strings in it.
    fn line(kind: &str, strings: &[&[u8]]) -> String {
        let mut blob = Vec::new();
        for string in [kind.as_bytes()].iter().chain(strings) {
            blob.extend(u32::try_from(string.len()).unwrap().to_be_bytes());
            blob.extend_from_slice(string);
        }
        format!("{kind} {}", encode(&blob))
    }

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut three = [0; 3];
            three[..group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { digit.into() } else { '=' });
            }
        }
        text
    }

    #[test]
    fn what_tmate_could_not_use_is_refused() {
        let blob = decode(KEY.split(' ').nth(1).unwrap().as_bytes()).unwrap();
        let cut = |length: usize| format!("ssh-ed25519 {}", encode(&blob[..length]));
        let (modulus, short) = ([&[0][..], &[0xff; 128]].concat(), [&[0][..], &[0xff; 96]].concat());
        let point = [&[4][..], &[1; 64]].concat();
        for (text, expected) in [
            (String::new(), "it holds no key, so nobody could get in"),
            ("# nothing\n\n".into(), "it holds no key, so nobody could get in"),
            (format!("{KEY}\n {KEY}"), "line 2 begins with a blank, so tmate would ignore it"),
            (format!("no-pty {KEY}"), "line 1 has options before the key, so tmate would ignore it"),
            (format!("{KEY}\nNot Found"), "line 2 does not begin with a kind of key that tmate knows"),
            (KEY.replace("ssh-ed25519", "ssh-rsa"), "line 1 names another kind of key than it holds"),
            (KEY.replace(' ', "  "), "line 1 holds no base64 after the kind of key and one space"),
            (KEY.replace(' ', "\t"), "line 1 has options before the key, so tmate would ignore it"),
            ("ssh-ed25519".into(), "line 1 holds no base64 after the kind of key and one space"),
            ("ssh-ed25519 AAAA".into(), "line 1 holds a key that is cut off"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".into(), "line 1 holds a key that is cut off"),
            (cut(blob.len() - 1), "line 1 holds a key that is cut off"),
            (cut(blob.len() - 32), "line 1 holds a key that is cut off"),
            (format!("{KEY}\n{}\n", cut(48)), "line 2 holds a key that is cut off"),
            (line("ssh-ed25519", &[&[7; 31]]), "line 1 holds a damaged key"),
            (line("ssh-ed25519", &[&[7; 32], b""]), "line 1 holds more than a key"),
            (line("ssh-rsa", &[&[1, 0, 1]]), "line 1 holds a key that is cut off"),
            (line("ssh-rsa", &[&[1, 0, 1], &modulus[1..]]), "line 1 holds a damaged key"),
            (line("ssh-rsa", &[b"", &modulus]), "line 1 holds a damaged key"),
            (
                line("ssh-rsa", &[&[1, 0, 1], &short]),
                "line 1 holds an RSA key of fewer than 1024 bits, which SSH libraries refuse",
            ),
            (line("ecdsa-sha2-nistp256", &[b"nistp256"]), "line 1 holds a key that is cut off"),
            (line("ecdsa-sha2-nistp256", &[b"nistp384", &point]), "line 1 holds a damaged key"),
            (line("ecdsa-sha2-nistp384", &[b"nistp384", &point]), "line 1 holds a damaged key"),
            (line("ecdsa-sha2-nistp256", &[b"nistp256", &point[..64]]), "line 1 holds a damaged key"),
            (
                format!("{KEY}\nsk-ssh-ed25519@openssh.com AAAA me"),
                "line 2 holds the key of a security token, which tmate's SSH library cannot verify",
            ),
            (
                "sk-ecdsa-sha2-nistp256@openssh.com AAAA me".into(),
                "line 1 holds the key of a security token, which tmate's SSH library cannot verify",
            ),
            (
                "no-pty sk-ssh-ed25519@openssh.com AAAA".into(),
                "line 1 has options before the key, so tmate would ignore it",
            ),
            ("ssh-dss AAAA me".into(), "line 1 holds a DSA key, which SSH servers no longer accept"),
            ("ssh-ed25519-cert-v01@openssh.com AAAA".into(), "line 1 holds a certificate, which tmate does not know"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".into(), "line 1 is part of a private key or a certificate"),
            (format!("{KEY} me\\\n{KEY}"), "line 1 ends in a backslash, with which tmate joins the next line to it"),
            (format!("{KEY}\0"), "line 1 holds a NUL byte"),
        ] {
            assert_eq!(refused(&text).as_deref(), Some(expected), "{text}");
        }
        for whole in [
            line("ssh-rsa", &[&[1, 0, 1], &modulus]),
            line("ecdsa-sha2-nistp256", &[b"nistp256", &point]),
            cut(blob.len()),
        ] {
            assert_eq!(refused(&whole), None, "{whole}");
        }
    }

    #[test]
    fn keys_of_ssh_keygen_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for arguments in [
            &["-t", "ed25519"][..],
            &["-t", "rsa", "-b", "1024"],
            &["-t", "rsa", "-b", "2048"],
            &["-t", "ecdsa", "-b", "256"],
            &["-t", "ecdsa", "-b", "384"],
            &["-t", "ecdsa", "-b", "521"],
        ] {
            let path = folder.path().join(arguments.concat());
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
            // No part of a key is a key.
            prop_assert!(check(&KEY.as_bytes()[..at]).is_err());
        }
    }
}
