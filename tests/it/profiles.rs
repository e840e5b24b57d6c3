//! Which profile is exported, and what the root has of it beside the store.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Export, Receipt, Store, Tree, finish, fixture, folder, installed, judge, root_for};

/// Exports one profile by the name it has on the command line, and judges the root.
fn export(store: &Store, name: &Path, leads_to: &Path) -> (Receipt, Vec<String>) {
    let folder = folder();
    let root = folder.path().join("root");
    let receipt = Export::new(store).profile(name).arg("--bare").root(&root).exports();
    assert_eq!(named(&receipt), [(name.to_str().unwrap(), leads_to)]);
    judge(store, &[leads_to], &receipt);
    (receipt, Tree::read(&root).beside(&store.directory))
}

fn named(receipt: &Receipt) -> Vec<(&str, &Path)> {
    receipt.profiles.iter().map(|profile| (profile.name.as_str(), profile.store_path.as_path())).collect()
}

/// The lines of a root that has nothing but the link to its profile.
fn only_linked(profile: &Path) -> Vec<String> {
    let link = |place: &str| format!("{place} -> {}", profile.display());
    vec!["nix/".into(), link("nix/profile"), "run/".into(), link("run/profile")]
}

#[test]
fn a_profile_of_nix_env_is_exported_at_its_current_generation() {
    let store = Store::new();
    let folder = folder();
    let profile = folder.path().join("profile");
    for attribute in ["plain", "second"] {
        let mut install = store.command("nix-env");
        finish(install.arg("--file").arg(fixture()).arg("--profile").arg(&profile).args(["-iA", attribute]));
    }
    let generations =
        ["profile-1-link", "profile-2-link"].map(|link| fs_err::read_link(folder.path().join(link)).unwrap());
    assert_eq!(fs_err::read_link(&profile).unwrap(), Path::new("profile-2-link"));
    let second = &generations[1];
    let (receipt, lines) = export(&store, &profile, second);
    assert_eq!(receipt.store_paths, 5, "the environment, its manifest, and `plain`, `second` and `program`");
    let link = |place: &str| format!("{place} -> {}/{place}", second.display());
    assert_eq!(
        lines,
        [
            "etc/".to_owned(),
            link("etc/conf"),
            "etc/conf.d/".to_owned(),
            link("etc/conf.d/x"),
            "nix/".to_owned(),
            format!("nix/profile -> {}", second.display()),
            "run/".to_owned(),
            format!("run/profile -> {}", second.display()),
            "usr/".to_owned(),
            "usr/bin/".to_owned(),
            format!("usr/bin/env -> {}/bin/env", second.display()),
        ]
    );

    let (receipt, lines) = export(&store, &folder.path().join("profile-1-link"), &generations[0]);
    assert_eq!((receipt.store_paths, lines), (3, only_linked(&generations[0])));
    finish(store.command("nix-env").arg("--profile").arg(&profile).arg("--rollback"));
    let (_, lines) = export(&store, &profile, &generations[0]);
    assert_eq!(lines, only_linked(&generations[0]));
}

#[test]
fn a_profile_of_nix_profile_is_exported() {
    let (store, path) = Store::with("plain");
    let folder = folder();
    let profile = folder.path().join("profile");
    let mut install = store.command("nix");
    install.args(["--extra-experimental-features", "nix-command flakes", "profile", "install", "--profile"]);
    finish(install.arg(&profile).arg(&path));
    let generation = fs_err::read_link(folder.path().join("profile-1-link")).unwrap();
    assert!(generation.join("manifest.json").exists());
    let (receipt, lines) = export(&store, &profile, &generation);
    assert_eq!((receipt.store_paths, lines), (2, only_linked(&generation)));
}

