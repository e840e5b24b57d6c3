//! What the applets that write a closure can say of it first: `--report`, `--why`, `--sbom`, and the limits.
//! It must never change what is written because of what it finds: it lets it pass, or fails.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use crate::closure::Graph;
use crate::closure::limits::{Limits, Pattern, Size};
use crate::closure::sizes::{EqualFiles, EqualGroup, Sizes};
use crate::failure::{Usage, hinted, shown};
use crate::interrupt::Interrupt;
use crate::report;
use crate::sbom;
use crate::sink::{identical, replace};
use crate::store::query;
use crate::store::{Registration, StoreDirectory, StorePath};

/// Groups of equal files that a report in JSON has: enough to see a pattern, few enough to be read.
const MOST_GROUPS: usize = 100;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Table,
    /// For programs.
    Json,
    /// A page with a picture, for a browser.
    Html,
}

/// What is to be told of a closure, and what it must not be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Analysis")]
pub(super) struct InspectArguments {
    /// Tell what makes it large: each store path with its size, what would go with it, and why it is there.
    #[arg(long, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    report: Option<Format>,

    /// Write the report to PATH instead of stdout.
    #[arg(long, value_name = "PATH", requires = "report")]
    report_file: Option<PathBuf>,

    /// Print the shortest chain of references from the profile to a store path, or to all with that name.
    #[arg(long, value_name = "PATH|NAME")]
    why: Option<String>,

    /// Fail if the NAR sizes together are more than SIZE, such as 200M or 1.5GiB.
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Size>,

    /// Fail if a store path has such a name; `*` stands for any characters, `?` for one: --forbid 'gcc-*'
    #[arg(long, value_name = "NAME-GLOB")]
    forbid: Vec<Pattern>,

    /// Write what is inside to FILE, for scanners, as CycloneDX 1.6 JSON.
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
}

/// A closure, and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Inspected<'a> {
    pub(super) store: &'a StoreDirectory,
    pub(super) registrations: &'a [Registration],
    /// The profiles' store paths.
    pub(super) roots: &'a [StorePath],
    pub(super) jobs: usize,
    pub(super) interrupt: &'a Interrupt,
}

impl InspectArguments {
    /// Whether anything of this needs what Nix has registered.
    pub(super) fn is_wanted(&self) -> bool {
        self.report.is_some()
            || self.why.is_some()
            || self.max_size.is_some()
            || !self.forbid.is_empty()
            || self.sbom.is_some()
    }

    /// The options that print on stdout.
    pub(super) fn printing(&self) -> Vec<&'static str> {
        let report = (self.report.is_some() && self.report_file.is_none()).then_some("--report");
        report.into_iter().chain(self.why.is_some().then_some("--why")).collect()
    }

    /// Tells what is to be told, then holds the limits, then writes the bill of materials and returns it.
    /// The report comes first, since it is wanted most where a limit is broken.
    pub(super) fn run(&self, inspected: Inspected<'_>) -> anyhow::Result<Option<String>> {
        let Inspected { store, registrations, roots, .. } = inspected;
        let graph = Graph::new(registrations, roots);
        if let Some(format) = self.report {
            let text = report_text(format, &graph, inspected)?;
            match &self.report_file {
                Some(path) => replace::write(path, &text)?,
                None => report::data(&text)?,
            }
        }
        if let Some(wanted) = &self.why {
            let found = graph.named(wanted);
            if found.is_empty() {
                let error = anyhow!("nothing in the closure is called `{}`", shown(wanted));
                return Err(hinted(error, "`--report` lists what is in it"));
            }
            report::data(&report::sizes::chains(&graph, store, &found))?;
        }
        let limits = Limits { max_size: self.max_size, forbidden: self.forbid.clone() };
        let violations = limits.check(&graph);
        if !violations.is_empty() {
            let violations: Vec<_> = violations.iter().map(|found| report::sizes::violation(found, &graph)).collect();
            let hint = "a chain says who needs what; `--report` tells the sizes";
            return Err(hinted(anyhow!(violations.join("\n  ")), hint));
        }
        let Some(path) = &self.sbom else { return Ok(None) };
        let bill = sbom::bill(&graph, roots, store, &revisions(&graph, inspected));
        replace::write(path, &bill)?;
        Ok(Some(bill))
    }
}

/// Two of `printing` cannot share stdout.
pub(super) fn only_one(printing: &[&str]) -> Result<(), Usage> {
    match printing {
        [one, other, ..] => Err(Usage(format!(
            "`{one}` and `{other}` would both print on stdout; `--report-file` takes a report elsewhere"
        ))),
        _ => Ok(()),
    }
}

fn report_text(format: Format, graph: &Graph<'_>, inspected: Inspected<'_>) -> anyhow::Result<String> {
    let Inspected { store, registrations, jobs, interrupt, .. } = inspected;
    let paths: Vec<_> = registrations.iter().map(|read| read.path.clone()).collect();
    let equal = equal_files(&identical::find(store, &paths, jobs, interrupt)?);
    let sizes = Sizes::new(graph, store, equal);
    match format {
        Format::Table => Ok(report::sizes::table(&sizes)),
        Format::Json => report::to_json(&sizes),
        Format::Html => Ok(report::treemap::page(&sizes)),
    }
}

fn equal_files(groups: &[identical::Group]) -> EqualFiles {
    // An empty file costs nothing.
    let costly = || groups.iter().filter(|group| group.saves() > 0);
    let named = |group: &identical::Group| EqualGroup {
        size: group.size,
        bytes: group.saves(),
        files: group.files.iter().map(|name| shown(OsStr::from_bytes(name))).collect(),
    };
    EqualFiles {
        files: costly().map(|group| group.files.len() as u64 - 1).sum(),
        bytes: costly().map(identical::Group::saves).sum(),
        groups: costly().take(MOST_GROUPS).map(named).collect(),
    }
}

/// The commits of nixpkgs that the profiles have written down, for what was installed and all that it needs.
fn revisions(graph: &Graph<'_>, inspected: Inspected<'_>) -> BTreeMap<StorePath, String> {
    let Inspected { store, roots, .. } = inspected;
    let installed = roots.iter().flat_map(|root| query::nixpkgs_revisions(root, store));
    graph.spread(installed)
}
