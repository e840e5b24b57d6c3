//! What the process in the session's window says and becomes: the greeting, then the shell.
//! It must never change more of the environment than it is told to.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conf::shell_quoted;
use crate::failure::shown;

/// What a window is for. Written to a file, since tmate takes commands of at most 16 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pane {
    /// Shown first.
    pub greeting: String,
    /// Where the shell starts.
    pub directory: Option<PathBuf>,
    /// The shell: program and arguments.
    pub command: Vec<OsString>,
    /// Variables to set or remove, in this order.
    pub environment: Vec<(OsString, Option<OsString>)>,
}

impl Pane {
    /// As bytes: entries that end in NUL, which no name, argument or variable can hold. The first byte of each
    /// says what it is.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut entry = |kind: u8, text: &[u8]| {
            bytes.push(kind);
            bytes.extend(text.iter().copied().filter(|&byte| byte != 0));
            bytes.push(0);
        };
        entry(b'g', self.greeting.as_bytes());
        if let Some(directory) = &self.directory {
            entry(b'd', directory.as_os_str().as_bytes());
        }
        for word in &self.command {
            entry(b'w', word.as_bytes());
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => entry(b's', &[name.as_bytes(), b"=", value.as_bytes()].concat()),
                None => entry(b'u', name.as_bytes()),
            }
        }
        bytes
    }

    /// What [`Pane::encode`] made, or nothing where it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut pane = Self::default();
        for entry in bytes.strip_suffix(b"\0")?.split(|&byte| byte == 0) {
            let (kind, text) = entry.split_first()?;
            let text = || OsString::from_vec(text.to_vec());
            match kind {
                b'g' => pane.greeting = text().into_string().ok()?,
                b'd' => pane.directory = Some(text().into()),
                b'w' => pane.command.push(text()),
                b's' => {
                    let text = text().into_vec();
                    let at = text.iter().position(|&byte| byte == b'=')?;
                    let os = |part: &[u8]| OsStr::from_bytes(part).to_owned();
                    pane.environment.push((os(&text[..at]), Some(os(&text[at + 1..]))));
                }
                b'u' => pane.environment.push((text(), None)),
                _ => return None,
            }
        }
        (!pane.command.is_empty()).then_some(pane)
    }
}

/// What is said in the session: what happened, where one is, and how to leave. Without a directory the shell says
/// itself where it is.
pub fn greeting(lines: &[String], directory: Option<&Path>, continue_file: &Path, max_idle: Duration) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&shown(line));
        text.push('\n');
    }
    if let Some(directory) = directory {
        text.push_str(&format!("You are in {}\n", shown(directory)));
    }
    text.push_str(&format!(
        "exit or ctrl-d in the last shell ends this session; so does\n    {}\n\
         ctrl-b d leaves it as it is: it ends after {} s with nobody connected.\n\n",
        touch(continue_file),
        max_idle.as_secs(),
    ));
    text
}

/// The command that makes the continue file, for a shell.
pub fn touch(continue_file: &Path) -> String {
    let quoted = shell_quoted(continue_file.as_os_str());
    format!("touch {}", shown(OsStr::from_bytes(&quoted)))
}

/// What is written into every window before the cap.
pub fn announcement(left: Duration) -> String {
    let text = super::clock::in_words(left);
    format!("\r\n\x07*** This session ends in {text}, whoever is connected. ***\r\n")
}

/// What is written into every window when something else of the job has failed.
pub fn also_failed(what: &str) -> String {
    format!("\r\n*** Also failed: {} ***\r\n", shown(what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_greeting_says_what_where_and_how_to_leave() {
        let lines = ["`make` failed with exit code 2".to_owned(), "\x1b[2J".to_owned()];
        let say = |directory| greeting(&lines, directory, Path::new("/a b/continue"), Duration::from_secs(60));
        let text = say(Some(Path::new("/src")));
        let expected = "`make` failed with exit code 2
\\u{1b}[2J
You are in /src
exit or ctrl-d in the last shell ends this session; so does
    touch '/a b/continue'
ctrl-b d leaves it as it is: it ends after 60 s with nobody connected.

";
        assert_eq!(text, expected);
        assert_eq!(say(None), expected.replace("You are in /src\n", ""));
    }

    fn a_word() -> impl Strategy<Value = OsString> {
        proptest::collection::vec(1..=255_u8, 0..20).prop_map(OsString::from_vec)
    }

    fn a_name() -> impl Strategy<Value = OsString> {
        "[A-Za-z_%()]{1,8}".prop_map(OsString::from)
    }

    proptest! {
        #[test]
        fn a_pane_is_read_as_it_was_written(
            greeting in "[^\\x00]{0,40}",
            directory in proptest::option::of(a_word()),
            command in proptest::collection::vec(a_word(), 1..5),
            environment in proptest::collection::vec((a_name(), proptest::option::of(a_word())), 0..5),
        ) {
            let pane = Pane { greeting, directory: directory.map(PathBuf::from), command, environment };
            prop_assert_eq!(Pane::decode(&pane.encode()), Some(pane));
        }

        #[test]
        fn damaged_bytes_are_no_pane_or_another(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), end: bool) {
            if end {
                bytes.push(0);
            }
            if let Some(pane) = Pane::decode(&bytes) {
                prop_assert!(!pane.command.is_empty());
            }
        }
    }
}
