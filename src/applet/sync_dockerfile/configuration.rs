//! What an optional `nixkit.toml` says of the base image.
//! It must never be needed: without it everything has a default.

use std::path::Path;

use anyhow::{Context, anyhow};
use fs_err as fs;
use serde::Deserialize;

use super::{IMAGE, discovery};
use crate::dockerfile::reference::ImagePrefix;
use crate::failure::{Usage, shown};

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

/// How the base image is called: as the command line has it, else the nearest `nixkit.toml`, else `niteo/nixpkgs-`.
pub(super) fn image(named: Option<&str>, folder: &Path) -> anyhow::Result<ImagePrefix> {
    if let Some(name) = named {
        let wrong = |reason| Usage(format!("`{}` cannot begin the name of an image: {reason}", shown(name)));
        return ImagePrefix::parse(name).map_err(|reason| wrong(reason).into());
    }
    for folder in discovery::up_to_the_root(folder) {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if discovery::is_absent(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let path = shown(discovery::from_here(&path));
        let configuration: Configuration = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            anyhow!("cannot read `{path}:{line}`: {}", error.message())
        })?;
        let image = configuration.sync.image.as_deref().unwrap_or(IMAGE);
        return ImagePrefix::parse(image)
            .map_err(|reason| anyhow!("`image = \"{}\"` cannot begin the name of an image: {reason}", shown(image)))
            .with_context(|| format!("cannot read `{path}`"));
    }
    ImagePrefix::parse(IMAGE).map_err(|reason| anyhow!("`{IMAGE}`: {reason}"))
}
