//! Input that makes no sense, and a store that is not as it should be: a clear error, and nothing is written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::support::{
    Export, FileSystem, Store, Tree, call, folder, names, remove, root_for, same_shape, script, set_mode,
};

fn error(text: &str) -> String {
    format!("export-profile: error: {text}\n")
}

#[test]
fn words_that_make_no_sense_are_usage_errors() {
    let (store, path) = Store::shared();
    let folder = folder();
    let help = "\n\nFor more information, try '--help'.";
    let usage = |words: &str| format!("\n\nUsage: export-profile {words}{help}");
    let hint = "\nhint: `export-profile --help` explains the options";
    for (arguments, message) in [
        (
            &["--lost", "x"][..],
            "unexpected argument '--lost' found\n\n  tip: to pass '--lost' as a value, use '-- --lost'".to_owned()
                + &usage("--profile <PATH> [ROOT]"),
        ),
        (&["x", "y"], "unexpected argument 'y' found".to_owned() + &usage("[OPTIONS] [ROOT]")),
        (
            &[],
            "the following required arguments were not provided:\n  <ROOT>".to_owned()
                + &usage("--profile <PATH> <ROOT>"),
        ),
        (&["--jobs", "0", "x"], format!("invalid value '0' for '--jobs <N>': 0 is not in 1..=1024{help}")),
        (&["--jobs", "few", "x"], format!("invalid value 'few' for '--jobs <N>': invalid digit found in string{help}")),
        (
            &["--link-mode", "soft", "x"],
            format!(
                "invalid value 'soft' for '--link-mode <MODE>'\n  [possible values: auto, hardlink, reflink, copy]{help}"
            ),
        ),
        (&[""], format!("a value is required for '[ROOT]' but none was supplied{help}")),
        (
            &["--quiet", "--verbose", "x"],
            "the argument '--quiet' cannot be used with '--verbose'".to_owned()
                + &usage("--profile <PATH> --quiet <ROOT>"),
        ),
        (
            &["--dry-run", "--sync"],
            "the argument '--dry-run' cannot be used with '--sync'".to_owned()
                + &usage("--profile <PATH> --dry-run [ROOT]"),
        ),
        (
            &["--dry-run", "--verify"],
            "the argument '--dry-run' cannot be used with '--verify'".to_owned()
                + &usage("--profile <PATH> --dry-run [ROOT]"),
        ),
        (
            &["--store-only", "--profile-path", "/x", "y"],
            "the argument '--store-only' cannot be used with '--profile-path <PATH>'".to_owned()
                + &usage("--profile <PATH> --store-only <ROOT>"),
        ),
        (
            &["--profile-path", "run", "x"],
            format!("`run` cannot be the profile's path: it must be absolute, without `..`, and not `/`{hint}"),
        ),
        (
            &["--profile-path", "/etc/deep/hosts", "x"],
            format!("`--profile-path` puts the profile where `/etc/deep/hosts` goes{hint}"),
        ),
        (&["--profile-path", "/bin", "x"], format!("`--profile-path` puts the profile where `/bin/sh` goes{hint}")),
    ] {
        let mut export = Export::new(store).profile(path).current_dir(folder.path());
        for argument in arguments {
            export = export.arg(argument);
        }
        export.run().is(2, "", &error(&message));
        assert_eq!(names(folder.path()), [""; 0], "{arguments:?}");
    }
}

#[test]
fn variables_that_make_no_sense_are_errors() {
    let (store, path) = Store::shared();
    let folder = folder();
    for (variable, value, message) in [
        ("SOURCE_DATE_EPOCH", "soon", "SOURCE_DATE_EPOCH is `soon`, which is no number of seconds"),
        ("SOURCE_DATE_EPOCH", "-1", "SOURCE_DATE_EPOCH is `-1`, which is no number of seconds"),
        ("SOURCE_DATE_EPOCH", "1\n", "SOURCE_DATE_EPOCH is `1\\n`, which is no number of seconds"),
        ("NIX_STORE_DIR", "store", "`store` (NIX_STORE_DIR or NIX_STORE) is no store directory: it is not absolute"),
    ] {
        let export = Export::new(store).profile(path).env(variable, value);
        export.root(folder.path().join("root")).refuses(1, &error(message));
    }
}

