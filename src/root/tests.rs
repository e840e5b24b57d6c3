//! What a root has of its profiles, on trees that stand here.

use super::*;
use crate::store::tree::Node;

pub(super) fn leaf(leads_to: &str) -> Node {
    Node::Leaf { leads_to: leads_to.into() }
}

/// A file in the store that is only in one profile.
pub(super) fn file() -> Node {
    leaf("/nix/store/cccccccccccccccccccccccccccccccc-package/file")
}

pub(super) fn store() -> StoreDirectory {
    StoreDirectory::new(Path::new("/nix/store")).unwrap()
}

pub(super) fn directory<const N: usize>(nodes: [(&str, Node); N]) -> Node {
    Node::Directory(nodes.into_iter().map(|(name, node)| (name.into(), node)).collect())
}

pub(super) fn profile<const N: usize>(letter: &str, nodes: [(&str, Node); N]) -> NamedTree {
    let path = StorePath::parse(&format!("{}-env", letter.repeat(32))).unwrap();
    let Node::Directory(tree) = directory(nodes) else { unreachable!() };
    NamedTree { path, tree, texts: BTreeMap::new() }
}

fn at(letter: &str, rest: &str) -> PathBuf {
    Path::new("/nix/store").join(format!("{}-env", letter.repeat(32))).join(rest)
}

/// The plan as lines `path` or `path -> target`, with the hash parts cut short.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let line = |(path, made): (&PathBuf, &Made)| match made {
        Made::Directory { .. } | Made::File { .. } => path.display().to_string(),
        Made::Symlink(target) => format!("{} -> {}", path.display(), target.display()),
    };
    let short = |line: String| line.replace(&"a".repeat(31), "").replace(&"b".repeat(31), "");
    plan.made.iter().map(line).map(short).collect()
}

#[test]
fn one_profile_is_linked_with_etc_and_shells_beside_it() {
    let profile = profile(
        "a",
        [
            ("bin", directory([("sh", file()), ("env", file())])),
            (
                "etc",
                directory([
                    ("ssl", directory([("ca.crt", file())])),
                    ("bashrc", file()),
                    ("gone", Node::Broken),
                    ("up", Node::Cycle),
                    ("mtab", leaf("/proc/mounts")),
                    ("resolv.conf", leaf("/etc/resolv.conf")),
                    ("ssl2", leaf("/etc/ssl2/x")),
                    ("host", leaf("/etc/hosts")),
                    ("ring", leaf("/etc/ring2")),
                    ("ring2", leaf("/etc/ring")),
                    ("nothing", leaf("/usr/share/none")),
                    ("late", leaf("/etc/nothing")),
                    ("shell", leaf("/bin/sh")),
                    ("tree", leaf("/etc/ssl")),
                    ("all", leaf("/")),
                ]),
            ),
        ],
    );
    let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "bin",
            "bin/sh -> /nix/store/a-env/bin/sh",
            "etc",
            "etc/all -> /nix/store/a-env/etc/all",
            "etc/bashrc -> /nix/store/a-env/etc/bashrc",
            "etc/host -> /nix/store/a-env/etc/host",
            "etc/mtab -> ../proc/mounts",
            "etc/shell -> /nix/store/a-env/etc/shell",
            "etc/ssl",
            "etc/ssl/ca.crt -> /nix/store/a-env/etc/ssl/ca.crt",
            "etc/tree -> /nix/store/a-env/etc/tree",
            "nix",
            "nix/profile -> /nix/store/a-env",
            "nix/store",
            "run",
            "run/profile -> /nix/store/a-env",
            "usr",
            "usr/bin",
            "usr/bin/env -> /nix/store/a-env/bin/env",
        ]
    );
    assert_eq!(
        warnings,
        [
            Warning::Broken(at("a", "etc/gone")),
            Warning::Cycle(at("a", "etc/up")),
            Warning::Broken(at("a", "etc/late")),
            Warning::Broken(at("a", "etc/nothing")),
            Warning::Cycle(at("a", "etc/resolv.conf")),
            Warning::Cycle(at("a", "etc/ring")),
            Warning::Cycle(at("a", "etc/ring2")),
            Warning::Cycle(at("a", "etc/ssl2")),
        ]
    );
}

