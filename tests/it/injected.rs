//! Each system call that writes fails once: the run ends with 1 and a clear message, publishes nothing and leaves
//! nothing behind, and the next run succeeds. `strace` injects the errors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{FileSystem, Store, call, folder, installed, is_root, names, remove, root_for, set_mode};

/// In the names of all drafts.
const DRAFT: &str = ".nixkit-";

/// A command whose main thread does all the writing, with the folder in which it writes.
struct Writer<'a> {
    store: &'a Store,
    /// The applet with its arguments.
    words: Vec<String>,
    folder: &'a Path,
}

/// How a run under strace ended.
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Writer<'_> {
    /// Runs it under strace, without its other threads and its children.
    fn under_strace(&self, options: &[String], output: &Path) -> Ended {
        let mut strace = Command::new("strace");
        strace.args(["-y", "-s", "200", "-o"]).arg(output).args(options).arg("--");
        let mut environment = self.store.environment();
        environment.push(("TMPDIR", self.folder.to_owned()));
        let output = strace
            .arg(installed().join(&self.words[0]))
            .args(&self.words[1..])
            .env_clear()
            .envs(environment)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run `strace`: {error}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn succeeds(&self) {
        let ended = self.under_strace(&injected(&["none"], None, &[]), Path::new("/dev/null"));
        assert_eq!(ended.status, Some(0), "{:?}: {}", self.words, ended.stderr);
    }

    /// The ordinal numbers of the calls of `name` that write to a draft.
    fn calls(&self, name: &str, more: &[&str]) -> Vec<usize> {
        let trace = folder();
        let trace = trace.path().join("trace");
        // `openat` too: a descriptor is one that was written if it was opened to be. And `rename`: what comes after the
        // one that publishes only tidies up.
        let ended = self.under_strace(&injected(&[name, "openat", "rename"], None, more), &trace);
        assert_eq!(ended.status, Some(0), "{:?}: {}", self.words, ended.stderr);
        let text = String::from_utf8_lossy(&fs_err::read(trace).unwrap()).into_owned();
        let mut written = BTreeSet::new();
        let mut found = Vec::new();
        let mut count = 0;
        for line in text.lines() {
            let creates = line.starts_with("openat(") && (line.contains("O_CREAT") || line.contains("O_WRONLY"));
            if creates && let Some(opened) = line.rsplit("= ").next() {
                written.insert(opened.to_owned());
            }
            let publishes = line.starts_with("rename(") && !line.rsplit(", ").next().unwrap().contains(DRAFT);
            if publishes && name != "rename" {
                break;
            }
            if !line.starts_with(&format!("{name}(")) {
                continue;
            }
            count += 1;
            let is_wanted = match name {
                "openat" => creates,
                "close" => written.contains(line.trim_start_matches("close(").split(')').next().unwrap()),
                _ => true,
            };
            if is_wanted && line.contains(DRAFT) {
                found.push(count);
            }
        }
        found
    }
}

/// Options of strace: the calls that it traces, among which those must be that it injects errors into, and the errors.
fn injected(traced: &[&str], one: Option<String>, refused: &[&str]) -> Vec<String> {
    let traced = [traced, refused].concat().join(",");
    let refused = refused.iter().map(|name| format!("inject={name}:error=EXDEV"));
    let all = std::iter::once(format!("trace={traced}")).chain(one).chain(refused);
    all.flat_map(|option| ["-e".to_owned(), option]).collect()
}

/// The first, one in the middle and the last.
fn some(calls: &[usize]) -> BTreeSet<usize> {
    [calls.first(), calls.get(calls.len() / 2), calls.last()].into_iter().flatten().copied().collect()
}

/// What a row of a table says: a call, the error that it gets, and calls that get EXDEV all the time.
type Row<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Lets some of the calls of each row fail, one in each run. `untouched` is what lies in the folder then.
fn fails(writer: &Writer<'_>, rows: &[Row<'_>], untouched: &[String], reset: &dyn Fn()) {
    let applet = &writer.words[0];
    for &(name, errno, more) in rows {
        let calls = writer.calls(name, more);
        assert!(!calls.is_empty(), "{:?} makes no call of {name} that writes", writer.words);
        reset();
        for number in some(&calls) {
            // A symlink that cannot be linked is looked at and tried again.
            let and_later = if name == "linkat" { "+" } else { "" };
            let inject = format!("inject={name}:error={errno}:when={number}{and_later}");
            let options = injected(&[name], Some(inject), more);
            let Ended { status, stdout, stderr } = writer.under_strace(&options, Path::new("/dev/null"));
            let what = format!("{:?}, {errno} from {name} number {number}: {status:?}\n{stderr}", writer.words);
            assert_eq!((status, stdout.as_str()), (Some(1), ""), "{what}");
            assert!(stderr.starts_with(&format!("{applet}: error: ")), "{what}");
            // What, where and why.
            let first = stderr.lines().next().unwrap();
            assert!(first.contains(" `") && is_named(errno, first), "{what}");
            assert!(!first.contains("errno") && !first.contains("panicked"), "{what}");
            assert_eq!(names(writer.folder), untouched, "{what}");
            let mut all = walkdir::WalkDir::new(writer.folder).into_iter().flatten();
            assert!(!all.any(|entry| entry.file_name().to_string_lossy().contains(DRAFT)), "{what}");
        }
        writer.succeeds();
        reset();
    }
}

