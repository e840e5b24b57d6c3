//! `flake.lock`, versions 5, 6 and 7 (`lockfile.cc`): a graph of nodes, which begins at the one named `root`.
//! It must never take a node for an input by its label: the node `nixpkgs` is often somebody else's.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::place::{self, Place};
use super::{Kind, Object, Pin, Problem, Text, part, tree};

/// The versions that Nix reads.
const VERSIONS: [&str; 3] = ["5", "6", "7"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    inputs: HashMap<String, Input>,
    original: Source,
    locked: Source,
    /// Version 5 has the NAR hash here.
    info: Source,
}

/// The label of a node, or the names of inputs that lead to it from the root (*follows*).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Node(String),
    Follows(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    r#ref: Text,
    rev: Text,
    url: Text,
    #[serde(rename = "narHash")]
    nar_hash: Text,
}

pub(super) fn read(object: &Object<'_>, name: &str) -> Result<Pin, Problem> {
    let version = object.get("version").map_or("", |version| version.get());
    if !VERSIONS.contains(&version) {
        return Err(Problem::Version(Kind::Flake, version.chars().take(20).collect()));
    }
    let nodes: Object<'_> = match object.get("nodes") {
        Some(nodes) => part(nodes, "`nodes` is no object")?,
        None => return Err(Problem::Shape("it has no `nodes`")),
    };
    let root: String = match object.get("root") {
        Some(root) => part(root, "`root` is no string")?,
        None => return Err(Problem::Shape("it has no `root`")),
    };
    let mut graph = Graph { nodes: &nodes, root, read: HashMap::new(), following: HashSet::new() };
    let inputs = &graph.node(&graph.root.clone())?.inputs;
    if !inputs.contains_key(name) {
        let mut names: Vec<_> = inputs.keys().map(crate::failure::shown).collect();
        names.sort();
        return Err(Problem::NoInput(names));
    }
    let label = graph.resolve(&[name.to_owned()])?;
    pin(graph.node(&label)?)
}

struct Graph<'a> {
    nodes: &'a Object<'a>,
    root: String,
    read: HashMap<String, Node>,
    /// The paths that are being followed, to see a circle.
    following: HashSet<Vec<String>>,
}

impl Graph<'_> {
    fn node(&mut self, label: &str) -> Result<&Node, Problem> {
        if !self.read.contains_key(label) {
            let value = self.nodes.get(label).ok_or(Problem::Shape("an input leads to a node that is not there"))?;
            self.read.insert(label.to_owned(), part(value, "a node has another form than Nix gives it")?);
        }
        self.read.get(label).ok_or(Problem::Follows)
    }

    /// The label of the node to which names of inputs lead from the root.
    fn resolve(&mut self, path: &[String]) -> Result<String, Problem> {
        // Each step replaces the way so far by another; a loop over a stack, so that depth costs no stack.
        let mut label = self.root.clone();
        let mut steps: Vec<String> = path.iter().rev().cloned().collect();
        while let Some(name) = steps.pop() {
            match self.node(&label)?.inputs.get(&name) {
                Some(Input::Node(next)) => label.clone_from(next),
                Some(Input::Follows(path)) => {
                    let path = path.clone();
                    steps.extend(path.into_iter().rev());
                    label.clone_from(&self.root);
                    // The same rest of the way from the root again would go on for ever.
                    if !self.following.insert(steps.clone()) || steps.len() > self.nodes.len() + 1000 {
                        return Err(Problem::Follows);
                    }
                }
                None => return Err(Problem::Follows),
            }
        }
        Ok(label)
    }
}

fn pin(node: &Node) -> Result<Pin, Problem> {
    let Place { revision, channel, release } = node.locked.url.as_deref().map(place::of_url).unwrap_or_default();
    let original = node.original.url.as_deref().map(place::of_url).unwrap_or_default();
    let reference = node.original.r#ref.as_deref();
    let stated = if reference.is_some() { place::channel_of_branch(reference) } else { original.channel.or(channel) };
    let locked = place::whole(node.locked.rev.as_deref());
    let revision = locked
        .or(revision)
        .or_else(|| place::whole(node.original.rev.as_deref()))
        .or(original.revision)
        .ok_or(Problem::NoRevision)?;
    let hash = node.locked.nar_hash.as_deref().or(node.info.nar_hash.as_deref());
    Ok(Pin {
        kind: Kind::Flake,
        nar_hash: hash.and_then(tree::sha256).filter(|_| release.is_some()),
        revision,
        channel: stated,
        release,
    })
}
