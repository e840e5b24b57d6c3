//! What `export-image` writes, as skopeo, umoci and Nix see it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json as value};

use crate::support::{
    Export, FileSystem, ImageExport, Store, Tree, What, blob, files, finish, folder, json, names, root_for, script,
    unpack,
};

fn skopeo<const N: usize>(arguments: [&str; N]) -> String {
    finish(Command::new("skopeo").args(arguments))
}

/// The layers of an image by their digests.
fn digests(receipt: &Value) -> Vec<String> {
    let layers = receipt["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_unpacked_image_is_the_root_that_export_profile_makes() {
    if !root_for("umoci") {
        return;
    }
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    Export::new(store).profile(profile).root(at("root")).exports();
    for (name, layers) in [("many", "60"), ("few", "3"), ("one", "1")] {
        let receipt = ImageExport::new(store, profile, at(name)).args(["--tag", "x", "--layers", layers]).exports();
        assert!(receipt["layers"].as_array().unwrap().len() <= layers.parse().unwrap());
        let unpacked = unpack(&at(name), "x", &at(&format!("{name}-unpacked")));
        let shapes = |root: &Path| {
            let shape = |(path, entry): (std::path::PathBuf, crate::support::Entry)| {
                let size = if entry.what == What::File { entry.size } else { 0 };
                (path, entry.what, entry.mode, entry.time.0, entry.owner, size)
            };
            // The root directory itself is the engine's.
            Tree::read(root).0.into_iter().skip(1).map(shape).collect::<Vec<_>>()
        };
        assert_eq!(shapes(&unpacked), shapes(&at("root")), "{name}");
        assert!(files(&unpacked) == files(&at("root")), "{name}: other bytes");
    }
}

#[test]
fn equal_files_of_a_layer_are_one_inode_whatever_the_stores_inodes_are() {
    let (store, profile) = Store::with("everything");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| digests(&ImageExport::new(&store, &profile, at(name)).args(["--tag", "x"]).exports());
    let before = export("before");
    let inodes = |path: &Path| {
        let entries = Tree::read(path).0.into_values().filter(|entry| entry.what == What::File);
        entries.map(|entry| entry.inode).collect::<std::collections::BTreeSet<_>>().len()
    };
    let deep = store.closure(&profile).into_iter().find(|path| path.to_str().unwrap().ends_with("-deep")).unwrap();
    let of_the_store = inodes(&deep);
    store.optimise();
    assert_eq!(export("after"), before, "the store's hard links show");
    if root_for("umoci") {
        let root = unpack(&at("after"), "x", &at("unpacked"));
        let unpacked = inodes(&root.join(deep.strip_prefix("/").unwrap()));
        assert!(unpacked < of_the_store, "{unpacked} of {of_the_store} inodes");
        // 256 times `same`, and as many names of two other files each: of them one inode is left.
        assert_eq!(of_the_store - unpacked, 255);
    }
}

#[test]
fn many_equal_files_have_no_more_names_than_file_systems_take() {
    let Some(ext4) = FileSystem::ext4(64) else { return };
    let (store, profile) = Store::with("crowd");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    ImageExport::new(&store, &profile, at("l")).args(["--tag", "x"]).exports();
    let root = unpack(&at("l"), "x", &ext4.point.join("unpacked"));
    let tree = Tree::read(&root.join(profile.strip_prefix("/").unwrap()));
    let mut names: Vec<_> = tree.shared_inodes().iter().map(std::collections::BTreeSet::len).collect();
    names.sort_unstable();
    assert_eq!((names.len(), names[0], names[1], names[16]), (17, 2000, 4000, 4000));

    // Whatever the store's own inodes are.
    let (store, profile) = Store::with("throng");
    let export = |name: &str| digests(&ImageExport::new(&store, &profile, at(name)).exports());
    let before = export("before");
    store.optimise();
    assert_eq!(export("after"), before);
}

#[test]
fn a_path_that_many_engines_cannot_unpack_is_a_warning() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let name = "x".repeat(196);
    let mut place = at("over");
    for _ in 0..20 {
        place.push(&name);
    }
    fs_err::create_dir_all(place.parent().unwrap()).unwrap();
    fs_err::write(&place, "").unwrap();
    let export = ImageExport::new(&store, &profile, at("l")).args(["--tag", "x"]).arg("--rootfs").arg(at("over"));
    let (status, _, stderr) = export.run();
    let warning = "is a path of 3940 bytes: most container engines cannot unpack more than about 4,000";
    assert!(status == Some(0) && stderr.contains(warning), "{stderr}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (store, profile) = Store::shared();
    for compression in ["gzip", "zstd", "none"] {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        let export = |name: &str| {
            ImageExport::new(store, profile, at(name)).args(["--compression", compression, "--tag", "x:1"])
        };
        export("a").args(["--jobs", "1"]).exports();
        let first = files(&at("a"));
        for (name, jobs) in [("b", "2"), ("c", "7")] {
            export(name).args(["--jobs", jobs]).exports();
            assert!(files(&at(name)) == first, "{compression}: {jobs} jobs give other bytes");
        }
        if compression == "zstd" {
            continue;
        }
        export("a.tar").args(["--jobs", "1"]).exports();
        let archive = fs_err::read(at("a.tar")).unwrap();
        // Over an archive that is there, and out of a cache.
        for cached in [false, true, true] {
            let again = export("b.tar").arg("--cache").arg(at("cache"));
            let receipt = again.exports();
            let layers = receipt["layers"].as_array().unwrap();
            let from_cache = layers.iter().filter(|layer| layer["cached"] == true).count();
            if cached {
                assert_eq!(from_cache, if names(&at("cache")).is_empty() { 0 } else { layers.len() - 1 });
            }
            assert!(fs_err::read(at("b.tar")).unwrap() == archive, "{compression}: another archive");
        }
    }
}

#[test]
fn every_way_to_read_it_finds_the_image_by_its_name() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| {
        let export = ImageExport::new(store, profile, at(name)).args(["--tag", "localhost:5000/a/x", "--tag", "y:2"]);
        export.args(["--created", "2023-11-14T22:13:20Z", "--cmd", "tool", "--cmd", "-x"]).exports()
    };
    let (layout, archive) = (export("layout"), export("image.tar"));
    assert_eq!(layout["digest"], archive["digest"]);
    let (layout, archive) = (at("layout").display().to_string(), at("image.tar").display().to_string());
    for name in [
        format!("oci:{layout}:localhost:5000/a/x"),
        format!("oci:{layout}:y:2"),
        format!("oci-archive:{archive}:localhost:5000/a/x"),
        format!("docker-archive:{archive}:localhost:5000/a/x:latest"),
        format!("docker-archive:{archive}:y:2"),
    ] {
        let config: Value = serde_json::from_str(&skopeo(["inspect", "--config", &name])).unwrap();
        assert_eq!(config["created"], "2023-11-14T22:13:20Z", "{name}");
        assert_eq!(config["config"]["Cmd"], value!(["tool", "-x"]));
        // By its link, and by its store path where something is mounted over the link.
        assert_eq!(config["config"]["Env"], value!([format!("PATH=/run/profile/bin:{}/bin", profile.display())]));
        // Reads all blobs, and compares their digests.
        let copy = at("copy");
        skopeo(["copy", "--quiet", &name, &format!("dir:{}", copy.display())]);
        fs_err::remove_dir_all(copy).unwrap();
    }
    let index = json(&at("layout/index.json"));
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost:5000/a/x:latest");
    assert_eq!(index["manifests"][1]["annotations"]["io.containerd.image.name"], "docker.io/library/y:2");
    let tags = finish(Command::new("tar").arg("-xOf").arg(at("image.tar")).arg("manifest.json"));
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags[0]["RepoTags"], value!(["localhost:5000/a/x:latest", "y:2"]));
}

