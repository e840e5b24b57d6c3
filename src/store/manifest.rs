//! What `nix profile` has written down about a profile: `manifest.json`, and in it the commits of nixpkgs.
//! It must never fail: what it does not understand is simply not known.

use serde_json::Value;

use super::{StoreDirectory, StorePath};

/// Digits of a Git commit.
const COMMIT: usize = 40;

/// The store paths that were installed from nixpkgs, with its commit. Of versions 1 and 2 (a list) and 3 (an
/// object) of the format.
pub fn nixpkgs_revisions(manifest: &str, store: &StoreDirectory) -> Vec<(StorePath, String)> {
    let manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
    let elements: Vec<&Value> = match &manifest["elements"] {
        Value::Array(elements) => elements.iter().collect(),
        Value::Object(elements) => elements.values().collect(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for element in elements {
        let text = |key: &str| element[key].as_str().unwrap_or_default();
        let Some(revision) = commit(text("url")).filter(|_| is_nixpkgs(text("originalUrl"), text("url"))) else {
            continue;
        };
        let paths = element["storePaths"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(paths.filter_map(|path| store.parse(path).ok()).map(|path| (path, revision.to_owned())));
    }
    found
}

/// By its name in the registry, or as the repository NixOS/nixpkgs.
fn is_nixpkgs(original_url: &str, url: &str) -> bool {
    original_url == "flake:nixpkgs"
        || original_url.starts_with("flake:nixpkgs/")
        || url.to_ascii_lowercase().contains("nixos/nixpkgs")
}

/// The first word of a URL that is a commit.
fn commit(url: &str) -> Option<&str> {
    let mut words = url.split(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == COMMIT && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn commits_are_found_in_every_version_of_the_format() {
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let (path, rev) = (format!("/nix/store/{}-hello", "a".repeat(32)), "0123456789abcdef0123456789abcdef01234567");
        let element = |original: &str, url: &str| serde_json::json!({ "originalUrl": original, "url": url, "storePaths": [path, "/tmp/x", 7] });
        for (original, url, known) in [
            ("flake:nixpkgs", format!("github:NixOS/nixpkgs/{rev}"), true),
            ("flake:nixpkgs", format!("path:/nix/store/x-source?lastModified=1&rev={rev}"), true),
            ("flake:nixpkgs/nixos-26.05", format!("github:NixOS/nixpkgs/{rev}?narHash=sha256-x"), true),
            ("git+https://github.com/nixos/nixpkgs", format!("git+https://github.com/nixos/nixpkgs?rev={rev}"), true),
            ("github:me/app", format!("github:me/app/{rev}"), false),
            ("flake:nixpkgs", "path:/nix/store/x-source".to_owned(), false),
        ] {
            let list = serde_json::json!({ "version": 2, "elements": [element(original, &url)] });
            let object = serde_json::json!({ "version": 3, "elements": { "hello": element(original, &url) } });
            for manifest in [list, object] {
                let found = nixpkgs_revisions(&manifest.to_string(), &store);
                let expected = vec![(store.parse(&path).unwrap(), rev.to_owned())];
                assert_eq!(found, if known { expected } else { vec![] }, "{manifest}");
            }
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(text in r#"[\[\]{}":,a-z0-9]{0,80}"#) {
            let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
            let _ = nixpkgs_revisions(&text, &store);
            let _ = nixpkgs_revisions(&format!(r#"{{"elements":{text}}}"#), &store);
        }
    }
}
