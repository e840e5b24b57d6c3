//! Names of labels and annotations: OCI's own (`annotations.md`), and those of this project.
//! The prefix must never be written anywhere else than in the file `label-prefix`, which `image/` reads too.

use std::collections::BTreeMap;

/// A reverse domain name before the names of this project, as OCI asks for.
pub const PREFIX: &str = include_str!("label-prefix");
/// What the project's names began with before. Such labels are read for one more version, but not written.
const FORMER_PREFIX: &str = "nixkit.";
/// What OCI's names begin with.
pub const OCI_PREFIX: &str = "org.opencontainers.image.";

/// The commit of nixpkgs.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// The time of that commit, RFC 3339 in UTC.
pub const CREATED: &str = "org.opencontainers.image.created";
/// Hash of everything that the image was made from, which `image/input-hash` prints.
pub const INPUTS: &str = concat!(include_str!("label-prefix"), "input-hash");
/// The channel.
pub const CHANNEL: &str = concat!(include_str!("label-prefix"), "channel");
/// The release number, such as `26.05.7273`.
pub const RELEASE: &str = concat!(include_str!("label-prefix"), "release");
/// Where in the image its bill of materials is.
pub const SBOM: &str = concat!(include_str!("label-prefix"), "sbom");

/// The value of the label `name`, or of the same label with the project's former prefix.
pub fn value<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let former = || labels.get(&format!("{FORMER_PREFIX}{}", name.strip_prefix(PREFIX)?));
    labels.get(name).or_else(former).map(String::as_str)
}

/// What is the same in all of `several`.
pub fn common<'a>(several: impl IntoIterator<Item = &'a BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut several = several.into_iter();
    let mut common = several.next().cloned().unwrap_or_default();
    for other in several {
        common.retain(|name, value| other.get(name) == Some(value));
    }
    common
}

/// Those of `labels` that OCI defines.
pub fn of_oci(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels
        .iter()
        .filter(|(name, _)| name.starts_with(OCI_PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn the_prefix_is_a_reversed_domain_that_ends_in_a_dot() {
        assert!(PREFIX.ends_with('.') && PREFIX.matches('.').count() >= 3, "{PREFIX:?}");
        assert!(PREFIX.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.'), "{PREFIX:?}");
    }

    #[test]
    fn former_names_are_read_if_there_is_no_new_one() {
        let (old, both) = (labels([("nixkit.channel", "old")]), labels([("nixkit.channel", "old"), (CHANNEL, "new")]));
        assert_eq!(value(&old, CHANNEL), Some("old"));
        assert_eq!(value(&both, CHANNEL), Some("new"));
        assert_eq!(value(&old, RELEASE), None);
        assert_eq!(value(&labels([("nixkit.revision", "x")]), REVISION), None);
        assert_eq!(value(&labels([(REVISION, "x")]), REVISION), Some("x"));
    }

    #[test]
    fn common_is_what_all_have_with_one_value() {
        let (a, b) = (labels([("x", "1"), ("y", "2"), ("z", "3")]), labels([("x", "1"), ("y", "other")]));
        assert_eq!(common([&a, &b]), labels([("x", "1")]));
        assert_eq!(common([&a]), a);
        assert_eq!(common([]), labels([]));
        assert_eq!(of_oci(&labels([(REVISION, "r"), (CHANNEL, "c")])), labels([(REVISION, "r")]));
    }
}
