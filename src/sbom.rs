//! What is inside a closure, for scanners: a software bill of materials in CycloneDX 1.6 JSON.
//! It must never depend on anything but the closure: not on time, machine or the order of Nix's answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::closure::Graph;
use crate::store::naming::Naming;
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

/// A store path as a component. The names of properties that begin with `nix:` are those of the nixpkgs manual ("CycloneDX");
/// it has none for an output or a commit of nixpkgs.
fn component(read: &Registration, store: &StoreDirectory, revision: Option<&str>) -> Value {
    let Naming { package, version, output, is_file } = Naming::of(&read.path, read.deriver.as_ref());
    let path = format!("{store}/{}", read.path);
    let known = [("nixkit:output", output), ("nixkit:nixpkgs_revision", revision)];
    let properties: Vec<_> = [
        ("nix:store_path", path.clone()),
        ("nix:narinfo:store_path", path),
        ("nix:narinfo:nar_hash", format!("sha256:{}", read.nar_hash)),
        ("nix:narinfo:nar_size", read.nar_size.to_string()),
    ]
    .into_iter()
    .chain(known.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))))
    .map(|(name, value)| json!({ "name": name, "value": value }))
    .collect();
    let mut component = json!({
        "type": if is_file { "file" } else { "application" },
        "bom-ref": read.path.base_name(),
        "name": package,
        "hashes": [{ "alg": "SHA-256", "content": read.nar_hash }],
        "properties": properties,
    });
    if !is_file {
        component["purl"] = json!(purl(package, version, output));
    }
    if let Some(version) = version {
        component["version"] = json!(version);
    }
    component
}

/// `pkg:nix/NAME@VERSION?output=OUTPUT` (package-url). The output is a qualifier: it is the same package.
fn purl(package: &str, version: Option<&str>, output: Option<&str>) -> String {
    let version = version.map_or_else(String::new, |version| format!("@{}", percent_encoded(version)));
    let output = output.map_or_else(String::new, |output| format!("?output={}", percent_encoded(output)));
    format!("pkg:nix/{}{version}{output}", percent_encoded(package))
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
                { "name": "nix:store_path", "value": format!("/nix/store/{zeros}1-python3-3.11.2") },
                { "name": "nix:narinfo:store_path", "value": format!("/nix/store/{zeros}1-python3-3.11.2") },
                { "name": "nix:narinfo:nar_hash", "value": format!("sha256:{:0>64x}", 1) },
                { "name": "nix:narinfo:nar_size", "value": "100" },
            ],
        });
        assert_eq!(bill["components"][1], python);
        let revision = json!({ "name": "nixkit:nixpkgs_revision", "value": "f".repeat(40) });
        assert_eq!(bill["components"][2]["properties"][4], revision);
        let openssl = &bill["components"][3];
        let said = [&openssl["name"], &openssl["version"], &openssl["purl"], &openssl["properties"][4]];
        let output = json!({ "name": "nixkit:output", "value": "lib" });
        assert_eq!(said, [&json!("openssl"), &json!("3.0"), &json!("pkg:nix/openssl@3.0?output=lib"), &output]);
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
    fn a_file_is_no_package() {
        let (registrations, roots) = closure(&[("env", 1, &[1, 1]), ("CVE-2024-1.patch", 1, &[]), ("x-1", 1, &[])]);
        let bill: Value = serde_json::from_str(&bill_of(&registrations, &roots)).unwrap();
        let patch = bill["components"].as_array().unwrap().iter().find(|part| part["name"] == "CVE-2024-1.patch");
        let patch = patch.unwrap();
        assert_eq!((&patch["type"], patch.get("version"), patch.get("purl")), (&json!("file"), None, None));
    }

    #[test]
    fn names_are_encoded_for_purls() {
        for (package, version, output, expected) in [
            ("hello", Some("2.10"), None, "pkg:nix/hello@2.10"),
            ("libstdc++", Some("12+x"), None, "pkg:nix/libstdc%2B%2B@12%2Bx"),
            ("a?b=c", None, None, "pkg:nix/a%3Fb%3Dc"),
            ("curl", Some("8"), Some("a=b"), "pkg:nix/curl@8?output=a%3Db"),
            ("tool", None, Some("bin"), "pkg:nix/tool?output=bin"),
        ] {
            assert_eq!(purl(package, version, output), expected);
        }
    }
}
