//! Runs one tmate session from its folder to its last process.
//! It must never end this process, write to stdout, or leave a process, socket or folder behind.

mod access;
mod continue_file;
mod folder;
pub mod guard;
mod process;
mod scene;
mod tmate;
pub mod visitors;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::anyhow;

pub use self::scene::Scene;
use self::visitors::Visitors;

use self::continue_file::ContinueFile;
use self::folder::Folder;
use self::process::{Orphans, doze};
use self::scene::{HARMFUL, shell, shell_environment, this_directory, user_conf, window_shell};
use self::tmate::Tmate;
use super::clock::{Action, Clock, Ending, Event, Limits, in_words};
use super::conf::{self, Conf, shell_quoted};
use super::log::{self, Line, Reason};
use super::options::Options;
use super::pane::{self, Pane};
use super::server::{self, Effective, Server};
use crate::failure::{NotFound, hinted, shown};
use crate::interrupt::Interrupt;
use crate::report::Voice;

/// How often tmate is asked while the session is not ready, and afterwards.
const ASK_CONNECTING: Duration = Duration::from_millis(200);
const ASK_READY: Duration = Duration::from_secs(1);
/// How long it may take to answer a question, and how long at least.
const ANSWER: Duration = Duration::from_secs(5);
const QUICK_ANSWER: Duration = Duration::from_secs(1);
/// How often files, signals and processes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// As many of tmate's last lines are told when it does not connect.
const TOLD_LINES: usize = 8;
/// Said once where it is so.
const OPEN: &str = "there are no keys: whoever reads this log can enter the session; `--authorized-keys` limits that";

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// Nobody was connected for as long as may be.
    Idle,
    /// A user ended it: the last shell exited.
    User,
    /// The continue file appeared.
    ContinueFile,
    /// It had lasted as long as it may.
    Cap,
    /// This signal arrived.
    Signal(i32),
    /// It had started, but then tmate died or answered no more.
    Lost(anyhow::Error),
    /// It could not start.
    NotStarted(anyhow::Error),
}

/// Runs a session to its end. It must be called from the main thread, which has to outlive the session: with
/// the thread that started it tmate ends too.
pub fn run(options: &Options, scene: &Scene<'_>, voice: Voice, interrupt: &Interrupt) -> End {
    let ground = match Ground::prepare(options, scene, interrupt) {
        Ok(ground) => ground,
        Err(error) => {
            let Err(interrupted) = interrupt.check() else { return End::NotStarted(error) };
            voice.session(&by_signal(interrupted.signal));
            return End::Signal(interrupted.signal);
        }
    };
    voice.decision(&format!("the session's folder is `{}`", shown(ground.folder.path())));
    let orphans = Orphans::adopt();
    let end = match Session::start(options, scene, &ground, voice, interrupt) {
        Ok(mut session) => {
            let end = session.watch(&orphans);
            session.tmate.end();
            end
        }
        Err(error) => End::NotStarted(error),
    };
    orphans.end();
    let path = shown(ground.folder.path());
    if let Err(error) = ground.folder.remove() {
        voice.warning(&format!("cannot remove `{path}`: {error:#}"));
    }
    end
}

/// What a session stands on.
struct Ground {
    /// tmate.
    program: PathBuf,
    /// The lines of keys, where there are any.
    keys: Option<Vec<u8>>,
    /// The words of the shell.
    shell: Vec<OsString>,
    folder: Folder,
}

impl Ground {
    /// Finds and reads all that can be missing; the folder comes last, so that nothing is there to be removed.
    fn prepare(options: &Options, scene: &Scene<'_>, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let program = find_tmate(interrupt)?;
        let keys = access::read(&options.keys, interrupt)?;
        let shell = shell(options, scene)?;
        let tmpdir = std::env::var_os("TMPDIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Self { program, keys, shell, folder: Folder::make(tmpdir.as_deref())? })
    }
}

/// Finds tmate, and refuses one that is too old.
fn find_tmate(interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let not_found = |text: String| hinted(NotFound(text), "install tmate 2.4 or newer");
    let program = which::which("tmate").map_err(|_| not_found("cannot find `tmate` in PATH".into()))?;
    match process::version(program.as_os_str(), interrupt) {
        Some(version) if log::version_suffices(&version) => Ok(program),
        Some(version) => Err(not_found(format!("`{}` is too old: {version}", shown(&program)))),
        None => Err(not_found(format!("`{}` does not say its version", shown(&program)))),
    }
}

fn by_signal(signal: i32) -> String {
    let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
    format!("interrupted by {name}")
}

/// A session that runs.
struct Session<'a> {
    tmate: Tmate<'a>,
    options: &'a Options,
    voice: Voice,
    interrupt: &'a Interrupt,
    started: Instant,
    clock: Clock,
    continue_file: ContinueFile,
    /// Where other failures of the job are told.
    visitors: Option<&'a Visitors>,
    /// The last link.
    link: String,
    /// The file of keys that tmate was given.
    keys: Option<PathBuf>,
    /// What tmate goes by, once it was looked at and found right.
    effective: Option<Effective>,
    server_is_up: bool,
    /// Nobody was told yet that anybody may enter.
    is_open: bool,
}

