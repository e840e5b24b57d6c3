//! Real engines: a Docker daemon, buildah, a registry and a TLS server, each on this machine alone.
//! They are stopped, and what they have written is removed, when the process of the tests has ended, however it did.

use std::io::{BufRead, BufReader, Read, Write, sink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::{finish, root_for, skip};

/// Runs a program, `$3…`, if there is one, until its standard input ends; then ends the program, runs the shell
/// command `$2`, and removes the folder `$1`. Some of what lies there is mounted. By then nobody reads what it says.
const KEEPER: &str = r#"folder=$1 finally=$2 program=; shift 2
if [ $# != 0 ]; then "$@" & program=$!; fi
while read -r _; do :; done
exec >/dev/null 2>&1
if [ -n "$program" ]; then kill $program; wait $program; fi
eval "$finally"
awk -v d="$folder/" 'index($2 "/", d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n 1 umount -l
rm -rf --one-file-system "$folder""#;

/// No daemon takes as long to start, even on a busy machine.
const LONGEST_START: Duration = Duration::from_secs(90);

/// Starts a keeper, in a process group of its own: what ends the tests from a terminal must not end it before it
/// has done its work.
fn keep(folder: &Path, finally: &str, program: &[&str], environment: &[(&str, &Path)]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", KEEPER, "sh"]).arg(folder).arg(finally).args(program).envs(environment.iter().copied());
    command.stdin(Stdio::piped()).process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the first line of `output` in which `wanted` finds something. What comes after it is thrown away, so
/// that the program never waits for a reader.
fn line_with<T>(output: impl Read + Send + 'static, wanted: impl Fn(&str) -> Option<T>) -> T {
    let mut said = String::new();
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let found = lines.by_ref().find_map(|line| {
        said += &format!("{line}\n");
        wanted(&line)
    });
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("it ended before it was ready:\n{said}"))
}

/// Takes what a program says away from it: a pipe that nobody reads fills, and then the program waits.
fn drain(mut output: impl Read + Send + 'static, mut into: impl Write + Send + 'static) {
    std::thread::spawn(move || std::io::copy(&mut output, &mut into));
}

/// A new folder on the disk: images are too large for memory. Its keeper removes it.
fn folder_of(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(&format!("nixkit-{name}-")).tempdir().unwrap();
    fs_err::canonicalize(folder.keep()).unwrap()
}

/// A Docker daemon: the machine's own where one answers, else one that is started for the tests.
pub(crate) struct Docker {
    host: Option<String>,
}

impl Docker {
    /// `None` where there can be none, after saying so.
    pub(crate) fn get() -> Option<&'static Self> {
        static DOCKER: OnceLock<(Docker, Child)> = OnceLock::new();
        if !root_for("a container engine") {
            return None;
        }
        if which::which("dockerd").is_err() && !(Self { host: None }).answers() {
            skip("there is neither a Docker daemon nor `dockerd`");
            return None;
        }
        Some(&DOCKER.get_or_init(Self::start).0)
    }

    fn start() -> (Self, Child) {
        let machines = Self { host: None };
        if machines.answers() {
            let images =
                format!("docker images --filter 'reference={}' --format '{{{{.Repository}}}}:{{{{.Tag}}}}'", tag("*"));
            let remove = format!("{images} | xargs -r docker rmi --force");
            return (machines, keep(&folder_of("docker"), &remove, &[], &[]));
        }
        let folder = folder_of("docker");
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        fs_err::write(folder.join("daemon.json"), "{}").unwrap();
        // systemd's way to learn that a daemon is ready.
        let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
        notify.set_read_timeout(Some(LONGEST_START)).unwrap();
        let host = format!("unix://{}", at("socket"));
        // Containers get no network but the host's or none: the machine's own is left alone.
        let program = format!(
            "dockerd --host {host} --data-root {} --exec-root {} --pidfile {} --config-file {} --bridge=none --iptables=false --ip6tables=false",
            at("data"),
            at("exec"),
            at("pid"),
            at("daemon.json")
        );
        let program: Vec<_> = program.split(' ').collect();
        let mut keeper = keep(&folder, "", &program, &[("NOTIFY_SOCKET", &folder.join("notify"))]);
        drain(keeper.stdout.take().unwrap(), sink());
        drain(keeper.stderr.take().unwrap(), fs_err::File::create(folder.join("log")).unwrap());
        let mut message = [0; 256];
        let ready = notify.recv(&mut message).map(|length| message[..length].starts_with(b"READY=1"));
        let log = fs_err::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(matches!(ready, Ok(true)), "dockerd did not start: {ready:?}\n{log}");
        (Self { host: Some(host) }, keeper)
    }

    fn answers(&self) -> bool {
        self.command()
            .args(["version", "--format", "{{.Server.Version}}"])
            .output()
            .is_ok_and(|out| out.status.success())
    }

    /// Debian's client before others in `PATH`, which may not know `DOCKER_BUILDKIT`.
    pub(crate) fn command(&self) -> Command {
        let debian = Path::new("/usr/bin/docker");
        let mut command = Command::new(if debian.exists() { debian } else { Path::new("docker") });
        self.environment(&mut command).stdin(Stdio::null());
        command
    }

    /// Gives a program what it needs to find this daemon.
    pub(crate) fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Loads an archive and returns the name of its image.
    pub(crate) fn load(&self, archive: &Path) -> String {
        let said = finish(self.command().arg("load").arg("--input").arg(archive));
        said.rsplit_once("Loaded image: ").unwrap_or_else(|| panic!("{said}")).1.to_owned()
    }

    /// `docker run` without a network. The container is removed.
    pub(crate) fn run(&self, options: &[&str], image: &str, words: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["run", "--rm", "--network", "none"]).args(options).arg(image).args(words);
        command
    }

    /// `docker build` without a network, with the classic builder or with BuildKit.
    pub(crate) fn build(&self, buildkit: bool, context: &Path, tag: &str) -> Command {
        let mut command = self.command();
        command.env("DOCKER_BUILDKIT", if buildkit { "1" } else { "0" });
        command.args(["build", "--network", "none", "--no-cache", "--tag", tag]).arg(context);
        command
    }

    /// The files of an image, in a new directory.
    pub(crate) fn unpack(&self, image: &str, directory: &Path) {
        let container = finish(self.command().args(["create", image, "sh"]));
        let mut export = self.command();
        let mut export = export.args(["export", &container]).stdout(Stdio::piped()).spawn().unwrap();
        fs_err::create_dir(directory).unwrap();
        finish_from(Command::new("tar").arg("-x").arg("-C").arg(directory), export.stdout.take().unwrap().into());
        assert!(export.wait().unwrap().success());
        finish(self.command().args(["rm", &container]));
    }
}

