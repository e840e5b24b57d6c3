//! Where the stress tests write, what that takes, and what a run is measured by.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::{Export, FileSystem, Kind, Receipt, Store, call, folder};

/// What an export may have in memory at its peak, however large the closure.
const MOST_MEMORY: u64 = 200 << 20;
/// Free disk, for the images of file systems: no test writes more, and one runs after the other.
const DISK: u64 = 4 << 30;
/// Free memory: a million inodes and their copies lie on a tmpfs.
const MEMORY: u64 = 5 << 30;

/// Tells what was measured, whatever the test runner keeps for itself.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("stress: {text}\n").as_bytes());
}

/// An ext4, xfs or btrfs of so many MiB on the disk. The image is sparse.
pub(crate) fn on_disk(kind: Kind, mebibytes: u64, options: &str) -> FileSystem {
    let images = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let free = call("df", [&"--block-size=1", &"--output=avail", &images]);
    let free = free.lines().last().unwrap().trim().parse::<u64>().unwrap() >> 20;
    let needed = DISK >> 20;
    assert!(free >= needed, "the stress tests need {needed} MiB free at `{}`, where {free} MiB are", images.display());
    FileSystem::image(kind, mebibytes, options, images).unwrap_or_else(|why| panic!("{why}"))
}

/// A tmpfs for any number of inodes.
pub(crate) fn in_memory() -> FileSystem {
    let text = fs_err::read_to_string("/proc/meminfo").unwrap();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let free = available.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10;
    let needed = MEMORY >> 20;
    assert!(free >= needed, "the stress tests need {needed} MiB of memory, and {free} MiB are available");
    FileSystem::tmpfs("size=100%,nr_inodes=0,mode=755").expect("a tmpfs can be mounted")
}

/// Builds an attribute of `tests/fixtures/stress.nix`.
pub(crate) fn build(store: &Store, attribute: &str) -> PathBuf {
    let started = Instant::now();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stress.nix");
    let path = store.build_of(&file, attribute);
    say(&format!("Nix built `{attribute}` in {:.1} s", started.elapsed().as_secs_f64()));
    path
}

/// Exports, says what that took, and fails if it took more memory than it may.
pub(crate) fn measured(what: &str, export: Export) -> Receipt {
    let folder = folder();
    let peak = folder.path().join("peak");
    // The peak of the process itself and of the programs of Nix that it runs. That of a direct child would
    // count the pages which this process has when it forks.
    let receipt = export.under(["time", "-f", "%M", "-o", peak.to_str().unwrap()]).exports();
    let peak = fs_err::read_to_string(peak).unwrap();
    let peak = peak.trim().parse::<u64>().unwrap() << 10;
    let tenths = (peak >> 10) * 10 / 1024;
    say(&format!("{what}: {:.2} s, at most {}.{} MiB", receipt.seconds, tenths / 10, tenths % 10));
    assert!(peak <= MOST_MEMORY, "{what} had {peak} bytes in memory");
    receipt
}
