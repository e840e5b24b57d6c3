//! `export-profile --layers N`: what lies where, what changes from build to build, and what a second push sends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::engine::{Buildah, Docker, Registry};
use crate::support::{Export, Store, Tree, call, finish, folder, names, scratch};

/// A closure in the shape of a real one, and the same with one package built anew.
struct Builds {
    store: Store,
    /// By the package that was changed; none for the first.
    profiles: BTreeMap<&'static str, PathBuf>,
}

/// At the end of the references, in their middle, and what everything needs.
const CHANGED: [&str; 3] = ["hello-2.10", "libidn2-0-2.3.3", "glibc-2.36"];

impl Builds {
    fn get() -> &'static Self {
        static BUILDS: OnceLock<Builds> = OnceLock::new();
        BUILDS.get_or_init(|| {
            let store = Store::new();
            let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layers.nix");
            let build = |changed: &'static str| {
                let mut build = store.command("nix-build");
                build.arg(&fixture).args(["--no-out-link", "-A", "user-environment", "--argstr", "changed", changed]);
                (changed, PathBuf::from(finish(&mut build)))
            };
            let profiles = ["", CHANGED[0], CHANGED[1], CHANGED[2]].map(build).into_iter().collect();
            Self { store, profiles }
        })
    }

    fn export(&self, changed: &str, layers: &str, root: &Path) -> Vec<String> {
        let export = Export::new(&self.store).profile(&self.profiles[changed]).args(["--layers", layers, "--quiet"]);
        // No links: to tar a file has changed when a test beside this one links the same inode.
        let outcome = export.args(["--link-mode", "copy"]).root(root).run();
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""));
        outcome.stdout.lines().map(str::to_owned).collect()
    }

    /// Store paths that are in the closure with `changed`, and not in the first.
    fn new_paths(&self, changed: &str) -> Vec<PathBuf> {
        let first: BTreeSet<_> = self.store.closure(&self.profiles[""]).into_iter().collect();
        self.store.closure(&self.profiles[changed]).into_iter().filter(|path| !first.contains(path)).collect()
    }
}

