//! Holds the table of who may import whom (crate documentation), so that the architecture cannot rot unseen.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use syn::visit::Visit;

/// For each module, and all below it, the modules of this crate that it may import.
/// Whatever stands in no row may import everything but `applet`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("failure", &[]),
    ("progress", &[]),
    ("interrupt", &["failure", "sys"]),
    ("file", &["failure"]),
    ("input", &["failure"]),
    ("nixpkgs", &["nixpkgs"]),
    ("program", &["failure", "interrupt"]),
    ("call", &["failure", "interrupt"]),
    // Asks Nix and reads profiles; the rest of `store` does neither.
    ("store::query", &["failure", "interrupt", "program", "store"]),
    ("store", &["failure", "store"]),
    ("layers", &["layers", "store"]),
    ("oci", &["failure", "oci"]),
    ("root", &["failure", "root", "store"]),
    // Reads Dockerfiles and judges them; knows no pins.
    ("dockerfile", &["dockerfile", "failure", "nixpkgs"]),
    // Reads what niv, npins and flakes write; knows no Dockerfiles.
    ("pins", &["failure", "nixpkgs", "pins"]),
    ("closure", &["closure", "store"]),
    ("sbom", &["closure", "store"]),
    ("sink::replace", &["failure", "file", "input"]),
    // Each asks through `call`; the rest of both is pure.
    ("channel::source", &["call", "channel"]),
    ("channel", &["channel", "nixpkgs"]),
    ("registry::skopeo", &["call", "failure", "oci", "registry"]),
    ("registry", &["oci", "registry"]),
    ("sink::link", &[]),
    ("sink::receipt", &["sink"]),
    // Knows what to write, not why: `root` is its plan.
    ("sink", &["failure", "file", "input", "interrupt", "oci", "program", "progress", "root", "sink", "store"]),
    ("sys", &[]),
    ("bash", &["bash", "failure", "supervise::Ending", "tmate::conf"]),
    ("supervise::processes", &[]),
    ("supervise::signals", &[]),
    ("supervise::terminal", &[]),
    ("supervise", &["supervise", "sys"]),
    ("job", &["bash", "supervise::processes"]),
    ("scene", &["bash", "supervise::processes", "tmate::conf"]),
    ("script_text", &["bash", "supervise"]),
    // Processes, sockets and files of a session; the rest of `tmate` decides.
    ("tmate::session", &["failure", "file", "interrupt", "report", "sys", "tmate"]),
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
    "nixpkgs",
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

/// A source file without its tests.
struct Module {
    /// Its path in the crate, such as `sink::link`.
    name: String,
    text: String,
    /// Paths that it names, in full where they begin in this crate: `sink::link::verdict`, `std::fs`.
    paths: Vec<NamedPath>,
    /// Whether it has `if … && let …`.
    has_let_chain: bool,
}

#[derive(Debug)]
struct NamedPath {
    text: String,
    /// Whether it leads into this crate.
    is_ours: bool,
}

/// Collects the paths of a file: in `use`, in code, and in the tokens of macros.
struct Paths {
    /// The module that the visitor is in.
    module: Vec<String>,
    found: Vec<NamedPath>,
    has_let_chain: bool,
}

impl Paths {
    fn of(module: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("`{module}`: {error}"));
        let module = module.split("::").filter(|part| !matches!(*part, "main" | "lib")).map(str::to_owned).collect();
        let mut paths = Self { module, found: Vec::new(), has_let_chain: false };
        paths.visit_file(&file);
        paths
    }

    /// Keeps the path, with `crate`, `self`, `super` and the crate's own name replaced by what they stand for.
    fn add(&mut self, segments: &[String]) {
        let mut full = match segments[0].as_str() {
            "self" | "super" => self.module.clone(),
            "crate" | "nixkit" => Vec::new(),
            _ => return self.found.push(NamedPath { text: segments.join("::"), is_ours: false }),
        };
        for (at, segment) in segments.iter().enumerate() {
            match segment.as_str() {
                "super" => drop(full.pop()),
                "self" | "crate" => {}
                "nixkit" if at == 0 => {}
                _ => full.push(segment.clone()),
            }
        }
        self.found.push(NamedPath { text: full.join("::"), is_ours: true });
    }

    fn add_use(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(before, item)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                // `a::{self}` is `a`.
                let is_self = ident == "self" && !before.is_empty();
                if !is_self {
                    before.push(ident.to_string());
                }
                self.add(before);
                if !is_self {
                    before.pop();
                }
            }
        }
    }

    /// The paths in the tokens of a macro's arguments, which `syn` does not parse.
    fn add_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                other => {
                    if path.len() > 1 {
                        self.add(&path);
                    }
                    path.clear();
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
            colons = 0;
        }
        if path.len() > 1 {
            self.add(&path);
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|argument| argument.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_use(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            self.module.push(item.ident.to_string());
            syn::visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        self.has_let_chain |= [&binary.left, &binary.right].iter().any(|side| matches!(***side, syn::Expr::Let(_)));
        syn::visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is_true = |argument: &syn::Expr| matches!(argument, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Bool(value), .. }) if value.value);
        if call.method == "write" && call.args.first().is_some_and(is_true) {
            self.found.push(NamedPath { text: ".write(true)".to_owned(), is_ours: false });
        }
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        syn::visit::visit_path(self, path);
    }

    // `pub(in crate::x)` is a limit, not an import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        if let Some(name) = call.path.get_ident() {
            self.found.push(NamedPath { text: format!("{name}!"), is_ours: false });
        }
        self.add_tokens(call.tokens.clone());
    }
}

