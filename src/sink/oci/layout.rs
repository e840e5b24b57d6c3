//! A layout that exists: whether it is whole, and how an image is added to it.
//! It must never write before all that it reads was found good, and `index.json` last.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};

use super::super::CallFailed;
use super::super::draft::is_draft;
use super::super::target::Target;
use crate::failure::{hinted, shown};
use crate::file;
use crate::oci::index::{self, Index, Joined, Kind, LAYOUT_VERSION, Parts};
use crate::oci::{Descriptor, Digest, Tag};

/// Indexes, manifests and configs are small; larger ones are none.
const LARGEST_DOCUMENT: u64 = 16 << 20;
/// Indexes may hold indexes, but nobody nests them deeper.
const DEEPEST_INDEX: usize = 4;

/// A layout on disk.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout at `target`, or `None` where there is nothing or an empty directory.
    pub(super) fn find(target: &Target) -> anyhow::Result<Option<Self>> {
        let root = &target.root;
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?.collect::<Result<Vec<_>, _>>()?,
        };
        // What a file system puts into its root, and drafts, are not in the way.
        let is_in_the_way = |name: &OsStr| name != "lost+found" && !is_draft(&target.name, name);
        let is_empty = entries.iter().all(|entry| target.is_mount_point && !is_in_the_way(&entry.file_name()));
        if is_empty {
            return Ok(None);
        }
        let layout = Self { root: root.clone() };
        layout.check().with_context(|| format!("cannot add to `{}`", shown(root)))?;
        Ok(Some(layout))
    }

    /// Fails unless it is a layout in which nothing is missing that an index names.
    fn check(&self) -> anyhow::Result<()> {
        let version = match fs::read(self.root.join("oci-layout")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(hinted(
                    anyhow!("it is no OCI layout: it has no file `oci-layout`"),
                    "name a layout, a directory that is empty or does not exist, or a file that ends in `.tar`",
                ));
            }
            version => version?,
        };
        let version: serde_json::Value =
            serde_json::from_slice(&version).context("it is no OCI layout: `oci-layout` cannot be read")?;
        let version = version.get("imageLayoutVersion").and_then(serde_json::Value::as_str);
        ensure!(version == Some("1.0.0"), "it is no OCI layout of version 1.0.0");
        self.index().and_then(|index| self.check_all(&index.manifests, 0)).map_err(|error| {
            let hint = "make it anew, or remove what is damaged; nothing was changed";
            hinted(error.context("the layout is damaged"), hint)
        })
    }

    fn check_all(&self, descriptors: &[Descriptor], depth: usize) -> anyhow::Result<()> {
        ensure!(depth <= DEEPEST_INDEX, "an index lies in more than {DEEPEST_INDEX} others");
        for descriptor in descriptors {
            match index::kind(descriptor) {
                Kind::Index => self.check_all(&self.inner(descriptor)?.manifests, depth + 1)?,
                Kind::Image => {
                    let Parts { config, layers } = self.parts(descriptor)?;
                    for part in [config].iter().chain(&layers) {
                        self.check_size(part)?;
                    }
                }
                Kind::Other => self.check_size(descriptor)?,
            }
        }
        Ok(())
    }

    fn index(&self) -> anyhow::Result<Index> {
        let path = self.root.join("index.json");
        Index::parse(&read(&path)?).with_context(|| format!("cannot read `{}`", shown(&path)))
    }

    fn inner(&self, descriptor: &Descriptor) -> anyhow::Result<Index> {
        Index::parse(&self.document(descriptor)?).with_context(|| format!("cannot read blob {}", descriptor.digest))
    }

    fn parts(&self, descriptor: &Descriptor) -> anyhow::Result<Parts> {
        serde_json::from_slice(&self.document(descriptor)?)
            .with_context(|| format!("blob {} is no manifest", descriptor.digest))
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn check_size(&self, descriptor: &Descriptor) -> anyhow::Result<()> {
        let (digest, size) = (&descriptor.digest, descriptor.size);
        match fs::metadata(self.blob(digest)) {
            Ok(metadata) if metadata.is_file() && metadata.len() == size => Ok(()),
            Ok(metadata) if metadata.is_file() => bail!("blob {digest} has {} bytes, not {size}", metadata.len()),
            Ok(_) => bail!("blob {digest} is no file"),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("blob {digest} is missing"),
            Err(error) => Err(error.into()),
        }
    }

    /// A small blob, which must be what its name says.
    fn document(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        self.check_size(descriptor)?;
        let bytes = read(&self.blob(&descriptor.digest))?;
        ensure!(Digest::of(&bytes) == descriptor.digest, "blob {} does not have this digest", descriptor.digest);
        Ok(bytes)
    }

    /// The images for which `tag` stands, each with its platform.
    fn images(&self, index: &Index, tag: &Tag) -> anyhow::Result<Vec<Descriptor>> {
        let Some(named) = index.find(tag) else { return Ok(Vec::new()) };
        let images = match index::kind(named) {
            Kind::Image => vec![named.clone()],
            Kind::Index => self.inner(named)?.manifests,
            Kind::Other => Vec::new(),
        };
        images.into_iter().map(|image| self.with_platform(image)).collect()
    }

    /// Other programs leave it to the config to say what an image is for.
    fn with_platform(&self, image: Descriptor) -> anyhow::Result<Descriptor> {
        if image.platform.is_some() || index::kind(&image) != Kind::Image {
            return Ok(image);
        }
        let config = self.document(&self.parts(&image)?.config)?;
        let platform = index::platform_of(&config)
            .with_context(|| format!("the config of image {} names no platform", image.digest))?;
        Ok(Descriptor { platform: Some(platform), ..image })
    }

    /// Moves the blobs in the layout `draft` here, and makes `tags` name `image`, together with images for other
    /// platforms that they named before.
    pub(super) fn add(&self, draft: &Path, image: &Descriptor, tags: &[Tag]) -> anyhow::Result<()> {
        let failed = || format!("cannot add to `{}`", shown(&self.root));
        // Two runs that add at once: the second sees what the first has added.
        let folder = fs::File::open(&self.root)?.into_parts().0;
        let _lock = match Flock::lock(folder, FlockArg::LockExclusive) {
            Ok(lock) => Some(lock),
            // Some file systems have no locks.
            Err((_, nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOLCK | nix::errno::Errno::EBADF)) => None,
            Err((_, errno)) => return Err(CallFailed::new(failed(), errno).into()),
        };
        self.check().with_context(failed)?;
        let mut index = self.index().with_context(failed)?;
        let mut documents = Vec::new();
        for tag in tags {
            match index::joined(image, self.images(&index, tag).with_context(failed)?)? {
                Joined::Image(image) => index.name(tag, image),
                Joined::Index(document) => {
                    index.name(tag, document.descriptor.clone());
                    documents.push(document);
                }
            }
        }
        if tags.is_empty() {
            index.add(image.clone());
        }
        let blobs = draft.join("blobs/sha256");
        for document in &documents {
            file::write(&blobs.join(document.descriptor.digest.hex()), &document.bytes)?;
        }
        let new_index = draft.join("index.json");
        file::write(&new_index, index.to_json()?)?;
        let names: BTreeSet<_> =
            fs::read_dir(&blobs)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
        let mut added = Vec::new();
        let moved = (|| {
            fs::create_dir_all(self.root.join("blobs/sha256"))?;
            for name in names {
                let place = self.root.join("blobs/sha256").join(&name);
                // A blob that is there already is the same one; a damaged one is replaced.
                let is_new = !place.exists();
                fs::rename(blobs.join(&name), &place)?;
                if is_new {
                    added.push(place);
                }
            }
            fs::rename(&new_index, self.root.join("index.json"))
        })();
        if moved.is_err() {
            for blob in added {
                let _ = fs::remove_file(blob);
            }
        }
        moved.with_context(failed)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    ensure!(size <= LARGEST_DOCUMENT, "`{}` is too large for what it should be: {size} bytes", shown(path));
    Ok(fs::read(path)?)
}

/// Writes what makes the folder `root` with its blobs a layout that holds `image` alone.
pub(super) fn complete(root: &Path, image: &Descriptor, tags: &[Tag]) -> anyhow::Result<()> {
    file::write(&root.join("oci-layout"), LAYOUT_VERSION)?;
    file::write(&root.join("index.json"), index_of(image, tags).to_json()?)
}

/// An index that holds `image` alone, under all of its names.
pub(super) fn index_of(image: &Descriptor, tags: &[Tag]) -> Index {
    let mut index = Index::default();
    for tag in tags {
        index.name(tag, image.clone());
    }
    if tags.is_empty() {
        index.add(image.clone());
    }
    index
}
