//! Channels that move: what each run builds, and what is in the registry after it.

use std::collections::BTreeSet;

use super::{Scene, finished, here, native, repository, systems, tags_of};
use crate::support::finish;

#[test]
fn a_channel_from_its_first_run_on() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 3\nRELEASES");
    let channel = "nixos-unstable";
    let mut commits: Vec<String> = (1..=4).map(|n| scene.update(channel, &format!("26.11pre{n}"))).collect();
    let numbered = |commits: &[String]| commits.iter().map(|commit| (**commit).to_owned()).collect::<Vec<_>>();
    let builds = |scene: &Scene, commits: &[String]| {
        let commits = numbered(commits);
        let names: Vec<_> = commits.iter().map(String::as_str).collect();
        scene.builds(&[], &names)
    };
    // All of the last three, the newest first; the listing has two a page.
    assert_eq!(builds(&scene, &commits), ["nixos-unstable 3", "nixos-unstable 2", "nixos-unstable 1"]);
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for (number, commit) in commits.iter().enumerate().skip(1) {
        expected.extend(tags_of(commit, &[&format!("26.11pre{}", number + 1)]));
    }
    expected.insert("latest".to_owned());
    assert_eq!(scene.tags(channel), expected);
    for (number, commit) in commits.iter().enumerate().skip(1) {
        for tag in [commit.clone(), format!("26.11pre{}", number + 1)] {
            assert_eq!(scene.commit_under(channel, &tag, &[native()]), *commit);
        }
    }
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), commits[3]);

    assert_eq!(builds(&scene, &commits), [""; 0], "the second run has nothing to do");
    assert_eq!(scene.tags(channel), expected);

    commits.push(scene.update(channel, "26.11pre5"));
    assert_eq!(builds(&scene, &commits), ["nixos-unstable 4"], "a new commit is one image");
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), commits[4]);
    expected.extend(tags_of(&commits[4], &["26.11pre5"]));
    assert_eq!(scene.tags(channel), expected, "what is no longer held is not deleted");

    fs_err::write(scene.folder.path().join("recipe/flavour"), "chocolate\n").unwrap();
    let before: Vec<_> = commits[2..].iter().map(|commit| scene.registry.raw(&repository(channel), commit)).collect();
    assert_eq!(builds(&scene, &commits), ["nixos-unstable 4"], "a changed recipe is the newest alone");
    let after: Vec<_> = commits[2..].iter().map(|commit| scene.registry.raw(&repository(channel), commit)).collect();
    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2]);
    for tag in ["latest", "26.11pre5"] {
        assert_eq!(scene.registry.raw(&repository(channel), tag), after[2], "{tag}");
    }

    // An older image that is missing is filled in, and a gap of two updates too.
    for tag in [commits[3].clone(), format!("{}-{}", commits[3], here()), "26.11pre4".to_owned()] {
        scene.registry.delete_tag(&repository(channel), &tag);
    }
    commits.push(scene.update(channel, "26.11pre6"));
    assert_eq!(builds(&scene, &commits), ["nixos-unstable 5", "nixos-unstable 3"]);
    expected.extend(tags_of(&commits[5], &["26.11pre6"]));
    assert_eq!(scene.tags(channel), expected);
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), commits[5]);
    for number in ["26.11pre7", "26.11pre8", "26.11pre9"] {
        commits.push(scene.update(channel, number));
    }
    assert_eq!(builds(&scene, &commits), ["nixos-unstable 8", "nixos-unstable 7", "nixos-unstable 6"]);
}

