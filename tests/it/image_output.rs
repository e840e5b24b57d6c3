//! Where `export-image` writes to: what OUT may be, under which names an image is found there, and who may read it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json as value};

use crate::support::{ImageExport, Store, Tree, What, finish, folder, json, names};

fn skopeo<const N: usize>(arguments: [&str; N]) -> Option<Value> {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_name_is_found_where_it_was_given_or_it_is_refused() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let export = |out: &str, name: &str| ImageExport::new(&store, &profile, at(out)).args(["--tag", name]);
    let inspect = |transport: &str, out: &str, name: &str| {
        skopeo(["inspect", "--raw", &format!("{transport}:{}:{name}", at(out).display())])
    };
    for name in
        ["x", "a--b:1", "reg.example:5000/a_b/c-d:1.0-rc.1", "ex_ample.com/x:1", "A.b/x:V", "localhost:99999/x:1"]
    {
        export("l", name).exports();
        assert!(inspect("oci", "l", name).is_some(), "{name}");
        // regctl looks for the tag alone, or for a name that ends in `:TAG`.
        let index = json(&at("l/index.json"));
        let annotations = &index["manifests"].as_array().unwrap().last().unwrap()["annotations"];
        assert_eq!(annotations["org.opencontainers.image.ref.name"], name);
    }
    for name in ["a__b:1", "a---b", "[::1]:5000/x", "[::1]/x:1", "x:_1", "x:1-", "x:a..b"] {
        assert!(inspect("oci", "l", name).is_none(), "skopeo accepts {name} by now");
        let words = format!("`{name}` cannot be the name of an image in a layout: ");
        export("none", name).refuses(2, &[&words, "Write an archive (`NAME.tar`)"]);
    }
    for name in ["a__b:1", "a---b:2", "x:_1", "x:1-", "x:a..b"] {
        export("x.tar", name).exports();
        assert!(inspect("docker-archive", "x.tar", name).is_some(), "{name}");
    }
    let (status, _, stderr) = export("x.tar", "[::1]:5000/x").run();
    let warning =
        "warning: engines from before 2023, such as Docker 20.10, do not load an archive with the name `[::1]:5000/x`";
    assert!(status == Some(0) && stderr.contains(warning), "{stderr}");
    let table = finish(Command::new("tar").arg("-xOf").arg(at("x.tar")).arg("manifest.json"));
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table[0]["RepoTags"], value!(["[::1]:5000/x:latest"]));
}

#[test]
fn names_of_compressed_archives_are_refused() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    for out in ["x.tar.gz", "x.tgz", "x.tar.zst", "x.TAR.XZ"] {
        let export = ImageExport::new(&store, &profile, folder.path().join(out));
        export.refuses(2, &["its layers are compressed already (`--compression`); use the ending `.tar`"]);
    }
    ImageExport::new(&store, &profile, folder.path().join("x.TAR")).exports();
    assert_eq!(names(folder.path()), ["x.TAR"]);
}

#[test]
fn an_archive_goes_to_standard_output() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs_err::create_dir(at("tmp")).unwrap();
    let export = |out: &str| ImageExport::new(&store, &profile, out).args(["--tag", "x:1"]).env("TMPDIR", at("tmp"));
    export(at("file.tar").to_str().unwrap()).exports();
    let run = |out: &str| {
        let output = export(out).command().current_dir(folder.path()).output().unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    for out in ["-", "/dev/stdout"] {
        let (status, stdout, stderr) = run(out);
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stdout == fs_err::read(at("file.tar")).unwrap(), "{out}: other bytes");
        assert!(stderr.starts_with("export-image: wrote sha256:") && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains(" to standard output as `x:1` in "), "{stderr}");
    }
    // Into another program, and into one that has read enough.
    let mut writer = export("-").command().stdout(Stdio::piped()).spawn().unwrap();
    let list = Command::new("tar").arg("--list").stdin(writer.stdout.take().unwrap()).output().unwrap();
    assert!(writer.wait().unwrap().success() && list.status.success());
    assert!(String::from_utf8(list.stdout).unwrap().ends_with("\nindex.json\nmanifest.json\noci-layout\n"));
    let (reader, pipe) = std::io::pipe().unwrap();
    drop(reader);
    let output = export("-").command().stdout(pipe).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("export-image: error: cannot write to standard output: Broken pipe"), "{stderr}");

    // Not where it would be in the way of something else.
    export("-").arg("--json").refuses(2, &["`--json` and `-` would both print on stdout"]);
    let words: Vec<_> = export("-").command().get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let line = words[3..].iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let output = terminal.env("TMPDIR", at("tmp")).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("standard output is a terminal: redirect it to a file or a pipe"), "{said}");
    assert_eq!((names(folder.path()), names(&at("tmp")).len()), (vec!["file.tar".to_owned(), "tmp".to_owned()], 0));
}

#[test]
fn the_users_mask_holds_for_what_is_written_and_not_for_what_is_in_it() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut digests = Vec::new();
    for (umask, directory, file) in [
        ("022", 0o755, 0o644),
        ("077", 0o700, 0o600),
        ("002", 0o775, 0o664),
        ("000", 0o777, 0o666),
        ("777", 0o700, 0o600),
    ] {
        for cached in [false, true] {
            let export = |name: &str| {
                let export = ImageExport::new(&store, &profile, at(&format!("{name}-{umask}-{cached}"))).umask(umask);
                if cached { export.arg("--cache").arg(at("cache")) } else { export }
            };
            digests.push(export("layout").exports()["digest"].clone());
            let archive = export("archive").out(at(&format!("{umask}-{cached}.tar")));
            digests.push(archive.exports()["digest"].clone());
            let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode(&at(&format!("{umask}-{cached}.tar"))), file, "{umask}");
            for (path, entry) in Tree::read(&at(&format!("layout-{umask}-{cached}"))).0 {
                let expected = if entry.what == What::Directory { directory } else { file };
                assert_eq!(entry.mode, expected, "{umask}: {}", path.display());
            }
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn the_time_of_an_image_is_now_if_so_said() {
    let (store, profile) = Store::with("small");
    let folder = folder();
    let layout = folder.path().join("l");
    let created = |words: [&str; 2]| {
        ImageExport::new(&store, &profile, &layout).args(["--tag", "x"]).args(words).exports();
        let config = skopeo(["inspect", "--config", &format!("oci:{}:x", layout.display())]).unwrap();
        config["created"].as_str().unwrap().to_owned()
    };
    let now = created(["--created", "now"]);
    assert!(now.as_str() > "2025", "{now}");
    assert_eq!(created(["--layers", "9"]), "1970-01-01T00:00:00Z");
}
