//! What a container of an image runs, and how: the user's part of an image config.
//! It must never pass over a key or a value that it does not understand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize as DeserializeDerive, Serialize};

use super::healthcheck::Healthcheck;

/// The largest number of a user or a group that Docker, podman and Kubernetes take.
pub const LARGEST_ID: u32 = u32::MAX >> 1;

/// The settings of a container, as `config.md` of the OCI image specification names them, and what Docker adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, DeserializeDerive)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(clippy::zero_sized_map_values, reason = "the format has objects where sets are meant")]
pub struct Settings {
    /// `NAME=VALUE`, each name once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<Text<Env>>>,
    /// The program and its arguments, or the arguments of the entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<Text<Word>>>,
    /// The program that is always run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<Text<Word>>>,
    /// `NAME`, `UID` or `UID:GID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text<User>>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<Text<Absolute>>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<Text<Label>, Text<Word>>>,
    /// `PORT/tcp` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<Text<Port>, Map<Nothing>>>,
    /// Directories for data that outlives a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<Text<Absolute>, Map<Nothing>>>,
    /// What ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Text<Signal>>,
    /// Docker's: how to find out whether the container works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Map<Healthcheck>>,
    /// Docker's: what runs a command that is written as one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<Text<Word>>>,
    /// Docker's: instructions of a Dockerfile for images that are built on this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<Text<Instruction>>>,
}

/// The empty object that stands behind each port and volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, DeserializeDerive)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Settings {
    /// Reads the JSON text of a config file. Errors name the key or the value, and its line and column.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(|Map(settings)| settings)
    }

    /// `over` where it says something, else `self`. Variables, labels, ports and volumes come together.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        fn both<T: Extend<U> + IntoIterator<Item = U>, U>(under: Option<T>, over: Option<T>) -> Option<T> {
            match (under, over) {
                (Some(mut under), Some(over)) => {
                    under.extend(over);
                    Some(under)
                }
                (under, over) => over.or(under),
            }
        }
        let mut settings = Self {
            env: both(self.env, over.env),
            cmd: over.cmd.or(self.cmd),
            entrypoint: over.entrypoint.or(self.entrypoint),
            user: over.user.or(self.user),
            working_dir: over.working_dir.or(self.working_dir),
            labels: both(self.labels, over.labels),
            exposed_ports: both(self.exposed_ports, over.exposed_ports),
            volumes: both(self.volumes, over.volumes),
            stop_signal: over.stop_signal.or(self.stop_signal),
            healthcheck: over.healthcheck.or(self.healthcheck),
            shell: over.shell.or(self.shell),
            on_build: over.on_build.or(self.on_build),
        };
        if let Some(env) = &mut settings.env {
            // The last of a name wins, in the first one's place, as in Docker.
            let mut names: BTreeMap<String, usize> = BTreeMap::new();
            let mut kept: Vec<Text<Env>> = Vec::new();
            for entry in env.drain(..) {
                if let Some(&place) = names.get(entry.variable()) {
                    kept[place] = entry;
                } else {
                    names.insert(entry.variable().to_owned(), kept.len());
                    kept.push(entry);
                }
            }
            *env = kept;
        }
        settings
    }

    /// Sets the variable `name`, unless it is set.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: &str) -> Self {
        let env = self.env.get_or_insert_default();
        if env.iter().all(|entry| entry.variable() != name) {
            env.insert(0, Text::trusted(format!("{name}={value}")));
        }
        self
    }

    /// Adds a label, unless there is one of that name.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        let labels = self.labels.get_or_insert_default();
        labels.entry(Text::trusted(name.to_owned())).or_insert_with(|| Text::trusted(value.to_owned()));
        self
    }

    /// Names of what is set, for whoever wants to know.
    pub fn variables(&self) -> BTreeSet<&str> {
        self.env.iter().flatten().map(Text::variable).collect()
    }
}

/// What a text in the settings must be.
pub trait Rule {
    /// The reason why `text` is not that.
    fn check(text: &str) -> Result<(), String>;
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident => $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {}
        impl Rule for $name {
            fn check(text: &str) -> Result<(), String> {
                let check: fn(&str) -> Result<(), String> = $check;
                if text.contains('\0') { Err("it holds a NUL".into()) } else { check(text) }
            }
        }
    )*};
}

fn require(holds: bool, reason: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.to_owned()) }
}

