//! What a root has apart from its store paths: its plan, folders laid over it, added directories, a Nix database.
//! It must never put anything into the store.

mod additions;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use fs_err as fs;
use walkdir::WalkDir;

use super::entries::{self, Output, What};
use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::root::{Made, Plan};
use crate::store::StoreDirectory;

/// Bytes of a file that are read at once.
const BUFFER: usize = 256 * 1024;
const DIRECTORY_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;
/// User and group.
const ROOT: (u32, u32) = (0, 0);

/// Everything in a root but store paths. Paths are relative to the root; every parent is in it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    items: BTreeMap<PathBuf, Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Item {
    Directory { mode: u32, owner: (u32, u32) },
    Symlink(PathBuf),
    Text { contents: Vec<u8>, mode: u32 },
    File { from: PathBuf, mode: u32, size: u64 },
}

impl Beside {
    /// What `plan` makes.
    pub fn of(plan: &Plan) -> Self {
        let item = |made: &Made| match made {
            Made::Directory { mode, owner } => Item::Directory { mode: *mode, owner: (*owner, *owner) },
            Made::Symlink(target) => Item::Symlink(target.clone()),
            Made::File { contents, mode } => Item::Text { contents: contents.clone(), mode: *mode },
        };
        Self { items: plan.made.iter().map(|(place, made)| (place.clone(), item(made))).collect() }
    }

    /// Lays what is in `folder` over this root: what is in both becomes the folder's. Links are not followed. Modes
    /// are kept, owners and times are not.
    pub fn overlay(&mut self, folder: &Path, store: &StoreDirectory, interrupt: &Interrupt) -> anyhow::Result<()> {
        let failed = || format!("cannot lay `{}` over the root", shown(folder));
        ensure!(fs::metadata(folder).with_context(failed)?.is_dir(), "{}: it is no directory", failed());
        for entry in WalkDir::new(folder).follow_root_links(true).min_depth(1).sort_by_file_name() {
            interrupt.check()?;
            let entry = entry.with_context(failed)?;
            let place = entry.path().strip_prefix(folder)?;
            self.lay(&entry, place, store).with_context(failed)?;
        }
        Ok(())
    }

    fn lay(&mut self, entry: &walkdir::DirEntry, place: &Path, store: &StoreDirectory) -> anyhow::Result<()> {
        let metadata = entry.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        if place.starts_with(store.relative()) && place != store.relative() {
            bail!("`/{}` would lie in the store, where everything is Nix's", shown(place));
        }
        let item = if metadata.is_dir() {
            // A folder lends its mode, but a home stays its user's.
            let owner = match self.items.get(place) {
                Some(Item::Directory { owner, .. }) => *owner,
                _ => ROOT,
            };
            Item::Directory { mode, owner }
        } else {
            ensure!(!store.relative().starts_with(place), "`/{}` must be a directory, for the store", shown(place));
            if metadata.is_symlink() {
                Item::Symlink(fs::read_link(entry.path())?)
            } else if metadata.is_file() {
                Item::File { from: entry.path().to_owned(), mode, size: metadata.size() }
            } else {
                bail!("`{}` is no file, directory or symlink", shown(entry.path()));
            }
        };
        self.put(place, item);
        Ok(())
    }

    /// Puts a file with this text at `place`.
    pub fn text(&mut self, place: &Path, text: &str) {
        self.parents(place);
        self.put(place, Item::Text { contents: text.as_bytes().to_vec(), mode: 0o644 });
    }

    /// Puts the file `from` to `place`.
    pub fn file(&mut self, place: &Path, from: &Path, mode: u32) -> anyhow::Result<()> {
        let size = fs::metadata(from)?.len();
        self.parents(place);
        self.put(place, Item::File { from: from.to_owned(), mode, size });
        Ok(())
    }

    /// Makes a symlink.
    pub fn symlink(&mut self, place: &Path, target: &Path) {
        self.parents(place);
        self.put(place, Item::Symlink(target.to_owned()));
    }

