//! What a root has apart from its store paths: its plan, folders laid over it, added directories, a Nix database.
//! It must never put anything into the store.

mod additions;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use fs_err as fs;
use walkdir::WalkDir;

use super::attributes;
use super::entries::{self, Output, Properties, What};
use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::root::{Made, Owner, Plan};
use crate::store::StoreDirectory;

/// Bytes of a file that are read at once.
const BUFFER: usize = 256 * 1024;
const DIRECTORY_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;
/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Everything in a root but store paths. Paths are relative to the root; every parent is in it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    items: BTreeMap<PathBuf, Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Item {
    Directory(Properties),
    Symlink(PathBuf),
    Text { contents: Vec<u8>, mode: u32 },
    File { from: PathBuf, properties: Properties, size: u64 },
}

impl Item {
    fn directory(mode: u32, owner: Owner) -> Self {
        Self::Directory(Properties { mode, owner, ..Properties::default() })
    }
}

impl Beside {
    /// What `plan` makes.
    pub fn of(plan: &Plan) -> Self {
        let item = |made: &Made| match made {
            Made::Directory { mode, owner } => Item::directory(*mode, *owner),
            Made::Symlink(target) => Item::Symlink(target.clone()),
            Made::File { contents, mode } => Item::Text { contents: contents.clone(), mode: *mode },
        };
        Self { items: plan.made.iter().map(|(place, made)| (place.clone(), item(made))).collect() }
    }

    /// Lays what is in `folder` over this root: a file that is in both is the folder's. Links are not followed. Modes
    /// and extended attributes are kept, owners and times are not. Returns a warning if attributes were left out.
    pub fn overlay(
        &mut self,
        folder: &Path,
        store: &StoreDirectory,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<String>> {
        let failed = || format!("cannot lay `{}` over the root", shown(folder));
        ensure!(fs::metadata(folder).with_context(failed)?.is_dir(), "{}: it is not a directory", failed());
        let mut reader = attributes::Reader::default();
        for entry in WalkDir::new(folder).follow_root_links(true).min_depth(1).sort_by_file_name() {
            interrupt.check()?;
            let entry = entry.with_context(failed)?;
            let place = entry.path().strip_prefix(folder)?;
            self.lay(&entry, place, store, &mut reader).with_context(failed)?;
        }
        let left_out = reader.left_out();
        Ok(left_out.map(|names| format!("left out extended attributes of files in `{}`: {names}", shown(folder))))
    }

    fn lay(
        &mut self,
        entry: &walkdir::DirEntry,
        place: &Path,
        store: &StoreDirectory,
        reader: &mut attributes::Reader,
    ) -> anyhow::Result<()> {
        let metadata = entry.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        if place.starts_with(store.relative()) && place != store.relative() {
            bail!("`/{}` would lie in the store, where everything is Nix's", shown(place));
        }
        let attributes = reader.read(entry.path(), metadata.is_symlink())?;
        let there = self.items.get(place);
        if metadata.is_dir() {
            // A folder lends its mode, but a home stays its user's.
            let owner = if let Some(Item::Directory(there)) = there { there.owner } else { Owner::ROOT };
            self.put(place, Item::Directory(Properties { mode, owner, attributes }));
            return Ok(());
        }
        let kind = if metadata.is_symlink() { "a symlink" } else { "not a directory" };
        if store.relative().starts_with(place) {
            bail!("`/{}` must be a directory, for the store; `{}` is {kind}", shown(place), shown(entry.path()));
        }
        // A file in place of a directory of `/etc` is meant so; a link, or a file in place of another directory, would
        // remove what programs rely on.
        let is_replaceable = metadata.is_file() && place.starts_with("etc") && place != Path::new("etc");
        if matches!(there, Some(Item::Directory(_))) && !is_replaceable {
            let error =
                anyhow!("`/{}` is a directory in the image, but `{}` is {kind}", shown(place), shown(entry.path()));
            return Err(hinted(error, "use a directory there: what is below both is put together"));
        }
        let item = if metadata.is_symlink() {
            Item::Symlink(fs::read_link(entry.path())?)
        } else if metadata.is_file() {
            let properties = Properties { mode, owner: Owner::ROOT, attributes };
            Item::File { from: entry.path().to_owned(), properties, size: metadata.size() }
        } else {
            bail!("`{}` is not a file, directory or symlink", shown(entry.path()));
        };
        self.put(place, item);
        Ok(())
    }

    /// The content of the file at `place`, which may be a link into the store; `None` if this root has no such file.
    pub fn read(&self, place: &Path, store: &StoreDirectory) -> anyhow::Result<Option<Vec<u8>>> {
        let mut place = place.to_owned();
        for _ in 0..MOST_LINKS {
            let target = match self.items.get(&place) {
                Some(Item::Text { contents, .. }) => return Ok(Some(contents.clone())),
                Some(Item::File { from, .. }) => return Ok(Some(fs::read(from)?)),
                Some(Item::Symlink(target)) => {
                    Path::new("/").join(place.parent().unwrap_or(Path::new(""))).join(target)
                }
                Some(Item::Directory(_)) | None => return Ok(None),
            };
            if let Some(file) = store.real_file(&target) {
                // A store path may hold a link to something outside of it, which is not in the root.
                let inside = fs::canonicalize(file).ok().filter(|file| file.starts_with(store.real()));
                return inside.filter(|file| file.is_file()).map(fs::read).transpose().map_err(Into::into);
            }
            place = below_root(&target);
        }
        Ok(None)
    }

    /// Makes the directory `place`, which belongs to `owner`, unless there is something already.
    pub fn directory(&mut self, place: &Path, owner: Owner, store: &StoreDirectory) -> anyhow::Result<()> {
        let place = below_root(place);
        if place.as_os_str().is_empty() || place.starts_with(store.relative()) {
            return Ok(());
        }
        for above in place.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            match self.items.get(above) {
                Some(Item::Directory(_)) if above == place => return Ok(()),
                // Where a link leads is for the container.
                Some(Item::Symlink(_)) => return Ok(()),
                Some(Item::Text { .. } | Item::File { .. }) => bail!("`/{}` is a file", shown(above)),
                Some(Item::Directory(_)) | None => {}
            }
        }
        self.parents(&place)?;
        self.put(&place, Item::directory(DIRECTORY_MODE, owner));
        Ok(())
    }

