//! What makes a root complete, as one table: the least that programs expect of a system.
//! It must never take the place of a profile's own file.

use std::ffi::OsStr;
use std::path::Path;

use super::accounts::{self, Account, EMPTY, NO_SHELL};
use super::merge::{Merged, MergedTree};
use super::{Made, Owner, Plan};
use crate::store::StoreDirectory;

/// What is at a place.
enum What {
    /// A directory of root's with this mode.
    Directory(u32),
    /// A file, mode 0644.
    File(fn(&[Account], &Plan) -> String),
    /// A link to the first of these names that a profile has; without one there is none.
    Link(&'static [&'static str]),
    /// A link with this target. It is relative: releases of Docker 29 fail to mount below an absolute one.
    Symlink(&'static str),
}

use What::{Directory, File, Link, Symlink};

/// Where packages have the bundle of trusted certificates: nixpkgs' `cacert`, Debian's `ca-certificates`, Fedora's.
const CERTIFICATES: &[&str] = &[
    "etc/ssl/certs/ca-bundle.crt",
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
];
/// Where packages have the time zones.
const TIME_ZONES: &[&str] = &["share/zoneinfo"];

/// The whole table, but for the users' home directories, which [`Account`] knows. `docs/root-filesystem.md` has the reason for
/// each entry.
const TABLE: &[(&str, What)] = &[
    ("tmp", Directory(0o1777)),
    ("var/tmp", Directory(0o1777)),
    (EMPTY, Directory(0o555)),
    // Mount points, for a root that cannot be written.
    ("dev", Directory(0o755)),
    ("proc", Directory(0o555)),
    ("sys", Directory(0o555)),
    ("run", Directory(0o755)),
    ("etc/hostname", File(|_, _| String::new())),
    ("etc/hosts", File(|_, _| HOSTS.into())),
    ("etc/resolv.conf", File(|_, _| String::new())),
    ("etc/mtab", Symlink("../proc/mounts")),
    ("var/run", Symlink("../run")),
    ("opt", Directory(0o755)),
    ("usr/local/bin", Directory(0o755)),
    ("var/cache", Directory(0o755)),
    ("var/lib", Directory(0o755)),
    ("var/log", Directory(0o755)),
    ("etc/passwd", File(|accounts, plan| accounts::passwd(accounts, shell(plan)))),
    ("etc/group", File(|accounts, _| accounts::group(accounts))),
    ("etc/nsswitch.conf", File(|_, _| NSSWITCH.into())),
    ("etc/os-release", File(|_, _| os_release())),
    // Debian, and what is built on it; Go, curl, GnuTLS.
    ("etc/ssl/certs/ca-certificates.crt", Link(CERTIFICATES)),
    // nixpkgs, openSUSE.
    ("etc/ssl/certs/ca-bundle.crt", Link(CERTIFICATES)),
    // Fedora and Red Hat; Go.
    ("etc/pki/tls/certs/ca-bundle.crt", Link(CERTIFICATES)),
    // OpenSSL as its authors configure it for `/etc/ssl`, as on Alpine.
    ("etc/ssl/cert.pem", Link(CERTIFICATES)),
    // OpenSSL as Debian configures it, and with it Python.
    ("usr/lib/ssl/cert.pem", Link(CERTIFICATES)),
    // glibc, Go, Python and most others.
    ("usr/share/zoneinfo", Link(TIME_ZONES)),
    // nixpkgs' glibc.
    ("etc/zoneinfo", Link(TIME_ZONES)),
];

/// Engines mount one of their own over it. Without it, `localhost` is a question for a name server.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Without it older versions of glibc ask `dns` for hosts before `files`, so that `/etc/hosts` does not count.
const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
services: files
protocols: files
";

/// os-release(5): names what made the root, since it is no distribution.
fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "NAME=\"nixkit\"\nID=nixkit\nPRETTY_NAME=\"Nix profile exported by nixkit {version}\"\nVERSION_ID={version}\n"
    )
}

/// The profile's, where it has one.
fn shell(plan: &Plan) -> &'static str {
    if plan.made.contains_key(Path::new("bin/sh")) { "/bin/sh" } else { NO_SHELL }
}