#[test]
fn a_result_link_and_a_store_path_are_profiles_too() {
    let store = Store::new();
    let folder = folder();
    let result = folder.path().join("result");
    let path: PathBuf =
        finish(store.command("nix-build").arg(fixture()).args(["-A", "plain", "--out-link"]).arg(&result)).into();
    for name in [result.clone(), path.clone(), path.join(""), folder.path().join("../").join(&result)] {
        let (receipt, lines) = export(&store, &name, &path);
        assert_eq!((receipt.store_paths, lines), (1, only_linked(&path)));
    }
    // Relative to where the command is given.
    let root = folder.path().join("root");
    let receipt = Export::new(&store).profile("./result").current_dir(folder.path()).root("root");
    let outcome = receipt.arg("--json").run();
    let receipt = outcome.receipt();
    outcome.is(0, &outcome.stdout, &receipt.summary());
    assert_eq!(named(&receipt), [("./result", path.as_path())]);
    assert_eq!(receipt.root, root.to_str().unwrap());
    judge(&store, &[&path], &receipt);
}

#[test]
fn store_paths_that_are_a_file_or_a_symlink_can_be_exported() {
    let store = Store::new();
    for (attribute, store_paths) in [("file", 1), ("program", 1), ("link", 2)] {
        let path = store.build(attribute);
        let (receipt, lines) = export(&store, &path, &path);
        assert_eq!((receipt.store_paths, lines), (store_paths, only_linked(&path)), "{attribute}");
    }
    let folder = folder();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    let path = PathBuf::from(finish(store.nix_store().arg("--add").arg(folder.path().join("dangling"))));
    let (receipt, lines) = export(&store, &path, &path);
    assert_eq!((receipt.symlinks, lines), (1, only_linked(&path)));
}

#[test]
fn by_default_the_first_profile_that_exists_is_taken() {
    let store = Store::new();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (home, state) = (at("home"), at("state"));
    // What is made later is looked at earlier.
    for (place, attribute, has_state) in [
        (home.join(".local/state/nix/profile"), "plain", false),
        (state.join("nix/profile"), "file", true),
        (home.join(".nix-profile"), "first", true),
        (at("named"), "second", true),
    ] {
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
        let path = store.build(attribute);
        symlink(&path, &place).unwrap();
        let root = folder.path().join(attribute);
        let mut export = Export::new(&store).env("HOME", &home).env("NIX_PROFILE", at("named"));
        if has_state {
            export = export.env("XDG_STATE_HOME", &state);
        }
        let receipt = export.root(&root).exports();
        assert_eq!(named(&receipt), [(place.to_str().unwrap(), path.as_path())]);
    }
    let root = folder.path().join("empty-variable");
    let receipt = Export::new(&store).env("HOME", &home).env("NIX_PROFILE", "").root(&root).exports();
    assert_eq!(receipt.profiles[0].name, home.join(".nix-profile").to_str().unwrap());
}

#[test]
fn the_last_default_is_the_profile_of_all_users() {
    if !root_for("a mount over `/nix/var/nix/profiles`") {
        return;
    }
    let (store, path) = Store::with("plain");
    let folder = folder();
    let root = folder.path().join("root");
    fs_err::create_dir_all("/nix/var/nix/profiles").unwrap();
    let hide =
        "mount -t tmpfs tmpfs /nix/var/nix/profiles && ln -s \"$0\" /nix/var/nix/profiles/default && exec \"$@\"";
    let export = Export::new(&store).under(["unshare", "--mount", "sh", "-c", hide, path.to_str().unwrap()]);
    let receipt = export.env("HOME", "/nonexistent").root(&root).exports();
    assert_eq!(named(&receipt), [("/nix/var/nix/profiles/default", path.as_path())]);
}

#[test]
fn a_home_of_another_user_is_not_used() {
    if !root_for("a file of another user, and a mount over `/etc/passwd`") {
        return;
    }
    let store = Store::new();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs_err::write(at("passwd"), format!("root:x:0:0::{}:/bin/sh\n", at("root").display())).unwrap();
    for (home, attribute) in [("github", "first"), ("root", "second")] {
        fs_err::create_dir(at(home)).unwrap();
        symlink(store.build(attribute), at(home).join(".nix-profile")).unwrap();
    }
    let hide = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    let passwd = at("passwd");
    let found = |out: &str| {
        let export = Export::new(&store).under(["unshare", "--mount", "sh", "-c", hide, passwd.to_str().unwrap()]);
        let receipt = export.env("HOME", at("github")).root(at(out)).exports();
        receipt.profiles[0].name.clone()
    };
    assert_eq!(found("own"), at("github/.nix-profile").to_str().unwrap());
    std::os::unix::fs::chown(at("github"), Some(1001), None).unwrap();
    // As Nix does, but not yet the 2.8 of Debian 12.
    assert_eq!(found("other"), at("root/.nix-profile").to_str().unwrap());
}

