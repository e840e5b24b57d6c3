//! `--sbom`: what it writes is judged by the official schema of CycloneDX 1.6, vendored in `tests/schemas`.

use std::path::Path;

use serde_json::Value;

use crate::support::{Export, Store, call, finish, folder, names};

fn schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/cyclonedx").join(name);
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// Everything that the schema has against `bill`.
fn complaints(bill: &Value) -> Vec<String> {
    let mut registry = jsonschema::Registry::new();
    for name in ["spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json"] {
        registry = registry.add(format!("http://cyclonedx.org/schema/{name}"), schema(name)).unwrap();
    }
    let registry = registry.prepare().unwrap();
    let validator = jsonschema::options()
        .with_registry(&registry)
        .should_validate_formats(true)
        .build(&schema("bom-1.6.SNAPSHOT.schema.json"))
        .unwrap();
    validator.iter_errors(bill).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn a_bill_keeps_the_schema_and_names_every_path() {
    let (store, path) = Store::shared();
    let folder = folder();
    let (first, again) = (folder.path().join("first.json"), folder.path().join("again.json"));
    let export = Export::new(store).profile(path);
    export.clone().arg("--sbom").arg(&first).root(folder.path().join("root")).exports();
    let text = fs_err::read_to_string(&first).unwrap();
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(complaints(&bill), [""; 0]);
    let mut refs: Vec<_> =
        bill["components"].as_array().unwrap().iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
    refs.sort_unstable();
    let closure = store.closure(path);
    let mut expected: Vec<_> = closure.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(refs, expected);
    let of = |name: &str| {
        let components = bill["components"].as_array().unwrap();
        components.iter().find(|component| component["name"] == name).unwrap()
    };
    let wide = closure.iter().find(|path| path.to_str().unwrap().ends_with("-wide")).unwrap();
    let hash = call("nix-hash", [&"--type", &"sha256", &wide]);
    assert_eq!(of("wide")["hashes"][0]["content"], hash.as_str(), "the NAR hash");
    assert_eq!(of("wide")["purl"], "pkg:nix/wide");

    // The same bytes, also in a dry run, with other options and at another time.
    let dry = export.args(["--dry-run", "--quiet"]).env("SOURCE_DATE_EPOCH", "77").arg("--sbom").arg(&again);
    assert_eq!(dry.run().status.code(), Some(0));
    assert_eq!(fs_err::read_to_string(&again).unwrap(), text);
    assert_eq!(names(folder.path()), ["again.json", "first.json", "root"]);
}

#[test]
fn the_schema_finds_what_is_wrong() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let file = folder.path().join("bill.json");
    assert_eq!(
        Export::new(&store).profile(&path).arg("--dry-run").arg("--sbom").arg(&file).run().status.code(),
        Some(0)
    );
    let bill: Value = serde_json::from_str(&fs_err::read_to_string(file).unwrap()).unwrap();
    assert_eq!(complaints(&bill), [""; 0]);
    for (pointer, bad) in [
        ("/serialNumber", "urn:uuid:1"),
        ("/components/0/type", "store path"),
        ("/components/0/hashes/0/content", "abc"),
        ("/specVersion", "16"),
    ] {
        let mut broken = bill.clone();
        *broken.pointer_mut(pointer).unwrap() = bad.into();
        let found = complaints(&broken);
        assert!(!found.is_empty() || pointer == "/specVersion", "{pointer}");
    }
}

#[test]
fn the_commit_of_nixpkgs_is_told_where_the_profile_knows_it() {
    let store = Store::new();
    let tool = store.build("second");
    let profile = folder();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let manifest = serde_json::json!({ "version": 2, "elements": [{
        "originalUrl": "flake:nixpkgs", "url": format!("github:NixOS/nixpkgs/{commit}"), "storePaths": [tool],
    }] });
    fs_err::write(profile.path().join("manifest.json"), manifest.to_string()).unwrap();
    std::os::unix::fs::symlink(&tool, profile.path().join("tool")).unwrap();
    // Nix itself finds the references of such a profile.
    let expression = format!(
        "derivation {{ name = \"profile\"; system = builtins.currentSystem; builder = \"/bin/bash\"; PATH = \"/usr/bin:/bin\"; \
         args = [ \"-euc\" \"mkdir $out; cp ${{./manifest.json}} $out/manifest.json; exit 0\" ]; tool = builtins.storePath {}; }}",
        tool.display()
    );
    let file = profile.path().join("profile.nix");
    fs_err::write(&file, expression).unwrap();
    let path = finish(store.command("nix-build").arg(&file).arg("--no-out-link"));
    let bill = profile.path().join("bill.json");
    let export = Export::new(&store).profile(&path).arg("--dry-run").arg("--sbom").arg(&bill);
    assert_eq!(export.run().status.code(), Some(0));
    let bill: Value = serde_json::from_str(&fs_err::read_to_string(bill).unwrap()).unwrap();
    assert_eq!(complaints(&bill), [""; 0]);
    let told: Vec<_> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|component| component["properties"].to_string().contains(commit))
        .map(|component| component["name"].as_str().unwrap())
        .collect();
    assert!(told.contains(&"second") && !told.contains(&"profile"), "{bill:#}");
}

