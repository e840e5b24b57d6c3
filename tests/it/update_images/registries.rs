//! Registries that answer in other words than Docker's, and proxies that lose something.

use std::collections::BTreeSet;

use super::{Scene, finished_with, here, native, tags_of};
use crate::support::{Front, Registry};

const CHANNEL: &str = "nixos-unstable";

/// A scene before whose registry something stands.
fn scene() -> (Scene, Front, String) {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    let commit = scene.update(CHANNEL, "26.11pre1");
    let front = Front::before(&scene.registry);
    scene.configure(&front.address);
    (scene, front, commit)
}

#[test]
fn what_other_registries_call_absent_is_built() {
    let (scene, front, commit) = scene();
    for (number, absent) in [
        // Harbor
        r#"{"errors":[{"code":"NOT_FOUND","message":"artifact base/nixpkgs-nixos-unstable:x not found"}]}"#,
        r#"{"errors":[{"code":"NOT_FOUND","message":"repository base/nixpkgs-nixos-unstable not found"}]}"#,
        // Gitea, registry.redhat.io, and what is not of the specification's form
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":""}]}"#,
        r#"{"errors":[{"code":"UNKNOWN","message":"Not Found"}]}"#,
        "<html>404 Not Found</html>",
    ]
    .into_iter()
    .enumerate()
    {
        for tag in scene.tags(CHANNEL) {
            scene.registry.delete_tag(&super::repository(CHANNEL), &tag);
        }
        front.changes.lock().unwrap().absent = Some(absent);
        assert_eq!(scene.builds(&[], &[&commit]), [format!("{CHANNEL} 0")], "{number}: {absent}");
        assert_eq!(scene.tags(CHANNEL), tags_of(&commit, &["26.11pre1", "latest"]), "{absent}");
        assert_eq!(scene.commit_under(CHANNEL, "latest", &[native()]), commit);
        assert_eq!(scene.builds(&[], &[&commit]), [""; 0], "{absent}");
    }
}

#[test]
fn a_repository_that_has_to_be_created_first_is_reported_before_anything_is_built() {
    let (scene, front, _) = scene();
    for (absent, words) in [
        // Amazon's ECR, Google's Artifact Registry, Harbor
        (
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'base/x' does not exist in the registry with id '1234'"}]}"#,
            "The repository with name 'base/x' does not exist in the registry with id '1234'",
        ),
        (
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"Repository \"base\" not found"}]}"#,
            "Repository \"base\" not found",
        ),
        (r#"{"errors":[{"code":"NOT_FOUND","message":"project base not found"}]}"#, "project base not found"),
    ] {
        front.changes.lock().unwrap().absent = Some(absent);
        let (status, stdout, stderr) = scene.run(&[]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
        let first = stderr.lines().next().unwrap();
        assert!(first.starts_with("update-images: left alone: nixos-unstable: "), "{stderr}");
        let end = format!(": the repository has to be created in the registry first: {words}");
        assert!(first.ends_with(&end), "{stderr}");
        assert!(!scene.beside("builds").exists());
    }
    assert_eq!(scene.tags(CHANNEL), BTreeSet::new());
}

#[test]
fn what_was_pushed_and_cannot_be_read_back_is_a_failure() {
    let (scene, front, commit) = scene();
    let tag = |tag: &str| format!("{}/base/nixpkgs-{CHANNEL}:{tag}", front.address);
    // The media type of Docker's manifests: neither OCI's images nor its indexes are found. Then the images are.
    for (accept, unread) in [(1, tag(&format!("{commit}-{}", here()))), (0, tag(&commit))] {
        front.changes.lock().unwrap().accept = Some(accept);
        let (status, _, stderr) = scene.run(&[]);
        assert_eq!(status, 1, "{stderr}");
        let reason =
            format!("cannot read `{unread}` back: it was pushed, but the registry says that it does not have it\n");
        let start = format!("update-images: failed: {CHANNEL} {} (26.11pre1): ", &commit[..12]);
        let line = stderr.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{stderr}"));
        assert!(format!("{line}\n").ends_with(&reason), "{stderr}");
        assert!(!scene.tags(CHANNEL).contains("latest"), "{stderr}");
    }
    front.changes.lock().unwrap().accept = None;
    scene.succeeds(&[]);
    assert_eq!(scene.commit_under(CHANNEL, "latest", &[native()]), commit);
}

#[test]
fn gitlabs_credentials_are_for_gitlabs_registry_alone() {
    let settings = format!("systems = [\"{}\"]\nrolling = [\"{CHANNEL}\"]\nhistory = 1\nRELEASES", here());
    let scene = Scene::with(Registry::guarded("gitlab-ci-token", "s3cr3t-token"), &settings);
    scene.update(CHANNEL, "26.11pre1");
    let run = |registry: &str| {
        let variables = [
            ("CI_REGISTRY", registry),
            ("CI_REGISTRY_USER", "gitlab-ci-token"),
            ("CI_REGISTRY_PASSWORD", "s3cr3t-token"),
        ];
        let run = finished_with(&scene, &["--verbose"], &variables);
        assert!(!run.1.contains("s3cr3t") && !run.2.contains("s3cr3t"), "{}", run.2);
        run
    };
    let (status, _, stderr) = run("registry.gitlab.com");
    assert!(status == 1 && stderr.contains("no permission: "), "{stderr}");
    let (status, _, stderr) = run(&scene.registry.address);
    assert_eq!(status, 0, "{stderr}");
    let environment = fs_err::read_to_string(scene.beside("environment")).unwrap();
    assert!(!environment.contains("s3cr3t"), "{environment}");
}
