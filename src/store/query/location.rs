//! Where the store lies on this machine.
//!
//! With a chroot store, as with `NIX_REMOTE=/mnt`, `local?root=/mnt` or `store = /mnt` in `nix.conf`, the files of
//! `/nix/store/…` lie in `/mnt/nix/store/…`. Nix alone knows what its settings come to, but asking it takes 30 ms: it is
//! asked only if a variable or a file of settings may say such a thing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use nix::unistd::geteuid;

use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;
use crate::program;
use crate::store::StoreDirectory;

/// The commands that print Nix's settings: of Nix 2.20 and later, and of earlier versions.
const SETTINGS: [&[&str]; 2] = [&["config", "show"], &["show-config"]];
/// Where a store's files are below its root, whatever the store directory is (`LocalFSStoreConfig` in libstore).
pub(super) const BELOW_ROOT: &str = "nix/store";
/// Stores whose files lie in the store directory itself.
const PLAIN: [&str; 4] = ["", "auto", "daemon", "local"];

/// Finds where `store` lies. `variable` reads the environment, and `home` is the user's home directory.
pub fn locate(
    store: StoreDirectory,
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<&Path>,
    interrupt: &Interrupt,
) -> anyhow::Result<StoreDirectory> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let remote = variable("NIX_REMOTE").unwrap_or_default();
    let is_plain = PLAIN.iter().any(|plain| remote == *plain);
    let names_store =
        |file: &PathBuf| std::fs::read(file).is_ok_and(|text| may_name_store(&String::from_utf8_lossy(&text)));
    let config = variable("NIX_CONFIG").unwrap_or_default();
    let may_be_elsewhere = !is_plain
        || may_name_store(&config.to_string_lossy())
        || settings_files(set, home).iter().any(names_store)
        || !store.as_path().exists();
    if !may_be_elsewhere {
        return Ok(store);
    }
    // Without `nix`, which a machine with `nix-store` may lack, what the variable says is all that can be known.
    let url = setting(interrupt)?.unwrap_or_else(|| remote.to_string_lossy().into_owned());
    let Location { directory, real, root } = parse(&url).ok_or_else(|| {
        hinted(
            anyhow!("the store `{}` is not on this machine", shown(&url)),
            "copy the closure to a local store first: nix copy --from URL PATH",
        )
    })?;
    let store = match directory {
        Some(directory) => StoreDirectory::new(&directory)
            .ok_or_else(|| anyhow!("the store directory in `{}` is not absolute", shown(&url)))?,
        None => store,
    };
    let default_root = || {
        let is_free = ["NIX_STORE_DIR", "NIX_STATE_DIR"].iter().all(|name| variable(name).is_none());
        let is_default = is_plain && url.trim() == "auto" && is_free && !geteuid().is_root();
        let data = set("XDG_DATA_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".local/share")))?;
        let root = data.join("nix/root");
        // Nix's own rule for a user on a machine without Nix (`openStore` in libstore).
        (is_default && !Path::new("/nix/var/nix").exists() && root.exists()).then_some(root)
    };
    let real = real.or_else(|| Some(root.or_else(default_root)?.join(BELOW_ROOT)));
    let Some(real) = real else { return Ok(store) };
    let real = std::path::absolute(&real).with_context(|| format!("cannot find the store `{}`", shown(&url)))?;
    Ok(store.lying_in(real))
}

/// The files in which Nix looks for its settings.
fn settings_files(set: impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Vec<PathBuf> {
    let split = |list: OsString| -> Vec<PathBuf> {
        let parts = list.as_bytes().split(|&byte| byte == b':').filter(|part| !part.is_empty());
        parts.map(|part| PathBuf::from(OsStr::from_bytes(part))).collect()
    };
    let system = set("NIX_CONF_DIR").map_or_else(|| PathBuf::from("/etc/nix"), PathBuf::from);
    let mut files = vec![system.join("nix.conf")];
    if let Some(list) = set("NIX_USER_CONF_FILES") {
        files.extend(split(list));
        return files;
    }
    let own = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".config")));
    let others = set("XDG_CONFIG_DIRS").map_or_else(|| vec!["/etc/xdg".into()], split);
    files.extend(own.into_iter().chain(others).map(|folder| folder.join("nix/nix.conf")));
    files
}

/// Whether settings may say where the store is: they name it, or they include another file.
fn may_name_store(settings: &str) -> bool {
    let first_words = settings.lines().filter_map(|line| line.split(['=', ' ', '\t']).find(|word| !word.is_empty()));
    first_words.into_iter().any(|word| ["store", "include", "!include"].contains(&word))
}

/// Nix's setting `store`; `None` where there is no program `nix` that could tell.
fn setting(interrupt: &Interrupt) -> anyhow::Result<Option<String>> {
    let Ok(nix) = which::which("nix") else { return Ok(None) };
    let ask = |words: &[&str]| {
        let mut command = Command::new(&nix);
        command.args(["--extra-experimental-features", "nix-command"]).args(words).stdin(Stdio::null());
        program::output(&mut command, &format!("nix {}", words.join(" ")), interrupt)
    };
    let answer = ask(SETTINGS[0]).or_else(|_| {
        interrupt.check()?;
        ask(SETTINGS[1])
    })?;
    Ok(answer.lines().find_map(|line| line.strip_prefix("store = ")).map(str::to_owned))
}

