//! Containers by runc from a root that was exported: no engine, no image, and any root file system.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{finish, folder, root_for, skip, until};

/// In a bundle: the number of the first process.
const PID: &str = "pid";

/// A container that has not been started.
pub(crate) struct Container {
    bundle: TempDir,
    spec: Value,
}

impl Container {
    /// As `nonroot`, with a network of its own that has only the loopback interface. `None` where there can be none, after
    /// saying so.
    pub(crate) fn new(root: &Path) -> Option<Self> {
        if !root_for("runc") {
            return None;
        }
        if which::which("runc").is_err() {
            skip("there is no `runc`");
            return None;
        }
        let bundle = folder();
        finish(Command::new("runc").args(["spec", "--bundle"]).arg(bundle.path()));
        let mut spec: Value =
            serde_json::from_slice(&fs_err::read(bundle.path().join("config.json")).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["env"] = json!(["PATH=/nix/profile/bin"]);
        spec["process"]["cwd"] = json!("/");
        spec["root"] = json!({ "path": root, "readonly": false });
        Some(Self { bundle, spec }.user(65532))
    }

    pub(crate) fn user(mut self, id: u32) -> Self {
        self.spec["process"]["user"] = json!({ "uid": id, "gid": id });
        self
    }

    pub(crate) fn env(mut self, variable: &str) -> Self {
        self.spec["process"]["env"].as_array_mut().unwrap().push(json!(variable));
        self
    }

    /// The machine's network instead of one of its own.
    pub(crate) fn host_network(mut self) -> Self {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        self
    }

    pub(crate) fn tmpfs(self, place: &str) -> Self {
        self.mount(json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] }))
    }

    /// A file of the engine's over one of the root.
    pub(crate) fn file(self, place: &str, text: &str) -> Self {
        let source = self.bundle.path().join(place.replace('/', "-"));
        fs_err::write(&source, text).unwrap();
        self.mount(json!({ "destination": place, "type": "bind", "source": source, "options": ["bind", "ro"] }))
    }

    fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Runs a program to its end. Status, stdout and stderr.
    pub(crate) fn run(self, words: &[&str]) -> (Option<i32>, String, String) {
        let (mut run, _name) = self.command(words);
        let output = run.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Starts a server.
    pub(crate) fn start(self, words: &[&str]) -> Server {
        let (mut run, name) = self.command(words);
        let log = fs_err::File::create(self.bundle.path().join("log")).unwrap().into_parts().0;
        let child = run.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Server { bundle: self.bundle, child, name };
        let pid = server.bundle.path().join(PID);
        let mut has_ended = false;
        until(|| {
            has_ended = server.has_ended();
            pid.exists() || has_ended
        });
        assert!(!has_ended, "{}", server.log());
        server
    }

    fn command(&self, words: &[&str]) -> (Command, String) {
        let mut spec = self.spec.clone();
        spec["process"]["args"] = json!(words);
        let bundle = self.bundle.path();
        fs_err::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let name = format!("nixkit-it-{}-{}", std::process::id(), bundle.file_name().unwrap().to_str().unwrap());
        let mut command = Command::new("runc");
        command.arg("--root").arg(state(bundle)).args(["run", "--bundle"]).arg(bundle);
        command.arg("--pid-file").arg(bundle.join(PID)).arg(&name).stdin(Stdio::null());
        (command, name)
    }
}

fn state(bundle: &Path) -> PathBuf {
    bundle.join("state")
}

/// A container that runs. It is killed when it goes out of scope.
pub(crate) struct Server {
    bundle: TempDir,
    child: Child,
    name: String,
}

impl Server {
    /// A program of this machine in the container's network.
    pub(crate) fn network(&self, program: &str) -> Command {
        let pid = fs_err::read_to_string(self.bundle.path().join("pid")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", pid.trim())).arg(program).stdin(Stdio::null());
        command
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs_err::read_to_string(self.bundle.path().join("log")).unwrap()
    }

    /// Sends a signal and returns the status with which it ends.
    pub(crate) fn stop(&mut self, signal: &str) -> i32 {
        finish(Command::new("runc").arg("--root").arg(state(self.bundle.path())).args(["kill", &self.name, signal]));
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut delete = Command::new("runc");
        delete.arg("--root").arg(state(self.bundle.path())).args(["delete", "--force", &self.name]);
        let _ = delete.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
