//! Recomputes NAR hashes from what was written and compares them with what Nix registered.
//! It must never trust the copy: it reads names, modes, links and data from the root itself.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use sha2::{Digest, Sha256};

use super::pool;
use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::store::Registration;

/// What one read takes at most.
const BUFFER: usize = 256 << 10;

/// Fails at the first path below `store` whose NAR is not the registered one. The largest are begun
/// first: one path may take as long as all others together.
pub fn verify(store: &Path, registrations: &[Registration], jobs: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut largest_last: Vec<_> = registrations.iter().collect();
    largest_last.sort_by_key(|registration| registration.nar_size);
    pool::run(
        jobs,
        largest_last,
        || vec![0; BUFFER],
        |registration, buffer, _| {
            let path = store.join(registration.path.base_name());
            let (hash, size) =
                nar_hash(&path, buffer, interrupt).with_context(|| format!("cannot verify `{}`", registration.path))?;
            if hash != registration.nar_hash || size != registration.nar_size {
                bail!(
                    "verification failed: `{}` has NAR hash sha256:{hash} ({size} bytes), \
                 but sha256:{} ({} bytes) is registered",
                    registration.path,
                    registration.nar_hash,
                    registration.nar_size
                );
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// SHA-256 in base 16 and size in bytes of the NAR of `path`.
fn nar_hash(path: &Path, buffer: &mut [u8], interrupt: &Interrupt) -> anyhow::Result<(String, u64)> {
    let mut sink = Hashing { hash: Sha256::new(), size: 0 };
    write_nar(path, &mut sink, buffer, interrupt)?;
    Ok((base16(&sink.hash.finalize()), sink.size))
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Hashing {
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is left to write of a NAR; a stack of these instead of recursion, since trees may be very deep.
enum Step {
    /// The node at this path.
    Node(PathBuf),
    /// An entry of a directory: its name and node.
    Entry(PathBuf),
    /// The end of an entry, or of a directory.
    End,
}

/// Writes the NAR of `path` (Nix manual, "Nix Archive (NAR) format").
///
/// Not the crate nix-archive: it refuses trees of more than 64 directories in each other, which Nix
/// before 2.3x stores. A test compares the two on all others.
fn write_nar(path: &Path, to: &mut impl Write, buffer: &mut [u8], interrupt: &Interrupt) -> anyhow::Result<()> {
    strings(to, &[b"nix-archive-1"])?;
    let mut steps = vec![Step::Node(path.to_owned())];
    while let Some(step) = steps.pop() {
        interrupt.check()?;
        match step {
            Step::End => strings(to, &[b")"])?,
            Step::Entry(path) => {
                let name = path.file_name().unwrap_or_default().as_bytes();
                strings(to, &[b"entry", b"(", b"name", name, b"node"])?;
                steps.push(Step::End);
                steps.push(Step::Node(path));
            }
            Step::Node(path) => {
                let metadata = fs::symlink_metadata(&path)?;
                let kind = metadata.file_type();
                if kind.is_symlink() {
                    let target = fs::read_link(&path)?;
                    strings(to, &[b"(", b"type", b"symlink", b"target", target.as_os_str().as_bytes(), b")"])?;
                } else if kind.is_file() {
                    strings(to, &[b"(", b"type", b"regular"])?;
                    if metadata.mode() & 0o100 != 0 {
                        strings(to, &[b"executable", b""])?;
                    }
                    strings(to, &[b"contents"])?;
                    contents(&path, metadata.len(), to, buffer, interrupt)?;
                    strings(to, &[b")"])?;
                } else if kind.is_dir() {
                    strings(to, &[b"(", b"type", b"directory"])?;
                    steps.push(Step::End);
                    let mut names = fs::read_dir(&path)?
                        .map(|entry| entry.map(|entry| entry.file_name()))
                        .collect::<io::Result<Vec<_>>>()?;
                    names.sort_unstable_by(|a: &std::ffi::OsString, b| descending(a, b));
                    steps.extend(names.into_iter().map(|name| Step::Entry(path.join(name))));
                } else {
                    bail!("`{}` is no file, directory or symlink", shown(&path));
                }
            }
        }
    }
    Ok(())
}

/// The stack is taken from its end, and a NAR's entries are in the order of their bytes.
fn descending(a: &OsStr, b: &OsStr) -> std::cmp::Ordering {
    b.as_bytes().cmp(a.as_bytes())
}

fn contents(
    path: &Path,
    size: u64,
    to: &mut impl Write,
    buffer: &mut [u8],
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    to.write_all(&size.to_le_bytes())?;
    let mut left = size;
    if left > 0 {
        let mut file: File = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)?.into();
        while left > 0 {
            interrupt.check()?;
            let most = usize::try_from(left).unwrap_or(BUFFER).min(buffer.len());
            let read = file.read(&mut buffer[..most]).with_context(|| format!("cannot read `{}`", shown(path)))?;
            if read == 0 {
                bail!("`{}` became shorter while it was read", shown(path));
            }
            to.write_all(&buffer[..read])?;
            left -= read as u64;
        }
    }
    Ok(to.write_all(&[0; 8][..padding(size)])?)
}

/// Zero bytes after `size` bytes: strings are padded to multiples of 8.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % 8).unwrap_or_default()
}

/// Each string as its length in 8 bytes, itself, and its padding.
fn strings(to: &mut impl Write, strings: &[&[u8]]) -> io::Result<()> {
    for string in strings {
        to.write_all(&(string.len() as u64).to_le_bytes())?;
        to.write_all(string)?;
        to.write_all(&[0; 8][..padding(string.len() as u64)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix_archive::nar::{CaseHack, hash_path};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[derive(Clone, Debug)]
    enum Node {
        File(Vec<u8>, bool),
        Link(String),
        Directory(BTreeMap<Vec<u8>, Node>),
    }

    fn node() -> impl Strategy<Value = Node> {
        let name = prop::collection::vec(any::<u8>().prop_filter("no path", |b| !b"/\0".contains(b)), 1..12)
            .prop_filter("no dots", |name| name != b"." && name != b"..");
        let leaf = prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..100), any::<bool>()).prop_map(|(data, x)| Node::File(data, x)),
            "[^\0]{1,30}".prop_map(Node::Link),
        ];
        leaf.prop_recursive(4, 24, 6, move |inner| {
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(Node::Directory)
        })
    }

    fn make(node: &Node, path: &Path) {
        match node {
            Node::File(data, executable) => {
                fs::write(path, data).unwrap();
                let mode = if *executable { 0o555 } else { 0o444 };
                fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
            Node::Link(target) => symlink(target, path).unwrap(),
            Node::Directory(nodes) => {
                fs::create_dir(path).unwrap();
                for (name, node) in nodes {
                    make(node, &path.join(OsStr::from_bytes(name)));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn hashes_are_those_of_another_implementation(node in node()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            make(&node, &path);
            let (size, hash) = hash_path(&path, CaseHack::Disabled).unwrap().into_parts();
            let hex = base16(&hash);
            prop_assert_eq!(nar_hash(&path, &mut [0; 7], &Interrupt::default()).unwrap(), (hex, size));
        }
    }
}
