//! `--report` as a table, `--why`, and why a limit was broken: what makes a closure large, for a terminal.
//! It must never measure anything itself: [`crate::closure`] does.

use indicatif::{DecimalBytes, HumanCount};

use crate::closure::Graph;
use crate::closure::limits::Violation;
use crate::closure::sizes::{EqualFiles, PathSizes, Sizes, labels};
use crate::store::StoreDirectory;

/// Between two links of a chain.
const LEADS_TO: &str = " -> ";
/// Groups of equal files that the table names; the JSON has more.
const GROUPS_SHOWN: usize = 5;
/// Names of a group that it names.
const FILES_SHOWN: usize = 3;

fn bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// A line for each store path, the largest first, then the totals and what is there more than once.
pub fn table(sizes: &Sizes) -> String {
    let row = |path: &PathSizes| {
        let [own, closure, would_go] = [path.nar_size, path.closure_size, path.would_go].map(bytes);
        [own, closure, would_go, path.label.clone(), why(sizes, path)]
    };
    let heading = ["SIZE", "CLOSURE", "WOULD GO", "STORE PATH", "WHY"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading).chain(sizes.paths.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [own_width, closure_width, go_width, label_width] = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for [own, closure, would_go, label, why] in &rows {
        text.push_str(&format!(
            "{own:>own_width$}  {closure:>closure_width$}  {would_go:>go_width$}  {label:label_width$}  {why}\n"
        ));
    }
    let total = format!("{} in {}", bytes(sizes.nar_size), counted(sizes.store_paths as u64, "store path"));
    text + &format!("\n{total}\n{}", equal_files(sizes))
}

/// `1 file`, `2 files`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// The chain that ends at `path`, without it.
fn why(sizes: &Sizes, path: &PathSizes) -> String {
    match path.chain.split_last() {
        Some((_, above)) if !above.is_empty() => {
            above.iter().map(|&link| sizes.paths[link].label.as_str()).collect::<Vec<_>>().join(LEADS_TO)
        }
        _ => "the profile".to_owned(),
    }
}

/// How many files are duplicates, and what sharing them would save, without a period.
pub(super) fn duplicates(equal: &EqualFiles) -> String {
    let saves = bytes(equal.bytes);
    match equal.files {
        0 => "no duplicate files".to_owned(),
        1 => format!("1 file is a duplicate of another; sharing it would save {saves}"),
        files => format!("{} files are duplicates of others; sharing them would save {saves}", HumanCount(files)),
    }
}

fn equal_files(sizes: &Sizes) -> String {
    let equal = &sizes.equal_files;
    let mut text = duplicates(equal) + "\n";
    for group in equal.groups.iter().take(GROUPS_SHOWN) {
        let count = group.files.len();
        let named = group.files.iter().take(FILES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if count > FILES_SHOWN { format!(" and {} more", count - FILES_SHOWN) } else { String::new() };
        text.push_str(&format!("{:>12}  {count} times {}: {named}{more}\n", bytes(group.bytes), bytes(group.size)));
    }
    text
}

/// `--why`: of each path its sizes, and the whole chain of store paths that leads to it, one a line.
pub fn chains(graph: &Graph<'_>, store: &StoreDirectory, paths: &[usize]) -> String {
    let read = graph.registrations();
    let (chains, closure_sizes, would_go) = (graph.chains(), graph.closure_sizes(), graph.would_go());
    let mut text = String::new();
    for &path in paths {
        let [own, closure, go] = [read[path].nar_size, closure_sizes[path], would_go[path]].map(bytes);
        text.push_str(&format!(
            "{}: {own}, {closure} with all that it needs, {go} would go with it\n",
            read[path].path.name()
        ));
        for (i, &link) in chains[path].iter().enumerate() {
            let mark = if i == 0 { "   " } else { "-> " };
            text.push_str(&format!("  {mark}{store}/{}\n", read[link].path));
        }
    }
    text
}

/// What is wrong with a closure, as an error says it.
pub fn violation(violation: &Violation, graph: &Graph<'_>) -> String {
    let labels = labels(graph.registrations().iter().map(|read| &read.path));
    let chain = |chain: &[usize]| chain.iter().map(|&link| labels[link].as_str()).collect::<Vec<_>>().join(LEADS_TO);
    match violation {
        Violation::Forbidden { pattern, chain: links } => {
            let label = links.last().map_or("", |&last| labels[last].as_str());
            format!("`{label}` is forbidden (`--forbid {pattern}`): {}", chain(links))
        }
        Violation::TooLarge { size, limit, largest } => {
            let largest: Vec<_> = largest
                .iter()
                .map(|links| {
                    let size = links.last().map_or(0, |&last| graph.registrations()[last].nar_size);
                    format!("{} by {}", bytes(size), chain(links))
                })
                .collect();
            format!(
                "the closure has {}, more than the {} of `--max-size`: {}",
                bytes(*size),
                bytes(*limit),
                largest.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closure::limits::{Limits, Pattern, Size};
    use crate::closure::sizes::tests::world;
    use crate::closure::tests::{WORLD, closure};

    #[test]
    fn the_table_has_a_line_for_each_path() {
        let text = table(&world());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["SIZE", "CLOSURE", "WOULD", "GO", "STORE", "PATH", "WHY"]
        );
        assert_eq!(lines[1], "100 B    185 B     130 B  python3-3.11.2   env");
        assert_eq!(lines[5], "  5 B      5 B       5 B  libidn2-2.3      env -> hello-2.10 -> glibc-2.36");
        assert_eq!(lines[6], "  1 B    196 B     196 B  env              the profile");
        let rest = [
            "",
            "196 B in 6 store paths",
            "1 file is a duplicate of another; sharing it would save 3 B",
            "         3 B  2 times 3 B: b/x, a/x",
        ];
        assert_eq!(lines[7..], rest);
    }

    #[test]
    fn counts_have_the_right_number() {
        assert_eq!(
            [0, 1, 1234].map(|count| counted(count, "store path")),
            ["0 store paths", "1 store path", "1,234 store paths"]
        );
        for (files, expected) in [
            (0, "no duplicate files"),
            (1, "1 file is a duplicate of another; sharing it would save 3 B"),
            (1234, "1,234 files are duplicates of others; sharing them would save 3 B"),
        ] {
            assert_eq!(duplicates(&EqualFiles { files, bytes: 3, groups: Vec::new() }), expected);
        }
    }

    #[test]
    fn chains_are_told_in_full_and_as_reasons() {
        let (registrations, roots) = closure(&WORLD);
        let graph = Graph::new(&registrations, &roots);
        let store = StoreDirectory::new(std::path::Path::new("/s")).unwrap();
        let zeros = "0".repeat(31);
        assert_eq!(
            chains(&graph, &store, &[3]),
            format!(
                "openssl-3.0-lib: 30 B, 85 B with all that it needs, 30 B would go with it\n     /s/{zeros}0-env\n  \
                 -> /s/{zeros}1-python3-3.11.2\n  -> /s/{zeros}3-openssl-3.0-lib\n"
            )
        );
        let forbidden: Vec<Pattern> = vec!["openssl*".parse().unwrap()];
        let found = Limits { max_size: Some(Size(100)), forbidden }.check(&graph);
        let said: Vec<_> = found.iter().map(|found| violation(found, &graph)).collect();
        assert_eq!(
            said,
            [
                "`openssl-3.0-lib` is forbidden (`--forbid openssl*`): env -> python3-3.11.2 -> openssl-3.0-lib",
                "the closure has 196 B, more than the 100 B of `--max-size`: 100 B by env -> python3-3.11.2, \
                 50 B by env -> hello-2.10 -> glibc-2.36, 30 B by env -> python3-3.11.2 -> openssl-3.0-lib",
            ]
        );
    }
}