#[test]
fn images_for_several_platforms_become_one_under_one_name() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str, platform: &str| {
        ImageExport::new(&store, &profile, at(name)).args(["--tag", "x:1", "--platform", platform]).exports()
    };
    let amd = export("a", "linux/amd64");
    assert_eq!(json(&at("a/index.json"))["manifests"][0]["digest"], amd["digest"]);
    let arm = export("a", "linux/arm64");
    export("a", "linux/arm/v7");
    let index = json(&at("a/index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let all = json(&blob(&at("a"), &index["manifests"][0]["digest"]));
    let platforms: Vec<_> = all["manifests"].as_array().unwrap().iter().map(|image| &image["platform"]).collect();
    assert_eq!(
        platforms,
        [
            &value!({"os": "linux", "architecture": "amd64"}),
            &value!({"os": "linux", "architecture": "arm", "variant": "v7"}),
            &value!({"os": "linux", "architecture": "arm64"}),
        ]
    );
    assert_eq!((&all["manifests"][0]["digest"], &all["manifests"][2]["digest"]), (&amd["digest"], &arm["digest"]));
    // In another order, and once more.
    for platform in ["linux/arm64", "linux/arm/v7", "linux/arm64", "linux/amd64"] {
        export("b", platform);
    }
    assert_eq!(json(&at("b/index.json")), index);
    // Another name goes its own way.
    ImageExport::new(&store, &profile, at("a")).args(["--tag", "y", "--platform", "linux/amd64"]).exports();
    assert_eq!(json(&at("a/index.json"))["manifests"][0], index["manifests"][0]);
    let copy = format!("oci:{}:x:1", at("copy").display());
    skopeo(["copy", "--quiet", "--all", &format!("oci:{}:x:1", at("a").display()), &copy]);
    let read: Value = serde_json::from_str(&skopeo(["inspect", "--raw", &copy])).unwrap();
    assert_eq!(read["manifests"].as_array().unwrap().len(), 3);
}

#[test]
fn one_platform_by_two_names_is_one_image_the_newer() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for (old, new) in
        [("linux/arm64", "linux/arm64/v8"), ("linux/arm/v7", "linux/arm"), ("linux/x86_64", "linux/amd64/v1")]
    {
        let layout = at(&new.replace('/', "-"));
        let export = |platform: &str, command: &str| {
            let export = ImageExport::new(&store, &profile, &layout).args(["--tag", "x:1", "--platform", platform]);
            export.args(["--cmd", command]).exports()
        };
        export(old, "old");
        let receipt = export(new, "new");
        let index = json(&layout.join("index.json"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{new}");
        assert_eq!(index["manifests"][0]["digest"], receipt["digest"], "{new}");
        // Beside another platform too.
        export("linux/riscv64", "other");
        let receipt = export(old, "newest");
        let all = json(&blob(&layout, &json(&layout.join("index.json"))["manifests"][0]["digest"]));
        let digests: Vec<_> = all["manifests"].as_array().unwrap().iter().map(|image| &image["digest"]).collect();
        assert!(digests.len() == 2 && digests.contains(&&receipt["digest"]), "{new}: {all}");
    }
}

#[test]
fn runs_that_add_to_one_layout_at_once_lose_nothing() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let out = folder.path().join("l");
    let platforms = ["linux/amd64", "linux/arm64", "linux/386", "linux/riscv64"];
    std::thread::scope(|scope| {
        for platform in platforms {
            let export = ImageExport::new(&store, &profile, &out).args(["--tag", "x", "--platform", platform]);
            // The drafts of the others may still be there.
            scope.spawn(move || assert_eq!(export.run().0, Some(0), "{platform}"));
        }
    });
    let index = json(&out.join("index.json"));
    let all = json(&blob(&out, &index["manifests"][0]["digest"]));
    assert_eq!(all["manifests"].as_array().unwrap().len(), platforms.len(), "{all}");
    skopeo(["inspect", "--raw", &format!("oci:{}:x", out.display())]);
}

#[test]
fn an_image_of_another_program_under_the_name_gets_a_second_platform() {
    if !root_for("umoci") {
        return;
    }
    let (store, profile) = Store::with("small");
    let folder = folder();
    let layout = folder.path().join("l");
    for arguments in [["init", "--layout"], ["new", "--image"]] {
        let image = format!("{}{}", layout.display(), if arguments[0] == "new" { ":x" } else { "" });
        finish(Command::new("umoci").args(arguments).arg(image));
    }
    let other = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    ImageExport::new(&store, &profile, &layout).args(["--tag", "x", "--platform", other]).exports();
    let index = json(&layout.join("index.json"));
    let all = json(&blob(&layout, &index["manifests"][0]["digest"]));
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2, "{all}");
}

