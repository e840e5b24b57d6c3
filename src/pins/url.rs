//! What a branch or a URL says about a pin: the channel, the commit, the release of a channel.
//! It must never guess: a branch that is not a channel gives no channel.

use crate::nixpkgs::{Channel, Release, Revision};

/// What could be read from a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: Option<Revision>,
    pub(super) channel: Option<Channel>,
    /// The directory of a channel's release, in which `git-revision` has the whole commit.
    pub(super) release: Option<String>,
}

/// The channel that a branch or ref names, if it names one.
pub(super) fn channel_of_branch(branch: Option<&str>) -> Option<Channel> {
    let branch = branch?;
    branch.strip_prefix("refs/heads/").unwrap_or(branch).parse().ok()
}

/// A whole commit.
pub(super) fn whole(text: Option<&str>) -> Option<Revision> {
    text.and_then(Revision::whole)
}

/// What a URL says about nixpkgs:
///
/// - `…/archive/<commit>.tar.gz`, `…/tarball/<commit>`, `…/tar.gz/<commit>`, `…?rev=<commit>`, `…?sha=<commit>`;
/// - `https://releases.nixos.org/nixos/25.11/nixos-25.11.1234.<prefix>/nixexprs.tar.xz`, and the same with
///   `nixos/unstable`, `nixos/25.11-small`, `nixpkgs/nixpkgs-26.05pre1.<prefix>` and
///   `nixpkgs/25.11-darwin/nixpkgs-darwin-25.11pre1.<prefix>`;
/// - `https://channels.nixos.org/<channel>/nixexprs.tar.xz`, and its older form `nixos.org/channels/<channel>`;
/// - `https://flakehub.com/f/NixOS/nixpkgs/0.2511.*`, and the tarball to which `FlakeHub` resolves it,
///   `https://api.flakehub.com/f/pinned/NixOS/nixpkgs/0.2511.1234%2Brev-<commit>/…`.
pub(super) fn of_url(url: &str) -> Place {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let commit = |field: &str| whole(field.strip_prefix("rev=").or_else(|| field.strip_prefix("sha=")));
    let mut place = Place { revision: query.split('&').find_map(commit), ..Place::default() };
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |index| segments[index]);
        if matches!(before, "archive" | "tarball" | "zipball" | "tar.gz" | "zip" | "heads") {
            let stem = segment.strip_suffix(".tar.gz").or_else(|| segment.strip_suffix(".zip")).unwrap_or(segment);
            place.revision = place.revision.or_else(|| whole(Some(stem)));
            place.channel = place.channel.or_else(|| channel_of_branch(Some(stem)));
        }
        if matches!(before, "channels" | "channels.nixos.org") {
            place.channel = segment.parse().ok().or(place.channel);
        }
        if let Some((_, release)) = Release::parse_any(segment) {
            place.revision = place.revision.or_else(|| Some(release.revision().clone()));
            place.release = Some(segments[..=index].join("/"));
            place.channel = place.channel.or_else(|| channel_of_release(&segments[..index]));
        }
    }
    if let Some((owner, repository, version)) = flakehub(&segments) {
        place.revision = place.revision.or_else(|| whole(version.split_once("+rev-").map(|(_, commit)| commit)));
        if owner.eq_ignore_ascii_case("nixos") && repository == "nixpkgs" {
            place.channel = place.channel.or_else(|| channel_of_version(&version));
        }
    }
    place
}

/// The channel of a release, from the folders above it.
fn channel_of_release(above: &[&str]) -> Option<Channel> {
    let channel = match above {
        [.., "nixpkgs"] => "nixpkgs-unstable".to_owned(),
        [.., "nixpkgs", darwin] => format!("nixpkgs-{darwin}"),
        [.., "nixos", branch] => format!("nixos-{branch}"),
        _ => return None,
    };
    channel.parse().ok()
}

/// Owner, repository and version (decoded, empty if there is none) in the segments of a URL of `FlakeHub`.
pub(super) fn flakehub<'a>(segments: &[&'a str]) -> Option<(&'a str, &'a str, String)> {
    let host = segments.iter().position(|segment| matches!(*segment, "flakehub.com" | "api.flakehub.com"))?;
    let (["f", "pinned", rest @ ..] | ["f", rest @ ..]) = &segments[host + 1..] else { return None };
    let (owner, repository) = (rest.first()?, rest.get(1)?);
    let version = rest.get(2).map(|version| decoded(version)).unwrap_or_default();
    Some((owner, repository.strip_suffix(".tar.gz").unwrap_or(repository), version))
}

/// The channel of a version of nixpkgs on `FlakeHub`, which counts 0.1.N for nixos-unstable and 0.YYMM.N for
/// nixos-YY.MM. A range that may leave the channel names none.
fn channel_of_version(version: &str) -> Option<Channel> {
    let version = version.strip_suffix(".tar.gz").unwrap_or(version);
    let version = version.trim_start_matches(['=', '^', '~', 'v', ' ']);
    let version = version.split_once('+').map_or(version, |(version, _)| version);
    if version.contains([',', ' ', '|', '<', '>']) {
        return None;
    }
    let mut numbers = version.split('.');
    match (numbers.next(), numbers.next()?) {
        (Some("0"), "1") => "nixos-unstable".parse().ok(),
        (Some("0"), minor) if minor.len() == 4 && minor.is_ascii() => {
            format!("nixos-{}.{}", &minor[..2], &minor[2..]).parse().ok()
        }
        _ => None,
    }
}

