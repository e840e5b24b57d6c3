//! The ladder of link modes: which way of copying is tried first, and what an errno says about the next.
//! It must never touch the disk: [`super::directory`] makes the calls and asks here what their answers mean.

use nix::errno::Errno;
use serde::Serialize;

/// How many names a file gets in a root or in a layer before the next equal file becomes a file of its own. The image
/// may be unpacked on another file system than this one: ext4 takes 65,000 names, and others fewer.
pub const MOST_NAMES: u32 = 4000;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkMode {
    /// Hard links, and a copy of what cannot be linked.
    #[default]
    Auto,
    /// Hard links only.
    Hardlink,
    /// Copies that share their data with the store, on file systems that can: btrfs, xfs.
    Reflink,
    /// Copies. Where the file system can, the kernel shares their data all the same.
    Copy,
}

/// One way to get a file into the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// link(2): another name of the store's own inode.
    HardLink,
    /// ioctl FICLONE: an inode of its own that shares the data.
    Reflink,
    /// An inode and data of its own.
    Copy,
}

/// What the errno of a refused [`Method`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These two file systems refuse it for every file: never try again.
    RefusedByFileSystems,
    /// Refused for this file: take the next way, for this file alone.
    RefusedForFile,
    /// The file has as many names as the file system allows: copy it once, link later names to the copy.
    LinkLimit,
    /// An error, whatever the mode.
    Failure,
}

/// Where in overlayfs a store path lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The layer that is being written; what an ordinary file system has is all in it.
    Upper,
    /// One below, or merged with one.
    Lower,
    /// overlayfs does not tell.
    Unknown,
}

/// The ways to try, in order. From a lower layer of overlayfs link(2) copies the file up first, with an
/// fsync each, and splits its hard links: 4 to 20 times slower than a copy, so `auto` does not try it.
pub fn ladder(mode: LinkMode, layer: Layer) -> &'static [Method] {
    match mode {
        LinkMode::Auto if layer != Layer::Upper => &[Method::Reflink, Method::Copy],
        LinkMode::Auto => &[Method::HardLink, Method::Reflink, Method::Copy],
        LinkMode::Hardlink => &[Method::HardLink],
        LinkMode::Reflink => &[Method::Reflink],
        LinkMode::Copy => &[Method::Copy],
    }
}

/// Reads the answer to a method that failed. Sources: link(2), `ioctl_ficlone(2)`, `proc_sys_fs(5)` on
/// `protected_hardlinks`. What is not listed is a failure.
pub fn verdict(method: Method, errno: Errno) -> Verdict {
    match (method, errno) {
        (Method::HardLink, Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS) => Verdict::RefusedByFileSystems,
        // Not the owner under protected_hardlinks, or an immutable file.
        (Method::HardLink, Errno::EPERM) => Verdict::RefusedForFile,
        (Method::HardLink, Errno::EMLINK) => Verdict::LinkLimit,
        (Method::Reflink, Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOTTY | Errno::EINVAL) => {
            Verdict::RefusedByFileSystems
        }
        // An immutable or a swap file.
        (Method::Reflink, Errno::EPERM | Errno::ETXTBSY) => Verdict::RefusedForFile,
        _ => Verdict::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_has_one_meaning_for_each_method() {
        use Method::{Copy, HardLink, Reflink};
        use Verdict::{Failure, LinkLimit, RefusedByFileSystems, RefusedForFile};
        for (errno, hard_link, reflink) in [
            (Errno::EXDEV, RefusedByFileSystems, RefusedByFileSystems),
            (Errno::EOPNOTSUPP, RefusedByFileSystems, RefusedByFileSystems),
            (Errno::ENOSYS, RefusedByFileSystems, RefusedByFileSystems),
            (Errno::ENOTTY, Failure, RefusedByFileSystems),
            (Errno::EINVAL, Failure, RefusedByFileSystems),
            (Errno::EPERM, RefusedForFile, RefusedForFile),
            (Errno::ETXTBSY, Failure, RefusedForFile),
            (Errno::EMLINK, LinkLimit, Failure),
            (Errno::ENOSPC, Failure, Failure),
            (Errno::EDQUOT, Failure, Failure),
            (Errno::EIO, Failure, Failure),
            (Errno::EACCES, Failure, Failure),
            (Errno::ENOENT, Failure, Failure),
            (Errno::EEXIST, Failure, Failure),
            (Errno::EROFS, Failure, Failure),
            (Errno::ENAMETOOLONG, Failure, Failure),
        ] {
            assert_eq!(verdict(HardLink, errno), hard_link, "hard link: {errno}");
            assert_eq!(verdict(Reflink, errno), reflink, "reflink: {errno}");
            assert_eq!(verdict(Copy, errno), Failure, "copy: {errno}");
        }
    }

    #[test]
    fn only_auto_has_more_than_one_way() {
        for mode in [LinkMode::Hardlink, LinkMode::Reflink, LinkMode::Copy] {
            for layer in [Layer::Upper, Layer::Lower, Layer::Unknown] {
                assert_eq!(ladder(mode, layer).len(), 1);
            }
        }
        for (layer, links) in [(Layer::Upper, true), (Layer::Lower, false), (Layer::Unknown, false)] {
            assert_eq!(ladder(LinkMode::Auto, layer).contains(&Method::HardLink), links);
            assert_eq!(ladder(LinkMode::Auto, layer).last(), Some(&Method::Copy));
        }
    }
}