/// Adds to `plan` what the table has and `plan` has not. A second call adds nothing but what was removed in between.
pub(super) fn complete(plan: &mut Plan, profile: &MergedTree, store: &StoreDirectory, user: Option<&Account>) {
    let mut accounts = Account::of_every_root().to_vec();
    accounts.extend(user.filter(|user| !accounts.contains(user)).cloned());
    for (place, what) in TABLE {
        let place = Path::new(place);
        let made = match what {
            Directory(mode) => {
                put_directory(plan, place, Made::Directory { mode: *mode, owner: Owner::ROOT });
                continue;
            }
            File(text) => Made::File { contents: text(&accounts, plan).into_bytes(), mode: 0o644 },
            Symlink(target) => Made::Symlink(target.into()),
            Link(names) => match names.iter().find_map(|name| find(profile, name, store)) {
                Some(target) => Made::Symlink(target.to_owned()),
                None => continue,
            },
        };
        plan.put_unless_taken(place, made);
    }
    for account in &accounts {
        if let Some((home, mode)) = account.home() {
            put_directory(plan, Path::new(home), Made::Directory { mode, owner: Owner::same(account.id) });
        }
    }
}

/// A directory that is there since something lies in it, such as the profile link, gets the table's mode too.
fn put_directory(plan: &mut Plan, place: &Path, made: Made) {
    match plan.made.get_mut(place) {
        Some(there @ Made::Directory { .. }) => *there = made,
        _ => {
            plan.put_unless_taken(place, made);
        }
    }
}

