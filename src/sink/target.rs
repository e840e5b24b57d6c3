//! Where an export goes: what the user's ROOT names, and whether it may be written.
//! It must never write; [`super::draft`] does.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::mounts::Mounts;
use crate::failure::{hinted, shown};
use crate::store::StoreDirectory;

/// A place for a root that was looked at and found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Absolute, without links.
    pub root: PathBuf,
    /// The directory in which the draft is made: that of `root`, or `root` itself where it is a mount point.
    pub drafts: PathBuf,
    /// The last component of `root`.
    pub name: OsString,
    /// Whether something is mounted at `root`, so that rename(2) cannot replace it.
    pub is_mount_point: bool,
}

impl Target {
    /// Looks at what `root` names. That it is empty is for [`Target::check_empty`], after left-overs are gone.
    pub fn inspect(root: &Path, store: &StoreDirectory) -> anyhow::Result<Self> {
        let failed = || format!("cannot export to `{}`", shown(root));
        match fs::symlink_metadata(root) {
            Ok(_) => {
                let real = fs::canonicalize(root).with_context(failed)?;
                let metadata = fs::metadata(&real).with_context(failed)?;
                if !metadata.is_dir() {
                    bail!("{}: it exists and is no directory", failed());
                }
                Self::existing(real, store).with_context(failed)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::absent(root, store).with_context(failed),
            Err(error) => Err(error).with_context(failed),
        }
    }

    /// Looks at `file`, which an archive will be: a regular file is replaced, nothing else is.
    pub fn inspect_file(file: &Path, store: &StoreDirectory) -> anyhow::Result<Self> {
        let failed = || format!("cannot export to `{}`", shown(file));
        match fs::metadata(file) {
            Ok(metadata) if !metadata.is_file() => bail!("{}: it exists and is no regular file", failed()),
            Ok(_) => {
                // Through links, so that these stay.
                let root = fs::canonicalize(file).with_context(failed)?;
                let (parent, name) = root.parent().zip(root.file_name()).with_context(failed)?;
                refuse_inside_store(parent, store).and_then(|()| refuse_unwritable(parent)).with_context(failed)?;
                Ok(Self { drafts: parent.to_owned(), name: name.to_owned(), is_mount_point: false, root: root.clone() })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::absent(file, store).with_context(failed),
            Err(error) => Err(error).with_context(failed),
        }
    }

    fn existing(root: PathBuf, store: &StoreDirectory) -> anyhow::Result<Self> {
        refuse_inside_store(&root, store)?;
        let Some((parent, name)) = root.parent().zip(root.file_name()) else {
            bail!("it is the root directory of this system");
        };
        let is_mount_point =
            Mounts::read().at(&root).is_some() || fs::metadata(&root)?.dev() != fs::metadata(parent)?.dev();
        let drafts = if is_mount_point { root.clone() } else { parent.to_owned() };
        refuse_unwritable(&drafts)?;
        Ok(Self { name: name.to_owned(), drafts, is_mount_point, root })
    }

    fn absent(root: &Path, store: &StoreDirectory) -> anyhow::Result<Self> {
        let name = root.file_name().context("it does not end in a name")?;
        let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real_parent = fs::canonicalize(parent).map_err(|error| match error.kind() {
            ErrorKind::NotFound => hinted(
                anyhow!("its parent `{}` does not exist", shown(parent)),
                format!("make it first: mkdir -p {}", shown(parent)),
            ),
            _ => error.into(),
        })?;
        if !fs::metadata(&real_parent)?.is_dir() {
            bail!("its parent `{}` is no directory", shown(parent));
        }
        if fs::symlink_metadata(real_parent.join(name)).is_ok() {
            bail!("it is a link that leads nowhere");
        }
        refuse_inside_store(&real_parent, store)?;
        refuse_unwritable(&real_parent)?;
        Ok(Self { root: real_parent.join(name), drafts: real_parent, name: name.to_owned(), is_mount_point: false })
    }

    /// Fails unless the root is absent or an empty directory. Of a mount point's entries `lost+found` does not count.
    pub fn check_empty(&self) -> anyhow::Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if self.is_mount_point && name == "lost+found" {
                continue;
            }
            let root = shown(&self.root);
            if self.is_mount_point && super::draft::is_draft(&self.name, &name) {
                return Err(hinted(
                    anyhow!("cannot export to `{root}`: it holds `{}` of another export", shown(&name)),
                    "wait for that export to end; if none is at work, remove the folder",
                ));
            }
            return Err(hinted(
                anyhow!("cannot export to `{root}`: it is not empty (it holds `{}`)", shown(&name)),
                "name a directory that is empty or does not exist; nothing is ever overwritten",
            ));
        }
        Ok(())
    }
}

/// The store would be written into itself.
fn refuse_inside_store(directory: &Path, store: &StoreDirectory) -> anyhow::Result<()> {
    let inside = fs::canonicalize(store.real())
        .is_ok_and(|store| directory.starts_with(&store) || Mounts::read().is_within(directory, &store));
    anyhow::ensure!(!inside, "it lies inside the store directory `{store}`");
    Ok(())
}

fn refuse_unwritable(directory: &Path) -> anyhow::Result<()> {
    faccessat(AT_FDCWD, directory, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)
        .map_err(|errno| super::CallFailed::new(format!("`{}` is not writable", shown(directory)), errno).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_is_absent_or_an_empty_directory() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        let at = |name: &str| real.join(name);
        fs::create_dir_all(at("store/x-path")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir_all(at("full/thing")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("empty", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let store = StoreDirectory::new(&at("store")).unwrap();
        let inspect = |path: PathBuf| {
            let target = Target::inspect(&path, &store)?;
            target.check_empty()?;
            anyhow::Ok(target)
        };

        for (path, root) in
            [("new", "new"), ("new/", "new"), ("empty", "empty"), ("link", "empty"), ("./full/../new", "new")]
        {
            let target = inspect(at(path)).unwrap();
            assert_eq!((target.root, target.drafts, target.is_mount_point), (at(root), real.clone(), false), "{path}");
        }
        for (path, message) in [
            (at("full"), "it is not empty (it holds `thing`)"),
            (at("file"), "it exists and is no directory"),
            (at("file/x"), "cannot export to"),
            (at("dangling"), "cannot export to"),
            (at("dangling/"), "it is a link that leads nowhere"),
            (at("missing/root"), "does not exist"),
            (at("store/new"), "inside the store directory"),
            (at("store/x-path/new"), "inside the store directory"),
            (at("store"), "inside the store directory"),
            (PathBuf::from("/"), "root directory of this system"),
            (PathBuf::from(""), "does not end in a name"),
            (at("new/.."), "cannot export to"),
        ] {
            let error = format!("{:#}", inspect(path.clone()).unwrap_err());
            assert!(error.contains(message), "{}: {error}", path.display());
        }
    }
}
