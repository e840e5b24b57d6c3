//! The harness: the binary under test, a place to write, and what a test does that cannot run here.
//! Each test states stdout, stderr, exit status and what lies on disk; the helpers here demand all four.

pub(crate) mod engine;
mod export;
mod file_system;
mod front;
mod image;
mod judge;
mod peers;
mod runc;
mod store;
mod tmate;
mod tree;

pub(crate) use export::{BesideStore, Export, Receipt, Refusal, Running, drafts_beside};
pub(crate) use file_system::{FileSystem, Kind, Stocked, stocked};
pub(crate) use front::Front;
pub(crate) use image::{ImageExport, blob, files, json, unpack};
pub(crate) use judge::{content, judge};
pub(crate) use peers::{Cutting, Nixpkgs, Registry, Releases, copied, deadly_skopeo};
pub(crate) use runc::{Container, Server};
pub(crate) use store::{Store, fixture};
pub(crate) use tmate::{Fake, SessionBuilder, TmateServer, processes_of, until};
pub(crate) use tree::{Entry, Tree, What, same_shape};

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Unmounts and removes what lies in `$1` once its standard input ends: when the process of the tests has
/// ended, however it did. Statics are never dropped, and mounts hold file systems that are used until then.
const CLEANER: &str = r#"trap '' INT TERM HUP; cd /
while read -r _; do :; done
awk -v d="$1/" 'index($2 "/", d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n 1 umount -l
[ "$(id -u)" = 0 ] || chmod -R u+w "$1"
rm -rf --one-file-system "$1""#;

/// Everything that the tests write lies here; other users can reach it.
pub(crate) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (path, _) = SCRATCH.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("nixkit-it-").tempdir().unwrap();
        let path = fs_err::canonicalize(folder.keep()).unwrap();
        if is_root() {
            // Only to be quick: ext4 becomes slow where much is deleted. Where it fails, the disk will do.
            let _ = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(&path).status();
        }
        set_mode(&path, 0o755);
        let cleaner = Command::new("sh")
            .args(["-c", CLEANER, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        (path, cleaner)
    });
    path
}

/// A new directory, mode 0755, that is removed when it goes out of scope.
pub(crate) fn folder() -> TempDir {
    folder_in(scratch())
}

pub(crate) fn folder_in(parent: &Path) -> TempDir {
    let folder = tempfile::Builder::new().prefix("t-").tempdir_in(parent).unwrap();
    set_mode(folder.path(), 0o755);
    folder
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// The static release binary: `$NIXKIT`, or what `make build` made.
pub(crate) fn nixkit() -> PathBuf {
    if let Some(path) = std::env::var_os("NIXKIT").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let linux = format!("{}-unknown-linux", std::env::consts::ARCH);
    // `make build` prefers musl.
    ["musl", "gnu"]
        .map(|libc| target.join(format!("{linux}-{libc}/release/nixkit")))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no binary to test in `{}`: run `make build` first", target.display()))
}

/// A folder with a copy of the binary and the symlinks of its applets, where any user can run them.
pub(crate) fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let bin = scratch().join("bin");
        fs_err::create_dir(&bin).unwrap();
        // By another process: a file that is open for writing in one that forks at that moment cannot be run.
        call("cp", [&nixkit(), &bin.join("nixkit")]);
        finish(Command::new(bin.join("nixkit")).arg("--install").arg(&bin));
        bin
    })
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test does not run here. In CI, where `CI` is set, that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "a test was skipped in CI: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not eprintln!, which the test runner keeps for itself when a test passes.
    let _ = std::io::stderr().lock().write_all(format!("skipped {test}: {why}\n").as_bytes());
}

/// Whether the test may go on; if not, it has been skipped.
pub(crate) fn root_for(what: &str) -> bool {
    if !is_root() {
        skip(&format!("{what} needs root"));
    }
    is_root()
}

/// Runs `command`, which must succeed, and returns its stdout without the last newline.
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    let mut stdout = String::from_utf8(output.stdout).unwrap();
    stdout.truncate(stdout.trim_end_matches('\n').len());
    stdout
}

/// `command` with its arguments, as [`finish`] runs it.
pub(crate) fn call<const N: usize>(command: &str, arguments: [&dyn AsRef<OsStr>; N]) -> String {
    finish(Command::new(command).args(arguments.map(AsRef::as_ref)))
}

/// Runs a program with `root` as its whole world and nothing in its environment.
pub(crate) fn chroot(root: &Path) -> Command {
    let mut command = Command::new(which::which("chroot").unwrap());
    command.env_clear().arg(root).stdin(Stdio::null());
    command
}

/// Removes a directory with all that is in it, though only root can do so where directories are not writable.
pub(crate) fn remove(directory: &Path) {
    if !is_root() {
        let mut writable = Command::new("find");
        finish(writable.arg(directory).args(["-type", "d", "-exec", "chmod", "u+w", "{}", "+"]));
    }
    fs_err::remove_dir_all(directory).unwrap();
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs_err::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An executable shell script.
pub(crate) fn script(path: &Path, text: &str) {
    fs_err::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    set_mode(path, 0o755);
}