rules! {
    /// `NAME=VALUE`.
    Env => |text| require(text.find('=').is_some_and(|at| at > 0), "it is not NAME=VALUE");
    /// Any text.
    Word => |_| Ok(());
    /// The name of a label.
    Label => |text| require(!text.is_empty(), "the name is empty");
    /// A name or a number, and a group after a colon.
    User => |text| {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let is_name = |name: &str| {
            !name.is_empty() && !name.starts_with('-') && name.chars().all(|c| c.is_alphanumeric() || "._-$".contains(c))
        };
        require(is_name(user) && group.is_none_or(is_name), "it is not NAME or UID, with or without `:GROUP`")?;
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_too_large = |part: &str| is_number(part) && !part.parse().is_ok_and(|id: u32| id <= LARGEST_ID);
        match [Some(user), group].into_iter().flatten().find(|part| is_too_large(part)) {
            Some(number) => Err(format!("{number} is too large: engines take numbers from 0 to {LARGEST_ID}")),
            None => Ok(()),
        }
    };
    /// An absolute path.
    Absolute => |text| {
        require(text.starts_with('/') && !text.split('/').any(|part| part == ".."), "it is no absolute path")
    };
    /// `PORT`, `PORT/tcp`, `PORT/udp` or `PORT/sctp`.
    Port => |text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|b| b.is_ascii_digit());
        require(is_port && ["tcp", "udp", "sctp"].contains(&protocol), "it is not PORT, or PORT/tcp, /udp or /sctp")
    };
    /// An instruction of a Dockerfile that may follow `ONBUILD`.
    Instruction => |text| {
        let word = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let is_one = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
        let may_follow = !["ONBUILD", "FROM", "MAINTAINER"].contains(&&*word);
        require(is_one && may_follow, "it is not an instruction that Docker runs after ONBUILD")
    };
    /// `SIGTERM`, `SIGRTMIN+3`, or a number.
    Signal => |text| {
        let is_name = text.strip_prefix("SIG").is_some_and(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c))
        });
        let is_number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
        require(is_name || is_number, "it is no signal, such as SIGTERM or 15")
    };
}

/// A text that keeps the rule `R`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text<R>(String, #[serde(skip)] PhantomData<R>);

impl<R: Rule> Text<R> {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, String> {
        R::check(text).map(|()| Self::trusted(text.to_owned())).map_err(|reason| bad(text, &reason))
    }
}

