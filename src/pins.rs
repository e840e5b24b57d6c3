//! Which commit of nixpkgs a file of niv, npins, flakes or Nix itself pins.
//! It must never read a file, and never put anything of one into an error but the names of inputs and repositories:
//! the files may hold access tokens.
//!
//! A file is known by its content, not by its name. The formats are described where they are read.

mod expression;
mod flake;
mod niv;
mod npins;
mod origin;
pub mod tree;
mod url;

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::nixpkgs::{Channel, Revision};
pub use origin::Origin;

/// A pin of nixpkgs, as far as its file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Which tool wrote the file.
    pub kind: Kind,
    /// The commit, or its first digits.
    pub revision: Revision,
    /// The channel, if the file names one.
    pub channel: Option<Channel>,
    /// The URL of a channel's release, in which `git-revision` has the whole commit.
    pub release: Option<String>,
    /// The SHA-256 of the NAR of its tree, if the commit is not whole.
    pub nar_hash: Option<[u8; 32]>,
    /// The repository that the commit belongs to.
    pub origin: Origin,
    /// The pin of nixpkgs itself, if this is a flake that adds patches to it and has it as an input.
    pub upstream: Option<Box<Pin>>,
}

impl Pin {
    /// Whether both name the same commit, and no two channels.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let channels = self.channel.as_ref().zip(other.channel.as_ref());
        let (own, theirs) = (self.revision.digits(), other.revision.digits());
        (own.starts_with(theirs) || theirs.starts_with(own)) && channels.is_none_or(|(own, other)| own == other)
    }
}

/// Who writes a file with pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// niv's `nix/sources.json`.
    Niv,
    /// npins' `npins/sources.json`.
    Npins,
    /// `flake.lock`.
    Flake,
    /// A Nix expression with a literal URL.
    Expression,
}

impl Kind {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Niv => "niv",
            Self::Npins => "npins",
            Self::Flake => "flake",
            Self::Expression => "nix",
        }
    }
}

/// Why a file gives no pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is none of the formats.
    Unknown,
    /// It is the file of another tool, which is not read.
    OtherTool(&'static str),
    /// It is broken JSON, at this line and column.
    Json(usize, usize),
    /// What stands at the named place is not what its format has there.
    Shape(&'static str),
    /// A format version that its own tool refuses.
    Version(Kind, String),
    /// It has no such input; these are the ones it has.
    NoInput(Vec<String>),
    /// The input is there, but nothing in it names a commit.
    NoRevision,
    /// The inputs of a lock file follow each other in a circle, or lead nowhere.
    Follows,
    /// A Nix expression without a literal URL of nixpkgs.
    NoUrl,
    /// A Nix expression that fetches nixpkgs in a way that is not read.
    NotRead(&'static str),
    /// A Nix expression with several, on these lines.
    Several(Vec<usize>),
}

impl Problem {
    /// Whether another file may have the pin: this one does not have the input.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unknown | Self::OtherTool(_) | Self::NoInput(_) | Self::NoUrl | Self::NotRead(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("it is not a file of niv or npins, not a `flake.lock`, and not a Nix expression")
            }
            Self::OtherTool(tool) => {
                write!(f, "it is {tool}; only files of niv and npins, `flake.lock` and Nix expressions are read")
            }
            Self::Json(line, column) => write!(f, "it is not valid JSON at line {line}, column {column}"),
            Self::Shape(what) => write!(f, "{what}"),
            Self::Version(kind, version) => {
                write!(f, "version {version} of its format is not one that {} has", kind.name())
            }
            Self::NoInput(inputs) if inputs.is_empty() => f.write_str("it has no inputs"),
            Self::NoInput(inputs) => {
                let names = inputs.iter().map(|name| if name.is_empty() { "\"\"" } else { name.as_str() });
                write!(f, "it has no such input, but `{}`", names.collect::<Vec<_>>().join("`, `"))
            }
            Self::NoRevision => f.write_str("the input names no commit"),
            Self::Follows => f.write_str("the input follows another one that is not there, or itself"),
            Self::NoUrl => write!(f, "it has no literal URL {URL}"),
            Self::NotRead(way) => write!(f, "it fetches nixpkgs by {way}; only a literal URL {URL} is read"),
            Self::Several(lines) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                write!(f, "it has URLs of several commits of nixpkgs, on lines {}", lines.join(", "))
            }
        }
    }
}

impl std::error::Error for Problem {}

/// Of so many inputs an error says whether they are nixpkgs.
const MOST_INPUTS: usize = 200;
/// What is read in a Nix expression.
const URL: &str = "`…/nixpkgs/archive/<40 hexadecimal digits>`";

