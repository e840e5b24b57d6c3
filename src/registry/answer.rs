//! Reads from skopeo's messages why it failed: the one place where an error is known by its text.
//! It must never say that something is absent unless the registry has said so of what was asked for.

/// Why a registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such image, or no such repository, and a push makes it.
    NotFound,
    /// There is no such repository or project, and it has to be created before anything is pushed. The registry's words.
    NoRepository(String),
    /// It is there or not, but not for these credentials: `UNAUTHORIZED`, `DENIED`.
    Denied(String),
    /// Everything else: no answer, too many requests, and whatever is not understood.
    Failed(String),
}

/// What skopeo 1.10 and newer print of Docker's registry has no code any more, only the message of `DENIED`.
const DENIED: &[&str] = &[
    "unauthorized",
    "denied",
    "authentication required",
    "invalid username/password",
    "invalid status code from registry 401",
    "invalid status code from registry 403",
];
/// Codes of the distribution specification as skopeo spells them: in lower case, with spaces for `_`, after a `: `.
const MANIFEST_UNKNOWN: &str = "manifest unknown";
const NAME_UNKNOWN: &str = "name unknown";
/// How skopeo spells all codes that are not the specification's, such as Harbor's `NOT_FOUND`, and how others do.
const OTHER_CODES: &[&str] = &["unknown", "not_found", "not found"];
/// A registry that answers a question for a manifest with 404 has none, whatever else it says (distribution
/// specification, "Pulling manifests"). skopeo says so where the answer is not the JSON of the specification.
const STATUS_404: &str = "statuscode: 404";

/// Reads the standard error of a skopeo that failed.
///
/// Skopeo ends with the same status (1, some versions 2) for a missing image, a missing repository and a
/// registry that does not answer (<https://github.com/containers/skopeo/issues/2589>), so its text is all there is.
pub fn read_refusal(stderr: &str) -> Refusal {
    let message = fatal_message(stderr);
    let lower = message.to_ascii_lowercase();
    if DENIED.iter().any(|code| after(&lower, code).is_some()) {
        return Refusal::Denied(message);
    }
    // The index is there, and one of its images is not.
    if lower.contains("fetching target platform image") {
        return Refusal::Failed(message);
    }
    if let Some(at) = after(&lower, NAME_UNKNOWN) {
        return if has_to_be_created(said(&lower, at)) {
            Refusal::NoRepository(said(&message, at).to_owned())
        } else {
            Refusal::NotFound
        };
    }
    if after(&lower, MANIFEST_UNKNOWN).is_some() {
        return Refusal::NotFound;
    }
    if let Some(at) = OTHER_CODES.iter().find_map(|code| after(&lower, code)) {
        let text = said(&lower, at);
        if text.starts_with("project ") && text.ends_with(" not found") {
            return Refusal::NoRepository(said(&message, at).to_owned());
        }
        if is_absent(text) {
            return Refusal::NotFound;
        }
    }
    let is_404 = |at| lower[..at].rfind("reading manifest ").is_some_and(|start| !lower[start..at].contains("pinging"));
    if after(&lower, STATUS_404).is_some_and(is_404) {
        return Refusal::NotFound;
    }
    Refusal::Failed(message)
}

/// Where what follows `code` begins. What stands in quotes or in a name is what was asked for, and not a code.
fn after(lower: &str, code: &str) -> Option<usize> {
    let found = lower.match_indices(code).find(|(at, _)| {
        let before = lower[..*at].trim_end_matches(' ');
        let after = &lower[at + code.len()..];
        let begins = before.is_empty() || before.ends_with([':', '\n', ',', ']', ')']) || before.ends_with("is");
        let ends = after.is_empty() || after.starts_with([':', '\n', '"', ' ', ',', ')', ';']);
        begins && ends
    });
    found.map(|(at, _)| at + code.len())
}

/// What stands after a code that ends at `at`, to the end of the line.
fn said(message: &str, at: usize) -> &str {
    message[at..].lines().next().unwrap_or_default().trim_start_matches(':').trim()
}

