//! A fresh file system in an image file, mounted, with a store on it.
//! It must never leave a mount, a loop device or an image behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::statvfs::statvfs;

use crate::command::{Commands, command};
use crate::ways::FileSystem;

/// Left free on any file system, so that none becomes slow for being full.
const SLACK: u64 = 1 << 30;

/// What will be written in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Bytes of the store and all its copies.
    pub(crate) bytes: u64,
    /// Their entries, and those of the trees of links.
    pub(crate) entries: u64,
}

impl Load {
    /// Bytes on the disk: each entry may need an inode and a name, and no file system is without overhead.
    fn disk(self) -> u64 {
        self.bytes + self.bytes / 8 + self.entries * 600
    }

    fn image(self) -> u64 {
        (self.disk() + self.disk() / 4 + 2 * SLACK).next_multiple_of(1 << 20)
    }
}

/// A mounted file system whose `nix` is on `/nix`.
pub(crate) struct Stage {
    /// Mount points, in the order in which they were made.
    mounts: Vec<PathBuf>,
    /// How it was made and mounted.
    pub(crate) options: String,
}

/// Fails when `folder` has no room for a round, and says how much is missing.
pub(crate) fn check_room(folder: &Path, file_system: FileSystem, load: Load) -> anyhow::Result<()> {
    let room = statvfs(folder).with_context(|| format!("cannot ask how much `{}` has free", folder.display()))?;
    #[expect(clippy::useless_conversion, reason = "these types differ between C libraries")]
    let free = u64::from(room.blocks_available()) * u64::from(room.fragment_size());
    let needed = load.disk() + SLACK;
    if free < needed {
        bail!(
            "a round on {} needs {} MB of disk, and `{}` has {} MB free: make room, choose another disk with \
             `--output DIR`, fewer `--file-systems`, or `--quick`",
            file_system.label(),
            needed / 1_000_000,
            folder.display(),
            free / 1_000_000,
        );
    }
    Ok(())
}

impl Stage {
    /// Makes the file system in an image below `images`, mounts it below `mounts`, lets `fill` put a `nix` into
    /// the folder that it is given, and has that on `/nix`, with an empty `/nix/out`.
    pub(crate) fn make(
        commands: &Commands,
        file_system: FileSystem,
        load: Load,
        images: &Path,
        mounts: &Path,
        fill: impl Fn(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut stage = Self { mounts: Vec::new(), options: String::new() };
        let root = mounts.join("file-system");
        fs_err::create_dir_all(&root)?;
        let made = stage.mount_image(commands, file_system, load, images, &root)?;
        let store = match file_system {
            FileSystem::OverlayLower => {
                fs_err::create_dir(root.join("lower"))?;
                fill(&root.join("lower"))?;
                stage.overlay(commands, &root, &mounts.join("overlay"))?
            }
            FileSystem::OverlayUpper => {
                fs_err::create_dir(root.join("lower"))?;
                let overlay = stage.overlay(commands, &root, &mounts.join("overlay"))?;
                fill(&overlay)?;
                overlay
            }
            _ => {
                fill(&root)?;
                root
            }
        };
        let options = commands.run(command("findmnt", ["-n", "-o", "OPTIONS", "-M"]).arg(&store))?;
        // An overlay's options name folders that mean nothing to a reader.
        let known = |option: &&str| !["dir=", "uuid"].iter().any(|word| option.contains(word));
        let options: Vec<_> = options.trim().split(',').filter(known).collect();
        stage.options = format!("`{made}`, mounted with `{}`", options.join(","));
        stage.bind(commands, &store.join("nix"))?;
        fs_err::create_dir("/nix/out")?;
        Ok(stage)
    }

    fn mount_image(
        &mut self,
        commands: &Commands,
        file_system: FileSystem,
        load: Load,
        images: &Path,
        root: &Path,
    ) -> anyhow::Result<String> {
        let kind = file_system.mkfs();
        let image = tempfile::Builder::new().prefix("image-").tempfile_in(images)?;
        image.as_file().set_len(load.image())?;
        let program = format!("mkfs.{kind}");
        let mut arguments = vec![if kind == "ext4" { "-F" } else { "-f" }.to_owned(), "-q".to_owned()];
        if kind == "ext4" {
            // By default it has one inode per 16 KiB, too few for many small files.
            let inodes = (load.entries + load.entries / 5 + 1000).max(load.image() / 16384);
            arguments.extend(["-N".to_owned(), inodes.to_string()]);
        }
        commands.run(command(&program, &arguments).arg(image.path()))?;
        commands.run(command("mount", ["-o", "loop"]).arg(image.path()).arg(root))?;
        self.mounts.push(root.to_owned());
        // The loop device keeps the file as long as it is mounted; its name goes here.
        image.close()?;
        arguments.retain(|argument| argument != "-q");
        Ok(format!("{program} {}", arguments.join(" ")))
    }

    fn overlay(&mut self, commands: &Commands, root: &Path, mount_point: &Path) -> anyhow::Result<PathBuf> {
        for folder in [root.join("upper"), root.join("work"), mount_point.to_owned()] {
            fs_err::create_dir_all(folder)?;
        }
        // Relative, since a comma or colon in a path would end it.
        let layers = "lowerdir=lower,upperdir=upper,workdir=work";
        let mut mount = command("mount", ["-t", "overlay", "-o", layers, "overlay"]);
        commands.run(mount.arg(mount_point).current_dir(root))?;
        self.mounts.push(mount_point.to_owned());
        Ok(mount_point.to_owned())
    }

    fn bind(&mut self, commands: &Commands, folder: &Path) -> anyhow::Result<()> {
        commands.run(command("mount", ["--bind"]).arg(folder).arg("/nix"))?;
        self.mounts.push("/nix".into());
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            let unmount = |options: &[&str]| {
                let mut command = std::process::Command::new("umount");
                command.args(options).arg(mount).stderr(std::process::Stdio::null());
                command.status().is_ok_and(|status| status.success())
            };
            // What was killed may take a moment to end. At the latest all goes with the mount namespace.
            let _ = unmount(&[]) || unmount(&["--lazy"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_before_anything_is_written() {
        let load = Load { bytes: 1 << 60, entries: 5 };
        let error = check_room(Path::new("/"), FileSystem::Ext4, load).unwrap_err().to_string();
        assert!(error.contains("1297036693756 MB") && error.contains("--quick"), "{error}");
        assert!(load.image() > load.disk());
    }
}
