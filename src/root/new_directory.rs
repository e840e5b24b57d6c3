//! A directory that the user adds to the root: `--mkdir PATH[:MODE[:USER[:GROUP]]]`.
//! It must never look at the root: who owns the directory is found out once the root's users are known.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// What `--mkdir` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDirectory {
    /// As it was written, for messages.
    pub given: String,
    /// Relative to the root.
    pub path: PathBuf,
    /// Its permissions; unless given, 0755, or what a directory that is there has.
    pub mode: Option<u32>,
    /// Its owner; unless given, root, or that of a directory that is there.
    pub user: Option<Who>,
    /// Its group; unless given, the user's.
    pub group: Option<Who>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// By number.
    Number(u32),
    /// By a name in the root's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// -1 means "no change" to chown(2).
const NO_ID: u32 = u32::MAX;
const ALL_MODE_BITS: u32 = 0o7777;

impl FromStr for NewDirectory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let path = path(parts.next().unwrap_or_default())?;
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let mode = next().map(mode).transpose()?;
        let user = next().map(|part| who(part, "user")).transpose()?;
        let group = next().map(|part| who(part, "group")).transpose()?;
        if parts.next().is_some() {
            return Err("more than PATH:MODE:USER:GROUP".into());
        }
        Ok(Self { given: text.to_owned(), path, mode, user, group })
    }
}

/// `text` relative to the root.
fn path(text: &str) -> Result<PathBuf, String> {
    let mut clean = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(format!("`{text}` has `..` in it")),
        }
    }
    match (Path::new(text).is_absolute(), clean.as_os_str().is_empty()) {
        (true, false) => Ok(clean),
        (true, true) => Err("the root directory is there already".into()),
        (false, _) => Err(format!("`{text}` is not an absolute path")),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= ALL_MODE_BITS);
    mode.ok_or_else(|| format!("`{text}` is not a mode: give up to four octal digits, such as 0750"))
}

fn who(text: &str, what: &str) -> Result<Who, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number != NO_ID);
        return number.map(Who::Number).ok_or_else(|| format!("{what} {text} is not a number from 0 to {}", NO_ID - 1));
    }
    Ok(Who::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_path_a_mode_and_owners() {
        let name = |name: &str| Some(Who::Name(name.into()));
        let number = |number| Some(Who::Number(number));
        for (text, path, mode, user, group) in [
            ("/a", "a", None, None, None),
            ("/a//b/./", "a/b", None, None, None),
            ("/a:0750", "a", Some(0o750), None, None),
            ("/a:1777:app", "a", Some(0o1777), name("app"), None),
            ("/a::7:web", "a", None, number(7), name("web")),
            ("/a:::0", "a", None, None, number(0)),
            ("/a b:7", "a b", Some(7), None, None),
        ] {
            let expected = NewDirectory { given: text.into(), path: path.into(), mode, user, group };
            assert_eq!(text.parse(), Ok(expected));
        }
        for (text, error) in [
            ("", "`` is not an absolute path"),
            ("a", "`a` is not an absolute path"),
            ("/", "the root directory is there already"),
            ("/a/../b", "`/a/../b` has `..` in it"),
            ("/a:8", "`8` is not a mode"),
            ("/a:+7", "`+7` is not a mode"),
            ("/a:17777", "`17777` is not a mode"),
            ("/a:0755:4294967295", "user 4294967295 is not a number"),
            ("/a:0755:1:99999999999", "group 99999999999 is not a number"),
            ("/a:0755:1:1:1", "more than PATH:MODE:USER:GROUP"),
        ] {
            let found = text.parse::<NewDirectory>().unwrap_err();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }
}
