//! What `export-image` does not take: bad words, bad files, bad layouts, and no room.

use std::path::Path;
use std::process::Command;

use crate::support::{FileSystem, ImageExport, Store, blob, finish, folder, json};

#[test]
fn words_that_make_no_sense_are_usage_errors() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let export = ImageExport::new(&store, &profile, folder.path().join("l"));
    for (arguments, words) in [
        (
            &["--layers", "0"][..],
            &["--layers <N>", "it is not a number from 1 to 120. Docker takes 125 layers at most"][..],
        ),
        (&["--layers", "121"], &["it is not a number from 1 to 120. Docker takes 125 layers at most"]),
        (&["--tag", "Bad"], &["--tag <NAME>", "`Bad` is not a name"]),
        (&["--tag", ""], &["is not a name"]),
        (&["--tag", "x@sha256:0"], &["a digest follows"]),
        (&["--platform", "linux/z80"], &["`z80` is not one of 386, amd64, arm"]),
        (&["--platform", "plan9"], &["it is not OS/ARCH"]),
        (&["--compression", "lzma"], &["possible values: gzip, zstd, none"]),
        (&["--level", "12"], &["`--level 12` is too high for gzip"]),
        (&["--level", "20", "--compression", "zstd"], &["20 is not in 1..=19"]),
        (&["--level", "1", "--compression", "none"], &["makes no sense without compression"]),
        (&["--created", "yesterday"], &["it is not `now`, seconds since 1970"]),
        (&["--env", "X"], &["`X` cannot stand here: it is not NAME=VALUE"]),
        (&["--label", "X"], &["it is not NAME=VALUE"]),
        (&["--annotation", "X"], &["--annotation <K=V>", "it is not NAME=VALUE"]),
        (&["--user", "a b"], &["it is not NAME or UID"]),
        (&["--working-dir", "root"], &["no absolute path"]),
        (&["--expose", "0"], &["it is not PORT"]),
        (&["--volume", "x"], &["no absolute path"]),
        (&["--stop-signal", "TERM"], &["it is no signal"]),
        (&["--profile-path", "run/profile"], &["cannot be the profile's path"]),
        (&["--jobs", "0"], &["0 is not in 1..=1024"]),
    ] {
        let export = arguments.iter().fold(export.clone(), ImageExport::arg);
        export.refuses(2, words);
    }
    export.clone().out("").refuses(2, &["a value is required for '<OUT>'"]);
    export.env("SOURCE_DATE_EPOCH", "x").refuses(1, &["SOURCE_DATE_EPOCH is `x`"]);
}

#[test]
fn files_and_folders_that_are_not_what_they_should_be_are_named() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = ImageExport::new(&store, &profile, at("l"));
    fs_err::write(at("config.json"), "{\n  \"Env\": [\"A=1\"],\n  \"Evn\": []\n}").unwrap();
    fs_err::create_dir_all(at("over").join(store.directory.strip_prefix("/").unwrap()).join("x")).unwrap();
    fs_err::create_dir(at("whiteout")).unwrap();
    fs_err::write(at("whiteout/.wh.etc"), "").unwrap();
    fs_err::write(at("file"), "").unwrap();
    fs_err::create_dir(at("directory.tar")).unwrap();
    fs_err::create_dir(at("other")).unwrap();
    fs_err::write(at("other/file"), "").unwrap();
    for (option, path, words) in [
        ("--config", "config.json", &["config.json", "unknown field `Evn`", "line 3 column 7"][..]),
        ("--config", "missing", &["missing", "No such file"]),
        ("--rootfs", "missing", &["cannot lay", "missing"]),
        ("--rootfs", "file", &["it is not a directory"]),
        ("--rootfs", "over", &["would lie in the store"]),
        ("--rootfs", "whiteout", &["`.wh.etc` cannot be in an image"]),
        ("--include", "missing", &["missing", "it does not exist"]),
    ] {
        export.clone().arg(option).arg(at(path)).refuses(1, words);
    }
    for (out, words) in [
        ("directory.tar", &["it exists and is no regular file"][..]),
        ("file", &["it exists and is no directory"]),
        ("missing/l", &["does not exist", "hint: make it first"]),
        ("missing/l.tar", &["does not exist"]),
        ("other", &["it is no OCI layout", "hint: name a layout"]),
    ] {
        export.clone().out(at(out)).refuses(1, words);
    }
    export.clone().out(store.directory.join("l")).refuses(1, &["inside the store directory"]);
    export.clone().out(store.directory.join("l.tar")).refuses(1, &["inside the store directory"]);
    fs_err::create_dir(at("bin")).unwrap();
    std::os::unix::fs::symlink(which::which("nix-store").unwrap(), at("bin/nix-store")).unwrap();
    export.env("PATH", at("bin")).arg("--nix-database").refuses(1, &["cannot find `sqlite3` in PATH", "hint: "]);
}

