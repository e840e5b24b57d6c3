//! For what machines an image is: `linux/amd64`, in Go's words.
//! It must never pass on a word that no engine knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Go's names for processors (`go tool dist list`) on which Linux runs.
const ARCHITECTURES: [&str; 12] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le", "riscv64", "s390x"];
/// What Nix and the kernel call them.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("x86_64", "amd64"),
    ("aarch64", "arm64"),
    ("i686", "386"),
    ("i386", "386"),
    ("armv7l", "arm/v7"),
    ("armv6l", "arm/v6"),
    ("loongarch64", "loong64"),
    ("powerpc64le", "ppc64le"),
];

/// Operating system, architecture and, for some, a variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`
    pub architecture: String,
    /// `v7` of `arm/v7`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on an architecture that Rust calls `here` (the constant `ARCH` of the standard library).
    pub fn linux_on(here: &str) -> Self {
        let known = match here {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => OTHER_NAMES.iter().find(|(name, _)| *name == other).map_or(other, |(_, go)| *go),
        };
        Self { os: "linux".into(), architecture: known.into(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err("it is not OS/ARCH, such as linux/amd64".into()),
        };
        if os != "linux" {
            return Err(format!("Nix makes no images for `{os}`; the first part is `linux`"));
        }
        if let Some((_, known)) = OTHER_NAMES.iter().find(|(name, _)| *name == architecture) {
            return Err(format!("images call that `linux/{known}`"));
        }
        if !ARCHITECTURES.contains(&architecture) {
            return Err(format!("`{architecture}` is none of {}", ARCHITECTURES.join(", ")));
        }
        let is_variant = |text: &str| {
            text.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        if variant.is_some_and(|variant| !is_variant(variant)) {
            return Err("the variant is not `v` and a number".into());
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_gos_words() {
        for good in ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/riscv64"] {
            assert_eq!(good.parse::<Platform>().unwrap().to_string(), good);
        }
        for (bad, reason) in [
            ("", "it is not OS/ARCH"),
            ("amd64", "it is not OS/ARCH"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/z80", "none of"),
            ("linux/", "none of"),
            ("windows/amd64", "linux"),
            ("linux/arm/7", "variant"),
            ("linux/arm/v", "variant"),
            ("linux/arm/v7/x", "OS/ARCH"),
        ] {
            let error = bad.parse::<Platform>().unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
        for (here, expected) in [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")] {
            assert_eq!(Platform::linux_on(here).to_string(), expected);
        }
    }
}
