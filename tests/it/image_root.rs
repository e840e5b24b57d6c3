//! The root of an image and how a container runs in it: users, the working directory, `PATH`, folders of `--rootfs`.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json as value};

use crate::complete_root::Programs;
use crate::support::engine::{Containerd, Docker, tag};
use crate::support::{FileSystem, ImageExport, Store, Tree, blob, finish, folder, installed, json, root_for, unpack};

/// The config of an image in a layout.
fn config(layout: &Path, receipt: &Value) -> Value {
    json(&blob(layout, &receipt["config"]))["config"].clone()
}

/// An archive of the programs, with an image called `name`.
fn archive_of_programs(name: &str, options: &[&str], out: &Path) {
    let Programs { store, profiles, .. } = Programs::get();
    let mut export = Command::new(installed().join("export-image"));
    export.env_clear().envs(store.environment()).args(["--quiet", "--tag", name]).args(options);
    for profile in profiles {
        export.arg("--profile").arg(profile);
    }
    finish(export.arg(out));
}

#[test]
fn users_become_numbers_that_engines_can_run_or_are_refused() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs_err::create_dir_all(at("over/etc")).unwrap();
    fs_err::write(at("over/etc/passwd"), "root:x:0:0::/:\nme:x:1234:5678::/:\n").unwrap();
    fs_err::write(at("over/etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
    // As an option and in a file it is the same.
    let exports = |user: &str| {
        let config = value!({ "User": user }).to_string();
        fs_err::write(at("config.json"), config).unwrap();
        let export = ImageExport::new(&store, &profile, at("l"));
        [export.clone().args(["--user", user]), export.arg("--config").arg(at("config.json"))]
    };
    for (user, plain, with_passwd) in [
        ("0", "0", "0"),
        ("1000:100", "1000:100", "1000:100"),
        ("2147483647", "2147483647", "2147483647"),
        ("007:08", "7:8", "7:8"),
        ("root", "0:0", "0:0"),
        ("nonroot:0", "65532:0", ""),
        ("me", "1000:1000", "1234:5678"),
        ("me:77", "77:77", "1234:77"),
        ("me:staff", "", "1234:50"),
        ("1000:staff", "", "1000:50"),
        ("me:0", "", "1234:0"),
    ] {
        for export in exports(user) {
            for (expected, export) in [(plain, export.clone()), (with_passwd, export.arg("--rootfs").arg(at("over")))] {
                // The groups of every root may become more.
                if expected.is_empty() {
                    continue;
                }
                let receipt = export.exports();
                assert_eq!(config(&at("l"), &receipt)["User"], expected, "{user}");
            }
        }
    }
    for (user, words) in [
        (
            "me:0",
            "user `me:0`: the image has no user `me`, and `me:0` cannot be added as NAME or NAME:UID: 0 is `root`",
        ),
        (
            "me:grp",
            "user `me:grp`: the image has no user `me`, and `me:grp` cannot be added as NAME or NAME:UID: `grp`",
        ),
        ("1000:grp", "user `1000:grp`: the image has no group `grp`; use a number"),
        ("root:grp", "user `root:grp`: the image has no group `grp`; use a number"),
        ("Me", "user `Me`: the image has no user `Me`, and `Me` cannot be added"),
    ] {
        for export in exports(user) {
            export.refuses(2, &[words]);
        }
    }
    for (user, status) in
        [("4294967295", 2), ("4294967296", 2), ("2147483648", 2), ("1:4294967296", 2), ("me:2147483648", 2)]
    {
        let [option, file] = exports(user);
        let words = "is too large: engines take numbers from 0 to 2147483647";
        option.refuses(status, &["--user <USER>", words]);
        file.refuses(1, &["config.json", words, "line 1 column"]);
    }
    for bare in ["--bare", "--store-only"] {
        for export in exports("nonroot") {
            export.arg(bare).refuses(2, &["user `nonroot`: the image has no user `nonroot`; use a number"]);
        }
        let [export, _] = exports("5:6");
        assert_eq!(config(&at("l"), &export.arg(bare).exports())["User"], "5:6");
    }
}

#[test]
fn a_user_is_added_to_the_files_of_rootfs() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    fs_err::create_dir_all(folder.path().join("over/etc")).unwrap();
    fs_err::write(folder.path().join("over/etc/passwd"), "root:x:0:0::/:\n").unwrap();
    let export = ImageExport::new(&store, &profile, folder.path().join("l")).args(["--user", "me"]);
    let (status, _, stderr) = export.arg("--rootfs").arg(folder.path().join("over")).run();
    assert!(status == Some(0) && !stderr.contains("warning"), "{stderr}");
    // A number that the file has under another name is an error, so the user must have been added to it.
    fs_err::write(folder.path().join("over/etc/passwd"), "root:x:0:0::/:\nyou:x:1000:1000::/:\n").unwrap();
    let export = ImageExport::new(&store, &profile, folder.path().join("l")).args(["--user", "me"]);
    let (status, _, stderr) = export.arg("--rootfs").arg(folder.path().join("over")).run();
    assert!(status == Some(1) && stderr.contains("it has `you` with the number 1000"), "{stderr}");
}

