//! Random numbers that a seed repeats.

use std::hash::{BuildHasher, Hasher};

use crate::place::say;

/// `SplitMix64`, by Sebastiano Vigna.
pub(crate) struct Random(u64);

impl Random {
    /// From `STRESS_SEED`, or from a seed of its own, which it says.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("STRESS_SEED") {
            Ok(text) if !text.is_empty() => text.parse().expect("STRESS_SEED is a number"),
            _ => std::hash::RandomState::new().build_hasher().finish(),
        };
        say(&format!("STRESS_SEED={seed} repeats these moments"));
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).unwrap()
    }
}