#[test]
fn stable_channels_appear_and_freeze_by_themselves() {
    let scene =
        Scene::new("stable = 2\nextra = [\"nixos-25.05-small\"]\nexclude = [\"nixos-26.11\"]\nhistory = 1\nRELEASES");
    let old = scene.update("nixos-25.05", "25.05.1");
    let small = scene.update("nixos-25.05-small", "25.05.2");
    let middle = scene.update("nixos-25.11", "25.11.1");
    // Neither is a channel's name.
    for name in ["release-25.11", "nixos-25.11;reboot", "nixos-$(id)", "nixos-25.11'", "nixpkgs-unstable.x"] {
        scene.nixpkgs.branch(name, &old);
    }
    let commits = [old.as_str(), &small, &middle];
    assert_eq!(scene.builds(&[], &commits), ["nixos-25.05 0", "nixos-25.05-small 1", "nixos-25.11 2"]);

    let new = scene.update("nixos-26.05", "26.05.1");
    let excluded = scene.update("nixos-26.11", "26.11.1");
    let late = scene.update("nixos-25.05", "25.05.3");
    let frozen = scene.tags("nixos-25.05");
    let commits = [old.as_str(), &small, &middle, &new, &excluded, &late];
    assert_eq!(scene.builds(&[], &commits), ["nixos-26.05 3"]);
    assert_eq!(scene.tags("nixos-25.05"), frozen, "nothing new, and nothing is deleted");
    assert_eq!(scene.tags("nixos-26.11"), BTreeSet::new());
    let (status, _, stderr) = scene.run(&["--verbose", "--dry-run"]);
    assert_eq!(status, 0);
    assert!(stderr.contains("update-images: nixos-25.05 is frozen: newer ones are selected\n"), "{stderr}");
}

#[test]
fn two_systems_become_one_index_and_no_sooner() {
    let [own, other] = systems();
    let source = "https://git.example/images";
    let settings = format!(
        "systems = [\"{own}\", \"{other}\"]\nrolling = [\"nixos-unstable\"]\nhistory = 1\nrepository = \"{source}\"\nRELEASES"
    );
    let scene = Scene::with(crate::support::Registry::start(), &settings);
    let channel = "nixos-unstable";
    let first = scene.update(channel, "26.11pre1");

    let toolkit = scene.beside("toolkit");
    fs_err::write(&toolkit, "of another machine").unwrap();
    let receipt = scene.succeeds(&["--system", other, "--toolkit", "toolkit"]);
    assert_eq!(receipt["jobs"][0]["outcome"], "waiting");
    assert_eq!(receipt["jobs"][0]["missing"], serde_json::json!([own]));
    assert_eq!(scene.tags(channel), BTreeSet::from([format!("{first}-{other}")]), "no index before all is there");
    let log = fs_err::read_to_string(scene.beside("builds")).unwrap();
    assert_eq!(log, format!("{channel} {first} {other} {}\n", fs_err::canonicalize(&toolkit).unwrap().display()));

    let receipt = scene.succeeds(&[]);
    assert_eq!(receipt["jobs"][0]["outcome"], "done");
    assert_eq!(receipt["jobs"][0]["built"], serde_json::json!([own]));
    assert_eq!(receipt["jobs"][0]["takenOver"], serde_json::json!([other]));
    assert_eq!(receipt["jobs"][0]["tags"], serde_json::json!([first, "26.11pre1", "latest"]));
    for tag in [&first, "latest", "26.11pre1"] {
        assert_eq!(scene.commit_under(channel, tag, &["amd64", "arm64"]), first);
    }
    // What OCI defines of the images' labels, and is the same in both, is said of the index too.
    let index: serde_json::Value =
        serde_json::from_str(&scene.registry.raw(&repository(channel), "latest").unwrap()).unwrap();
    let labels = &scene.registry.images(&repository(channel), "latest")["amd64"];
    let annotations = index["annotations"].as_object().unwrap();
    let names: Vec<_> =
        annotations.keys().map(|name| name.strip_prefix("org.opencontainers.image.").unwrap()).collect();
    assert_eq!(names, ["created", "revision", "source"]);
    assert!(annotations.iter().all(|(name, value)| value == &labels[name]), "{annotations:?}");
    assert_eq!(labels["org.opencontainers.image.source"], source);

    // A changed recipe: this machine's image is new, the other is taken over until its machine comes.
    fs_err::write(scene.folder.path().join("recipe/flavour"), "chocolate\n").unwrap();
    let receipt = scene.succeeds(&[]);
    assert_eq!(receipt["jobs"][0]["outcome"], "waiting");
    scene.is_consistent(channel, &["amd64", "arm64"]);
    let receipt = scene.succeeds(&["--system", other]);
    assert_eq!(receipt["jobs"][0]["outcome"], "done");
    assert_eq!(scene.succeeds(&[])["jobs"], serde_json::json!([]));
    scene.is_consistent(channel, &["amd64", "arm64"]);
    let images = scene.registry.images(&repository(channel), "latest");
    let hashes = |labels: &std::collections::BTreeMap<String, String>| labels["io.github.nixkit.input-hash"].clone();
    for (system, architecture) in [("x86_64-linux", "amd64"), ("aarch64-linux", "arm64")] {
        let mut program = std::process::Command::new(scene.folder.path().join("recipe/input-hash"));
        assert_eq!(hashes(&images[architecture]), finish(program.args([&first, system])));
    }
}

