//! `channels.toml`: which images there shall be, and where.
//! It must never guess: an unknown key or a value that makes no sense is an error that names it.

use std::fmt;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::channel::{Channel, Selection};
use crate::oci::Platform;

/// More past updates than anybody keeps images of: a larger number is a slip of the hand.
const MOST_HISTORY: usize = 500;

/// A Nix system for which there are images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "&'static str")]
pub struct System(&'static str);

/// Each system with OCI's words for it.
const SYSTEMS: &[(&str, &str)] = &[("x86_64-linux", "amd64"), ("aarch64-linux", "arm64")];

impl System {
    /// The system called `name`.
    pub fn new(name: &str) -> Option<Self> {
        SYSTEMS.iter().find(|(system, _)| *system == name).map(|(system, _)| Self(system))
    }

    /// The system of a machine, by Rust's name for its processor.
    pub fn of_machine(architecture: &str) -> Option<Self> {
        Self::new(&format!("{architecture}-linux"))
    }

    /// The system of a platform in an index.
    pub fn of_platform(platform: &Platform) -> Option<Self> {
        let platform = platform.normalised();
        let known = |(_, architecture): &&(&str, &str)| Platform::linux(architecture) == platform;
        SYSTEMS.iter().find(known).map(|(system, _)| Self(system))
    }

    /// OCI's words for it.
    pub fn platform(self) -> Platform {
        let architecture = SYSTEMS.iter().find(|(system, _)| *system == self.0).map_or("", |(_, name)| name);
        Platform::linux(architecture)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<System> for &'static str {
    fn from(system: System) -> Self {
        system.0
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host and port of the registry, such as `docker.io`.
    pub registry: String,
    /// Whether it must be spoken to by TLS with a certificate that is known. Never for a registry on loopback.
    pub tls_verify: bool,
    /// The repository of a channel's images: a template with `{channel}`.
    name: String,
    /// The systems that each image must have.
    pub systems: Vec<System>,
    /// Which channels.
    pub selection: Selection,
    /// How many updates of a channel have images, the newest included.
    pub history: usize,
    /// The repository that builds the images, a URL for people. It becomes a label.
    pub repository: Option<String>,
    /// The nixpkgs repository: any URL that git can read.
    pub source: String,
    /// The listing of releases, without a `/` at its end. Without it no past update is known and no release number.
    pub releases: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    registry: String,
    name: String,
    tls_verify: Option<bool>,
    systems: Vec<String>,
    #[serde(default)]
    rolling: Vec<String>,
    #[serde(default)]
    stable: usize,
    #[serde(default)]
    extra: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default = "default_history")]
    history: usize,
    repository: Option<String>,
    source: String,
    releases: Option<String>,
}

fn default_history() -> usize {
    16
}

impl Config {
    /// Reads the text of a `channels.toml`. The errors name key and value; toml's own name the line.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let written: Written =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        let Written { registry, name, systems, history, source, .. } = &written;
        check_registry(registry)?;
        check_name(name)?;
        ensure!(!systems.is_empty(), "`systems` is empty: name one at least");
        let mut known = Vec::new();
        for name in systems {
            let names = || SYSTEMS.iter().map(|(system, _)| format!("`{system}`")).collect::<Vec<_>>().join(" and ");
            let system = System::new(name).with_context(|| {
                format!("`systems` has `{}`; there are images for {}", name.escape_debug(), names())
            })?;
            ensure!(!known.contains(&system), "`systems` has `{system}` twice");
            known.push(system);
        }
        ensure!((1..=MOST_HISTORY).contains(history), "`history` is {history}; it must be from 1 to {MOST_HISTORY}");
        check_url("source", source)?;
        if let Some(url) = &written.repository {
            check_url("repository", url)?;
            ensure!(is_http(url), "`repository` is `{url}`, which is not a URL of HTTP");
        }
        let releases = written.releases.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &releases {
            check_url("releases", url)?;
            ensure!(is_http(url), "`releases` is `{url}`, which is no URL of HTTP");
        }
        ensure!(releases.is_some() || *history == 1, "`history` is {history}, but without `releases` only 1 is known");
        let selection = Selection {
            rolling: channels("rolling", &written.rolling)?,
            stable: written.stable,
            extra: channels("extra", &written.extra)?,
            exclude: channels("exclude", &written.exclude)?,
        };
        let selects = !selection.rolling.is_empty() || selection.stable > 0 || !selection.extra.is_empty();
        ensure!(selects, "no channel is selected: `rolling`, `stable` or `extra` must name one");
        Ok(Self {
            tls_verify: written.tls_verify.unwrap_or_else(|| !is_loopback(registry)),
            registry: written.registry,
            name: written.name,
            systems: known,
            selection,
            history: written.history,
            repository: written.repository,
            source: written.source,
            releases,
        })
    }

    /// Where the images of `channel` are, without a tag: `docker.io/niteo/nixpkgs-nixos-26.05`.
    pub fn repository(&self, channel: &Channel) -> String {
        format!("{}/{}", self.registry, self.name.replace("{channel}", channel.as_str()))
    }
}

