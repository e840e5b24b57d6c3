//! Where the pin of a file is: in its folder or above it, up to the repository's root.
//! It must never guess between two pins that disagree.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::anyhow;
use fs_err as fs;

use crate::failure::{hinted, shown};
use crate::input;
use crate::pins::{self, Origin, Pin, Problem};

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

/// A pin that files follow.
#[derive(Debug)]
pub(super) struct Followed {
    /// Its file, as seen from the working directory.
    pub(super) file: PathBuf,
    /// What it pins.
    pub(super) pin: Pin,
    /// What the user should know about it.
    pub(super) remark: Option<String>,
}

/// The pins of a run. Each file is read once.
pub(super) struct Pins<'a> {
    input: &'a str,
    read: HashMap<PathBuf, Option<Rc<File>>>,
}

struct File {
    source: Vec<u8>,
    found: Result<Pin, Problem>,
}

impl<'a> Pins<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, read: HashMap::new() }
    }

    /// The pin in a file that the user named. With `of_nixpkgs` it must be one of nixpkgs.
    pub(super) fn of_file(&mut self, path: &Path, of_nixpkgs: bool) -> anyhow::Result<Followed> {
        let file = match self.read.get(path).cloned().flatten() {
            Some(file) => file,
            None => self.keep(path, input::read(path, input::LIMIT)?),
        };
        self.follow(path.to_owned(), &file, of_nixpkgs)?.map_err(|problem| self.explain(path, &file, &problem))
    }

    /// The pin for files in `folder`. The nearest folder with a pin of this input counts; several in one folder must
    /// agree.
    pub(super) fn find(&mut self, folder: &Path, of_nixpkgs: bool) -> anyhow::Result<Followed> {
        let mut without_it = Vec::new();
        for folder in up_to_the_root(folder) {
            let mut found: Vec<Followed> = Vec::new();
            for place in PLACES {
                let path = folder.join(place);
                let Some(file) = self.file(&path)? else { continue };
                let path = from_here(&path);
                match self.follow(path.clone(), &file, of_nixpkgs)? {
                    Ok(pin) => found.push(pin),
                    Err(problem) if problem.is_absence() => without_it.push(self.explain(&path, &file, &problem)),
                    Err(problem) => return Err(self.explain(&path, &file, &problem)),
                }
            }
            if !found.is_empty() {
                return agreed(found, self.input);
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

    fn file(&mut self, path: &Path) -> anyhow::Result<Option<Rc<File>>> {
        if let Some(file) = self.read.get(path) {
            return Ok(file.clone());
        }
        match input::read(path, input::LIMIT) {
            Ok(source) => Ok(Some(self.keep(path, source))),
            Err(error) if error.is_absence() => {
                self.read.insert(path.to_owned(), None);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn keep(&mut self, path: &Path, source: Vec<u8>) -> Rc<File> {
        let file = Rc::new(File { found: pins::read(&source, self.input), source });
        self.read.insert(path.to_owned(), Some(Rc::clone(&file)));
        file
    }

    /// What a file pins. With `of_nixpkgs` it fails for another repository than nixpkgs, of which there is no base
    /// image; of a flake that adds patches to nixpkgs, nixpkgs itself is followed.
    fn follow(&self, path: PathBuf, file: &File, of_nixpkgs: bool) -> anyhow::Result<Result<Followed, Problem>> {
        let pin = match &file.found {
            Ok(pin) => pin.clone(),
            Err(problem) => return Ok(Err(problem.clone())),
        };
        let (input, place) = (shown(self.input), shown(&path));
        let (pin, remark) = match (&pin.origin, &pin.upstream) {
            _ if !of_nixpkgs => (pin, None),
            (Origin::Mirror(name), _) => {
                let remark = format!("`{input}` in `{place}` is {name}, which is taken for a mirror of nixpkgs");
                (pin, Some(remark))
            }
            (Origin::Other(name), Some(upstream)) => {
                let remark = format!("`{input}` in `{place}` is {name}, of which the input `nixpkgs-src` is followed");
                (upstream.as_ref().clone(), Some(remark))
            }
            (Origin::Other(name), None) => {
                let error = anyhow!("cannot use the pin of `{input}` in `{place}`: it is {name}, not nixpkgs");
                return Err(hinted(error, self.other_inputs(file)));
            }
            _ => (pin, None),
        };
        Ok(Ok(Followed { file: path, pin, remark }))
    }

    fn other_inputs(&self, file: &File) -> String {
        let mut names = pins::of_nixpkgs(&file.source);
        names.retain(|name| name != self.input);
        match names.as_slice() {
            [] => "no input of this file is nixpkgs; `--pins FILE` names another file, `--image PREFIX` another image"
                .to_owned(),
            names => format!("`--input NAME` chooses an input that is nixpkgs: `{}`", names.join("`, `")),
        }
    }

    fn explain(&self, path: &Path, file: &File, problem: &Problem) -> anyhow::Error {
        let error = anyhow!("cannot read the pin of `{}` in `{}`: {problem}", shown(self.input), shown(path));
        match problem {
            Problem::NoInput(inputs) if !inputs.is_empty() => hinted(error, self.other_inputs(file)),
            Problem::Several(_) => hinted(error, "keep one of them in the file that `--pins` names"),
            Problem::NoUrl | Problem::NotRead(_) if path.file_name().is_some_and(|name| name == "flake.nix") => {
                hinted(error, "the commits of a flake's inputs are in `flake.lock`")
            }
            _ => error,
        }
    }
}

/// The one pin that all of them are.
fn agreed(found: Vec<Followed>, input: &str) -> anyhow::Result<Followed> {
    for (index, own) in found.iter().enumerate() {
        for other in &found[..index] {
            if !own.pin.agrees_with(&other.pin) {
                let described = |pin: &Pin| match &pin.channel {
                    Some(channel) => format!("{} of {channel}", pin.revision.digits()),
                    None => pin.revision.digits().to_owned(),
                };
                return Err(hinted(
                    anyhow!(
                        "two pins of `{}` disagree: `{}` has {}, `{}` has {}",
                        shown(input),
                        shown(&other.file),
                        described(&other.pin),
                        shown(&own.file),
                        described(&own.pin)
                    ),
                    "`--pins FILE` says which one counts",
                ));
            }
        }
    }
    let channel = found.iter().find_map(|followed| followed.pin.channel.clone());
    let best = found.into_iter().max_by_key(|own| (own.pin.revision.is_whole(), own.pin.channel.is_some()));
    let Followed { file, pin, remark } = best.ok_or_else(|| anyhow!("cannot find a pin"))?;
    Ok(Followed { file, pin: Pin { channel: pin.channel.clone().or(channel), ..pin }, remark })
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
