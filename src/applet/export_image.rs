//! `export-image`: writes a profile and its closure as an OCI image, without any container engine.
//! It must never leave a layout or an archive behind that is not complete.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser, ValueEnum};
use nix::sys::stat::{Mode, umask};

use super::inspect::{InspectArguments, Inspected, only_one};
use super::options::{Jobs, Loudness};
use super::profile::{ProfileArguments, ProfileRequest, source_date_epoch, store_paths};
use crate::failure::{Usage, hinted, shown};
use crate::interrupt::Interrupt;
use crate::layers;
use crate::oci::config::{Absolute, Env, Label, Map, Port, Rule, Signal, Text, User, Word};
use crate::oci::{Platform, Settings, Tag, labels, time};
use crate::progress::Progress;
use crate::report::image::ImageReceipt;
use crate::root::accounts::Account;
use crate::sbom;
use crate::sink::database::Programs;
use crate::sink::is_out_of_space;
use crate::sink::oci::{Beside, Compression, Destination, Image};
use crate::store::StorePath;
use crate::store::query::{self, NixStore, Profile};

const NAME: &str = "export-image";
/// The overlay drivers of container engines take 128 layers and fewer; some room is for what users build upon it.
const MOST_LAYERS: i64 = 120;
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Write a Nix profile and its closure as an OCI image: the root that `export-profile` makes, in layers.
///
/// OUT is an archive if its name ends in `.tar`, which `docker load`, `podman load` and skopeo read; else it is an
/// OCI layout, a directory. An image is added to a layout that exists. The same input gives the same bytes.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Where to write to: `NAME.tar`, or the directory of a layout.
    out: PathBuf,

    #[command(flatten)]
    profile: ProfileArguments,

    /// Put this store path and its closure into the image, without putting it into the profile.
    #[arg(long = "include", value_name = "PATH")]
    includes: Vec<PathBuf>,

    /// Lay this folder over the root. Modes are kept; owner is root.
    #[arg(long = "rootfs", value_name = "DIR")]
    rootfs: Vec<PathBuf>,

    /// Put a Nix database into the image, in which its store paths are registered, and GC roots for what was named.
    /// This needs `sqlite3`.
    #[arg(long)]
    nix_database: bool,

    /// A name of the image, `[HOST[:PORT]/]PATH[:TAG]`.
    #[arg(long = "tag", value_name = "NAME", value_parser = parse::<Tag>)]
    tags: Vec<Tag>,

    /// An annotation of the image's manifest. The index of images for several platforms gets those that all have.
    #[arg(long = "annotation", value_name = "K=V", value_parser = label)]
    annotations: Vec<(Text<Label>, Text<Word>)>,

    /// For what machines: `linux/amd64`. In a layout, images of one name for several become one. [default: this
    /// machine's]
    #[arg(long, value_name = "OS/ARCH", value_parser = parse::<Platform>)]
    platform: Option<Platform>,

    /// When the image was made: seconds since 1970, `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ssZ`. [default:
    /// `$SOURCE_DATE_EPOCH`, else 1970]
    #[arg(long, value_name = "TIME", value_parser = created)]
    created: Option<i64>,

    /// The most layers. Store paths that are large or that many others need have one of their own.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u8).range(1..=MOST_LAYERS))]
    layers: u8,

    /// How layers are compressed. Every engine reads gzip.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    compression: Algorithm,

    /// How hard: 1 to 9 for gzip, 1 to 19 for zstd. [default: 6, or 3 for zstd]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19))]
    level: Option<u8>,

    /// Keep layers here, and take from here those that were made before.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    #[command(flatten)]
    jobs: Jobs,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    inspect: InspectArguments,

    #[command(flatten)]
    loudness: Loudness,

    // Last, since a heading holds for all that follows.
    #[command(flatten)]
    config: ConfigArguments,
}

/// What a container runs. Each goes over what the file of `--config` says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What a container runs")]
struct ConfigArguments {
    /// JSON with any of `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`, `Labels`, `ExposedPorts`, `Volumes` and
    /// `StopSignal`, as in the config of an OCI image. The options below go over it.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Set a variable. `PATH` is the profile's `bin` unless set.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = text::<Env>)]
    env: Vec<Text<Env>>,

    /// The next word of the command.
    #[arg(long = "cmd", value_name = "WORD", value_parser = text::<Word>, allow_hyphen_values = true)]
    cmd: Vec<Text<Word>>,

    /// The next word of the program that is always run.
    #[arg(long = "entrypoint", value_name = "WORD", value_parser = text::<Word>, allow_hyphen_values = true)]
    entrypoint: Vec<Text<Word>>,

    /// As whom. `NAME` or `NAME:UID` is added to the image's users, with the number 1000 if none is given, unless it
    /// is one of them; any other name or number, with a group after a colon, is taken as it is.
    #[arg(long, value_name = "USER", value_parser = text::<User>)]
    user: Option<Text<User>>,

    /// In which directory.
    #[arg(long, value_name = "PATH", value_parser = text::<Absolute>)]
    working_dir: Option<Text<Absolute>>,

