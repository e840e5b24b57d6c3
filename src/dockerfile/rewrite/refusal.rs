//! Why a file is not changed.
//! It must never print: the text is for [`crate::report`].

use std::fmt;

use crate::dockerfile::Refused;
use crate::dockerfile::expand::Problem;
use crate::dockerfile::text::Unclear;
use crate::failure::shown;

/// Why a file is not changed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `docker build` would refuse it too.
    File(Refused),
    /// A name in a text that begins as a base image's, but is not one with a tag.
    Unclear(Unclear),
    /// It names none of the base images.
    NoCandidate {
        /// How they begin.
        wanted: String,
        /// The images that it names, with their lines.
        images: Vec<(usize, String)>,
    },
    /// It has no such stage.
    NoStage {
        /// The one that was asked for.
        name: String,
        /// The ones that there are.
        stages: Vec<String>,
    },
    /// Its base images are of several channels.
    Channels {
        /// The line of the first one.
        line: usize,
        /// All of them.
        channels: Vec<String>,
    },
    /// A digest would stay behind a new tag.
    Digest {
        /// Where.
        line: usize,
        /// The reference.
        reference: String,
    },
    /// A part of the reference comes from a variable whose value is not in the file.
    Variable {
        /// Where.
        line: usize,
        /// The reference.
        reference: String,
    },
    /// A part of the reference does not stand in the file in one piece.
    Composed {
        /// Where.
        line: usize,
        /// The reference.
        reference: String,
    },
    /// The variables of the reference cannot be followed.
    Unreadable {
        /// Where.
        line: usize,
        /// The reference.
        reference: String,
        /// Why.
        problem: Problem,
    },
    /// What would change is part of another image too.
    Shared {
        /// Where the base image is.
        line: usize,
        /// Where the other image is.
        other_line: usize,
        /// The other image.
        other: String,
    },
    /// A stage that has no image cannot be converted.
    NoImage {
        /// Where.
        line: usize,
        /// What it builds on.
        reference: String,
    },
    /// A conversion needs a channel, and there is none.
    NoChannel {
        /// Where.
        line: usize,
    },
    /// Only the first digits of the commit are known.
    Incomplete {
        /// Where.
        line: usize,
        /// The digits.
        digits: String,
    },
    /// The changes do not fit together.
    Overlap,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::File(refused)
    }
}

impl From<Unclear> for Refusal {
    fn from(unclear: Unclear) -> Self {
        Self::Unclear(unclear)
    }
}

impl Refusal {
    /// The line that it is about, if it is about one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::File(refused) => Some(refused.line).filter(|&line| line > 0),
            Self::Unclear(unclear) => Some(unclear.line),
            Self::NoCandidate { .. } | Self::NoStage { .. } | Self::Overlap => None,
            Self::Channels { line, .. }
            | Self::Digest { line, .. }
            | Self::Variable { line, .. }
            | Self::Composed { line, .. }
            | Self::Unreadable { line, .. }
            | Self::Shared { line, .. }
            | Self::NoImage { line, .. }
            | Self::NoChannel { line }
            | Self::Incomplete { line, .. } => Some(*line),
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::File(_) | Self::Overlap => return None,
            Self::Unclear(_) => "write the image with its channel and tag in one piece, or make the line a comment",
            Self::NoCandidate { .. } => {
                "`--image PREFIX` names the base image, `--convert --stage NAME` puts it in the place of another image, \
                 and `--if-present` skips such files"
            }
            Self::NoStage { .. } => "`--stage` takes a name behind AS, or a number from 0",
            Self::Channels { .. } => "`--stage NAME` says which of them follows this pin, or `--channel NAME` sets all",
            Self::Digest { .. } => "`--drop-digest` removes it, `--digest sha256:…` replaces it",
            Self::Variable { .. } | Self::Composed { .. } | Self::Unreadable { .. } => {
                "write the channel and the tag out in one piece, there or in the default of an ARG above the first FROM"
            }
            Self::Shared { .. } => "give the base image an ARG of its own",
            Self::NoImage { .. } => "name a stage that begins with an image",
            Self::NoChannel { .. } => "name it with `--channel NAME`",
            Self::Incomplete { .. } => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.iter().map(shown).collect::<Vec<_>>().join("`, `");
        match self {
            Self::File(refused) => write!(f, "docker build refuses it: {}", refused.reason),
            Self::Unclear(unclear) => {
                write!(f, "`{}` cannot be read as an image with a tag", shown(&unclear.name))
            }
            Self::NoCandidate { wanted, images } => {
                write!(f, "it has no image whose name begins with `{}`", shown(wanted))?;
                match images.as_slice() {
                    [] => f.write_str(""),
                    [(line, image), rest @ ..] => {
                        write!(f, "; `{}` is on line {line}", shown(image))?;
                        if rest.is_empty() { Ok(()) } else { write!(f, ", and {} more", rest.len()) }
                    }
                }
            }
            Self::NoStage { name, stages } if stages.is_empty() => {
                write!(f, "it has no stage `{}`, and none with a name", shown(name))
            }
            Self::NoStage { name, stages } => write!(f, "it has no stage `{}`, but `{}`", shown(name), list(stages)),
            Self::Channels { channels, .. } => {
                write!(f, "the base images are of several channels: `{}`", list(channels))
            }
            Self::Digest { reference, .. } => {
                write!(f, "`{}` has a digest, which would win over a new tag", shown(reference))
            }
            Self::Variable { reference, .. } => {
                write!(f, "a part of `{}` comes from a variable that has no value here", shown(reference))
            }
            Self::Composed { reference, .. } => {
                write!(f, "the part of `{}` that must change is not in the file in one piece", shown(reference))
            }
            Self::Unreadable { reference, problem, .. } => {
                write!(f, "`{}` cannot be followed: {problem}", shown(reference))
            }
            Self::Shared { other_line, other, .. } => {
                write!(f, "`{}` on line {other_line} uses the same ARG", shown(other))
            }
            Self::NoImage { reference, .. } => {
                write!(f, "the stage begins with `{}`, which is not an image", shown(reference))
            }
            Self::NoChannel { .. } => f.write_str("the new image needs a channel, and the pin names none"),
            Self::Incomplete { digits, .. } => {
                write!(f, "the pin holds only the first digits of the commit, `{digits}`")
            }
            Self::Overlap => f.write_str("its changes do not fit together"),
        }
    }
}

impl std::error::Error for Refusal {}
