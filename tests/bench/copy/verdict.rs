//! The targets, and whether they are met.
//! It must never call met what the noise of the measurement may have made.

use crate::markdown::figure;
use crate::results::{Results, Stage};
use crate::statistics::{Quartiles, quartiles};
use crate::ways::{FileSystem, Way};

/// What a target is about.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// The wall time of ours against a peer's.
    Ratio(FileSystem, Way, Way),
    /// What verifying adds, against hashing.
    Verify(FileSystem),
    /// Peak memory in MiB with so many entries.
    Memory(Way, u64),
    /// The time per entry at ten times the entries.
    Growth(Way),
}

/// What, against what, what it is about, at most.
type Target = (&'static str, &'static str, Measure, f64);

/// With so many entries the memory is judged.
const MANY: u64 = 1_000_000;

const TARGETS: &[Target] = {
    use FileSystem::{Btrfs, Ext4, OverlayLower, OverlayUpper, Xfs};
    use Measure::{Growth, Memory, Ratio, Verify};
    use Way::{Cp, CpLink, CpReflink, OursAuto, OursCopy, OursHardlink, OursReflink, Predecessor};
    const PIPELINE: &str = "the predecessor's pipeline";
    const REFLINK: &str = "`cp -a --reflink=always`";
    &[
        ("hard links, ext4", PIPELINE, Ratio(Ext4, OursHardlink, Predecessor), 1.0 / 25.0),
        ("hard links, ext4", "`cp -al`", Ratio(Ext4, OursHardlink, CpLink), 0.35),
        ("hard links, xfs", "`cp -al`", Ratio(Xfs, OursHardlink, CpLink), 0.35),
        ("copy, ext4", "`cp -a`", Ratio(Ext4, OursCopy, Cp), 0.38),
        ("copy, ext4", PIPELINE, Ratio(Ext4, OursCopy, Predecessor), 1.0 / 5.0),
        ("reflink, btrfs", REFLINK, Ratio(Btrfs, OursReflink, CpReflink), 0.55),
        ("reflink, xfs", REFLINK, Ratio(Xfs, OursReflink, CpReflink), 0.55),
        ("overlayfs, store in the lower layer, `auto`", "`cp -a`", Ratio(OverlayLower, OursAuto, Cp), 0.6),
        ("overlayfs, store in the same layer, `auto`", "`cp -al`", Ratio(OverlayUpper, OursAuto, CpLink), 0.6),
        ("time that `--verify` adds", "`openssl dgst -sha256`, one process per core", Verify(Ext4), 1.3),
        ("MiB for 1,000,000 entries, hard links", "–", Memory(OursHardlink, MANY), 200.0),
        ("MiB for 1,000,000 entries, copy", "–", Memory(OursCopy, MANY), 200.0),
        ("time per entry at 10× the entries, hard links", "at 1×", Growth(OursHardlink), 1.3),
        ("time per entry at 10× the entries, copy", "at 1×", Growth(OursCopy), 1.3),
    ]
};

/// Whether a target is about ways that run beside each other in `group`.
pub(crate) fn judges(file_system: FileSystem, group: &[Way]) -> bool {
    TARGETS.iter().any(|(_, _, measure, _)| match *measure {
        Measure::Ratio(there, ours, peer) => there == file_system && group.contains(&ours) && group.contains(&peer),
        Measure::Verify(there) => there == file_system && group.contains(&Way::Openssl),
        Measure::Memory(..) | Measure::Growth(..) => false,
    })
}

/// How close to the bare loop a way must come whose target is beyond that.
pub(crate) const NEAR_LIMIT: f64 = 1.15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The quartiles lie on either side of the target.
    WithinNoise,
    NotMeasured,
}

impl Verdict {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::WithinNoise => "within noise",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A target with what was measured.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) what: &'static str,
    pub(crate) against: &'static str,
    pub(crate) at_most: f64,
    pub(crate) measured: Option<Quartiles>,
    pub(crate) verdict: Verdict,
    /// Where the wall time alone does not tell.
    pub(crate) beside: String,
}

/// Every target with its verdict.
pub(crate) fn judge(results: &Results) -> Vec<Judged> {
    let judged = |&(what, against, measure, at_most): &Target| {
        let measured = quartiles(&values(results, measure));
        let verdict = verdict(measured, at_most);
        let beside = match verdict {
            Verdict::WithinNoise => beside(results, measure),
            Verdict::Missed => limit(results, measure).unwrap_or_default(),
            Verdict::Met | Verdict::NotMeasured => String::new(),
        };
        Judged { what, against, at_most, measured, verdict, beside }
    };
    TARGETS.iter().map(judged).collect()
}

fn verdict(measured: Option<Quartiles>, at_most: f64) -> Verdict {
    match measured {
        None => Verdict::NotMeasured,
        Some(Quartiles { high, .. }) if high <= at_most => Verdict::Met,
        Some(Quartiles { low, .. }) if low > at_most => Verdict::Missed,
        Some(_) => Verdict::WithinNoise,
    }
}

