//! What container runtimes do with a root: the files that they open, mounts over `/run`, and roots that cannot be written.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::complete_root::profile_with_etc;
use crate::support::engine::{Docker, tag};
use crate::support::{Container, Entry, Export, ImageExport, Store, What, call, finish, folder, root_for, scratch};

/// A profile with bash and coreutils in the machine's own store.
fn shell() -> &'static (Store, PathBuf) {
    static SHELL: OnceLock<(Store, PathBuf)> = OnceLock::new();
    SHELL.get_or_init(|| {
        let store = Store::of_the_machine();
        let profile = scratch().join("runtimes-profile");
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
        let mut install = store.command("nix-env");
        install.arg("--file").arg(&packages).arg("--profile").arg(&profile);
        finish(install.args(["-iA", "bash", "coreutils", "cacert"]));
        (store, profile)
    })
}

/// Opens a file as Go's `os.Root` does, which containerd 2.2 and Docker 29 use: no link on the way may leave the root, and
/// an absolute one counts as leaving it.
fn open_like_go(root: &Path, place: &str) -> Result<String, String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
    use std::io::Read;
    let root = open(root, OFlags::DIRECTORY | OFlags::PATH, Mode::empty()).map_err(|error| error.to_string())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, place, OFlags::RDONLY, Mode::empty(), beneath).map_err(|error| format!("{error:?}"))?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

#[test]
fn runtimes_read_the_profiles_users_without_leaving_the_root() {
    let store = Store::new();
    let path = profile_with_etc(&store);
    let folder = folder();
    for extent in ["--bare", "--json"] {
        let root = folder.path().join(extent);
        let outcome = Export::new(&store).profile(&path).arg(extent).root(&root).run();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        for (name, text, mode) in [
            ("passwd", "me:x:1:1::/:/bin/me", 0o644),
            ("group", "me:x:1:\n", 0o644),
            ("shadow", "me:!:1::::::\n", 0o600),
            ("hosts", "1.2.3.4 x\n", 0o644),
        ] {
            let place = format!("etc/{name}");
            assert_eq!(open_like_go(&root, &place), Ok(text.to_owned()), "{place}");
            let entry = Entry::read(&root.join(&place));
            assert_eq!((entry.what, entry.mode, entry.links), (What::File, mode, 1), "{place}");
        }
        assert_eq!(fs_err::read_link(root.join("etc/mtab")).unwrap(), Path::new("../proc/mounts"));
        // The rest are links as before, which `os.Root` refuses: so the check above can fail.
        assert_eq!(fs_err::read_link(root.join("etc/services")).unwrap(), path.join("etc/services"));
        assert!(open_like_go(&root, "etc/services").is_err());
    }
}

