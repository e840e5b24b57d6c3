//! The report as Markdown.
//! It must never show a ratio without its quartiles.

use std::fmt::Write;

use crate::results::{Results, Stage, as_f64};
use crate::statistics::{Quartiles, quartiles};
use crate::verdict::{Judged, NEAR_LIMIT, judge};
use crate::ways::{FileSystem, Way};

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::from("# Getting a closure out of a store\n\n");
    text += &format!("{}, {}.\n\n", results.date, rounds(results));
    let facts = &results.closure;
    text += &format!(
        "The closure: {} store paths, {} entries ({} files, {} of them hard links to one another, {} symlinks, {} \
         directories), {:.2} GB.\n\n",
        thousands(facts.paths),
        thousands(facts.entries()),
        thousands(facts.files),
        thousands(facts.hard_linked_names),
        thousands(facts.symlinks),
        thousands(facts.directories),
        as_f64(facts.bytes) / 1e9,
    );
    text += &targets(&judge(results));
    for stage in &results.stages {
        text += &if stage.file_system == FileSystem::Scale { scale_table(stage) } else { table(stage) };
    }
    text += "## Machine\n\n";
    text += &rows(&["", ""], results.machine.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
    text += "\n## Notes\n\n";
    for note in &results.notes {
        text += &format!("- {note}\n");
    }
    text
}

fn rounds(results: &Results) -> String {
    let rounds = |stage: &Stage| stage.runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    let copied = results.stages.iter().filter(|stage| stage.file_system != FileSystem::Scale);
    match copied.map(rounds).max().unwrap_or(0) {
        1 => "1 round".to_owned(),
        count => format!("{count} rounds"),
    }
}

fn targets(judged: &[Judged]) -> String {
    let mut text = String::from(
        "## Targets\n\nThe median of the ratios of the rounds, ours to the other's (or MiB), with the quartiles in \
         brackets.\n\n",
    );
    let row = |judged: &Judged| {
        let measured = judged.measured.map_or_else(|| "–".to_owned(), spread);
        let mut verdict = judged.verdict.label().to_owned();
        if !judged.beside.is_empty() {
            verdict += &format!(" ({})", judged.beside);
        }
        vec![judged.what.to_owned(), judged.against.to_owned(), figure(judged.at_most), measured, verdict]
    };
    text += &rows(&["what", "against", "at most", "measured", "verdict"], judged.iter().map(row));
    text + "\n"
}

fn table(stage: &Stage) -> String {
    let mut text = format!("## {}\n\n{}.\n\n", stage.file_system.label(), stage.options);
    let row = |way: Way| {
        let medians = stage.medians(way)?;
        let wall = quartiles(&stage.seconds(way))?;
        // What it takes as a multiple of ours, or nothing for ours.
        let ours = stage.ours_beside(way).filter(|_| !way.is_ours());
        let ratio = ours.and_then(|ours| quartiles(&stage.ratios(ours, way)));
        let label = if way.is_ours() { format!("**{}**", way.label()) } else { way.label().to_owned() };
        Some(vec![
            label.replace('|', r"\|"),
            seconds(wall.median),
            format!("{}–{}", seconds(wall.low), seconds(wall.high)),
            ratio.map_or_else(|| "–".to_owned(), spread),
            seconds(medians.user),
            seconds(medians.system),
            figure(medians.peak_mib),
        ])
    };
    let head = ["way", "wall, s", "quartiles", "ours ÷ it", "user, s", "system, s", "peak, MiB"];
    text += &rows(&head, stage.ways().into_iter().filter_map(row));
    for (limit, ours) in [
        (Way::LimitHardlink, Way::OursHardlink),
        (Way::LimitReflink, Way::OursReflink),
        (Way::LimitCopy, Way::OursCopy),
        (Way::LimitCopy, Way::OursAuto),
    ] {
        if let Some(ratio) = quartiles(&stage.ratios(ours, limit)) {
            let (label, near, ratio) = (ours.label(), nearness(ratio), spread(ratio));
            text += &format!("\n`{label}` against the bare loop: {ratio}, {near}.\n");
        }
    }
    if let Some(note) = stage.file_system.note() {
        text += &format!("\n{note}\n");
    }
    text + "\n"
}

