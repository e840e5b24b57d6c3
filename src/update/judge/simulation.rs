//! A year of hourly runs against a registry that is a few maps: no image is lost, none is built twice, and
//! every update is held. It must never know of a job what the real updater would not.

use std::collections::BTreeMap;

use super::tables::{both, commit, image, index, update};
use super::*;
use crate::channel::{updates, window};

/// Numbers that are the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll() % n == 0
    }
}

/// What a registry is, as far as updates go.
#[derive(Default)]
struct Registry {
    indexes: BTreeMap<Commit, Index>,
    staged: BTreeMap<(Commit, System), SystemImage>,
    releases: BTreeMap<String, Digest>,
    latest: Option<Pointed>,
    /// Which images were pushed, to find one that is pushed twice.
    built: BTreeMap<(Commit, System, String), u32>,
}

impl Registry {
    /// The tag `<commit>`, which must never lose a system.
    fn write_index(&mut self, id: &Commit, index: Index) {
        assert_eq!(index.images.len(), both().len(), "{id} is incomplete");
        if let Some(before) = self.indexes.insert(id.clone(), index) {
            let now = &self.indexes[id].images;
            assert!(before.images.keys().all(|system| now.contains_key(system)), "{id} lost a system");
        }
    }

    /// The tag `latest`, which must never go back.
    fn write_latest(&mut self, to: Pointed) {
        let number = |pointed: &Pointed| pointed.release.clone().unwrap();
        if let Some(before) = &self.latest {
            let order = crate::channel::Release::compare_numbers(&number(&to), &number(before)).unwrap();
            assert!(order.is_ge(), "latest went back from {} to {}", number(before), number(&to));
        }
        self.latest = Some(to);
    }

    fn commit(&self, update: &Update, newest: bool) -> CommitState {
        let there = self.indexes.get(&update.commit);
        let release = update.release.as_ref().and_then(|release| self.releases.get(&release.to_string()));
        CommitState {
            index: match there {
                None => Tag::Absent,
                Some(index) if newest => Tag::Read(index.clone()),
                Some(_) => Tag::Unread,
            },
            staged: both()
                .into_iter()
                .filter_map(|system| Some((system, self.staged.get(&(update.commit.clone(), system))?.clone())))
                .collect(),
            release: match release {
                None => Tag::Absent,
                Some(digest) if newest => Tag::Read(digest.clone()),
                Some(_) => Tag::Unread,
            },
        }
    }

    fn state(&self, updates: &[Update]) -> ChannelState {
        let newest = |update: &Update| updates.last() == Some(update);
        let commits =
            updates.iter().map(|update| (update.commit.clone(), self.commit(update, newest(update)))).collect();
        ChannelState { commits, latest: self.latest.clone() }
    }
}

/// One machine's run: judges, and works until `steps` writes have been made, when it is killed. Returns what
/// stood in the way of jobs.
fn run(registry: &mut Registry, updates: &[Update], recipe: &str, here: &[System], mut steps: u64) -> Vec<String> {
    let systems = both();
    let inputs: BTreeMap<_, _> = systems.into_iter().map(|system| (system, recipe.to_owned())).collect();
    let wanted = Wanted { systems: &systems, inputs: &inputs };
    let (jobs, problems) = judge(&"nixos-26.05".parse().unwrap(), updates, &registry.state(updates), &wanted);
    let mut step = || {
        let goes_on = steps > 0;
        steps = steps.saturating_sub(1);
        goes_on
    };
    for job in jobs {
        let id = job.update.commit.clone();
        for (system, _) in job.builds.iter().filter(|(system, _)| here.contains(system)) {
            if !step() {
                return problems;
            }
            registry.staged.insert((id.clone(), *system), image(*system, &id, recipe));
            *registry.built.entry((id.clone(), *system, recipe.to_owned())).or_default() += 1;
        }
        let now = registry.commit(&job.update, job.newest);
        if job.index {
            let Ok(entries) = entries(&now, &wanted, job.newest) else { continue };
            // Where only the other machine has something to build it may stay as it is.
            if differs(&now, &entries) {
                if !step() {
                    return problems;
                }
                let images: Vec<_> =
                    systems.iter().map(|system| choose(&now, *system, &wanted, job.newest).unwrap().clone()).collect();
                registry.write_index(&id, index(&job.update, &images));
            }
        }
        let pointed = registry.indexes[&id].pointed.clone();
        if job.release {
            if !step() {
                return problems;
            }
            registry.releases.insert(job.update.release.as_ref().unwrap().to_string(), pointed.digest.clone());
        }
        if job.latest && moving::verdict(&pointed, registry.latest.as_ref(), updates) == Verdict::Move {
            if !step() {
                return problems;
            }
            registry.write_latest(pointed);
        }
    }
    problems
}

