//! The text that bash is about to run, looked at without taking any of it away from bash.
//! It must never consume a byte of what bash reads, nor wait where bash would not.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use nix::fcntl::{OFlag, SpliceFFlags, tee};
use nix::unistd::{Whence, lseek, pipe2};

use crate::bash::invocation::Runs;
use crate::bash::watch::Text;
use crate::supervise::Signals;

/// A longer script is not looked at in whole.
const LONGEST: usize = 256 << 10;

/// The text of what bash is to run, as far as it can be seen.
///
/// For a pipe this waits until its first bytes are there, or a signal: bash would wait for them too.
pub fn of(runs: &Runs, signals: &Signals) -> Text {
    let text = match runs {
        Runs::CommandString(Some(string)) => Some(Text { bytes: string.as_bytes().to_vec(), is_whole: true }),
        Runs::CommandString(None) => None,
        Runs::File(path) => {
            // A FIFO must not hold us, and what comes out of one is bash's.
            let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
            file.ok().and_then(|file| of_file(&file, 0))
        }
        Runs::StandardInput => {
            std::io::stdin().as_fd().try_clone_to_owned().ok().and_then(|stdin| of_stdin(stdin, signals))
        }
    };
    text.unwrap_or_default()
}

fn of_stdin(stdin: OwnedFd, signals: &Signals) -> Option<Text> {
    let file = File::from(stdin);
    let kind = file.metadata().ok()?.file_type();
    if kind.is_fifo() {
        return signals.come_after(&file).then(|| of_pipe(&file)).flatten();
    }
    let at = lseek(&file, 0, Whence::SeekCur).ok()?;
    of_file(&file, u64::try_from(at).ok()?)
}

/// Reads an ordinary file from `at` on, and leaves its position as it is.
fn of_file(file: &File, mut at: u64) -> Option<Text> {
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while bytes.len() < LONGEST {
        match file.read_at(&mut piece, at).ok()? {
            0 => return Some(Text { bytes, is_whole: true }),
            count => {
                bytes.extend_from_slice(&piece[..count]);
                at += count as u64;
            }
        }
    }
    Some(Text { bytes, is_whole: false })
}

/// Copies what is in a pipe. Whether more follows is not known.
fn of_pipe(pipe: &File) -> Option<Text> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
    // No more than fits into a pipe of the usual size.
    tee(pipe, &writing, 64 << 10, SpliceFFlags::SPLICE_F_NONBLOCK).ok()?;
    drop(writing);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::from(reading), &mut bytes).ok()?;
    Some(Text { bytes, is_whole: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_file_is_read_from_its_position_and_left_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"first\nsecond\n").unwrap();
        file.seek(std::io::SeekFrom::Start(6)).unwrap();
        let at = file.stream_position().unwrap();
        assert_eq!(of_file(&file, at), Some(Text { bytes: b"second\n".to_vec(), is_whole: true }));
        assert_eq!(file.stream_position().unwrap(), 6);
        file.write_all(&vec![b'x'; LONGEST]).unwrap();
        assert!(!of_file(&file, 0).unwrap().is_whole);
        assert_eq!(of_file(&File::open("/dev/null").unwrap(), 0), None);
        assert_eq!(of_file(&File::open("/").unwrap(), 0), None);
    }

    #[test]
    fn a_pipe_keeps_what_was_looked_at() {
        let (reading, writing) = nix::unistd::pipe().unwrap();
        let (mut reading, mut writing) = (File::from(reading), File::from(writing));
        writing.write_all(b"set -e\n").unwrap();
        assert_eq!(of_pipe(&reading), Some(Text { bytes: b"set -e\n".to_vec(), is_whole: false }));
        drop(writing);
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        assert_eq!(text, "set -e\n");
    }
}
