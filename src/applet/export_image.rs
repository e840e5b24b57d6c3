//! `export-image`: writes a profile and its closure as an OCI image, without any container engine.
//! It must never leave a layout or an archive behind that is not complete.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser, ValueEnum};
use nix::sys::stat::{Mode, umask};

use super::additions::Additions;
use super::inspect::{InspectArguments, Inspected, only_one};
use super::options::{Jobs, Loudness};
use super::profile::{ProfileArguments, ProfileRequest, source_date_epoch, store_paths};
use crate::closure::limits::Size;
use crate::failure::{Usage, hinted, shown};
use crate::input;
use crate::interrupt::Interrupt;
use crate::layers;
use crate::oci::config::{Absolute, Env, Label, Map, Port, Rule, Signal, Text, User, Word};
use crate::oci::{Platform, Settings, Tag, labels, time};
use crate::progress::Progress;
use crate::report;
use crate::report::image::ImageReceipt;
use crate::root::Owner;
use crate::root::run_as::{Files, RunAs, User as ImageUser, resolve};
use crate::sbom;
use crate::sink::database::Programs;
use crate::sink::oci::{Beside, Compression, Destination, Form, Image};
use crate::sink::{TOO_LARGE, is_out_of_space, is_too_large};
use crate::store::StorePath;
use crate::store::query::{self, NixStore, Profile};

const NAME: &str = "export-image";
/// Docker's limit (`maxLayerDepth` in moby's `layer`), less some for what users build upon an image.
const MOST_LAYERS: u8 = 120;
const DOCKERS_LIMIT: &str = "Docker takes 125 layers at most, and images that are built on this one add theirs";
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Write a Nix profile and its closure as an OCI image: the root that `export-profile` makes, in layers.
///
/// OUT is an archive if its name ends in `.tar` or is `-`; `docker load`, `podman load` and skopeo read it. Any other
/// name is that of an OCI layout, a directory; an image is added to a layout that exists. The same input gives the same
/// bytes.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Where to write to: `NAME.tar`, the directory of a layout, or `-` for an archive on standard output.
    out: PathBuf,

    #[command(flatten)]
    profile: ProfileArguments,

    /// Put this store path and its closure into the image, without putting it into the profile.
    #[arg(long = "include", value_name = "PATH")]
    includes: Vec<PathBuf>,

    #[command(flatten)]
    additions: Additions,

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

    /// The platform that the image runs on, such as `linux/arm64` or `linux/arm/v7`. In a layout, images of one name
    /// for several platforms become one. [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_parser = parse::<Platform>)]
    platform: Option<Platform>,

    /// When the image was made: `now`, seconds since 1970, `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ssZ`. Tools that remove
    /// old images remove those of 1970 first. [default: `$SOURCE_DATE_EPOCH`, else 1970]
    #[arg(long, value_name = "TIME", value_parser = created)]
    created: Option<i64>,

    /// The most layers, 120 at most: Docker takes 125, and images built on this one add theirs. Store paths that are
    /// large or that many others need have a layer of their own.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = layers)]
    layers: u8,

    /// How layers are compressed. Every engine reads gzip.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    compression: Algorithm,

    /// How hard: 1 to 9 for gzip, 1 to 19 for zstd. [default: 6, or 3 for zstd]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19))]
    level: Option<u8>,

    /// Keep layers here, and take from here those that were made before. A cache that cannot be written is a warning.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// Remove layers from the cache afterwards, least recently used first, until it has at most SIZE, such as 2G. Layers
    /// of this image stay.
    #[arg(long, value_name = "SIZE", requires = "cache")]
    cache_max_size: Option<Size>,

    #[command(flatten)]
    jobs: Jobs,

    /// Print what was done as JSON on stdout.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    loudness: Loudness,

    // These come last: a heading applies to every option after it.
    #[command(flatten)]
    inspect: InspectArguments,

    #[command(flatten)]
    config: ConfigArguments,
}

/// What a container runs. Each goes over what the file of `--config` says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What a container runs")]
struct ConfigArguments {
    /// JSON with any of `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`, `Labels`, `ExposedPorts`, `Volumes` and
    /// `StopSignal`, as in the config of an OCI image, and Docker's `Healthcheck`, `Shell` and `OnBuild`. The options
    /// below override it.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Set a variable. `PATH` is the profile's `bin`, by its link and by its store path, unless set.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = text::<Env>)]
    env: Vec<Text<Env>>,

    /// The next word of the command.
    #[arg(long = "cmd", value_name = "WORD", value_parser = text::<Word>, allow_hyphen_values = true)]
    cmd: Vec<Text<Word>>,

    /// The next word of the program that is always run.
    #[arg(long = "entrypoint", value_name = "WORD", value_parser = text::<Word>, allow_hyphen_values = true)]
    entrypoint: Vec<Text<Word>>,

