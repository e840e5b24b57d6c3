//! The whole commit of a pin that holds its first digits only: an npins channel pin, for one.
//! It must never ask the network unless it was told to, nor show the pin's URL, which may hold a token.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;

use super::{Arguments, Job};
use crate::dockerfile::rewrite::Revision;
use crate::failure::{hinted, shown};
use crate::pins::{Pin, tree};
use crate::report::Voice;

/// Hexadecimal digits of a whole commit.
const WHOLE: usize = 40;
/// The file in a channel's tree that holds its commit.
const IN_THE_TREE: &str = ".git-revision";
/// The same beside the tarball of its release.
const BESIDE_THE_TARBALL: &str = "git-revision";
/// Seconds that the network has for an answer of 40 bytes.
const PATIENCE: &str = "60";

/// What a pin says of its commit.
pub(super) fn of(pin: &Pin) -> Revision {
    if pin.is_whole() { Revision::Full(pin.revision.clone()) } else { Revision::Prefix(pin.revision.clone()) }
}

/// The whole commit: from the pin, from a tag that has it already, from the tree in the store, from the
/// user's list, or from the network.
pub(super) fn whole(job: &Job, tags: &[String], arguments: &Arguments, voice: Voice) -> anyhow::Result<Revision> {
    let digits = match of(&job.pin) {
        Revision::Prefix(digits) => digits,
        whole @ Revision::Full(_) => return Ok(whole),
    };
    let found = if let Some(tag) = tags.iter().find_map(|tag| completing(tag, &digits)) {
        voice.decision("the commit is completed from another tag");
        tag
    } else if let Some(commit) = in_the_store(&job.pin, &digits)? {
        voice.decision("the commit is completed from the pin's tree in the store");
        commit
    } else if let Some(file) = &arguments.revisions {
        in_a_list(file, &digits)?
    } else if arguments.online {
        on_the_network(&job.pin, &digits)?
    } else {
        return Err(hinted(
            anyhow!(
                "cannot complete the commit of `{}`: `{}` holds only its first digits, `{digits}`",
                shown(&arguments.input),
                shown(&job.pin_file)
            ),
            "`--online` asks for the rest; so does `git ls-remote https://github.com/NixOS/nixpkgs >FILE`, to be given \
             with `--revisions FILE`; and once Nix has fetched the pin, its tree in the store tells",
        ));
    };
    Ok(Revision::Full(found))
}

/// `text` as a commit that begins with `digits`.
fn completing(text: &str, digits: &str) -> Option<String> {
    let text = text.trim();
    let is_commit = text.len() == WHOLE && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let commit = text.to_lowercase();
    (is_commit && commit.starts_with(digits)).then_some(commit)
}

fn in_the_store(pin: &Pin, digits: &str) -> anyhow::Result<Option<String>> {
    let Some(hash) = &pin.nar_hash else { return Ok(None) };
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let store = set("NIX_STORE_DIR").or_else(|| set("NIX_STORE")).unwrap_or_else(|| "/nix/store".into());
    let Some(store) = store.to_str() else { return Ok(None) };
    let path = PathBuf::from(store).join(tree::store_path(hash, store)).join(IN_THE_TREE);
    match fs::read_to_string(&path) {
        Ok(text) => completing(&text, digits)
            .map(Some)
            .ok_or_else(|| anyhow!("`{}` holds no commit that begins with `{digits}`", shown(&path))),
        Err(_) => Ok(None),
    }
}

/// Lines of `git ls-remote`: a commit, a tab, and a name.
fn in_a_list(file: &Path, digits: &str) -> anyhow::Result<String> {
    let list = fs::read(file)?;
    let words = list.split(|&byte| byte == b'\n').filter_map(|line| line.split(u8::is_ascii_whitespace).next());
    let mut found: Vec<String> = words.filter_map(|word| completing(std::str::from_utf8(word).ok()?, digits)).collect();
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

fn on_the_network(pin: &Pin, digits: &str) -> anyhow::Result<String> {
    let release = pin.release.as_deref().ok_or_else(|| anyhow!("the pin names no release to ask for its commit"))?;
    if !release.starts_with("https://") && !release.starts_with("http://") {
        bail!("cannot ask for the commit: the pin's URL is no web address");
    }
    if release.contains(['"', '\\']) || release.contains(char::is_control) {
        bail!("cannot ask for the commit: the pin's URL has characters that no URL has");
    }
    // The URL goes by standard input: every user of the machine can read a command line.
    let mut curl = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--proto", "=https,http"])
        .args(["--max-time", PATIENCE, "--max-filesize", "4096", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `curl`, which `--online` needs")?;
    // A curl that fails at once does not read it; its own words say more than the broken pipe.
    let question = format!("url = \"{release}/{BESIDE_THE_TARBALL}\"\n");
    let _ = curl.stdin.take().map(|mut input| input.write_all(question.as_bytes()));
    let output = curl.wait_with_output().context("cannot wait for `curl`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot ask for the commit: {}", shown(said.trim().lines().last().unwrap_or("curl failed")));
    }
    completing(&String::from_utf8_lossy(&output.stdout), digits)
        .ok_or_else(|| anyhow!("the release's `{BESIDE_THE_TARBALL}` holds no commit that begins with `{digits}`"))
}
