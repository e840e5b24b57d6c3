//! Chooses the installed Debian packages of which the closure is made.
//! It must never depend on anything but what is installed: the same machine gives the same closure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use anyhow::bail;
use serde::Serialize;

use crate::command::{Commands, command};

/// What `dpkg-query` is asked for, a line each.
const FORMAT: &str = "${db:Status-Status}\t${Package}\t${Version}\t${Installed-Size}\t${Pre-Depends}, ${Depends}\n";

/// An installed package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    version: String,
    bytes: u64,
    /// For each dependency its alternatives.
    depends: Vec<Vec<String>>,
}

/// A package of the closure, as `tests/bench/closure/default.nix` reads it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Planned {
    pub(crate) name: String,
    version: String,
    /// All of them come earlier.
    pub(crate) dependencies: Vec<String>,
}

/// How large a closure is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) packages: usize,
    pub(crate) bytes: RangeInclusive<u64>,
}

/// The packages that are installed on this machine.
pub(crate) fn installed(commands: &Commands) -> anyhow::Result<BTreeMap<String, Package>> {
    let text = commands.run(&mut command("dpkg-query", ["--show", "--showformat", FORMAT]))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> BTreeMap<String, Package> {
    let mut packages = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [status, name, version, kib, depends] = fields[..] else { continue };
        if status != "installed" {
            continue;
        }
        let package = Package {
            version: version.to_owned(),
            bytes: kib.parse::<u64>().unwrap_or(0) * 1024,
            depends: depends.split(',').map(alternatives).filter(|names| !names.is_empty()).collect(),
        };
        // The first of several architectures.
        packages.entry(name.to_owned()).or_insert(package);
    }
    packages
}

/// The names in `libc6 (>= 2.36) | musl:any`.
fn alternatives(dependency: &str) -> Vec<String> {
    let name = |text: &str| text.trim().split([' ', '(', ':']).next().unwrap_or_default().to_owned();
    dependency.split('|').map(name).filter(|name| !name.is_empty()).collect()
}

/// Some packages with all that they depend on: as many as are `wanted`, by a cap on the size of one package
/// with which the whole comes near the middle of the range. Dependencies come first; where they
/// go in a circle, the one that closes it is left out.
pub(crate) fn plan(packages: &BTreeMap<String, Package>, wanted: &Wanted) -> anyhow::Result<Vec<Planned>> {
    let size = |names: &[&str]| names.iter().filter_map(|name| packages.get(*name)).map(|found| found.bytes).sum();
    let middle = wanted.bytes.start().midpoint(*wanted.bytes.end());
    let caps: BTreeSet<u64> = packages.values().map(|package| package.bytes).collect();
    let best = caps
        .into_iter()
        .map(|cap| order(packages, cap, wanted.packages))
        .filter(|names| names.len() >= wanted.packages && wanted.bytes.contains(&size(names)))
        .min_by_key(|names| size(names).abs_diff(middle));
    let Some(names) = best else {
        let all: u64 = packages.values().map(|package| package.bytes).sum();
        bail!(
            "the closure of the benchmark wants {} installed Debian packages of together {} to {} MB, and this \
             machine's {} packages ({} MB) hold no such set: install more, such as `apt-get install clang \
             default-jre-headless adwaita-icon-theme vim git python3-dev`, or try `--quick` or `--closure`",
            wanted.packages,
            wanted.bytes.start() / 1_000_000,
            wanted.bytes.end() / 1_000_000,
            packages.len(),
            all / 1_000_000,
        );
    };
    let position: BTreeMap<&str, usize> = names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
    let planned = |(index, name): (usize, &&str)| {
        let package = packages.get(*name)?;
        let earlier = |name: &&str| position.get(name).is_some_and(|found| *found < index);
        // A package may name another twice.
        let dependencies: BTreeSet<&str> = dependencies(packages, package).filter(earlier).collect();
        Some(Planned {
            name: (*name).to_owned(),
            version: package.version.clone(),
            dependencies: dependencies.into_iter().map(str::to_owned).collect(),
        })
    };
    Ok(names.iter().enumerate().filter_map(planned).collect())
}

