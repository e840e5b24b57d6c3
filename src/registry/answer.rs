//! Reads from skopeo's messages why it failed: the one place where an error is known by its text.
//! It must never say "not found" of anything but the distribution specification's own two codes for it.

/// Why a registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such image, or no such repository: `MANIFEST_UNKNOWN`, `NAME_UNKNOWN`.
    NotFound,
    /// It is there or not, but not for these credentials: `UNAUTHORIZED`, `DENIED`.
    Denied(String),
    /// Everything else: no answer, too many requests, and whatever is not understood.
    Failed(String),
}

/// The codes as skopeo spells them: in lower case, with spaces for `_`, after a `: `. The specification's own
/// spelling stands in the messages of registries that skopeo passes on as they are.
const NOT_FOUND: &[&str] = &["manifest unknown", "name unknown"];
/// What skopeo 1.10 and newer print of Docker's registry has no code any more, only the message of `DENIED`.
const DENIED: &[&str] = &[
    "unauthorized",
    "denied",
    "authentication required",
    "invalid username/password",
    "invalid status code from registry 401",
    "invalid status code from registry 403",
];

/// Reads the standard error of a skopeo that failed.
///
/// Skopeo ends with the same status (1, some versions 2) for a missing image, a missing repository and a
/// registry that does not answer (<https://github.com/containers/skopeo/issues/2589>), so its text is all there is.
pub fn read_refusal(stderr: &str) -> Refusal {
    let message = fatal_message(stderr);
    // What stands in quotes is what was asked for.
    let lower = message.to_ascii_lowercase();
    let has = |code: &&&str| {
        lower.match_indices(**code).any(|(at, _)| {
            let before = lower[..at].trim_end_matches(' ');
            let after = &lower[at + code.len()..];
            let begins = before.is_empty() || before.ends_with([':', '\n', ',', ']', ')']) || before.ends_with("is");
            let ends = after.is_empty() || after.starts_with([':', '\n', '"', ' ', ',', ')', ';']);
            begins && ends
        })
    };
    if DENIED.iter().any(|code| has(&code)) {
        Refusal::Denied(message)
    } else if NOT_FOUND.iter().any(|code| has(&code)) && !lower.contains("fetching target platform image") {
        Refusal::NotFound
    } else {
        Refusal::Failed(message)
    }
}

/// The message of skopeo's last line of level `fatal`: `time="…" level=fatal msg="…"` where stderr is no
/// terminal, `FATA[0001] …` where it is one. Without such a line, all of it.
fn fatal_message(stderr: &str) -> String {
    let quoted = stderr.rfind("level=fatal msg=").map(|at| unquoted(&stderr[at + "level=fatal msg=".len()..]));
    let plain = || {
        let at = stderr.rfind("FATA[")?;
        Some(stderr[at..].split_once(']')?.1.trim().to_owned())
    };
    quoted.or_else(plain).unwrap_or_else(|| match stderr.trim() {
        "" => "it did not say why".to_owned(),
        text => text.to_owned(),
    })
}

