//! `sync-dockerfile` where the disk, the network or the store take part: finding pins, completing commits, writing.

mod writing;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{folder, is_root, names, nixkit, script, set_mode};

const OLD: &str = "0000000000000000000000000000000000000000";
const NEW: &str = "1111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222";

/// A repository with a Dockerfile of the old commit.
fn repository() -> TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join(".git")).unwrap();
    write(folder.path(), "Dockerfile", &dockerfile(OLD));
    folder
}

fn dockerfile(commit: &str) -> String {
    format!("FROM niteo/nixpkgs-nixos-25.11:{commit} AS build\n")
}

fn niv(commit: &str) -> String {
    format!(r#"{{"nixpkgs": {{"type": "tarball", "branch": "nixos-25.11", "rev": "{commit}"}}}}"#)
}

fn flake(commit: &str) -> String {
    format!(
        r#"{{"nodes": {{"n": {{"locked": {{"rev": "{commit}"}}}}, "root": {{"inputs": {{"nixpkgs": "n"}}}}}}, "root": "root", "version": 7}}"#
    )
}

/// An npins channel pin, which has the first 12 digits only, of a release at `address`.
fn npins(address: &str) -> String {
    format!(
        r#"{{"pins": {{"nixpkgs": {{"type": "Channel", "name": "nixos-25.11", "url": "{address}/nixos/25.11/nixos-25.11.7.{}/nixexprs.tar.xz",
        "hash": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}}}}, "version": 5}}"#,
        &NEW[..12]
    )
}

fn write(folder: &Path, file: &str, content: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run_with(folder: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Run {
    let output = Command::new(nixkit())
        .arg0("sync-dockerfile")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("NIX_STORE_DIR", "/nowhere/store")
        .env("HOME", folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run(folder: &Path, arguments: &[&str]) -> Run {
    run_with(folder, arguments, &[])
}

/// It must do it, and print this line.
fn changes(folder: &Path, arguments: &[&str], file: &str, commit: &str, pin: &str) {
    let run = run(folder, arguments);
    let line = format!("{file}:1: niteo/nixpkgs-nixos-25.11:{OLD} \u{2192} {commit} ({pin})\n");
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, line.as_str(), ""));
    assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), dockerfile(commit));
}

/// It must fail with these words, and write nothing.
fn refuses(folder: &Path, arguments: &[&str], status: i32, stderr: &str) {
    let before = fs::read(folder.join("Dockerfile")).unwrap();
    let listed = names(folder);
    let run = run(folder, arguments);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (status, "", stderr));
    assert!(fs::read(folder.join("Dockerfile")).unwrap() == before, "it was written");
    assert_eq!(names(folder), listed);
}

