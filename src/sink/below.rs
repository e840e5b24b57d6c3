//! Calls on paths below an open directory, however long: the kernel takes at most `PATH_MAX` bytes at once.
//! It must never follow a link on the way, since every directory on it was found to be one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// The kernel takes paths of up to 4096 bytes with their NUL.
const LONGEST_PATH: usize = 4000;
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Makes `call` with `base` and `path`, or with a directory on the way and the rest of `path`.
pub(super) fn at<T>(
    base: impl AsFd,
    path: &[u8],
    call: impl FnOnce(BorrowedFd<'_>, &[u8]) -> nix::Result<T>,
) -> nix::Result<T> {
    let mut rest = path;
    let mut here: Option<OwnedFd> = None;
    while rest.len() > LONGEST_PATH {
        let cut = rest[..LONGEST_PATH].iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let from = here.as_ref().map_or(base.as_fd(), AsFd::as_fd);
        here = Some(openat(from, &rest[..cut], DIRECTORY, Mode::empty())?);
        rest = &rest[cut + 1..];
    }
    call(here.as_ref().map_or(base.as_fd(), AsFd::as_fd), rest)
}

/// Opens the directory at `path`.
pub(super) fn directory(base: impl AsFd, path: &[u8]) -> nix::Result<OwnedFd> {
    at(base, path, |from, rest| openat(from, rest, DIRECTORY, Mode::empty()))
}

/// `directory/name`, or `name` alone below the base itself.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{fstat, mkdirat};

    #[test]
    fn a_directory_deeper_than_a_path_may_be_long_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let base = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let mut path = Vec::new();
        let mut here = base.try_clone().unwrap();
        for depth in 0..60 {
            let name = format!("{depth:0>200}");
            mkdirat(&here, name.as_str(), Mode::S_IRWXU).unwrap();
            path = join(&path, name.as_bytes());
            here = directory(&base, &path).unwrap();
        }
        assert!(path.len() > 2 * LONGEST_PATH);
        let again = directory(&base, &path).unwrap();
        assert_eq!(fstat(&again).unwrap().st_ino, fstat(&here).unwrap().st_ino);
        assert_eq!(directory(&base, &join(&path, b"missing")).unwrap_err(), Errno::ENOENT);
        assert_eq!(directory(&base, &[b'x'; LONGEST_PATH + 1]).unwrap_err(), Errno::ENAMETOOLONG);
    }
}
