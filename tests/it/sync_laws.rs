//! Laws of reading and rewriting: on generated Dockerfiles, on mutated ones, and on ones made to be slow.

use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nixkit::dockerfile::reference::ImagePrefix;
use nixkit::dockerfile::rewrite::{DigestRule, Judgement, Kind, Refusal, Revision, Syntax, Wanted, judge};
use nixkit::dockerfile::{images, scanner};
use proptest::prelude::*;

const OLD: &str = "0000000000000000000000000000000000000000";
const NEW: &str = "1111111111111111111111111111111111111111";
const IMAGE: &str = "niteo/nixpkgs-";
const TEXT: Kind = Kind::Text(Syntax::Hash);

fn judged(source: &[u8], kind: Kind) -> Result<Judgement, Refusal> {
    let image = ImagePrefix::parse(IMAGE).unwrap();
    let wanted = Wanted {
        image: &image,
        channel: Some("nixos-25.11"),
        channel_is_told: true,
        revision: &Revision::Full(NEW.parse().unwrap()),
        stage: None,
        convert: false,
        digest: &DigestRule::Drop,
    };
    judge(source, kind, &wanted)
}

/// Pieces that Dockerfiles are made of, and some that only a fuzzer makes.
const PIECES: &[&str] = &[
    "FROM ",
    "from ",
    "niteo/nixpkgs-nixos-25.11:",
    "niteo/nixpkgs-nixos-24.05:",
    "ghcr.io/",
    OLD,
    NEW,
    "@sha256:00",
    "alpine:3",
    " AS ",
    "build",
    "scratch",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\\\n",
    " \\ \n",
    "`\n",
    "# c\n",
    " # c\\\n",
    "\n\n",
    "#escape=`\n",
    "ARG ",
    "REV=",
    "IMAGE=",
    "$REV",
    "${REV}",
    "${IMAGE:-",
    "${REV#*",
    "${REV%%",
    "${REV/",
    "}",
    "/",
    "RUN ",
    "COPY ",
    "--from=",
    "--mount=",
    "type=bind,from=",
    ",",
    "<<EOF",
    "<<-'E F'",
    "EOF\n",
    "E F\n",
    "\tE F\n",
    "ONBUILD ",
    "CMD ",
    "[\"a\"]",
    "[1]",
    "\"",
    "'",
    " ",
    "\t",
    "\u{feff}",
    "\u{a0}",
    "\u{e9}",
    "=",
    "x",
    "ENV a=b\n",
    "LABEL x\n",
    "--platform=$P ",
    "*",
    "?",
    "\\",
    "$",
];

fn dockerfiles() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        // What people write, so that most files have something to change.
        4 => (any::<bool>(), 0..3_usize).prop_map(|(quoted, ends)| {
            let quote = if quoted { "\"" } else { "" };
            let end = ["\n", " AS a\n", "\r\n"][ends];
            format!("\nFROM {quote}niteo/nixpkgs-nixos-24.05:{OLD}{quote}{end}").into_bytes()
        }),
        2 => Just(format!("\nARG REV={OLD}\nFROM niteo/nixpkgs-nixos-25.11:${{REV}}\n").into_bytes()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    (any::<bool>(), proptest::collection::vec(piece, 0..24)).prop_map(|(begins, pieces)| {
        let first: &[u8] = if begins { b"FROM niteo/nixpkgs-nixos-25.11\n" } else { b"" };
        [first, &pieces.concat()].concat()
    })
}

/// All bytes of `old` that no change covers, and in their places the new ones.
fn with_edits(old: &[u8], judgement: &Judgement) -> Vec<u8> {
    let mut edits: Vec<_> = judgement.changes.iter().flat_map(|change| &change.edits).collect();
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    edits.dedup();
    let mut new = Vec::new();
    let mut at = 0;
    for edit in edits {
        new.extend_from_slice(&old[at..edit.range.start]);
        new.extend_from_slice(edit.text.as_bytes());
        at = edit.range.end;
    }
    new.extend_from_slice(&old[at..]);
    new
}

