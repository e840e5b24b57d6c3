//! The base image in an optional `nixkit.toml`.
//! It must never be needed: without it everything has a default.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Deserialize;

use super::{IMAGE, discovery};
use crate::dockerfile::reference::ImagePrefix;
use crate::failure::{Usage, shown};
use crate::input;

const FILE: &str = "nixkit.toml";

/// Other sections belong to other applets.
#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    sync: Section,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    image: Option<String>,
}

/// The base images of a run's files. Each `nixkit.toml` is read once.
pub(super) struct Images<'a> {
    named: Option<&'a str>,
    read: HashMap<PathBuf, Option<ImagePrefix>>,
}

impl<'a> Images<'a> {
    /// `named` is the one of the command line.
    pub(super) fn new(named: Option<&'a str>) -> Self {
        Self { named, read: HashMap::new() }
    }

    /// The base image of the files in `folder`: as the command line has it, else the nearest `nixkit.toml`, else
    /// `niteo/nixpkgs-`.
    pub(super) fn of(&mut self, folder: &Path) -> anyhow::Result<ImagePrefix> {
        if let Some(name) = self.named {
            let wrong = |reason| Usage(format!("`{}` cannot begin the name of an image: {reason}", shown(name)));
            return ImagePrefix::parse(name).map_err(|reason| wrong(reason).into());
        }
        for folder in discovery::up_to_the_root(folder) {
            let path = folder.join(FILE);
            if !self.read.contains_key(&path) {
                self.read.insert(path.clone(), read(&path)?);
            }
            if let Some(image) = &self.read[&path] {
                return Ok(image.clone());
            }
        }
        default_image()
    }
}

/// Whether commits of nixpkgs are meant: the image has no others.
pub(super) fn is_default(image: &ImagePrefix) -> bool {
    image.repository() == IMAGE
}

fn default_image() -> anyhow::Result<ImagePrefix> {
    ImagePrefix::parse(IMAGE).map_err(|reason| anyhow!("`{IMAGE}`: {reason}"))
}

fn read(path: &Path) -> anyhow::Result<Option<ImagePrefix>> {
    let text = match input::read_text(path, input::LIMIT) {
        Ok(text) => text,
        Err(error) if error.is_absence() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let path = shown(discovery::from_here(path));
    let configuration: Configuration = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        anyhow!("cannot read `{path}:{line}`: {}", error.message())
    })?;
    let Some(image) = configuration.sync.image.as_deref() else { return default_image().map(Some) };
    let image = ImagePrefix::parse(image)
        .map_err(|reason| anyhow!("`image = \"{}\"` cannot begin the name of an image: {reason}", shown(image)))
        .with_context(|| format!("cannot read `{path}`"))?;
    Ok(Some(image))
}
