//! What `update-images` talks to, on loopback: a registry, a repository that plays nixpkgs, and a server that
//! plays the listing of releases.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{finish, folder};

/// Longer than any of them takes to start.
const START: Duration = Duration::from_secs(30);

/// Debian's docker-registry with storage of its own, stopped when it goes out of scope.
pub(crate) struct Registry {
    pub(crate) address: String,
    pub(crate) folder: TempDir,
    child: Option<Child>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// One that only lets `user` with `password` in.
    pub(crate) fn guarded(user: &str, password: &str) -> Self {
        let place = folder().keep();
        let passwords = finish(Command::new("htpasswd").args(["-Bbn", user, password]));
        let file = place.join("htpasswd");
        fs_err::write(&file, passwords + "\n").unwrap();
        Self::with(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display()))
    }

    fn with(settings: &str) -> Self {
        // A port that is free now may be taken before the registry has it; then it is tried again.
        for _ in 0..20 {
            let folder = folder();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let text = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n{settings}",
                folder.path().join("data").display()
            );
            fs_err::write(folder.path().join("config.yml"), text).unwrap();
            let mut registry = Self { address, folder, child: None };
            if registry.resume() {
                return registry;
            }
        }
        panic!("no registry starts");
    }

    /// Starts it again on what it has stored; whether it came up.
    pub(crate) fn resume(&mut self) -> bool {
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + START;
        let up = loop {
            if TcpStream::connect(&self.address).is_ok() {
                break true;
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > until {
                break false;
            }
            std::thread::yield_now();
        };
        self.child = Some(child);
        up
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes a tag, as some registries let their users do.
    pub(crate) fn delete_tag(&self, repository: &str, tag: &str) {
        let tags = self.folder.path().join("data/docker/registry/v2/repositories").join(repository);
        fs_err::remove_dir_all(tags.join("_manifests/tags").join(tag)).unwrap();
    }

    /// Tags, sorted; none of a repository that does not exist.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let listed = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{}/{repository}", self.address)]);
        let listed: serde_json::Value =
            serde_json::from_str(&listed.unwrap_or_else(|| r#"{"Tags":[]}"#.into())).unwrap();
        let mut tags: Vec<_> =
            listed["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
        tags.sort();
        tags
    }

    /// Manifest or index.
    pub(crate) fn raw(&self, repository: &str, tag: &str) -> Option<String> {
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        let reference = format!("docker://{}/{repository}{separator}{tag}", self.address);
        skopeo(&["inspect", "--raw", "--tls-verify=false", &reference])
    }

    /// The images of an index: architecture, and labels as they are in the registry.
    pub(crate) fn images(&self, repository: &str, tag: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let index: serde_json::Value = serde_json::from_str(&self.raw(repository, tag).expect(tag)).unwrap();
        let read = |entry: &serde_json::Value| {
            let digest = entry["digest"].as_str().unwrap();
            let reference = format!("docker://{}/{repository}@{digest}", self.address);
            let config =
                skopeo(&["inspect", "--config", "--tls-verify=false", &reference]).expect("an image of the index");
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            let architecture = config["architecture"].as_str().unwrap().to_owned();
            assert_eq!(entry["platform"]["architecture"], architecture.as_str());
            (architecture, serde_json::from_value(config["config"]["Labels"].clone()).unwrap())
        };
        index["manifests"].as_array().expect("an index").iter().map(read).collect()
    }
}

/// What skopeo prints, if it succeeds.
fn skopeo(arguments: &[&str]) -> Option<String> {
    let output = Command::new("skopeo").args(arguments).stdin(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A repository whose branches are channels.
pub(crate) struct Nixpkgs {
    folder: TempDir,
    tree: String,
    commits: std::cell::Cell<u64>,
}

impl Nixpkgs {
    /// Each commit has the files of `tree`.
    pub(crate) fn of(tree: &Path) -> Self {
        let folder = folder();
        let git = |arguments: &[&str]| finish(Command::new("git").arg("-C").arg(folder.path()).args(arguments));
        git(&["init", "--quiet", "--bare", "--initial-branch=master"]);
        git(&["--work-tree", tree.to_str().unwrap(), "add", "--all", "--force"]);
        let tree = git(&["write-tree"]);
        Self { folder, tree, commits: 0.into() }
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.folder.path()).args(arguments);
        command
    }

    /// A commit, an hour younger than the last.
    pub(crate) fn commit(&self) -> String {
        self.commits.set(self.commits.get() + 1);
        let date = format!("{} +0000", 1_780_000_000 + 3600 * self.commits.get());
        let mut commit = self.git(&["commit-tree", "-m", "an update", &self.tree]);
        for role in ["AUTHOR", "COMMITTER"] {
            commit.env(format!("GIT_{role}_NAME"), "test").env(format!("GIT_{role}_EMAIL"), "test@localhost");
            commit.env(format!("GIT_{role}_DATE"), &date);
        }
        finish(&mut commit)
    }

    /// Points a branch to a commit.
    pub(crate) fn branch(&self, name: &str, commit: &str) {
        finish(&mut self.git(&["update-ref", &format!("refs/heads/{name}"), commit]));
    }
}

#[derive(Default)]
struct Answers {
    /// Directories of releases, with the text of their `git-revision`.
    releases: BTreeMap<String, String>,
    /// What is said instead: path and query begin with the key.
    instead: BTreeMap<String, (u16, String)>,
    page: usize,
}

/// A server that speaks as much of S3 as a listing needs.
pub(crate) struct Releases {
    pub(crate) url: String,
    answers: Arc<Mutex<Answers>>,
}

impl Releases {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(Answers { page: 2, ..Answers::default() }));
        let shared = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { url, answers }
    }

    /// Adds `nixos/26.05/nixos-26.05.7.…` for `commit` below the channel's prefix.
    pub(crate) fn add(&self, prefix: &str, number: &str, commit: &str) {
        let family = prefix.split('/').next().unwrap();
        let directory = format!("{prefix}{family}-{number}.{}/", &commit[..12]);
        self.answers.lock().unwrap().releases.insert(directory, commit.to_owned());
    }

    /// From now on requests whose path and query begin with `start` get this.
    pub(crate) fn instead(&self, start: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().instead.insert(start.to_owned(), (status, body.to_owned()));
    }

    pub(crate) fn as_usual(&self) {
        self.answers.lock().unwrap().instead.clear();
    }
}

fn answer(stream: TcpStream, answers: &Mutex<Answers>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let _ = reader.read_line(&mut request);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let answers = answers.lock().unwrap();
    let instead =
        answers.instead.iter().find(|(start, _)| target.starts_with(*start)).map(|(_, answer)| answer.clone());
    let (status, body) = instead.unwrap_or_else(|| {
        if let Some(query) = target.strip_prefix("/?") {
            (200, listing(&answers, query))
        } else {
            let directory = target.trim_start_matches('/').strip_suffix("git-revision");
            match directory.and_then(|directory| answers.releases.get(directory)) {
                Some(commit) => (200, commit.clone()),
                None => (404, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
            }
        }
    });
    let mut stream = stream;
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn listing(answers: &Answers, query: &str) -> String {
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
    let (prefix, marker) = (parameter("prefix"), parameter("marker"));
    let found: Vec<_> =
        answers.releases.keys().filter(|name| name.starts_with(prefix) && name.as_str() > marker).collect();
    let page = &found[..found.len().min(answers.page)];
    let mut text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Prefix>{prefix}</Prefix>"
    );
    let more = found.len() > page.len();
    let _ = write!(text, "<IsTruncated>{more}</IsTruncated>");
    if more {
        let _ = write!(text, "<NextMarker>{}</NextMarker>", page.last().unwrap());
    }
    for name in page {
        let _ = write!(text, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
    }
    text + "</ListBucketResult>"
}

/// Stands before a registry and cuts connections off once they have sent some bytes.
pub(crate) struct Cutting {
    pub(crate) address: String,
    /// How many bytes a connection may send.
    pub(crate) allowed: Arc<Mutex<u64>>,
    /// How many were cut.
    pub(crate) cut: Arc<Mutex<u64>>,
}

impl Cutting {
    pub(crate) fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (allowed, cut) = (Arc::new(Mutex::new(u64::MAX)), Arc::new(Mutex::new(0)));
        let (to, limit, count) = (registry.address.clone(), Arc::clone(&allowed), Arc::clone(&cut));
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(into) = TcpStream::connect(&to) else { continue };
                let (limit, count) = (*limit.lock().unwrap(), Arc::clone(&count));
                let (mut back_from, mut back_to) = (into.try_clone().unwrap(), from.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back_from, &mut back_to);
                    let _ = back_to.shutdown(Shutdown::Both);
                });
                std::thread::spawn(move || {
                    let (from, mut into) = (from, into);
                    let sent = std::io::copy(&mut (&from).take(limit), &mut into).unwrap_or(0);
                    if sent == limit {
                        *count.lock().unwrap() += 1;
                    }
                    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
                });
            }
        });
        Self { address, allowed, cut }
    }
}

/// A folder with a `skopeo` that counts the copies in `count`, and ends whoever called it by KILL before or
/// after the copy whose number stands in `kill`.
pub(crate) fn deadly_skopeo() -> TempDir {
    let folder = folder();
    let real = which::which("skopeo").unwrap();
    let text = format!(
        "if [ \"$1\" != copy ]; then exec {real} \"$@\"; fi\n\
         here=$(dirname \"$0\")\n\
         count=$(($(cat \"$here/count\" 2>/dev/null || echo 0) + 1))\n\
         echo $count >\"$here/count\"\n\
         read -r when number 2>/dev/null <\"$here/kill\" || number=0\n\
         if [ $count = $number ] && [ $when = before ]; then kill -9 $PPID; exit 1; fi\n\
         {real} \"$@\"; status=$?\n\
         if [ $count = $number ] && [ $when = after ]; then kill -9 $PPID; fi\n\
         exit $status",
        real = real.display()
    );
    super::script(&folder.path().join("skopeo"), &text);
    folder
}

/// Copies a folder.
pub(crate) fn copied(from: &Path, to: PathBuf) -> PathBuf {
    finish(Command::new("cp").arg("-a").arg(from).arg(&to));
    to
}
