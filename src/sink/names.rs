//! The names in one directory, read in one go and kept in one piece of memory.
//! It must never look at what the names stand for.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::fs::{FileType, RawDir};

/// What getdents64 fills at once; the C library uses as much.
const DIRECTORY_BUFFER: usize = 32 * 1024;

/// What getdents64 writes into, reused from one directory to the next.
pub(in crate::sink) struct Buffer(Vec<MaybeUninit<u8>>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![MaybeUninit::uninit(); DIRECTORY_BUFFER])
    }
}

/// Names of a directory with their types.
#[derive(Default)]
pub(in crate::sink) struct Names {
    /// Each with its NUL.
    bytes: Vec<u8>,
    names: Vec<Name>,
}

struct Name {
    /// Where it lies in `bytes`.
    place: Range<usize>,
    kind: FileType,
    inode: u64,
}

impl Names {
    /// Reads the names in `directory`, in place of those that were here.
    pub(in crate::sink) fn read(&mut self, directory: &OwnedFd, buffer: &mut Buffer) -> Result<(), Errno> {
        self.bytes.clear();
        self.names.clear();
        let mut entries = RawDir::new(directory, &mut buffer.0);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.push(entry.file_name(), entry.file_type(), entry.ino());
            }
        }
        Ok(())
    }

    /// In the order in which ext4 gives names, that of a hash, each has its inode in another block of the table of
    /// inodes. To add names to a directory the hash's order is the better one.
    pub(in crate::sink) fn sort_by_inode(&mut self) {
        self.names.sort_unstable_by_key(|name| name.inode);
    }

    pub(in crate::sink) fn len(&self) -> usize {
        self.names.len()
    }

    fn push(&mut self, name: &CStr, kind: FileType, inode: u64) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.names.push(Name { place: start..self.bytes.len(), kind, inode });
    }

    pub(in crate::sink) fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        self.range(0..self.len())
    }

    /// Those at these positions.
    pub(in crate::sink) fn range(&self, positions: Range<usize>) -> impl Iterator<Item = (&CStr, FileType)> {
        self.names[positions].iter().filter_map(|name| {
            let text = CStr::from_bytes_with_nul(&self.bytes[name.place.clone()]).ok()?;
            Some((text, name.kind))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn all_names_are_read_cut_and_sorted(
            wanted in prop::collection::btree_set("[^/\0]{1,40}", 0..60), cut in any::<prop::sample::Index>(),
        ) {
            let wanted: BTreeSet<_> = wanted.into_iter().filter(|name| name != "." && name != "..").collect();
            let folder = tempfile::tempdir().unwrap();
            for name in &wanted {
                File::create(folder.path().join(OsStr::from_bytes(name.as_bytes()))).unwrap();
            }
            let mut names = Names::default();
            names.push(c"left over", FileType::Unknown, 0);
            names.read(&OwnedFd::from(File::open(folder.path()).unwrap()), &mut Buffer::default()).unwrap();
            let text = |names: &Names| -> Vec<String> {
                names.iter().map(|(name, _)| name.to_str().unwrap().to_owned()).collect()
            };
            prop_assert_eq!(&text(&names).into_iter().collect::<BTreeSet<_>>(), &wanted);
            let at = cut.index(names.len() + 1);
            let both: Vec<_> = names.range(0..at).chain(names.range(at..names.len())).collect();
            prop_assert_eq!(both, names.iter().collect::<Vec<_>>());
            let before: BTreeSet<_> = text(&names).into_iter().collect();
            names.sort_by_inode();
            prop_assert_eq!(text(&names).into_iter().collect::<BTreeSet<_>>(), before);
            let inode = |name: &String| std::fs::symlink_metadata(folder.path().join(name)).unwrap().ino();
            prop_assert!(text(&names).iter().map(inode).is_sorted());
        }
    }
}
