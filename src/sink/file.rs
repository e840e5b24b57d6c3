//! Writes one file that the user named: under a temporary name, then by rename, so that it is whole or as before.
//! It must never rename over what is no regular file, such as `/dev/stdout`.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use fs_err as fs;

use crate::failure::shown;

/// Writes `contents` to `path`, following links.
pub fn write(path: &Path, contents: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{}`", shown(path));
    let place = match fs::canonicalize(path) {
        Ok(place) if fs::metadata(&place).with_context(failed)?.is_file() => place,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        // A device or a pipe takes what is written; a directory says what it is.
        _ => return std::fs::write(path, contents).with_context(failed),
    };
    let name = place.file_name().unwrap_or_default();
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".nixkit-{}", std::process::id()));
    let temporary = place.with_file_name(temporary);
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(contents.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &place));
    if written.is_err() {
        // It may not even have been made.
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_devices_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write(&file, "one").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        write(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write(Path::new("/dev/null"), "gone").unwrap();
        assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
        let error = format!("{:#}", write(folder.path(), "x").unwrap_err());
        assert!(error.contains("Is a directory"), "{error}");
        let error = format!("{:#}", write(&folder.path().join("missing/file"), "x").unwrap_err());
        assert!(error.contains("cannot write `") && error.contains("No such file"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }
}
