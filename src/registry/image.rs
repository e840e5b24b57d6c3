//! Manifests, indexes and configurations of images as a registry gives them, and the index that is written.
//! It must never accept a document for another: what is no manifest is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The commit of nixpkgs (OCI's annotations).
pub const LABEL_REVISION: &str = "org.opencontainers.image.revision";
/// The time of that commit, RFC 3339 in UTC.
pub const LABEL_CREATED: &str = "org.opencontainers.image.created";
/// Hash of everything that the image was made from, which `image/input-hash` prints.
pub const LABEL_INPUTS: &str = "nixkit.input-hash";
/// The channel.
pub const LABEL_CHANNEL: &str = "nixkit.channel";
/// The release number, such as `26.05.7273`.
pub const LABEL_RELEASE: &str = "nixkit.release";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFESTS: &[&str] =
    &["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: &[&str] = &[INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    /// Without `sha256:`.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Enough of it for people.
    pub fn short(&self) -> &str {
        &self.0[.."sha256:".len() + 12]
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            bail!("`{}` is no SHA-256 digest", text.chars().take(100).collect::<String>().escape_debug());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an image runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// `v7` of `arm`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variant: Option<String>,
}

/// An image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// Of its manifest.
    pub media_type: String,
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub size: u64,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub platform: Option<Platform>,
}

/// What lies under a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// Images of several platforms.
    Index(Vec<IndexEntry>),
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
    manifests: Option<Vec<IndexEntry>>,
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
pub fn parse_layout(index: &[u8]) -> anyhow::Result<IndexEntry> {
    let Manifest::Index(entries) = parse_manifest(index)? else { bail!("it is no index") };
    match <[_; 1]>::try_from(entries) {
        Ok([entry]) => Ok(entry),
        Err(entries) => bail!("it holds {} images and not one", entries.len()),
    }
}

/// The bytes of an index of `entries`: the same for the same images, whatever their order.
pub fn write_index(mut entries: Vec<IndexEntry>) -> anyhow::Result<Vec<u8>> {
    entries.sort_by(|one, other| (&one.platform, &one.digest).cmp(&(&other.platform, &other.digest)));
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    Ok(serde_json::to_vec(&index)?)
}

/// The `index.json` of a layout that holds `index` (with its digest) under the name `name`.
pub fn write_layout(index: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    let layout = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": INDEX,
            "digest": Digest::of(index),
            "size": index.len(),
            "annotations": { "org.opencontainers.image.ref.name": name },
        }],
    });
    Ok(serde_json::to_vec(&layout)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(architecture: &str, content: &str) -> IndexEntry {
        IndexEntry {
            media_type: MANIFESTS[0].to_owned(),
            digest: Digest::of(content.as_bytes()),
            size: 7,
            platform: Some(Platform { architecture: architecture.into(), os: "linux".into(), variant: None }),
        }
    }

    #[test]
    fn digests_are_sha256_alone() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        for bad in ["", "sha256:", &empty[..70], &empty.to_uppercase(), "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_index_is_the_same_whatever_the_order() {
        let (a, b) = (entry("amd64", "a"), entry("arm64", "b"));
        let one = write_index(vec![a.clone(), b.clone()]).unwrap();
        assert_eq!(one, write_index(vec![b.clone(), a.clone()]).unwrap());
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
            let mut raw = write_index(vec![entry("amd64", "a"), entry("arm64", "b")]).unwrap();
            let length = raw.len();
            raw[at % length] = byte;
            let _ = parse_manifest(&raw);
            let _ = parse_layout(&raw);
            let _ = parse_config(&raw);
            let _ = parse_tags(&raw);
        }
    }
}
