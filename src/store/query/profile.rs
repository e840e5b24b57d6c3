//! From what a user calls a profile to the store path that it leads to.
//! It must never guess: what does not lead into the store is an error that says where it leads.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;

use super::location::BELOW_ROOT;
use crate::failure::{hinted, shown};
use crate::store::{StoreDirectory, StorePath};

/// What the name of a derivation ends in.
const DERIVATION: &str = ".drv";
/// As many links as the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A profile, the name that the user gave it, and the store path to which it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As named on the command line or by the default search.
    pub name: PathBuf,
    /// The user environment, or whatever store path the name leads to.
    pub path: StorePath,
}

/// Where a user's profile may be.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$NIX_PROFILE`
    pub nix_profile: Option<OsString>,
    /// As [`home_directory`] finds it.
    pub home: Option<OsString>,
    /// `$XDG_STATE_HOME`
    pub xdg_state_home: Option<OsString>,
}

/// The home directory that Nix uses for `user`: `$HOME`, if it does not exist or is owned by that user, and else the
/// one in `passwd`. In a GitHub job, for example, `$HOME` belongs to a user of the machine outside of the container.
pub fn home_directory(
    variable: Option<OsString>,
    user: u32,
    owner: impl FnOnce(&Path) -> std::io::Result<u32>,
    passwd: impl FnOnce() -> Option<String>,
) -> Option<OsString> {
    let is_used = |home: &OsString| match owner(Path::new(home)) {
        Ok(owner) => owner == user,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    variable
        .filter(|home| !home.is_empty())
        .filter(is_used)
        .or_else(|| home_of(user, &passwd()?).filter(|home| !home.is_empty()).map(Into::into))
}

/// The home directory of the user with this number, according to the text of `/etc/passwd` (passwd(5)).
fn home_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.len() == 7 && fields[2] == uid.to_string()).then(|| fields[5].to_owned())
    })
}

/// Where the profile of the user is looked for, in this order. Unset and empty variables are passed over.
pub fn default_candidates(environment: &Environment) -> Vec<PathBuf> {
    let set = |variable: &Option<OsString>| variable.clone().filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set(&environment.home);
    let state = set(&environment.xdg_state_home).or_else(|| home.as_ref().map(|home| home.join(".local/state")));
    let mut candidates = Vec::new();
    candidates.extend(set(&environment.nix_profile));
    candidates.extend(home.map(|home| home.join(".nix-profile")));
    candidates.extend(state.map(|state| state.join("nix/profile")));
    candidates.push("/nix/var/nix/profiles/default".into());
    candidates
}

