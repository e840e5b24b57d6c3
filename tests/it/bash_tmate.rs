//! `bash-tmate`: that it is bash to a script and to a caller, what it does with signals, and its sessions.

mod caller;
mod ci_shells;
mod fidelity;
mod first_process;
mod nested;
mod scripts;
mod sessions;
mod signals;
mod subshells;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{folder, installed, names, set_mode};

/// A place where commands run one after the other, each in a new directory of the same name.
struct Place {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

/// All that can be seen of a command that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// As a shell has it.
    status: i32,
    stdout: String,
    stderr: String,
    files: Vec<String>,
}

impl Place {
    fn new() -> Self {
        Self { folder: folder(), variables: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Where the commands run.
    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Beside that.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command with nothing in its environment but what bash and a test need.
    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path_with(installed())).env("HOME", self.beside("home")).env("TZ", "UTC");
        // No session, and nothing said, whatever the exit code.
        command.env("BASH_TMATE_SKIP_CODES", "0-255").envs(self.variables.iter().cloned());
        command.current_dir(self.work()).stdin(Stdio::null());
        command
    }

    /// Runs what `words` say in a new working directory.
    fn see(&self, words: &[&str], stdin: Option<&Path>) -> Seen {
        let work = self.work();
        if work.exists() {
            fs_err::remove_dir_all(&work).unwrap();
        }
        fs_err::create_dir(&work).unwrap();
        set_mode(&work, 0o755);
        let mut command = self.command(words[0].as_ref());
        command.args(&words[1..]);
        if let Some(path) = stdin {
            command.stdin(std::fs::File::open(path).unwrap());
        }
        let output = command.output().unwrap();
        Seen::new(&output, files(&work))
    }
}

impl Seen {
    fn new(output: &Output, files: Vec<String>) -> Self {
        let status = output.status;
        Self {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()),
            stdout: shown(&output.stdout),
            stderr: shown(&output.stderr),
            files,
        }
    }
}

/// Any bytes as text that can be compared and read.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\n", "\n")
}

/// What lies in a directory: modes, names and contents. Times and inodes are not what a script made.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(directory) {
        let path = directory.join(&name);
        let metadata = fs_err::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { shown(&fs_err::read(&path).unwrap()) } else { String::new() };
        found.push(format!("{:o} {name} {content}", metadata.mode()));
        if metadata.is_dir() {
            found.extend(files(&path).into_iter().map(|line| format!("{name}/ {line}")));
        }
    }
    found
}

fn path_with(first: &Path) -> String {
    format!("{}:{}", first.display(), std::env::var("PATH").unwrap())
}
