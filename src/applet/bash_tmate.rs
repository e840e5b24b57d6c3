//! `bash-tmate`: bash, and a tmate session where it fails.
//! It must never end otherwise than bash did, whatever happens with the session.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, getegid, geteuid, getgid, getuid, isatty};

use crate::bash::account::{Failure, reason};
use crate::bash::hook::{Situation, obstacle};
use crate::bash::invocation::{self, Invocation};
use crate::bash::settings::Settings;
use crate::failure::{NotExecutable, NotFound, hinted};
use crate::interrupt::Interrupt;
use crate::report::{Level, Voice};
use crate::scene::Stage;
use crate::supervise::{Children, Ending, Outcome, Signals, is_first_process, supervise};
use crate::sys::{self, NotStarted, Program};
use crate::tmate::options::{Options, Words};
use crate::tmate::session::{End, Scene, run as run_session};

const NAME: &str = "bash-tmate";
const BASH_ENV: &str = "BASH_ENV";

/// What it understands, for completions and manual pages: the words are bash's.
pub(super) fn command() -> clap::Command {
    let flag = |name, help| clap::Arg::new(name).long(name).action(clap::ArgAction::SetTrue).help(help);
    let words = clap::Arg::new("ARGUMENT").num_args(0..).help("As for bash").allow_hyphen_values(true);
    clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Run bash, and open a tmate session where it fails")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(flag("help", "bash's own help"))
        .arg(flag("version", "bash's version"))
        .arg(words)
}

pub(super) fn run(mut argv: Vec<OsString>) -> anyhow::Result<u8> {
    let settings = Settings::new(|name| std::env::var_os(name));
    let (name, login) = names_for_bash(&std::env::args_os().next().unwrap_or_default());
    let invocation = invocation::parse(name, &argv.split_off(argv.len().min(1)), login);
    let first = is_first_process();
    let may_fail = invocation.runs_a_job() && !settings.disable && !isatty(std::io::stdin()).unwrap_or(false);
    if !may_fail && !first {
        return Err(not_executed(exec(&invocation)));
    }
    let stage = if may_fail && settings.scene { set_stage(&invocation, settings.trace) } else { Err("") };
    let Ok(signals) = Signals::hold() else { return Err(not_executed(exec(&invocation))) };
    let bash_env = stage.as_ref().ok().map(Stage::bash_env);
    let started = with_program(&invocation, bash_env.as_deref(), |program| sys::spawn(program, &signals.before));
    let shell = match started {
        Ok(shell) => shell,
        Err(NotStarted::Exec(errno)) => return Err(not_executed(errno)),
        // Where there is no room for two processes the one is bash.
        Err(NotStarted::Fork(_)) => {
            signals.release();
            return Err(not_executed(exec(&invocation)));
        }
    };
    let Outcome { ending, interrupted } = supervise(shell, &signals, Children::Told, first);
    let code = ending.code();
    if may_fail && !interrupted && settings.wants(code) {
        let after = After { invocation: &invocation, settings: &settings, stage, ending };
        if first { after.run_beside(&signals) } else { after.run(&signals) }
    }
    Ok(code)
}

/// What `argv[0]` asks for: the one for bash, and whether its shell is a login shell. By another name than its
/// own, as with `exec -a`, that name is bash's.
fn names_for_bash(argv0: &OsStr) -> (OsString, bool) {
    let base = argv0.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    match super::called_name(argv0).as_bytes() {
        b"bash-tmate" | b"nixkit" | b"" => ("bash".into(), base.starts_with(b"-")),
        // A `-` before it tells bash by itself.
        _ => (argv0.to_owned(), false),
    }
}

/// Calls `act` with bash as a program, in this process's environment but for `BASH_ENV`.
fn with_program<T>(invocation: &Invocation, bash_env: Option<&str>, act: impl FnOnce(&Program<'_>) -> T) -> T {
    // Neither words nor variables hold a NUL: they came by execve(2).
    let c_string = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
    let mut arguments = vec![c_string(invocation.name.as_bytes().to_vec())];
    arguments.extend(invocation.arguments.iter().map(|word| c_string(word.as_bytes().to_vec())));
    let mut hook = bash_env.map(|path| c_string(format!("{BASH_ENV}={path}").into_bytes()));
    let hooked = hook.is_some();
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        if hooked && name == BASH_ENV {
            environment.extend(hook.take());
            continue;
        }
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend_from_slice(value.as_bytes());
        environment.push(c_string(variable));
    }
    environment.extend(hook);
    act(&Program { name: c"bash", arguments: &arguments, environment: &environment })
}

/// Becomes bash.
fn exec(invocation: &Invocation) -> Errno {
    with_program(invocation, None, sys::exec)
}

fn not_executed(errno: Errno) -> anyhow::Error {
    match errno {
        Errno::ENOENT => hinted(NotFound("cannot find `bash` in PATH".into()), "install it, or add its folder to PATH"),
        errno => NotExecutable(format!("cannot execute `bash`: {}", errno.desc())).into(),
    }
}

