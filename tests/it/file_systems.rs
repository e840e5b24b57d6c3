//! What a root takes over from where it lies, and file systems that do not keep what is set.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Export, FileSystem, ImageExport, Kind, Store, Tree, call, folder, installed, names, remove, root_for, script,
    set_mode,
};

#[test]
fn a_file_system_without_modes_is_warned_of_once() {
    let Some(ntfs) = FileSystem::ntfs(64) else { return };
    let (store, path) = Store::with("small");
    let root = ntfs.point.join("root");
    let export = Export::new(&store).profile(&path).args(["--bare", "--jobs", "2"]).root(&root);
    let outcome = export.clone().arg("--json").run();
    let receipt = outcome.receipt();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let [warning, summary] = lines.as_slice() else { panic!("{}", outcome.stderr) };
    let start = format!("the file system of `{}` does not keep what is set: `", root.display());
    assert_eq!(receipt.warnings.len(), 1, "{:?}", receipt.warnings);
    assert_eq!(*warning, format!("export-profile: warning: {}", receipt.warnings[0]));
    let example = receipt.warnings[0].strip_prefix(&start).unwrap_or_else(|| panic!("{warning}"));
    let (file, modes) = example.split_once("` has mode ").unwrap();
    assert!(["0777 instead of 0555", "0777 instead of 0444"].contains(&modes), "{warning}");
    assert!(Path::new(file).starts_with(&store.directory), "{warning}");
    assert!(format!("{summary}\n") == receipt.summary(), "{summary}");
    remove(&root);

    let outcome = export.arg("--verify").run();
    assert_eq!(outcome.status.code(), Some(1));
    let error = outcome.stderr.lines().next().unwrap();
    assert!(error.starts_with("export-profile: error: verification failed: `"), "{error}");
    assert!(error.ends_with("it has mode 0777 instead of 0555"), "{error}");
    assert_eq!(names(&ntfs.point), [""; 0]);
}

#[test]
fn bindfs_keeps_all_that_is_set() {
    let below = folder();
    let Some(bindfs) = FileSystem::bindfs(below.path()) else { return };
    let (store, profile) = Store::shared();
    let (there, plain) = (bindfs.point.join("root"), folder());
    let plain = plain.path().join("root");
    let export = || Export::new(store).profile(profile).arg("--verify").mode("copy");
    // Its libfuse ignores a call that sets the time of the last change alone.
    export().root(&there).exports();
    export().root(&plain).exports();
    assert!(Tree::read(&there).shape() == Tree::read(&plain).shape());
}

#[test]
fn nothing_of_the_parent_leaks_into_a_root_or_a_layout() {
    if !root_for("a directory of another group") {
        return;
    }
    let Some(ext4) = FileSystem::new(Kind::Ext4) else { return };
    let (store, path) = Store::with("small");
    let parent = |name: &str| {
        let parent = ext4.point.join(name);
        fs_err::create_dir(&parent).unwrap();
        parent
    };
    let (plain, odd) = (parent("plain"), parent("odd"));
    call("chgrp", [&"1234", &odd]);
    set_mode(&odd, 0o2777);
    call("setfacl", [&"--default", &"--modify", &"user:1234:rwx,group::rwx,other::rwx,mask::rwx", &odd]);
    for mode in ["auto", "copy"] {
        for parent in [&plain, &odd] {
            let export = Export::new(&store).profile(&path).mode(mode);
            export.root(parent.join("root")).exports();
            export_an_image(&store, &path, parent);
        }
        assert!(Tree::read(&plain.join("root")).shape() == Tree::read(&odd.join("root")).shape(), "{mode}");
        let lists = call("getfacl", [&"--recursive", &"--skip-base", &"--absolute-names", &odd.join("root")]);
        assert_eq!(lists, "", "{mode}");
        let modes = |parent: &Path| {
            let tree = Tree::read(&parent.join("layout"));
            // Its own mode follows the umask.
            let inside = tree.0.into_iter().filter(|(path, _)| !path.as_os_str().is_empty());
            inside.map(|(path, entry)| (path, entry.mode, entry.owner)).collect::<Vec<_>>()
        };
        assert_eq!(modes(&plain), modes(&odd));
        for parent in [&plain, &odd] {
            remove(&parent.join("root"));
            remove(&parent.join("layout"));
        }
    }
}

fn export_an_image(store: &Store, path: &Path, parent: &Path) {
    ImageExport::new(store, path, parent.join("layout")).args(["--compression", "none"]).exports();
}

