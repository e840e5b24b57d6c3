//! What an exported root holds, bit for bit, and that a second export is the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Entry, Export, Store, Tree, What, chroot, finish, folder, judge, names, remove, root_for, set_mode,
};

/// The root as `tar` writes it.
fn tar(root: &Path) -> Vec<u8> {
    let mut command = Command::new("tar");
    let output = command.args(["--sort=name", "--numeric-owner", "-c", "-C"]).arg(root).arg(".").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn nix_finds_every_store_path_as_it_was_registered() {
    let (store, profile) = Store::shared();
    for mode in ["auto", "copy"] {
        let folder = folder();
        let receipt = Export::new(store).profile(profile).mode(mode).root(folder.path().join("root")).exports();
        let exported = judge(store, &[profile], &receipt);
        assert_eq!(receipt.store_paths, 9);
        assert!(exported.files() > 2000 && exported.symlinks() > 200 && exported.directories() > 400);
    }
}

#[test]
fn names_of_any_bytes_are_copied_as_they_are() {
    use std::os::unix::ffi::OsStrExt;

    let (store, path) = Store::with("odd");
    for mode in ["auto", "copy"] {
        let folder = folder();
        let root = folder.path().join("root");
        let receipt = Export::new(&store).profile(&path).mode(mode).root(&root).exports();
        judge(&store, &[&path], &receipt);
        let exported = Tree::read(&root.join(path.strip_prefix("/").unwrap()));
        let names: Vec<&[u8]> = exported.0.keys().map(|path| path.as_os_str().as_bytes()).collect();
        let long = [b'x'; 255];
        assert_eq!(
            names,
            [
                &b""[..],
                b"\x1b[31m",
                b" blanks ",
                b"-dash",
                b"back\\slash",
                b"directory\xff\n",
                b"directory\xff\n/in",
                b"latin-\xfc",
                b"link\xff",
                b"two\nlines",
                &long,
            ]
        );
        let link = root.join(path.strip_prefix("/").unwrap()).join(std::ffi::OsStr::from_bytes(b"link\xff"));
        assert_eq!(fs_err::read_to_string(link).unwrap(), "latin\n");
    }
}

#[test]
fn what_lies_beside_the_store_has_plain_modes_and_one_time() {
    let (store, profile) = Store::shared();
    for (epoch, time) in [(None, 1), (Some(""), 1), (Some("0"), 0), (Some("1700000000"), 1_700_000_000)] {
        let folder = folder();
        let root = folder.path().join("root");
        let mut export = Export::new(store).profile(profile).arg("--bare").root(&root);
        if let Some(epoch) = epoch {
            export = export.env("SOURCE_DATE_EPOCH", epoch);
        }
        export.exports();
        let tree = Tree::read(&root);
        assert_eq!(
            tree.beside(&store.directory),
            [
                "bin/".to_owned(),
                format!("bin/sh -> {}/bin/sh", profile.display()),
                "etc/".to_owned(),
                "etc/deep/".to_owned(),
                format!("etc/deep/hosts -> {}/etc/deep/hosts", profile.display()),
                "nix/".to_owned(),
                format!("nix/profile -> {}", profile.display()),
                "run/".to_owned(),
                format!("run/profile -> {}", profile.display()),
                "usr/".to_owned(),
                "usr/bin/".to_owned(),
                format!("usr/bin/env -> {}/bin/env", profile.display()),
            ]
        );
        let directory = store.directory.strip_prefix("/").unwrap();
        for (path, entry) in &tree.0 {
            if !path.starts_with(directory) || path == directory {
                let mode = if entry.what == What::Directory { 0o755 } else { 0o777 };
                assert_eq!((entry.mode, entry.time), (mode, (time, 0)), "{}", path.display());
            } else {
                assert_eq!(entry.time, (1, 0), "{}", path.display());
            }
        }
    }
}

#[test]
fn two_exports_are_the_same_bytes_in_tar() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let mut archives = Vec::new();
    for (mode, jobs) in [("auto", "1"), ("auto", "16"), ("hardlink", "3"), ("copy", "1"), ("copy", "16")] {
        let root = folder.path().join(format!("{mode}-{jobs}"));
        Export::new(store).profile(profile).mode(mode).args(["--jobs", jobs]).root(&root).exports();
        archives.push(tar(&root));
        if mode == "copy" {
            remove(&root);
        }
    }
    assert!(archives[0].len() > 10 << 20, "{} bytes", archives[0].len());
    for (i, archive) in archives.iter().enumerate() {
        assert!(archive == &archives[0], "archive {i} differs");
    }
}

