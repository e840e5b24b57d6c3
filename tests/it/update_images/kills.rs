//! Runs that are killed, interrupted or cut off: the registry is whole after each, and the next run finishes.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Scene, finished, native, repository};
use crate::support::{Cutting, deadly_skopeo, finish};

/// Tags with the digests of what they point to.
fn content(scene: &Scene, channel: &str) -> Vec<(String, Option<String>)> {
    let tags = scene.tags(channel).into_iter();
    tags.map(|tag| (tag.clone(), scene.registry.raw(&repository(channel), &tag))).collect()
}

#[test]
fn killed_at_any_write_the_registry_is_whole_and_the_next_run_finishes() {
    let channel = "nixos-unstable";
    let mut finished_runs = 0;
    for (when, number) in (1..).flat_map(|number| [("before", number), ("after", number)]) {
        let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
        let old = scene.update(channel, "26.11pre1");
        scene.succeeds(&[]);
        let commit = scene.update(channel, "26.11pre2");
        let deadly = deadly_skopeo();
        fs_err::write(deadly.path().join("kill"), format!("{when} {number}\n")).unwrap();
        let path = format!("{}:{}", deadly.path().display(), std::env::var("PATH").unwrap());
        let (status, stdout, stderr) = finished(scene.command(&[]).env("PATH", path).spawn().unwrap());
        scene.is_consistent(channel, &[native()]);
        let copies: u32 = fs_err::read_to_string(deadly.path().join("count")).unwrap().trim().parse().unwrap();
        if status == 0 {
            // Image by digest, image by tag, index, release number, latest.
            assert_eq!((copies, number), (5, 6), "{stderr}");
            finished_runs += 1;
        } else {
            assert_eq!((status, stdout.as_str(), copies), (-9, "", number), "{stderr}");
        }
        let latest = scene.commit_under(channel, "latest", &[native()]);
        assert_eq!(latest, if status == 0 || (when, number) == ("after", 5) { &*commit } else { &*old });

        let known: Vec<_> = content(&scene, channel);
        fs_err::remove_file(scene.beside("builds")).unwrap();
        scene.succeeds(&[]);
        let staged = (when, number) >= ("before", 3) && when == "before" || when == "after" && number >= 2;
        assert_eq!(scene.beside("builds").exists(), !staged, "{when} {number}: built again only if it was not staged");
        scene.is_consistent(channel, &[native()]);
        assert_eq!(scene.commit_under(channel, "latest", &[native()]), commit);
        for tag in ["26.11pre2", &commit] {
            assert_eq!(scene.commit_under(channel, tag, &[native()]), commit);
        }
        let after = content(&scene, channel);
        let lost: Vec<_> = known.iter().filter(|(tag, _)| tag != "latest").filter(|tag| !after.contains(tag)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        if finished_runs == 1 {
            return;
        }
    }
}

#[test]
fn a_push_that_is_cut_off_is_tried_again_and_leaves_nothing_half() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    let channel = "nixos-unstable";
    let commit = scene.update(channel, "26.11pre1");
    fs_err::write(scene.beside("size"), "400000").unwrap();
    let cutting = Cutting::before(&scene.registry);
    scene.configure(&cutting.address);
    for allowed in [3_000, 60_000, 200_000] {
        *cutting.allowed.lock().unwrap() = allowed;
        let (status, stdout, stderr) = scene.run(&[]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("cannot push `"), "{stderr}");
        assert_eq!(scene.tags(channel), BTreeSet::new());
    }
    let cut = *cutting.cut.lock().unwrap();
    assert!(cut >= 9, "three tries each time, and {cut} were cut off");
    *cutting.allowed.lock().unwrap() = u64::MAX;
    scene.succeeds(&[]);
    assert_eq!(scene.commit_under(channel, "latest", &[native()]), commit);
}

#[test]
fn an_interrupt_ends_what_was_started_and_clears_away() {
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
        let commit = scene.update("nixos-unstable", "26.11pre1");
        fs_err::write(scene.beside("hang"), "").unwrap();
        let child =
            scene.command(&["--json"]).env("REGISTRY_USER", "me").env("REGISTRY_PASSWORD", "secret").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // The recipe writes it when it starts.
        while !scene.beside("environment").exists() {
            std::thread::yield_now();
        }
        kill(pid, signal).unwrap();
        let (code, stdout, stderr) = finished(child);
        assert_eq!(code, status, "{stderr}");
        let receipt: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(receipt["jobs"][0]["reasons"], serde_json::json!(["interrupted"]));
        assert!(
            stderr.contains(&format!("failed: nixos-unstable {} (26.11pre1): interrupted\n", &commit[..12])),
            "{stderr}"
        );
        assert_eq!(fs_err::read_dir(scene.beside("tmp")).unwrap().count(), 0);
        let marker = format!("TMPDIR={}", scene.beside("tmp").display());
        // A process that was ended by KILL may be seen a moment longer.
        let until = Instant::now() + Duration::from_secs(30);
        while !living_with(&marker).is_empty() {
            assert!(Instant::now() < until, "what the recipe started lives on");
            std::thread::yield_now();
        }
        fs_err::remove_file(scene.beside("hang")).unwrap();
        scene.succeeds(&[]);
    }
}

#[test]
fn what_a_killed_run_leaves_is_cleared_away_by_the_next() {
    let scene = Scene::new("rolling = [\"nixos-unstable\"]\nhistory = 1\nRELEASES");
    scene.update("nixos-unstable", "26.11pre1");
    fs_err::write(scene.beside("hang"), "").unwrap();
    let mut command = scene.command(&[]);
    let mut child = command.env("REGISTRY_USER", "me").env("REGISTRY_PASSWORD", "secret").spawn().unwrap();
    while !scene.beside("environment").exists() {
        std::thread::yield_now();
    }
    let left = finish(Command::new("find").arg(scene.beside("tmp")).args(["-name", "auth.json", "-printf", "%m %P"]));
    assert!(left.starts_with("600 nixkit-update-images-"), "{left}");
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in living_with(&format!("TMPDIR={}", scene.beside("tmp").display())) {
        let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
    }
    assert!(scene.beside("tmp").join(left.split(' ').nth(1).unwrap()).exists());
    fs_err::remove_file(scene.beside("hang")).unwrap();
    // `succeeds` demands that nothing is left.
    scene.succeeds(&[]);
}

/// Processes that have this variable.
fn living_with(variable: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|pair| pair == variable.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
