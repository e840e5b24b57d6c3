//! The whole commit of a pin that holds its first digits only: an npins channel pin, for one.
//! It must never ask the network unless it was told to, nor show the pin's URL, which may hold a token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::Arguments;
use super::discovery::Followed;
use crate::call::{Call, Program};
use crate::failure::{hinted, shown};
use crate::input;
use crate::interrupt::Interrupt;
use crate::nixpkgs::{Commit, Revision};
use crate::pins::{Pin, tree};
use crate::report::Voice;

/// The file in a channel's tree that holds its commit.
const IN_THE_TREE: &str = ".git-revision";
/// The same beside the tarball of its release.
const BESIDE_THE_TARBALL: &str = "git-revision";
/// Seconds that the network has for an answer of 40 bytes.
const PATIENCE: u64 = 60;
/// Of the list of all branches and pull requests of nixpkgs.
const LONGEST_LIST: u64 = 1 << 30;

/// The whole commit: from the pin, from a tag that has it already, from the tree in the store, from the
/// user's list, or from the network.
pub(super) fn whole(
    followed: &Followed,
    tags: &[String],
    arguments: &Arguments,
    voice: Voice,
    interrupt: &Interrupt,
) -> anyhow::Result<Revision> {
    let pin = &followed.pin;
    let Revision::Prefix(digits) = &pin.revision else { return Ok(pin.revision.clone()) };
    let found = if let Some(tag) = tags.iter().find_map(|tag| completing(tag, digits)) {
        voice.decision("the commit is completed from another tag");
        tag
    } else if let Some(commit) = in_the_store(pin, digits)? {
        voice.decision("the commit is completed from the pin's tree in the store");
        commit
    } else if let Some(file) = &arguments.revisions {
        in_a_list(file, digits)?
    } else if arguments.online {
        on_the_network(pin, digits, interrupt)?
    } else {
        return Err(hinted(
            anyhow!(
                "cannot complete the commit of `{}`: `{}` holds only its first digits, `{digits}`",
                shown(&arguments.input),
                shown(&followed.file)
            ),
            "`--online` asks for the rest; so does `git ls-remote https://github.com/NixOS/nixpkgs >FILE`, to be given \
             with `--revisions FILE`; and once Nix has fetched the pin, its tree in the store tells",
        ));
    };
    Ok(Revision::Full(found))
}

/// `text` as a commit that begins with `digits`.
fn completing(text: &str, digits: &str) -> Option<Commit> {
    let commit: Commit = text.trim().to_ascii_lowercase().parse().ok()?;
    commit.as_str().starts_with(digits).then_some(commit)
}

fn in_the_store(pin: &Pin, digits: &str) -> anyhow::Result<Option<Commit>> {
    let Some(hash) = &pin.nar_hash else { return Ok(None) };
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let store = set("NIX_STORE_DIR").or_else(|| set("NIX_STORE")).unwrap_or_else(|| "/nix/store".into());
    let Some(store) = store.to_str() else { return Ok(None) };
    let path = PathBuf::from(store).join(tree::store_path(hash, store)).join(IN_THE_TREE);
    match input::read_text(&path, input::LIMIT) {
        Ok(text) => completing(&text, digits)
            .map(Some)
            .ok_or_else(|| anyhow!("`{}` has no commit that begins with `{digits}`", shown(&path))),
        Err(_) => Ok(None),
    }
}

/// Lines of `git ls-remote`: a commit, a tab, and a name.
fn in_a_list(file: &Path, digits: &str) -> anyhow::Result<Commit> {
    let list = input::read(file, LONGEST_LIST)?;
    let words = list.split(|&byte| byte == b'\n').filter_map(|line| line.split(u8::is_ascii_whitespace).next());
    let mut found: Vec<Commit> = words.filter_map(|word| completing(std::str::from_utf8(word).ok()?, digits)).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [commit] => Ok(commit.clone()),
        [] => Err(hinted(
            anyhow!("no commit in `{}` begins with `{digits}`", shown(file)),
            "a branch that has moved on since is not in the list; `--online` asks for the release itself",
        )),
        _ => bail!("several commits in `{}` begin with `{digits}`", shown(file)),
    }
}

fn on_the_network(pin: &Pin, digits: &str, interrupt: &Interrupt) -> anyhow::Result<Commit> {
    let release = pin.release.as_deref().ok_or_else(|| anyhow!("the pin names no release to ask for its commit"))?;
    if !release.starts_with("https://") && !release.starts_with("http://") {
        bail!("cannot ask for the commit: the pin's URL is not a web address");
    }
    if release.contains(['"', '\\']) || release.contains(char::is_control) {
        bail!("cannot ask for the commit: the pin's URL has characters that a URL cannot have");
    }
    let curl = Program::find("curl", "`--online` needs it", interrupt.clone())?;
    // -q first: without the user's own settings. The URL is read from standard input, since it may hold a token.
    let call = Call::new(
        Duration::from_secs(2 * PATIENCE),
        ["-q", "--fail", "--silent", "--show-error", "--location", "--globoff", "--proto", "=https,http"],
    )
    .arg("--max-time")
    .arg(PATIENCE.to_string())
    .arg("--max-filesize")
    .arg("4096")
    .arg("--config")
    .arg("-")
    .input(format!("url = \"{release}/{BESIDE_THE_TARBALL}\"\n"));
    let answer = curl.ask(&call).context("cannot ask for the commit")?;
    if !answer.status.success() {
        // A signal from the terminal may have ended it.
        interrupt.check()?;
        bail!("cannot ask for the commit: {}", shown(answer.stderr.trim().lines().last().unwrap_or("curl failed")));
    }
    completing(&String::from_utf8_lossy(&answer.stdout), digits)
        .ok_or_else(|| anyhow!("the release's `{BESIDE_THE_TARBALL}` has no commit that begins with `{digits}`"))
}
