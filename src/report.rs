//! Every word to the user: data on stdout, everything else on stderr.
//! It must never decide anything but how a thing is said.

pub mod image;
pub mod sizes;
pub mod space;
pub mod sync;
mod tmate;
pub mod treemap;
mod update;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Hinted, Interrupted, NotExecutable, NotFound, Stopped, UnknownApplet, Usage, shown};
use crate::file;
use crate::progress::Progress;
use crate::sink::link::Method;
use crate::sink::receipt::{Count, Receipt};
use crate::store::{Registration, StoreDirectory};

/// Exit status of a run that failed.
const FAILED: u8 = 1;
/// Exit status of a command line that makes no sense.
const USAGE: u8 = 2;
/// Exit status of a name that is no applet's, and of a program that is missing.
const NOT_FOUND: u8 = 127;
/// Exit status of a program that is there but cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Pause between two drawings of the progress bar.
const REDRAW: Duration = Duration::from_millis(100);

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Quiet,
    /// Warnings, progress on a terminal, and a summary line.
    #[default]
    Normal,
    /// Decisions too.
    Verbose,
}

/// Speaks for one applet.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Stands before each line.
    pub name: &'static str,
    /// How much is said.
    pub level: Level,
}

impl Voice {
    /// Something is not as might be expected.
    pub fn warning(&self, text: &str) {
        self.say(Level::Normal, &format!("warning: {text}"));
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        self.say(Level::Normal, text);
    }

    /// Why something is done as it is.
    pub fn decision(&self, text: &str) {
        self.say(Level::Verbose, text);
    }

    fn say(&self, from: Level, text: &str) {
        if self.level >= from {
            complain(&format!("{}: {text}\n", self.name));
        }
    }

    /// Runs `work` with a progress bar over `store_paths` where stderr is a terminal.
    pub fn with_progress<T>(&self, progress: &Progress, store_paths: usize, work: impl FnOnce() -> T) -> T {
        if self.level == Level::Quiet || !io::stderr().is_terminal() {
            return work();
        }
        let bar = &ProgressBar::with_draw_target(Some(store_paths as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} store paths, {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let draw = move || {
                while is_done.recv_timeout(REDRAW) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let (paths, names, bytes) = progress.read();
                    bar.set_message(format!("{} names, {}", HumanCount(names), DecimalBytes(bytes)));
                    bar.set_position(paths);
                }
                bar.finish_and_clear();
            };
            // Without a thread to draw it there is no bar.
            let _ = std::thread::Builder::new().spawn_scoped(scope, draw);
            let outcome = work();
            drop(done);
            outcome
        })
    }

    /// The one line that says what was done, on stderr; on stdout, with `json`, the whole receipt, else a line for
    /// each layer.
    pub fn receipt(&self, receipt: &Receipt, json: bool) -> anyhow::Result<()> {
        self.say(Level::Normal, &summary(receipt));
        if self.level == Level::Verbose {
            for refusal in &receipt.refusals {
                self.decision(&format!("{} refused: {}", method_name(refusal.method), refusal.reason));
            }
        }
        if json {
            return data(&to_json(receipt)?);
        }
        let lines: Vec<_> = receipt.layers.iter().map(|layer| layer.copy.as_str()).collect();
        if lines.is_empty() { Ok(()) } else { data(&(lines.join("\n") + "\n")) }
    }

    /// What a dry run found, on stdout.
    pub fn dry_run(&self, plan: &DryRun<'_>, json: bool) -> anyhow::Result<()> {
        let total: u64 = plan.registrations.iter().map(|registration| registration.nar_size).sum();
        if json {
            return data(&to_json(&dry_run_json(plan, total))?);
        }
        let line = |bytes: u64, what: &str| format!("{:>12}  {what}\n", DecimalBytes(bytes).to_string());
        let mut text = String::new();
        for registration in plan.registrations {
            let path = shown(plan.store.join(&registration.path));
            text.push_str(&line(registration.nar_size, &path));
        }
        text.push_str(&line(total, &format!("in {}", sizes::counted(plan.registrations.len() as u64, "store path"))));
        data(&text)
    }
}

/// What a run would export.
#[derive(Debug)]
pub struct DryRun<'a> {
    /// Where the store paths lie.
    pub store: &'a StoreDirectory,
    /// The profiles' store paths.
    pub profiles: &'a [crate::sink::receipt::ExportedProfile],
    /// The closure.
    pub registrations: &'a [Registration],
}

fn dry_run_json(plan: &DryRun<'_>, total: u64) -> serde_json::Value {
    let paths: Vec<_> = plan
        .registrations
        .iter()
        .map(|registration| {
            serde_json::json!({
                "path": shown(plan.store.join(&registration.path)),
                "narHash": format!("sha256:{}", registration.nar_hash),
                "narSize": registration.nar_size,
            })
        })
        .collect();
    serde_json::json!({
        "dryRun": true,
        "profiles": plan.profiles,
        "storePaths": plan.registrations.len(),
        "narSize": total,
        "paths": paths,
    })
}

