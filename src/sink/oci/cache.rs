//! Layers that were made before, by what is in them.
//! It must never hand out a blob whose digest it has not computed anew.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pipeline::Written;
use crate::failure::shown;
use crate::file;
use crate::interrupt::Interrupt;
use crate::oci::{Descriptor, Digest};

/// A folder of layers. Several runs may use it at once.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// What is known of a layer; its blob lies beside it.
#[derive(Serialize, Deserialize)]
struct Entry {
    diff_id: Digest,
    blob: Descriptor,
}

impl Cache {
    /// Opens the cache in `folder`, which is made where it does not exist.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot use `{}` as a cache", shown(folder)))?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn entry(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn blob(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.blob"))
    }

    /// The layer of `key` with the file of its blob. What is damaged is as good as not there.
    pub(super) fn find(&self, key: &str, interrupt: &Interrupt) -> anyhow::Result<Option<(Written, PathBuf)>> {
        let text = match fs::read(self.entry(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let Ok(Entry { diff_id, blob }) = serde_json::from_slice(&text) else { return Ok(None) };
        let path = self.blob(key);
        let is_whole = match File::open(&path) {
            Ok(file) if file.metadata()?.len() == blob.size => digest(file, interrupt)? == blob.digest,
            _ => false,
        };
        Ok(is_whole.then_some((Written { blob, diff_id }, path)))
    }

    /// Keeps a layer; `give` makes the file of its blob.
    pub(super) fn keep(
        &self,
        key: &str,
        layer: &Written,
        give: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let new = self.folder.join(format!(".{key}-{:016x}", file::random()));
        let kept = (|| {
            give(&new)?;
            // The blob first: an entry without a blob is none.
            fs::rename(&new, self.blob(key))?;
            let entry = Entry { diff_id: layer.diff_id.clone(), blob: layer.blob.clone() };
            file::write(&new, serde_json::to_vec(&entry)?)?;
            anyhow::Ok(fs::rename(&new, self.entry(key))?)
        })();
        if kept.is_err() {
            let _ = fs::remove_file(&new);
        }
        kept.with_context(|| format!("cannot keep a layer in the cache `{}`", shown(&self.folder)))
    }
}

/// The digest of a whole file.
pub(super) fn digest(mut file: impl Read, interrupt: &Interrupt) -> anyhow::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        interrupt.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
