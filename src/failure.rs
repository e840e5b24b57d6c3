//! The errors on which code branches, and the hint that tells a user what to do next.
//! It must never print: [`crate::report`] does, once, from `main`.

use std::fmt;
use std::path::Path;

/// A signal ended the run before anything was published. Exit status 128 + `signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The signal's number, such as 15 for TERM.
    pub signal: i32,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = nix::sys::signal::Signal::try_from(self.signal).map_or("a signal", |s| s.as_str());
        write!(f, "interrupted by {name}; nothing was written")
    }
}

impl std::error::Error for Interrupted {}

/// A signal ended the run after something had been published. Exit status 128 + `signal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The signal's number.
    pub signal: i32,
    /// What was done, as a sentence.
    pub done: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = nix::sys::signal::Signal::try_from(self.signal).map_or("a signal", |s| s.as_str());
        write!(f, "interrupted by {name}; {}", self.done)
    }
}

impl std::error::Error for Stopped {}

/// The command line was understood word by word but asks for something that makes no sense. Exit status 2.
#[derive(Debug)]
pub struct Usage(
    /// What is wrong with it.
    pub String,
);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The name by which the program was called is no applet's. Exit status 127, as a shell's "not found".
#[derive(Debug)]
pub struct UnknownApplet(
    /// What it was called, shown escaped.
    pub String,
);

impl fmt::Display for UnknownApplet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no applet is called `{}`", self.0)
    }
}

impl std::error::Error for UnknownApplet {}

/// A program that the run needs is not there, or is too old. Exit status 127, as a shell's "not found".
#[derive(Debug)]
pub struct NotFound(
    /// Which, and where it was looked for.
    pub String,
);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFound {}

/// A program that is there but cannot be executed. Exit status 126, as a shell's.
#[derive(Debug)]
pub struct NotExecutable(
    /// Which.
    pub String,
);

impl fmt::Display for NotExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotExecutable {}

/// An error together with what the user can do about it, printed as `hint: …` below the error.
#[derive(Debug)]
pub struct Hinted {
    error: anyhow::Error,
    /// One sentence without a final period.
    pub hint: String,
}

impl Hinted {
    /// Whether the error itself is a `T`.
    pub fn is<T: fmt::Display + fmt::Debug + Send + Sync + 'static>(&self) -> bool {
        self.error.is::<T>()
    }

    /// The error itself, if it is a `T`.
    pub fn downcast_ref<T: fmt::Display + fmt::Debug + Send + Sync + 'static>(&self) -> Option<&T> {
        self.error.downcast_ref()
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds `hint` to `error`.
pub fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { error: error.into(), hint: hint.into() })
}

/// Bytes of a name as a terminal may show them: control characters and bytes that are not UTF-8 are
/// escaped, everything else stays as it is. For people only; what is written keeps the bytes.
pub fn shown(name: impl AsRef<Path>) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut text = String::new();
    for chunk in name.as_ref().as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// [`shown`] for the bytes of a name.
pub fn shown_bytes(name: &[u8]) -> String {
    use std::os::unix::ffi::OsStrExt;
    shown(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_are_shown_escaped_where_a_terminal_would_be_hurt() {
        for (name, expected) in [
            (&b"plain-1.0"[..], "plain-1.0"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"two\nlines\x1b[31m", "two\\nlines\\u{1b}[31m"),
            (b"latin\xfc1", "latin\\xfc1"),
        ] {
            assert_eq!(shown(OsStr::from_bytes(name)), expected);
        }
    }

    #[test]
    fn a_hint_is_found_below_further_context_and_leaves_the_message_alone() {
        let error = hinted(anyhow::anyhow!("inner").context("middle"), "do this").context("outer");
        assert_eq!(error.downcast_ref::<Hinted>().unwrap().hint, "do this");
        assert_eq!(format!("{error:#}"), "outer: middle: inner");
    }
}