/// The place in a profile of `name`, which must lead into the store or be a directory.
fn find<'a>(profile: &'a MergedTree, name: &str, store: &StoreDirectory) -> Option<&'a Path> {
    let (first, rest) = name.split_once('/').map_or((name, None), |(first, rest)| (first, Some(rest)));
    match (profile.get(OsStr::new(first))?, rest) {
        (Merged::Directory { names, .. }, Some(rest)) => find(names, rest, store),
        (Merged::Directory { first, .. }, None) => Some(first),
        (Merged::Link { target, leads_to }, None) if leads_to.starts_with(store.as_path()) => Some(target),
        (Merged::Link { .. }, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{directory, file, leaf, lines, profile, store};
    use super::super::{Extent, NamedTree, Warning, plan};
    use super::*;

    fn complete_root(profiles: &[NamedTree], user: Option<&str>) -> (Plan, Vec<Warning>) {
        let user = user.map(|user| user.parse().unwrap());
        plan(profiles, Path::new("run/profile"), &store(), &Extent::Complete { user }).unwrap()
    }

    fn text<'a>(plan: &'a Plan, place: &str) -> &'a str {
        match &plan.made[Path::new(place)] {
            Made::File { contents, mode: 0o644 } => std::str::from_utf8(contents).unwrap(),
            other => panic!("{place}: {other:?}"),
        }
    }

    const WITHOUT_PROFILE: [&str; 32] = [
        "dev",
        "etc",
        "etc/group",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab -> ../proc/mounts",
        "etc/nsswitch.conf",
        "etc/os-release",
        "etc/passwd",
        "etc/resolv.conf",
        "home",
        "home/nonroot",
        "nix",
        "nix/profile -> /nix/store/a-env",
        "nix/store",
        "opt",
        "proc",
        "root",
        "run",
        "run/profile -> /nix/store/a-env",
        "sys",
        "tmp",
        "usr",
        "usr/local",
        "usr/local/bin",
        "var",
        "var/cache",
        "var/empty",
        "var/lib",
        "var/log",
        "var/run -> ../run",
        "var/tmp",
    ];

    #[test]
    fn a_profile_that_brings_nothing_gets_what_programs_expect() {
        let (plan, warnings) = complete_root(&[profile("a", [])], None);
        assert_eq!(lines(&plan), WITHOUT_PROFILE);
        assert_eq!(warnings, []);
        let directory = |place: &str| match plan.made[Path::new(place)] {
            Made::Directory { mode, owner } => (mode, owner.user),
            _ => panic!("{place}"),
        };
        for (place, mode, owner) in [
            ("tmp", 0o1777, 0),
            ("var/tmp", 0o1777, 0),
            ("var/empty", 0o555, 0),
            ("root", 0o700, 0),
            ("home", 0o755, 0),
            ("home/nonroot", 0o755, 65532),
            ("etc", 0o755, 0),
        ] {
            assert_eq!(directory(place), (mode, owner), "{place}");
        }
        assert_eq!(
            text(&plan, "etc/passwd"),
            "root:x:0:0:root:/root:/sbin/nologin\n\
             nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/var/empty:/sbin/nologin\n"
        );
        let group = text(&plan, "etc/group");
        assert!(group.starts_with("root:x:0:\nnonroot:x:65532:\nnobody:x:65534:\ntty:x:5:\ndaemon:x:1:\n"), "{group}");
        assert!(plan.made.values().all(|made| !matches!(made, Made::File { contents, .. } if contents.len() > 400)));
    }

    #[test]
    fn a_user_is_added_with_a_home_and_the_profiles_shell() {
        let profile = profile("a", [("bin", directory([("sh", file())]))]);
        let (plan, warnings) = complete_root(&[profile], Some("app:7"));
        assert_eq!(text(&plan, "etc/passwd").lines().last(), Some("app:x:7:7:app:/home/app:/bin/sh"));
        assert!(text(&plan, "etc/group").contains("app:x:7:\n"));
        assert_eq!(plan.made[Path::new("home/app")], Made::Directory { mode: 0o755, owner: Owner::same(7) });
        assert_eq!(warnings, []);
        let (again, _) = complete_root(&[super::super::tests::profile("a", [])], Some("nonroot"));
        assert_eq!(text(&again, "etc/passwd").matches("nonroot:x").count(), 1);
    }

    #[test]
    fn what_a_profile_has_wins() {
        let etc = [
            ("passwd", file()),
            (
                "ssl",
                directory([("certs", directory([("ca-bundle.crt", file())])), ("cert.pem", leaf("/etc/ssl/none"))]),
            ),
            ("zoneinfo", leaf("/var/zones")),
            ("os-release", directory([])),
            ("localtime", leaf("/usr/share/zoneinfo/UTC")),
            ("motd", leaf("/etc/nsswitch.conf")),
        ];
        let share = directory([("zoneinfo", directory([]))]);
        let profile = profile("a", [("etc", directory(etc)), ("share", share)]);
        let (plan, warnings) = complete_root(&[profile], Some("app"));
        let lines = lines(&plan);
        for line in [
            "etc/passwd -> /nix/store/a-env/etc/passwd",
            "etc/os-release",
            "etc/ssl/certs/ca-bundle.crt -> /nix/store/a-env/etc/ssl/certs/ca-bundle.crt",
            "etc/ssl/certs/ca-certificates.crt -> /nix/store/a-env/etc/ssl/certs/ca-bundle.crt",
            "etc/pki/tls/certs/ca-bundle.crt -> /nix/store/a-env/etc/ssl/certs/ca-bundle.crt",
            "usr/lib/ssl/cert.pem -> /nix/store/a-env/etc/ssl/certs/ca-bundle.crt",
            // The profile's own led nowhere.
            "etc/ssl/cert.pem -> /nix/store/a-env/etc/ssl/certs/ca-bundle.crt",
            "usr/share/zoneinfo -> /nix/store/a-env/share/zoneinfo",
            "etc/zoneinfo -> /nix/store/a-env/etc/zoneinfo",
            // These lead to what was added.
            "etc/localtime -> ../usr/share/zoneinfo/UTC",
            "etc/motd -> /nix/store/a-env/etc/motd",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
        }
        assert_eq!(plan.made[Path::new("etc/os-release")], Made::DIRECTORY);
        let cert = Path::new("/nix/store").join(format!("{}-env/etc/ssl/cert.pem", "a".repeat(32)));
        assert_eq!(warnings, [Warning::Broken(cert)]);
    }

    #[test]
    fn a_profile_path_in_the_way_wins_too() {
        let made = |path: &str| {
            let extent = Extent::Complete { user: None };
            plan(&[profile("a", [])], Path::new(path), &store(), &extent).unwrap().0.made
        };
        for (path, mode) in [("tmp/profile", 0o1777), ("root/profile", 0o700)] {
            let parent = Path::new(path).parent().unwrap();
            assert_eq!(made(path)[parent], Made::Directory { mode, owner: Owner::ROOT });
        }
        for path in ["tmp", "etc", "root/profile", "var/empty", "var/run", "run", "proc/profile"] {
            let extent = Extent::Complete { user: None };
            let (plan, warnings) = plan(&[profile("a", [])], Path::new(path), &store(), &extent).unwrap();
            assert!(matches!(plan.made[Path::new(path)], Made::Symlink(_)), "{path}");
            assert_eq!(warnings, []);
            for place in plan.made.keys() {
                let above = place.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
                assert!(above.into_iter().all(|path| matches!(plan.made[path], Made::Directory { .. })), "{place:?}");
            }
        }
    }

    #[test]
    fn the_first_profile_that_has_certificates_or_zones_is_linked_to() {
        let zones = || directory([("zoneinfo", directory([("UTC", file())]))]);
        let first = profile("a", [("share", directory([]))]);
        let second =
            profile("b", [("share", zones()), ("etc", directory([("ssl", directory([("cert.pem", file())]))]))]);
        let (plan, _) = complete_root(&[first, second], None);
        let lines = lines(&plan);
        for line in [
            "usr/share/zoneinfo -> /nix/store/b-env/share/zoneinfo",
            "etc/ssl/certs/ca-bundle.crt -> /nix/store/b-env/etc/ssl/cert.pem",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
        }
    }
}
