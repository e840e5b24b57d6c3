//! bash as it is called and as it fails: its command line, and the scene of its failure.
//! It must never run bash, nor touch a script's output: all of it is pure.

pub mod account;
pub mod hook;
pub mod invocation;
pub mod replay;
pub mod settings;
pub mod snapshot;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// `text` as one word of a shell, whatever it holds.
pub fn quoted(text: impl AsRef<OsStr>) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text.as_ref().as_bytes() {
        if byte == b'\'' { word.extend_from_slice(br"'\''") } else { word.push(byte) }
    }
    word.push(b'\'');
    word
}
