//! Every way to get a closure out of a store, and which ways stand side by side on which file system.
//! It must never make a peer slower than its user would: usual options, quiet output, a ready-made list.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The commands under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    OursAuto,
    OursHardlink,
    OursVerify,
    OursReflink,
    OursCopy,
    LimitHardlink,
    LimitReflink,
    LimitCopy,
    CpLink,
    CpReflink,
    Cp,
    Rsync,
    Tar,
    Xcp,
    Cpz,
    NixCopy,
    Predecessor,
    Openssl,
}

/// What becomes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Links,
    Reflinks,
    Copies,
    /// Nothing is written.
    Reads,
}

/// The file systems under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    /// overlayfs over ext4, with the store in the lower layer
    OverlayLower,
    /// overlayfs over ext4, with the store in the upper layer
    OverlayUpper,
    /// ext4 with generated closures of many entries
    Scale,
}

impl FileSystem {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ext4, Self::Xfs, Self::Btrfs, Self::OverlayLower, Self::OverlayUpper, Self::Scale];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::OverlayLower => "overlayfs, store in the lower layer",
            Self::OverlayUpper => "overlayfs, store in the same layer",
            Self::Scale => "ext4, many entries",
        }
    }

    /// What is written with the image.
    pub(crate) fn mkfs(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ext4 | Self::OverlayLower | Self::OverlayUpper | Self::Scale => "ext4",
        }
    }

    /// The ways that are compared here. Each group runs back to back, and neighbours in it are compared.
    pub(crate) fn groups(self) -> Vec<Vec<Way>> {
        use Way::{
            Cp, CpLink, CpReflink, Cpz, LimitCopy, LimitHardlink, LimitReflink, NixCopy, Openssl, OursAuto, OursCopy,
            OursHardlink, OursReflink, OursVerify, Predecessor, Rsync, Tar, Xcp,
        };
        let mut groups = vec![
            vec![OursAuto, CpLink, OursHardlink, LimitHardlink],
            vec![OursHardlink, Predecessor, OursCopy],
            vec![Cp, OursCopy, LimitCopy],
            vec![Rsync, OursCopy, Tar],
            vec![Xcp, OursCopy, Cpz],
            vec![OursCopy, NixCopy],
        ];
        match self {
            Self::Ext4 => groups.push(vec![OursHardlink, OursVerify, Openssl]),
            Self::Xfs | Self::Btrfs => groups.push(vec![CpReflink, OursReflink, LimitReflink]),
            // Links of what lies in a lower layer copy it up: slow, and the store is another one afterwards.
            Self::OverlayLower => groups = vec![vec![OursAuto, Cp, OursCopy, LimitCopy], vec![Rsync, OursAuto, Tar]],
            Self::OverlayUpper => groups.truncate(1),
            Self::Scale => groups.clear(),
        }
        groups
    }

    /// What a reader might miss here.
    pub(crate) fn note(self) -> Option<&'static str> {
        match self {
            Self::Ext4 => Some("ext4 has no reflinks, so the ways that demand them are left out."),
            Self::Btrfs | Self::Xfs => {
                Some("Here `cp -a`, `xcp`, `cpz` and our copies share the extents of the store too.")
            }
            Self::OverlayLower => Some(
                "Ways that demand links are left out: a link of a file in a lower layer copies it up first, \
                 after which the store of all later runs lies in the upper layer.",
            ),
            Self::OverlayUpper => Some("Ways that copy do what they do in the table above, so only links are shown."),
            Self::Scale => None,
        }
    }
}

/// What a way needs to know.
pub(crate) struct Task<'a> {
    /// The store path whose closure is wanted.
    pub(crate) profile: &'a Path,
    /// The store paths of the closure, absolute; their base names; all their files, ended by NUL.
    pub(crate) paths: &'a Path,
    pub(crate) names: &'a Path,
    pub(crate) files: &'a Path,
    pub(crate) destination: &'a Path,
    /// Where our receipt goes.
    pub(crate) receipt: &'a Path,
    pub(crate) nixkit: &'a Path,
    pub(crate) limit: &'a Path,
    pub(crate) cores: usize,
}

