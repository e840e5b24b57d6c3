//! The root as programs find it that expect a system: its modes, its users, and TLS, temporary files and time zones
//! with no variable set.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::engine::{Docker, TlsServer, tag};
use crate::support::{
    Entry, Export, Store, Tree, What, call, finish, folder, installed, is_root, judge, root_for, scratch,
};

/// What is in every complete root: place, mode, owner.
const TABLE: &[(&str, u32, u32)] = &[
    ("dev", 0o755, 0),
    ("etc", 0o755, 0),
    ("etc/group", 0o644, 0),
    ("etc/hostname", 0o644, 0),
    ("etc/hosts", 0o644, 0),
    ("etc/mtab", 0o777, 0),
    ("etc/nsswitch.conf", 0o644, 0),
    ("etc/os-release", 0o644, 0),
    ("etc/passwd", 0o644, 0),
    ("etc/resolv.conf", 0o644, 0),
    ("home", 0o755, 0),
    ("home/nonroot", 0o755, 65532),
    ("nix", 0o755, 0),
    ("nix/profile", 0o777, 0),
    ("opt", 0o755, 0),
    ("proc", 0o555, 0),
    ("root", 0o700, 0),
    ("run", 0o755, 0),
    ("run/profile", 0o777, 0),
    ("sys", 0o555, 0),
    ("usr", 0o755, 0),
    ("usr/local", 0o755, 0),
    ("usr/local/bin", 0o755, 0),
    ("var", 0o755, 0),
    ("var/cache", 0o755, 0),
    ("var/empty", 0o555, 0),
    ("var/lib", 0o755, 0),
    ("var/log", 0o755, 0),
    ("var/run", 0o777, 0),
    ("var/tmp", 0o1777, 0),
];