/// As Docker does, a registry on this machine may speak plain HTTP.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

fn channels(key: &str, names: &[String]) -> anyhow::Result<Vec<Channel>> {
    let parse = |name: &String| name.parse().map_err(|error| anyhow::anyhow!("`{key}`: {error}"));
    names.iter().map(parse).collect()
}

fn check_registry(registry: &str) -> anyhow::Result<()> {
    let (host, port) = match registry.rsplit_once(':').filter(|_| !registry.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let host_is_good = !host.is_empty()
        && !host.starts_with(['-', '.'])
        && (host == "[::1]" || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')));
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if !host_is_good || !port_is_good {
        bail!("`registry` is `{}`, which is no host, or host and port", registry.escape_debug());
    }
    Ok(())
}

/// The distribution specification's rule for repository names, with `{channel}` standing for one.
fn check_name(name: &str) -> anyhow::Result<()> {
    if name.matches("{channel}").count() != 1 {
        bail!("`name` is `{}`; it must have `{{channel}}` once", name.escape_debug());
    }
    // The longest channel, and a dot in it, are allowed for.
    let filled = name.replace("{channel}", "nixos-26.05");
    let is_component = |part: &str| {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let separated = part.replace("__", ".").replace('_', ".");
        separated.split('.').all(|dashed| {
            dashed.split('-').all(|piece| piece.is_empty() || word(piece))
                && !dashed.starts_with('-')
                && !dashed.ends_with('-')
                && !dashed.is_empty()
        })
    };
    if !filled.split('/').all(is_component) || filled.len() > 180 {
        bail!("`name` is `{}`, which is no name of a repository in a registry", name.escape_debug());
    }
    Ok(())
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn check_url(key: &str, url: &str) -> anyhow::Result<()> {
    if url.is_empty() || url.starts_with('-') || url.chars().any(|c| c.is_control() || c == ' ') {
        bail!("`{key}` is `{}`, which is no URL", url.escape_debug());
    }
    // What stands in a URL stands in messages and in the list of processes.
    if url.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')))
        && url.starts_with("http")
    {
        bail!("`{key}` has a user name in its URL: credentials do not belong here");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "\
registry = \"docker.io\"
name = \"niteo/nixpkgs-{channel}\"
systems = [\"x86_64-linux\", \"aarch64-linux\"]
rolling = [\"nixos-unstable\", \"nixpkgs-unstable\"]
stable = 2
source = \"https://github.com/NixOS/nixpkgs\"
releases = \"https://nix-releases.s3.amazonaws.com/\"
";

    #[test]
    fn the_settings_that_come_with_the_recipe_are_good() {
        let config = Config::parse(include_str!("../../image/channels.toml")).unwrap();
        assert_eq!(config.selection.rolling.len(), 2);
        assert_eq!((config.selection.stable, config.history, config.tls_verify), (2, 16, true));
        let channel = "nixos-26.05".parse().unwrap();
        assert_eq!(config.repository(&channel), "docker.io/niteo/nixpkgs-nixos-26.05");
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!((config.history, config.tls_verify), (16, true));
        assert_eq!(config.releases.as_deref(), Some("https://nix-releases.s3.amazonaws.com"));
        for (host, verified) in [
            ("localhost:5000", false),
            ("127.0.0.1:5000", false),
            ("[::1]:5000", false),
            ("ghcr.io", true),
            ("localhost.example.org", true),
        ] {
            let config = Config::parse(&GOOD.replace("docker.io", host)).unwrap();
            assert_eq!(config.tls_verify, verified, "{host}");
        }
        let config = Config::parse(&format!("{GOOD}tls_verify = false\n")).unwrap();
        assert!(!config.tls_verify);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (from, to, message) in [
            ("docker.io", "docker.io/x", "`registry` is `docker.io/x`, which is no host, or host and port"),
            ("docker.io", "", "`registry` is ``, which is no host, or host and port"),
            ("docker.io", "-x", "`registry` is `-x`, which is no host, or host and port"),
            ("docker.io", "x:99999", "`registry` is `x:99999`, which is no host, or host and port"),
            ("{channel}", "", "`name` is `niteo/nixpkgs-`; it must have `{channel}` once"),
            ("niteo/", "Niteo/", "`name` is `Niteo/nixpkgs-{channel}`, which is no name of a repository in a registry"),
            ("niteo/", "/", "`name` is `/nixpkgs-{channel}`, which is no name of a repository in a registry"),
            ("niteo/", "$(id)/", "`name` is `$(id)/nixpkgs-{channel}`, which is no name of a repository in a registry"),
            (
                "aarch64-linux",
                "aarch64-darwin",
                "`systems` has `aarch64-darwin`; there are images for `x86_64-linux` and `aarch64-linux`",
            ),
            ("aarch64-linux", "x86_64-linux", "`systems` has `x86_64-linux` twice"),
            ("[\"x86_64-linux\", \"aarch64-linux\"]", "[]", "`systems` is empty: name one at least"),
            (
                "nixos-unstable",
                "nixos-unstable;reboot",
                "`rolling`: `nixos-unstable;reboot` is no name of a channel, such as `nixos-26.05` or `nixpkgs-unstable`",
            ),
            ("stable = 2", "history = 0", "`history` is 0; it must be from 1 to 500"),
            (
                "https://github",
                "--upload-pack=x https://github",
                "`source` is `--upload-pack=x https://github.com/NixOS/nixpkgs`, which is no URL",
            ),
            (
                "https://github",
                "https://me:secret@github",
                "`source` has a user name in its URL: credentials do not belong here",
            ),
            (
                "https://nix-rel",
                "file://nix-rel",
                "`releases` is `file://nix-releases.s3.amazonaws.com`, which is no URL of HTTP",
            ),
            (
                "stable = 2",
                "stable = 2\nrepository = \"git@github.com:a/b\"",
                "`repository` is `git@github.com:a/b`, which is not a URL of HTTP",
            ),
            (
                "stable = 2",
                "stable = 2\nrepository = \"https://me@x/\"",
                "`repository` has a user name in its URL: credentials do not belong here",
            ),
            (
                "releases = \"https://nix-releases.s3.amazonaws.com/\"",
                "",
                "`history` is 16, but without `releases` only 1 is known",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert_eq!(Config::parse(&text).unwrap_err().to_string(), message);
        }
        let none = GOOD.replace("stable = 2", "").replace("rolling = [\"nixos-unstable\", \"nixpkgs-unstable\"]", "");
        let message = "no channel is selected: `rolling`, `stable` or `extra` must name one";
        assert_eq!(Config::parse(&none).unwrap_err().to_string(), message);
    }

    #[test]
    fn the_parser_names_line_and_key() {
        for (text, part) in [
            (format!("{GOOD}histori = 3\n"), "unknown field `histori`"),
            (GOOD.replace("stable = 2", "stable = -2"), "invalid value"),
            (GOOD.replace("stable = 2", "stable = \"2\""), "line 5"),
            (GOOD.replace("stable = 2", "stable = "), "line 5"),
            (GOOD.replace("registry = \"docker.io\"", ""), "missing field `registry`"),
        ] {
            let message = Config::parse(&text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn systems_and_platforms_are_the_same_things() {
        for (name, _) in SYSTEMS {
            let system = System::new(name).unwrap();
            assert_eq!(System::of_platform(&system.platform()), Some(system));
        }
        for (platform, expected) in [
            ("linux/arm64/v8", System::new("aarch64-linux")),
            ("linux/amd64/v1", System::new("x86_64-linux")),
            // Not every machine of the system runs it.
            ("linux/amd64/v3", None),
            ("linux/riscv64", None),
        ] {
            assert_eq!(System::of_platform(&platform.parse().unwrap()), expected, "{platform}");
        }
        assert_eq!(System::of_machine("x86_64"), System::new("x86_64-linux"));
        assert_eq!(System::of_machine("riscv64"), None);
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_settings_that_are_safe(at in 0..GOOD.len(), byte in 0_u8..128, length in 0_usize..4) {
            let mut damaged = GOOD.as_bytes().to_vec();
            let end = (at + length).min(damaged.len());
            damaged.splice(at..end, [byte]);
            if let Ok(config) = Config::parse(std::str::from_utf8(&damaged).unwrap()) {
                let repository = config.repository(&"nixos-unstable".parse().unwrap());
                let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte);
                prop_assert!(repository.bytes().all(safe), "{}", repository);
                prop_assert!(!config.source.starts_with('-'));
            }
        }
    }
}
