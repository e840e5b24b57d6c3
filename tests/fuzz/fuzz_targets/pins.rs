//! The pin readers: no panic, and what they give is a commit.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &[u8]| {
    if let Ok(pin) = nixkit::pins::read(source, "nixpkgs") {
        assert!((7..=40).contains(&pin.revision.len()));
        assert!(pin.revision.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
});
