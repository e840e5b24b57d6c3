//! What the user adds to a root that is exported: `--rootfs`, `--mkdir`, and the user of `--user`.
//! It must never know where the root goes.

use std::path::PathBuf;

use clap::Args;
use nix::unistd::geteuid;

use super::profile::ProfileRequest;
use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::root::new_directory::NewDirectory;
use crate::root::{Extent, Plan};
use crate::sink::oci::Beside;
use crate::store::StoreDirectory;

/// Files and directories of the user's own.
#[derive(Debug, Args)]
pub(super) struct Additions {
    /// Copy the contents of DIR into the root, over what is there. Modes and extended attributes are kept, and everything
    /// belongs to root. With
    /// several, the one named last wins.
    #[arg(long = "rootfs", value_name = "DIR")]
    folders: Vec<PathBuf>,

    /// Make a directory in the root: SPEC is `PATH[:MODE[:USER[:GROUP]]]`, such as `/var/log/nginx:0750:app`. MODE is octal,
    /// 0755 unless given. USER and GROUP are numbers or names in the root's `/etc/passwd` and `/etc/group`, root unless given.
    #[arg(long = "mkdir", value_name = "SPEC")]
    directories: Vec<NewDirectory>,
}

impl Additions {
    /// What a root has apart from its store: what `plan` makes, and over it the folders and the user that were named.
    /// Also returns warnings.
    pub(super) fn over(
        &self,
        plan: &Plan,
        request: &ProfileRequest,
        interrupt: &Interrupt,
    ) -> anyhow::Result<(Beside, Vec<String>)> {
        let (mut beside, mut warnings) = (Beside::of(plan), Vec::new());
        for folder in &self.folders {
            warnings.extend(beside.overlay(folder, &request.store, interrupt)?);
        }
        if let Extent::Complete { user: Some(user) } = &request.extent {
            for place in beside.add_account(user)? {
                warnings.push(format!("user `{}` is not in `/{}`: it is not a regular file", user.name, shown(&place)));
            }
        }
        Ok((beside, warnings))
    }

    /// Adds the directories that were named. The root has all its users by now.
    pub(super) fn make_directories(&self, beside: &mut Beside, store: &StoreDirectory) -> anyhow::Result<()> {
        self.directories.iter().try_for_each(|directory| beside.add_directory(directory, store))
    }

    /// What cannot be as the user asked for in a root that is a directory of this machine: only root gives directories away.
    pub(super) fn kept_by_this_user(&self) -> Vec<String> {
        let given_away = self.directories.iter().filter(|new| new.user.is_some() || new.group.is_some());
        let warning = |new: &NewDirectory| {
            format!("`/{}` belongs to you: only root can give a directory to another user", shown(&new.path))
        };
        if geteuid().is_root() { Vec::new() } else { given_away.map(warning).collect() }
    }
}
