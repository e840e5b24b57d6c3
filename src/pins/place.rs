//! What a branch or a URL tells: a channel, a commit, a channel's release.
//! It must never be asked for more than it can know: a branch that is no channel gives no channel.

/// Hexadecimal digits of a whole commit.
pub(super) const WHOLE: usize = 40;
/// Fewer digits of a commit are not taken for one.
const FEWEST: usize = 7;

/// What could be read from a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) release: Option<String>,
}

/// Whether `text` is a channel's name, as Hydra gives them:
/// `nixos-(unstable|YY.MM)(-small|-aarch64)?` or `nixpkgs-(unstable|YY.MM-darwin)`.
pub fn is_channel(text: &str) -> bool {
    let is_release = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() == 5 && bytes[2] == b'.' && [0, 1, 3, 4].iter().all(|&at| bytes[at].is_ascii_digit())
    };
    if let Some(rest) = text.strip_prefix("nixos-") {
        let rest = rest.strip_suffix("-small").or_else(|| rest.strip_suffix("-aarch64")).unwrap_or(rest);
        return rest == "unstable" || is_release(rest);
    }
    text.strip_prefix("nixpkgs-")
        .is_some_and(|rest| rest == "unstable" || rest.strip_suffix("-darwin").is_some_and(is_release))
}

/// The channel that a branch or ref names, if it names one.
pub(super) fn channel_of_branch(branch: Option<&str>) -> Option<String> {
    let branch = branch?;
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    is_channel(branch).then(|| branch.to_owned())
}

/// A whole commit, in lower case.
pub(super) fn whole(text: Option<&str>) -> Option<String> {
    text.filter(|text| text.len() == WHOLE && is_hex(text)).map(str::to_lowercase)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a URL tells of nixpkgs:
///
/// - `…/archive/<commit>.tar.gz`, `…/tarball/<commit>`, `…?rev=<commit>`;
/// - `https://releases.nixos.org/nixos/25.11/nixos-25.11.1234.<prefix>/nixexprs.tar.xz`, and the same with
///   `nixos/unstable`, `nixos/25.11-small`, `nixpkgs/nixpkgs-26.05pre1.<prefix>` and `nixpkgs/25.11-darwin`;
/// - `https://channels.nixos.org/<channel>/nixexprs.tar.xz`, and its older form `nixos.org/channels/<channel>`.
pub(super) fn of_url(url: &str) -> Place {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut place =
        Place { revision: query.split('&').find_map(|field| whole(field.strip_prefix("rev="))), ..Place::default() };
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |index| segments[index]);
        if matches!(before, "archive" | "tarball" | "heads") {
            let stem = segment.strip_suffix(".tar.gz").or_else(|| segment.strip_suffix(".zip")).unwrap_or(segment);
            place.revision = place.revision.or_else(|| whole(Some(stem)));
            place.channel = place.channel.or_else(|| channel_of_branch(Some(stem)));
        }
        if matches!(before, "channels" | "channels.nixos.org") && is_channel(segment) {
            place.channel = Some((*segment).to_owned());
        }
        if let Some(prefix) = commit_of_release(segment) {
            place.revision = place.revision.or_else(|| Some(prefix.to_lowercase()));
            place.release = Some(segments[..=index].join("/"));
            place.channel = place.channel.or_else(|| channel_of_release(&segments[..index]));
        }
    }
    place
}

/// `(nixos|nixpkgs)-[0-9.]+(pre|beta)?\.?[0-9]+\.([0-9a-f]{7,40})`: the last group.
fn commit_of_release(segment: &str) -> Option<&str> {
    let rest = segment.strip_prefix("nixos-").or_else(|| segment.strip_prefix("nixpkgs-"))?;
    let (version, commit) = rest.rsplit_once('.')?;
    let is_commit = (FEWEST..=WHOLE).contains(&commit.len()) && is_hex(commit);
    let version = version.replacen("pre", "", 1).replacen("beta", "", 1);
    let is_version = version.contains('.') && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_commit && is_version).then_some(commit)
}

/// The channel of a release, from the folders above it.
fn channel_of_release(above: &[&str]) -> Option<String> {
    let channel = match above {
        [.., "nixpkgs"] => "nixpkgs-unstable".to_owned(),
        [.., "nixpkgs", darwin] => format!("nixpkgs-{darwin}"),
        [.., "nixos", branch] => format!("nixos-{branch}"),
        _ => return None,
    };
    is_channel(&channel).then_some(channel)
}

/// Where the whole revision of a channel's release can be read: `git-revision` beside its tarball.
pub fn release_directory(url: &str) -> Option<String> {
    of_url(url).release
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "3b1789322fcbcb5cf51228d732752714f1bf77da";

    #[test]
    fn channels_have_names_of_hydra() {
        for name in [
            "nixos-unstable",
            "nixos-25.11",
            "nixos-25.11-small",
            "nixos-unstable-small",
            "nixos-18.03-aarch64",
            "nixpkgs-unstable",
            "nixpkgs-25.11-darwin",
        ] {
            assert!(is_channel(name), "{name}");
        }
        for name in [
            "",
            "master",
            "release-20.03",
            "nixos",
            "nixos-",
            "nixos-25",
            "nixos-25.11-",
            "nixos-25.11-big",
            "nixos-2511",
            "nixos-25.1",
            "nixpkgs-25.11",
            "nixpkgs-darwin",
            "nixos-unstable-darwin",
            "xnixos-unstable",
            "nixos-25.11 ",
            "nixpkgs-unstable-small",
            "staging-next",
        ] {
            assert!(!is_channel(name), "{name}");
        }
    }

    #[test]
    fn urls_tell_commit_channel_and_release() {
        let archive = format!("https://github.com/NixOS/nixpkgs/archive/{COMMIT}.tar.gz");
        let tarball = format!("https://api.github.com/repos/NixOS/nixpkgs/tarball/{COMMIT}");
        let query = format!("https://x/nixexprs.tar.xz?lastModified=1&rev={COMMIT}");
        for (url, revision, channel) in [
            (archive.as_str(), Some(COMMIT), None),
            (&tarball, Some(COMMIT), None),
            (&query, Some(COMMIT), None),
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
            ("https://releases.nixos.org/nixpkgs/25.11-darwin/nixpkgs-darwin-25.11pre1.88195a94f390/x", None, None),
            (
                "https://releases.nixos.org/nixos/25.11-small/nixos-25.11.1.88195a94f390/nixexprs.tar.xz",
                Some("88195a94f390"),
                Some("nixos-25.11-small"),
            ),
            ("https://example.com/nixos-25.11.1.notahash/x", None, None),
            ("", None, None),
            ("https://user:token@host/nixpkgs", None, None),
        ] {
            let place = of_url(url);
            assert_eq!((place.revision.as_deref(), place.channel.as_deref()), (revision, channel), "{url}");
        }
        assert_eq!(
            release_directory("https://releases.nixos.org/nixos/21.11/nixos-21.11.337975.eabc3821918/nixexprs.tar.xz"),
            Some("https://releases.nixos.org/nixos/21.11/nixos-21.11.337975.eabc3821918".to_owned())
        );
    }
}