    /// The user that it runs as: a name or a number, with a group after a colon if you like. A name that the image does
    /// not have is added as `NAME` or `NAME:UID`, with the number 1000 if none is given. The config gets numbers.
    #[arg(long, value_name = "USER", value_parser = text::<User>)]
    user: Option<Text<User>>,

    /// The directory in which it runs. It is made, and belongs to the user, unless the image has it.
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
  export-image --tag hello:1.0 --cmd hello - | docker load
          Without a file
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
    if word == "now" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| "this machine's clock is before 1970")?;
        return i64::try_from(now.as_secs()).map_err(|error| error.to_string());
    }
    time::parse(word).ok_or_else(|| "it is not `now`, seconds since 1970, a day, or a time in UTC".to_owned())
}

fn layers(word: &str) -> Result<u8, String> {
    let wanted = word.parse().ok().filter(|wanted| (1..=MOST_LAYERS).contains(wanted));
    wanted.ok_or_else(|| format!("it is not a number from 1 to {MOST_LAYERS}. {DOCKERS_LIMIT}"))
}

fn label(word: &str) -> Result<(Text<Label>, Text<Word>), String> {
    let (name, value) = word.split_once('=').ok_or("it is not NAME=VALUE")?;
    Ok((Text::new(name)?, Text::new(value)?))
}

/// A name that programs cannot find in a layout makes no sense there. In an archive Docker's own table has it too.
fn check_names(tags: &[Tag], form: Form) -> Result<(), Usage> {
    match tags.iter().find(|tag| form == Form::Layout && !tag.is_found_in_a_layout()) {
        Some(tag) => Err(Usage(format!(
            "`{}` cannot be the name of an image in a layout: programs such as skopeo look only for names whose letters \
             and digits are separated by a single `.`, `_`, `-`, `:` or `/`, or by `--`. Write an archive (`NAME.tar`), \
             or use another name here and this one when you push the image",
            tag.given
        ))),
        None => Ok(()),
    }
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
                let text = input::read_text(path, input::LIMIT)?;
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
            ..Settings::default()
        }))
    }
}

/// What the words on the command line, the environment and the config file mean.
struct Request {
    out: PathBuf,
    form: Form,
    profile: ProfileRequest,
    includes: Vec<PathBuf>,
    additions: Additions,
    tags: Vec<Tag>,
    annotations: BTreeMap<String, String>,
    platform: Platform,
    created: String,
    layers: usize,
    compression: Compression,
    cache: Option<PathBuf>,
    cache_max_size: Option<Size>,
    settings: Settings,
    /// Whether the root has all that programs expect of a system, so that users can be added.
    is_complete: bool,
    /// Whether the store is all that the image has of a root.
    is_store_only: bool,
    inspect: InspectArguments,
}