#[test]
fn several_profiles_are_merged_and_the_first_wins() {
    let first = profile(
        "a",
        [
            ("bin", directory([("sh", file()), ("tool", file()), ("same", file())])),
            ("share", directory([("x", directory([]))])),
            ("manifest.nix", file()),
        ],
    );
    let second = profile(
        "b",
        [
            (
                "bin",
                directory([
                    ("sh", leaf("/nix/store/dddddddddddddddddddddddddddddddd-other/file")),
                    ("same", file()),
                    ("tool", directory([])),
                    ("env", file()),
                ]),
            ),
            ("share", directory([("x", file()), ("y", file())])),
            ("manifest.json", file()),
            ("manifest.nix", file()),
        ],
    );
    let (plan, warnings) = plan(&[first, second], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "bin",
            "bin/sh -> /nix/store/a-env/bin/sh",
            "nix",
            "nix/profile",
            "nix/profile/bin",
            "nix/profile/bin/env -> /nix/store/b-env/bin/env",
            "nix/profile/bin/same -> /nix/store/a-env/bin/same",
            "nix/profile/bin/sh -> /nix/store/a-env/bin/sh",
            "nix/profile/bin/tool -> /nix/store/a-env/bin/tool",
            "nix/profile/share",
            "nix/profile/share/x",
            "nix/profile/share/y -> /nix/store/b-env/share/y",
            "nix/store",
            "run",
            "run/profile -> ../nix/profile",
            "usr",
            "usr/bin",
            "usr/bin/env -> /nix/store/b-env/bin/env",
        ]
    );
    let conflict = |path: &str| Warning::Conflict { kept: at("a", path), left_out: at("b", path) };
    assert_eq!(warnings, [conflict("bin/sh"), conflict("bin/tool"), conflict("share/x")]);
}

#[test]
fn shells_that_lead_to_themselves_and_an_etc_that_is_elsewhere_are_left_out() {
    let bin = directory([("sh", leaf("/bin/sh")), ("env", leaf("/bin/sh"))]);
    let profile = profile("a", [("bin", bin), ("etc", leaf("/etc"))]);
    let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
    assert!(plan.made.values().all(|made| *made == Made::DIRECTORY || *made == Made::Symlink(at("a", ""))));
    assert_eq!(
        warnings,
        [Warning::NoDirectory(at("a", "etc")), Warning::Cycle(at("a", "bin/sh")), Warning::Cycle(at("a", "bin/env")),]
    );
}

#[test]
fn the_profile_is_at_nix_profile_too_unless_that_is_in_the_way() {
    let profiles = || [profile("a", [("x", directory([]))]), profile("b", [])];
    for (profile_path, store, one, several) in [
        (
            "run/profile",
            "/nix/store",
            &["nix/profile -> S", "run/profile -> S"][..],
            &["nix/profile", "nix/profile/x", "run/profile -> ../nix/profile"][..],
        ),
        (
            "app",
            "/nix/store",
            &["app -> S", "nix/profile -> S"],
            &["app -> nix/profile", "nix/profile", "nix/profile/x"],
        ),
        ("nix/profile", "/nix/store", &["nix/profile -> S"], &["nix/profile", "nix/profile/x"]),
        (
            "nix/profile/y",
            "/nix/store",
            &["nix/profile", "nix/profile/y -> S"],
            &["nix/profile", "nix/profile/y", "nix/profile/y/x"],
        ),
        ("nix", "/a/store", &["nix -> S"], &["nix", "nix/x"]),
        ("app", "/a/store", &["app -> S", "nix/profile -> S"], &["app -> nix/profile", "nix/profile", "nix/profile/x"]),
        ("app", "/nix/profile/store", &["app -> S", "nix/profile"], &["app", "app/x", "nix/profile"]),
    ] {
        let store = StoreDirectory::new(Path::new(store)).unwrap();
        for (profiles, expected) in [(&profiles()[..1], one), (&profiles()[..], several)] {
            let (plan, warnings) = plan(profiles, Path::new(profile_path), &store, &Extent::Bare).unwrap();
            let lines = lines(&plan).into_iter().map(|line| line.replace(&format!("{store}/a-env"), "S"));
            let hidden = |line: &String| {
                line != "nix" && store.relative() != Path::new(line) && line != "a" || line == expected[0]
            };
            let found: Vec<_> = lines.filter(hidden).filter(|line| line != "run").collect();
            assert_eq!(found, expected, "{profile_path}, {store}");
            assert_eq!(warnings, []);
        }
    }
}