#[test]
fn a_default_profile_with_nix_in_it_is_a_warning() {
    let store = Store::new();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/make.nix");
    let text = format!(
        r#"let make = import {}; nix = make "nix-2.99.0" "mkdir -p $out/bin; echo >$out/bin/nix";
           in make "user-environment" "mkdir $out; ln -s ${{nix}}/bin $out/bin""#,
        make.display()
    );
    fs_err::write(at("default.nix"), text).unwrap();
    let path = finish(store.command("nix-build").arg(at("default.nix")).arg("--no-out-link"));
    symlink(&path, at("profile")).unwrap();
    let default = || Export::new(&store).env("NIX_PROFILE", at("profile"));
    let warning = format!(
        "the default profile `{}` contains Nix itself (`nix-2.99.0`); to export only what you built, name it, as in \
         `--profile ./result`",
        at("profile").display()
    );
    default().root(at("default")).exports_with(std::slice::from_ref(&warning));
    let dry = default().arg("--dry-run").run();
    assert_eq!((dry.status.code(), dry.stderr), (Some(0), format!("export-profile: warning: {warning}\n")));
    // Who names it means it.
    Export::new(&store).profile(at("profile")).root(at("named")).exports();

    let image = |words: &[&str]| {
        let mut command = Command::new(installed().join("export-image"));
        command.args(["--json", "--tag", "x"]).args(words).arg(at("layout")).env_clear().envs(store.environment());
        let output = command.env("NIX_PROFILE", at("profile")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let receipt: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (receipt["warnings"].clone(), String::from_utf8_lossy(&output.stderr).contains(&warning))
    };
    assert_eq!(image(&[]), (serde_json::json!([warning]), true));
    assert_eq!(image(&["--profile", &path]), (serde_json::json!([]), false));
}

#[test]
fn several_profiles_are_merged_and_each_conflict_is_told() {
    let store = Store::new();
    let (first, second) = (store.build("first"), store.build("second"));
    let folder = folder();
    let root = folder.path().join("root");
    let left_out =
        |place: &str| format!("left out `{}/{place}`: `{}/{place}` comes first", second.display(), first.display());
    let warnings = [left_out("bin/tool"), left_out("etc/conf")];
    let export = Export::new(&store).profile(&first).profile(&second).arg("--bare").root(&root);
    let receipt = export.exports_with(&warnings);
    assert_eq!(
        named(&receipt),
        [(first.to_str().unwrap(), first.as_path()), (second.to_str().unwrap(), second.as_path())]
    );
    judge(&store, &[&first, &second], &receipt);
    let link = |place: &str, profile: &Path, target: &str| format!("{place} -> {}/{target}", profile.display());
    assert_eq!(
        Tree::read(&root).beside(&store.directory),
        [
            "bin/".to_owned(),
            link("bin/sh", &first, "bin/sh"),
            "etc/".to_owned(),
            link("etc/conf", &first, "etc/conf"),
            "etc/conf.d/".to_owned(),
            link("etc/conf.d/x", &second, "etc/conf.d/x"),
            "nix/".to_owned(),
            "nix/profile/".to_owned(),
            "nix/profile/bin/".to_owned(),
            link("nix/profile/bin/env", &second, "bin/env"),
            link("nix/profile/bin/sh", &first, "bin/sh"),
            link("nix/profile/bin/tool", &first, "bin/tool"),
            "nix/profile/etc/".to_owned(),
            link("nix/profile/etc/conf", &first, "etc/conf"),
            "nix/profile/etc/conf.d/".to_owned(),
            link("nix/profile/etc/conf.d/x", &second, "etc/conf.d/x"),
            "nix/profile/share/".to_owned(),
            "nix/profile/share/both/".to_owned(),
            link("nix/profile/share/both/first", &first, "share/both/first"),
            link("nix/profile/share/both/second", &second, "share/both/second"),
            "run/".to_owned(),
            "run/profile -> ../nix/profile".to_owned(),
            "usr/".to_owned(),
            "usr/bin/".to_owned(),
            link("usr/bin/env", &second, "bin/env"),
        ]
    );
}

#[test]
fn a_profile_named_twice_counts_once() {
    let (store, path) = Store::with("plain");
    let folder = folder();
    let root = folder.path().join("root");
    symlink(&path, folder.path().join("result")).unwrap();
    let receipt =
        Export::new(&store).profile(folder.path().join("result")).profile(&path).arg("--bare").root(&root).exports();
    assert_eq!(named(&receipt), [(folder.path().join("result").to_str().unwrap(), path.as_path())]);
    assert_eq!(Tree::read(&root).beside(&store.directory), only_linked(&path));
}

#[test]
fn with_store_only_the_store_is_all_there_is() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let root = folder.path().join("root");
    let receipt = Export::new(store).profile(profile).arg("--store-only").root(&root).exports();
    judge(store, &[profile], &receipt);
    assert_eq!(Tree::read(&root).beside(&store.directory), [""; 0]);
    assert_eq!(receipt.beside_store.symlinks, 0);
}

