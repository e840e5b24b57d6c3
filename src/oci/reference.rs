//! Names of images, as Docker reads them: `[HOST[:PORT]/]PATH[:TAG]`.
//! It must never change the name that the user gave: a layout is searched for exactly that.

use std::str::FromStr;

/// Registry and namespace of names without them.
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// A tag has at most 128 characters, a name without it at most 255 (distribution/reference).
const LONGEST_TAG: usize = 128;
const LONGEST_NAME: usize = 255;

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
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (given, DEFAULT_TAG),
        };
        if !is_tag(tag) {
            return Err(format!(
                "`{tag}` is no tag: up to 128 letters, digits, `_`, `.` and `-`, neither `.` nor `-` first"
            ));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) => (Some(host), path),
            _ => (None, name),
        };
        if let Some(host) = host.filter(|host| !is_host(host)) {
            return Err(format!("`{host}` is no name of a registry"));
        }
        if path.is_empty() || name.len() > LONGEST_NAME || !path.split('/').all(is_component) {
            return Err(format!(
                "`{path}` is no name: lower-case letters and digits, between them `.`, `_`, `__` or `-`, and slashes"
            ));
        }
        // `index.docker.io` is what Docker's own registry was called once.
        let host = host.filter(|host| !["docker.io", "index.docker.io"].contains(host));
        let (long, short) = match host {
            Some(host) => (format!("{host}/{path}"), format!("{host}/{path}")),
            None => match path.split_once('/') {
                None => (format!("{DEFAULT_HOST}/{DEFAULT_NAMESPACE}/{path}"), path.to_owned()),
                Some((DEFAULT_NAMESPACE, rest)) if !rest.contains('/') => {
                    (format!("{DEFAULT_HOST}/{path}"), rest.to_owned())
                }
                Some(_) => (format!("{DEFAULT_HOST}/{path}"), path.to_owned()),
            },
        };
        Ok(Self { given: given.to_owned(), normalised: format!("{long}:{tag}"), familiar: format!("{short}:{tag}") })
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

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
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
            "ex_ample.com/x",
            "localhost:/x",
            "localhost:99999/x",
            "x\n",
            &long,
            "\u{e9}",
            "[::1/x",
            "a.b-/x",
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
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
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<Tag>();
        }
    }
}
