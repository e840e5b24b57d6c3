//! The base image as it goes through the world: the same bytes wherever it is made, in a registry and out of it.

use std::path::Path;
use std::process::Command;

use super::base::{Base, CHANNEL, file};
use crate::support::engine::Registry;
use crate::support::{Store, finish, folder, nixkit};

/// The digest of the only image that `index.json` names.
fn digest(index: &str) -> String {
    let index: serde_json::Value = serde_json::from_str(index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn digest_in(layout: &Path) -> String {
    digest(&fs_err::read_to_string(layout.join("index.json")).unwrap())
}

fn digest_of(archive: &Path) -> String {
    digest(&finish(Command::new("tar").args(["-x", "-O", "-f"]).arg(archive).arg("index.json")))
}

#[test]
fn two_builds_have_one_digest_and_a_registry_returns_it() {
    let base = Base::get();
    let place = folder();
    let layout = place.path().join("layout");
    // Another umask, another working directory, another kind of output.
    let command = base.command();
    let mut again = Command::new("sh");
    again.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    again
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(place.path());
    Base::build(&mut again, &layout);
    assert_eq!(digest_in(&layout), digest_of(&base.archive));

    let Some(registry) = Registry::start() else { return };
    let name = format!("nixpkgs-{CHANNEL}:{}", base.revision);
    let remote = format!("docker://{}/niteo/{name}", registry.address);
    let skopeo = |words: &[&str]| finish(Command::new("skopeo").args(words));
    let local = format!("oci:{}:{name}", layout.display());
    skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &local, &remote]);
    let inspected =
        skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Os}}/{{.Architecture}}", &remote]);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    assert_eq!(inspected, format!("{} linux/{architecture}", digest_in(&layout)));
    let pulled = place.path().join("pulled");
    skopeo(&["copy", "--quiet", "--src-tls-verify=false", &remote, &format!("oci:{}:pulled", pulled.display())]);
    assert_eq!(digest_in(&pulled), digest_in(&layout));
    let label = |name: &str| skopeo(&["inspect", "--format", &format!("{{{{index .Labels {name:?}}}}}"), &local]);
    assert_eq!(label("org.opencontainers.image.revision"), base.revision);
    assert_eq!(label("org.opencontainers.image.created"), "2023-11-14T22:13:20Z");
    assert_eq!(label("org.opencontainers.image.version"), "25.11.1234");
    assert_eq!(label("org.opencontainers.image.source"), "https://github.com/niteo/nixkit");
    assert_eq!(label("org.opencontainers.image.title"), format!("nixpkgs-{CHANNEL}"));
    assert_eq!(label("io.github.nixkit.nixpkgs"), "https://github.com/NixOS/nixpkgs");
    // OCI's labels are the manifest's annotations, and ours are not.
    let manifest: serde_json::Value =
        serde_json::from_str(&skopeo(&["inspect", "--raw", "--tls-verify=false", &remote])).unwrap();
    let annotations = manifest["annotations"].as_object().unwrap();
    let names: Vec<_> =
        annotations.keys().map(|name| name.strip_prefix("org.opencontainers.image.").unwrap()).collect();
    let all = ["created", "description", "licenses", "revision", "source", "title", "url", "version"];
    assert_eq!(names, all);
    for (name, value) in annotations {
        assert_eq!(label(name), value.as_str().unwrap());
    }
    assert_eq!(label("io.github.nixkit.channel"), CHANNEL);
    let system = format!("{}-linux", std::env::consts::ARCH);
    let hash = finish(Command::new(file("image/input-hash")).args([&base.revision, &system]));
    assert_eq!(label("io.github.nixkit.input-hash"), hash);
}

#[test]
fn the_input_hash_covers_what_goes_into_an_image_and_nothing_else() {
    let place = folder();
    let copy = place.path();
    for part in ["image", "src", "Cargo.toml", "Cargo.lock", "README.md", "tests/nixpkgs"] {
        let to = copy.join(part);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        finish(Command::new("cp").arg("-r").arg(file(part)).arg(to));
    }
    let hash = |commit: &str, system: &str| {
        finish(Command::new(copy.join("image/input-hash")).args([commit, system]).current_dir("/"))
    };
    let before = hash("0123", "x86_64-linux");
    assert_eq!(before.len(), 64);
    assert_eq!(before, finish(Command::new(file("image/input-hash")).args(["0123", "x86_64-linux"])));
    assert_ne!(before, hash("4567", "x86_64-linux"));
    assert_ne!(before, hash("0123", "aarch64-linux"));
    let append = |path: &str| {
        let text = fs_err::read_to_string(copy.join(path)).unwrap_or_default();
        fs_err::create_dir_all(copy.join(path).parent().unwrap()).unwrap();
        fs_err::write(copy.join(path), text + "\n").unwrap();
    };
    for path in ["README.md", "image/README.md", "image/channels.toml", "image/test", "tests/nixpkgs/README.md"] {
        append(path);
        assert_eq!(before, hash("0123", "x86_64-linux"), "{path}");
    }
    let mut seen = vec![before];
    for path in ["image/default.nix", "image/rootfs/etc/new", "src/main.rs", "Cargo.lock", ".cargo/config.toml"] {
        append(path);
        let now = hash("0123", "x86_64-linux");
        assert!(!seen.contains(&now), "{path}");
        seen.push(now);
    }
    finish(Command::new("chmod").arg("+x").arg(copy.join("image/rootfs/etc/new")));
    assert!(!seen.contains(&hash("0123", "x86_64-linux")), "a mode");
}

#[test]
fn image_build_says_what_is_wrong() {
    let place = folder();
    let run = |words: &[&str]| {
        let mut build = Store::of_the_machine().command(file("image/build").to_str().unwrap());
        let output = build.env("NIXKIT", nixkit()).args(words).current_dir(place.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    fs_err::create_dir(place.path().join("plain")).unwrap();
    let system =
        ["--nixpkgs", "plain", "--rev", &"0".repeat(40), "--channel", "nixos-25.11", "--system", "m68k-linux", "out"];
    for (words, expected) in [
        (&[] as &[&str], "usage: "),
        (&["--channel", "nixos-25.11", "out"], "usage: "),
        (&["--oops", "out"], "no option `--oops`"),
        (&["--nixpkgs", "plain", "--channel", "nixos-25.11", "out"], "`` is no commit of 40 hex digits"),
        (&["--nixpkgs", "plain", "--rev", "abc", "--channel", "nixos-25.11", "out"], "`abc` is no commit"),
        (&system, "no image for the system `m68k-linux`"),
    ] {
        let (status, stderr) = run(words);
        assert_eq!(status, Some(2), "{words:?}: {stderr}");
        assert!(stderr.starts_with("image/build: error: ") && stderr.contains(expected), "{words:?}: {stderr}");
    }
    assert!(!place.path().join("out").exists());
}