/// Damages the layout in this folder.
type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn a_damaged_layout_is_refused_and_left_alone() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| ImageExport::new(&store, &profile, at(name)).args(["--tag", "x"]);
    let receipt = export("good").exports();
    let layer = &receipt["layers"][0]["digest"];
    let damage: [(&str, Damage<'_>, &[&str]); 10] = [
        ("no-version", &|l| fs_err::remove_file(l.join("oci-layout")).unwrap(), &["it has no file `oci-layout`"]),
        ("bad-version", &|l| fs_err::write(l.join("oci-layout"), "{}").unwrap(), &["version 1.0.0"]),
        ("no-json", &|l| fs_err::write(l.join("oci-layout"), "x").unwrap(), &["`oci-layout` cannot be read"]),
        (
            "no-index",
            &|l| fs_err::remove_file(l.join("index.json")).unwrap(),
            &["the layout is damaged", "index.json", "hint: make it anew"],
        ),
        (
            "cut-index",
            &|l| fs_err::write(l.join("index.json"), "{\"schemaVersion\":2,").unwrap(),
            &["it is no image index"],
        ),
        ("no-layer", &|l| fs_err::remove_file(blob(l, layer)).unwrap(), &["is missing"]),
        ("short-layer", &|l| fs_err::write(blob(l, layer), "x").unwrap(), &["has 1 bytes, not"]),
        ("no-manifest", &|l| fs_err::remove_file(blob(l, &receipt["digest"])).unwrap(), &["is missing"]),
        (
            "other-manifest",
            &|l| {
                let text = fs_err::read_to_string(blob(l, &receipt["digest"])).unwrap();
                fs_err::write(blob(l, &receipt["digest"]), text.replace("layer", "lAyer")).unwrap();
            },
            &["does not have this digest"],
        ),
        (
            "bad-digest",
            &|l| {
                let text = fs_err::read_to_string(l.join("index.json")).unwrap();
                fs_err::write(l.join("index.json"), text.replace("sha256:", "sha256:../")).unwrap();
            },
            &["is no digest"],
        ),
    ];
    for (name, damage, words) in damage {
        finish(Command::new("cp").arg("-r").arg(at("good")).arg(at(name)));
        damage(&at(name));
        export(name).refuses(1, words);
    }
}

#[test]
fn what_others_put_into_a_layout_stays() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |tag: &str| ImageExport::new(&store, &profile, at("l")).args(["--tag", tag]);
    export("x").exports();
    let mut index = json(&at("l/index.json"));
    index["annotations"] = serde_json::json!({"a": "b"});
    index["manifests"][0]["artifactType"] = "t".into();
    index["manifests"][0]["annotations"]["c"] = "d".into();
    fs_err::write(at("l/index.json"), index.to_string()).unwrap();
    export("y").exports();
    let after = json(&at("l/index.json"));
    assert_eq!(after["annotations"], index["annotations"]);
    assert_eq!(after["manifests"][0], index["manifests"][0]);
    assert_eq!(after["manifests"].as_array().unwrap().len(), 2);
    // The same name and platform again: replaced, not added.
    export("y").args(["--cmd", "z"]).exports();
    assert_eq!(json(&at("l/index.json"))["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn without_room_nothing_is_half_written() {
    let Some(room) = FileSystem::tmpfs("size=1m") else { return };
    let (store, profile) = Store::shared();
    for out in ["l", "l.tar"] {
        let export = ImageExport::new(store, profile, room.point.join(out)).args(["--compression", "none"]);
        export.refuses(1, &["no space left for the image in", "hint: make room"]);
    }
}
