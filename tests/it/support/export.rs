//! Runs `export-profile`: a builder for its command line, and what came of the run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::{Store, Tree, installed, names};

/// A run that hangs would hang the tests: none takes as long.
const LONGEST_RUN: Duration = Duration::from_secs(2 * 60);

/// What the summary says of hard links to a store that is not a container's.
const OF_THE_STORE: &str = "; the hard-linked files are the store's own, so never change them in place";

#[derive(Clone)]
pub(crate) struct Export {
    under: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    root: Option<PathBuf>,
}

impl Export {
    pub(crate) fn new(store: &Store) -> Self {
        let environment = store.environment().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let directory = super::scratch().to_owned();
        Self { under: Vec::new(), arguments: Vec::new(), environment, directory, root: None }
    }

    pub(crate) fn profile(self, path: impl AsRef<Path>) -> Self {
        self.arg("--profile").arg(path.as_ref())
    }

    pub(crate) fn root(mut self, root: impl AsRef<Path>) -> Self {
        self.root = Some(root.as_ref().to_owned());
        self
    }

    pub(crate) fn mode(self, mode: &str) -> Self {
        self.arg("--link-mode").arg(mode)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(OsString::from));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// A program that runs it, with its arguments.
    pub(crate) fn under<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.under.extend(words.map(OsString::from));
        self
    }

    /// As a user who owns nothing.
    pub(crate) fn by_nobody(self) -> Self {
        self.under(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
    }

    /// Puts a `nix-store` of the test's own before the real one.
    pub(crate) fn nix_store_in(self, folder: &Path) -> Self {
        let mut path = folder.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        self.env("PATH", path)
    }

    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    fn command(&self) -> Command {
        let mut words = self.under.clone();
        words.push(installed().join("export-profile").into());
        words.extend(self.arguments.iter().cloned());
        words.extend(self.root.iter().map(|root| root.as_os_str().to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(&self.environment).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self) -> Running {
        let mut command = self.command();
        Running { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    pub(crate) fn run(&self) -> Outcome {
        self.start().wait()
    }

    /// Runs it with `--json`. It must succeed, say nothing but the summary, and leave nothing beside ROOT.
    pub(crate) fn exports(&self) -> Receipt {
        self.exports_with(&[])
    }

    /// As [`Export::exports`], with these warnings before the summary.
    pub(crate) fn exports_with(&self, warnings: &[String]) -> Receipt {
        let outcome = self.clone().arg("--json").run();
        let root = self.root.as_ref().unwrap();
        let receipt = outcome.receipt();
        let said = warnings.iter().map(|warning| format!("export-profile: warning: {warning}\n"));
        let expected = said.chain([receipt.summary()]).collect::<Vec<_>>().concat();
        assert_eq!(outcome.stderr, expected);
        assert_eq!(receipt.warnings, warnings);
        assert_eq!(drafts_beside(root), [""; 0]);
        assert!(root.is_dir(), "no root at `{}`", root.display());
        receipt
    }

    /// It must fail with this status and stderr and an empty stdout, without ever writing where ROOT lies.
    pub(crate) fn refuses(&self, status: i32, stderr: &str) {
        let before = self.parent();
        self.run().is(status, "", stderr);
        assert_eq!(self.parent(), before, "something was written");
    }

    /// It must fail so after it has begun to write, and leave nothing behind.
    pub(crate) fn fails(&self, status: i32, stderr: &str) {
        let before = self.parent_but_its_time();
        self.run().is(status, "", stderr);
        assert_eq!(self.parent_but_its_time(), before, "something is left");
    }

    /// The directory in which ROOT lies or would lie, with all that is in it.
    fn parent(&self) -> Option<Tree> {
        let parent = self.root.as_ref().and_then(|root| root.parent());
        parent.filter(|parent| parent.is_dir()).map(Tree::read)
    }

    fn parent_but_its_time(&self) -> Option<Tree> {
        let mut tree = self.parent()?;
        for place in [Path::new(""), Path::new(self.root.as_ref()?.file_name()?)] {
            if let Some(entry) = tree.0.get_mut(place) {
                entry.time = (0, 0);
                entry.size = 0;
            }
        }
        Some(tree)
    }
}

/// Drafts beside `root` or, where it is a mount point, in it.
pub(crate) fn drafts_beside(root: &Path) -> Vec<String> {
    let directories = [root.parent().unwrap(), root];
    let all = directories.iter().filter(|directory| directory.is_dir()).flat_map(|directory| names(directory));
    all.filter(|name| name.contains(".nixkit-")).collect()
}

/// A run that has not ended yet. It is killed when it goes out of scope.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// As [`Running::signal`], but it may have ended.
    pub(crate) fn signal_if_it_lives(&mut self, signal: Signal) {
        if !self.has_ended() {
            self.signal(signal);
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Waits until SIGSTOP has had its effect on every thread, or it has ended.
    pub(crate) fn until_stopped(&mut self) {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let runs = |task: String| {
            let stat = std::fs::read_to_string(tasks.join(task).join("stat")).unwrap_or_default();
            // The state stands behind the name, which is in parentheses (proc(5)).
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['T', 'Z', 'X']))
        };
        while !self.has_ended() && names(&tasks).into_iter().any(runs) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn wait(mut self) -> Outcome {
        use std::io::Read;
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            let (sender, text) = mpsc::channel();
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.unwrap().read_to_string(&mut text).unwrap();
                sender.send(text)
            });
            text
        };
        let stdout = read(self.child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = read(self.child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let text = |answer: mpsc::Receiver<String>| answer.recv_timeout(LONGEST_RUN).expect("it does not end");
        let (stdout, stderr) = (text(stdout), text(stderr));
        let status = self.child.wait().unwrap();
        Outcome { status, stdout, stderr: without_seconds(&stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// ` in 0.05 s: ` as ` in T s: `.
fn without_seconds(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for i in 2..words.len() {
        if words[i - 2] == "in" && words[i] == "s:" && words[i - 1].parse::<f64>().is_ok() {
            words[i - 1] = "T";
        }
    }
    words.join(" ")
}

pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    /// With `T` for the seconds in the summary.
    pub(crate) stderr: String,
}

impl Outcome {
    /// The process must have ended by itself, with this status and these words.
    pub(crate) fn is(&self, status: i32, stdout: &str, stderr: &str) {
        assert_eq!(self.status.signal(), None, "ended by a signal: {}", self.stderr);
        assert_eq!(
            (self.status.code(), self.stdout.as_str(), self.stderr.as_str()),
            (Some(status), stdout, stderr),
            "left: what it did; stderr was:\n{}",
            self.stderr
        );
    }

    pub(crate) fn receipt(&self) -> Receipt {
        assert_eq!(self.status.code(), Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Receipt {
    pub(crate) root: String,
    pub(crate) profiles: Vec<ExportedProfile>,
    pub(crate) store_paths: u64,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) symlinks: u64,
    pub(crate) bytes: u64,
    pub(crate) layers: Vec<Layer>,
    pub(crate) beside_store: BesideStore,
    pub(crate) hard_linked: Count,
    pub(crate) shares_store: bool,
    pub(crate) reflinked: Count,
    pub(crate) copied: Count,
    pub(crate) deduplicated: Count,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) verified: bool,
    pub(crate) warnings: Vec<String>,
    pub(crate) seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExportedProfile {
    pub(crate) name: String,
    pub(crate) store_path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) copy: String,
    pub(crate) store_paths: u64,
    pub(crate) nar_size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BesideStore {
    pub(crate) directories: u64,
    pub(crate) symlinks: u64,
    pub(crate) files: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) method: String,
    pub(crate) reason: String,
    pub(crate) count: u64,
}

impl Receipt {
    /// The line that belongs to it on stderr.
    pub(crate) fn summary(&self) -> String {
        let ways = [(self.hard_linked, "hard-linked"), (self.reflinked, "reflinked"), (self.copied, "copied")];
        let ways: Vec<_> = ways
            .iter()
            .filter(|(way, _)| way.count > 0)
            .map(|(way, name)| format!("{} {name} ({})", HumanCount(way.count), DecimalBytes(way.bytes)))
            .collect();
        let mut line = format!(
            "export-profile: exported {} store paths ({} files, {}) to `{}` in T s: {}",
            HumanCount(self.store_paths),
            HumanCount(self.files),
            DecimalBytes(self.bytes),
            self.root,
            if ways.is_empty() { "nothing but directories".to_owned() } else { ways.join(", ") }
        );
        if self.deduplicated.count > 0 {
            let Count { count, bytes } = self.deduplicated;
            line.push_str(&format!("; {} equal files shared ({} saved)", HumanCount(count), DecimalBytes(bytes)));
        }
        line += if self.verified { "; every NAR hash verified" } else { "" };
        line += if self.shares_store { OF_THE_STORE } else { "" };
        line + "\n"
    }
}
