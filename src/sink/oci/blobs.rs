//! Where the blobs of an image go: files in a folder, or members of one archive.
//! It must never write a blob twice, nor give it its name before it is whole.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use fs_err as fs;

use super::entries::{self, Output, What};
use crate::failure::shown;
use crate::file;
use crate::interrupt::Interrupt;
use crate::oci::Digest;

/// Mode of files in a layout and of members of an archive.
const MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;
/// Of a layout and of an archive alike.
const FOLDER: &str = "blobs/sha256";

/// A place for blobs, one after the other.
pub(super) trait Blobs: Send {
    /// Begins one.
    fn begin(&mut self) -> anyhow::Result<()>;
    /// Goes on with it.
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()>;
    /// Ends it, and gives it its name.
    fn end(&mut self, digest: &Digest) -> anyhow::Result<()>;
    /// Takes a blob from the open file `from`, which is known to be whole. It was opened at `path`, where something else
    /// may lie by now.
    fn take(&mut self, from: &File, path: &Path, digest: &Digest) -> anyhow::Result<()>;
    /// Gives the blob that was ended last to a file `to`, which must not exist.
    fn give(&mut self, digest: &Digest, to: &Path) -> anyhow::Result<()>;

    /// Writes a small blob.
    fn whole(&mut self, bytes: &[u8], digest: &Digest) -> anyhow::Result<()> {
        self.begin()?;
        self.write(bytes)?;
        self.end(digest)
    }
}

/// Blobs as files of a layout.
pub(super) struct Folder {
    path: PathBuf,
    new: Option<fs::File>,
    /// Permissions of its files, by the user's mask.
    mode: u32,
}

impl Folder {
    /// In the layout at `root`, which is made here.
    pub(super) fn create(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(FOLDER);
        fs::create_dir_all(&path)?;
        let mut blobs = Self { path, new: None, mode: 0 };
        let probe = fs::File::create(blobs.unnamed())?;
        blobs.mode = probe.metadata()?.permissions().mode();
        file::close_at(&blobs.unnamed(), probe.into_parts().0)?;
        fs::remove_file(blobs.unnamed())?;
        Ok(blobs)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.hex())
    }

    fn unnamed(&self) -> PathBuf {
        self.path.join(".new")
    }
}

impl Blobs for Folder {
    fn begin(&mut self) -> anyhow::Result<()> {
        self.new = Some(fs::File::create(self.unnamed())?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.new.as_mut().context("no blob was begun")?.write_all(bytes)?)
    }

    fn end(&mut self, digest: &Digest) -> anyhow::Result<()> {
        if let Some(new) = self.new.take() {
            file::close_at(&self.unnamed(), new.into_parts().0)?;
        }
        Ok(fs::rename(self.unnamed(), self.place(digest))?)
    }

    fn take(&mut self, from: &File, path: &Path, digest: &Digest) -> anyhow::Result<()> {
        let place = self.place(digest);
        if place.exists() {
            return Ok(());
        }
        let new = self.unnamed();
        let opened = from.metadata()?;
        // The cache may have been made with another mask.
        let is_linked = opened.permissions().mode() == self.mode && std::fs::hard_link(path, &new).is_ok();
        let is_same = |linked: std::fs::Metadata| (linked.dev(), linked.ino()) == (opened.dev(), opened.ino());
        if !is_linked || !fs::symlink_metadata(&new).is_ok_and(is_same) {
            if is_linked {
                fs::remove_file(&new)?;
            }
            let mut copy = fs::File::create_new(&new)?.into_parts().0;
            copy_whole(from, &mut copy, path)?;
            file::close_at(&new, copy)?;
        }
        Ok(fs::rename(new, place)?)
    }

    fn give(&mut self, digest: &Digest, to: &Path) -> anyhow::Result<()> {
        link_or_copy(&self.place(digest), to)
    }
}

/// Copies all of `from`, which was opened at `path`. On whole files the kernel does it, without this program's memory.
fn copy_whole(mut from: &File, to: &mut File, path: &Path) -> anyhow::Result<()> {
    from.seek(SeekFrom::Start(0))?;
    let copied = std::io::copy(&mut from, to).with_context(|| format!("cannot copy `{}`", shown(path)))?;
    ensure!(copied == from.metadata()?.len(), "`{}` changed while it was read", shown(path));
    Ok(())
}