/// What ends a session at once.
enum Stop {
    End(End),
    Refused(anyhow::Error),
}

impl<'a> Session<'a> {
    fn start(
        options: &'a Options,
        scene: &Scene<'a>,
        ground: &Ground,
        voice: Voice,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let Ground { program, keys, shell, folder } = ground;
        let continue_file = ContinueFile::new(options.continue_file.as_deref(), folder)?;
        let keys = keys.as_ref().map(|keys| folder.write("keys", keys)).transpose()?;
        let here = this_directory();
        let directory = match &scene.directory {
            Some(directory) if directory.is_dir() => Some(directory.clone()),
            Some(directory) => {
                voice.warning(&format!("the session cannot start in `{}`", shown(directory)));
                None
            }
            None => None,
        };
        let place = directory.as_deref().unwrap_or(&here);
        let told = Some(place).filter(|_| !scene.shell_tells_directory || options.command.is_some());
        let pane = Pane {
            greeting: pane::greeting(&scene.greeting, told, &continue_file.path, options.max_idle),
            directory: directory.clone(),
            command: shell.clone(),
            environment: shell_environment(scene, directory.as_deref()),
        };
        let own = guard::own_program();
        let window: Vec<OsString> = match &own {
            Some(own) => {
                let file = folder.write("window", &pane.encode())?;
                own.iter().cloned().chain([guard::PANE.into(), file.into()]).collect()
            }
            None => shell.clone(),
        };
        let quoted: Vec<_> = window.iter().map(|word| shell_quoted(word)).collect();
        let window_command = [b"exec ", &quoted.join(&b' ')[..]].concat();
        let conf = conf::text(&Conf {
            user_conf: user_conf().as_deref(),
            server: &options.server,
            fingerprints: &options.fingerprints,
            authorized_keys: keys.as_deref(),
            window_command: &window_command,
            window_shell: window_shell().as_deref(),
        });
        let conf = folder.write("conf", &conf)?;
        let tmate = Tmate::start(program, &conf, folder.socket(), &window, interrupt, |command| {
            for name in HARMFUL {
                command.env_remove(name);
            }
            // Without this program in the window tmate starts the shell itself, which has what tmate has.
            if own.is_none() {
                guard::set_environment(command, &pane);
                if let Some(directory) = &pane.directory {
                    command.current_dir(directory);
                }
            }
            // Without a passwd entry tmate's SSH library fails unless there is any HOME.
            if std::env::var_os("HOME").is_none() {
                command.env("HOME", folder.path());
            }
        })?;
        let limits = Limits {
            connect_timeout: options.connect_timeout,
            max_idle: options.max_idle,
            max_duration: options.max_duration,
            repeat: options.repeat,
        };
        Ok(Self {
            tmate,
            options,
            voice,
            interrupt,
            started: Instant::now(),
            clock: Clock::new(limits),
            continue_file,
            visitors: scene.visitors,
            link: String::new(),
            keys,
            effective: None,
            server_is_up: true,
            is_open: false,
        })
    }

