//! What a run says: the summary, `--quiet`, `--verbose`, `--json`, `--dry-run`, and `--verify` with its verdict.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::support::{Export, Store, Tree, call, finish, folder, judge, names, remove, same_shape, script, set_mode};

#[test]
fn a_run_says_one_line_and_a_quiet_one_nothing() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let line = |name: &str| {
        let root = at(name);
        let root = root.display();
        format!(
            "export-profile: exported 2 store paths (2 files, 16 B) to `{root}` in T s: 3 hard-linked (16 B); the \
             hard-linked files are the store's own, so never change them in place\n"
        )
    };
    let export = Export::new(&store).profile(&path);
    export.clone().root(at("plain")).run().is(0, "", &line("plain"));
    export.clone().arg("--quiet").root(at("quiet")).run().is(0, "", "");
    export.clone().args(["-q", "--sync", "--verify"]).root(at("synced")).run().is(0, "", "");
    assert_eq!(names(folder.path()), ["plain", "quiet", "synced"]);
    for name in ["quiet", "synced"] {
        same_shape(&Tree::read(&at(name)).shape(), &Tree::read(&at("plain")).shape());
    }

    // Errors are said all the same.
    let message =
        format!("export-profile: error: cannot export to `{}`: it is not empty (it holds `", at("plain").display());
    let outcome = export.arg("--quiet").root(at("plain")).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.starts_with(&message), "{}", outcome.stderr);
}

#[test]
fn a_quiet_run_says_no_warnings_but_its_receipt_has_them() {
    let store = Store::new();
    let (first, second) = (store.build("first"), store.build("second"));
    let folder = folder();
    let export = Export::new(&store).profile(&first).profile(&second).args(["--quiet", "--json"]);
    let outcome = export.root(folder.path().join("root")).run();
    assert_eq!((outcome.stderr.as_str(), outcome.receipt().warnings.len()), ("", 2));
}

#[test]
fn a_verbose_run_says_what_it_decides() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let root = folder.path().join("root");
    let export = Export::new(&store).profile(&path).args(["--verbose", "--jobs", "3"]).root(&root);
    let outcome = export.run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(0), ""));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let [profile, closure, draft, summary] = lines.as_slice() else { panic!("{}", outcome.stderr) };
    let base_name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(*profile, format!("export-profile: profile `{}` leads to `{base_name}`", path.display()));
    assert_eq!(*closure, "export-profile: the closure has 2 store paths");
    let start = format!("export-profile: writing to `{}/.root.nixkit-", folder.path().display());
    let random = draft.strip_prefix(&start).and_then(|rest| rest.strip_suffix("`, jobs: 3")).unwrap();
    assert_eq!(random.len(), 16, "{draft}");
    assert!(summary.contains(" in T s: 3 hard-linked (16 B)"), "{summary}");
}

#[test]
fn names_that_are_not_utf8_or_hold_newlines_are_shown_escaped() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let root = folder.path().join(OsStr::from_bytes(b"two\nlines\xff"));
    let link = folder.path().join(OsStr::from_bytes(b"pro\x1bfile\xfe"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let outcome = Export::new(&store).profile(&link).arg("--json").root(&root).run();
    let receipt = outcome.receipt();
    let shown = |name: &str| format!("{}/{name}", folder.path().display());
    assert_eq!(receipt.root, shown("two\\nlines\\xff"));
    assert_eq!(receipt.profiles[0].name, shown("pro\\u{1b}file\\xfe"));
    assert_eq!(outcome.stderr, receipt.summary());
    // Nix 2.8 takes no such name for a store of its own.
    let plain = folder.path().join("plain");
    fs_err::rename(&root, &plain).unwrap();
    crate::support::content(&store, &[&path], &plain);
}

/// As registered.
fn nar_size(store: &Store, path: &Path) -> u64 {
    finish(store.nix_store().args(["--query", "--size"]).arg(path)).parse().unwrap()
}

#[test]
fn a_dry_run_lists_the_closure_and_writes_nothing() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let closure = store.closure(&path);
    let [program, small] = closure.as_slice() else { panic!("{closure:?}") };
    // A NAR holds names and targets, so that its size depends on where the store lies.
    let sizes = [nar_size(&store, program), nar_size(&store, small)];
    let total = sizes[0] + sizes[1];
    let listed = format!(
        "{:>10} B  {}\n{:>10} B  {}\n{total:>10} B  in 2 store paths\n",
        sizes[0],
        program.display(),
        sizes[1],
        small.display()
    );
    let before = Tree::read(folder.path());
    let export = Export::new(&store).profile(&path).arg("--dry-run");
    export.run().is(0, &listed, "");
    export.clone().root(folder.path().join("root")).run().is(0, &listed, "");
    export.clone().args(["--quiet", "--store-only", "--link-mode", "reflink"]).run().is(0, &listed, "");

    let outcome = export.arg("--json").run();
    assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let entry = |path: &Path, size: u64| {
        let hash = call("nix-hash", [&"--type", &"sha256", &path]);
        serde_json::json!({ "path": path, "narHash": format!("sha256:{hash}"), "narSize": size })
    };
    let expected = serde_json::json!({
        "dryRun": true,
        "profiles": [{ "name": path, "storePath": path }],
        "storePaths": 2,
        "narSize": total,
        "paths": [entry(program, sizes[0]), entry(small, sizes[1])],
    });
    assert_eq!(json, expected);
    assert_eq!(Tree::read(folder.path()), before);
}