#[test]
fn a_root_that_cannot_be_one_is_refused() {
    let (store, path) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs_err::create_dir(at("full")).unwrap();
    fs_err::write(at("full").join(OsStr::from_bytes(b"two\nlines\xff")), "").unwrap();
    fs_err::write(at("file"), "").unwrap();
    fs_err::create_dir(at("empty")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink(&store.directory, at("store")).unwrap();
    symlink("full", at("link")).unwrap();
    let (directory, shown) = (&store.directory, store.directory.display());
    let inside = format!("it lies inside the store directory `{shown}`");
    let not_empty = |name: &str, holds: &str| {
        format!(
            "it is not empty (it holds `{holds}`)\nhint: name a directory that is empty or does not exist; \
             nothing is ever overwritten|{}",
            at(name).display()
        )
    };
    for (root, message) in [
        (at("full"), not_empty("full", "two\\nlines\\xff")),
        (at("link"), not_empty("full", "two\\nlines\\xff")),
        (at("file"), "it exists and is no directory".to_owned()),
        (
            at("file/root"),
            format!("failed to query raw metadata `{}`: Not a directory (os error 20)", at("file/root").display()),
        ),
        (
            at("dangling"),
            format!(
                "failed to canonicalize path `{}`: No such file or directory (os error 2)",
                at("dangling").display()
            ),
        ),
        (
            at("missing/root"),
            format!("its parent `{0}` does not exist\nhint: make it first: mkdir -p {0}", at("missing").display()),
        ),
        (directory.join("root"), inside.clone()),
        (path.join("root"), inside.clone()),
        (path.join("etc/deep"), inside.clone()),
        (directory.clone(), inside.clone()),
        (at("store"), inside.clone()),
        (at("store/root"), inside.clone()),
        ("/".into(), "it is the root directory of this system".to_owned()),
        (at("nothing/.."), "it does not end in a name".to_owned()),
    ] {
        // Where the path is shown as it really is, that stands behind a bar.
        let (message, real) = message.split_once('|').unwrap_or((&message, root.to_str().unwrap()));
        let before = names(folder.path());
        let export = Export::new(store).profile(path).arg("--dry-run").root(&root);
        let message = error(&format!("cannot export to `{real}`: {message}"));
        export.run().is(1, "", &message);
        Export::new(store).profile(path).root(&root).run().is(1, "", &message);
        assert_eq!(names(folder.path()), before);
        assert!(!directory.join("root").exists() && !path.join("root").exists());
    }
    assert_eq!(names(&at("full")).len(), 1);
}

#[test]
fn a_root_in_the_store_is_found_through_a_bind_mount() {
    let (store, path) = Store::with("small");
    let Some(bind) = FileSystem::bind(&store.directory) else { return };
    let root = bind.point.join("root");
    let message = format!(
        "cannot export to `{}`: it lies inside the store directory `{}`",
        root.display(),
        store.directory.display()
    );
    Export::new(&store).profile(&path).root(&root).refuses(1, &error(&message));
}

#[test]
fn a_parent_that_is_not_writable_is_told_before_anything_else() {
    if !root_for("another user") {
        return;
    }
    let (store, path) = Store::shared();
    let folder = folder();
    let parent = folder.path().display();
    let root = folder.path().join("root");
    let message =
        format!("cannot export to `{}`: `{parent}` is not writable: Permission denied (EACCES)", root.display());
    Export::new(store).by_nobody().profile(path).root(&root).refuses(1, &error(&message));
}

#[test]
fn a_root_that_a_bind_mount_puts_inside_the_store_is_refused() {
    let (store, path) = Store::with("plain");
    let before = Tree::read(&path);
    let Some(bound) = FileSystem::bind(&path) else { return };
    let root = bound.point.join("root");
    let inside = format!("it lies inside the store directory `{}`", store.directory.display());
    let message = error(&format!("cannot export to `{}`: {inside}", root.display()));
    Export::new(&store).profile(&path).root(&root).refuses(1, &message);

    // Without the table of mounts it is seen while it is copied, and all is undone.
    let hide = "mount --bind /dev/null /proc/$$/mountinfo && exec \"$@\"";
    let export = Export::new(&store).under(["unshare", "--mount", "sh", "-c", hide, "sh"]);
    let outcome = export.profile(&path).root(&root).run();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""));
    assert!(
        outcome.stderr.starts_with("export-profile: error: the root lies inside store path `"),
        "{}",
        outcome.stderr
    );
    assert_eq!(names(&path), ["share"]);
    let mut after = Tree::read(&path).shape();
    // Its own time has changed: a draft was made in it, and removed.
    after.insert("".into(), before.shape()[Path::new("")].clone());
    same_shape(&after, &before.shape());
}

