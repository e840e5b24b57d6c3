//! Which commit of nixpkgs a file of niv, npins, flakes or Nix itself pins.
//! It must never read a file, and never put anything of one into an error but names of inputs: the files may
//! hold access tokens.
//!
//! A file is known by its content, not by its name. The formats are described where they are read.

mod expression;
mod flake;
mod niv;
mod npins;
mod place;
pub mod tree;

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use place::{is_channel, release_directory};

/// A pin of nixpkgs, as far as its file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Which tool wrote the file.
    pub kind: Kind,
    /// 40 hexadecimal digits, or the first ones of them.
    pub revision: String,
    /// Only where the file states one with a channel's name.
    pub channel: Option<String>,
    /// Where a channel's release lies, whose `git-revision` is the whole revision.
    pub release: Option<String>,
    /// The SHA-256 of the NAR of its tree, where the revision is not whole.
    pub nar_hash: Option<[u8; 32]>,
}

impl Pin {
    /// Whether the revision has all its digits.
    pub fn is_whole(&self) -> bool {
        self.revision.len() == place::WHOLE
    }

    /// Whether both name the same commit, and no two channels.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let channels = self.channel.as_ref().zip(other.channel.as_ref());
        let (short, long) = if self.revision.len() < other.revision.len() { (self, other) } else { (other, self) };
        long.revision.starts_with(&short.revision) && channels.is_none_or(|(own, other)| own == other)
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
    /// A Nix expression with several, on these lines.
    Several(Vec<usize>),
}

impl Problem {
    /// Whether another file may do instead: this one is not about the input.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unknown | Self::NoInput(_) | Self::NoUrl)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is no file of niv, npins or flakes, and no Nix expression"),
            Self::Json(line, column) => write!(f, "it is not valid JSON at line {line}, column {column}"),
            Self::Shape(what) => write!(f, "{what}"),
            Self::Version(kind, version) => {
                write!(f, "version {version} of its format is not one that {} has", kind.name())
            }
            Self::NoInput(inputs) if inputs.is_empty() => f.write_str("it has no inputs"),
            Self::NoInput(inputs) => write!(f, "it has no such input, but `{}`", inputs.join("`, `")),
            Self::NoRevision => f.write_str("the input names no commit"),
            Self::Follows => f.write_str("the input follows another one that is not there, or itself"),
            Self::NoUrl => f.write_str("it has no literal URL `…/nixpkgs/archive/<40 hexadecimal digits>`"),
            Self::Several(lines) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                write!(f, "it has URLs of several commits of nixpkgs, on lines {}", lines.join(", "))
            }
        }
    }
}

impl std::error::Error for Problem {}

/// The values of an object, not parsed yet. Of a key that stands twice the last value counts.
type Object<'a> = HashMap<String, &'a RawValue>;

/// Reads what `source` pins as the input `name`.
pub fn read(source: &[u8], name: &str) -> Result<Pin, Problem> {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let begins_object = source.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !begins_object {
        return expression::read(source);
    }
    let object: Object<'_> = match serde_json::from_slice(source) {
        Ok(object) => object,
        // A function of Nix begins so too: `{ pkgs ? import … }:`.
        Err(error) => {
            return match expression::read(source) {
                Err(Problem::NoUrl | Problem::Unknown) => Err(Problem::Json(error.line(), error.column())),
                other => other,
            };
        }
    };
    if object.contains_key("nodes") || (object.contains_key("version") && object.contains_key("inputs")) {
        return flake::read(&object, name);
    }
    if object.contains_key("pins") && object.get("version").is_some_and(|version| is_number(version)) {
        return npins::read(&object, name);
    }
    niv::read(&object, name)
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
