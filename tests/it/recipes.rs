//! Runs `docs/recipes.md`: each recipe's files, options, user and command as the page has them, in a container.
//! The packages are those of `tests/nixpkgs`, and the checks are made by programs of this machine from outside.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::support::engine::TlsServer;
use crate::support::{Container, Export, Server, Store, finish, root_for, until};

const PAGE: &str = include_str!("../../docs/recipes.md");
const COMMIT: &str = "FROM niteo/nixpkgs-<channel>:<commit> AS build";

/// Packages of nixpkgs that the stand-in has in parts.
const PARTS: &[(&str, &[&str])] = &[("openssh", &["openssh", "opensshServer"]), ("tzdata", &["debianPackages.tzdata"])];

/// A section of the page, taken apart.
struct Recipe {
    /// The files to add, by the paths that stand before them.
    files: Vec<(String, String)>,
    packages: Vec<String>,
    options: Vec<String>,
    env: Vec<String>,
    user: u32,
    command: Vec<String>,
    stop: String,
}

/// The fenced blocks of the section, each with the last path in backticks before it and its language.
fn blocks(section: &str) -> Vec<(String, String, String)> {
    let start = PAGE.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = &PAGE[start + 4..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let (mut blocks, mut before, mut block) = (Vec::new(), String::new(), None);
    for line in text.lines() {
        block = match (block, line.strip_prefix("```")) {
            (None, Some(language)) => Some((language.to_owned(), String::new())),
            (None, None) => {
                before += line;
                None
            }
            (Some((language, text)), Some(_)) => {
                let path = before.rsplit('`').nth(1).unwrap_or_default().to_owned();
                blocks.push((path, language, text));
                before.clear();
                None
            }
            (Some((language, text)), None) => Some((language, text + line + "\n")),
        };
    }
    blocks
}

impl Recipe {
    fn read(section: &str) -> Self {
        let (mut files, mut dockerfile) = (Vec::new(), None);
        for (path, language, text) in blocks(section) {
            if language == "dockerfile" {
                dockerfile = Some(text.replace("\\\n", " "));
            } else {
                files.push((path, text));
            }
        }
        let dockerfile = dockerfile.unwrap();
        let lines: Vec<_> = dockerfile.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[..2], [COMMIT, "COPY . /src"]);
        let value = |word: &str| lines.iter().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
        let run = value("RUN nix-env -f '<nixpkgs>' -iA ").unwrap();
        let (packages, export) = run.split_once(" && export-profile ").expect("one RUN");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut options = words(export);
        assert_eq!(options.pop().unwrap(), "/dist");
        for line in ["FROM scratch", "COPY --from=build /dist /"] {
            assert!(lines.contains(&line), "{section}: no `{line}`");
        }
        let env = lines.iter().filter_map(|line| line.strip_prefix("ENV ")).map(str::to_owned).collect();
        let user = value("USER ").unwrap();
        let (user, group) = user.split_once(':').unwrap();
        assert_eq!(user, group);
        Self {
            files,
            packages: words(packages),
            options,
            env,
            user: user.parse().unwrap(),
            command: serde_json::from_str(&value("CMD ").unwrap()).unwrap(),
            stop: value("STOPSIGNAL ").unwrap_or_else(|| "SIGTERM".to_owned()),
        }
    }

    /// The profile and the root of the recipe, with `files` beside those of the page.
    fn export(&self, place: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let context = place.join("src");
        let own = self.files.iter().map(|(path, text)| (path.as_str(), text.as_bytes().to_vec()));
        for (path, contents) in own.chain(files.iter().map(|(path, contents)| (*path, contents.clone()))) {
            let file = context.join(path);
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            let mode = if contents.starts_with(b"#!") { 0o755 } else { 0o644 };
            fs_err::write(&file, contents).unwrap();
            fs_err::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        }
        let options = self.options.iter().map(|option| option.replace("/src/", &format!("{}/", context.display())));
        let packages: Vec<_> = self.packages.iter().map(String::as_str).collect();
        let store = Store::of_the_machine();
        let export = options.fold(Export::new(&store), Export::arg);
        // On the disk, where files are linked: scratch is another file system.
        let root = place.join("root");
        export.profile(profile(&store, place, &packages)).root(&root).exports();
        root
    }

    fn container(&self, root: &Path) -> Option<Container> {
        let container = Container::new(root)?.user(self.user);
        Some(self.env.iter().fold(container, |container, variable| container.env(variable)))
    }

    /// Starts the recipe's command.
    fn start(&self, container: Container) -> Server {
        container.start(&self.command.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// A profile with packages of the stand-in.
fn profile(store: &Store, place: &Path, packages: &[&str]) -> PathBuf {
    let parts = packages.iter().flat_map(|package| {
        let parts = PARTS.iter().find(|(whole, _)| whole == package);
        parts.map_or_else(|| vec![*package], |(_, parts)| parts.to_vec())
    });
    let path = place.join("profile");
    let mut install = store.command("nix-env");
    install.arg("--file").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs")).arg("--profile").arg(&path);
    finish(install.arg("-iA").args(parts));
    path
}

/// Asks until there is an answer, as long as the server lives.
fn answer(server: &mut Server, ask: impl Fn(&Server) -> Command) -> Output {
    let mut output = ask(server).output().unwrap();
    until(|| {
        if output.status.success() || server.has_ended() {
            return true;
        }
        output = ask(server).output().unwrap();
        false
    });
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    output
}

fn get(server: &mut Server, url: &str) -> String {
    let output = answer(server, |server| {
        let mut curl = server.network("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", url]);
        curl
    });
    String::from_utf8(output.stdout).unwrap()
}

/// A recipe that serves the home directory of its user.
fn serves_its_home(section: &str, files: &[(&str, Vec<u8>)], status: i32) {
    let recipe = Recipe::read(section);
    let place = tempfile::tempdir().unwrap();
    if !root_for("a container") {
        return;
    }
    let root = recipe.export(place.path(), files);
    let Some(container) = recipe.container(&root) else { return };
    let mut server = recipe.start(container);
    assert_eq!(get(&mut server, "http://127.0.0.1:8080/"), "/home/app");
    assert_eq!(server.stop(&recipe.stop), status, "{}", server.log());
}

#[test]
fn node() {
    serves_its_home("Node", &debians_modules(), 0);
}

/// Debian's Node reads parts of itself from here; nixpkgs' and others' have them built in.
fn debians_modules() -> Vec<(&'static str, Vec<u8>)> {
    let modules = [
        ("node/usr/share/nodejs/acorn/dist/acorn.js", "acorn/dist/acorn.js"),
        ("node/usr/share/nodejs/acorn-walk/dist/walk.js", "acorn-walk/dist/walk.js"),
        ("node/usr/share/nodejs/cjs-module-lexer/lexer.js", "cjs-module-lexer/lexer.js"),
        ("node/usr/share/nodejs/cjs-module-lexer/dist/lexer.js", "cjs-module-lexer/dist/lexer.js"),
        ("node/usr/share/nodejs/undici/undici-fetch.js", "undici/undici-fetch.js"),
        ("node/usr/share/nodejs/undici/undici.js", "undici/undici.js"),
    ];
    let there = |(place, module): (&'static str, &str)| {
        Some((place, std::fs::read(Path::new("/usr/share/nodejs").join(module)).ok()?))
    };
    modules.into_iter().filter_map(there).collect()
}

#[test]
fn python() {
    serves_its_home("Python", &[], 0);
}

/// `Main.java`, compiled for Java 11 and later.
fn java_program() -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recipes/java");
    fs_err::read(fixtures.join("app.jar")).unwrap()
}

#[test]
fn java() {
    // A Java program ends with 128 + the signal.
    serves_its_home("Java", &[("java/app/app.jar", java_program())], 143);
}

#[test]
fn nginx() {
    let recipe = Recipe::read("nginx");
    let place = tempfile::tempdir().unwrap();
    if !root_for("a container") {
        return;
    }
    let root = recipe.export(place.path(), &[]);
    let mut server = recipe.start(recipe.container(&root).unwrap());
    assert_eq!(get(&mut server, "http://127.0.0.1:8080/"), "It works.\n");
    assert_eq!(server.stop(&recipe.stop), 0, "{}", server.log());
    assert!(server.log().contains("\"GET / HTTP/1.1\" 200"), "{}", server.log());
}

#[test]
fn go() {
    let recipe = Recipe::read("Go");
    let place = tempfile::tempdir().unwrap();
    if !root_for("a container") {
        return;
    }
    let root = recipe.export(place.path(), &[]);
    let mut server = recipe.start(recipe.container(&root).unwrap());
    assert_eq!(get(&mut server, "http://127.0.0.1:8080/v2/"), "{}");
    let mut push = server.network("curl");
    push.args(["--silent", "--fail", "--noproxy", "*", "--request", "POST", "--output", "/dev/null"]);
    finish(push.args(["--write-out", "%{http_code}", "http://127.0.0.1:8080/v2/a/blobs/uploads/"]));
    assert!(root.join("var/lib/registry/docker").is_dir(), "{}", server.log());
}

#[test]
fn postgresql() {
    let recipe = Recipe::read("PostgreSQL");
    let place = tempfile::tempdir().unwrap();
    if !root_for("a container") {
        return;
    }
    let root = recipe.export(place.path(), &[]);
    let without = recipe.container(&root).unwrap().run(&["/bin/start-postgres"]);
    assert!(without.0 == Some(1) && without.2.contains("POSTGRES_PASSWORD: is not set"), "{}", without.2);
    let mut server = recipe.start(recipe.container(&root).unwrap().env("POSTGRES_PASSWORD=secret"));
    let psql = |password: &'static str| {
        move |server: &Server| {
            let mut psql = server.network("psql");
            psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "10").env_remove("PGHOST");
            let query = "select current_user, current_setting('TimeZone'), to_char(timestamptz '1970-01-01 00:00+00' \
                         at time zone 'Europe/Ljubljana', 'HH24')";
            psql.args(["--no-psqlrc", "-tA", "-h", "127.0.0.1", "-U", "postgres", "-c", query]);
            psql
        }
    };
    let said = answer(&mut server, psql("secret"));
    let said = String::from_utf8(said.stdout).unwrap();
    let fields: Vec<_> = said.trim().split('|').collect();
    assert_eq!((fields[0], fields[2]), ("postgres", "01"), "{said}");
    let refused = psql("wrong")(&server).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("password authentication failed"));
    assert_eq!(server.stop(&recipe.stop), 0, "{}", server.log());
    // The data is there in the next run.
    let mut server = recipe.start(recipe.container(&root).unwrap());
    answer(&mut server, psql("secret"));
}

