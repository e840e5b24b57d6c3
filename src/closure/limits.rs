//! What a closure must not be or hold: `--max-size` and `--forbid`, judged before anything is written.
//! It must never let something pass that it does not understand: a limit is a size, a pattern matches or does not.

use std::fmt;
use std::str::FromStr;

use super::Graph;

/// A number of bytes, as `--max-size` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// What is no size.
#[derive(Debug, PartialEq, Eq)]
pub struct BadSize;

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size is a number and maybe K, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024)")
    }
}

impl std::error::Error for BadSize {}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(BadSize),
        };
        let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| if text.is_empty() { Err(BadSize) } else { text.parse::<u64>().map_err(|_| BadSize) };
        let (whole, fraction) = (digits(whole)?, digits(tenths)?);
        let parts = u32::try_from(tenths.len()).ok().and_then(|places| 10_u64.checked_pow(places)).ok_or(BadSize)?;
        let fraction = u128::from(fraction) * u128::from(unit) / u128::from(parts);
        let fraction = u64::try_from(fraction).map_err(|_| BadSize)?;
        whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(fraction)).map(Size).ok_or(BadSize)
    }
}

/// A pattern for names of store paths, without the hash part: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// A pattern that can match no name.
#[derive(Debug, PartialEq, Eq)]
pub struct BadPattern;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name has letters, digits and `+-._?=`; `*` stands for any of them, `?` for one")
    }
}

impl std::error::Error for BadPattern {}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let can_match = |c: char| c.is_ascii_alphanumeric() || "+-._?=*".contains(c);
        if text.is_empty() || !text.chars().all(can_match) { Err(BadPattern) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether it stands for the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last `*` is, and up to where it reaches.
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
                _ => {
                    let Some((at, reach)) = star else { return false };
                    star = Some((at, reach + 1));
                    (p, n) = (at + 1, reach + 1);
                }
            }
        }
        pattern[p..].iter().all(|&c| c == b'*')
    }
}

/// What a closure must not be or hold.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The most that the NAR sizes may be together.
    pub max_size: Option<Size>,
    /// No store path may have such a name.
    pub forbidden: Vec<Pattern>,
}

/// What is wrong with a closure; paths by their positions in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It is too large.
    TooLarge {
        /// The NAR sizes together.
        size: u64,
        /// What was allowed.
        limit: u64,
        /// The largest paths, with why they are there.
        largest: Vec<Vec<usize>>,
    },
    /// It holds what it must not.
    Forbidden {
        /// By which pattern.
        pattern: Pattern,
        /// Why the path is there; it is the last.
        chain: Vec<usize>,
    },
}

/// How many paths are named where the whole is too large.
const NAMED: usize = 3;

impl Limits {
    /// All that is wrong with a closure.
    pub fn check(&self, graph: &Graph<'_>) -> Vec<Violation> {
        let mut violations = Vec::new();
        if self.max_size.is_none() && self.forbidden.is_empty() {
            return violations;
        }
        let (read, chains) = (graph.registrations(), graph.chains());
        for pattern in &self.forbidden {
            let caught = (0..read.len()).filter(|&i| pattern.matches(read[i].path.name()));
            violations
                .extend(caught.map(|i| Violation::Forbidden { pattern: pattern.clone(), chain: chains[i].clone() }));
        }
        let size = read.iter().map(|read| read.nar_size).sum();
        if let Some(Size(limit)) = self.max_size.filter(|limit| size > limit.0) {
            let mut largest: Vec<_> = (0..read.len()).collect();
            largest.sort_by_key(|&i| std::cmp::Reverse(read[i].nar_size));
            let largest = largest.into_iter().take(NAMED).map(|i| chains[i].clone()).collect();
            violations.push(Violation::TooLarge { size, limit, largest });
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{WORLD, closure};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("200", Some(200)),
            ("200M", Some(200_000_000)),
            ("200MB", Some(200_000_000)),
            ("200 MB", Some(200_000_000)),
            ("1.5g", Some(1_500_000_000)),
            ("1.5KiB", Some(1536)),
            ("2MiB", Some(2 << 20)),
            ("3GiB", Some(3 << 30)),
            ("7kb", Some(7000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("18446744073709551615K", None),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.", None),
            (".5", None),
            ("1.2.3", None),
            ("1e9", None),
            ("1T", None),
            ("1.99999999999999999999999", None),
        ] {
            assert_eq!(text.parse::<Size>().ok(), expected.map(Size), "{text}");
        }
    }

    #[test]
    fn patterns_stand_for_whole_names() {
        for (pattern, name, expected) in [
            ("gcc-*", "gcc-12.2.0", true),
            ("gcc-*", "gcc-wrapper", true),
            ("gcc-*", "libgcc-12", false),
            ("*gcc*", "libgcc-12", true),
            ("gcc-??.*", "gcc-12.2", true),
            ("gcc", "gcc-12", false),
            ("*", "x", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*-dev", "openssl-3.0-dev", true),
            ("*-dev", "openssl-3.0-devel", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), expected, "{pattern} {name}");
        }
        for bad in ["", "a/b", "[ab]", "gcc 1", "{a,b}"] {
            assert_eq!(bad.parse::<Pattern>(), Err(BadPattern), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_chain() {
        let (registrations, roots) = closure(&WORLD);
        let graph = Graph::new(&registrations, &roots);
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        let check = |max_size: Option<u64>, forbidden: &[&str]| {
            let forbidden = forbidden.iter().map(|text| pattern(text)).collect();
            Limits { max_size: max_size.map(Size), forbidden }.check(&graph)
        };
        assert_eq!(check(None, &[]), []);
        assert_eq!(check(Some(196), &["gcc-*"]), []);
        let largest = vec![vec![0, 1], vec![0, 2, 4], vec![0, 1, 3]];
        assert_eq!(check(Some(195), &[]), [Violation::TooLarge { size: 196, limit: 195, largest }]);
        let forbidden = Violation::Forbidden { pattern: pattern("openssl-*"), chain: vec![0, 1, 3] };
        assert_eq!(check(None, &["gcc", "openssl-*"]), [forbidden]);
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_a_slow_matcher_does(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.first(), name.first()) {
                    (None, first) => first.is_none(),
                    (Some(b'*'), _) => (0..=name.len()).any(|skipped| slow(&pattern[1..], &name[skipped..])),
                    (Some(&c), Some(&n)) => (c == b'?' || c == n) && slow(&pattern[1..], &name[1..]),
                    (Some(_), None) => false,
                }
            }
            let matches = pattern.parse::<Pattern>().unwrap().matches(&name);
            prop_assert_eq!(matches, slow(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_text_is_a_size_or_refused(text in "[0-9]{0,22}(\\.[0-9]{0,30})?.{0,4}") {
            let _ = text.parse::<Size>();
        }
    }
}
