//! The cache of `export-image`: it saves work, it never fails an export, and it becomes no larger than it may.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{FileSystem, ImageExport, Store, files, finish, folder, names};

/// The layers of an image by their digests.
fn digests(receipt: &Value) -> Vec<String> {
    let layers = receipt["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// How many layers came from the cache, of all but the last, which never does.
fn from_cache(receipt: &Value) -> (usize, usize) {
    let layers = receipt["layers"].as_array().unwrap();
    (layers.iter().filter(|layer| layer["cached"] == true).count(), layers.len() - 1)
}

/// Runs it with `--json`; the receipt, and what it said before the last line.
fn with_warnings(export: ImageExport) -> (Value, Vec<String>) {
    let (status, stdout, stderr) = export.arg("--json").run();
    assert_eq!(status, Some(0), "{stderr}");
    let mut lines: Vec<_> = stderr.lines().map(str::to_owned).collect();
    assert!(lines.pop().unwrap().starts_with("export-image: wrote sha256:"), "{stderr}");
    let receipt: Value = serde_json::from_str(&stdout).unwrap();
    let warnings: Vec<_> =
        receipt["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect();
    let said: Vec<_> = lines.iter().map(|line| line.strip_prefix("export-image: warning: ").unwrap()).collect();
    assert_eq!(warnings, said);
    (receipt, lines)
}

/// Every blob is what its name says, and skopeo reads the image.
fn is_whole(layout: &Path) {
    let copy = layout.with_extension("copy");
    finish(
        Command::new("skopeo")
            .args(["copy", "--quiet"])
            .args([format!("oci:{}:x", layout.display()), format!("dir:{}", copy.display())]),
    );
    fs_err::remove_dir_all(copy).unwrap();
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str| ImageExport::new(store, profile, at(name)).arg("--cache").arg(at("cache")).exports();
    let first = export("a");
    // Blobs are hard links between cache and layout: this one is damaged in both.
    let with = |ending: &str| -> Vec<_> {
        names(&at("cache"))
            .into_iter()
            .filter(|name| name.ends_with(ending))
            .map(|name| at("cache").join(name))
            .collect()
    };
    let (blobs, entries) = (with(".blob"), with(".json"));
    let mut bytes = fs_err::read(&blobs[0]).unwrap();
    bytes[20] ^= 1;
    fs_err::write(&blobs[0], bytes).unwrap();
    fs_err::write(&blobs[1], "short").unwrap();
    fs_err::write(&entries[2], "{").unwrap();
    fs_err::remove_file(&blobs[3]).unwrap();
    let again = export("b");
    assert_eq!(digests(&again), digests(&first));
    let made = again["layers"].as_array().unwrap().iter().filter(|layer| layer["cached"] == false).count();
    assert_eq!(made, 5, "four were damaged, and the last is always made");
    for (path, content) in files(&at("b/blobs/sha256")) {
        assert_eq!(sha256(&content), path.to_str().unwrap());
    }
}

fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(content).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning_that_names_it() {
    let (Some(full), Some(read_only)) = (FileSystem::tmpfs("size=100k"), FileSystem::tmpfs("size=16m")) else { return };
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let reference = ImageExport::new(store, profile, at("reference")).args(["--tag", "x"]).exports();
    fs_err::write(at("file"), "x").unwrap();
    finish(Command::new("mount").args(["-o", "remount,ro"]).arg(&read_only.point));
    for (cache, reason) in [
        (full.point.clone(), "No space left on device"),
        (full.point.join("new"), "No space left on device"),
        (read_only.point.clone(), "Read-only file system"),
        (read_only.point.join("new"), "Read-only file system"),
        (at("file"), "File exists"),
        (at("file/x"), "Not a directory"),
        (PathBuf::from("/dev/null"), "File exists"),
        (PathBuf::from("/proc/nothing"), "No such file"),
    ] {
        let export = ImageExport::new(store, profile, at("l")).args(["--tag", "x", "--compression", "none"]);
        let export = export.arg("--cache").arg(&cache).args(["--cache-max-size", "1M"]);
        let (receipt, warnings) = with_warnings(export);
        let start = format!(
            "export-image: warning: cannot write the cache `{}`, so that layers will be made again: ",
            cache.display()
        );
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(&start) && warnings[0].contains(reason), "{warnings:?}");
        assert_eq!(from_cache(&receipt).0, 0, "{}", cache.display());
        assert_eq!(receipt["layers"][3]["diffId"], reference["layers"][3]["diffId"]);
        is_whole(&at("l"));
    }
    // Nothing half-written stays there.
    assert!(names(&full.point).iter().all(|name| !name.starts_with('.')), "{:?}", names(&full.point));
}

#[test]
fn a_cache_that_can_only_be_read_is_read() {
    let Some(cache) = FileSystem::tmpfs("size=32m") else { return };
    let (store, profile) = Store::shared();
    let folder = folder();
    let export = |name: &str| {
        ImageExport::new(store, profile, folder.path().join(name)).args(["--tag", "x"]).arg("--cache").arg(&cache.point)
    };
    export("first").exports();
    finish(Command::new("mount").args(["-o", "remount,ro"]).arg(&cache.point));
    let (found, all) = from_cache(&export("second").exports());
    assert_eq!(found, all);
    is_whole(&folder.path().join("second"));
}

#[test]
fn whatever_lies_in_place_of_an_entry_the_export_goes_on() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export =
        |name: &str| ImageExport::new(store, profile, at(name)).args(["--tag", "x"]).arg("--cache").arg(at("cache"));
    let (_, all) = from_cache(&export("first").exports());
    let entries = |ending: &str| -> Vec<PathBuf> {
        let names = names(&at("cache")).into_iter().filter(|name| name.ends_with(ending));
        names.map(|name| at("cache").join(name)).collect()
    };
    let (blobs, jsons) = (entries(".blob"), entries(".json"));
    let replace = |path: &Path, make: &dyn Fn(&Path)| {
        fs_err::remove_file(path).unwrap();
        make(path);
    };
    let directory = |path: &Path| fs_err::create_dir(path).unwrap();
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    replace(&blobs[0], &directory);
    replace(&jsons[1], &directory);
    replace(&blobs[2], &pipe);
    replace(&jsons[3], &pipe);
    replace(&blobs[4], &|path| std::os::unix::fs::symlink("nowhere", path).unwrap());
    fs_err::set_permissions(&blobs[5], PermissionsExt::from_mode(0o000)).unwrap();
    let (receipt, warnings) = with_warnings(export("second"));
    // root may read what has no permissions.
    let made = all - from_cache(&receipt).0;
    assert!(made == 5 || made == 6, "{made}");
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.ends_with(" is a directory (and 1 more)"), "{warning}");
    is_whole(&at("second"));
    // All but the directories were replaced.
    let (receipt, warnings) = with_warnings(export("third"));
    assert_eq!((all - from_cache(&receipt).0, warnings.len()), (2, 1));
}

