//! `export-profile`: copies a profile and its closure into a root for the next stage of a Dockerfile.
//! It must never leave a root behind that is not complete.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Parser;
use indicatif::DecimalBytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use crate::failure::{Usage, hinted, shown};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::{DryRun, Level, Voice};
use crate::root::{self, NamedTree, Plan};
use crate::sink::directory::{Copying, copy_store_paths};
use crate::sink::draft::{Draft, remove_left_overs};
use crate::sink::link::LinkMode;
use crate::sink::mounts::Mounts;
use crate::sink::receipt::{BesideStore, ExportedProfile, Receipt, Tally};
use crate::sink::target::Target;
use crate::sink::{is_out_of_space, verify};
use crate::store::query::{self, Environment, NixStore, Profile, Wanted};
use crate::store::{StoreDirectory, StorePath};

const NAME: &str = "export-profile";
/// A thread holds the two sides of a directory and of a file, and of a path too long for one call a step more.
const DESCRIPTORS_PER_JOB: u64 = 6;
/// What is open beside the threads' files: standard streams, store, root, lock, a large directory cut into tasks.
const OTHER_DESCRIPTORS: u64 = 32;
/// More threads than any machine has cores: a larger number is a slip of the hand.
const MOST_JOBS: i64 = 1024;

/// Copy a Nix profile and its closure into ROOT, the root directory of a container image.
///
/// ROOT gets every store path that the profile needs, a link to the profile at `/run/profile`, and, where
/// the profile has them, `/etc`, `/bin/sh` and `/usr/bin/env`. It appears complete or not at all.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Where to export to: a directory that is empty or does not exist.
    #[arg(required_unless_present = "dry_run")]
    root: Option<PathBuf>,

    /// A profile of `nix-env` or `nix profile`, a `./result` link, or a store path. With several, the one
    /// named first wins where both have a file. [default: the first of `$NIX_PROFILE`, `~/.nix-profile`,
    /// `$XDG_STATE_HOME/nix/profile` and `/nix/var/nix/profiles/default` that exists]
    #[arg(long = "profile", value_name = "PATH")]
    profiles: Vec<PathBuf>,

    /// Where in ROOT the link to the profile goes.
    #[arg(long, value_name = "PATH", default_value = root::PROFILE_PATH, conflicts_with = "store_only")]
    profile_path: PathBuf,

    /// Write the store and nothing else, for a base image other than `scratch`.
    #[arg(long)]
    store_only: bool,

    /// How files get into ROOT: `auto` makes hard links and copies what cannot be linked; the other modes
    /// never fall back. Hard links share their inodes with the store: never change such a file in place.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    link_mode: LinkMode,

    /// How many threads work. [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_JOBS))]
    jobs: Option<u16>,

    /// Recompute every path's NAR hash from ROOT and compare it with the registered one.
    #[arg(long)]
    verify: bool,

    /// Write all to the disk before ROOT appears, against a loss of power.
    #[arg(long)]
    sync: bool,

    /// Print which store paths would be exported, with their NAR sizes, and write nothing.
    #[arg(long, conflicts_with_all = ["verify", "sync"])]
    dry_run: bool,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    /// Say nothing but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say what is decided and why.
    #[arg(short, long)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  export-profile /dist
          In a Dockerfile, after `nix-env -iA …` in the same RUN; then, in the next stage,
          FROM scratch, COPY --from=build /dist / and ENV PATH=/run/profile/bin
  export-profile --profile ./result --store-only /dist
          For a base image that has a root of its own
  export-profile --dry-run
          What is in it, and how large

Exit status: 0 done, 1 failed (nothing was written), 2 usage, 128+n ended by signal n.";

/// What the words on the command line and the environment mean.
struct Request {
    root: Option<PathBuf>,
    profiles: Vec<PathBuf>,
    /// Relative to the root; `None` for the store alone.
    profile_path: Option<PathBuf>,
    store: StoreDirectory,
    environment: Environment,
    /// Seconds since 1970 for what is made beside the store.
    time: i64,
    jobs: usize,
    flags: Flags,
}