/// Runs a command that may write files of 1 KiB at most; only Nix may write more.
fn limited(store: &Store, words: &[&str], directory: &Path) -> (Option<i32>, String) {
    let bin = folder();
    let real = which::which("nix-store").unwrap();
    script(&bin.path().join("nix-store"), &format!("ulimit -S -f unlimited; exec {} \"$@\"", real.display()));
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", "ulimit -S -f 1; exec \"$@\"", "bash"])
        .arg(installed().join(words[0]))
        .args(&words[1..])
        .env_clear()
        .envs(store.environment())
        .env("PATH", path)
        .current_dir(directory)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"", "{words:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_others() {
    let (store, path) = Store::with("sizes");
    let path = path.to_str().unwrap();
    let project = folder();
    let at = |name: &str| project.path().join(name);
    let commit = |digit: &str| digit.repeat(40);
    fs_err::create_dir(at("nix")).unwrap();
    let pin = format!(r#"{{"nixpkgs": {{"type": "tarball", "branch": "nixos-25.11", "rev": "{}"}}}}"#, commit("1"));
    fs_err::write(at("nix/sources.json"), pin).unwrap();
    let dockerfile = format!("FROM niteo/nixpkgs-nixos-25.11:{}\n{}", commit("0"), "# much\n".repeat(1000));
    fs_err::write(at("Dockerfile"), &dockerfile).unwrap();
    for words in [
        &["export-profile", "--profile", path, "--link-mode", "copy", "root"][..],
        &["export-profile", "--profile", path, "--link-mode", "copy", "--layers", "2", "root"],
        &["export-image", "--profile", path, "layout"],
        &["export-image", "--profile", path, "image.tar"],
        &["export-profile", "--profile", path, "--report=html", "--report-file", "report", "root"],
        &["nixkit", "--man", "nix"],
        &["sync-dockerfile"],
    ] {
        let (status, stderr) = limited(&store, words, project.path());
        assert_eq!(status, Some(1), "{words:?}: {stderr}");
        let error = stderr.lines().next().unwrap();
        assert!(error.starts_with(&format!("{}: error: ", words[0])), "{words:?}: {stderr}");
        assert!(error.contains("File too large"), "{words:?}: {stderr}");
        assert_eq!(names(project.path()), ["Dockerfile", "nix"], "{words:?}");
        assert_eq!(names(&at("nix")), ["sources.json"], "{words:?}");
    }
    assert_eq!(fs_err::read_to_string(at("Dockerfile")).unwrap(), dockerfile);
    let hint = "hint: `ulimit -f` limits the size of files, or the file system does; nothing was written";
    for words in [
        &["export-profile", "--profile", path, "--link-mode", "copy", "root"][..],
        &["export-image", "--profile", path, "layout"],
    ] {
        let (_, stderr) = limited(&store, words, project.path());
        assert_eq!(stderr.lines().last(), Some(hint));
    }
}

#[test]
fn programs_that_are_called_get_the_signals_as_they_were() {
    let (store, path) = Store::with("small");
    let (folder, bin) = (folder(), folder());
    let real = which::which("nix-store").unwrap();
    let signals = bin.path().join("signals");
    let text = format!("grep Sig /proc/self/status >>{}; exec {} \"$@\"", signals.display(), real.display());
    script(&bin.path().join("nix-store"), &text);
    let export = || Export::new(&store).nix_store_in(bin.path()).profile(&path).arg("--quiet");
    export().root(folder.path().join("one")).run().is(0, "", "");
    let ignored = |signals: &str| {
        let line = signals.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let (xfsz, pipe) = (1 << (25 - 1), 1 << (13 - 1));
    assert_eq!(ignored(&fs_err::read_to_string(&signals).unwrap()) & (xfsz | pipe), 0);
    // What the caller ignores stays ignored.
    fs_err::remove_file(&signals).unwrap();
    let ignoring = ["bash", "-c", "trap '' XFSZ; exec \"$@\"", "bash"];
    export().under(ignoring).root(folder.path().join("two")).run().is(0, "", "");
    assert_eq!(ignored(&fs_err::read_to_string(&signals).unwrap()) & xfsz, xfsz);
}

#[test]
fn a_receipt_that_a_file_system_loses_at_close_is_an_error() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let receipt = at("receipt");
    let run = |root: &str, options: &[&str], trace: &Path| {
        let mut strace = Command::new("strace");
        strace
            .args(["-y", "-e", "trace=close"])
            .args(options)
            .arg("-o")
            .arg(trace)
            .arg(installed().join("export-profile"));
        let arguments = ["--quiet", "--jobs", "1", "--json", "--profile"];
        strace.args(arguments).arg(&path).arg(at(root)).env_clear().envs(store.environment());
        let output = strace.stdout(std::fs::File::create(&receipt).unwrap()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("first", &[], &at("trace")), (Some(0), String::new()));
    let trace = fs_err::read_to_string(at("trace")).unwrap();
    let name = format!("<{}>", receipt.display());
    let number =
        1 + trace.lines().filter(|line| line.starts_with("close(")).position(|line| line.contains(&name)).unwrap();
    let inject = format!("inject=close:error=ENOSPC:when={number}");
    let (status, stderr) = run("second", &["-e", &inject], Path::new("/dev/null"));
    let message = format!(
        "export-profile: error: the export to `{}` is complete, but not its receipt: cannot write to standard output: \
         No space left on device (os error 28)\n",
        at("second").display()
    );
    assert_eq!((status, stderr), (Some(1), message));
}

#[test]
fn a_full_btrfs_is_told_without_a_number_of_inodes() {
    let Ok(small) = FileSystem::image(Kind::Btrfs, 114, "", crate::support::scratch()) else {
        assert!(!root_for("a btrfs"));
        return;
    };
    let (store, profile) = Store::shared();
    let filler = small.point.join("filler");
    let output =
        Command::new("head").args(["-c", "1G", "/dev/zero"]).stdout(std::fs::File::create(&filler).unwrap()).output();
    assert!(!output.unwrap().status.success());
    let outcome = Export::new(store).profile(profile).mode("copy").root(small.point.join("root")).run();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let error = outcome.stderr.lines().next().unwrap();
    assert!(error.contains("no space left on `") && error.contains("` (btrfs): the closure needs up to "), "{error}");
    assert!(error.contains(" is free: ") && !error.contains("inodes"), "{error}");
    assert_eq!(names(&small.point), ["filler"]);
}
