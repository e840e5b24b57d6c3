//! The one session of a job, to which other failures of the job are told: a socket that only it has.
//! It must never wait for a visitor, nor let one of another user in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::unistd::geteuid;
use rustix::net::sockopt::socket_peercred;

/// How long a visitor may take to say what it has to say.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a visitor waits for the answer of a session, which may be asking tmate something.
const ANSWER: Duration = Duration::from_secs(6);
/// As much as a visitor may say.
const LONGEST: u64 = 4096;

/// The end of a session for its visitors. While it lives no other can have its name.
#[derive(Debug)]
pub struct Visitors(UnixListener);

/// What came of an attempt to be the one session.
#[derive(Debug)]
pub enum Turn {
    /// It is ours.
    Ours(Visitors),
    /// There is one, which was told. It answered with its link, or nothing where it has none yet.
    Taken(String),
    /// It cannot be found out.
    Unknown,
}

/// Becomes the one session called `name`, or tells `text` to the one that there is.
pub fn take_turn(name: &str, text: &str) -> Turn {
    let Ok(address) = SocketAddr::from_abstract_name(name) else { return Turn::Unknown };
    // Between two tries a session may end.
    for _ in 0..16 {
        match UnixListener::bind_addr(&address) {
            Ok(listener) if listener.set_nonblocking(true).is_ok() => return Turn::Ours(Visitors(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            _ => return Turn::Unknown,
        }
        match visit(&address, text) {
            Ok(Some(link)) => return Turn::Taken(link),
            // Another user's, who wants to keep us from having one.
            Ok(None) => return Turn::Unknown,
            // It does not answer, but it lives.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Turn::Taken(String::new());
            }
            Err(_) => {}
        }
    }
    Turn::Unknown
}

/// Tells `text` to the session and returns its answer; nothing where it is another user's. Fails where it has gone.
fn visit(address: &SocketAddr, text: &str) -> io::Result<Option<String>> {
    let mut stream = UnixStream::connect_addr(address)?;
    if !is_own(&stream) {
        return Ok(None);
    }
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    // It says at least a new line; nothing at all says the kernel for one that has gone.
    let answer = answer.strip_suffix('\n').ok_or(ErrorKind::UnexpectedEof)?;
    Ok(Some(answer.to_owned()))
}

fn is_own(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid.as_raw() == geteuid().as_raw())
}

impl Visitors {
    /// What visitors have said since the last call. Each gets `link` for an answer.
    pub(super) fn welcome(&self, link: &str) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok((mut stream, _)) = self.0.accept() {
            let is_prepared = stream.set_nonblocking(false).and(stream.set_read_timeout(Some(PATIENCE))).is_ok();
            let mut text = String::new();
            if !is_own(&stream) || !is_prepared || (&stream).take(LONGEST).read_to_string(&mut text).is_err() {
                continue;
            }
            let _ = stream
                .set_write_timeout(Some(PATIENCE))
                .and_then(|()| stream.write_all(format!("{link}\n").as_bytes()));
            said.push(text);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(what: &str) -> String {
        format!("nixkit-test-{}-{what}", std::process::id())
    }

    #[test]
    fn one_has_the_turn_and_is_told_of_the_others() {
        let name = name("turn");
        let Turn::Ours(visitors) = take_turn(&name, "first") else { panic!("it is free") };
        assert_eq!(visitors.welcome(""), [""; 0]);
        let other = std::thread::spawn({
            let name = name.clone();
            move || take_turn(&name, "second has failed")
        });
        let said = loop {
            let said = visitors.welcome("ssh x@h");
            if !said.is_empty() {
                break said;
            }
            std::thread::yield_now();
        };
        assert_eq!(said, ["second has failed"]);
        assert!(matches!(other.join().unwrap(), Turn::Taken(link) if link == "ssh x@h"));
        drop(visitors);
        assert!(matches!(take_turn(&name, "third"), Turn::Ours(_)));
    }

    #[test]
    fn a_session_that_goes_leaves_its_turn() {
        let name = name("gone");
        let Turn::Ours(visitors) = take_turn(&name, "first") else { panic!("it is free") };
        let other = std::thread::spawn({
            let name = name.clone();
            move || take_turn(&name, "second")
        });
        // It ends without an answer, whether the other one has come or not.
        drop(visitors);
        assert!(matches!(other.join().unwrap(), Turn::Ours(_)));
    }
}
