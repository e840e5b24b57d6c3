//! Reads a file that the user named or that was found in a project.
//! It must never block on a named pipe or a device, nor fill the memory.

use std::fmt;
use std::fs::{File, FileType, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::failure::shown;

/// Larger than any file that people write or that lists pins.
pub const LIMIT: u64 = 64 << 20;
/// Where the shell's `<(command)` and an inherited pipe are: there a pipe is meant.
const INHERITED: [&str; 3] = ["/dev/fd/", "/proc/self/fd/", "/dev/stdin"];

/// Why a file cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Io(std::io::Error),
    /// It is not a regular file, but this.
    Kind(&'static str),
    /// It has more bytes than this.
    Large(u64),
    NotText,
}

impl Unreadable {
    /// Whether the file does not exist.
    pub fn is_absence(&self) -> bool {
        matches!(&self.reason, Reason::Io(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read `{}`: ", shown(&self.path))?;
        match &self.reason {
            Reason::Io(error) => write!(f, "{error}"),
            Reason::Kind(kind) => write!(f, "it is {kind}, not a regular file"),
            Reason::Large(limit) => write!(f, "it is larger than {} MiB", limit >> 20),
            Reason::NotText => f.write_str("it is not UTF-8 text"),
        }
    }
}

// The cause is part of the message.
impl std::error::Error for Unreadable {}

/// The bytes of the file at `path`, at most `limit` of them.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unreadable> {
    read_file(path, limit).map_err(|reason| Unreadable { path: path.to_owned(), reason })
}

/// The same as text.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Unreadable> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|_| Unreadable { path: path.to_owned(), reason: Reason::NotText })
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Reason> {
    // Looked at first, since to open a device can already do something.
    let kind = std::fs::metadata(path).map_err(Reason::Io)?.file_type();
    check(path, kind)?;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
        .map_err(Reason::Io)?;
    let metadata = file.metadata().map_err(Reason::Io)?;
    check(path, metadata.file_type())?;
    if metadata.file_type().is_fifo() {
        wait_for_data(&file)?;
    }
    let mut bytes = Vec::new();
    (&mut file).take(limit + 1).read_to_end(&mut bytes).map_err(Reason::Io)?;
    if bytes.len() as u64 > limit { Err(Reason::Large(limit)) } else { Ok(bytes) }
}

/// A pipe that was opened without blocking is read like any other one.
fn wait_for_data(file: &File) -> Result<(), Reason> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty())).map(drop).map_err(|errno| Reason::Io(errno.into()))
}

fn check(path: &Path, kind: FileType) -> Result<(), Reason> {
    let is_inherited = INHERITED.iter().any(|place| path.as_os_str().as_encoded_bytes().starts_with(place.as_bytes()));
    let what = if kind.is_file() || kind.is_fifo() && is_inherited {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Reason::Kind(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_regular_files_and_inherited_pipes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "1234").unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(read(&path("file"), 4).unwrap(), b"1234");
        assert_eq!(read_text(&path("file"), LIMIT).unwrap(), "1234");
        let failed = |path: &Path| read(path, 3).unwrap_err().to_string();
        for (file, reason) in [
            (path("file"), "it is larger than 0 MiB"),
            (path("pipe"), "it is a named pipe, not a regular file"),
            (path("socket"), "it is a socket, not a regular file"),
            (path(""), "it is a directory, not a regular file"),
            (path("gone"), "No such file or directory (os error 2)"),
            ("/dev/zero".into(), "it is a device, not a regular file"),
        ] {
            assert_eq!(failed(&file), format!("cannot read `{}`: {reason}", file.display()));
        }
        assert!(read(&path("gone"), 1).unwrap_err().is_absence() && read(&path("file/x"), 1).unwrap_err().is_absence());
        assert!(!read(&path("pipe"), 1).unwrap_err().is_absence());
        std::fs::write(path("latin1"), b"\xe9").unwrap();
        assert!(read_text(&path("latin1"), 9).unwrap_err().to_string().ends_with("it is not UTF-8 text"));

        // A pipe whose writer is slow.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let inherited = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let written = std::thread::spawn(move || std::io::Write::write_all(&mut writer, b"later"));
        assert_eq!(read(&inherited, LIMIT).unwrap(), b"later");
        written.join().unwrap().unwrap();
    }
}