/// What a store URL says of its place.
#[derive(Debug, Default, PartialEq, Eq)]
struct Location {
    /// The store directory by which store paths are known, if it is not the usual one.
    directory: Option<PathBuf>,
    /// Where its files lie.
    real: Option<PathBuf>,
    /// The root in which they lie, unless `real` says more.
    root: Option<PathBuf>,
}

/// Reads a store URL (Nix manual, "Store Types"). `None` for a store whose files are not on this machine.
fn parse(url: &str) -> Option<Location> {
    let (base, query) = url.trim().split_once('?').unwrap_or((url.trim(), ""));
    let root = match base.split_once("://") {
        Some(("local" | "local-overlay", path)) => Some(decoded(path)).filter(|path| !path.as_os_str().is_empty()),
        Some(("unix", _)) => None,
        Some(_) => return None,
        None if PLAIN.contains(&base) || base == "local-overlay" => None,
        // A plain path, in which a `%` is a `%`.
        None if base.contains('/') => Some(PathBuf::from(base)),
        None => return None,
    };
    let mut location = Location { root, ..Location::default() };
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        match name {
            "root" if !value.is_empty() => location.root = Some(decoded(value)),
            "real" if !value.is_empty() => location.real = Some(decoded(value)),
            "store" if !value.is_empty() => location.directory = Some(decoded(value)),
            _ => {}
        }
    }
    // The usual root.
    location.root = location.root.filter(|root| root != Path::new("/"));
    Some(location)
}

/// Percent-encoded bytes as they are.
fn decoded(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%').then(|| tail.get(..2)).flatten();
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn store_urls_say_where_the_files_are() {
        let at = |root: &str, real: &str, directory: &str| {
            let set = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
            Some(Location { directory: set(directory), real: set(real), root: set(root) })
        };
        for (url, expected) in [
            ("", at("", "", "")),
            ("auto", at("", "", "")),
            ("daemon", at("", "", "")),
            ("local", at("", "", "")),
            ("local?root=/x", at("/x", "", "")),
            ("local?root=/a%20b&state=/s", at("/a b", "", "")),
            ("local?root=/", at("", "", "")),
            ("local?real=/r/store&root=/x", at("/x", "/r/store", "")),
            ("local?store=/gnu/store&root=/x", at("/x", "", "/gnu/store")),
            ("local:///x", at("/x", "", "")),
            ("local://?root=/x", at("/x", "", "")),
            ("local-overlay://?root=/x&lower-store=/y", at("/x", "", "")),
            ("daemon?root=/x", at("/x", "", "")),
            ("unix:///run/socket", at("", "", "")),
            ("unix://?root=/x", at("/x", "", "")),
            ("local:///a%20b", at("/a b", "", "")),
            ("/x", at("/x", "", "")),
            ("/a%20b c", at("/a%20b c", "", "")),
            ("./x", at("./x", "", "")),
            ("/x?state=/s", at("/x", "", "")),
            ("ssh://me@there", None),
            ("ssh-ng://there?root=/x", None),
            ("https://cache.nixos.org", None),
            ("dummy://", None),
            ("rubbish", None),
        ] {
            assert_eq!(parse(url), expected, "{url}");
        }
    }

    #[test]
    fn only_settings_that_may_name_a_store_are_worth_a_question() {
        for (settings, expected) in [
            ("", false),
            ("sandbox = false\nstore-is-slow = 1\n# store = /x\n", false),
            ("sandbox = false\n  store = /x\n", true),
            ("store=/x", true),
            ("!include more.conf", true),
            ("include\tmore.conf", true),
            ("extra-substituters = https://store/\n", false),
        ] {
            assert_eq!(may_name_store(settings), expected, "{settings}");
        }
    }

    #[test]
    fn settings_are_looked_for_where_nix_does() {
        let files = |variables: &[(&str, &str)], home: Option<&str>| {
            let set = |name: &str| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
            };
            let files = settings_files(set, home.map(Path::new));
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        for (variables, home, expected) in [
            (&[][..], None, "/etc/nix/nix.conf /etc/xdg/nix/nix.conf"),
            (&[], Some("/h"), "/etc/nix/nix.conf /h/.config/nix/nix.conf /etc/xdg/nix/nix.conf"),
            (
                &[("NIX_CONF_DIR", "/c"), ("XDG_CONFIG_HOME", "/x"), ("XDG_CONFIG_DIRS", "/a::/b")],
                Some("/h"),
                "/c/nix.conf /x/nix/nix.conf /a/nix/nix.conf /b/nix/nix.conf",
            ),
            (&[("NIX_USER_CONF_FILES", "/a:/b")], Some("/h"), "/etc/nix/nix.conf /a /b"),
        ] {
            assert_eq!(files(variables, home), expected);
        }
    }

    #[test]
    fn a_store_without_settings_is_where_its_paths_say() {
        let folder = tempfile::tempdir().unwrap();
        let store = || StoreDirectory::new(folder.path()).unwrap();
        let locate = |remote: &str| {
            let variable = |name: &str| match name {
                "NIX_REMOTE" => Some(OsString::from(remote)),
                "NIX_CONF_DIR" | "XDG_CONFIG_HOME" | "XDG_CONFIG_DIRS" => Some("/nonexistent".into()),
                _ => None,
            };
            super::locate(store(), variable, None, &Interrupt::default())
        };
        for plain in PLAIN {
            assert_eq!(locate(plain).unwrap(), store());
        }
    }

    proptest! {
        #[test]
        fn any_url_is_read_without_panic(url in "\\PC{0,40}") {
            let _ = parse(&url);
            let _ = decoded(&url);
        }
    }
}