#[test]
fn a_mount_over_run_leaves_nix_profile() {
    let Some(docker) = Docker::get() else { return };
    let (store, profile) = shell();
    let place = tempfile::tempdir().unwrap();
    let (archive, image) = (place.path().join("image.tar"), tag("run-mount"));
    ImageExport::new(store, profile, &archive).args(["--tag", &image]).exports();
    docker.load(&archive);
    let run = |path: &str, mount: &[&str], words: &[&str]| {
        let path = format!("PATH={path}");
        let options = [&["--env", path.as_str()], mount].concat();
        let output = docker.run(&options, &image, words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let id = (Some(0), "0\n".to_owned());
    for mount in
        [&["--tmpfs", "/run"][..], &["--read-only", "--tmpfs", "/run"], &["--mount", "type=tmpfs,dst=/run"], &[]]
    {
        assert_eq!(run("/nix/profile/bin", mount, &["id", "-u"]), id, "{mount:?}");
        assert_eq!(
            run("/nowhere", mount, &["/bin/sh", "-c", "echo $0"]),
            (Some(0), "/bin/sh\n".to_owned()),
            "{mount:?}"
        );
        assert_eq!(run("/nowhere", mount, &["/bin/bash", "-c", "echo $0"]), (Some(0), "/bin/bash\n".to_owned()));
    }
    assert_eq!(run("/run/profile/bin", &[], &["id", "-u"]), id);
    // It is the mount that hides it.
    assert_eq!(run("/run/profile/bin", &["--tmpfs", "/run"], &["id", "-u"]), (Some(127), String::new()));
}

#[test]
fn groups_are_known_by_name() {
    let Some(docker) = Docker::get() else { return };
    let (store, profile) = shell();
    let place = tempfile::tempdir().unwrap();
    let (archive, image) = (place.path().join("image.tar"), tag("groups"));
    ImageExport::new(store, profile, &archive).args(["--tag", &image, "--env", "PATH=/nix/profile/bin"]).exports();
    docker.load(&archive);
    let script = "cd /tmp; while IFS=: read -r name _ id _; do : >$name; chgrp $name $name; \
                  [[ $(stat -c %g:%G $name) == $id:$name ]] || echo $name; done </etc/group; stat -c %g nogroup video";
    assert_eq!(finish(&mut docker.run(&[], &image, &["bash", "-c", script])), "65533\n44");
    let options = ["--user", "nonroot", "--group-add", "video", "--group-add", "dialout"];
    let groups = finish(&mut docker.run(&options, &image, &["id", "-Gn"]));
    assert_eq!(groups, "nonroot dialout video");
    // Every directory that services expect is there, and programs write where they should be able to.
    let script = "cd /var/run && pwd -P; for d in /var/lib /var/log /var/cache /opt /usr/local/bin; do cd $d || exit; done; \
                  : >/tmp/x >/var/tmp/x; cat /etc/hosts | head -n 1 | cut -f 1; cat /etc/mtab >/dev/null";
    let said = finish(&mut docker.run(&[], &image, &["bash", "-c", script]));
    assert_eq!(said, "/run\n127.0.0.1");
}

/// Runs a script by runc in a root that is mounted read-only, with what engines mount. Status, stdout and stderr.
fn run_read_only(root: &Path, script: &str) -> Option<(Option<i32>, String, String)> {
    let place = folder();
    call("mount", [&"--bind", &root, &place.path()]);
    call("mount", [&"-o", &"remount,bind,ro", &place.path()]);
    let container =
        ["hosts", "hostname", "resolv.conf"].iter().fold(Container::new(place.path())?, |container, name| {
            container.file(&format!("/etc/{name}"), &format!("{name} of the engine\n"))
        });
    let done = container.tmpfs("/run").tmpfs("/tmp").run(&["/nix/profile/bin/bash", "-c", script]);
    call("umount", [&place.path()]);
    Some(done)
}

#[test]
fn a_plain_runtime_that_brings_no_files_finds_what_programs_expect() {
    let (store, profile) = shell();
    let folder = folder();
    let root = folder.path().join("root");
    Export::new(store).profile(profile).root(&root).exports();
    let nobody = |script: &str| {
        let container = Container::new(&root)?.user(65534);
        Some(container.run(&["/bin/bash", "-c", script]))
    };
    // bash says how far it came: to the address, where nobody listens.
    let Some((_, _, errors)) = nobody(": >/dev/tcp/localhost/1") else { return };
    assert!(errors.contains("localhost/1: Connection refused"), "{errors}");
    for (script, expected) in [
        ("while read -r _ place _; do [[ $place != /proc ]] || echo $place; done </etc/mtab", "/proc\n"),
        ("id -un; echo ~; : >~/x || echo read-only", "nobody\n/var/empty\nread-only\n"),
        ("cd /var/run && pwd -P; hostname=$(</etc/hostname); echo ${#hostname}; cat /etc/resolv.conf", "/run\n0\n"),
        ("stat -c %a:%u /proc /sys /opt /usr/local/bin /var/{cache,lib,log} | sort -u", "555:0\n755:0\n"),
        (
            "[[ $(</etc/os-release) == *ID=nixkit* && $(</etc/nsswitch.conf) == *'hosts: files dns'* ]] && echo ok",
            "ok\n",
        ),
    ] {
        let (status, said, errors) = nobody(script).unwrap();
        assert_eq!((status, said.as_str()), (Some(0), expected), "{script}: {errors}");
    }
}

#[test]
fn certificates_that_are_mounted_over_one_place_are_seen_in_all() {
    let (store, profile) = shell();
    let folder = folder();
    let root = folder.path().join("root");
    Export::new(store).profile(profile).root(&root).exports();
    for place in ["/etc/ssl/certs/ca-certificates.crt", "/usr/lib/ssl/cert.pem"] {
        let Some(container) = Container::new(&root) else { return };
        let script = "cd /etc; cat ssl/certs/ca-certificates.crt ssl/certs/ca-bundle.crt ssl/cert.pem \
                      pki/tls/certs/ca-bundle.crt ../usr/lib/ssl/cert.pem";
        let done = container.file(place, "mounted\n").run(&["bash", "-c", script]);
        assert_eq!(done, (Some(0), "mounted\n".repeat(5), String::new()), "{place}");
    }
}

#[test]
fn a_root_that_cannot_be_written_has_every_mount_point() {
    if !root_for("mounts") {
        return;
    }
    let (store, profile) = shell();
    let folder = folder();
    let (root, bare) = (folder.path().join("root"), folder.path().join("bare"));
    Export::new(store).profile(profile).root(&root).exports();
    Export::new(store).profile(profile).arg("--bare").root(&bare).exports();
    let script = "PATH=/nix/profile/bin; cat /etc/hosts /etc/hostname /etc/resolv.conf; id -un; \
                  : >/tmp/x && [[ -d /var/run && -e /proc/self/exe && -e /sys/kernel && -c /dev/null ]] && echo mounted; \
                  : >/etc/x || echo read-only";
    let Some((status, said, errors)) = run_read_only(&root, script) else { return };
    let expected =
        "hosts of the engine\nhostname of the engine\nresolv.conf of the engine\nnonroot\nmounted\nread-only\n";
    assert_eq!((status, said.as_str()), (Some(0), expected), "{errors}");
    let (status, _, errors) = run_read_only(&bare, "true").unwrap();
    assert!(status == Some(1) && errors.contains("read-only file system"), "{errors}");
}