impl Way {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::OursAuto => "export-profile --link-mode auto",
            Self::OursHardlink => "export-profile --link-mode hardlink",
            Self::OursVerify => "export-profile --link-mode hardlink --verify",
            Self::OursReflink => "export-profile --link-mode reflink",
            Self::OursCopy => "export-profile --link-mode copy",
            Self::LimitHardlink => "limit: bare loop of links",
            Self::LimitReflink => "limit: bare loop of reflinks",
            Self::LimitCopy => "limit: bare loop of copies",
            Self::CpLink => "cp -al",
            Self::CpReflink => "cp -a --reflink=always",
            Self::Cp => "cp -a",
            Self::Rsync => "rsync -aH",
            Self::Tar => "tar | tar",
            Self::Xcp => "xcp -r",
            Self::Cpz => "cpz",
            Self::NixCopy => "nix copy --no-check-sigs",
            Self::Predecessor => "nix-store --export | --import",
            Self::Openssl => "openssl dgst -sha256",
        }
    }

    pub(crate) fn kind(self, file_system: FileSystem) -> Kind {
        match self {
            // What lies in a lower layer is better copied, and it knows.
            Self::OursAuto if file_system == FileSystem::OverlayLower => Kind::Copies,
            Self::OursAuto | Self::OursHardlink | Self::OursVerify | Self::LimitHardlink | Self::CpLink => Kind::Links,
            Self::OursReflink | Self::LimitReflink | Self::CpReflink => Kind::Reflinks,
            Self::Openssl => Kind::Reads,
            _ => Kind::Copies,
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        self.link_mode().is_some()
    }

    /// The program behind `limit` ways does what must be done and nothing else.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::LimitHardlink | Self::LimitReflink | Self::LimitCopy)
    }

    /// The bare loop of the same system calls.
    pub(crate) fn limit(self, file_system: FileSystem) -> Option<Self> {
        match (self.is_ours(), self.kind(file_system)) {
            (true, Kind::Links) => Some(Self::LimitHardlink),
            (true, Kind::Reflinks) => Some(Self::LimitReflink),
            (true, Kind::Copies) => Some(Self::LimitCopy),
            _ => None,
        }
    }

    /// The program that must be there, where it is not one that the harness itself cannot do without.
    pub(crate) fn optional_program(self) -> Option<&'static str> {
        match self {
            Self::Xcp => Some("xcp"),
            Self::Cpz => Some("cpz"),
            _ => None,
        }
    }

    /// Nix makes its own store in the destination, and we our own root: the others find `nix/store` there.
    pub(crate) fn makes_its_store(self) -> bool {
        self.is_ours() || matches!(self, Self::NixCopy | Self::Predecessor)
    }

    pub(crate) fn link_mode(self) -> Option<&'static str> {
        match self {
            Self::OursAuto => Some("auto"),
            Self::OursHardlink | Self::OursVerify => Some("hardlink"),
            Self::OursReflink => Some("reflink"),
            Self::OursCopy => Some("copy"),
            _ => None,
        }
    }

    /// What `sh -f` runs: as a user would type it.
    pub(crate) fn script(self, task: &Task<'_>) -> String {
        let [profile, paths, names, files, destination, receipt, nixkit, limit] =
            [task.profile, task.paths, task.names, task.files, task.destination, task.receipt, task.nixkit, task.limit]
                .map(quoted);
        let store = quoted(&task.destination.join("nix/store"));
        let cores = task.cores;
        if let Some(mode) = self.link_mode() {
            let verify = if self == Self::OursVerify { " --verify" } else { "" };
            return format!(
                "exec {nixkit} export-profile --profile {profile} --link-mode {mode}{verify} --quiet --json \
                 {destination} >{receipt}"
            );
        }
        let bare_loop = |mode: &str| format!("exec {limit} {mode} /nix/store {store} {names} {cores}");
        match self {
            Self::LimitHardlink => bare_loop("hardlink"),
            Self::LimitReflink => bare_loop("reflink"),
            Self::LimitCopy => bare_loop("copy"),
            Self::CpLink => format!("exec cp -al $(cat {paths}) {store}"),
            Self::CpReflink => format!("exec cp -a --reflink=always $(cat {paths}) {store}"),
            Self::Rsync => format!("exec rsync -aH $(cat {paths}) {store}/"),
            Self::Tar => format!("tar -c -C /nix/store -T {names} | tar -x -C {store}"),
            Self::Xcp => format!("exec xcp -r --no-progress $(cat {paths}) {store}"),
            Self::Cpz => format!("exec cpz $(cat {paths}) {store}/"),
            Self::NixCopy => format!(
                "exec nix --extra-experimental-features nix-command copy --no-check-sigs --to {destination} {profile}"
            ),
            Self::Predecessor => format!(
                "nix-store --export $(nix-store -qR {profile}) | nix-store --store {destination} --import >{receipt}"
            ),
            Self::Openssl => format!("exec xargs -0 -P {cores} -n 300 -a {files} openssl dgst -sha256 >{receipt}"),
            _ => format!("exec cp -a $(cat {paths}) {store}"),
        }
    }
}

