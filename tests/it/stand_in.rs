//! `tests/nixpkgs` on machines whose packages are cut otherwise than this one's: it goes by the files that are
//! installed. The machine is this one with some packages more, in an overlay of which nothing stays.

use std::path::Path;

use crate::support::{FileSystem, Kind, Store, finish, root_for};

/// Makes the machine in `$1` and goes there: its own store, with this repository `$2` below `/repository`.
const MACHINE: &str = r#"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mkdir -p "$1/root/repository"
mount --bind "$2" "$1/root/repository"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/tmp"
exec chroot "$1/root" bash -euc "$3"
"#;

/// Packages as in other releases.
const PACKAGES: &str = r#"
cd /tmp
package() {
  mkdir -p "$1/DEBIAN" "$1/usr/bin"
  printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: m <m@m>\nDescription: d\nDepends: %s\n' \
    "$1" "$2" "$(dpkg --print-architecture)" "$3" >"$1/DEBIAN/control"
}
install() { dpkg-deb --build "$1" >/dev/null; dpkg --install --force-overwrite --force-depends "$1.deb" >/dev/null; }

# A library in a package of another name, which no program's package declares: Debian testing's libcurl-gnutls.so.4.
library=$(ldd /bin/bash | sed -n 's/.*=> \(.*libtinfo[^ ]*\) .*/\1/p')
package libtinfo6t64 6.9-1 libc6
mkdir -p "libtinfo6t64${library%/*}"
cp -L "$library" "libtinfo6t64$library"
install libtinfo6t64

# Programs that are symlinks into other packages: Ubuntu's coreutils.
package other-coreutils 0.8-1 libc6
mkdir -p other-coreutils/usr/lib/cargo/bin/coreutils
cp /bin/ls other-coreutils/usr/lib/cargo/bin/coreutils/coreutils
ln other-coreutils/usr/lib/cargo/bin/coreutils/coreutils other-coreutils/usr/lib/cargo/bin/coreutils/ls
package gnu-coreutils 9.7-1 libc6
cp /bin/cp gnu-coreutils/usr/bin/gnucp
package coreutils-from-other 0.0-1 'other-coreutils, gnu-coreutils'
ln -s ../lib/cargo/bin/coreutils/ls coreutils-from-other/usr/bin/ls
ln -s gnucp coreutils-from-other/usr/bin/cp
for name in other-coreutils gnu-coreutils coreutils-from-other; do install "$name"; done
"#;

/// What `script` prints on that machine.
fn on_machine(script: &str) -> String {
    // An overlay can have its upper directory there, whatever `/` is.
    let place = FileSystem::new(Kind::Tmpfs).unwrap();
    let mut command = Store::of_the_machine().command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", MACHINE, "sh"]);
    command.arg(&place.point).arg(Path::new(env!("CARGO_MANIFEST_DIR"))).arg(format!("{PACKAGES}\n{script}"));
    command.envs([("TMPDIR", "/tmp"), ("HOME", "/tmp"), ("NIX_CONF_DIR", "/repository/tests/nixpkgs")]);
    finish(&mut command)
}

#[test]
fn libraries_and_programs_are_found_in_whatever_package_has_them() {
    if !root_for("an overlay of the machine") {
        return;
    }
    let printed = on_machine(
        "tr -d '\\n' <$(nix-build --no-out-link /repository/tests/nixpkgs -A index); echo
         bash=$(nix-build --no-out-link /repository/tests/nixpkgs -A bash)
         coreutils=$(nix-build --no-out-link /repository/tests/nixpkgs -A coreutils)
         patchelf --print-rpath $bash/bin/bash
         env -i $bash/bin/sh -c 'echo it runs'
         env -i $coreutils/bin/ls -d /
         env -i $coreutils/bin/cp --version | head -n 1
         ls $coreutils/bin
         nix-store --query --references $coreutils",
    );
    let mut lines = printed.lines();
    let index: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(index["commands"]["ls"], "coreutils-from-other");
    let parts: Vec<_> = index["packages"]["coreutils-from-other"]["parts"].as_array().unwrap().iter().collect();
    assert!(parts.contains(&&"other-coreutils".into()) && parts.contains(&&"gnu-coreutils".into()), "{parts:?}");
    let libraries = index["packages"]["bash"]["libraries"].as_array().unwrap();
    assert!(libraries.contains(&"libtinfo6t64".into()) && !libraries.contains(&"libtinfo6".into()), "{libraries:?}");
    let run_path = lines.next().unwrap();
    assert!(run_path.contains("-libtinfo6t64-6.9/lib"), "{run_path}");
    assert_eq!([lines.next(), lines.next()], [Some("it runs"), Some("/")]);
    assert!(lines.next().unwrap().starts_with("cp (GNU coreutils)"));
    let names: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("/nix/store/")).collect();
    assert_eq!(names, ["cp", "gnucp", "ls"]);
    assert!(lines.next().is_some(), "it links to nothing");
}

#[test]
fn a_package_that_is_not_installed_is_named() {
    let mut command = Store::of_the_machine().command("nix-build");
    let nixpkgs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
    let output = command.arg(nixpkgs).args(["--no-out-link", "-A", "debianPackages.no-such-package"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no-such-package"));
}