#[test]
fn n_roots_are_one_when_laid_over_each_other() {
    let builds = Builds::get();
    let folder = folder();
    let whole = folder.path().join("whole");
    let plain = Export::new(&builds.store).profile(&builds.profiles[""]).root(&whole).exports();
    let expected = Tree::read(&whole);
    for count in [1, 5, 60] {
        let root = folder.path().join(count.to_string());
        let export = Export::new(&builds.store).profile(&builds.profiles[""]).args(["--layers", &count.to_string()]);
        let outcome = export.arg("--verify").root(&root).run();
        let copy = |number: usize| format!("COPY --from=build {}/{number} /\n", root.display());
        let lines: String = (0..count).map(copy).collect();
        assert_eq!((outcome.status.code(), outcome.stdout), (Some(0), lines));
        let mut layers = names(&root);
        layers.sort_by_key(|name| name.parse::<usize>().unwrap());
        assert_eq!(layers, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
        let mut all = Tree::default();
        for layer in &layers {
            for (path, entry) in Tree::read(&root.join(layer)).0 {
                let before = all.0.insert(path.clone(), entry);
                let is_shared = ["", "nix", "nix/store"].contains(&path.to_str().unwrap())
                    || builds.store.directory.starts_with(Path::new("/").join(&path));
                assert!(before.is_none() || is_shared, "`{}` is in two layers", path.display());
            }
        }
        assert!(all.shape() == expected.shape(), "{count} layers");
        assert!(
            root.join((count - 1).to_string()).join("etc/passwd").is_file(),
            "the last has what is beside the store"
        );
    }
    // With more layers than store paths those between are empty, and the profile's stays the last.
    let is_empty = |number: usize| names(&folder.path().join("60").join(number.to_string())).is_empty();
    assert_eq!((0..60).filter(|&number| is_empty(number)).collect::<Vec<_>>(), (42..59).collect::<Vec<_>>());

    // The receipt has the same lines and the sizes.
    let root = folder.path().join("json");
    let export = Export::new(&builds.store).profile(&builds.profiles[""]).args(["--layers", "5", "--json"]);
    let receipt = export.root(&root).run().receipt();
    let copies: Vec<_> = receipt.layers.iter().map(|layer| layer.copy.clone()).collect();
    assert_eq!(copies, (0..5).map(|k| format!("COPY --from=build {}/{k} /", root.display())).collect::<Vec<_>>());
    assert_eq!(receipt.layers.iter().map(|layer| layer.store_paths).sum::<u64>(), plain.store_paths);
    let size = builds.store.nar_size(&builds.profiles[""]);
    assert_eq!(receipt.layers.iter().map(|layer| layer.nar_size).sum::<u64>(), size);
    assert_eq!((receipt.files, receipt.bytes), (plain.files, plain.bytes));
}

#[test]
fn names_with_blanks_are_copied_by_a_list() {
    let builds = Builds::get();
    let folder = folder();
    let root = folder.path().join("my $root");
    let lines = builds.export("", "1", &root);
    assert_eq!(lines, [format!("COPY --from=build [\"{}/my \\\\$root/0\",\"/\"]", folder.path().display())]);
    let outcome = Export::new(&builds.store).profile(&builds.profiles[""]).args(["--layers", "0"]).root(&root).run();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
}

/// What identifies a layer: a digest of its files with their names, modes and links.
fn digest(layer: &Path) -> String {
    let tar = "tar --sort=name --numeric-owner --mtime=@1 -C \"$1\" -c . | sha256sum";
    call("sh", [&"-c", &tar, &"sh", &layer])
}

/// The update of a package changes the layers of what was built anew and, where there are fewer layers than paths,
/// what shares one with it. Of this closure, 8.3 MB in 43 paths, these bytes are in layers that change, and these are
/// the new paths' own.
#[test]
fn an_update_changes_few_bytes_in_layers() {
    let builds = Builds::get();
    let mut measured = Vec::new();
    for count in ["60", "30", "16", "8"] {
        let folder = folder();
        let digests = |changed: &str| -> Vec<(String, u64)> {
            let root = folder.path().join(format!("root-{changed}"));
            let export = Export::new(&builds.store).profile(&builds.profiles[changed]);
            let receipt = export.args(["--layers", count, "--json"]).root(&root).run().receipt();
            let layers = receipt.layers.iter().enumerate();
            layers.map(|(number, layer)| (digest(&root.join(number.to_string())), layer.nar_size)).collect()
        };
        let before: BTreeSet<_> = digests("").into_iter().map(|(digest, _)| digest).collect();
        for changed in CHANGED {
            let after = digests(changed);
            let sent: u64 = after.iter().filter(|(digest, _)| !before.contains(digest)).map(|(_, size)| size).sum();
            let sizes = finish(builds.store.nix_store().args(["--query", "--size"]).args(builds.new_paths(changed)));
            let new: u64 = sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum();
            measured.push((count, changed, sent / 1000, new / 1000));
        }
    }
    // Layers, what changed, kB in changed layers. With layers enough it is what was built anew and nothing else.
    let most = [
        ("30", CHANGED[0], 129),
        ("30", CHANGED[1], 4781),
        ("30", CHANGED[2], 8348),
        ("16", CHANGED[0], 592),
        ("16", CHANGED[1], 5483),
        ("16", CHANGED[2], 8348),
        ("8", CHANGED[0], 1929),
        ("8", CHANGED[1], 7047),
        ("8", CHANGED[2], 8348),
    ];
    let (enough, fewer) = measured.split_at(CHANGED.len());
    assert!(enough.iter().all(|(_, _, sent, new)| sent == new), "{measured:#?}");
    assert_eq!(fewer.len(), most.len());
    for (found, most) in fewer.iter().zip(most) {
        assert_eq!((found.0, found.1), (most.0, most.1));
        // A NAR's size has the length of the store's path in it.
        assert!(found.2 <= most.2 * 101 / 100 + 2, "{measured:#?}");
    }
}

/// Size and digest of each layer of an image in a registry.
fn layers_in(registry: &Registry, image: &str) -> BTreeMap<String, u64> {
    let raw = format!("docker://{}/{image}", registry.address);
    let manifest = finish(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &raw]));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap_or_else(|| panic!("{manifest:#}"));
    layers.iter().map(|layer| (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())).collect()
}