/// What means what it says.
struct Flags {
    link_mode: LinkMode,
    verify: bool,
    sync: bool,
    dry_run: bool,
    json: bool,
}

impl Request {
    fn new(arguments: Arguments, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let store = set("NIX_STORE_DIR").or_else(|| set("NIX_STORE")).unwrap_or_else(|| "/nix/store".into());
        let store = StoreDirectory::new(Path::new(&store)).ok_or_else(|| {
            anyhow!("`{}` (NIX_STORE_DIR or NIX_STORE) is no store directory: it is not absolute", shown(&store))
        })?;
        let profile_path =
            if arguments.store_only { None } else { Some(root::profile_path(&arguments.profile_path, &store)?) };
        let root = arguments.root;
        if root.as_ref().is_some_and(|root| root.as_os_str().is_empty()) {
            return Err(Usage("ROOT is empty".into()).into());
        }
        let environment = Environment {
            nix_profile: variable("NIX_PROFILE"),
            home: set("HOME").or_else(home_of_this_user),
            xdg_state_home: variable("XDG_STATE_HOME"),
        };
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            root,
            profiles: arguments.profiles,
            profile_path,
            store,
            environment,
            time: source_date_epoch(set("SOURCE_DATE_EPOCH").as_deref())?,
            jobs: arguments.jobs.map_or_else(cores, usize::from),
            flags: Flags {
                link_mode: arguments.link_mode,
                verify: arguments.verify,
                sync: arguments.sync,
                dry_run: arguments.dry_run,
                json: arguments.json,
            },
        })
    }
}

/// Where no `HOME` is set, as in many containers. As Nix does, but without the C library's modules.
fn home_of_this_user() -> Option<OsString> {
    let passwd = fs_err::read_to_string("/etc/passwd").ok()?;
    query::home_of(geteuid().as_raw(), &passwd).map(Into::into)
}

/// The time of what is made beside the store: `SOURCE_DATE_EPOCH` (reproducible-builds.org), else Nix's 1.
fn source_date_epoch(value: Option<&OsStr>) -> anyhow::Result<i64> {
    let Some(value) = value else { return Ok(1) };
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| anyhow!("SOURCE_DATE_EPOCH is `{}`, which is no number of seconds", shown(value)))
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let started = Instant::now();
    let arguments = Arguments::try_parse_from(argv)?;
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    };
    let voice = Voice { name: NAME, level };
    let request = Request::new(arguments, |name| std::env::var_os(name))?;
    // The user's mask is for the user's files: a root is the same whoever makes it.
    umask(Mode::from_bits_truncate(0o022));
    let interrupt = Interrupt::install()?;
    let jobs = affordable_jobs(request.jobs, raise_descriptor_limit());

    let target = request.root.as_deref().map(|root| prepare(root, &request, voice, &interrupt)).transpose()?;
    let nix = NixStore::find(request.store.clone(), interrupt.clone())?;
    let profiles = find_profiles(&request, voice)?;
    let roots: Vec<StorePath> = profiles.iter().map(|profile| profile.path.clone()).collect();
    let closure = nix.closure(&roots)?;
    voice.decision(&format!("the closure has {} store paths", closure.len()));

    let exported: Vec<_> = profiles.iter().map(|profile| exported(profile, &request.store)).collect();
    let Some(target) = target.filter(|_| !request.flags.dry_run) else {
        let registrations = nix.registration(&closure)?;
        voice.dry_run(
            &DryRun { store: &request.store, profiles: &exported, registrations: &registrations },
            request.flags.json,
        )?;
        return Ok(0);
    };
    let (plan, warnings) = plan_root(&request, &profiles, &interrupt)?;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for warning in &warnings {
        voice.warning(warning);
    }

    let job = Job {
        request: &request,
        target: &target,
        nix: &nix,
        closure: &closure,
        plan: &plan,
        jobs,
        interrupt: &interrupt,
    };
    let (tally, beside_store) = job.write(voice).map_err(|error| job.explain(error))?;
    let receipt = Receipt {
        root: shown(&target.root),
        profiles: exported,
        store_paths: closure.len() as u64,
        files: tally.files,
        directories: tally.directories,
        symlinks: tally.symlinks,
        bytes: tally.bytes,
        beside_store,
        hard_linked: tally.hard_linked,
        reflinked: tally.reflinked,
        copied: tally.copied,
        refusals: tally.refusals(),
        verified: request.flags.verify,
        warnings,
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    };
    voice
        .receipt(&receipt, request.flags.json)
        .with_context(|| format!("the export to `{}` is complete, but not its receipt", receipt.root))?;
    Ok(0)
}

