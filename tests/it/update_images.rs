//! `update-images` against a real registry, real skopeo, a git repository that plays nixpkgs and a server that
//! plays the listing of releases. What is in the registry afterwards is read with skopeo.

mod failures;
mod kills;
mod lives;
mod real_recipe;
mod registries;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{Nixpkgs, Registry, Releases, copied, finish, folder, installed};

/// Status, stdout and stderr.
type Run = (i32, String, String);

/// The peers, a recipe and settings.
struct Scene {
    registry: Registry,
    nixpkgs: Nixpkgs,
    releases: Releases,
    folder: TempDir,
    /// What stands in the settings beside source, registry and name.
    settings: String,
}

/// This machine's system, and one that it is not.
fn systems() -> [&'static str; 2] {
    let mut systems = ["x86_64-linux", "aarch64-linux"];
    if std::env::consts::ARCH == "aarch64" {
        systems.reverse();
    }
    systems
}

fn here() -> &'static str {
    systems()[0]
}

impl Scene {
    /// With settings for this machine's system.
    fn new(settings: &str) -> Self {
        Self::with(Registry::start(), &format!("systems = [\"{}\"]\n{settings}", here()))
    }

    fn with(registry: Registry, settings: &str) -> Self {
        let folder = folder();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        copied(&fixtures.join("recipe"), folder.path().join("recipe"));
        fs_err::create_dir(folder.path().join("tmp")).unwrap();
        let nixpkgs = Nixpkgs::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs"));
        let scene = Self { registry, nixpkgs, releases: Releases::start(), folder, settings: settings.to_owned() };
        scene.configure(&scene.registry.address.clone());
        scene
    }

    fn configure(&self, address: &str) {
        let text = format!(
            "registry = \"{address}\"\nname = \"base/nixpkgs-{{channel}}\"\nsource = \"{}\"\n{}",
            self.nixpkgs.url(),
            self.settings.replace("RELEASES", &format!("releases = \"{}/\"", self.releases.url)),
        );
        fs_err::write(self.folder.path().join("recipe/channels.toml"), text).unwrap();
    }

    /// A file beside the recipe, by which a test speaks with it.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(installed().join("update-images"));
        command
            .args(["--recipe", "recipe", "--retry-pause", "0"])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("LC_ALL", "C")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let run = finished(self.start(arguments));
        assert_eq!(fs_err::read_dir(self.beside("tmp")).unwrap().count(), 0, "something stayed in TMPDIR\n{}", run.2);
        run
    }

    /// A run that must succeed; the receipt on its stdout.
    fn succeeds(&self, arguments: &[&str]) -> serde_json::Value {
        let (status, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(status, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs and says which images were built: channel, number of the commit in `commits`, system.
    fn builds(&self, arguments: &[&str], commits: &[&str]) -> Vec<String> {
        let _ = fs_err::remove_file(self.beside("builds"));
        self.succeeds(arguments);
        self.built(commits)
    }

    fn built(&self, commits: &[&str]) -> Vec<String> {
        let text = fs_err::read_to_string(self.beside("builds")).unwrap_or_default();
        let line = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let number = commits.iter().position(|commit| *commit == words[1]).expect("a commit of the test");
            format!("{} {number}", words[0])
        };
        text.lines().map(line).collect()
    }

    /// A commit that is an update of `channel`, released as `number`.
    fn update(&self, channel: &str, number: &str) -> String {
        let commit = self.nixpkgs.commit();
        self.release(channel, number, &commit);
        self.nixpkgs.branch(channel, &commit);
        commit
    }

    fn release(&self, channel: &str, number: &str, commit: &str) {
        let prefix = match channel {
            "nixpkgs-unstable" => "nixpkgs/".to_owned(),
            _ => channel.replacen('-', "/", 1) + "/",
        };
        self.releases.add(&prefix, number, commit);
    }

    fn tags(&self, channel: &str) -> BTreeSet<String> {
        self.registry.tags(&repository(channel)).into_iter().collect()
    }

    /// The commit to which a tag points. Its index must have the images of `architectures`, each of that commit.
    fn commit_under(&self, channel: &str, tag: &str, architectures: &[&str]) -> String {
        let images = self.registry.images(&repository(channel), tag);
        let names: Vec<_> = images.keys().map(String::as_str).collect();
        assert_eq!(names, architectures, "{channel}:{tag}");
        let commits: BTreeSet<_> =
            images.values().map(|labels| labels["org.opencontainers.image.revision"].clone()).collect();
        assert_eq!(commits.len(), 1, "{channel}:{tag}");
        commits.into_iter().next().unwrap()
    }

    /// Whatever happened: each tag of a commit is a whole index of that commit, and the moving tags point to one.
    fn is_consistent(&self, channel: &str, architectures: &[&str]) {
        for tag in self.tags(channel) {
            if tag.contains("-linux") {
                continue;
            }
            let commit = self.commit_under(channel, &tag, architectures);
            if tag.len() == 40 {
                assert_eq!(tag, commit);
            }
        }
    }
}

fn repository(channel: &str) -> String {
    format!("base/nixpkgs-{channel}")
}

fn finished(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| {
        -std::os::unix::process::ExitStatusExt::signal(&output.status).expect("a status or a signal")
    });
    (code, text(output.stdout), text(output.stderr))
}

/// As [`Scene::run`], with variables.
fn finished_with(scene: &Scene, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    finished(scene.command(arguments).envs(variables.iter().copied()).spawn().unwrap())
}

/// Pushes an image with no layer and no label, as others may.
fn push_foreign(layout: &Path, to: &str) {
    let blobs = layout.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, text: &str| {
        let digest = nixkit::oci::Digest::of(text.as_bytes());
        fs_err::write(blobs.join(digest.hex()), text).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": text.len() })
    };
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = blob("application/vnd.oci.image.config.v1+json", config);
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let manifest = blob("application/vnd.oci.image.manifest.v1+json", &manifest.to_string());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layout = format!("oci:{}", layout.display());
    finish(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &layout, to]));
}

fn native() -> &'static str {
    if here() == "x86_64-linux" { "amd64" } else { "arm64" }
}

/// The tags of a commit that has all: its own, one for each system, and others.
fn tags_of(commit: &str, others: &[&str]) -> BTreeSet<String> {
    let mut tags: BTreeSet<_> = others.iter().map(|tag| (*tag).to_owned()).collect();
    tags.insert(commit.to_owned());
    tags.insert(format!("{commit}-{}", here()));
    tags
}
