//! What follows a failure: one line in the log, and a session.
//! It must never change how `bash-tmate` ends, whatever happens here.

use std::ffi::OsString;

use super::NAME;
use crate::bash::account::{Failure, reason};
use crate::bash::evidence::Evidence;
use crate::bash::inner::{Cause, blame};
use crate::bash::invocation::Invocation;
use crate::bash::settings::Settings;
use crate::bash::snapshot::{Record, Snapshot};
use crate::interrupt::Interrupt;
use crate::job::{self, Job, Mailbox};
use crate::report::{Level, Voice};
use crate::scene::{Shell, Stage};
use crate::supervise::{Ending, Signals};
use crate::tmate::options::{Options, Words};
use crate::tmate::session::visitors::{Turn, Visitors, take_turn};
use crate::tmate::session::{End, Scene, run as run_session};

/// A failure, and what is needed to look at it.
pub(super) struct AfterFailure<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) settings: &'a Settings,
    /// Or why the state of the script was not to be saved.
    pub(super) stage: Result<Stage, &'static str>,
    pub(super) ending: Ending,
    /// What inner ones have told.
    pub(super) mailbox: Option<Mailbox>,
    /// The number by which `/proc` knows the process that has run bash.
    pub(super) number: Option<i32>,
}

const VOICE: Voice = Voice { name: NAME, level: Level::Normal };
const HOW_TO_NEST: &str = "BASH_TMATE_NESTED=1 opens one for each failure";

impl AfterFailure<'_> {
    pub(super) fn run(&self, signals: &Signals) {
        let interrupt = Interrupt::install();
        signals.release();
        let options = Options::new(Words::default(), |name| std::env::var_os(name));
        let evidence = self.stage.as_ref().ok().map(|stage| stage.evidence(self.ending.code()));
        let state = match &evidence {
            Some(evidence) => evidence.state(self.ending).map_err(reason),
            None => Err(self.stage.as_ref().err().map_or_else(String::new, |why| (*why).to_owned())),
        };
        let trace = evidence.as_ref().and_then(|evidence| evidence.trace.as_ref());
        let mut failure = Failure {
            runs: &self.invocation.runs,
            ending: self.ending,
            snapshot: state.as_ref().ok().copied(),
            trace: trace.map(|(record, inner)| (record, inner.as_ref())),
            not_restored: None,
        };
        let line = failure.line();
        VOICE.session(&line);
        for warning in &self.settings.warnings {
            VOICE.warning(warning);
        }
        if self.is_because_of_an_inner_one(evidence.as_ref()) {
            VOICE.session(&format!("no session: a failure inside it has had one ({HOW_TO_NEST})"));
            return;
        }
        let (options, interrupt) = match (options, interrupt) {
            (Ok(options), Ok(interrupt)) => (options, interrupt),
            (Err(usage), _) => return VOICE.session_failed(&usage.into()),
            (_, Err(error)) => return VOICE.session_failed(&error),
        };
        let job = self.mailbox.as_ref().map(|_| Job::of(self.number));
        let Ok(visitors) = self.turn(job.as_ref(), &line) else { return };
        let shell = match state {
            _ if options.command.is_some() => Err("BASH_TMATE_COMMAND is set".to_owned()),
            Ok(snapshot) => self.shell(snapshot, locals(snapshot, trace)),
            Err(why) => Err(why),
        };
        failure.not_restored = shell.as_ref().err().cloned();
        let shell = shell.as_ref().ok();
        let scene = Scene {
            greeting: failure.greeting(),
            shell: shell.map(|shell| shell.command.clone()),
            shell_tells_directory: shell.is_some(),
            visitors: visitors.as_ref(),
            ..Scene::default()
        };
        match run_session(&options, &scene, VOICE, &interrupt) {
            // An outer one may have what is missing here.
            End::NotStarted(error) => return VOICE.session_failed(&error),
            End::Lost(error) => VOICE.session_failed(&error),
            End::Idle | End::User | End::ContinueFile | End::Cap | End::Signal(_) => {}
        }
        if let Some(job) = job {
            job.tell(self.ending.code());
        }
    }

    fn is_because_of_an_inner_one(&self, evidence: Option<&Evidence>) -> bool {
        let Some(mailbox) = &self.mailbox else { return false };
        let cause = Cause::of(evidence, &self.invocation.runs);
        blame(&mailbox.read(), &cause, self.ending, job::now()).is_some()
    }

    /// Whether this failure is to have a session: where its job has one, that one is told, and the job's outer shells
    /// too.
    fn turn(&self, job: Option<&Job>, line: &str) -> Result<Option<Visitors>, ()> {
        let Some(job) = job else { return Ok(None) };
        match take_turn(job.name(), line) {
            Turn::Ours(visitors) => Ok(Some(visitors)),
            Turn::Unknown => Ok(None),
            Turn::Taken(link) => {
                let link = if link.is_empty() { String::new() } else { format!(", connect with: {link}") };
                VOICE.session(&format!("no session: this job has one already{link} ({HOW_TO_NEST})"));
                job.tell(self.ending.code());
                Err(())
            }
        }
    }

    fn shell(&self, snapshot: &Snapshot, locals: &[u8]) -> Result<Shell, String> {
        let given: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
        match &self.stage {
            Ok(stage) => stage
                .shell(snapshot, &given, locals)
                .map_err(|errno| format!("there is no file in memory for it ({})", errno.desc())),
            Err(why) => Err((*why).to_owned()),
        }
    }
}

/// What restores the local variables of the shell whose state is `snapshot`.
fn locals<'a>(snapshot: &Snapshot, trace: Option<&'a (Record, Option<Record>)>) -> &'a [u8] {
    match trace {
        Some((_, Some(inner))) if snapshot.depth > 0 => &inner.locals,
        Some((outer, _)) if snapshot.depth == 0 => &outer.locals,
        _ => &[],
    }
}
