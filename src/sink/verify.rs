//! Recomputes NAR hashes from what was written and compares them with what Nix registered, and modes with Nix's own.
//! It must never trust the copy: it reads names, modes, links and data from the root itself.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use fs_err as fs;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstatat};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use super::directory::{STORE_DIRECTORY_MODE, canonical_mode};
use super::names::{Buffer, Names};
use super::{below, pool};
use crate::failure::shown_bytes;
use crate::interrupt::Interrupt;
use crate::store::Registration;

/// What one read takes at most.
const BUFFER: usize = 256 << 10;

/// Fails at the first path below `store` whose NAR is not the registered one. The largest are begun
/// first: one path may take as long as all others together.
pub fn verify(store: &Path, registrations: &[Registration], jobs: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    let base = OwnedFd::from(fs::File::open(store)?.into_parts().0);
    let mut largest_last: Vec<_> = registrations.iter().collect();
    largest_last.sort_by_key(|registration| registration.nar_size);
    let worker = || (vec![0; BUFFER], Buffer::default());
    pool::run(jobs, largest_last, worker, |registration, (data, names), _| {
        let mut reader = Reader { base: base.as_fd(), data, names, interrupt };
        let (hash, size) = reader.nar_hash(registration.path.base_name().as_bytes()).context("verification failed")?;
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
    })?;
    Ok(())
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
    /// The node at this path, relative to the base.
    Node(Vec<u8>),
    /// An entry of a directory: its name and node.
    Entry(Vec<u8>),
    /// The end of an entry, or of a directory.
    End,
}

/// Reads trees below `base`, by descriptors: their paths may be longer than the kernel takes at once.
struct Reader<'a> {
    base: BorrowedFd<'a>,
    data: &'a mut [u8],
    names: &'a mut Buffer,
    interrupt: &'a Interrupt,
}

impl Reader<'_> {
    /// SHA-256 in base 16 and size in bytes of the NAR of `path`.
    fn nar_hash(&mut self, path: &[u8]) -> anyhow::Result<(String, u64)> {
        let mut sink = Hashing { hash: Sha256::new(), size: 0 };
        self.write_nar(path, &mut sink)?;
        Ok((base16(&sink.hash.finalize()), sink.size))
    }

    /// Writes the NAR of `path` (Nix manual, "Nix Archive (NAR) format").
    ///
    /// Not the crate nix-archive: it refuses trees of more than 64 directories in each other, which older
    /// versions of Nix store. A test compares the two on all others.
    fn write_nar(&mut self, path: &[u8], to: &mut impl Write) -> anyhow::Result<()> {
        strings(to, &[b"nix-archive-1"])?;
        let mut steps = vec![Step::Node(path.to_owned())];
        while let Some(step) = steps.pop() {
            self.interrupt.check()?;
            match step {
                Step::End => strings(to, &[b")"])?,
                Step::Entry(path) => {
                    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
                    strings(to, &[b"entry", b"(", b"name", name, b"node"])?;
                    steps.push(Step::End);
                    steps.push(Step::Node(path));
                }
                Step::Node(path) => {
                    self.node(&path, to, &mut steps).with_context(|| format!("`{}`", shown_bytes(&path)))?;
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, path: &[u8], to: &mut impl Write, steps: &mut Vec<Step>) -> anyhow::Result<()> {
        let stat = below::at(self.base, path, |from, rest| fstatat(from, rest, AtFlags::AT_SYMLINK_NOFOLLOW))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = below::at(self.base, path, |from, rest| readlinkat(from, rest))?;
                strings(to, &[b"(", b"type", b"symlink", b"target", target.as_bytes(), b")"])?;
            }
            FileType::RegularFile => {
                // Of the mode a NAR has one bit alone.
                let mode = canonical_mode(&stat);
                ensure_mode(stat.st_mode, mode)?;
                strings(to, &[b"(", b"type", b"regular"])?;
                if stat.st_mode & 0o100 != 0 {
                    strings(to, &[b"executable", b""])?;
                }
                strings(to, &[b"contents"])?;
                self.contents(path, u64::try_from(stat.st_size)?, to)?;
                strings(to, &[b")"])?;
            }
            FileType::Directory => {
                ensure_mode(stat.st_mode, STORE_DIRECTORY_MODE.bits())?;
                strings(to, &[b"(", b"type", b"directory"])?;
                steps.push(Step::End);
                let mut names = Names::default();
                names.read(&below::directory(self.base, path)?, self.names)?;
                let mut names: Vec<_> = names.iter().map(|(name, _)| below::join(path, name.to_bytes())).collect();
                // The stack is taken from its end, and a NAR's entries are in the order of their bytes.
                names.sort_unstable_by(|a, b| b.cmp(a));
                steps.extend(names.into_iter().map(Step::Entry));
            }
            _ => bail!("it is no file, directory or symlink"),
        }
        Ok(())
    }

    fn contents(&mut self, path: &[u8], size: u64, to: &mut impl Write) -> anyhow::Result<()> {
        to.write_all(&size.to_le_bytes())?;
        let mut left = size;
        if left > 0 {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = below::at(self.base, path, |from, rest| openat(from, rest, flags, Mode::empty()))?;
            let mut file = File::from(file);
            while left > 0 {
                self.interrupt.check()?;
                let most = usize::try_from(left).unwrap_or(BUFFER).min(self.data.len());
                let read = file.read(&mut self.data[..most])?;
                if read == 0 {
                    bail!("it became shorter while it was read");
                }
                to.write_all(&self.data[..read])?;
                left -= read as u64;
            }
        }
        Ok(to.write_all(&[0; 8][..padding(size)])?)
    }
}

fn ensure_mode(found: u32, wanted: u32) -> anyhow::Result<()> {
    let found = found & 0o7777;
    ensure!(found == wanted, "it has mode {found:04o} instead of {wanted:04o}");
    Ok(())
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
    use std::ffi::OsStr;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn modes_that_are_not_nixs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("x")).unwrap();
        fs::write(at("x/file"), "").unwrap();
        let base = File::open(folder.path()).unwrap();
        for (directory, file, message) in [
            (0o555, 0o444, None),
            (0o555, 0o555, None),
            (0o755, 0o444, Some("`x`: it has mode 0755 instead of 0555")),
            (0o555, 0o644, Some("`x/file`: it has mode 0644 instead of 0444")),
            (0o555, 0o755, Some("`x/file`: it has mode 0755 instead of 0555")),
            (0o555, 0o4555, Some("`x/file`: it has mode 4555 instead of 0555")),
        ] {
            for (name, mode) in [("x/file", file), ("x", directory)] {
                fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
            }
            let (mut names, interrupt) = (Buffer::default(), Interrupt::default());
            let mut reader = Reader { base: base.as_fd(), data: &mut [0; 7], names: &mut names, interrupt: &interrupt };
            let error = reader.nar_hash(b"x").err().map(|error| format!("{error:#}"));
            assert_eq!(error.as_deref(), message);
            fs::set_permissions(at("x"), PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

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
                fs::set_permissions(path, PermissionsExt::from_mode(0o555)).unwrap();
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
            let base = File::open(folder.path()).unwrap();
            let (mut names, interrupt) = (Buffer::default(), Interrupt::default());
            let mut reader =
                Reader { base: base.as_fd(), data: &mut [0; 7], names: &mut names, interrupt: &interrupt };
            prop_assert_eq!(reader.nar_hash(b"x").unwrap(), (hex, size));
            // Only root can remove what lies in directories that are not writable.
            for entry in walkdir::WalkDir::new(&path).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
                fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
    }
}