/// Lets this process open as many files as it may, and returns how many.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return DESCRIPTORS_PER_JOB };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// As many threads as there are descriptors for, and at least one.
fn affordable_jobs(jobs: usize, descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_JOB;
    jobs.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1)
}

/// Looks at ROOT, and clears away what dead runs left there.
fn prepare(root: &Path, request: &Request, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<Target> {
    let target = Target::inspect(root, &request.store)?;
    if !request.flags.dry_run {
        for stayed in remove_left_overs(&target, interrupt)? {
            voice.warning(&stayed);
        }
    }
    target.check_empty()?;
    if target.is_mount_point {
        voice.decision(&format!("`{}` is a mount point: its entries are renamed into place one by one", shown(root)));
    }
    Ok(target)
}

/// The profiles that the user named, each once, or the default one.
fn find_profiles(request: &Request, voice: Voice) -> anyhow::Result<Vec<Profile>> {
    let mut profiles: Vec<Profile> = Vec::new();
    if request.profiles.is_empty() {
        let candidates = query::default_candidates(&request.environment);
        profiles.push(query::find_default(&candidates, &request.store)?);
    }
    for name in &request.profiles {
        let profile = query::resolve(name, &request.store)?;
        if profiles.iter().all(|other| other.path != profile.path) {
            profiles.push(profile);
        }
    }
    for profile in &profiles {
        voice.decision(&format!("profile `{}` leads to `{}`", shown(&profile.name), profile.path));
    }
    Ok(profiles)
}

fn exported(profile: &Profile, store: &StoreDirectory) -> ExportedProfile {
    ExportedProfile { name: shown(&profile.name), store_path: shown(store.join(&profile.path)) }
}

fn plan_root(
    request: &Request,
    profiles: &[Profile],
    interrupt: &Interrupt,
) -> anyhow::Result<(Plan, Vec<root::Warning>)> {
    let Some(profile_path) = &request.profile_path else {
        return Ok((Plan::store_only(&request.store), Vec::new()));
    };
    let wanted = if profiles.len() == 1 { Wanted::EtcAndShells } else { Wanted::Everything };
    let read = |profile: &Profile| {
        let tree = query::read_tree(&request.store.join(&profile.path), wanted, &request.store, interrupt)
            .with_context(|| format!("cannot read profile `{}`", shown(&profile.name)))?;
        anyhow::Ok(NamedTree { path: profile.path.clone(), tree })
    };
    let trees = profiles.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(root::plan(&trees, profile_path, &request.store)?)
}

/// Everything that writing needs.
struct Job<'a> {
    request: &'a Request,
    target: &'a Target,
    nix: &'a NixStore,
    closure: &'a [StorePath],
    plan: &'a Plan,
    jobs: usize,
    interrupt: &'a Interrupt,
}