fn set_stage(invocation: &Invocation, trace: bool) -> Result<Stage, &'static str> {
    let variable = |name: &str| std::env::var_os(name);
    let bash_env = variable(BASH_ENV);
    let situation = Situation {
        runs: &invocation.runs,
        set: invocation.set.with_environment(variable),
        bash_env: bash_env.as_deref(),
        bash_env_is_unreadable: bash_env.as_deref().is_some_and(is_unreadable),
        xtrace_descriptor: variable("BASH_XTRACEFD").is_some(),
        outermost: variable("SHLVL")
            .and_then(|level| level.to_str()?.trim().parse::<i64>().ok())
            .is_none_or(|level| level < 1),
        from_network: ["SSH_CLIENT", "SSH2_CLIENT"].iter().any(|name| variable(name).is_some()) || stdin_is_a_socket(),
        set_user_id: getuid() != geteuid() || getgid() != getegid(),
    };
    if let Some(why) = obstacle(&situation) {
        return Err(why);
    }
    // `initialize_shell_variables` in bash's variables.c.
    let last_argument = variable("_").unwrap_or_else(|| invocation.name.clone());
    Stage::set(bash_env.as_deref(), &last_argument, trace)
}

fn is_unreadable(file: &OsStr) -> bool {
    let Ok(metadata) = std::fs::metadata(file) else { return false };
    metadata.is_dir() || std::fs::File::open(file).is_err()
}

fn stdin_is_a_socket() -> bool {
    use std::os::fd::AsFd;
    let stdin = std::io::stdin();
    let copy = stdin.as_fd().try_clone_to_owned().map(std::fs::File::from);
    copy.and_then(|file| file.metadata()).is_ok_and(|file| file.file_type().is_socket())
}

/// What follows a failure.
struct After<'a> {
    invocation: &'a Invocation,
    settings: &'a Settings,
    /// Or why there is none; without a reason where nobody wants one.
    stage: Result<Stage, &'static str>,
    ending: Ending,
}

impl After<'_> {
    /// As process 1 the session is a child's work, while this process goes on to reap.
    fn run_beside(&self, signals: &Signals) {
        match sys::fork_here() {
            Ok(ForkResult::Child) => {
                self.run(signals);
                std::process::exit(0);
            }
            Ok(ForkResult::Parent { child }) => reap_until(child, signals),
            Err(_) => self.run(signals),
        }
    }

    fn run(&self, signals: &Signals) {
        let voice = Voice { name: NAME, level: Level::Normal };
        let interrupt = Interrupt::install();
        signals.release();
        let snapshot = match &self.stage {
            Ok(stage) => stage.snapshot().map_err(reason),
            Err(why) => Err((*why).to_owned()),
        };
        let trace = self.stage.as_ref().ok().and_then(|stage| stage.record(self.ending.code()));
        let failure = Failure {
            runs: &self.invocation.runs,
            ending: self.ending,
            scene: snapshot.as_ref().map_err(Clone::clone),
            trace: trace.as_ref().map(|(record, inner)| (record, inner.as_ref())),
        };
        voice.session(&failure.line());
        for warning in &self.settings.warnings {
            voice.warning(warning);
        }
        let options = Options::new(Words::default(), |name| std::env::var_os(name));
        let (options, interrupt) = match (options, interrupt) {
            (Ok(options), Ok(interrupt)) => (options, interrupt),
            (Err(usage), _) => return voice.session_failed(&usage.into()),
            (_, Err(error)) => return voice.session_failed(&error),
        };
        let locals = trace.as_ref().map_or(&[][..], |(record, _)| &record.locals);
        let given: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
        let shell = match (&self.stage, &snapshot) {
            (Ok(stage), Ok(snapshot)) => stage.shell(snapshot, &given, locals).ok(),
            _ => None,
        };
        let scene = Scene {
            greeting: failure.greeting(),
            shell: shell.as_ref().map(|shell| shell.command.clone()),
            ..Scene::default()
        };
        match run_session(&options, &scene, voice, &interrupt) {
            End::NotStarted(error) | End::Lost(error) => voice.session_failed(&error),
            End::Idle | End::User | End::ContinueFile | End::Cap | End::Signal(_) => {}
        }
    }
}

fn reap_until(child: Pid, signals: &Signals) {
    supervise(child, signals, Children::Left, true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_is_called_bash_unless_the_name_is_the_callers() {
        for (argv0, name, login) in [
            ("bash-tmate", "bash", false),
            ("/bin/bash-tmate", "bash", false),
            ("-bash-tmate", "bash", true),
            ("/bin/-bash-tmate", "bash", true),
            ("/bin/.bash-tmate-wrapped", "bash", false),
            ("nixkit", "bash", false),
            ("", "bash", false),
            ("special", "special", false),
            ("-special", "-special", false),
        ] {
            assert_eq!(names_for_bash(OsStr::new(argv0)), (name.into(), login), "{argv0}");
        }
    }

    #[test]
    fn bash_env_takes_the_place_of_the_users() {
        let invocation = invocation::parse("bash".into(), &["x".into()], false);
        let variables = |bash_env| {
            with_program(&invocation, bash_env, |program| {
                assert_eq!(program.arguments, [c"bash", c"-eo", c"pipefail", c"x"].map(CString::from));
                program.environment.to_vec()
            })
        };
        let (plain, hooked) = (variables(None), variables(Some("/proc/1/fd/3")));
        let hook = CString::from(c"BASH_ENV=/proc/1/fd/3");
        let others = |all: &[CString]| -> Vec<_> {
            all.iter().filter(|variable| !variable.as_bytes().starts_with(b"BASH_ENV=")).cloned().collect()
        };
        assert_eq!(hooked.iter().filter(|variable| **variable == hook).count(), 1);
        assert_eq!(others(&hooked), others(&plain));
    }
}
