//! The JSON documents that make one image: descriptor, image config and manifest.
//! It must never write a document differently for the same content: its digest is its name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Platform, Settings};

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image config.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The SHA-256 of a blob, 64 lower-case hexadecimal digits; written `sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(bytes))
    }

    /// From the 32 bytes of a SHA-256.
    pub fn from_hash(hash: &[u8]) -> Self {
        use std::fmt::Write;
        Self(hash.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// The 64 digits: the name of a blob in `blobs/sha256`.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// A text that is no digest of a kind that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADigest(String);

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no digest `sha256:…`", crate::failure::shown(&self.0))
    }
}

impl std::error::Error for NotADigest {}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        text.strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .map(|hex| Self(hex.to_owned()))
            .ok_or_else(|| NotADigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What refers to a blob. Fields that this program does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// For what machines an image is; in indexes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Names and remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// All else.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// Without platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (platform, annotations, other) = Default::default();
        Self { media_type: media_type.to_owned(), digest, size, platform, annotations, other }
    }
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Media type, digest and size of the compressed blob.
    pub blob: Descriptor,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// What is in it, for `docker history`.
    pub comment: String,
}

/// A document of an image, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What refers to it.
    pub descriptor: Descriptor,
    /// JSON, the same for the same content.
    pub bytes: Vec<u8>,
}

impl Document {
    /// `content` as a blob of type `media_type`.
    pub fn new(media_type: &str, content: &impl Serialize) -> Result<Self, serde_json::Error> {
        let bytes = serde_json::to_vec(content)?;
        Ok(Self { descriptor: Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64), bytes })
    }
}

#[derive(Serialize)]
struct ImageConfig<'a> {
    created: &'a str,
    #[serde(flatten)]
    platform: &'a Platform,
    config: &'a Settings,
    rootfs: RootFs<'a>,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'static str,
    diff_ids: Vec<&'a Digest>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'static str,
    comment: &'a str,
}

/// The config of an image: `created` is a time of RFC 3339.
pub fn image_config<'a>(
    settings: &Settings,
    platform: &Platform,
    created: &'a str,
    layers: &'a [Layer],
) -> Result<Document, serde_json::Error> {
    let history = |layer: &'a Layer| History { created, created_by: "nixkit export-image", comment: &layer.comment };
    Document::new(
        CONFIG,
        &ImageConfig {
            created,
            platform,
            config: settings,
            rootfs: RootFs { r#type: "layers", diff_ids: layers.iter().map(|layer| &layer.diff_id).collect() },
            history: layers.iter().map(history).collect(),
        },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Descriptor,
    layers: Vec<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// The manifest of an image.
pub fn manifest(
    config: &Descriptor,
    layers: &[Layer],
    annotations: &BTreeMap<String, String>,
) -> Result<Document, serde_json::Error> {
    let layers = layers.iter().map(|layer| &layer.blob).collect();
    Document::new(MANIFEST, &Manifest { schema_version: 2, media_type: MANIFEST, config, layers, annotations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256_in_lower_case() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        for bad in ["", "sha256:", &empty[..70], &empty.to_uppercase(), &empty.replace("sha256", "sha512"), "../../x"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_unknown_in_a_descriptor_is_kept() {
        let text = format!(r#"{{"mediaType":"x","digest":"{}","size":3,"urls":["u"],"zz":1}}"#, Digest::of(b"abc"));
        let read: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
