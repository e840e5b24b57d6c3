//! Extended attributes of the files that `--rootfs` adds: which of them an image keeps.
//! It must never leave one out without counting it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::failure::{shown, shown_bytes};

/// The kernel's limits to a list of names and to a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGEST: usize = 64 << 10;

/// Whether the attribute has a meaning on other machines. File capabilities and access control lists have; labels of
/// `SELinux` and signatures belong to the machine's own policy, and engines may refuse all others.
fn is_kept(name: &[u8], is_symlink: bool) -> bool {
    let is_ours = name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || name.starts_with(b"user.");
    // The name ends at a `=` in an archive.
    is_ours && !is_symlink && !name.contains(&b'=')
}

/// Reads attributes, and counts those that are left out.
pub(super) struct Reader {
    buffer: Vec<u8>,
    left_out: BTreeMap<Vec<u8>, usize>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; LARGEST], left_out: BTreeMap::new() }
    }
}

impl Reader {
    /// The attributes of `path` that an image keeps. A link is not followed.
    pub(super) fn read(&mut self, path: &Path, is_symlink: bool) -> anyhow::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let failed = || format!("cannot read the extended attributes of `{}`", shown(path));
        let length = match llistxattr(path, &mut self.buffer) {
            // This file system has none.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
            length => length.with_context(failed)?,
        };
        let names = self.buffer[..length].to_vec();
        let mut kept = BTreeMap::new();
        for name in names.split_inclusive(|&byte| byte == 0) {
            let name = CStr::from_bytes_with_nul(name).with_context(failed)?;
            let mut length = 0;
            if is_kept(name.to_bytes(), is_symlink) {
                length = lgetxattr(path, name, &mut self.buffer).with_context(failed)?;
            }
            // In an archive an empty value would mean that there is no such attribute.
            if length == 0 {
                *self.left_out.entry(name.to_bytes().to_vec()).or_default() += 1;
            } else {
                kept.insert(name.to_bytes().to_vec(), self.buffer[..length].to_vec());
            }
        }
        Ok(kept)
    }

    /// The names that were left out, with how many files have each.
    pub(super) fn left_out(&self) -> Option<String> {
        let names = self.left_out.iter().map(|(name, count)| format!("`{}` ({count})", shown_bytes(name)));
        (!self.left_out.is_empty()).then(|| names.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_elsewhere_is_kept() {
        for (name, kept) in [
            ("security.capability", true),
            ("user.note", true),
            ("user.", true),
            ("system.posix_acl_access", true),
            ("system.posix_acl_default", true),
            ("user.a=b", false),
            ("security.selinux", false),
            ("security.ima", false),
            ("system.nfs4_acl", false),
            ("trusted.overlay.opaque", false),
        ] {
            assert_eq!(is_kept(name.as_bytes(), false), kept, "{name}");
            assert!(!is_kept(name.as_bytes(), true), "{name} of a symlink");
        }
    }
}
