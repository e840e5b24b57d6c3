//! Completions for shells and manual pages, made by clap's own generators from what each applet understands.
//! It must never know an option by itself: the applets' commands are all there is.

use std::path::Path;

use anyhow::Context;
use clap::{Command, ValueEnum};
use clap_complete::Shell;
use fs_err as fs;

use super::{APPLETS, OWN_NAME, multicall};
use crate::failure::shown;
use crate::sink::replace;

/// The shells for which there are completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum For {
    Bash,
    Zsh,
    Fish,
}

/// The program under its own name, with the applets as its subcommands.
fn whole() -> Command {
    let applets = APPLETS.iter().map(|applet| (applet.command)().name(applet.name).about(applet.about));
    multicall::command().subcommands(applets)
}

/// Completions for the program and for each applet by its own name, as one file.
pub(super) fn completions(shell: For) -> String {
    let generator = match shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let commands = std::iter::once(whole()).chain(APPLETS.iter().map(|applet| (applet.command)()));
    let parts = commands.map(|mut command| {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(generator, &mut command, &name, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    if shell == For::Zsh { zsh(&parts.collect::<Vec<_>>()) } else { parts.collect() }
}

/// zsh takes one file for several commands only if its first line names them all, and it runs the file itself when
/// the first of them is completed: so what runs each part's own function comes last and asks for which it is.
fn zsh(parts: &[String]) -> String {
    let names: Vec<_> = std::iter::once(OWN_NAME).chain(APPLETS.iter().map(|applet| applet.name)).collect();
    let mut text = format!("#compdef {}\n", names.join(" "));
    for part in parts {
        let functions = part.rfind("\nif [ \"$funcstack[1]\"").map_or(part.as_str(), |end| &part[..=end]);
        text.push_str(functions.split_once('\n').map_or(functions, |(_, rest)| rest));
    }
    for name in &names {
        text.push_str(&format!("compdef _{name} {name}\n"));
    }
    text.push_str(&format!("[ \"$funcstack[1]\" = _{OWN_NAME} ] && \"_$service\" \"$@\"\n"));
    text
}

/// Writes a page for the program and one for each applet into `directory`, which is made if it is not there.
pub(super) fn pages(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let commands = std::iter::once(multicall::command()).chain(APPLETS.iter().map(|applet| (applet.command)()));
    for command in commands {
        let path = directory.join(format!("{}.1", command.get_name()));
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .with_context(|| format!("cannot make the page `{}`", shown(&path)))?;
        replace::write(&path, &String::from_utf8_lossy(&page))?;
    }
    Ok(())
}
