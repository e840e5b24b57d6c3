//! Which failures of outer shells are consequences of inner ones.

use super::*;
use crate::bash::snapshot::{Missing, Record, Snapshot};
use crate::bash::watch::Watch;
use proptest::prelude::*;

fn failure(code: u8, command: &str, is_direct: bool) -> InnerFailure {
    let command = command.split(' ').map(OsString::from).collect();
    InnerFailure { code, ended: Duration::from_secs(100), command, is_direct }
}

fn command(text: &str) -> Cause {
    Cause::Command { text: text.into(), is_a_pipeline: false }
}

#[test]
fn a_shell_fails_because_of_an_inner_one_or_by_itself() {
    let make = || failure(1, "make -j4 all", false);
    let direct = || failure(3, "bash-tmate -c false", true);
    let script = || failure(3, "/bin/sh ./run.sh x", false);
    let exit = |after_failure| Cause::Exit { after_failure };
    for (inner, cause, code, expected) in [
        // make fails with 2 whatever its recipe fails with.
        (make(), command("make -j4 all"), 2, true),
        (make(), command("CC=gcc make -j4 all"), 2, true),
        (make(), command("time make -j4 all"), 2, true),
        (make(), command("\"$MAKE\" -j4 all"), 2, true),
        (make(), command("make -j4 all > log"), 2, true),
        (make(), command("x=$(make -j4 all)"), 2, true),
        (make(), command("( cd x; make -j4 all )"), 2, true),
        (make(), command("wait $!"), 2, true),
        (make(), Cause::Command { text: "tee log".into(), is_a_pipeline: true }, 2, true),
        // The inner failure was tolerated, and then something else has failed.
        (make(), command("make install"), 2, false),
        (make(), command("false"), 1, false),
        (make(), command("./deploy"), 2, false),
        (make(), command("[[ -e x ]]"), 1, false),
        (script(), command("./run.sh x"), 3, true),
        (script(), command("./run.sh y"), 3, false),
        (script(), command("/src/run.sh x"), 3, true),
        (direct(), command("bash-tmate -c false"), 3, true),
        (direct(), command("bash-tmate -c 'false'"), 3, true),
        (direct(), command("bash-tmate -c false"), 4, false),
        (direct(), command("false"), 3, false),
        // `x || exit 4`, and `x || true; exit 4`.
        (direct(), exit(true), 4, true),
        (direct(), exit(false), 4, false),
        (direct(), exit(false), 3, true),
        (make(), exit(true), 4, true),
        (make(), exit(false), 4, false),
        (make(), exit(false), 1, true),
        (direct(), Cause::Unknown, 3, true),
        (direct(), Cause::Unknown, 4, false),
        (make(), Cause::Unknown, 2, true),
    ] {
        let failures = [failure(9, "other", true), inner];
        let found = |failures, seconds| {
            blame(failures, &cause, Ending::Exited(code), Duration::from_secs(seconds)).map(|failure| failure.code)
        };
        let last = failures[1].code;
        assert_eq!(found(&failures, 101), expected.then_some(last), "{cause:?} {code} {:?}", failures[1]);
        assert_eq!(found(&failures, 111), None, "long after: {cause:?}");
        assert_eq!(found(&[], 101), None);
        assert_eq!(blame(&failures, &cause, Ending::Killed(9), Duration::from_secs(101)), None);
    }
}

fn snapshot(command: &str, pipe_status: &[u8]) -> Snapshot {
    Snapshot {
        status: 1,
        depth: 0,
        pipe_status: pipe_status.to_vec(),
        options_on: Vec::new(),
        command: command.into(),
        stack: Vec::new(),
        directory: "/".into(),
        shopts: Vec::new(),
        options: Vec::new(),
        variables: Vec::new(),
        functions: Vec::new(),
        function_attributes: Vec::new(),
    }
}

#[test]
fn the_cause_is_what_bash_wrote() {
    let record = |command: &str| Record {
        has_inner: false,
        status: 1,
        line: 1,
        command: command.into(),
        stack: Vec::new(),
        locals: Vec::new(),
    };
    let (file, string) = (Runs::File("x".into()), Runs::CommandString(Some("x".into())));
    let pipeline = Cause::Command { text: "tee".into(), is_a_pipeline: true };
    for (trace, recorded, shell, runs, expected) in [
        (Trace::Errexit, Some("make"), Ok(snapshot("x", &[2])), &string, command("make")),
        (Trace::Errexit, Some("tee"), Ok(snapshot("x", &[2, 0])), &string, pipeline),
        (Trace::Errexit, Some("make"), Err(Missing::Unwritten), &file, command("make")),
        (Trace::Errexit, None, Ok(snapshot("x", &[2])), &string, Cause::Exit { after_failure: true }),
        (Trace::Errexit, None, Ok(snapshot("x", &[0])), &string, Cause::Exit { after_failure: false }),
        (Trace::Errexit, None, Err(Missing::Unwritten), &file, Cause::Unknown),
        (Trace::Never, None, Ok(snapshot("make", &[2])), &string, Cause::Unknown),
        (Trace::Never, None, Ok(snapshot("make", &[2])), &file, Cause::Unknown),
        (Trace::Never, None, Ok(snapshot("false", &[1])), &file, command("false")),
        (Trace::Never, None, Ok(snapshot("exit 3", &[0])), &file, Cause::Exit { after_failure: false }),
    ] {
        let trace_records = recorded.map(|command| (record(command), None));
        let watch = Watch { trace, evals: false };
        let evidence = Evidence { watch, shell, subshell: None, trace: trace_records };
        assert_eq!(Cause::of(Some(&evidence), runs), expected, "{trace:?} {recorded:?}");
    }
    assert_eq!(Cause::of(None, &file), Cause::Unknown);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        failures in proptest::collection::vec(
            (any::<u8>(), 0..u64::MAX / 2, any::<bool>(), proptest::collection::vec("[^\\x00]{0,20}", 0..5)), 0..5),
        damage in any::<Option<(usize, u8)>>(),
    ) {
        let failures: Vec<_> = failures.into_iter().map(|(code, ended, is_direct, command)| InnerFailure {
            code,
            ended: Duration::from_millis(ended),
            command: command.into_iter().map(OsString::from).collect(),
            is_direct,
        }).collect();
        let mut bytes: Vec<_> = failures.iter().flat_map(InnerFailure::encode).collect();
        prop_assert_eq!(parse(&bytes), failures);
        if let Some((at, byte)) = damage.filter(|_| !bytes.is_empty()) {
            let place = at % bytes.len();
            bytes[place] = byte;
            let _ = parse(&bytes);
        }
    }
}