    /// A remark on the image.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(Text<Label>, Text<Word>)>,

    /// A port on which it listens: `80`, `53/udp`.
    #[arg(long = "expose", value_name = "PORT", value_parser = text::<Port>)]
    ports: Vec<Text<Port>>,

    /// A directory for data that outlives the container.
    #[arg(long = "volume", value_name = "PATH", value_parser = text::<Absolute>)]
    volumes: Vec<Text<Absolute>>,

    /// What ends it: `SIGTERM`.
    #[arg(long, value_name = "SIGNAL", value_parser = text::<Signal>)]
    stop_signal: Option<Text<Signal>>,
}

const EXAMPLES: &str = "\
Examples:
  export-image --tag hello:1.0 --cmd hello image.tar
          docker load -i image.tar; docker run hello:1.0
  export-image --tag registry.example/app:1 layout
          skopeo copy oci:layout:registry.example/app:1 docker://registry.example/app:1
  export-image --profile ./result-arm64 --platform linux/arm64 --tag registry.example/app:1 layout
          Added to it; skopeo copy --all pushes both

Exit status: 0 done, 1 failed (nothing was changed), 2 usage, 128+n ended by signal n.";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    #[default]
    Gzip,
    Zstd,
    None,
}

impl Algorithm {
    fn at(self, level: Option<u8>) -> Result<Compression, Usage> {
        match (self, level) {
            (Self::Gzip, Some(level @ 10..)) => {
                Err(Usage(format!("`--level {level}` is too high for gzip, which has 1 to 9")))
            }
            (Self::None, Some(_)) => Err(Usage("`--level` makes no sense without compression".into())),
            (Self::Gzip, level) => Ok(Compression::Gzip(level.map_or(GZIP_LEVEL, u32::from))),
            (Self::Zstd, level) => Ok(Compression::Zstd(level.map_or(ZSTD_LEVEL, i32::from))),
            (Self::None, None) => Ok(Compression::None),
        }
    }
}

fn parse<T: std::str::FromStr<Err = String>>(word: &str) -> Result<T, String> {
    word.parse()
}

fn text<R: Rule>(word: &str) -> Result<Text<R>, String> {
    Text::new(word)
}

fn created(word: &str) -> Result<i64, String> {
    time::parse(word).ok_or_else(|| "it is neither seconds since 1970 nor a day or a time in UTC".to_owned())
}

fn label(word: &str) -> Result<(Text<Label>, Text<Word>), String> {
    let (name, value) = word.split_once('=').ok_or("it is not NAME=VALUE")?;
    Ok((Text::new(name)?, Text::new(value)?))
}

/// `None` for an option that was not given.
fn some<T: Default + PartialEq>(several: T) -> Option<T> {
    (several != T::default()).then_some(several)
}

impl ConfigArguments {
    /// The settings of the file, and over them those of the options.
    fn settings(self) -> anyhow::Result<Settings> {
        let file = match &self.file {
            Some(path) => {
                let failed = || format!("cannot use `{}` as a config", shown(path));
                let text = fs_err::read_to_string(path).with_context(failed)?;
                Settings::parse(&text).with_context(failed)?
            }
            None => Settings::default(),
        };
        Ok(file.overlaid(Settings {
            env: some(self.env),
            cmd: some(self.cmd),
            entrypoint: some(self.entrypoint),
            user: self.user,
            working_dir: self.working_dir,
            labels: some(self.labels.into_iter().collect()),
            exposed_ports: some(self.ports.into_iter().map(|port| (port, Map::default())).collect()),
            volumes: some(self.volumes.into_iter().map(|volume| (volume, Map::default())).collect()),
            stop_signal: self.stop_signal,
        }))
    }
}

/// The user of `--user` if it is one to be added. A container then runs by its number, which is the same whatever
/// files of users are mounted, and by which Kubernetes sees that it is not root.
fn added_user(config: &mut ConfigArguments) -> Option<Account> {
    let account: Account = config.user.as_ref()?.as_str().parse().ok()?;
    config.user = Text::new(&format!("{0}:{0}", account.id)).ok();
    Some(account)
}

/// What the words on the command line, the environment and the config file mean.
struct Request {
    out: PathBuf,
    profile: ProfileRequest,
    includes: Vec<PathBuf>,
    rootfs: Vec<PathBuf>,
    tags: Vec<Tag>,
    annotations: BTreeMap<String, String>,
    platform: Platform,
    created: String,
    layers: usize,
    compression: Compression,
    cache: Option<PathBuf>,
    settings: Settings,
    inspect: InspectArguments,
}

