//! The part of msgpack that tmate speaks: what it sends is read, what a server sends is written.
//! It must never wait for the end of a message that is not there yet: the rest comes with the next packet.

/// A value of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number.
    Number(i64),
    /// A string or bytes; tmate uses both for both.
    Bytes(Vec<u8>),
    /// Several values.
    Array(Vec<Value>),
    /// Anything else.
    Other,
}

impl Value {
    /// As text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Array(values) => values.iter().map(Self::text).collect::<Vec<_>>().join(" "),
            Self::Other => String::new(),
        }
    }
}

/// The value at the start of `bytes` and the bytes after it, or nothing while it is cut off.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let sized = |size: usize| {
        let (number, rest) = rest.split_at_checked(size)?;
        Some((number.iter().fold(0_usize, |number, &byte| number << 8 | usize::from(byte)), rest))
    };
    let bytes_of = |length: usize, rest: &'_ [u8]| {
        rest.split_at_checked(length).map(|(bytes, _)| Value::Bytes(bytes.to_vec())).zip(Some(length))
    };
    let string = |size: usize| {
        let (length, rest) = sized(size)?;
        let (value, length) = bytes_of(length, rest)?;
        Some((value, &rest[length..]))
    };
    let unsigned =
        |size| sized(size).map(|(number, rest)| (Value::Number(i64::try_from(number).unwrap_or(i64::MAX)), rest));
    match first {
        0x00..=0x7f => Some((Value::Number(i64::from(first)), rest)),
        0xe0..=0xff => Some((Value::Number(i64::from(first.cast_signed())), rest)),
        0xa0..=0xbf => {
            let (value, length) = bytes_of(usize::from(first & 0x1f), rest)?;
            Some((value, &rest[length..]))
        }
        0xc4 | 0xd9 => string(1),
        0xc5 | 0xda => string(2),
        0xc6 | 0xdb => string(4),
        0xcc => unsigned(1),
        0xcd => unsigned(2),
        0xce => unsigned(4),
        0xcf => unsigned(8),
        // Signed ones: none that matters here.
        0xd0..=0xd3 => sized(1 << (first - 0xd0)).map(|(_, rest)| (Value::Other, rest)),
        0x90..=0x9f => array(usize::from(first & 0x0f), rest),
        0xdc => sized(2).and_then(|(count, rest)| array(count, rest)),
        0xdd => sized(4).and_then(|(count, rest)| array(count, rest)),
        _ => Some((Value::Other, rest)),
    }
}

fn array(count: usize, mut rest: &[u8]) -> Option<(Value, &[u8])> {
    let mut values = Vec::new();
    for _ in 0..count {
        let (value, after) = decode(rest)?;
        values.push(value);
        rest = after;
    }
    Some((Value::Array(values), rest))
}

/// A message to tmate: its kind, and its values.
pub(crate) fn message(kind: u8, values: &[Value]) -> Vec<u8> {
    let mut bytes = vec![0x90 | u8::try_from(values.len() + 1).unwrap_or(0), kind];
    for value in values {
        match value {
            Value::Number(number) => {
                bytes.push(0xd3);
                bytes.extend(number.to_be_bytes());
            }
            Value::Bytes(text) => {
                bytes.push(0xdb);
                bytes.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                bytes.extend(text);
            }
            Value::Array(_) | Value::Other => {}
        }
    }
    bytes
}
