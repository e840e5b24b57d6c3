//! The one tmate of a session: how it is started and asked.
//! It must never be asked without a time limit: tmate may hang at any question.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::fcntl::OFlag;

use super::process::{self, Output};
use crate::interrupt::Interrupt;
use crate::sys;
use crate::tmate::clock::{Links, Presence, presence};
use crate::tmate::server::{Effective, KINDS};

/// What is asked each time, a line each. Unknown names are empty.
const QUESTION: &str = "#{tmate_num_clients}\n#{tmate_ssh}\n#{tmate_ssh_ro}\n#{tmate_web}\n#{tmate_web_ro}";
/// The socket's mode bit that is set while somebody is connected.
const EXECUTE: u32 = 0o100;

/// A tmate that runs.
#[derive(Debug)]
pub(super) struct Tmate<'a> {
    program: PathBuf,
    socket: PathBuf,
    child: Child,
    interrupt: &'a Interrupt,
    /// What it prints.
    pub(super) output: Output,
}

impl<'a> Tmate<'a> {
    /// Starts `program` with a conf, a socket and the words of the first window's command.
    pub(super) fn start(
        program: &Path,
        conf: &Path,
        socket: PathBuf,
        window: &[impl AsRef<OsStr>],
        interrupt: &'a Interrupt,
        prepare: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let output = Output::new()?;
        let mut command = Command::new(program);
        sys::end_with_parent(&mut command);
        // ctrl-C in a terminal is for us, who end tmate in order.
        command.process_group(0);
        command.arg("-f").arg(conf).arg("-S").arg(&socket).args(["-F", "new-session", "--"]).args(window);
        command.stdin(std::process::Stdio::null()).stdout(output.writer()?).stderr(output.writer()?);
        prepare(&mut command);
        let child = command.spawn().context("cannot start tmate")?;
        Ok(Self { program: program.to_owned(), socket, child, interrupt, output })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        process::end(&mut self.child);
    }

    /// Its process.
    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    fn ask(&self, words: &[&str], limit: Duration) -> Option<String> {
        let mut command = Command::new(&self.program);
        sys::end_with_parent(&mut command);
        command.arg("-S").arg(&self.socket).args(words);
        let text = process::answer(&mut command, limit, self.interrupt)?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Who is connected, and the links. It is asked twice: what the socket's mode says is renewed when an asker
    /// goes, so the mode after the second answer is younger than the first question.
    pub(super) fn state(&self, server_is_up: bool, limit: Duration) -> (Presence, Links) {
        let unanswered = (Presence::Unanswered, Links::default());
        if self.ask(&["display-message", "-p", QUESTION], limit).is_none() {
            return unanswered;
        }
        let Some(text) = self.ask(&["display-message", "-p", QUESTION], limit) else { return unanswered };
        let Ok(socket) = self.socket.symlink_metadata() else { return unanswered };
        let is_busy = socket.file_type().is_socket() && socket.mode() & EXECUTE != 0;
        let mut lines = text.lines().map(str::trim);
        let mut next = || lines.next().unwrap_or_default().to_owned();
        let count = next();
        let mut links = Links { ssh: next(), ssh_read_only: next(), web: next(), web_read_only: next() };
        if count.is_empty() {
            // Who only looks on is seen by the count alone, and would be thrown out by a server without one.
            links.ssh_read_only.clear();
            links.web_read_only.clear();
        }
        (presence(&count, server_is_up, is_busy), links)
    }

    /// What it goes by after all confs; nothing while it does not answer yet.
    pub(super) fn effective(&self, limit: Duration) -> Option<Effective> {
        let text = self.ask(&["show-options", "-s"], limit)?;
        let mut effective = Effective::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value).to_owned();
            match name {
                "tmate-server-host" => effective.host = value,
                "tmate-server-port" => effective.port = value,
                "tmate-authorized-keys" => effective.authorized_keys = value,
                "tmate-set" => effective.set = value,
                _ => {
                    let kind = KINDS.into_iter().find(|kind| name == format!("tmate-server-{kind}-fingerprint"));
                    if let Some(slot) = kind.and_then(|kind| effective.fingerprints.slot(kind)) {
                        *slot = Some(value).filter(|value| !value.is_empty());
                    }
                }
            }
        }
        Some(effective).filter(|effective| !effective.port.is_empty())
    }

    /// Writes `text` into every window, as `wall` does: mates have no status line of their own.
    pub(super) fn write_to_panes(&self, text: &str, limit: Duration) {
        let Some(terminals) = self.ask(&["list-panes", "-a", "-F", "#{pane_tty}"], limit) else { return };
        for terminal in terminals.lines() {
            // A window whose output is stopped must not stop us.
            let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
            let opened = fs_err::OpenOptions::new().write(true).custom_flags(flags).open(terminal);
            if let Ok(mut terminal) = opened {
                let _ = terminal.write_all(text.as_bytes());
            }
        }
    }
}
