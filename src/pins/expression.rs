//! A Nix expression that fetches a literal `…/nixpkgs/archive/<40 hexadecimal digits>`.
//! It must never evaluate anything: a URL that is put together is none.

use super::{Kind, Origin, Pin, Problem};
use crate::nixpkgs::Revision;

/// What stands before the commit, in lower case.
const BEFORE: [&[u8]; 4] =
    [b"/nixpkgs/archive/", b"/nixpkgs/tarball/", b"/nixpkgs-channels/archive/", b"/nixpkgs-channels/tarball/"];

/// Finds the one commit that the URLs of an expression name, outside of comments.
pub(super) fn read(source: &[u8]) -> Result<Pin, Problem> {
    let code = without_comments(source);
    let lower = code.to_ascii_lowercase();
    let mut found: Vec<(usize, Revision, Origin)> = Vec::new();
    let mut at = 0;
    let mut line = 1;
    // A `/` at a time: each of what may stand before a commit ends in one.
    for slash in (0..lower.len()).filter(|&at| lower[at] == b'/') {
        let end = slash + 1;
        if !BEFORE.iter().any(|before| lower[..end].ends_with(before)) {
            continue;
        }
        let digits = lower[end..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let commit = std::str::from_utf8(&lower[end..end + digits]).ok().and_then(Revision::whole);
        let Some(commit) = commit else { continue };
        line += lower[at..end].split(|&byte| byte == b'\n').count() - 1;
        at = end;
        if found.iter().all(|(_, other, _)| *other != commit) {
            let start = code[..end].iter().rposition(|byte| b" \t\r\n\"'(=<".contains(byte)).map_or(0, |at| at + 1);
            let url = String::from_utf8_lossy(&code[start..end + digits]);
            found.push((line, commit, Origin::of_url(&url)));
        }
    }
    match found.as_slice() {
        [] => Err(not_read(&code)),
        [(_, commit, origin)] => Ok(Pin {
            kind: Kind::Expression,
            revision: commit.clone(),
            channel: None,
            release: None,
            nar_hash: None,
            origin: origin.clone(),
            upstream: None,
        }),
        several => Err(Problem::Several(several.iter().map(|(line, ..)| *line).collect())),
    }
}

/// Ways to name a commit of nixpkgs that are known, but not read: part of the code, and what to call it.
const NOT_READ: [(&str, &str); 6] = [
    ("fetchFromGitHub", "`fetchFromGitHub`"),
    ("fetchGit", "`fetchGit`"),
    ("getFlake", "`getFlake`"),
    ("releases.nixos.org/", "the release of a channel"),
    ("channels.nixos.org/", "a channel"),
    ("nixpkgs/archive/${", "a URL with a variable"),
];

/// Why an expression without a literal URL gives no commit.
fn not_read(code: &[u8]) -> Problem {
    let has = |part: &str| memchr::memmem::find(code, part.as_bytes()).is_some();
    NOT_READ.iter().find(|(part, _)| has(part)).map_or(Problem::NoUrl, |(_, name)| Problem::NotRead(name))
}

/// The expression with blanks in the place of its comments, which are `# …` and `/* … */` outside of strings.
fn without_comments(source: &[u8]) -> Vec<u8> {
    let mut code = source.to_vec();
    let mut at = 0;
    while at < code.len() {
        let rest = &source[at..];
        let (length, is_comment) = if rest[0] == b'#' {
            (rest.iter().take_while(|&&byte| byte != b'\n').count(), true)
        } else if rest.starts_with(b"/*") {
            (end_of(rest, b"*/", 2, |_| 1), true)
        } else if rest[0] == b'"' {
            (end_of(rest, b"\"", 1, |rest| if rest[0] == b'\\' { 2 } else { 1 }), false)
        } else if rest.starts_with(b"''") {
            // `'''`, `''$` and `''\x` are escapes.
            let step = |rest: &[u8]| match rest {
                [b'\'', b'\'', b'\'' | b'$', ..] => 3,
                [b'\'', b'\'', b'\\', ..] => 4,
                _ => 1,
            };
            (end_of(rest, b"''", 2, step), false)
        } else {
            (1, false)
        };
        let end = (at + length).min(code.len());
        if is_comment {
            code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    code
}

/// How long what begins `text` is, up to and with `close`, from behind its first `open` bytes on.
fn end_of(text: &[u8], close: &[u8], open: usize, step: impl Fn(&[u8]) -> usize) -> usize {
    let mut at = open;
    while at < text.len() {
        let length = step(&text[at..]);
        if length == 1 && text[at..].starts_with(close) {
            return at + close.len();
        }
        at += length;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3b1789322fcbcb5cf51228d732752714f1bf77da";
    const B: &str = "72b9660dc18ba347f7cd41a9504fc181a6d87dc3";

    #[test]
    fn only_one_literal_url_outside_of_comments_counts() {
        let url = |commit: &str| format!("https://github.com/NixOS/nixpkgs/archive/{commit}.tar.gz");
        let fetch = |commit: &str| format!("import (fetchTarball \"{}\") {{ }}", url(commit));
        for (source, expected) in [
            (fetch(A), Ok(A)),
            (format!("{{ pkgs ? {} }}: pkgs", fetch(A)), Ok(A)),
            (format!("builtins.fetchTarball {{ name = \"n\"; url = {}; sha256 = \"0\"; }}", url(A)), Ok(A)),
            (format!("fetchzip {{ url = ''{}''; }}", url(&A.to_uppercase())), Ok(A)),
            (format!("[ {} {} ]", fetch(A), fetch(A)), Ok(A)),
            (format!("[ {}\n {} ]", fetch(A), fetch(B)), Err(Problem::Several(vec![1, 2]))),
            (format!("# {}\n{}", url(A), fetch(B)), Ok(B)),
            (format!("/* {}\n */ {}", url(A), fetch(B)), Ok(B)),
            (format!("\"#\" + \"{}\"", url(A)), Ok(A)),
            (format!("\"\\\"#\" + \"{}\"", url(A)), Ok(A)),
            (format!("''''' # ''$ '' + \"{}\"", url(A)), Ok(A)),
            (format!("\"{}\" # {}", url(A), url(B)), Ok(A)),
            (
                "fetchTarball \"https://github.com/NixOS/nixpkgs/archive/${rev}.tar.gz\"".to_owned(),
                Err(Problem::NotRead("a URL with a variable")),
            ),
            (format!("fetchGit {{ rev = \"{A}\"; }}"), Err(Problem::NotRead("`fetchGit`"))),
            (format!("# fetchGit\n\"{A}\""), Err(Problem::NoUrl)),
            (format!("\"{}\"", url("nixos-25.11")), Err(Problem::NoUrl)),
            (format!("\"{}\"", url(&format!("{A}0"))), Err(Problem::NoUrl)),
            (format!("\"https://github.com/NixOS/nix/archive/{A}.tar.gz\""), Err(Problem::NoUrl)),
            ("\"".to_owned(), Err(Problem::NoUrl)),
            ("/*".to_owned(), Err(Problem::NoUrl)),
            ("''".to_owned(), Err(Problem::NoUrl)),
            (String::new(), Err(Problem::NoUrl)),
        ] {
            let found = read(source.as_bytes()).map(|pin| pin.revision.digits().to_owned());
            assert_eq!(found, expected.map(str::to_owned), "{source}");
        }
    }
}