fn scale_table(stage: &Stage) -> String {
    let mut text = format!("## {}\n\n{}.\n\n", stage.file_system.label(), stage.options);
    let ways = stage.ways();
    let sizes = stage.sizes();
    let row = |(way, entries): (Way, u64)| {
        let wall: Vec<f64> =
            stage.runs.iter().filter(|run| run.way == way && run.entries == entries).map(|run| run.seconds).collect();
        let wall = quartiles(&wall)?;
        let peak = quartiles(&stage.peaks(way, entries))?;
        Some(vec![
            if way.is_ours() { format!("**{}**", way.label()) } else { way.label().to_owned() },
            thousands(entries),
            seconds(wall.median),
            format!("{}–{}", seconds(wall.low), seconds(wall.high)),
            format!("{:.1}", wall.median * 1e6 / as_f64(entries)),
            figure(peak.median),
        ])
    };
    let cells = ways.iter().flat_map(|way| sizes.iter().map(move |entries| (*way, *entries)));
    let head = ["way", "entries", "wall, s", "quartiles", "µs per entry", "peak, MiB"];
    text += &rows(&head, cells.filter_map(row));
    for (ours, limit) in [(Way::OursHardlink, Way::LimitHardlink), (Way::OursCopy, Way::LimitCopy)] {
        let grown = |way| quartiles(&stage.growth(way)).map(spread);
        let largest = sizes.last().copied().unwrap_or(0);
        let ratio = quartiles(&stage.ratios_at(ours, limit, largest));
        if let (Some(own), Some(loops), Some(ratio)) = (grown(ours), grown(limit), ratio) {
            text += &format!(
                "\nTime per entry at the larger size, against the smaller: `{}` {own}, the bare loop {loops}. With {} \
                 entries the one takes {} of the other's time, {}.\n",
                ours.label(),
                thousands(largest),
                spread(ratio),
                nearness(ratio)
            );
        }
    }
    text + "\n"
}

/// Whether ours is as close to the bare loop as it must be.
fn nearness(ratio: Quartiles) -> String {
    format!("{} {NEAR_LIMIT} of it", if ratio.median <= NEAR_LIMIT { "within" } else { "not within" })
}

/// A table, its columns as wide as their cells.
fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
    lines.push(vec![String::new(); head.len()]);
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        text.push('|');
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let written = match (number, column) {
                (1, 0) => write!(text, "{:-<width$}--|", ""),
                (1, _) => write!(text, "{:-<width$}-:|", ""),
                (_, 0) => write!(text, " {cell:<width$} |"),
                (_, _) => write!(text, " {cell:>width$} |"),
            };
            debug_assert!(written.is_ok(), "a string takes all");
        }
        text.push('\n');
    }
    text
}

/// `0.31 (0.30–0.33)`.
fn spread(quartiles: Quartiles) -> String {
    let Quartiles { low, median, high } = quartiles;
    format!("{} ({}–{})", figure(median), figure(low), figure(high))
}

/// A number with as many digits as say something.
pub(crate) fn figure(number: f64) -> String {
    let decimals = match number.abs() {
        below if below < 0.1 => 3,
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

pub(crate) fn seconds(number: f64) -> String {
    let decimals = if number < 10.0 { 2 } else { 1 };
    format!("{number:.decimals$}")
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{run, stage};
    use crate::results::{Facts, Run};

    #[test]
    fn numbers_read_well() {
        for (number, expected) in [(0.0412, "0.041"), (0.3, "0.30"), (1.333, "1.33"), (12.34, "12.3"), (200.0, "200")] {
            assert_eq!(figure(number), expected);
        }
        for (number, expected) in [(1, "1"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), expected);
        }
        assert_eq!((seconds(0.419), seconds(11.44)), ("0.42".to_owned(), "11.4".to_owned()));
    }

    #[test]
    fn a_way_stands_in_its_row_with_its_ratio() {
        let runs = vec![
            run(0, 0, Way::Tar, 4.0),
            run(0, 0, Way::OursCopy, 1.0),
            run(1, 0, Way::OursCopy, 3.0),
            run(1, 0, Way::Tar, 4.0),
        ];
        let sized = |way, entries, seconds| Run { entries, ..run(0, 0, way, seconds) };
        let results = Results {
            closure: Facts { paths: 3, files: 1000, ..Facts::default() },
            stages: vec![
                stage(FileSystem::Ext4, runs),
                stage(
                    FileSystem::Scale,
                    vec![
                        sized(Way::OursCopy, 1000, 0.1),
                        sized(Way::OursCopy, 10_000, 2.0),
                        sized(Way::LimitCopy, 1000, 0.1),
                        sized(Way::LimitCopy, 10_000, 1.8),
                    ],
                ),
            ],
            notes: vec!["A note.".to_owned()],
            ..Results::default()
        };
        let text = render(&results);
        for expected in [
            "2 rounds",
            "3 store paths, 1,000 entries",
            "| way                                   | wall, s | quartiles |        ours ÷ it | user, s | system, s | peak, MiB |",
            "| **export-profile --link-mode copy**   |    2.00 | 1.50–2.50 |                – |    0.50 |      1.00 |      10.0 |",
            r"| tar \| tar                            |    4.00 | 4.00–4.00 | 0.50 (0.38–0.62) |    1.00 |      2.00 |      10.0 |",
            "| **export-profile --link-mode copy** |  10,000 |    2.00 | 2.00–2.00 |        200.0 |      10.0 |",
            "`export-profile --link-mode copy` 2.00 (2.00–2.00), the bare loop 1.80 (1.80–1.80). With 10,000 entries the one \
             takes 1.11 (1.11–1.11) of the other's time, within 1.15 of it.",
            "**missed**",
            "- A note.",
        ] {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(squeezed(&text).contains(&squeezed(expected)), "{expected}\n{text}");
        }
    }
}
