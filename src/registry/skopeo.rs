//! Asks a registry, and copies images into it, through skopeo.
//! It must never say that something is absent unless the registry said so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::{ImageConfig, Refusal, parse_config, parse_tags, read_refusal};
use crate::call::{Call, Failure, Program, Tries};
use crate::failure::shown;
use crate::oci::Digest;

/// For a question.
const ASK: Duration = Duration::from_secs(2 * 60);
/// For an image, which may have a gigabyte.
const COPY: Duration = Duration::from_secs(3600);

/// The program, and how it reaches the registry.
#[derive(Debug)]
pub struct Skopeo {
    /// Skopeo itself, 1.9 or newer.
    pub program: Program,
    /// Each question and each copy is tried so often.
    pub tries: Tries,
    /// Whether the registry must speak TLS with a known certificate.
    pub tls_verify: bool,
    /// The file with credentials.
    pub auth_file: Option<PathBuf>,
}

/// What a repository's list of tags is.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    /// These.
    Listed(Vec<String>),
    /// The registry does not say in a way that is understood; tags have to be asked for one by one.
    Unlisted(String),
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One image with its layers.
    Image,
    /// An index of images which the registry has.
    Index,
}

impl Skopeo {
    /// The tags of `repository`.
    pub fn tags(&self, repository: &str) -> anyhow::Result<Tags> {
        let call = self.question("list-tags").arg(format!("docker://{repository}"));
        let asked = self.tries.run(|| {
            let answer = self.program.ask(&call)?;
            if answer.status.success() {
                return Ok(Tags::Listed(parse_tags(&answer.stdout)?));
            }
            match read_refusal(&answer.stderr) {
                Refusal::NotFound => Ok(Tags::Listed(Vec::new())),
                // Some versions say only "404" of a repository that does not exist.
                Refusal::Failed(message) if message.contains("invalid status code from registry 404") => {
                    Ok(Tags::Unlisted(message))
                }
                refusal => Err(failure(refusal)),
            }
        });
        asked.with_context(|| format!("cannot list the tags of `{repository}`"))
    }

    /// The manifest or index at `reference` as it is, with its digest. `None` if the registry has none.
    pub fn raw(&self, reference: &str) -> anyhow::Result<Option<(Digest, Vec<u8>)>> {
        let raw = self.inspect("--raw", reference)?;
        Ok(raw.map(|raw| (Digest::of(&raw), raw)))
    }

    /// Reads what was just pushed to `reference`. Some registries need a moment until they have it.
    pub fn read_back(&self, reference: &str) -> anyhow::Result<()> {
        let found = self.tries.run(|| match self.inspect("--raw", reference).map_err(Failure::Final)? {
            Some(_) => Ok(()),
            None => Err(anyhow!("it was pushed, but the registry says that it does not have it").into()),
        });
        found.with_context(|| format!("cannot read `{reference}` back"))
    }

    /// The configuration of the one image at `reference`.
    pub fn config(&self, reference: &str) -> anyhow::Result<Option<ImageConfig>> {
        let config = self.inspect("--config", reference)?;
        config
            .map(|raw| parse_config(&raw).with_context(|| format!("cannot understand the image `{reference}`")))
            .transpose()
    }

    fn inspect(&self, option: &str, reference: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let call = self.question("inspect").arg(option).arg(format!("docker://{reference}"));
        let asked = self.tries.run(|| {
            let answer = self.program.ask(&call)?;
            if answer.status.success() {
                return Ok(Some(answer.stdout));
            }
            match read_refusal(&answer.stderr) {
                Refusal::NotFound => Ok(None),
                refusal => Err(failure(refusal)),
            }
        });
        asked.with_context(|| format!("cannot read `{reference}`"))
    }

    /// Pushes the only image of the layout at `layout`, or its index called `name`.
    pub fn push(&self, layout: &Path, name: Option<&str>, to: &str, what: What) -> anyhow::Result<()> {
        let layout = layout.to_str().with_context(|| format!("`{}` is not UTF-8", shown(layout)))?;
        let name = name.map_or_else(String::new, |name| format!(":{name}"));
        self.copy(&format!("oci:{layout}{name}"), to, what, &[])
    }

    /// Gives `index`, which the registry has, another tag.
    pub fn tag(&self, repository: &str, index: &Digest, tag: &str) -> anyhow::Result<()> {
        let source_options = [format!("--src-tls-verify={}", self.tls_verify)];
        self.copy(
            &format!("docker://{repository}@{index}"),
            &format!("{repository}:{tag}"),
            What::Index,
            &source_options,
        )
    }

    fn copy(&self, from: &str, to: &str, what: What, options: &[String]) -> anyhow::Result<()> {
        // The digest is what tags and indexes are made of: no conversion may change it.
        let mut call = Call::new(COPY, ["copy", "--quiet", "--preserve-digests"]);
        if what == What::Index {
            call = call.arg("--multi-arch=index-only");
        }
        if let Some(file) = &self.auth_file {
            call = call.arg("--authfile").arg(file);
        }
        for option in options {
            call = call.arg(option);
        }
        let call = call.arg(format!("--dest-tls-verify={}", self.tls_verify)).arg(from).arg(format!("docker://{to}"));
        let copied = self.tries.run(|| {
            let answer = self.program.ask(&call)?;
            if answer.status.success() {
                return Ok(());
            }
            match read_refusal(&answer.stderr) {
                Refusal::NotFound => Err(anyhow!("the registry has not all of it").into()),
                refusal => Err(failure(refusal)),
            }
        });
        copied.with_context(|| format!("cannot push `{to}`"))
    }

    fn question(&self, command: &str) -> Call {
        let call = Call::new(ASK, [command, &format!("--tls-verify={}", self.tls_verify)]);
        match &self.auth_file {
            Some(file) => call.arg("--authfile").arg(file),
            None => call,
        }
    }
}

/// What is reported of a refusal, and whether another try may help.
fn failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NotFound => anyhow!("it is not there").into(),
        Refusal::NoRepository(message) => {
            Failure::Final(anyhow!("the repository has to be created in the registry first: {message}"))
        }
        Refusal::Denied(message) => Failure::Final(anyhow!("no permission: {message}")),
        Refusal::Failed(message) => anyhow!(message).into(),
    }
}
