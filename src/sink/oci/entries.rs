//! Entries of a layer's tar archive: headers that depend on nothing but what they describe.
//! It must never write an owner, a time or a name of this machine.

use anyhow::{Context, bail};
use tar::{EntryType, Header};

use crate::failure::shown_bytes;

/// Modification time of everything in a layer, in seconds since 1970: that of store paths.
const TIME: u64 = 1;
/// Names up to this length fit into a header; longer ones have an entry of their own before it (GNU tar).
const NAME_FIELD: usize = 100;
/// What an archive is made of.
pub(super) const BLOCK: usize = 512;
/// Names that begin with this mean that something of a lower layer is gone (`layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// What an entry is.
pub(super) enum What<'a> {
    Directory,
    /// Its content of so many bytes follows.
    File(u64),
    Symlink(&'a [u8]),
    /// Another name of the file at this path.
    Link(&'a [u8]),
}

/// Where a layer's bytes go.
pub(super) trait Output {
    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()>;
}

/// Writes the header of `path`, which is relative to the root, with the permission bits `mode`. It is root's.
pub(super) fn begin(to: &mut impl Output, path: &[u8], mode: u32, what: &What<'_>) -> anyhow::Result<()> {
    begin_owned(to, path, mode, (0, 0), what)
}

/// Writes a directory that belongs to a user and a group.
pub(super) fn owned_directory(to: &mut impl Output, path: &[u8], mode: u32, owner: (u32, u32)) -> anyhow::Result<()> {
    begin_owned(to, path, mode, owner, &What::Directory)
}

fn begin_owned(to: &mut impl Output, path: &[u8], mode: u32, owner: (u32, u32), what: &What<'_>) -> anyhow::Result<()> {
    if path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT)) {
        bail!("`{}` cannot be in an image: a name that begins with `.wh.` means a deletion there", shown_bytes(path));
    }
    let (kind, size, target) = match *what {
        What::Directory => (EntryType::Directory, 0, &b""[..]),
        What::File(size) => (EntryType::Regular, size, &b""[..]),
        What::Symlink(target) => (EntryType::Symlink, 0, target),
        What::Link(target) => (EntryType::Link, 0, target),
    };
    let mut name = path.to_vec();
    if kind == EntryType::Directory {
        name.push(b'/');
    }
    if target.len() > NAME_FIELD {
        long(to, EntryType::GNULongLink, target)?;
    }
    if name.len() > NAME_FIELD {
        long(to, EntryType::GNULongName, &name)?;
    }
    let mut header = header(kind, size, mode);
    header.set_uid(owner.0.into());
    header.set_gid(owner.1.into());
    let fields = header.as_gnu_mut().context("a header has no GNU fields")?;
    copy(&mut fields.name, &name);
    copy(&mut fields.linkname, target);
    header.set_cksum();
    to.put(header.as_bytes())
}

/// Fills up the last block of a content of `size` bytes.
pub(super) fn end(to: &mut impl Output, size: u64) -> anyhow::Result<()> {
    let over = usize::try_from(size % BLOCK as u64)?;
    if over == 0 { Ok(()) } else { to.put(&[0; BLOCK][over..]) }
}

/// Writes a whole small file.
pub(super) fn file(to: &mut impl Output, path: &[u8], mode: u32, content: &[u8]) -> anyhow::Result<()> {
    begin(to, path, mode, &What::File(content.len() as u64))?;
    to.put(content)?;
    end(to, content.len() as u64)
}

/// Writes the end of the archive.
pub(super) fn finish(to: &mut impl Output) -> anyhow::Result<()> {
    to.put(&[0; 2 * BLOCK])
}

fn long(to: &mut impl Output, kind: EntryType, text: &[u8]) -> anyhow::Result<()> {
    let size = text.len() as u64 + 1;
    let mut header = header(kind, size, 0);
    copy(&mut header.as_gnu_mut().context("a header has no GNU fields")?.name, b"././@LongLink");
    header.set_cksum();
    to.put(header.as_bytes())?;
    to.put(text)?;
    to.put(&[0])?;
    end(to, size)
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header
}

/// As much of `text` as there is room for.
fn copy(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let long = prop_oneof![1_usize..20, 90_usize..110, 200_usize..600];
        let byte = any::<u8>().prop_filter("no name", |byte| !b"/\0".contains(byte));
        long.prop_flat_map(move |length| prop::collection::vec(byte.clone(), length))
            .prop_filter("dots and whiteouts", |name| !name.starts_with(b"."))
    }

    proptest! {
        #[test]
        fn another_implementation_reads_what_was_written(
            entries in prop::collection::vec((name(), name(), 0_u8..4, 0_usize..1200, 0_u32..0o10000), 0..8),
        ) {
            let mut archive = Vec::new();
            for (path, target, kind, size, mode) in &entries {
                match kind {
                    0 => begin(&mut archive, path, *mode, &What::Directory).unwrap(),
                    1 => file(&mut archive, path, *mode, &vec![7; *size]).unwrap(),
                    2 => begin(&mut archive, path, *mode, &What::Symlink(target)).unwrap(),
                    _ => begin(&mut archive, path, *mode, &What::Link(target)).unwrap(),
                }
            }
            finish(&mut archive).unwrap();
            prop_assert_eq!(archive.len() % BLOCK, 0);
            let mut read = tar::Archive::new(&archive[..]);
            let mut count = 0;
            for (entry, (path, target, kind, size, mode)) in read.entries().unwrap().zip(&entries) {
                let mut entry = entry.unwrap();
                let mut expected = path.clone();
                if *kind == 0 {
                    expected.push(b'/');
                }
                prop_assert_eq!(&*entry.path_bytes(), &expected[..]);
                let header = entry.header();
                prop_assert_eq!(header.mode().unwrap(), *mode);
                prop_assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, TIME));
                if *kind >= 2 {
                    prop_assert_eq!(&*entry.link_name_bytes().unwrap(), &target[..]);
                }
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                prop_assert_eq!(content.len(), if *kind == 1 { *size } else { 0 });
                count += 1;
            }
            prop_assert_eq!(count, entries.len());
        }
    }

    #[test]
    fn a_name_that_would_delete_something_is_refused() {
        for path in [&b"nix/.wh.x"[..], b".wh.x", b"a/.wh..wh..opq"] {
            let error = begin(&mut Vec::new(), path, 0o444, &What::File(0)).unwrap_err().to_string();
            assert!(error.contains("means a deletion"), "{error}");
        }
        begin(&mut Vec::new(), b"a/x.wh.y", 0o444, &What::File(0)).unwrap();
    }

    #[test]
    fn files_larger_than_eight_gibibytes_have_their_size() {
        let mut archive = Vec::new();
        let size = 20 << 30;
        begin(&mut archive, b"x", 0o444, &What::File(size)).unwrap();
        assert_eq!(Header::from_byte_slice(&archive).size().unwrap(), size);
    }
}
