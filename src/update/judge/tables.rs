//! The judging function as a table: what is in the registry, and what is left to do.
//! It must never need more than the function's own arguments.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oci::Platform;

pub(super) fn system(name: &str) -> System {
    System::new(name).unwrap()
}

pub(super) fn both() -> [System; 2] {
    [system("x86_64-linux"), system("aarch64-linux")]
}

pub(super) fn commit(number: u64) -> Commit {
    format!("{number:08x}{}", "0".repeat(32)).parse().unwrap()
}

pub(super) fn update(number: u64) -> Update {
    let channel = "nixos-26.05".parse().unwrap();
    let release = crate::channel::Release::parse(&format!("nixos-26.05.{number}.{number:08x}"), &channel);
    Update { commit: commit(number), release }
}

pub(super) fn image(system: System, commit: &Commit, inputs: &str) -> SystemImage {
    let digest = Digest::of(format!("{system} {commit} {inputs}").as_bytes());
    let entry = Descriptor { platform: Some(system.platform()), ..Descriptor::new("m", digest, 1) };
    SystemImage { entry, inputs: Some(inputs.to_owned()) }
}

pub(super) fn index(update: &Update, images: &[SystemImage]) -> Index {
    let digests: Vec<_> = images.iter().map(|image| image.entry.digest.to_string()).collect();
    Index {
        pointed: Pointed {
            digest: Digest::of(digests.join(" ").as_bytes()),
            revision: Some(update.commit.to_string()),
            release: update.release.as_ref().map(ToString::to_string),
            created: None,
        },
        images: images
            .iter()
            .map(|image| (System::of_platform(image.entry.platform.as_ref().unwrap()).unwrap(), image.clone()))
            .collect(),
        others: Vec::new(),
    }
}

/// A commit of which everything is there, made from `inputs`.
fn complete(update: &Update, inputs: &str) -> CommitState {
    let images = both().map(|system| image(system, &update.commit, inputs));
    let index = index(update, &images);
    let release = Tag::Read(index.pointed.digest.clone());
    let staged = both().into_iter().zip(images).collect();
    CommitState { index: Tag::Read(index), staged, release }
}

fn unread() -> CommitState {
    CommitState { index: Tag::Unread, staged: BTreeMap::new(), release: Tag::Unread }
}

fn pointed(state: &CommitState) -> Option<Pointed> {
    let Tag::Read(index) = &state.index else { return None };
    Some(index.pointed.clone())
}

/// Jobs as text: commit, systems built, and what is written.
fn judged(updates: &[u64], commits: &[(u64, CommitState)], latest: Option<Pointed>) -> Vec<String> {
    let updates: Vec<_> = updates.iter().map(|number| update(*number)).collect();
    let state = ChannelState {
        commits: commits.iter().map(|(number, state)| (commit(*number), state.clone())).collect(),
        latest,
    };
    let systems = both();
    let inputs = systems.into_iter().map(|system| (system, "new".to_owned())).collect();
    let wanted = Wanted { systems: &systems, inputs: &inputs };
    let (jobs, problems) = judge(&"nixos-26.05".parse().unwrap(), &updates, &state, &wanted);
    let line = |job: &Job| {
        let mut words = vec![job.update.release.as_ref().unwrap().to_string()];
        words.extend(job.builds.iter().map(|(system, reason)| format!("{system} ({})", reason.text())));
        words.extend(job.index.then(|| "index".to_owned()));
        words.extend(job.release.then(|| "release".to_owned()));
        words.extend(job.latest.then(|| "latest".to_owned()));
        words.join(" ")
    };
    jobs.iter().map(line).chain(problems).collect()
}

const ALL: &str = "x86_64-linux (no image) aarch64-linux (no image) index release";

#[test]
fn the_first_run_builds_all_and_the_newest_first() {
    let absent = CommitState::default();
    let jobs = judged(&[1, 2], &[(1, absent.clone()), (2, absent)], None);
    assert_eq!(jobs, [format!("26.05.2 {ALL} latest"), format!("26.05.1 {ALL}")]);
}

#[test]
fn where_all_is_there_nothing_is_done() {
    let two = complete(&update(2), "new");
    let latest = pointed(&two);
    assert_eq!(judged(&[1, 2], &[(1, unread()), (2, two)], latest), [""; 0]);
}

#[test]
fn a_changed_recipe_rebuilds_the_newest_alone() {
    let two = complete(&update(2), "old");
    let latest = pointed(&two);
    let jobs = judged(&[1, 2], &[(1, complete(&update(1), "old")), (2, two)], latest);
    let changed = "x86_64-linux (the recipe changed) aarch64-linux (the recipe changed)";
    assert_eq!(jobs, [format!("26.05.2 {changed} index release latest")]);
}

