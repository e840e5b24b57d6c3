//! What the lines mean that `tmate -F` prints, as tmate 2.4 prints them.
//! It must never be the only reason to believe that somebody is connected: many servers send no such lines.

use std::fmt;

/// A line with a meaning for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Somebody has come: worth asking at once.
    Joined,
    /// Somebody has gone, perhaps not the last one.
    Left,
    /// The connection is gone and tmate tries to get another.
    ServerLost,
    /// The server's name has no address, or tmate does not take its address; it tries again.
    LookupFailed,
    /// There is a connection.
    ServerBack,
    /// The server takes no session without keys; tmate would try for ever.
    KeysRequired,
    /// It says nothing about the session's state.
    Other,
}

/// What `line` means.
pub fn meaning(line: &str) -> Line {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| line.starts_with(prefix));
    if starts(&["A mate has joined"]) {
        Line::Joined
    } else if starts(&["A mate has left"]) {
        Line::Left
    } else if starts(&["Reconnecting", "Error reading from channel", "Error connecting", "Cannot authenticate server"])
    {
        Line::ServerLost
    } else if line.contains("lookup failure") {
        Line::LookupFailed
    } else if starts(&["Reconnected", "ssh session: "]) {
        Line::ServerBack
    } else if line.contains("requires authorized_keys") {
        Line::KeysRequired
    } else {
        Line::Other
    }
}

/// The file of keys that tmate says it goes by.
pub fn key_file(line: &str) -> Option<&str> {
    line.strip_prefix("Using ")?.strip_suffix(" for access control")
}

/// Why tmate does not get to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing listens there.
    Refused,
    /// It cut the connection.
    Cut,
    /// It wants to know who we are, as servers for logins do.
    NotTmate,
    /// No way leads there.
    Unreachable,
    /// The name has no address.
    NameNotFound,
    /// The address is one of IPv6, which tmate's DNS library, libevent, takes only on a machine that has a public
    /// IPv6 address itself (`AI_ADDRCONFIG`).
    NoIpv6,
    /// The host key is another one.
    WrongFingerprint,
    /// It takes only sessions with keys.
    WantsKeys,
    /// There is no usable `/etc/resolv.conf`; tmate wants one for addresses too.
    NoResolver,
    /// The SSH library finds no home directory.
    NoHome,
    /// No pseudo-terminal can be had.
    NoTerminal,
    /// It was reached, if at all, and said nothing.
    Silent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the server refused the connection",
            Self::Cut => "the server cut the connection",
            Self::NotTmate => "the server wants a login: it is no tmate server",
            Self::Unreachable => "no way leads to the server",
            Self::NameNotFound => "the server's name was not found",
            Self::NoIpv6 => {
                "tmate does not support IPv6 addresses on a machine that has no public IPv6 address of its own"
            }
            Self::WrongFingerprint => "the server's host key has another fingerprint",
            Self::WantsKeys => "the server wants keys: it takes only sessions with `--authorized-keys`",
            Self::NoResolver => "tmate cannot look up names: `/etc/resolv.conf` is missing or empty",
            Self::NoHome => "the SSH library found no home directory: set HOME",
            Self::NoTerminal => "no pseudo-terminal can be had: is `/dev/pts` mounted?",
            Self::Silent => "the server is silent",
        })
    }
}

impl Reason {
    /// What to do about it.
    pub fn hint(self, host: &str, port: &str) -> Option<String> {
        let port_option = if port == "22" { String::new() } else { format!(" -p {port}") };
        match self {
            Self::Refused | Self::Unreachable | Self::Cut | Self::NotTmate => Some(format!(
                "does a tmate server run there, and is {port} its port? `ssh-keyscan{port_option} {host}` tries the same connection"
            )),
            Self::Silent => Some(format!(
                "is a firewall in the way? `ssh-keyscan{port_option} {host}` tries the same connection; \
                 `--connect-timeout` gives it more time"
            )),
            Self::WrongFingerprint => Some(format!(
                "`ssh-keyscan{port_option} {host} | ssh-keygen -lf -` prints those that the server has now"
            )),
            Self::NameNotFound => Some(
                "is the name right? tmate ignores IPv6 addresses on a machine that has no public one of its own".into(),
            ),
            Self::NoIpv6 => Some("name an IPv4 address of the server, or a name that has one".into()),
            Self::WantsKeys => Some("give a file of public keys with `--authorized-keys`".into()),
            _ => None,
        }
    }
}

/// The reason that the last telling one of `lines` gives, where `host` is the server. Without any the server is
/// silent.
pub fn reason(lines: &[String], host: &str) -> Option<Reason> {
    match lines.iter().rev().find_map(|line| reason_of(line)) {
        Some(Reason::NameNotFound) if is_ipv6(host) => return Some(Reason::NoIpv6),
        Some(reason) => return Some(reason),
        None => {}
    }
    let is_usual = |line: &String| {
        line.is_empty()
            || ["To connect to", "Connecting to", "Using ", "Note: "].iter().any(|text| line.starts_with(text))
    };
    lines.iter().all(is_usual).then_some(Reason::Silent)
}

/// Whether `host` is an IPv6 address, with a zone (RFC 4007) or without.
pub fn is_ipv6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<std::net::Ipv6Addr>().is_ok()
}

