//! The text of the conf that tmate is started with, and words quoted for it and for a shell.
//! It must never put a name into a text unquoted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::server::{Fingerprints, KINDS, NO_HOST, PUBLIC_HOST, Server};

/// tmate 2.4.0's own fingerprints of ssh.tmate.io, its options' defaults.
const OF_PUBLIC: [&str; 3] = [
    "SHA256:Hthk2T/M/Ivqfk1YYUn5ijC2Att3+UPzD7Rn72P5VWs",
    "SHA256:8GmKHYHEJ6n0TEdciHeEGkKOigQfCFuBULdt6vZIhDc",
    "SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI",
];

/// What the conf of a session says.
#[derive(Clone, Debug)]
pub struct Conf<'a> {
    /// The user's own, which is read first.
    pub user_conf: Option<&'a Path>,
    /// Which server.
    pub server: &'a Server,
    /// Those in place of the user's.
    pub fingerprints: &'a Fingerprints,
    /// The file of keys.
    pub authorized_keys: Option<&'a Path>,
    /// What runs in each new window, for a shell.
    pub window_command: &'a [u8],
    /// The shell that runs it.
    pub window_shell: Option<&'a Path>,
}

/// The conf's text. Later lines win: first what stands for "nobody has named a server", so that tmate goes
/// nowhere by itself; then the user's conf; then what was asked for.
pub fn text(conf: &Conf<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    let mut set = |option: &str, value: &[u8]| {
        text.extend([b"set -g ", option.as_bytes(), b" ", &quoted(value)[..], b"\n"].concat());
    };
    let fingerprint = |kind: &str| format!("tmate-server-{kind}-fingerprint");
    set("tmate-server-host", NO_HOST.as_bytes());
    for kind in KINDS {
        set(&fingerprint(kind), b"");
    }
    if let Some(path) = conf.user_conf {
        text.extend([b"source-file ", &quoted(path.as_os_str().as_bytes())[..], b"\n"].concat());
    }
    let mut set = |option: &str, value: &[u8]| {
        text.extend([b"set -g ", option.as_bytes(), b" ", &quoted(value)[..], b"\n"].concat());
    };
    match conf.server {
        Server::Named { host, port } => {
            set("tmate-server-host", host.as_bytes());
            set("tmate-server-port", port.to_string().as_bytes());
        }
        Server::OfConf { port: Some(port) } => set("tmate-server-port", port.to_string().as_bytes()),
        Server::OfConf { port: None } => {}
        Server::Public => {
            set("tmate-server-host", PUBLIC_HOST.as_bytes());
            set("tmate-server-port", b"22");
        }
    }
    if *conf.server == Server::Public && conf.fingerprints.is_empty() {
        for (kind, print) in KINDS.into_iter().zip(OF_PUBLIC) {
            set(&fingerprint(kind), print.as_bytes());
        }
    } else if !conf.fingerprints.is_empty() {
        // All of them: one of the user's conf must not stay beside those that were asked for.
        for kind in KINDS {
            set(&fingerprint(kind), conf.fingerprints.of(kind).unwrap_or_default().as_bytes());
        }
    }
    if let Some(path) = conf.authorized_keys {
        set("tmate-authorized-keys", path.as_os_str().as_bytes());
    }
    // The session ends when its shell does, and tmate with it.
    set("tmate-foreground-restart", b"0");
    if let Some(shell) = conf.window_shell {
        set("default-shell", shell.as_os_str().as_bytes());
        set("default-command", conf.window_command);
    }
    text
}

/// A word of a conf of tmux 2.4: nothing is special between single quotes, and only there; a new line would end
/// the line even so.
pub fn quoted(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => text.extend(b"'\"'\"'"),
            b'\n' => text.extend(b"'\"\\n\"'"),
            _ => text.push(byte),
        }
    }
    text.push(b'\'');
    text
}

/// A word of a shell, left as it is where that is safe.
pub fn shell_quoted(word: &OsStr) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
    let bytes = word.as_bytes();
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_vec();
    }
    let mut text = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            _ => text.push(byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn conf(server: &Server, fingerprints: &Fingerprints) -> String {
        let conf = Conf {
            user_conf: None,
            server,
            fingerprints,
            authorized_keys: None,
            window_command: b"exec x",
            window_shell: None,
        };
        String::from_utf8(text(&conf)).unwrap()
    }

    const NOTHING: &str = "set -g tmate-server-host '255.255.255.255'
set -g tmate-server-rsa-fingerprint ''
set -g tmate-server-ecdsa-fingerprint ''
set -g tmate-server-ed25519-fingerprint ''
";

    #[test]
    fn later_lines_win_over_the_users() {
        let fingerprints = Fingerprints { rsa: Some("SHA256:x".into()), ..Fingerprints::default() };
        let server = Server::Named { host: "h".into(), port: 2200 };
        let all = Conf {
            user_conf: Some(Path::new("/it's/.tmate.conf")),
            server: &server,
            fingerprints: &fingerprints,
            authorized_keys: Some(Path::new("/f/keys")),
            window_command: b"exec 'a b'",
            window_shell: Some(Path::new("/bin/sh")),
        };
        let expected = format!(
            "{NOTHING}source-file '/it'\"'\"'s/.tmate.conf'
set -g tmate-server-host 'h'
set -g tmate-server-port '2200'
set -g tmate-server-rsa-fingerprint 'SHA256:x'
set -g tmate-server-ecdsa-fingerprint ''
set -g tmate-server-ed25519-fingerprint ''
set -g tmate-authorized-keys '/f/keys'
set -g tmate-foreground-restart '0'
set -g default-shell '/bin/sh'
set -g default-command 'exec '\"'\"'a b'\"'\"''
"
        );
        assert_eq!(String::from_utf8(text(&all)).unwrap(), expected);
    }

    #[test]
    fn without_a_server_none_is_named() {
        let none = Fingerprints::default();
        let end = "set -g tmate-foreground-restart '0'\n";
        assert_eq!(conf(&Server::OfConf { port: None }, &none), format!("{NOTHING}{end}"));
        let port = "set -g tmate-server-port '2200'\n";
        assert_eq!(conf(&Server::OfConf { port: Some(2200) }, &none), format!("{NOTHING}{port}{end}"));
        let public = conf(&Server::Public, &none);
        assert!(public.contains("tmate-server-host 'ssh.tmate.io'\n") && public.contains(OF_PUBLIC[2]), "{public}");
    }

    #[test]
    fn a_shell_reads_the_same_word() {
        for word in ["plain-1.0", "", "two words", "it's", "$x `y` \"z\"", "new\nline", "~", "-n", "*"] {
            let script = [b"printf %s ", &shell_quoted(OsStr::new(word))[..]].concat();
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            let expected = if word == "-n" { "-n" } else { word };
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
        assert_eq!(shell_quoted(OsStr::new("/tmp/a-b")), b"/tmp/a-b");
    }
}
