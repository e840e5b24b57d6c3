//! What `image/toolkit.nix` builds nixkit from: only the files that `image/sources` lists, as nixpkgs' cargo hooks
//! do it, with vendored dependencies and no network. And the input hash covers the same files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::base::file;
use crate::support::{Store, finish, folder};

/// The arguments that `toolkit.nix` in `image` gives to `buildRustPackage`. Their `src` is in the store.
fn toolkit(image: &Path) -> Value {
    let expression = format!(
        "let package = import {}/toolkit.nix {{ pkgs = {{ \
           rustPlatform.buildRustPackage = arguments: arguments; glibc.static = \"glibc\"; }}; }}; \
         in package // {{ src = \"${{package.src}}\"; cargoLock.lockFile = toString package.cargoLock.lockFile; }}",
        image.display()
    );
    let mut command = Store::of_the_machine().command("nix-instantiate");
    command.args(["--eval", "--strict", "--json", "--read-write-mode", "--expr", &expression]);
    serde_json::from_str(&finish(&mut command)).unwrap()
}

fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments[name].as_str().unwrap_or_else(|| panic!("{name} in {arguments}"))
}

/// A directory that stays from run to run, so that cargo builds the dependencies once.
fn kept(name: &str) -> PathBuf {
    let path = file("target/toolkit").join(name);
    fs_err::create_dir_all(&path).unwrap();
    path
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[test]
fn nixkit_builds_from_the_listed_files_alone() {
    let arguments = toolkit(&file("image"));
    let place = folder();
    let source = place.path().join("source");
    finish(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(text(&arguments, "src")).arg(&source));
    assert_eq!(
        fs_err::read(text(&arguments["cargoLock"], "lockFile")).unwrap(),
        fs_err::read(file("Cargo.lock")).unwrap()
    );

    // As nixpkgs' importCargoLock and cargoSetupHook do.
    let vendor = kept("vendor");
    let sources = finish(cargo().args(["vendor", "--locked", "--quiet"]).arg(&vendor).current_dir(&source));
    fs_err::create_dir(source.join(".cargo")).unwrap();
    fs_err::write(source.join(".cargo/config.toml"), sources).unwrap();
    // As its cargoBuildHook, without optimisation.
    let host = finish(cargo().args(["-vV"])).lines().find_map(|line| Some(line.strip_prefix("host: ")?.to_owned()));
    let target = kept("target");
    let mut build = cargo();
    build.args(["build", "--offline", "--frozen", "--target", host.as_ref().unwrap()]);
    build.args(arguments["cargoBuildFlags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()));
    build.env("RUSTFLAGS", text(&arguments, "RUSTFLAGS")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    build.env("CARGO_TARGET_DIR", &target).current_dir(&source);
    // Those of the cargo that runs this test are about another package.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        build.env_remove(name);
    }
    finish(&mut build);
    let binary = target.join(host.unwrap()).join("debug/nixkit");
    let version = finish(Command::new(&binary).arg("--version"));
    assert_eq!(version, format!("nixkit {}", text(&arguments, "version")));
    let headers = finish(Command::new("readelf").arg("--program-headers").arg(&binary));
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
}

/// The files below `tree`, relative to it.
fn files(tree: &Path) -> BTreeSet<PathBuf> {
    let entries = walkdir::WalkDir::new(tree).into_iter().map(Result::unwrap);
    entries
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| entry.path().strip_prefix(tree).unwrap().to_owned())
        .collect()
}

#[test]
fn the_input_hash_covers_the_files_that_nixkit_is_built_from() {
    let place = folder();
    let copy = place.path();
    let names = finish(Command::new("git").arg("-C").arg(file("")).args(["ls-files"]));
    let folders: BTreeSet<_> = names.lines().map(|name| name.split('/').next().unwrap()).collect();
    for name in &folders {
        // What is large, and of which one file is as good as all.
        if !["tests", "benches", "fuzz", "proptest-regressions"].contains(name) {
            finish(Command::new("cp").arg("-r").arg(file(name)).arg(copy.join(name)));
        }
    }
    for added in
        ["tests/it/main.rs", "benches/x", "fuzz/x", ".cargo/config.toml", "target/x", "src2", "new", "src/deep/a b"]
    {
        fs_err::create_dir_all(copy.join(added).parent().unwrap()).unwrap();
        fs_err::write(copy.join(added), "x = 1\n").unwrap();
    }
    let arguments = toolkit(&copy.join("image"));
    let built_from = files(Path::new(text(&arguments, "src")));
    assert!(built_from.contains(Path::new("src/deep/a b")) && built_from.contains(Path::new(".cargo/config.toml")));

    let hash = || finish(Command::new(copy.join("image/input-hash")).args(["0123", "x86_64-linux"]));
    let before = hash();
    let image = |path: &Path| path.starts_with("image");
    for path in files(copy).into_iter().filter(|path| !image(path)) {
        let content = fs_err::read(copy.join(&path)).unwrap();
        fs_err::write(copy.join(&path), [&content[..], b"\n"].concat()).unwrap();
        assert_eq!(hash() != before, built_from.contains(&path), "{}", path.display());
        fs_err::write(copy.join(&path), content).unwrap();
    }
    assert_eq!(hash(), before);
}
