//! The pin readers: each format and version, what makes a file unreadable, and that nothing of one leaks.

use nixkit::nixpkgs::{Channel, Revision};
use nixkit::pins::{Kind, Origin, Pin, Problem, of_nixpkgs, read};

const REV: &str = "3b1789322fcbcb5cf51228d732752714f1bf77da";
const OTHER: &str = "72b9660dc18ba347f7cd41a9504fc181a6d87dc3";

/// Revision and channel of the input `nixpkgs`.
fn found(source: &str) -> Result<(Kind, String, Option<String>), Problem> {
    read(source.replace("REV", REV).replace("OTHER", OTHER).as_bytes(), "nixpkgs")
        .map(|pin| (pin.kind, pin.revision.digits().to_owned(), pin.channel.map(|channel| channel.to_string())))
}

fn pinned(kind: Kind, source: &str, revision: &str, channel: Option<&str>) {
    assert_eq!(found(source), Ok((kind, revision.to_owned(), channel.map(str::to_owned))), "{source}");
}

#[test]
fn niv() {
    for (entry, channel) in [
        (
            r#""branch": "nixos-25.11", "owner": "NixOS", "repo": "nixpkgs", "rev": "REV", "type": "tarball""#,
            Some("nixos-25.11"),
        ),
        // The oldest entries have no type, some have null.
        (
            r#""branch": "nixos-19.03", "description": null, "rev": "REV", "url": "https://x/REV.tar.gz""#,
            Some("nixos-19.03"),
        ),
        (r#""branch": "master", "rev": "REV", "type": "tarball""#, None),
        (r#""branch": "release-20.03", "rev": "REV", "type": "tarball""#, None),
        (
            r#""type": "git", "repo": "https://u:token@host/nixpkgs", "ref": "refs/heads/nixos-21.05", "rev": "REV""#,
            Some("nixos-21.05"),
        ),
        (r#""type": "tarball", "url": "https://github.com/NixOS/nixpkgs/archive/REV.tar.gz""#, None),
        (r#""rev": "REV", "url_template": "x", "builtin": false, "version": "1""#, None),
    ] {
        pinned(Kind::Niv, &format!("{{\"other\": {{\"type\": \"local\"}}, \"nixpkgs\": {{{entry}}}}}"), REV, channel);
    }
    // Upper case is the same commit.
    let upper = format!(r#"{{"nixpkgs": {{"type": "tarball", "rev": "{}"}}}}"#, REV.to_uppercase());
    pinned(Kind::Niv, &upper, REV, None);
    for (source, problem) in [
        (
            r#"{"nixpkgs-unstable": {"type": "tarball", "rev": "REV"}}"#,
            Problem::NoInput(vec!["nixpkgs-unstable".into()]),
        ),
        ("{}", Problem::NoInput(vec![])),
        (r#"{"nixpkgs": {"type": "local", "path": "../nixpkgs"}}"#, Problem::NoRevision),
        (r#"{"nixpkgs": {"type": "tarball", "rev": "REV0"}}"#, Problem::NoRevision),
        (r#"{"nixpkgs": {"type": "tarball", "rev": 7}}"#, Problem::NoRevision),
        // Of other tools.
        (r#"{"nixpkgs": {"type": "tarball", "rev": "REV"}, "n": 1}"#, Problem::Unknown),
        (r#"{"discord": {"stable": {"x": 1}}}"#, Problem::Unknown),
        (r#"{"nixpkgs": {"version": "1"}}"#, Problem::Unknown),
    ] {
        assert_eq!(found(source), Err(problem), "{source}");
    }
}

#[test]
fn npins_of_every_version() {
    let git = r#""type": "Git", "repository": {"type": "GitHub", "owner": "NixOS", "repo": "nixpkgs"}, "branch": "nixos-25.11", "revision": "REV", "url": "https://x", "hash": "h""#;
    let channel = r#""type": "Channel", "name": "nixpkgs-unstable", "url": "https://releases.nixos.org/nixpkgs/nixpkgs-26.05pre926176.3fbab70c6e69/nixexprs.tar.xz", "hash": "sha256-+Wh8S0NwhQWHfdzHCe3mLKwAxQJ2cHe7b9PBcFWSUWg=""#;
    for version in 0..=8 {
        let file = |pin: &str| {
            format!(r#"{{"pins": {{"nixpkgs": {{{pin}}}, "x": {{"type": "PyPi"}}}}, "version": {version}}}"#)
        };
        pinned(Kind::Npins, &file(git), REV, Some("nixos-25.11"));
        pinned(Kind::Npins, &file(channel), "3fbab70c6e69", Some("nixpkgs-unstable"));
    }
    for (version, pin, revision, channel) in [
        (
            0,
            r#""type": "GitHub", "repository": "nixpkgs", "owner": "nixos", "branch": "nixpkgs-unstable", "revision": "REV""#,
            REV,
            Some("nixpkgs-unstable"),
        ),
        (0, r#""type": "GitHubRelease", "repository": "x", "owner": "y", "revision": "REV""#, REV, None),
        (
            3,
            r#""type": "GitRelease", "version": "25.05", "revision": "REV", "url": "https://api.github.com/repos/NixOS/nixpkgs/tarball/25.05""#,
            REV,
            None,
        ),
        (
            5,
            r#""type": "Git", "repository": {"type": "GitLab", "private_token": "SECRET"}, "branch": "main", "revision": "REV", "url": null"#,
            REV,
            None,
        ),
        (
            5,
            r#""type": "Tarball", "url": "https://channels.nixos.org/nixos-25.05/nixexprs.tar.xz", "locked_url": "https://releases.nixos.org/nixos/25.05/nixos-25.05.803297.10d7f8d34e5e/nixexprs.tar.xz""#,
            "10d7f8d34e5e",
            Some("nixos-25.05"),
        ),
        (
            8,
            r#""type": "MutableUrl", "update_url": "https://channels.nixos.org/nixos-unstable/nixexprs.tar.xz", "url": "https://releases.nixos.org/nixos/unstable/nixos-26.05pre1.10d7f8d34e5e/nixexprs.tar.xz""#,
            "10d7f8d34e5e",
            Some("nixos-unstable"),
        ),
        (
            8,
            r#""type": "Url", "url": "https://github.com/NixOS/nixpkgs/archive/REV.tar.gz", "unpack": true"#,
            REV,
            None,
        ),
        (
            8,
            r#""type": "Channel", "name": "nixos-25.11", "artifact": "nixexprs.tar.zst", "url": "https://releases.nixos.org/nixos/25.11/nixos-25.11.1.10d7f8d34e5e/nixexprs.tar.zst""#,
            "10d7f8d34e5e",
            Some("nixos-25.11"),
        ),
    ] {
        pinned(
            Kind::Npins,
            &format!(r#"{{"version": {version}, "pins": {{"nixpkgs": {{{pin}}}}}}}"#),
            revision,
            channel,
        );
    }
    for (source, problem) in [
        (r#"{"pins": {"nixpkgs": {}}, "version": 9}"#, Problem::Version(Kind::Npins, "9".into())),
        (r#"{"pins": {"nixpkgs": {}}, "version": 1.5}"#, Problem::Version(Kind::Npins, "1.5".into())),
        (r#"{"pins": {"b": {}, "a": {}}, "version": 5}"#, Problem::NoInput(vec!["a".into(), "b".into()])),
        (r#"{"pins": {"nixpkgs": {"type": "Channel", "name": "nixos-25.11"}}, "version": 5}"#, Problem::NoRevision),
        (
            r#"{"pins": {"nixpkgs": {"type": "Channel", "name": "n", "artifact": "x.iso", "url": "https://releases.nixos.org/nixos/25.11/nixos-25.11.1.10d7f8d34e5e/x.iso"}}, "version": 8}"#,
            Problem::NoRevision,
        ),
        (r#"{"pins": {"nixpkgs": 1}, "version": 5}"#, Problem::Shape("the pin is not an object")),
        (r#"{"pins": [], "version": 5}"#, Problem::Shape("`pins` is not an object")),
    ] {
        assert_eq!(found(source), Err(problem), "{source}");
    }
}

/// A lock file whose node `nixpkgs` is somebody else's, with these inputs of the root and this node `n`.
fn lock(version: u32, inputs: &str, node: &str) -> String {
    format!(
        r#"{{"nodes": {{"nixpkgs": {{"locked": {{"rev": "OTHER"}}, "original": {{"ref": "nixos-unstable"}}}},
        "n": {{{node}}}, "f": {{"inputs": {{"np": "n", "up": ["g", "np"], "self": ["f", "self"]}}}}, "g": {{"inputs": {{"np": ["f", "np"]}}}},
        "top": {{"inputs": {{"f": "f", "g": "g", "empty": [], {inputs}}}}}}}, "root": "top", "version": {version}}}"#
    )
}

#[test]
fn flake_lock_begins_at_the_root() {
    let node = r#""locked": {"type": "github", "rev": "REV"}, "original": {"type": "github", "ref": "nixos-25.11"}"#;
    for version in 5..=7 {
        for inputs in
            [r#""nixpkgs": "n""#, r#""nixpkgs": ["f", "np"]"#, r#""nixpkgs": ["g", "np"]"#, r#""nixpkgs": ["f", "up"]"#]
        {
            pinned(Kind::Flake, &lock(version, inputs, node), REV, Some("nixos-25.11"));
        }
    }
    for (inputs, problem) in [
        (r#""nixpkgs": ["f", "self"]"#, Problem::Follows),
        (r#""nixpkgs": ["nixpkgs"]"#, Problem::Follows),
        (r#""nixpkgs": ["f", "nothing"]"#, Problem::Follows),
        (r#""nixpkgs": ["nothing"]"#, Problem::Follows),
        (r#""nixpkgs": []"#, Problem::NoRevision),
        (r#""nixpkgs": "gone""#, Problem::Shape("an input leads to a node that is not there")),
        (r#""nixpkgs": 1"#, Problem::Shape("a node has another form than Nix gives it")),
        (r#""x": "n""#, Problem::NoInput(["empty", "f", "g", "x"].map(str::to_owned).to_vec())),
    ] {
        assert_eq!(found(&lock(7, inputs, node)), Err(problem), "{inputs}");
    }
    for version in [0, 4, 8] {
        let problem = Problem::Version(Kind::Flake, version.to_string());
        assert_eq!(found(&lock(version, r#""nixpkgs": "n""#, node)), Err(problem));
    }
    assert_eq!(found(r#"{"inputs": {}, "version": 3}"#), Err(Problem::Version(Kind::Flake, "3".into())));
}

#[test]
fn flake_lock_states_a_channel_in_many_ways() {
    for (node, revision, channel) in [
        (r#""locked": {"rev": "REV"}, "original": {"type": "github"}"#, REV, None),
        (
            r#""locked": {"rev": "REV"}, "original": {"type": "indirect", "id": "nixpkgs", "ref": "nixos-26.05"}"#,
            REV,
            Some("nixos-26.05"),
        ),
        (
            r#""locked": {"rev": "REV"}, "original": {"type": "git", "ref": "refs/heads/nixos-25.11", "url": "https://x"}"#,
            REV,
            Some("nixos-25.11"),
        ),
        (
            r#""locked": {"rev": "REV"}, "original": {"ref": "my-fork", "url": "https://channels.nixos.org/nixos-25.11/x"}"#,
            REV,
            None,
        ),
        (
            r#""locked": {"rev": "REV", "url": "https://releases.nixos.org/nixos/25.11/nixos-25.11.1.aaaaaaaaaaaa/x"}, "original": {"url": "https://channels.nixos.org/nixos-25.11/nixexprs.tar.xz"}"#,
            REV,
            Some("nixos-25.11"),
        ),
        (
            r#""locked": {"url": "https://releases.nixos.org/nixos/25.11/nixos-25.11.1.aaaaaaaaaaaa/x"}, "original": {"url": "https://nixos.org/channels/nixos-25.11"}"#,
            "aaaaaaaaaaaa",
            Some("nixos-25.11"),
        ),
        (
            r#""locked": {"url": "https://x/y.tar.gz?lastModified=1&rev=REV"}, "original": {"url": "https://flakehub.com/f/NixOS/nixpkgs/0.1"}"#,
            REV,
            Some("nixos-unstable"),
        ),
        (
            r#""locked": {"url": "https://api.flakehub.com/f/pinned/NixOS/nixpkgs/0.2505.811740%2Brev-REV/x/source.tar.gz"}, "original": {"url": "https://flakehub.com/f/NixOS/nixpkgs/%2A"}"#,
            REV,
            Some("nixos-25.05"),
        ),
        (
            r#""locked": {"type": "path", "path": "/nix/store/x-source", "rev": "REV"}, "original": {"id": "nixpkgs"}"#,
            REV,
            None,
        ),
        (r#""info": {"narHash": "x"}, "locked": {}, "original": {"rev": "REV"}"#, REV, None),
    ] {
        pinned(Kind::Flake, &lock(7, r#""nixpkgs": "n""#, node), revision, channel);
    }
}

/// Whether the input may be nixpkgs, and the commit that a base image has.
fn followed(source: &str, name: &str) -> (Origin, Option<String>) {
    let source = source.replace("REV", REV).replace("OTHER", OTHER);
    let pin = read(source.as_bytes(), name).unwrap();
    (pin.origin, pin.upstream.map(|pin| pin.revision.digits().to_owned()))
}

#[test]
fn a_pin_tells_which_repository_it_is_of() {
    let mirror = |name: &str| Origin::Mirror(name.to_owned());
    let other = |name: &str| Origin::Other(name.to_owned());
    for (node, expected) in [
        (r#""locked": {"type": "github", "owner": "nixos", "repo": "nixpkgs", "rev": "REV"}"#, Origin::Nixpkgs),
        (r#""locked": {"type": "github", "owner": "NixOS", "repo": "nix", "rev": "REV"}"#, other("github:NixOS/nix")),
        (
            r#""locked": {"type": "gitlab", "owner": "a", "repo": "nixpkgs", "rev": "REV"}, "original": {"type": "indirect", "id": "nixpkgs"}"#,
            mirror("gitlab:a/nixpkgs"),
        ),
        (
            r#""locked": {"type": "github", "owner": "nix-community", "repo": "nixpkgs.lib", "rev": "REV"}"#,
            other("github:nix-community/nixpkgs.lib"),
        ),
        (r#""locked": {"type": "git", "url": "https://github.com/NixOS/nixpkgs.git", "rev": "REV"}"#, Origin::Nixpkgs),
        (r#""locked": {"type": "git", "url": "ssh://git@example.com/a/b", "rev": "REV"}"#, other("example.com/a/b")),
        (
            r#""locked": {"type": "path", "path": "/nix/store/x-source", "rev": "REV"}, "original": {"type": "indirect", "id": "nixpkgs"}"#,
            Origin::Nixpkgs,
        ),
        (
            r#""locked": {"type": "path", "path": "/nix/store/x-source", "rev": "REV"}, "original": {"type": "indirect", "id": "home-manager"}"#,
            other("flake:home-manager"),
        ),
        (
            r#""locked": {"type": "path", "path": "/home/me/nixpkgs", "rev": "REV"}, "original": {"type": "path", "path": "/home/me/nixpkgs"}"#,
            mirror("path:home/me/nixpkgs"),
        ),
        (r#""locked": {"rev": "REV"}"#, Origin::Unknown),
        (
            r#""info": {}, "locked": {"rev": "REV"}, "original": {"type": "github", "owner": "a", "repo": "b"}"#,
            other("github:a/b"),
        ),
        (
            r#""locked": {"type": "tarball", "url": "https://api.flakehub.com/f/pinned/DeterminateSystems/secure-packages-25.11/0.1.9%2Brev-REV/x/source.tar.gz"}"#,
            other("flakehub:DeterminateSystems/secure-packages-25.11"),
        ),
    ] {
        assert_eq!(followed(&lock(7, r#""nixpkgs": "n""#, node), "nixpkgs"), (expected, None), "{node}");
    }
    for (entry, expected) in [
        (r#""owner": "NixOS", "repo": "nixpkgs", "url": "https://x/y""#, Origin::Nixpkgs),
        (r#""owner": "NixOS", "repo": "nixpkgs-channels""#, Origin::Nixpkgs),
        (r#""owner": "a", "repo": "b""#, other("github:a/b")),
        (r#""repo": "https://u:SECRET@host/nixpkgs", "type": "git""#, mirror("host/nixpkgs")),
        (r#""url": "https://u:SECRET@host/a/b/archive/REV.tar.gz?t=SECRET""#, other("host/a/b")),
        (r#""type": "tarball""#, Origin::Unknown),
    ] {
        let source = format!(r#"{{"nixpkgs": {{"rev": "REV", {entry}}}}}"#);
        assert_eq!(followed(&source, "nixpkgs"), (expected, None), "{entry}");
    }
    for (pin, expected) in [
        (r#""type": "Git", "repository": {"type": "GitHub", "owner": "NixOS", "repo": "nixpkgs"}"#, Origin::Nixpkgs),
        (r#""type": "GitHub", "owner": "NixOS", "repository": "nixpkgs""#, Origin::Nixpkgs),
        (
            r#""type": "Git", "repository": {"type": "GitLab", "repo_path": "a/b/nixpkgs", "server": "https://gitlab.com/", "private_token": "SECRET"}"#,
            mirror("gitlab:a/b/nixpkgs"),
        ),
        (
            r#""type": "Git", "repository": {"type": "Forgejo", "server": "https://codeberg.org/", "owner": "a", "repo": "b"}"#,
            other("codeberg.org/a/b"),
        ),
        (r#""type": "Git", "repository": {"type": "Git", "url": "https://host/x.git"}"#, other("host/x")),
        (r#""type": "Url", "url": "https://github.com/NixOS/nixpkgs/archive/REV.tar.gz""#, Origin::Nixpkgs),
        (r#""type": "Channel", "name": "nixos-25.11""#, Origin::Nixpkgs),
    ] {
        let source = format!(r#"{{"pins": {{"nixpkgs": {{"revision": "REV", {pin}}}}}, "version": 5}}"#);
        assert_eq!(followed(&source, "nixpkgs"), (expected, None), "{pin}");
    }
    let expression = "fetchTarball \"https://github.com/me/nixpkgs/archive/REV.tar.gz\"";
    assert_eq!(followed(expression, "nixpkgs"), (mirror("github:me/nixpkgs"), None));
}

#[test]
fn a_flake_that_patches_nixpkgs_has_it_as_an_input() {
    let fork = |upstream: &str| {
        format!(
            r#"{{"nodes": {{"nixpkgs": {{"inputs": {{{upstream}}}, "locked": {{"type": "github", "owner": "cachix", "repo": "devenv-nixpkgs", "rev": "REV"}}}},
            "s": {{"locked": {{"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "OTHER"}}, "original": {{"ref": "nixpkgs-unstable"}}}},
            "h": {{"locked": {{"type": "github", "owner": "a", "repo": "home-manager", "rev": "OTHER"}}}},
            "root": {{"inputs": {{"nixpkgs": "nixpkgs", "h": "h", "direct": "s"}}}}}}, "root": "root", "version": 7}}"#
        )
    };
    let name = || Origin::Other("github:cachix/devenv-nixpkgs".to_owned());
    for (upstream, expected) in [
        (r#""nixpkgs-src": "s""#, Some(OTHER.to_owned())),
        (r#""nixpkgs-src": ["direct"]"#, Some(OTHER.to_owned())),
        (r#""nixpkgs-src": "h""#, None),
        (r#""nixpkgs-src": "gone""#, None),
        (r#""nixpkgs-src": ["nixpkgs", "nixpkgs-src"]"#, None),
        (r#""nixpkgs": "s""#, None),
    ] {
        assert_eq!(followed(&fork(upstream), "nixpkgs"), (name(), expected.clone()), "{upstream}");
        let inputs = of_nixpkgs(fork(upstream).replace("REV", REV).replace("OTHER", OTHER).as_bytes());
        let names: &[&str] = if expected.is_some() { &["direct", "nixpkgs"] } else { &["direct"] };
        assert_eq!(inputs, names, "{upstream}");
    }
    assert_eq!(of_nixpkgs(b"{"), [""; 0]);
}

#[test]
fn files_of_other_tools_and_of_nix_are_named() {
    for (source, problem) in [
        (r#"{"lockfile_version": "1", "packages": {}}"#, "it is a `devbox.lock` of Devbox; "),
        (r#"{"version": "1", "sources": {}}"#, "it is a `lon.lock` of lon; "),
        (r#"{"owner": "NixOS", "repo": "nixpkgs", "rev": "REV"}"#, "it is a single source, "),
        (r#"{"a": {"src": {}, "version": "REV"}}"#, "it is a `generated.json` of nvfetcher; "),
        ("{ inputs.nixpkgs.url = \"x\"; }", "it has no literal URL "),
        ("{ pkgs ? import <nixpkgs> { } }: pkgs", "it has no literal URL "),
        ("{ }: { }", "it has no literal URL "),
        ("{ \"a\" = 1; }", "it has no literal URL "),
        ("{ \"a\".b = 1; }", "it has no literal URL "),
        ("{ ... }: builtins.getFlake \"github:NixOS/nixpkgs/REV\"", "it fetches nixpkgs by `getFlake`; "),
        ("{ \"a\": 1, }", "it is not valid JSON at line 1, column 11"),
        ("{ \"a", "it is not valid JSON at line 1, column 4"),
    ] {
        let said = read(source.replace("REV", REV).as_bytes(), "nixpkgs").unwrap_err().to_string();
        assert!(said.starts_with(problem), "{source}: {said}");
    }
}

#[test]
fn what_is_broken_is_named_by_its_place_only() {
    for (source, problem) in [
        ("{\"nixpkgs\": {\n \"private_token\": SECRET}}", "it is not valid JSON at line 2, column 19"),
        ("{", "it is not valid JSON at line 1, column 1"),
        ("[1]", "it has no literal URL `…/nixpkgs/archive/<40 hexadecimal digits>`"),
        ("", "it has no literal URL `…/nixpkgs/archive/<40 hexadecimal digits>`"),
        (r#"{"pins": {"nixpkgs": {"type": "Git", "revision": "SECRET"}}, "version": 5}"#, "the input names no commit"),
        (r#"{"pins": {"nixpkgs": "SECRET"}, "version": 5}"#, "the pin is not an object"),
        (r#"{"nodes": "SECRET", "root": "r", "version": 7}"#, "`nodes` is not an object"),
        (r#"{"nodes": {}, "root": {"a": "SECRET"}, "version": 7}"#, "`root` is not a string"),
        (
            r#"{"nodes": {"r": {"inputs": "SECRET"}}, "root": "r", "version": 7}"#,
            "a node has another form than Nix gives it",
        ),
    ] {
        let said = read(source.as_bytes(), "nixpkgs").unwrap_err().to_string();
        assert_eq!(said, problem, "{source}");
        assert!(!said.contains("SECRET"), "{said}");
    }
}

#[test]
fn pins_agree_where_neither_says_otherwise() {
    let pin = |revision: &str, channel: Option<&str>| Pin {
        kind: Kind::Niv,
        revision: Revision::read(revision).unwrap(),
        channel: channel.map(|channel| channel.parse().unwrap()),
        release: None,
        nar_hash: None,
        origin: Origin::Unknown,
        upstream: None,
    };
    for (own, other, agree) in [
        (pin(REV, None), pin(REV, Some("nixos-25.11")), true),
        (pin(&REV[..12], None), pin(REV, None), true),
        (pin(REV, Some("nixos-25.11")), pin(&REV[..12], Some("nixos-25.11")), true),
        (pin(REV, Some("nixos-25.11")), pin(REV, Some("nixos-25.05")), false),
        (pin(REV, None), pin(OTHER, None), false),
        (pin(&OTHER[..12], None), pin(REV, None), false),
    ] {
        assert_eq!((own.agrees_with(&other), other.agrees_with(&own)), (agree, agree), "{own:?} {other:?}");
    }
}

/// The files beside this repository's tests, in the form that `tests/corpus/run` takes.
#[test]
fn each_fixture_gives_what_its_table_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pins");
    let table = std::fs::read_to_string(folder.join("EXPECTED.tsv")).unwrap();
    let mut checked = 0;
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let pin = read(&std::fs::read(folder.join(cells[1])).unwrap(), "nixpkgs").unwrap();
        let channel = pin.channel.as_ref().map_or("", Channel::as_str);
        assert_eq!((pin.revision.digits(), channel), (cells[2], cells[3]), "{row}");
        checked += 1;
    }
    assert_eq!(checked, 7);
}
