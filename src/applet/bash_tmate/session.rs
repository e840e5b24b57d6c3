//! What follows a failure: one line in the log, and a session.
//! It must never change how `bash-tmate` ends, whatever happens here.

use super::NAME;
use crate::bash::account::{Failure, reason};
use crate::bash::invocation::Invocation;
use crate::bash::settings::Settings;
use crate::interrupt::Interrupt;
use crate::report::{Level, Voice};
use crate::scene::{Shell, Stage};
use crate::supervise::{Ending, Signals};
use crate::tmate::options::{Options, Words};
use crate::tmate::session::{End, Scene, run as run_session};

/// A failure, and what is needed to look at it.
pub(super) struct AfterFailure<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) settings: &'a Settings,
    /// Or why the state of the script was not to be saved.
    pub(super) stage: Result<Stage, &'static str>,
    pub(super) ending: Ending,
}

impl AfterFailure<'_> {
    pub(super) fn run(&self, signals: &Signals) {
        let voice = Voice { name: NAME, level: Level::Normal };
        let interrupt = Interrupt::install();
        signals.release();
        let options = Options::new(Words::default(), |name| std::env::var_os(name));
        let evidence = self.stage.as_ref().ok().map(|stage| stage.evidence(self.ending.code()));
        let state = match &evidence {
            Some(evidence) => evidence.state(self.ending).map_err(reason),
            None => Err(self.stage.as_ref().err().map_or_else(String::new, |why| (*why).to_owned())),
        };
        let trace = evidence.as_ref().and_then(|evidence| evidence.trace.as_ref());
        let records = trace.map(|(record, inner)| (record, inner.as_ref()));
        let snapshot = state.as_ref().ok().copied();
        // Those of the shell whose state it is.
        let locals = match records {
            Some((_, Some(inner))) if snapshot.is_some_and(|snapshot| snapshot.depth > 0) => &inner.locals[..],
            Some((outer, _)) if snapshot.is_some_and(|snapshot| snapshot.depth == 0) => &outer.locals,
            _ => &[],
        };
        let shell = match (&self.stage, state) {
            _ if options.as_ref().is_ok_and(|options| options.command.is_some()) => {
                Err("BASH_TMATE_COMMAND is set".to_owned())
            }
            (_, Err(why)) => Err(why),
            (Ok(stage), Ok(snapshot)) => shell(stage, snapshot, locals),
            (Err(why), Ok(_)) => Err((*why).to_owned()),
        };
        let failure = Failure {
            runs: &self.invocation.runs,
            ending: self.ending,
            snapshot,
            trace: records,
            not_restored: shell.as_ref().err().cloned(),
        };
        voice.session(&failure.line());
        for warning in &self.settings.warnings {
            voice.warning(warning);
        }
        let (options, interrupt) = match (options, interrupt) {
            (Ok(options), Ok(interrupt)) => (options, interrupt),
            (Err(usage), _) => return voice.session_failed(&usage.into()),
            (_, Err(error)) => return voice.session_failed(&error),
        };
        let shell = shell.as_ref().ok();
        let scene = Scene {
            greeting: failure.greeting(),
            shell: shell.map(|shell| shell.command.clone()),
            shell_tells_directory: shell.is_some(),
            ..Scene::default()
        };
        match run_session(&options, &scene, voice, &interrupt) {
            End::NotStarted(error) | End::Lost(error) => voice.session_failed(&error),
            End::Idle | End::User | End::ContinueFile | End::Cap | End::Signal(_) => {}
        }
    }
}

fn shell(stage: &Stage, snapshot: &crate::bash::snapshot::Snapshot, locals: &[u8]) -> Result<Shell, String> {
    let given: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    stage.shell(snapshot, &given, locals).map_err(|errno| format!("no file in memory for it: {}", errno.desc()))
}
