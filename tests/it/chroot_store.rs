//! Chroot stores: the files of `/nix/store/…` lie in another directory, and Nix's settings say which.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{Entry, Export, ImageExport, Store, Tree, folder, json, names, remove, unpack};

/// A closure in a chroot store. Its store directory does not exist outside of that.
struct Chroot {
    store: Store,
    path: PathBuf,
    folder: TempDir,
}

impl Chroot {
    fn new() -> Self {
        let (store, path) = Store::with("small");
        let folder = folder();
        let mut export = store.nix_store();
        export.arg("--export").args(store.closure(&path)).stdout(Stdio::piped());
        let mut export = export.spawn().unwrap();
        let mut import = store.nix_store();
        import.arg("--import").env("NIX_REMOTE", folder.path().join("x y")).env_remove("NIX_STATE_DIR");
        let output = import.stdin(export.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap();
        assert!(output.success() && export.wait().unwrap().success());
        remove(&store.directory);
        Self { store, path, folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("x y")
    }

    /// Where the files of a store path are: below the root Nix has them in `nix/store`, whatever the store directory is.
    fn real(&self, path: &Path) -> PathBuf {
        self.root().join("nix/store").join(path.strip_prefix(&self.store.directory).unwrap())
    }

    /// The variables that name the store, each way that there is, with what they are set to.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let root = self.root();
        let root = root.to_str().unwrap();
        let encoded = root.replace(' ', "%20");
        let real = self.real(&self.store.directory).to_str().unwrap().replace(' ', "%20");
        let file = self.folder.path().join("nix.conf");
        fs_err::write(&file, format!("# the store\nstore = {root}\n")).unwrap();
        let including = self.folder.path().join("including.conf");
        fs_err::write(&including, format!("!include {}\n", file.display())).unwrap();
        vec![
            ("NIX_REMOTE", root.to_owned()),
            ("NIX_REMOTE", format!("local?root={encoded}")),
            ("NIX_REMOTE", format!("local?real={real}&state={encoded}{}", "/nix/var/nix")),
            ("NIX_CONFIG", format!("store = local?root={encoded}")),
            ("NIX_USER_CONF_FILES", file.to_str().unwrap().to_owned()),
            ("NIX_USER_CONF_FILES", including.to_str().unwrap().to_owned()),
        ]
    }

    fn export(&self, profile: &Path) -> Export {
        // The state of an ordinary store would go over that of this one.
        let export = Export::new(&self.store).without("NIX_STATE_DIR").without("NIX_LOCALSTATE_DIR");
        export.without("NIX_LOG_DIR").without("NIX_REMOTE").profile(profile)
    }

    fn image(&self, out: &str) -> ImageExport {
        let image = ImageExport::new(&self.store, &self.path, self.folder.path().join(out));
        ["NIX_STATE_DIR", "NIX_LOCALSTATE_DIR", "NIX_LOG_DIR", "NIX_REMOTE"]
            .into_iter()
            .fold(image, ImageExport::without)
    }
}

/// What the two store paths are in the root, and in the store.
fn assert_equal(chroot: &Chroot, root: &Path) {
    let inside = chroot.store.directory.strip_prefix("/").unwrap();
    let mut store = Tree::read(&chroot.real(&chroot.store.directory));
    store.0.retain(|path, _| !path.starts_with(".links"));
    let exported = Tree::read(&root.join(inside));
    let shape = |tree: &Tree| {
        let mut shape = tree.shape();
        // The store directory itself.
        shape.remove(Path::new(""));
        shape
    };
    assert_eq!(shape(&exported), shape(&store));
    assert!(exported.0.len() > 5);
}

#[test]
fn a_closure_is_exported_from_where_its_files_are_however_the_setting_is_given() {
    let chroot = Chroot::new();
    let link = chroot.folder.path().join("profile");
    symlink(&chroot.path, &link).unwrap();
    let real = chroot.real(&chroot.path);
    assert!(!chroot.store.directory.exists());
    for (number, (name, value)) in chroot.settings().into_iter().enumerate() {
        let root = chroot.folder.path().join(format!("root-{number}"));
        let profile = [&chroot.path, &link, &real][number % 3];
        let receipt = chroot.export(profile).env(name, &value).arg("--verify").root(&root).exports();
        assert_eq!((receipt.store_paths, receipt.hard_linked.count), (2, 3), "{name}={value}");
        assert_eq!(receipt.profiles[0].store_path, chroot.path, "{name}={value}");
        assert_equal(&chroot, &root);
        let base = chroot.path.file_name().unwrap();
        let file = Path::new(base).join("file");
        let exported = root.join(chroot.store.directory.strip_prefix("/").unwrap()).join(&file);
        assert_eq!(Entry::read(&exported).inode, Entry::read(&real.join("file")).inode);
        // The link of the root is by the name that store paths have.
        let leads_there = |link: &&str| fs_err::read_link(root.join(link)).is_ok_and(|target| target == chroot.path);
        assert!(["run/profile", "nix/profile"].iter().any(leads_there));
    }
    let (name, value) = chroot.settings().swap_remove(0);
    let root = chroot.folder.path().join("copied");
    let copied = chroot.export(&link).env(name, value).mode("copy").args(["--dedup", "--report-file", "/dev/null"]);
    copied.args(["--report"]).root(&root).exports();
    assert_equal(&chroot, &root);
}

#[test]
fn a_store_of_the_same_name_outside_is_not_looked_at() {
    let chroot = Chroot::new();
    // Another file under the same store path, as of another build.
    let outside = &chroot.path;
    fs_err::create_dir_all(outside).unwrap();
    fs_err::write(outside.join("file"), "another").unwrap();
    for (number, (name, value)) in chroot.settings().into_iter().enumerate() {
        let root = chroot.folder.path().join(format!("root-{number}"));
        chroot.export(outside).env(name, value).root(&root).exports();
        assert_equal(&chroot, &root);
    }
}

#[test]
fn an_image_is_the_same_from_a_chroot_store_and_its_database_is_made_apart() {
    let chroot = Chroot::new();
    let digest = |receipt: &serde_json::Value| receipt["digest"].as_str().unwrap().to_owned();
    let state = |chroot: &Chroot| fs_err::read(chroot.root().join("nix/var/nix/db/db.sqlite")).unwrap();
    let before = state(&chroot);
    let mut digests = Vec::new();
    for (number, (name, value)) in chroot.settings().into_iter().enumerate() {
        let out = format!("image-{number}");
        let image = chroot.image(&out).env(name, &value).arg("--nix-database").exports();
        digests.push(digest(&image));
        let layout = chroot.folder.path().join(&out);
        assert_eq!(json(&layout.join("index.json"))["manifests"][0]["digest"], digests[0], "{name}={value}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    assert!(state(&chroot) == before, "the database of the store has changed");
    let layout = chroot.folder.path().join("image-0");
    let index = json(&layout.join("index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let (name, value) = chroot.settings().swap_remove(0);
    chroot.image("image-0").env(name, value).args(["--nix-database", "--tag", "x"]).exports();
    assert_equal(&chroot, &unpack(&layout, "x", &chroot.folder.path().join("unpacked")));
}

#[test]
fn what_is_not_on_this_machine_is_refused() {
    let chroot = Chroot::new();
    let root = chroot.folder.path().join("root");
    for url in ["ssh://nobody@localhost", "https://cache.example.org", "s3://bucket?region=x"] {
        let message = format!(
            "export-profile: error: the store `{url}` is not on this machine\n\
             hint: copy the closure to a local store first: nix copy --from URL PATH\n"
        );
        chroot.export(&chroot.path).env("NIX_REMOTE", url).root(&root).refuses(1, &message);
    }
    // Without the setting there is no such store.
    let outcome = chroot.export(&chroot.path).root(&root).run();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(!names(chroot.folder.path()).contains(&"root".to_owned()));
}
