//! The whole way with the recipe that comes with this repository: from a commit of a nixpkgs that real Nix builds to
//! an image in a registry, judged by `image/test` on the way.

use std::path::Path;

use super::{Scene, finished, here, native, repository, tags_of};
use crate::support::{Nixpkgs, Registry, Store, finish, folder, nixkit, root_for};

#[test]
fn the_real_recipe_goes_the_whole_way() {
    // image/test runs the image, in a chroot where there is no engine.
    if !root_for("running an image") {
        return;
    }
    let file = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let store = Store::of_the_machine();
    let tree = folder();
    finish(store.command(file("tests/nixpkgs/freeze").to_str().unwrap()).arg(tree.path()));
    let settings = format!("systems = [\"{}\"]\nstable = 1\nhistory = 1\nRELEASES", here());
    let mut scene = Scene::with(Registry::start(), &settings);
    scene.nixpkgs = Nixpkgs::of(tree.path());
    scene.configure(&scene.registry.address.clone());
    let channel = "nixos-26.05";
    let commit = scene.update(channel, "26.05.7273");

    let recipe = file("image");
    let toolkit = nixkit();
    let run = || {
        let words = ["--recipe", recipe.to_str().unwrap(), "--toolkit", toolkit.to_str().unwrap(), "--json"];
        let mut command = scene.command(&[]);
        let config = scene.beside("recipe/channels.toml");
        let mut again = std::process::Command::new(command.get_program());
        again.args(words).arg("--config").arg(config).arg("--system").arg(here()).envs(store.environment());
        command = again;
        command.env("TMPDIR", scene.beside("tmp")).env("HOME", scene.folder.path()).current_dir(scene.folder.path());
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let (status, stdout, stderr) = finished(command.spawn().unwrap());
        assert_eq!(status, 0, "{stderr}");
        (serde_json::from_str::<serde_json::Value>(&stdout).unwrap(), stderr)
    };
    let (receipt, stderr) = run();
    assert_eq!(receipt["jobs"][0]["outcome"], "done", "{stderr}");
    assert_eq!(receipt["jobs"][0]["built"], serde_json::json!([here()]));
    assert!(stderr.contains("ok      a profile is installed, exported and run\n"), "image/test judged it: {stderr}");
    assert_eq!(scene.tags(channel), tags_of(&commit, &["26.05.7273", "latest"]));
    for tag in [&commit, "26.05.7273", "latest"] {
        let images = scene.registry.images(&repository(channel), tag);
        let labels = &images[native()];
        assert_eq!(labels["org.opencontainers.image.revision"], commit);
        assert_eq!(labels["org.opencontainers.image.version"], "26.05.7273");
        assert_eq!(labels["io.github.nixkit.channel"], channel);
        let hash = finish(std::process::Command::new(recipe.join("input-hash")).args([&commit, here()]));
        assert_eq!(labels["io.github.nixkit.input-hash"], hash);
    }
    let (receipt, _) = run();
    assert_eq!(receipt["jobs"], serde_json::json!([]));
}
