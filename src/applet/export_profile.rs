//! `export-profile`: copies a profile and its closure into a root for the next stage of a Dockerfile.
//! It must never leave a root behind that is not complete.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};
use fs_err as fs;
use indicatif::HumanCount;
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::statvfs;

use super::additions::Additions;
use super::inspect::{InspectArguments, Inspected, only_one};
use super::options::{Jobs, Loudness};
use super::profile::{ProfileArguments, ProfileRequest, source_date_epoch, store_paths};
use crate::failure::{Usage, hinted, shown};
use crate::interrupt::Interrupt;
use crate::layers;
use crate::progress::Progress;
use crate::report::space::{Free, no_space};
use crate::report::{DryRun, Voice};
use crate::root::accounts::Account;
use crate::sink::directory::{Copying, copy_store_paths};
use crate::sink::draft::{Draft, remove_left_overs};
use crate::sink::link::LinkMode;
use crate::sink::mounts::Mounts;
use crate::sink::oci::Beside;
use crate::sink::receipt::{BesideStore, Changed, Layer, Receipt, Tally};
use crate::sink::target::Target;
use crate::sink::{TOO_LARGE, is_out_of_space, is_too_large, verify};
use crate::store::query::NixStore;
use crate::store::{Registration, StoreDirectory, StorePath};

const NAME: &str = "export-profile";
/// Docker takes 125 layers (`maxLayerDepth` in moby's `layer`); some are left for what comes before and after.
const MOST_LAYERS: i64 = 120;
/// Permissions of ROOT itself.
const ROOT_MODE: u32 = 0o755;

/// Copy a Nix profile and its closure into ROOT, the root directory of a container image.
///
/// ROOT gets every store path that the profile needs, links to the profile at `/nix/profile` and `/run/profile`, where
/// the profile has them `/etc`, `/bin/sh` and `/usr/bin/env`, and what programs expect of a system: `/tmp`, users,
/// links to certificates and time zones. It appears complete or not at all.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Where to export to: a directory that is empty or does not exist.
    #[arg(required_unless_present_any = ["dry_run", "why"])]
    root: Option<PathBuf>,

    #[command(flatten)]
    profile: ProfileArguments,

    /// Add a user, and a group of the same name and number, 1000 if none is given, with a home in `/home`.
    #[arg(long, value_name = "NAME[:UID]", conflicts_with_all = ["store_only", "bare"])]
    user: Option<Account>,

    #[command(flatten)]
    additions: Additions,

    /// How files get into ROOT: `auto` makes hard links and copies what cannot be linked; the other modes
    /// never fall back. Hard links share their inodes with the store: never change such a file in place.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    link_mode: LinkMode,

    /// Make files of equal content and mode one inode. Kaniko, which knows no hard links, copies each of them.
    #[arg(long)]
    dedup: bool,

    #[command(flatten)]
    jobs: Jobs,

    /// Recompute every path's NAR hash from ROOT and compare it with the registered one. Also check the modes and owners
    /// of files.
    #[arg(long)]
    verify: bool,

    /// Write all to the disk before ROOT appears, against a loss of power.
    #[arg(long)]
    sync: bool,

    /// Print which store paths would be exported, with their NAR sizes, and write no root.
    #[arg(long, conflicts_with_all = ["verify", "sync"])]
    dry_run: bool,

    /// Make N roots, ROOT/0, ROOT/1 and so on, whose layers change as little as possible from build to build, and
    /// print a line COPY for each, to be pasted into a Dockerfile. At most 120: Docker takes 125 layers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_LAYERS), conflicts_with = "dry_run")]
    layers: Option<u16>,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    loudness: Loudness,

    // This comes last: a heading applies to every option after it.
    #[command(flatten)]
    inspect: InspectArguments,
}

const EXAMPLES: &str = "\
Examples:
  export-profile /dist
          In a Dockerfile, after `nix-env -iA …` in the same RUN; then, in the next stage,
          FROM scratch, COPY --from=build /dist / and ENV PATH=/nix/profile/bin
  export-profile --profile ./result --store-only /dist
          For a base image that has a root of its own
  export-profile --dry-run --report
          What is in it, how large, and why
  export-profile --layers 8 /dist
          For images of which a changed build sends only what changed: prints eight lines
          COPY --from=build /dist/K / for the next stage

