//! Characters as Go sees them in bytes that may be no UTF-8, each with its place in the file.
//! It must never decide what a character means to a Dockerfile.

use std::num::NonZeroU32;

/// A character and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Char {
    /// The character; U+FFFD for a byte that is no UTF-8, as in Go.
    pub value: char,
    /// The offset of its first byte in the file, and one; 8 bytes in all, of which a file needs millions.
    after: Option<NonZeroU32>,
}

impl Char {
    /// A character whose first byte is at this offset. Beyond 4 GiB it stands nowhere, and cannot be changed.
    pub fn new(value: char, at: usize) -> Self {
        Self { value, after: u32::try_from(at).ok().and_then(|at| NonZeroU32::MIN.checked_add(at)) }
    }

    /// A character that stands nowhere in the file.
    pub const fn nowhere(value: char) -> Self {
        Self { value, after: None }
    }

    /// The offset of its first byte in the file; `None` where it stands nowhere in it.
    pub fn at(self) -> Option<usize> {
        self.after.and_then(|after| usize::try_from(after.get() - 1).ok())
    }
}

/// Where the lines of a text begin, to tell the line of an offset without counting from the start each time.
pub struct LineStarts(Vec<usize>);

impl LineStarts {
    /// Finds them.
    pub fn of(source: &[u8]) -> Self {
        Self(memchr::memchr_iter(b'\n', source).map(|at| at + 1).collect())
    }

    /// The line of the byte at `offset`, from 1.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|start| *start <= offset)
    }
}

/// `text` as characters that stand nowhere in the file.
pub fn from_text(text: &str) -> Vec<Char> {
    text.chars().map(Char::nowhere).collect()
}

/// Characters as text. Nearly all are ASCII, a byte each: to collect them one by one, as characters, took a tenth of
/// the time for a large file.
pub fn to_text(chars: impl Iterator<Item = char> + Clone) -> String {
    if chars.clone().all(|char| char.is_ascii()) {
        let bytes = chars.map(|char| u8::try_from(char).unwrap_or_default()).collect();
        String::from_utf8(bytes).unwrap_or_default()
    } else {
        chars.collect()
    }
}

/// The characters of `bytes`; `place` gives the offset in the file for one in `bytes`.
pub fn decode(bytes: &[u8], place: impl Fn(usize) -> usize) -> Vec<Char> {
    let mut found = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        for value in chunk.valid().chars() {
            found.push(Char::new(value, place(at)));
            at += value.len_utf8();
        }
        for _ in chunk.invalid() {
            found.push(Char::new(char::REPLACEMENT_CHARACTER, place(at)));
            at += 1;
        }
    }
    found
}

/// Go's `unicode.IsSpace` of a single byte taken as a Latin-1 character.
pub fn is_latin1_space(byte: u8) -> bool {
    matches!(byte, 9..=13 | b' ' | 0x85 | 0xa0)
}

/// `[\t\v\f\r ]`, between which `BuildKit` splits the words of an instruction.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | b'\r' | b' ')
}

/// How many bytes the white space at the beginning of `bytes` has; 0 where there is none.
fn space_at_start(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(9..=13 | b' ') => 1,
        Some(0xc2..) => (2..=3)
            .find(|&width| {
                let text = bytes.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok());
                text.is_some_and(|text| text.chars().next().is_some_and(char::is_whitespace))
            })
            .unwrap_or(0),
        _ => 0,
    }
}

/// The same for the end of `bytes`.
fn space_at_end(bytes: &[u8]) -> usize {
    match bytes.last() {
        Some(9..=13 | b' ') => 1,
        Some(0x80..) => (2..=3)
            .find(|&width| {
                let start = bytes.len().checked_sub(width);
                let text = start.and_then(|start| std::str::from_utf8(&bytes[start..]).ok());
                text.is_some_and(|text| text.chars().next().is_some_and(|c| c.is_whitespace() && c.len_utf8() == width))
            })
            .unwrap_or(0),
        _ => 0,
    }
}

/// Without the white space (Unicode's) at the beginning.
pub fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let width @ 1.. = space_at_start(bytes) {
        bytes = &bytes[width..];
    }
    bytes
}

/// Without the white space (Unicode's) at the end.
pub fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let width @ 1.. = space_at_end(bytes) {
        bytes = &bytes[..bytes.len() - width];
    }
    bytes
}

/// Without the line end: any number of `\r` and `\n`.
pub fn trim_newline(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_unicodes() {
        for (bytes, trimmed) in [
            (&b" \t\x0b\x0c\r\na b "[..], &b"a b"[..]),
            ("\u{a0}\u{85}\u{3000}\u{2003}a\u{2003}\u{3000}\u{85}\u{a0}".as_bytes(), b"a"),
            (b"\xa0a\xa0", b"\xa0a\xa0"),
            (b"\xc2a\xc2", b"\xc2a\xc2"),
            ("\u{feff}a".as_bytes(), "\u{feff}a".as_bytes()),
            (b"\xe2\x80", b"\xe2\x80"),
            (b"\xff\xc2\xa0", b"\xff"),
            (b" ", b""),
            (b"", b""),
        ] {
            assert_eq!(trim_end(trim_start(bytes)), trimmed, "{bytes:?}");
        }
    }

    #[test]
    fn the_line_of_an_offset_is_found() {
        let text = b"ab\n\ncd\n\nef";
        let lines = LineStarts::of(text);
        for (offset, line) in [(0, 1), (2, 1), (3, 2), (4, 3), (6, 3), (7, 4), (8, 5), (9, 5)] {
            assert_eq!(lines.line(offset), line, "{offset}");
        }
    }

    #[test]
    fn each_byte_that_is_no_utf8_is_a_character() {
        let values = |bytes: &[u8]| decode(bytes, |at| at + 10).iter().map(|c| (c.value, c.at())).collect::<Vec<_>>();
        let bad = char::REPLACEMENT_CHARACTER;
        assert_eq!(values(b"a\xe2\x82b"), [('a', Some(10)), (bad, Some(11)), (bad, Some(12)), ('b', Some(13))]);
        assert_eq!(values("\u{fc}x".as_bytes()), [('\u{fc}', Some(10)), ('x', Some(12))]);
    }
}
