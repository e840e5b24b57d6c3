//! The base image, made by `image/build` from a repository that plays nixpkgs, and what its users have beside it:
//! projects that pin that commit, and a binary cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::engine::{Buildah, Docker, tag};
use crate::support::{Store, finish, installed, nixkit, scratch};

pub(super) const CHANNEL: &str = "nixos-25.11";

pub(super) struct Base {
    /// What `image/build` made, as an archive.
    pub(super) archive: PathBuf,
    /// The commit of nixpkgs.
    pub(super) revision: String,
    /// Its tree's NAR hash, in base 32.
    hash: String,
    repository: PathBuf,
    /// What cache.nixos.org is for others: programs of nixpkgs, built.
    cache: PathBuf,
}

/// A file of this repository.
pub(super) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An image with the binary cache, for builds that have no network, and the one without.
pub(super) struct Images {
    pub(super) base: String,
    pub(super) offline: String,
}

impl Base {
    pub(super) fn get() -> &'static Self {
        static BASE: OnceLock<Base> = OnceLock::new();
        BASE.get_or_init(|| {
            let folder = scratch().join("base");
            let repository = folder.join("nixpkgs");
            fs_err::create_dir_all(&repository).unwrap();
            let store = Store::of_the_machine();
            finish(store.command(file("tests/nixpkgs/freeze").to_str().unwrap()).arg(&repository));
            let git = |words: &[&str]| {
                let mut git = Command::new("git");
                git.arg("-C").arg(&repository).args(["-c", "user.name=n", "-c", "user.email=e"]).args(words);
                git.envs([("GIT_AUTHOR_DATE", "1700000000 +0100"), ("GIT_COMMITTER_DATE", "1700000000 +0100")]);
                finish(&mut git)
            };
            git(&["init", "--quiet"]);
            git(&["add", "--all"]);
            git(&["commit", "--quiet", "--message", "nixpkgs"]);
            let revision = git(&["rev-parse", "HEAD"]);
            let tree = folder.join("tree");
            git(&["worktree", "add", "--quiet", "--detach", tree.to_str().unwrap()]);
            fs_err::remove_file(tree.join(".git")).unwrap();
            let hash = finish(store.command("nix-hash").args(["--type", "sha256", "--base32"]).arg(&tree));
            let base =
                Self { archive: folder.join("base.tar"), revision, hash, repository, cache: folder.join("cache") };
            Self::build(&mut base.command(), &base.archive);
            base.fill_cache();
            base
        })
    }

    /// Puts what the projects take from nixpkgs into the binary cache.
    fn fill_cache(&self) {
        let store = Store::of_the_machine();
        let wanted =
            ["hello", "curl", "cacert", "bash", "coreutils"].map(|name| store.build_of(&self.repository, name));
        let mut copy = store.command("nix");
        copy.args(["--extra-experimental-features", "nix-command", "copy", "--to"]);
        finish(copy.arg(format!("file://{}?compression=none", self.cache.display())).args(wanted));
    }

    /// `image/build` with the binary under test.
    pub(super) fn command(&self) -> Command {
        let mut command = Store::of_the_machine().command(file("image/build").to_str().unwrap());
        command.env("NIXKIT", installed().join("nixkit"));
        command.arg("--nixpkgs").arg(&self.repository).arg("--toolkit").arg(nixkit());
        command.args(["--channel", CHANNEL, "--release", "25.11.1234"]);
        command
    }

    pub(super) fn build(command: &mut Command, out: &Path) {
        assert_eq!(finish(command.arg(out)), "", "image/build has no data for stdout");
        assert!(out.exists());
    }

    /// A project of `tests/fixtures/projects`, in a new directory `place`, that pins this nixpkgs.
    pub(super) fn project(&self, kind: &str, place: &Path) {
        let store = Store::of_the_machine();
        let sri = finish(
            store
                .command("nix")
                .args(["--extra-experimental-features", "nix-command", "hash", "to-sri", "--type", "sha256"])
                .arg(&self.hash),
        );
        let projects = file("tests/fixtures/projects");
        finish(Command::new("cp").arg("-r").arg(projects.join(kind)).arg(place));
        fs_err::copy(projects.join("program.nix"), place.join("program.nix")).unwrap();
        for entry in walkdir::WalkDir::new(place) {
            let path = entry.unwrap().into_path();
            if path.is_file() {
                let text = fs_err::read_to_string(&path).unwrap();
                let text =
                    text.replace("@REVISION@", &self.revision).replace("@BASE32@", &self.hash).replace("@SRI@", &sri);
                fs_err::write(&path, text).unwrap();
            }
        }
    }

    /// `Dockerfile.example`, from `image` in place of the one that it names.
    pub(super) fn dockerfile(image: &str) -> String {
        let text = fs_err::read_to_string(file("Dockerfile.example")).unwrap();
        let from = text.lines().find(|line| line.starts_with("FROM niteo/nixpkgs-")).unwrap();
        text.replace(from, &format!("FROM {image} AS build"))
    }

    /// A directory from which the image with the binary cache is built.
    fn offline(&self, base: &str) -> PathBuf {
        let context = tempfile::Builder::new().tempdir_in(scratch()).unwrap().keep();
        finish(Command::new("cp").arg("-r").arg(&self.cache).arg(context.join("cache")));
        // A program that sees no network gives up on all caches, unless it is told not to.
        fs_err::write(context.join("cache/nix.conf"), "substitute = true\nsubstituters = file:///cache?trusted=1\n")
            .unwrap();
        let text = format!("FROM {base}\nCOPY cache /cache\nENV NIX_USER_CONF_FILES=/cache/nix.conf\n");
        fs_err::write(context.join("Dockerfile"), text).unwrap();
        context
    }

    /// The images in Docker.
    pub(super) fn in_docker(&self, docker: &Docker) -> &'static Images {
        static IMAGES: OnceLock<Images> = OnceLock::new();
        IMAGES.get_or_init(|| {
            let images = Images { base: tag("base"), offline: tag("offline") };
            let loaded = docker.load(&self.archive);
            finish(docker.command().args(["tag", &loaded, &images.base]));
            finish(docker.command().args(["rmi", &loaded]));
            finish(&mut docker.build(false, &self.offline(&images.base), &images.offline));
            images
        })
    }

    /// The image with the binary cache in buildah.
    pub(super) fn in_buildah(&self, buildah: &Buildah) -> String {
        let archive = format!("docker-archive:{}", self.archive.display());
        let base = finish(buildah.command().args(["pull", "--quiet", &archive]));
        let offline = tag("offline");
        finish(buildah.without_network().args(["bud", "--quiet", "--tag", &offline]).arg(self.offline(&base)));
        offline
    }
}
