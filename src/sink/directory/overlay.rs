//! Which store paths lie in a lower layer of overlayfs, where link(2) is slow.
//! It must never change anything: every rename that it asks for is one that must fail.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context;
use fs_err as fs;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, renameat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};

use crate::sink::mounts::Mounts;
use crate::store::StorePath;

/// Answers, for each store path, whether it must be taken to lie in a lower layer; `None` where the store
/// is not on overlayfs.
///
/// rename(2) of a store path onto a directory of ours that is not empty cannot succeed. It answers EXDEV
/// for a directory of a lower layer or merged with one, ENOTEMPTY for one of the upper layer. With
/// `redirect_dir=on` overlayfs can rename both, and the answer says nothing.
pub(super) fn in_lower_layer(
    store: BorrowedFd<'_>,
    store_path: &Path,
    paths: &[StorePath],
    scratch: &Path,
) -> anyhow::Result<Option<Vec<bool>>> {
    let kind = fstatfs(store).context("cannot ask for the file system of the store")?.filesystem_type();
    if kind != OVERLAYFS_SUPER_MAGIC {
        return Ok(None);
    }
    let redirected = redirects(&Mounts::read(), store_path);
    let not_empty = scratch.join(".layer-probe");
    fs::create_dir_all(not_empty.join("full"))?;
    let answers = paths
        .iter()
        .map(|path| {
            let answer = renameat(store, path.base_name(), AT_FDCWD, &not_empty);
            redirected || !matches!(answer, Err(Errno::ENOTEMPTY | Errno::EEXIST))
        })
        .collect();
    fs::remove_dir_all(&not_empty)?;
    Ok(Some(answers))
}

/// Whether directories of lower layers can be renamed: the mount says so, or the module's default does.
fn redirects(mounts: &Mounts, store: &Path) -> bool {
    let options = mounts.holding(store).map(|mount| mount.options.clone()).unwrap_or_default();
    let mut named = options.split(',').filter_map(|option| option.strip_prefix("redirect_dir="));
    match named.next() {
        Some(value) => value == "on",
        None => fs::read_to_string("/sys/module/overlay/parameters/redirect_dir").is_ok_and(|on| on.trim() == "Y"),
    }
}
