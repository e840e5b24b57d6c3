//! What words and variables mean.

use std::collections::HashMap;

use super::*;

const PRINT: &str = "SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI";

fn options(words: Words, variables: &[(&str, &str)]) -> Result<Options, String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Options::new(words, |name| variables.get(name).map(OsString::from)).map_err(|usage| usage.0)
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn word(text: &str) -> Option<OsString> {
    Some(text.into())
}

#[test]
fn without_anything_the_defaults_hold() {
    let expected = Options {
        server: Server::OfConf { port: None },
        fingerprints: Fingerprints::default(),
        max_idle: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(30),
        repeat: Some(Duration::from_secs(60)),
        max_duration: Some(Duration::from_secs(3 * 3600)),
        keys: Keys::Unset,
        continue_file: None,
        command: None,
        verbose: false,
    };
    assert_eq!(options(Words::default(), &[]).unwrap(), expected);
    // An empty variable is an unset one.
    let empty: Vec<_> = ["MAX_IDLE", "SERVER", "FINGERPRINT", "PUBLIC_SERVER", "REPEAT", "CONTINUE_FILE", "COMMAND"]
        .map(|name| format!("BASH_TMATE_{name}"))
        .to_vec();
    let empty: Vec<_> = empty.iter().map(|name| (name.as_str(), "")).chain([("TMATE_SERVER_HOST", "")]).collect();
    assert_eq!(options(Words::default(), &empty).unwrap(), expected);
}

#[test]
fn each_option_has_a_variable_and_the_word_wins() {
    let variables = [
        ("BASH_TMATE_MAX_IDLE", "1"),
        ("BASH_TMATE_SERVER", "a.example:1"),
        ("BASH_TMATE_FINGERPRINT", PRINT),
        ("BASH_TMATE_CONNECT_TIMEOUT", "2"),
        ("BASH_TMATE_REPEAT", "3"),
        ("BASH_TMATE_MAX_DURATION", "4"),
        ("BASH_TMATE_AUTHORIZED_KEYS", "ssh-ed25519 A\n"),
        ("BASH_TMATE_CONTINUE_FILE", "/go"),
        ("BASH_TMATE_COMMAND", "zsh -i"),
        ("BASH_TMATE_VERBOSE", "1"),
    ];
    let all = |print: &str| {
        let print = Some(print.to_owned());
        Fingerprints { rsa: print.clone(), ecdsa: print.clone(), ed25519: print }
    };
    assert_eq!(
        options(Words::default(), &variables).unwrap(),
        Options {
            server: Server::Named { host: "a.example".into(), port: 1 },
            fingerprints: all(PRINT),
            max_idle: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            repeat: Some(Duration::from_secs(3)),
            max_duration: Some(Duration::from_secs(4)),
            keys: Keys::Lines(b"ssh-ed25519 A\n".to_vec()),
            continue_file: Some("/go".into()),
            command: word("zsh -i"),
            verbose: true,
        }
    );
    let other = PRINT.replace('j', "k");
    let words = Words {
        max_idle: word("11"),
        server: word("[::1]:12"),
        fingerprints: vec![format!("rsa:{other}=").into()],
        public_server: false,
        connect_timeout: word("12"),
        repeat: word("0"),
        max_duration: word("0"),
        authorized_keys: vec!["-".into(), "keys".into()],
        continue_file: word("on"),
        command: word("fish"),
        verbose: true,
    };
    assert_eq!(
        options(words, &variables).unwrap(),
        Options {
            server: Server::Named { host: "::1".into(), port: 12 },
            fingerprints: Fingerprints { rsa: Some(other), ..Fingerprints::default() },
            max_idle: Duration::from_secs(11),
            connect_timeout: Duration::from_secs(12),
            repeat: None,
            max_duration: None,
            keys: Keys::Files(vec![KeyFile::Stdin, KeyFile::Path("keys".into())]),
            continue_file: Some("on".into()),
            command: word("fish"),
            verbose: true,
        }
    );
}

