//! Links between the documents, their sizes, and the parts of them that programs write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use walkdir::WalkDir;

use super::{documents, repository};
use crate::support::{finish, folder, nixkit};

/// README.md is for the first five minutes. Everything else belongs into `docs`.
const LARGEST_README: usize = 12 * 1024;

/// What other documents, and the test, need to know of one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outline {
    /// The targets of links and pictures.
    links: Vec<String>,
    /// The anchors that GitHub and GitLab give to headings.
    anchors: BTreeSet<String>,
}

/// GitHub's rule: lower case, no punctuation, hyphens for blanks; the second of two equal ones gets `-1`.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn outline(text: &str) -> Outline {
    let mut outline = Outline::default();
    let mut heading: Option<String> = None;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                outline.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let count = seen.entry(anchor.clone()).or_default();
                outline.anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                *count += 1;
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    outline
}

/// `path` without `.` and `..`; `None` if it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !normal.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}

/// What is wrong with `link` in `document`.
fn fault(document: &Path, link: &str, outlines: &BTreeMap<PathBuf, Outline>) -> Option<&'static str> {
    if link.contains("://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { document.to_owned() } else { document.parent().unwrap().join(path) };
    let Some(target) = normal(&target) else { return Some("it leaves the repository") };
    if !repository().join(&target).exists() {
        return Some("there is no such file");
    }
    match (anchor, outlines.get(&target)) {
        (Some(anchor), Some(outline)) if outline.anchors.contains(anchor) => None,
        (Some(_), _) => Some("there is no such heading"),
        (None, _) => None,
    }
}

#[test]
fn anchors_follow_the_rule_of_github() {
    for (heading, expected) in [
        ("Why not …", "why-not-"),
        ("export-profile", "export-profile"),
        ("Exit status of `--check`", "exit-status-of---check"),
        ("`/nix/profile` or `/run/profile`", "nixprofile-or-runprofile"),
        ("What is it, and a_b?", "what-is-it-and-a_b"),
    ] {
        let text = format!("# {heading}\n");
        assert_eq!(outline(&text).anchors, BTreeSet::from([expected.to_owned()]), "{heading}");
    }
    assert_eq!(outline("# A\n## A\n").anchors, BTreeSet::from(["a".to_owned(), "a-1".to_owned()]));
}

#[test]
fn links_are_found_where_readers_see_them() {
    let text =
        "[a](b.md) ![c](d.svg)\n\n| [e](f.md#g) |\n|---|\n\n`[no](no)`\n\n```\n[no](no)\n```\n<!-- [no](no) -->\n";
    assert_eq!(outline(text).links, ["b.md", "d.svg", "f.md#g"]);
}

#[test]
fn links_and_anchors_in_the_documents_lead_somewhere() {
    let outlines: BTreeMap<_, _> = documents().into_iter().map(|(path, text)| (path, outline(&text))).collect();
    let faults: Vec<_> = outlines
        .iter()
        .flat_map(|(path, outline)| outline.links.iter().map(move |link| (path, link)))
        .filter_map(|(path, link)| Some(format!("{}: ({link}): {}", path.display(), fault(path, link, &outlines)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let none = Outline::default();
    let linked: BTreeSet<_> = outlines[Path::new("README.md")].links.iter().map(String::as_str).collect();
    for path in outlines.keys().filter(|path| path.starts_with("docs")) {
        assert!(linked.contains(path.to_str().unwrap()), "README.md has no link to {}", path.display());
        assert_ne!(outlines[path], none, "{} is empty", path.display());
    }
}

#[test]
fn the_readme_is_short() {
    let size = fs_err::read(repository().join("README.md")).unwrap().len();
    assert!(size <= LARGEST_README, "README.md has {size} bytes, more than {LARGEST_README}: move something to docs/");
}

/// The files in `directory` by name. Programs that write them are not among them.
fn files(directory: &Path, extension: &str) -> BTreeMap<String, String> {
    let entries = WalkDir::new(directory).min_depth(1).into_iter().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().extension().is_some_and(|found| found == extension))
        .map(|entry| {
            let text = fs_err::read_to_string(entry.path()).unwrap();
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// Compares what `program` writes into a new folder with what is in `docs`.
fn are_up_to_date(program: &str, arguments: &[&Path], extension: &str) {
    let written = folder();
    let program = repository().join(program);
    finish(Command::new(&program).args(arguments).arg(written.path()));
    let (written, found) = (files(written.path(), extension), files(program.parent().unwrap(), extension));
    let names: BTreeSet<_> = written.keys().chain(found.keys()).collect();
    assert!(!names.is_empty());
    let stale: Vec<_> = names.into_iter().filter(|name| written.get(*name) != found.get(*name)).collect();
    assert!(stale.is_empty(), "not what `{}` writes: {stale:?}; run `make docs`", program.display());
}

#[test]
fn the_lists_of_options_are_up_to_date() {
    are_up_to_date("docs/cli/make", &[&nixkit()], "md");
}

#[test]
fn the_pictures_are_up_to_date() {
    are_up_to_date("docs/pictures/make", &[], "svg");
}