#[test]
fn a_store_path_with_a_layer_of_its_own_has_one_digest_in_all_images() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let small = store.build("small");
    let one = ImageExport::new(store, profile, folder.path().join("a")).exports();
    let two = ImageExport::new(store, &small, folder.path().join("b")).exports();
    let layer_of = |receipt: &Value, name: &str| {
        let layers = receipt["layers"].as_array().unwrap().clone();
        let has = |layer: &Value| {
            let paths = layer["storePaths"].as_array().unwrap();
            paths.len() == 1 && paths[0].as_str().unwrap().ends_with(name)
        };
        layers.into_iter().find(has).unwrap()["digest"].clone()
    };
    assert_eq!(layer_of(&one, "-program"), layer_of(&two, "-program"));
}

#[test]
fn config_file_and_options_mean_the_same() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let config = value!({
        "Env": ["A=1", "PATH=/bin"], "Cmd": ["-c", "x"], "Entrypoint": ["sh"], "User": "1000:100", "WorkingDir": "/root",
        "Labels": {"a": "b=c"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGINT"
    });
    fs_err::write(at("config.json"), config.to_string()).unwrap();
    let file = ImageExport::new(&store, &profile, at("file")).arg("--config").arg(at("config.json")).exports();
    let options = ImageExport::new(&store, &profile, at("options"))
        .args(["--env", "A=1", "--env", "PATH=/bin", "--cmd", "-c", "--cmd", "x", "--entrypoint", "sh"])
        .args(["--user", "1000:100", "--working-dir", "/root", "--label", "a=b=c", "--expose", "80/tcp"])
        .args(["--volume", "/data", "--stop-signal", "SIGINT"])
        .exports();
    assert_eq!(file["digest"], options["digest"]);
    assert_eq!(json(&blob(&at("file"), &file["config"]))["config"], config);
    let both = ImageExport::new(&store, &profile, at("both")).arg("--config").arg(at("config.json"));
    let both = both.args(["--env", "A=2", "--cmd", "y"]).env("SOURCE_DATE_EPOCH", "1700000000").exports();
    let read = json(&blob(&at("both"), &both["config"]));
    assert_eq!(read["config"]["Env"], value!(["A=2", "PATH=/bin"]));
    assert_eq!(read["config"]["Cmd"], value!(["y"]));
    assert_eq!(read["created"], "2023-11-14T22:13:20Z");
    let path = ImageExport::new(&store, &profile, at("path")).args(["--profile-path", "/opt/p"]).exports();
    let expected = value!([format!("PATH=/opt/p/bin:{}/bin", profile.display())]);
    assert_eq!(json(&blob(&at("path"), &path["config"]))["config"]["Env"], expected);
}

