//! What makes a closure large: each store path with its sizes and why it is there, and files that are there twice.
//! It must never look at a disk; equal files are found by [`crate::sink::identical`].

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::Graph;
use crate::store::{StoreDirectory, StorePath};

/// All that `--report` tells. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sizes {
    /// The NAR sizes of all paths together.
    pub nar_size: u64,
    /// How many paths there are.
    pub store_paths: usize,
    /// The largest first.
    pub paths: Vec<PathSizes>,
    /// Files that are there more than once.
    pub equal_files: EqualFiles,
}

/// One store path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathSizes {
    /// The whole path.
    pub path: String,
    /// What people call it: the name, and where two have the same the first characters of the hash part too.
    pub label: String,
    /// Its own NAR size.
    pub nar_size: u64,
    /// Of it and all that it needs.
    pub closure_size: u64,
    /// What would go with it.
    pub would_go: u64,
    /// The path without which this one would not be there, by its place in the list.
    pub kept_by: Option<usize>,
    /// Why it is there: the shortest chain of references from a profile to it, as places in the list.
    pub chain: Vec<usize>,
}

/// Files of equal content and mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EqualFiles {
    /// How many files could go: of each group all but one, an inode counted once.
    pub files: u64,
    /// Their bytes: what sharing would save.
    pub bytes: u64,
    /// Those that cost most.
    pub groups: Vec<EqualGroup>,
}

/// Files that are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EqualGroup {
    /// Of each of them.
    pub size: u64,
    /// What sharing them would save.
    pub bytes: u64,
    /// Where they are, relative to the store directory; a name for each inode.
    pub files: Vec<String>,
}

/// Characters of the hash part by which two paths of one name are told apart.
const HASH_SHOWN: usize = 7;

impl Sizes {
    /// Measures `graph`.
    pub fn new(graph: &Graph<'_>, store: &StoreDirectory, equal_files: EqualFiles) -> Self {
        let read = graph.registrations();
        let mut order: Vec<usize> = (0..read.len()).collect();
        order.sort_by_key(|&i| (Reverse(read[i].nar_size), read[i].path.name(), read[i].path.base_name()));
        let mut place = vec![0; read.len()];
        for (i, &position) in order.iter().enumerate() {
            place[position] = i;
        }
        let labels = labels(read.iter().map(|read| &read.path));
        let (closure_sizes, would_go) = (graph.closure_sizes(), graph.would_go());
        let (kept_by, chains) = (graph.kept_by(), graph.chains());
        let paths = order.iter().map(|&i| PathSizes {
            path: format!("{store}/{}", read[i].path),
            label: labels[i].clone(),
            nar_size: read[i].nar_size,
            closure_size: closure_sizes[i],
            would_go: would_go[i],
            kept_by: kept_by[i].map(|keeper| place[keeper]),
            chain: chains[i].iter().map(|&link| place[link]).collect(),
        });
        let paths: Vec<_> = paths.collect();
        let nar_size = paths.iter().map(|path| path.nar_size).sum();
        Self { nar_size, store_paths: paths.len(), paths, equal_files }
    }
}

/// What people call each of `paths`.
pub fn labels<'a>(paths: impl Iterator<Item = &'a StorePath> + Clone) -> Vec<String> {
    let mut count: HashMap<&str, u32> = HashMap::new();
    for path in paths.clone() {
        *count.entry(path.name()).or_default() += 1;
    }
    let label = |path: &StorePath| match count[path.name()] {
        1 => path.name().to_owned(),
        _ => format!("{}…-{}", &path.base_name()[..HASH_SHOWN], path.name()),
    };
    paths.map(label).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{WORLD, closure};
    use super::*;
    use std::path::Path;

    pub(crate) fn world() -> Sizes {
        let (registrations, roots) = closure(&WORLD);
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let files = ["b/x", "a/x"].map(str::to_owned).to_vec();
        let groups = vec![EqualGroup { size: 3, bytes: 3, files }];
        let equal_files = EqualFiles { files: 1, bytes: 3, groups };
        Sizes::new(&Graph::new(&registrations, &roots), &store, equal_files)
    }

    #[test]
    fn the_largest_come_first_and_chains_lead_through_the_list() {
        let sizes = world();
        let rows: Vec<_> = sizes
            .paths
            .iter()
            .map(|p| (p.label.as_str(), p.nar_size, p.closure_size, p.would_go, p.kept_by, p.chain.as_slice()))
            .collect();
        let expected = [
            ("python3-3.11.2", 100, 185, 130, Some(5), &[5, 0][..]),
            ("glibc-2.36", 50, 55, 55, Some(5), &[5, 3, 1]),
            ("openssl-3.0-lib", 30, 85, 30, Some(0), &[5, 0, 2]),
            ("hello-2.10", 10, 65, 10, Some(5), &[5, 3]),
            ("libidn2-2.3", 5, 5, 5, Some(1), &[5, 3, 1, 4]),
            ("env", 1, 196, 196, None, &[5]),
        ];
        assert_eq!(rows, expected);
        assert_eq!((sizes.nar_size, sizes.store_paths), (196, 6));
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let paths = ["1234567890abcdfghijklmnpqrsvwxyz-a", "7654321890abcdfghijklmnpqrsvwxyz-a"];
        let other = format!("{}-b", "0".repeat(32));
        let paths = [paths[0], paths[1], &other].map(|base| StorePath::parse(base).unwrap());
        assert_eq!(labels(paths.iter()), ["1234567…-a", "7654321…-a", "b"]);
    }
}