#[test]
fn the_profile_link_goes_where_it_is_wanted() {
    let (store, path) = Store::with("first");
    for (wanted, lines) in [
        ("/app", vec![format!("app -> {}", path.display())]),
        ("/etc/profile.d//nix/", vec![format!("etc/profile.d/nix -> {}", path.display()), "etc/profile.d/".into()]),
    ] {
        let folder = folder();
        let root = folder.path().join("root");
        let receipt =
            Export::new(&store).profile(&path).args(["--bare", "--profile-path", wanted]).root(&root).exports();
        judge(&store, &[&path], &receipt);
        let mut expected: Vec<String> = ["bin/".into(), "etc/".into()].into();
        expected.push(format!("bin/sh -> {}/bin/sh", path.display()));
        expected.push(format!("etc/conf -> {}/etc/conf", path.display()));
        expected.extend(lines);
        expected.extend(["nix/".to_owned(), format!("nix/profile -> {}", path.display())]);
        expected.sort();
        let mut found = Tree::read(&root).beside(&store.directory);
        found.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_left_out_of_etc() {
    let store = Store::new();
    let (path, second) = (store.build("broken"), store.build("second"));
    let folder = folder();
    let root = folder.path().join("root");
    let left_out = |place: &str, why: &str| format!("left out `{}/etc/{place}`: the link leads {why}", path.display());
    let back = "back to where it lies";
    let warnings = [
        left_out("broken", "to nothing that a root has"),
        left_out("self", back),
        left_out("sub/above", back),
        left_out("up", back),
        left_out("resolv.conf", back),
    ];
    let receipt = Export::new(&store).profile(&path).arg("--bare").root(&root).exports_with(&warnings);
    judge(&store, &[&path], &receipt);
    let link = |place: &str| format!("etc/{place} -> {}/etc/{place}", path.display());
    assert_eq!(
        Tree::read(&root).beside(&store.directory),
        [
            "etc/".to_owned(),
            link("good"),
            "etc/linked/".to_owned(),
            link("linked/conf"),
            "etc/linked/conf.d/".to_owned(),
            link("linked/conf.d/x"),
            // Leads out of the store, to a place that a running container has.
            "etc/mtab -> ../proc/mounts".to_owned(),
            "etc/sub/".to_owned(),
            "nix/".to_owned(),
            format!("nix/profile -> {}", path.display()),
            "run/".to_owned(),
            format!("run/profile -> {}", path.display()),
        ]
    );
    assert!(second.exists());
    assert_eq!(
        fs_err::read_to_string(folder.path().join("root").join(path.strip_prefix("/").unwrap()).join("etc/good"))
            .unwrap(),
        "good\n"
    );
}
