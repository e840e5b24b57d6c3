//! `update-images`: finds the updates of nixpkgs' channels that have no image, and makes one for each.
//! It must never let what is wrong with one channel or job keep it from the others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};

use crate::call::{Program, Tries};
use crate::channel::source::Source;
use crate::channel::{Channel, Commit, Heads, Unselected, Update, release_of, select, updates, window};
use crate::failure::{Interrupted, Usage, hinted, shown};
use crate::input;
use crate::interrupt::Interrupt;
use crate::registry::skopeo::Skopeo;
use crate::report::{Level, Voice};
use crate::update::config::{Config, System};
use crate::update::credentials;
use crate::update::judge::{Job, Wanted, judge};
use crate::update::publish::Publisher;
use crate::update::receipt::{Problem, Receipt};
use crate::update::recipe::Recipe;
use crate::update::scratch::Scratch;
use crate::update::survey::Survey;

const NAME: &str = "update-images";
/// The settings, in the recipe's folder.
const SETTINGS: &str = "channels.toml";

/// Build, test and push a base image for every update of nixpkgs' channels that has none, and rebuild the newest of
/// each channel when the recipe has changed.
///
/// `channels.toml` says which channels, for which systems, and where the images go. Nothing is ever deleted, no
/// tag moves to an older commit, and a run that ends half-way is finished by the next.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// The folder with the programs that make an image: `build`, `test` and `input-hash`.
    #[arg(long, value_name = "DIR", default_value = "image")]
    recipe: PathBuf,

    /// The settings. [default: `channels.toml` in the recipe's folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Only this channel; repeatable.
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<Channel>,

    /// Only this commit. With one `--channel` it may be any commit, also one that is none of its updates.
    #[arg(long, value_name = "COMMIT")]
    commit: Option<Commit>,

    /// Build the images of this system here, whatever this machine is; repeatable. [default: this machine's]
    #[arg(long = "system", value_name = "SYSTEM", value_parser = system)]
    systems: Vec<System>,

    /// A static nixkit for the system that is built, instead of building it from the recipe's source. The input
    /// hash does not cover it.
    #[arg(long, value_name = "BIN")]
    toolkit: Option<PathBuf>,

    /// Print the jobs as a table, and do none.
    #[arg(long)]
    dry_run: bool,

    /// Print the jobs as the matrix of a CI, one for each image, and do none.
    #[arg(long, conflicts_with_all = ["dry_run", "json"])]
    matrix: bool,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    /// How long to wait before a second try over the network; before the third it is three times as long.
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    retry_pause: u16,

    /// Say nothing but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say what is decided and why.
    #[arg(short, long)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Environment:
  REGISTRY_AUTH_FILE
          The file with the registry's credentials, as `skopeo login` writes it
  REGISTRY_USER, REGISTRY_PASSWORD
          The credentials themselves
  CI_REGISTRY, CI_REGISTRY_USER, CI_REGISTRY_PASSWORD
          GitLab's, used if none of the others is set and the registry is CI_REGISTRY

Examples:
  update-images --dry-run
          What there is to do
  update-images
          Do it, as far as this machine's system goes
  update-images --channel nixos-26.05 --commit COMMIT
          Make one image by hand

Exit status: 0 done, 1 something failed or was left alone, 2 usage, 128+n ended by signal n.";

impl Arguments {
    /// Rejects options that need another one.
    fn check(&self) -> Result<(), Usage> {
        if self.commit.is_some() && self.channels.len() != 1 {
            return Err(Usage("`--commit` needs one `--channel`: the same commit may be in several".into()));
        }
        if self.toolkit.is_some() && self.systems_here().len() != 1 {
            return Err(Usage("`--toolkit` needs one `--system`: the program runs on one system only".into()));
        }
        Ok(())
    }

    /// The systems whose images are built on this machine: those of `--system`, or this machine's.
    fn systems_here(&self) -> Vec<System> {
        if self.systems.is_empty() {
            System::of_machine(std::env::consts::ARCH).into_iter().collect()
        } else {
            self.systems.clone()
        }
    }
}

