//! The files in `/etc` that container runtimes read or replace: regular files in every root, never links.
//! It must never touch the disk: the contents are read with the profile.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::dead_links::OutOfStore;
use super::merge::{Merged, MergedTree};
use super::{Made, NamedTree, Plan, relative};

/// Which files, and with which mode.
///
/// containerd 2.2 looks users up through Go's `os.Root`, which refuses every absolute link: a container whose
/// `/etc/passwd` or `/etc/group` leads into the store does not start ("path escapes from parent"). Docker 29.5 goes
/// through `os.Root` for the places of mounts as well. Engines mount files of their own over the second group: over a link,
/// the mount would hide the file in the store that the link leads to. Programs that change users (`useradd`) replace
/// files, and refuse links. Scanners read `os-release`.
const FILES: &[(&str, u32)] = &[
    ("passwd", 0o644),
    ("group", 0o644),
    ("shadow", 0o600),
    ("gshadow", 0o600),
    ("subuid", 0o644),
    ("subgid", 0o644),
    ("hosts", 0o644),
    ("hostname", 0o644),
    ("resolv.conf", 0o644),
    ("localtime", 0o644),
    ("timezone", 0o644),
    ("machine-id", 0o444),
    ("mtab", 0o644),
    ("nsswitch.conf", 0o644),
    ("os-release", 0o644),
];

/// The names of those files in a profile's `etc`.
pub fn names() -> impl Iterator<Item = &'static OsStr> {
    FILES.iter().map(|(name, _)| OsStr::new(*name))
}

/// Puts the profile's text in the place of each link to one of those files. `etc` has the profiles' names.
pub(super) fn copy(plan: &mut Plan, etc: &MergedTree, profiles: &[NamedTree]) {
    let texts: BTreeMap<_, _> = profiles.iter().flat_map(|profile| &profile.texts).collect();
    for (name, mode) in FILES {
        let Some(Merged::Link { leads_to, .. }) = etc.get(OsStr::new(name)) else { continue };
        if let Some(text) = texts.get(leads_to) {
            let contents = (*text).clone();
            plan.made.insert(Path::new("etc").join(name), Made::File { contents, mode: *mode });
        }
    }
}

/// Makes those of them relative that lead out of the store, such as `mtab` to `/proc/mounts`.
pub(super) fn keep_inside(plan: &mut Plan, out_of_store: &OutOfStore) {
    for (name, _) in FILES {
        let place = Path::new("etc").join(name);
        if let (Some(Made::Symlink(target)), Some(outside)) = (plan.made.get_mut(&place), out_of_store.get(&place)) {
            *target = relative(&place, outside.strip_prefix("/").unwrap_or(outside));
        }
    }
}
