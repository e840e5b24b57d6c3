//! The benchmark of the closure copy: `make bench` runs it, as root in a mount namespace of its own.
//! It must never leave a mount, a loop device or an image behind, nor write outside of its output folder.
//!
//! ```text
//! debian ──▶ closure ──▶ stage ──▶ round ──▶ results ──▶ verdict ──▶ markdown, chart
//!  pick       build      mkfs      time       numbers     judge        print
//! ```
//!
//! `tests/bench/README.md` says how it measures, and why so.
#![forbid(unsafe_code)]

mod chart;
mod closure;
mod command;
mod debian;
mod image;
mod machine;
mod markdown;
mod results;
mod round;
mod scale;
mod session;
mod stage;
mod statistics;
mod verdict;
mod ways;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nixkit::failure::Interrupted;

use crate::results::Results;
use crate::ways::FileSystem;

/// Time every way to get a closure out of a Nix store, side by side
#[derive(Parser)]
#[command(name = "bench")]
pub(crate) struct Arguments {
    /// A small closure and few rounds, in less than two minutes
    #[arg(long)]
    pub(crate) quick: bool,

    /// How many rounds, each on a fresh file system [default: 9, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,

    /// Which of them, separated by commas
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = FileSystem::ALL)]
    pub(crate) file_systems: Vec<FileSystem>,

    /// Copy the closure of this store path instead of the benchmark's own
    #[arg(long, value_name = "STORE_PATH")]
    pub(crate) closure: Option<PathBuf>,

    /// Where the results go, and the store and the images while it runs
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) output: PathBuf,

    /// Time export-image against pipes that make the same things, instead of copies
    #[arg(long, conflicts_with_all = ["file_systems", "report"])]
    pub(crate) images: bool,

    /// Measure nothing; report what an earlier run wrote, or several, each with file systems of its own
    #[arg(long, value_name = "RESULTS.json")]
    pub(crate) report: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let interrupted = error.downcast_ref::<Interrupted>().map(|interrupted| interrupted.signal);
            let text = interrupted.map_or_else(|| format!("error: {error:#}"), |_| "interrupted".to_owned());
            say(&text);
            ExitCode::from(interrupted.and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(1))
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.images {
        let text = session::measure_images(arguments)?;
        write(&arguments.output.join("images.md"), text.as_bytes())?;
        return print(&text);
    }
    let earlier = arguments.report.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let results = match earlier.into_iter().map(Ok).reduce(|first, second| first?.with(second?)) {
        Some(results) => results?,
        None => session::measure(arguments, &|results| save(results, &arguments.output).map(drop))?,
    };
    let text = save(&results, &arguments.output)?;
    say(&format!("wrote results.md, results.json and results.svg in `{}`", arguments.output.display()));
    print(&text)
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader that has gone away has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> anyhow::Result<Results> {
    serde_json::from_slice(&fs_err::read(file)?)
        .with_context(|| format!("`{}` holds no results of this benchmark", file.display()))
}

/// Writes the three forms of the results, and returns the Markdown.
fn save(results: &Results, output: &Path) -> anyhow::Result<String> {
    let text = markdown::render(results);
    let file = |name: &str| output.join(name);
    fs_err::create_dir_all(output)?;
    write(&file("results.json"), &serde_json::to_vec_pretty(results)?)?;
    write(&file("results.md"), text.as_bytes())?;
    write(&file("results.svg"), chart::render(results).as_bytes())?;
    Ok(text)
}

/// Writes `file` all at once.
pub(crate) fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs_err::write(&new, content)?;
    Ok(fs_err::rename(new, file)?)
}

/// Progress, for whoever waits.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}
