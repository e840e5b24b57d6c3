//! Which repository a pinned tree comes from. A commit of another repository than nixpkgs has no base image.
//! It must never show more of a URL than host, owner and repository: the rest may hold an access token.

use super::url;
use crate::failure::shown;
use crate::nixpkgs::{Channel, Release};

/// Names of nixpkgs' own repository; the second one had the branches of the channels until 2020.
const REPOSITORIES: [&str; 2] = ["nixpkgs", "nixpkgs-channels"];
/// A repository of another name with nixpkgs' own commits: `FlakeHub`'s weekly edition.
const WEEKLY: (&str, &str) = ("determinatesystems", "nixpkgs-weekly");
/// What is shown as `github:owner/repository`; anything else is a host.
const FORGES: [&str; 9] = ["github", "gitlab", "sourcehut", "forgejo", "flakehub", "flake", "path", "file", "git"];
/// What separates the repository from the commit in the URL of an archive.
const ARCHIVES: [&str; 8] = ["archive", "tarball", "zipball", "tar.gz", "zip", "-", "get", "repository"];

/// Where a pinned tree comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The repository of nixpkgs, or a release of one of its channels.
    Nixpkgs,
    /// Another place with the name nixpkgs, taken for a mirror of it.
    Mirror(String),
    /// Something else, such as `github:nix-community/home-manager`.
    Other(String),
    /// The file does not say.
    Unknown,
}

impl Origin {
    /// Whether the commit may be one of nixpkgs, as far as the file says.
    pub fn may_be_nixpkgs(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether the file says that this is nixpkgs.
    pub fn is_nixpkgs(&self) -> bool {
        matches!(self, Self::Nixpkgs | Self::Mirror(_))
    }

    /// A repository on a forge such as `github`, or on a host.
    pub(super) fn of_repository(forge: &str, owner: &str, repository: &str) -> Self {
        let name = repository.strip_suffix(".git").unwrap_or(repository);
        let lower = name.to_ascii_lowercase();
        let separator = if FORGES.contains(&forge) { ':' } else { '/' };
        let display = match owner {
            "" => format!("{}{separator}{}", shown(forge), shown(name)),
            owner => format!("{}{separator}{}/{}", shown(forge), shown(owner), shown(name)),
        };
        if REPOSITORIES.contains(&lower.as_str()) {
            let is_own = owner.eq_ignore_ascii_case("nixos") && matches!(forge, "github" | "flakehub");
            return if is_own { Self::Nixpkgs } else { Self::Mirror(display) };
        }
        if forge == "flakehub" && owner.eq_ignore_ascii_case(WEEKLY.0) && lower == WEEKLY.1 {
            return Self::Mirror(display);
        }
        Self::Other(display)
    }

    /// What a URL fetches: an archive, a git repository, a release of a channel.
    pub(super) fn of_url(url: &str) -> Self {
        let Some((host, path)) = cut(url) else { return Self::Unknown };
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let has_release = segments.iter().any(|segment| Release::parse_any(segment).is_some());
        let has_channel = segments.iter().any(|segment| segment.parse::<Channel>().is_ok());
        match host.as_str() {
            "releases.nixos.org" | "channels.nixos.org" | "nixos.org" if has_release || has_channel => {
                return Self::Nixpkgs;
            }
            "flakehub.com" | "api.flakehub.com" => {
                let with_host: Vec<&str> = std::iter::once(host.as_str()).chain(segments.iter().copied()).collect();
                return url::flakehub(&with_host).map_or(Self::Unknown, |(owner, repository, _)| {
                    Self::of_repository("flakehub", owner, repository)
                });
            }
            _ if has_release => return Self::Mirror(shown(&host)),
            _ => {}
        }
        let (forge, segments) = match (host.as_str(), segments.as_slice()) {
            ("api.github.com", ["repos", rest @ ..]) | ("github.com" | "codeload.github.com", rest) => ("github", rest),
            ("gitlab.com", rest) => ("gitlab", rest),
            (host, rest) => (host, rest),
        };
        if let (_, ["api", _, "projects", project, ..]) = (forge, segments) {
            let project = project.replace("%2F", "/").replace("%2f", "/");
            let (owner, repository) = project.rsplit_once('/').unwrap_or(("", &project));
            return Self::of_repository(forge, owner, repository);
        }
        if let ("github", [owner, repository, ..]) = (forge, segments) {
            return Self::of_repository(forge, owner, repository);
        }
        let end = segments.iter().position(|segment| ARCHIVES.contains(segment)).unwrap_or(segments.len());
        let Some((last, owner)) = segments[..end].split_last() else { return Self::Unknown };
        let name = last.split_once(".tar").map_or(*last, |(stem, _)| stem);
        // The archive of a commit that says nothing about its repository.
        if name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) || name == "nixexprs" {
            return if has_channel { Self::Mirror(shown(forge)) } else { Self::Unknown };
        }
        Self::of_repository(forge, &owner.join("/"), name)
    }
}

