//! Where the store has the tree of a pin: the path that its NAR hash and the name `source` make.
//! It must never look whether it is there.

use sha2::{Digest, Sha256};

/// The characters of Nix's base 32 (Nix manual, "Store path").
const BASE32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
/// Bytes of a store path's hash part.
const HASH_PART: usize = 20;
/// The name of a tree that npins or a flake fetches; it is a part of the hash.
const NAME: &str = "source";

/// Reads a SHA-256: SRI (`sha256-…`), Nix's base 32, or hexadecimal.
pub fn sha256(text: &str) -> Option<[u8; 32]> {
    let bytes = if let Some(base64) = text.strip_prefix("sha256-") {
        from_base64(base64)?
    } else {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        if text.len() == 64 { from_hex(text)? } else { from_base32(text)? }
    };
    bytes.try_into().ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(byte)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// Nix writes the last bits first.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; 32];
    if text.len() != 52 {
        return None;
    }
    for (n, character) in text.bytes().rev().enumerate() {
        let digit = u16::try_from(BASE32.iter().position(|&own| own == character)?).ok()?;
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let [low, high] = (digit << shift).to_le_bytes();
        bytes[byte] |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

fn to_base32(bytes: &[u8]) -> String {
    let length = (bytes.len() * 8).div_ceil(5);
    let digit = |n: usize| {
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let low = u16::from(bytes[byte]) >> shift;
        let high = bytes.get(byte + 1).map_or(0, |&next| u16::from(next) << (8 - shift));
        char::from(BASE32[usize::from((low | high) & 31)])
    };
    (0..length).rev().map(digit).collect()
}

/// The base name of the store path of a tree: `makeFixedOutputPath` (libstore/store-dir-config.cc).
pub fn store_path(nar_hash: &[u8; 32], store: &str) -> String {
    let hex = nar_hash.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let digest = Sha256::digest(format!("source:sha256:{hex}:{store}:{NAME}"));
    let mut folded = [0_u8; HASH_PART];
    for (n, byte) in digest.iter().enumerate() {
        folded[n % HASH_PART] ^= byte;
    }
    format!("{}-{NAME}", to_base32(&folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_in_all_their_forms() {
        // `nix-hash --type sha256` of the empty file, and its other forms by `nix-hash --to-base32` and the like.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let bytes: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&empty[2 * n..2 * n + 2], 16).unwrap()).collect();
        for text in [
            empty,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        ] {
            assert_eq!(sha256(text).unwrap().as_slice(), bytes, "{text}");
        }
        for bad in ["", "sha256-", "sha1-47DEQpj8HBSa", "sha256-!!", &empty[1..], "0mdqa9w1", "sha512:00"] {
            assert_eq!(sha256(bad), None, "{bad}");
        }
    }
}
