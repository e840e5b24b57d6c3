//! Runs `export-image`, and looks into what it wrote with programs of others.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Store, Tree, finish, installed};

#[derive(Clone)]
pub(crate) struct ImageExport {
    environment: BTreeMap<OsString, OsString>,
    arguments: Vec<OsString>,
    out: PathBuf,
    umask: &'static str,
}

impl ImageExport {
    pub(crate) fn new(store: &Store, profile: &Path, out: impl AsRef<Path>) -> Self {
        let environment = store.environment().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let export = Self { environment, arguments: Vec::new(), out: out.as_ref().to_owned(), umask: "022" };
        export.arg("--profile").arg(profile)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(OsString::from));
        self
    }

    pub(crate) fn out(mut self, out: impl AsRef<Path>) -> Self {
        out.as_ref().clone_into(&mut self.out);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    pub(crate) fn umask(mut self, umask: &'static str) -> Self {
        self.umask = umask;
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// Puts programs of the test's own before the real ones.
    pub(crate) fn programs_in(self, folder: &Path) -> Self {
        let mut path = folder.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        self.env("PATH", path)
    }

    /// The command itself, for tests that look at it more closely.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("umask {}; exec \"$@\"", self.umask), "sh"])
            .arg(installed().join("export-image"))
            .args(&self.arguments)
            .arg(&self.out)
            .env_clear()
            .envs(&self.environment)
            .current_dir(super::scratch())
            .stdin(Stdio::null());
        command
    }

    /// Status, stdout and stderr.
    pub(crate) fn run(&self) -> (Option<i32>, String, String) {
        let output = self.command().output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// It must succeed, say one line, and leave nothing beside OUT. Returns the receipt.
    pub(crate) fn exports(&self) -> Value {
        let (status, stdout, stderr) = self.clone().arg("--json").run();
        assert_eq!(status, Some(0), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("export-image: wrote sha256:"), "{stderr}");
        assert_eq!(super::drafts_beside(&self.out), [""; 0]);
        serde_json::from_str(&stdout).unwrap()
    }

    /// It must fail with this status, with all of `words` on stderr and nothing on stdout, and leave everything as
    /// it was where OUT lies.
    pub(crate) fn refuses(&self, status: i32, words: &[&str]) {
        let parent = self.out.ancestors().skip(1).find(|parent| parent.is_dir());
        let there = || parent.map(Tree::read).map(without_times);
        let before = there();
        let (code, stdout, stderr) = self.run();
        assert_eq!((code, stdout.as_str()), (Some(status), ""), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no `{word}` in:\n{stderr}");
        }
        assert!(there() == before, "something was written beside `{}`", self.out.display());
    }
}

/// A draft that came and went moves the time of its directory.
fn without_times(mut tree: Tree) -> Tree {
    for entry in tree.0.values_mut().filter(|entry| entry.what == super::What::Directory) {
        (entry.time, entry.size) = ((0, 0), 0);
    }
    tree
}

/// The JSON in a file.
pub(crate) fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap()
}

/// The blob of a digest `sha256:…`.
pub(crate) fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

/// Unpacks an image of a layout with umoci, and returns its root.
pub(crate) fn unpack(layout: &Path, name: &str, to: &Path) -> PathBuf {
    finish(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:{name}", layout.display())).arg(to));
    to.join("rootfs")
}

/// Bytes of all files below a directory, by their paths.
pub(crate) fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = Tree::read(directory).0.into_iter().filter(|(_, entry)| entry.what == super::What::File);
    files.map(|(path, _)| (path.clone(), fs_err::read(directory.join(path)).unwrap())).collect()
}
