//! What goes wrong stays where it is: it is reported, nothing is built for it, and all else goes on.

use std::collections::BTreeSet;

use super::{Scene, here, native, repository, systems};
use crate::support::Registry;

#[test]
fn a_registry_that_is_down_builds_nothing() {
    let mut scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    scene.update("nixos-unstable", "26.11pre1");
    scene.registry.stop();
    let (status, stdout, stderr) = scene.run(&[]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    let start = format!(
        "update-images: left alone: nixos-unstable: cannot list the tags of `{}/base/nixpkgs-nixos-unstable`: ",
        scene.registry.address
    );
    let first = stderr.lines().next().unwrap();
    assert!(first.starts_with(&start) && first.contains("connection refused"), "{stderr}");
    let summary = "update-images: 1 channels, 0 images built, 0 commits completed, 1 left alone, in ";
    assert!(stderr.lines().nth(1).unwrap().starts_with(summary), "{stderr}");
    assert!(!scene.beside("builds").exists());
    assert!(scene.registry.resume());
    scene.succeeds(&[]);
}

#[test]
fn only_the_right_password_gets_in_and_none_gets_out() {
    let settings = format!("systems = [\"{}\"]\nrolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES", here());
    let scene = Scene::with(Registry::guarded("me", "s3cr3t-pass"), &settings);
    scene.update("nixos-unstable", "26.11pre1");
    let run = |variables: &[(&str, &str)]| {
        let run = super::finished(scene.command(&["--verbose"]).envs(variables.iter().copied()).spawn().unwrap());
        assert!(!run.1.contains("s3cr3t") && !run.2.contains("s3cr3t"), "{}", run.2);
        assert_eq!(fs_err::read_dir(scene.beside("tmp")).unwrap().count(), 0);
        run
    };
    for variables in [&[][..], &[("REGISTRY_USER", "me"), ("REGISTRY_PASSWORD", "wr0ng-s3cr3t")]] {
        let (status, _, stderr) = run(variables);
        assert_eq!(status, 1);
        assert!(stderr.contains("left alone: nixos-unstable: cannot list the tags of"), "{stderr}");
        assert!(!scene.beside("builds").exists(), "no permission is not \"not found\"");
    }
    let (status, _, stderr) = run(&[("REGISTRY_USER", "me")]);
    assert_eq!(
        (status, stderr.lines().next()),
        (2, Some("update-images: error: REGISTRY_USER is set, but not REGISTRY_PASSWORD"))
    );

    let (status, _, stderr) = run(&[("REGISTRY_USER", "me"), ("REGISTRY_PASSWORD", "s3cr3t-pass")]);
    assert_eq!(status, 0, "{stderr}");
    let environment = fs_err::read_to_string(scene.beside("environment")).unwrap();
    assert!(!environment.contains("REGISTRY_") && !environment.contains("s3cr3t"), "{environment}");

    // The same as a file of the user's, which stays.
    let file = scene.beside("auth.json");
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6czNjcjN0LXBhc3M="}}}}}}"#, scene.registry.address);
    fs_err::write(&file, &auth).unwrap();
    scene.update("nixos-unstable", "26.11pre2");
    let (status, _, stderr) = run(&[("REGISTRY_AUTH_FILE", file.to_str().unwrap()), ("REGISTRY_PASSWORD", "x")]);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(fs_err::read_to_string(&file).unwrap(), auth);
    let environment = fs_err::read_to_string(scene.beside("environment")).unwrap();
    assert!(!environment.contains("REGISTRY_"), "{environment}");
}

#[test]
fn what_fails_its_build_or_its_test_is_not_pushed_and_the_others_are() {
    let scene = Scene::new("rolling = [\"nixos-unstable\", \"nixpkgs-unstable\"]\nhistory = 1\nRELEASES");
    let bad = scene.update("nixos-unstable", "26.11pre1");
    let good = scene.update("nixpkgs-unstable", "26.11pre1");
    fs_err::write(scene.beside("fail-test"), &bad).unwrap();
    let (status, stdout, stderr) = scene.run(&["--json"]);
    assert_eq!(status, 1);
    assert_eq!(scene.tags("nixos-unstable"), BTreeSet::new());
    assert_eq!(scene.commit_under("nixpkgs-unstable", "latest", &[native()]), good);
    let receipt: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let reason = format!("{}: it fails its test: `test` failed (exit status: 1): its nix does not start", here());
    assert_eq!(receipt["jobs"][0]["outcome"], "failed");
    assert_eq!(receipt["jobs"][0]["reasons"], serde_json::json!([reason]));
    assert_eq!(receipt["jobs"][1]["outcome"], "done");
    assert!(
        stderr.contains(&format!("update-images: failed: nixos-unstable {} (26.11pre1): {reason}\n", &bad[..12])),
        "{stderr}"
    );

    fs_err::remove_file(scene.beside("fail-test")).unwrap();
    fs_err::write(scene.beside("fail-build"), "").unwrap();
    let (status, stdout, stderr) = scene.run(&["--quiet"]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    let reason =
        format!("{}: cannot build it: `build` failed (exit status: 1): no compiler for nixos-unstable", here());
    assert_eq!(stderr, format!("update-images: failed: nixos-unstable {} (26.11pre1): {reason}\n", &bad[..12]));
    fs_err::remove_file(scene.beside("fail-build")).unwrap();
    scene.succeeds(&[]);
    assert_eq!(scene.commit_under("nixos-unstable", "latest", &[native()]), bad);
}

#[test]
fn an_image_that_is_not_what_was_ordered_is_not_pushed() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    scene.update("nixos-unstable", "26.11pre1");
    let [own, other] = systems();
    let (status, _, stderr) = super::finished_with(&scene, &[], &[("wrong_system", other)]);
    assert_eq!(status, 1);
    let architecture = if other == "aarch64-linux" { "arm64" } else { "amd64" };
    let reason = format!("{own}: cannot use what was built: it is for `linux/{architecture}` and not for `{own}`");
    assert!(stderr.contains(&reason), "{stderr}");
    assert_eq!(scene.tags("nixos-unstable"), BTreeSet::new());
}

#[test]
fn a_source_that_does_not_answer_leaves_its_channel_alone() {
    let scene =
        Scene::new("rolling = [\"nixos-unstable\", \"nixos-unstable-small\"]\nstable = 1\nhistory = 2\nRELEASES");
    let stable = scene.update("nixos-26.05", "26.05.1");
    let rolling = scene.update("nixos-unstable", "26.11pre1");
    let url = &scene.releases.url;
    let page = "/?delimiter=/&prefix=nixos/unstable/";
    let revision = format!("/nixos/unstable/nixos-26.11pre1.{}/git-revision", &rolling[..12]);
    let truncated = "<ListBucketResult><Prefix>nixos/unstable/</Prefix><IsTruncated>true</IsTruncated><NextMarker>a</NextMarker></ListBucketResult>";
    for (start, status, body, reason) in [
        (
            page,
            503,
            "busy",
            format!("cannot get `{url}{page}`: curl: (22) The requested URL returned error: 503 (exit status: 22)"),
        ),
        (page, 200, "<html>rubbish", format!("cannot understand `{url}{page}`: it is no XML: ")),
        (page, 200, "<Error/>", format!("cannot understand `{url}{page}`: it is `Error` and no `ListBucketResult`")),
        (page, 200, truncated, format!("`{url}{page}&marker=a` says that the next page is itself")),
        (&revision, 404, "", format!("cannot get `{url}{revision}`: curl: (22) ")),
        (&revision, 200, "<html>", format!("cannot understand `{url}{revision}`: `<html>` is no commit")),
        (&revision, 200, &stable, format!("`{url}{revision}` says `{stable}`, which is not the commit in its name")),
    ] {
        scene.releases.instead(start, status, body);
        let (status, _, stderr) = scene.run(&[]);
        assert_eq!(status, 1, "{reason}");
        assert!(stderr.contains(&format!("update-images: left alone: nixos-unstable: {reason}")), "{reason}\n{stderr}");
        // A branch that is named and not there is reported each time.
        let missing = format!("left alone: nixos-unstable-small: `{}` has no such branch\n", scene.nixpkgs.url());
        assert!(stderr.contains(&missing), "{stderr}");
        assert_eq!(scene.tags("nixos-unstable"), BTreeSet::new());
        assert_eq!(scene.commit_under("nixos-26.05", "latest", &[native()]), stable, "the others go on");
        scene.releases.as_usual();
    }
    let (status, _, stderr) = scene.run(&["--channel", "nixos-unstable"]);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(scene.commit_under("nixos-unstable", "26.11pre1", &[native()]), rolling);
}

#[test]
fn a_listing_without_releases_is_said_and_the_branch_is_built() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 4\nRELEASES");
    let commit = scene.nixpkgs.commit();
    scene.nixpkgs.branch("nixos-unstable", &commit);
    let (status, _, stderr) = scene.run(&[]);
    assert_eq!(status, 0, "{stderr}");
    let url = &scene.releases.url;
    let note =
        format!("update-images: warning: nixos-unstable: `{url}` lists no release of it, so no past update is known\n");
    assert!(stderr.contains(&note), "{stderr}");
    assert_eq!(scene.tags("nixos-unstable"), super::tags_of(&commit, &["latest"]));
}