    /// Watches it until it has ended or is to be ended.
    fn watch(&mut self, orphans: &Orphans) -> End {
        let mut ask_at = Instant::now();
        let mut exit = None;
        loop {
            let events = self.look(&mut ask_at, &mut exit);
            orphans.reap(Some(self.tmate.child()));
            let events = match events {
                Ok(events) => events,
                Err(error) => return End::NotStarted(error),
            };
            for event in events {
                for action in self.clock.on(self.started.elapsed(), event) {
                    match self.act(action, exit) {
                        Ok(()) => {}
                        Err(Stop::End(end)) => return end,
                        Err(Stop::Refused(error)) => return End::NotStarted(error),
                    }
                }
            }
            let due = self.clock.due().map(|due| self.started + due);
            let next = due.map_or(ask_at, |due| due.min(ask_at));
            doze(next.saturating_duration_since(Instant::now()).min(LOOK));
        }
    }

    /// What has happened since the last look.
    fn look(&mut self, ask_at: &mut Instant, exit: &mut Option<ExitStatus>) -> anyhow::Result<Vec<Event>> {
        // Before its output is read, so that nothing of it is missed.
        *exit = self.tmate.ended();
        let mut events = Vec::new();
        for line in self.tmate.output.new_lines() {
            self.voice.decision(&format!("tmate: {}", shown(&line)));
            match log::meaning(&line) {
                Line::Joined => *ask_at = Instant::now(),
                Line::Left => {
                    *ask_at = Instant::now();
                    events.push(Event::SomebodyLeft);
                }
                Line::LookupFailed if log::is_ipv6(&self.server().0) => return Err(self.unconnected()),
                Line::ServerLost | Line::LookupFailed => {
                    if self.clock.was_ready() && self.server_is_up {
                        self.voice.session("the connection to the server is lost; tmate tries again");
                    }
                    self.server_is_up = false;
                    events.push(Event::ServerLost);
                }
                Line::ServerBack => {
                    self.server_is_up = true;
                    // The line comes a moment before the link that it is about.
                    *ask_at = Instant::now() + ASK_CONNECTING;
                    events.push(Event::ServerBack);
                }
                Line::KeysRequired => return Err(self.unconnected()),
                Line::Other => {}
            }
        }
        self.welcome_visitors();
        if let Err(interrupted) = self.interrupt.check() {
            return Ok(vec![Event::Signal(interrupted.signal)]);
        }
        if exit.is_some() {
            return Ok(vec![Event::Exited]);
        }
        if self.continue_file.has_appeared() {
            return Ok(vec![Event::ContinueFile]);
        }
        let now = self.started.elapsed();
        let due = self.clock.due();
        if Instant::now() >= *ask_at || due.is_some_and(|due| now >= due) {
            let limit = due.map_or(ANSWER, |due| due.saturating_sub(now).clamp(QUICK_ANSWER, ANSWER));
            events.push(self.ask(limit)?);
            *ask_at = Instant::now() + if self.clock.was_ready() { ASK_READY } else { ASK_CONNECTING };
        } else {
            events.push(Event::Tick);
        }
        Ok(events)
    }

    /// Says in the log and in the windows what else has failed.
    fn welcome_visitors(&self) {
        let Some(visitors) = self.visitors else { return };
        for said in visitors.welcome(&self.link) {
            self.voice.session(&format!("also failed: {}", shown(&said)));
            self.tmate.write_to_panes(&pane::also_failed(&said), QUICK_ANSWER);
        }
    }

    /// Asks tmate how things are, but first by what it goes.
    fn ask(&mut self, limit: Duration) -> anyhow::Result<Event> {
        if self.effective.is_none() {
            let Some(effective) = self.tmate.effective(limit) else { return Ok(Event::Tick) };
            self.is_open = self.vet(&effective)?;
            self.effective = Some(effective);
            self.voice.session(&format!("connecting; to end the session: {}", pane::touch(&self.continue_file.path)));
        }
        let (presence, links) = self.tmate.state(self.server_is_up, limit);
        Ok(Event::Answer(presence, links))
    }

    /// Refuses a server that is none or that anybody could be, and keys that tmate did not take.
    /// Returns whether anybody may enter.
    fn vet(&self, effective: &Effective) -> anyhow::Result<bool> {
        if let Err(refusal) = server::check(&self.options.server, effective) {
            let hint = refusal.hint();
            return Err(hinted(anyhow!("{refusal}"), hint));
        }
        let ours = self.keys.as_ref().map(|path| path.to_string_lossy().into_owned());
        match ours {
            Some(ours) if effective.authorized_keys != ours => {
                Err(anyhow!("tmate did not take the keys: it goes by `{}` instead", shown(&effective.authorized_keys)))
            }
            Some(_) => Ok(false),
            None if !effective.authorized_keys.is_empty() => {
                access::check_file(&effective.authorized_keys, self.interrupt)?;
                Ok(false)
            }
            None => Ok(!effective.set.contains("authorized_keys=")),
        }
    }

