//! ROOT is a mount point, which rename(2) cannot replace: its entries are renamed into it, `run` last.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::{
    Entry, Export, FileSystem, Kind, Store, Tree, call, folder, judge, names, same_shape, script, set_mode,
};

const DRAFT: &str = ".mnt.nixkit-0123456789abcdef";

fn export(root: &Path) -> Export {
    let (store, profile) = Store::shared();
    Export::new(store).profile(profile).root(root)
}

/// What [`Export::exports`] leaves in a mount point that was empty.
fn top_of(store: &Store) -> Vec<String> {
    let first = store.directory.iter().nth(1).unwrap().to_str().unwrap();
    let mut names =
        ["bin", "dev", "etc", "home", "nix", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var", first]
            .map(String::from)
            .to_vec();
    names.sort();
    names.dedup();
    names
}

#[test]
fn an_empty_ext4_with_lost_and_found_becomes_the_root() {
    let Some(ext4) = FileSystem::ext4(64) else { return };
    let (store, profile) = Store::shared();
    set_mode(&ext4.point, 0o750);
    let lost_and_found = Entry::read(&ext4.point.join("lost+found"));
    let receipt = export(&ext4.point).env("SOURCE_DATE_EPOCH", "1700000000").exports();
    assert_eq!(Entry::read(&ext4.point.join("lost+found")), lost_and_found);
    fs_err::remove_dir(ext4.point.join("lost+found")).unwrap();
    judge(store, &[profile], &receipt);
    assert_eq!(names(&ext4.point), top_of(store));
    assert_eq!(Entry::read(&ext4.point).mode, 0o750, "a mount point keeps its mode");

    let message = "it is not empty (it holds `";
    let again = export(&ext4.point).run();
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains(message), "{}", again.stderr);
    assert_eq!(names(&ext4.point), top_of(store));
}

#[test]
fn a_bind_mount_becomes_the_root() {
    let folder = folder();
    let Some(bind) = FileSystem::bind(folder.path()) else { return };
    let (store, profile) = Store::shared();
    let receipt = export(&bind.point).arg("--verify").exports();
    judge(store, &[profile], &receipt);
    assert_eq!(names(folder.path()), top_of(store));
    // link(2) knows no way from one mount to another, be it of one file system.
    assert_eq!(receipt.hard_linked.count, 0);
}

#[test]
fn with_store_only_and_with_another_profile_path_the_root_is_complete_too() {
    let (store, profile) = Store::shared();
    for arguments in [&["--store-only"][..], &["--profile-path", "/app"]] {
        let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
        let mut export = export(&tmpfs.point);
        for argument in arguments {
            export = export.arg(argument);
        }
        let receipt = export.exports();
        judge(store, &[profile], &receipt);
    }
}

#[test]
fn what_comes_between_is_left_alone_and_nothing_else_stays() {
    let (store, profile) = Store::shared();
    let real = which::which("nix-store").unwrap();
    // At the end of the copying somebody else makes a `usr`, which is moved after `bin` and `etc`. A plain
    // rename would replace an empty one.
    for (theirs, expected) in [("echo theirs >usr/file", &["file"][..]), ("true", &[])] {
        let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
        let bin = folder();
        let text = format!(
            "case $1 in --dump-db) (cd {}; mkdir usr; {theirs});; esac; exec {} \"$@\"",
            tmpfs.point.display(),
            real.display()
        );
        script(&bin.path().join("nix-store"), &text);
        let export = Export::new(store).nix_store_in(bin.path()).profile(profile).arg("--verify");
        let outcome = export.root(&tmpfs.point).run();
        assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
        assert!(outcome.stderr.starts_with("export-profile: error: cannot rename `"), "{}", outcome.stderr);
        let hint = "\nhint: something was put there while the export ran\n";
        assert!(outcome.stderr.contains("/usr`: ") && outcome.stderr.ends_with(hint), "{}", outcome.stderr);
        assert_eq!(names(&tmpfs.point), ["usr"]);
        assert_eq!(names(&tmpfs.point.join("usr")), expected);
    }
}

