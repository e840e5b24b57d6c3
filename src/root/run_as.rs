//! Who a container runs as: a user of the image by name or number, with numbers as the result.
//! It must never read a file: it gets the texts of the image's `/etc/passwd` and `/etc/group`.
//!
//! Engines look names up when a container starts, and refuse to start it if a name is unknown. Kubernetes does not start
//! it under `runAsNonRoot` unless the image has a number. So names become numbers here.

use std::fmt;

use super::Owner;
use super::accounts::Account;

/// The texts of `/etc/passwd` and `/etc/group` in an image, empty where there is no such file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// passwd(5)
    pub passwd: &'a str,
    /// group(5)
    pub group: &'a str,
}

/// The numbers of a user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user's.
    pub user: u32,
    /// The group's; without it engines take the one in `/etc/passwd`, or 0.
    pub group: Option<u32>,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user)?;
        self.group.map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

impl RunAs {
    /// The owner of files that belong to this user.
    pub fn owner(self, files: Files<'_>) -> Owner {
        let group = || lines(files.passwd).find(|line| line.number == Some(self.user))?.group;
        Owner { user: self.user, group: self.group.or_else(group).unwrap_or(0) }
    }
}

/// What the text of a user means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// These numbers.
    Known(RunAs),
    /// One that is not in the image and can be added.
    New(Account),
}

/// Reads `text`, a user with or without a group after a colon, each by name or number, as engines do. A name that the
/// image does not have is `NAME` or `NAME:UID` of a user to be added if `can_add`.
pub fn resolve(text: &str, files: Files<'_>, can_add: bool) -> Result<User, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let known = match number(user) {
        Some(user) => Some((user, None)),
        None => lines(files.passwd).find(|line| line.name == user).and_then(|line| Some((line.number?, line.group))),
    };
    let Some((user_number, own_group)) = known else {
        if !can_add {
            return Err(format!("the image has no user `{user}`; use a number"));
        }
        return text.parse().map(User::New).map_err(|reason| {
            format!("the image has no user `{user}`, and `{text}` cannot be added as NAME or NAME:UID: {reason}")
        });
    };
    let group = match group {
        None => own_group,
        Some(name) => {
            let find = || lines(files.group).find(|line| line.name == name)?.number;
            let group = number(name).or_else(find);
            Some(group.ok_or_else(|| format!("the image has no group `{name}`; use a number"))?)
        }
    };
    Ok(User::Known(RunAs { user: user_number, group }))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What the lines of both files have in common.
struct Line<'a> {
    name: &'a str,
    number: Option<u32>,
    /// In `/etc/passwd` the user's group.
    group: Option<u32>,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        Line { name, number: fields.nth(1).and_then(number), group: fields.next().and_then(number) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILES: Files<'_> = Files {
        passwd: "root:x:0:0:root:/root:/bin/sh\nme:x:1001:100::/:\nbroken:x\n\n# me2\n",
        group: "root:x:0:\nusers:x:100:me\nempty:x::\n",
    };

    #[test]
    fn a_user_becomes_numbers_or_is_added_or_refused() {
        let known = |user, group| Ok(User::Known(RunAs { user, group }));
        let new = |text: &str| Ok(User::New(text.parse().unwrap()));
        for (text, expected) in [
            ("0", known(0, None)),
            ("1001", known(1001, None)),
            ("007:08", known(7, Some(8))),
            ("2000:users", known(2000, Some(100))),
            ("root", known(0, Some(0))),
            ("me", known(1001, Some(100))),
            ("me:0", known(1001, Some(0))),
            ("me:users", known(1001, Some(100))),
            ("you", new("you")),
            ("you:1234", new("you:1234")),
            ("me:none", Err("the image has no group `none`; use a number")),
            ("5:none", Err("the image has no group `none`; use a number")),
            ("5:empty", Err("the image has no group `empty`; use a number")),
            ("you:0", Err("the image has no user `you`, and `you:0` cannot be added as NAME or NAME:UID: ")),
            ("you:users", Err("the image has no user `you`, and `you:users` cannot be added as NAME or NAME:UID: ")),
            ("You", Err("the image has no user `You`, and `You` cannot be added as NAME or NAME:UID: ")),
            ("# me2", Err("the image has no user `# me2`, and")),
        ] {
            match (resolve(text, FILES, true), expected) {
                (Err(error), Err(start)) => assert!(error.starts_with(start), "{text}: {error}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{text}"),
            }
        }
        for text in ["you", "you:1", "you:users"] {
            assert_eq!(resolve(text, FILES, false), Err("the image has no user `you`; use a number".to_owned()));
        }
        assert_eq!(
            resolve("root", Files::default(), false),
            Err("the image has no user `root`; use a number".to_owned())
        );
    }

    #[test]
    fn files_are_given_to_the_group_with_which_a_container_runs() {
        for (text, user, group) in [("1001", 1001, 100), ("1001:7", 1001, 7), ("5", 5, 0), ("me", 1001, 100)] {
            let Ok(User::Known(run_as)) = resolve(text, FILES, false) else { panic!("{text}") };
            assert_eq!(run_as.owner(FILES), Owner { user, group }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_stay_what_they_are(user in 0_u32.., group in prop::option::of(0_u32..)) {
            let run_as = RunAs { user, group };
            prop_assert_eq!(resolve(&run_as.to_string(), FILES, false), Ok(User::Known(run_as)));
        }

        #[test]
        fn any_texts_are_read_without_panic(text in ".{0,20}", passwd in "[a:\n0-9]{0,40}") {
            let _ = resolve(&text, Files { passwd: &passwd, group: &passwd }, true);
        }
    }
}