#[test]
fn sshd() {
    let mut recipe = Recipe::read("sshd");
    let place = tempfile::tempdir().unwrap();
    if !root_for("a container") {
        return;
    }
    let key = place.path().join("key");
    finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let public = fs_err::read(place.path().join("key.pub")).unwrap();
    // Since OpenSSH 9.8, Debian's has programs at places that are compiled in; nixpkgs' has them in its own store path.
    if Path::new("/usr/lib/openssh/sshd-session").exists() {
        let server = finish(
            Store::of_the_machine()
                .command("nix-build")
                .arg("--no-out-link")
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs"))
                .args(["-A", "opensshServer"]),
        );
        let (_, config) = recipe.files.iter_mut().find(|(path, _)| path.ends_with("sshd_config")).unwrap();
        *config += &format!("SshdSessionPath {server}/lib/openssh/sshd-session\n");
        if Path::new("/usr/lib/openssh/sshd-auth").exists() {
            *config += &format!("SshdAuthPath {server}/lib/openssh/sshd-auth\n");
        }
    }
    let root = recipe.export(place.path(), &[("sshd/etc/ssh/authorized_keys", public)]);
    let mut server = recipe.start(recipe.container(&root).unwrap());
    let log_in = |user: &'static str| {
        let key = key.clone();
        move |server: &Server| {
            let mut ssh = server.network("ssh");
            ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
            ssh.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-p", "2222", "-i"]).arg(&key);
            ssh.arg(format!("{user}@127.0.0.1")).arg("echo $SHELL $(/nix/profile/bin/id -un) ~");
            ssh
        }
    };
    let said = answer(&mut server, log_in("app"));
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "/bin/sh app /home/app\n", "{}", server.log());
    assert!(!log_in("nonroot")(&server).output().unwrap().status.success());
}