#[test]
fn without_a_profile_those_looked_for_are_named() {
    if !root_for("a mount over `/nix/var/nix/profiles`") {
        return;
    }
    let (store, _) = Store::shared();
    let folder = folder();
    fs_err::create_dir_all("/nix/var/nix/profiles").unwrap();
    let passwd = folder.path().join("passwd");
    fs_err::write(&passwd, "root:x:0:0::/of-passwd:/bin/sh\n").unwrap();
    let hide = "mount -t tmpfs tmpfs /nix/var/nix/profiles && mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    let hidden = || Export::new(store).under(["unshare", "--mount", "sh", "-c", hide, passwd.to_str().unwrap()]);
    let hint =
        "hint: install something with `nix-env -i` or `nix profile install`, or name one with `--profile PATH`\n";
    // A link to nothing does not count: `nix-env` makes it before there is anything to lead to.
    symlink("nowhere", folder.path().join(".nix-profile")).unwrap();
    let home = folder.path().display();
    let all = format!(
        "no profile found; looked for `/no\\nprofile`, `{home}/.nix-profile`, `/state/nix/profile`, \
         `/nix/var/nix/profiles/default`"
    );
    let export = hidden().env("NIX_PROFILE", "/no\nprofile").env("HOME", folder.path()).env("XDG_STATE_HOME", "/state");
    export.root(folder.path().join("root")).refuses(1, &(error(&all) + hint));
    let last = "no profile found; looked for `/of-passwd/.nix-profile`, `/of-passwd/.local/state/nix/profile`, \
                `/nix/var/nix/profiles/default`";
    hidden().without("HOME").root(folder.path().join("root")).refuses(1, &(error(last) + hint));
}

const NAME_ONE: &str = "hint: name a profile, a `./result` link of `nix-build`, or a store path";

#[test]
fn a_profile_that_does_not_lead_into_the_store_is_refused() {
    let (store, path) = Store::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("/usr", at("usr")).unwrap();
    symlink(path.join("etc"), at("inside")).unwrap();
    let store_shown = store.directory.display();
    let inside = format!("it lies inside a store path\nhint: name the store path itself: `{}`", path.display());
    for (profile, message) in [
        (at("missing"), "it does not exist".to_owned()),
        (at("dangling"), format!("it leads to `{}`, which does not exist", at("nowhere").display())),
        (at("loop"), "it leads through more than 40 links or to the root directory".to_owned()),
        (at("usr"), format!("it leads to `/usr`, which is not in `{store_shown}`\n{NAME_ONE}")),
        (
            folder.path().into(),
            format!("it leads to `{}`, which is not in `{store_shown}`\n{NAME_ONE}", folder.path().display()),
        ),
        (at("inside"), inside.clone()),
        (path.join("etc/deep"), inside),
    ] {
        let message = format!("`{}` is no profile: {message}", profile.display());
        let export = Export::new(store).profile(path).profile(&profile);
        export.root(folder.path().join("root")).refuses(1, &error(&message));
    }
}

#[test]
fn a_store_path_that_is_not_valid_is_told_in_nixs_words() {
    let (store, path) = Store::with("small");
    let folder = folder();
    let invalid = store.directory.join("00000000000000000000000000000000-invalid");
    fs_err::create_dir(&invalid).unwrap();
    let answer = store.nix_store().args(["--query", "--requisites"]).arg(&invalid).output().unwrap();
    let words = String::from_utf8(answer.stderr).unwrap();
    let words = words.trim().strip_prefix("error: ").unwrap();
    assert!(words.contains("is not valid"), "{words}");
    let message = format!("`nix-store --query --requisites` failed (exit status: 1): {words}");
    let export = Export::new(&store).profile(&path).profile(&invalid);
    export.root(folder.path().join("root")).refuses(1, &error(&message));
}

#[test]
fn a_store_path_that_vanished_is_told_with_a_hint_at_garbage_collection() {
    let (store, path) = Store::with("everything");
    let closure = store.closure(&path);
    let gone = closure.iter().find(|path| path.to_str().unwrap().ends_with("-wide")).unwrap();
    set_mode(gone, 0o755);
    set_mode(&gone.join("many"), 0o755);
    remove(gone);
    let folder = folder();
    let message = format!(
        "`{}` vanished while it was copied\nhint: a garbage collection seems to have run; \
         hold the profile by a GC root and run again",
        gone.display()
    );
    for mode in ["auto", "copy"] {
        for jobs in ["1", "16"] {
            let export = Export::new(&store).profile(&path).mode(mode).args(["--jobs", jobs]);
            export.root(folder.path().join("root")).fails(1, &error(&message));
        }
    }
}