fn holds(source: &[u8], kind: Kind) -> Result<(), TestCaseError> {
    match judged(source, kind) {
        Err(_) => {}
        Ok(judgement) => {
            // Bytes outside of the edits stay; an edit lies within a line.
            let text = judgement.text.as_deref().unwrap_or(source);
            prop_assert_eq!(judgement.text.is_some(), !judgement.changes.is_empty());
            prop_assert_eq!(&with_edits(source, &judgement), text);
            for edit in judgement.changes.iter().flat_map(|change| &change.edits) {
                let replaced = &source[edit.range.clone()];
                prop_assert!(!replaced.contains(&b'\n'), "replaced {:?}", String::from_utf8_lossy(replaced));
            }
            // Twice is once, and then everything is in step.
            let again = judged(text, kind).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
            prop_assert!(again.changes.is_empty());
            prop_assert_eq!(again.text, None);
            prop_assert_eq!(again.in_step.len() >= judgement.changes.len(), true);
            // Whoever reads the file again finds no old image, and the same stages.
            if kind == Kind::Dockerfile {
                let before = images::read(source).unwrap();
                let after = images::read(text).unwrap();
                prop_assert_eq!(before.stages, after.stages);
                for (old, new) in before.occurrences.iter().zip(&after.occurrences) {
                    let is_base = new.reference().ends_with(&format!("{IMAGE}nixos-25.11:{NEW}"));
                    prop_assert!(
                        is_base || old.reference() == new.reference(),
                        "{} {}",
                        old.reference(),
                        new.reference()
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rewriting_keeps_its_laws(source in dockerfiles()) {
        holds(&source, Kind::Dockerfile)?;
        holds(&source, TEXT)?;
    }

    #[test]
    fn a_file_without_a_base_image_is_refused_untouched(source in dockerfiles()) {
        let text = String::from_utf8_lossy(&source).replace("nixpkgs-", "else-");
        for kind in [Kind::Dockerfile, TEXT] {
            prop_assert!(judged(text.as_bytes(), kind).is_err());
        }
    }

    #[test]
    fn the_pieces_of_an_instruction_lie_where_they_say(source in dockerfiles()) {
        let Ok(script) = scanner::scan(&source) else { return Ok(()) };
        let mut line = 0;
        for instruction in &script.instructions {
            prop_assert!(instruction.lines.0 > line && instruction.lines.1 >= instruction.lines.0);
            line = instruction.lines.1;
            let text = &instruction.line.text;
            for at in 0..text.len() {
                prop_assert_eq!(source[instruction.line.place(at)], text[at]);
            }
        }
        for image in images::of(&script, &source).occurrences {
            prop_assert!(image.span.end <= source.len());
            prop_assert_eq!(source[..image.span.start].split(|&byte| byte == b'\n').count(), image.line);
        }
    }
}

/// Numbers that are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }
}

/// `seed` with a few bytes removed, repeated, replaced, or pieces put in.
fn mutated(seed: &[u8], random: &mut Random, pieces: &[&str]) -> Vec<u8> {
    let mut text = seed.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(text.len() + 1);
        let end = (at + random.below(12)).min(text.len());
        match random.below(5) {
            0 => drop(text.drain(at..end)),
            1 => {
                let again = text[at..end].to_vec();
                text.splice(at..at, again);
            }
            2 if at < text.len() => text[at] = u8::try_from(random.below(256)).unwrap(),
            _ => drop(text.splice(at..at, pieces[random.below(pieces.len())].bytes())),
        }
    }
    text
}

/// All files below `folder` whose name ends so.
fn seeds(folder: &str, ends: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| ends.iter().any(|end| entry.file_name().to_string_lossy().ends_with(end)));
    files.map(|entry| std::fs::read(entry.path()).unwrap()).collect()
}

#[test]
fn no_mutated_dockerfile_brings_it_down() {
    let seeds = seeds("tests/fixtures/sync", &["Dockerfile", "Containerfile", ".yaml", ".yml"]);
    assert!(seeds.len() > 80);
    let mut random = Random(0x6e69_786b_6974);
    let (mut judgements, mut refusals) = (0, 0);
    for round in 0..20_000 {
        let text = mutated(&seeds[round % seeds.len()], &mut random, PIECES);
        for kind in [Kind::Dockerfile, TEXT] {
            match holds(&text, kind) {
                Ok(()) => {}
                Err(failed) => panic!("{failed}\n{:?}", String::from_utf8_lossy(&text)),
            }
        }
        if judged(&text, Kind::Dockerfile).is_ok() { judgements += 1 } else { refusals += 1 }
    }
    assert!(judgements > 1000 && refusals > 1000, "{judgements} judged, {refusals} refused");
}

#[test]
fn no_mutated_pin_file_brings_it_down() {
    let mut seeds = seeds("tests/fixtures/pins", &[".json", ".lock", ".nix"]);
    assert!(seeds.len() >= 6, "only {} pin files", seeds.len());
    seeds.push(
        b"{ pkgs ? import (fetchTarball \"https://github.com/NixOS/nixpkgs/archive/x\") { } }: ''a'' /* */ # x"
            .to_vec(),
    );
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "null",
        "1",
        "\"nixpkgs\"",
        "\"root\"",
        "[\"nixpkgs\"]",
        "\"version\": 5",
        "\\u0000",
        "''",
        "/*",
        "#",
    ];
    let mut random = Random(0x7069_6e73);
    let (mut found, mut failed) = (0, 0);
    for round in 0..20_000 {
        let text = mutated(&seeds[round % seeds.len()], &mut random, &pieces);
        match nixkit::pins::read(&text, "nixpkgs") {
            Ok(pin) => {
                found += 1;
                assert_eq!(Revision::read(pin.revision.digits()), Some(pin.revision));
            }
            Err(_) => failed += 1,
        }
    }
    assert!(found > 1000 && failed > 1000, "{found} read, {failed} failed");
}

/// Text that repeats to this size would take minutes if anything were quadratic.
const LARGE: usize = 256 << 10;
/// Of the processor, for a debug build, which needs about one second; the quadratic way took half a minute and more.
const SLOWEST: Duration = Duration::from_secs(12);

/// What this thread has used of the processor, however busy the machine is.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = usage.user_time();
    Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
}