#[test]
fn files_that_runtimes_read_are_copies() {
    let store_file = |name: &str| format!("/nix/store/cccccccccccccccccccccccccccccccc-package/{name}");
    let mut profile = profile(
        "a",
        [(
            "etc",
            directory([
                ("passwd", leaf(&store_file("passwd"))),
                ("group", leaf("/run/group")),
                ("shadow", leaf(&store_file("shadow"))),
                ("services", leaf(&store_file("services"))),
                ("localtime", leaf("/usr/share/zoneinfo/UTC")),
                ("resolv.conf", leaf("/run/systemd/resolve/stub-resolv.conf")),
                ("hosts", leaf("/etc/static/hosts")),
                ("static", directory([("hosts", leaf("/proc/hosts")), ("passwd", leaf(&store_file("passwd")))])),
                ("os-release", directory([])),
            ]),
        )],
    );
    for name in ["passwd", "shadow", "services"] {
        profile.texts.insert(store_file(name).into(), name.into());
    }
    let (plan, warnings) = plan(&[profile], Path::new("run/profile"), &store(), &Extent::Bare).unwrap();
    let file = |text: &str, mode| Made::File { contents: text.into(), mode };
    for (place, made) in [
        ("etc/passwd", file("passwd", 0o644)),
        ("etc/shadow", file("shadow", 0o600)),
        ("etc/group", Made::Symlink("../run/group".into())),
        ("etc/resolv.conf", Made::Symlink("../run/systemd/resolve/stub-resolv.conf".into())),
        ("etc/hosts", Made::Symlink("../etc/static/hosts".into())),
        // Not one of them.
        ("etc/services", Made::Symlink(at("a", "etc/services"))),
        ("etc/static/passwd", Made::Symlink(at("a", "etc/static/passwd"))),
        ("etc/os-release", Made::DIRECTORY),
    ] {
        assert_eq!(plan.made[Path::new(place)], made, "{place}");
    }
    assert_eq!(warnings, [Warning::Broken(at("a", "etc/localtime"))]);
}

#[test]
fn the_profile_path_is_checked() {
    for (path, expected) in [
        ("/run/profile", Ok("run/profile")),
        ("/app/", Ok("app")),
        ("/", Err("must be absolute")),
        ("", Err("must be absolute")),
        ("run/profile", Err("must be absolute")),
        ("/a/../b", Err("must be absolute")),
        ("/nix", Err("`/nix/store` is there")),
        ("/nix/store/x", Err("`/nix/store` is there")),
        ("/nix/profile", Ok("nix/profile")),
    ] {
        match (profile_path(Path::new(path), &store()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, Path::new(expected)),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{path}: {found:?}"),
        }
    }
}

#[test]
fn a_profile_path_in_the_way_is_refused() {
    let profile = profile("a", [("bin", directory([("sh", file())])), ("etc", directory([("x", file())]))]);
    for path in ["etc", "etc/x", "bin", "bin/sh", "bin/sh/y"] {
        let result = plan(std::slice::from_ref(&profile), Path::new(path), &store(), &Extent::Bare);
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with("`--profile-path` puts the profile where"), "{path}: {message}");
    }
    assert!(plan(std::slice::from_ref(&profile), Path::new("etc/profile"), &store(), &Extent::Bare).is_ok());
}