#[test]
fn without_nix_store_nothing_is_tried() {
    let (store, path) = Store::shared();
    let folder = folder();
    let message = error("cannot find `nix-store` in PATH")
        + "hint: run this where Nix is installed, such as the build stage of a Dockerfile\n";
    // A file that cannot be run is none.
    fs_err::write(folder.path().join("nix-store"), "").unwrap();
    let export = Export::new(store).profile(path).root(folder.path().join("root"));
    export.clone().env("PATH", folder.path()).refuses(1, &message);
    export.env("PATH", "").refuses(1, &message);
}

/// A `nix-store` in a folder of its own, which does `text` when called with `flag` and else what Nix does.
fn fake_nix_store(folder: &Path, flag: &str, text: &str) {
    let real = which::which("nix-store").unwrap();
    let text = format!("case \" $* \" in *' {flag} '*) {text};; *) exec {} \"$@\";; esac", real.display());
    script(&folder.join("nix-store"), &text);
}

#[test]
fn a_nix_store_that_fails_is_quoted() {
    let (store, path) = Store::shared();
    let (folder, bin) = (folder(), folder());
    for (flag, text, message) in [
        ("--query", "echo 'error: boom' >&2; exit 1", "`nix-store --query --requisites` failed (exit status: 1): boom"),
        (
            "--query",
            "echo one >&2; echo two >&2; exit 3",
            "`nix-store --query --requisites` failed (exit status: 3): one\ntwo",
        ),
        (
            "--query",
            "echo dying >&2; kill -KILL $$",
            "`nix-store --query --requisites` failed (signal: 9 (SIGKILL)): dying",
        ),
        (
            "--dump-db",
            "echo 'error: no database' >&2; exit 1",
            "`nix-store --dump-db` failed (exit status: 1): no database",
        ),
    ] {
        fake_nix_store(bin.path(), flag, text);
        let export = Export::new(store).nix_store_in(bin.path()).profile(path).arg("--verify");
        export.root(folder.path().join("root")).fails(1, &error(message));
    }
}

#[test]
fn an_answer_of_nix_that_makes_no_sense_is_refused() {
    let (store, path) = Store::shared();
    let (folder, bin) = (folder(), folder());
    let outside = "is no store path: it does not lie in the store directory";
    let query = "cannot understand `nix-store --query --requisites`";
    let base_name = path.file_name().unwrap().to_str().unwrap();
    for (flag, text, message) in [
        ("--query", "echo rubbish", format!("{query}: `rubbish` {outside}")),
        ("--query", "echo /other/store/x", format!("{query}: `/other/store/x` {outside}")),
        (
            "--query",
            "printf '\\377'",
            "`nix-store --query --requisites` printed text that is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0".to_owned(),
        ),
        ("--query", "true", format!("`nix-store --query --requisites` did not answer for `{base_name}`")),
        (
            "--dump-db",
            "echo rubbish",
            format!("cannot understand `nix-store --dump-db`: line 1 of the registration: `rubbish` {outside}"),
        ),
        ("--dump-db", "true", "`nix-store --dump-db` answered for 0 of 9 paths".to_owned()),
    ] {
        fake_nix_store(bin.path(), flag, text);
        let export = Export::new(store).nix_store_in(bin.path()).profile(path).arg("--verify");
        export.root(folder.path().join("root")).fails(1, &error(&message));
    }
}

#[test]
fn what_no_store_path_can_hold_is_refused() {
    let (store, path) = Store::with("small");
    set_mode(&path, 0o755);
    let folder = folder();
    let special = path.join("two\nlines");
    let mut kinds = vec![(SFlag::S_IFIFO, "FIFO"), (SFlag::S_IFSOCK, "socket")];
    if root_for("a device in a store path") {
        kinds.extend([(SFlag::S_IFCHR, "device"), (SFlag::S_IFBLK, "device")]);
    }
    for (kind, name) in kinds {
        mknod(&special, kind, Mode::S_IRUSR, 0).unwrap();
        let message = format!("`{}/two\\nlines` is a {name}; a store path cannot hold one", path.display());
        for mode in ["auto", "copy"] {
            let export = Export::new(&store).profile(&path).mode(mode);
            export.root(folder.path().join("root")).fails(1, &error(&message));
        }
        fs_err::remove_file(&special).unwrap();
    }
    // In the place of a store path itself.
    remove(&path);
    call("mkfifo", [&path]);
    let message = format!("`{}` is a FIFO; a store path cannot hold one", path.display());
    Export::new(&store).profile(&path).root(folder.path().join("root")).fails(1, &error(&message));
}