/// How old the layers in a cache are: their keys, those first that were used longest ago.
fn by_age(cache: &Path) -> Vec<String> {
    let entries = names(cache).into_iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    let time = |key: &String| fs_err::metadata(cache.join(format!("{key}.json"))).unwrap().modified().unwrap();
    let mut entries: Vec<_> = entries.map(|key| (time(&key), key)).collect();
    entries.sort();
    entries.into_iter().map(|(_, key)| key).collect()
}

fn bytes(cache: &Path) -> u64 {
    files(cache).values().map(|content| content.len() as u64).sum()
}

#[test]
fn a_cache_loses_what_was_used_longest_ago() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let other = store.build("small");
    let export =
        |profile: &Path| ImageExport::new(store, profile, at("l")).args(["--tag", "x"]).arg("--cache").arg(at("cache"));
    export(profile).exports();
    // As if each had been used an hour after the one before.
    let keys: Vec<_> = by_age(&at("cache"));
    for (hour, key) in keys.iter().enumerate() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_hours(1 + hour as u64);
        let entry = fs_err::File::open(at("cache").join(format!("{key}.json"))).unwrap();
        entry.into_parts().0.set_modified(time).unwrap();
    }
    fs_err::write(at("cache/notes"), vec![0; 100_000]).unwrap();
    let before: BTreeSet<_> = keys.iter().cloned().collect();
    // The other image uses some of them, whatever their age, and adds others.
    let receipt = export(&other).exports();
    let used: BTreeSet<_> = by_age(&at("cache")).into_iter().rev().take(from_cache(&receipt).1).collect();
    assert!(used.iter().any(|key| before.contains(key)), "nothing is shared");
    let size = bytes(&at("cache")) - 100_000;
    let limit = format!("{}", size - 1);
    export(&other).args(["--cache-max-size", &limit]).exports();
    let first = keys.iter().find(|key| !used.contains(*key)).unwrap();
    let left: BTreeSet<_> = by_age(&at("cache")).into_iter().collect();
    assert_eq!(before.difference(&left).collect::<Vec<_>>(), [first], "the oldest alone");
    assert!(!at("cache").join(format!("{first}.blob")).exists());
    // What the run itself uses stays, however little it may be.
    export(&other).args(["--cache-max-size", "0"]).exports();
    assert_eq!(by_age(&at("cache")).into_iter().collect::<BTreeSet<_>>(), used);
    assert!(at("cache/notes").exists());
    let receipt = export(&other).exports();
    let (found, all) = from_cache(&receipt);
    assert_eq!(found, all);
    ImageExport::new(store, profile, at("l")).args(["--cache-max-size", "1M"]).refuses(2, &["--cache <DIR>"]);
    export(profile).args(["--cache-max-size", "many"]).refuses(2, &["a size is a number"]);
}

#[test]
fn runs_that_share_a_cache_do_not_disturb_each_other() {
    let (store, profile) = Store::shared();
    let folder = folder();
    let other = store.build("small");
    let at = |name: &str| folder.path().join(name);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (other, at) = (&other, &at);
            scope.spawn(move || {
                for round in 0..3 {
                    let name = format!("l-{worker}-{round}");
                    let profile = if worker % 2 == 0 { profile } else { other };
                    let export =
                        ImageExport::new(store, profile, at(&name)).args(["--tag", "x", "--cache-max-size", "0"]);
                    with_warnings(export.arg("--cache").arg(at("cache")));
                    is_whole(&at(&name));
                }
            });
        }
    });
    assert!(names(&at("cache")).iter().all(|name| !name.starts_with('.')));
}
