//! The tables of contents: `index.json` of a layout, image indexes for several platforms, `manifest.json`.
//! It must never drop what others have put into an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{Descriptor, Digest, Document, INDEX, Layer, MANIFEST};
use super::{Platform, Tag, labels};

/// The name of an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same for containerd.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The text of the file `oci-layout`.
pub const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An `index.json` or an image index. Fields that this program does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// Images, or indexes of images.
    pub manifests: Vec<Descriptor>,
    /// Of the index itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Default for Index {
    fn default() -> Self {
        let (manifests, annotations, other) = Default::default();
        Self { schema_version: 2, media_type: Some(INDEX.into()), manifests, annotations, other }
    }
}

/// Why an index cannot be used.
#[derive(Debug)]
pub enum BadIndex {
    /// It is no JSON, or not of this form.
    Json(serde_json::Error),
    /// It has another version.
    Version(u32),
}

impl fmt::Display for BadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadIndex::Json(error) => write!(f, "it is no image index: {error}"),
            BadIndex::Version(version) => write!(f, "it is no image index: its schemaVersion is {version}, not 2"),
        }
    }
}

impl std::error::Error for BadIndex {}

impl Index {
    /// Reads one.
    pub fn parse(text: &[u8]) -> Result<Self, BadIndex> {
        let index: Self = serde_json::from_slice(text).map_err(BadIndex::Json)?;
        if index.schema_version == 2 { Ok(index) } else { Err(BadIndex::Version(index.schema_version)) }
    }

    /// As it is written to disk.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// What `tag` names.
    pub fn find(&self, tag: &Tag) -> Option<&Descriptor> {
        self.manifests.iter().find(|descriptor| is_named(descriptor, tag))
    }

    /// Makes `tag` name `descriptor`, and nothing else.
    pub fn name(&mut self, tag: &Tag, mut descriptor: Descriptor) {
        descriptor.annotations.insert(REF_NAME.into(), tag.given.clone());
        descriptor.annotations.insert(CONTAINERD_NAME.into(), tag.normalised.clone());
        let place = self.manifests.iter().position(|other| is_named(other, tag));
        self.manifests.retain(|other| !is_named(other, tag));
        self.manifests.insert(place.unwrap_or(self.manifests.len()).min(self.manifests.len()), descriptor);
    }

    /// Adds `descriptor` without a name, once.
    pub fn add(&mut self, descriptor: Descriptor) {
        if self.manifests.iter().all(|other| other.digest != descriptor.digest) {
            self.manifests.push(descriptor);
        }
    }
}

fn is_named(descriptor: &Descriptor, tag: &Tag) -> bool {
    descriptor.annotations.get(REF_NAME) == Some(&tag.given)
}

/// What `tag` should name, once `image` (with its platform) has come: the image alone, or an image index of it and
/// of those for other platforms in `before`, which are images with their platforms. Their order is that of the
/// platforms, whichever was made first, and the annotations of the index are those that all of them have.
pub fn joined(image: &Descriptor, before: Vec<Descriptor>) -> Result<Joined, serde_json::Error> {
    let platform = |descriptor: &Descriptor| descriptor.platform.as_ref().map(Platform::normalised);
    let mut images: Vec<_> = before.into_iter().filter(|other| platform(other) != platform(image)).collect();
    if images.is_empty() {
        return Ok(Joined::Image(image.clone()));
    }
    images.push(image.clone());
    for image in &mut images {
        image.annotations.remove(REF_NAME);
        image.annotations.remove(CONTAINERD_NAME);
    }
    images.sort_by(|a, b| (&a.platform, &a.digest).cmp(&(&b.platform, &b.digest)));
    let annotations = labels::common(images.iter().map(|image| &image.annotations));
    Document::new(INDEX, &Index { manifests: images, annotations, ..Index::default() }).map(Joined::Index)
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// One image.
    Image(Descriptor),
    /// An index of several, to be written.
    Index(Document),
}

/// What a manifest refers to; all else in it is of no interest here.
#[derive(Clone, Debug, Deserialize)]
pub struct Parts {
    /// The image config.
    pub config: Descriptor,
    /// The blobs of the layers.
    pub layers: Vec<Descriptor>,
}

/// Whether `descriptor` is an image or an image index, in OCI's words or Docker's.
pub fn kind(descriptor: &Descriptor) -> Kind {
    match descriptor.media_type.as_str() {
        MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => Kind::Image,
        INDEX | "application/vnd.docker.distribution.manifest.list.v2+json" => Kind::Index,
        _ => Kind::Other,
    }
}

/// What a descriptor in an index refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A manifest.
    Image,
    /// An image index.
    Index,
    /// Something else, which is let alone.
    Other,
}

/// The platform that an image config names.
pub fn platform_of(config: &[u8]) -> Result<Platform, serde_json::Error> {
    serde_json::from_slice(config)
}

