//! Manifests, indexes and configurations of images as a registry gives them, and the index that is written.
//! It must never accept a document for another: what is no manifest is an error.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::oci::document::{INDEX, MANIFEST};
use crate::oci::index::Index;
use crate::oci::{Descriptor, Digest, Platform, labels};

const MANIFESTS: &[&str] = &[MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: &[&str] = &[INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Enough of a digest for people.
pub fn short(digest: &Digest) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

/// What lies under a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// Images of several platforms.
    Index(Vec<Descriptor>),
    /// One image: its media type and size.
    Image {
        /// Of the manifest.
        media_type: String,
        /// Of the manifest, in bytes.
        size: u64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyManifest {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<serde_json::Value>,
}

/// Reads what `skopeo inspect --raw` printed.
pub fn parse_manifest(raw: &[u8]) -> anyhow::Result<Manifest> {
    let any: AnyManifest = serde_json::from_slice(raw).context("it is no manifest")?;
    if any.schema_version != 2 {
        bail!("it is a manifest of schema version {}", any.schema_version);
    }
    let stated = any.media_type.as_deref();
    // The media type may be left out (OCI), but must not contradict what is there.
    match (any.manifests, any.config) {
        (Some(entries), None) if stated.is_none_or(|kind| INDEXES.contains(&kind)) => Ok(Manifest::Index(entries)),
        (None, Some(_)) if stated.is_none_or(|kind| MANIFESTS.contains(&kind)) => Ok(Manifest::Image {
            media_type: stated.unwrap_or(MANIFESTS[0]).to_owned(),
            size: u64::try_from(raw.len())?,
        }),
        _ => bail!("it is neither a manifest nor an index of images"),
    }
}

/// An image's labels.
pub type Labels = BTreeMap<String, String>;

/// The part of an image's configuration that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// Where it runs.
    pub platform: Platform,
    /// Its labels.
    pub labels: Labels,
}

/// Reads an image's configuration.
pub fn parse_config(raw: &[u8]) -> anyhow::Result<ImageConfig> {
    #[derive(Deserialize)]
    struct Inner {
        #[serde(rename = "Labels", default)]
        labels: Option<Labels>,
    }
    #[derive(Deserialize)]
    struct Outer {
        #[serde(flatten)]
        platform: Platform,
        config: Option<Inner>,
    }
    let outer: Outer = serde_json::from_slice(raw).context("it is no image's configuration")?;
    let labels = outer.config.and_then(|inner| inner.labels).unwrap_or_default();
    Ok(ImageConfig { platform: outer.platform, labels })
}

/// Reads what `skopeo list-tags` printed.
pub fn parse_tags(raw: &[u8]) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Tags {
        #[serde(rename = "Tags")]
        tags: Option<Vec<String>>,
    }
    let tags: Tags = serde_json::from_slice(raw).context("it is no list of tags")?;
    tags.tags.context("it is no list of tags")
}

/// The one image in the `index.json` of a layout.
pub fn parse_layout(index: &[u8]) -> anyhow::Result<Descriptor> {
    let Manifest::Index(entries) = parse_manifest(index)? else { bail!("it is no index") };
    match <[_; 1]>::try_from(entries) {
        Ok([entry]) => Ok(entry),
        Err(entries) => bail!("it holds {} images and not one", entries.len()),
    }
}

/// The bytes of an index of `entries`: the same for the same images, whatever their order. Its annotations are what the
/// `labels` of its images have in common, of those that OCI defines.
pub fn write_index(mut entries: Vec<Descriptor>, labels: &[Labels]) -> anyhow::Result<Vec<u8>> {
    entries.sort_by(|one, other| (&one.platform, &one.digest).cmp(&(&other.platform, &other.digest)));
    let mut index = Index::default();
    index.manifests = entries;
    index.annotations = labels::of_oci(&labels::common(labels));
    Ok(index.to_json()?)
}

/// The `index.json` of a layout that holds `index` (with its digest) under the name `name`.
pub fn write_layout(index: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    let mut entry = Descriptor::new(INDEX, Digest::of(index), u64::try_from(index.len())?);
    entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
    let mut layout = Index::default();
    layout.manifests.push(entry);
    Ok(layout.to_json()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(architecture: &str, content: &str) -> Descriptor {
        let platform = Platform::linux(architecture);
        Descriptor { platform: Some(platform), ..Descriptor::new(MANIFESTS[0], Digest::of(content.as_bytes()), 7) }
    }

    #[test]
    fn an_index_is_the_same_whatever_the_order() {
        let (a, b) = (entry("amd64", "a"), entry("arm64", "b"));
        let labels = |text: &str| serde_json::from_str::<Labels>(text).unwrap();
        let created = "org.opencontainers.image.created";
        let of =
            [labels(&format!(r#"{{"{created}":"c","x":"y"}}"#)), labels(&format!(r#"{{"{created}":"c","x":"y"}}"#))];
        let one = write_index(vec![a.clone(), b.clone()], &of).unwrap();
        assert_eq!(one, write_index(vec![b.clone(), a.clone()], &of).unwrap());
        assert_eq!(Index::parse(&one).unwrap().annotations, labels(&format!(r#"{{"{created}":"c"}}"#)));
        assert!(Index::parse(&write_index(vec![a.clone()], &[]).unwrap()).unwrap().annotations.is_empty());
        assert_eq!(parse_manifest(&one).unwrap(), Manifest::Index(vec![a, b]));
        let layout = write_layout(&one, "x").unwrap();
        assert_eq!(parse_layout(&layout).unwrap().digest, Digest::of(&one));
    }

    #[test]
    fn what_is_no_manifest_is_an_error() {
        let image = format!(r#"{{"schemaVersion":2,"config":{{}},"layers":[],"mediaType":"{}"}}"#, MANIFESTS[0]);
        assert!(
            matches!(parse_manifest(image.as_bytes()), Ok(Manifest::Image { size, .. }) if size == image.len() as u64)
        );
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":[],"config":{}}"#,
            r#"{"schemaVersion":2,"manifests":[],"mediaType":"text/html"}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:1","size":1}]}"#,
        ] {
            assert!(parse_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
        let none = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(parse_layout(none.as_bytes()).unwrap_err().to_string(), "it holds 0 images and not one");
        assert_eq!(parse_layout(image.as_bytes()).unwrap_err().to_string(), "it is no index");
    }

    #[test]
    fn labels_may_be_absent() {
        let bare = parse_config(br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
        assert_eq!((bare.platform.architecture.as_str(), bare.labels.len()), ("amd64", 0));
        let none =
            parse_config(br#"{"architecture":"arm","variant":"v7","os":"linux","config":{"Labels":null}}"#).unwrap();
        assert_eq!(none.platform.variant.as_deref(), Some("v7"));
        let some = parse_config(br#"{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"b"}}}"#).unwrap();
        assert_eq!(some.labels["a"], "b");
        assert!(parse_config(b"{}").is_err());
    }

    #[test]
    fn tags_are_read_from_skopeos_list() {
        assert_eq!(parse_tags(br#"{"Repository":"r","Tags":["a","b"]}"#).unwrap(), ["a", "b"]);
        assert_eq!(parse_tags(br#"{"Repository":"r","Tags":[]}"#).unwrap(), Vec::<String>::new());
        assert!(parse_tags(br#"{"Repository":"r"}"#).is_err());
        assert!(parse_tags(b"").is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_never_a_panic(at in 0_usize..400, byte: u8) {
            let mut raw = write_index(vec![entry("amd64", "a"), entry("arm64", "b")], &[]).unwrap();
            let length = raw.len();
            raw[at % length] = byte;
            let _ = parse_manifest(&raw);
            let _ = parse_layout(&raw);
            let _ = parse_config(&raw);
            let _ = parse_tags(&raw);
        }
    }
}
