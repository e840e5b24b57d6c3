//! Where the pin of a file is: in its folder or above it, up to the repository's root.
//! It must never guess between two pins that disagree.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::anyhow;
use fs_err as fs;

use crate::failure::{hinted, shown};
use crate::pins::{self, Pin, Problem};

/// Where the tools put their files.
const PLACES: [&str; 3] = ["nix/sources.json", "npins/sources.json", "flake.lock"];
/// What only the root of a repository has.
const ROOT_MARKS: [&str; 3] = [".git", ".hg", ".jj"];

/// The absolute folder in which `file` lies. Of a symlink it is the link's own.
pub(super) fn folder_of(file: &Path) -> anyhow::Result<PathBuf> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(parent)?)
}

/// `folder` and the ones above it, up to the repository's root.
pub(super) fn up_to_the_root(folder: &Path) -> Vec<&Path> {
    let mut folders = Vec::new();
    for folder in folder.ancestors() {
        folders.push(folder);
        if ROOT_MARKS.iter().any(|mark| folder.join(mark).exists()) {
            break;
        }
    }
    folders
}

/// Whether a file is not there, rather than not readable.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Reads the pin in a file that the user named.
pub(super) fn read_pin(file: &Path, input: &str) -> anyhow::Result<Pin> {
    pins::read(&fs::read(file)?, input).map_err(|problem| explain(file, input, &problem))
}

/// Finds the pin for files in `folder`, and the file that it stands in as seen from here. The nearest folder
/// with a pin of this input counts; several in one folder must agree.
pub(super) fn find(folder: &Path, input: &str) -> anyhow::Result<(PathBuf, Pin)> {
    let mut without_it = Vec::new();
    for folder in up_to_the_root(folder) {
        let mut found: Vec<(PathBuf, Pin)> = Vec::new();
        for place in PLACES {
            let path = folder.join(place);
            let content = match fs::read(&path) {
                Ok(content) => content,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let path = from_here(&path);
            match pins::read(&content, input) {
                Ok(pin) => found.push((path, pin)),
                Err(problem) if problem.is_absence() => without_it.push(explain(&path, input, &problem)),
                Err(problem) => return Err(explain(&path, input, &problem)),
            }
        }
        if !found.is_empty() {
            return agreed(found, input);
        }
    }
    if let Some(error) = without_it.into_iter().next() {
        return Err(error);
    }
    Err(hinted(
        anyhow!("cannot find a pin: no `{}` in the file's folder or above it", PLACES.join("`, `")),
        "`--pins FILE` names the file",
    ))
}

/// The one pin that all of them are.
fn agreed(found: Vec<(PathBuf, Pin)>, input: &str) -> anyhow::Result<(PathBuf, Pin)> {
    for (index, (path, pin)) in found.iter().enumerate() {
        for (other_path, other) in &found[..index] {
            if !pin.agrees_with(other) {
                let told = |pin: &Pin| match &pin.channel {
                    Some(channel) => format!("{} of {channel}", pin.revision),
                    None => pin.revision.clone(),
                };
                return Err(hinted(
                    anyhow!(
                        "two pins of `{input}` disagree: `{}` has {}, `{}` has {}",
                        shown(other_path),
                        told(other),
                        shown(path),
                        told(pin)
                    ),
                    "`--pins FILE` says which one counts",
                ));
            }
        }
    }
    let channel = found.iter().find_map(|(_, pin)| pin.channel.clone());
    let best = found.into_iter().max_by_key(|(_, pin)| (pin.is_whole(), pin.channel.is_some()));
    let (path, pin) = best.ok_or_else(|| anyhow!("cannot find a pin"))?;
    Ok((path, Pin { channel: pin.channel.clone().or(channel), ..pin }))
}

fn explain(file: &Path, input: &str, problem: &Problem) -> anyhow::Error {
    let error = anyhow!("cannot read the pin of `{}` in `{}`: {problem}", shown(input), shown(file));
    match problem {
        Problem::NoInput(inputs) if !inputs.is_empty() => hinted(error, "`--input NAME` says which one to follow"),
        Problem::Several(_) => hinted(error, "keep one of them in the file that `--pins` names"),
        _ => error,
    }
}

/// An absolute path as seen from the working directory.
pub(super) fn from_here(path: &Path) -> PathBuf {
    let Ok(here) = std::env::current_dir().and_then(std::fs::canonicalize) else { return path.to_owned() };
    relative(path, &here)
}

fn relative(path: &Path, here: &Path) -> PathBuf {
    let common = path.components().zip(here.components()).take_while(|(own, other)| own == other).count();
    // With only the root in common the whole path says more.
    if common < 2 && here.components().count() > 1 {
        return path.to_owned();
    }
    let up = here.components().skip(common).map(|_| Component::ParentDir);
    up.chain(path.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_here() {
        for (path, here, expected) in [
            ("/a/b/flake.lock", "/a/b", "flake.lock"),
            ("/a/b/nix/sources.json", "/a/b", "nix/sources.json"),
            ("/a/flake.lock", "/a/b/c", "../../flake.lock"),
            ("/a/x/flake.lock", "/a/b", "../x/flake.lock"),
            ("/x/flake.lock", "/a/b", "/x/flake.lock"),
            ("/flake.lock", "/", "flake.lock"),
        ] {
            assert_eq!(relative(Path::new(path), Path::new(here)), Path::new(expected), "{path} from {here}");
        }
    }
}
