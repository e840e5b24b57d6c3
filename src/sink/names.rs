//! The names in one directory, read in one go, kept in one piece of memory and sorted by inode.
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
    /// Reads the names in `directory`, in place of those that were here, and sorts them by inode: in the order
    /// in which ext4 gives them, that of a hash, each touches another block of the table of inodes.
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
        self.names.sort_unstable_by_key(|name| name.inode);
        Ok(())
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
        self.names.iter().filter_map(|name| Some((self.text(name)?, name.kind)))
    }

    fn text(&self, name: &Name) -> Option<&CStr> {
        CStr::from_bytes_with_nul(&self.bytes[name.place.clone()]).ok()
    }

    /// In pieces of at most `most` names.
    pub(in crate::sink) fn pieces(&self, most: usize) -> Vec<Names> {
        let piece = |names: &[Name]| {
            let mut piece = Names::default();
            for name in names {
                if let Some(text) = self.text(name) {
                    piece.push(text, name.kind, name.inode);
                }
            }
            piece
        };
        self.names.chunks(most).map(piece).collect()
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn all_names_are_read_and_pieces_hold_them_all(
            wanted in prop::collection::btree_set("[^/\0]{1,40}", 0..60), most in 1_usize..20,
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
            let pieces = names.pieces(most);
            prop_assert_eq!(pieces.iter().flat_map(text).collect::<Vec<_>>(), text(&names));
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
        }
    }
}