#[test]
fn the_nearest_pin_up_to_the_root_counts() {
    let outer = folder();
    write(outer.path(), "flake.lock", &flake(OTHER));
    let root = outer.path().join("repository");
    write(&root, ".git", "gitdir: elsewhere\n");
    write(&root, "a/b/Dockerfile", &dockerfile(OLD));
    let no_pin = "sync-dockerfile: error: cannot find a pin: no `nix/sources.json`, `npins/sources.json`, `flake.lock` \
        in the file's folder or above it\nhint: `--pins FILE` names the file\n";
    let found = run(&root, &["a/b/Dockerfile"]);
    assert_eq!((found.status, found.stderr.as_str()), (1, no_pin), "it looked above the repository");

    write(&root, "flake.lock", &flake(OTHER));
    write(&root, "a/nix/sources.json", &niv(NEW));
    changes(&root, &["a/b/Dockerfile"], "a/b/Dockerfile", NEW, "a/nix/sources.json");
    write(&root, "a/b/Dockerfile", &dockerfile(OLD));
    changes(&root.join("a/b"), &[], "Dockerfile", NEW, "../nix/sources.json");
    // A file without the input is passed by; a broken one is not.
    write(&root, "a/nix/sources.json", r#"{"other": {"type": "local"}}"#);
    write(&root, "a/b/Dockerfile", &dockerfile(OLD));
    changes(&root, &["a/b/Dockerfile"], "a/b/Dockerfile", OTHER, "flake.lock");
    write(&root, "a/nix/sources.json", "{");
    let broken = run(&root, &["a/b/Dockerfile"]);
    let said = "sync-dockerfile: error: cannot read the pin of `nixpkgs` in `a/nix/sources.json`: it is not valid JSON at line 1, column 1\n";
    assert_eq!((broken.status, broken.stderr.as_str()), (1, said));
}

#[test]
fn two_pins_must_agree() {
    let place = repository();
    write(place.path(), "nix/sources.json", &niv(NEW));
    write(place.path(), "flake.lock", &flake(OTHER));
    let disagree = format!(
        "sync-dockerfile: error: two pins of `nixpkgs` disagree: `nix/sources.json` has {NEW} of nixos-25.11, `flake.lock` has {OTHER}\n\
         hint: `--pins FILE` says which one counts\n"
    );
    refuses(place.path(), &[], 1, &disagree);
    refuses(place.path(), &["--check"], 2, &disagree);
    changes(place.path(), &["--pins", "flake.lock"], "Dockerfile", OTHER, "flake.lock");
    // The same commit, of which one file has the first digits and one all of them.
    write(place.path(), "Dockerfile", &dockerfile(OLD));
    write(place.path(), "flake.lock", &flake(NEW));
    write(place.path(), "npins/sources.json", &npins("https://releases.nixos.org"));
    fs::remove_dir_all(place.path().join("nix")).unwrap();
    changes(place.path(), &[], "Dockerfile", NEW, "flake.lock");
}

#[test]
fn a_pin_is_known_by_its_content_and_its_input_by_name() {
    let place = repository();
    write(place.path(), "pins/any.name", &flake(NEW).replace("\"nixpkgs\": \"n\"", "\"unstable\": \"n\""));
    let without = "sync-dockerfile: error: cannot read the pin of `nixpkgs` in `pins/any.name`: it has no such input, but `unstable`\n\
        hint: `--input NAME` chooses an input that is nixpkgs: `unstable`\n";
    refuses(place.path(), &["--pins", "pins/any.name"], 1, without);
    changes(place.path(), &["--pins", "pins/any.name", "--input", "unstable"], "Dockerfile", NEW, "pins/any.name");
    write(place.path(), "Dockerfile", &dockerfile(OLD));
    write(
        place.path(),
        "default.nix",
        &format!("{{ }}: fetchTarball \"https://github.com/NixOS/nixpkgs/archive/{NEW}.tar.gz\"\n"),
    );
    changes(place.path(), &["--pins", "default.nix"], "Dockerfile", NEW, "default.nix");
    for (file, content, problem) in [
        ("x.nix", "import <nixpkgs> { }", "it has no literal URL `…/nixpkgs/archive/<40 hexadecimal digits>`"),
        ("x.json", r#"{"a": 1}"#, "it is not a file of niv or npins, not a `flake.lock`, and not a Nix expression"),
        ("x.lock", r#"{"nodes": {}, "root": "r", "version": 4}"#, "version 4 of its format is not one that flake has"),
    ] {
        write(place.path(), file, content);
        let said = format!("sync-dockerfile: error: cannot read the pin of `nixpkgs` in `{file}`: {problem}\n");
        refuses(place.path(), &["--pins", file], 1, &said);
    }
}

#[test]
fn a_short_commit_is_in_step_with_each_tag_that_begins_so() {
    let place = repository();
    write(place.path(), "npins/sources.json", &npins("https://releases.nixos.org"));
    for tag in [NEW, &NEW[..12]] {
        write(place.path(), "Dockerfile", &dockerfile(tag));
        let check = run(place.path(), &["--check"]);
        let said = "sync-dockerfile: `Dockerfile` is in step with `npins/sources.json`\n";
        assert_eq!((check.status, check.stdout.as_str(), check.stderr.as_str()), (0, "", said));
    }
    // One file has the whole commit, which the other one gets.
    write(place.path(), "Dockerfile", &dockerfile(NEW));
    write(place.path(), "b.Dockerfile", &dockerfile(OLD));
    changes(place.path(), &["--quiet", "Dockerfile", "b.Dockerfile"], "b.Dockerfile", NEW, "npins/sources.json");
}

#[test]
fn a_short_commit_is_completed_from_the_list_or_the_store() {
    let place = repository();
    write(place.path(), "npins/sources.json", &npins("https://releases.nixos.org"));
    let short = format!(
        "sync-dockerfile: error: cannot complete the commit of `nixpkgs`: `npins/sources.json` holds only its first digits, `{}`\n\
         hint: `--online` asks for the rest; so does `git ls-remote https://github.com/NixOS/nixpkgs >FILE`, to be given \
         with `--revisions FILE`; and once Nix has fetched the pin, its tree in the store tells\n",
        &NEW[..12]
    );
    refuses(place.path(), &[], 1, &short);
    refuses(place.path(), &["--check"], 2, &short);

    write(place.path(), "list", &format!("{OTHER}\trefs/heads/a\n"));
    let missing = format!(
        "sync-dockerfile: error: no commit in `list` begins with `{}`\nhint: a branch that has moved on since is not in \
         the list; `--online` asks for the release itself\n",
        &NEW[..12]
    );
    refuses(place.path(), &["--revisions", "list"], 1, &missing);
    let similar = format!("{}{}", &NEW[..39], 2);
    write(place.path(), "list", &format!("{NEW}\trefs/heads/a\n{similar}\trefs/heads/b\n"));
    let several = format!("sync-dockerfile: error: several commits in `list` begin with `{}`\n", &NEW[..12]);
    refuses(place.path(), &["--revisions", "list"], 1, &several);
    write(place.path(), "list", &format!("{OTHER}\tHEAD\n{NEW}\trefs/heads/nixos-25.11\n{NEW}\trefs/x\n\n"));
    changes(place.path(), &["--revisions", "list"], "Dockerfile", NEW, "npins/sources.json");

    // The tree of the empty NAR hash above, in a store of its own.
    write(place.path(), "Dockerfile", &dockerfile(OLD));
    let store = folder();
    let tree = nixkit::pins::tree::store_path(
        &nixkit::pins::tree::sha256("sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").unwrap(),
        store.path().to_str().unwrap(),
    );
    write(&store.path().join(&tree), ".git-revision", OTHER);
    let wrong = run_with(place.path(), &[], &[("NIX_STORE_DIR", store.path())]);
    let said = format!(
        "sync-dockerfile: error: `{}` has no commit that begins with `{}`\n",
        store.path().join(&tree).join(".git-revision").display(),
        &NEW[..12]
    );
    assert_eq!((wrong.status, wrong.stderr), (1, said));
    write(&store.path().join(&tree), ".git-revision", &format!("{NEW}\n"));
    assert_eq!(run_with(place.path(), &[], &[("NIX_STORE_DIR", store.path())]).status, 0);
    assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(NEW));
}

/// Nix itself says where the tree of a pin lies.
#[test]
fn the_store_path_of_a_tree_is_nixs() {
    let hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let bytes = nixkit::pins::tree::sha256(hash).unwrap();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let output =
        Command::new("nix-store").args(["--print-fixed-path", "--recursive", "sha256", &hex, "source"]).output();
    let path = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(path.trim_end(), format!("/nix/store/{}", nixkit::pins::tree::store_path(&bytes, "/nix/store")));
}

#[test]
fn the_network_is_asked_only_when_told_to_and_no_token_is_shown() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in [format!("{NEW}\n"), format!("{OTHER}\n"), String::new()] {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            asked.push(String::from_utf8(request).unwrap().lines().next().unwrap().to_owned());
            let status = if answer.is_empty() { "404 Not Found" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            stream.write_all((head + &answer).as_bytes()).unwrap();
        }
        asked
    });
    let place = repository();
    // The user's own settings of curl do not count.
    write(place.path(), ".curlrc", "request = POST\nfail = false\n");
    write(place.path(), "npins/sources.json", &npins(&format!("http://user:SECRET@{address}")));
    let offline = run(place.path(), &[]);
    assert!(offline.status == 1 && !offline.stderr.contains("SECRET"), "{}", offline.stderr);
    changes(place.path(), &["--online"], "Dockerfile", NEW, "npins/sources.json");
    write(place.path(), "Dockerfile", &dockerfile(OLD));
    let digits = &NEW[..12];
    let other =
        format!("sync-dockerfile: error: the release's `git-revision` has no commit that begins with `{digits}`\n");
    refuses(place.path(), &["--online"], 1, &other);
    let gone = "sync-dockerfile: error: cannot ask for the commit: curl: (22) The requested URL returned error: 404\n";
    refuses(place.path(), &["--online"], 1, gone);
    for asked in served.join().unwrap() {
        assert_eq!(asked, format!("GET /nixos/25.11/nixos-25.11.7.{digits}/git-revision HTTP/1.1"));
    }

    // No curl at all.
    let empty = folder();
    let without = run_with(place.path(), &["--online"], &[("PATH", empty.path())]);
    let said = "sync-dockerfile: error: cannot find `curl` in PATH\nhint: `--online` needs it\n";
    assert_eq!((without.status, without.stderr.as_str()), (1, said));
    // The URL is not on curl's command line, where everybody can read it.
    script(&empty.path().join("curl"), "echo \"curl: $*\" >&2; exit 1");
    let told = run_with(place.path(), &["--online"], &[("PATH", empty.path())]);
    assert!(told.stderr.contains("--config -") && !told.stderr.contains("SECRET"), "{}", told.stderr);
}