/// Blobs are never changed in place. Where no link can be made, for whatever reason, a copy can.
fn link_or_copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if std::fs::hard_link(from, to).is_err() {
        file::copy(from, to)?;
    }
    Ok(())
}

/// Writes the whole archive at `path` to standard output.
pub(super) fn copy_to_stdout(path: &Path, mut out: &File, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (mut archive, mut buffer) = (fs::File::open(path)?, vec![0; 256 * 1024]);
    loop {
        interrupt.check()?;
        match archive.read(&mut buffer)? {
            0 => return Ok(()),
            read => out.write_all(&buffer[..read]).context("cannot write to standard output")?,
        }
    }
}

/// Blobs as members of a tar archive. The header of a member is written again once its name and size are known.
pub(super) struct Archive {
    path: PathBuf,
    file: BufWriter<File>,
    /// Where the member begins that was begun last, and its size so far.
    member: (u64, u64),
    names: Vec<Digest>,
}

impl Archive {
    /// At `path`, which must not exist.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path)?.into_parts().0;
        let mut archive = Self { path: path.to_owned(), file: BufWriter::new(file), member: (0, 0), names: Vec::new() };
        for folder in ["blobs", FOLDER] {
            entries::begin(&mut archive, folder.as_bytes(), FOLDER_MODE, &What::Directory)?;
        }
        Ok(archive)
    }

    /// Writes a member that is no blob.
    pub(super) fn member(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        entries::file(self, name.as_bytes(), MODE, content)
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        entries::finish(&mut self)?;
        let failed = || format!("cannot write `{}`", shown(&self.path));
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file::close_at(&self.path, file)
    }

    fn header(&mut self, digest: &Digest, size: u64) -> anyhow::Result<()> {
        let path = format!("{FOLDER}/{}", digest.hex());
        entries::begin(self, path.as_bytes(), MODE, &What::File(size))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("cannot write `{}`", shown(&self.path)))
    }

    fn seek(&mut self, to: SeekFrom) -> anyhow::Result<u64> {
        self.file.seek(to).with_context(|| format!("cannot write `{}`", shown(&self.path)))
    }
}

impl Output for Archive {
    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write `{}`", shown(&self.path)))
    }
}

impl Blobs for Archive {
    fn begin(&mut self) -> anyhow::Result<()> {
        self.member = (self.seek(SeekFrom::Current(0))?, 0);
        self.header(&Digest::of(b""), 0)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.member.1 += bytes.len() as u64;
        self.put(bytes)
    }

    fn end(&mut self, digest: &Digest) -> anyhow::Result<()> {
        let (start, size) = self.member;
        if self.names.contains(digest) {
            // A blob of this name is there already; what is written next goes over this one.
            self.seek(SeekFrom::Start(start))?;
            let file = self.file.get_ref();
            return file.set_len(start).with_context(|| format!("cannot write `{}`", shown(&self.path)));
        }
        entries::end(self, size)?;
        let end = self.seek(SeekFrom::Current(0))?;
        self.seek(SeekFrom::Start(start))?;
        self.header(digest, size)?;
        self.seek(SeekFrom::Start(end))?;
        self.names.push(digest.clone());
        Ok(())
    }

    fn take(&mut self, from: &File, path: &Path, digest: &Digest) -> anyhow::Result<()> {
        if self.names.contains(digest) {
            return Ok(());
        }
        let size = from.metadata()?.len();
        self.header(digest, size)?;
        self.flush()?;
        copy_whole(from, self.file.get_mut(), path)?;
        entries::end(self, size)?;
        self.names.push(digest.clone());
        Ok(())
    }

    fn give(&mut self, _: &Digest, to: &Path) -> anyhow::Result<()> {
        self.flush()?;
        let (start, size) = self.member;
        let mut from = fs::File::open(&self.path)?;
        from.seek(SeekFrom::Start(start + entries::BLOCK as u64))?;
        let mut copy = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
        std::io::copy(&mut from.file_mut().take(size), copy.file_mut())
            .with_context(|| format!("cannot write `{}`", shown(to)))?;
        file::close_at(to, copy.into_parts().0)
    }
}