/// For each dependency the first alternative that is installed.
fn dependencies<'a>(packages: &'a BTreeMap<String, Package>, package: &Package) -> impl Iterator<Item = &'a str> {
    package
        .depends
        .iter()
        .filter_map(|names| names.iter().find_map(|name| packages.get_key_value(name)).map(|(name, _)| name.as_str()))
}

/// The largest packages within `cap`, each after all that it depends on, until there are `count`.
fn order(packages: &BTreeMap<String, Package>, cap: u64, count: usize) -> Vec<&str> {
    let mut largest: Vec<_> = packages.iter().filter(|(_, package)| package.bytes <= cap).collect();
    largest.sort_by_key(|(_, package)| std::cmp::Reverse(package.bytes));
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, package) in largest {
        if ordered.len() >= count {
            break;
        }
        if !seen.insert(name.as_str()) {
            continue;
        }
        let mut open = vec![(name.as_str(), dependencies(packages, package).collect::<Vec<_>>().into_iter())];
        while let Some((name, rest)) = open.last_mut() {
            match rest.next() {
                Some(next) if !seen.insert(next) => {}
                Some(next) => {
                    let below = packages.get(next).into_iter().flat_map(|package| dependencies(packages, package));
                    open.push((next, below.collect::<Vec<_>>().into_iter()));
                }
                None => {
                    ordered.push(*name);
                    open.pop();
                }
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS: &str = "installed\tlibc\t2:1\t10\t, \n\
        installed\tapp\t1\t100\tlibc (>= 2), mail | exim | postfix, python3:any\n\
        installed\texim\t1\t20\tlibc, \n\
        installed\tpostfix\t1\t20\tlibc, \n\
        config-files\tgone\t1\t500\t, \n\
        rubbish\n\
        installed\tpython3\t3\tmany\t, app\n";

    fn names(planned: &[Planned]) -> Vec<&str> {
        planned.iter().map(|package| package.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_circles_are_broken() {
        let packages = parse(STATUS);
        assert_eq!(packages.len(), 5);
        let wanted = Wanted { packages: 3, bytes: 1..=1_000_000 };
        let planned = plan(&packages, &wanted).unwrap();
        assert_eq!(names(&planned), ["libc", "exim", "app", "python3"]);
        assert_eq!(planned[2].dependencies, ["exim", "libc"], "python3, which depends on app, comes later");
        assert_eq!(planned[3].dependencies, ["app"]);
    }

    #[test]
    fn a_cap_keeps_the_whole_within_the_range() {
        let lines: Vec<String> = (1..=100).map(|i| format!("installed\tp{i}\t1\t{i}\t, ")).collect();
        let text = lines.join("\n");
        let packages = parse(&text);
        // The ten largest packages up to 50 KiB have 455 KiB together.
        let wanted = Wanted { packages: 10, bytes: 450 * 1024..=460 * 1024 };
        let planned = plan(&packages, &wanted).unwrap();
        assert_eq!(planned.first().map(|package| package.name.as_str()), Some("p50"));
        assert_eq!(planned.len(), 10);
    }

    #[test]
    fn too_small_a_machine_is_told_what_to_install() {
        let error = plan(&parse(STATUS), &Wanted { packages: 200, bytes: 1..=2 }).unwrap_err().to_string();
        assert!(error.contains("200 installed Debian packages") && error.contains("apt-get install"), "{error}");
    }

    proptest! {
        #[test]
        fn every_dependency_stands_earlier(edges in prop::collection::vec((0..30_u8, 0..30_u8), 0..120)) {
            let mut packages: BTreeMap<String, Package> = BTreeMap::new();
            for (from, to) in edges {
                packages.entry(to.to_string()).or_default().bytes = u64::from(to);
                let package = packages.entry(from.to_string()).or_default();
                package.bytes = u64::from(from);
                package.depends.push(vec![to.to_string()]);
            }
            let ordered = order(&packages, 30, 10);
            prop_assert!(ordered.len() >= packages.len().min(10));
            let planned = plan(&packages, &Wanted { packages: 0, bytes: 0..=u64::MAX });
            let mut earlier = BTreeSet::new();
            for package in planned.unwrap_or_default() {
                prop_assert!(package.dependencies.iter().all(|name| earlier.contains(name)));
                prop_assert!(earlier.insert(package.name));
            }
        }
    }
}
