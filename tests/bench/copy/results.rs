//! What was measured, as `results.json` holds it, and the questions that the report asks of it.
//! It must never hold a judgement: those are made anew from the numbers.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::statistics::median;
use crate::ways::{FileSystem, Kind, Way};

/// Everything that a report needs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    /// The machine and the versions of the programs.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) closure: Facts,
    pub(crate) stages: Vec<Stage>,
    pub(crate) notes: Vec<String>,
}

/// What a closure holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) paths: u64,
    /// Names, so that a hard link counts again.
    pub(crate) files: u64,
    pub(crate) symlinks: u64,
    pub(crate) directories: u64,
    /// Files that have more than one name within the closure: all those names.
    pub(crate) hard_linked_names: u64,
    pub(crate) bytes: u64,
    /// What the files take on a disk with blocks of 4 KiB.
    pub(crate) disk_bytes: u64,
}

impl Facts {
    pub(crate) fn entries(&self) -> u64 {
        self.files + self.symlinks + self.directories
    }
}

/// One file system.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) file_system: FileSystem,
    /// How it was made and mounted.
    pub(crate) options: String,
    pub(crate) runs: Vec<Run>,
}

/// One run of one way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) group: usize,
    pub(crate) way: Way,
    /// Entries of the closure.
    pub(crate) entries: u64,
    pub(crate) seconds: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Of the largest process.
    pub(crate) peak_kib: u64,
}

impl Results {
    pub(crate) fn stage(&self, file_system: FileSystem) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.file_system == file_system)
    }

    /// These and `other` as the results of one run: of one closure, on one machine, no file system twice.
    pub(crate) fn with(mut self, other: Self) -> anyhow::Result<Self> {
        ensure!(self.closure == other.closure, "the results are of two closures");
        ensure!(self.machine == other.machine, "the results are of two machines, or of other versions of the programs");
        for stage in other.stages {
            ensure!(self.stage(stage.file_system).is_none(), "{} is in two results", stage.file_system.label());
            self.stages.push(stage);
        }
        self.stages.sort_by_key(|stage| stage.file_system);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.date = self.date.max(other.date);
        Ok(self)
    }
}

/// The medians of a way's runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Medians {
    pub(crate) seconds: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) peak_mib: f64,
}

impl Stage {
    /// The ways that were run, links first, ours first within a kind.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let mut ways: Vec<Way> = self.runs.iter().map(|run| run.way).collect();
        ways.sort_by_key(|way| (way.kind(self.file_system), !way.is_ours(), !way.is_limit(), *way));
        ways.dedup();
        ways
    }

    pub(crate) fn seconds(&self, way: Way) -> Vec<f64> {
        self.all(way, |run| run.seconds)
    }

    fn all(&self, way: Way, value: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().filter(|run| run.way == way).map(value).collect()
    }

    pub(crate) fn medians(&self, way: Way) -> Option<Medians> {
        Some(Medians {
            seconds: median(&self.seconds(way))?,
            user: median(&self.all(way, |run| run.user))?,
            system: median(&self.all(way, |run| run.system))?,
            peak_mib: median(&self.all(way, peak_mib))?,
        })
    }

    /// For each round in which both ran in one group, what `value` makes of the two.
    fn pairs(&self, first: Way, second: Way, value: impl Fn(&Run, &Run) -> f64) -> Vec<f64> {
        let groups = self.by_group();
        let both = |runs: &BTreeMap<Way, &Run>| Some(value(runs.get(&first)?, runs.get(&second)?));
        groups.values().filter_map(both).collect()
    }

    /// For each round and group the runs by way.
    fn by_group(&self) -> BTreeMap<(usize, usize), BTreeMap<Way, &Run>> {
        let mut groups: BTreeMap<_, BTreeMap<Way, &Run>> = BTreeMap::new();
        for run in &self.runs {
            groups.entry((run.round, run.group)).or_default().insert(run.way, run);
        }
        groups
    }

    /// The ratios of the wall times of `ours` to those of `peer` that ran beside it.
    pub(crate) fn ratios(&self, ours: Way, peer: Way) -> Vec<f64> {
        self.pairs(ours, peer, |ours, peer| ours.seconds / peer.seconds)
    }

    /// What verifying adds, as ratios to hashing the same files.
    pub(crate) fn verify_ratios(&self) -> Vec<f64> {
        let ratio = |runs: &BTreeMap<Way, &Run>| {
            let added = runs.get(&Way::OursVerify)?.seconds - runs.get(&Way::OursHardlink)?.seconds;
            Some(added / runs.get(&Way::Openssl)?.seconds)
        };
        self.by_group().values().filter_map(ratio).collect()
    }

    /// The way of ours that does the same as `peer`, and ran beside it.
    pub(crate) fn ours_beside(&self, peer: Way) -> Option<Way> {
        let wanted: &[Way] = match peer.kind(self.file_system) {
            Kind::Links => &[Way::OursHardlink, Way::OursAuto],
            Kind::Reflinks => &[Way::OursReflink],
            Kind::Copies => &[Way::OursCopy, Way::OursAuto],
            Kind::Reads => &[],
        };
        wanted.iter().copied().find(|ours| *ours != peer && !self.ratios(*ours, peer).is_empty())
    }

    /// How large the closures of [`FileSystem::Scale`] were, the smallest first.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self.runs.iter().map(|run| run.entries).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// In each round, the time per entry of the largest closure as a ratio to that of the smallest.
    pub(crate) fn growth(&self, way: Way) -> Vec<f64> {
        let sizes = self.sizes();
        let (Some(small), Some(large)) = (sizes.first(), sizes.last()) else { return Vec::new() };
        if small == large {
            return Vec::new();
        }
        let per_entry = |round: usize, entries: u64| Some(self.seconds_at(round, way, entries)? / as_f64(entries));
        (0..self.rounds()).filter_map(|round| Some(per_entry(round, *large)? / per_entry(round, *small)?)).collect()
    }

    /// The ratios of the wall times of `ours` to those of `peer` with so many entries.
    pub(crate) fn ratios_at(&self, ours: Way, peer: Way, entries: u64) -> Vec<f64> {
        let ratio =
            |round: usize| Some(self.seconds_at(round, ours, entries)? / self.seconds_at(round, peer, entries)?);
        (0..self.rounds()).filter_map(ratio).collect()
    }

    /// The wall time of the run with so many entries.
    fn seconds_at(&self, round: usize, way: Way, entries: u64) -> Option<f64> {
        let found = |run: &&Run| run.way == way && run.round == round && run.entries == entries;
        self.runs.iter().find(found).map(|run| run.seconds)
    }

    fn rounds(&self) -> usize {
        self.runs.iter().map(|run| run.round + 1).max().unwrap_or(0)
    }

    /// Peak memory in MiB of the runs with `entries` entries.
    pub(crate) fn peaks(&self, way: Way, entries: u64) -> Vec<f64> {
        let runs = self.runs.iter().filter(|run| run.way == way && run.entries == entries);
        runs.map(peak_mib).collect()
    }
}

