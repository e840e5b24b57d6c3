//! For what machines an image is: `linux/amd64`, in Go's words.
//! It must never pass on a word that no engine knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Go's names for processors (`go tool dist list`) on which Linux runs.
const ARCHITECTURES: [&str; 12] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le", "riscv64", "s390x"];
/// Other names for them, with the variant that each implies: those that containerd knows (`platforms/database.go`),
/// and those of Nix and the kernel.
const ALIASES: [(&str, &str, Option<&str>); 11] = [
    ("x86_64", "amd64", None),
    ("x86-64", "amd64", None),
    ("aarch64", "arm64", None),
    ("i386", "386", None),
    ("i686", "386", None),
    ("armhf", "arm", Some("v7")),
    ("armel", "arm", Some("v6")),
    ("armv7l", "arm", Some("v7")),
    ("armv6l", "arm", Some("v6")),
    ("loongarch64", "loong64", None),
    ("powerpc64le", "ppc64le", None),
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
    /// Of Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Of Windows.
    #[serde(rename = "os.features", default, skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
}

impl Platform {
    /// Linux on `architecture`, without a variant.
    pub fn linux(architecture: &str) -> Self {
        let (os_version, os_features) = (None, None);
        Self { os: "linux".into(), architecture: architecture.into(), variant: None, os_version, os_features }
    }

    /// Linux on an architecture that Rust calls `here` (the constant `ARCH` of the standard library).
    pub fn linux_on(here: &str) -> Self {
        let known = match here {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::linux(known).normalised()
    }

    /// The one form of platforms that are the same for engines, by containerd's rules (`normalizeArch` in
    /// `platforms/database.go`): `arm64` for `arm64/v8`, `arm/v7` for `arm`, `amd64` for `x86_64` and `amd64/v1`.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let alias = ALIASES.iter().find(|(name, ..)| *name == architecture);
        let (architecture, implied) = alias.map_or((&*architecture, None), |(_, known, implied)| (known, *implied));
        let variant = match (architecture, &*variant) {
            _ if implied.is_some() => implied,
            ("386", _) if alias.is_some() => None,
            ("amd64", "v1") | ("arm64", "8" | "v8" | "v8.0") => None,
            ("arm64", "9" | "9.0" | "v9.0") => Some("v9"),
            ("arm", "" | "7") => Some("v7"),
            ("arm", "5") => Some("v5"),
            ("arm", "6") => Some("v6"),
            ("arm", "8") => Some("v8"),
            (_, "") => None,
            (_, other) => Some(other),
        };
        Self {
            os: self.os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..self.clone()
        }
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
        if !os.eq_ignore_ascii_case("linux") {
            return Err(format!("Nix makes no images for `{os}`; the first part is `linux`"));
        }
        let given = Self { variant: variant.map(Into::into), ..Self::linux(architecture) };
        let platform = given.normalised();
        if !ARCHITECTURES.contains(&&*platform.architecture) {
            return Err(format!("`{architecture}` is not one of {}", ARCHITECTURES.join(", ")));
        }
        let is_variant = |text: &str| {
            text.strip_prefix('v').is_some_and(|rest| {
                rest.split('.').all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            })
        };
        if variant == Some("") || platform.variant.as_deref().is_some_and(|variant| !is_variant(variant)) {
            return Err("the variant is not `v` and a number".into());
        }
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_gos_words() {
        for good in ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/riscv64", "linux/amd64/v3"] {
            assert_eq!(good.parse::<Platform>().unwrap().to_string(), good);
        }
        for (bad, reason) in [
            ("", "it is not OS/ARCH"),
            ("amd64", "it is not OS/ARCH"),
            ("linux/z80", "is not one of"),
            ("linux/", "is not one of"),
            ("windows/amd64", "linux"),
            ("linux/arm/v", "variant"),
            ("linux/arm/", "variant"),
            ("linux/arm/9", "variant"),
            ("linux/arm64/v8.", "variant"),
            ("linux/mips/softfloat", "variant"),
            ("linux/arm/v7/x", "OS/ARCH"),
        ] {
            let error = bad.parse::<Platform>().unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
        for (here, expected) in [
            ("x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("riscv64", "linux/riscv64"),
            ("arm", "linux/arm/v7"),
            ("x86", "linux/386"),
        ] {
            assert_eq!(Platform::linux_on(here).to_string(), expected);
        }
    }

    /// The rows of `TestNormalizeArch` and of `TestParseSelector` in containerd's `platforms`, and those of Nix's words.
    #[test]
    fn several_names_are_one_platform() {
        for (name, expected) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v8.0", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm64/v9.0", "linux/arm64/v9"),
            ("linux/aarch64", "linux/arm64"),
            ("Linux/AArch64/V8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/arm/5", "linux/arm/v5"),
            ("linux/arm/8", "linux/arm/v8"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armhf/v5", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/armv6l", "linux/arm/v6"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/x86-64/v1", "linux/amd64"),
            ("linux/x86_64/v3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/i386/v1", "linux/386"),
            ("linux/i686", "linux/386"),
            ("linux/386", "linux/386"),
            ("linux/powerpc64le", "linux/ppc64le"),
        ] {
            let platform: Platform = name.parse().unwrap();
            assert_eq!(platform.to_string(), expected, "{name}");
            assert_eq!(platform.normalised(), platform, "{name}");
        }
    }
}