    /// Puts a file with this text at `place`.
    pub fn text(&mut self, place: &Path, text: &str) -> anyhow::Result<()> {
        self.parents(place)?;
        self.put(place, Item::Text { contents: text.as_bytes().to_vec(), mode: 0o644 });
        Ok(())
    }

    /// Puts the file `from` to `place`.
    pub fn file(&mut self, place: &Path, from: &Path, mode: u32) -> anyhow::Result<()> {
        let size = fs::metadata(from)?.len();
        self.parents(place)?;
        let properties = Properties { mode, ..Properties::default() };
        self.put(place, Item::File { from: from.to_owned(), properties, size });
        Ok(())
    }

    /// Makes a symlink.
    pub fn symlink(&mut self, place: &Path, target: &Path) -> anyhow::Result<()> {
        self.parents(place)?;
        self.put(place, Item::Symlink(target.to_owned()));
        Ok(())
    }

    /// Makes the directories above `place`.
    fn parents(&mut self, place: &Path) -> anyhow::Result<()> {
        for parent in place.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            match self.items.get(parent) {
                Some(Item::Directory(_)) => {}
                None => self.put(parent, Item::directory(DIRECTORY_MODE, Owner::ROOT)),
                Some(_) => bail!(
                    "`/{}` cannot be put into the root: `/{}` is not a directory there",
                    shown(place),
                    shown(parent)
                ),
            }
        }
        Ok(())
    }

    /// Only a directory keeps what is below its place.
    fn put(&mut self, place: &Path, item: Item) {
        if !matches!(item, Item::Directory(_)) {
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
            for directory in deepest.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                layers.put(directory, Item::directory(DIRECTORY_MODE, Owner::ROOT));
            }
        }
        if let Some(last) = has_paths.len().checked_sub(1) {
            let last = PathBuf::from(last.to_string());
            layers.items.extend(self.items.iter().map(|(place, item)| (last.join(place), item.clone())));
        }
        layers
    }

    /// The longest path, relative to the root.
    pub(super) fn longest(&self) -> &[u8] {
        let paths = self.items.keys().map(|place| place.as_os_str().as_encoded_bytes());
        paths.max_by_key(|path| path.len()).unwrap_or_default()
    }

    /// Writes everything as entries, each directory before what is in it.
    pub(super) fn write(&self, to: &mut impl Output, interrupt: &Interrupt) -> anyhow::Result<()> {
        for (place, item) in &self.items {
            interrupt.check()?;
            let path = place.as_os_str().as_encoded_bytes();
            match item {
                Item::Directory(properties) => entries::begin_with(to, path, properties, &What::Directory)?,
                Item::Text { contents, mode } => entries::file(to, path, *mode, contents)?,
                Item::Symlink(target) => {
                    entries::begin(to, path, LINK_MODE, &What::Symlink(target.as_os_str().as_encoded_bytes()))?;
                }
                Item::File { from, properties, size } => {
                    entries::begin_with(to, path, properties, &What::File(*size))?;
                    copy(from, *size, to, interrupt)?;
                    entries::end(to, *size)?;
                }
            }
        }
        Ok(())
    }
}

