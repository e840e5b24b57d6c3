//! What is mounted where, from `/proc/self/mountinfo` (proc(5)).
//! It must never fail where `/proc` is not mounted: then nothing is known.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of the file system.
    device: String,
    /// Which directory of the file system is mounted: not `/` for a bind mount.
    root: PathBuf,
    /// Where it is mounted, as this process sees it.
    pub point: PathBuf,
    /// The type of its file system, such as `ext4`.
    pub file_system: String,
    /// The options of the file system, separated by commas.
    pub options: String,
}

/// All mounts, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Those of this process.
    pub fn read() -> Self {
        fs_err::read("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &[u8]) -> Self {
        Self(text.split(|&byte| byte == b'\n').filter_map(parse_line).collect())
    }

    /// The mount whose mount point is `path`, an absolute path without links; the topmost one.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == path)
    }

    /// The mount in which `path` lies, an absolute path without links.
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|ancestor| self.at(ancestor))
    }

    /// Whether `path` is `directory` or lies in it on the disk, whatever bind mounts lead there. Both are
    /// absolute paths without links.
    pub fn is_within(&self, path: &Path, directory: &Path) -> bool {
        let on_disk = |path: &Path| {
            let mount = self.holding(path)?;
            Some((&mount.device, mount.root.join(path.strip_prefix(&mount.point).ok()?)))
        };
        match (on_disk(path), on_disk(directory)) {
            (Some((device, path)), Some((other, directory))) => device == other && path.starts_with(directory),
            _ => path.starts_with(directory),
        }
    }

    /// Whether `path`, an absolute path without links, lies in a layer of the container that this process runs in, and
    /// not in a volume or a file system of the machine: then it goes with the container. Engines store layers with
    /// overlayfs; where they use something else, the whole root is one mount and has the engine's mark.
    pub fn is_in_container_layer(&self, path: &Path) -> bool {
        let marks = ["/.dockerenv", "/run/.containerenv"].map(Path::new);
        self.is_layer(path, marks.iter().any(|mark| mark.exists()))
    }

    fn is_layer(&self, path: &Path, is_container: bool) -> bool {
        self.holding(path)
            .is_some_and(|mount| mount.file_system == "overlay" || (is_container && mount.point == Path::new("/")))
    }

    /// Whether something is mounted at or below `path`, an absolute path without links.
    pub fn any_within(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount.point.starts_with(path))
    }
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let root = fields.next()?;
    let point = fields.next()?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        device: text(device),
        root: OsString::from_vec(unescape(root)).into(),
        point: OsString::from_vec(unescape(point)).into(),
        file_system: text(rest.next()?),
        options: text(rest.nth(1).unwrap_or_default()),
    })
}

/// Blank, tab, newline and backslash stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
23 22 0:21 / /proc rw,nosuid shared:5 master:2 - proc proc rw\n\
30 22 0:40 / /mnt/two\\040words\\134x rw - overlay overlay rw,lowerdir=/a,redirect_dir=on\n\
31 22 0:41 / /mnt rw - tmpfs tmpfs rw,size=4k\n\
32 22 0:42 / /mnt rw - xfs /dev/loop0 rw\n\
rubbish\n\
33 22 0:42 / /no-separator rw xfs\n";

    #[test]
    fn mounts_are_found_by_point_and_by_what_lies_in_them() {
        let mounts = Mounts::parse(TABLE);
        assert_eq!(mounts.0.len(), 5);
        let overlay = mounts.at(Path::new("/mnt/two words\\x")).unwrap();
        assert_eq!(
            (overlay.file_system.as_str(), overlay.options.as_str()),
            ("overlay", "rw,lowerdir=/a,redirect_dir=on")
        );
        assert_eq!(mounts.at(Path::new("/mnt")).unwrap().file_system, "xfs");
        assert_eq!(mounts.at(Path::new("/mnt/other")), None);
        for (path, file_system) in [("/mnt/a/b", "xfs"), ("/mnt", "xfs"), ("/mntx", "ext4"), ("/proc/1", "proc")] {
            assert_eq!(mounts.holding(Path::new(path)).unwrap().file_system, file_system, "{path}");
        }
        for (path, within) in [("/mnt", true), ("/mnt/two words\\x", true), ("/mnt/two", false), ("/home", false)] {
            assert_eq!(mounts.any_within(Path::new(path)), within, "{path}");
        }
        assert_eq!(Mounts::default().holding(Path::new("/")), None);
    }

    #[test]
    fn a_layer_is_on_overlayfs_or_the_root_of_a_container() {
        let mounts = Mounts::parse(TABLE);
        for (path, is_container, expected) in [
            ("/mnt/two words\\x/nix/store", false, true),
            ("/mnt/two words\\x/nix/store", true, true),
            ("/nix/store", false, false),
            ("/nix/store", true, true),
            ("/mnt/nix/store", true, false),
        ] {
            assert_eq!(mounts.is_layer(Path::new(path), is_container), expected, "{path} {is_container}");
        }
        assert!(!Mounts::default().is_layer(Path::new("/nix/store"), true));
    }

    #[test]
    fn bind_mounts_do_not_hide_where_a_path_lies() {
        let mounts = Mounts::parse(
            b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /nix/store/x/sub /mnt/b rw - ext4 a rw\n3 1 8:2 / /nix rw - xfs b rw\n\
              4 1 8:2 /store/x /mnt/c rw - xfs b rw\n5 1 0:9 / /nix/store/y/tmp rw - tmpfs t rw\n",
        );
        let store = Path::new("/nix/store");
        for (path, within) in [
            ("/nix/store", true),
            ("/nix/store/x/y", true),
            ("/mnt/c/deep", true),
            ("/mnt/c", true),
            // On the disk this one lies in a directory that another mount hides.
            ("/mnt/b", false),
            ("/nix/storeroom", false),
            ("/nix", false),
            // Another file system, mounted inside: nothing of it is in the store.
            ("/nix/store/y/tmp/z", false),
        ] {
            assert_eq!(mounts.is_within(Path::new(path), store), within, "{path}");
        }
        assert!(Mounts::default().is_within(Path::new("/nix/store/x"), store));
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mounts::parse(&text);
            let _ = unescape(&text);
        }
    }
}
