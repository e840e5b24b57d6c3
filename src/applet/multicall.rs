//! What the program does under its own name: list its applets and install their symlinks.
//! It must never replace a file that is not one of these symlinks unless told to.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use fs_err as fs;

use super::{APPLETS, OWN_NAME, manual};
use crate::failure::{hinted, shown};
use crate::interrupt::survive_file_size_limit;
use crate::report;

/// Tools for container images of software that Nix built, in one static binary.
#[derive(Debug, Parser)]
#[command(name = OWN_NAME, version, max_term_width = 100, arg_required_else_help = true, after_help = applets_help(),
    override_usage = "nixkit APPLET [ARGUMENT]...\n       nixkit --list\n       nixkit --install DIR [--force]\n       nixkit --completions SHELL\n       nixkit --man DIR")]
struct Arguments {
    /// Print the names of the applets, one a line.
    #[arg(long, conflicts_with_all = ["install", "force", "completions", "man"])]
    list: bool,
    /// Make a symlink for each applet in DIR. One that is right already is left alone.
    #[arg(long, value_name = "DIR")]
    install: Option<PathBuf>,
    /// With `--install`: replace files of the same names.
    #[arg(long, requires = "install")]
    force: bool,
    /// Print what completes the options of all applets in a shell: `source <(nixkit --completions bash)`.
    #[arg(long, value_name = "SHELL", value_enum, conflicts_with_all = ["install", "man"])]
    completions: Option<manual::For>,
    /// Write a manual page for each applet into DIR, such as `/usr/local/share/man/man1`.
    #[arg(long, value_name = "DIR", conflicts_with = "install")]
    man: Option<PathBuf>,
}

/// What the program understands under its own name.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

fn applets_help() -> String {
    let width = APPLETS.iter().map(|applet| applet.name.len()).max().unwrap_or(0);
    let lines: Vec<_> = APPLETS.iter().map(|a| format!("  {:width$}  {}", a.name, a.about)).collect();
    format!(
        "Applets:\n{}\n\nA symlink with an applet's name runs that applet; `nixkit APPLET --help` explains it.",
        lines.join("\n")
    )
}

pub(super) fn run(mut argv: Vec<OsString>) -> anyhow::Result<u8> {
    survive_file_size_limit();
    // `nixkit help` is what people type first.
    if argv.get(1).is_some_and(|word| word == "help") {
        argv[1] = "--help".into();
    }
    let arguments = Arguments::try_parse_from(argv)?;
    if arguments.list {
        let names: Vec<_> = APPLETS.iter().map(|applet| applet.name).collect();
        report::data(&(names.join("\n") + "\n"))?;
        return Ok(0);
    }
    if let Some(shell) = arguments.completions {
        report::data(&manual::completions(shell))?;
    }
    if let Some(directory) = arguments.man {
        manual::pages(&directory)?;
    }
    // Without any argument clap has printed the help.
    if let Some(directory) = arguments.install {
        install(&directory, arguments.force)?;
    }
    Ok(0)
}

/// Makes a symlink per applet in `directory`. All are judged before the first is made.
fn install(directory: &Path, force: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    let real_directory = fs::canonicalize(directory).map_err(|error| {
        let hint = format!("make it first: mkdir -p {}", shown(directory));
        hinted(anyhow::Error::new(error).context(format!("cannot install into `{}`", shown(directory))), hint)
    })?;
    if !fs::metadata(&real_directory)?.is_dir() {
        bail!("cannot install into `{}`: it is no directory", shown(directory));
    }
    // Beside the program a relative link survives a move of the folder.
    let target = match (program.parent(), program.file_name()) {
        (Some(parent), Some(name)) if parent == real_directory => PathBuf::from(name),
        _ => program.clone(),
    };
    let mut missing = Vec::new();
    for applet in APPLETS {
        let link = directory.join(applet.name);
        match fs::symlink_metadata(&link) {
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(link),
            Err(error) => return Err(error.into()),
            Ok(metadata) if metadata.is_dir() => bail!("cannot install: `{}` is a directory", shown(&link)),
            Ok(_) if fs::canonicalize(&link).is_ok_and(|leads_to| leads_to == program) => {}
            Ok(_) if force => missing.push(link),
            Ok(_) => {
                return Err(hinted(
                    anyhow::anyhow!("cannot install: `{}` exists and is not this program", shown(&link)),
                    "`--force` replaces it",
                ));
            }
        }
    }
    for link in missing {
        let mut temporary = link.clone().into_os_string();
        temporary.push(format!(".{OWN_NAME}-{}", std::process::id()));
        fs::os::unix::fs::symlink(&target, &temporary)?;
        if let Err(error) = fs::rename(&temporary, &link) {
            let _ = fs::remove_file(&temporary);
            return Err(error.into());
        }
    }
    Ok(())
}