/// Each of `paths` as a compressed layer of its own, in bytes.
fn as_layers(paths: &[PathBuf]) -> u64 {
    let tar = "for path; do tar -c \"$path\" 2>/dev/null | gzip -n | wc -c; done";
    let sizes = finish(Command::new("sh").args(["-c", tar, "sh"]).args(paths));
    sizes.lines().map(|size| size.trim().parse::<u64>().unwrap()).sum()
}

/// Builds and pushes the closure twice, with a package changed between. Says how many bytes are new in the registry
/// after the second push, and how many those of the changed paths would be.
fn second_push(name: &str, build_and_push: &dyn Fn(&Path, &str)) -> Option<(u64, u64)> {
    const UPDATED: &str = "libidn2-0-2.3.3";
    let registry = Registry::start()?;
    let builds = Builds::get();
    let mut layers = Vec::new();
    for changed in ["", UPDATED] {
        let context = scratch().join(format!("layers-{name}-{}", changed.len()));
        fs_err::create_dir(&context).unwrap();
        let root = context.join("dist");
        let lines = builds.export(changed, "30", &root).join("\n").replace(root.to_str().unwrap(), "/dist");
        // As an archive: from the context BuildKit takes directories without their times, which it keeps from a RUN.
        call("tar", [&"-C", &context, &"-cf", &context.join("dist.tar"), &"--remove-files", &"dist"]);
        let dockerfile = format!("FROM scratch AS build\nADD dist.tar /\nFROM scratch\n{lines}\n");
        fs_err::write(context.join("Dockerfile"), dockerfile).unwrap();
        let image = format!("{name}:build{}", changed.len());
        build_and_push(&context, &format!("{}/{image}", registry.address));
        layers.push(layers_in(&registry, &image));
        fs_err::remove_dir_all(&context).unwrap();
    }
    assert!(layers[0].len() >= 30, "{layers:?}");
    let sent = layers[1].iter().filter(|(digest, _)| !layers[0].contains_key(*digest)).map(|(_, size)| size).sum();
    Some((sent, as_layers(&builds.new_paths(UPDATED))))
}

fn judge((sent, changed): (u64, u64)) {
    assert!(changed > 1_000_000 / 8 && sent > 0, "{sent} bytes sent of {changed} changed");
    assert!(sent <= changed * 110 / 100, "{sent} bytes sent where {changed} have changed");
}

#[test]
fn with_buildkit_a_second_push_sends_what_changed() {
    let Some(docker) = Docker::get() else { return };
    let build_and_push = |context: &Path, image: &str| {
        finish(&mut docker.build(true, context, image));
        finish(docker.command().args(["push", "--quiet", image]));
        finish(docker.command().args(["rmi", "--force", image]));
    };
    if let Some(pushed) = second_push("buildkit", &build_and_push) {
        judge(pushed);
    }
}

#[test]
fn with_buildah_a_second_push_sends_what_changed() {
    let Some(buildah) = Buildah::get() else { return };
    let build_and_push = |context: &Path, image: &str| {
        // Without `--layers` buildah makes one layer of all.
        finish(buildah.command().args(["bud", "--quiet", "--layers", "--tag", image]).arg(context));
        finish(buildah.command().args(["push", "--quiet", "--tls-verify=false", image]));
    };
    if let Some(pushed) = second_push("buildah", &build_and_push) {
        judge(pushed);
    }
}
