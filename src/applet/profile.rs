//! What the applets that write a profile have in common: their options, the profiles found, the root planned.
//! It must never write, and it must know nothing of where the root goes.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use nix::unistd::geteuid;

use crate::failure::shown;
use crate::interrupt::Interrupt;
use crate::report::Voice;
use crate::root::accounts::Account;
use crate::root::{self, Extent, NamedTree, Plan};
use crate::sink::receipt::ExportedProfile;
use crate::store::naming::Naming;
use crate::store::query::{self, Environment, Profile, Wanted};
use crate::store::{StoreDirectory, StorePath};

/// Which profiles, and what of them.
#[derive(Debug, Args)]
pub(super) struct ProfileArguments {
    /// A profile of `nix-env` or `nix profile`, a `./result` link, or a store path. With several, the one
    /// named first wins where both have a file. [default: the first of `$NIX_PROFILE`, `~/.nix-profile`,
    /// `$XDG_STATE_HOME/nix/profile` and `/nix/var/nix/profiles/default` that exists]
    #[arg(long = "profile", value_name = "PATH")]
    profiles: Vec<PathBuf>,

    /// Where in the root the link to the profile goes. A link is at `/nix/profile` in any case, where no engine mounts
    /// anything.
    #[arg(long, value_name = "PATH", default_value = root::PROFILE_PATH, conflicts_with = "store_only")]
    profile_path: PathBuf,

    /// Write the store and nothing else, for a base image other than `scratch`.
    #[arg(long)]
    store_only: bool,

    /// Write only what the profile brings, as nix-docker-base did: no `/tmp`, no users, no links to certificates.
    #[arg(long, conflicts_with = "store_only")]
    bare: bool,
}

impl ProfileArguments {
    /// Whether the root has all that programs expect of a system.
    pub(super) fn is_complete(&self) -> bool {
        !self.bare && !self.store_only
    }

    /// Whether the root has nothing but the store.
    pub(super) fn is_store_only(&self) -> bool {
        self.store_only
    }
}

/// What the words on the command line and the environment mean.
#[derive(Debug)]
pub(super) struct ProfileRequest {
    /// As named; none means the default one.
    profiles: Vec<PathBuf>,
    /// Relative to the root; `None` for the store alone.
    pub(super) profile_path: Option<PathBuf>,
    pub(super) extent: Extent,
    pub(super) store: StoreDirectory,
    environment: Environment,
}

impl ProfileRequest {
    pub(super) fn new(
        arguments: ProfileArguments,
        user: Option<Account>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> anyhow::Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let store = set("NIX_STORE_DIR").or_else(|| set("NIX_STORE")).unwrap_or_else(|| "/nix/store".into());
        let store = StoreDirectory::new(Path::new(&store)).ok_or_else(|| {
            anyhow!("`{}` (NIX_STORE_DIR or NIX_STORE) is no store directory: it is not absolute", shown(&store))
        })?;
        let profile_path =
            if arguments.store_only { None } else { Some(root::profile_path(&arguments.profile_path, &store)?) };
        let environment = Environment {
            nix_profile: variable("NIX_PROFILE"),
            home: home(variable("HOME")),
            xdg_state_home: variable("XDG_STATE_HOME"),
        };
        let extent = if arguments.bare { Extent::Bare } else { Extent::Complete { user } };
        Ok(Self { profiles: arguments.profiles, profile_path, extent, store, environment })
    }

    /// Finds where the files of the store are, which may be elsewhere.
    pub(super) fn locate_store(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let home = self.environment.home.as_deref().map(Path::new);
        self.store = query::locate(self.store.clone(), |name| std::env::var_os(name), home, interrupt)?;
        Ok(())
    }

    /// The profiles that the user named, each once, or the default one.
    pub(super) fn find(&self, voice: Voice) -> anyhow::Result<Vec<Profile>> {
        let mut profiles: Vec<Profile> = Vec::new();
        if self.profiles.is_empty() {
            let candidates = query::default_candidates(&self.environment);
            profiles.push(query::find_default(&candidates, &self.store)?);
        }
        for name in &self.profiles {
            let profile = query::resolve(name, &self.store)?;
            if profiles.iter().all(|other| other.path != profile.path) {
                profiles.push(profile);
            }
        }
        for profile in &profiles {
            voice.decision(&format!("profile `{}` leads to `{}`", shown(&profile.name), profile.path));
        }
        Ok(profiles)
    }

    /// A warning if the default profile brings Nix itself. In images such as nixos/nix it is installed there, and all
    /// of it would be exported.
    pub(super) fn nix_inside(&self, profiles: &[Profile], closure: &[StorePath]) -> Option<String> {
        let default = profiles.first().filter(|_| self.profiles.is_empty())?;
        let nix = closure.iter().find(|path| is_nix(path))?;
        Some(format!(
            "the default profile `{}` contains Nix itself (`{}`); to export only what you built, name it, as in \
             `--profile ./result`",
            shown(&default.name),
            nix.name()
        ))
    }

