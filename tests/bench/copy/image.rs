//! Images: `export-image` beside pipes of `tar`, `openssl` and a compressor that make the same things.
//! It must never let a pipe do less work than an image needs: both digests are computed, and the blob is written.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use crate::closure::{self, Closure};
use crate::command::{Commands, command};
use crate::round::Bench;
use crate::say;
use crate::statistics::quartiles;

/// What a pipe does: the closure as tar, its digest, compressed, the digest of that, and both in a file.
const PIPE: &str = "set -euo pipefail
tar --create --directory / --files-from list --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner |
  tee >(openssl dgst -sha256 >diff-id) | COMPRESSOR | tee blob | openssl dgst -sha256 >digest";

/// Each peer with the options that make ours comparable.
const PEERS: [(&str, &str); 2] = [("zstd -T0 -3 --quiet", "zstd"), ("pigz -6", "gzip")];
/// At most so much of a peer's time, and of its size.
const TIME: f64 = 0.8;
const SIZE: f64 = 1.03;
/// With a cache and one new path, at most so much of the first run.
const WARM: f64 = 0.1;

/// A path of 8 MB that refers to all of the closure.
const CHANGED: &str = "{ top }: derivation {
  name = \"changed\"; system = builtins.currentSystem; builder = \"/bin/bash\"; PATH = \"/usr/bin:/bin\";
  all = builtins.storePath top;
  args = [ \"-euc\" \"mkdir $out; ln -s $all $out/all; cat /usr/bin/* 2>/dev/null | head -c 8000000 >$out/data; exit 0\" ];
}";

/// What one comparison found, in every round.
#[derive(Default)]
struct Ratios {
    ours: Vec<f64>,
    peers: Vec<f64>,
    of_each: Vec<f64>,
    size: f64,
}

/// Times all of it `rounds` times, and returns a table in Markdown.
pub(crate) fn measure(bench: &Bench<'_>, closure: &Closure, output: &Path, rounds: usize) -> anyhow::Result<String> {
    let place = output.join("images");
    let _ = fs_err::remove_dir_all(&place);
    fs_err::create_dir_all(&place)?;
    let relative: Vec<_> = closure.paths.iter().map(|path| path.to_string_lossy()[1..].to_owned()).collect();
    fs_err::write(place.join("list"), relative.join("\n"))?;
    fs_err::write(place.join("changed.nix"), CHANGED)?;
    let mut build = command("nix-build", ["--no-out-link"]);
    build.arg(place.join("changed.nix")).arg("--argstr").arg("top").arg(&closure.top);
    let changed = bench.commands.run(&mut build)?.trim().to_owned();
    closure::read(&closure.files, bench.cores)?;

    let mut peers: Vec<Ratios> = PEERS.iter().map(|_| Ratios::default()).collect();
    let mut warm = Ratios::default();
    let export = |name: &str, profile: &Path, compression: &str, cache: bool| -> anyhow::Result<f64> {
        let mut ours = std::process::Command::new(&bench.nixkit);
        ours.args(["export-image", "--quiet", "--compression", compression, "--profile"]).arg(profile);
        if cache {
            ours.arg("--cache").arg(place.join("cache"));
        }
        timed(bench.commands, ours.arg(place.join(name)))
    };
    for round in 0..rounds {
        say(&format!("images: round {} of {rounds}", round + 1));
        for ((compressor, compression), ratios) in PEERS.iter().zip(&mut peers) {
            let mut pipe = command("bash", ["-c", &PIPE.replace("COMPRESSOR", compressor)]);
            let mut times = [0.0; 2];
            // Whoever is first in one round is second in the next.
            for turn in [round % 2, 1 - round % 2] {
                times[turn] = if turn == 0 {
                    export("layout", &closure.top, compression, false)?
                } else {
                    timed(bench.commands, pipe.current_dir(&place))?
                };
            }
            ratios.ours.push(times[0]);
            ratios.peers.push(times[1]);
            ratios.of_each.push(times[0] / times[1]);
            ratios.size = size(&place.join("layout/blobs/sha256"))? / size(&place.join("blob"))?;
            fs_err::remove_dir_all(place.join("layout"))?;
        }
        let first = export("first", &closure.top, "gzip", true)?;
        let again = export("again", Path::new(&changed), "gzip", true)?;
        warm.ours.push(again);
        warm.peers.push(first);
        warm.of_each.push(again / first);
        for name in ["first", "again", "cache"] {
            fs_err::remove_dir_all(place.join(name))?;
        }
    }
    fs_err::remove_dir_all(&place)?;

    let mut text = format!(
        "# Images\n\n{} store paths, {} MB, {} cores, {rounds} rounds. Seconds are medians, ratios medians of the rounds' \
         ratios.\n\n| ours | beside | ours | other | ratio | target | size | target |\n|---|---|---|---|---|---|---|---|\n",
        closure.facts.paths,
        closure.facts.bytes / 1_000_000,
        bench.cores
    );
    for ((compressor, compression), ratios) in PEERS.iter().zip(&peers) {
        let other = format!("pipe with `{compressor}`");
        row(&mut text, &format!("`--compression {compression}`"), &other, ratios, TIME, Some(SIZE));
    }
    row(&mut text, "warm `--cache`, one new path", "the first run", &warm, WARM, None);
    Ok(text)
}

fn row(text: &mut String, ours: &str, other: &str, ratios: &Ratios, time: f64, size: Option<f64>) {
    let median = |values: &[f64]| quartiles(values).map_or(f64::NAN, |quartiles| quartiles.median);
    let verdict = |value: f64, target: f64| if value <= target { "met" } else { "missed" };
    let ratio = median(&ratios.of_each);
    let size = size.map_or(" | ".to_owned(), |target| {
        format!("{:.3} | at most {target}: {}", ratios.size, verdict(ratios.size, target))
    });
    let _ = writeln!(
        text,
        "| {ours} | {other} | {:.2} s | {:.2} s | {ratio:.3} | at most {time}: {} | {size} |",
        median(&ratios.ours),
        median(&ratios.peers),
        verdict(ratio, time),
    );
}

fn timed(commands: &Commands, run: &mut std::process::Command) -> anyhow::Result<f64> {
    // What the last run wrote is not this one's business.
    commands.run(&mut command::<[&str; 0]>("sync", []))?;
    let begin = Instant::now();
    commands.run(run)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Bytes of a file, or of all files in a folder.
fn size(path: &Path) -> anyhow::Result<f64> {
    let metadata = fs_err::metadata(path)?;
    let mut bytes = if metadata.is_file() { metadata.len() } else { 0 };
    if metadata.is_dir() {
        for entry in fs_err::read_dir(path)? {
            bytes += entry?.metadata()?.len();
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes")]
    Ok(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_the_targets_are_met() {
        let ratios = |ratio: f64| Ratios { ours: vec![ratio], peers: vec![1.0], of_each: vec![ratio], size: 1.02 };
        let mut text = String::new();
        row(&mut text, "a", "b", &ratios(0.5), TIME, Some(SIZE));
        row(&mut text, "a", "b", &ratios(0.9), TIME, None);
        assert_eq!(
            text,
            "| a | b | 0.50 s | 1.00 s | 0.500 | at most 0.8: met | 1.020 | at most 1.03: met |\n\
             | a | b | 0.90 s | 1.00 s | 0.900 | at most 0.8: missed |  |  |\n"
        );
    }
}