#[test]
fn the_working_directory_is_there_and_the_users() {
    if !root_for("umoci") {
        return;
    }
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str, options: &[&str]| {
        let export = options.iter().fold(ImageExport::new(&store, &profile, at(name)), ImageExport::arg);
        export.args(["--tag", "x"])
    };
    let tree = |name: &str, options: &[&str]| {
        export(name, options).exports();
        Tree::read(&unpack(&at(name), "x", &at(&format!("{name}-unpacked"))))
    };
    let of = |tree: &Tree, path: &str| (tree.0[Path::new(path)].mode, tree.0[Path::new(path)].owner);
    let made = tree("made", &["--user", "app:7", "--working-dir", "/srv//./app/"]);
    assert_eq!(of(&made, "srv/app"), (0o755, (7, 7)));
    assert_eq!(of(&made, "srv"), (0o755, (0, 0)));
    assert_eq!(of(&tree("numbers", &["--user", "7:8", "--working-dir", "/app"]), "app"), (0o755, (7, 8)));
    assert_eq!(of(&tree("known", &["--user", "65532", "--working-dir", "/app"]), "app"), (0o755, (65532, 65532)));
    assert_eq!(of(&tree("nobody", &["--working-dir", "/app"]), "app"), (0o755, (0, 0)));
    assert_eq!(of(&tree("bare", &["--bare", "--user", "5", "--working-dir", "/app"]), "app"), (0o755, (5, 0)));
    // What is there stays as it is.
    let there = tree("there", &["--user", "app", "--working-dir", "/tmp"]);
    assert_eq!(of(&there, "tmp"), (0o1777, (0, 0)));
    tree("link", &["--user", "app", "--working-dir", "/run/profile/share"]);
    tree("store", &["--working-dir", store.directory.to_str().unwrap()]);
    let alone = tree("alone", &["--store-only", "--working-dir", "/app"]);
    assert!(!alone.0.contains_key(Path::new("app")));
    let words = ["cannot make the working directory `/etc/passwd/x`: `/etc/passwd` is a file"];
    export("file", &["--working-dir", "/etc/passwd/x"]).refuses(1, &words);
}

#[test]
fn dockers_additions_to_a_config_reach_docker() {
    let Some(docker) = Docker::get() else { return };
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let healthcheck = value!({ "Test": ["CMD", "tool", "--check"], "Interval": 30_000_000_000_u64, "Retries": 2 });
    let additions = value!({ "Healthcheck": healthcheck, "Shell": ["/bin/sh", "-ec"], "OnBuild": ["COPY . /app"] });
    fs_err::write(at("config.json"), additions.to_string()).unwrap();
    let image = tag("additions");
    let export = ImageExport::new(&store, &profile, at("x.tar")).args(["--tag", &image]);
    export.arg("--config").arg(at("config.json")).exports();
    docker.load(&at("x.tar"));
    let inspected = finish(docker.command().args(["image", "inspect", "--format", "{{json .Config}}", &image]));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    for (key, value) in additions.as_object().unwrap() {
        assert_eq!(&inspected[key], value, "{key}");
    }
}

#[test]
fn programs_are_found_where_a_tmpfs_hides_the_profiles_link() {
    let (Some(docker), Some(containerd)) = (Docker::get(), Containerd::get()) else { return };
    let folder = folder();
    let (archive, image) = (folder.path().join("image.tar"), tag("tmpfs"));
    archive_of_programs(&image, &["--user", "app", "--working-dir", "/srv/app"], &archive);
    docker.load(&archive);
    let script = "id -un; : >file && pwd";
    for options in [&[][..], &["--tmpfs", "/run"]] {
        let output = docker.run(options, &image, &["bash", "-c", script]).output().unwrap();
        let said = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((said.0.as_str(), said.1.as_str()), ("app\n/srv/app\n", ""), "{options:?}");
    }
    // containerd mounts a tmpfs there by itself.
    let name = format!("docker.io/{image}:latest");
    finish(containerd.command().args(["image", "import"]).arg(&archive));
    let words =
        ["run", "--rm", &name, "tmpfs", "bash", "-c", &format!("{script}; [ ! -e /run/profile ] && echo hidden")];
    assert_eq!(finish(containerd.command().args(words)), "app\n/srv/app\nhidden");
}

