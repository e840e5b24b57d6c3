//! What is inside a closure, for scanners: a software bill of materials in CycloneDX 1.6 JSON.
//! It must never depend on anything but the closure: not on time, machine or the order of Nix's answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::closure::Graph;
use crate::store::{Registration, StoreDirectory, StorePath};

/// Where an image has its own. A label says so.
pub const PLACE: &str = "/usr/share/sbom/nixkit.cdx.json";

/// The part that stands for the whole, to which the profiles belong.
const WHOLE: &str = "closure";

/// The bill of `graph`, whose profiles are `roots`. `revisions` are the commits of nixpkgs that are known.
pub fn bill(
    graph: &Graph<'_>,
    roots: &[StorePath],
    store: &StoreDirectory,
    revisions: &BTreeMap<StorePath, String>,
) -> String {
    let mut registrations: Vec<_> = graph.registrations().iter().collect();
    registrations.sort_by(|a, b| a.path.base_name().cmp(b.path.base_name()));
    let components: Vec<_> = registrations
        .iter()
        .map(|read| component(read, store, revisions.get(&read.path).map(String::as_str)))
        .collect();
    let mut sorted: Vec<_> = roots.iter().map(StorePath::base_name).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut dependencies = vec![json!({ "ref": WHOLE, "dependsOn": sorted })];
    dependencies.extend(registrations.iter().map(|read| {
        let mut needed: Vec<_> = read.references.iter().filter(|path| **path != read.path).collect();
        needed.sort();
        needed.dedup();
        json!({ "ref": read.path.base_name(), "dependsOn": needed.iter().map(|path| path.base_name()).collect::<Vec<_>>() })
    }));
    let names: Vec<_> = roots.iter().map(StorePath::name).collect();
    let mut bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [
                { "type": "application", "name": "nixkit", "version": env!("CARGO_PKG_VERSION") },
            ] },
            "component": { "type": "application", "bom-ref": WHOLE, "name": names.join(" + ") },
        },
        "components": components,
        "dependencies": dependencies,
    });
    // The same closure is the same bill, so its number comes from what is in it.
    let number = Sha256::digest(bill.to_string());
    bill["serialNumber"] = json!(format!("urn:uuid:{}", uuid(&number)));
    format!("{bill:#}\n")
}

fn component(read: &Registration, store: &StoreDirectory, revision: Option<&str>) -> Value {
    let (package, version) = read.path.package_and_version();
    let mut properties = vec![
        json!({ "name": "nix:storePath", "value": format!("{store}/{}", read.path) }),
        json!({ "name": "nix:narHash", "value": format!("sha256:{}", read.nar_hash) }),
        json!({ "name": "nix:narSize", "value": read.nar_size.to_string() }),
    ];
    if let Some(revision) = revision {
        properties.push(json!({ "name": "nix:nixpkgsRevision", "value": revision }));
    }
    let mut component = json!({
        "type": "application",
        "bom-ref": read.path.base_name(),
        "name": package,
        "purl": purl(package, version),
        "hashes": [{ "alg": "SHA-256", "content": read.nar_hash }],
        "properties": properties,
    });
    if let Some(version) = version {
        component["version"] = json!(version);
    }
    component
}

/// `pkg:nix/NAME@VERSION` (package-url).
fn purl(package: &str, version: Option<&str>) -> String {
    let version = version.map_or_else(String::new, |version| format!("@{}", percent_encoded(version)));
    format!("pkg:nix/{}{version}", percent_encoded(package))
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The first 16 bytes as a UUID of version 8, whose bits are the maker's own (RFC 9562, 5.8).
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().take(16).enumerate() {
        let byte = match i {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closure::tests::{WORLD, closure};
    use std::path::Path;

    fn bill_of(registrations: &[Registration], roots: &[StorePath]) -> String {
        let store = StoreDirectory::new(Path::new("/nix/store")).unwrap();
        let revisions = BTreeMap::from([(registrations[2].path.clone(), "f".repeat(40))]);
        bill(&Graph::new(registrations, roots), roots, &store, &revisions)
    }

    #[test]
    fn a_bill_has_each_path_and_what_it_needs() {
        let (registrations, roots) = closure(&WORLD);
        let bill: Value = serde_json::from_str(&bill_of(&registrations, &roots)).unwrap();
        assert_eq!(bill["components"].as_array().unwrap().len(), 6);
        let zeros = "0".repeat(31);
        let python = json!({
            "type": "application",
            "bom-ref": format!("{zeros}1-python3-3.11.2"),
            "name": "python3",
            "version": "3.11.2",
            "purl": "pkg:nix/python3@3.11.2",
            "hashes": [{ "alg": "SHA-256", "content": format!("{:0>64x}", 1) }],
            "properties": [
                { "name": "nix:storePath", "value": format!("/nix/store/{zeros}1-python3-3.11.2") },
                { "name": "nix:narHash", "value": format!("sha256:{:0>64x}", 1) },
                { "name": "nix:narSize", "value": "100" },
            ],
        });
        assert_eq!(bill["components"][1], python);
        let revision = json!({ "name": "nix:nixpkgsRevision", "value": "f".repeat(40) });
        assert_eq!(bill["components"][2]["properties"][3], revision);
        assert_eq!(bill["components"][0].get("version"), None, "`env` has none");
        // A reference to itself is none.
        let python_needs = json!({
            "ref": format!("{zeros}1-python3-3.11.2"),
            "dependsOn": [format!("{zeros}3-openssl-3.0-lib"), format!("{zeros}4-glibc-2.36")],
        });
        assert_eq!(bill["dependencies"][2], python_needs);
        assert_eq!(bill["dependencies"][0], json!({ "ref": "closure", "dependsOn": [format!("{zeros}0-env")] }));
        let number = bill["serialNumber"].as_str().unwrap();
        assert!(number.starts_with("urn:uuid:") && number.len() == 45 && number.as_bytes()[23] == b'8', "{number}");
    }

    #[test]
    fn the_order_of_answers_does_not_matter_and_a_change_does() {
        let (mut registrations, roots) = closure(&WORLD);
        let first = bill_of(&registrations, &roots);
        registrations[2].references.reverse();
        registrations[0].references.reverse();
        registrations.swap(3, 5);
        assert_eq!(bill_of(&registrations, &roots), first);
        registrations[4].nar_hash = "a".repeat(64);
        let changed = bill_of(&registrations, &roots);
        let number = |bill: &str| serde_json::from_str::<Value>(bill).unwrap()["serialNumber"].clone();
        assert_ne!(number(&changed), number(&first));
    }

    #[test]
    fn names_are_encoded_for_purls() {
        for (package, version, expected) in [
            ("hello", Some("2.10"), "pkg:nix/hello@2.10"),
            ("libstdc++", Some("12+x"), "pkg:nix/libstdc%2B%2B@12%2Bx"),
            ("a?b=c", None, "pkg:nix/a%3Fb%3Dc"),
        ] {
            assert_eq!(purl(package, version), expected);
        }
    }
}
