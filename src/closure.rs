//! A closure as a graph: who needs whom, what would go with whom, and why a store path is there.
//! It must never look at a disk: all it knows is what Nix has registered.

pub mod limits;
pub mod sizes;
pub mod treemap;

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::store::naming::Naming;
use crate::store::{Registration, StorePath};

/// A closure with its roots (the profiles). Store paths are named by their position in the registrations.
#[derive(Debug)]
pub struct Graph<'a> {
    registrations: &'a [Registration],
    /// Of each path, in the order of their names; without itself.
    references: Vec<Vec<usize>>,
    roots: Vec<usize>,
}

impl<'a> Graph<'a> {
    /// References and roots that are not among `registrations` are passed over; a closure has none.
    pub fn new(registrations: &'a [Registration], roots: &[StorePath]) -> Self {
        let place: HashMap<_, _> = registrations.iter().enumerate().map(|(i, read)| (&read.path, i)).collect();
        let references = registrations.iter().enumerate().map(|(i, read)| {
            let mut to: Vec<_> = read.references.iter().filter_map(|path| place.get(path).copied()).collect();
            to.retain(|&reference| reference != i);
            // Of two equally short chains the same is told everywhere, whatever the hashes of a build are.
            to.sort_by_key(|&reference| by_name(&registrations[reference].path));
            to
        });
        let mut known: Vec<usize> = Vec::new();
        for root in roots.iter().filter_map(|path| place.get(path).copied()) {
            if !known.contains(&root) {
                known.push(root);
            }
        }
        Self { registrations, references: references.collect(), roots: known }
    }

    /// What Nix has registered, in the order of the positions.
    pub fn registrations(&self) -> &'a [Registration] {
        self.registrations
    }

    /// Of each path, the sum of the NAR sizes of itself and all that it needs.
    pub fn closure_sizes(&self) -> Vec<u64> {
        let size = |start| self.reached(start, None).iter().map(|&reached| self.registrations[reached].nar_size).sum();
        (0..self.registrations.len()).map(size).collect()
    }

    /// Positions that are reached from `start` without `but`; `start` is the first.
    fn reached(&self, start: usize, but: Option<usize>) -> Vec<usize> {
        let mut seen = vec![false; self.registrations.len()];
        let mut found = Vec::new();
        let mut next = vec![start];
        while let Some(here) = next.pop() {
            if Some(here) != but && !std::mem::replace(&mut seen[here], true) {
                found.push(here);
                next.extend(&self.references[here]);
            }
        }
        found
    }

    /// Of each path, the one without which it would not be there (its immediate dominator), or `None` where only
    /// the roots together keep it, or it is a root.
    pub fn kept_by(&self) -> Vec<Option<usize>> {
        let order = self.roots_first();
        let mut place = vec![usize::MAX; self.registrations.len()];
        for (i, &node) in order.iter().enumerate() {
            place[node] = i + 1;
        }
        // Place 0 is before all roots. Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm".
        let mut needing = vec![Vec::new(); order.len() + 1];
        for &node in &order {
            for &reference in &self.references[node] {
                needing[place[reference]].push(place[node]);
            }
        }
        for &root in &self.roots {
            needing[place[root]].push(0);
        }
        let mut dominator: Vec<Option<usize>> = vec![None; order.len() + 1];
        dominator[0] = Some(0);
        let mut changed = true;
        while changed {
            changed = false;
            for node in 1..=order.len() {
                let known = needing[node].iter().copied().filter(|&from| dominator[from].is_some());
                let common = known.reduce(|mut a, mut b| {
                    while a != b {
                        if a > b {
                            a = dominator[a].unwrap_or(0);
                        } else {
                            b = dominator[b].unwrap_or(0);
                        }
                    }
                    a
                });
                if common.is_some() && dominator[node] != common {
                    dominator[node] = common;
                    changed = true;
                }
            }
        }
        let mut kept_by = vec![None; self.registrations.len()];
        for (i, &node) in order.iter().enumerate() {
            kept_by[node] = dominator[i + 1].filter(|&place| place > 0).map(|place| order[place - 1]);
        }
        kept_by
    }

    /// Of each path, the NAR sizes of what would go from the closure if it went: itself, and what only it keeps.
    pub fn would_go(&self) -> Vec<u64> {
        let kept_by = self.kept_by();
        let mut sizes: Vec<u64> = self.registrations.iter().map(|read| read.nar_size).collect();
        // Who keeps something comes before it.
        for &node in self.roots_first().iter().rev() {
            if let Some(keeper) = kept_by[node] {
                sizes[keeper] += sizes[node];
            }
        }
        sizes
    }

    /// All that the roots reach, in reverse postorder: each before what it refers to, where there is no cycle.
    fn roots_first(&self) -> Vec<usize> {
        let mut seen = vec![false; self.registrations.len()];
        let mut postorder = Vec::with_capacity(self.registrations.len());
        let mut steps: Vec<_> = self.roots.iter().map(|&root| (root, false)).collect();
        while let Some((here, is_done)) = steps.pop() {
            if is_done {
                postorder.push(here);
            } else if !std::mem::replace(&mut seen[here], true) {
                steps.push((here, true));
                steps.extend(self.references[here].iter().filter(|&&next| !seen[next]).map(|&next| (next, false)));
            }
        }
        postorder.reverse();
        postorder
    }

    /// Of each path, the one through which the shortest chain of references comes to it; `None` for roots.
    fn reached_by(&self) -> Vec<Option<usize>> {
        let mut by = vec![None; self.registrations.len()];
        let mut seen = vec![false; self.registrations.len()];
        let mut next: VecDeque<_> = self.roots.iter().copied().collect();
        for &root in &self.roots {
            seen[root] = true;
        }
        while let Some(here) = next.pop_front() {
            for &reference in &self.references[here] {
                if !std::mem::replace(&mut seen[reference], true) {
                    by[reference] = Some(here);
                    next.push_back(reference);
                }
            }
        }
        by
    }

    /// Of each path, why it is there: the shortest chain of references from a root to it, both included.
    pub fn chains(&self) -> Vec<Vec<usize>> {
        let by = self.reached_by();
        let chain = |end| {
            let mut chain: Vec<usize> = std::iter::successors(Some(end), |&here| by[here]).collect();
            chain.reverse();
            chain
        };
        (0..self.registrations.len()).map(chain).collect()
    }

    /// Gives what is known of some paths to all that they need, where no two of them know different things.
    pub fn spread(&self, known: impl Iterator<Item = (StorePath, String)>) -> BTreeMap<StorePath, String> {
        let mut spread: BTreeMap<usize, Option<String>> = BTreeMap::new();
        for (path, fact) in known {
            let Some(start) = self.registrations.iter().position(|read| read.path == path) else { continue };
            for reached in self.reached(start, None) {
                let there = spread.entry(reached).or_insert_with(|| Some(fact.clone()));
                if there.as_ref() != Some(&fact) {
                    *there = None;
                }
            }
        }
        let named =
            |(position, fact): (usize, Option<String>)| Some((self.registrations[position].path.clone(), fact?));
        spread.into_iter().filter_map(named).collect()
    }

    /// Those of which `wanted` is the store path, its base name, its name, or its name without the version.
    pub fn named(&self, wanted: &str) -> Vec<usize> {
        let base = wanted.trim_end_matches('/').rsplit('/').next().unwrap_or(wanted);
        let has = |is: &dyn Fn(&StorePath) -> bool| -> Vec<usize> {
            let paths = self.registrations.iter().enumerate();
            paths.filter(|(_, read)| is(&read.path)).map(|(position, _)| position).collect()
        };
        let is_path = wanted.contains('/');
        let mut found = has(&|path| path.base_name() == base);
        if found.is_empty() && !is_path {
            found = has(&|path| path.name() == base);
        }
        if found.is_empty() && !is_path {
            let paths = self.registrations.iter().enumerate();
            let is_of_package = |read: &Registration| Naming::of(&read.path, read.deriver.as_ref()).package == base;
            found = paths.filter(|(_, read)| is_of_package(read)).map(|(position, _)| position).collect();
        }
        found.sort_by_key(|&position| by_name(&self.registrations[position].path));
        found
    }
}