Exit status: 0 done, 1 failed (nothing was written), 2 usage, 128+n ended by signal n.";

/// What the words on the command line and the environment mean.
struct Request {
    root: Option<PathBuf>,
    profile: ProfileRequest,
    /// Seconds since 1970 for what is made beside the store: Nix's own 1, unless the user says more.
    time: i64,
    additions: Additions,
    inspect: InspectArguments,
    layers: Option<u16>,
    flags: Flags,
}

/// What means what it says.
struct Flags {
    link_mode: LinkMode,
    dedup: bool,
    verify: bool,
    sync: bool,
    dry_run: bool,
    json: bool,
}

impl Request {
    fn new(arguments: Arguments, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let profile = ProfileRequest::new(arguments.profile, arguments.user, &variable)?;
        let root = arguments.root;
        if root.as_ref().is_some_and(|root| root.as_os_str().is_empty()) {
            return Err(Usage("ROOT is empty".into()).into());
        }
        let mut printing = arguments.inspect.printing();
        printing.extend(arguments.json.then_some("--json"));
        // With `--json` the lines are in the receipt.
        printing.extend((arguments.layers.is_some() && !arguments.json).then_some("--layers"));
        only_one(&printing)?;
        Ok(Self {
            additions: arguments.additions,
            inspect: arguments.inspect,
            layers: arguments.layers,
            root,
            profile,
            time: source_date_epoch(variable)?.unwrap_or(1),
            flags: Flags {
                link_mode: arguments.link_mode,
                dedup: arguments.dedup,
                verify: arguments.verify,
                sync: arguments.sync,
                dry_run: arguments.dry_run,
                json: arguments.json,
            },
        })
    }
}

/// What it understands.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