/// A root with every program of the table of variables, and a bundle that has the CA of a server of this machine.
struct Tls {
    _place: tempfile::TempDir,
    root: PathBuf,
    server: TlsServer,
}

fn tls() -> &'static Tls {
    static TLS: OnceLock<Tls> = OnceLock::new();
    TLS.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let server = TlsServer::start();
        fs_err::copy(&server.authority, place.path().join("ca.crt")).unwrap();
        let store = Store::of_the_machine();
        let packages = ["curl", "python3", "nodejs", "jre_headless", "cacert", "bash"];
        let profile = profile(&store, place.path(), &packages);
        symlink(finish(Command::new("readlink").arg("-f").arg(&profile)), place.path().join("env")).unwrap();
        // What the page says, with the profile's programs.
        for (_, language, text) in blocks("TLS with a CA of your own") {
            assert_eq!(language, "sh");
            let mut sh = Command::new("bash");
            sh.args(["-euc", &text]).current_dir(place.path()).env("NIX_PROFILE", &profile);
            let path = format!("{}/bin:{}", profile.display(), std::env::var("PATH").unwrap());
            finish(sh.env("PATH", path).env_remove("JAVA_TOOL_OPTIONS"));
        }
        let (root, folder) = (place.path().join("exported"), place.path().join("root"));
        let app = place.path().join("app/app");
        fs_err::create_dir_all(&app).unwrap();
        fs_err::write(app.join("app.jar"), java_program()).unwrap();
        for (path, contents) in debians_modules() {
            let file = place.path().join("app").join(path.strip_prefix("node/").unwrap());
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(file, contents).unwrap();
        }
        let export = Export::new(&store).profile(&profile).arg("--rootfs").arg(&folder);
        export.arg("--rootfs").arg(place.path().join("app")).root(&root).exports();
        Tls { root, server, _place: place }
    })
}