#[test]
fn a_repository_that_is_none_is_one_failure() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1");
    let settings = scene.beside("recipe/channels.toml");
    let good = fs_err::read_to_string(&settings).unwrap();
    let empty = crate::support::folder();
    crate::support::finish(std::process::Command::new("git").args(["init", "--quiet", "--bare"]).arg(empty.path()));
    for (source, reason) in [
        ("file:///nowhere", "cannot list the branches of `file:///nowhere`: '/nowhere' does not appear to be a git repository (exit status: 128)".to_owned()),
        (
            &*format!("file://{}", empty.path().display()),
            format!("cannot understand the branches of `file://{}`: it has no branch with the name of a channel", empty.path().display()),
        ),
    ] {
        fs_err::write(&settings, good.replace(&scene.nixpkgs.url(), source)).unwrap();
        let (status, stdout, stderr) = scene.run(&["--matrix"]);
        assert_eq!((status, stdout.as_str()), (1, "{\"include\":[]}\n"));
        assert!(stderr.contains(&format!("update-images: left alone: {reason}\n")), "{stderr}");
    }
}

#[test]
fn an_image_of_somebody_else_keeps_latest() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1");
    let commit = scene.nixpkgs.commit();
    scene.nixpkgs.branch("nixos-unstable", &commit);
    scene.succeeds(&[]);
    // An image without labels, as `latest`.
    let layout = crate::support::folder();
    let foreign = format!("docker://{}/{}:latest", scene.registry.address, repository("nixos-unstable"));
    super::push_foreign(layout.path(), &foreign);
    let before = scene.registry.raw(&repository("nixos-unstable"), "latest");
    let (status, _, stderr) = scene.run(&[]);
    assert_eq!(status, 1);
    assert!(stderr.contains("left alone: nixos-unstable: `latest` stays where it is: the image `sha256:"), "{stderr}");
    assert_eq!(scene.registry.raw(&repository("nixos-unstable"), "latest"), before);
}