#[test]
fn time_is_linear_in_the_size_of_a_dockerfile() {
    let repeated = |first: &str, piece: &str| {
        let mut text = first.to_owned();
        while text.len() < LARGE {
            text.push_str(piece);
        }
        text
    };
    let long = "x".repeat(1000);
    for (first, piece) in [
        ("FROM a\n", "FROM niteo/nixpkgs-nixos-25.11:0\n"),
        ("FROM a\n", "RUN <<E\nE\n"),
        ("FROM a\nRUN ", "<<E \\\n"),
        ("FROM a\nRUN ", "${a:-\\\n"),
        ("FROM a\nRUN <<E ", "'\"\\\n"),
        ("FROM a\nRUN <<", "$a${b}\\\n"),
        ("FROM a\n", "ONBUILD \\\n"),
        ("FROM a\nCOPY ", "--from=niteo/nixpkgs-nixos-25.11:0 \\\n"),
        ("FROM a\nCOPY ", "--from=\"a b\\\n"),
        ("FROM a\nRUN --mount=", "from=a,\\\n"),
        ("FROM a\n", "\\\n"),
        ("FROM a\nRUN a \\\n", "# c\n"),
        ("FROM a\nRUN a \\\n", "\n"),
        ("", "#\n"),
        ("", " \u{a0}\u{2003}\n"),
        ("ARG A=b\n", "ARG A=$A$A\n"),
        (&format!("ARG A={long}\n"), "FROM $A\n"),
        (&format!("ARG A={long}\n"), "FROM ${A#*x*x*x*x*y}\n"),
        (&format!("ARG A={}\n", &long[..250]), "FROM ${A//x*y/z}\n"),
        (&format!("ARG A={}\n", &long[..250]), "FROM ${A//x/yy}\n"),
        ("FROM a\nENV ", "a=b\\ 'c' \\\n"),
        ("FROM a\nRUN [", "\"a\",\\\n"),
        ("FROM a\nRUN [", "[\\\n"),
        ("FROM niteo/nixpkgs-nixos-25.11:0\n", "COPY --from=a$ b c\n"),
    ] {
        let text = repeated(first, piece);
        let before = used();
        let _ = judged(text.as_bytes(), Kind::Dockerfile);
        let _ = judged(text.as_bytes(), TEXT);
        let took = used().saturating_sub(before);
        assert!(took < SLOWEST, "{first:.40}{piece}: {took:?}");
    }
}