#[test]
fn labels_of_the_former_names_are_read() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    let channel = "nixos-unstable";
    fs_err::write(scene.beside("former-labels"), "").unwrap();
    let mut commits = vec![scene.update(channel, "26.11pre1")];
    let builds = |commits: &[String]| scene.builds(&[], &commits.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(builds(&commits), ["nixos-unstable 0"]);
    fs_err::remove_file(scene.beside("former-labels")).unwrap();
    assert_eq!(builds(&commits), [""; 0], "its input hash is found");
    // Without its release number nothing but the time would tell that it is older.
    commits.push(scene.update(channel, "26.11pre2"));
    assert_eq!(builds(&commits), ["nixos-unstable 1"]);
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), commits[1]);
}

#[test]
fn tags_that_were_deleted_come_back_without_a_build() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 2\nRELEASES");
    let channel = "nixos-unstable";
    let commits = [scene.update(channel, "26.11pre1"), scene.update(channel, "26.11pre2")];
    scene.succeeds(&[]);
    let all = scene.tags(channel);
    for tag in ["latest", "26.11pre1", "26.11pre2", &commits[0], &commits[1]] {
        let before = scene.registry.raw(&repository(channel), tag);
        scene.registry.delete_tag(&repository(channel), tag);
        assert_eq!(scene.builds(&[], &[]), [""; 0], "{tag}");
        assert_eq!(scene.tags(channel), all, "{tag}");
        assert_eq!(scene.registry.raw(&repository(channel), tag), before, "{tag}");
    }
}

#[test]
fn a_branch_that_moves_backwards_takes_no_tag_with_it() {
    for settings in ["history = 3\nRELEASES", "history = 1"] {
        let scene = Scene::new(&format!("rolling = [\"nixos-unstable\"]\n{settings}"));
        let channel = "nixos-unstable";
        let commits: Vec<_> = (1..=2).map(|n| scene.update(channel, &format!("26.11pre{n}"))).collect();
        let names: Vec<_> = commits.iter().map(String::as_str).collect();
        scene.succeeds(&[]);
        let latest = scene.registry.raw(&repository(channel), "latest");
        scene.nixpkgs.branch(channel, &commits[0]);
        let built = scene.builds(&[], &names);
        // Without a listing nobody knew the older one.
        assert_eq!(built.len(), usize::from(settings == "history = 1"));
        assert_eq!(scene.registry.raw(&repository(channel), "latest"), latest);
        fs_err::write(scene.folder.path().join("recipe/flavour"), "chocolate\n").unwrap();
        assert_eq!(scene.builds(&[], &names), ["nixos-unstable 0"], "the branch's own is rebuilt");
        assert_eq!(scene.registry.raw(&repository(channel), "latest"), latest);
        assert_eq!(scene.builds(&[], &names), [""; 0]);
        scene.nixpkgs.branch(channel, &commits[1]);
        assert_eq!(scene.builds(&[], &names), ["nixos-unstable 1"]);
        assert_eq!(scene.commit_under(channel, "latest", &[native()]), commits[1]);
        scene.is_consistent(channel, &[native()]);
    }
}

#[test]
fn two_runs_at_once_end_as_one() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 2\nRELEASES");
    let channel = "nixos-unstable";
    scene.update(channel, "26.11pre1");
    let newest = scene.update(channel, "26.11pre2");
    let runs = [scene.start(&[]), scene.start(&[])];
    for run in runs {
        let (status, stdout, stderr) = finished(run);
        assert_eq!((status, stdout.as_str()), (0, ""), "{stderr}");
    }
    scene.is_consistent(channel, &[native()]);
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), newest);
    let all = scene.tags(channel);
    assert_eq!(scene.builds(&[], &[]), [""; 0]);
    assert_eq!(scene.tags(channel), all);
}