#[test]
fn mode_owner_and_symlinks_stay() {
    let place = repository();
    write(place.path(), "nix/sources.json", &niv(NEW));
    let real = place.path().join("docker/real");
    write(place.path(), "docker/real", &dockerfile(OLD));
    fs::remove_file(place.path().join("Dockerfile")).unwrap();
    symlink("docker/real", place.path().join("Dockerfile")).unwrap();
    set_mode(&real, 0o4751);
    if is_root() {
        std::os::unix::fs::chown(&real, Some(1234), Some(4321)).unwrap();
        set_mode(&real, 0o4751);
    }
    let before = fs::metadata(&real).unwrap();
    changes(place.path(), &[], "Dockerfile", NEW, "nix/sources.json");
    assert_eq!(fs::read_link(place.path().join("Dockerfile")).unwrap(), Path::new("docker/real"));
    let after = fs::metadata(&real).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino(), "it was written in place");
    assert_eq!(names(&place.path().join("docker")), ["real"]);

    // What is in step is not written at all.
    let again = run(place.path(), &[]);
    assert_eq!((again.status, again.stdout.as_str()), (0, ""));
    let unchanged = fs::metadata(&real).unwrap();
    assert_eq!((unchanged.ino(), unchanged.mtime_nsec()), (after.ino(), after.mtime_nsec()));
}