#[test]
fn neither_umask_nor_the_parents_group_bit_matters() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let roots: Vec<PathBuf> =
        ["plain", "strict", "open", "group"].map(|name| folder.path().join(name).join("root")).into();
    for root in &roots {
        fs_err::create_dir(root.parent().unwrap()).unwrap();
    }
    if crate::support::is_root() {
        std::os::unix::fs::chown(folder.path().join("group"), Some(0), Some(54321)).unwrap();
    }
    set_mode(&folder.path().join("group"), 0o2775);
    let export = || Export::new(store).profile(profile).mode("copy");
    export().root(&roots[0]).exports();
    export().under(["sh", "-c", "umask 077; exec \"$@\"", "sh"]).root(&roots[1]).exports();
    export().under(["sh", "-c", "umask 000; exec \"$@\"", "sh"]).root(&roots[2]).exports();
    export().root(&roots[3]).exports();
    let expected = Tree::read(&roots[0]).shape();
    for root in &roots[1..] {
        assert!(Tree::read(root).shape() == expected, "{}", root.display());
    }
}

#[test]
fn the_inodes_of_the_store_keep_all_but_their_number_of_names() {
    let (store, profile) = Store::with("everything");
    let before = Tree::read(&store.directory);
    let folder = folder();
    let receipt = Export::new(&store).profile(&profile).mode("hardlink").root(folder.path().join("root")).exports();
    judge(&store, &[&profile], &receipt);
    let after = Tree::read(&store.directory);
    let closure = store.closure(&profile);
    let exported = |path: &Path| closure.iter().any(|member| store.directory.join(path).starts_with(member));
    for (path, old) in &before.0 {
        let names = before.0.iter().filter(|(other, entry)| entry.inode == old.inode && exported(other)).count();
        let links = if old.what == What::Directory { old.links } else { old.links + names as u64 };
        assert_eq!(after.0[path], Entry { links, ..old.clone() }, "{}", path.display());
    }
    assert_eq!(after.0.len(), before.0.len());
}

#[test]
fn programs_of_the_stand_in_run_in_the_root_with_an_empty_environment() {
    if !root_for("chroot") {
        return;
    }
    let store = Store::of_the_machine();
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
    let folder = folder();
    let profile = folder.path().join("profile");
    let mut install = store.command("nix-env");
    finish(install.arg("--file").arg(&packages).arg("--profile").arg(&profile).args(["-iA", "hello", "bash"]));
    let root = folder.path().join("root");
    let receipt = Export::new(&store).profile(&profile).arg("--verify").root(&root).exports();
    assert!(receipt.verified);
    judge(&store, &[&profile], &receipt);
    assert_eq!(
        names(&root),
        ["bin", "dev", "etc", "home", "nix", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var"]
    );
    for (words, output) in [
        (&["/run/profile/bin/hello"][..], "Hello, world!\n"),
        (&["/bin/sh", "-c", "echo $0 $PPID_IS_NOT_SET"], "/bin/sh\n"),
        (&["/run/profile/bin/bash", "-c", "cd /nix/store; set -- *-hello-*; cd $1/bin; echo *"], "hello\n"),
    ] {
        let output_of = chroot(&root).args(words).output().unwrap();
        let said = (String::from_utf8(output_of.stdout).unwrap(), String::from_utf8(output_of.stderr).unwrap());
        assert_eq!((said.0.as_str(), said.1.as_str(), output_of.status.code()), (output, "", Some(0)), "{words:?}");
    }
}
