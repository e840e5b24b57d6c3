//! Compares trees by find, sort, diff and Nix's own hashes, without nixkit's help; what they say of a
//! million entries they say in seconds.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::support::{Receipt, Store, call, finish, folder};

/// Compares two directories by a line for each entry: its path, the line of the first name of its inode, and all that two
/// copies have in common. A directory's size is the file system's affair.
const COMPARE: &str = r#"
set -euo pipefail
list() {
  cd "$1"
  find . -type d -printf '%P\t%i\t%y %m %T@ %U:%G\n' -o -printf '%P\t%i\t%y %m %T@ %U:%G %s %l\n' |
    LC_ALL=C sort |
    awk -F '\t' '{ if (!($2 in first)) first[$2] = NR; print $1 "\t" first[$2] "\t" $3 }'
}
(list "$1") >"$3/one"; (list "$2") >"$3/other"
diff "$3/one" "$3/other" | head -n 20 || true
"#;

/// Where a store path lies below a root.
pub(crate) fn exported(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}

/// The exported store path has the same names, types, modes, times, owners, sizes, targets and names of one
/// inode as in the store, and the bytes that Nix has registered.
pub(crate) fn same(store: &Store, path: &Path, root: &Path) {
    let other = exported(root, path);
    let lists = folder();
    let said = call("bash", [&"-c", &COMPARE, &"bash", &path, &other, &lists.path()]);
    assert_eq!(said, "", "`{}` and `{}` differ", path.display(), other.display());
    let registered = finish(store.nix_store().args(["--query", "--hash"]).arg(path));
    let hash = call("nix-hash", [&"--type", &"sha256", &"--base32", &other]);
    assert_eq!(format!("sha256:{hash}"), registered, "NAR hash of `{}`", other.display());
}

/// The receipt says what `find` counts.
pub(crate) fn counted(store: &Store, receipt: &Receipt) {
    let root = Path::new(&receipt.root);
    let below = exported(root, &store.directory);
    let count = |place: &Path, kind: &str| {
        call("find", [&place, &"-mindepth", &"1", &"-type", &kind, &"-printf", &"."]).len() as u64
    };
    let inside = ["f", "d", "l"].map(|kind| count(&below, kind));
    assert_eq!([receipt.files, receipt.directories, receipt.symlinks], inside, "files, directories, symlinks");
    let beside = ["f", "d", "l"]
        .map(|kind| count(root, kind))
        .iter()
        .zip(inside)
        .map(|(all, inside)| all - inside)
        .collect::<Vec<_>>();
    let told = receipt.beside_store;
    assert_eq!(beside, [told.files, told.directories, told.symlinks], "beside the store");
    let paths = call("find", [&below, &"-mindepth", &"1", &"-maxdepth", &"1", &"-printf", &"."]).len() as u64;
    assert_eq!(receipt.store_paths, paths);
    let bytes = r#"find "$1" -type f -printf '%i %s\n' | sort -u | awk '{ sum += $2 } END { printf "%.0f", sum }'"#;
    assert_eq!(receipt.bytes.to_string(), call("sh", [&"-c", &bytes, &"sh", &below]), "bytes of the inodes");
    let ways = [receipt.hard_linked, receipt.reflinked, receipt.copied];
    assert_eq!(ways.iter().map(|way| way.count).sum::<u64>(), receipt.files + receipt.symlinks);
    assert_eq!(ways.iter().map(|way| way.bytes).sum::<u64>(), receipt.bytes);
}

/// Where a file has data, as offsets at which it begins and ends.
pub(crate) fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = fs_err::File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut found = Vec::new();
    let mut end = 0;
    while end < size {
        match seek(&file, SeekFrom::Data(end)) {
            Ok(start) => {
                end = seek(&file, SeekFrom::Hole(start)).unwrap();
                found.push((start, end));
            }
            Err(Errno::NXIO) => break,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    found
}

/// The files of the store path have their holes in the root too, and take no more blocks there.
pub(crate) fn same_holes(path: &Path, root: &Path) {
    let mut holes = 0;
    for name in crate::support::names(path) {
        let (one, other) = (path.join(&name), exported(root, path).join(&name));
        let there = data(&one);
        assert_eq!(data(&other), there, "where `{name}` has data");
        let [blocks, copied] = [&one, &other].map(|path| fs_err::metadata(path).unwrap().blocks());
        // A file of many pieces may need a block more or less to know where they are.
        assert!(copied <= blocks + 8, "`{name}`: {copied} blocks instead of {blocks}");
        let size = fs_err::metadata(&one).unwrap().len();
        holes += size - there.iter().map(|(start, end)| end.min(&size) - start).sum::<u64>();
    }
    assert!(holes > 0, "the store's own files have no holes");
}
