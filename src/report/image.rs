//! What is said of an image that was written.
//! It must never say more than the receipt holds.

use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use super::{Level, Voice, data, to_json};
use crate::sink::oci::Outcome;
use crate::sink::receipt::ExportedProfile;

/// What `export-image` did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageReceipt {
    /// The layout or the archive.
    pub out: String,
    /// The profiles in the image.
    pub profiles: Vec<ExportedProfile>,
    /// Its names, as given.
    pub tags: Vec<String>,
    /// For what machines it is.
    pub platform: String,
    /// How many store paths are in it.
    pub store_paths: u64,
    /// Digests and layers.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was left out or may surprise.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Voice {
    /// The one line that says what was written, on stderr; with `json` the whole receipt too, on stdout.
    pub fn image(&self, receipt: &ImageReceipt, json: bool) -> anyhow::Result<()> {
        self.say(Level::Normal, &summary(receipt));
        if json { data(&to_json(receipt)?) } else { Ok(()) }
    }
}

/// `wrote sha256:… (34 store paths, 35 layers, 21.2 MB, linux/amd64) to `layout` as `app:1` in 0.85 s`
fn summary(receipt: &ImageReceipt) -> String {
    let layers = &receipt.outcome.layers;
    let size: u64 = layers.iter().map(|layer| layer.size).sum();
    let mut text = format!(
        "wrote {} ({} store paths, {} layers, {}, {}) to {}",
        receipt.outcome.digest,
        HumanCount(receipt.store_paths),
        layers.len(),
        DecimalBytes(size),
        receipt.platform,
        if receipt.out == "-" { "standard output".to_owned() } else { format!("`{}`", receipt.out) },
    );
    if !receipt.tags.is_empty() {
        text.push_str(&format!(" as `{}`", receipt.tags.join("`, `")));
    }
    text.push_str(&format!(" in {:.2} s", receipt.seconds));
    match layers.iter().filter(|layer| layer.cached).count() {
        0 => {}
        cached => text.push_str(&format!("; {cached} layers from the cache")),
    }
    text
}
