//! npins' `npins/sources.json`, versions 0 to 8: `{"pins": {<name>: {"type": …}}, "version": N}`.
//! It must never look at the token that a pin of GitLab may hold.

use serde::Deserialize;

use super::url::{self, Place};
use super::{Kind, Object, Origin, Pin, Problem, Text, names, part, tree};

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
    /// Of version 0.
    owner: Text,
    repository: Repository,
}

/// Of version 0 the name alone; after that, by its type.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Repository {
    Name(String),
    #[serde(rename_all = "snake_case")]
    Typed {
        r#type: Option<String>,
        owner: Option<String>,
        repo: Option<String>,
        /// Of GitLab: all groups, and the name.
        repo_path: Option<String>,
        /// Of GitLab and Forgejo.
        server: Option<String>,
        url: Option<String>,
    },
    Else(serde::de::IgnoredAny),
}

impl Default for Repository {
    fn default() -> Self {
        Self::Else(serde::de::IgnoredAny)
    }
}

impl Entry {
    fn origin(&self) -> Origin {
        if self.r#type.as_deref() == Some("Channel") {
            return Origin::Nixpkgs;
        }
        let of_url = || {
            let urls = [&self.locked_url, &self.url, &self.update_url];
            urls.into_iter().find_map(Text::as_deref).map_or(Origin::Unknown, Origin::of_url)
        };
        match &self.repository {
            Repository::Name(name) => Origin::of_repository("github", self.owner.as_deref().unwrap_or_default(), name),
            Repository::Typed { url: Some(url), .. } => Origin::of_url(url),
            Repository::Typed { r#type, owner, repo, repo_path, server, .. } => {
                let (owner, repo) = match (owner, repo, repo_path) {
                    (_, _, Some(path)) => path.rsplit_once('/').unwrap_or(("", path)),
                    (Some(owner), Some(repo), _) => (owner.as_str(), repo.as_str()),
                    _ => return of_url(),
                };
                let forge = r#type.as_deref().unwrap_or("git").to_lowercase();
                match server.as_deref().filter(|server| !server.contains("//gitlab.com")) {
                    Some(server) => Origin::of_url(&format!("{}/{owner}/{repo}", server.trim_end_matches('/'))),
                    None => Origin::of_repository(&forge, owner, repo),
                }
            }
            Repository::Else(_) => of_url(),
        }
    }
}

pub(super) fn read(object: &Object<'_>, name: &str) -> Result<Pin, Problem> {
    let version = object.get("version").map_or("", |version| version.get());
    if !version.parse::<u64>().is_ok_and(|version| version <= NEWEST) {
        return Err(Problem::Version(Kind::Npins, version.chars().take(20).collect()));
    }
    let pins: Object<'_> = match object.get("pins") {
        Some(pins) => part(pins, "`pins` is not an object")?,
        None => return Err(Problem::Unknown),
    };
    let Some(value) = pins.get(name) else { return Err(Problem::NoInput(names(&pins))) };
    let entry: Entry = part(value, "the pin is not an object")?;
    if entry.artifact.as_deref().is_some_and(|artifact| !artifact.starts_with("nixexprs.tar.")) {
        return Err(Problem::NoRevision);
    }
    let address = entry.locked_url.as_deref().or(entry.url.as_deref());
    let Place { revision, channel, release } = address.map(url::of_url).unwrap_or_default();
    let of_update_url = entry.update_url.as_deref().map(url::of_url).and_then(|place| place.channel);
    let stated = match entry.r#type.as_deref() {
        Some("Channel") => url::channel_of_branch(entry.name.as_deref()),
        Some("Git" | "GitHub") => url::channel_of_branch(entry.branch.as_deref()),
        Some("GitRelease" | "GitHubRelease") => None,
        _ => {
            of_update_url.or_else(|| entry.url.as_deref().and_then(|address| url::of_url(address).channel)).or(channel)
        }
    };
    Ok(Pin {
        kind: Kind::Npins,
        revision: url::whole(entry.revision.as_deref()).or(revision).ok_or(Problem::NoRevision)?,
        channel: stated,
        origin: entry.origin(),
        upstream: None,
        nar_hash: entry.hash.as_deref().and_then(tree::sha256).filter(|_| release.is_some()),
        release,
    })
}