impl Request {
    fn new(arguments: Arguments, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let form = Form::of(&arguments.out)?;
        let mut printing = arguments.inspect.printing();
        printing.extend(arguments.json.then_some("--json"));
        printing.extend((form == Form::Stdout).then_some("-"));
        only_one(&printing)?;
        check_names(&arguments.tags, form)?;
        let (is_complete, is_store_only) = (arguments.profile.is_complete(), arguments.profile.is_store_only());
        let profile = ProfileRequest::new(arguments.profile, None, &variable)?;
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
            form,
            profile,
            includes: arguments.includes,
            additions: arguments.additions,
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
            cache_max_size: arguments.cache_max_size,
            settings: arguments.config.settings()?,
            is_complete,
            is_store_only,
            inspect: arguments.inspect,
        })
    }

    /// All that the root has beside its store, with warnings. Makes the user in the settings numbers: one that the root
    /// does not have is added to it.
    fn beside(&mut self, profiles: &[Profile], interrupt: &Interrupt) -> anyhow::Result<(Beside, Vec<String>)> {
        let (mut beside, mut warnings) = self.overlaid(profiles, interrupt)?;
        let (mut passwd, mut group) = self.accounts(&beside)?;
        let mut owner = Owner::ROOT;
        if let Some(text) = self.settings.user.as_ref().map(|user| user.as_str().to_owned()) {
            let files = Files { passwd: &passwd, group: &group };
            let user =
                resolve(&text, files, self.is_complete).map_err(|reason| Usage(format!("user `{text}`: {reason}")))?;
            let run_as = match user {
                ImageUser::Known(run_as) => run_as,
                ImageUser::New(account) => {
                    let run_as = RunAs { user: account.id, group: Some(account.id) };
                    self.profile.add_user(account);
                    (beside, warnings) = self.overlaid(profiles, interrupt)?;
                    (passwd, group) = self.accounts(&beside)?;
                    run_as
                }
            };
            owner = run_as.owner(Files { passwd: &passwd, group: &group });
            let numbers = Text::new(&run_as.to_string()).map_err(|reason| Usage(format!("user `{text}`: {reason}")))?;
            self.settings.user = Some(numbers);
        }
        self.additions.make_directories(&mut beside, &self.profile.store)?;
        if let Some(place) = self.settings.working_dir.as_ref().filter(|_| !self.is_store_only) {
            let place = Path::new(place.as_str());
            beside
                .directory(place, owner, &self.profile.store)
                .with_context(|| format!("cannot make the working directory `{}`", shown(place)))?;
        }
        Ok((beside, warnings))
    }

    /// What the profiles bring, and over it the folders of `--rootfs` and the user that was added.
    fn overlaid(&self, profiles: &[Profile], interrupt: &Interrupt) -> anyhow::Result<(Beside, Vec<String>)> {
        let (plan, mut warnings) = self.profile.plan_root(profiles, interrupt)?;
        let (beside, more) = self.additions.over(&plan, &self.profile, interrupt)?;
        warnings.extend(more);
        Ok((beside, warnings))
    }

    /// The image's own `/etc/passwd` and `/etc/group`.
    fn accounts(&self, beside: &Beside) -> anyhow::Result<(String, String)> {
        let read = |place: &str| {
            let content = beside.read(Path::new(place), &self.profile.store)?.unwrap_or_default();
            anyhow::Ok(String::from_utf8_lossy(&content).into_owned())
        };
        Ok((read("etc/passwd")?, read("etc/group")?))
    }

    /// The settings with the default `PATH`: the link to the profile, then the profiles themselves, for containers in
    /// which something is mounted over the link. containerd mounts a tmpfs on `/run` unless it is told not to.
    fn settings(&self, profiles: &[Profile]) -> Settings {
        let link = self.profile.profile_path.as_ref().map(|path| Path::new("/").join(path));
        let profiles = profiles.iter().map(|profile| self.profile.store.join(&profile.path));
        let path: Vec<_> = link.into_iter().chain(profiles).map(|profile| shown(profile.join("bin"))).collect();
        self.settings.clone().with_default("PATH", &path.join(":"))
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
    let mut request = Request::new(arguments, |name| std::env::var_os(name))?;
    // The user's mask is for OUT; what is in an image does not depend on it. The user keeps access in any case.
    let mask = umask(Mode::S_IRWXG | Mode::S_IRWXO) & (Mode::S_IRWXG | Mode::S_IRWXO);
    umask(mask);
    let interrupt = Interrupt::install()?;
    request.profile.locate_store(&interrupt)?;

    let store = &request.profile.store;
    let stdout = (request.form == Form::Stdout).then(report::stdout).transpose()?;
    let destination = Destination::inspect(&request.out, store, stdout)?;
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

    let (mut beside, mut warnings) = request.beside(&profiles, &interrupt)?;
    if request.includes.is_empty() {
        warnings.extend(request.profile.nix_inside(&profiles, &closure));
    }
    let store = &request.profile.store;
    let mut settings = request.settings(&profiles);
    if let Some(bill) = &bill {
        beside.text(Path::new(sbom::PLACE.trim_start_matches('/')), bill)?;
        settings = settings.with_label(labels::SBOM, sbom::PLACE);
    }
    if request.form != Form::Layout && matches!(request.compression, Compression::Zstd(_)) {
        warnings.push("Docker 20.10 does not load an archive whose layers are zstd".to_owned());
    }
    if request.form != Form::Layout {
        let new = request.tags.iter().filter(|tag| tag.is_new_to_engines());
        warnings.extend(new.map(|tag| {
            format!(
                "engines from before 2023, such as Docker 20.10, do not load an archive with the name `{}`",
                tag.given
            )
        }));
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
        cache_max_size: request.cache_max_size.map(|Size(bytes)| bytes),
        jobs,
        directory_mode: 0o777 & !mask.bits(),
    };
    let progress = Progress::default();
    let outcome = voice
        .with_progress(&progress, registrations.len(), || image.write(&destination, &progress, &interrupt))
        .map_err(|error| explain(error, &destination))?;
    for warning in &outcome.warnings {
        voice.warning(warning);
    }
    warnings.extend(outcome.warnings.iter().cloned());
    let receipt = ImageReceipt {
        out: if request.form == Form::Stdout { "-".to_owned() } else { shown(&destination.target().root) },
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
    if is_too_large(&error) {
        return hinted(error, TOO_LARGE);
    }
    if !is_out_of_space(&error) {
        return error;
    }
    let place = shown(&destination.target().drafts);
    hinted(
        error.context(format!("no space left for the image in `{place}`")),
        "make room, or write to another file system; nothing was changed",
    )
}
