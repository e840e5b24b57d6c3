//! How files are read and written: special files, mount points, attributes, interrupts, and several runs at once.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::{NEW, OLD, changes, dockerfile, flake, niv, npins, refuses, repository, run, run_with, write};
use crate::support::{FileSystem, call, finish, folder, names, nixkit, root_for, script};

/// A repository of old Dockerfiles with these names, and a new pin.
fn repository_of(files: &[&str]) -> TempDir {
    let place = folder();
    fs::create_dir(place.path().join(".git")).unwrap();
    write(place.path(), "nix/sources.json", &niv(NEW));
    for file in files {
        write(place.path(), file, &dockerfile(OLD));
    }
    place
}

/// Runs `sync-dockerfile` below `strace` with these options, and returns what came of it with the trace.
fn traced(folder: &Path, options: &[&str], arguments: &[&str]) -> (Output, String) {
    let trace = folder.join(".git/trace");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).args(options).arg(nixkit()).arg("sync-dockerfile").args(arguments);
    let output = strace.current_dir(folder).stdin(Stdio::null()).output().unwrap();
    (output, fs::read_to_string(trace).unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn special_files_are_refused_at_once() {
    let place = repository();
    let pipe = |name: &str| mkfifo(&place.path().join(name), Mode::S_IRWXU).unwrap();
    for name in ["pins", "x.Dockerfile", "list"] {
        pipe(name);
    }
    write(place.path(), "npins/sources.json", &npins("https://releases.nixos.org"));
    let refused =
        |file: &str| format!("sync-dockerfile: error: cannot read `{file}`: it is a named pipe, not a regular file\n");
    refuses(place.path(), &["--pins", "pins"], 1, &refused("pins"));
    refuses(place.path(), &["x.Dockerfile"], 1, &refused("x.Dockerfile"));
    refuses(place.path(), &["--revisions", "list"], 1, &refused("list"));
    refuses(place.path(), &["--check", "--pins", "pins"], 2, &refused("pins"));
    let here = fs::canonicalize(place.path()).unwrap();
    pipe("flake.lock");
    refuses(place.path(), &[], 1, &refused(here.join("flake.lock").to_str().unwrap()));
    pipe("nixkit.toml");
    refuses(place.path(), &[], 1, &refused(here.join("nixkit.toml").to_str().unwrap()));
    // The shell's pipes are meant.
    let script = format!(
        "exec '{}' sync-dockerfile --image niteo/nixpkgs- --pins <(sleep 0.1; echo '{}')",
        nixkit().display(),
        niv(NEW)
    );
    finish(Command::new("bash").args(["-c", &script]).current_dir(place.path()));
    assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(NEW));
}

