//! Entries of a layer's tar archive: headers that depend on nothing but what they describe.
//! It must never write an owner, a time or a name of this machine.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use tar::{EntryType, Header};

use crate::failure::shown_bytes;
use crate::root::Owner;

/// Modification time of everything in a layer, in seconds since 1970: that of store paths.
const TIME: u64 = 1;
/// Names up to this length fit into a header; longer ones have an entry of their own before it (GNU tar).
const NAME_FIELD: usize = 100;
/// What an archive is made of.
pub(super) const BLOCK: usize = 512;
/// The longest path that an engine can unpack, with the `/` before it: the kernel takes 4,096 bytes with the final NUL.
const LONGEST_PATH: usize = 4095;
/// Most engines unpack below a directory of their own, so that they reach the kernel's limit earlier. Measured: Docker
/// below `/var/lib/docker` at 4,004 bytes, podman with overlay at 4,005, umoci at 4,075; containerd is alike.
pub(super) const SAFE_PATH: usize = 3900;
/// So much of a long path is shown.
const SHOWN: usize = 80;
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

/// What an entry has beside its type, content and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sink) struct Properties {
    /// Permission bits.
    pub(in crate::sink) mode: u32,
    /// Its user and group.
    pub(in crate::sink) owner: Owner,
    /// Extended attributes. A name must hold neither `=` nor NUL.
    pub(in crate::sink) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Writes the header of `path`, which is relative to the root, with the permission bits `mode`. It is root's.
pub(super) fn begin(to: &mut impl Output, path: &[u8], mode: u32, what: &What<'_>) -> anyhow::Result<()> {
    begin_with(to, path, &Properties { mode, ..Properties::default() }, what)
}

/// Writes the header of `path`, which is relative to the root.
pub(super) fn begin_with(
    to: &mut impl Output,
    path: &[u8],
    properties: &Properties,
    what: &What<'_>,
) -> anyhow::Result<()> {
    if path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT)) {
        bail!("`{}` cannot be in an image: a name that begins with `.wh.` means a deletion there", shown_bytes(path));
    }
    if path.len() + 1 > LONGEST_PATH {
        bail!(
            "`/{}` cannot be in an image: its path has {} bytes, and container engines unpack {LONGEST_PATH} at most",
            shortened(path),
            path.len() + 1
        );
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
    if !properties.attributes.is_empty() {
        let records: Vec<u8> = properties.attributes.iter().flat_map(|(name, value)| record(name, value)).collect();
        extension(to, EntryType::XHeader, b"././@PaxHeader", &records)?;
    }
    if target.len() > NAME_FIELD {
        long(to, EntryType::GNULongLink, target)?;
    }
    if name.len() > NAME_FIELD {
        long(to, EntryType::GNULongName, &name)?;
    }
    let mut header = header(kind, size, properties.mode);
    header.set_uid(properties.owner.user.into());
    header.set_gid(properties.owner.group.into());
    let fields = header.as_gnu_mut().context("a header has no GNU fields")?;
    copy(&mut fields.name, &name);
    copy(&mut fields.linkname, target);
    header.set_cksum();
    to.put(header.as_bytes())
}

/// The beginning of a path.
pub(super) fn shortened(path: &[u8]) -> String {
    match path.get(..SHOWN) {
        Some(start) => format!("{}…", shown_bytes(start)),
        None => shown_bytes(path),
    }
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
    extension(to, kind, b"././@LongLink", &[text, &[0]].concat())
}

/// An entry that says more of the next one than its header has room for.
fn extension(to: &mut impl Output, kind: EntryType, name: &[u8], content: &[u8]) -> anyhow::Result<()> {
    let size = content.len() as u64;
    let mut header = header(kind, size, 0);
    copy(&mut header.as_gnu_mut().context("a header has no GNU fields")?.name, name);
    header.set_cksum();
    to.put(header.as_bytes())?;
    to.put(content)?;
    end(to, size)
}

/// An extended attribute as a record of a POSIX extended header (pax(1)): `LENGTH KEY=VALUE`, and the length counts its
/// own digits.
fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" SCHILY.xattr.", name, b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    [length.to_string().as_bytes(), &rest].concat()
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
    fn attributes_and_long_names_are_read_by_another_implementation() {
        // Lengths around the borders at which the length itself gets one digit more.
        for size in (0..100).chain(9960..9980).chain([65536]) {
            let value = vec![b'\n'; size];
            let attributes =
                BTreeMap::from([(b"user.a".to_vec(), value.clone()), (b"user.b".to_vec(), b"=\0".to_vec())]);
            let path = [b'x'; 150];
            let mut archive = Vec::new();
            let properties = Properties { mode: 0o640, owner: Owner { user: 7, group: 8 }, attributes };
            begin_with(&mut archive, &path, &properties, &What::File(0)).unwrap();
            finish(&mut archive).unwrap();
            let mut read = tar::Archive::new(&archive[..]);
            let mut entry = read.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(&*entry.path_bytes(), path);
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (7, 8));
            // That implementation cuts values at line ends.
            if size == 0 {
                let records: Vec<_> = entry.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
                let records: Vec<_> = records.iter().map(|record| (record.key_bytes(), record.value_bytes())).collect();
                assert_eq!(records, [(&b"SCHILY.xattr.user.a"[..], &b""[..]), (b"SCHILY.xattr.user.b", b"=\0")]);
            }
            let start = archive[512..].iter().position(|&byte| byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&archive[512..512 + start]).unwrap().parse().unwrap();
            assert_eq!(archive[512 + length - 1], b'\n');
            assert!(archive[512 + length..].starts_with(b"26 SCHILY.xattr.user.b="), "{size}");
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
    fn a_path_that_no_engine_can_unpack_is_refused() {
        begin(&mut Vec::new(), &[b'x'; LONGEST_PATH - 1], 0o444, &What::File(0)).unwrap();
        let error = begin(&mut Vec::new(), &[b'x'; LONGEST_PATH], 0o444, &What::File(0)).unwrap_err().to_string();
        let expected = format!(
            "`/{}…` cannot be in an image: its path has 4096 bytes, and container engines unpack 4095 at most",
            "x".repeat(SHOWN)
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn files_larger_than_eight_gibibytes_have_their_size() {
        let mut archive = Vec::new();
        let size = 20 << 30;
        begin(&mut archive, b"x", 0o444, &What::File(size)).unwrap();
        assert_eq!(Header::from_byte_slice(&archive).size().unwrap(), size);
    }
}