/// Any value as indented JSON with a newline at its end.
pub fn to_json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// `exported 34 store paths (1,234 files, 57.1 MB) to `/dist` in 0.05 s: 1,300 hard-linked (57.1 MB); …`. Why some were
/// not linked is said with `--verbose`.
fn summary(receipt: &Receipt) -> String {
    let mut ways = Vec::new();
    for (count, way) in
        [(receipt.hard_linked, "hard-linked"), (receipt.reflinked, "reflinked"), (receipt.copied, "copied")]
    {
        let Count { count, bytes } = count;
        if count > 0 {
            ways.push(format!("{} {way} ({})", HumanCount(count), DecimalBytes(bytes)));
        }
    }
    let mut text = format!(
        "exported {} store paths ({} files, {}) to `{}` in {:.2} s: {}",
        HumanCount(receipt.store_paths),
        HumanCount(receipt.files),
        DecimalBytes(receipt.bytes),
        receipt.root,
        receipt.seconds,
        if ways.is_empty() { "nothing but directories".to_owned() } else { ways.join(", ") },
    );
    if receipt.deduplicated.count > 0 {
        let Count { count, bytes } = receipt.deduplicated;
        text.push_str(&format!("; {} equal files shared ({} saved)", HumanCount(count), DecimalBytes(bytes)));
    }
    if receipt.verified {
        text.push_str("; every NAR hash verified");
    }
    if receipt.shares_store {
        text.push_str("; the hard-linked files are the store's own, so never change them in place");
    }
    text
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::HardLink => "hard links",
        Method::Reflink => "reflinks",
        Method::Copy => "copies",
    }
}

/// Standard output, for data that another module writes. It is an error if that is a terminal.
pub fn stdout() -> anyhow::Result<std::fs::File> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Usage("standard output is a terminal: redirect it to a file or a pipe".into()).into());
    }
    Ok(stdout.as_fd().try_clone_to_owned()?.into())
}

/// Prints data to stdout. A reader that has gone away has seen enough.
pub fn data(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// As [`data`], of what may be no text.
fn bytes(data: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(data).and_then(|()| stdout.flush()).and_then(|()| close_copy(&stdout));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Closes a copy of the descriptor: a file system that reports failed writes at close(2) does so for each descriptor.
fn close_copy(stdout: &io::StdoutLock<'_>) -> io::Result<()> {
    Ok(file::close(stdout.as_fd().try_clone_to_owned()?)?)
}

fn complain(text: &str) {
    pass_on(text.as_bytes());
}

/// Nobody can be told that stderr is gone.
fn pass_on(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Says how the run called `name` ended, and returns its exit status.
pub fn outcome(name: &str, outcome: anyhow::Result<u8>) -> u8 {
    let error = match outcome {
        Ok(status) => return status,
        Err(error) => error,
    };
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        return clap_outcome(name, error);
    }
    let mut text = format!("{name}: error: {}\n", message(&error));
    if let Some(hint) = hint(&error) {
        text.push_str(&format!("hint: {hint}\n"));
    } else if error.is::<Usage>() {
        text.push_str(&format!("hint: `{name} --help` explains the options\n"));
    }
    complain(&text);
    status(&error)
}

/// What went wrong, with its causes.
fn message(error: &anyhow::Error) -> String {
    error.downcast_ref::<Interrupted>().map_or_else(|| format!("{error:#}"), ToString::to_string)
}

/// What the user can do about it.
fn hint(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Hinted>().map(|hinted| hinted.hint.as_str())
}

/// Which signal ended the run, if one did.
fn signal(error: &anyhow::Error) -> Option<i32> {
    let interrupted = error.downcast_ref::<Interrupted>().map(|interrupted| interrupted.signal);
    interrupted.or_else(|| error.downcast_ref::<Stopped>().map(|stopped| stopped.signal))
}

/// Whether a signal ended the run.
pub fn is_interrupt(error: &anyhow::Error) -> bool {
    signal(error).is_some()
}

/// The exit status of a run that ended with `error`.
pub fn status(error: &anyhow::Error) -> u8 {
    match signal(error) {
        Some(signal) => u8::try_from(128 + signal).unwrap_or(FAILED),
        None if error.downcast_ref::<clap::Error>().is_some_and(|error| !error.use_stderr()) => 0,
        None if error.is::<Usage>() || error.is::<clap::Error>() => USAGE,
        None if is_not_found(error) => NOT_FOUND,
        None if error.root_cause().is::<NotExecutable>() => NOT_EXECUTABLE,
        None => FAILED,
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hinted>().is_some_and(|hinted| hinted.is::<UnknownApplet>() || hinted.is::<NotFound>())
}

/// Help and version are data; everything else is an error in our voice.
fn clap_outcome(name: &str, error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return match data(&text) {
            Ok(()) => 0,
            Err(error) => outcome(name, Err(error)),
        };
    }
    match text.strip_prefix("error: ") {
        Some(rest) => complain(&format!("{name}: error: {rest}")),
        // The help that stands in for missing arguments.
        None => complain(&text),
    }
    USAGE
}