#[test]
fn all_files_are_judged_before_one_is_written() {
    let place = repository();
    write(place.path(), "nix/sources.json", &niv(NEW));
    write(place.path(), "z.Dockerfile", "FROM alpine\n");
    let none = "sync-dockerfile: error: cannot sync `z.Dockerfile`: it has no image whose name begins with `niteo/nixpkgs-`; `alpine` is on line 1\n\
        hint: `--image PREFIX` names the base image, `--convert --stage NAME` puts it in the place of another image, and `--if-present` skips such files\n";
    refuses(place.path(), &["Dockerfile", "z.Dockerfile"], 1, none);
    refuses(place.path(), &["--check", "Dockerfile", "z.Dockerfile"], 2, none);
    for (file, said) in [
        ("gone", "cannot read `gone`: No such file or directory (os error 2)"),
        ("nix", "cannot read `nix`: it is a directory, not a regular file"),
        ("/dev/zero", "cannot read `/dev/zero`: it is a device, not a regular file"),
    ] {
        refuses(place.path(), &["Dockerfile", file], 1, &format!("sync-dockerfile: error: {said}\n"));
        refuses(place.path(), &["--check", "Dockerfile", file], 2, &format!("sync-dockerfile: error: {said}\n"));
    }
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let place = repository();
    write(place.path(), "nix/sources.json", &niv(NEW));
    write(place.path(), ".Dockerfile.nixkit-4000000000", "half");
    write(place.path(), ".Dockerfile.nixkit-mine", "kept");
    changes(place.path(), &[], "Dockerfile", NEW, "nix/sources.json");
    assert_eq!(names(place.path()), [".Dockerfile.nixkit-mine", ".git", "Dockerfile", "nix"]);
}

#[test]
fn the_diff_of_a_check_is_what_patch_takes() {
    let place = repository();
    write(place.path(), "nix/sources.json", &niv(NEW));
    let check = run(place.path(), &["--check", "--pins", "nix/sources.json", "Dockerfile"]);
    let said = "sync-dockerfile: `Dockerfile` is out of step with `nix/sources.json`\n\
        sync-dockerfile: to fix, run: sync-dockerfile --pins nix/sources.json Dockerfile\n";
    assert_eq!((check.status, check.stderr.as_str()), (1, said));
    assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(OLD));
    write(place.path(), "diff", &check.stdout);
    // Outside of any repository, which the folder only pretends to be.
    fs::remove_dir(place.path().join(".git")).unwrap();
    let applied = Command::new("git").args(["apply", "-p0", "diff"]).current_dir(place.path()).status().unwrap();
    assert!(applied.success());
    assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(NEW));
}

#[test]
fn the_example_is_a_fixed_point() {
    let place = repository();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile.example");
    let text = fs::read_to_string(&example).unwrap();
    let Some((_, tag)) = text.split_once("FROM niteo/nixpkgs-nixos-25.11:") else {
        panic!("the example names no image of nixos-25.11");
    };
    write(place.path(), "Dockerfile.example", &text);
    write(place.path(), "nix/sources.json", &niv(&tag[..40]));
    let check = run(place.path(), &["--check", "Dockerfile.example"]);
    assert_eq!((check.status, check.stdout.as_str()), (0, ""), "{}", check.stderr);
    write(place.path(), "nix/sources.json", &niv(NEW));
    assert_eq!(run(place.path(), &["Dockerfile.example"]).status, 0);
    let changed = fs::read_to_string(place.path().join("Dockerfile.example")).unwrap();
    assert_eq!(changed, text.replace(&tag[..40], NEW));
}