#[test]
fn a_folder_laid_over_the_root_keeps_its_modes_and_wins() {
    if !root_for("umoci") {
        return;
    }
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs_err::create_dir_all(at("over/tmp")).unwrap();
    fs_err::create_dir_all(at("over/etc")).unwrap();
    fs_err::write(at("over/etc/deep"), "mine").unwrap();
    fs_err::write(at("again"), "").unwrap();
    fs_err::create_dir(at("second")).unwrap();
    fs_err::write(at("second/file"), "of the second").unwrap();
    crate::support::set_mode(&at("over/tmp"), 0o1777);
    crate::support::set_mode(&at("over/etc/deep"), 0o640);
    nix::unistd::chown(&at("over/etc/deep"), Some(7.into()), Some(7.into())).unwrap();
    let export = ImageExport::new(store, profile, at("l")).args(["--tag", "x"]);
    export.arg("--rootfs").arg(at("over")).arg("--rootfs").arg(at("second")).exports();
    let root = unpack(&at("l"), "x", &at("unpacked"));
    let tree = Tree::read(&root).0;
    let entry = |path: &str| &tree[Path::new(path)];
    assert_eq!((entry("tmp").mode, entry("tmp").owner, entry("tmp").time.0), (0o1777, (0, 0), 1));
    assert_eq!((entry("etc/deep").mode, entry("etc/deep").owner, entry("etc/deep").time.0), (0o640, (0, 0), 1));
    assert_eq!(fs_err::read_to_string(root.join("etc/deep")).unwrap(), "mine");
    assert_eq!(fs_err::read_to_string(root.join("file")).unwrap(), "of the second");
}

