//! What became of the store's inodes that have several names: they are one inode in the root too.
//! It must never touch the disk.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sink::link::Method;

/// Locks over which the inodes are spread.
const SHARDS: usize = 64;

/// Device and inode number.
pub(super) type Inode = (u64, u64);

/// Where an inode of the store went.
#[derive(Default)]
pub(super) struct Placed {
    /// A name that it has in the root, relative to the root's store, for others to be linked to, and the way
    /// it came there. `None` where it was linked from the store, as its other names can be.
    pub(super) first: Option<(Box<[u8]>, Method)>,
}

/// What became of the inodes with several names. A lock is held while a name is made, so that the names
/// that other threads meet have something to link to.
pub(super) struct Inodes(Vec<Mutex<HashMap<Inode, Placed>>>);

impl Default for Inodes {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Inodes {
    pub(super) fn shard(&self, inode: Inode) -> MutexGuard<'_, HashMap<Inode, Placed>> {
        let shard = usize::try_from(inode.1 % SHARDS as u64).unwrap_or_default();
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first time that `inode` is met.
    pub(super) fn is_new(&self, inode: Inode) -> bool {
        let mut new = false;
        self.shard(inode).entry(inode).or_insert_with(|| {
            new = true;
            Placed::default()
        });
        new
    }
}
