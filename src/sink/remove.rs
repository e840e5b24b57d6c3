//! Removes a tree of ours.
//! It must never follow a link, nor cross into another file system.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::FileType;

use super::below;
use super::names::{Buffer, Names};
use crate::interrupt::Interrupt;

enum Step {
    /// Empties this directory, then removes it.
    Enter(Vec<u8>),
    /// Removes this directory, which is empty by now.
    Leave(Vec<u8>),
}

/// Removes `name` in `parent` and all that is in it. Fails with EXDEV at a directory where something else is
/// mounted; what is there stays. Directories of the store are not writable, not even by root in some
/// containers, so each is made so first. Stops with EINTR once `interrupt` holds.
pub(super) fn remove_tree(parent: impl AsFd, name: &[u8], interrupt: &Interrupt) -> nix::Result<()> {
    let parent = parent.as_fd();
    if let Err(Errno::ENOENT) = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        return Ok(());
    }
    let mount = mount_of(parent)?;
    let mut steps = vec![Step::Enter(name.to_vec())];
    let (mut names, mut buffer) = (Names::default(), Buffer::default());
    while let Some(step) = steps.pop() {
        if interrupt.check().is_err() {
            return Err(Errno::EINTR);
        }
        match step {
            Step::Leave(path) => {
                below::at(parent, &path, |from, rest| unlinkat(from, rest, UnlinkatFlags::RemoveDir))?;
            }
            Step::Enter(path) => {
                let directory = match below::directory(parent, &path) {
                    // Only the tree's own name can be something else than a directory.
                    Err(Errno::ENOTDIR | Errno::ELOOP) => {
                        unlinkat(parent, path.as_slice(), UnlinkatFlags::NoRemoveDir)?;
                        continue;
                    }
                    // Not even readable by its owner.
                    Err(Errno::EACCES) => {
                        make_accessible(parent, &path)?;
                        below::directory(parent, &path)?
                    }
                    directory => directory?,
                };
                if mount_of(&directory)? != mount {
                    return Err(Errno::EXDEV);
                }
                fchmod(&directory, Mode::S_IRWXU)?;
                names.read(&directory, &mut buffer)?;
                steps.push(Step::Leave(path.clone()));
                for (name, kind) in names.iter() {
                    if is_directory(&directory, name, kind)? {
                        steps.push(Step::Enter(below::join(&path, name.to_bytes())));
                    } else {
                        unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Device, and the mount's number where the kernel tells it (since 5.8): a bind mount shares the device.
fn mount_of(directory: impl AsFd) -> nix::Result<(u64, Option<u64>)> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let device = fstat(&directory)?.st_dev;
    let mount = statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok();
    let told = mount.filter(|statx| statx.stx_mask & StatxFlags::MNT_ID.bits() != 0);
    Ok((device, told.map(|statx| statx.stx_mnt_id)))
}

fn make_accessible(parent: impl AsFd, path: &[u8]) -> nix::Result<()> {
    use nix::sys::stat::{FchmodatFlags, fchmodat};
    below::at(parent, path, |from, rest| fchmodat(from, rest, Mode::S_IRWXU, FchmodatFlags::FollowSymlink))
}

fn is_directory(directory: &OwnedFd, name: &std::ffi::CStr, kind: FileType) -> nix::Result<bool> {
    if kind != FileType::Unknown {
        return Ok(kind == FileType::Directory);
    }
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let parent = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("kept/inner")).unwrap();
        fs::write(at("kept/file"), "kept").unwrap();
        fs::create_dir_all(at("tree/deep/er")).unwrap();
        fs::hard_link(at("kept/file"), at("tree/deep/er/file")).unwrap();
        symlink("../kept", at("tree/link")).unwrap();
        symlink("nowhere", at("tree/deep/broken")).unwrap();
        for (path, mode) in [("tree/deep/er", 0o555), ("tree/deep", 0o000), ("tree", 0o500)] {
            fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("kept", at("alone")).unwrap();
        for name in ["tree", "alone", "never there"] {
            remove_tree(&parent, name.as_bytes(), &Interrupt::default()).unwrap();
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert_eq!(fs::read_to_string(at("kept/file")).unwrap(), "kept");
        assert!(at("kept/inner").is_dir());
    }
}
