//! What a user finds in the session: the shell, where it starts, and its environment.
//! It must never give the shell another environment than the caller's, but for what would harm it.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::visitors::Visitors;
use crate::failure::{NotFound, hinted, shown};
use crate::tmate::options::Options;

/// What would harm any shell in the session: inherited `errexit`, a script that is run first, and a logout by time.
pub(super) const HARMFUL: [&str; 3] = ["SHELLOPTS", "BASH_ENV", "TMOUT"];

/// What a user finds in the session.
#[derive(Clone, Debug, Default)]
pub struct Scene<'a> {
    /// What is said first, a line each, such as what failed. How to leave is added.
    pub greeting: Vec<String>,
    /// Where the shell starts; `None` for where this process is. One that cannot be entered is replaced by
    /// that, with a warning.
    pub directory: Option<PathBuf>,
    /// The shell's program and arguments; `None` for `bash -i`. [`Options::command`] wins.
    pub shell: Option<Vec<OsString>>,
    /// That shell says itself where it is.
    pub shell_tells_directory: bool,
    /// Variables to set (`Some`) or remove (`None`) in this process's own environment for the shell. What
    /// would harm any shell there (`SHELLOPTS`, `BASH_ENV`, `TMOUT`) is removed before that.
    pub environment: Vec<(OsString, Option<OsString>)>,
    /// Where other failures are told to this session.
    pub visitors: Option<&'a Visitors>,
}

/// The words of the shell, the first one a program that was found.
pub(super) fn shell(options: &Options, scene: &Scene<'_>) -> anyhow::Result<Vec<OsString>> {
    let mut words = match (&options.command, &scene.shell) {
        (Some(command), _) => vec!["sh".into(), "-c".into(), command.clone()],
        (None, Some(words)) if !words.is_empty() => words.clone(),
        _ => vec!["bash".into(), "-i".into()],
    };
    let program = which::which(&words[0]).map_err(|_| {
        let text = format!("cannot find `{}` in PATH for the session's shell", shown(&words[0]));
        hinted(NotFound(text), "`--command` names another shell")
    })?;
    // A relative one of PATH would be another after a change of directory.
    words[0] = std::path::absolute(&program).unwrap_or(program).into();
    Ok(words)
}

/// The variables of the shell that differ from tmate's own.
pub(super) fn shell_environment(scene: &Scene<'_>, directory: Option<&Path>) -> Vec<(OsString, Option<OsString>)> {
    // tmate sets these for its windows, or we for tmate; the shell gets what the caller had.
    let mut changes: Vec<_> = ["HOME", "SHELL"].into_iter().map(|name| (name.into(), std::env::var_os(name))).collect();
    // A shell takes it only where it leads to its directory: that keeps the way through links.
    let here = directory.map_or_else(this_directory, Path::to_owned);
    changes.push(("PWD".into(), Some(here.into())));
    changes.extend(scene.environment.iter().cloned());
    changes
}

/// Where this process is: by the way that `PWD` says, where that is right.
pub(super) fn this_directory() -> PathBuf {
    let id = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let here = id(Path::new("."));
    match std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(path) if here.is_some() && id(&path) == here => path,
        _ => std::env::current_dir().unwrap_or_else(|_| "/".into()),
    }
}

/// The user's `~/.tmate.conf`, which tmate itself does not read beside another conf.
pub(super) fn user_conf() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    let path = Path::new(&home).join(".tmate.conf");
    path.exists().then_some(path)
}

/// A shell for `-c`, for the windows that users open.
pub(super) fn window_shell() -> Option<PathBuf> {
    ["bash", "sh"].iter().find_map(|name| std::path::absolute(which::which(name).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Hinted;
    use crate::tmate::options::Words;

    #[test]
    fn the_command_wins_over_the_scenes_shell_and_that_over_bash() {
        let options = |command: Option<&str>| {
            let words = Words { command: command.map(OsString::from), ..Words::default() };
            Options::new(words, |_| None).unwrap()
        };
        let scene =
            |words: &[&str]| Scene { shell: Some(words.iter().map(OsString::from).collect()), ..Scene::default() };
        for (command, scene, program, arguments) in [
            (None, Scene::default(), "bash", &["-i"][..]),
            (None, scene(&[]), "bash", &["-i"]),
            (None, scene(&["cat", "-u"]), "cat", &["-u"]),
            (Some("a 'b'"), scene(&["cat", "-u"]), "sh", &["-c", "a 'b'"]),
        ] {
            let words = shell(&options(command), &scene).unwrap();
            assert!(Path::new(&words[0]).is_absolute() && Path::new(&words[0]).ends_with(program), "{words:?}");
            assert_eq!(words[1..], *arguments);
        }
        let error = shell(&options(None), &scene(&["no such program"])).unwrap_err();
        assert_eq!(error.to_string(), "cannot find `no such program` in PATH for the session's shell");
        assert!(error.downcast_ref::<Hinted>().unwrap().is::<NotFound>());
    }

    #[test]
    fn the_scenes_changes_come_last() {
        let scene =
            Scene { environment: vec![("PWD".into(), None), ("X".into(), Some("1".into()))], ..Scene::default() };
        let changes = shell_environment(&scene, Some(Path::new("/src")));
        let names: Vec<_> = changes.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["HOME", "SHELL", "PWD", "PWD", "X"]);
        assert_eq!(changes[2].1, Some("/src".into()));
        assert_eq!(changes[3].1, None);
    }
}