fn system(name: &str) -> Result<System, String> {
    System::new(name).ok_or_else(|| "there are images for x86_64-linux and aarch64-linux".to_owned())
}

/// What it understands.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let arguments = Arguments::try_parse_from(argv)?;
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    };
    let interrupt = Interrupt::install()?;
    let scratch = Scratch::create(&std::env::temp_dir())?;
    let done = work(&arguments, Voice { name: NAME, level }, &interrupt, scratch.path());
    let path = shown(scratch.path());
    let removed = scratch.remove().with_context(|| format!("cannot remove `{path}`"));
    done.and_then(|status| removed.map(|()| status))
}

fn work(arguments: &Arguments, voice: Voice, interrupt: &Interrupt, scratch: &Path) -> anyhow::Result<u8> {
    let started = Instant::now();
    let updater = Updater::new(arguments, voice, interrupt, scratch)?;
    let mut receipt =
        Receipt { channels: Vec::new(), jobs: Vec::new(), problems: Vec::new(), notes: Vec::new(), seconds: 0.0 };
    let plans = updater.plan(&mut receipt)?;
    if arguments.dry_run || arguments.matrix {
        let jobs: Vec<Job> = plans.iter().flat_map(|plan| plan.jobs.clone()).collect();
        if arguments.matrix {
            voice.matrix(&jobs, &updater.offered_systems())?;
        } else {
            voice.jobs(&jobs, &updater.here, arguments.json)?;
        }
    }
    let mut interrupted = None;
    if !arguments.dry_run && !arguments.matrix {
        interrupted = updater.publish(&plans, &mut receipt);
    }
    receipt.seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    voice.updated(&receipt, arguments.json && !arguments.dry_run)?;
    match interrupted {
        // What was done before stands in the receipt, so it is not "nothing was written".
        Some(Interrupted { signal }) => Ok(u8::try_from(128 + signal).unwrap_or(1)),
        None => Ok(u8::from(!receipt.is_good())),
    }
}

/// Everything that is known before the first question is asked.
struct Updater<'a> {
    arguments: &'a Arguments,
    voice: Voice,
    config: Config,
    source: Source,
    skopeo: Skopeo,
    recipe: Recipe,
    /// The systems that are built on this machine.
    here: Vec<System>,
    scratch: &'a Path,
}

/// What is to be done for a channel.
struct Plan {
    channel: Channel,
    updates: Vec<Update>,
    inputs: BTreeMap<System, String>,
    jobs: Vec<Job>,
}

impl<'a> Updater<'a> {
    fn new(arguments: &'a Arguments, voice: Voice, interrupt: &Interrupt, scratch: &'a Path) -> anyhow::Result<Self> {
        arguments.check()?;
        let file = arguments.config.clone().unwrap_or_else(|| arguments.recipe.join(SETTINGS));
        let text = input::read_text(&file, input::LIMIT).map_err(|error| {
            hinted(error, "run this in a checkout, or name the settings with `--config` and the recipe with `--recipe`")
        })?;
        let config = Config::parse(&text).with_context(|| format!("cannot understand `{}`", shown(&file)))?;
        let here = arguments.systems_here();
        if let Some(system) = arguments.systems.iter().find(|system| !config.systems.contains(system)) {
            return Err(Usage(format!("`{system}` is none of `systems` in `{}`", shown(&file))).into());
        }
        let tries = Tries { pause: Duration::from_secs(arguments.retry_pause.into()), interrupt: interrupt.clone() };
        let find = |name: &str| {
            let hint = format!("install {name}, for instance with `nix-shell -p {name}` or `apt-get install {name}`");
            Program::find(name, &hint, interrupt.clone())
        };
        let curl = config.releases.is_some().then(|| find("curl")).transpose()?;
        let source = Source { git: find("git")?, curl, tries: tries.clone() };
        let auth_file = credentials::auth_file(|name| std::env::var_os(name), &config.registry, scratch)?;
        let skopeo = Skopeo { program: find("skopeo")?, tries, tls_verify: config.tls_verify, auth_file };
        let recipe = Recipe::find(&arguments.recipe, &config, arguments.toolkit.clone(), interrupt)?;
        Ok(Self { arguments, voice, config, source, skopeo, recipe, here, scratch })
    }