#[test]
fn the_nix_database_of_an_image_knows_its_store_paths_and_no_others() {
    if !root_for("umoci") {
        return;
    }
    let (store, profile) = Store::with("everything");
    let small = store.build("small");
    store.build("abyss");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| {
        let export = ImageExport::new(&store, &profile, at(name)).args(["--tag", "x", "--nix-database"]);
        export.arg("--include").arg(&small).exports()
    };
    let receipt = export("a b%");
    assert_eq!(export("again")["digest"], receipt["digest"]);
    let root = unpack(&at("a b%"), "x", &at("unpacked"));
    assert_eq!(names(&root.join("nix/var/nix/db")), ["db.sqlite", "schema"]);
    let nix = |arguments: &[&str]| {
        let mut command = store.nix_store();
        let real = root.join(store.directory.strip_prefix("/").unwrap());
        let remote = format!("local?root={}&real={}", root.display(), real.display());
        command.env("NIX_REMOTE", remote).env_remove("NIX_STATE_DIR");
        finish(command.args(arguments))
    };
    nix(&["--verify", "--check-contents"]);
    let mut expected = store.closure(&profile);
    expected.extend(store.closure(&small));
    expected.sort();
    expected.dedup();
    let registered = finish(
        Command::new("sqlite3")
            .arg(root.join("nix/var/nix/db/db.sqlite"))
            .arg("select path from ValidPaths order by path; select distinct registrationTime from ValidPaths"),
    );
    let expected: Vec<_> = expected.iter().map(|path| path.to_str().unwrap()).chain(["1"]).collect();
    assert_eq!(registered.lines().collect::<Vec<_>>(), expected);
    assert_eq!(names(&root.join("nix/var/nix/gcroots/nixkit")).len(), 2);
    // Nothing can be collected. (Where roots lie is read relative to the real root.)
    let link = |path: &Path| fs_err::read_link(root.join("nix/var/nix/gcroots/nixkit").join(path.file_name().unwrap()));
    assert_eq!((link(&profile).unwrap(), link(&small).unwrap()), (profile.clone(), small.clone()));
}

#[test]
fn an_interrupted_run_leaves_a_layout_as_it_was() {
    let (store, profile) = Store::with("everything");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    ImageExport::new(&store, &profile, at("out/l")).refuses(1, &["its parent", "does not exist"]);
    fs_err::create_dir(at("out")).unwrap();
    fs_err::create_dir(at("bin")).unwrap();
    let real = which::which("sqlite3").unwrap();
    // sqlite3 runs when the draft is there.
    script(&at("bin/sqlite3"), &format!("kill -TERM $PPID; exec {} \"$@\"", real.display()));
    ImageExport::new(&store, &profile, at("out/l")).args(["--tag", "x"]).exports();
    for out in ["out/l", "out/new", "out/new.tar"] {
        let export = ImageExport::new(&store, &profile, at(out)).args(["--tag", "x", "--nix-database", "--cmd", "y"]);
        export.programs_in(&at("bin")).refuses(143, &["interrupted by SIGTERM; nothing was written"]);
    }
}

#[test]
fn podman_loads_the_archive() {
    if !root_for("podman") {
        return;
    }
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    ImageExport::new(&store, &profile, at("x.tar")).args(["--tag", "localhost/nixkit-test:1", "--cmd", "x"]).exports();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(at("storage")).arg("--runroot").arg(at("run"));
        finish(command.args(["--storage-driver", "vfs"]).args(arguments).current_dir(folder.path()))
    };
    podman(&["load", "--quiet", "--input", "x.tar"]);
    let listed = podman(&["image", "inspect", "localhost/nixkit-test:1", "--format", "{{.Config.Cmd}}"]);
    assert_eq!(listed, "[x]");
}

#[test]
fn annotations_are_the_manifests_and_those_of_all_platforms_the_indexs() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let layout = folder.path().join("l");
    let export = |platform: &str, annotations: [&str; 2]| {
        let export = ImageExport::new(&store, &profile, &layout).args(["--tag", "x", "--platform", platform]);
        let export = annotations.iter().fold(export, |export, annotation| export.args(["--annotation", annotation]));
        json(&blob(&layout, &export.exports()["digest"]))
    };
    let manifest = export("linux/amd64", ["a=same", "b=amd=64"]);
    assert_eq!(manifest["annotations"], value!({"a": "same", "b": "amd=64"}));
    export("linux/arm64", ["a=same", "b=arm64"]);
    let entry = &json(&layout.join("index.json"))["manifests"][0];
    let index = json(&blob(&layout, &entry["digest"]));
    assert_eq!(index["annotations"], value!({"a": "same"}));
    assert_eq!(index["manifests"][0]["annotations"], value!({"a": "same", "b": "amd=64"}));
    // Without the option there is none, as before.
    let plain = ImageExport::new(&store, &profile, folder.path().join("plain")).args(["--tag", "x"]).exports();
    let manifest = json(&blob(&folder.path().join("plain"), &plain["digest"]));
    assert_eq!(manifest.get("annotations"), None);
}
