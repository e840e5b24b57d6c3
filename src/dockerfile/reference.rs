//! The parts of an image reference: registry, repository, tag and digest, as `distribution/reference` cuts it.
//! It must never ask a registry, nor know which images there are.

use std::ops::Range;

/// Where the parts of a reference are, as offsets of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Before the first `/`, if that part names a host.
    pub registry: Option<Range<usize>>,
    /// Behind the registry, without it.
    pub repository: Range<usize>,
    /// Behind the last `:`.
    pub tag: Option<Range<usize>>,
    /// Behind the `@`.
    pub digest: Option<Range<usize>>,
}

impl Reference {
    /// Cuts `text`. Nothing is checked but what decides where a part ends, so that a reference can be
    /// found whose tag comes from a variable.
    pub fn cut(text: &[char]) -> Self {
        let name_end = text.iter().position(|&c| c == '@').unwrap_or(text.len());
        let digest = (name_end < text.len()).then_some(name_end + 1..text.len());
        let last_slash = text[..name_end].iter().rposition(|&c| c == '/').map_or(0, |at| at + 1);
        let colon = tag_colon(&text[last_slash..name_end]).map(|at| last_slash + at);
        let tag = colon.map(|at| at + 1..name_end);
        let end = colon.unwrap_or(name_end);
        let slash = text[..end].iter().position(|&c| c == '/').filter(|&slash| is_host(&text[..slash]));
        let start = slash.map_or(0, |slash| slash + 1);
        Self { registry: slash.map(|slash| 0..slash), repository: start..end, tag, digest }
    }
}

/// The `:` before the tag: the first one that does not belong to a variable (`${name:-tag}`).
fn tag_colon(text: &[char]) -> Option<usize> {
    let mut braces = 0_usize;
    text.iter().position(|&c| {
        match c {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        c == ':' && braces == 0
    })
}

/// Whether what stands before the first `/` is a host and not the beginning of a repository. An empty one,
/// or one with a `$`, is a registry that is only known when the image is built.
pub(super) fn is_host(text: &[char]) -> bool {
    if text.is_empty() || text.contains(&'$') {
        return true;
    }
    let colon = text.iter().rposition(|&c| c == ':');
    let (host, port) = text.split_at(colon.unwrap_or(text.len()));
    let port_is_number = port.is_empty() || (port.len() > 1 && port[1..].iter().all(char::is_ascii_digit));
    let good = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':' | '_');
    let is_marked = colon.is_some()
        || text.iter().any(|&c| c == '.' || c.is_ascii_uppercase())
        || text.iter().copied().eq("localhost".chars());
    is_marked && port_is_number && !host.is_empty() && host.iter().all(good)
}

/// Which images are the base image's: an optional registry, and how their repositories begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePrefix {
    registry: Option<String>,
    repository: String,
}

/// A text that cannot begin the name of an image, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPrefix(&'static str);

impl std::fmt::Display for NotAPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Docker's own registry, which is the one that is meant where none is named.
const DOCKER_HUB: [&str; 2] = ["docker.io", "index.docker.io"];

impl ImagePrefix {
    /// Reads `[REGISTRY/]REPOSITORY`.
    pub fn parse(text: &str) -> Result<Self, NotAPrefix> {
        let chars: Vec<char> = text.chars().collect();
        let cut = Reference::cut(&chars);
        if cut.digest.is_some() || cut.tag.is_some() {
            return Err(NotAPrefix("it has a tag or a digest"));
        }
        let part = |range: Range<usize>| chars[range].iter().collect::<String>();
        let repository = part(cut.repository);
        if repository.is_empty() {
            return Err(NotAPrefix("it has no repository"));
        }
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/');
        if !repository.chars().all(good) || !repository.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(NotAPrefix("a repository has lower-case letters, digits, `.`, `_`, `-` and `/` only"));
        }
        let registry = cut.registry.map(part).filter(|registry| !DOCKER_HUB.contains(&registry.as_str()));
        if registry.as_deref().is_some_and(|registry| registry.is_empty() || registry.contains('$')) {
            return Err(NotAPrefix("its registry is no host"));
        }
        Ok(Self { registry, repository })
    }

    /// The registry, unless it may be any.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// How the repository begins, or all of it if the name takes no channel.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Whether the channel is part of the name: it ends in `-`, `_`, `.` or `/`.
    pub fn takes_channel(&self) -> bool {
        self.repository.ends_with(['-', '_', '.', '/'])
    }

    /// The whole name for `channel`, of which there must be one if the name takes it.
    pub fn name(&self, channel: Option<&str>) -> String {
        let registry = self.registry.as_ref().map(|registry| format!("{registry}/")).unwrap_or_default();
        let channel = channel.filter(|_| self.takes_channel()).unwrap_or_default();
        format!("{registry}{}{channel}", self.repository)
    }

    /// The part of a reference that names the channel, if it is one of these images; empty where the name
    /// takes none.
    pub fn channel_of(&self, text: &[char], reference: &Reference) -> Option<Range<usize>> {
        if let Some(own) = &self.registry {
            let registry = &text[reference.registry.clone()?];
            if !registry.iter().copied().eq(own.chars()) {
                return None;
            }
        }
        let Range { start, end } = reference.repository;
        let prefix = self.repository.chars().count();
        if end - start < prefix || !text[start..start + prefix].iter().copied().eq(self.repository.chars()) {
            return None;
        }
        let channel = start + prefix..end;
        let rest = &text[channel.clone()];
        let good = |&c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let is_variable = rest.contains(&'$');
        let fits = if self.takes_channel() {
            !rest.is_empty() && (is_variable || rest.iter().all(good))
        } else {
            rest.is_empty()
        };
        fits.then_some(channel)
    }
}