    /// The systems on which jobs may run that need no particular one.
    fn offered_systems(&self) -> Vec<System> {
        if self.arguments.systems.is_empty() { self.config.systems.clone() } else { self.arguments.systems.clone() }
    }

    /// Finds the channels and judges each.
    fn plan(&self, receipt: &mut Receipt) -> anyhow::Result<Vec<Plan>> {
        let heads = match self.source.heads(&self.config.source) {
            Ok(heads) => heads,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // Without the branches there is no channel, and the run is reported like any other.
            Err(error) => {
                receipt.problems.push(Problem { channel: None, reason: format!("{error:#}") });
                return Ok(Vec::new());
            }
        };
        let mut plans = Vec::new();
        for channel in self.select(&heads, receipt)? {
            receipt.channels.push(channel.clone());
            match self.plan_channel(&channel, &heads, receipt) {
                Ok(plan) => plans.push(plan),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    receipt.problems.push(Problem { channel: Some(channel), reason: format!("{error:#}") });
                }
            }
        }
        Ok(plans)
    }

    fn select(&self, heads: &Heads, receipt: &mut Receipt) -> anyhow::Result<Vec<Channel>> {
        let (selected, others) = select(heads, &self.config.selection);
        let asked = &self.arguments.channels;
        for other in others {
            match other {
                Unselected::Frozen(channel) => {
                    self.voice.decision(&format!("{channel} is frozen: newer ones are selected"));
                }
                Unselected::Missing(channel) if asked.is_empty() || asked.contains(&channel) => {
                    let reason = format!("`{}` has no such branch", self.config.source);
                    receipt.problems.push(Problem { channel: Some(channel), reason });
                }
                Unselected::Missing(_) => {}
            }
        }
        if asked.is_empty() {
            if selected.is_empty() && receipt.problems.is_empty() {
                let reason = format!("`{}` has none of the channels that are selected", self.config.source);
                receipt.problems.push(Problem { channel: None, reason });
            }
            return Ok(selected);
        }
        let unselected = |channel: &&Channel| {
            !selected.contains(channel)
                && !receipt.problems.iter().any(|problem| problem.channel.as_ref() == Some(channel))
        };
        if let Some(channel) = asked.iter().find(unselected) {
            return Err(hinted(
                anyhow!("`{channel}` is not selected"),
                "the settings name channels that get images: add it to `extra`",
            ));
        }
        Ok(selected.into_iter().filter(|channel| asked.contains(channel)).collect())
    }

    fn plan_channel(&self, channel: &Channel, heads: &Heads, receipt: &mut Receipt) -> anyhow::Result<Plan> {
        let head = heads.get(channel).context("it has no branch")?;
        let updates = self.updates_of(channel, head, receipt)?;
        self.voice.decision(&format!("{channel} is at {}, {} updates are held", head.short(), updates.len()));
        let newest = updates.last().context("it has no update")?;
        let mut inputs = BTreeMap::new();
        for &system in &self.config.systems {
            inputs.insert(system, self.recipe.inputs(newest, system)?);
        }
        let wanted = Wanted { systems: &self.config.systems, inputs: &inputs };
        let repository = self.config.repository(channel);
        let survey = Survey { skopeo: &self.skopeo, repository: &repository, wanted };
        let state = survey.channel(&updates)?;
        let (mut jobs, problems) = judge(channel, &updates, &state, &survey.wanted);
        if let Some(commit) = &self.arguments.commit {
            jobs.retain(|job| job.update.commit == *commit);
        }
        if !self.arguments.systems.is_empty() {
            // A job that builds nothing may be done anywhere.
            jobs.retain(|job| job.builds.is_empty() || job.builds.iter().any(|(system, _)| self.here.contains(system)));
            if self.arguments.matrix {
                for job in &mut jobs {
                    job.builds.retain(|(system, _)| self.here.contains(system));
                }
            }
        }
        receipt.problems.extend(problems.into_iter().map(|reason| Problem { channel: Some(channel.clone()), reason }));
        Ok(Plan { channel: channel.clone(), updates, inputs, jobs })
    }

    /// The updates that shall have images, oldest first, with one that was named by hand before them.
    fn updates_of(&self, channel: &Channel, head: &Commit, receipt: &mut Receipt) -> anyhow::Result<Vec<Update>> {
        let mut known = Vec::new();
        let mut past = Vec::new();
        if let Some(base) = &self.config.releases {
            let listed = self.source.releases(base, channel)?;
            known = listed.iter().map(|(_, release)| release.clone()).collect::<Vec<_>>();
            if known.is_empty() {
                receipt.notes.push(format!("{channel}: `{base}` lists no release of it, so no past update is known"));
            }
            for release in window(&known, head, self.config.history) {
                let found = listed.iter().find(|(_, listed)| listed == release).context("a release is lost")?;
                past.push((release.clone(), self.source.revision(base, channel, found)?));
            }
        }
        let mut updates = updates(head, &past);
        let is_other = |commit: &&Commit| updates.iter().all(|update| update.commit != **commit);
        if let Some(commit) = self.arguments.commit.as_ref().filter(is_other) {
            self.voice.decision(&format!("{} is none of the updates of {channel} that are held", commit.short()));
            updates.insert(0, Update { commit: commit.clone(), release: release_of(commit, &known) });
        }
        Ok(updates)
    }

    /// Does the jobs, the newest commit of each channel first. Returns the signal that ended it.
    fn publish(&self, plans: &[Plan], receipt: &mut Receipt) -> Option<Interrupted> {
        let mut jobs: Vec<(&Plan, &Job)> =
            plans.iter().flat_map(|plan| plan.jobs.iter().map(move |job| (plan, job))).collect();
        jobs.sort_by_key(|(_, job)| !job.newest);
        for (plan, job) in jobs {
            let wanted = Wanted { systems: &self.config.systems, inputs: &plan.inputs };
            let repository = self.config.repository(&plan.channel);
            let survey = Survey { skopeo: &self.skopeo, repository: &repository, wanted };
            let publisher = Publisher {
                survey: &survey,
                recipe: &self.recipe,
                updates: &plan.updates,
                here: &self.here,
                scratch: self.scratch,
            };
            let (done, interrupted) =
                publisher.publish(job, &|text| self.voice.note(text), &mut |chunk| self.voice.pass_on(chunk));
            receipt.jobs.push(done);
            if interrupted.is_some() {
                return interrupted;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&[NAME][..], words].concat())
    }

    #[test]
    fn bad_arguments_are_rejected() {
        assert!(parse(&["--channel", "nixos-26.05;reboot"]).is_err());
        assert!(parse(&["--commit", "main"]).is_err());
        assert!(parse(&["--system", "x86_64-darwin"]).is_err());
        assert!(parse(&["--matrix", "--json"]).is_err());
        assert!(parse(&["--dry-run", "--json", "--channel", "nixos-26.05", "--system", "aarch64-linux"]).is_ok());
    }

    #[test]
    fn a_commit_needs_its_channel_and_a_toolkit_its_system() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (words, reason) in [
            (&["--commit", commit][..], Some("`--commit` needs one `--channel`")),
            (&["--commit", commit, "--channel", "nixos-26.05"], None),
            (
                &["--commit", commit, "--channel", "nixos-26.05", "--channel", "nixos-25.11"],
                Some("needs one `--channel`"),
            ),
            (&["--toolkit", "x"], None),
            (&["--toolkit", "x", "--system", "aarch64-linux"], None),
            (
                &["--toolkit", "x", "--system", "aarch64-linux", "--system", "x86_64-linux"],
                Some("needs one `--system`"),
            ),
        ] {
            let checked = parse(words).unwrap().check();
            match reason {
                None => assert!(checked.is_ok(), "{words:?}"),
                Some(reason) => assert!(checked.unwrap_err().0.contains(reason), "{words:?}"),
            }
        }
    }
}
