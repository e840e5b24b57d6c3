//! Writes an image: layers, config and manifest into an OCI layout or into one archive.
//! It must never change a layout before everything that goes into it is written.

mod attributes;
mod beside;
mod blobs;
mod cache;
mod contents;
mod destination;
mod entries;
mod layout;
mod pipeline;

pub use beside::Beside;
pub(super) use beside::Item;
pub use destination::{Destination, Form};
pub(super) use entries::Properties;
pub use pipeline::Compression;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::Path;

use anyhow::Context;
use fs_err as fs;
use serde::Serialize;

use super::database::{self, Programs};
use super::draft::Draft;
use super::pool;
use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::oci::{self, Descriptor, Digest, Platform, Settings, Tag, document};
use crate::progress::Progress;
use crate::store::{Registration, StoreDirectory, StorePath};
use blobs::{Archive, Blobs, Folder};
use cache::{Cache, Found};
use contents::Contents;
use layout::Layout;
use pipeline::{Step, Written};

/// In a draft: the archive that becomes OUT, and the root in which a Nix database is made.
const ARCHIVE: &str = "image.tar";
const SCRATCH: &str = ".scratch";
/// Where a Nix database's GC roots lie. Nix follows links there, however they are called.
const GC_ROOTS: &str = "nix/var/nix/gcroots/nixkit";
/// Modification time of a layout's directory.
const TIME: i64 = 1;
/// Changes whenever the bytes of a layer would.
const FORMAT: &str = concat!("nixkit ", env!("CARGO_PKG_VERSION"), " layer 2");
/// How many store paths the comment of a layer names.
const NAMED: usize = 3;

/// Everything that is in an image, and how it is written.
#[derive(Debug)]
pub struct Image<'a> {
    /// Where the store paths lie.
    pub store: &'a StoreDirectory,
    /// What Nix says of them, for the cache and the database.
    pub registrations: &'a [Registration],
    /// The store paths of each layer; the last layer, which is never cached, has the rest of the root too.
    pub layers: &'a [Vec<StorePath>],
    /// The rest of the root.
    pub beside: Beside,
    /// With what to make a Nix database, and the store paths that become GC roots.
    pub database: Option<(&'a Programs, &'a [StorePath])>,
    /// What a container runs.
    pub settings: &'a Settings,
    /// Of the manifest, and of an index for several platforms.
    pub annotations: &'a BTreeMap<String, String>,
    /// For what machines.
    pub platform: &'a Platform,
    /// When, in RFC 3339.
    pub created: &'a str,
    /// Its names.
    pub tags: &'a [Tag],
    /// How layers are compressed.
    pub compression: Compression,
    /// Where layers are kept between runs.
    pub cache: Option<&'a Path>,
    /// How many bytes that may have afterwards.
    pub cache_max_size: Option<u64>,
    /// How many threads compress.
    pub jobs: usize,
    /// Permissions of a new layout's directory.
    pub directory_mode: u32,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Of the manifest: what registries call the image.
    pub digest: Digest,
    /// Of the config: what Docker calls the image.
    pub config: Digest,
    /// From the lowest to the highest.
    pub layers: Vec<LayerOutcome>,
    /// What may surprise.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerOutcome {
    /// Of the compressed blob.
    pub digest: Digest,
    /// Of the uncompressed layer.
    pub diff_id: Digest,
    /// Bytes of the compressed blob.
    pub size: u64,
    /// Base names.
    pub store_paths: Vec<String>,
    /// Whether it was not made again.
    pub cached: bool,
}

