//! Holds the table of who may import whom (crate documentation), so that the architecture cannot rot unseen.

use std::path::{Path, PathBuf};

/// For each module, and all below it, the modules of this crate that it may import.
/// Whatever stands in no row may import everything but `applet`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("failure", &[]),
    ("progress", &[]),
    ("interrupt", &["failure", "sys"]),
    ("file", &["failure"]),
    ("program", &["failure", "interrupt"]),
    ("call", &["failure", "interrupt"]),
    // Asks Nix and reads profiles; the rest of `store` does neither.
    ("store::query", &["failure", "interrupt", "program", "store"]),
    ("store", &["failure", "store"]),
    ("layers", &["layers", "store"]),
    ("oci", &["failure", "oci"]),
    ("root", &["failure", "root", "store"]),
    // Reads Dockerfiles and judges them; knows no pins.
    ("dockerfile", &["dockerfile"]),
    // Reads what niv, npins and flakes write; knows no Dockerfiles.
    ("pins", &["failure", "pins"]),
    ("closure", &["closure", "store"]),
    ("sbom", &["closure", "store"]),
    ("sink::replace", &["failure", "file"]),
    // Each asks through `call`; the rest of both is pure.
    ("channel::source", &["call", "channel"]),
    ("channel", &["channel"]),
    ("registry::skopeo", &["call", "failure", "oci", "registry"]),
    ("registry", &["oci", "registry"]),
    ("sink::link", &[]),
    ("sink::receipt", &["sink"]),
    // Knows what to write, not why: `root` is its plan.
    ("sink", &["failure", "file", "interrupt", "oci", "program", "progress", "root", "sink", "store"]),
    // Processes, sockets and files of a session; the rest of `tmate` decides.
    ("sys", &[]),
    ("bash", &["bash", "failure", "supervise::Ending", "tmate::conf"]),
    ("supervise::processes", &[]),
    ("supervise::signals", &[]),
    ("supervise", &["supervise", "sys"]),
    ("scene", &["bash"]),
    ("tmate::session", &["failure", "file", "interrupt", "report", "tmate"]),
    ("tmate", &["failure", "tmate"]),
    (
        "report",
        &["closure", "dockerfile", "failure", "file", "pins", "progress", "report", "sink", "store", "tmate", "update"],
    ),
    ("update::config", &["channel", "oci", "update"]),
    ("update::judge", &["channel", "oci", "registry", "update"]),
    ("update::moving", &["channel", "oci", "registry", "update"]),
    ("update", &["call", "channel", "failure", "file", "interrupt", "oci", "registry", "update"]),
    ("main", &["applet", "report"]),
];

/// Standard library and system-call modules that do input or output, which the pure modules must not name.
const IMPURE: &[&str] = &["fs_err", "std::fs", "std::process", "std::io", "std::env", "nix::fcntl", "nix::unistd"];
const PURE: &[&str] = &[
    "failure",
    "closure",
    "sbom",
    "progress",
    "store",
    "layers",
    "oci",
    "root",
    "dockerfile",
    "pins",
    "sink::link",
    "sink::receipt",
    "channel",
    "registry",
    "update::config",
    "update::judge",
    "update::moving",
    "update::receipt",
    "bash",
    "supervise::signals",
    "tmate",
];
const BUT: &[&str] = &["store::query", "channel::source", "registry::skopeo", "tmate::session"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Module path and text without tests of each file in `src`.
fn modules() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 15, "found only {files:?}");
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap().with_extension("");
            let module = name.to_str().unwrap().replace('/', "::");
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (module, code)
        })
        .collect()
}

fn is_within(module: &str, outer: &str) -> bool {
    module == outer || module.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

/// The modules of this crate that `code` imports, as full paths; `super` means the parent of `module`.
fn imports(module: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if !line.starts_with("use ") && !line.starts_with("pub use ") {
            // Paths written out where they are used.
            let end = |rest: &str| rest.find(|c: char| c != ':' && c != '_' && !c.is_alphanumeric());
            found.extend(line.split("crate::").skip(1).map(|rest| rest[..end(rest).unwrap_or(rest.len())].to_owned()));
            continue;
        }
        let Some(path) = line.strip_prefix("use ").or_else(|| line.strip_prefix("pub use ")) else { continue };
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let full = if let Some(rest) = path.strip_prefix("crate::").or_else(|| path.strip_prefix("nixkit::")) {
            rest.to_owned()
        } else if let Some(rest) = path.strip_prefix("super::") {
            format!("{parent}::{rest}")
        } else {
            continue;
        };
        match full.trim_start_matches("::").split_once('{') {
            // `{a, b::c}` of the crate itself are modules; of a module they are its items or submodules.
            Some((base, list)) => {
                found.extend(list.trim_end_matches([';', '}']).split(',').map(|item| format!("{base}{}", item.trim())));
            }
            None => found.push(full.trim_start_matches("::").trim_end_matches(';').to_owned()),
        }
    }
    found
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let mut checked = 0;
    for (module, code) in modules() {
        for import in imports(&module, &code) {
            let row = MAY_IMPORT.iter().find(|(outer, _)| is_within(&module, outer));
            let allowed = match row {
                Some((_, allowed)) => allowed.iter().any(|outer| is_within(&import, outer)),
                None => is_within(&module, "applet") || !is_within(&import, "applet"),
            };
            assert!(allowed, "`{module}` must not import `{import}` (see MAY_IMPORT)");
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} imports were found");
}

#[test]
fn pure_modules_do_no_input_or_output() {
    for (module, code) in modules() {
        let within = |list: &[&str]| list.iter().any(|outer| is_within(&module, outer));
        if !within(PURE) || within(BUT) {
            continue;
        }
        for impure in IMPURE {
            assert!(!code.contains(impure), "`{module}` is pure and must not name `{impure}`");
        }
    }
}

#[test]
fn only_report_prints() {
    for (module, code) in modules() {
        for printing in ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout", "io::stderr"] {
            assert!(module == "report" || !code.contains(printing), "`{module}` must not print with `{printing}`");
        }
    }
}

/// Modules that open files for writing, each of which closes them with [`nixkit::file::close`] or writes to a terminal.
const WRITERS: &[&str] =
    &["file", "sink::directory::place", "sink::oci::blobs", "sink::replace", "tmate::session::tmate"];

#[test]
fn files_are_written_where_their_closing_is_checked() {
    let mut writers = Vec::new();
    for (module, code) in modules() {
        let opens = [".write(true)", "File::create", "O_WRONLY", "O_RDWR"].iter().any(|opens| code.contains(opens));
        if opens {
            writers.push(module.clone());
        }
        for unchecked in [" fs::write(", "std::fs::write(", "fs_err::write(", "fs::copy("] {
            assert!(
                !code.contains(unchecked),
                "`{module}` writes with `{unchecked}`: use `file`, which checks the closing"
            );
        }
    }
    writers.sort();
    assert_eq!(writers, WRITERS);
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    for (module, code) in modules() {
        assert!(code.starts_with("//! "), "`{module}` has no documentation");
    }
}