#[test]
fn a_file_in_place_of_a_directory_of_the_root_is_refused() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for place in ["etc", "bin", "var/tmp", "run", "home", "var", "root", "home/nonroot"] {
        for (kind, words) in [("symlink", "is a symlink"), ("file", "is not a directory")] {
            let over = at(&format!("{kind}-{}", place.replace('/', "-")));
            let path = over.join(place);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            if kind == "symlink" {
                symlink("usr/other", &path).unwrap();
            } else {
                fs_err::write(&path, "").unwrap();
            }
            let export = ImageExport::new(store, profile, at("l")).arg("--rootfs").arg(&over);
            let there = format!("`/{place}` is a directory in the image, but `{}` {words}", path.display());
            export.refuses(1, &[&there, "hint: use a directory there: what is below both is put together"]);
        }
    }
    // A link in `/etc` would take what is below it away; a file there is meant so.
    fs_err::create_dir_all(at("link/etc")).unwrap();
    symlink("other", at("link/etc/deep")).unwrap();
    let export = ImageExport::new(store, profile, at("l")).arg("--rootfs").arg(at("link"));
    export.refuses(1, &["`/etc/deep` is a directory in the image"]);
    // Of two folders too, and above what is put there by an option.
    for (folder, name) in [("one", "srv/file"), ("three", "x")] {
        fs_err::create_dir_all(at(folder).join(name).parent().unwrap()).unwrap();
        fs_err::write(at(folder).join(name), "").unwrap();
    }
    fs_err::create_dir(at("two")).unwrap();
    symlink("one", at("two/srv")).unwrap();
    let export = ImageExport::new(store, profile, at("l")).arg("--rootfs").arg(at("one"));
    export.arg("--rootfs").arg(at("two")).refuses(1, &["`/srv` is a directory in the image"]);
    fs_err::create_dir_all(at("three/usr")).unwrap();
    symlink("/elsewhere", at("three/usr/share")).unwrap();
    let export = ImageExport::new(store, profile, at("l")).arg("--rootfs").arg(at("three"));
    let words =
        ["`/usr/share/sbom/nixkit.cdx.json` cannot be put into the root: `/usr/share` is not a directory there"];
    export.arg("--sbom").arg("/dev/null").refuses(1, &words);
}

/// A file capability, `cap_net_bind_service` permitted and effective (`struct vfs_cap_data` of version 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// An access control list that lets user 7 read (`struct posix_acl_xattr_header` and its entries).
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0,
    255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut list, mut value) = (vec![0; 4096], vec![0; 4096]);
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let length = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
        (name, value[..length].to_vec())
    };
    names.map(read).collect()
}

#[test]
fn extended_attributes_of_rootfs_are_kept_or_reported() {
    let Some(ext4) = FileSystem::ext4(64) else { return };
    let (store, profile) = Store::with("small");
    let at = |name: &str| ext4.point.join(name);
    let long = "x".repeat(150);
    fs_err::create_dir_all(at("over/srv/directory")).unwrap();
    fs_err::write(at("over/srv/program"), "x").unwrap();
    fs_err::write(at("over/srv").join(&long), "x").unwrap();
    symlink("program", at("over/srv/link")).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set(&at("over/srv/program"), "security.capability", &CAPABILITY);
    set(&at("over/srv/program"), "user.note", b"a\n=b\0");
    set(&at("over/srv").join(&long), "system.posix_acl_access", &ACL);
    set(&at("over/srv/directory"), "user.note", b"x");
    let kept: Vec<_> = ["program", &long, "directory"].map(|name| attributes(&at("over/srv").join(name))).into();
    set(&at("over/srv/program"), "trusted.secret", b"x");
    set(&at("over/srv/directory"), "trusted.secret", b"x");
    // An archive cannot have an empty one.
    set(&at("over/srv/directory"), "user.empty", b"");
    set(&at("over/srv/link"), "trusted.other", b"x");

    let export =
        |name: &str| ImageExport::new(&store, &profile, at(name)).args(["--tag", "x"]).arg("--rootfs").arg(at("over"));
    let (status, _, stderr) = export("l").run();
    let warning = format!(
        "export-image: warning: left out extended attributes of files in `{}`: `trusted.other` (1), `trusted.secret` (2), \
         `user.empty` (1)\n",
        at("over").display()
    );
    assert!(status == Some(0) && stderr.starts_with(&warning), "{stderr}");
    assert_eq!(export("l").run().0, Some(0));
    let root = unpack(&at("l"), "x", &at("unpacked"));
    let unpacked: Vec<_> = ["program", &long, "directory"].map(|name| attributes(&root.join("srv").join(name))).into();
    assert_eq!(unpacked, kept);
    assert_eq!(kept.iter().map(BTreeMap::len).sum::<usize>(), 4);

    let Some(docker) = Docker::get() else { return };
    let image = tag("attributes");
    export("x.tar").args(["--tag", &image]).run();
    finish(docker.command().arg("load").arg("--input").arg(at("x.tar")));
    // Docker's own export has the capability too.
    let container = finish(docker.command().args(["create", &image, "x"]));
    finish(docker.command().arg("export").arg("--output").arg(at("exported.tar")).arg(&container));
    finish(docker.command().args(["rm", &container]));
    fs_err::create_dir(at("exported")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xattrs", "--xattrs-include=*", "--directory"]).arg(at("exported"));
    finish(tar.arg("--file").arg(at("exported.tar")).arg("srv"));
    assert_eq!(attributes(&at("exported/srv/program")).get("security.capability"), Some(&CAPABILITY.to_vec()));
}
