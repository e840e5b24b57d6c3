//! The users that a complete root knows, and the one that a user adds: `--user NAME[:UID]`.
//! It must never ask this machine's user database: the root's users are its own.

use std::fmt::Write;
use std::str::FromStr;

/// A line of `/etc/passwd` and of `/etc/group`: each user has a group of its own, with the same name and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// By the rules of shadow(8): a lower-case letter or `_` first, then also digits and `-`; 32 characters at most.
    pub name: String,
    /// Of the user and its group.
    pub id: u32,
    home: Home,
}

/// Where a user is at home.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// A directory of its own, relative to the root, with this mode.
    Own(String, u32),
    /// One that belongs to nobody.
    Empty,
}

/// The place that is at home for those who have none; nobody can write there.
pub(super) const EMPTY: &str = "var/empty";
/// What `--user NAME` means without a number: the first that distributions give to people.
const FIRST_ID: u32 = 1000;
/// -1 means "no change" to chown(2).
const NO_ID: u32 = u32::MAX;
const LONGEST_NAME: usize = 32;

impl Account {
    /// Those of every complete root, as distroless images have them.
    pub(super) fn of_every_root() -> [Self; 3] {
        let account = |name: &str, id, home| Self { name: name.into(), id, home };
        [
            account("root", 0, Home::Own("root".into(), 0o700)),
            account("nonroot", 65532, Home::Own("home/nonroot".into(), 0o755)),
            account("nobody", 65534, Home::Empty),
        ]
    }

    /// Its own home directory, relative to the root, and its mode.
    pub(super) fn home(&self) -> Option<(&str, u32)> {
        match &self.home {
            Home::Own(place, mode) => Some((place, *mode)),
            Home::Empty => None,
        }
    }
}

/// What `--user` was given that is no user.
#[derive(Debug, PartialEq, Eq)]
pub struct BadUser(String);

impl std::fmt::Display for BadUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUser {}

impl FromStr for Account {
    type Err = BadUser;

    fn from_str(text: &str) -> Result<Self, BadUser> {
        let (name, id) = text.split_once(':').map_or((text, None), |(name, id)| (name, Some(id)));
        let first = |c: char| c.is_ascii_lowercase() || c == '_';
        let later = |c: char| first(c) || c.is_ascii_digit() || c == '-';
        if !name.starts_with(first) || !name.chars().all(later) || name.len() > LONGEST_NAME {
            return Err(BadUser(
                "a name is 1 to 32 of `a-z`, `0-9`, `_` and `-`, and begins with none of the digits and `-`".into(),
            ));
        }
        let known = Self::of_every_root();
        let same_name = known.iter().find(|account| account.name == name);
        let id = match (id, same_name) {
            (None, Some(account)) => account.id,
            (None, None) => FIRST_ID,
            (Some(digits), _) => digits
                .parse()
                .ok()
                .filter(|&id| id != NO_ID && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| BadUser(format!("`{digits}` is no number from 0 to {}", NO_ID - 1)))?,
        };
        match (same_name, known.iter().find(|account| account.id == id)) {
            (Some(account), _) if account.id == id => Ok(account.clone()),
            (Some(account), _) => Err(BadUser(format!("`{name}` is {} in every root", account.id))),
            (None, Some(account)) => Err(BadUser(format!("{id} is `{}` in every root", account.name))),
            (None, None) => Ok(Self { name: name.into(), id, home: Home::Own(format!("home/{name}"), 0o755) }),
        }
    }
}

/// `/etc/passwd` (passwd(5)). `shell` is that of those who can log in.
pub(super) fn passwd(accounts: &[Account], shell: &str) -> String {
    let mut text = String::new();
    for Account { name, id, home } in accounts {
        let (home, shell) = match home {
            Home::Own(place, _) => (place.as_str(), shell),
            Home::Empty => (EMPTY, NO_SHELL),
        };
        let _ = writeln!(text, "{name}:x:{id}:{id}:{name}:/{home}:{shell}");
    }
    text
}

/// The shell of those who have none; it need not exist.
pub(super) const NO_SHELL: &str = "/sbin/nologin";

/// `/etc/group` (group(5)). `tty` is there since grantpt(3) looks for it.
pub(super) fn group(accounts: &[Account]) -> String {
    let mut text = String::new();
    let groups = accounts.iter().map(|account| (account.name.as_str(), account.id));
    for (name, id) in groups.chain([("tty", 5)]) {
        let _ = writeln!(text, "{name}:x:{id}:");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_user_is_a_name_and_maybe_a_number() {
        let long = "x".repeat(33);
        for (text, expected) in [
            ("app", Ok(("app", 1000))),
            ("app:7", Ok(("app", 7))),
            ("_a-1:4294967294", Ok(("_a-1", 4_294_967_294))),
            ("nonroot", Ok(("nonroot", 65532))),
            ("nonroot:65532", Ok(("nonroot", 65532))),
            ("root", Ok(("root", 0))),
            ("nobody", Ok(("nobody", 65534))),
            ("nonroot:1", Err("`nonroot` is 65532 in every root")),
            ("app:0", Err("0 is `root` in every root")),
            ("app:65532", Err("65532 is `nonroot` in every root")),
            ("app:4294967295", Err("`4294967295` is no number")),
            ("app:-1", Err("`-1` is no number")),
            ("app:+1", Err("`+1` is no number")),
            ("app:", Err("`` is no number")),
            ("app:1:2", Err("`1:2` is no number")),
            ("", Err("a name is")),
            ("1000", Err("a name is")),
            ("App", Err("a name is")),
            ("-a", Err("a name is")),
            ("a/b", Err("a name is")),
            ("a b", Err("a name is")),
            (&long, Err("a name is")),
        ] {
            match (text.parse::<Account>(), expected) {
                (Ok(account), Ok((name, id))) => assert_eq!((account.name.as_str(), account.id), (name, id)),
                (Err(error), Err(part)) => assert!(error.to_string().starts_with(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_user_is_one_line_of_passwd(text in "([a-z_][a-z0-9_-]{0,31}(:[0-9]{1,10})?|.*)") {
            if let Ok(account) = text.parse::<Account>() {
                let lines = passwd(&[account], "/bin/sh");
                prop_assert_eq!(lines.matches('\n').count(), 1);
                prop_assert_eq!(lines.matches(':').count(), 6);
            }
        }
    }
}