impl Request {
    fn new(arguments: Arguments, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let mut printing = arguments.inspect.printing();
        printing.extend(arguments.json.then_some("--json"));
        only_one(&printing)?;
        let mut config = arguments.config;
        let user = if arguments.profile.is_complete() { added_user(&mut config) } else { None };
        let profile = ProfileRequest::new(arguments.profile, user, &variable)?;
        let compression = arguments.compression.at(arguments.level)?;
        let created = match arguments.created {
            Some(seconds) => seconds,
            None => source_date_epoch(variable)?.unwrap_or(0),
        };
        let mut tags = arguments.tags;
        tags.sort();
        tags.dedup();
        Ok(Self {
            out: arguments.out,
            profile,
            includes: arguments.includes,
            rootfs: arguments.rootfs,
            tags,
            annotations: arguments
                .annotations
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
                .collect(),
            platform: arguments.platform.unwrap_or_else(|| Platform::linux_on(std::env::consts::ARCH)),
            created: time::rfc3339(created)
                .ok_or_else(|| anyhow!("SOURCE_DATE_EPOCH is `{created}`, which is after the year 9999"))?,
            layers: arguments.layers.into(),
            compression,
            cache: arguments.cache,
            settings: config.settings()?,
            inspect: arguments.inspect,
        })
    }

    /// The settings with the default `PATH`.
    fn settings(&self, profiles: &[Profile]) -> Settings {
        let path = if let Some(path) = &self.profile.profile_path {
            shown(Path::new("/").join(path).join("bin"))
        } else {
            // Without a link to the profile, what it would lead to.
            let bin = |profile: &Profile| shown(self.profile.store.join(&profile.path).join("bin"));
            profiles.iter().map(bin).collect::<Vec<_>>().join(":")
        };
        self.settings.clone().with_default("PATH", &path)
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
    let (jobs, json, nix_database) = (arguments.jobs.threads(), arguments.json, arguments.nix_database);
    let request = Request::new(arguments, |name| std::env::var_os(name))?;
    // The user's mask is for the user's files: an image is the same whoever makes it.
    umask(Mode::from_bits_truncate(0o022));
    let interrupt = Interrupt::install()?;

    let store = &request.profile.store;
    let destination = Destination::inspect(&request.out, store)?;
    for stayed in destination.prepare(&interrupt)? {
        voice.warning(&stayed);
    }
    let programs = nix_database.then(Programs::find).transpose()?;
    let nix = NixStore::find(store.clone(), interrupt.clone())?;
    let profiles = request.profile.find(voice)?;
    let included = request.includes.iter().map(|path| query::resolve(path, store)).collect::<anyhow::Result<Vec<_>>>();
    let named: Vec<StorePath> = store_paths(&profiles).into_iter().chain(store_paths(&included?)).collect();
    let closure = nix.closure(&named)?;
    let registrations = nix.registration(&closure)?;
    voice.decision(&format!("the closure has {} store paths", registrations.len()));

    let inspected = Inspected { store, registrations: &registrations, roots: &named, jobs, interrupt: &interrupt };
    let bill = request.inspect.run(inspected)?;

    let (plan, mut warnings) = request.profile.plan_root(&profiles, &interrupt)?;
    if request.includes.is_empty() {
        warnings.extend(request.profile.nix_inside(&profiles, &closure));
    }
    let mut beside = Beside::of(&plan);
    for folder in &request.rootfs {
        beside.overlay(folder, store, &interrupt)?;
    }
    let mut settings = request.settings(&profiles);
    if let Some(bill) = &bill {
        beside.text(Path::new(sbom::PLACE.trim_start_matches('/')), bill);
        settings = settings.with_label(labels::SBOM, sbom::PLACE);
    }
    if matches!((&destination, request.compression), (Destination::Archive(_), Compression::Zstd(_))) {
        warnings.push("Docker 20.10 does not load an archive whose layers are zstd".to_owned());
    }
    for warning in &warnings {
        voice.warning(warning);
    }
    let layers = layers::split(&registrations, &store_paths(&profiles), request.layers);
    voice.decision(&format!("layers: {}, jobs: {jobs}", layers.len()));

    let image = Image {
        store,
        registrations: &registrations,
        layers: &layers,
        beside,
        database: programs.as_ref().map(|programs| (programs, &named[..])),
        settings: &settings,
        annotations: &request.annotations,
        platform: &request.platform,
        created: &request.created,
        tags: &request.tags,
        compression: request.compression,
        cache: request.cache.as_deref(),
        jobs,
    };
    let progress = Progress::default();
    let outcome = voice
        .with_progress(&progress, registrations.len(), || image.write(&destination, &progress, &interrupt))
        .map_err(|error| explain(error, &destination))?;
    let receipt = ImageReceipt {
        out: shown(&destination.target().root),
        profiles: request.profile.exported(&profiles),
        tags: request.tags.iter().map(|tag| tag.given.clone()).collect(),
        platform: request.platform.to_string(),
        store_paths: registrations.len() as u64,
        outcome,
        warnings,
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    };
    voice
        .image(&receipt, json)
        .with_context(|| format!("the image in `{}` is complete, but not its receipt", receipt.out))?;
    Ok(0)
}

/// Says of a full disk what to do.
fn explain(error: anyhow::Error, destination: &Destination) -> anyhow::Error {
    if !is_out_of_space(&error) {
        return error;
    }
    let place = shown(&destination.target().drafts);
    hinted(
        error.context(format!("no space left for the image in `{place}`")),
        "make room, or write to another file system; nothing was changed",
    )
}