    fn act(&mut self, action: Action, exit: Option<ExitStatus>) -> Result<(), Stop> {
        match action {
            Action::SayLinks(links, left) => {
                self.confirm_keys().map_err(Stop::Refused)?;
                if std::mem::take(&mut self.is_open) {
                    self.voice.warning(OPEN);
                }
                self.link.clone_from(&links.ssh);
                self.voice.links(&links, left);
            }
            Action::AnnounceCap(left) => {
                self.voice.session(&format!("the session ends in {}, whoever is connected", in_words(left)));
                self.tmate.write_to_panes(&pane::announcement(left), QUICK_ANSWER);
            }
            Action::End(ending) => return Err(Stop::End(self.ended(ending, exit))),
        }
        Ok(())
    }

    /// tmate says when it reads a file of keys. Without that line no link is said.
    fn confirm_keys(&mut self) -> anyhow::Result<()> {
        let Some(effective) = &self.effective else { return Ok(()) };
        let path = &effective.authorized_keys;
        if path.is_empty() || self.tmate.output.took_keys(path) {
            return Ok(());
        }
        Err(anyhow!("tmate did not say that it uses the keys in `{}`", shown(path)))
    }

    /// Says how it ended, and what that means.
    fn ended(&mut self, ending: Ending, exit: Option<ExitStatus>) -> End {
        let end = match ending {
            Ending::Idle => End::Idle,
            Ending::Cap => End::Cap,
            Ending::ContinueFile => End::ContinueFile,
            Ending::Signal(signal) => End::Signal(signal),
            Ending::Stuck => End::Lost(anyhow!("tmate answers no more")),
            Ending::Exited if exit.is_some_and(|exit| exit.success()) => End::User,
            Ending::Exited => {
                let how = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
                End::Lost(anyhow!("tmate has died{how}").context("the session is lost"))
            }
            Ending::NotConnected | Ending::ExitedEarly => End::NotStarted(self.unconnected()),
        };
        let how = match &end {
            End::Idle => format!("nobody was connected for {}", in_words(self.options.max_idle)),
            End::User => "its last shell has ended".into(),
            End::ContinueFile => format!("`{}` is there", shown(&self.continue_file.path)),
            End::Cap => "it has lasted as long as it may".into(),
            End::Signal(signal) => by_signal(*signal),
            End::Lost(_) | End::NotStarted(_) => return end,
        };
        self.voice.session(&format!("the session has ended: {how}"));
        end
    }

    /// Host and port of the server, as far as they are known.
    fn server(&self) -> (String, String) {
        match (&self.effective, &self.options.server) {
            (Some(effective), _) => (effective.host.clone(), effective.port.clone()),
            (None, Server::Named { host, port }) => (host.clone(), port.to_string()),
            (None, _) => Default::default(),
        }
    }

    /// Why there is no session, with the last that tmate said.
    fn unconnected(&mut self) -> anyhow::Error {
        self.tmate.output.new_lines();
        let exit = self.tmate.ended();
        let lines = &self.tmate.output.lines;
        for line in log::last_lines(lines, TOLD_LINES) {
            self.voice.session(&format!("tmate: {}", shown(line)));
        }
        let (host, port) = self.server();
        let reason = match exit {
            Some(exit) if exit.success() => return anyhow!("the shell ended before the session was ready"),
            Some(_) => log::reason(lines, &host).filter(|reason| *reason != Reason::Silent),
            None => log::reason(lines, &host),
        };
        let server = if host.is_empty() { "the tmate server".into() } else { format!("`{host}`, port {port}") };
        let what = match exit {
            Some(exit) => format!("tmate could not start a session ({exit})"),
            None if reason == Some(Reason::NoIpv6) => format!("no session through {server}"),
            None => format!("no session through {server} within {} s", self.options.connect_timeout.as_secs()),
        };
        let Some(reason) = reason else { return anyhow!(what) };
        let error = anyhow!("{reason}").context(what);
        match reason.hint(&host, &port) {
            Some(hint) => hinted(error, hint),
            None => error,
        }
    }
}
