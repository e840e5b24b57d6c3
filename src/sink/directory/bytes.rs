//! Copies the data of one file, inside the kernel where it can, with its holes.
//! It must never hold a file in memory, nor go on for long without looking for a signal.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::sys::stat::FileStat;
use nix::unistd::{Whence, ftruncate, lseek, read, write};

use crate::interrupt::Interrupt;
use crate::sink::CallFailed;

/// What one call copies at most, so that a signal is noticed within a second on a slow disk.
const PIECE: usize = 16 << 20;
/// For file systems between which the kernel cannot copy.
const BUFFER: usize = 256 << 10;
/// `st_blocks` counts these, whatever the file system's blocks (stat(2)).
const STAT_BLOCK: i64 = 512;

/// Copies `stat.st_size` bytes from the beginning of `source` to `destination`, which is empty.
pub(super) fn copy(
    source: &OwnedFd,
    destination: &OwnedFd,
    stat: &FileStat,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    if stat.st_blocks * STAT_BLOCK >= stat.st_size {
        return copy_range(source, destination, 0, stat.st_size, interrupt);
    }
    // It has holes, or is compressed or kept in its inode: then there is one piece of data, and no harm done.
    let failed = |errno| CallFailed::new("cannot look for holes".to_owned(), errno);
    ftruncate(destination, stat.st_size).map_err(failed)?;
    let mut end = 0;
    while end < stat.st_size {
        let start = match lseek(source, end, Whence::SeekData) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(failed(errno).into()),
        };
        end = lseek(source, start, Whence::SeekHole).map_err(failed)?;
        copy_range(source, destination, start, end - start, interrupt)?;
    }
    Ok(())
}

fn copy_range(
    source: &OwnedFd,
    destination: &OwnedFd,
    start: i64,
    length: i64,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (mut from, mut to) = (start, start);
    let end = start + length;
    while from < end {
        interrupt.check()?;
        let piece = usize::try_from(end - from).unwrap_or(PIECE).min(PIECE);
        match copy_file_range(source, Some(&mut from), destination, Some(&mut to), piece) {
            Ok(1..) | Err(Errno::EINTR) => {}
            // Two kinds of file systems, a kernel older than 5.3, a file system that reads 0 bytes where there
            // are some (proc and its like), or a filter of system calls that does not know this one.
            Ok(0) | Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                return read_and_write(source, destination, from, end, interrupt);
            }
            Err(errno) => return Err(CallFailed::new("cannot copy data".to_owned(), errno).into()),
        }
    }
    Ok(())
}

fn read_and_write(
    source: &OwnedFd,
    destination: &OwnedFd,
    start: i64,
    end: i64,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let failed = |errno| CallFailed::new("cannot copy data".to_owned(), errno);
    lseek(source, start, Whence::SeekSet).map_err(failed)?;
    lseek(destination, start, Whence::SeekSet).map_err(failed)?;
    let mut left = usize::try_from(end - start)?;
    let mut buffer = vec![0; BUFFER.min(left)];
    while left > 0 {
        interrupt.check()?;
        let most = buffer.len().min(left);
        let mut data = match read(source, &mut buffer[..most]) {
            Ok(0) => return Err(shrunk()),
            Ok(length) => &buffer[..length],
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(failed(errno).into()),
        };
        left -= data.len();
        while !data.is_empty() {
            match write(destination, data) {
                Ok(length) => data = &data[length..],
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno).into()),
            }
        }
    }
    Ok(())
}

fn shrunk() -> anyhow::Error {
    anyhow::anyhow!("it became shorter while it was copied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn data_and_holes_come_out_as_they_were(
            pieces in prop::collection::vec((0_u64..200, prop::collection::vec(any::<u8>(), 1..5000)), 0..6),
            tail in 0_u64..100_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (from, to, again) =
                (folder.path().join("from"), folder.path().join("to"), folder.path().join("again"));
            let mut file = File::create(&from).unwrap();
            for (gap, data) in &pieces {
                file.seek(SeekFrom::Current(i64::try_from(gap * 4096).unwrap())).unwrap();
                file.write_all(data).unwrap();
            }
            let length = file.stream_position().unwrap() + tail;
            file.set_len(length).unwrap();
            let source = OwnedFd::from(File::open(&from).unwrap());
            let stat = fstat(&source).unwrap();
            let interrupt = Interrupt::default();
            copy(&source, &OwnedFd::from(File::create(&to).unwrap()), &stat, &interrupt).unwrap();
            prop_assert!(std::fs::read(&to).unwrap() == std::fs::read(&from).unwrap());
            let copied = fstat(File::open(&to).unwrap()).unwrap();
            prop_assert!(copied.st_blocks <= stat.st_blocks + 8, "{} > {}", copied.st_blocks, stat.st_blocks);

            let by_hand = OwnedFd::from(File::create(&again).unwrap());
            read_and_write(&source, &by_hand, 0, stat.st_size, &interrupt).unwrap();
            prop_assert!(std::fs::read(&again).unwrap() == std::fs::read(&from).unwrap());
        }
    }
}