impl Job<'_> {
    /// Writes a draft and publishes it, or removes it.
    fn write(&self, voice: Voice) -> anyhow::Result<(Tally, BesideStore)> {
        let draft = Draft::create(self.target)?;
        voice.decision(&format!("writing to `{}`, jobs: {}", shown(draft.path()), self.jobs));
        let (draft, error) = match self.fill(&draft, voice) {
            Ok(counts) => match draft.publish(self.target, self.request.time, self.last_entry()) {
                Ok(()) => return Ok(counts),
                Err(failed) => failed,
            },
            Err(error) => (draft, error),
        };
        let path = shown(draft.path());
        Err(match draft.discard(self.target) {
            Ok(()) => error,
            Err(left) => error.context(format!("cannot remove `{path}` ({left:#}) after a failure")),
        })
    }

    fn fill(&self, draft: &Draft, voice: Voice) -> anyhow::Result<(Tally, BesideStore)> {
        let Request { store, time, flags, .. } = self.request;
        let beside_store = draft.make(self.plan, self.interrupt)?;
        let destination = draft.path().join(store.relative());
        let copying = Copying {
            store,
            paths: self.closure,
            destination: &destination,
            scratch: draft.path(),
            mode: flags.link_mode,
            jobs: self.jobs,
        };
        let progress = Progress::default();
        let tally = voice.with_progress(&progress, self.closure.len(), || {
            let tally = copy_store_paths(&copying, &progress, self.interrupt)?;
            if flags.verify {
                let registrations = self.nix.registration(self.closure)?;
                verify::verify(&destination, &registrations, self.jobs, self.interrupt)?;
            }
            anyhow::Ok(tally)
        })?;
        draft.finish(self.plan, *time)?;
        if flags.sync {
            draft.sync()?;
        }
        self.interrupt.check()?;
        Ok((tally, beside_store))
    }

    /// The root's entry that appears last: where it is there, all is.
    fn last_entry(&self) -> &OsStr {
        let last = self.request.profile_path.as_deref().unwrap_or(self.request.store.relative());
        last.iter().next().unwrap_or_default()
    }

    /// Says of a full disk which one, and how much is needed.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if !is_out_of_space(&error) {
            return error;
        }
        let mounts = Mounts::read();
        let place = mounts.holding(&self.target.drafts).map_or_else(
            || format!("`{}`", shown(&self.target.drafts)),
            |mount| format!("`{}` ({})", shown(&mount.point), mount.file_system),
        );
        let needed = self.nix.registration(self.closure).map_or_else(
            |_| "an unknown amount".to_owned(),
            |registrations| {
                let bytes = registrations.iter().map(|registration| registration.nar_size).sum();
                format!("up to {}", DecimalBytes(bytes))
            },
        );
        let free = statvfs(&self.target.drafts).map_or_else(
            |_| "an unknown amount is".to_owned(),
            |free| {
                let bytes = free.blocks_available() * free.fragment_size();
                format!("{} and {} inodes are", DecimalBytes(bytes), free.files_available())
            },
        );
        hinted(
            error.context(format!("no space left on {place}: the closure needs {needed}, {free} free")),
            "make room, or export to another file system; nothing was written",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_a_number_of_seconds() {
        for (value, expected) in [(None, Some(1)), (Some("0"), Some(0)), (Some("1700000000"), Some(1_700_000_000))] {
            assert_eq!(source_date_epoch(value.map(OsStr::new)).ok(), expected);
        }
        for bad in ["-1", "yesterday", "1.5", " 1", "99999999999999999999"] {
            let error = source_date_epoch(Some(OsStr::new(bad))).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn threads_are_as_many_as_descriptors_allow() {
        for (jobs, descriptors, expected) in
            [(2, 1024, 2), (256, 1024, 165), (16, 64, 5), (4, 32, 1), (4, 0, 1), (1024, u64::MAX, 1024)]
        {
            assert_eq!(affordable_jobs(jobs, descriptors), expected, "{jobs} jobs, {descriptors} descriptors");
        }
    }

    #[test]
    fn the_store_directory_is_nixs_own() {
        let request = |variables: &[(&str, &str)]| {
            let arguments = Arguments::try_parse_from([NAME, "/dist"]).unwrap();
            Request::new(arguments, |name| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
            })
        };
        for (variables, expected) in [
            (&[][..], "/nix/store"),
            (&[("NIX_STORE_DIR", "/a/store")], "/a/store"),
            (&[("NIX_STORE_DIR", ""), ("NIX_STORE", "/b")], "/b"),
        ] {
            assert_eq!(request(variables).unwrap().store.as_path(), Path::new(expected));
        }
        assert!(request(&[("NIX_STORE_DIR", "relative")]).is_err());
    }
}
