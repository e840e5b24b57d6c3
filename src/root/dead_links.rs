//! Which links out of the store come to nothing in a container made of the root.
//! It must never ask the machine that exports: its files are not the root's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Made, Plan};

/// Directories that a container's runtime fills, or that programs fill while they run: what a link there
/// leads to need not be in the root.
const FILLED_LATER: [&str; 11] = ["dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var"];
/// Files that container runtimes write into every root.
const WRITTEN_LATER: [&str; 4] = ["etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];

/// What a link comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Something that the root has, or that a container will have.
    Something,
    Nothing,
    /// A place on its own way.
    Itself,
}

/// Where links lie whose targets are links out of the store, with the absolute paths to which these lead.
pub(super) type OutOfStore = BTreeMap<PathBuf, PathBuf>;

/// The places of the links that must be left out. Without them others may come to nothing: ask again.
pub(super) fn dead_links(plan: &Plan, out_of_store: &OutOfStore) -> Vec<(PathBuf, End)> {
    let ends = out_of_store.keys().map(|place| (place.clone(), end_of(place, plan, out_of_store)));
    ends.filter(|(_, end)| *end != End::Something).collect()
}

/// What the link at `place` comes to in a container.
fn end_of(place: &Path, plan: &Plan, out_of_store: &OutOfStore) -> End {
    let mut seen = vec![place];
    while let Some(outside) = seen.last().and_then(|place| out_of_store.get(*place)) {
        let Ok(outside) = outside.strip_prefix("/") else { return End::Nothing };
        if let Some(next) = outside.ancestors().find(|path| out_of_store.contains_key(*path)) {
            if seen.contains(&next) {
                return End::Itself;
            }
            seen.push(next);
            continue;
        }
        let by_plan = outside.ancestors().any(|path| match plan.made.get(path) {
            // Of what is below a link into the store nothing is known.
            Some(Made::Symlink(_)) => true,
            Some(Made::Directory { .. } | Made::File { .. }) => path == outside,
            None => false,
        });
        let first = outside.iter().next().unwrap_or_default();
        let later = outside.as_os_str().is_empty()
            || FILLED_LATER.iter().any(|filled| first == *filled)
            || WRITTEN_LATER.iter().any(|written| outside == Path::new(written));
        return if by_plan || later { End::Something } else { End::Nothing };
    }
    End::Something
}