/// Each file in `src`, without the files that only tests have. They are read once.
fn modules() -> &'static [Module] {
    static MODULES: LazyLock<Vec<Module>> = LazyLock::new(read_modules);
    &MODULES
}

fn read_modules() -> Vec<Module> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 15, "found only {files:?}");
    let mut only_tests = Vec::new();
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().with_extension("").to_str().unwrap().replace('/', "::");
        let text = std::fs::read_to_string(&file).unwrap();
        for item in syn::parse_file(&text).unwrap().items {
            if let syn::Item::Mod(inner) = item
                && is_test(&inner.attrs)
            {
                only_tests.push(format!("{name}::{}", inner.ident));
            }
        }
        let Paths { found: paths, has_let_chain, .. } = Paths::of(&name, &text);
        found.push(Module { name, text, paths, has_let_chain });
    }
    found.retain(|module| !only_tests.contains(&module.name));
    found
}

fn is_within(module: &str, outer: &str) -> bool {
    module == outer || module.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn paths_are_resolved() {
    let text = r#"
        #[cfg(test)]
        mod simulation;
        use std::{fs, io::{self as stdio, Write}};
        use super::super::names::Names;
        use self::inner::*;
        pub(crate) use nixkit::oci;
        #[cfg(test)]
        use crate::hidden;
        fn run() -> crate::store::Path { println!("{}", crate::report::shown(super::x(nix::unistd::getpid()))); }
        #[cfg(test)]
        mod tests { use crate::hidden; }
        fn after() { crate::seen::it() }
    "#;
    let found = Paths::of("sink::oci::contents", text).found;
    let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| path.is_ours);
    let texts = |paths: Vec<NamedPath>| paths.into_iter().map(|path| path.text).collect::<Vec<_>>();
    let expected = [
        "sink::names::Names",
        "sink::oci::contents::inner",
        "oci",
        "store::Path",
        "sink::oci::x",
        "report::shown",
        "seen::it",
    ];
    let mut ours = texts(ours);
    let mut sorted = expected.map(str::to_owned).to_vec();
    ours.sort();
    sorted.sort();
    assert_eq!(ours, sorted);
    let mut others = texts(others);
    others.sort();
    assert_eq!(others, ["nix::unistd::getpid", "println!", "std::fs", "std::io", "std::io::Write"]);
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let mut checked = 0;
    for module in modules() {
        let name = &module.name;
        let row = MAY_IMPORT.iter().find(|(outer, _)| is_within(name, outer));
        for import in module.paths.iter().filter(|path| path.is_ours) {
            let import = &import.text;
            let allowed = match row {
                Some((_, allowed)) => allowed.iter().any(|outer| is_within(import, outer)) || is_within(import, name),
                None => is_within(name, "applet") || !is_within(import, "applet"),
            };
            assert!(allowed, "`{name}` must not import `{import}` (see MAY_IMPORT)");
            checked += 1;
        }
    }
    assert!(checked > 400, "only {checked} imports were found");
}

#[test]
fn pure_modules_do_no_input_or_output() {
    let mut checked = 0;
    for module in modules() {
        let within = |list: &[&str]| list.iter().any(|outer| is_within(&module.name, outer));
        if !within(PURE) || within(BUT) {
            continue;
        }
        checked += 1;
        for path in module.paths.iter().filter(|path| !path.is_ours) {
            let impure = IMPURE.iter().any(|impure| is_within(&path.text, impure));
            assert!(!impure, "`{}` is pure and must not name `{}`", module.name, path.text);
        }
    }
    assert!(checked > 40, "only {checked} pure modules were found");
}

#[test]
fn only_report_prints() {
    for module in modules().iter().filter(|module| module.name != "report") {
        for path in &module.paths {
            let path = &path.text;
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"].contains(&path.as_str())
                || path.ends_with("io::stdout")
                || path.ends_with("io::stderr");
            assert!(!prints, "`{}` must not print with `{path}`", module.name);
        }
    }
}

/// `make check-msrv` finds them too, but only where that version of Rust is installed.
#[test]
fn the_code_is_for_the_oldest_rust() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\nrust-version = \"1.85\"\n"), "from Rust 1.88 on this test is not needed");
    assert!(Paths::of("x", "fn f() { if true && let Some(()) = None {} }").has_let_chain);
    let too_new: Vec<_> = modules().iter().filter(|module| module.has_let_chain).map(|module| &module.name).collect();
    assert!(too_new.is_empty(), "{too_new:?} have `&& let`, which Rust 1.85 does not know");
}

/// Modules that open files for writing, each of which closes them with [`nixkit::file::close`] or writes to a terminal.
const WRITERS: &[&str] =
    &["file", "sink::directory::place", "sink::oci::blobs", "sink::replace", "tmate::session::tmate"];

#[test]
fn files_are_written_where_their_closing_is_checked() {
    let mut writers = Vec::new();
    for Module { name, paths, .. } in modules() {
        let is_open = |path: &NamedPath| {
            [".write(true)", "File::create", "File::create_new", "OFlag::O_WRONLY", "OFlag::O_RDWR"]
                .iter()
                .any(|opens| path.text.ends_with(opens))
        };
        if paths.iter().any(is_open) {
            writers.push(name.as_str());
        }
        for unchecked in ["fs::write", "std::fs::write", "fs_err::write", "fs::copy", "std::fs::copy", "fs_err::copy"] {
            assert!(
                paths.iter().all(|path| path.text != unchecked),
                "`{name}` writes with `{unchecked}`: use `file`, which checks the closing"
            );
        }
    }
    writers.sort_unstable();
    assert_eq!(writers, WRITERS);
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    for module in modules() {
        assert!(module.text.starts_with("//! "), "`{}` has no documentation", module.name);
    }
}