#[test]
fn bad_settings_and_words_are_errors_before_anything_is_asked() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1");
    let settings = scene.beside("recipe/channels.toml");
    let good = fs_err::read_to_string(&settings).unwrap();
    let error = |arguments: &[&str]| {
        let (status, stdout, stderr) = scene.run(arguments);
        assert_eq!(stdout, "");
        (status, stderr)
    };
    fs_err::write(&settings, good.replace("rolling", "roling")).unwrap();
    let (status, stderr) = error(&[]);
    assert_eq!(status, 1);
    assert!(stderr.starts_with("update-images: error: cannot understand `recipe/channels.toml`: "), "{stderr}");
    assert!(stderr.contains("unknown field `roling`"), "{stderr}");
    fs_err::write(&settings, &good).unwrap();
    let hint = "hint: `update-images --help` explains the options\n";
    for (arguments, message) in [
        (
            &["--commit", &"0".repeat(40)][..],
            "`--commit` needs one `--channel`: the same commit may be in several".to_owned(),
        ),
        (&["--system", systems()[1]], format!("`{}` is none of `systems` in `recipe/channels.toml`", systems()[1])),
    ] {
        assert_eq!(error(arguments), (2, format!("update-images: error: {message}\n{hint}")));
    }
    assert_eq!(error(&["--channel", "nixos-26.05;reboot"]).0, 2);
    let commit = scene.nixpkgs.commit();
    scene.nixpkgs.branch("nixos-unstable", &commit);
    let message = "update-images: error: `nixos-26.05` is not selected\n\
                   hint: the settings name channels that get images: add it to `extra`\n";
    assert_eq!(error(&["--channel", "nixos-26.05"]), (1, message.to_owned()));
    fs_err::remove_file(scene.beside("recipe/test")).unwrap();
    let message = format!(
        "update-images: error: `{}` is no program\n\
         hint: run this in a checkout, or name the folder of its recipe with `--recipe`\n",
        scene.beside("recipe/test").display()
    );
    assert_eq!(error(&[]), (1, message));
}