pub(super) fn run(argv: Vec<OsString>) -> anyhow::Result<u8> {
    let started = Instant::now();
    let arguments = Arguments::try_parse_from(argv)?;
    let voice = arguments.loudness.voice(NAME);
    let jobs = arguments.jobs.threads();
    let mut request = Request::new(arguments, |name| std::env::var_os(name))?;
    let interrupt = Interrupt::install()?;
    request.profile.locate_store(&interrupt)?;

    let target = request.root.as_deref().map(|root| prepare(root, &request, voice, &interrupt)).transpose()?;
    let nix = NixStore::find(request.profile.store.clone(), interrupt.clone())?;
    let profiles = request.profile.find(voice)?;
    let roots = store_paths(&profiles);
    let closure = nix.closure(&roots)?;
    voice.decision(&format!("the closure has {} store paths", closure.len()));
    let nix_inside = request.profile.nix_inside(&profiles, &closure);
    if let Some(warning) = &nix_inside {
        voice.warning(warning);
    }

    let store = &request.profile.store;
    let exported = request.profile.exported(&profiles);
    let is_dry = request.flags.dry_run || target.is_none();
    let registrations = if is_dry || request.inspect.is_wanted() || request.layers.is_some() {
        nix.registration(&closure)?
    } else {
        Vec::new()
    };
    request.inspect.run(Inspected {
        store,
        registrations: &registrations,
        roots: &roots,
        jobs,
        interrupt: &interrupt,
    })?;
    let Some(target) = target.filter(|_| !is_dry) else {
        if request.inspect.printing().is_empty() {
            let found = DryRun { store, profiles: &exported, registrations: &registrations };
            voice.dry_run(&found, request.flags.json)?;
        }
        return Ok(0);
    };
    let (plan, mut warnings) = request.profile.plan_root(&profiles, &interrupt)?;
    let (mut beside, more) = request.additions.over(&plan, &request.profile, &interrupt)?;
    request.additions.make_directories(&mut beside, store)?;
    warnings.extend(more.into_iter().chain(request.additions.kept_by_this_user()));
    for warning in &warnings {
        voice.warning(warning);
    }
    warnings.extend(nix_inside);

    let layers = request.layers.map(|count| layered(&registrations, &roots, count.into()));
    let parts = layers.as_ref().map_or_else(|| vec![closure.clone()], Clone::clone);
    let has_paths: Vec<bool> = parts.iter().map(|part| !part.is_empty()).collect();
    let beside = if layers.is_some() { beside.in_layers(store, &has_paths) } else { beside };
    let job = Job {
        request: &request,
        target: &target,
        nix: &nix,
        closure: &closure,
        parts: &parts,
        beside: &beside,
        jobs,
        interrupt: &interrupt,
    };
    // The user's mask is for reports and the like: a root is the same whoever makes it.
    umask(Mode::from_bits_truncate(0o022));
    let Written { tally, beside_store, warnings: found } = job.write(voice).map_err(|error| job.explain(error))?;
    for warning in found {
        voice.warning(&warning);
        warnings.push(warning);
    }
    let real_store = fs::canonicalize(store.real())?;
    let shares_store = tally.hard_linked.count > 0 && !Mounts::read().is_in_container_layer(&real_store);
    let receipt = Receipt {
        root: shown(&target.root),
        profiles: exported,
        store_paths: closure.len() as u64,
        files: tally.files,
        directories: tally.directories,
        symlinks: tally.symlinks,
        bytes: tally.bytes,
        layers: layers.map_or_else(Vec::new, |layers| copied_layers(&target.root, &layers, &registrations)),
        beside_store,
        hard_linked: tally.hard_linked,
        shares_store,
        reflinked: tally.reflinked,
        copied: tally.copied,
        deduplicated: tally.deduplicated,
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

/// Exactly `count` layers: where fewer are needed, empty ones come before the last, which is the profile's.
fn layered(registrations: &[Registration], roots: &[StorePath], count: usize) -> Vec<Vec<StorePath>> {
    let mut layers = layers::split(registrations, roots, count);
    let last = layers.pop().unwrap_or_default();
    layers.resize(count - 1, Vec::new());
    layers.push(last);
    layers
}

/// What is changed about files of the store, if anything is.
fn changed_files(changed: &Changed, store: &StoreDirectory) -> Option<String> {
    let (path, change) = changed.example.as_ref()?;
    let were = match changed.count {
        1 => "1 file in the store was",
        count => &format!("{} files in the store were", HumanCount(count)),
    };
    let path = shown(store.real().join(OsStr::from_bytes(path)));
    Some(format!("{were} changed: `{path}` has {change}"))
}

/// The layers as a receipt tells of them, with the lines that copy them from a stage called `build`.
fn copied_layers(root: &Path, layers: &[Vec<StorePath>], registrations: &[Registration]) -> Vec<Layer> {
    let sizes: HashMap<_, _> = registrations.iter().map(|read| (&read.path, read.nar_size)).collect();
    let layer = |(number, paths): (usize, &Vec<StorePath>)| Layer {
        copy: copy_line(&root.join(number.to_string())),
        store_paths: paths.len() as u64,
        nar_size: paths.iter().filter_map(|path| sizes.get(path)).sum(),
    };
    layers.iter().enumerate().map(layer).collect()
}

/// Blanks and quotes need the form of a list; a `$` would be a variable, and a backslash the start of something.
fn copy_line(from: &Path) -> String {
    let from = shown(from).replace('\\', "\\\\").replace('$', "\\$");
    if from.contains(|c: char| c.is_whitespace() || "\"'[".contains(c)) {
        let list = serde_json::json!([from, "/"]);
        return format!("COPY --from=build {list}");
    }
    format!("COPY --from=build {from} /")
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

/// What lies in a draft.
struct Written {
    tally: Tally,
    beside_store: BesideStore,
    /// What is not as it should be.
    warnings: Vec<String>,
}

/// Everything that writing needs.
struct Job<'a> {
    request: &'a Request,
    target: &'a Target,
    nix: &'a NixStore,
    closure: &'a [StorePath],
    /// The store paths of each layer, or all where there are no layers.
    parts: &'a [Vec<StorePath>],
    beside: &'a Beside,
    jobs: usize,
    interrupt: &'a Interrupt,
}

impl Job<'_> {
    /// Writes a draft and publishes it, or removes it.
    fn write(&self, voice: Voice) -> anyhow::Result<Written> {
        let draft = Draft::create(self.target)?;
        voice.decision(&format!("writing to `{}`, jobs: {}", shown(draft.path()), self.jobs));
        let (draft, error) = match self.fill(&draft, voice) {
            Ok(counts) => match draft.publish(self.target, ROOT_MODE, self.request.time, &self.last_entry()) {
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

    fn fill(&self, draft: &Draft, voice: Voice) -> anyhow::Result<Written> {
        let Request { profile: ProfileRequest { store, .. }, time, flags, .. } = self.request;
        let beside_store = draft.make(self.beside, self.interrupt)?;
        let progress = Progress::default();
        let tally = voice.with_progress(&progress, self.closure.len(), || {
            let mut tally = Tally::default();
            for (number, paths) in self.parts.iter().enumerate().filter(|(_, paths)| !paths.is_empty()) {
                let destination = self.root_of(number, draft).join(store.relative());
                let copying = Copying {
                    store,
                    paths,
                    destination: &destination,
                    scratch: draft.path(),
                    mode: flags.link_mode,
                    jobs: self.jobs,
                    dedup: flags.dedup,
                    samples: draft.samples(),
                };
                tally.add(&copy_store_paths(&copying, &progress, self.interrupt)?);
                if flags.verify {
                    let registrations = self.nix.registration(paths)?;
                    verify::verify(&destination, &registrations, self.jobs, self.interrupt)?;
                }
            }
            anyhow::Ok(tally)
        })?;
        let mut warnings = Vec::new();
        if let Some(changed) = changed_files(&tally.changed, store) {
            if flags.verify {
                let hint = format!(
                    "a hard-linked root shares its files with the store, so `chmod` or `chown` there changes the store; \
                     to restore the modes: find {} -type f -perm /222 -exec chmod a-w {{}} +",
                    shown(store.real())
                );
                return Err(hinted(anyhow!("verification failed: {changed}"), hint));
            }
            warnings.push(format!("{changed}; the root has copies with the right mode and owner"));
        }
        warnings.extend(draft.finish(self.beside, *time)?);
        if let Some(not_kept) = draft.samples().not_kept() {
            let root = shown(&self.target.root);
            warnings.push(format!("the file system of `{root}` does not keep what is set: {not_kept}"));
        }
        if flags.sync {
            draft.sync()?;
        }
        self.interrupt.check()?;
        Ok(Written { tally, beside_store, warnings })
    }

    /// Where in the draft the root with the paths of a part lies.
    fn root_of(&self, part: usize, draft: &Draft) -> PathBuf {
        match self.request.layers {
            Some(_) => draft.path().join(part.to_string()),
            None => draft.path().to_owned(),
        }
    }

    /// The entry of ROOT that appears last: where it is there, all is.
    fn last_entry(&self) -> OsString {
        if let Some(count) = self.request.layers {
            return (count - 1).to_string().into();
        }
        let last = self.request.profile.profile_path.as_deref().unwrap_or(self.request.profile.store.relative());
        last.iter().next().unwrap_or_default().to_owned()
    }

    /// Says of a full disk which one, and how much is needed.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if is_too_large(&error) {
            return hinted(error, TOO_LARGE);
        }
        if !is_out_of_space(&error) {
            return error;
        }
        let mounts = Mounts::read();
        let place = mounts.holding(&self.target.drafts).map_or_else(
            || format!("`{}`", shown(&self.target.drafts)),
            |mount| format!("`{}` ({})", shown(&mount.point), mount.file_system),
        );
        let registrations = self.nix.registration(self.closure).ok();
        let needed = registrations.map(|all| all.iter().map(|registration| registration.nar_size).sum());
        let free = statvfs(&self.target.drafts).ok().map(|free| Free {
            bytes: free.blocks_available() * free.fragment_size(),
            // btrfs and others make inodes as they need them, and give no number.
            inodes: (free.files() > 0).then(|| free.files_available()),
        });
        let (space, hint) = no_space(needed, free);
        hinted(error.context(format!("no space left on {place}: {space}")), format!("{hint}; nothing was written"))
    }
}
