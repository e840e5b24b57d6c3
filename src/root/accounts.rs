//! The users and groups that a complete root knows, and the one that `--user NAME[:UID]` adds.
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
        let reserved = |(group, number): &(&str, u32)| *group == name || *number == id;
        if let Some((group, number)) = RESERVED_GROUPS.iter().find(|group| reserved(group)) {
            let taken = if *group == name { format!("`{name}`") } else { format!("{number}") };
            return Err(BadUser(format!("{taken} is the group `{group}` ({number}) in every root")));
        }
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

/// Groups that a user's own must not take the place of: grantpt(3) gives terminals to `tty`, by its number.
const RESERVED_GROUPS: &[(&str, u32)] = &[("tty", 5)];
/// Groups that programs and engines look up by name (`chgrp adm`, `docker run --group-add video`). The numbers are
/// Debian's, which most machines with such devices have; `nogroup` has Alpine's, since Debian's is that of `nobody`.
/// A user's own group takes the place of one of the same name or number.
const GROUPS: &[(&str, u32)] = &[
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("kmem", 15),
    ("dialout", 20),
    ("audio", 29),
    ("utmp", 43),
    ("video", 44),
    ("staff", 50),
    ("users", 100),
    ("nogroup", 65533),
];

/// `/etc/group` (group(5)).
pub(super) fn group(accounts: &[Account]) -> String {
    let own = accounts.iter().map(|account| (account.name.as_str(), account.id));
    let is_free = |(name, id): &&(&str, u32)| accounts.iter().all(|own| own.name != *name && own.id != *id);
    let others = RESERVED_GROUPS.iter().chain(GROUPS).filter(is_free).copied();
    let mut text = String::new();
    for (name, id) in own.chain(others) {
        let _ = writeln!(text, "{name}:x:{id}:");
    }
    text
}

/// Why a user cannot be added to a file of users: its name or its number is another's.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The name that the file has.
    name: String,
    /// With this number, if that can be read.
    id: Option<u32>,
    /// Whether it is the name that is taken.
    is_same_name: bool,
}

impl Taken {
    /// What to do.
    pub fn hint(&self) -> String {
        let Self { name, id, is_same_name } = self;
        match id {
            Some(id) if *is_same_name => format!("for the user that is there: `--user {name}:{id}`"),
            _ if *is_same_name => "choose another name".to_owned(),
            _ => "choose another number: `--user NAME:UID`".to_owned(),
        }
    }
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "it has `{}` with the number {id}", self.name),
            None => write!(f, "it has `{}` without a number", self.name),
        }
    }
}

impl std::error::Error for Taken {}

impl Account {
    /// `text` of `/etc/passwd` with this user; `None` if it is there already.
    pub fn added_to_passwd(&self, text: &[u8], has_shell: bool) -> Result<Option<Vec<u8>>, Taken> {
        let shell = if has_shell { "/bin/sh" } else { NO_SHELL };
        self.added(text, &passwd(std::slice::from_ref(self), shell))
    }

    /// `text` of `/etc/group` with this user's group; `None` if it is there already.
    pub fn added_to_group(&self, text: &[u8]) -> Result<Option<Vec<u8>>, Taken> {
        self.added(text, &format!("{}:x:{}:\n", self.name, self.id))
    }

    fn added(&self, text: &[u8], line: &str) -> Result<Option<Vec<u8>>, Taken> {
        let (name, id) = (self.name.as_bytes(), Some(self.id));
        let same = entries(text).find(|entry| entry.name == name || entry.id == id);
        match same {
            Some(entry) if entry.name == name && entry.id == id => return Ok(None),
            Some(entry) => {
                let is_same_name = entry.name == name;
                return Err(Taken {
                    name: String::from_utf8_lossy(entry.name).into_owned(),
                    id: entry.id,
                    is_same_name,
                });
            }
            None => {}
        }
        let mut text = text.to_vec();
        if text.last().is_some_and(|&last| last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        Ok(Some(text))
    }
}

/// A line of `/etc/passwd` or `/etc/group`.
struct Entry<'a> {
    name: &'a [u8],
    id: Option<u32>,
    /// In `/etc/passwd` the number of the user's group, in `/etc/group` no number.
    fourth: Option<u32>,
}