/// `text` with each `%XX` replaced by the ASCII character that it stands for.
fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        decoded.push(byte.map_or('%', char::from));
        decoded.push_str(if byte.is_some() { &piece[2..] } else { piece });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "3b1789322fcbcb5cf51228d732752714f1bf77da";

    #[test]
    fn urls_tell_commit_channel_and_release() {
        let archive = format!("https://github.com/NixOS/nixpkgs/archive/{COMMIT}.tar.gz");
        let tarball = format!("https://api.github.com/repos/NixOS/nixpkgs/tarball/{COMMIT}");
        let codeload = format!("https://codeload.github.com/NixOS/nixpkgs/tar.gz/{COMMIT}");
        let query = format!("https://x/nixexprs.tar.xz?lastModified=1&rev={COMMIT}");
        let sha = format!("https://gitlab.com/api/v4/projects/a%2Fnixpkgs/repository/archive.tar.gz?sha={COMMIT}");
        let pinned = |version: &str| {
            format!("https://api.flakehub.com/f/pinned/NixOS/nixpkgs/{version}%2Brev-{COMMIT}/01/source.tar.gz")
        };
        let (stable, unstable) = (pinned("0.2505.811740"), pinned("0.1.866707"));
        let other = format!("https://api.flakehub.com/f/pinned/a/b/0.2505.1+rev-{COMMIT}/x/source.tar.gz");
        for (url, revision, channel) in [
            (archive.as_str(), Some(COMMIT), None),
            (&tarball, Some(COMMIT), None),
            (&codeload, Some(COMMIT), None),
            (&query, Some(COMMIT), None),
            (&sha, Some(COMMIT), None),
            ("https://github.com/NixOS/nixpkgs/archive/nixos-25.11.tar.gz", None, Some("nixos-25.11")),
            ("https://github.com/NixOS/nixpkgs/archive/refs/heads/nixos-25.11.tar.gz", None, Some("nixos-25.11")),
            ("https://github.com/NixOS/nixpkgs/archive/master.tar.gz", None, None),
            ("https://channels.nixos.org/nixos-25.11/nixexprs.tar.xz", None, Some("nixos-25.11")),
            ("https://nixos.org/channels/nixos-20.03/nixexprs.tar.xz", None, Some("nixos-20.03")),
            (
                "https://releases.nixos.org/nixos/21.11/nixos-21.11.337975.eabc3821918/nixexprs.tar.xz",
                Some("eabc3821918"),
                Some("nixos-21.11"),
            ),
            (
                "https://releases.nixos.org/nixpkgs/nixpkgs-26.11pre1006943.e9a7635a5759/nixexprs.tar.zst",
                Some("e9a7635a5759"),
                Some("nixpkgs-unstable"),
            ),
            (
                "https://releases.nixos.org/nixos/unstable/nixos-25.05beta729683.88195a94f390/nixexprs.tar.xz",
                Some("88195a94f390"),
                Some("nixos-unstable"),
            ),
            (
                "https://releases.nixos.org/nixpkgs/25.11-darwin/nixpkgs-darwin-25.11pre1.88195a94f390/x",
                Some("88195a94f390"),
                Some("nixpkgs-25.11-darwin"),
            ),
            (
                "https://releases.nixos.org/nixos/25.11-small/nixos-25.11.1.88195a94f390/nixexprs.tar.xz",
                Some("88195a94f390"),
                Some("nixos-25.11-small"),
            ),
            // FlakeHub: a version for each channel, and the commit of the tarball in its name.
            (&stable, Some(COMMIT), Some("nixos-25.05")),
            (&unstable, Some(COMMIT), Some("nixos-unstable")),
            (&other, Some(COMMIT), None),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2505.%2A", None, Some("nixos-25.05")),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2505.*", None, Some("nixos-25.05")),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2605", None, Some("nixos-26.05")),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2605.*.tar.gz", None, Some("nixos-26.05")),
            ("https://flakehub.com/f/NixOS/nixpkgs/%3D0.2411.717296", None, Some("nixos-24.11")),
            ("https://flakehub.com/f/nixos/nixpkgs/0.1.%2A.tar.gz", None, Some("nixos-unstable")),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.1", None, Some("nixos-unstable")),
            ("https://flakehub.com/f/NixOS/nixpkgs/0", None, None),
            ("https://flakehub.com/f/NixOS/nixpkgs/%2A", None, None),
            ("https://flakehub.com/f/NixOS/nixpkgs/%3E%3D0.2505%2C%3C0.2511", None, None),
            ("https://flakehub.com/f/NixOS/nixpkgs/0.2513.1", None, None),
            ("https://flakehub.com/f/NixOS/nixpkgs/1.1", None, None),
            ("https://flakehub.com/f/NixOS/nixpkgs", None, None),
            ("https://flakehub.com/f/DeterminateSystems/nixpkgs-weekly/0.1", None, None),
            ("https://flakehub.com/", None, None),
            ("https://example.com/nixos-25.11.1.notahash/x", None, None),
            ("", None, None),
            ("https://user:token@host/nixpkgs", None, None),
        ] {
            let place = of_url(url);
            let found = (place.revision.as_ref().map(Revision::digits), place.channel.as_ref().map(Channel::as_str));
            assert_eq!(found, (revision, channel), "{url}");
        }
        assert_eq!(
            of_url("https://releases.nixos.org/nixos/21.11/nixos-21.11.337975.eabc3821918/nixexprs.tar.xz").release,
            Some("https://releases.nixos.org/nixos/21.11/nixos-21.11.337975.eabc3821918".to_owned())
        );
    }

    #[test]
    fn escapes_of_a_url_are_decoded() {
        for (text, expected) in [("a%2Bb%2a", "a+b*"), ("%", "%"), ("%2", "%2"), ("%zz%e9", "%zz%e9"), ("%é", "%é")] {
            assert_eq!(decoded(text), expected);
        }
    }
}
