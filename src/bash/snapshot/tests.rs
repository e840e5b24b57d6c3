//! Snapshots and records, whole and damaged.

use super::*;
use proptest::prelude::*;

const FILE: &[u8] = b"3 1\x002\x000\x003\0braceexpand:errexit\0false \"a b\"\x003\0source\0f\0main\0\
3\0/proc/1/fd/4\0a.sh\0a.sh\x001\x007\x000\0=/tmp/a\nb\0shopt -u x\n\0set -o errexit\n\0A\0b\0\0\
declare -- A=\"1\"\n\0\0f () { :; }\n\0declare -f f\n\0end\0";

const RECORD: &[u8] = b"r\0s\x003\x0012\0false\x002\0source\0f\x002\0x\0a.sh\x001\x007\0declare -- l=\"5\"\n\0end\0";

fn frame(function: &str, source: &str, called_at: u64) -> Frame {
    Frame { function: function.into(), source: source.into(), called_at }
}

fn expected() -> Snapshot {
    Snapshot {
        status: 3,
        depth: 1,
        pipe_status: vec![0, 3],
        options_on: vec!["braceexpand".into(), "errexit".into()],
        command: "false \"a b\"".into(),
        stack: vec![frame("f", "a.sh", 7), frame("main", "a.sh", 0)],
        directory: "/tmp/a\nb".into(),
        shopts: b"shopt -u x\n".to_vec(),
        options: b"set -o errexit\n".to_vec(),
        variables: vec![
            Variable { name: "A".into(), declaration: b"declare -- A=\"1\"\n".to_vec() },
            Variable { name: "b".into(), declaration: Vec::new() },
        ],
        functions: b"f () { :; }\n".to_vec(),
        function_attributes: b"declare -f f\n".to_vec(),
    }
}

#[test]
fn a_snapshot_is_read_and_what_follows_is_not() {
    assert_eq!(parse(FILE), Ok(expected()));
    assert_eq!(parse(&[FILE, &[0; 1000]].concat()), Ok(expected()));
    // Outside functions bash has no names of functions.
    let outside = String::from_utf8_lossy(FILE).replace("\x003\0source\0f\0main", "\x000");
    let stack = parse(outside.as_bytes()).unwrap().stack;
    assert_eq!(stack, [frame("source", "a.sh", 7), frame("main", "a.sh", 0)]);
    let moved = String::from_utf8_lossy(FILE).replace("=/tmp/a\nb", "/tmp/real \n\n");
    assert_eq!(parse(moved.as_bytes()).unwrap().directory, "/tmp/real \n");
    let removed = String::from_utf8_lossy(FILE).replace("=/tmp/a\nb", "");
    assert_eq!(parse(removed.as_bytes()).unwrap().directory, "");
}

#[test]
fn what_is_not_whole_is_none() {
    assert_eq!(parse(b""), Err(Missing::Unwritten));
    assert_eq!(parse(&[0; 100]), Err(Missing::Unwritten));
    // Without its last NUL it is whole with those that follow in the file.
    for end in 1..FILE.len() - 1 {
        assert_eq!(parse(&[&FILE[..end], &[0; 9]].concat()).err(), Some(Missing::Cut), "{end}");
        assert_eq!(parse(&FILE[..end]).err(), Some(Missing::Cut), "{end}");
    }
    for end in 0..RECORD.len() - 1 {
        assert_eq!(parse_record(&[&RECORD[..end], &[0; 9]].concat()), None, "{end}");
    }
    let many = String::from_utf8_lossy(FILE).replace("\x003\0source", "\x00300000000000\0source");
    assert_eq!(parse(many.as_bytes()), Err(Missing::Cut));
    for (part, other) in [("3 1\0", "3\0"), ("3 1\0", "256 1\0"), ("3 1\0", "3 -1\0"), ("\x000\x003", "\x000\0x")] {
        let text = String::from_utf8_lossy(FILE).replacen(part, other, 1);
        assert_eq!(parse(text.as_bytes()), Err(Missing::Cut), "{other:?}");
    }
}

#[test]
fn one_that_reaches_the_end_of_its_file_may_have_lost_something() {
    let filled = |value: usize| {
        let text = String::from_utf8_lossy(FILE).replace("\"1\"", &"1".repeat(value));
        parse(text.as_bytes()).map(|snapshot| snapshot.variables[0].declaration.len() > value)
    };
    assert_eq!(filled(LARGEST - UNSAFE_END - FILE.len()), Ok(true));
    assert_eq!(filled(LARGEST - UNSAFE_END), Err(Missing::Cut));
}

#[test]
fn an_option_of_the_hook_is_left_out() {
    let text = String::from_utf8_lossy(FILE).replace(":errexit", ":errexit:errtrace");
    let text = text.replace("set -o errexit\n", "set -o errexit\nset -o errtrace\nset +o vi\n");
    let found = parse(text.as_bytes()).unwrap().without_errtrace();
    assert_eq!((found.options_on, found.options), (expected().options_on, b"set -o errexit\nset +o vi\n".to_vec()));
}

#[test]
fn a_record_is_read() {
    let record = Record {
        has_inner: true,
        status: 3,
        line: 12,
        command: "false".into(),
        stack: vec![frame("f", "a.sh", 7)],
        locals: b"declare -- l=\"5\"\n".to_vec(),
    };
    assert_eq!(parse_record(RECORD), Some(record.clone()));
    // A longer one lay there before.
    assert_eq!(parse_record(&[RECORD, b"declare -- m\0end\0"].concat()), Some(record));
    // A subshell has just failed and the shell has not.
    assert_eq!(parse_record(&[b"s\0", &RECORD[2..]].concat()), None);
}

proptest! {
    #[test]
    fn no_bytes_hurt(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'3'), Just(b'='), any::<u8>()], 0..200)) {
        let _ = (parse(&bytes), parse_record(&bytes));
    }

    /// A byte changed anywhere is read as something, or as nothing, but never hurts.
    #[test]
    fn no_change_hurts(at in 0..FILE.len(), byte in any::<u8>()) {
        let mut file = FILE.to_vec();
        file[at] = byte;
        let _ = parse(&file);
        let mut record = RECORD.to_vec();
        let place = at % record.len();
        record[place] = byte;
        let _ = parse_record(&record);
    }
}
