//! The report as a bar chart, an SVG that reads well on light and dark pages.
//! It must never need a script or a font that may be missing, nor tell ours from the rest by colour alone.

use crate::markdown::{seconds, thousands};
use crate::results::{Results, Stage, as_f64};
use crate::ways::{FileSystem, Way};

const WIDTH: f64 = 880.0;
const MARGIN: f64 = 24.0;
/// Where bars begin, right of their labels.
const LABELS: f64 = 330.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
/// Room for the number at the end of a bar.
const NUMBER: f64 = 70.0;

const STYLE: &str = "
    .page { fill: #ffffff; stroke: #d1d9e0 }
    text { font: 13px -apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; fill: #1f2328 }
    .title { font-size: 17px; font-weight: 600 }
    .system { font-size: 14px; font-weight: 600 }
    .quiet { fill: #59636e; font-size: 12px }
    .name { text-anchor: end }
    .ours { font-weight: 700 }
    .bar { fill: #afb8c1 }
    .bar.ours { fill: #0969da; stroke: #0a3069; stroke-width: 1.5 }
    .bar.limit { fill: none; stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 2 }
    .line { stroke: #d1d9e0 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #3d444d }
      text { fill: #f0f6fc }
      .quiet { fill: #9198a1 }
      .bar { fill: #656c76 }
      .bar.ours { fill: #4493f8; stroke: #a5d6ff }
      .bar.limit { fill: none; stroke: #9198a1 }
      .line { stroke: #3d444d }
    }
";

/// The chart.
pub(crate) fn render(results: &Results) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 14.0;
    body += &text("title", MARGIN, y, "Seconds to get a closure out of a Nix store");
    y += 21.0;
    let facts = &results.closure;
    let closure = format!(
        "{} store paths, {} entries, {:.2} GB; medians, shorter is better; ours in bold",
        thousands(facts.paths),
        thousands(facts.entries()),
        as_f64(facts.bytes) / 1e9,
    );
    body += &text("quiet", MARGIN, y, &closure);
    let machine = |name: &str| results.machine.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let machine: Vec<_> = ["CPU", "memory", "kernel"].into_iter().filter_map(machine).collect();
    y += 17.0;
    body += &text("quiet", MARGIN, y, &machine.join(", "));
    y += 8.0;
    for stage in results.stages.iter().filter(|stage| stage.file_system != FileSystem::Scale) {
        body += &panel(stage, &mut y);
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n  <title>Seconds to get a closure out of a Nix store</title>\n  \
         <style>{STYLE}  </style>\n  <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n{body}</svg>\n",
        WIDTH - 1.0,
        height - 1.0,
    )
}

/// One file system, the quickest way of each kind first.
fn panel(stage: &Stage, y: &mut f64) -> String {
    let shown = |way: &Way| !matches!(way, Way::OursVerify | Way::Openssl);
    let time = |way: Way| Some((way, stage.medians(way)?.seconds));
    let mut bars: Vec<(Way, f64)> = stage.ways().into_iter().filter(shown).filter_map(time).collect();
    let kind = |way: Way| way.kind(stage.file_system);
    bars.sort_by(|(way, seconds), (other, others)| kind(*way).cmp(&kind(*other)).then(seconds.total_cmp(others)));
    let longest = bars.iter().map(|(_, seconds)| *seconds).fold(f64::MIN_POSITIVE, f64::max);
    *y += 28.0;
    let mut body = text("system", MARGIN, *y, stage.file_system.label());
    *y += 10.0;
    let mut last = None;
    for (way, time) in bars {
        // A little room between links, reflinks and copies.
        if last.is_some_and(|last| last != kind(way)) {
            *y += 5.0;
            let end = WIDTH - MARGIN;
            body += &format!("  <path class=\"line\" d=\"M{MARGIN} {:.1}H{end:.1}\"/>\n", *y);
            *y += 5.0;
        }
        last = Some(kind(way));
        let class = if way.is_ours() {
            " ours"
        } else if way.is_limit() {
            " limit"
        } else {
            ""
        };
        let width = (time / longest * (WIDTH - MARGIN - NUMBER - LABELS)).max(2.0);
        let (top, base) = (*y + (ROW - BAR) / 2.0, *y + ROW / 2.0 + 4.5);
        body += &text(&format!("name{class}"), LABELS - 10.0, base, way.label());
        body += &format!(
            "  <rect class=\"bar{class}\" x=\"{LABELS}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>\n"
        );
        body += &text(class.trim(), LABELS + width + 8.0, base, &format!("{} s", seconds(time)));
        *y += ROW;
    }
    body
}

fn text(class: &str, x: f64, y: f64, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("  <text{class} x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{run, stage};

    #[test]
    fn every_way_has_a_bar_in_proportion_to_its_time() {
        let runs = vec![run(0, 0, Way::Cp, 4.0), run(0, 0, Way::OursCopy, 1.0), run(0, 1, Way::LimitHardlink, 0.1)];
        let machine = vec![("CPU".to_owned(), "A & B <fast>".to_owned())];
        let results = Results { stages: vec![stage(FileSystem::Ext4, runs)], machine, ..Results::default() };
        let svg = render(&results);
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("class=\"bar"))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 3);
        assert!((widths[2] / widths[1] - 4.0).abs() < 0.01 && (widths[1] / widths[0] - 10.0).abs() < 0.2, "{widths:?}");
        assert!(svg.contains("A &amp; B &lt;fast&gt;") && svg.contains("class=\"name ours\""), "{svg}");
        assert!(!svg.contains("script") && svg.matches("<text").count() == svg.matches("</text>").count());
    }

    #[test]
    fn nothing_measured_is_an_empty_chart() {
        assert!(render(&Results::default()).ends_with("</svg>\n"));
    }
}
