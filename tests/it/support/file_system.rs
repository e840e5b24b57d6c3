//! File systems under test, made anew from loop mounts, tmpfs and overlayfs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{Store, folder, folder_in, is_root, scratch, skip};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    /// The store is in the upper layer, as in the `RUN` that installs.
    OverlayUpper,
    /// The store is in a lower layer, as in a later `RUN`.
    OverlayLower,
    /// A lower layer whose directories can be renamed.
    OverlayRedirect,
}

impl Kind {
    pub(crate) fn is_overlay(self) -> bool {
        matches!(self, Self::OverlayUpper | Self::OverlayLower | Self::OverlayRedirect)
    }
}

/// Something mounted. It is unmounted when it goes out of scope.
pub(crate) struct FileSystem {
    pub(crate) point: PathBuf,
    _folder: TempDir,
    /// What its layers lie on; unmounted after it.
    below: Option<Box<FileSystem>>,
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.point).status();
    }
}

impl FileSystem {
    /// A new ext4, xfs, btrfs or tmpfs; `None` where this machine cannot mount one, after saying so.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        Self::make(kind).map_err(|why| skip(&why)).ok()
    }

    /// A tmpfs with these options.
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        Self::with(|point, _| mount(&["-t", "tmpfs", "-o", options, "tmpfs"], point)).map_err(|why| skip(&why)).ok()
    }

    /// An ext4 of so many MiB.
    pub(crate) fn ext4(mebibytes: u64) -> Option<Self> {
        Self::image(Kind::Ext4, mebibytes, "", scratch()).map_err(|why| skip(&why)).ok()
    }

    /// `directory` at another place.
    pub(crate) fn bind(directory: &Path) -> Option<Self> {
        let directory = directory.to_str().unwrap();
        Self::with(|point, _| mount(&["--bind", directory], point)).map_err(|why| skip(&why)).ok()
    }

    /// An NTFS of so many MiB as ntfs-3g mounts it: everything has the mode 0777.
    pub(crate) fn ntfs(mebibytes: u64) -> Option<Self> {
        let make = || {
            let image = tempfile::NamedTempFile::new_in(scratch()).map_err(|error| error.to_string())?;
            image.as_file().set_len(mebibytes << 20).map_err(|error| error.to_string())?;
            super::finish(Command::new("mkfs.ntfs").args(["--quick", "--force", "--quiet"]).arg(image.path()));
            let path = image.path().to_str().unwrap().to_owned();
            Self::with(|point, _| mount(&["-t", "ntfs-3g", &path], point))
        };
        make().map_err(|why| skip(&why)).ok()
    }

    /// `directory` at another place, through a file system of FUSE.
    pub(crate) fn bindfs(directory: &Path) -> Option<Self> {
        let directory = directory.to_str().unwrap();
        Self::with(|point, _| mount(&["-t", "fuse.bindfs", directory], point)).map_err(|why| skip(&why)).ok()
    }

    fn make(kind: Kind) -> Result<Self, String> {
        match kind {
            Kind::Ext4 | Kind::Btrfs => Self::image(kind, 256, "", scratch()),
            Kind::Xfs => Self::image(kind, 320, "", scratch()),
            Kind::Tmpfs => Self::with(|point, _| mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"], point)),
            _ => panic!("{kind:?} has layers"),
        }
    }

    /// An ext4, xfs or btrfs of so many MiB, mounted with these options. Its image lies in `images` and has no
    /// name any more once it is mounted: nothing of it stays, however the tests end.
    pub(crate) fn image(kind: Kind, mebibytes: u64, options: &str, images: &Path) -> Result<Self, String> {
        let make: &[&str] = match kind {
            Kind::Ext4 => &["mkfs.ext4", "-q", "-F"],
            Kind::Xfs => &["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
            Kind::Btrfs => &["mkfs.btrfs", "-q", "-f"],
            _ => panic!("{kind:?} needs no image"),
        };
        let image = tempfile::NamedTempFile::new_in(images).map_err(|error| error.to_string())?;
        image.as_file().set_len(mebibytes << 20).map_err(|error| error.to_string())?;
        let output = Command::new(make[0]).args(&make[1..]).arg(image.path()).output();
        let output = output.map_err(|error| format!("cannot run `{}`: {error}", make[0]))?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let options = ["loop", options].join(",");
        Self::with(|point, _| mount(&["-o", options.trim_end_matches(','), image.path().to_str().unwrap()], point))
    }

    fn with(mount: impl Fn(&Path, &Path) -> Result<(), String>) -> Result<Self, String> {
        if !is_root() {
            return Err("mounting needs root".into());
        }
        let folder = folder();
        let point = folder.path().join("mnt");
        fs_err::create_dir(&point).unwrap();
        mount(&point, folder.path())?;
        Ok(Self { point, _folder: folder, below: None })
    }

    /// A directory for one test.
    pub(crate) fn folder(&self) -> TempDir {
        folder_in(&self.point)
    }
}

fn mount(words: &[&str], point: &Path) -> Result<(), String> {
    let output =
        Command::new("mount").args(words).arg(point).output().map_err(|e| format!("cannot run `mount`: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cannot mount ({}): {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// A file system with the whole fixture in a store on it. Tests change nothing in the store.
pub(crate) struct Stocked {
    pub(crate) kind: Kind,
    pub(crate) file_system: FileSystem,
    pub(crate) store: Store,
    pub(crate) profile: PathBuf,
}

impl Stocked {
    /// One for a single test, which may change it.
    pub(crate) fn anew(kind: Kind) -> Option<Self> {
        Self::make(kind).map_err(|why| skip(&why)).ok()
    }

    fn make(kind: Kind) -> Result<Self, String> {
        if kind.is_overlay() { layers(kind) } else { stock(kind) }
    }

    /// One of the fixtures that `everything` refers to.
    pub(crate) fn path(&self, attribute: &str) -> PathBuf {
        let closure = self.store.closure(&self.profile);
        let ending = format!("-{attribute}");
        closure.into_iter().find(|path| path.to_str().unwrap().ends_with(&ending)).unwrap()
    }

    /// As the table of mounts has it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
            Kind::OverlayUpper | Kind::OverlayLower | Kind::OverlayRedirect => "overlay",
        }
    }
}

/// Made once for each kind; `None` where that is impossible here, after saying so.
pub(crate) fn stocked(kind: Kind) -> Option<&'static Stocked> {
    static STOCKED: [OnceLock<Result<Stocked, String>>; 7] = [const { OnceLock::new() }; 7];
    let made = STOCKED[kind as usize].get_or_init(|| Stocked::make(kind));
    made.as_ref().map_err(|why| skip(why)).ok()
}

fn stock(kind: Kind) -> Result<Stocked, String> {
    let file_system = FileSystem::make(kind)?;
    let store = Store::at(&file_system.point);
    let profile = store.build("everything");
    store.optimise();
    Ok(Stocked { kind, file_system, store, profile })
}

/// The layers lie on a tmpfs. The store is built at its place in an upper layer, which is then mounted
/// below another one where a lower layer is wanted.
fn layers(kind: Kind) -> Result<Stocked, String> {
    let base = FileSystem::make(Kind::Tmpfs)?;
    let layer = |name: &str| {
        let layer = base.point.join(name);
        fs_err::create_dir_all(&layer).unwrap();
        layer.to_str().unwrap().to_owned()
    };
    let options = |lower: &str, upper: &str, more: &str| {
        let (lower, work, upper) = (layer(lower), layer(&format!("{upper}.work")), layer(upper));
        format!("lowerdir={lower},upperdir={upper},workdir={work}{more}")
    };
    let first = options("none", "first", ",redirect_dir=off");
    let mut overlay = FileSystem::with(|point, _| mount(&["-t", "overlay", "-o", &first, "overlay"], point))?;
    let store = Store::at(&overlay.point);
    let profile = store.build("everything");
    store.optimise();
    let second = match kind {
        Kind::OverlayLower => Some(options("first", "second", ",redirect_dir=off")),
        Kind::OverlayRedirect => Some(options("first", "second", ",redirect_dir=on")),
        _ => None,
    };
    if let Some(second) = second {
        super::call("umount", [&overlay.point]);
        mount(&["-t", "overlay", "-o", &second, "overlay"], &overlay.point)?;
    }
    overlay.below = Some(Box::new(base));
    Ok(Stocked { kind, file_system: overlay, store, profile })
}
