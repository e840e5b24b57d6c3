//! `Dockerfile.example`, as its user has it: built without a network, run, measured, and compared with what
//! `export-image` makes of the same profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::base::{Base, Images};
use crate::support::engine::{Buildah, Docker, TlsServer, tag};
use crate::support::{Tree, finish, folder, scratch};

const GREETING: &str = "hello from my-program";

/// A project with a Dockerfile, and what its profile is.
struct Project {
    directory: PathBuf,
    server: TlsServer,
}

impl Project {
    fn get(base: &Base) -> &'static Self {
        static PROJECT: OnceLock<Project> = OnceLock::new();
        PROJECT.get_or_init(|| {
            let directory = scratch().join("project");
            base.project("niv", &directory);
            let server = TlsServer::start();
            fs_err::copy(&server.authority, directory.join("ca.crt")).unwrap();
            Self { directory, server }
        })
    }

    /// The context for a build from `image`.
    fn context(&self, image: &str) -> tempfile::TempDir {
        let context = folder();
        finish(Command::new("cp").arg("-r").arg(self.directory.join(".")).arg(context.path()));
        fs_err::write(context.path().join("Dockerfile"), Base::dockerfile(image)).unwrap();
        context
    }
}

/// What the profile is inside the base image: the root that `export-profile` makes, the archive that
/// `export-image` makes, and the NAR sizes of its closure in all.
struct Reference {
    root: PathBuf,
    archive: PathBuf,
    closure: u64,
}

impl Reference {
    fn get(docker: &Docker, images: &Images, project: &Project) -> &'static Self {
        static REFERENCE: OnceLock<Reference> = OnceLock::new();
        REFERENCE.get_or_init(|| {
            let context = project.context(&images.offline);
            let name = tag("exported");
            fs_err::write(context.path().join("config.json"), r#"{"Cmd": ["my-program"]}"#).unwrap();
            let dockerfile = format!(
                "FROM {}\nCOPY . /src\nRUN nix-env --quiet -f /src -iA myEnv && mkdir /out && \
                 nix-store -q --size $(nix-store -qR ~/.nix-profile) >/out/sizes && export-profile --quiet /out/root && \
                 export-image --quiet --config /src/config.json --tag {name} /out/image.tar\n",
                images.offline
            );
            fs_err::write(context.path().join("Dockerfile"), dockerfile).unwrap();
            let image = tag("reference");
            finish(&mut docker.build(false, context.path(), &image));
            // The daemon may not see what these tests have mounted: no volume would be the same on both sides.
            let unpacked = scratch().join("reference");
            docker.unpack(&image, &unpacked);
            let out = unpacked.join("out");
            let sizes = fs_err::read_to_string(out.join("sizes")).unwrap();
            let closure = sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum();
            assert!(closure > 10_000_000, "{closure}");
            Self { root: out.join("root"), archive: out.join("image.tar"), closure }
        })
    }
}

/// The root holds the same files as the one that `export-profile` made. Engines make entries of their own.
fn same_files(reference: &Reference, root: &Path) {
    for place in ["nix", "run", "etc/ssl"] {
        let (ours, theirs) = (Tree::read(&reference.root.join(place)), Tree::read(&root.join(place)));
        // The time of the place itself is the builder's.
        let shape = |tree: &Tree| {
            let mut shape = tree.shape();
            shape.remove(Path::new(""));
            shape
        };
        assert_eq!(shape(&ours), shape(&theirs), "{place}");
    }
    finish(Command::new("diff").args(["-r", "--no-dereference"]).arg(reference.root.join("nix")).arg(root.join("nix")));
}

/// What an image made from `Dockerfile.example` has to do in Docker.
fn judge(docker: &Docker, reference: &Reference, project: &Project, image: &str) {
    let output = docker.run(&[], image, &[]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{GREETING}\n"));
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));

    let size: u64 =
        finish(docker.command().args(["image", "inspect", "--format", "{{.Size}}", image])).parse().unwrap();
    let most = reference.closure * 102 / 100;
    assert!(size <= most, "the image has {size} bytes, more than 1.02 times the closure's {}", reference.closure);
    assert!(size > reference.closure / 2, "{size} bytes are no such closure");

    tls(docker, project, image);
    let root = folder();
    docker.unpack(image, &root.path().join("root"));
    same_files(reference, &root.path().join("root"));
}

/// curl trusts the CA that the project brings, and nothing that is not signed for the name it asks.
fn tls(docker: &Docker, project: &Project, image: &str) {
    let curl = |host: &str| {
        let url = format!("https://{host}:{}/", project.server.port);
        let mut run = docker.command();
        run.args(["run", "--rm", "--network", "host", image, "curl", "--silent", "--show-error", "--max-time", "30"]);
        run.args(["--resolve", &format!("localhost:{}:127.0.0.1", project.server.port), &url]).output().unwrap()
    };
    let trusted = curl("localhost");
    let (stdout, stderr) = (String::from_utf8_lossy(&trusted.stdout), String::from_utf8_lossy(&trusted.stderr));
    assert!(trusted.status.success() && stdout.contains("s_server"), "{}: {stdout}{stderr}", trusted.status);
    let other = curl("127.0.0.1");
    assert_eq!(other.status.code(), Some(60), "{}", String::from_utf8_lossy(&other.stderr));
}

fn docker_builds(buildkit: bool, name: &str) {
    let Some(docker) = Docker::get() else { return };
    let base = Base::get();
    let images = base.in_docker(docker);
    let project = Project::get(base);
    let image = tag(name);
    finish(&mut docker.build(buildkit, project.context(&images.offline).path(), &image));
    judge(docker, Reference::get(docker, images, project), project, &image);
}

#[test]
fn the_classic_builder_makes_an_image_that_runs() {
    docker_builds(false, "classic");
}

#[test]
fn buildkit_makes_an_image_that_runs() {
    docker_builds(true, "buildkit");
}

#[test]
fn export_image_makes_the_same_image_without_a_builder() {
    let Some(docker) = Docker::get() else { return };
    let base = Base::get();
    let project = Project::get(base);
    let reference = Reference::get(docker, base.in_docker(docker), project);
    assert_eq!(docker.load(&reference.archive), format!("{}:latest", tag("exported")));
    let image = tag("exported");
    let output = docker.run(&[], &image, &[]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{GREETING}\n"));
    let root = folder();
    docker.unpack(&image, &root.path().join("root"));
    same_files(reference, &root.path().join("root"));
}

#[test]
fn buildah_makes_an_image_that_runs() {
    let (Some(docker), Some(buildah)) = (Docker::get(), Buildah::get()) else { return };
    let base = Base::get();
    let project = Project::get(base);
    let offline = base.in_buildah(buildah);
    let image = tag("buildah");
    let context = project.context(&offline);
    finish(buildah.without_network().args(["bud", "--tag", &image]).arg(context.path()));

    let container = finish(buildah.command().args(["from", &image]));
    assert_eq!(finish(buildah.without_network().args(["run", &container, "/run/profile/bin/my-program"])), GREETING);
    let reference = Reference::get(docker, base.in_docker(docker), project);
    let root = PathBuf::from(finish(buildah.command().args(["mount", &container])));
    let size = Tree::read(&root).bytes();
    assert!(size <= reference.closure * 102 / 100, "{size} bytes of a closure of {}", reference.closure);
    same_files(reference, &root);
    finish(buildah.command().args(["rm", &container]));
}