impl<R> Text<R> {
    fn trusted(text: String) -> Self {
        Self(text, PhantomData)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text<Env> {
    /// What stands before the `=`.
    pub fn variable(&self) -> &str {
        self.0.split('=').next().unwrap_or_default()
    }
}

/// A `T` that was written as an object: serde takes arrays too, of values without their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Map<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Map<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Map)
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

fn bad(text: &str, reason: &str) -> String {
    format!("`{}` cannot stand here: {reason}", crate::failure::shown(text))
}

impl<'de, R: Rule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Checked<R>(PhantomData<R>);
        // In a visitor, since only there does serde_json add line and column to an error.
        impl<R: Rule> Visitor<'_> for Checked<R> {
            type Value = Text<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Text::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Checked(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: &str = r#"{
        "Env": ["A=1", "EMPTY="], "Cmd": ["sh", "-c", ""], "Entrypoint": null, "User": "1000:100",
        "WorkingDir": "/root", "Labels": {"a.b": "c"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8080": {}},
        "Volumes": {"/data": {}}, "StopSignal": "SIGRTMIN+3", "Healthcheck": {"Test": ["CMD", "x"], "Retries": 2},
        "Shell": ["/bin/bash", "-c"], "OnBuild": ["COPY . /app", "run make"]
    }"#;

    #[test]
    fn every_key_is_read_and_written_again() {
        let read = Settings::parse(ALL).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(ALL).unwrap();
        expected.as_object_mut().unwrap().remove("Entrypoint");
        assert_eq!(serde_json::to_value(&read).unwrap(), expected);
        assert_eq!(Settings::parse("{}").unwrap(), Settings::default());
    }

    #[test]
    fn errors_name_what_is_wrong_and_where() {
        for (text, message) in [
            ("{\n  \"Evn\": []\n}", "unknown field `Evn`, expected one of `Env`"),
            ("{\n  \"Evn\": []\n}", "line 2 column 7"),
            ("{\n \"Env\": [\"A=1\",\n \"B\"]}", "`B` cannot stand here: it is not NAME=VALUE at line 3 column 4"),
            (r#"{"Env": ["=1"]}"#, "it is not NAME=VALUE at line 1 column 13"),
            (r#"{"Env": {"A": "1"}}"#, "expected a sequence at line 1 column 8"),
            (r#"{"Cmd": "sh"}"#, "expected a sequence at line 1 column 12"),
            (r#"{"Cmd": ["a", 1]}"#, "expected a text at line 1 column 15"),
            (r#"{"Cmd": ["a\u0000"]}"#, "a NUL at line 1"),
            (r#"{"User": "a b"}"#, "NAME or UID"),
            (r#"{"User": "4294967296"}"#, "4294967296 is too large: engines take numbers from 0 to 2147483647"),
            (r#"{"User": "2147483648"}"#, "2147483648 is too large"),
            (r#"{"User": "1:4294967295"}"#, "4294967295 is too large"),
            (r#"{"User": "-1"}"#, "NAME or UID"),
            (r#"{"Healthcheck": {"Test": ["x"]}}"#, "`Test` is neither"),
            (r#"{"Healthcheck": []}"#, "expected an object"),
            (r#"{"Shell": "sh"}"#, "expected a sequence"),
            (r#"{"OnBuild": ["ONBUILD RUN x"]}"#, "not an instruction that Docker runs after ONBUILD"),
            (r#"{"OnBuild": ["from x"]}"#, "not an instruction"),
            (r#"{"OnBuild": [""]}"#, "not an instruction"),
            (r#"{"WorkingDir": "root"}"#, "no absolute path"),
            (r#"{"WorkingDir": "/a/../b"}"#, "no absolute path"),
            (r#"{"Labels": {"": "x"}}"#, "the name is empty"),
            (r#"{"ExposedPorts": {"80/icmp": {}}}"#, "it is not PORT"),
            (r#"{"ExposedPorts": {"99999": {}}}"#, "it is not PORT"),
            (r#"{"ExposedPorts": {"80": {"x": 1}}}"#, "unknown field `x`"),
            (r#"{"ExposedPorts": ["80"]}"#, "expected a map"),
            (r#"{"Volumes": {"data": {}}}"#, "no absolute path"),
            (r#"{"StopSignal": "TERM"}"#, "no signal"),
            (r#"{"User": "a", "User": "b"}"#, "duplicate field `User`"),
            (r#"{"Env": []"#, "EOF"),
            ("", "EOF"),
            ("[]", "expected an object at line 1"),
            (r#"{"ExposedPorts": {"80": []}}"#, "expected an object at line 1"),
            (r"{} x", "trailing characters at line 1 column 4"),
        ] {
            let error = Settings::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(error.contains("line "), "{text}: {error}");
        }
    }

    #[test]
    fn flags_go_over_the_file_and_names_are_kept_once() {
        let parse = |text| Settings::parse(text).unwrap();
        let file =
            parse(r#"{"Env": ["A=1", "B=2", "A=3"], "Cmd": ["x"], "User": "u", "Labels": {"a": "1", "b": "1"}}"#);
        let flags = parse(r#"{"Env": ["B=4", "C=5"], "Cmd": ["y"], "Labels": {"b": "2"}, "Volumes": {"/v": {}}}"#);
        let expected = parse(
            r#"{"Env": ["A=3", "B=4", "C=5"], "Cmd": ["y"], "User": "u", "Labels": {"a": "1", "b": "2"},
                "Volumes": {"/v": {}}}"#,
        );
        let both = file.overlaid(flags);
        assert_eq!(both, expected);
        assert_eq!(both.variables(), BTreeSet::from(["A", "B", "C"]));
        let with = both.clone().with_default("PATH", "/run/profile/bin");
        assert_eq!(with.env.as_ref().unwrap()[0].as_str(), "PATH=/run/profile/bin");
        assert_eq!(with.clone().with_default("PATH", "/x"), with);
        let only = Settings::default().with_default("PATH", "/p");
        assert_eq!(serde_json::to_string(&only).unwrap(), r#"{"Env":["PATH=/p"]}"#);
    }

    proptest! {
        #[test]
        fn any_change_of_a_good_file_is_read_or_refused_with_a_place(
            cut in 0_usize..600, put in prop::collection::vec(any::<u8>(), 0..4), drop in 0_usize..4,
        ) {
            let mut bytes = ALL.as_bytes().to_vec();
            let at = cut % bytes.len();
            let end = (at + drop).min(bytes.len());
            bytes.splice(at..end, put);
            let text = String::from_utf8_lossy(&bytes);
            if let Err(error) = Settings::parse(&text) {
                prop_assert!(error.line() > 0 || error.column() > 0, "{}", error);
            }
        }
    }
}