/// `path` as a word of the shell, and of hyperfine, which splits by the same rules.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// In a round, which way runs when, with the number of its group: the groups begin one later with
/// each round, and every other round each runs from its end.
pub(crate) fn schedule(groups: &[Vec<Way>], round: usize) -> Vec<(usize, Way)> {
    let mut numbers: Vec<usize> = (0..groups.len()).collect();
    numbers.rotate_left(round % groups.len().max(1));
    let ways = |number: usize| {
        let group = groups.get(number).into_iter().flatten().copied();
        let ordered: Vec<Way> = if round % 2 == 0 { group.collect() } else { group.rev().collect() };
        ordered.into_iter().map(move |way| (number, way))
    };
    numbers.into_iter().flat_map(ways).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_order_rotates_and_turns() {
        use Way::{Cp, CpLink, OursCopy, OursHardlink, Tar};
        let groups = [vec![CpLink, OursHardlink], vec![Cp, OursCopy], vec![Tar]];
        for (round, expected) in [
            (0, vec![(0, CpLink), (0, OursHardlink), (1, Cp), (1, OursCopy), (2, Tar)]),
            (1, vec![(1, OursCopy), (1, Cp), (2, Tar), (0, OursHardlink), (0, CpLink)]),
            (2, vec![(2, Tar), (0, CpLink), (0, OursHardlink), (1, Cp), (1, OursCopy)]),
            (3, vec![(0, OursHardlink), (0, CpLink), (1, OursCopy), (1, Cp), (2, Tar)]),
        ] {
            assert_eq!(schedule(&groups, round), expected, "round {round}");
        }
        assert_eq!(schedule(&[], 3), []);
    }

    #[test]
    fn ours_is_a_neighbour_of_every_peer_and_no_way_is_twice_in_a_group() {
        for file_system in FileSystem::ALL {
            for group in file_system.groups() {
                assert_eq!(group.iter().collect::<BTreeSet<_>>().len(), group.len(), "{group:?}");
                for (index, way) in group.iter().enumerate() {
                    let neighbours = [index.checked_sub(1).and_then(|before| group.get(before)), group.get(index + 1)];
                    let ours = neighbours.into_iter().flatten().any(|neighbour| neighbour.is_ours());
                    assert!(way.is_ours() || ours, "{file_system:?}: nothing of ours beside {way:?}");
                }
            }
        }
    }

    #[test]
    fn paths_are_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