#[test]
fn one_system_alone_may_be_missing_or_old() {
    let two = update(2);
    let [x86, arm] = both();
    let image = |system, inputs| image(system, &two.commit, inputs);
    let state = |indexed: &[SystemImage], staged: &[(System, SystemImage)]| CommitState {
        index: if indexed.is_empty() { Tag::Absent } else { Tag::Read(index(&two, indexed)) },
        staged: staged.iter().cloned().collect(),
        release: Tag::Absent,
    };
    for (state, expected) in [
        // Staged by a run that ended there.
        (state(&[], &[(x86, image(x86, "new"))]), "aarch64-linux (no image) index release latest"),
        (state(&[], &[(x86, image(x86, "new")), (arm, image(arm, "new"))]), "index release latest"),
        (
            state(&[], &[(x86, image(x86, "old"))]),
            "x86_64-linux (the recipe changed) aarch64-linux (no image) index release latest",
        ),
        // A system that was added to the settings.
        (state(&[image(x86, "new")], &[]), "aarch64-linux (no image) index release latest"),
        // Half of a rebuild.
        (
            state(&[image(x86, "old"), image(arm, "old")], &[(x86, image(x86, "new")), (arm, image(arm, "old"))]),
            "aarch64-linux (the recipe changed) index release latest",
        ),
        (
            state(&[image(x86, "old"), image(arm, "new")], &[(x86, image(x86, "new")), (arm, image(arm, "new"))]),
            "index release latest",
        ),
        // The tags of staged images may be gone.
        (state(&[image(x86, "new"), image(arm, "new")], &[]), "release latest"),
        // The index has it already; another updater staged the same once more.
        (state(&[image(x86, "new"), image(arm, "new")], &[(x86, image(x86, "new"))]), "release latest"),
    ] {
        assert_eq!(judged(&[2], &[(2, state)], None), [format!("26.05.2 {expected}")]);
    }
}

#[test]
fn tags_that_were_deleted_come_back() {
    let two = complete(&update(2), "new");
    assert_eq!(judged(&[2], &[(2, two.clone())], None), ["26.05.2 latest"]);
    let unreleased = CommitState { release: Tag::Absent, ..two.clone() };
    assert_eq!(judged(&[2], &[(2, unreleased)], pointed(&two)), ["26.05.2 release"]);
    let untagged = CommitState { index: Tag::Absent, ..two.clone() };
    assert_eq!(judged(&[2], &[(2, untagged)], pointed(&two)), ["26.05.2 index release latest"]);
    // Of older commits: the image is there, so it is never built again.
    let older = CommitState { release: Tag::Absent, ..unread() };
    assert_eq!(judged(&[1, 2], &[(1, older), (2, two.clone())], pointed(&two)), ["26.05.1 release"]);
    let untagged = CommitState { index: Tag::Absent, ..complete(&update(1), "old") };
    assert_eq!(judged(&[1, 2], &[(1, untagged), (2, two.clone())], pointed(&two)), ["26.05.1 index"]);
    let gone = CommitState::default();
    assert_eq!(judged(&[1, 2], &[(1, gone), (2, two.clone())], pointed(&two)), [format!("26.05.1 {ALL}")]);
    // A release tag that was left on the image before a rebuild.
    let stale = CommitState { release: Tag::Read(Digest::of(b"before")), ..two.clone() };
    assert_eq!(judged(&[2], &[(2, stale)], pointed(&two)), ["26.05.2 release"]);
}

#[test]
fn latest_never_goes_back() {
    // The branch moved from 3 back to 2.
    let (two, three) = (complete(&update(2), "new"), complete(&update(3), "new"));
    assert_eq!(judged(&[1, 2], &[(1, unread()), (2, two.clone())], pointed(&three)), [""; 0]);
    let changed = complete(&update(2), "old");
    let rebuilt = "x86_64-linux (the recipe changed) aarch64-linux (the recipe changed) index release";
    assert_eq!(judged(&[1, 2], &[(2, changed)], pointed(&three)), [format!("26.05.2 {rebuilt}")]);
    let foreign = Pointed { digest: Digest::of(b"x"), revision: None, release: None, created: None };
    let problem =
        "`latest` stays where it is: the image `sha256:2d711642b726` does not say whether it is older or newer";
    assert_eq!(judged(&[2], &[(2, two)], Some(foreign)), [problem]);
}

#[test]
fn what_could_not_be_read_is_left_alone() {
    assert_eq!(judged(&[1, 2], &[(2, complete(&update(2), "new"))], pointed(&complete(&update(2), "new"))), [""; 0]);
    assert_eq!(judged(&[1, 2], &[], None), [""; 0]);
}