/// The error as this program names it, and as the standard library does.
fn is_named(errno: &str, text: &str) -> bool {
    let number = match errno {
        "ENOSPC" => 28,
        "EDQUOT" => 122,
        "EIO" => 5,
        other => panic!("no number for {other}"),
    };
    text.contains(&format!("({errno})")) || text.contains(&format!("(os error {number})"))
}

fn words(words: &[&str], profile: &Path) -> Vec<String> {
    let words = words.iter().map(ToString::to_string);
    words.map(|word| if word == "PROFILE" { profile.display().to_string() } else { word }).collect()
}

fn kinds() -> (Store, PathBuf) {
    let store = Store::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kinds.nix");
    let path = crate::support::finish(store.command("nix-build").arg(file).arg("--no-out-link"));
    (store, path.into())
}

#[test]
fn export_profile_fails_whole_whatever_call_fails() {
    const NO_RANGE: &[&str] = &["copy_file_range"];
    const NO_LINKS: &[&str] = &["linkat"];
    let (store, profile) = kinds();
    let folder = folder();
    let root = folder.path().join("root");
    let export = |more: &[&str]| {
        let all = [&["export-profile", "--profile", "PROFILE", "--jobs", "1", "--quiet"], more, &["root"]].concat();
        Writer { store: &store, words: words(&all, &profile), folder: folder.path() }
    };
    let reset = || remove(&root);
    let copies: &[Row<'_>] = &[
        ("mkdir", "ENOSPC", &[]),
        ("mkdirat", "EDQUOT", &[]),
        ("openat", "ENOSPC", &[]),
        ("write", "ENOSPC", &[]),
        ("write", "EDQUOT", NO_RANGE),
        ("copy_file_range", "ENOSPC", &[]),
        ("ftruncate", "ENOSPC", &[]),
        ("linkat", "ENOSPC", &[]),
        ("symlink", "ENOSPC", &[]),
        ("symlinkat", "EDQUOT", &[]),
        ("fchmod", "EIO", &[]),
        ("chmod", "EIO", &[]),
        ("utimensat", "EIO", &[]),
        ("close", "ENOSPC", &[]),
        ("close", "EIO", NO_RANGE),
        ("rename", "EIO", &[]),
        ("syncfs", "ENOSPC", &[]),
    ];
    fails(&export(&["--link-mode", "copy", "--sync"]), copies, &[], &reset);
    if is_root() {
        // Only root gives a home directory to its user.
        fails(&export(&["--user", "app"]), &[("fchownat", "EIO", &[])], &[], &reset);
    }
    let links: &[Row<'_>] = &[
        ("linkat", "ENOSPC", &[]),
        ("linkat", "EIO", &[]),
        ("close", "EDQUOT", NO_LINKS),
        ("ioctl", "ENOSPC", NO_LINKS),
    ];
    fails(&export(&["--link-mode", "auto"]), links, &[], &reset);
}