/// Each name with its inode number and time, as `src/sink/draft.rs` writes it before it moves the first.
fn journal(entries: &[(&str, &Path)]) -> Vec<u8> {
    let mut journal = Vec::new();
    for (name, path) in entries {
        let metadata = fs_err::symlink_metadata(path).unwrap();
        journal.extend_from_slice(format!("{} {} {name}\0", metadata.ino(), metadata.mtime()).as_bytes());
    }
    journal
}

#[test]
fn a_run_killed_while_it_published_is_undone_by_the_next() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let (store, profile) = Store::shared();
    let draft = tmpfs.point.join(DRAFT);
    // `bin` and `etc` had been moved, `run` had not.
    for directory in [tmpfs.point.join("bin"), tmpfs.point.join("etc"), draft.join("run")] {
        fs_err::create_dir_all(directory.join("something")).unwrap();
    }
    let moved = [("bin", tmpfs.point.join("bin")), ("etc", tmpfs.point.join("etc")), ("run", draft.join("run"))];
    let moved = moved.each_ref().map(|(name, path)| (*name, path.as_path()));
    fs_err::write(draft.join(".publishing"), journal(&moved)).unwrap();
    let receipt = export(&tmpfs.point).exports();
    judge(store, &[profile], &receipt);
    assert_eq!(names(&tmpfs.point), top_of(store));
}

#[test]
fn what_is_mounted_in_what_was_moved_is_not_reached() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let draft = tmpfs.point.join(DRAFT);
    fs_err::create_dir_all(draft.join("run")).unwrap();
    fs_err::create_dir_all(tmpfs.point.join("nix/sub")).unwrap();
    // Of the same file system, so that only the mount tells it apart.
    fs_err::create_dir(tmpfs.point.join("lost+found")).unwrap();
    fs_err::write(tmpfs.point.join("lost+found/kept"), "").unwrap();
    crate::support::call("mount", [&"--bind", &tmpfs.point.join("lost+found"), &tmpfs.point.join("nix/sub")]);
    let moved = [("nix", tmpfs.point.join("nix")), ("run", draft.join("run"))];
    let moved = moved.each_ref().map(|(name, path)| (*name, path.as_path()));
    fs_err::write(draft.join(".publishing"), journal(&moved)).unwrap();
    let outcome = export(&tmpfs.point).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    let warning =
        format!("export-profile: warning: `{}` of a dead run stays: something is mounted in it\n", draft.display());
    assert!(outcome.stderr.starts_with(&warning), "{}", outcome.stderr);
    assert_eq!(names(&tmpfs.point.join("lost+found")), ["kept"]);
    assert_eq!(names(&tmpfs.point.join("nix/sub")), ["kept"]);

    // Nor where the table of mounts cannot be read.
    let hide = "mount --bind /dev/null /proc/$$/mountinfo && exec \"$@\"";
    let outcome = export(&tmpfs.point).under(["unshare", "--mount", "sh", "-c", hide, "sh"]).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("cannot remove `"), "{}", outcome.stderr);
    assert_eq!(names(&tmpfs.point.join("lost+found")), ["kept"]);
    crate::support::call("umount", [&tmpfs.point.join("nix/sub")]);
}

#[test]
fn what_others_put_in_the_place_of_what_was_moved_is_not_removed() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let draft = tmpfs.point.join(DRAFT);
    fs_err::create_dir_all(draft.join("run")).unwrap();
    fs_err::create_dir_all(tmpfs.point.join("bin")).unwrap();
    fs_err::write(tmpfs.point.join("bin/theirs"), "").unwrap();
    // The inode in the journal is another one, or the time is, and one entry leads out of the root.
    let mut text = journal(&[("bin", &draft.join("run")), ("run", &draft.join("run"))]);
    let metadata = fs_err::metadata(tmpfs.point.join("bin")).unwrap();
    text.extend_from_slice(format!("{} {} bin\0", metadata.ino(), metadata.mtime() - 1).as_bytes());
    let outside = folder();
    let metadata = fs_err::metadata(outside.path()).unwrap();
    text.extend_from_slice(format!("{} {} ../", metadata.ino(), metadata.mtime()).as_bytes());
    text.extend_from_slice(outside.path().as_os_str().as_bytes());
    text.push(0);
    fs_err::write(draft.join(".publishing"), text).unwrap();
    let outcome = export(&tmpfs.point).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("it is not empty (it holds `bin`)"), "{}", outcome.stderr);
    assert_eq!(names(&tmpfs.point), ["bin"]);
    assert_eq!(names(&tmpfs.point.join("bin")), ["theirs"]);
    assert!(outside.path().is_dir());
}