#[test]
fn an_index_keeps_what_is_not_wanted_any_more() {
    let two = update(2);
    let [x86, arm] = both();
    let foreign = Descriptor { platform: Some(Platform::linux("riscv64")), ..image(x86, &two.commit, "foreign").entry };
    let mut there = index(&two, &[image(x86, &two.commit, "old"), image(arm, &two.commit, "old")]);
    there.others.push(foreign.clone());
    let state = CommitState {
        index: Tag::Read(there),
        staged: BTreeMap::from([(x86, image(x86, &two.commit, "new"))]),
        release: Tag::Absent,
    };
    let inputs = BTreeMap::from([(x86, "new".to_owned())]);
    let wanted = Wanted { systems: &[x86], inputs: &inputs };
    let new = entries(&state, &wanted, true).unwrap();
    let expected = [image(x86, &two.commit, "new").entry, image(arm, &two.commit, "old").entry, foreign];
    assert_eq!(new, expected);
    assert!(differs(&state, &new));
    let missing = Wanted { systems: &both(), inputs: &inputs };
    assert_eq!(entries(&CommitState::default(), &missing, true), Err(both().to_vec()));
}

fn any_image(number: u64) -> impl Strategy<Value = Vec<(System, SystemImage)>> {
    proptest::sample::subsequence(both().to_vec(), 0..=2).prop_flat_map(move |systems| {
        proptest::collection::vec(prop_oneof!["old", "new"], systems.len()).prop_map(move |inputs| {
            let pair = |(system, inputs): (&System, &String)| (*system, image(*system, &commit(number), inputs));
            systems.iter().zip(&inputs).map(pair).collect()
        })
    })
}

fn any_state(number: u64) -> impl Strategy<Value = CommitState> {
    (any_image(number), any_image(number), 0..3).prop_map(move |(indexed, staged, release)| {
        let images: Vec<_> = indexed.into_iter().map(|(_, image)| image).collect();
        let index = if images.is_empty() { Tag::Absent } else { Tag::Read(index(&update(number), &images)) };
        let release = match release {
            0 => Tag::Absent,
            1 => Tag::Unread,
            _ => Tag::Read(Digest::of(b"release")),
        };
        CommitState { index, staged: staged.into_iter().collect(), release }
    })
}

/// What holds for the states of the updates 1 to 3, of which `known` could be read; `latest` is 0 for no such tag.
fn check_laws(states: [CommitState; 3], known: [bool; 3], latest: u64) -> Result<(), TestCaseError> {
    let updates: Vec<_> = (1..=3).map(update).collect();
    let commits: BTreeMap<_, _> = (1..)
        .zip(states)
        .zip(known)
        .filter(|(_, known)| *known)
        .map(|((number, state), _)| (commit(number), state))
        .collect();
    let latest = (latest > 0).then(|| index(&update(latest), &[]).pointed);
    let state = ChannelState { commits, latest };
    let systems = both();
    let inputs: BTreeMap<_, _> = systems.into_iter().map(|system| (system, "new".to_owned())).collect();
    let wanted = Wanted { systems: &systems, inputs: &inputs };
    let (jobs, _) = judge(&"nixos-26.05".parse().unwrap(), &updates, &state, &wanted);
    for job in &jobs {
        let before = &state.commits[&job.update.commit];
        prop_assert!(job.newest || !job.latest, "only the newest is latest");
        prop_assert!(!job.is_done());
        if !job.newest {
            prop_assert!(before.index == Tag::Absent || (job.builds.is_empty() && !job.index), "older stays");
        }
        for (system, reason) in &job.builds {
            let there = choose(before, *system, &wanted, job.newest);
            prop_assert_eq!(*reason == Reason::Missing, there.is_none());
            prop_assert!(there.is_none_or(|image| image.inputs.as_deref() == Some("old")));
        }
        if !job.index {
            prop_assert!(job.builds.is_empty(), "what is built goes into the index");
            continue;
        }
        // Once the builds are staged the index can be written, and it has all that it had.
        let mut after = before.clone();
        for (system, _) in &job.builds {
            after.staged.insert(*system, image(*system, &job.update.commit, "new"));
        }
        let entries = entries(&after, &wanted, job.newest).unwrap();
        if let Tag::Read(index) = &before.index {
            let had: Vec<_> = index.images.keys().collect();
            prop_assert!(
                had.iter().all(|system| entries.iter().any(|entry| entry.platform == Some(system.platform())))
            );
        }
    }
    // A commit without a job is complete.
    for update in &updates {
        let Some(commit) = state.commits.get(&update.commit) else { continue };
        if jobs.iter().all(|job| job.update.commit != update.commit) {
            prop_assert!(commit.index != Tag::Absent);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn laws_hold_in_every_state(
        states in (any_state(1), any_state(2), any_state(3)), known in any::<[bool; 3]>(), latest in 0_u64..4
    ) {
        check_laws([states.0, states.1, states.2], known, latest)?;
    }
}

/// Found by proptest: the index of an older update has an image of one system and none of the other.
#[test]
fn laws_hold_where_the_index_of_an_older_update_lacks_a_system() {
    let [x86, _] = both();
    let incomplete = Tag::Read(index(&update(2), &[image(x86, &commit(2), "old")]));
    let states =
        [CommitState::default(), CommitState { index: incomplete, ..CommitState::default() }, CommitState::default()];
    check_laws(states, [false, true, false], 0).unwrap();
}