#[test]
fn the_server_is_the_first_that_is_named() {
    let host = ("TMATE_SERVER_HOST", "env.example");
    let named = |host: &str, port| Server::Named { host: host.into(), port };
    for (word, variables, expected) in [
        (None, &[host][..], named("env.example", 22)),
        (None, &[host, ("TMATE_SERVER_PORT", "2200")], named("env.example", 2200)),
        (None, &[("TMATE_SERVER_HOST", "env.example:2201")], named("env.example", 2201)),
        (None, &[("TMATE_SERVER_PORT", "2200")], Server::OfConf { port: Some(2200) }),
        (None, &[host, ("BASH_TMATE_SERVER", "own.example")], named("own.example", 22)),
        // A word names the whole server.
        (Some("w.example"), &[host, ("TMATE_SERVER_PORT", "2200")], named("w.example", 22)),
        (Some("w.example"), &[("BASH_TMATE_PUBLIC_SERVER", "1")], named("w.example", 22)),
        (None, &[host, ("BASH_TMATE_PUBLIC_SERVER", "1")], Server::Public),
        (None, &[host, ("BASH_TMATE_PUBLIC_SERVER", "0")], named("env.example", 22)),
    ] {
        let words = Words { server: word.map(OsString::from), ..Words::default() };
        assert_eq!(options(words, variables).unwrap().server, expected, "{word:?} {variables:?}");
    }
    let public = Words { public_server: true, ..Words::default() };
    let found = options(public, &[host, ("TMATE_SERVER_RSA_FINGERPRINT", PRINT)]).unwrap();
    assert_eq!((found.server, found.fingerprints), (Server::Public, Fingerprints::default()));
}

#[test]
fn each_slot_has_a_variable_of_its_own() {
    for (name, expected) in [
        ("RSA", Fingerprints { rsa: Some(PRINT.into()), ..Fingerprints::default() }),
        ("ECDSA", Fingerprints { ecdsa: Some(PRINT.into()), ..Fingerprints::default() }),
        ("ED25519", Fingerprints { ed25519: Some(PRINT.into()), ..Fingerprints::default() }),
    ] {
        let name = format!("TMATE_SERVER_{name}_FINGERPRINT");
        assert_eq!(options(Words::default(), &[(&name, PRINT)]).unwrap().fingerprints, expected);
        let error = options(Words::default(), &[(&name, "MD5:00")]).unwrap_err();
        assert!(error.starts_with(&name), "{error}");
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    for (words, variables, expected) in [
        (
            Words { max_idle: word("0"), ..Words::default() },
            &[][..],
            "MAX_IDLE is `0`, which is no number of seconds from 1 to 316224000",
        ),
        (
            Words::default(),
            &[("BASH_TMATE_MAX_IDLE", "1m")],
            "BASH_TMATE_MAX_IDLE is `1m`, which is no number of seconds from 1 to 316224000",
        ),
        (
            Words { repeat: word("-1"), ..Words::default() },
            &[],
            "--repeat is `-1`, which is no number of seconds from 0 to 316224000",
        ),
        (
            Words { connect_timeout: word("+1"), ..Words::default() },
            &[],
            "--connect-timeout is `+1`, which is no number of seconds from 1 to 316224000",
        ),
        (
            Words { max_duration: word("99999999999999999999"), ..Words::default() },
            &[],
            "--max-duration is `99999999999999999999`, which is no number of seconds from 0 to 316224000",
        ),
        (
            Words { public_server: true, server: word("a"), ..Words::default() },
            &[],
            "`--public-server` and `--server` name two servers",
        ),
        (
            Words::default(),
            &[("BASH_TMATE_PUBLIC_SERVER", "yes")],
            "BASH_TMATE_PUBLIC_SERVER is `yes`, neither 1 nor 0",
        ),
        (Words { authorized_keys: vec!["".into()], ..Words::default() }, &[], "`--authorized-keys` names no file"),
        (Words::default(), &[("TMATE_SERVER_PORT", "0")], "TMATE_SERVER_PORT: `0` is no port"),
    ] {
        assert_eq!(options(words, variables).unwrap_err(), expected);
    }
}

#[test]
fn empty_keys_are_not_unset_keys() {
    let keys = options(Words::default(), &[("BASH_TMATE_AUTHORIZED_KEYS", "")]).unwrap().keys;
    assert_eq!(keys, Keys::Lines(Vec::new()));
}
