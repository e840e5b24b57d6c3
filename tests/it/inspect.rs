//! What a closure holds and why: `--report`, `--why`, the limits, `--dedup`, and the page in a real browser.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Export, Store, Tree, folder, judge, names, same_shape};

/// A closure in which `large` is the largest, `needed` lies below two, and files are there twice.
fn expression(store: &Store) -> PathBuf {
    let file = folder();
    let path = file.path().join("closure.nix");
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/make.nix");
    let text = format!(
        r#"let make = import {}; in rec {{
        needed = make "needed-1.0" "mkdir -p $out; head -c 30000 /dev/zero >$out/zeros; echo needed >$out/own";
        large = make "large-2.0-bin" ''
          mkdir -p $out; cd $out; ln -s ${{needed}}/own .; for i in {{1..9000}}; do echo line $i; done >text; cp text again
          head -c 30000 /dev/zero >zeros; cp zeros program; chmod +x program '';
        small = make "small-0.1" "mkdir -p $out; ln -s ${{needed}}/own $out/; echo s >$out/s";
        env = make "env" "mkdir -p $out/bin; ln -s ${{large}}/text ${{small}}/s $out/bin/";
        }}"#,
        make.display()
    );
    fs_err::write(&path, text).unwrap();
    let built = store.build_of(&path, "env");
    drop(file);
    built
}

fn world() -> (Store, PathBuf) {
    let store = Store::new();
    let env = expression(&store);
    (store, env)
}

fn named(store: &Store, env: &Path, name: &str) -> PathBuf {
    let ends = |path: &PathBuf| path.to_str().unwrap().ends_with(&format!("-{name}"));
    store.closure(env).into_iter().find(ends).unwrap()
}

