//! Counters that the engine moves and a progress bar reads.
//! It must never print.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a run is. Only for showing: receipts are counted elsewhere, exactly.
#[derive(Debug, Default)]
pub struct Progress {
    store_paths: AtomicU64,
    names: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// A store path is being worked on.
    pub fn begin_store_path(&self) {
        self.store_paths.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more names, and bytes of files, are done.
    pub fn add(&self, names: u64, bytes: u64) {
        self.names.fetch_add(names, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Store paths begun, names done, bytes done.
    pub fn read(&self) -> (u64, u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.store_paths), load(&self.names), load(&self.bytes))
    }
}
