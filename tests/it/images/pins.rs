//! Projects that pin nixpkgs: what the base image has prefetched is used, whatever pins it, and nothing else is.

use std::process::Output;

use super::base::Base;
use crate::support::engine::{Docker, tag};
use crate::support::{finish, folder};

/// Installs `myEnv` of a project with these words, in the image with the binary cache, and runs its program.
fn install(kind: &str, words: &str) {
    let Some(docker) = Docker::get() else { return };
    let base = Base::get();
    let images = base.in_docker(docker);
    let place = folder();
    let project = place.path().join("project");
    base.project(kind, &project);
    // The export finds the profile, whichever program made it.
    let run = format!("{words} && export-profile --quiet /tmp/dist && chroot /tmp/dist /run/profile/bin/my-program");
    let dockerfile = format!("FROM {}\nCOPY . /src\nRUN {run}\n", images.offline);
    fs_err::write(project.join("Dockerfile"), dockerfile).unwrap();
    let output = docker.build(false, &project, &tag(kind)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // The classic builder puts colours before it.
    assert!(said.lines().any(|line| line.ends_with("hello from my-program")), "{said}");
    assert!(!said.contains("unable to download"), "{said}");
}

#[test]
fn a_niv_project_downloads_nothing() {
    install("niv", "nix-env --quiet -f /src -iA myEnv");
}

#[test]
fn an_npins_project_downloads_nothing() {
    install("npins", "nix-env --quiet -f /src -iA myEnv");
}

#[test]
fn a_plain_fetch_tarball_downloads_nothing() {
    install("tarball", "nix-env --quiet -f /src -iA myEnv");
}

#[test]
fn a_flake_downloads_nothing() {
    install("flake", "nix profile install path:/src#myEnv");
}

#[test]
fn nix_path_and_the_flake_registry_are_the_prefetched_nixpkgs() {
    install(
        "niv",
        "nix-env --quiet -f '<nixpkgs>' -iA hello && nix run nixpkgs#hello >&2 && nix-env --quiet -f /src -iA myEnv",
    );
}

/// Builds `Dockerfile.example` for a project whose pin was changed by `change`.
fn build(name: &str, change: impl Fn(String) -> String) -> Option<Output> {
    let docker = Docker::get()?;
    let base = Base::get();
    let images = base.in_docker(docker);
    let place = folder();
    let project = place.path().join("project");
    base.project("niv", &project);
    let sources = project.join("nix/sources.json");
    fs_err::write(&sources, change(fs_err::read_to_string(&sources).unwrap())).unwrap();
    fs_err::write(project.join("Dockerfile"), Base::dockerfile(&images.offline)).unwrap();
    Some(docker.build(false, &project, &tag(name)).output().unwrap())
}

#[test]
fn a_build_from_another_commit_would_have_to_download_it() {
    let Some(same) = build("prefetched", |sources| sources) else { return };
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    // The hash of another tree, and a name that no nixpkgs has here.
    let other = build("downloading", |sources| {
        let spec = sources.find("\"sha256\": \"").unwrap() + "\"sha256\": \"".len();
        format!("{}{}{}", &sources[..spec], "0".repeat(52), &sources[spec + 52..])
    })
    .unwrap();
    let said = String::from_utf8_lossy(&other.stdout) + String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success(), "{said}");
    assert!(said.contains("unable to download 'https://github.com/NixOS/nixpkgs/archive/"), "{said}");
    let docker = Docker::get().unwrap();
    assert_eq!(finish(docker.command().args(["images", "--quiet", &tag("downloading")])), "");
}
