//! What the name of a store path says: package, version and output, by the rules of Nix and nixpkgs.
//! It must never look at the store: a name and a deriver are all it reads.

use super::StorePath;

/// Names that nixpkgs gives to outputs. They matter only where Nix does not know a path's deriver, or where a package
/// is a derivation of its own that repackages one output: otherwise the deriver's name tells the output exactly.
const OUTPUTS: &[&str] = &[
    "bin",
    "client",
    "data",
    "debug",
    "dev",
    "devdoc",
    "devman",
    "dist",
    "dnsutils",
    "doc",
    "docs",
    "examples",
    "getent",
    "host",
    "include",
    "info",
    "installedTests",
    "lib",
    "libgcc",
    "login",
    "man",
    "modules",
    "mount",
    "out",
    "pam",
    "plugins",
    "py",
    "python",
    "scripts",
    "server",
    "share",
    "static",
    "su",
    "swap",
    "terminfo",
    "test",
    "tests",
    "tools",
    "xxd",
];

/// What a name ends in that belongs to a single file: a patch, a script, a configuration file, an archive of sources.
const FILE_EXTENSIONS: &[&str] = &[
    "bash", "bz2", "c", "cfg", "conf", "crate", "crt", "css", "deb", "diff", "drv", "gem", "gz", "h", "html", "ini",
    "jar", "js", "json", "key", "lua", "md", "nix", "otf", "patch", "pem", "pl", "png", "py", "rb", "rpm", "service",
    "sh", "svg", "tar", "tgz", "toml", "ttf", "txt", "whl", "xml", "xz", "yaml", "yml", "zip", "zst",
];

/// A name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming<'a> {
    /// The package's name; of a file its whole name.
    pub package: &'a str,
    /// The version, without the output.
    pub version: Option<&'a str>,
    /// The output, unless it is `out`.
    pub output: Option<&'a str>,
    /// Whether it is a file, such as a patch, and not a package.
    pub is_file: bool,
}

impl<'a> Naming<'a> {
    /// Takes the name of `path` apart, with the help of the name of its `deriver` where that is known.
    pub fn of(path: &'a StorePath, deriver: Option<&StorePath>) -> Self {
        let name = path.name();
        let derivation = deriver.and_then(|deriver| deriver.name().strip_suffix(".drv"));
        // An output other than `out` follows the derivation's name (`outputPathName` in libstore).
        let output = derivation.and_then(|derivation| name.strip_prefix(derivation)?.strip_prefix('-'));
        let name = output.map_or(name, |output| &name[..name.len() - output.len() - 1]);
        if is_file(name) {
            return Self { package: name, version: None, output, is_file: true };
        }
        let (package, version) = split(name);
        let repackaged = version.filter(|_| output.is_none()).and_then(|version| version.rsplit_once('-'));
        match repackaged {
            Some((version, output)) if !version.is_empty() && OUTPUTS.contains(&output) => {
                let output = Some(output).filter(|output| *output != "out");
                Self { package, version: Some(version), output, is_file: false }
            }
            _ => Self { package, version, output, is_file: false },
        }
    }
}

/// A name cut in two as Nix does: the version begins after the first `-` that no letter follows (`DrvName` in libstore,
/// `builtins.parseDrvName`). A name that would leave nothing for the package has no version.
fn split(name: &str) -> (&str, Option<&str>) {
    let is_cut = |at: usize| name[at + 1..].starts_with(|c: char| !c.is_ascii_alphabetic());
    match name.match_indices('-').map(|(at, _)| at).find(|&at| is_cut(at)) {
        Some(at) if at > 0 => (&name[..at], Some(&name[at + 1..])),
        _ => (name, None),
    }
}

/// Whether a name is that of a file. A patch that is called by the number of a vulnerability may have no extension.
fn is_file(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| FILE_EXTENSIONS.contains(&extension)) || is_vulnerability(name)
}

