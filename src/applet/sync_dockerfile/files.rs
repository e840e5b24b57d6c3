//! Which files are read, and how.
//! It must never read one file twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::Arguments;
use crate::dockerfile::rewrite::{Kind, Syntax};
use crate::dockerfile::scanner;
use crate::dockerfile::words::Keyword;
use crate::failure::{hinted, shown};

/// What is read if no file is named.
const DEFAULT_FILES: [&str; 2] = ["Dockerfile", "Containerfile"];
/// Endings of names, in lower case, that tell the syntax of a text.
const SYNTAXES: &[(&[&str], Syntax)] = &[
    (&["yaml", "yml", "toml", "sh", "bash", "py", "rb", "env", "mk"], Syntax::Hash),
    (&["json", "jsonc", "json5", "js", "mjs", "ts", "go", "groovy", "java", "kt", "cue"], Syntax::Slashes),
    (&["hcl", "tf", "jsonnet", "libsonnet", "php"], Syntax::Both),
    (&["xml", "html", "htm"], Syntax::Markup),
    (&["md", "markdown", "rst", "adoc"], Syntax::Prose),
];

/// The files to read: each once, though it may be named twice.
pub(super) fn named(arguments: &Arguments) -> anyhow::Result<Vec<PathBuf>> {
    if arguments.files.is_empty() {
        let found: Vec<_> = DEFAULT_FILES.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
        if found.is_empty() && !arguments.if_present {
            return Err(hinted(anyhow!("there is no `Dockerfile` or `Containerfile` here"), "name the file to change"));
        }
        return Ok(found);
    }
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for path in &arguments.files {
        let real = std::fs::canonicalize(path);
        if seen.insert(real.with_context(|| format!("cannot read `{}`", shown(path)))?) {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// How a file is read. A Dockerfile is called so; a file of another name is one if it begins as one.
pub(super) fn kind_of(path: &Path, source: &[u8]) -> Kind {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_called = |what: &str| {
        let rest = name.strip_prefix(what);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)) || name.ends_with(what) || ending == what
    };
    let is_dockerfile = is_called("dockerfile") || is_called("containerfile");
    let syntax = SYNTAXES.iter().find(|(endings, _)| endings.contains(&ending)).map(|(_, syntax)| *syntax);
    match syntax {
        // `Dockerfile.py` may be one for Python, but `Dockerfile.yaml` is data.
        Some(Syntax::Hash) if is_dockerfile && !["yaml", "yml", "toml"].contains(&ending) => Kind::Dockerfile,
        Some(syntax) => Kind::Text(syntax),
        None if is_dockerfile || begins_as_dockerfile(source) => Kind::Dockerfile,
        None if ending == "nix" => Kind::Text(Syntax::Both),
        None if name.starts_with("jenkinsfile") => Kind::Text(Syntax::Slashes),
        None => Kind::Text(Syntax::Hash),
    }
}

fn begins_as_dockerfile(source: &[u8]) -> bool {
    scanner::scan(source).is_ok_and(|script| {
        let mut keywords = script.instructions.iter().map(|instruction| instruction.command.keyword);
        matches!(keywords.find(|keyword| *keyword != Keyword::Arg), Some(Keyword::From))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_file_is_in_its_name_or_its_beginning() {
        let text = Kind::Text;
        for (name, source, expected) in [
            ("Dockerfile", "", Kind::Dockerfile),
            ("a/dockerfile.dev", "", Kind::Dockerfile),
            ("api.Dockerfile", "", Kind::Dockerfile),
            ("Dockerfile.nix", "", Kind::Dockerfile),
            ("Dockerfile.py", "", Kind::Dockerfile),
            ("Containerfile", "", Kind::Dockerfile),
            ("dev-Dockerfile", "", Kind::Dockerfile),
            ("Dockerfile.yaml", "FROM a", text(Syntax::Hash)),
            ("sync-dockerfile.sh", "", text(Syntax::Hash)),
            ("Dockerfiles", "", text(Syntax::Hash)),
            ("image", "ARG A\nFROM a\n", Kind::Dockerfile),
            ("image", "RUN a\n", text(Syntax::Hash)),
            ("compose.yaml", "", text(Syntax::Hash)),
            (".gitlab-ci.yml", "", text(Syntax::Hash)),
            (".env", "", text(Syntax::Hash)),
            ("Makefile", "", text(Syntax::Hash)),
            ("devcontainer.json", "", text(Syntax::Slashes)),
            ("Jenkinsfile", "", text(Syntax::Slashes)),
            ("docker-bake.hcl", "", text(Syntax::Both)),
            ("flake.nix", "", text(Syntax::Both)),
            ("pom.xml", "", text(Syntax::Markup)),
            ("README.md", "", text(Syntax::Prose)),
        ] {
            assert_eq!(kind_of(Path::new(name), source.as_bytes()), expected, "{name}");
        }
    }
}