#[test]
fn a_run_killed_after_it_published_only_loses_its_draft() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let (store, _) = Store::shared();
    export(&tmpfs.point).exports();
    let whole = Tree::read(&tmpfs.point).shape();
    let draft = tmpfs.point.join(DRAFT);
    fs_err::create_dir(&draft).unwrap();
    let paths: Vec<_> = top_of(store).into_iter().map(|name| (tmpfs.point.join(&name), name)).collect();
    let entries: Vec<_> = paths.iter().map(|(path, name)| (name.as_str(), path.as_path())).collect();
    fs_err::write(draft.join(".publishing"), journal(&entries)).unwrap();
    let outcome = export(&tmpfs.point).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("it is not empty (it holds `"), "{}", outcome.stderr);
    assert_eq!(names(&tmpfs.point), top_of(store));
    let mut after = Tree::read(&tmpfs.point).shape();
    // The mount point itself has lost an entry.
    after.insert("".into(), whole[Path::new("")].clone());
    same_shape(&after, &whole);
}

#[test]
fn a_kill_at_any_moment_leaves_run_only_where_all_is_there() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let (store, profile) = Store::with("first");
    let export = Export::new(&store).profile(&profile).mode("copy").arg("--quiet").root(&tmpfs.point);
    let empty = || call("find", [&tmpfs.point, &"-mindepth", &"1", &"-delete"]);
    export.run().is(0, "", "");
    let whole = Tree::read(&tmpfs.point).shape();
    empty();
    let mut killed = 0;
    let mut runs = 0;
    // On a busy machine an export may end before the signal comes.
    while runs < 40 || killed == 0 {
        runs += 1;
        assert!(runs < 1000, "no run was killed");
        let mut running = export.start();
        // As soon as anything is moved into place.
        while !running.has_ended() && names(&tmpfs.point).iter().all(|name| name.starts_with(".mnt.nixkit-")) {}
        running.signal_if_it_lives(Signal::SIGKILL);
        killed += i32::from(running.wait().status.code().is_none());
        if tmpfs.point.join("run").exists() {
            let mut tree = Tree::read(&tmpfs.point);
            // Killed before it could clear its draft away or stamp the mount point.
            tree.0.retain(|path, _| !path.to_str().unwrap().starts_with('.'));
            let mut shape = tree.shape();
            shape.insert("".into(), whole[Path::new("")].clone());
            same_shape(&shape, &whole);
            empty();
        }
    }
    export.run().is(0, "", "");
    same_shape(&Tree::read(&tmpfs.point).shape(), &whole);
}

#[test]
fn two_runs_in_one_mount_point_exclude_each_other() {
    let Some(tmpfs) = FileSystem::new(Kind::Tmpfs) else { return };
    let draft = tmpfs.point.join(DRAFT);
    fs_err::create_dir(&draft).unwrap();
    let open = std::fs::File::open(&draft).unwrap();
    let arg = nix::fcntl::FlockArg::LockExclusiveNonblock;
    let lock = nix::fcntl::Flock::lock(open, arg).map_err(|(_, errno)| errno).unwrap();
    let point = tmpfs.point.display();
    let message = format!(
        "export-profile: error: cannot export to `{point}`: it holds `{DRAFT}` of another export\n\
         hint: wait for that export to end; if none is at work, remove the folder\n"
    );
    export(&tmpfs.point).run().is(1, "", &message);
    assert_eq!(names(&tmpfs.point), [DRAFT]);
    drop(lock);
    export(&tmpfs.point).exports();
}
