//! What became of the store's inodes that have several names: they are one inode in the root too.
//! It must never touch the disk.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sink::link::{MOST_NAMES, Method};

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
    /// How many names that file has in the root.
    pub(super) names: u32,
    /// How many names in the root are links to the store's inode, where that has more than [`MOST_NAMES`].
    pub(super) linked: u32,
}

impl Placed {
    /// The file to link the next name to. `None` where there is no such file, or it has [`MOST_NAMES`].
    pub(super) fn to_link(&self) -> Option<(&[u8], Method)> {
        let (first, method) = self.first.as_ref()?;
        (self.names < MOST_NAMES).then_some((first, *method))
    }

    /// Makes the file at `path` the one to which the next names are linked.
    pub(super) fn start(&mut self, path: Vec<u8>, method: Method) {
        self.first = Some((path.into(), method));
        self.names = 1;
    }
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