#[test]
fn a_root_has_the_table_and_nothing_else_beside_its_store() {
    let (store, path) = Store::with("plain");
    let folder = folder();
    let root = folder.path().join("root");
    let receipt = Export::new(&store).profile(&path).env("SOURCE_DATE_EPOCH", "5").root(&root).exports();
    judge(&store, &[&path], &receipt);
    let tree = Tree::read(&root);
    let expected: Vec<_> = TABLE.iter().map(|(place, ..)| (*place).to_owned()).collect();
    let found: Vec<_> = tree.beside(&store.directory);
    let places: Vec<_> = found.iter().map(|line| line.split(" -> ").next().unwrap().trim_end_matches('/')).collect();
    assert_eq!(places, expected);
    let us = nix::unistd::getuid().as_raw();
    let expected =
        |(place, mode, owner): (&'static str, u32, u32)| (place, mode, if is_root() { owner } else { us }, (5, 0));
    // The store of the tests lies in `/tmp`, so that it is there in any case.
    for row in TABLE.iter().copied().chain([("tmp", 0o1777, 0)]) {
        let Entry { mode, owner, time, .. } = tree.0[Path::new(row.0)];
        assert_eq!((row.0, mode, owner.0, time), expected(row));
    }
    let release = fs_err::read_to_string(root.join("etc/os-release")).unwrap();
    assert!(release.contains("ID=nixkit\n") && release.contains(env!("CARGO_PKG_VERSION")), "{release}");
}

#[test]
fn the_documentation_lists_every_entry() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/root-filesystem.md");
    let page = fs_err::read_to_string(page).unwrap();
    let more = ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/bin/bash"];
    let links = ["/etc/pki/tls/certs/ca-bundle.crt", "/usr/lib/ssl/cert.pem", "/usr/share/zoneinfo", "/etc/zoneinfo"];
    let table = TABLE.iter().map(|(place, ..)| format!("/{place}")).chain(["/tmp".to_owned()]);
    for place in table.chain(more.into_iter().chain(links).map(str::to_owned)) {
        let row = page.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{place}`")));
        let is_parent = ["/nix", "/usr", "/usr/local", "/var"].contains(&place.as_str());
        assert!(row || is_parent, "no row of the page has `{place}`");
    }
}

/// A profile with users, hosts and certificates of its own, as `dockerTools.fakeNss` and others make them.
pub(crate) fn profile_with_etc(store: &Store) -> PathBuf {
    let profile = folder();
    let etc = profile.path().join("etc");
    fs_err::create_dir_all(etc.join("ssl/certs")).unwrap();
    fs_err::create_dir_all(profile.path().join("package")).unwrap();
    fs_err::write(profile.path().join("package/passwd"), "me:x:1:1::/:/bin/me").unwrap();
    symlink("../package/passwd", etc.join("passwd")).unwrap();
    for (name, text) in
        [("group", "me:x:1:\n"), ("shadow", "me:!:1::::::\n"), ("hosts", "1.2.3.4 x\n"), ("services", "x 1/tcp\n")]
    {
        fs_err::write(etc.join(name), text).unwrap();
    }
    fs_err::write(etc.join("ssl/certs/ca-bundle.crt"), "mine\n").unwrap();
    symlink("/proc/mounts", etc.join("mtab")).unwrap();
    finish(store.nix_store().arg("--add").arg(profile.path())).into()
}

#[test]
fn the_files_of_a_profile_win_and_a_user_is_added_to_them() {
    let store = Store::new();
    let path = profile_with_etc(&store);
    let folder = folder();
    let root = folder.path().join("root");
    let export = Export::new(&store).profile(&path);
    let receipt = export.clone().args(["--user", "app:7"]).root(&root).exports();
    judge(&store, &[&path], &receipt);
    let text = |place: &str| fs_err::read_to_string(root.join(place)).unwrap();
    assert_eq!(text("etc/passwd"), "me:x:1:1::/:/bin/me\napp:x:7:7:app:/home/app:/sbin/nologin\n");
    assert_eq!(text("etc/group"), "me:x:1:\napp:x:7:\n");
    assert_eq!(text("etc/hosts"), "1.2.3.4 x\n");
    for place in ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "usr/lib/ssl/cert.pem"] {
        assert_eq!(fs_err::read_link(root.join(place)).unwrap(), path.join("etc/ssl/certs/ca-bundle.crt"), "{place}");
    }
    assert_eq!(Entry::read(&root.join("home/app")).what, What::Directory);
    // One that is there is there once.
    let again = folder.path().join("again");
    export.clone().args(["--user", "me:1"]).root(&again).exports();
    assert_eq!(fs_err::read_to_string(again.join("etc/passwd")).unwrap(), "me:x:1:1::/:/bin/me");
    let one = "it has `me` with the number 1";
    for (user, hint) in [
        ("app:1", "choose another number: `--user NAME:UID`"),
        ("me:2", "for the user that is there: `--user me:1`"),
        ("me", "for the user that is there: `--user me:1`"),
    ] {
        let id = user.split_once(':').map_or("1000", |(_, id)| id);
        let name = user.split_once(':').map_or(user, |(name, _)| name);
        let message = format!(
            "export-profile: error: cannot add user `{name}` ({id}) to `/etc/passwd`: {one}\n\
             hint: {hint}\n"
        );
        export.clone().args(["--user", user]).root(folder.path().join("refused")).refuses(1, &message);
    }
}

#[test]
fn who_is_no_user_is_a_usage_error() {
    let (store, path) = Store::with("plain");
    let folder = folder();
    let root = folder.path().join("root");
    for (user, why) in [
        ("app:0", "0 is `root` in every root"),
        ("tty", "`tty` is the group `tty` (5) in every root"),
        ("app:5", "5 is the group `tty` (5) in every root"),
        ("Me", "a name is 1 to 32 of `a-z`, `0-9`, `_` and `-`, and begins with none of the digits and `-`"),
    ] {
        let message = format!(
            "export-profile: error: invalid value '{user}' for '--user <NAME[:UID]>': {why}\n\nFor more information, \
             try '--help'.\n"
        );
        Export::new(&store).profile(&path).args(["--user", user]).root(&root).refuses(2, &message);
    }
    for other in ["--bare", "--store-only"] {
        let outcome = Export::new(&store).profile(&path).args(["--user", "app", other]).root(&root).run();
        assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
    }
}

#[test]
fn root_of_a_small_user_namespace_keeps_the_home_and_says_so() {
    let (store, path) = Store::with("plain");
    if !root_for("a user namespace") {
        return;
    }
    let folder = folder();
    let root = folder.path().join("root");
    let warning = "`/home/nonroot` stays owned by root: user 65532 is not mapped in this user namespace".to_owned();
    let export = Export::new(&store).under(["unshare", "--user", "--map-root-user"]).profile(&path).root(&root);
    export.exports_with(&[warning]);
    assert_eq!(Entry::read(&root.join("home/nonroot")).owner, (0, 0));
}

/// Profiles of the stand-in's programs, and of the certificate of a CA that only this test knows.
pub(crate) struct Programs {
    pub(crate) store: Store,
    pub(crate) profiles: [PathBuf; 2],
    server: TlsServer,
}

impl Programs {
    pub(crate) fn get() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| {
            let store = Store::of_the_machine();
            let place = scratch().join("complete-root");
            let certificates = place.join("certificates/etc/ssl/certs");
            fs_err::create_dir_all(&certificates).unwrap();
            let mut install = store.command("nix-env");
            let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
            install.arg("--file").arg(&packages).arg("--profile").arg(place.join("profile"));
            finish(install.args(["-iA", "bash", "coreutils", "curl", "openssl", "debianPackages.tzdata"]));
            let server = TlsServer::start();
            fs_err::copy(&server.authority, certificates.join("ca-bundle.crt")).unwrap();
            let cacert = finish(store.nix_store().arg("--add").arg(place.join("certificates")));
            let profiles = [place.join("profile"), cacert.into()];
            Self { store, profiles, server }
        })
    }
}

#[test]
fn programs_find_certificates_users_time_zones_and_room_with_no_variable_set() {
    if !root_for("chroot") {
        return;
    }
    let folder = folder();
    let Programs { store, profiles, server } = Programs::get();
    let run = |root: &Path, userspec: &str, script: &str| {
        let mut command = Command::new(which::which("chroot").unwrap());
        command.env_clear().arg(format!("--userspec={userspec}")).arg(root).stdin(Stdio::null());
        let output =
            command.args(["/run/profile/bin/bash", "-c", &format!("PATH=/run/profile/bin; {script}")]).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (root, bare) = (folder.path().join("root"), folder.path().join("bare"));
    let export = profiles.iter().fold(Export::new(store), Export::profile);
    export.clone().args(["--user", "app"]).root(&root).exports();
    export.arg("--bare").root(&bare).exports();

    let curl = format!("curl --silent --show-error --output /dev/null https://localhost:{}/", server.port);
    let openssl = format!(
        "openssl s_client -connect 127.0.0.1:{} -verify_hostname localhost -verify_return_error -brief </dev/null 2>&1 | \
         while read -r line; do case $line in Verification*) echo \"$line\";; esac; done",
        server.port
    );
    // curl writes to a device, which a root has only once something runs it.
    for root in [&root, &bare] {
        if !root.join("dev").exists() {
            fs_err::create_dir(root.join("dev")).unwrap();
        }
        call("mknod", [&root.join("dev/null"), &"c", &"1", &"3"]);
        crate::support::set_mode(&root.join("dev/null"), 0o666);
    }
    for (user, script, expected) in [
        ("0:0", "id -un; echo ~; date -d @0", "root\n/root\nThu Jan  1 00:00:00 UTC 1970\n"),
        ("65532:65532", "id -un; id -gn; echo ~", "nonroot\nnonroot\n/home/nonroot\n"),
        ("65534:65534", "whoami; mktemp >/dev/null && echo made", "nobody\nmade\n"),
        ("1000:1000", "whoami; cd ~ && : >file && pwd; ls -dn ~ | cut -d' ' -f3,4", "app\n/home/app\n1000 1000\n"),
        ("1000:1000", "TMPDIR=/var/tmp mktemp >/dev/null && echo made", "made\n"),
        ("0:0", "TZ=Europe/Ljubljana date -d @0 +%R%Z", "01:00CET\n"),
        ("65532:65532", curl.as_str(), ""),
        ("65532:65532", openssl.as_str(), "Verification: OK\n"),
    ] {
        assert_eq!(run(&root, user, script), (Some(0), expected.to_owned()), "{script}");
    }
    // It is the table that does it.
    let (status, said) = run(&bare, "65532:65532", &curl);
    assert_eq!(status, Some(77), "{said}");
    let (_, said) = run(&bare, "65532:65532", "id -un; mktemp");
    assert!(said.contains("cannot find name for user ID 65532") && said.contains("failed to create"), "{said}");
    assert_eq!(run(&bare, "0:0", "TZ=Europe/Ljubljana date -d @0 +%R").1, "00:00\n");
}

#[test]
fn in_a_container_the_user_has_a_name_a_home_and_room_and_tls_works() {
    let Some(docker) = Docker::get() else { return };
    let Programs { store, profiles, server } = Programs::get();
    let place = tempfile::tempdir().unwrap();
    let (archive, image) = (place.path().join("image.tar"), tag("complete"));
    let mut export = Command::new(installed().join("export-image"));
    export.env_clear().envs(store.environment()).args(["--quiet", "--user", "app:7", "--tag", &image]);
    for profile in profiles {
        export.arg("--profile").arg(profile);
    }
    finish(export.arg("--sbom").arg(place.path().join("bill.json")).arg(&archive));
    docker.load(&archive);
    let asked = "{{.Config.User}} {{index .Config.Labels \"io.github.nixkit.sbom\"}}";
    let told = finish(docker.command().args(["image", "inspect", "--format", asked, &image]));
    assert_eq!(told, "7:7 /usr/share/sbom/nixkit.cdx.json");
    let bill = finish(&mut docker.run(&[], &image, &["cat", "/usr/share/sbom/nixkit.cdx.json"]));
    assert_eq!(bill, fs_err::read_to_string(place.path().join("bill.json")).unwrap().trim_end());

    let says = |image: &str, options: &[&str], script: &str| {
        let mut run = docker.command();
        run.args(["run", "--rm", "--network", "host", "--env", "PATH=/run/profile/bin"]).args(options);
        finish(run.args([image, "bash", "-c", script]))
    };
    let url = format!("https://localhost:{}/", server.port);
    let script = format!(
        "id -un; echo ~; cd ~; : >file; mktemp >/dev/null; TZ=Europe/Ljubljana date -d @0 +%R; \
         curl --silent --show-error {url} >/dev/null && echo trusted"
    );
    let expected = "app\n/home/app\n01:00\ntrusted";
    assert_eq!(says(&image, &[], &script), expected);

    // And through a Dockerfile: both builders keep the owner.
    let context = place.path().join("context");
    fs_err::create_dir(&context).unwrap();
    let copied = "cp -a /nix /run /bin /etc /home /root /tmp /usr /var /dist";
    let dockerfile = format!(
        "FROM {image} AS build\nUSER 0\nRUN [\"bash\", \"-c\", \"mkdir /dist; {copied}\"]\n\
         FROM scratch\nCOPY --from=build /dist /\n"
    );
    fs_err::write(context.join("Dockerfile"), dockerfile).unwrap();
    for buildkit in [true, false] {
        let image = tag(if buildkit { "complete-buildkit" } else { "complete-classic" });
        finish(&mut docker.build(buildkit, &context, &image));
        let script = script.replace("cd ~; : >file; ", "");
        assert_eq!(says(&image, &["--user", "7"], &script), expected, "buildkit: {buildkit}");
        let found = says(&image, &[], "stat -c %a /tmp /var/tmp /var/empty /root /home/app; stat -c %u /home/app");
        assert_eq!(found, "1777\n1777\n555\n700\n755\n7", "buildkit: {buildkit}");
    }
}