const HISTORY: usize = 16;
const YEAR: u64 = 365 * 24;

/// What the channel points to, and its window of updates.
fn window_at(head: u64, released: u64) -> Vec<Update> {
    // As many as a window can reach, which keeps the test short.
    let numbers = released.saturating_sub(3 * HISTORY as u64).max(1)..=released;
    let releases: Vec<_> = numbers.clone().map(|number| update(number).release.unwrap()).collect();
    let past: Vec<_> = window(&releases, &commit(head), HISTORY)
        .iter()
        .map(|release| (release.clone(), numbers.clone().map(commit).find(|id| release.is_of(id)).unwrap()))
        .collect();
    updates(&commit(head), &past)
}

#[test]
fn a_year_of_hourly_runs_loses_nothing_and_builds_nothing_twice() {
    for seed in 0..3 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut dice = Dice(seed);
    let mut registry = Registry::default();
    // Commits are numbered as they come; the branch points to one of them.
    let (mut head, mut newest) = (HISTORY as u64, HISTORY as u64);
    let (mut known, mut updates) = ((0, 0), Vec::new());
    let mut recipe = 0_u64;
    let mut stopped_until = 0;
    let (mut kills, mut stops) = (0, 0);
    let machines = both();
    for hour in 0..YEAR {
        if dice.one_in(11) {
            newest += 1;
            head = newest;
        } else if dice.one_in(900) {
            head -= 1;
        }
        if dice.one_in(150) {
            recipe += 1;
        }
        if dice.one_in(500) {
            // Gaps of up to three days, in which the channel may move more than once.
            (stopped_until, stops) = (hour + dice.roll() % 72, stops + 1);
        }
        if hour < stopped_until {
            continue;
        }
        if known != (head, newest) {
            (known, updates) = ((head, newest), window_at(head, newest));
        }
        for machine in machines {
            let killed = dice.one_in(6);
            kills += u64::from(killed);
            let steps = if killed { dice.roll() % 6 } else { u64::MAX };
            let problems = run(&mut registry, &updates, &recipe.to_string(), &[machine], steps);
            assert_eq!(problems, [""; 0], "hour {hour}");
        }
    }
    // One more run that nobody kills, and then there is nothing left to do.
    let updates = window_at(head, newest);
    for machine in machines {
        run(&mut registry, &updates, &recipe.to_string(), &[machine], u64::MAX);
    }
    for machine in machines {
        let before = registry.built.len();
        run(&mut registry, &updates, &recipe.to_string(), &[machine], 0);
        assert_eq!(registry.built.len(), before);
    }
    let missing: Vec<_> = (1..=newest).filter(|number| !registry.indexes.contains_key(&commit(*number))).collect();
    assert_eq!(missing, [0; 0], "every update of the channel is held");
    for number in 1..=newest {
        let release = update(number).release.unwrap().to_string();
        assert!(registry.releases.contains_key(&release), "{release} has its tag");
    }
    let twice: Vec<_> = registry.built.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(registry.latest.unwrap().release, update(newest.max(head)).release.map(|r| r.to_string()));
    assert!(newest > 600 && kills > 2000 && stops > 5, "{newest} updates, {kills} kills, {stops} stops");
}
