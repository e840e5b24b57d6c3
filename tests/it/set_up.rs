//! `.ci/set-up` on machines that have one Rust or another: what it installs, and that it leaves alone what will do.
//! Every program that could install something only writes down how it was called.

use std::path::Path;
use std::process::Command;

use crate::support::{folder, script};

/// The oldest Rust for which nixkit and the programs of the tests compile, and an older one.
fn versions() -> [String; 2] {
    let manifest = fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let oldest = manifest["package"]["rust-version"].as_str().unwrap();
    let (major, minor) = oldest.split_once('.').unwrap();
    [format!("{oldest}.1"), format!("{major}.{}.0", minor.parse::<u32>().unwrap() - 1)]
}

/// What is installed for `purpose` where cargo has this version (if any) and Debian offers that one.
fn installs(purpose: &str, cargo: Option<&str>, offered: &str, has_rustup: bool) -> String {
    let place = folder();
    let bin = place.path().join("bin");
    fs_err::create_dir(&bin).unwrap();
    for tool in ["bash", "sh", "cut", "dirname", "head", "sed", "sort", "tail"] {
        std::os::unix::fs::symlink(which::which(tool).unwrap(), bin.join(tool)).unwrap();
    }
    let log = place.path().join("log");
    fs_err::write(&log, "").unwrap();
    let writes = |name: &str| script(&bin.join(name), &format!("echo {name} \"$@\" >>{}", log.display()));
    script(&bin.join("dpkg-query"), "printf installed");
    script(&bin.join("apt-cache"), &format!("printf '  Candidate: {offered}+dfsg1-1\\n'"));
    script(&bin.join("env"), "shift; exec \"$@\"");
    script(&bin.join("dpkg"), "exit 1");
    writes("apt-get");
    writes("curl");
    if has_rustup {
        writes("rustup");
    }
    match cargo {
        Some(version) => script(&bin.join("cargo"), &format!("echo 'cargo {version} (0 2026-01-01)'")),
        None => script(&bin.join("cargo"), "exit 1"),
    }
    let mut command = Command::new(bin.join("bash"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/set-up")).arg(purpose);
    let output = command.env_clear().env("PATH", &bin).env("HOME", place.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs_err::read_to_string(log).unwrap()
}

#[test]
fn any_rust_that_is_new_enough_will_do() {
    let [oldest, older] = versions();
    let toolchain = "rustup toolchain install 1.";
    for (purpose, cargo, offered, has_rustup, expected) in [
        ("build", Some(&oldest), "1.0", false, ""),
        ("build", Some(&oldest), "1.0", true, ""),
        ("run", Some(&"1.1000.0".to_owned()), "1.0", false, ""),
        ("build", None, &*oldest, false, "apt-get install"),
        ("build", Some(&older), &*oldest, false, "apt-get install"),
        ("build", Some(&older), &*older, false, "curl "),
        ("build", None, "", false, "curl "),
        ("build", None, "1.1000.0", true, toolchain),
        ("build", Some(&older), "1.1000.0", true, toolchain),
        // What the tests are built from needs a newer one.
        ("check", Some(&oldest), "1.1000.0", false, "apt-get install"),
        ("test", Some(&oldest), &*oldest, false, "curl "),
        ("test", Some(&"1.1000.0".to_owned()), "", false, ""),
    ] {
        let installed = installs(purpose, cargo.map(String::as_str), offered, has_rustup);
        assert_eq!(installed.is_empty(), expected.is_empty(), "{purpose} {cargo:?} {offered}: {installed}");
        assert!(installed.starts_with(expected), "{purpose} {cargo:?} {offered}: {installed}");
        assert!(!installed.starts_with("apt-get") || installed.contains(" cargo rustc "), "{installed}");
    }
}