/// The lines that are entries: neither comments nor those of NIS, which begin with `+` or `-`.
fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse().ok();
    text.split(|&byte| byte == b'\n').filter(|line| line.first().is_some_and(|first| !b"#+-".contains(first))).map(
        move |line| {
            let mut fields = line.split(|&byte| byte == b':');
            let name = fields.next().unwrap_or_default();
            Entry { name, id: number(fields.nth(1)), fourth: number(fields.next()) }
        },
    )
}

/// The numbers of the user `name` and its group in `text` of `/etc/passwd`.
pub fn find_user(text: &[u8], name: &str) -> Option<(u32, u32)> {
    let entry = entries(text).find(|entry| entry.name == name.as_bytes())?;
    Some((entry.id?, entry.fourth?))
}

/// The number of the group `name` in `text` of `/etc/group`.
pub fn find_group(text: &[u8], name: &str) -> Option<u32> {
    entries(text).find(|entry| entry.name == name.as_bytes())?.id
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
            ("tty", Err("`tty` is the group `tty` (5) in every root")),
            ("app:5", Err("5 is the group `tty` (5) in every root")),
            ("mail", Ok(("mail", 1000))),
            ("app:8", Ok(("app", 8))),
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

    #[test]
    fn a_users_group_takes_the_place_of_a_usual_one() {
        let lines = |user: &str| {
            let mut accounts = Account::of_every_root().to_vec();
            accounts.extend(user.parse());
            group(&accounts)
        };
        for (user, there, gone) in [
            ("app:8", &["app:x:8:"][..], &["mail:"][..]),
            ("video", &["video:x:1000:", "audio:x:29:"], &["video:x:44:"]),
            ("mail:20", &["mail:x:20:"], &["mail:x:8:", "dialout:"]),
        ] {
            let text = lines(user);
            for line in there {
                assert!(text.lines().any(|found| found == *line), "{user}: {text}");
            }
            for start in gone {
                assert!(!text.lines().any(|found| found.starts_with(start)), "{user}: {text}");
            }
            let mut fields: Vec<_> = text.lines().flat_map(|line| line.split(":x:")).collect();
            let all = fields.len();
            fields.sort_unstable();
            fields.dedup();
            assert_eq!(fields.len(), all, "{user}: a name or number twice");
        }
    }

    #[test]
    fn a_user_is_added_to_files_that_have_others() {
        let app: Account = "app:7".parse().unwrap();
        for (text, passwd) in [
            ("", Ok(Some("app:x:7:7:app:/home/app:/bin/sh\n"))),
            ("root:x:0:0::/:/s", Ok(Some("root:x:0:0::/:/s\napp:x:7:7:app:/home/app:/bin/sh\n"))),
            ("# app:x:8\n+::7:::\n", Ok(Some("# app:x:8\n+::7:::\napp:x:7:7:app:/home/app:/bin/sh\n"))),
            ("app:x:7:100:me:/:/s\n", Ok(None)),
            ("app:x:8:7::/:/s\n", Err("it has `app` with the number 8; for the user that is there: `--user app:8`")),
            ("lp:x:7:7::/:/s\n", Err("it has `lp` with the number 7; choose another number: `--user NAME:UID`")),
            ("app\n", Err("it has `app` without a number; choose another name")),
        ] {
            let added =
                app.added_to_passwd(text.as_bytes(), true).map_err(|taken| format!("{taken}; {}", taken.hint()));
            let expected = passwd.map(|text| text.map(|text| text.as_bytes().to_vec())).map_err(str::to_owned);
            assert_eq!(added, expected, "{text}");
        }
        assert_eq!(app.added_to_group(b"x:x:1:").unwrap().unwrap(), b"x:x:1:\napp:x:7:\n");
        assert_eq!(app.added_to_group(b"app:x:7:me\n"), Ok(None));
        assert!(app.added_to_group(b"lp:x:7:\n").is_err());
        assert!(String::from_utf8(app.added_to_passwd(b"", false).unwrap().unwrap()).unwrap().contains(NO_SHELL));
    }

    #[test]
    fn users_and_groups_are_found_by_name() {
        let passwd = b"root:x:0:0:::\nme:x:7:8:::\nbad:x:y:8:::\n";
        assert_eq!(
            ["me", "root", "bad", "no"].map(|name| find_user(passwd, name)),
            [Some((7, 8)), Some((0, 0)), None, None]
        );
        assert_eq!(["wheel", "no"].map(|name| find_group(b"wheel:x:10:me,you\n", name)), [Some(10), None]);
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