#[test]
fn the_table_and_the_matrix_say_what_there_is_to_do() {
    let [own, other] = systems();
    let settings = "systems = [\"x86_64-linux\", \"aarch64-linux\"]\nrolling = [\"nixos-unstable\"]\nstable = 1\nhistory = 1\nRELEASES";
    let scene = Scene::with(crate::support::Registry::start(), settings);
    let rolling = scene.update("nixos-unstable", "26.11pre1");
    let stable = scene.update("nixos-26.05", "26.05.7");
    let (status, stdout, _) = scene.run(&["--dry-run"]);
    let build = if own == "x86_64-linux" {
        "x86_64-linux, aarch64-linux (not here)"
    } else {
        "x86_64-linux (not here), aarch64-linux"
    };
    let expected = format!(
        "CHANNEL         COMMIT                                    RELEASE    BUILD                                   WRITE                        REASON\n\
         nixos-26.05     {stable}  26.05.7    {build}  <commit>, 26.05.7, latest    no image\n\
         nixos-unstable  {rolling}  26.11pre1  {build}  <commit>, 26.11pre1, latest  no image\n"
    );
    assert_eq!((status, stdout), (0, expected));
    assert!(!scene.beside("builds").exists(), "a dry run builds nothing");

    let entry = |channel: &str, commit: &str, system: &str| serde_json::json!({ "channel": channel, "commit": commit, "system": system, "reason": "no image" });
    let all = [
        entry("nixos-26.05", &stable, "x86_64-linux"),
        entry("nixos-26.05", &stable, "aarch64-linux"),
        entry("nixos-unstable", &rolling, "x86_64-linux"),
        entry("nixos-unstable", &rolling, "aarch64-linux"),
    ];
    let matrix = |arguments: &[&str]| -> serde_json::Value {
        let (status, stdout, stderr) = scene.run(&[&["--matrix"], arguments].concat());
        assert_eq!(status, 0, "{stderr}");
        assert_eq!(stdout.lines().count(), 1, "one line, as a CI's output variables need it");
        serde_json::from_str(&stdout).unwrap()
    };
    assert_eq!(matrix(&[]), serde_json::json!({ "include": all }));
    assert_eq!(matrix(&["--channel", "nixos-unstable"]), serde_json::json!({ "include": all[2..] }));
    let one = matrix(&["--channel", "nixos-26.05", "--commit", &stable, "--system", other]);
    assert_eq!(one, serde_json::json!({ "include": [entry("nixos-26.05", &stable, other)] }));

    // Each entry of the matrix as a CI runs it.
    for job in &all {
        let [channel, commit, system] = ["channel", "commit", "system"].map(|key| job[key].as_str().unwrap());
        scene.succeeds(&["--channel", channel, "--commit", commit, "--system", system]);
    }
    assert_eq!(matrix(&[]), serde_json::json!({ "include": [] }));
    assert_eq!(scene.commit_under("nixos-26.05", "latest", &["amd64", "arm64"]), stable);
    assert_eq!(scene.commit_under("nixos-unstable", "26.11pre1", &["amd64", "arm64"]), rolling);
    // What is left is a tag: any machine may write it.
    scene.registry.delete_tag(&repository("nixos-26.05"), "latest");
    let left = serde_json::json!({ "channel": "nixos-26.05", "commit": stable, "system": "x86_64-linux", "reason": "a tag is missing" });
    assert_eq!(matrix(&[]), serde_json::json!({ "include": [left] }));
    scene.succeeds(&["--channel", "nixos-26.05", "--commit", &stable, "--system", "x86_64-linux"]);
    assert_eq!(matrix(&[]), serde_json::json!({ "include": [] }));
}

#[test]
fn one_commit_by_hand() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    let channel = "nixos-unstable";
    let commits: Vec<_> = (1..=3).map(|n| scene.update(channel, &format!("26.11pre{n}"))).collect();
    let names: Vec<_> = commits.iter().map(String::as_str).collect();
    let arguments = ["--channel", channel, "--commit", names[0]];
    assert_eq!(scene.builds(&arguments, &names), ["nixos-unstable 0"]);
    assert_eq!(scene.tags(channel), tags_of(names[0], &["26.11pre1"]), "an older commit is not `latest`");
    assert_eq!(scene.builds(&arguments, &names), [""; 0]);
    assert_eq!(scene.builds(&[], &names), ["nixos-unstable 2"]);
}
