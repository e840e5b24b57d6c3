//! What a container registry answers, and how it is asked: through skopeo.
//! It must never take an answer that it does not understand for "there is no such image".
//!
//! Only [`skopeo`] runs anything; all else here is pure.

mod answer;
mod image;
pub mod skopeo;

pub use answer::{Refusal, read_refusal};
pub use image::{
    ImageConfig, Labels, Manifest, parse_config, parse_layout, parse_manifest, parse_tags, short, write_index,
    write_layout,
};