/// Whether the text of `NAME_UNKNOWN` is that of a registry in which a push makes no repository: Amazon's ECR says that
/// the repository "does not exist in the registry with id", Google's Artifact Registry that `Repository "x" not found`.
fn has_to_be_created(text: &str) -> bool {
    text.contains("does not exist") || text.starts_with("repository \"") && text.ends_with(" not found")
}

/// Whether the text of a code that is not the specification's means that there is no such image. Harbor says
/// `artifact NAME not found` and `repository NAME not found`, registry.redhat.io and others `Not Found`, Quay that a tag
/// has expired. (containers/image, which skopeo is made of, has the same rule: `isManifestUnknownError`.)
fn is_absent(text: &str) -> bool {
    let is_of_one_name = |kind: &str| {
        let name = text.strip_prefix(kind).and_then(|rest| rest.strip_suffix(" not found"));
        name.is_some_and(|name| !name.is_empty() && !name.contains(' '))
    };
    is_of_one_name("artifact ")
        || is_of_one_name("repository ")
        || text == "not found"
        || text.starts_with("tag ") && text.contains(" was deleted or has expired")
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
        NoRepository,
        Denied,
        Failed,
    }

    fn kind(stderr: &str) -> Kind {
        match read_refusal(stderr) {
            Refusal::NotFound => Kind::NotFound,
            Refusal::NoRepository(_) => Kind::NoRepository,
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
        // containers/image#2203: Harbor says it in words of its own.
        (
            "1.15.0",
            "FATA[0000] writing signatures: reading manifest sha256-48d9183e.sig in 192.168.210.93/images/alpine: unknown: artifact images/alpine:sha256-48d9183e.sig not found",
            Kind::NotFound,
        ),
        // containers/skopeo#851: a push to Amazon's ECR.
        (
            "0.1.41",
            "FATA[0003] Error writing blob: Error initiating layer upload to /v2/a/b/blobs/uploads/ in 1234.dkr.ecr.eu-west-1.amazonaws.com: name unknown: The repository with name 'a/b' does not exist in the registry with id '1234' \nERRO[0003] exit status 1",
            Kind::NoRepository,
        ),
        // containers/skopeo#2484: GitLab, of a repository below a repository.
        (
            "1.17",
            "FATA[0002] trying to reuse blob sha256:3dc63f61 at destination: checking whether a blob sha256:3dc63f61 exists in registry.gitlab.com/a/b/c: requested access to the resource is denied",
            Kind::Denied,
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

    /// What registries answer to a question for a tag that they do not have, as their documentation and reports of
    /// their users have it, and what skopeo 1.9.3 makes of it: all after `reading manifest t in HOST/base/x: `.
    const ANSWERS: &[(&str, &str, Kind)] = &[
        ("Harbor", "unknown: artifact base/x:t not found", Kind::NotFound),
        ("Harbor, by digest", "unknown: artifact base/x@sha256:0123 not found", Kind::NotFound),
        ("Harbor, no repository", "unknown: repository base/x not found", Kind::NotFound),
        ("Harbor, no project", "unknown: project base not found", Kind::NoRepository),
        ("Harbor, no project", "unauthorized: project base not found: project base not found", Kind::Denied),
        ("Harbor through another client", "NOT_FOUND: artifact base/x:t not found", Kind::NotFound),
        (
            "ECR, no repository",
            "name unknown: The repository with name 'base/x' does not exist in the registry with id '1234'",
            Kind::NoRepository,
        ),
        ("ECR", "manifest unknown: Requested image not found", Kind::NotFound),
        ("GHCR, no repository", "name unknown", Kind::NotFound),
        ("GHCR, no repository", "denied", Kind::Denied),
        ("GHCR, no repository", "denied: denied", Kind::Denied),
        ("Artifact Registry, no repository", "name unknown: Repository \"base\" not found", Kind::NoRepository),
        ("Artifact Registry", "manifest unknown: Failed to fetch \"t\"", Kind::NotFound),
        (
            "Artifact Registry, no permission",
            "denied: Permission \"artifactregistry.repositories.downloadArtifacts\" denied on resource \"projects/p\" (or it may not exist)",
            Kind::Denied,
        ),
        ("ACR", "manifest unknown: manifest tagged by \"t\" is not found", Kind::NotFound),
        ("ACR, no repository", "name unknown: repository name not known to registry", Kind::NotFound),
        ("Gitea, Forgejo", "manifest unknown", Kind::NotFound),
        ("GitLab, Nexus, Quay", "manifest unknown: manifest unknown", Kind::NotFound),
        ("GitLab, no repository", "name unknown: repository name not known to registry", Kind::NotFound),
        (
            "Quay, expired",
            "unknown: Tag t was deleted or has expired. To pull, revive via time machine",
            Kind::NotFound,
        ),
        ("Quay, no repository", "unauthorized: access to the requested resource is not authorized", Kind::Denied),
        ("Artifactory", "manifest unknown: The named manifest is not known to the registry.", Kind::NotFound),
        ("Artifactory, no repository", "name unknown: Repository name not known to registry.", Kind::NotFound),
        ("registry.redhat.io", "unknown: Not Found", Kind::NotFound),
        ("Docker Hub, too often", "toomanyrequests: You have reached your pull rate limit.", Kind::Failed),
        ("a page for people", "StatusCode: 404, <html><head><title>404 Not Found</title></head></h...", Kind::NotFound),
        ("a line", "StatusCode: 404, 404 page not found\\n", Kind::NotFound),
        ("nothing", "StatusCode: 404, ", Kind::NotFound),
        ("a gateway", "received unexpected HTTP status: 502 Bad Gateway", Kind::Failed),
        ("a page for people", "StatusCode: 503, <html>404", Kind::Failed),
        ("something unknown", "unknown: unknown error", Kind::Failed),
        ("something unknown", "unknown: artifact server not found in pool", Kind::Failed),
        ("something unknown", "unknown: upstream not found", Kind::Failed),
        ("an invalid name", "name invalid", Kind::Failed),
        ("an operation", "unsupported", Kind::Failed),
    ];

    #[test]
    fn registries_say_in_their_own_words_that_something_is_absent() {
        for (registry, answer, expected) in ANSWERS {
            let quoted = answer.replace('"', "\\\"");
            let stderr = format!(
                "time=\"2026-11-25T18:00:00Z\" level=fatal msg=\"Error parsing image name \\\"docker://127.0.0.1:5000/base/x:t\\\": reading manifest t in 127.0.0.1:5000/base/x: {quoted}\""
            );
            assert_eq!(kind(&stderr), *expected, "{registry}: {stderr}");
        }
        // Of the registry itself it says nothing about the tag.
        let ping = "FATA[0000] Error parsing image name \"docker://127.0.0.1:1/base/x:t\": pinging container registry 127.0.0.1:1: StatusCode: 404, <html>";
        assert_eq!(kind(ping), Kind::Failed);
        let words = "The repository with name 'base/x' does not exist in the registry with id '1234'";
        let told = format!("FATA[0000] reading manifest t in h/base/x: name unknown: {words}");
        assert_eq!(read_refusal(&told), Refusal::NoRepository(words.to_owned()));
    }

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
        fn damage_to_an_answer_is_never_not_found_without_its_words(
            which in 0..ANSWERS.len(), at in any::<prop::sample::Index>(), put in "[ -~]{0,3}", drop in 0_usize..4,
        ) {
            let mut answer = ANSWERS[which].1.to_owned();
            let at = at.index(answer.len());
            answer.replace_range(at..(at + drop).min(answer.len()), &put);
            let words = ["manifest unknown", "name unknown", "not found", "has expired", "statuscode: 404"];
            let has_words = words.iter().any(|words| answer.to_ascii_lowercase().contains(words));
            let found = kind(&format!("FATA[0000] reading manifest t in h/base/x: {answer}"));
            prop_assert!(has_words || found != Kind::NotFound, "{}", answer);
        }

        #[test]
        fn a_message_that_is_cut_off_is_never_not_found(which in 0..RECORDED.len(), end in 0_usize..400) {
            let (_, stderr, expected) = &RECORDED[which];
            let cut: String = stderr.chars().take(end).collect();
            // Of a missing repository the end says whether a push makes it.
            if !matches!(expected, Kind::NotFound | Kind::NoRepository) {
                prop_assert_ne!(kind(&cut), Kind::NotFound);
            }
        }
    }
}
