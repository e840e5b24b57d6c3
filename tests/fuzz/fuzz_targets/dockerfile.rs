//! The scanner and the rewriting: no panic, and a file that was rewritten is in step.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixkit::dockerfile::reference::ImagePrefix;
use nixkit::dockerfile::rewrite::{DigestRule, Kind, Revision, Syntax, Wanted, judge};

fuzz_target!(|source: &[u8]| {
    let image = ImagePrefix::parse("niteo/nixpkgs-").expect("a good prefix");
    let wanted = Wanted {
        image: &image,
        channel: Some("nixos-25.11"),
        channel_is_told: true,
        revision: &Revision::Full("1".repeat(40).parse().expect("a commit")),
        stage: None,
        convert: false,
        digest: &DigestRule::Drop,
    };
    for kind in [Kind::Dockerfile, Kind::Text(Syntax::Hash), Kind::Text(Syntax::Both), Kind::Text(Syntax::Markup)] {
        if let Ok(judgement) = judge(source, kind, &wanted) {
            let again = judge(judgement.text.as_deref().unwrap_or(source), kind, &wanted)
                .expect("a file that was rewritten can be read");
            assert!(again.changes.is_empty(), "twice is not once");
        }
    }
});
