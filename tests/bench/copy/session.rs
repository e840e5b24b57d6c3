//! One session of measuring: every file system, every round, every way.
//! It must never stop for one way that fails: that is a finding, and is reported as one.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nixkit::failure::Interrupted;

use crate::closure::{self, Closure, Recipe, STORE};
use crate::command::{Commands, command};
use crate::debian::Wanted;
use crate::results::{Facts, Results, Run, Stage as Measured};
use crate::round::{Bench, Turn};
use crate::stage::{Load, Stage, check_room};
use crate::verdict;
use crate::ways::{FileSystem, Kind, Way, schedule};
use crate::{Arguments, image, machine, say, scale};

/// The commands that the harness cannot do without.
const NEEDED: &[&str] =
    &["hyperfine", "nix", "nix-build", "nix-store", "rsync", "tar", "openssl", "mount", "findmnt", "/usr/bin/time"];

/// What every measurement needs.
struct Prepared<'a> {
    bench: Bench<'a>,
    closure: Closure,
    output: PathBuf,
    scratch: Scratch,
}

/// Checks that this is the place to measure in, and builds the closure.
fn prepare<'a>(commands: &'a Commands, arguments: &Arguments, needed: &[String]) -> anyhow::Result<Prepared<'a>> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark mounts file systems and needs root: run `make bench`");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs_err::create_dir_all(&arguments.output)?;
    let output = fs_err::canonicalize(&arguments.output)?;
    check_namespace()?;
    find_programs(needed)?;
    let scratch = Scratch::mount(commands, &output)?;
    let program = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let nixkit = program("NIXKIT").context("$NIXKIT must name the binary under test: run `make bench`")?;
    let bench = Bench {
        commands,
        nixkit: fs_err::canonicalize(nixkit)?,
        limit: program("NIXKIT_LIMIT").filter(|path| path.exists()).unwrap_or_default(),
        scratch: scratch.0.clone(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let top = if let Some(path) = &arguments.closure {
        fs_err::canonicalize(path)?
    } else {
        say("building the closure (once; it is kept)");
        closure::build(commands, &recipe(arguments.quick), &output, repository)?
    };
    let closure = closure::examine(commands, &top)?;
    say(&format!(
        "{} store paths, {} entries, {} MB",
        closure.facts.paths,
        closure.facts.entries(),
        closure.facts.bytes / 1_000_000
    ));
    Ok(Prepared { bench, closure, output, scratch })
}

/// Measures images, and returns what was found in Markdown.
pub(crate) fn measure_images(arguments: &Arguments) -> anyhow::Result<String> {
    let commands = Commands::new()?;
    let needed = ["pigz", "zstd", "tee", "bash"].map(str::to_owned);
    let Prepared { bench, closure, output, scratch: _scratch } = prepare(&commands, arguments, &needed)?;
    let rounds = arguments.rounds.map_or(if arguments.quick { 1 } else { 5 }, usize::from);
    image::measure(&bench, &closure, &output, rounds)
}

/// Measures what `arguments` ask for.
pub(crate) fn measure(arguments: &Arguments, save: &dyn Fn(&Results) -> anyhow::Result<()>) -> anyhow::Result<Results> {
    let commands = Commands::new()?;
    let Prepared { bench, closure, output, scratch } = prepare(&commands, arguments, &mkfs(arguments))?;
    let date = commands.run(&mut command("date", ["--utc", "+%Y-%m-%d"]))?.trim().to_owned();
    let machine = machine::describe(&commands, &output, &bench.nixkit);
    let results =
        Results { date, machine, closure: closure.facts.clone(), stages: Vec::new(), notes: notes(arguments.quick) };
    let rounds = arguments.rounds.map_or(if arguments.quick { 1 } else { 9 }, usize::from);
    let mut session = Session { bench, closure, output, mounts: scratch.0.clone(), results, failed: BTreeSet::new() };
    let mut done = BTreeSet::new();
    for file_system in arguments.file_systems.iter().copied().filter(|file_system| done.insert(*file_system)) {
        let begin = Instant::now();
        if file_system == FileSystem::Scale {
            let sizes = if arguments.quick { [10_000, 100_000] } else { [100_000, 1_000_000] };
            session.scale(sizes, rounds.div_ceil(3))?;
        } else {
            session.copy(file_system, rounds)?;
        }
        // A run that is ended early has not been for nothing.
        save(&session.results)?;
        say(&format!("{}: {} s", file_system.label(), begin.elapsed().as_secs()));
    }
    Ok(session.results)
}

fn recipe(quick: bool) -> Recipe {
    if quick {
        let wanted = Wanted { packages: 40, bytes: 40_000_000..=160_000_000 };
        Recipe { wanted, small_files: 1000 }
    } else {
        let wanted = Wanted { packages: 200, bytes: 1_050_000_000..=1_250_000_000 };
        Recipe { wanted, small_files: 20_000 }
    }
}

fn notes(quick: bool) -> Vec<String> {
    let mut notes: Vec<String> = [
        "Each round is on a fresh file system, which is dropped after it. Ways that are compared run back to back, and \
         their order turns from round to round.",
        "All of the store is in the page cache before each run, and nothing waits to be written.",
        "The others get the list of store paths ready-made; ours and the pipeline of `nix-store` ask Nix themselves.",
        "`cp`, `rsync` and `tar` keep owners, modes, times and hard links (`cp` within one command). `xcp` and `cpz` \
         keep less: neither keeps hard links, and `cpz` no times.",
        "Groups of ways that no target names run in every third round.",
        "Peak memory is that of the largest process of a way.",
    ]
    .map(str::to_owned)
    .into();
    if quick {
        let note = "**This was a `--quick` run.** It shows that everything works; the targets are meant for the whole \
                    closure and at least nine rounds, and the start of a process weighs more in a small one.";
        notes.insert(0, note.to_owned());
    }
    notes
}

/// Everything that is mounted here goes with the mount namespace, if it is one of our own.
fn check_namespace() -> anyhow::Result<()> {
    let [own, parent] = ["/proc/self/ns/mnt", "/proc/1/ns/mnt"].map(std::fs::read_link);
    // Where the first process's cannot be read, as in some containers, we are not alone in doubt.
    match (own, parent) {
        (Ok(own), Ok(parent)) if own == parent => {
            bail!("the benchmark needs a mount namespace of its own: run `make bench`")
        }
        _ => Ok(()),
    }
}

fn on_path(program: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    // An absolute name stays as it is.
    env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

fn mkfs(arguments: &Arguments) -> Vec<String> {
    arguments.file_systems.iter().map(|system| format!("mkfs.{}", system.mkfs())).collect()
}

fn find_programs(needed: &[String]) -> anyhow::Result<()> {
    let needed = NEEDED.iter().copied().chain(needed.iter().map(String::as_str));
    let missing: BTreeSet<&str> = needed.filter(|program| !on_path(program)).collect();
    if !missing.is_empty() {
        let missing: Vec<_> = missing.into_iter().collect();
        bail!("these programs are missing: {}; `.ci/set-up bench` installs them", missing.join(", "));
    }
    Ok(())
}

/// A place in memory for mount points and small files; it is gone when the mount namespace is.
struct Scratch(PathBuf);

impl Scratch {
    fn mount(commands: &Commands, output: &Path) -> anyhow::Result<Self> {
        let folder = output.join("mounts");
        fs_err::create_dir_all(&folder)?;
        let scratch = Self(folder);
        commands.run(command("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(&scratch.0))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.args(["--recursive", "--lazy"]).arg(&self.0).stderr(Stdio::null()).status();
        let _ = fs_err::remove_dir(&self.0);
    }
}

/// What no target names is timed in every third round, or the whole would take hours.
const OTHERS_EVERY: usize = 3;

struct Session<'a> {
    bench: Bench<'a>,
    closure: Closure,
    /// Images lie here.
    output: PathBuf,
    mounts: PathBuf,
    results: Results,
    /// These are not tried again.
    failed: BTreeSet<(FileSystem, Way)>,
}

impl Session<'_> {
    /// All rounds on `file_system`.
    fn copy(&mut self, file_system: FileSystem, rounds: usize) -> anyhow::Result<()> {
        let groups = self.groups(file_system);
        let kinds = groups.iter().flatten().map(|way| way.kind(file_system));
        let load = load(&self.closure.facts, kinds);
        check_room(&self.output, file_system, load)?;
        let lists = self.bench.lists(&self.closure)?;
        for round in 0..rounds {
            say(&format!("{}: round {} of {rounds}", file_system.label(), round + 1));
            let stage = self.stage(file_system, load, |root| {
                let store = root.join(STORE.trim_start_matches('/'));
                fs_err::create_dir_all(&store)?;
                self.bench.commands.run(command("cp", ["-a"]).args(&self.closure.paths).arg(&store))?;
                Ok(())
            })?;
            self.register(&self.closure.registration)?;
            self.note_stage(file_system, &stage);
            for (number, (group, way)) in schedule(&groups, round).into_iter().enumerate() {
                let due = round % OTHERS_EVERY == 0 || verdict::judges(file_system, &groups[group]);
                if !due || self.failed.contains(&(file_system, way)) {
                    continue;
                }
                let run = self.bench.run(&self.closure, &lists, Turn { round, group, way, number, check: round == 0 });
                self.note_run(file_system, way, run)?;
            }
        }
        Ok(())
    }

    /// All rounds of the generated closures.
    fn scale(&mut self, sizes: [u64; 2], rounds: usize) -> anyhow::Result<()> {
        let file_system = FileSystem::Scale;
        let mut ways = vec![Way::OursHardlink, Way::LimitHardlink, Way::OursCopy, Way::LimitCopy];
        ways.retain(|way| !way.is_limit() || self.bench.limit.is_file());
        let entries: u64 = sizes.iter().sum();
        // Half the entries are files of one block.
        let load = Load { bytes: entries * 2 * 2100, entries: entries * 3 };
        check_room(&self.output, file_system, load)?;
        for round in 0..rounds {
            say(&format!("{}: round {} of {rounds}", file_system.label(), round + 1));
            let stage = self.stage(file_system, load, |root| {
                sizes.iter().try_for_each(|size| scale::generate(self.bench.commands, root, *size, self.bench.cores))
            })?;
            self.note_stage(file_system, &stage);
            let mut number = 0;
            // Which of the two sizes and ways comes first changes from round to round.
            let mut turns: Vec<_> = sizes.iter().flat_map(|size| ways.iter().map(|way| (*size, *way))).collect();
            let first = round % turns.len();
            turns.rotate_left(first);
            for size in sizes {
                self.register(&scale::registration(size))?;
            }
            for (size, way) in turns {
                let closure = scale::examine(size)?;
                let lists = self.bench.lists(&closure)?;
                let turn = Turn { round, group: 0, way, number, check: round == 0 };
                number += 1;
                let run = self.bench.run(&closure, &lists, turn);
                self.note_run(file_system, way, run)?;
            }
        }
        Ok(())
    }

    fn stage(
        &self,
        file_system: FileSystem,
        load: Load,
        fill: impl Fn(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Stage> {
        Stage::make(self.bench.commands, file_system, load, &self.output, &self.mounts, fill)
            .with_context(|| format!("cannot set up {}", file_system.label()))
    }

    /// Tells the Nix on `/nix` of its paths.
    fn register(&self, registration: &str) -> anyhow::Result<()> {
        let file = self.bench.scratch.join("registration");
        fs_err::write(&file, registration)?;
        let mut load = command("sh", ["-c", "exec nix-store --load-db <\"$1\"", "sh"]);
        self.bench.commands.run(load.arg(&file)).context("cannot register the closure")?;
        Ok(())
    }

    fn note_stage(&mut self, file_system: FileSystem, stage: &Stage) {
        if self.results.stage(file_system).is_none() {
            let options = stage.options.clone();
            self.results.stages.push(Measured { file_system, options, runs: Vec::new() });
        }
    }

    /// Keeps the run, or says once why there is none.
    fn note_run(&mut self, file_system: FileSystem, way: Way, run: anyhow::Result<Run>) -> anyhow::Result<()> {
        match run {
            Ok(run) => {
                if let Some(stage) = self.results.stages.iter_mut().find(|stage| stage.file_system == file_system) {
                    stage.runs.push(run);
                }
                Ok(())
            }
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                let text = format!("On {}: {error:#}", file_system.label());
                say(&text);
                self.failed.insert((file_system, way));
                self.results.notes.push(format!("**Failed.** {}", text.replace('\n', " ")));
                Ok(())
            }
        }
    }

    /// The groups of `file_system` without the ways that this machine lacks.
    fn groups(&mut self, file_system: FileSystem) -> Vec<Vec<Way>> {
        let mut groups = file_system.groups();
        let mut absent = BTreeSet::new();
        let limit = self.bench.limit.is_file();
        for group in &mut groups {
            group.retain(|way| {
                let missing = way.optional_program().filter(|program| !on_path(program));
                absent.extend(missing);
                missing.is_none() && (limit || !way.is_limit())
            });
        }
        for program in absent {
            let note = format!("`{program}` is left out: it is not installed.");
            if !self.results.notes.contains(&note) {
                self.results.notes.push(note);
            }
        }
        groups
    }
}

/// What a round writes: the store, and what each of the ways makes of it.
fn load(facts: &Facts, kinds: impl Iterator<Item = Kind>) -> Load {
    let mut load = Load { bytes: facts.disk_bytes, entries: facts.entries() };
    for kind in kinds.filter(|kind| *kind != Kind::Reads) {
        load.entries += facts.entries();
        if kind == Kind::Copies {
            load.bytes += facts.disk_bytes;
        }
    }
    load
}