/// Names as nixpkgs gives them, and what the bill must say of each: package, version, output.
const NAMES: &[(&str, &str, &str, &str)] = &[
    ("openssl-3.0.13-bin", "openssl", "3.0.13", "bin"),
    ("glibc-2.39-52", "glibc", "2.39-52", ""),
    ("glibc-2.39-52-bin", "glibc", "2.39-52", "bin"),
    ("python3.11-requests-2.31.0", "python3.11-requests", "2.31.0", ""),
    ("source", "source", "", ""),
    ("CVE-2024-1.patch", "CVE-2024-1.patch", "", ""),
    ("app-0-unstable-2024-05-01", "app", "0-unstable-2024-05-01", ""),
    ("a+b-1.0+git2024", "a+b", "1.0+git2024", ""),
    // Outputs of one derivation, as Nix itself names them.
    ("nss-3.98", "nss", "3.98", ""),
    ("nss-3.98-p11kit", "nss", "3.98", "p11kit"),
    ("nss-3.98-dev", "nss", "3.98", "dev"),
];

#[test]
fn outputs_are_not_part_of_a_version() {
    let store = Store::new();
    let folder = folder();
    let single = NAMES.iter().filter(|(name, ..)| !name.starts_with("nss")).map(|(name, ..)| format!("(d \"{name}\")"));
    let expression = format!(
        "let common = {{ system = builtins.currentSystem; builder = \"/bin/bash\"; PATH = \"/usr/bin:/bin\"; }};
         d = name: derivation (common // {{ inherit name; args = [ \"-c\" \"echo $name >$out\" ]; }});
         nss = derivation (common // {{ name = \"nss-3.98\"; outputs = [ \"out\" \"p11kit\" \"dev\" ];
           args = [ \"-c\" \"for o in $outputs; do echo $o >${{\"$\"}}{{!o}}; done\" ]; }});
         in derivation (common // {{ name = \"env\"; args = [ \"-c\" \"echo $parts >$out\" ];
           parts = [ {} nss nss.p11kit nss.dev ]; }})",
        single.collect::<Vec<_>>().join(" ")
    );
    let file = folder.path().join("names.nix");
    fs_err::write(&file, expression).unwrap();
    let env = finish(store.command("nix-build").arg(&file).arg("--no-out-link"));
    let path = folder.path().join("bill.json");
    let export = Export::new(&store).profile(&env).arg("--dry-run").arg("--sbom").arg(&path);
    assert_eq!(export.run().status.code(), Some(0));
    let bill: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    assert_eq!(complaints(&bill), [""; 0]);
    for (name, package, version, output) in NAMES {
        let components = bill["components"].as_array().unwrap();
        let is_it = |part: &&Value| part["bom-ref"].as_str().unwrap().split_once('-').unwrap().1 == *name;
        let component = components.iter().find(is_it).unwrap();
        let property = |wanted: &str| {
            let properties = component["properties"].as_array().unwrap();
            let found = properties.iter().find(|property| property["name"] == wanted);
            found.map_or("", |property| property["value"].as_str().unwrap())
        };
        let said = [&component["name"], &component["version"]].map(|part| part.as_str().unwrap_or_default());
        assert_eq!((said, property("nixkit:output")), ([*package, *version], *output), "{name}");
        let reference = component["bom-ref"].as_str().unwrap();
        assert_eq!(property("nix:store_path"), store.directory.join(reference).to_str().unwrap());
        let is_file = *name == "CVE-2024-1.patch";
        assert_eq!((component["type"] == "file", component.get("purl").is_none()), (is_file, is_file), "{name}");
    }
}