/// Docker's own table of contents, which `docker load` before version 25 reads.
pub fn docker_manifest(config: &Digest, layers: &[Layer], tags: &[Tag]) -> Result<Vec<u8>, serde_json::Error> {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<_> = layers.iter().map(|layer| path(&layer.blob.digest)).collect();
    // `x` and `x:latest` are one name to Docker.
    let tags: BTreeSet<_> = tags.iter().map(|tag| &tag.familiar).collect();
    serde_json::to_vec(&serde_json::json!([{ "Config": path(config), "RepoTags": tags, "Layers": layers }]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(content: &str, platform: &str) -> Descriptor {
        let digest = Digest::of(content.as_bytes());
        let platform = Some(platform.parse().unwrap());
        Descriptor { platform, ..Descriptor::new(MANIFEST, digest, content.len() as u64) }
    }

    fn tag(name: &str) -> Tag {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_stands_for_one_thing_and_others_stay() {
        let (a, b, c) = (image("a", "linux/amd64"), image("b", "linux/amd64"), image("c", "linux/amd64"));
        let mut index = Index::default();
        index.name(&tag("x"), a.clone());
        index.name(&tag("y"), b.clone());
        index.add(c.clone());
        index.add(c.clone());
        index.name(&tag("x"), b.clone());
        let digests: Vec<_> = index.manifests.iter().map(|descriptor| &descriptor.digest).collect();
        assert_eq!(digests, [&b.digest, &b.digest, &c.digest]);
        let named = index.find(&tag("x")).unwrap();
        assert_eq!(named.annotations[REF_NAME], "x");
        assert_eq!(named.annotations[CONTAINERD_NAME], "docker.io/library/x:latest");
        // The name as it was given counts, not what it means.
        assert_eq!(index.find(&tag("x:latest")), None);
    }

    #[test]
    fn unknown_fields_of_an_index_are_kept() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"m","digest":"{}","size":1,"artifactType":"t"}}],"annotations":{{"a":"b"}}}}"#,
            Digest::of(b"x"),
        );
        let index = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(index.to_json().unwrap()).unwrap(), text);
        for (bad, message) in [
            (r#"{"schemaVersion":1,"manifests":[]}"#, "schemaVersion is 1"),
            (r#"{"schemaVersion":2}"#, "missing field `manifests`"),
            ("[", "no image index"),
            (r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"md5:0","size":1}]}"#, "no digest"),
        ] {
            let error = Index::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_an_index_is_read_or_refused(
            at in any::<prop::sample::Index>(), put in prop::collection::vec(any::<u8>(), 0..4), drop in 0_usize..4,
        ) {
            let mut index = Index::default();
            index.name(&tag("x"), image("a", "linux/arm/v7"));
            let mut bytes = index.to_json().unwrap();
            let at = at.index(bytes.len());
            let end = (at + drop).min(bytes.len());
            bytes.splice(at..end, put);
            if let Ok(read) = Index::parse(&bytes) {
                prop_assert_eq!(Index::parse(&read.to_json().unwrap()).unwrap(), read);
            }
        }
    }

    #[test]
    fn platforms_come_together_in_their_own_order() {
        let (amd, arm, v7) = (image("a", "linux/amd64"), image("b", "linux/arm64"), image("c", "linux/arm/v7"));
        assert_eq!(joined(&amd, vec![]).unwrap(), Joined::Image(amd.clone()));
        assert_eq!(joined(&amd, vec![image("old", "linux/amd64")]).unwrap(), Joined::Image(amd.clone()));
        let both = joined(&amd, vec![arm.clone(), v7.clone()]).unwrap();
        assert_eq!(joined(&v7, vec![amd.clone(), image("old", "linux/arm/v7"), arm.clone()]).unwrap(), both);
        let Joined::Index(document) = both else { panic!("{both:?}") };
        let index = Index::parse(&document.bytes).unwrap();
        assert_eq!(index.manifests, [amd, v7, arm]);
        assert_eq!(document.descriptor.media_type, INDEX);
    }

    #[test]
    fn one_platform_by_another_name_is_replaced() {
        let (arm, v7) = (image("a", "linux/arm64"), image("b", "linux/arm"));
        // As other programs write them: nothing of an entry that stays is changed.
        let mut old = image("old", "linux/arm64");
        old.platform.as_mut().unwrap().variant = Some("v8".into());
        let mut windows = image("w", "linux/amd64");
        let text = r#"{"os":"windows","architecture":"amd64","os.version":"10.0.17763","os.features":["win32k"]}"#;
        windows.platform = serde_json::from_str(text).unwrap();
        let Joined::Index(document) = joined(&arm, vec![old.clone(), v7.clone(), windows.clone()]).unwrap() else {
            panic!("one image is left")
        };
        assert_eq!(Index::parse(&document.bytes).unwrap().manifests, [v7.clone(), arm, windows.clone()]);
        assert!(String::from_utf8(document.bytes).unwrap().contains(text));
        let Joined::Index(document) = joined(&v7, vec![old.clone()]).unwrap() else { panic!("one image is left") };
        assert_eq!(Index::parse(&document.bytes).unwrap().manifests, [v7, old]);
    }

    #[test]
    fn docker_reads_its_own_table() {
        let layer = Layer {
            blob: Descriptor::new("l", Digest::of(b"l"), 1),
            diff_id: Digest::of(b"d"),
            comment: String::new(),
        };
        let text = docker_manifest(&Digest::of(b"c"), &[layer], &[tag("docker.io/library/x")]).unwrap();
        let read: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(read[0]["RepoTags"][0], "x:latest");
        assert_eq!(read[0]["Layers"][0], format!("blobs/sha256/{}", Digest::of(b"l").hex()));
        assert_eq!(read[0]["Config"], format!("blobs/sha256/{}", Digest::of(b"c").hex()));
    }
}