/// An order of store paths that does not begin with the hash part.
fn by_name(path: &StorePath) -> (String, String) {
    (path.name().to_owned(), path.base_name().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Registrations from rows of name, NAR size and the positions of references; the first is the root.
    pub(crate) fn closure(rows: &[(&str, u64, &[usize])]) -> (Vec<Registration>, Vec<StorePath>) {
        let path = |i: usize| StorePath::parse(&format!("{i:0>32}-{}", rows[i].0)).unwrap();
        let registrations: Vec<_> = (0..rows.len())
            .map(|i| Registration {
                path: path(i),
                nar_hash: format!("{i:0>64x}"),
                nar_size: rows[i].1,
                deriver: None,
                references: rows[i].2.iter().map(|&reference| path(reference)).collect(),
            })
            .collect();
        (registrations, vec![path(0)])
    }

    /// A profile of two programs that share a library.
    pub(crate) const WORLD: [(&str, u64, &[usize]); 6] = [
        ("env", 1, &[1, 2]),
        ("python3-3.11.2", 100, &[3, 4, 1]),
        ("hello-2.10", 10, &[4]),
        ("openssl-3.0-lib", 30, &[4]),
        ("glibc-2.36", 50, &[5, 4]),
        ("libidn2-2.3", 5, &[]),
    ];

    #[test]
    fn sizes_and_chains_of_a_small_closure() {
        let (registrations, roots) = closure(&WORLD);
        let graph = Graph::new(&registrations, &roots);
        assert_eq!(graph.closure_sizes(), [196, 185, 65, 85, 55, 5]);
        assert_eq!(graph.would_go(), [196, 130, 10, 30, 55, 5]);
        assert_eq!(graph.kept_by(), [None, Some(0), Some(0), Some(1), Some(0), Some(4)]);
        let chains: [&[usize]; 6] = [&[0], &[0, 1], &[0, 2], &[0, 1, 3], &[0, 2, 4], &[0, 2, 4, 5]];
        assert_eq!(graph.chains(), chains);
    }

    #[test]
    fn with_two_roots_what_both_need_is_kept_by_neither() {
        let (registrations, _) = closure(&WORLD);
        let roots = [1, 2].map(|i: usize| registrations[i].path.clone());
        let graph = Graph::new(&registrations, &roots);
        assert_eq!(graph.kept_by(), [None, None, None, Some(1), None, Some(4)]);
        assert_eq!(graph.would_go()[1..], [130, 10, 30, 55, 5]);
        assert_eq!(graph.chains()[4], [1, 4]);
    }

    #[test]
    fn a_path_is_found_by_each_of_its_names() {
        let rows: [(&str, u64, &[usize]); 4] =
            [("env", 1, &[1, 2, 3]), ("hello-2.10", 1, &[]), ("hello-2.9", 1, &[]), ("hello", 1, &[])];
        let (registrations, roots) = closure(&rows);
        let graph = Graph::new(&registrations, &roots);
        let zeros = "0".repeat(31);
        for (wanted, expected) in [
            (format!("/nix/store/{zeros}2-hello-2.9"), &[2][..]),
            (format!("/nix/store/{zeros}2-hello-2.9/"), &[2]),
            (format!("{zeros}2-hello-2.9"), &[2]),
            ("hello-2.10".into(), &[1]),
            ("hello".into(), &[3]),
            ("/hello".into(), &[]),
            ("hell".into(), &[]),
            (String::new(), &[]),
            ("env".into(), &[0]),
        ] {
            assert_eq!(graph.named(&wanted), expected, "{wanted}");
        }
        let (registrations, roots) = closure(&[("env", 1, &[1, 2]), ("hello-2.10", 1, &[]), ("hello-2.9", 1, &[])]);
        assert_eq!(Graph::new(&registrations, &roots).named("hello"), [1, 2]);
    }

    #[test]
    fn what_is_known_is_known_of_all_that_is_needed_unless_there_are_two_answers() {
        let (registrations, roots) = closure(&WORLD);
        let graph = Graph::new(&registrations, &roots);
        let known = |facts: &[(usize, &str)]| {
            let facts = facts.iter().map(|&(i, fact)| (registrations[i].path.clone(), fact.to_owned()));
            let spread = graph.spread(facts);
            spread.into_iter().map(|(path, fact)| format!("{} {fact}", path.name())).collect::<Vec<_>>()
        };
        assert_eq!(known(&[(4, "a")]), ["glibc-2.36 a", "libidn2-2.3 a"]);
        assert_eq!(known(&[(2, "a"), (1, "b")]), ["python3-3.11.2 b", "hello-2.10 a", "openssl-3.0-lib b"]);
        assert_eq!(known(&[(2, "a"), (4, "a")]).len(), 3);
        assert_eq!(known(&[]), [""; 0]);
    }

    fn random() -> impl Strategy<Value = Vec<Vec<usize>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..25).prop_map(|rows| {
            let count = rows.len();
            rows.into_iter().map(|row| row.into_iter().map(|to| to.index(count)).collect()).collect()
        })
    }

    proptest! {
        /// Cycles too, which Nix does not have: whatever is registered is only text.
        #[test]
        fn what_would_go_is_what_is_reached_only_through_it(references in random()) {
            let rows: Vec<(&str, u64, &[usize])> =
                references.iter().enumerate().map(|(i, to)| ("x", 1 << i, to.as_slice())).collect();
            let (registrations, roots) = closure(&rows);
            let graph = Graph::new(&registrations, &roots);
            let (would_go, kept_by) = (graph.would_go(), graph.kept_by());
            let all = graph.reached(0, None);
            for &node in &all {
                let without = graph.reached(0, Some(node));
                let gone: u64 = all.iter().filter(|other| !without.contains(other)).map(|&other| 1 << other).sum();
                prop_assert_eq!(would_go[node], gone, "path {}", node);
            }
            for &node in all.iter().filter(|&&node| node != 0) {
                let keeper = kept_by[node].unwrap();
                prop_assert!(!graph.reached(0, Some(keeper)).contains(&node));
            }
        }

        #[test]
        fn a_chain_is_one_of_references_and_none_is_shorter(references in random()) {
            let rows: Vec<(&str, u64, &[usize])> =
                references.iter().map(|to| ("x", 1, to.as_slice())).collect();
            let (registrations, roots) = closure(&rows);
            let graph = Graph::new(&registrations, &roots);
            let mut near = vec![0];
            let mut steps = 1;
            let chains = graph.chains();
            while near.len() < graph.reached(0, None).len() {
                let next: Vec<_> = near.iter().flat_map(|&node| references[node].clone()).collect();
                for node in next {
                    if !near.contains(&node) {
                        near.push(node);
                        prop_assert_eq!(chains[node].len(), steps + 1);
                        for pair in chains[node].windows(2) {
                            prop_assert!(references[pair[0]].contains(&pair[1]));
                        }
                        prop_assert_eq!(chains[node][0], 0);
                    }
                }
                steps += 1;
            }
        }
    }
}
