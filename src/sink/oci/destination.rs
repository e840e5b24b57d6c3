//! Where an image goes: what OUT names, and whether it may be written.
//! It must never write there: it looks, and clears away what dead runs left.

use std::fs::File;
use std::path::Path;

use nix::unistd::geteuid;

use super::super::draft::remove_left_overs;
use super::super::target::Target;
use super::layout::Layout;
use crate::failure::{Usage, shown};
use crate::interrupt::Interrupt;
use crate::store::StoreDirectory;

/// Endings of compressed archives, without the dot before them.
const COMPRESSED: &[&str] = &[
    "tar.gz", "tgz", "tar.zst", "tar.zstd", "tzst", "tar.xz", "txz", "tar.bz2", "tbz", "tbz2", "tar.lz4", "tar.lzma",
    "tar.lz", "tar.br", "tar.z", "tar.7z",
];

/// What OUT is, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A directory.
    Layout,
    /// A file.
    Archive,
    /// An archive on standard output.
    Stdout,
}

impl Form {
    /// What `out` names.
    pub fn of(out: &Path) -> Result<Self, Usage> {
        if out == Path::new("-") || out == Path::new("/dev/stdout") {
            return Ok(Self::Stdout);
        }
        let name = shown(out.file_name().unwrap_or_default()).to_ascii_lowercase();
        let ends_in = |ending: &&&str| name.strip_suffix(**ending).is_some_and(|stem| stem.ends_with('.'));
        if let Some(ending) = COMPRESSED.iter().find(ends_in) {
            return Err(Usage(format!(
                "`{}`: an archive cannot be compressed as a whole, because its layers are compressed already \
                 (`--compression`); use the ending `.tar` instead of `.{ending}`",
                shown(out)
            )));
        }
        Ok(if ends_in(&&"tar") { Self::Archive } else { Self::Layout })
    }
}

/// Where an image goes.
#[derive(Debug)]
pub enum Destination {
    /// A layout that exists, or a directory that is made one.
    Layout(Target),
    /// A tar archive with a layout and Docker's own table of contents.
    Archive(Target),
    /// Such an archive, which is made in the directory of temporary files and then written to standard output.
    Stdout {
        /// Where it is made.
        temporary: Target,
        /// Standard output.
        out: File,
    },
}

impl Destination {
    /// Looks at what `out` names. Nothing is written to `stdout` before the image is complete.
    pub fn inspect(out: &Path, store: &StoreDirectory, stdout: Option<File>) -> anyhow::Result<Self> {
        Ok(match (Form::of(out)?, stdout) {
            (Form::Stdout, Some(out)) => {
                // With the user's number, so that other users' runs are not looked at.
                let temporary = std::env::temp_dir().join(format!("nixkit-export-image-{}", geteuid()));
                Self::Stdout { temporary: Target::inspect(&temporary, store)?, out }
            }
            (Form::Archive, _) => Self::Archive(Target::inspect_file(out, store)?),
            _ => Self::Layout(Target::inspect(out, store)?),
        })
    }

    /// The place itself, or where the archive for standard output is made.
    pub fn target(&self) -> &Target {
        let (Self::Layout(target) | Self::Archive(target) | Self::Stdout { temporary: target, .. }) = self;
        target
    }

    /// Clears away what dead runs left there, and looks whether an image can be added to what is there. Returns a
    /// sentence for each folder that had to stay.
    pub fn prepare(&self, interrupt: &Interrupt) -> anyhow::Result<Vec<String>> {
        let stayed = remove_left_overs(self.target(), interrupt)?;
        if let Self::Layout(target) = self {
            Layout::find(target)?;
        }
        Ok(stayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_out_is() {
        for (out, expected) in [
            ("-", Some(Form::Stdout)),
            ("/dev/stdout", Some(Form::Stdout)),
            ("./-", Some(Form::Layout)),
            ("x.tar", Some(Form::Archive)),
            ("/a/x.TAR", Some(Form::Archive)),
            ("a.tar/x", Some(Form::Layout)),
            ("x", Some(Form::Layout)),
            ("tar", Some(Form::Layout)),
            ("x.tar.d", Some(Form::Layout)),
            ("gz", Some(Form::Layout)),
            ("x.tar.gz", None),
            ("x.TAR.GZ", None),
            ("x.tgz", None),
            ("x.tar.zst", None),
            ("x.tar.xz", None),
            ("x.tar.bz2", None),
        ] {
            assert_eq!(Form::of(Path::new(out)).ok(), expected, "{out}");
        }
    }
}
