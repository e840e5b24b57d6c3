//! What bash wrote of itself before it ended, and which shell it was that failed.
//! It must never take the state of a subshell for that of the failure unless the failing command may hold one.

use super::snapshot::{Missing, Record, Snapshot};
use super::watch::{Trace, Watch};
use crate::supervise::Ending;

/// What bash wrote of itself.
#[derive(Debug)]
pub struct Evidence {
    /// What was watched.
    pub watch: Watch,
    /// The state of the shell itself when it ended.
    pub shell: Result<Snapshot, Missing>,
    /// The state of the innermost subshell that failed last.
    pub subshell: Option<Snapshot>,
    /// What the ERR trap wrote last, if that is of this failure; with what a subshell wrote of it.
    pub trace: Option<(Record, Option<Record>)>,
}

impl Evidence {
    /// The state in which a script failed that ended as `ending` says: that of the innermost shell in which it did.
    pub fn state(&self, ending: Ending) -> Result<&Snapshot, Missing> {
        match &self.subshell {
            Some(subshell) if self.is_status(subshell.status, ending) && self.may_be_a_subshells() => Ok(subshell),
            _ => self.shell.as_ref().map_err(|missing| *missing),
        }
    }

    /// Whether a subshell that ends with `status` can make the shell end so. In a pipeline bash ends an `eval` with 1
    /// for any status with which errexit ends it.
    fn is_status(&self, status: u8, ending: Ending) -> bool {
        ending == Ending::Exited(status) || (self.watch.evals && ending == Ending::Exited(1))
    }

    /// Whether the command that failed may hold the subshell that failed last.
    fn may_be_a_subshells(&self) -> bool {
        match (&self.trace, self.watch.trace) {
            // Its EXIT trap tells of `exit` too, which is nothing to the ERR trap.
            (Some((outer, _)), _) if self.watch.evals && outer.is_an_eval() => true,
            (Some((outer, _)), _) => outer.has_inner && (holds_a_subshell(outer) || self.is_a_pipeline()),
            // `exit`, or a command with errexit off.
            (None, Trace::Errexit | Trace::Always) => false,
            (None, Trace::Never) => true,
        }
    }

    fn is_a_pipeline(&self) -> bool {
        self.shell.as_ref().is_ok_and(|shell| shell.pipe_status.len() > 1)
    }
}

/// Whether bash runs a part of the command in a process of its own.
fn holds_a_subshell(record: &Record) -> bool {
    let command = record.command.to_string_lossy();
    ["(", "`"].iter().any(|part| command.contains(part)) || record.is_an_eval()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(status: u8, depth: u32, pipe_status: &[u8]) -> Snapshot {
        Snapshot {
            status,
            depth,
            pipe_status: pipe_status.to_vec(),
            options_on: Vec::new(),
            command: "".into(),
            stack: Vec::new(),
            directory: "/".into(),
            shopts: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            functions: Vec::new(),
            function_attributes: Vec::new(),
        }
    }

    fn record(command: &str, has_inner: bool) -> Record {
        Record { has_inner, status: 3, line: 1, command: command.into(), stack: Vec::new(), locals: Vec::new() }
    }

    #[test]
    fn the_innermost_shell_is_that_of_the_failing_command() {
        let errexit = Watch { trace: Trace::Errexit, evals: false };
        let evals = Watch { trace: Trace::Never, evals: true };
        let both = Watch { trace: Trace::Errexit, evals: true };
        for (watch, command, has_inner, pipe_status, ending, depth) in [
            (errexit, Some("( cd /usr; false )"), true, &[3][..], Ending::Exited(3), 1),
            (errexit, Some("x=$(false)"), true, &[3], Ending::Exited(3), 1),
            (errexit, Some("x=`false`"), true, &[3], Ending::Exited(3), 1),
            (errexit, Some("cat"), true, &[3, 0], Ending::Exited(3), 1),
            // A subshell has failed before, and the script has gone on.
            (errexit, Some("false"), true, &[3], Ending::Exited(3), 0),
            (errexit, Some("( exit 3 )"), false, &[3], Ending::Exited(3), 0),
            (errexit, Some("eval 'exit 3'"), false, &[0, 3], Ending::Exited(3), 0),
            (both, Some("eval 'exit 3'"), false, &[0, 3], Ending::Exited(3), 1),
            (both, Some("( eval 'exit 3' )"), false, &[0, 3], Ending::Exited(3), 1),
            (both, Some("exit 3"), false, &[0], Ending::Exited(3), 0),
            (errexit, None, false, &[0], Ending::Exited(3), 0),
            (errexit, Some("( cd /usr; false )"), true, &[3], Ending::Exited(4), 0),
            (errexit, Some("( cd /usr; false )"), true, &[3], Ending::Killed(3), 0),
            (evals, None, false, &[0, 3], Ending::Exited(3), 1),
            (evals, None, false, &[0, 1], Ending::Exited(1), 1),
            (evals, None, false, &[0, 4], Ending::Exited(4), 0),
        ] {
            let trace = command.map(|command| (record(command, has_inner), None));
            let shell = Ok(snapshot(3, 0, pipe_status));
            let evidence = Evidence { watch, shell, subshell: Some(snapshot(3, 1, &[3])), trace };
            assert_eq!(evidence.state(ending).unwrap().depth, depth, "{command:?} {ending:?}");
        }
    }

    #[test]
    fn a_subshells_state_serves_where_the_shell_has_none() {
        let watch = Watch { trace: Trace::Never, evals: true };
        let of = |subshell| Evidence { watch, shell: Err(Missing::Unwritten), subshell, trace: None };
        assert_eq!(of(Some(snapshot(1, 1, &[1]))).state(Ending::Exited(1)).unwrap().depth, 1);
        assert_eq!(of(None).state(Ending::Exited(1)).err(), Some(Missing::Unwritten));
    }
}
