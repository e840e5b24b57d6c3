//! The scanner and the shell lexer, rule by rule: what BuildKit's own parser makes of each text.

mod instructions;
mod text;

use nixkit::dockerfile::chars::from_text;
use nixkit::dockerfile::expand::{LONGEST, Lexer, Problem};
use nixkit::dockerfile::reference::{ImagePrefix, Reference};
use nixkit::dockerfile::scanner::scan;
use nixkit::dockerfile::{Char, Meaning, Place, Reason, images};

/// First line, last line and heredocs of an instruction.
type Extent = (usize, usize, usize);

fn instructions(source: &[u8]) -> Result<Vec<Extent>, (usize, Reason)> {
    let script = scan(source).map_err(|refused| (refused.line, refused.reason))?;
    Ok(script.instructions.iter().map(|found| (found.lines.0, found.lines.1, found.heredocs)).collect())
}

#[test]
fn instructions_begin_and_end_where_buildkit_has_them() {
    for (source, expected) in [
        (&b"FROM a\nRUN b"[..], &[(1, 1, 0), (2, 2, 0)][..]),
        (b"\n\n  # c\nFROM a\n\n", &[(4, 4, 0)]),
        // Continuations: blanks behind the escape character, comments and empty lines between, the file's end.
        (b"RUN a \\\n b\nRUN c", &[(1, 2, 0), (3, 3, 0)]),
        (b"RUN a \\ \t\n# c\\\n\n  # d\n b\nRUN c", &[(1, 5, 0), (6, 6, 0)]),
        (b"RUN a \\", &[(1, 1, 0)]),
        (b"RUN a \\\n# c", &[(1, 2, 0)]),
        (b"RUN a\\\\\nRUN b", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN a\\\\\\\nRUN b", &[(1, 1, 0), (2, 2, 0)]),
        (b"\\\nFROM a", &[(1, 2, 0)]),
        (b"\\\n", &[(1, 1, 0)]),
        (b"RUN a \\\r\n b\r\r\n", &[(1, 2, 0)]),
        (b"RUN a \\\r \nRUN b", &[(1, 1, 0), (2, 2, 0)]),
        // A comment never goes on.
        (b"# a \\\nFROM a", &[(2, 2, 0)]),
        // The escape directive.
        (b"# escape=`\nRUN a `\n b\nRUN c \\\nRUN d", &[(2, 3, 0), (4, 4, 0), (5, 5, 0)]),
        (b"#syntax=x\n# Escape = ` \nRUN a `\n b", &[(3, 4, 0)]),
        (b"\xef\xbb\xbf#escape=`\nRUN a `\n b", &[(2, 3, 0)]),
        (b"# comment\n#escape=`\nRUN a `\nRUN b", &[(3, 3, 0), (4, 4, 0)]),
        (b"\n#escape=`\nRUN a `\nRUN b", &[(3, 3, 0), (4, 4, 0)]),
        (b"# unknown=x\n#escape=`\nRUN a `\nRUN b", &[(3, 3, 0), (4, 4, 0)]),
        // Heredocs.
        (b"RUN <<E\nFROM x\nE\nRUN b", &[(1, 3, 1), (4, 4, 0)]),
        (b"RUN << E\nFROM x\nE\nRUN b", &[(1, 3, 1), (4, 4, 0)]),
        (b"RUN <<- E\nFROM x\n\tE", &[(1, 1, 0), (2, 2, 0), (3, 3, 0)]),
        (b"RUN cat 3<<'A B' > <<\"C\"\nC\nA B\nA B\nC\nRUN b", &[(1, 5, 2), (6, 6, 0)]),
        (b"copy <<-E /x\n E\n\t\tE\r\nRUN b", &[(1, 3, 1), (4, 4, 0)]),
        (b"ADD <<\\E /x\nE\n", &[(1, 2, 1)]),
        (b"ONBUILD RUN <<E\nE\n", &[(1, 2, 1)]),
        (b"RUN <<${A:-b}\n${A:-b}\n", &[(1, 2, 1)]),
        (b"RUN <<E \\\n b\nE\n", &[(1, 3, 1)]),
        (b"RUN (cat <<E)\nE)\n", &[(1, 2, 1)]),
        (b"RUN x ${A:0:3} <<E\nE\n", &[(1, 2, 1)]),
        (b"RUN a <<<E\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN <<A<<B\nA\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN \"<<E\" '<<F' \\<<G $((1<<2))\nE", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN <<\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN <<''\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN it's <<E\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN ${A^^} <<E\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN [\"a\", \"<<E\"]\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"RUN [ a ] <<E\nE\n", &[(1, 2, 1)]),
        (b"ONBUILD ONBUILD RUN <<E\nE\n", &[(1, 1, 0), (2, 2, 0)]),
        (b"CMD <<E\nENTRYPOINT <<F\nE", &[(1, 1, 0), (2, 2, 0), (3, 3, 0)]),
        // White space of Unicode counts at the ends, and is none between words.
        ("\u{a0}\u{3000}RUN a \\\u{a0}\n\u{2003}# c".as_bytes(), &[(1, 1, 0)]),
        (b"RUN \xff \\\n \xe9\nRUN b", &[(1, 2, 0), (3, 3, 0)]),
    ] {
        let shown = String::from_utf8_lossy(source);
        assert_eq!(instructions(source), Ok(expected.to_vec()), "{shown}");
    }
}

#[test]
fn a_file_is_refused_for_what_buildkit_refuses() {
    let long = |length: usize| [b"FROM a\nRUN ".as_slice(), &vec![b'x'; length], b"\nRUN b"].concat();
    for (source, expected) in [
        (b"".to_vec(), (0, Reason::NoInstruction)),
        (b"# only\n\n".to_vec(), (2, Reason::NoInstruction)),
        (b"#escape=x\nFROM a".to_vec(), (1, Reason::EscapeDirective)),
        (b"#escape=``\nFROM a".to_vec(), (1, Reason::EscapeDirective)),
        (b"#syntax=a\n#SYNTAX=b\nFROM a".to_vec(), (2, Reason::DirectiveTwice)),
        (b"FROM a\nRUN <<E\nE \n".to_vec(), (2, Reason::Unterminated)),
        (b"FROM a\nRUN <<E <<F\nF\nE\n".to_vec(), (2, Reason::Unterminated)),
        (b"FROM a\nRUN <<${x:-\"a b\"}\n".to_vec(), (2, Reason::HeredocWord)),
        (b"FROM a\nONBUILD CMD [\"a\", null]".to_vec(), (2, Reason::JsonArray)),
        (b"FROM a\nHEALTHCHECK --x=y CMD [{}]".to_vec(), (2, Reason::JsonArray)),
        (b"FROM a\nENV x".to_vec(), (2, Reason::NoValue)),
        (b"FROM a\nLABEL a=b c".to_vec(), (2, Reason::NoEqualsSign)),
        (long(65_532), (2, Reason::LineTooLong)),
    ] {
        assert_eq!(instructions(&source), Err(expected), "{}", String::from_utf8_lossy(&source));
    }
    assert!(instructions(&long(65_531)).is_ok());
    for fine in ["RUN [1", "RUN [1] x", "CMD []", "ENV a b", "ENV a=b c=d", "ENV a='b c' d=\\ e", "LABEL", "BAD [1]"] {
        assert!(instructions(fine.as_bytes()).is_ok(), "{fine}");
    }
    // With another escape character a blank behind a backslash ends a word.
    assert!(instructions(b"#escape=`\nENV a=C:\\ b").is_err());
    assert!(instructions(b"ENV a=C:\\ b").is_ok());
}

#[test]
fn words_are_expanded_as_buildkits_shell_lexer_does() {
    let variables = [("A", "hello"), ("EMPTY", ""), ("DIR", "a/b/c.tar.gz"), ("\u{e9}", "acute")];
    let values: Vec<(&str, Vec<Char>)> = variables.iter().map(|(name, value)| (*name, from_text(value))).collect();
    let lookup = |name: &str| values.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_slice());
    let expand = |word: &str, escape: char| {
        let word = from_text(word);
        let value = Lexer::with_variables(&word, escape, &lookup).word();
        value.map(|chars| chars.iter().map(|char| char.value).collect::<String>())
    };
    for (word, expected) in [
        ("a", "a"),
        ("'a b' \"c d\"", "a b c d"),
        ("'a\\b$A'", "a\\b$A"),
        ("\"\\\"\\$\\a\\\\\"", "\"$\\a\\"),
        ("\\a\\$A\\", "a$A"),
        ("$A-$A", "hello-hello"),
        ("${A}x$Ax", "hellox"),
        ("$", "$"),
        ("$.", "$."),
        ("$1a$?", "a"),
        ("x${NO}y$NO", "xy"),
        ("$\u{e9}", "acute"),
        ("${NO:-d}${NO-e}", "de"),
        ("${EMPTY:-d}${EMPTY-e}", "d"),
        ("${A:-d}${A-e}", "hellohello"),
        ("${NO:-$A}${NO:-${NO:-\"x y\"}}", "hellox y"),
        ("${A:+d}${A+e}${NO:+f}${EMPTY:+g}${EMPTY+h}", "deh"),
        ("${A:?no}${A?no}${EMPTY?no}", "hellohello"),
        ("${A#h}${A#*l}${A##*l}", "elloloo"),
        ("${A#x}${A%x}", "hellohello"),
        ("${A%o}${A%l*}${A%%l*}", "hellhelhe"),
        ("${A#?}${A%?}", "ellohell"),
        ("${DIR##*/}-${DIR%%.*}-${DIR%.*}", "c.tar.gz-a/b/c-a/b/c.tar"),
        ("${DIR#a\\/}", "b/c.tar.gz"),
        ("${A/l/L}${A//l/L}", "heLloheLLo"),
        ("${A/l*/x}${A//?l/x}", "hexhxlo"),
        ("${DIR//\\//_}", "a_b_c.tar.gz"),
        ("${A/x/y}", "hello"),
        ("a<b<<c", "a<b<<c"),
    ] {
        assert_eq!(expand(word, '\\').as_deref(), Ok(expected), "{word}");
    }
    assert_eq!(expand("a`$A\\b", '`').as_deref(), Ok("a$A\\b"));
    for (word, is_syntax) in [
        ("'a", true),
        ("\"a", true),
        ("${", true),
        ("${}", true),
        ("${:x}", true),
        ("${{x}", true),
        ("${A", true),
        ("${A:-x", true),
        ("${A^^}", true),
        ("${A:0:3}", true),
        ("${A/x}", true),
        ("${A#\\x}", true),
        ("${NO:?}", false),
        ("${EMPTY:?why}", false),
    ] {
        let problem = expand(word, '\\').unwrap_err();
        assert_eq!(matches!(problem, Problem::Syntax(_)), is_syntax, "{word}: {problem:?}");
    }
    assert_eq!(expand(&"x".repeat(LONGEST + 1), '\\'), Err(Problem::TooLong));
    assert_eq!(expand(&"${B:-".repeat(5000), '\\'), Err(Problem::TooDeep));
}

/// Line, place, word in the file, reference, and what it stands for, of each image.
fn named(source: &str) -> Vec<(usize, Place, String, String, Meaning)> {
    let found = images::read(source.as_bytes()).unwrap().occurrences.into_iter();
    found
        .map(|image| (image.line, image.place, source[image.span.clone()].to_owned(), image.reference(), image.meaning))
        .collect()
}

#[test]
fn images_are_named_in_from_copy_and_mount() {
    let source = "ARG A=1 B='x y'\nARG C=img:$A\nONBUILD ARG D\nFROM --platform=$P  \"$C\" as First\nARG A=2\nFROM first\nFROM First\nFROM scratch\n\
        FROM img-$A$D-$TARGETARCH\nCOPY --from=FIRST --link a b\nCOPY --from=1 a b\nCOPY --from=9 a b\nCOPY --from=i:1 a b\nCOPY -- --from=no b\n\
        RUN --network=none --mount=type=bind,from=j:2,target=/x --mount=FROM=k --mount=\"type=x,\\\"from=l,m\\\"\" x\n\
        ONBUILD COPY --from=\"o p\" [\"a\", \"b\"]\nADD --from=no a b\nRUN --mount=type=cache,target=from x\nFROM \\\n# c\n  sp\\\nlit:1 \\\n AS b\n";
    let image =
        |line, place, word: &str, reference: &str| (line, place, word.to_owned(), reference.to_owned(), Meaning::Image);
    let expected = [
        image(4, Place::From, "\"$C\"", "img:1"),
        (6, Place::From, "first".into(), "first".into(), Meaning::Stage(0)),
        image(7, Place::From, "First", "First"),
        (8, Place::From, "scratch".into(), "scratch".into(), Meaning::Scratch),
        image(9, Place::From, "img-$A$D-$TARGETARCH", "img-1-amd64"),
        (10, Place::Copy, "FIRST".into(), "FIRST".into(), Meaning::Stage(0)),
        (11, Place::Copy, "1".into(), "1".into(), Meaning::Stage(1)),
        image(12, Place::Copy, "9", "9"),
        image(13, Place::Copy, "i:1", "i:1"),
        image(15, Place::Mount, "j:2", "j:2"),
        image(15, Place::Mount, "k", "k"),
        image(15, Place::Mount, "l,m", "l,m"),
        image(16, Place::Copy, "o p", "o p"),
        image(21, Place::From, "sp\\\nlit:1", "split:1"),
    ];
    let found = named(source);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    let stages = images::read(source.as_bytes()).unwrap().stages;
    let names: Vec<_> = stages.iter().map(|stage| stage.name.as_deref()).collect();
    assert_eq!(names, [Some("first"), None, None, None, None, Some("b")]);
    assert_eq!(stages[0].platform.as_deref(), Some("$P"));
    assert_eq!(stages[5].lines, (19, 23));
}

#[test]
fn a_from_that_no_build_accepts_is_found_and_refused() {
    for (source, reason) in [
        ("FROM a b", Reason::FromArguments),
        ("FROM a AS", Reason::FromArguments),
        ("FROM", Reason::FromArguments),
        ("FROM a # c", Reason::FromArguments),
        ("FROM a AS b c", Reason::FromArguments),
        ("FROM a AS 1b", Reason::StageName),
        ("FROM a AS b/c", Reason::StageName),
        ("ARG X=${a:b}\nFROM $X", Reason::Variable("unsupported modifier in substitution")),
        ("FROM ${a^}", Reason::Variable("unsupported modifier in substitution")),
        ("FROM ''", Reason::BlankImage),
        ("FROM a\nONBUILD FROM b", Reason::OnbuildTrigger),
    ] {
        let refused = images::read(source.as_bytes()).unwrap().refused.map(|refused| refused.reason);
        assert_eq!(refused, Some(reason), "{source}");
    }
    for source in [
        "FROM a AS B",
        "FROM a a\u{17f} b",
        "FROM a AS a-b_c.d",
        "FROM a AS x\nFROM b AS x",
        "ARG X\nFROM $X",
        "FROM ${X:-}",
        // `--build-arg` gives the value.
        "ARG X=\nFROM $X",
        "ARG X=\"${X:?give it}\"\nFROM $X",
        "ARG X=\nARG Y=$X\nFROM $Y",
    ] {
        assert_eq!(images::read(source.as_bytes()).unwrap().refused, None, "{source}");
    }
}

#[test]
fn references_are_cut_as_docker_does() {
    for (text, registry, repository, tag, digest) in [
        ("a", None, "a", None, None),
        ("a/b:c", None, "a/b", Some("c"), None),
        ("docker.io/a/b:c@sha256:d", Some("docker.io"), "a/b", Some("c"), Some("sha256:d")),
        ("localhost/a", Some("localhost"), "a", None, None),
        ("host:5000/a", Some("host:5000"), "a", None, None),
        ("host:5000/a:t", Some("host:5000"), "a", Some("t"), None),
        ("Host/a", Some("Host"), "a", None, None),
        ("a:b/c", None, "a:b/c", None, None),
        ("[::1]:5000/a", Some("[::1]:5000"), "a", None, None),
        ("a@sha256:b", None, "a", None, Some("sha256:b")),
        ("/a:b", Some(""), "a", Some("b"), None),
        ("${R}/a:${T:-x}", Some("${R}"), "a", Some("${T:-x}"), None),
        ("a:", None, "a", Some(""), None),
    ] {
        let chars: Vec<char> = text.chars().collect();
        let cut = Reference::cut(&chars);
        let part = |range: Option<std::ops::Range<usize>>| range.map(|range| chars[range].iter().collect::<String>());
        assert_eq!(
            (
                part(cut.registry).as_deref(),
                part(Some(cut.repository)).unwrap().as_str(),
                part(cut.tag).as_deref(),
                part(cut.digest).as_deref()
            ),
            (registry, repository, tag, digest),
            "{text}"
        );
    }
}

#[test]
fn a_prefix_says_which_images_are_the_base_image() {
    for (prefix, text, channel) in [
        ("niteo/nixpkgs-", "niteo/nixpkgs-nixos-25.11:x", Some("nixos-25.11")),
        ("niteo/nixpkgs-", "docker.io/niteo/nixpkgs-x", Some("x")),
        ("niteo/nixpkgs-", "ghcr.io:443/niteo/nixpkgs-x@sha256:1", Some("x")),
        ("niteo/nixpkgs-", "niteo/nixpkgs-", None),
        ("niteo/nixpkgs-", "niteo/nixpkgs-a/b", None),
        ("niteo/nixpkgs-", "niteo/nixpkgs-<channel>:<commit>", None),
        ("niteo/nixpkgs-", "other/niteo/nixpkgs-x", None),
        ("niteo/nixpkgs-", "ghcr.io/other/niteo/nixpkgs-x", None),
        ("niteo/nixpkgs-", "xniteo/nixpkgs-x", None),
        ("docker.io/niteo/nixpkgs-", "niteo/nixpkgs-x", Some("x")),
        ("ghcr.io/me/n-", "ghcr.io/me/n-x", Some("x")),
        ("ghcr.io/me/n-", "me/n-x", None),
        ("ghcr.io/me/n-", "quay.io/me/n-x", None),
        ("me/n", "me/n:1", Some("")),
        ("me/n", "me/n-x:1", None),
    ] {
        let chars: Vec<char> = text.chars().collect();
        let found = ImagePrefix::parse(prefix).unwrap().channel_of(&chars, &Reference::cut(&chars));
        assert_eq!(found.map(|range| chars[range].iter().collect::<String>()).as_deref(), channel, "{prefix} {text}");
    }
    for bad in ["", "a:1", "a@b", "A-", "-a", "a b", "ghcr.io/", "$R/a-"] {
        assert!(ImagePrefix::parse(bad).is_err(), "{bad}");
    }
}