/// Host (in lower case, with its port) and path of a URL, or of git's `user@host:path`; without user, query and
/// fragment.
fn cut(url: &str) -> Option<(String, &str)> {
    let url = url.split(['?', '#']).next()?;
    if let Some((_, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_once('/')?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        return Some((if host.is_empty() { "file".to_owned() } else { host.to_lowercase() }, path));
    }
    if url.starts_with('/') {
        return Some(("path".to_owned(), url));
    }
    let (authority, path) = url.split_once(':')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty() && !host.contains('/')).then(|| (host.to_lowercase(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_its_repository() {
        let mirror = |name: &str| Origin::Mirror(name.to_owned());
        let other = |name: &str| Origin::Other(name.to_owned());
        for (url, expected) in [
            ("https://github.com/NixOS/nixpkgs/archive/x.tar.gz", Origin::Nixpkgs),
            ("https://github.com/nixos/nixpkgs-channels/archive/x.tar.gz", Origin::Nixpkgs),
            ("https://api.github.com/repos/NixOS/nixpkgs/tarball/25.05", Origin::Nixpkgs),
            ("https://codeload.github.com/NixOS/nixpkgs/tar.gz/x", Origin::Nixpkgs),
            ("https://github.com/NixOS/nixpkgs.git", Origin::Nixpkgs),
            ("git@github.com:NixOS/nixpkgs.git", Origin::Nixpkgs),
            ("ssh://git@github.com/NixOS/nixpkgs", Origin::Nixpkgs),
            ("https://releases.nixos.org/nixos/25.11/nixos-25.11.1.88195a94f390/nixexprs.tar.xz", Origin::Nixpkgs),
            ("https://channels.nixos.org/nixos-25.11/nixexprs.tar.xz", Origin::Nixpkgs),
            ("https://nixos.org/channels/nixpkgs-unstable", Origin::Nixpkgs),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2505.%2A", Origin::Nixpkgs),
            ("https://api.flakehub.com/f/pinned/NixOS/nixpkgs/0.1.1%2Brev-x/y/source.tar.gz", Origin::Nixpkgs),
            (
                "https://flakehub.com/f/DeterminateSystems/nixpkgs-weekly/0.1",
                mirror("flakehub:DeterminateSystems/nixpkgs-weekly"),
            ),
            ("https://github.com/serokell/nixpkgs/archive/x.tar.gz", mirror("github:serokell/nixpkgs")),
            ("https://gitlab.com/a/b/nixpkgs/-/archive/x/nixpkgs-x.tar.gz", mirror("gitlab:a/b/nixpkgs")),
            ("https://gitlab.com/api/v4/projects/a%2Fnixpkgs/repository/archive.tar.gz", mirror("gitlab:a/nixpkgs")),
            (
                "https://user:TOKEN@git.example.com:8443/mirrors/nixpkgs.git?x=TOKEN",
                mirror("git.example.com:8443/mirrors/nixpkgs"),
            ),
            ("https://example.com/nixpkgs.tar.gz", mirror("example.com/nixpkgs")),
            ("http://127.0.0.1:80/nixos/25.11/nixos-25.11.7.111111111111/nixexprs.tar.xz", mirror("127.0.0.1:80")),
            ("/srv/mirrors/nixpkgs", mirror("path:srv/mirrors/nixpkgs")),
            ("file:///srv/git/nixpkgs", mirror("file:srv/git/nixpkgs")),
            ("https://github.com/cachix/devenv-nixpkgs/archive/x.tar.gz", other("github:cachix/devenv-nixpkgs")),
            ("https://github.com/nix-community/nixpkgs.lib", other("github:nix-community/nixpkgs.lib")),
            (
                "https://flakehub.com/f/DeterminateSystems/secure-packages/0",
                other("flakehub:DeterminateSystems/secure-packages"),
            ),
            (
                "https://releases.nixos.org/nix/nix-2.18.1/nix-2.18.1.tar.xz",
                other("releases.nixos.org/nix/nix-2.18.1/nix-2.18.1"),
            ),
            ("https://x/3b1789322fcbcb5cf51228d732752714f1bf77da.tar.gz", Origin::Unknown),
            ("https://x/nixexprs.tar.xz", Origin::Unknown),
            ("https://x", Origin::Unknown),
            ("", Origin::Unknown),
            ("x", Origin::Unknown),
        ] {
            assert_eq!(Origin::of_url(url), expected, "{url}");
        }
        assert_eq!(Origin::of_repository("github", "NixOS", "nixpkgs"), Origin::Nixpkgs);
        assert_eq!(Origin::of_repository("github", "a\u{1b}", "b"), other("github:a\\u{1b}/b"));
    }
}