/// The first of `candidates` that exists. Links to nothing do not: `~/.nix-profile` is made before
/// there is anything to lead to.
pub fn find_default(candidates: &[PathBuf], store: &StoreDirectory) -> anyhow::Result<Profile> {
    for candidate in candidates {
        // What exists but cannot be looked at is for `resolve` to report.
        if !matches!(fs::metadata(candidate), Err(error) if is_absent(&error)) {
            return resolve(candidate, store);
        }
    }
    let looked_for: Vec<_> = candidates.iter().map(|path| format!("`{}`", shown(path))).collect();
    Err(hinted(
        anyhow!("no profile found; looked for {}", looked_for.join(", ")),
        "install something with `nix-env -i` or `nix profile install`, or name one with `--profile PATH`",
    ))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Follows `name` to the first store path on its way: a profile leads there by way of its generations,
/// `./result` at once, and a store path is there already.
pub fn resolve(name: &Path, store: &StoreDirectory) -> anyhow::Result<Profile> {
    let real_store = fs::canonicalize(store.real()).context("cannot find the store directory")?;
    if let Some(hint) = not_a_path(name) {
        return Err(hinted(anyhow!("{}: `--profile` takes a path", no_profile(name)), hint));
    }
    let mut path = name.to_owned();
    for _ in 0..MOST_LINKS {
        // In a chroot store, links name store paths as Nix does, and not by where their files are.
        if store.real() != store.as_path() {
            path = store.real_file(&path).unwrap_or(path);
        }
        // `x/.` and `x/..` name a directory by where it lies, not by a link that could be followed.
        let Some(last) = path.file_name().filter(|_| !path.as_os_str().is_empty()) else {
            path = fs::canonicalize(&path).map_err(|error| unreachable(name, &path, error))?;
            if path.parent().is_none() {
                break;
            }
            continue;
        };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real_parent = fs::canonicalize(parent).map_err(|error| unreachable(name, &path, error))?;
        let here = real_parent.join(last);
        let metadata = fs::symlink_metadata(&here).map_err(|error| unreachable(name, &here, error))?;
        if real_parent == real_store {
            let base_name = last.to_str().unwrap_or_default();
            let path = StorePath::parse(base_name).with_context(|| no_profile(name))?;
            if base_name.ends_with(DERIVATION) {
                let hint = format!("build it and name the result: nix-build {}, then --profile ./result", shown(name));
                return Err(hinted(anyhow!("{}: it is a derivation, not what that builds", no_profile(name)), hint));
            }
            return Ok(Profile { name: name.to_owned(), path });
        }
        if let Some(first) = here.strip_prefix(&real_store).ok().and_then(|inside| inside.iter().next()) {
            let whole = store.as_path().join(first);
            return Err(hinted(
                anyhow!("`{}` is no profile: it lies inside a store path", shown(name)),
                format!("name the store path itself: `{}`", shown(whole)),
            ));
        }
        if !metadata.is_symlink() {
            let hint = match chroot_of(&here) {
                Some(root) => format!("for a chroot store, set NIX_REMOTE={}", shown(root)),
                None => "name a profile, a `./result` link of `nix-build`, or a store path".to_owned(),
            };
            let leads_to = shown(&here);
            return Err(hinted(
                anyhow!("{}: it leads to `{leads_to}`, which is not in `{store}`", no_profile(name)),
                hint,
            ));
        }
        path = real_parent.join(fs::read_link(&here)?);
    }
    bail!("`{}` is no profile: it leads through more than {MOST_LINKS} links or to the root directory", shown(name))
}

/// What to do about a name that is for commands of Nix, and is not a path.
fn not_a_path(name: &Path) -> Option<String> {
    let text = name.to_str().filter(|_| fs::symlink_metadata(name).is_err())?;
    let is_output = text.split_once('^').is_some_and(|(path, _)| path.ends_with(DERIVATION));
    let is_flake = text.contains('#') || text.starts_with("flake:");
    (is_output || is_flake)
        .then(|| format!("build it and name the result: nix build '{}', then --profile ./result", shown(name)))
}

/// The root in which `path` would be a store path.
fn chroot_of(path: &Path) -> Option<&Path> {
    let (parent, name) = (path.parent()?, path.file_name()?.to_str()?);
    StorePath::parse(name).ok()?;
    let below = Path::new(BELOW_ROOT);
    parent.ends_with(below).then(|| parent.ancestors().nth(below.iter().count())).flatten()
}

fn unreachable(name: &Path, path: &Path, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound if path.file_name() == name.file_name() => {
            anyhow!("{}: it does not exist", no_profile(name))
        }
        ErrorKind::NotFound => anyhow!("{}: it leads to `{}`, which does not exist", no_profile(name), shown(path)),
        _ => anyhow::Error::new(error).context(no_profile(name)),
    }
}