fn finish_from(command: &mut Command, stdin: Stdio) {
    assert!(command.stdin(stdin).status().unwrap().success(), "{command:?}");
}

/// buildah with a storage of its own.
pub(crate) struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    pub(crate) fn get() -> Option<&'static Self> {
        static BUILDAH: OnceLock<(Buildah, Child)> = OnceLock::new();
        if !root_for("buildah") {
            return None;
        }
        if which::which("buildah").is_err() {
            skip("there is no `buildah`");
            return None;
        }
        let (buildah, _) = BUILDAH.get_or_init(|| {
            let folder = folder_of("buildah");
            let keeper = keep(&folder, "", &[], &[]);
            (Self { folder }, keeper)
        });
        Some(buildah)
    }

    pub(crate) fn command(&self) -> Command {
        self.under(&[])
    }

    /// It cannot be told to give a build no network, where it makes no container: so it gets none itself.
    pub(crate) fn without_network(&self) -> Command {
        self.under(&["unshare", "--net"])
    }

    fn under(&self, words: &[&str]) -> Command {
        let mut words = words.iter().copied().chain(["buildah"]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("--root").arg(self.folder.join("root")).arg("--runroot").arg(self.folder.join("run"));
        command.env("BUILDAH_ISOLATION", "chroot").stdin(Stdio::null());
        command
    }
}

/// containerd with a storage of its own, without any Docker.
pub(crate) struct Containerd {
    socket: PathBuf,
}

