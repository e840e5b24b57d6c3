//! In which layer of overlayfs a store path lies: from a lower one link(2) is slow.
//! It must never change anything: every rename that it asks for is one that must fail.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use fs_err as fs;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, renameat};
use nix::sys::stat::fstat;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};

use crate::sink::link::Layer;
use crate::sink::mounts::Mounts;
use crate::store::StorePath;

/// The layer of each store path; `None` where the store is not on overlayfs, or the root is elsewhere.
///
/// rename(2) of a store path onto a directory of ours that is not empty cannot succeed. It answers EXDEV
/// for a directory of a lower layer or merged with one, ENOTEMPTY for one of the upper layer, and for a
/// file EISDIR whatever its layer. With `redirect_dir=on` overlayfs can rename all, and the answer says nothing.
pub(super) fn layers(
    store: BorrowedFd<'_>,
    store_path: &Path,
    paths: &[StorePath],
    scratch: &Path,
) -> anyhow::Result<Option<Vec<Layer>>> {
    let kind = fstatfs(store).context("cannot ask for the file system of the store")?.filesystem_type();
    if kind != OVERLAYFS_SUPER_MAGIC {
        return Ok(None);
    }
    // A link to another file system is refused, whatever the layer.
    if fstat(store).context("cannot look at the store")?.st_dev != fs::metadata(scratch)?.dev() {
        return Ok(None);
    }
    if redirects(&Mounts::read(), store_path) {
        return Ok(Some(vec![Layer::Unknown; paths.len()]));
    }
    let not_empty = scratch.join(".layer-probe");
    fs::create_dir_all(not_empty.join("full"))?;
    let layers = paths.iter().map(|path| match renameat(store, path.base_name(), AT_FDCWD, &not_empty) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Layer::Upper,
        Err(Errno::EXDEV) => Layer::Lower,
        _ => Layer::Unknown,
    });
    let layers = layers.collect();
    fs::remove_dir_all(&not_empty)?;
    Ok(Some(layers))
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
