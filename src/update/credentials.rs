//! The registry's credentials, from the environment to a file that only this user can read.
//! It must never put them into an argument, a message, or another variable.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::failure::{Usage, shown};
use crate::file;

/// Our own variables, and those that GitLab sets for its own registry.
const OWN: [&str; 2] = ["REGISTRY_USER", "REGISTRY_PASSWORD"];
const GITLABS: [&str; 2] = ["CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"];

/// Where skopeo finds the credentials for `registry`: the file that `REGISTRY_AUTH_FILE` names, else one in `folder`
/// with `REGISTRY_USER` and `REGISTRY_PASSWORD`, else one with GitLab's own, if `CI_REGISTRY` is that registry: they are
/// not for others. `None` where none of them is set; then skopeo uses what the user has logged in to.
pub fn auth_file(
    variable: impl Fn(&str) -> Option<OsString>,
    registry: &str,
    folder: &Path,
) -> anyhow::Result<Option<PathBuf>> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = set("REGISTRY_AUTH_FILE") {
        let file = PathBuf::from(file);
        return match fs::metadata(&file) {
            Ok(_) => Ok(Some(file)),
            Err(_) => Err(Usage(format!("REGISTRY_AUTH_FILE names `{}`, which is not there", shown(&file))).into()),
        };
    }
    let gitlabs = |registry: &str| set("CI_REGISTRY").is_some_and(|host| host.eq_ignore_ascii_case(registry));
    let pair = match pair(OWN, set)? {
        None if gitlabs(registry) => pair(GITLABS, set)?,
        pair => pair,
    };
    let Some((user, password)) = pair else { return Ok(None) };
    let path = folder.join("auth.json");
    file::write_new(&path, contents(registry, &user, &password), 0o600)?;
    Ok(Some(path))
}

/// The values of the variables of a user and a password: both, or neither.
fn pair(
    [user, password]: [&str; 2],
    set: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, Usage> {
    let text = |name: &str, value: OsString| value.into_string().map_err(|_| Usage(format!("{name} is not UTF-8")));
    let pair = match (set(user), set(password)) {
        (None, None) => return Ok(None),
        (Some(name), Some(secret)) => (text(user, name)?, text(password, secret)?),
        (Some(_), None) => return Err(Usage(format!("{user} is set, but not {password}"))),
        (None, Some(_)) => return Err(Usage(format!("{password} is set, but not {user}"))),
    };
    if pair.0.contains(':') {
        return Err(Usage(format!("{user} has a `:`, which no registry takes")));
    }
    Ok(Some(pair))
}

/// containers-auth.json(5).
fn contents(registry: &str, user: &str, password: &str) -> String {
    let auth = base64(format!("{user}:{password}").as_bytes());
    serde_json::json!({ "auths": { registry: { "auth": auth } } }).to_string()
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            text.push(if at <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{fb}\u{ff}", "w7vDvw=="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn the_file_is_the_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let made = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
            };
            auth_file(variable, "127.0.0.1:5000", folder.path())
        };
        assert_eq!(made(&[]).unwrap(), None);
        assert_eq!(made(&[("REGISTRY_USER", ""), ("REGISTRY_PASSWORD", "")]).unwrap(), None);
        let path = made(&[("REGISTRY_USER", "me"), ("REGISTRY_PASSWORD", "s\"cret")]).unwrap().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"auths":{"127.0.0.1:5000":{"auth":"bWU6cyJjcmV0"}}}"#);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        // GitLab's own, for its own registry alone.
        let gitlabs =
            |registry| [("CI_REGISTRY", registry), ("CI_REGISTRY_USER", "ci"), ("CI_REGISTRY_PASSWORD", "token")];
        for other in ["", "docker.io", "127.0.0.1", "127.0.0.1:5001"] {
            assert_eq!(made(&gitlabs(other)).unwrap(), None, "{other}");
        }
        let path = made(&gitlabs("127.0.0.1:5000")).unwrap().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"auths":{"127.0.0.1:5000":{"auth":"Y2k6dG9rZW4="}}}"#);
        fs::remove_file(&path).unwrap();
        let own = [("REGISTRY_USER", "me"), ("REGISTRY_PASSWORD", "s\"cret")];
        let path = made(&[&own[..], &gitlabs("127.0.0.1:5000")].concat()).unwrap().unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("bWU6cyJjcmV0"), "our own come first");
        // A file that the user has comes first and is left alone.
        let own = path.to_str().unwrap();
        assert_eq!(made(&[("REGISTRY_AUTH_FILE", own), ("REGISTRY_USER", "me")]).unwrap().as_ref(), Some(&path));
        for (variables, message) in [
            (&[("REGISTRY_USER", "me")][..], "REGISTRY_USER is set, but not REGISTRY_PASSWORD"),
            (
                &[("CI_REGISTRY", "127.0.0.1:5000"), ("CI_REGISTRY_USER", "me")],
                "CI_REGISTRY_USER is set, but not CI_REGISTRY_PASSWORD",
            ),
            (&[("REGISTRY_PASSWORD", "secret")], "REGISTRY_PASSWORD is set, but not REGISTRY_USER"),
            (&[("REGISTRY_AUTH_FILE", "/nowhere")], "REGISTRY_AUTH_FILE names `/nowhere`, which is not there"),
            (
                &[("REGISTRY_USER", "a:b"), ("REGISTRY_PASSWORD", "x")],
                "REGISTRY_USER has a `:`, which no registry takes",
            ),
        ] {
            assert_eq!(made(variables).unwrap_err().to_string(), message);
        }
    }
}
