//! Names of images, `[HOST[:PORT]/]PATH[:TAG]`, by the grammar of distribution/reference, which Docker and containerd use.
//! It must never change the name that the user gave: a layout is searched for exactly that.

use std::str::FromStr;

use crate::failure::shown;

/// Registry and namespace of names without them.
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// A tag has at most 128 characters, a name without it at most 255 (distribution/reference).
const LONGEST_TAG: usize = 128;
const LONGEST_NAME: usize = 255;
const DIGITS_OF_AN_ID: usize = 64;

/// The name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// As the user gave it: `org.opencontainers.image.ref.name`.
    pub given: String,
    /// With registry, namespace and tag: `docker.io/library/x:latest`, which containerd wants.
    pub normalised: String,
    /// With tag, but without Docker's own registry and namespace: `x:latest`, as in `RepoTags`.
    pub familiar: String,
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        if given.contains('@') {
            return Err("a digest follows from what is in the image; leave out `@…`".into());
        }
        let (name, tag) = match given.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (given, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!(
                "`{}` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, neither `.` nor `-` first",
                shown(tag)
            ));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) && is_host(host) => (Some(host), path),
            _ => (None, name),
        };
        if !path.split('/').all(is_component) {
            return Err(match name.split_once('/') {
                Some((host, _)) if is_host_like(host) && !is_host(host) => {
                    format!("`{}` is not the name of a registry", shown(host))
                }
                _ => format!(
                    "`{}` is not a name: lower-case letters and digits, between them `.`, `_`, `__` or `-`, and slashes",
                    shown(path)
                ),
            });
        }
        if tag.is_none() && name.len() == DIGITS_OF_AN_ID && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("64 hexadecimal digits are the ID of an image, not a name".into());
        }
        // `index.docker.io` is what Docker's own registry was called once.
        let host = host.filter(|host| !["docker.io", "index.docker.io"].contains(host));
        let (long, short) = match (host, path.split_once('/')) {
            (Some(host), _) => (format!("{host}/{path}"), format!("{host}/{path}")),
            // To Docker it has neither a registry nor a default one.
            (None, Some((first, _))) if is_host_like(first) => (path.to_owned(), path.to_owned()),
            (None, None) => (format!("{DEFAULT_HOST}/{DEFAULT_NAMESPACE}/{path}"), path.to_owned()),
            (None, Some((DEFAULT_NAMESPACE, rest))) if !rest.contains('/') => {
                (format!("{DEFAULT_HOST}/{path}"), rest.to_owned())
            }
            (None, Some(_)) => (format!("{DEFAULT_HOST}/{path}"), path.to_owned()),
        };
        if long.len() > LONGEST_NAME {
            return Err(format!("the name is too long: `{}…` has more than {LONGEST_NAME} characters", &long[..40]));
        }
        let tag = tag.unwrap_or(DEFAULT_TAG);
        Ok(Self { given: given.to_owned(), normalised: format!("{long}:{tag}"), familiar: format!("{short}:{tag}") })
    }
}

impl Tag {
    /// Whether programs find an image of a layout by this name: the grammar of `org.opencontainers.image.ref.name`
    /// (`annotations.md`), which skopeo and umoci insist on, is narrower than that of names.
    pub fn is_found_in_a_layout(&self) -> bool {
        let separator = |c: char| !c.is_ascii_alphanumeric();
        let is_separator = |text: &str| matches!(text, "-" | "." | "_" | ":" | "@" | "+" | "--");
        self.given.split('/').all(|component| {
            let mut separators = component.split(|c| !separator(c)).filter(|text| !text.is_empty());
            !component.starts_with(separator)
                && !component.ends_with(separator)
                && !component.is_empty()
                && separators.all(is_separator)
        })
    }

