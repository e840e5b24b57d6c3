//! npins' `npins/sources.json`, versions 0 to 8: `{"pins": {<name>: {"type": …}}, "version": N}`.
//! It must never look at the token that a pin of GitLab may hold.

use serde::Deserialize;

use super::place::{self, Place};
use super::{Kind, Object, Pin, Problem, Text, names, part, tree};

/// The newest version that npins has (libnpins/src/versions.rs).
const NEWEST: u64 = 8;

/// A pin of any version and type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    r#type: Text,
    /// Of Git and, in version 0, GitHub.
    branch: Text,
    /// Of Git and GitHub, and of their releases.
    revision: Text,
    /// Of a Channel: the channel.
    name: Text,
    /// Of a Channel, from version 8 on; something else than `nixexprs.tar.*` is not nixpkgs.
    artifact: Text,
    url: Text,
    /// Of a Tarball (5 to 7) that has been fetched.
    locked_url: Text,
    /// Of a `MutableUrl`.
    update_url: Text,
    hash: Text,
}

pub(super) fn read(object: &Object<'_>, name: &str) -> Result<Pin, Problem> {
    let version = object.get("version").map_or("", |version| version.get());
    if !version.parse::<u64>().is_ok_and(|version| version <= NEWEST) {
        return Err(Problem::Version(Kind::Npins, version.chars().take(20).collect()));
    }
    let pins: Object<'_> = match object.get("pins") {
        Some(pins) => part(pins, "`pins` is no object")?,
        None => return Err(Problem::Unknown),
    };
    let Some(value) = pins.get(name) else { return Err(Problem::NoInput(names(&pins))) };
    let entry: Entry = part(value, "the pin is no object")?;
    if entry.artifact.as_deref().is_some_and(|artifact| !artifact.starts_with("nixexprs.tar.")) {
        return Err(Problem::NoRevision);
    }
    let url = entry.locked_url.as_deref().or(entry.url.as_deref());
    let Place { revision, channel, release } = url.map(place::of_url).unwrap_or_default();
    let of_update_url = entry.update_url.as_deref().map(place::of_url).and_then(|place| place.channel);
    let stated = match entry.r#type.as_deref() {
        Some("Channel") => place::channel_of_branch(entry.name.as_deref()),
        Some("Git" | "GitHub") => place::channel_of_branch(entry.branch.as_deref()),
        Some("GitRelease" | "GitHubRelease") => None,
        _ => of_update_url.or_else(|| entry.url.as_deref().and_then(|url| place::of_url(url).channel)).or(channel),
    };
    Ok(Pin {
        kind: Kind::Npins,
        revision: place::whole(entry.revision.as_deref()).or(revision).ok_or(Problem::NoRevision)?,
        channel: stated,
        nar_hash: entry.hash.as_deref().and_then(tree::sha256).filter(|_| release.is_some()),
        release,
    })
}
