//! `bash-tmate`: bash, and a tmate session where it fails.
//! It must never end otherwise than bash did, whatever happens with the session.

mod session;

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;

use anyhow::Context;
use nix::errno::Errno;
use nix::unistd::{getegid, geteuid, getgid, getuid, isatty};

use self::session::AfterFailure;
use crate::bash::invocation::{self, Invocation};
use crate::bash::settings::Settings;
use crate::bash::situation::{Situation, obstacle};
use crate::bash::{restored, watch};
use crate::failure::{NotExecutable, NotFound, hinted};
use crate::job::Mailbox;
use crate::report;
use crate::scene::{self, Stage};
use crate::script_text;
use crate::supervise::processes::own_number;
use crate::supervise::{Children, Outcome, Signals, in_child, is_first_process, supervise};
use crate::sys::{self, NotStarted, Program};

const NAME: &str = "bash-tmate";
const BASH_ENV: &str = "BASH_ENV";
/// Why nothing of the script is restored with `BASH_TMATE_SCENE=0`.
const NOT_WANTED: &str = "BASH_TMATE_SCENE is 0";

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
    let may_fail =
        invocation.runs_a_job() && settings.may_follow(&invocation.runs, isatty(std::io::stdin()).unwrap_or(false));
    if !may_fail && !first {
        return Err(not_executed(exec(&invocation)));
    }
    let Ok(signals) = Signals::hold() else { return Err(not_executed(exec(&invocation))) };
    let stage =
        if may_fail && settings.scene { set_stage(&invocation, settings.trace, &signals) } else { Err(NOT_WANTED) };
    let mailbox = if may_fail && !settings.nested { Mailbox::new() } else { None };
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
        let after =
            AfterFailure { invocation: &invocation, settings: &settings, stage, ending, mailbox, number: own_number() };
        in_child(&signals, first, || {
            after.run(&signals);
            0
        });
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

fn set_stage(invocation: &Invocation, trace: Option<bool>, signals: &Signals) -> Result<Stage, &'static str> {
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
    let environment: Vec<_> = std::env::vars_os().collect();
    let environment = environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let watch = watch::choose(&script_text::of(&invocation.runs, signals), trace, environment);
    Stage::set(bash_env.as_deref(), &last_argument, watch)
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

/// Compares the state of a session's shell with that of the script, and says what it found. This is the hidden program
/// that the shell runs last when it starts.
pub(super) fn report_restored(arguments: &[OsString]) -> anyhow::Result<u8> {
    let [before, after, record, traced] = arguments else { anyhow::bail!("this is for bash-tmate alone") };
    let before = scene::read_snapshot(before).context("the state of the script is not there")?;
    let before = if traced == "1" { before.without_errtrace() } else { before };
    let after = scene::read_snapshot(after);
    let locals = scene::read_record(record).map_or_else(Vec::new, |record| record.locals);
    report::data(&(restored::report(&before, after.as_ref(), &locals).join("\n") + "\n"))?;
    Ok(0)
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