#[test]
fn a_folder_that_inherits_more_than_it_should_fails_whole_too() {
    if !root_for("a directory of another group") {
        return;
    }
    let (store, profile) = kinds();
    let folder = folder();
    let root = folder.path().join("root");
    call("setfacl", [&"--default", &"--modify", &"user:1234:rwx", &folder.path()]);
    call("chgrp", [&"1234", &folder.path()]);
    set_mode(folder.path(), 0o2755);
    let all = ["export-profile", "--profile", "PROFILE", "--jobs", "1", "--quiet", "root"];
    let writer = Writer { store: &store, words: words(&all, &profile), folder: folder.path() };
    let rows: &[Row<'_>] = &[("fremovexattr", "EIO", &[]), ("fchown", "EIO", &[]), ("fchmod", "EIO", &[])];
    fails(&writer, rows, &[], &|| remove(&root));
}

#[test]
fn a_mount_point_is_empty_again_whatever_call_fails() {
    let (store, profile) = kinds();
    let Some(tmpfs) = FileSystem::tmpfs("size=64m,mode=755") else { return };
    let all = ["export-profile", "--profile", "PROFILE", "--jobs", "1", "--quiet", "."];
    let writer = Writer { store: &store, words: words(&all, &profile), folder: &tmpfs.point };
    let rows: &[Row<'_>] = &[("renameat2", "EIO", &[]), ("openat", "ENOSPC", &[]), ("close", "ENOSPC", &[])];
    let reset = || {
        for name in names(&tmpfs.point) {
            remove(&tmpfs.point.join(name));
        }
    };
    fails(&writer, rows, &[], &reset);
}

#[test]
fn export_image_fails_whole_whatever_call_fails() {
    let (store, profile) = kinds();
    let folder = folder();
    let image = |out: &str, more: &[&str]| {
        let all = [&["export-image", "--profile", "PROFILE", "--jobs", "1", "--quiet"], more, &[out]].concat();
        Writer { store: &store, words: words(&all, &profile), folder: folder.path() }
    };
    let common: &[Row<'_>] = &[
        ("openat", "ENOSPC", &[]),
        ("write", "ENOSPC", &[]),
        ("close", "ENOSPC", &[]),
        ("close", "EDQUOT", &[]),
        ("rename", "EIO", &[]),
        ("fchmod", "EIO", &[]),
    ];
    let layout = folder.path().join("layout");
    fails(&image("layout", &[]), &[common, &[("mkdir", "ENOSPC", &[])]].concat(), &[], &|| remove(&layout));
    let archive = folder.path().join("image.tar");
    fails(&image("image.tar", &[]), common, &[], &|| fs_err::remove_file(&archive).unwrap());

    // Added to a layout, which stays as it was.
    image("layout", &["--tag", "x:first"]).succeeds();
    let kept = folder.path().join("kept");
    call("cp", [&"-a", &layout, &kept]);
    let reset = || {
        remove(&layout);
        call("cp", [&"-a", &kept, &layout]);
    };
    let untouched = ["kept".to_owned(), "layout".to_owned()];
    let writer = image("layout", &["--tag", "x:second", "--created", "2001-01-01T00:00:00Z"]);
    let index = fs_err::read_to_string(layout.join("index.json")).unwrap();
    fails(&writer, common, &untouched, &|| {
        reset();
        assert_eq!(fs_err::read_to_string(layout.join("index.json")).unwrap(), index);
    });
}

#[test]
fn reports_manuals_and_dockerfiles_are_written_whole_or_not_at_all() {
    let (store, profile) = kinds();
    let rows: &[Row<'_>] = &[
        ("openat", "ENOSPC", &[]),
        ("write", "ENOSPC", &[]),
        ("close", "ENOSPC", &[]),
        ("close", "EDQUOT", &[]),
        ("rename", "EIO", &[]),
    ];
    let written = |words: Vec<String>, file: &str| {
        let folder = folder();
        let writer = Writer { store: &store, words, folder: folder.path() };
        fails(&writer, rows, &[], &|| fs_err::remove_file(folder.path().join(file)).unwrap());
    };
    let inspect = ["export-profile", "--profile", "PROFILE", "--jobs", "1", "--quiet", "--dry-run"];
    written(words(&[&inspect[..], &["--max-size", "1G", "--sbom", "sbom.json"]].concat(), &profile), "sbom.json");
    written(words(&[&inspect[..], &["--report", "--report-file", "report"]].concat(), &profile), "report");

    // A page that was written before the one that fails is whole, and one that was there stays.
    let pages = folder();
    let writer = Writer { store: &store, words: words(&["nixkit", "--man", "man"], &profile), folder: pages.path() };
    writer.succeeds();
    let page = pages.path().join("man/export-profile.1");
    let text = fs_err::read_to_string(&page).unwrap();
    fails(&writer, rows, &["man".into()], &|| assert_eq!(fs_err::read_to_string(&page).unwrap(), text));

    let project = folder();
    let file = project.path().join("Dockerfile");
    let commit = |digit: &str| digit.repeat(40);
    let old = format!("FROM niteo/nixpkgs-nixos-25.11:{} AS build\n", commit("0"));
    let pin = format!(r#"{{"nixpkgs": {{"type": "tarball", "branch": "nixos-25.11", "rev": "{}"}}}}"#, commit("1"));
    fs_err::create_dir_all(project.path().join("nix")).unwrap();
    fs_err::write(project.path().join("nix/sources.json"), pin).unwrap();
    fs_err::write(&file, &old).unwrap();
    let writer =
        Writer { store: &store, words: vec!["sync-dockerfile".into(), "--quiet".into()], folder: project.path() };
    let more: &[Row<'_>] = &[("fchmod", "EIO", &[]), ("fsync", "EIO", &[]), ("fsync", "ENOSPC", &[])];
    fails(&writer, &[rows, more].concat(), &["Dockerfile".into(), "nix".into()], &|| {
        fs_err::write(&file, &old).unwrap();
    });
    writer.succeeds();
    assert!(fs_err::read_to_string(&file).unwrap().contains(&commit("1")));
}