    /// What the root has beside its store, with the texts of the warnings.
    pub(super) fn plan_root(&self, profiles: &[Profile], interrupt: &Interrupt) -> anyhow::Result<(Plan, Vec<String>)> {
        let Some(profile_path) = &self.profile_path else {
            return Ok((Plan::store_only(&self.store), Vec::new()));
        };
        let wanted = if profiles.len() == 1 { Wanted::ForRoot } else { Wanted::Everything };
        let read = |profile: &Profile| {
            let tree = query::read_tree(&self.store.join(&profile.path), wanted, &self.store, interrupt)
                .with_context(|| format!("cannot read profile `{}`", shown(&profile.name)))?;
            let texts = query::read_texts(&tree, root::runtime_files::names(), &self.store)
                .with_context(|| format!("cannot read profile `{}`", shown(&profile.name)))?;
            anyhow::Ok(NamedTree { path: profile.path.clone(), tree, texts })
        };
        let trees = profiles.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        let (plan, warnings) = root::plan(&trees, profile_path, &self.store, &self.extent)?;
        Ok((plan, warnings.iter().map(ToString::to_string).collect()))
    }

    /// Adds a user to the root.
    pub(super) fn add_user(&mut self, user: Account) {
        self.extent = Extent::Complete { user: Some(user) };
    }

    /// The profiles as a receipt names them.
    pub(super) fn exported(&self, profiles: &[Profile]) -> Vec<ExportedProfile> {
        let exported = |profile: &Profile| ExportedProfile {
            name: shown(&profile.name),
            store_path: shown(self.store.join(&profile.path)),
        };
        profiles.iter().map(exported).collect()
    }
}

/// Whether it is the main output of Nix, or of another implementation of it.
fn is_nix(path: &StorePath) -> bool {
    let Naming { package, version, output, .. } = Naming::of(path, None);
    ["nix", "nix-cli", "lix", "determinate-nix"].contains(&package)
        && output.is_none()
        && version.is_some_and(|version| !version.contains('-'))
}

/// The store paths of `profiles`.
pub(super) fn store_paths(profiles: &[Profile]) -> Vec<StorePath> {
    profiles.iter().map(|profile| profile.path.clone()).collect()
}

/// The home directory that Nix uses, but without the C library's modules for users.
fn home(variable: Option<OsString>) -> Option<OsString> {
    let owner = |path: &Path| fs_err::metadata(path).map(|data| data.uid());
    query::home_directory(variable, geteuid().as_raw(), owner, || fs_err::read_to_string("/etc/passwd").ok())
}

/// Seconds since 1970 in `SOURCE_DATE_EPOCH` (reproducible-builds.org), where that is set and not empty.
pub(super) fn source_date_epoch(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Option<i64>> {
    variable("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()).map(|value| seconds(&value)).transpose()
}

fn seconds(value: &OsStr) -> anyhow::Result<i64> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| anyhow!("SOURCE_DATE_EPOCH is `{}`, which is no number of seconds", shown(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: ProfileArguments,
    }

    #[test]
    fn the_time_is_a_number_of_seconds() {
        let epoch = |value: Option<&str>| source_date_epoch(|_| value.map(Into::into));
        for (value, expected) in
            [(None, None), (Some(""), None), (Some("0"), Some(0)), (Some("1700000000"), Some(1_700_000_000))]
        {
            assert_eq!(epoch(value).unwrap(), expected);
        }
        for bad in ["-1", "yesterday", "1.5", " 1", "99999999999999999999"] {
            let error = epoch(Some(bad)).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn nix_is_known_by_the_name_of_its_store_path() {
        let is_nix =
            |name: &str| is_nix(&StorePath::parse(&format!("0c5b8vw40dy178xlpddw65q9gf1h2186-{name}")).unwrap());
        for name in ["nix-2.8.0", "nix-2.32.0pre20251001_0f1", "nix-cli-2.31.2", "lix-2.93.3", "determinate-nix-3.11.2"]
        {
            assert!(is_nix(name), "{name}");
        }
        for name in
            ["nix", "nix-2.8.0-man", "nix-prefetch-git-1.0", "nixos-rebuild-25.11", "phoenix-1.7", "nix-ld-2.0.5"]
        {
            assert!(!is_nix(name), "{name}");
        }
    }

    #[test]
    fn the_store_directory_is_nixs_own() {
        let request = |variables: &[(&str, &str)]| {
            let arguments = Command::try_parse_from(["x"]).unwrap().arguments;
            ProfileRequest::new(arguments, None, |name| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
            })
        };
        for (variables, expected) in [
            (&[][..], "/nix/store"),
            (&[("NIX_STORE_DIR", "/a/store")], "/a/store"),
            (&[("NIX_STORE_DIR", ""), ("NIX_STORE", "/b")], "/b"),
        ] {
            assert_eq!(request(variables).unwrap().store.as_path(), Path::new(expected));
        }
        assert!(request(&[("NIX_STORE_DIR", "relative")]).is_err());
    }
}