    fn parents(&mut self, place: &Path) {
        for parent in place.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            if !matches!(self.items.get(parent), Some(Item::Directory { .. })) {
                self.put(parent, Item::Directory { mode: DIRECTORY_MODE, owner: ROOT });
            }
        }
    }

    /// Only a directory keeps what is below its place.
    fn put(&mut self, place: &Path, item: Item) {
        if !matches!(item, Item::Directory { .. }) {
            self.items.retain(|path, _| !path.starts_with(place));
        }
        self.items.insert(place.to_owned(), item);
    }

    /// What there is, each directory before what is in it.
    pub(in crate::sink) fn items(&self) -> impl DoubleEndedIterator<Item = (&Path, &Item)> {
        self.items.iter().map(|(place, item)| (place.as_path(), item))
    }

    /// Roots side by side, called `0`, `1` and so on, that are this one when they are laid over each other in this
    /// order: the last has all of this, the others only a store, if they have store paths (`has_paths`).
    #[must_use]
    pub fn in_layers(&self, store: &StoreDirectory, has_paths: &[bool]) -> Self {
        let mut layers = Self::default();
        for (layer, has_paths) in has_paths.iter().enumerate() {
            let layer = PathBuf::from(layer.to_string());
            let deepest = if *has_paths { layer.join(store.relative()) } else { layer };
            layers.parents(&deepest.join("x"));
        }
        if let Some(last) = has_paths.len().checked_sub(1) {
            let last = PathBuf::from(last.to_string());
            layers.items.extend(self.items.iter().map(|(place, item)| (last.join(place), item.clone())));
        }
        layers
    }

    /// Writes everything as entries, each directory before what is in it.
    pub(super) fn write(&self, to: &mut impl Output, interrupt: &Interrupt) -> anyhow::Result<()> {
        for (place, item) in &self.items {
            interrupt.check()?;
            let path = place.as_os_str().as_encoded_bytes();
            match item {
                Item::Directory { mode, owner } => entries::owned_directory(to, path, *mode, *owner)?,
                Item::Text { contents, mode } => entries::file(to, path, *mode, contents)?,
                Item::Symlink(target) => {
                    entries::begin(to, path, LINK_MODE, &What::Symlink(target.as_os_str().as_encoded_bytes()))?;
                }
                Item::File { from, mode, size } => {
                    entries::begin(to, path, *mode, &What::File(*size))?;
                    copy(from, *size, to, interrupt)?;
                    entries::end(to, *size)?;
                }
            }
        }
        Ok(())
    }
}

fn copy(from: &Path, size: u64, to: &mut impl Output, interrupt: &Interrupt) -> anyhow::Result<()> {
    use std::io::Read;
    let mut file = fs::File::open(from)?;
    let (mut left, mut buffer) = (size, vec![0; BUFFER]);
    while left > 0 {
        interrupt.check()?;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
        let read = file.read(&mut buffer[..most])?;
        ensure!(read > 0, "`{}` became shorter while it was read", shown(from));
        to.put(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_laid_over_wins_and_the_store_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for directory in ["over/etc/x", "over/run", "over/nix/var", "store/nix/store/x", "file/", "fifo", "sub"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("over/etc/passwd"), "root").unwrap();
        fs::set_permissions(at("over/etc/passwd"), PermissionsExt::from_mode(0o4640)).unwrap();
        symlink("elsewhere", at("over/run/profile")).unwrap();
        fs::write(at("file/nix"), "").unwrap();
        nix::unistd::mkfifo(&at("fifo/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("sub/etc"), "").unwrap();
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let interrupt = Interrupt::default();
        let mut plan = Plan::store_only(&store);
        plan.made.insert("etc".into(), Made::DIRECTORY);
        plan.made.insert("etc/passwd".into(), Made::Symlink("/nix/store/x".into()));
        plan.made.insert("etc/other".into(), Made::Symlink("/nix/store/y".into()));
        let mut beside = Beside::of(&plan);
        beside.overlay(&at("over"), &store, &interrupt).unwrap();
        let places: Vec<_> = beside.items.keys().map(|place| place.to_str().unwrap()).collect();
        let expected = ["etc", "etc/other", "etc/passwd", "etc/x", "nix", "nix/store", "nix/var", "run", "run/profile"];
        assert_eq!(places, expected);
        let passwd = Item::File { from: at("over/etc/passwd"), mode: 0o4640, size: 4 };
        assert_eq!(beside.items[Path::new("etc/passwd")], passwd);
        for (bad, message) in [
            ("store", "would lie in the store"),
            ("file", "must be a directory, for the store"),
            ("fifo", "is no file, directory or symlink"),
            ("missing", "cannot lay"),
            ("over/etc/passwd", "it is no directory"),
        ] {
            let error = format!("{:#}", beside.clone().overlay(&at(bad), &store, &interrupt).unwrap_err());
            assert!(error.contains(message), "{bad}: {error}");
        }
        beside.overlay(&at("sub"), &store, &interrupt).unwrap();
        assert!(!beside.items.contains_key(Path::new("etc/other")));
        let mut archive = Vec::new();
        beside.write(&mut archive, &interrupt).unwrap();
        assert_eq!(archive.len(), 512 * beside.items.len());
    }
}
