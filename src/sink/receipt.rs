//! What an export did: counts that the engine keeps and the receipt that a user gets.
//! It must never print.

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde::Serialize;

use super::link::{self, Method};

/// How many names came to the root in one way, and the bytes of their inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Files and symlinks, by name.
    pub count: u64,
    /// Sizes of the regular files in bytes, each inode once.
    pub bytes: u64,
}

/// Why a method was not used for a number of files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The kernel's answer.
    Errno(i32),
    /// From a lower layer of overlayfs, or maybe one, a link is a copy with an fsync.
    Layer(link::Layer),
    /// A link would have another owner or group than everything else in the root.
    Owner,
    /// A link would have another mode or time than Nix gives.
    ModeOrTime,
}

/// Files in the store whose mode or owner was changed after Nix stored them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many names.
    pub count: u64,
    /// The first of them by its path, relative to the store directory, and what is changed.
    pub example: Option<(Vec<u8>, String)>,
}

impl Changed {
    /// Adds other names.
    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.example = [self.example.take(), other.example.clone()].into_iter().flatten().min();
    }
}

/// What one thread, or all of them, did in the store of the root.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Regular files, by name.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links, by name.
    pub symlinks: u64,
    /// Sizes of the regular files in bytes, each inode once.
    pub bytes: u64,
    /// Names whose inodes are the store's.
    pub hard_linked: Count,
    /// Names whose inodes share their data with the store's.
    pub reflinked: Count,
    /// Names whose inodes are copies.
    pub copied: Count,
    /// Inodes that became names of another, since content and mode are the same.
    pub deduplicated: Count,
    /// Files of the store that are not as Nix left them.
    pub changed: Changed,
    pub(super) refusals: BTreeMap<(Method, Reason), u64>,
}

impl Tally {
    /// Files, directories and symlinks together.
    pub(super) fn names(&self) -> u64 {
        self.files + self.directories + self.symlinks
    }

    pub(super) fn count(&mut self, method: Method, bytes: u64) {
        let count = match method {
            Method::HardLink => &mut self.hard_linked,
            Method::Reflink => &mut self.reflinked,
            Method::Copy => &mut self.copied,
        };
        count.count += 1;
        count.bytes += bytes;
        self.bytes += bytes;
    }

    pub(super) fn refuse(&mut self, method: Method, reason: Reason) {
        *self.refusals.entry((method, reason)).or_default() += 1;
    }

    /// Adds what another did.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.symlinks += other.symlinks;
        self.bytes += other.bytes;
        for (to, from) in [
            (&mut self.hard_linked, other.hard_linked),
            (&mut self.reflinked, other.reflinked),
            (&mut self.copied, other.copied),
            (&mut self.deduplicated, other.deduplicated),
        ] {
            to.count += from.count;
            to.bytes += from.bytes;
        }
        self.changed.add(&other.changed);
        for (key, count) in &other.refusals {
            *self.refusals.entry(key.clone()).or_default() += count;
        }
    }
}

/// A method that was not used, and why. Counts are of the calls that were refused: a refusal that holds
/// for whole file systems is met once by each thread at most, then nobody asks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What was refused.
    pub method: Method,
    /// Why, in words.
    pub reason: String,
    /// How many files (store paths, where they lie in a lower layer).
    pub count: u64,
}

/// One exported profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportedProfile {
    /// As the user named it.
    pub name: String,
    /// The store path that it leads to.
    pub store_path: String,
}

/// What `--json` prints. Counts are of the store of the root: what was made beside it (the profile link,
/// `/etc`, `/tmp`, …) is in `beside_store`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Where it was exported to.
    pub root: String,
    /// The profiles, in the order in which they were named.
    pub profiles: Vec<ExportedProfile>,
    /// How many store paths.
    pub store_paths: u64,
    /// Regular files, by name.
    pub files: u64,
    /// Directories, the store directory itself not counted.
    pub directories: u64,
    /// Symbolic links, by name.
    pub symlinks: u64,
    /// Sizes of the regular files in bytes, each inode once.
    pub bytes: u64,
    /// With `--layers` each of them, in order.
    pub layers: Vec<Layer>,
    /// What was made beside the store.
    pub beside_store: BesideStore,
    /// Names that are hard links to the store's inodes.
    pub hard_linked: Count,
    /// Whether there are hard links to a store that outlives the run, as it does not where an image is built: then a
    /// change to such a file is a change to the store.
    pub shares_store: bool,
    /// Names whose inodes share their data with the store's.
    pub reflinked: Count,
    /// Names whose inodes are copies; symlinks made anew are counted here, with 0 bytes.
    pub copied: Count,
    /// With `--dedup`: inodes of the closure that are names of another in the root, and what that saves.
    pub deduplicated: Count,
    /// What was not done as the mode would have it.
    pub refusals: Vec<Refusal>,
    /// Whether each path's NAR hash was recomputed and found right.
    pub verified: bool,
    /// What was left out of the root or decided by order.
    pub warnings: Vec<String>,
    /// Wall-clock time of the whole run.
    pub seconds: f64,
}

/// One of the roots of a layered export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The line of a Dockerfile that copies it.
    pub copy: String,
    /// How many store paths.
    pub store_paths: u64,
    /// Their NAR sizes together.
    pub nar_size: u64,
}

/// Counts of what was made beside the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BesideStore {
    /// Directories, from the root's own children down, the store directory included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Regular files.
    pub files: u64,
}

impl Tally {
    /// The refusals in words.
    pub fn refusals(&self) -> Vec<Refusal> {
        let words = |reason: &Reason| match reason {
            Reason::Errno(errno) => {
                let errno = Errno::from_raw(*errno);
                format!("{}: {}", errno_name(errno), super::description(errno))
            }
            Reason::Layer(link::Layer::Unknown) => {
                "overlayfs does not tell the layer of these store paths, and from a lower one a link is slow".to_owned()
            }
            Reason::Layer(_) => "store paths in a lower layer of overlayfs are faster copied than linked".to_owned(),
            Reason::Owner => {
                "files of another user or group are copied, so that all of the root has one owner".to_owned()
            }
            Reason::ModeOrTime => "files without the mode and time that Nix gives are copied".to_owned(),
        };
        self.refusals
            .iter()
            .map(|((method, reason), &count)| Refusal { method: *method, reason: words(reason), count })
            .collect()
    }
}

/// `EXDEV`, as the manual pages call it.
pub(super) fn errno_name(errno: Errno) -> String {
    format!("{errno:?}")
}