    /// Whether engines from before 2023, such as Docker 20.10, refuse this name: they know no IPv6 addresses, and no
    /// registries that are a single word in capitals.
    pub fn is_new_to_engines(&self) -> bool {
        let host = self.given.split('/').next().unwrap_or_default();
        host.starts_with('[') || !host.contains(['.', ':']) && host.contains(|c: char| c.is_ascii_uppercase())
    }
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= LONGEST_TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// What stands before the first slash is a registry if it could be nothing else.
fn is_host_like(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = text.split(is_alphanumeric).filter(|separator| !separator.is_empty());
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && separators.all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    #[test]
    fn names_are_read_as_docker_does() {
        for (given, normalised, familiar) in [
            ("x", "docker.io/library/x:latest", "x:latest"),
            ("x:1.0", "docker.io/library/x:1.0", "x:1.0"),
            ("a/x", "docker.io/a/x:latest", "a/x:latest"),
            ("library/x", "docker.io/library/x:latest", "x:latest"),
            ("docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("index.docker.io/a/x:t", "docker.io/a/x:t", "a/x:t"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("localhost:5000/x:V_2", "localhost:5000/x:V_2", "localhost:5000/x:V_2"),
            ("ghcr.io/a-b/c__d/e.f:latest", "ghcr.io/a-b/c__d/e.f:latest", "ghcr.io/a-b/c__d/e.f:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("[fe80:0::1]/x", "[fe80:0::1]/x:latest", "[fe80:0::1]/x:latest"),
            ("localhost:99999/x", "localhost:99999/x:latest", "localhost:99999/x:latest"),
            ("A/x", "A/x:latest", "A/x:latest"),
            // Not the name of a host, but that of a path.
            ("ex_ample.com/x", "ex_ample.com/x:latest", "ex_ample.com/x:latest"),
            ("a__b:1", "docker.io/library/a__b:1", "a__b:1"),
            ("a---b", "docker.io/library/a---b:latest", "a---b:latest"),
            ("x:_-..-", "docker.io/library/x:_-..-", "x:_-..-"),
        ] {
            let tag: Tag = given.parse().unwrap();
            let expected = Tag { given: given.into(), normalised: normalised.into(), familiar: familiar.into() };
            assert_eq!(tag, expected);
        }
        let long = format!("x:{}", "t".repeat(129));
        for bad in [
            "",
            ":",
            "x:",
            ":t",
            "X",
            "x y",
            "x:a/b:c d",
            "x//y",
            "/x",
            "x/",
            "a_-b",
            "a...b",
            "-a",
            "a-",
            "x:-t",
            "x:.t",
            "x@sha256:0",
            "local host/x",
            "eX_ample.com/x",
            "[::1]",
            "[]/x",
            "[::g]/x",
            "[::1]:/x",
            "[::1]x/x",
            "a___b",
            "A",
            &"0".repeat(64),
            "localhost:/x",
            "x\n",
            &long,
            "\u{e9}",
            "[::1/x",
            "a.b-/x",
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    /// The patterns of distribution/reference (`regexp.go`), without the digest.
    fn grammar() -> Regex {
        let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let host = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
        let component = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
        Regex::new(&format!("^(?:{host}/)?{component}(?:/{component})*(?::[0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}})?$"))
            .unwrap()
    }

    /// The pattern by which skopeo judges the name in `oci:LAYOUT:NAME` (containers/image, `oci/internal/oci_util.go`).
    fn skopeos() -> Regex {
        let component = "(?:[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)";
        Regex::new(&format!("^{component}(?:/{component})*$")).unwrap()
    }

    #[test]
    fn names_in_a_layout_are_those_that_are_found_there() {
        for (name, found) in [
            ("registry.example:5000/a/b-c_d:1.0-rc.1", true),
            ("a--b:1", true),
            ("a__b:1", false),
            ("a---b", false),
            ("x:1_", false),
            ("x:_1", false),
            ("x:a..b", false),
            ("x:a-", false),
            ("[::1]:5000/x", false),
        ] {
            assert_eq!(name.parse::<Tag>().unwrap().is_found_in_a_layout(), found, "{name}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_characters_with_its_registry() {
        let name = |length: usize| "x".repeat(length - "docker.io/library/".len()).parse::<Tag>();
        assert_eq!(name(255).unwrap().normalised.len(), 255 + ":latest".len());
        assert!(name(256).unwrap_err().contains("more than 255 characters"));
        let tag = |length: usize| format!("x:{}", "t".repeat(length)).parse::<Tag>();
        assert!(tag(128).is_ok() && tag(129).is_err());
    }

    proptest! {
        #[test]
        fn a_normalised_name_stays_as_it_is(text in "[a-zA-Z0-9./:_-]{1,30}") {
            if let Ok(tag) = text.parse::<Tag>() {
                let again: Tag = tag.normalised.parse().unwrap();
                prop_assert_eq!(&again.normalised, &tag.normalised);
                prop_assert_eq!(again.familiar, tag.familiar);
            }
        }

        #[test]
        fn what_is_accepted_is_what_the_grammar_accepts(text in "[aA0x:/._@\\[\\]-]{0,12}") {
            prop_assert_eq!(text.parse::<Tag>().is_ok(), grammar().is_match(&text));
        }

        #[test]
        fn every_name_of_the_grammar_is_accepted_and_judged_by_skopeos_rule(
            host in "((A|b|c-d|e\\.f|localhost|\\[::1\\])(:[0-9]{1,5})?/)?",
            path in "[a-z0-9]{1,3}((\\.|_|__|-{1,3}|/)[a-z0-9]{1,3}){0,4}",
            tag in "(:[0-9A-Za-z_][0-9A-Za-z_.-]{0,5})?",
        ) {
            let name = format!("{host}{path}{tag}");
            prop_assert!(grammar().is_match(&name));
            let read: Tag = name.parse().unwrap();
            prop_assert_eq!(read.is_found_in_a_layout(), skopeos().is_match(&name), "{}", name);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<Tag>();
        }
    }
}
