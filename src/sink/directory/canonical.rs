//! What Nix gives every file in the store, and which files have something else.
//!
//! A hard link has the mode, time and owner of the store's file, a copy has Nix's own. So only files that are as Nix
//! leaves them are linked: then the root is the same with and without hard links, and the same as in an image.

use nix::sys::stat::FileStat;
use rustix::fs::FileType;

use super::STORE_TIME;
use crate::sink::receipt::Reason;

/// The two modes of files in the store (`canonicaliseTimestampAndPermissions` in libstore). The bit is that of the NAR.
pub(in crate::sink) fn mode(stat: &FileStat) -> u32 {
    if stat.st_mode & 0o100 == 0 { 0o444 } else { 0o555 }
}

/// Why a hard link to this file or symlink would differ from a copy, which `owner` owns.
pub(super) fn difference(stat: &FileStat, owner: (u32, u32)) -> Option<Reason> {
    if (stat.st_uid, stat.st_gid) != owner {
        return Some(Reason::Owner);
    }
    if stat.st_mtime != STORE_TIME.tv_sec() || changed_mode(stat).is_some() {
        return Some(Reason::ModeOrTime);
    }
    None
}

/// The mode of a regular file that is not one of Nix's.
fn changed_mode(stat: &FileStat) -> Option<u32> {
    let found = stat.st_mode & 0o7777;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    (is_file && found != mode(stat)).then_some(found)
}

/// What somebody has changed about a file of a store path that `user` owns: Nix gives all of it one owner. A group or a
/// time of its own is ordinary: files that a builder set a group for keep it, and not every backup keeps times.
pub(super) fn change(stat: &FileStat, user: u32) -> Option<String> {
    match changed_mode(stat) {
        Some(found) => Some(format!("mode {found:04o} instead of {:04o}", mode(stat))),
        None if stat.st_uid != user => Some(format!("owner {} instead of {user}", stat.st_uid)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32, time: i64, owner: (u32, u32)) -> FileStat {
        let mut stat = nix::sys::stat::stat("/").unwrap();
        (stat.st_mode, stat.st_mtime, stat.st_uid, stat.st_gid) = (mode, time, owner.0, owner.1);
        stat
    }

    #[test]
    fn only_files_as_nix_leaves_them_are_linked() {
        use Reason::{ModeOrTime, Owner};
        const FILE: u32 = 0o100_000;
        const LINK: u32 = 0o120_000;
        for (mode, time, owner, difference, change) in [
            (FILE | 0o444, 1, (0, 0), None, None),
            (FILE | 0o555, 1, (0, 0), None, None),
            (LINK | 0o777, 1, (0, 0), None, None),
            (FILE | 0o644, 1, (0, 0), Some(ModeOrTime), Some("mode 0644 instead of 0444")),
            (FILE | 0o755, 1, (0, 0), Some(ModeOrTime), Some("mode 0755 instead of 0555")),
            (FILE | 0o2555, 1, (0, 0), Some(ModeOrTime), Some("mode 2555 instead of 0555")),
            (FILE | 0o454, 1, (0, 0), Some(ModeOrTime), Some("mode 0454 instead of 0444")),
            (FILE | 0o444, 2, (0, 0), Some(ModeOrTime), None),
            (LINK | 0o777, 0, (0, 0), Some(ModeOrTime), None),
            (FILE | 0o444, 1, (0, 5), Some(Owner), None),
            (FILE | 0o444, 1, (7, 0), Some(Owner), Some("owner 7 instead of 0")),
            (FILE | 0o666, 1, (7, 0), Some(Owner), Some("mode 0666 instead of 0444")),
        ] {
            let stat = stat(mode, time, owner);
            assert_eq!(super::difference(&stat, (0, 0)), difference, "{mode:o} {time} {owner:?}");
            assert_eq!(super::change(&stat, 0).as_deref(), change, "{mode:o} {time} {owner:?}");
        }
    }
}