fn peak_mib(run: &Run) -> f64 {
    as_f64(run.peak_kib) / 1024.0
}

/// Good enough to print and to divide.
#[expect(clippy::cast_precision_loss, reason = "no such count needs more than 52 bits")]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(round: usize, group: usize, way: Way, seconds: f64) -> Run {
        Run { round, group, way, entries: 100, seconds, user: seconds / 4.0, system: seconds / 2.0, peak_kib: 10_240 }
    }

    pub(crate) fn stage(file_system: FileSystem, runs: Vec<Run>) -> Stage {
        Stage { file_system, options: "mkfs.ext4; rw,relatime".to_owned(), runs }
    }

    #[test]
    fn ratios_pair_the_runs_of_one_round_and_group() {
        use Way::{Cp, CpLink, OursCopy, Tar};
        let stage = stage(
            FileSystem::Ext4,
            vec![
                run(0, 0, Cp, 4.0),
                run(0, 0, OursCopy, 1.0),
                run(0, 1, Tar, 2.0),
                run(0, 1, OursCopy, 1.5),
                run(1, 0, OursCopy, 3.0),
                run(1, 0, Cp, 6.0),
                // Its neighbour failed.
                run(2, 0, OursCopy, 3.0),
            ],
        );
        assert_eq!(stage.ratios(OursCopy, Cp), [0.25, 0.5]);
        assert_eq!(stage.ratios(OursCopy, Tar), [0.75]);
        assert_eq!(stage.ratios(OursCopy, CpLink), [0.0; 0]);
        assert_eq!(stage.ours_beside(Cp), Some(OursCopy));
        assert_eq!(stage.ours_beside(CpLink), None);
        assert_eq!(stage.ways(), [OursCopy, Cp, Tar]);
        assert_eq!(stage.medians(Cp), Some(Medians { seconds: 5.0, user: 1.25, system: 2.5, peak_mib: 10.0 }));
    }

    #[test]
    fn results_of_one_machine_and_closure_are_one() {
        let results = |file_system, machine: &str, entries, date: &str| Results {
            date: date.to_owned(),
            machine: vec![("CPU".to_owned(), machine.to_owned())],
            closure: Facts { files: entries, ..Facts::default() },
            stages: vec![stage(file_system, Vec::new())],
            notes: vec!["A note.".to_owned(), date.to_owned()],
        };
        let first = || results(FileSystem::Xfs, "one", 3, "2026-01-02");
        let both = first().with(results(FileSystem::Ext4, "one", 3, "2026-01-01")).unwrap();
        let order: Vec<_> = both.stages.iter().map(|stage| stage.file_system).collect();
        assert_eq!(order, [FileSystem::Ext4, FileSystem::Xfs]);
        assert_eq!(both.notes, ["A note.", "2026-01-02", "2026-01-01"]);
        assert_eq!(both.date, "2026-01-02");
        for (other, message) in [
            (results(FileSystem::Ext4, "one", 4, ""), "two closures"),
            (results(FileSystem::Ext4, "two", 3, ""), "two machines"),
            (results(FileSystem::Xfs, "one", 3, ""), "xfs is in two results"),
        ] {
            let error = first().with(other).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn verifying_is_what_it_adds() {
        let stage = stage(
            FileSystem::Ext4,
            vec![run(0, 5, Way::OursHardlink, 0.5), run(0, 5, Way::OursVerify, 2.0), run(0, 5, Way::Openssl, 1.0)],
        );
        assert_eq!(stage.verify_ratios(), [1.5]);
    }

    #[test]
    fn growth_is_per_entry() {
        let sized = |round, entries, seconds| Run { entries, ..run(round, 0, Way::OursCopy, seconds) };
        let runs = vec![sized(0, 100, 1.0), sized(0, 1000, 12.0), sized(1, 1000, 30.0), sized(1, 100, 2.0)];
        let stage = stage(FileSystem::Scale, runs);
        assert_eq!(stage.growth(Way::OursCopy), [1.2, 1.5]);
        assert_eq!(stage.growth(Way::OursHardlink), [0.0; 0]);
        assert_eq!(stage.ratios_at(Way::OursCopy, Way::OursCopy, 1000), [1.0, 1.0]);
        assert_eq!(stage.ratios_at(Way::OursCopy, Way::LimitCopy, 1000), [0.0; 0]);
        assert_eq!(stage.peaks(Way::OursCopy, 1000), [10.0, 10.0]);
    }
}