/// `CVE-YEAR-NUMBER`, and anything after it.
fn is_vulnerability(name: &str) -> bool {
    let mut parts = name.splitn(3, '-');
    let (prefix, year, number) = (parts.next(), parts.next(), parts.next());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("cve"))
        && year.is_some_and(|year| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()))
        && number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
    }

    /// Package, version, output and whether it is a file, as one text.
    fn read(name: &str, deriver: Option<&str>) -> String {
        let (path, deriver) = (path(name), deriver.map(path));
        let Naming { package, version, output, is_file } = Naming::of(&path, deriver.as_ref());
        let parts = [package, version.unwrap_or("-"), output.unwrap_or("-"), if is_file { "file" } else { "package" }];
        parts.join(" ")
    }

    #[test]
    fn names_of_nixpkgs_are_taken_apart() {
        for (name, expected) in [
            ("openssl-3.0.13-bin", "openssl 3.0.13 bin package"),
            ("openssl-3.0.13-dev", "openssl 3.0.13 dev package"),
            ("glibc-2.39-52", "glibc 2.39-52 - package"),
            ("glibc-2.39-52-bin", "glibc 2.39-52 bin package"),
            ("python3.11-requests-2.31.0", "python3.11-requests 2.31.0 - package"),
            ("gcc-13.2.0-lib", "gcc 13.2.0 lib package"),
            ("libX11-1.8.7", "libX11 1.8.7 - package"),
            ("perl5.38.2-HTTP-Message-6.45", "perl5.38.2-HTTP-Message 6.45 - package"),
            ("curl-8.7.1-man", "curl 8.7.1 man package"),
            ("nss-cacert-3.98", "nss-cacert 3.98 - package"),
            ("source", "source - - package"),
            ("xgcc-13.2.0-libgcc", "xgcc 13.2.0 libgcc package"),
            ("util-linux-minimal-2.39.4-lib", "util-linux-minimal 2.39.4 lib package"),
            ("CVE-2024-1.patch", "CVE-2024-1.patch - - file"),
            ("hello-unstable-2024-01-02", "hello-unstable 2024-01-02 - package"),
            ("font-misc-1.1.2", "font-misc 1.1.2 - package"),
            ("bash-5.2p26", "bash 5.2p26 - package"),
            ("linux-headers-6.7", "linux-headers 6.7 - package"),
            ("app-0-unstable-2024-05-01", "app 0-unstable-2024-05-01 - package"),
            ("x264-0-unstable-2023-10-01", "x264 0-unstable-2023-10-01 - package"),
            ("a+b-1.0+git2024", "a+b 1.0+git2024 - package"),
            ("e2fsprogs-1.47.0-1.2", "e2fsprogs 1.47.0-1.2 - package"),
            ("texlive-2024-env", "texlive 2024-env - package"),
            ("7zip-24.07", "7zip 24.07 - package"),
            ("foo-1.0.drv-x", "foo 1.0.drv-x - package"),
            ("gtk+3-3.24.41", "gtk+3 3.24.41 - package"),
            // Others of the kinds.
            ("sqlite-3.45.3-debug", "sqlite 3.45.3 debug package"),
            ("ncurses-6.4-out", "ncurses 6.4 - package"),
            ("zlib-1.3.1-static", "zlib 1.3.1 static package"),
            ("python3-3.12.4-env", "python3 3.12.4-env - package"),
            ("cve-2024-28085", "cve-2024-28085 - - file"),
            ("CVE-2023-4911_part1.diff", "CVE-2023-4911_part1.diff - - file"),
            ("0001-fix-build.patch", "0001-fix-build.patch - - file"),
            ("hello-2.12.1.tar.gz", "hello-2.12.1.tar.gz - - file"),
            ("setup-hook.sh", "setup-hook.sh - - file"),
            ("env-manifest.nix", "env-manifest.nix - - file"),
            ("cve-bin-tool-3.3", "cve-bin-tool 3.3 - package"),
            ("user-environment", "user-environment - - package"),
            // Without a version nothing tells an output from a part of the name.
            ("glibc-bin", "glibc-bin - - package"),
            ("openssl--dev", "openssl -dev - package"),
            ("a-", "a- - - package"),
            ("-1", "-1 - - package"),
        ] {
            assert_eq!(read(name, None), expected, "{name}");
            // As Nix knows it if the derivation has that very name.
            assert_eq!(read(name, Some(&format!("{name}.drv"))), expected, "{name}");
        }
    }

    #[test]
    fn the_derivers_name_tells_the_output() {
        for (name, deriver, expected) in [
            ("openssl-3.0.13-bin", "openssl-3.0.13.drv", "openssl 3.0.13 bin package"),
            ("alacritty-0.13.2-my-own", "alacritty-0.13.2.drv", "alacritty 0.13.2 my-own package"),
            ("nss-cacert-3.98-p11kit", "nss-cacert-3.98.drv", "nss-cacert 3.98 p11kit package"),
            ("tool-dev", "tool.drv", "tool - dev package"),
            ("a-1-lib-dev", "a-1-lib.drv", "a 1-lib dev package"),
            ("a-1-dev", "other-1.drv", "a 1 dev package"),
            ("a-1-x", "no derivation", "a 1-x - package"),
            ("fix.patch-lib", "fix.patch.drv", "fix.patch - lib file"),
        ] {
            let deriver = deriver.replace(' ', "-");
            assert_eq!(read(name, Some(&deriver)), expected, "{name}, {deriver}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_name_is_lost(name in "[a-zA-Z0-9+._-]{0,20}-?[0-9.]{0,5}(-(bin|lib|x))?x") {
            let path = path(&name);
            let Naming { package, version, output, .. } = Naming::of(&path, None);
            let parts: Vec<_> = [Some(package), version, output].into_iter().flatten().collect();
            prop_assert_eq!(parts.join("-"), name);
        }
    }
}