fn no_profile(name: &Path) -> String {
    format!("`{}` is no profile", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ENVIRONMENT: &str = "0c5b8vw40dy178xlpddw65q9gf1h2186-user-environment";

    #[test]
    fn candidates_follow_the_variables() {
        let environment = |nix_profile: &str, home: &str, state: &str| Environment {
            nix_profile: (nix_profile != "-").then(|| nix_profile.into()),
            home: (home != "-").then(|| home.into()),
            xdg_state_home: (state != "-").then(|| state.into()),
        };
        let default = "/nix/var/nix/profiles/default";
        for (environment, expected) in [
            (environment("-", "-", "-"), vec![default]),
            (environment("", "", ""), vec![default]),
            (environment("/p", "/h", "-"), vec!["/p", "/h/.nix-profile", "/h/.local/state/nix/profile", default]),
            (environment("-", "/h", "/s"), vec!["/h/.nix-profile", "/s/nix/profile", default]),
            (environment("-", "-", "/s"), vec!["/s/nix/profile", default]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(default_candidates(&environment), expected);
        }
    }

    #[test]
    fn homes_are_read_from_the_table_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nrubbish\nme:x:1000:100::/home/me:\nme:x:1000\n";
        for (uid, home) in [(0, Some("/root")), (1000, Some("/home/me")), (1, None)] {
            assert_eq!(home_of(uid, passwd).as_deref(), home);
        }
    }

    #[test]
    fn the_home_is_the_variables_only_if_it_is_the_users_own() {
        use std::io::Error;
        let owned = |owner: u32| move || Ok(owner);
        let fails = |kind: ErrorKind| move || Err(Error::from(kind));
        let passwd = Some("root:x:0:0::/root:/bin/sh\nme:x:7:7:::/bin/sh\n");
        let home = |variable: Option<&str>, user, owner: &dyn Fn() -> std::io::Result<u32>, passwd: Option<&str>| {
            home_directory(variable.map(Into::into), user, |_| owner(), || passwd.map(str::to_owned))
        };
        for (variable, user, owner, passwd, expected) in [
            (Some("/gh"), 0, &owned(0) as &dyn Fn() -> _, passwd, Some("/gh")),
            (Some("/gh"), 0, &fails(ErrorKind::NotFound), passwd, Some("/gh")),
            (Some("/gh"), 0, &owned(1001), passwd, Some("/root")),
            (Some("/gh"), 1001, &owned(0), passwd, None),
            (Some("/gh"), 0, &fails(ErrorKind::PermissionDenied), passwd, Some("/root")),
            (Some("/gh"), 0, &fails(ErrorKind::NotADirectory), passwd, Some("/root")),
            (None, 0, &owned(0), passwd, Some("/root")),
            (Some(""), 0, &owned(0), passwd, Some("/root")),
            (None, 7, &owned(7), passwd, None),
            (None, 0, &owned(0), None, None),
        ] {
            assert_eq!(home(variable, user, owner, passwd), expected.map(Into::into), "{variable:?} {user}");
        }
    }

    #[test]
    fn links_are_followed_to_the_first_store_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("store").join(ENVIRONMENT).join("bin")).unwrap();
        fs::create_dir(at("home")).unwrap();
        symlink("profile-1-link", at("home/profile")).unwrap();
        symlink(at("store").join(ENVIRONMENT), at("home/profile-1-link")).unwrap();
        symlink("home", at("moved")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink(at("store").join(ENVIRONMENT).join("bin"), at("inside")).unwrap();
        let real = fs::canonicalize(at("store")).unwrap();
        let store = StoreDirectory::new(&real).unwrap();

        let environment = at("store").join(ENVIRONMENT);
        for good in [at("home/profile"), at("moved/profile/"), at("home/../moved/profile-1-link"), environment] {
            assert_eq!(resolve(&good, &store).unwrap().path.base_name(), ENVIRONMENT, "{good:?}");
        }
        for (bad, message) in [
            (at("home"), "which is not in"),
            (at("home/."), "which is not in"),
            (at("dangling"), "nowhere"),
            (at("loop"), "links"),
            (at("inside"), "inside a store path"),
            (at("store"), "which is not in"),
            (PathBuf::from("/"), "root directory"),
            (PathBuf::new(), "is no profile"),
        ] {
            let error = format!("{:#}", resolve(&bad, &store).unwrap_err());
            assert!(error.contains(message), "{bad:?}: {error}");
        }
        let missing = [at("no"), at("dangling")];
        let error = find_default(&missing, &store).unwrap_err().to_string();
        assert!(error.contains(&shown(&missing[0])) && error.contains(&shown(&missing[1])), "{error}");
        let found = find_default(&[at("dangling"), at("home/profile")], &store).unwrap();
        assert_eq!(found.name, at("home/profile"));
    }

    #[test]
    fn in_a_chroot_store_links_name_store_paths_as_nix_does() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("nix/store").join(ENVIRONMENT).join("bin")).unwrap();
        let usual = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let store = usual.clone().lying_in(at("nix/store"));
        symlink(Path::new("/nix/store").join(ENVIRONMENT), at("profile")).unwrap();
        for name in [at("profile"), at("nix/store").join(ENVIRONMENT), Path::new("/nix/store").join(ENVIRONMENT)] {
            assert_eq!(resolve(&name, &store).unwrap().path.base_name(), ENVIRONMENT, "{}", name.display());
        }
        let error = resolve(&Path::new("/nix/store").join(ENVIRONMENT).join("bin"), &store).unwrap_err();
        assert!(format!("{error:#}").contains("inside a store path"), "{error:#}");
        // Without the setting, the error says what it takes.
        let usual = usual.lying_in(at("elsewhere"));
        fs::create_dir(at("elsewhere")).unwrap();
        let error = resolve(&at("nix/store").join(ENVIRONMENT), &usual).unwrap_err();
        let hint = &error.downcast_ref::<crate::failure::Hinted>().unwrap().hint;
        assert_eq!(*hint, format!("for a chroot store, set NIX_REMOTE={}", folder.path().display()));
    }

    #[test]
    fn what_must_be_built_first_is_refused_with_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreDirectory::new(folder.path()).unwrap();
        let derivation = folder.path().join("0c5b8vw40dy178xlpddw65q9gf1h2186-hello-2.10.drv");
        fs::write(&derivation, "").unwrap();
        let output = format!("{}^out", derivation.display());
        for (name, message, command) in [
            (derivation.to_str().unwrap(), "it is a derivation", "nix-build "),
            (output.as_str(), "takes a path", "nix build '"),
            ("nixpkgs#hello", "takes a path", "nix build 'nixpkgs#hello'"),
            ("flake:nixpkgs", "takes a path", "nix build 'flake:nixpkgs'"),
        ] {
            let error = resolve(Path::new(name), &store).unwrap_err();
            assert!(format!("{error:#}").contains(message), "{error:#}");
            let hint = &error.downcast_ref::<crate::failure::Hinted>().unwrap().hint;
            assert!(hint.contains(command) && hint.ends_with("then --profile ./result"), "{hint}");
        }
    }
}