impl Containerd {
    pub(crate) fn get() -> Option<&'static Self> {
        static CONTAINERD: OnceLock<(Containerd, Child)> = OnceLock::new();
        if !root_for("containerd") {
            return None;
        }
        if which::which("containerd").is_err() || which::which("ctr").is_err() {
            skip("there is no `containerd` with `ctr`");
            return None;
        }
        Some(&CONTAINERD.get_or_init(Self::start).0)
    }

    fn start() -> (Self, Child) {
        let folder = folder_of("containerd");
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let socket = folder.join("socket");
        let settings = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n",
            at("root"),
            at("state"),
            socket.display()
        );
        fs_err::write(folder.join("config.toml"), settings).unwrap();
        let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
        notify.set_read_timeout(Some(LONGEST_START)).unwrap();
        let program = ["containerd", "--config", &at("config.toml")];
        let mut keeper = keep(&folder, "", &program, &[("NOTIFY_SOCKET", &folder.join("notify"))]);
        drain(keeper.stdout.take().unwrap(), sink());
        drain(keeper.stderr.take().unwrap(), fs_err::File::create(folder.join("log")).unwrap());
        let mut message = [0; 256];
        let ready = notify.recv(&mut message).map(|length| message[..length].starts_with(b"READY=1"));
        let log = fs_err::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(matches!(ready, Ok(true)), "containerd did not start: {ready:?}\n{log}");
        (Self { socket }, keeper)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).stdin(Stdio::null());
        command
    }
}

/// Debian's registry on a port of the loopback interface, empty at first. It is stopped when it goes out of scope.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    _keeper: Child,
}

impl Registry {
    pub(crate) fn start() -> Option<Self> {
        if which::which("docker-registry").is_err() {
            skip("there is no `docker-registry`");
            return None;
        }
        let folder = folder_of("registry");
        let settings = format!(
            "version: 0.1\nlog: {{ level: info, formatter: text }}\nstorage:\n  filesystem: {{ rootdirectory: {0}/data }}\n  delete: {{ enabled: true }}\nhttp:\n  addr: 127.0.0.1:0\n",
            folder.display()
        );
        fs_err::write(folder.join("config.yml"), settings).unwrap();
        let config = folder.join("config.yml");
        let mut keeper = keep(&folder, "", &["docker-registry", "serve", config.to_str().unwrap()], &[]);
        drain(keeper.stdout.take().unwrap(), sink());
        let address = line_with(keeper.stderr.take().unwrap(), |line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.split(['"', ',', ' ']).next()?.to_owned())
        });
        Some(Self { address, _keeper: keeper })
    }
}

/// An HTTPS server on loopback, whose certificate for `localhost` is signed by a CA that was made for it.
pub(crate) struct TlsServer {
    pub(crate) port: String,
    /// The CA's certificate.
    pub(crate) authority: PathBuf,
    _keeper: Child,
}

impl TlsServer {
    pub(crate) fn start() -> Self {
        let folder = folder_of("tls");
        let openssl = |words: &str| {
            let mut command = Command::new("openssl");
            finish(command.args(words.split(' ')).current_dir(&folder).env("OPENSSL_CONF", folder.join("none")));
        };
        fs_err::write(folder.join("none"), "[req]\ndistinguished_name = name\n[name]\n").unwrap();
        fs_err::write(folder.join("names"), "subjectAltName = DNS:localhost\n").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=test -days 2 -addext basicConstraints=critical,CA:TRUE"
        ));
        openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        openssl(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names",
        );
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (certificate, key) = (at("server.crt"), at("server.key"));
        let program = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", &certificate, "-key", &key, "-www"];
        let mut keeper = keep(&folder, "", &program, &[]);
        drain(keeper.stderr.take().unwrap(), sink());
        let port = line_with(keeper.stdout.take().unwrap(), |line| {
            Some(line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.to_owned())
        });
        Self { port, authority: folder.join("ca.crt"), _keeper: keeper }
    }
}

/// A name for images of this run alone: the daemon may be the machine's own.
pub(crate) fn tag(name: &str) -> String {
    format!("nixkit-it-{}/{name}", std::process::id())
}
