//! What makes an image: the three programs `build`, `test` and `input-hash` of a folder such as `image/`.
//! It must never take their word for what an image is: what they made is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fs_err as fs;

use super::config::{Config, System};
use crate::call::{Call, Program};
use crate::channel::{Channel, Update};
use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::oci::{Descriptor, Digest, labels};
use crate::registry::{ImageConfig, Manifest, parse_config, parse_layout, parse_manifest};

/// For a hash of a few hundred files.
const HASH: Duration = Duration::from_secs(2 * 60);
/// For an image for which Nix may have to build much.
const BUILD: Duration = Duration::from_secs(6 * 3600);
/// For the tests of one image.
const TEST: Duration = Duration::from_secs(3600);

/// The three programs.
#[derive(Debug)]
pub struct Recipe {
    build: Program,
    test: Program,
    input_hash: Program,
    /// The repository of nixpkgs.
    source: String,
    /// The repository that builds the images, for a label.
    repository: Option<String>,
    /// A toolkit that is built already.
    toolkit: Option<PathBuf>,
}

/// One image to make.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Of this channel.
    pub channel: &'a Channel,
    /// From this commit.
    pub update: &'a Update,
    /// For this system.
    pub system: System,
}

impl Recipe {
    /// The recipe in `folder`.
    pub fn find(
        folder: &Path,
        config: &Config,
        toolkit: Option<PathBuf>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let program = |name: &str| {
            Program::at(&std::path::absolute(folder.join(name))?, interrupt.clone()).map_err(|error| {
                hinted(error, "run this in a checkout, or name the folder of its recipe with `--recipe`")
            })
        };
        let toolkit = toolkit.map(std::path::absolute).transpose()?;
        Ok(Self {
            build: program("build")?,
            test: program("test")?,
            input_hash: program("input-hash")?,
            source: config.source.clone(),
            repository: config.repository.clone(),
            toolkit,
        })
    }

    /// The hash of everything that the image is made from.
    pub fn inputs(&self, update: &Update, system: System) -> anyhow::Result<String> {
        let answer = self.input_hash.ask(&Call::new(HASH, [update.commit.as_str(), system.as_str()]))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let hash = text.trim_end_matches('\n');
        if !answer.status.success() {
            bail!("`input-hash` failed ({}): {}", answer.status, shown(answer.stderr.trim()));
        }
        ensure!(
            hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "`input-hash` printed `{}` and not 64 hexadecimal digits",
            shown(hash)
        );
        Ok(hash.to_owned())
    }

    /// Builds an image into the layout `out`, tests it, and returns what an index says of it.
    pub fn make(
        &self,
        order: Order<'_>,
        inputs: &str,
        out: &Path,
        listen: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<Descriptor> {
        let Order { channel, update, system } = order;
        let mut call = Call::new(BUILD, ["--rev", update.commit.as_str(), "--channel", channel.as_str()])
            .env("NIXPKGS_REPOSITORY", &self.source)
            .env("NIXKIT", std::env::current_exe().context("cannot find out where this program lies")?);
        if let Some(release) = &update.release {
            call = call.arg("--release").arg(release.to_string());
        }
        if let Some(repository) = &self.repository {
            call = call.arg("--source").arg(repository);
        }
        call = call.arg("--system").arg(system.as_str());
        if let Some(toolkit) = &self.toolkit {
            call = call.arg("--toolkit").arg(toolkit);
        }
        self.build.run(&call.arg(out), listen).context("cannot build it")?;
        let entry = read_image(out, order, inputs).context("cannot use what was built")?;
        let call = Call::new(TEST, [out]).env("NIXKIT", std::env::current_exe()?);
        self.test.run(&call, listen).context("it fails its test")?;
        Ok(entry)
    }
}

/// Reads the only image of the layout at `out`, which must be the one that was ordered.
fn read_image(out: &Path, order: Order<'_>, inputs: &str) -> anyhow::Result<Descriptor> {
    let blob = |digest: &Digest| {
        let bytes = fs::read(out.join("blobs/sha256").join(digest.hex()))?;
        ensure!(Digest::of(&bytes) == *digest, "the blob `{digest}` has other content");
        anyhow::Ok(bytes)
    };
    let entry = parse_layout(&fs::read(out.join("index.json"))?)?;
    let manifest = blob(&entry.digest)?;
    let Manifest::Image { media_type, size } = parse_manifest(&manifest)? else {
        bail!("it is an index of images and not one image");
    };
    let config: Digest = serde_json::from_slice::<serde_json::Value>(&manifest)?
        .pointer("/config/digest")
        .and_then(serde_json::Value::as_str)
        .context("its manifest names no configuration")?
        .parse()?;
    let ImageConfig { platform, labels: found } = parse_config(&blob(&config)?)?;
    let Order { channel, update, system } = order;
    ensure!(
        System::of_platform(&platform) == Some(system),
        "it is for `{}/{}` and not for `{system}`",
        platform.os,
        platform.architecture
    );
    for (label, expected) in
        [(labels::REVISION, update.commit.as_str()), (labels::CHANNEL, channel.as_str()), (labels::INPUTS, inputs)]
    {
        let found = labels::value(&found, label).unwrap_or_default();
        ensure!(found == expected, "its label `{label}` is `{}` and not `{expected}`", found.escape_debug());
    }
    // Without the name that it has in the layout.
    Ok(Descriptor { platform: Some(platform), ..Descriptor::new(&media_type, entry.digest, size) })
}
