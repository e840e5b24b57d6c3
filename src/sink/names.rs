//! The names in one directory, read in one go and kept in one piece of memory.
//! It must never look at what the names stand for.

use std::ffi::CStr;
use std::mem::MaybeUninit;
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

/// Names of a directory with their types, in one piece of memory.
#[derive(Default)]
pub(in crate::sink) struct Names {
    /// Each with its NUL.
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<(usize, FileType)>,
}

impl Names {
    /// Reads the names in `directory`, in place of those that were here.
    pub(in crate::sink) fn read(&mut self, directory: &OwnedFd, buffer: &mut Buffer) -> Result<(), Errno> {
        self.bytes.clear();
        self.ends.clear();
        let mut entries = RawDir::new(directory, &mut buffer.0);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.push(entry.file_name(), entry.file_type());
            }
        }
        Ok(())
    }

    pub(in crate::sink) fn len(&self) -> usize {
        self.ends.len()
    }

    fn push(&mut self, name: &CStr, kind: FileType) {
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.ends.push((self.bytes.len(), kind));
    }

    pub(in crate::sink) fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&(end, kind)| {
            let bytes = &self.bytes[start..end];
            start = end;
            Some((CStr::from_bytes_with_nul(bytes).ok()?, kind))
        })
    }

    /// In pieces of at most `most` names.
    pub(in crate::sink) fn pieces(&self, most: usize) -> Vec<Names> {
        let mut pieces = vec![Names::default()];
        for (name, kind) in self.iter() {
            if pieces.last().is_some_and(|piece| piece.ends.len() == most) {
                pieces.push(Names::default());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push(name, kind);
            }
        }
        pieces
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
            names.push(c"left over", FileType::Unknown);
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