#[test]
fn the_report_tells_sizes_reasons_and_equal_files() {
    let (store, env) = world();
    let export = Export::new(&store).profile(&env).arg("--dry-run");
    let json = export.clone().arg("--report=json").run();
    assert_eq!((json.status.code(), json.stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["narSize"].as_u64(), Some(store.nar_size(&env)));
    let rows = report["paths"].as_array().unwrap();
    let labels: Vec<_> = rows.iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(labels[..2], ["large-2.0-bin", "needed-1.0"]);
    let place = |label: &str| labels.iter().position(|other| *other == label).unwrap();
    let large = &rows[0];
    assert_eq!(large["path"].as_str().map(Path::new), Some(named(&store, &env, "large-2.0-bin").as_path()));
    let size_of = |name: &str| rows[place(name)]["narSize"].as_u64().unwrap();
    assert_eq!(large["closureSize"].as_u64(), Some(size_of("large-2.0-bin") + size_of("needed-1.0")));
    assert_eq!(large["wouldGo"], large["narSize"], "two need `needed`");
    assert_eq!(rows[place("env")]["wouldGo"], report["narSize"]);
    assert_eq!(large["chain"], json!([place("env"), 0]));
    assert_eq!(rows[1]["chain"].as_array().unwrap().len(), 3);
    // Two texts, and the zeros of two paths: the program's mode is another.
    let text = fs_err::metadata(named(&store, &env, "large-2.0-bin").join("text")).unwrap().len();
    let equal = &report["equalFiles"];
    assert_eq!((&equal["files"], &equal["bytes"]), (&json!(2), &json!(text + 30000)));
    let groups: Vec<_> = equal["groups"].as_array().unwrap().iter().map(|group| &group["size"]).collect();
    assert_eq!(groups, [&json!(text), &json!(30000)]);

    let table = export.clone().arg("--report").run();
    assert_eq!((table.status.code(), table.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = table.stdout.lines().collect();
    assert!(lines[1].contains("large-2.0-bin") && lines[1].ends_with("  env"), "{}", table.stdout);
    assert!(table.stdout.contains("in 4 store paths\n2 files are duplicates of others;"), "{}", table.stdout);
    export.arg("--report=table").run().is(0, &table.stdout, "");
}

#[test]
fn a_report_goes_to_a_file_beside_an_export() {
    let (store, env) = world();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = Export::new(&store).profile(&env);
    let printed = export.clone().args(["--dry-run", "--report=json"]).run().stdout;
    let with_file = export.clone().arg("--report=json").arg("--report-file").arg(at("report"));
    let receipt = with_file.root(at("root")).exports();
    judge(&store, &[&env], &receipt);
    assert_eq!(fs_err::read_to_string(at("report")).unwrap(), printed);
    // And on stdout, before the summary.
    let outcome = export.arg("--report=json").root(at("other")).run();
    assert_eq!((outcome.status.code(), outcome.stdout), (Some(0), printed));
    assert_eq!(names(folder.path()), ["other", "report", "root"]);
}

#[test]
fn only_one_thing_goes_to_stdout() {
    let (store, env) = world();
    let folder = folder();
    let root = folder.path().join("root");
    let hint = "hint: `export-profile --help` explains the options\n";
    for (arguments, one, other) in [
        (&["--report", "--json"][..], "--report", "--json"),
        (&["--report", "--why", "env"], "--report", "--why"),
        (&["--why", "env", "--json"], "--why", "--json"),
        (&["--report=html", "--layers", "3"], "--report", "--layers"),
    ] {
        let export = arguments.iter().fold(Export::new(&store).profile(&env), Export::arg);
        let message = format!(
            "export-profile: error: `{one}` and `{other}` would both print on stdout; `--report-file` takes a report \
             elsewhere\n{hint}"
        );
        export.root(&root).refuses(2, &message);
    }
    let outcome = Export::new(&store).profile(&env).arg("--report-file").arg("x").root(&root).run();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
}

#[test]
fn why_prints_the_whole_chain() {
    let (store, env) = world();
    let needed = named(&store, &env, "needed-1.0");
    let large = named(&store, &env, "large-2.0-bin");
    let expected = |line: &str| line.starts_with("needed-1.0: ") && line.ends_with(" would go with it");
    for wanted in [needed.to_str().unwrap(), needed.file_name().unwrap().to_str().unwrap(), "needed-1.0", "needed"] {
        let outcome = Export::new(&store).profile(&env).args(["--why", wanted]).run();
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""));
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert!(expected(lines[0]), "{}", lines[0]);
        let chain = [
            format!("     {}", env.display()),
            format!("  -> {}", large.display()),
            format!("  -> {}", needed.display()),
        ];
        assert_eq!(lines[1..], chain);
    }
    let message =
        "export-profile: error: nothing in the closure is called `gcc`\nhint: `--report` lists what is in it\n";
    Export::new(&store).profile(&env).args(["--why", "gcc"]).run().is(1, "", message);
}

#[test]
fn a_limit_fails_the_export_with_the_reason() {
    let (store, env) = world();
    let folder = folder();
    let root = folder.path().join("root");
    let export = |arguments: &[&str]| {
        let export = Export::new(&store).profile(&env).root(&root);
        arguments.iter().fold(export, Export::arg)
    };
    let forbidden = "`needed-1.0` is forbidden (`--forbid need?d-*`): env -> large-2.0-bin -> needed-1.0";
    let hint = "hint: a chain says who needs what; `--report` tells the sizes\n";
    export(&["--forbid", "need?d-*"]).refuses(1, &format!("export-profile: error: {forbidden}\n{hint}"));
    let size = store.nar_size(&env);
    let limit = (size - 1).to_string();
    let outcome = export(&["--max-size", &limit]).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.starts_with("export-profile: error: the closure has "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("by env -> large-2.0-bin, "), "{}", outcome.stderr);
    assert!(!root.exists());
    // Both are told, and the report is there all the same: that is when it is wanted.
    let report = folder.path().join("report");
    let outcome =
        export(&["--max-size", "1", "--forbid", "needed*", "--report", "--report-file", report.to_str().unwrap()])
            .run();
    assert_eq!(outcome.stderr.matches("needed-1.0` is forbidden").count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("more than the 1 B of `--max-size`"), "{}", outcome.stderr);
    assert!(fs_err::read_to_string(report).unwrap().contains("large-2.0-bin"));
    export(&["--max-size", &size.to_string(), "--forbid", "gcc-*", "--forbid", "needed"]).exports();
    for (arguments, part) in
        [(["--max-size", "lots"], "a size is a number"), (["--forbid", "a/b"], "a name has letters")]
    {
        let outcome = export(&arguments).run();
        assert_eq!(outcome.status.code(), Some(2));
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}

#[test]
fn with_dedup_equal_files_are_one_inode_in_every_mode() {
    let (store, env) = world();
    let large = named(&store, &env, "large-2.0-bin");
    let before = Tree::read(&store.directory);
    for (mode, jobs) in [("auto", "1"), ("hardlink", "4"), ("copy", "4")] {
        let folder = folder();
        let root = folder.path().join("root");
        let export = Export::new(&store).profile(&env).mode(mode).args(["--jobs", jobs, "--dedup", "--verify"]);
        let receipt = export.root(&root).exports();
        let text = fs_err::metadata(large.join("text")).unwrap().len();
        assert_eq!((receipt.deduplicated.count, receipt.deduplicated.bytes), (2, text + 30000));
        let exported = Tree::read(&root.join(store.directory.strip_prefix("/").unwrap()));
        assert_eq!(receipt.bytes, exported.bytes());
        let name = |path: &PathBuf| path.to_str().unwrap()[33..].to_owned();
        let names_of = |inode: BTreeSet<PathBuf>| inode.iter().map(name).collect::<BTreeSet<_>>();
        let shared: BTreeSet<_> = exported.shared_inodes().into_iter().map(names_of).collect();
        let expected = [["large-2.0-bin/again", "large-2.0-bin/text"], ["large-2.0-bin/zeros", "needed-1.0/zeros"]];
        assert_eq!(shared, BTreeSet::from(expected.map(|pair| BTreeSet::from(pair.map(str::to_owned)))));
        crate::support::content(&store, &[&env], &root);
    }
    // Not a mode, owner or time of the store has changed.
    same_shape(&Tree::read(&store.directory).shape(), &before.shape());
}

/// What Chromium makes of a page, after its scripts have run.
fn rendered(page: &Path, home: &Path) -> String {
    let chromium = ["chromium", "chromium-browser"].into_iter().find_map(|name| which::which(name).ok());
    let mut command = Command::new(chromium.expect("`make test` installs chromium"));
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", home.display())).arg(format!("file://{}", page.display()));
    let output = command.env("HOME", home).stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_browser_draws_the_page_and_names_the_largest_path() {
    let (store, env) = world();
    let folder = folder();
    let page = folder.path().join("page.html");
    let export = Export::new(&store).profile(&env).args(["--dry-run", "--report=html", "--report-file"]).arg(&page);
    // The list of a dry run goes to stdout all the same.
    let outcome = export.run();
    assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.ends_with("in 4 store paths\n"), "{}", outcome.stdout);
    // The page itself asks the browser where things lie, so that it is the browser's word and not ours.
    let text = fs_err::read_to_string(&page).unwrap();
    let probe = r#"<script>
      const largest = document.querySelector('rect[data-n="0"]');
      const box = largest.getBoundingClientRect();
      const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      at.dispatchEvent(new MouseEvent('mouseenter'));
      const all = [...document.querySelectorAll('rect')].filter(r => r.getBoundingClientRect().width > 0);
      document.title = `${all.length} tiles, ${largest === at}, ${document.getElementById('about').innerText.split('\n')[0]}`;
      document.getElementById('find').value = 'small';
      document.getElementById('find').dispatchEvent(new Event('input'));
      document.title += `, ${document.getElementById('found').textContent}`;
      document.title += `, ${[...document.querySelectorAll('tbody tr')].filter(tr => tr.offsetHeight).length} line`;
    </script></html>"#;
    fs_err::write(&page, text.replace("</html>", probe)).unwrap();
    let home = folder.path().join("home");
    fs_err::create_dir(&home).unwrap();
    let dom = rendered(&page, &home);
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap();
    assert_eq!(title, "4 tiles, true, large-2.0-bin, 1 found, 1 line", "{dom}");
    assert!(dom.contains("The largest is <b id=\"largest\">large-2.0-bin</b>"));
}