#[test]
fn time_is_linear_in_the_size_of_a_text() {
    let image = "niteo/nixpkgs-nixos-25.11:";
    for piece in [
        format!("{image}{OLD} "),
        format!("{image}${{"),
        format!("/{image}x"),
        format!("${{A:-{image}x"),
        format!("a}}/{image}x "),
        "niteo/nixpkgs-".to_owned(),
        "niteo/nixpkgs-$".to_owned(),
        "//niteo/nixpkgs-x:1".to_owned(),
        "/* ".to_owned(),
        "*/ /*".to_owned(),
        "\"".to_owned(),
        "'\\ ".to_owned(),
        "\\\"".to_owned(),
        format!("{}/{image}x ", "a".repeat(20_000)),
        format!("{}://{image}x ", "a".repeat(20_000)),
        format!("{image}{}", "a".repeat(20_000)),
        "<!-- ".to_owned(),
        "niteo%2Fnixpkgs-".to_owned(),
    ] {
        let text = piece.repeat(LARGE / piece.len());
        for syntax in [Syntax::Hash, Syntax::Both, Syntax::Prose] {
            let before = used();
            let _ = judged(text.as_bytes(), Kind::Text(syntax));
            let took = used().saturating_sub(before);
            assert!(took < SLOWEST, "{piece} {syntax:?}: {took:?}");
        }
    }
}

#[test]
fn time_is_linear_in_the_size_of_a_pin_file() {
    let chain =
        (0..20_000).map(|n| format!("\"n{n}\": {{\"inputs\": {{\"x\": [\"i{n}\"]}}}},")).collect::<Vec<_>>().concat();
    let inputs = (0..20_000).map(|n| format!("\"i{n}\": [\"i{}\"],", n + 1)).collect::<Vec<_>>().concat();
    let circle = format!(
        r#"{{"nodes": {{{chain} "r": {{"inputs": {{{inputs} "nixpkgs": ["i0"], "i20000": ["i0"]}}}}}}, "root": "r", "version": 7}}"#
    );
    let growing =
        r#"{"nodes": {"r": {"inputs": {"nixpkgs": ["nixpkgs", "nixpkgs"]}}}, "root": "r", "version": 7}"#.to_owned();
    for text in [
        circle,
        growing,
        "[".repeat(LARGE),
        "{\"a\":".repeat(LARGE / 5),
        "/".repeat(LARGE),
        "/nixpkgs/archive/".repeat(LARGE / 17),
        "''".repeat(LARGE / 2),
        "/*".repeat(LARGE / 2),
        "\"\\".repeat(LARGE / 2),
    ] {
        let before = used();
        assert!(nixkit::pins::read(text.as_bytes(), "nixpkgs").is_err());
        let took = used().saturating_sub(before);
        assert!(took < SLOWEST, "{text:.40}: {took:?}");
    }
}
