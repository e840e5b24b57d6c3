//! niv's `nix/sources.json`: an object of entries, without a version.
//! It must never take another tool's `sources.json` for niv's.

use serde::Deserialize;

use super::url::{self, Place};
use super::{Kind, Object, Origin, Pin, Problem, Text, names};

/// An entry. Which keys there are depends on its type: github, git, local, or only a URL.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    r#type: Text,
    branch: Text,
    r#ref: Text,
    rev: Text,
    url: Text,
    url_template: Text,
    owner: Text,
    /// The name of the repository, or of type git its URL.
    repo: Text,
}

impl Entry {
    fn is_nivs(&self) -> bool {
        [&self.r#type, &self.url, &self.url_template, &self.rev].iter().any(|text| text.as_deref().is_some())
    }

    fn origin(&self) -> Origin {
        match (self.owner.as_deref(), self.repo.as_deref(), self.url.as_deref()) {
            (Some(owner), Some(repo), _) => Origin::of_repository("github", owner, repo),
            (_, Some(url), None) | (_, _, Some(url)) => Origin::of_url(url),
            _ => Origin::Unknown,
        }
    }
}

pub(super) fn read(object: &Object<'_>, name: &str) -> Result<Pin, Problem> {
    let entries = object.iter().map(|(key, value)| {
        // niv refuses a file with anything else (SpecIsntAMap).
        let entry = serde_json::from_str::<Entry>(value.get()).ok().filter(|_| value.get().starts_with('{'));
        entry.map(|entry| (key, entry)).ok_or(Problem::Unknown)
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let entry = match entries.iter().find(|(key, _)| *key == name) {
        Some((_, entry)) if entry.is_nivs() => entry,
        None if entries.iter().all(|(_, entry)| entry.is_nivs()) => return Err(Problem::NoInput(names(object))),
        _ => return Err(Problem::Unknown),
    };
    let Place { revision, channel, release } = entry.url.as_deref().map(url::of_url).unwrap_or_default();
    let branch = entry.branch.as_deref().or(entry.r#ref.as_deref());
    Ok(Pin {
        kind: Kind::Niv,
        revision: url::whole(entry.rev.as_deref()).or(revision).ok_or(Problem::NoRevision)?,
        channel: if branch.is_some() { url::channel_of_branch(branch) } else { channel },
        release,
        nar_hash: None,
        origin: entry.origin(),
        upstream: None,
    })
}