/// A word or a string in Go's quotes.
fn unquoted(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"') else {
        return text.split_whitespace().next().unwrap_or_default().to_owned();
    };
    let mut message = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                Some('n') => message.push('\n'),
                Some('t') => message.push('\t'),
                Some(other) => message.push(other),
                None => {}
            },
            other => message.push(other),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Kind {
        NotFound,
        Denied,
        Failed,
    }

    fn kind(stderr: &str) -> Kind {
        match read_refusal(stderr) {
            Refusal::NotFound => Kind::NotFound,
            Refusal::Denied(_) => Kind::Denied,
            Refusal::Failed(_) => Kind::Failed,
        }
    }

    /// Recorded: each is what the version named printed.
    const RECORDED: &[(&str, &str, Kind)] = &[
        // 1.9.3 with docker-registry 2.8.2, both Debian 12's.
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://127.0.0.1:5077/no/repo:t\": reading manifest t in 127.0.0.1:5077/no/repo: manifest unknown: manifest unknown""#,
            Kind::NotFound,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://127.0.0.1:5077/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000\": reading manifest sha256:0000000000000000000000000000000000000000000000000000000000000000 in 127.0.0.1:5077/a/b: manifest unknown: manifest unknown""#,
            Kind::NotFound,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://127.0.0.1:5077/a/b:amd64\": pinging container registry 127.0.0.1:5077: Get \"https://127.0.0.1:5077/v2/\": http: server gave HTTP response to HTTPS client""#,
            Kind::Failed,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://127.0.0.1:5999/a/b:amd64\": pinging container registry 127.0.0.1:5999: Get \"http://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused""#,
            Kind::Failed,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://127.0.0.1:5078/a/b:amd64\": reading manifest amd64 in 127.0.0.1:5078/a/b: unauthorized: authentication required""#,
            Kind::Denied,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error parsing image name \"docker://nosuch.invalid/a/b:none\": pinging container registry nosuch.invalid: Get \"http://nosuch.invalid/v2/\": dial tcp: lookup nosuch.invalid on 10.0.0.1:53: no such host""#,
            Kind::Failed,
        ),
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Error listing repository tags: fetching tags list: invalid status code from registry 404 (Not Found)""#,
            Kind::Failed,
        ),
        // A blob is not an image.
        (
            "1.9.3",
            r#"time="2026-11-24T21:57:21Z" level=fatal msg="Uploading manifest list failed, attempted the following formats: application/vnd.oci.image.index.v1+json(uploading manifest both to 127.0.0.1:5077/a/c: errors:\nmanifest blob unknown: blob unknown to registry\nmanifest blob unknown: blob unknown to registry\n)""#,
            Kind::Failed,
        ),
        // containers/skopeo#276, anchore/anchore-engine#203, containers/skopeo#705: 0.1 to 1.0.
        (
            "0.1.19",
            r#"time="2019-05-23T09:20:01Z" level=fatal msg="Error reading manifest tag in docker: manifest unknown: manifest unknown" "#,
            Kind::NotFound,
        ),
        (
            "0.1.39",
            r#"time="2019-08-12T09:33:28Z" level=fatal msg="Error reading manifest latest in artifactory-test.artifactory.io/it-docker-local/docker_sync: manifest unknown: The named manifest is not known to the registry.""#,
            Kind::NotFound,
        ),
        // containers/image#1299 and containers/skopeo#2455: before and after 1.10, on a terminal.
        (
            "1.9",
            "FATA[0001] Error parsing image name \"docker://libpod/doesnotexist\": reading manifest latest in docker.io/libpod/doesnotexist: errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required \n",
            Kind::Denied,
        ),
        (
            "1.10",
            "FATA[0002] Error parsing image name \"docker://libpod/doesnotexist\": reading manifest latest in docker.io/libpod/doesnotexist: requested access to the resource is denied \n",
            Kind::Denied,
        ),
        (
            "1.10",
            "FATA[0001] Error parsing image name \"docker://quay.io/libpod/doesnotexist\": reading manifest latest in quay.io/libpod/doesnotexist: unauthorized: access to the requested resource is not authorized \n",
            Kind::Denied,
        ),
        (
            "1.15.1",
            "FATA[0000] initializing source docker://docker.redpanda.com/redpandadata/connect:4.39: reading manifest 4.39 in docker.redpanda.com/redpandadata/connect: manifest unknown",
            Kind::NotFound,
        ),
        // containers/skopeo#2004: the index is there, one of its images is not.
        (
            "1.11",
            r#"time="2023-05-24T15:50:22Z" level=fatal msg="Error parsing manifest for image: fetching target platform image selected from image index: reading manifest sha256:f3840ef0a57f1467d7f126d1a64098333ad3eefeb7c18913298a5eb5454fe211 in ghcr.io/socialgouv/mon-psy-sante/app: manifest unknown""#,
            Kind::Failed,
        ),
        // containers/image#2203: Harbor says it in words of its own, which may mean anything.
        (
            "1.15.0",
            "FATA[0000] writing signatures: reading manifest sha256-48d9183e.sig in 192.168.210.93/images/alpine: unknown: artifact images/alpine:sha256-48d9183e.sig not found",
            Kind::Failed,
        ),
        // containers/skopeo#907, #1230.
        ("0.2", "FATA[0031] Error listing repository tags: http: unexpected EOF reading trailer\n", Kind::Failed),
        (
            "1.2",
            "FATA[0001] Error listing repository tags: Error fetching tags list: invalid status code from registry 404 (Not Found) \n",
            Kind::Failed,
        ),
        (
            "1.16",
            r#"time="2025-04-30T10:00:00Z" level=fatal msg="Error listing repository tags: fetching tags list: name unknown: repository name not known to registry""#,
            Kind::NotFound,
        ),
        (
            "1.16",
            r#"time="2025-04-30T10:00:00Z" level=fatal msg="Error parsing image name \"docker://busybox:x\": reading manifest x in docker.io/library/busybox: toomanyrequests: You have reached your pull rate limit.""#,
            Kind::Failed,
        ),
    ];

    #[test]
    fn recorded_messages_mean_what_they_say() {
        for (version, stderr, expected) in RECORDED {
            assert_eq!(kind(stderr), *expected, "{version}: {stderr}");
        }
    }

    #[test]
    fn what_is_not_understood_is_a_failure_with_its_text() {
        for (stderr, message) in [
            ("", "it did not say why"),
            ("  \n", "it did not say why"),
            ("skopeo: not found", "skopeo: not found"),
            ("404 Not Found", "404 Not Found"),
            ("time=\"x\" level=fatal msg=\"one \\\"two\\\"\"\n", "one \"two\""),
            ("time=\"x\" level=fatal msg=short\n", "short"),
            ("time=\"x\" level=fatal msg=\"cut o", "cut o"),
            // Words of the image's own name or of a warning before are not the registry's.
            (
                "time=x level=warning msg=\"manifest unknown\"\ntime=x level=fatal msg=\"connection refused\"",
                "connection refused",
            ),
            ("level=fatal msg=\"reading the manifest unknowns of x\"", "reading the manifest unknowns of x"),
        ] {
            assert_eq!(read_refusal(stderr), Refusal::Failed(message.to_owned()), "{stderr}");
        }
    }

    #[test]
    fn denied_beside_not_found_is_denied() {
        let both = "FATA[0000] (Mirrors also failed: [mirror/x: unauthorized: no]): reading manifest: manifest unknown";
        assert_eq!(kind(both), Kind::Denied);
    }

    proptest! {
        #[test]
        fn nothing_but_the_codes_is_not_found(text in "[ -~]{0,200}") {
            let lower = text.to_ascii_lowercase();
            let coded = NOT_FOUND.iter().any(|code| lower.contains(code));
            prop_assert!(coded || kind(&text) != Kind::NotFound);
        }

        #[test]
        fn a_message_that_is_cut_off_is_never_not_found(which in 0..RECORDED.len(), end in 0_usize..400) {
            let (_, stderr, expected) = &RECORDED[which];
            let cut: String = stderr.chars().take(end).collect();
            if *expected != Kind::NotFound {
                prop_assert_ne!(kind(&cut), Kind::NotFound);
            }
        }
    }
}