/// An absolute path relative to the root, without `.` and `..`.
fn below_root(path: &Path) -> PathBuf {
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => below.push(name),
            // The root is above itself.
            Component::ParentDir => _ = below.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    below
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
        fs::create_dir(at("link")).unwrap();
        symlink("usr/etc", at("link/etc")).unwrap();
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
        let properties = Properties { mode: 0o4640, ..Properties::default() };
        let passwd = Item::File { from: at("over/etc/passwd"), properties, size: 4 };
        assert_eq!(beside.items[Path::new("etc/passwd")], passwd);
        for (bad, message) in [
            ("store", "would lie in the store"),
            ("file", "must be a directory, for the store"),
            ("fifo", "is not a file, directory or symlink"),
            ("missing", "cannot lay"),
            ("over/etc/passwd", "it is not a directory"),
            ("sub", "`/etc` is a directory in the image, but `"),
            ("link", "/etc` is a symlink"),
        ] {
            let error = format!("{:#}", beside.clone().overlay(&at(bad), &store, &interrupt).unwrap_err());
            assert!(error.contains(message), "{bad}: {error}");
        }
        assert!(beside.items.contains_key(Path::new("etc/other")));
        let mut archive = Vec::new();
        beside.write(&mut archive, &interrupt).unwrap();
        // One of them has a content.
        assert_eq!(archive.len(), 512 * (beside.items.len() + 1));
    }

    #[test]
    fn files_are_read_through_links_that_stay_in_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let store = StoreDirectory::new(&root.join("store")).unwrap();
        fs::create_dir_all(root.join("store/x/etc")).unwrap();
        fs::write(root.join("store/x/etc/passwd"), "of the store").unwrap();
        fs::write(root.join("outside"), "of this machine").unwrap();
        symlink(root.join("outside"), root.join("store/x/etc/out")).unwrap();
        let mut beside = Beside::default();
        for (place, target) in [
            ("etc/passwd", "../other/link"),
            ("other/link", root.join("store/x/etc/passwd").to_str().unwrap()),
            ("etc/out", root.join("store/x/etc/out").to_str().unwrap()),
            ("etc/host", "/etc/passwd-of-this-machine"),
            ("etc/loop", "loop"),
            ("etc/text", "/usr/text"),
        ] {
            beside.symlink(Path::new(place), Path::new(target)).unwrap();
        }
        beside.text(Path::new("usr/text"), "a text").unwrap();
        for (place, expected) in [
            ("etc/text", Some("a text")),
            ("etc/passwd", Some("of the store")),
            ("etc/out", None),
            ("etc/host", None),
            ("etc/loop", None),
            ("etc", None),
            ("etc/missing", None),
        ] {
            let read = beside.read(Path::new(place), &store).unwrap();
            assert_eq!(read.as_deref(), expected.map(str::as_bytes), "{place}");
        }
    }

    #[test]
    fn a_directory_is_made_with_its_parents_unless_something_is_there() {
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let mut beside = Beside::default();
        beside.symlink(Path::new("run/profile"), Path::new("/nix/store/x")).unwrap();
        beside.text(Path::new("etc/file"), "").unwrap();
        for place in ["/", "/srv/./app//", "/run/profile/share", "/nix/store/x", "/etc", "/srv"] {
            beside.directory(Path::new(place), Owner { user: 7, group: 8 }, &store).unwrap();
        }
        for place in ["/etc/file", "/etc/file/below"] {
            let error = beside.directory(Path::new(place), Owner { user: 7, group: 8 }, &store).unwrap_err();
            assert_eq!(error.to_string(), "`/etc/file` is a file");
        }
        let root = Owner::ROOT;
        let expected = [("etc", root), ("run", root), ("srv", root), ("srv/app", Owner { user: 7, group: 8 })];
        let directories = beside.items.iter().filter_map(|(place, item)| match item {
            Item::Directory(properties) => Some((place.to_str().unwrap(), properties.owner)),
            _ => None,
        });
        assert_eq!(directories.collect::<Vec<_>>(), expected);
    }
}