/// The values of an object, not parsed yet. Of a key that stands twice the last value counts.
type Object<'a> = HashMap<String, &'a RawValue>;

/// Reads what `source` pins as the input `name`.
pub fn read(source: &[u8], name: &str) -> Result<Pin, Problem> {
    match parse(source)? {
        None => expression::read(source),
        Some((Format::Flake, object)) => flake::read(&object, name),
        Some((Format::Npins, object)) => npins::read(&object, name),
        Some((Format::Niv, object)) => niv::read(&object, name),
    }
}

/// The names of the inputs of `source` that may be nixpkgs, sorted, for an error.
pub fn of_nixpkgs(source: &[u8]) -> Vec<String> {
    // No input has this name.
    let Err(Problem::NoInput(mut names)) = read(source, "\0") else { return Vec::new() };
    names.truncate(MOST_INPUTS);
    let is_nixpkgs = |pin: Pin| pin.origin.may_be_nixpkgs() || pin.upstream.is_some();
    names.retain(|name| read(source, name).is_ok_and(is_nixpkgs));
    names
}

/// The formats that are JSON.
#[derive(Clone, Copy)]
enum Format {
    Flake,
    Npins,
    Niv,
}

/// Parses JSON and tells whose it is; `None` for a Nix expression.
fn parse(source: &[u8]) -> Result<Option<(Format, Object<'_>)>, Problem> {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    if source.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    let object: Object<'_> = match serde_json::from_slice(source) {
        Ok(object) => object,
        Err(_) if !begins_as_json(source) => return Ok(None),
        Err(error) => return Err(Problem::Json(error.line(), error.column())),
    };
    if object.contains_key("nodes") || (object.contains_key("version") && object.contains_key("inputs")) {
        return Ok(Some((Format::Flake, object)));
    }
    if object.contains_key("pins") && object.get("version").is_some_and(|version| is_number(version)) {
        return Ok(Some((Format::Npins, object)));
    }
    match other_tool(&object) {
        Some(tool) => Err(Problem::OtherTool(tool)),
        None => Ok(Some((Format::Niv, object))),
    }
}

/// Whether a text that begins with `{` goes on as JSON does. Functions and sets of Nix begin with `{` too:
/// `{ pkgs ? …`, `{ }:`, `{ inputs.x = …`, `{ "a" = …`.
fn begins_as_json(source: &[u8]) -> bool {
    let Some(rest) = source.trim_ascii_start().strip_prefix(b"{") else { return false };
    let rest = rest.trim_ascii_start();
    let Some(key) = rest.strip_prefix(b"\"") else { return rest.is_empty() };
    let end = key.iter().position(|&byte| byte == b'"');
    !end.is_some_and(|end| matches!(key[end + 1..].trim_ascii_start().first(), Some(b'=' | b'.')))
}

/// The tool that writes such a file, if it is one that is known but not read.
fn other_tool(object: &Object<'_>) -> Option<&'static str> {
    let has = |key: &str| object.contains_key(key);
    let is_string = |key: &str| object.get(key).is_some_and(|value| value.get().starts_with('"'));
    let is_object = |value: &&RawValue| value.get().starts_with('{');
    let has_source = |value: &&RawValue| {
        part::<Object<'_>>(value, "").is_ok_and(|entry| entry.contains_key("src") && entry.contains_key("version"))
    };
    if has("lockfile_version") && has("packages") {
        Some("a `devbox.lock` of Devbox")
    } else if has("version") && object.get("sources").is_some_and(is_object) {
        Some("a `lon.lock` of lon")
    } else if is_string("rev") && (is_string("owner") || is_string("url")) {
        Some("a single source, as `nix-prefetch-git` and others write it")
    } else if !object.is_empty() && object.values().all(has_source) {
        Some("a `generated.json` of nvfetcher")
    } else {
        None
    }
}

fn is_number(value: &RawValue) -> bool {
    value.get().parse::<f64>().is_ok()
}

/// Parses a part of a file. What is wrong with it is not repeated.
fn part<'a, T: Deserialize<'a>>(value: &'a RawValue, what: &'static str) -> Result<T, Problem> {
    serde_json::from_str(value.get()).map_err(|_| Problem::Shape(what))
}

/// A string, and nothing where there is none or something else.
#[derive(Clone, Debug, Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        }))
    }
}

impl Text {
    fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// The names of an object's entries, sorted, for an error.
fn names(object: &Object<'_>) -> Vec<String> {
    let mut names: Vec<_> = object.keys().map(crate::failure::shown).collect();
    names.sort();
    names
}