fn reason_of(line: &str) -> Option<Reason> {
    [
        ("requires authorized_keys", Reason::WantsKeys),
        ("Cannot authenticate server", Reason::WrongFingerprint),
        ("lookup failure", Reason::NameNotFound),
        ("Connection refused", Reason::Refused),
        ("Connection reset", Reason::Cut),
        ("Socket error: disconnected", Reason::Cut),
        ("SSH keys not found", Reason::NotTmate),
        ("Access denied", Reason::NotTmate),
        ("No route to host", Reason::Unreachable),
        ("Network is unreachable", Reason::Unreachable),
        ("Permission denied", Reason::Unreachable),
        ("Cannot initialize the DNS lookup service", Reason::NoResolver),
        ("Failed to process system configuration files", Reason::NoHome),
        ("create session failed", Reason::NoTerminal),
        ("imed out", Reason::Silent),
        ("Timeout", Reason::Silent),
    ]
    .into_iter()
    .find_map(|(text, reason)| line.contains(text).then_some(reason))
}

/// The last `count` of `lines` that differ from the one before: tmate tries every two seconds.
pub fn last_lines(lines: &[String], count: usize) -> Vec<&str> {
    let mut last: Vec<&str> = Vec::new();
    for line in lines.iter().rev().map(|line| line.trim_end()).filter(|line| !line.is_empty()) {
        if !last.contains(&line) {
            last.push(line);
        }
        if last.len() == count {
            break;
        }
    }
    last.reverse();
    last
}

/// Whether `text`, the answer to `tmate -V`, is of a version that this program knows: 2.4 or newer.
pub fn version_suffices(text: &str) -> bool {
    let version = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_tmate_means() {
        for (line, expected) in [
            ("To connect to the session locally, run: tmate -S SOCK attach", Line::Other),
            ("Connecting to h...", Line::Other),
            ("ssh session read only: ssh -p2200 ro-x@h", Line::Other),
            ("ssh session: ssh -p2200 x@h", Line::ServerBack),
            ("A mate has joined (192.0.2.1) -- 2 clients currently connected", Line::Joined),
            ("A mate has left (192.0.2.1) -- 0 client currently connected", Line::Left),
            ("Error reading from channel: Socket error: disconnected", Line::ServerLost),
            ("Reconnecting...", Line::ServerLost),
            ("Reconnected", Line::ServerBack),
            ("Error connecting: Connection refused", Line::ServerLost),
            ("h lookup failure. Retrying in 2 seconds (x)", Line::LookupFailed),
            ("Server requires authorized_keys but none are given.", Line::KeysRequired),
            ("Session closed", Line::Other),
            ("", Line::Other),
        ] {
            assert_eq!(meaning(line), expected, "{line}");
        }
    }

    #[test]
    fn a_file_of_keys_is_told() {
        assert_eq!(key_file("Using /a b/keys for access control"), Some("/a b/keys"));
        assert_eq!(key_file("Using nothing"), None);
    }

    fn lines(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn the_last_telling_line_gives_the_reason() {
        for (text, expected) in [
            ("Connecting to h...", Some(Reason::Silent)),
            ("", Some(Reason::Silent)),
            ("Connecting to h...|Error connecting: Connection refused|Reconnecting...", Some(Reason::Refused)),
            ("h lookup failure. Retrying in 2 seconds (nodename nor servname)", Some(Reason::NameNotFound)),
            ("Error connecting: Connection refused|Cannot authenticate server", Some(Reason::WrongFingerprint)),
            ("Server requires authorized_keys but none are given.|Reconnecting...", Some(Reason::WantsKeys)),
            ("fatal: Cannot initialize the DNS lookup service", Some(Reason::NoResolver)),
            ("Error connecting: Failed to process system configuration files", Some(Reason::NoHome)),
            ("create session failed: bash -i: No such device", Some(Reason::NoTerminal)),
            ("Error connecting: kex error", None),
            ("To connect to it, run: x|Connecting to h...|something new", None),
            ("Error connecting: Socket error: Connection reset by peer|Reconnecting...", Some(Reason::Cut)),
            ("SSH keys not found. Run 'ssh-keygen' to create keys.|Reconnecting...", Some(Reason::NotTmate)),
        ] {
            assert_eq!(reason(&lines(text), "h"), expected, "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_has_a_reason_of_its_own() {
        let failure = lines("::1 lookup failure. Retrying in 2 seconds (x)");
        for (host, expected) in [
            ("::1", Reason::NoIpv6),
            ("2001:db8::1", Reason::NoIpv6),
            ("::ffff:192.0.2.1", Reason::NoIpv6),
            ("fe80::1%eth0", Reason::NoIpv6),
            ("192.0.2.1", Reason::NameNotFound),
            ("h", Reason::NameNotFound),
            ("dead", Reason::NameNotFound),
            ("", Reason::NameNotFound),
        ] {
            assert_eq!(reason(&failure, host), Some(expected), "{host}");
        }
        assert_eq!(reason(&lines("Connecting to ::1..."), "::1"), Some(Reason::Silent));
    }

    #[test]
    fn the_last_lines_are_told_once() {
        assert_eq!(last_lines(&lines("a|b|c|b|c|"), 2), ["b", "c"]);
        assert_eq!(last_lines(&lines("a|b|c|b|c|"), 9), ["a", "b", "c"]);
        assert_eq!(last_lines(&[], 3), [""; 0]);
    }

    #[test]
    fn versions_from_two_four_suffice() {
        for (text, expected) in [
            ("tmate 2.4.0\n", true),
            ("tmate 2.4", true),
            ("tmate 2.10.1", true),
            ("tmate 3.0-rc1", true),
            ("tmate 2.3.1", false),
            ("tmate 1.8.9", false),
            ("tmux next", false),
            ("", false),
        ] {
            assert_eq!(version_suffices(text), expected, "{text}");
        }
    }
}
