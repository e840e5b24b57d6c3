//! What is in the base image: `image/test` judges it here as it does before one is pushed. That it notices what is
//! wrong is tried with an image in which a lot is.

use std::process::Command;

use super::base::{Base, file};
use crate::support::engine::{Docker, tag};
use crate::support::{finish, folder, root_for, script};

/// The checks, as `image/test` names them.
const CHECKS: &[&str] = &[
    "labels",
    "every store path is what is registered",
    "registered are the store paths of the image and no others, at a constant time",
    "the garbage collector would delete nothing",
    "the tools, and nixkit by all of its names",
    "users, services, /tmp, /bin/sh, /bin/bash, /usr/bin/env",
    "certificates are where programs look",
    "variables",
    "settings of Nix, which a shell leaves as they are",
    "nixpkgs is there, for niv, npins, flakes and fetchTarball",
    "forty builds at once",
    "what is installed with another HOME is found",
    "a profile is installed, exported and run",
];

/// Every check has passed.
fn passed(stdout: &[u8]) {
    let expected: Vec<_> = CHECKS.iter().map(|check| format!("ok      {check}")).collect();
    assert_eq!(String::from_utf8_lossy(stdout).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_base_image_passes_in_docker() {
    let Some(docker) = Docker::get() else { return };
    let output = docker.environment(&mut Command::new(file("image/test"))).arg(&Base::get().archive).output().unwrap();
    passed(&output.stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "image/test: with docker\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_base_image_passes_without_an_engine() {
    if !root_for("an image without an engine") {
        return;
    }
    let none = folder();
    for engine in ["docker", "podman"] {
        script(&none.path().join(engine), "exit 1");
    }
    let path = format!("{}:{}", none.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(file("image/test")).arg(&Base::get().archive).env("PATH", path).output().unwrap();
    passed(&output.stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "image/test: with chroot\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_installed_with_another_home_is_in_path() {
    let Some(docker) = Docker::get() else { return };
    let images = Base::get().in_docker(docker);
    let script = "mkdir /gh; nix-env --quiet -f '<nixpkgs>' -iA hello; hello";
    let said = finish(&mut docker.run(&["--env", "HOME=/gh"], &images.offline, &["bash", "-c", script]));
    assert!(said.ends_with("Hello, world!"), "{said}");
}

#[test]
fn an_image_in_which_something_is_wrong_does_not_pass() {
    let Some(docker) = Docker::get() else { return };
    let images = Base::get().in_docker(docker);
    let context = folder();
    let dockerfile = format!(
        "FROM {}\nLABEL io.github.nixkit.input-hash=none\nENV USER=somebody LD_LIBRARY_PATH=/lib\n\
         RUN echo sandbox = true >>/etc/nix/nix.conf; chmod 755 /tmp; rm /etc/ssl/cert.pem; \
         for path in /nix/store/*-less-*; do chmod -R u+w \"$path\"; echo more >>\"$path/bin/less\"; done; \
         nix-store --add /etc/passwd; rm -r /nix/store/*-source\n",
        images.base
    );
    fs_err::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let image = tag("wrong");
    finish(&mut docker.build(false, context.path(), &image));
    let archive = context.path().join("wrong.tar");
    finish(docker.command().args(["save", &image, "--output"]).arg(&archive));
    let output = docker.environment(&mut Command::new(file("image/test"))).arg(&archive).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("FAILED  ")).collect();
    let expected: Vec<_> = [0, 1, 2, 3, 5, 6, 7, 8, 9].map(|check| CHECKS[check]).into();
    assert_eq!(failed, expected, "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let output = Command::new(file("image/test")).arg("/etc/passwd").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(!output.status.success() && !output.stderr.is_empty());
    let output = Command::new(file("image/test")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
