//! `export-profile`: copies a profile and its closure into a root for the next stage of a Dockerfile.
//! It must never leave a root behind that is not complete.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use indicatif::DecimalBytes;
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::statvfs;

use super::options::{Jobs, Loudness};
use super::profile::{ProfileArguments, ProfileRequest, source_date_epoch, store_paths};
use crate::failure::{Usage, hinted, shown};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::{DryRun, Voice};
use crate::root::Plan;
use crate::sink::directory::{Copying, copy_store_paths};
use crate::sink::draft::{Draft, remove_left_overs};
use crate::sink::link::LinkMode;
use crate::sink::mounts::Mounts;
use crate::sink::receipt::{BesideStore, Receipt, Tally};
use crate::sink::target::Target;
use crate::sink::{is_out_of_space, verify};
use crate::store::StorePath;
use crate::store::query::NixStore;

const NAME: &str = "export-profile";

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

    #[command(flatten)]
    profile: ProfileArguments,

    /// How files get into ROOT: `auto` makes hard links and copies what cannot be linked; the other modes
    /// never fall back. Hard links share their inodes with the store: never change such a file in place.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    link_mode: LinkMode,

    #[command(flatten)]
    jobs: Jobs,

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

    #[command(flatten)]
    loudness: Loudness,
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
    profile: ProfileRequest,
    /// Seconds since 1970 for what is made beside the store: Nix's own 1, unless the user says more.
    time: i64,
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
        let profile = ProfileRequest::new(arguments.profile, &variable)?;
        let root = arguments.root;
        if root.as_ref().is_some_and(|root| root.as_os_str().is_empty()) {
            return Err(Usage("ROOT is empty".into()).into());
        }
        Ok(Self {
            root,
            profile,
            time: source_date_epoch(variable)?.unwrap_or(1),
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

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let started = Instant::now();
    let arguments = Arguments::try_parse_from(argv)?;
    let voice = arguments.loudness.voice(NAME);
    let jobs = arguments.jobs.threads();
    let request = Request::new(arguments, |name| std::env::var_os(name))?;
    // The user's mask is for the user's files: a root is the same whoever makes it.
    umask(Mode::from_bits_truncate(0o022));
    let interrupt = Interrupt::install()?;

    let target = request.root.as_deref().map(|root| prepare(root, &request, voice, &interrupt)).transpose()?;
    let nix = NixStore::find(request.profile.store.clone(), interrupt.clone())?;
    let profiles = request.profile.find(voice)?;
    let closure = nix.closure(&store_paths(&profiles))?;
    voice.decision(&format!("the closure has {} store paths", closure.len()));

    let exported = request.profile.exported(&profiles);
    let Some(target) = target.filter(|_| !request.flags.dry_run) else {
        let registrations = nix.registration(&closure)?;
        voice.dry_run(
            &DryRun { store: &request.profile.store, profiles: &exported, registrations: &registrations },
            request.flags.json,
        )?;
        return Ok(0);
    };
    let (plan, warnings) = request.profile.plan_root(&profiles, &interrupt)?;
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

/// Looks at ROOT, and clears away what dead runs left there.
fn prepare(root: &Path, request: &Request, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<Target> {
    let target = Target::inspect(root, &request.profile.store)?;
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
        let Request { profile: ProfileRequest { store, .. }, time, flags, .. } = self.request;
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
        let last = self.request.profile.profile_path.as_deref().unwrap_or(self.request.profile.store.relative());
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