#[test]
fn a_ca_of_ones_own_is_trusted_with_the_variables_of_the_table() {
    if !root_for("a container") {
        return;
    }
    let Tls { root, server, .. } = tls();
    let url = format!("https://localhost:{}/", server.port);
    let python = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)";
    let node = "fetch(process.argv[1]).then(answer => console.log(answer.status), error => { console.error(error.cause); process.exit(1) })";
    let value = |program: &str| {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| {program}"))).unwrap();
        row.split('`').find(|part| part.contains('=')).unwrap().to_owned()
    };
    let (of_node, of_java) = (value("Node "), value("Java "));
    for (words, variable) in [
        (&["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}", &url][..], ""),
        (&["python3", "-c", python, &url], ""),
        (&["node", "-e", node, &url], of_node.as_str()),
        (&["java", "-jar", "/app/app.jar", &url], &of_java),
    ] {
        let run = |variable: &str| {
            let container = Container::new(root).unwrap().host_network().tmpfs("/tmp");
            let container = if variable.is_empty() { container } else { container.env(variable) };
            container.run(words)
        };
        let (status, said, errors) = run(variable);
        assert_eq!((status, said.trim()), (Some(0), "200"), "{words:?}: {errors}");
        // It is the variable, or the root's bundle, that does it.
        let elsewhere = if variable.is_empty() { "SSL_CERT_FILE=/etc/hosts" } else { "" };
        let (status, said, _) = run(elsewhere);
        assert!(status != Some(0), "{words:?}: {said}");
    }
}
