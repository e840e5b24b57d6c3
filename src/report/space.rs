//! What is said about a full file system.

use indicatif::DecimalBytes;

/// What a file system has left.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    /// For this user.
    pub bytes: u64,
    /// `None` where the file system gives no number.
    pub inodes: Option<u64>,
}

/// How many bytes are needed and free, and what to do about it.
pub fn no_space(needed: Option<u64>, free: Option<Free>) -> (String, &'static str) {
    let closure =
        needed.map_or_else(|| "an unknown amount".to_owned(), |bytes| format!("up to {}", DecimalBytes(bytes)));
    let left = match free {
        None => "an unknown amount is".to_owned(),
        Some(Free { bytes, inodes: None }) => format!("{} is", DecimalBytes(bytes)),
        Some(Free { bytes, inodes: Some(inodes) }) => format!("{} and {inodes} inodes are", DecimalBytes(bytes)),
    };
    let is_enough =
        matches!((needed, free), (Some(needed), Some(Free { bytes, inodes: None | Some(1000..) })) if bytes > needed);
    let hint = if is_enough {
        "a quota or the server of the file system allows less than what is free: make room, or export elsewhere"
    } else {
        "make room, or export to another file system"
    };
    (format!("the closure needs {closure}, {left} free"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_is_explained_with_what_is_known() {
        let free = |bytes, inodes| Some(Free { bytes, inodes });
        let room = "make room, or export to another file system";
        let quota =
            "a quota or the server of the file system allows less than what is free: make room, or export elsewhere";
        for (needed, free, space, hint) in [
            (Some(2_000_000), free(1000, Some(7)), "up to 2.00 MB, 1.00 kB and 7 inodes are", room),
            (Some(2_000_000), free(1000, None), "up to 2.00 MB, 1.00 kB is", room),
            (Some(1000), free(2_000_000, None), "up to 1.00 kB, 2.00 MB is", quota),
            (Some(1000), free(2_000_000, Some(5000)), "up to 1.00 kB, 2.00 MB and 5000 inodes are", quota),
            (Some(1000), free(2_000_000, Some(0)), "up to 1.00 kB, 2.00 MB and 0 inodes are", room),
            (None, None, "an unknown amount, an unknown amount is", room),
        ] {
            assert_eq!(no_space(needed, free), (format!("the closure needs {space} free"), hint));
        }
    }
}
