//! Which servers and fingerprints are taken.

use proptest::prelude::*;

use super::*;

const ONE: &str = "SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI";
const TWO: &str = "SHA256:8GmKHYHEJ6n0TEdciHeEGkKOigQfCFuBULdt6vZIhDc";

#[test]
fn a_server_is_a_host_and_a_port() {
    for (text, host, port) in [
        ("h", "h", 22),
        ("h.example:2200", "h.example", 2200),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("::1", "::1", 22),
        ("[::1]", "::1", 22),
        ("[fe80::1%eth0]:23", "fe80::1%eth0", 23),
    ] {
        let expected = Server::Named { host: host.into(), port };
        assert_eq!(parse_server(OsStr::new(text), "x").unwrap(), expected);
    }
    for (text, why) in [
        ("", "it is not HOST[:PORT]"),
        (":22", "it is not HOST[:PORT]"),
        ("-oProxyCommand=x", "it is not HOST[:PORT]"),
        ("user@h", "it is not HOST[:PORT]"),
        ("a b", "it is not HOST[:PORT]"),
        ("h\"; run-shell x", "it is not HOST[:PORT]"),
        ("[::1", "the `]` is missing"),
        ("[::1]22", "after `]` comes `:PORT` or nothing"),
    ] {
        assert_eq!(parse_server(OsStr::new(text), "x").unwrap_err().0, format!("x is `{text}`: {why}"));
    }
    for port in ["0", "65536", "", "x", "+1"] {
        let error = parse_server(OsStr::new(&format!("h:{port}")), "x").unwrap_err().0;
        assert_eq!(error, format!("x: `{port}` is no port"));
    }
}

fn parse(words: &[&str]) -> Result<Fingerprints, String> {
    parse_fingerprints(words.iter().map(OsStr::new), "x").map_err(|usage| usage.0)
}

#[test]
fn a_fingerprint_without_a_kind_fills_what_is_left() {
    let prints = |rsa: Option<&str>, ecdsa: Option<&str>, ed25519: Option<&str>| {
        let [rsa, ecdsa, ed25519] = [rsa, ecdsa, ed25519].map(|print| print.map(str::to_owned));
        Ok(Fingerprints { rsa, ecdsa, ed25519 })
    };
    assert_eq!(parse(&[]), prints(None, None, None));
    assert_eq!(parse(&[ONE]), prints(Some(ONE), Some(ONE), Some(ONE)));
    assert_eq!(parse(&[&format!("rsa:{ONE}")]), prints(Some(ONE), None, None));
    assert_eq!(parse(&[ONE, &format!("ecdsa:{TWO}=")]), prints(Some(ONE), Some(TWO), Some(ONE)));
    for (words, expected) in [
        (&[ONE, TWO][..], "x: two fingerprints without a kind; write `ed25519:SHA256:…`".to_owned()),
        (&[&format!("rsa:{ONE}"), &format!("rsa:{TWO}")], "x: two fingerprints of kind rsa".to_owned()),
        (&["MD5:00:11"], "x: `MD5:00:11` is not [rsa:|ecdsa:|ed25519:]SHA256:…".to_owned()),
        (&["dsa:SHA256:x"], "x: `dsa:SHA256:x` is not [rsa:|ecdsa:|ed25519:]SHA256:…".to_owned()),
        (&["SHA256:short"], "x: `SHA256:short` does not hold the 43 characters of a SHA256 fingerprint".to_owned()),
    ] {
        assert_eq!(parse(words), Err(expected));
    }
}

#[test]
fn a_session_starts_only_at_a_named_server_with_a_fingerprint() {
    let named = Server::Named { host: "h".into(), port: 22 };
    let of_conf = Server::OfConf { port: None };
    let one = Fingerprints { rsa: Some(ONE.into()), ..Fingerprints::default() };
    let none = Fingerprints::default();
    let missing = |host: &str, port: &str| Err(Refusal::NoFingerprint { host: host.into(), port: port.into() });
    for (wanted, host, port, fingerprints, expected) in [
        (&named, "h", "22", &one, Ok(())),
        (&of_conf, "h", "22", &one, Ok(())),
        (&Server::Public, PUBLIC_HOST, "22", &one, Ok(())),
        (&of_conf, NO_HOST, "22", &one, Err(Refusal::NoServer)),
        (&of_conf, "", "22", &none, Err(Refusal::NoServer)),
        (&of_conf, "SSH.tmate.io.", "22", &one, Err(Refusal::PublicServer)),
        (&named, "h", "2200", &none, missing("h", "2200")),
    ] {
        let effective = Effective {
            host: host.into(),
            port: port.into(),
            fingerprints: fingerprints.clone(),
            ..Effective::default()
        };
        assert_eq!(check(wanted, &effective), expected, "{host}");
    }
}

#[test]
fn the_hint_prints_the_fingerprint() {
    for (port, expected) in [("22", "`ssh-keyscan h | ssh-keygen -lf -`"), ("2200", "`ssh-keyscan -p 2200 h |")] {
        let hint = Refusal::NoFingerprint { host: "h".into(), port: port.into() }.hint();
        assert!(hint.starts_with(expected), "{hint}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_no_host_leaves_its_quotes(text in "[a-z0-9:.\\[\\]%'\"; -]{0,30}", any in ".{0,60}") {
        for text in [&text, &any] {
            if let Ok(Server::Named { host, .. }) = parse_server(OsStr::new(text), "x") {
                prop_assert!(!host.contains(['\'', '"', ' ', ';', '[', ']']) && !host.starts_with('-'));
            }
            let _ = parse_fingerprints([OsStr::new(text)].into_iter(), "x");
        }
    }
}