#[test]
fn a_receipt_has_every_key_and_no_other() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let root = folder.path().join("root");
    let outcome = Export::new(&store).profile(&path).args(["--bare", "--json", "--verify"]).root(&root).run();
    let mut json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let seconds = json["seconds"].take().as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    let above = store.directory.iter().count() as u64 - 1;
    let none = serde_json::json!({ "count": 0, "bytes": 0 });
    let expected = serde_json::json!({
        "root": root,
        "profiles": [{ "name": path, "storePath": path }],
        "storePaths": 2,
        "files": 2,
        "directories": 2,
        "symlinks": 1,
        "bytes": 16,
        "layers": [],
        // `/run`, and `/nix` for the link there: this store lies elsewhere.
        "besideStore": { "directories": above + 2, "symlinks": 2, "files": 0 },
        "hardLinked": { "count": 3, "bytes": 16 },
        "sharesStore": true,
        "reflinked": none,
        "copied": none,
        "deduplicated": none,
        "refusals": [],
        "verified": true,
        "warnings": [],
        "seconds": null,
    });
    assert_eq!(json, expected);
    let end = " in T s: 3 hard-linked (16 B); every NAR hash verified; the hard-linked files are the store's own, so \
               never change them in place\n";
    assert!(outcome.stderr.ends_with(end), "{}", outcome.stderr);
    judge(&store, &[&path], &outcome.receipt());
}

#[test]
fn a_receipt_that_cannot_be_printed_is_an_error() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let root = folder.path().join("root");
    let export = Export::new(&store).under(["sh", "-c", "exec \"$@\" >/dev/full", "sh"]).profile(&path);
    let outcome = export.args(["--quiet", "--json"]).root(&root).run();
    let message = format!(
        "export-profile: error: the export to `{}` is complete, but not its receipt: cannot write to standard output: \
         No space left on device (os error 28)\n",
        root.display()
    );
    outcome.is(1, "", &message);
    // By then ROOT is there, and complete.
    crate::support::content(&store, &[&path], &root);
}

/// Changes a byte of a file of the store behind Nix's back.
fn corrupt(file: &Path) {
    set_mode(file, 0o644);
    let mut bytes = fs_err::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(file, bytes).unwrap();
    set_mode(file, 0o444);
    fs_err::File::open(file)
        .unwrap()
        .set_times(std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)))
        .unwrap();
}

/// Of the one damaged path Nix itself says what it should be and what it is.
fn verification_fails(store: &Store, damaged: &Path) {
    let registered = finish(store.nix_store().args(["--query", "--hash"]).arg(damaged));
    let registered = registered.strip_prefix("sha256:").unwrap();
    let registered = call("nix-hash", [&"--to-base16", &"--type", &"sha256", &registered]);
    let found = call("nix-hash", [&"--type", &"sha256", &damaged]);
    assert_ne!(found, registered);
    let dumped = store.nix_store().arg("--dump").arg(damaged).output().unwrap().stdout.len();
    let message = format!(
        "export-profile: error: verification failed: `{}` has NAR hash sha256:{found} ({dumped} bytes), but \
         sha256:{registered} ({} bytes) is registered\n",
        damaged.file_name().unwrap().to_str().unwrap(),
        nar_size(store, damaged)
    );
    let folder = folder();
    for (mode, jobs) in [("auto", "1"), ("copy", "4")] {
        let export = Export::new(store).profile(damaged).mode(mode).args(["--jobs", jobs]);
        let root = folder.path().join("root");
        export.clone().arg("--verify").root(&root).fails(1, &message);
        // Nobody asked.
        export.root(&root).exports();
        remove(&root);
    }
}

#[test]
fn verification_finds_a_changed_byte() {
    let (store, path) = Store::with("small");
    corrupt(&path.join("file"));
    verification_fails(&store, &path);
}

#[test]
fn verification_finds_a_changed_mode_and_a_changed_name() {
    let (store, path) = Store::with("small");
    set_mode(&path.join("file"), 0o555);
    verification_fails(&store, &path);

    set_mode(&path.join("file"), 0o444);
    set_mode(&path, 0o755);
    fs_err::rename(path.join("file"), path.join("filed")).unwrap();
    set_mode(&path, 0o555);
    verification_fails(&store, &path);
}

#[test]
fn several_hundred_paths_are_asked_about_in_one_process_each() {
    let (store, path) = Store::shared();
    let (folder, bin) = (folder(), folder());
    let calls = bin.path().join("calls");
    let real = which::which("nix-store").unwrap();
    script(&bin.path().join("nix-store"), &format!("echo $1 $2 >>{}; exec {} \"$@\"", calls.display(), real.display()));
    let export = Export::new(store).nix_store_in(bin.path()).profile(path).arg("--verify");
    export.root(folder.path().join("root")).exports();
    let first = store.closure(path)[0].display().to_string();
    assert_eq!(fs_err::read_to_string(calls).unwrap(), format!("--query --requisites\n--dump-db {first}\n"));
}
