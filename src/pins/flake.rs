//! `flake.lock`, versions 5, 6 and 7 (`lockfile.cc`): a graph of nodes, which begins at the one named `root`.
//! It must never take a node for an input by its label: the node `nixpkgs` is often somebody else's.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::url::{self, Place};
use super::{Kind, Object, Origin, Pin, Problem, Text, part, tree};

/// The input in which a flake that adds patches to nixpkgs, such as `cachix/devenv-nixpkgs`, has nixpkgs itself.
const UPSTREAM: &str = "nixpkgs-src";
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
    r#type: Text,
    owner: Text,
    repo: Text,
    /// Of an indirect input: its name in the registry.
    id: Text,
    path: Text,
    r#ref: Text,
    rev: Text,
    url: Text,
    #[serde(rename = "narHash")]
    nar_hash: Text,
}

impl Source {
    fn origin(&self) -> Origin {
        let forge = self.r#type.as_deref().unwrap_or_default();
        match (self.owner.as_deref(), self.repo.as_deref(), self.url.as_deref()) {
            (Some(owner), Some(repo), _) => Origin::of_repository(forge, owner, repo),
            (_, _, Some(url)) => Origin::of_url(url),
            _ if self.id.as_deref() == Some("nixpkgs") => Origin::Nixpkgs,
            _ => match (self.id.as_deref(), self.path.as_deref()) {
                (Some(id), _) => Origin::of_repository("flake", "", id),
                (_, Some(path)) if forge == "path" => Origin::of_url(path),
                _ => Origin::Unknown,
            },
        }
    }
}

impl Node {
    fn origin(&self) -> Origin {
        // A tree in the store says nothing about where it comes from.
        let is_in_store = self.locked.path.as_deref().is_some_and(|path| path.ends_with("-source"));
        match if is_in_store { Origin::Unknown } else { self.locked.origin() } {
            Origin::Unknown => self.original.origin(),
            known => known,
        }
    }
}

pub(super) fn read(object: &Object<'_>, name: &str) -> Result<Pin, Problem> {
    let nodes = nodes(object)?;
    let mut graph = Graph::new(object, &nodes)?;
    let inputs = &graph.node(&graph.root.clone())?.inputs;
    if !inputs.contains_key(name) {
        let mut names: Vec<_> = inputs.keys().map(crate::failure::shown).collect();
        names.sort();
        return Err(Problem::NoInput(names));
    }
    graph.pin(&[name.to_owned()])
}

fn nodes<'a>(object: &Object<'a>) -> Result<Object<'a>, Problem> {
    let version = object.get("version").map_or("", |version| version.get());
    if !VERSIONS.contains(&version) {
        return Err(Problem::Version(Kind::Flake, version.chars().take(20).collect()));
    }
    match object.get("nodes") {
        Some(nodes) => part(nodes, "`nodes` is not an object"),
        None => Err(Problem::Shape("it has no `nodes`")),
    }
}

struct Graph<'a> {
    nodes: &'a Object<'a>,
    root: String,
    read: HashMap<String, Node>,
    /// The paths that are being followed, to see a circle.
    following: HashSet<Vec<String>>,
}

impl<'a> Graph<'a> {
    fn new(object: &Object<'a>, nodes: &'a Object<'a>) -> Result<Self, Problem> {
        let root = match object.get("root") {
            Some(root) => part(root, "`root` is not a string")?,
            None => return Err(Problem::Shape("it has no `root`")),
        };
        Ok(Self { nodes, root, read: HashMap::new(), following: HashSet::new() })
    }

    /// The pin of the input to which names lead from the root.
    fn pin(&mut self, path: &[String]) -> Result<Pin, Problem> {
        self.following.clear();
        let label = self.resolve(path)?;
        let node = self.node(&label)?;
        let mut own = pin(node)?;
        if !own.origin.may_be_nixpkgs() && node.inputs.contains_key(UPSTREAM) {
            let path: Vec<String> = path.iter().cloned().chain([UPSTREAM.to_owned()]).collect();
            self.following.clear();
            let upstream = self.resolve(&path).and_then(|label| pin(self.node(&label)?)).ok();
            own.upstream = upstream.filter(|upstream| upstream.origin.is_nixpkgs()).map(Box::new);
        }
        Ok(own)
    }

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
    let Place { revision, channel, release } = node.locked.url.as_deref().map(url::of_url).unwrap_or_default();
    let original = node.original.url.as_deref().map(url::of_url).unwrap_or_default();
    let reference = node.original.r#ref.as_deref();
    let stated = if reference.is_some() { url::channel_of_branch(reference) } else { original.channel.or(channel) };
    let locked = url::whole(node.locked.rev.as_deref());
    let revision = locked
        .or(revision)
        .or_else(|| url::whole(node.original.rev.as_deref()))
        .or(original.revision)
        .ok_or(Problem::NoRevision)?;
    let hash = node.locked.nar_hash.as_deref().or(node.info.nar_hash.as_deref());
    Ok(Pin {
        kind: Kind::Flake,
        nar_hash: hash.and_then(tree::sha256).filter(|_| release.is_some()),
        revision,
        channel: stated,
        release,
        origin: node.origin(),
        upstream: None,
    })
}