#[test]
fn other_applets_refuse_a_pipe_for_their_settings_too() {
    let place = folder();
    let pipe = place.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    for arguments in [&["export-image", "--config", "pipe", "out"][..], &["update-images", "--config", "pipe"]] {
        let output = Command::new(nixkit()).args(arguments).current_dir(place.path()).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains("it is a named pipe, not a regular file"), "{stderr}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_file_that_is_a_mount_point_is_written_in_place() {
    if !root_for("mounting") {
        return;
    }
    let place = repository_of(&["real", "Dockerfile"]);
    let (real, mounted) = (place.path().join("real"), place.path().join("Dockerfile"));
    let mounted = || {
        call("mount", [&"--bind", &real, &mounted]);
        scopeguard(&mounted)
    };
    let said = "sync-dockerfile: warning: `Dockerfile` is a mount point, so it was written in place\n";
    let synced = |said: &str| {
        let run = run(place.path(), &[]);
        let line = format!("Dockerfile:1: niteo/nixpkgs-nixos-25.11:{OLD} \u{2192} {NEW} (nix/sources.json)\n");
        assert_eq!((run.status, run.stdout, run.stderr.as_str()), (0, line, said));
        assert_eq!(fs::read_to_string(&real).unwrap(), dockerfile(NEW));
        assert_eq!(names(place.path()), [".git", "Dockerfile", "nix", "real"]);
    };
    let inode = fs::metadata(&real).unwrap().ino();
    let mount = mounted();
    synced(said);
    assert_eq!(fs::metadata(&real).unwrap().ino(), inode);
    drop(mount);

    // In a folder that takes no draft.
    write(place.path(), "real", &format!("{}# longer\n", dockerfile(OLD)));
    write(place.path(), "real", &dockerfile(OLD));
    call("mount", [&"--bind", &place.path(), &place.path()]);
    let folder = scopeguard(place.path());
    let mount = mounted();
    call("mount", [&"-o", &"remount,ro,bind", &place.path()]);
    synced(said);
    drop((mount, folder));
}

/// Unmounts `path` when it goes out of scope.
fn scopeguard(path: &Path) -> impl Drop {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
    Mounted(path.to_owned())
}

#[test]
fn attributes_and_access_lists_stay_and_hard_links_are_reported() {
    let Some(ext4) = FileSystem::ext4(16) else { return };
    let place = &ext4.point;
    fs::create_dir(place.join(".git")).unwrap();
    write(place, "nix/sources.json", &niv(NEW));
    for file in ["Dockerfile", "b.Dockerfile"] {
        write(place, file, &dockerfile(OLD));
    }
    // `user::rw-`, `user:12:r--`, `group::r--`, `mask::r--`, `other::r--` in the kernel's form.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, u32::MAX),
        entry(2, 4, 12),
        entry(4, 4, u32::MAX),
        entry(16, 4, u32::MAX),
        entry(32, 4, u32::MAX),
    ]
    .concat();
    let set = |file: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(place.join(file), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("Dockerfile", "system.posix_acl_access", &list);
    set("Dockerfile", "user.note", b"kept");
    // What new files in the folder get.
    set(".", "system.posix_acl_default", &list);
    let attributes = |file: &str| {
        let mut buffer = vec![0; 1000];
        let length = rustix::fs::listxattr(place.join(file), &mut buffer).unwrap();
        let mut names: Vec<_> = text(&buffer[..length]).split_terminator('\0').map(str::to_owned).collect();
        names.sort();
        names
    };
    fs::hard_link(place.join("b.Dockerfile"), place.join("other")).unwrap();
    let modes = || ["Dockerfile", "b.Dockerfile"].map(|file| fs::metadata(place.join(file)).unwrap().mode());
    let before = (modes(), attributes("Dockerfile"), attributes("b.Dockerfile"));
    assert_eq!(before.1, ["system.posix_acl_access", "user.note"]);

    let run = run(place, &["Dockerfile", "b.Dockerfile"]);
    let said = "sync-dockerfile: warning: `b.Dockerfile` has 1 other name (hard links), with the old content\n";
    assert_eq!((run.status, run.stderr.as_str()), (0, said));
    assert_eq!((modes(), attributes("Dockerfile"), attributes("b.Dockerfile")), before);
    let mut value = [0; 10];
    let length = rustix::fs::getxattr(place.join("Dockerfile"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
    for file in ["Dockerfile", "b.Dockerfile"] {
        assert_eq!(fs::read_to_string(place.join(file)).unwrap(), dockerfile(NEW));
    }
    assert_eq!(fs::read_to_string(place.join("other")).unwrap(), dockerfile(OLD));
}

#[test]
fn several_runs_at_once_all_succeed() {
    let place = repository_of(&["Dockerfile"]);
    for _ in 0..12 {
        write(place.path(), "Dockerfile", &dockerfile(OLD));
        // What a dead run left, which each of them removes.
        write(place.path(), ".Dockerfile.nixkit-0123456789abcdef", "half");
        let runs: Vec<_> = (0..6)
            .map(|_| {
                let mut command = Command::new(nixkit());
                command.arg0("sync-dockerfile").current_dir(place.path()).stdout(Stdio::null()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            let said = text(&output.stderr);
            assert!(output.status.success() && !said.contains("error") && !said.contains("warning"), "{said}");
        }
        assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(NEW));
        assert_eq!(names(place.path()), [".git", "Dockerfile", "nix"]);
    }
}

#[test]
fn each_pin_and_each_folder_is_read_once() {
    let files: Vec<String> = (0..20).map(|number| format!("d{}/{number}.Dockerfile", number % 2)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let place = repository_of(&files);
    write(place.path(), "nixkit.toml", "");
    let (output, trace) = traced(place.path(), &["-e", "trace=open,openat"], &files);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let opened = |name: &str| trace.lines().filter(|line| line.contains(name) && !line.contains("ENOENT")).count();
    assert_eq!(opened("sources.json"), 1, "{trace}");
    assert_eq!(opened("nixkit.toml"), 1, "{trace}");
    assert_eq!(opened("O_DIRECTORY"), 2, "one for each folder\n{trace}");
}

#[test]
fn a_signal_between_two_files_is_reported_with_what_was_written() {
    let place = repository_of(&["a.Dockerfile", "b.Dockerfile", "c.Dockerfile"]);
    let files = ["a.Dockerfile", "b.Dockerfile", "c.Dockerfile"];
    let inject = |when: u32| format!("inject=rename,renameat,renameat2:signal=TERM:when={when}");
    let (output, _) = traced(place.path(), &["-e", &inject(2)], &files);
    let said = "sync-dockerfile: error: interrupted by SIGTERM; `a.Dockerfile` and `b.Dockerfile` were written\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(143), said));
    for (file, commit) in [("a.Dockerfile", NEW), ("b.Dockerfile", NEW), ("c.Dockerfile", OLD)] {
        assert_eq!(fs::read_to_string(place.path().join(file)).unwrap(), dockerfile(commit));
    }
    assert_eq!(names(place.path()), [".git", "a.Dockerfile", "b.Dockerfile", "c.Dockerfile", "nix"]);

    // While drafts are written nothing has been published.
    write(place.path(), "a.Dockerfile", &dockerfile(OLD));
    let (output, trace) = traced(place.path(), &["-e", "inject=fsync,fdatasync:signal=INT:when=1"], &files);
    let said = "sync-dockerfile: error: interrupted by SIGINT; nothing was written\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(130), said), "{trace}");
    assert_eq!(fs::read_to_string(place.path().join("a.Dockerfile")).unwrap(), dockerfile(OLD));
    assert_eq!(names(place.path()), [".git", "a.Dockerfile", "b.Dockerfile", "c.Dockerfile", "nix"]);
}

#[test]
fn a_write_that_fails_is_reported_with_what_was_written() {
    let files = ["a.Dockerfile", "b.Dockerfile"];
    let place = repository_of(&files);
    let (output, _) = traced(place.path(), &["-e", "inject=rename,renameat,renameat2:error=EIO:when=2"], &files);
    let said = "sync-dockerfile: error: `a.Dockerfile` was written, but `b.Dockerfile` cannot be: Input/output error (os error 5)\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), said));
    write(place.path(), "a.Dockerfile", &dockerfile(OLD));
    for call in ["fsync", "fchmod", "write", "rename,renameat,renameat2"] {
        let (output, _) = traced(place.path(), &["-e", &format!("inject={call}:error=ENOSPC:when=1")], &files);
        let said = text(&output.stderr);
        assert!(said.contains("No space left on device") && said.contains("cannot write `"), "{call}: {said}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(fs::read_to_string(place.path().join("a.Dockerfile")).unwrap(), dockerfile(OLD), "{call}");
        assert_eq!(names(place.path()), [".git", "a.Dockerfile", "b.Dockerfile", "nix"], "{call}");
    }
}

#[test]
fn a_signal_ends_curl_with_all_that_it_started() {
    let place = repository();
    write(place.path(), "npins/sources.json", &npins("https://releases.nixos.org"));
    let bin = folder();
    let (pid, started) = (bin.path().join("pid"), bin.path().join("started"));
    mkfifo(&started, Mode::S_IRWXU).unwrap();
    script(
        &bin.path().join("curl"),
        &format!("sleep 600 & echo $! >{}; echo >{}; kill -TERM $PPID; wait", pid.display(), started.display()),
    );
    let path = PathBuf::from(format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap()));
    let reader = std::thread::spawn(move || File::open(started).unwrap().read_to_end(&mut Vec::new()).unwrap());
    let run = run_with(place.path(), &["--online"], &[("PATH", &path)]);
    reader.join().unwrap();
    let said = "sync-dockerfile: error: interrupted by SIGTERM; nothing was written\n";
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (143, "", said));
    let pid = fs::read_to_string(pid).unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // It is not our child, so its end cannot be waited for.
    while !stat().is_empty() && !stat().contains(") Z ") {
        std::thread::yield_now();
    }
}

#[test]
fn a_full_standard_output_does_not_hide_that_files_were_written() {
    let place = repository_of(&["Dockerfile"]);
    let run_full = |arguments: &[&str]| {
        let mut command = Command::new(nixkit());
        command.arg0("sync-dockerfile").args(arguments).current_dir(place.path());
        let output = command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let cause = "cannot write to standard output: No space left on device (os error 28)";
    assert_eq!(run_full(&["--check"]), (Some(2), format!("sync-dockerfile: error: {cause}\n")));
    assert_eq!(run_full(&[]), (Some(1), format!("sync-dockerfile: error: `Dockerfile` was written: {cause}\n")));
    assert_eq!(fs::read_to_string(place.path().join("Dockerfile")).unwrap(), dockerfile(NEW));
    let said = format!("sync-dockerfile: error: nothing had to be written: {cause}\n");
    assert_eq!(run_full(&["--json"]), (Some(1), said));
}

#[test]
fn the_fix_is_the_command_that_was_called() {
    let place = repository_of(&["Dockerfile"]);
    let binary = nixkit();
    let check = |arg0: &str, arguments: &[&str]| {
        let mut command = Command::new(&binary);
        let output = command.arg0(arg0).args(arguments).current_dir(place.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr).lines().last().unwrap().to_owned()
    };
    for (arg0, arguments, fix) in [
        ("nixkit", &["sync-dockerfile", "--check"][..], "nixkit sync-dockerfile"),
        ("./my tools/sync-dockerfile", &["--check", "--json", "Dockerfile"], "'./my tools/sync-dockerfile' Dockerfile"),
        ("sync-dockerfile", &["--check", "--", "Dockerfile"], "sync-dockerfile -- Dockerfile"),
    ] {
        assert_eq!(check(arg0, arguments), format!("sync-dockerfile: to fix, run: {fix}"));
    }
}

#[test]
fn a_repository_without_base_images_is_fine_with_if_present() {
    let place = folder();
    fs::create_dir(place.path().join(".git")).unwrap();
    let run_there = |arguments: &[&str]| {
        let run = run(place.path(), arguments);
        (run.status, run.stdout, run.stderr)
    };
    let nothing = (0, String::new(), "sync-dockerfile: no file names the base image\n".to_owned());
    // No file, no pin.
    assert_eq!(run_there(&["--if-present"]), nothing);
    write(place.path(), "Dockerfile", "FROM alpine AS a\n");
    write(place.path(), "template", "<html>");
    assert_eq!(run_there(&["--if-present", "--check", "Dockerfile", "template"]), nothing);
    assert_eq!(run_there(&["--if-present", "--quiet"]), (0, String::new(), String::new()));
    // Of a stage.
    write(place.path(), "nix/sources.json", &niv(NEW));
    write(place.path(), "b.Dockerfile", &format!("{}FROM alpine AS run\n", dockerfile(OLD)));
    assert_eq!(run_there(&["--if-present", "--stage", "run", "Dockerfile", "b.Dockerfile"]), nothing);
    let (status, _, stderr) = run_there(&["--if-present", "--stage", "build", "Dockerfile", "b.Dockerfile"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    // A file that is not there is an error all the same.
    assert_eq!(run_there(&["--if-present", "gone"]).0, 1);
}

#[test]
fn a_lock_file_of_another_repository_is_not_followed_by_accident() {
    let place = repository();
    write(
        place.path(),
        "flake.lock",
        &flake(NEW).replace("\"rev\"", "\"type\": \"github\", \"owner\": \"a\", \"repo\": \"b\", \"rev\""),
    );
    let refused = "sync-dockerfile: error: cannot use the pin of `nixpkgs` in `flake.lock`: it is github:a/b, not nixpkgs\n\
        hint: no input of this file is nixpkgs; `--pins FILE` names another file, `--image PREFIX` another image\n";
    refuses(place.path(), &[], 1, refused);
    for image in ["niteo/nixpkgs-", "docker.io/niteo/nixpkgs-"] {
        refuses(place.path(), &["--image", image], 1, refused);
    }
    // Another image may be built from it.
    write(place.path(), "nixkit.toml", "[sync]\nimage = \"niteo/nixpkgs-nixos-\"\n");
    changes(place.path(), &[], "Dockerfile", NEW, "flake.lock");
}
