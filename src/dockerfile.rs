//! Which images a Dockerfile or another text names, where each byte of them stands, and how they are changed.
//! It must never read or write a file, panic, or need more than time linear in the size, whatever the bytes.
//!
//! The way through, each step a pure function over bytes:
//!
//! ```text
//! bytes ──scanner::scan──▶ instructions ──images::read──▶ occurrences ──rewrite::judge──▶ edits ──▶ bytes
//!       ──text::read (files that are no Dockerfiles)───▶
//! ```
//!
//! [`scanner`], [`words`], [`heredoc`], [`expand`] and [`instructions`] are a port of the rules of `BuildKit`'s
//! `frontend/dockerfile/parser`, `shell` and `instructions` (read at v0.26 and newer): a file has the
//! instructions that `docker build` sees in it, no more and no fewer. What is added to them is where each
//! character stands in the file, through continuations, quotes, escapes and variables.

pub mod chars;
pub mod diff;
pub mod expand;
pub mod heredoc;
pub mod images;
pub mod instructions;
pub mod pattern;
pub mod reference;
pub mod rewrite;
pub mod scanner;
pub mod text;
pub mod words;

pub use chars::Char;

use std::fmt;

/// A place where an image is named, whatever the kind of file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The line on which its word begins, from 1.
    pub line: usize,
    /// What it is part of.
    pub place: Place,
    /// The build stage that it belongs to, as an index into [`images::Images::stages`].
    pub stage: Option<usize>,
    /// The reference after quotes, escapes and variables, with the place of each character in the file.
    pub text: Vec<Char>,
    /// The word as it stands in the file: offsets of its first byte and behind its last.
    pub span: std::ops::Range<usize>,
    /// What the word stands for.
    pub meaning: Meaning,
}

impl Occurrence {
    /// The reference as text.
    pub fn reference(&self) -> String {
        chars::to_text(self.text.iter().map(|char| char.value))
    }
}

/// What an [`Occurrence`] is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `FROM image`.
    From,
    /// `COPY --from=image`.
    Copy,
    /// `RUN --mount=…,from=image`.
    Mount,
    /// A token in a file that is no Dockerfile.
    Text,
}

/// What the word of an [`Occurrence`] stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// An image, as far as the text goes.
    Image,
    /// An earlier stage of the same file, by index.
    Stage(usize),
    /// No image at all: `scratch`.
    Scratch,
    /// Its variables cannot be followed, for this reason.
    Unreadable(expand::Problem),
}

/// Why `BuildKit` would not build a file, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Why.
    pub reason: Reason,
}

/// The reasons of [`Refused`], with the words of `BuildKit` where it has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A line of more than 65,535 bytes.
    LineTooLong,
    /// The `escape` directive names another character than `` ` `` or `\`.
    EscapeDirective,
    /// A directive stands twice.
    DirectiveTwice,
    /// There is no instruction at all.
    NoInstruction,
    /// The end of a heredoc does not come.
    Unterminated,
    /// The word after `<<` cannot be read.
    HeredocWord,
    /// A JSON array holds something else than strings.
    JsonArray,
    /// `ENV name` or `LABEL name` without a value.
    NoValue,
    /// A word of ENV or LABEL has no `=`.
    NoEqualsSign,
    /// FROM without an image, or with words behind it that are not `AS name`.
    FromArguments,
    /// The name of a stage has characters that it may not have.
    StageName,
    /// The image of a FROM is empty, whatever is given by `--build-arg`.
    BlankImage,
    /// The image of a FROM is not a reference.
    Reference,
    /// `ONBUILD FROM` or `ONBUILD MAINTAINER`.
    OnbuildTrigger,
    /// `ONBUILD ONBUILD`.
    OnbuildOnbuild,
    /// There is no FROM.
    NoFrom,
    /// An instruction other than ARG before the first FROM.
    NoStageYet,
    /// A word that is not an instruction.
    UnknownInstruction,
    /// A flag that the instruction does not have.
    UnknownFlag,
    /// A flag that may be given once is given twice.
    FlagTwice,
    /// A flag without the value that it needs.
    FlagWithoutValue,
    /// A flag with another value than it takes.
    FlagValue,
    /// The fields of `--mount` are not separated as in CSV.
    MountFields,
    /// `--mount=from=$NAME`.
    MountVariable,
    /// An instruction that needs an argument has none.
    NoArgument,
    /// ADD or COPY with a source only.
    NoDestination,
    /// ADD or COPY to a heredoc.
    HeredocDestination,
    /// `ENV =value` and the like.
    BlankName,
    /// SHELL takes a JSON array only.
    NotJson,
    /// `VOLUME ""`.
    BlankVolume,
    /// HEALTHCHECK takes NONE, or CMD with a command.
    Healthcheck,
    /// A variable has a form that is not known.
    Variable(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LineTooLong => "the line is longer than 65535 bytes",
            Self::EscapeDirective => "the `escape` directive must name ` or \\",
            Self::DirectiveTwice => "the same parser directive stands twice",
            Self::NoInstruction => "the file has no instructions",
            Self::Unterminated => "the heredoc has no end",
            Self::HeredocWord => "the word after `<<` cannot be read",
            Self::JsonArray => "a JSON array must be comprised of strings only",
            Self::NoValue => "ENV and LABEL need a name and a value",
            Self::NoEqualsSign => "a word of ENV or LABEL has no `=`",
            Self::FromArguments => "FROM requires either one or three arguments",
            Self::StageName => "the name of the build stage is invalid",
            Self::BlankImage => "the image is empty",
            Self::Reference => "invalid reference format",
            Self::OnbuildTrigger => "FROM and MAINTAINER are not allowed as ONBUILD triggers",
            Self::OnbuildOnbuild => "ONBUILD ONBUILD is not allowed",
            Self::NoFrom => "the file has no FROM",
            Self::NoStageYet => "only ARG may be before the first FROM",
            Self::UnknownInstruction => "unknown instruction",
            Self::UnknownFlag => "unknown flag",
            Self::FlagTwice => "the same flag is given twice",
            Self::FlagWithoutValue => "missing a value on a flag",
            Self::FlagValue => "a flag has an invalid value",
            Self::MountFields => "the fields of `--mount` cannot be read",
            Self::MountVariable => "`from` does not support variables, define a stage instead",
            Self::NoArgument => "the instruction needs an argument",
            Self::NoDestination => "ADD and COPY need at least two arguments",
            Self::HeredocDestination => "ADD and COPY cannot have a heredoc as their destination",
            Self::BlankName => "a name is blank",
            Self::NotJson => "SHELL requires its arguments in JSON form",
            Self::BlankVolume => "a volume is blank",
            Self::Healthcheck => "HEALTHCHECK takes NONE, or CMD with a command",
            Self::Variable(text) => text,
        })
    }
}
