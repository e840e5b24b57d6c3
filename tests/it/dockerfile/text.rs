//! Names of base images in files that are not Dockerfiles.

use nixkit::dockerfile::Occurrence;
use nixkit::dockerfile::reference::ImagePrefix;
use nixkit::dockerfile::text::{Syntax, Unclear, read};

const REF: &str = "niteo/nixpkgs-nixos-25.11:0000000000000000000000000000000000000000";

/// The references in `text`, in which `REF` is one, or the line and the name that cannot be read.
fn found(text: &str, syntax: Syntax) -> Result<Vec<String>, (usize, String)> {
    let image = ImagePrefix::parse("niteo/nixpkgs-").unwrap();
    match read(text.replace("REF", REF).as_bytes(), &image, syntax) {
        Ok(found) => Ok(found.iter().map(|image| image.reference().replace(REF, "REF")).collect()),
        Err(Unclear { line, name }) => Err((line, name.replace(REF, "REF"))),
    }
}

#[test]
fn a_reference_is_found_whatever_is_around_it() {
    for (text, expected) in [
        // YAML, TOML and HCL.
        ("image: REF", &["REF"][..]),
        ("{image: REF}", &["REF"]),
        ("{image: REF,}", &["REF"]),
        ("images: [REF]", &["REF"]),
        ("images: [REF,REF]", &["REF", "REF"]),
        ("- REF\r\n- \"REF\"\r\n- 'REF'", &["REF", "REF", "REF"]),
        ("image: ${BASE:-REF}", &["REF"]),
        ("image: ${BASE-REF}", &["REF"]),
        ("image: ${BASE:=REF}", &["REF"]),
        ("image: ${BASE:+REF}", &["REF"]),
        ("image: ${BASE:-ghcr.io/REF}", &["ghcr.io/REF"]),
        ("image: ${BASE-ghcr.io:443/REF}", &["ghcr.io:443/REF"]),
        ("a=REF", &["REF"]),
        ("a = { b = \"REF\" }", &["REF"]),
        ("image:REF", &["REF"]),
        // Scripts.
        ("BASE=REF", &["REF"]),
        ("docker pull REF; docker run REF", &["REF", "REF"]),
        ("docker pull REF;docker run REF&&x REF&", &["REF", "REF", "REF"]),
        ("(docker pull REF)", &["REF"]),
        ("x=$(docker pull REF)", &["REF"]),
        ("x=`docker pull REF`", &["REF"]),
        ("docker save REF|gzip >REF", &["REF", "REF"]),
        ("docker run REF>out <REF", &["REF", "REF"]),
        ("docker run --image=REF \\\n  REF\\\n", &["REF", "REF"]),
        // Schemes.
        ("docker://REF", &["REF"]),
        ("docker-image://REF", &["REF"]),
        ("oci://REF containers-storage:REF docker-daemon:REF", &["REF", "REF", "REF"]),
        ("docker://ghcr.io/REF", &["ghcr.io/REF"]),
        ("ostree-unverified-registry:docker://quay.io/REF", &["quay.io/REF"]),
        // Markup and prose.
        ("<image>REF</image>", &["REF"]),
        ("| REF|REF |", &["REF", "REF"]),
        ("`REF`, **REF** (REF) \"REF\". Use REF. REF: that. REF!", &["REF"; 7]),
        ("[REF](x) <REF>", &["REF", "REF"]),
        // JSON in which quotes, slashes and line ends are escaped.
        ("\"run\": \"docker pull \\\"REF\\\"\\nREF\\n\"", &["REF", "REF"]),
        ("a\\tREF", &["REF"]),
        ("url?image=x%3AREF", &["REF"]),
        // Registries.
        (
            "ghcr.io/REF localhost/REF host:5000/REF [::1]:5000/REF",
            &["ghcr.io/REF", "localhost/REF", "host:5000/REF", "[::1]:5000/REF"],
        ),
        ("${REGISTRY}/REF $REGISTRY/REF", &["${REGISTRY}/REF", "$REGISTRY/REF"]),
        ("{{ registry }}/REF \"$REG\"/REF %REG%/REF", &["REF", "REF", "REF"]),
        // Tags and digests of other forms.
        ("niteo/nixpkgs-nixos-25.11:latest", &["niteo/nixpkgs-nixos-25.11:latest"]),
        ("REF@sha256:0123 niteo/nixpkgs-x@sha256:0123", &["REF@sha256:0123", "niteo/nixpkgs-x@sha256:0123"]),
        (
            "niteo/nixpkgs-$C:${T:-x} niteo/nixpkgs-x:$(cat rev)",
            &["niteo/nixpkgs-$C:${T:-x}", "niteo/nixpkgs-x:$(cat rev)"],
        ),
        // Others' images, links and paths.
        ("xREF other/REF a-REF a_REF a.REF ghcr.io/other/REF", &[]),
        ("https://hub.docker.com/r/REF https://github.com/niteo/nixpkgs-x http://ghcr.io/REF", &[]),
        ("cd /srv/niteo/nixpkgs-x /niteo/nixpkgs-x ./niteo/nixpkgs-x", &[]),
        ("niteo/nixpkgs niteo/other niteo/nixpkgs-x/y:1 niteo/nixpkgs-x/y", &[]),
        // Comments.
        ("a # REF", &[]),
        ("# niteo/nixpkgs-{{x}}\na: REF # REF", &["REF"]),
        ("a#REF", &["REF"]),
        ("'#' REF", &["REF"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(found(text, Syntax::Hash), Ok(expected), "{text}");
    }
}

#[test]
fn a_name_that_cannot_be_read_is_refused() {
    for (text, line, name) in [
        ("a\nimage: niteo/nixpkgs-nixos-25.11", 2, "niteo/nixpkgs-nixos-25.11"),
        ("repository: niteo/nixpkgs-nixos-25.11\ntag: x", 1, "niteo/nixpkgs-nixos-25.11"),
        ("image: niteo/nixpkgs-{{ channel }}:x", 1, "niteo/nixpkgs-{{"),
        ("image: niteo/nixpkgs-nixos-25.11:{{ tag }}", 1, "niteo/nixpkgs-nixos-25.11:{{"),
        ("image: REF{{ suffix }}", 1, "REF{{"),
        ("image: niteo/nixpkgs-nixos-25.11:%TAG%", 1, "niteo/nixpkgs-nixos-25.11:%TAG%"),
        ("image: niteo/nixpkgs-nixos-25.11:<commit>", 1, "niteo/nixpkgs-nixos-25.11:<commit>"),
        ("image: niteo/nixpkgs-nixos-25.11:", 1, "niteo/nixpkgs-nixos-25.11:"),
        ("image: niteo/nixpkgs-nixos-25.11@", 1, "niteo/nixpkgs-nixos-25.11@"),
        ("image: niteo/nixpkgs-Nixos:x", 1, "niteo/nixpkgs-Nixos:x"),
        ("case $i in niteo/nixpkgs-*) ;; esac", 1, "niteo/nixpkgs-*)"),
        ("\n\n\"niteo\\/nixpkgs-nixos-25.11:x\"", 3, "niteo\\/nixpkgs-nixos-25.11:x"),
        ("x?image=niteo%2Fnixpkgs-nixos-25.11", 1, "niteo%2Fnixpkgs-nixos-25.11"),
        ("REF\nREF\nniteo/nixpkgs-x", 3, "niteo/nixpkgs-x"),
    ] {
        assert_eq!(found(text, Syntax::Hash), Err((line, name.to_owned())), "{text}");
    }
    let long = format!("niteo/nixpkgs-x:{}", "a".repeat(129));
    assert_eq!(found(&long, Syntax::Hash), Err((1, long[..80].to_owned())));
    // A document may speak about the image.
    let prose = "`niteo/nixpkgs-` and niteo/nixpkgs-<channel>:<commit>, niteo/nixpkgs-nixos-25.11, but REF.";
    assert_eq!(found(prose, Syntax::Prose), Ok(vec!["REF".to_owned()]));
    assert!(found(prose, Syntax::Markup).is_err());
}

#[test]
fn comments_are_those_of_the_syntax() {
    for (text, syntax, count) in [
        ("// REF\n{ // REF\n\"a\": \"REF\" } // REF", Syntax::Slashes, 1),
        ("/* REF\n REF */ REF /* REF */ REF", Syntax::Slashes, 2),
        ("\"docker://REF\" \"// REF\" '/* REF' REF", Syntax::Slashes, 4),
        ("\"\\\"// \" + REF // REF", Syntax::Slashes, 1),
        ("# REF", Syntax::Slashes, 1),
        // A pattern for names of files, and a comment without an end.
        ("cp a/* b\nREF */", Syntax::Slashes, 1),
        ("/* REF", Syntax::Slashes, 1),
        ("REF /* REF */\n/* x", Syntax::Slashes, 1),
        ("# REF\n// REF\n/* REF */ REF", Syntax::Both, 1),
        ("// REF\n/* REF */", Syntax::Hash, 2),
        ("<!-- REF\nREF --> REF <!-- REF --> REF", Syntax::Markup, 2),
        ("# REF\n<!-- REF", Syntax::Prose, 2),
        ("don't # REF", Syntax::Hash, 0),
        ("don't # 'REF'", Syntax::Hash, 1),
    ] {
        assert_eq!(found(text, syntax).map(|found| found.len()), Ok(count), "{text}");
    }
}

#[test]
fn a_prefix_without_a_channel_is_a_whole_name() {
    let image = ImagePrefix::parse("me/n").unwrap();
    let found = read(b"me/n:1 (me/n:2) me/n-x:1 me/nn:1 me/n/x:1 xme/n:1", &image, Syntax::Hash).unwrap();
    assert_eq!(found.iter().map(Occurrence::reference).collect::<Vec<_>>(), ["me/n:1", "me/n:2"]);
    assert!(read(b"me/n", &image, Syntax::Hash).is_err());
}

#[test]
fn a_registry_of_the_prefix_must_be_there() {
    let image = ImagePrefix::parse("ghcr.io/me/n-").unwrap();
    for (text, expected) in [
        ("ghcr.io/me/n-x:1 docker://ghcr.io/me/n-x:1 a=ghcr.io/me/n-x:1", 3),
        ("${B:-ghcr.io/me/n-x:1}", 1),
        ("me/n-x:1 quay.io/me/n-x:1 xghcr.io/me/n-x:1 https://ghcr.io/me/n-x:1", 0),
    ] {
        let found = read(text.as_bytes(), &image, Syntax::Hash).unwrap();
        assert_eq!(found.iter().filter(|image| image.reference() == "ghcr.io/me/n-x:1").count(), expected, "{text}");
        assert_eq!(found.len(), expected, "{text}");
    }
    assert!(read(b"ghcr.io/me/n-x", &image, Syntax::Hash).is_err());
}