impl Image<'_> {
    /// Writes the image to `destination`, or leaves that as it was.
    pub fn write(
        mut self,
        destination: &Destination,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Outcome> {
        let cache = self.cache.map(Cache::open);
        let draft = Draft::create(destination.target())?;
        let path = draft.path().to_owned();
        let work = Work { draft: &path, cache: cache.as_ref(), progress, interrupt };
        let filled = match destination {
            Destination::Layout(_) => self.fill_layout(work),
            Destination::Archive(_) | Destination::Stdout { .. } => self.fill_archive(work),
        };
        let published = filled.and_then(|written| {
            interrupt.check()?;
            Ok(written)
        });
        let (draft, outcome) = match published {
            Ok((image, outcome)) => match self.publish(draft, destination, &image, interrupt) {
                (draft, Ok(())) => (draft, Ok(outcome)),
                (draft, Err(error)) => (draft, Err(error)),
            },
            Err(error) => (Some(draft), Err(error)),
        };
        let discarded = draft.map_or(Ok(()), |draft| draft.discard(destination.target()));
        match (discarded, outcome) {
            (Err(left), Err(error)) => {
                Err(error.context(format!("cannot remove `{}` ({left:#}) after a failure", shown(&path))))
            }
            // The image is where it should be; the next run for the same place removes the draft.
            (_, Ok(mut outcome)) => {
                if let Some(cache) = &cache {
                    if let Some(most) = self.cache_max_size {
                        cache.prune(most);
                    }
                    outcome.warnings.extend(cache.warning());
                }
                Ok(outcome)
            }
            (_, Err(error)) => Err(error),
        }
    }

    fn fill_layout(&mut self, work: Work<'_>) -> anyhow::Result<(Descriptor, Outcome)> {
        let mut blobs = Folder::create(work.draft)?;
        let (image, _, outcome) = self.write_blobs(&mut blobs, work)?;
        Ok((image, outcome))
    }

    fn fill_archive(&mut self, work: Work<'_>) -> anyhow::Result<(Descriptor, Outcome)> {
        let mut archive = Archive::create(&work.draft.join(ARCHIVE))?;
        let (image, layers, outcome) = self.write_blobs(&mut archive, work)?;
        archive.member("index.json", &layout::index_of(&image, self.tags).to_json()?)?;
        archive.member("manifest.json", &oci::index::docker_manifest(&outcome.config, &layers, self.tags)?)?;
        archive.member("oci-layout", oci::index::LAYOUT_VERSION.as_bytes())?;
        archive.finish()?;
        Ok((image, outcome))
    }

    /// Makes what was written appear. Returns the draft where it is to be removed.
    fn publish(
        &self,
        draft: Draft,
        destination: &Destination,
        image: &Descriptor,
        interrupt: &Interrupt,
    ) -> (Option<Draft>, anyhow::Result<()>) {
        let target = match destination {
            Destination::Archive(target) => {
                let renamed = fs::rename(draft.path().join(ARCHIVE), &target.root);
                return (Some(draft), renamed.map_err(Into::into));
            }
            Destination::Stdout { out, .. } => {
                let written = blobs::copy_to_stdout(&draft.path().join(ARCHIVE), out, interrupt);
                return (Some(draft), written);
            }
            Destination::Layout(target) => target,
        };
        let add = |layout: &Layout, draft: &Draft| layout.add(draft.path(), image, self.tags);
        match Layout::find(target) {
            Ok(Some(layout)) => {
                let added = add(&layout, &draft);
                return (Some(draft), added);
            }
            Ok(None) => {}
            Err(error) => return (Some(draft), Err(error)),
        }
        if let Err(error) = layout::complete(draft.path(), image, self.tags) {
            return (Some(draft), Err(error));
        }
        match draft.publish(target, self.directory_mode, TIME, OsStr::new("index.json")) {
            Ok(()) => (None, Ok(())),
            // Another run may have made the layout in the meantime.
            Err((draft, error)) => {
                let added = match Layout::find(target) {
                    Ok(Some(layout)) => add(&layout, &draft),
                    _ => Err(error),
                };
                (Some(draft), added)
            }
        }
    }

    /// Writes all blobs, and returns the descriptor of the image with its layers.
    fn write_blobs(
        &mut self,
        blobs: &mut dyn Blobs,
        work: Work<'_>,
    ) -> anyhow::Result<(Descriptor, Vec<oci::Layer>, Outcome)> {
        let scratch = work.draft.join(SCRATCH);
        if let Some((programs, roots)) = self.database {
            self.make_database(programs, roots, &scratch, work.interrupt)?;
        }
        let Layers { written, cached, warnings } = self.write_layers(blobs, work)?;
        if self.database.is_some() {
            fs::remove_dir_all(&scratch)?;
        }
        let layers: Vec<_> = written
            .iter()
            .zip(self.layers)
            .enumerate()
            .map(|(i, (Written { blob, diff_id }, paths))| oci::Layer {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
                comment: comment(paths, i + 1 == self.layers.len()),
            })
            .collect();
        let config = document::image_config(self.settings, self.platform, self.created, &layers)?;
        blobs.whole(&config.bytes, &config.descriptor.digest)?;
        let manifest = document::manifest(&config.descriptor, &layers, self.annotations)?;
        blobs.whole(&manifest.bytes, &manifest.descriptor.digest)?;
        let (platform, annotations) = (Some(self.platform.clone()), self.annotations.clone());
        let image = Descriptor { platform, annotations, ..manifest.descriptor };
        let outcome = |((layer, paths), &cached): ((&oci::Layer, &Vec<StorePath>), &bool)| LayerOutcome {
            digest: layer.blob.digest.clone(),
            diff_id: layer.diff_id.clone(),
            size: layer.blob.size,
            store_paths: paths.iter().map(ToString::to_string).collect(),
            cached,
        };
        let outcome = Outcome {
            digest: image.digest.clone(),
            config: config.descriptor.digest,
            layers: layers.iter().zip(self.layers).zip(&cached).map(outcome).collect(),
            warnings,
        };
        Ok((image, layers, outcome))
    }

    /// Makes a Nix database in `scratch`, and puts it and the GC roots beside the store.
    fn make_database(
        &mut self,
        programs: &Programs,
        roots: &[StorePath],
        scratch: &Path,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        fs::create_dir(scratch)?;
        let folder = programs.make(scratch, self.registrations, self.store, interrupt)?;
        for file in database::FILES {
            self.beside.file(&Path::new(database::PLACE).join(file), &folder.join(file), 0o644)?;
        }
        for root in roots {
            self.beside.symlink(&Path::new(GC_ROOTS).join(root.base_name()), &self.store.join(root))?;
        }
        Ok(())
    }

    /// Writes all layers. Those in the cache are taken from there.
    fn write_layers(&self, blobs: &mut dyn Blobs, work: Work<'_>) -> anyhow::Result<Layers> {
        let Work { cache, progress, interrupt, .. } = work;
        let keys: Vec<_> = self.layers.iter().map(|paths| self.key(paths)).collect();
        let last = self.layers.len() - 1;
        let mut found = match cache {
            Some(cache) => find_all(cache, &keys[..last], self.jobs, interrupt)?,
            None => HashMap::new(),
        };
        let cached: Vec<_> = (0..self.layers.len()).map(|i| found.contains_key(&i)).collect();
        let wanted: Vec<_> = (0..self.layers.len()).filter(|i| !cached[*i]).collect();
        let mut contents = Contents::new(self.store, interrupt, progress)?;
        let produce = |i: usize, output: &mut pipeline::Layer<'_>| {
            if i == last {
                self.beside.write(output, interrupt)?;
            } else {
                contents.parents(output)?;
            }
            contents.write(&self.layers[i], output)?;
            entries::finish(output)
        };
        let mut written: Vec<Written> = Vec::new();
        pipeline::run(self.compression, self.jobs, &wanted, blobs, interrupt, produce, |step, blobs| {
            match step {
                // In order, so that an archive is the same whatever was in the cache.
                Step::Before(next) => {
                    while written.len() < next {
                        let i = written.len();
                        let found = found.remove(&i).context("a layer was neither made nor found")?;
                        blobs.take(&found.file, &found.path, &found.layer.blob.digest)?;
                        self.layers[i].iter().for_each(|_| progress.begin_store_path());
                        written.push(found.layer);
                    }
                }
                Step::Done(i, layer) => {
                    if let Some(cache) = cache.filter(|_| i != last) {
                        cache.keep(&keys[i], &layer, |to| blobs.give(&layer.blob.digest, to));
                    }
                    written.push(*layer);
                }
            }
            Ok(())
        })?;
        let mut warnings = Vec::new();
        let longest = [&contents.longest, self.beside.longest()].into_iter().max_by_key(|path| path.len());
        if let Some(path) = longest.filter(|path| path.len() > entries::SAFE_PATH) {
            warnings.push(format!(
                "`/{}` is a path of {} bytes: most container engines cannot unpack more than about 4,000",
                entries::shortened(path),
                path.len() + 1
            ));
        }
        Ok(Layers { written, cached, warnings })
    }

    /// What a layer of `paths` is made of, and how.
    fn key(&self, paths: &[StorePath]) -> String {
        let hashes: HashMap<_, _> = self.registrations.iter().map(|r| (&r.path, r.nar_hash.as_str())).collect();
        let mut text = format!("{FORMAT}\n{:?}\n{}\n", self.compression, self.store);
        for path in paths {
            text.push_str(&format!("{path} {}\n", hashes.get(path).copied().unwrap_or_default()));
        }
        Digest::of(text.as_bytes()).hex().to_owned()
    }
}

/// What the steps of writing have in common.
#[derive(Clone, Copy)]
struct Work<'a> {
    /// The folder in which the image is made.
    draft: &'a Path,
    cache: Option<&'a Cache>,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

/// The layers of an image.
struct Layers {
    written: Vec<Written>,
    /// Whether each came from the cache.
    cached: Vec<bool>,
    /// What may surprise.
    warnings: Vec<String>,
}

/// The layers among `keys` that are in the cache, by their numbers.
fn find_all(
    cache: &Cache,
    keys: &[String],
    jobs: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<HashMap<usize, Found>> {
    let tasks = keys.iter().enumerate().collect();
    let found = pool::run(jobs, tasks, HashMap::new, |(i, key), found, _| {
        found.extend(cache.find(key, interrupt)?.map(|layer| (i, layer)));
        Ok(())
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// What is in a layer, for `docker history`.
fn comment(paths: &[StorePath], is_last: bool) -> String {
    let mut names: Vec<_> = paths.iter().take(NAMED).map(|path| path.name().to_owned()).collect();
    if paths.len() > NAMED {
        names.push(format!("and {} more", paths.len() - NAMED));
    }
    if is_last {
        names.push("the rest of the root".to_owned());
    }
    names.join(", ")
}