fn values(results: &Results, measure: Measure) -> Vec<f64> {
    let of = |file_system, values: &dyn Fn(&Stage) -> Vec<f64>| results.stage(file_system).map(values);
    match measure {
        Measure::Ratio(file_system, ours, peer) => of(file_system, &|stage| stage.ratios(ours, peer)),
        Measure::Verify(file_system) => of(file_system, &Stage::verify_ratios),
        Measure::Memory(way, entries) => of(FileSystem::Scale, &|stage| {
            let largest = stage.sizes().last().copied().unwrap_or(0);
            if largest >= entries { stage.peaks(way, largest) } else { Vec::new() }
        }),
        Measure::Growth(way) => of(FileSystem::Scale, &|stage| stage.growth(way)),
    }
    .unwrap_or_default()
}

/// What the bare loop has where ours misses a target, and how far from it ours is.
fn limit(results: &Results, measure: Measure) -> Option<String> {
    match measure {
        Measure::Ratio(file_system, ours, peer) => {
            let stage = results.stage(file_system)?;
            let median = |peer| Some(quartiles(&stage.ratios(ours, peer))?.median);
            let (to_peer, to_limit) = (median(peer)?, median(ours.limit(file_system)?)?);
            let loops = figure(to_peer / to_limit);
            Some(format!("the bare loop {loops}, ours {} of its time", figure(to_limit)))
        }
        Measure::Growth(way) => {
            let loops = quartiles(&results.stage(FileSystem::Scale)?.growth(way.limit(FileSystem::Scale)?))?;
            Some(format!("the bare loop {}", figure(loops.median)))
        }
        Measure::Verify(_) | Measure::Memory(..) => None,
    }
}

/// User and system time of those that were compared, or the growth of the bare loop.
fn beside(results: &Results, measure: Measure) -> String {
    let (file_system, ways) = match measure {
        Measure::Ratio(file_system, ours, peer) => (file_system, vec![ours, peer]),
        Measure::Verify(file_system) => (file_system, vec![Way::OursHardlink, Way::OursVerify, Way::Openssl]),
        Measure::Growth(_) => return limit(results, measure).unwrap_or_default(),
        Measure::Memory(..) => return String::new(),
    };
    let Some(stage) = results.stage(file_system) else { return String::new() };
    let times = |way: Way| {
        let medians = stage.medians(way)?;
        Some(format!("{}: user {:.2} s, system {:.2} s", way.label(), medians.user, medians.system))
    };
    ways.into_iter().filter_map(times).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Run;
    use crate::results::tests::{run, stage};

    #[test]
    fn groups_are_judged_where_a_target_names_them() {
        let judged = |file_system: FileSystem| -> Vec<bool> {
            file_system.groups().iter().map(|group| judges(file_system, group)).collect()
        };
        assert_eq!(judged(FileSystem::Ext4), [true, true, true, false, false, false, true]);
        assert_eq!(judged(FileSystem::Xfs), [true, false, false, false, false, false, true]);
        assert_eq!(judged(FileSystem::OverlayLower), [true, false]);
        assert_eq!(judged(FileSystem::OverlayUpper), [true]);
    }

    #[test]
    fn a_verdict_needs_both_quartiles_on_one_side() {
        let of = |low, median, high| Some(Quartiles { low, median, high });
        for (measured, expected) in [
            (of(0.2, 0.3, 0.34), Verdict::Met),
            (of(0.2, 0.3, 0.35), Verdict::Met),
            (of(0.2, 0.3, 0.36), Verdict::WithinNoise),
            (of(0.34, 0.5, 0.6), Verdict::WithinNoise),
            (of(0.36, 0.5, 0.6), Verdict::Missed),
            (None, Verdict::NotMeasured),
        ] {
            assert_eq!(verdict(measured, 0.35), expected, "{measured:?}");
        }
    }

    #[test]
    fn user_and_system_time_stand_beside_noise() {
        let runs = [(0, 0.3), (1, 0.5)]
            .map(|(round, ours)| [run(round, 0, Way::CpLink, 1.0), run(round, 0, Way::OursHardlink, ours)]);
        let results = Results {
            stages: vec![stage(FileSystem::Ext4, runs.into_iter().flatten().collect())],
            ..Results::default()
        };
        let judged = judge(&results);
        assert_eq!(judged.len(), TARGETS.len());
        let found = &judged[1];
        assert_eq!(found.verdict, Verdict::WithinNoise);
        assert!(
            found.beside.contains("user 0.10 s") && found.beside.contains("cp -al: user 0.25 s"),
            "{}",
            found.beside
        );
        assert_eq!(judged[3].verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_limit_stands_beside_what_is_missed() {
        let many = |way, entries, seconds| Run { entries, ..run(0, 0, way, seconds) };
        let results = Results {
            stages: vec![
                stage(
                    FileSystem::Ext4,
                    vec![
                        run(0, 0, Way::CpLink, 1.0),
                        run(0, 0, Way::OursHardlink, 0.44),
                        run(0, 0, Way::LimitHardlink, 0.4),
                    ],
                ),
                stage(
                    FileSystem::Scale,
                    vec![
                        many(Way::OursCopy, 100, 1.0),
                        many(Way::OursCopy, 1000, 14.0),
                        many(Way::LimitCopy, 100, 1.0),
                        many(Way::LimitCopy, 1000, 13.5),
                    ],
                ),
            ],
            ..Results::default()
        };
        let judged = judge(&results);
        let beside = |number: usize| (judged[number].verdict, judged[number].beside.as_str());
        assert_eq!(beside(1), (Verdict::Missed, "the bare loop 0.40, ours 1.10 of its time"));
        assert_eq!(beside(judged.len() - 1), (Verdict::Missed, "the bare loop 1.35"));
    }
}
