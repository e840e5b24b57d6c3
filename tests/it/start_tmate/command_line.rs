//! What is refused before any session: bad words, no tmate, no server, bad keys.

use crate::support::{Fake, SessionBuilder, folder};

const NO_SERVER: &str = "hint: set `--server` and `--fingerprint`, or TMATE_SERVER_HOST and \
     TMATE_SERVER_ED25519_FINGERPRINT; docs/tmate.md in nixkit's repository shows how to run your own server \
     (`--public-server` tries ssh.tmate.io anyway)";
const USAGE: &str = "hint: `start-tmate --help` explains the options";
const KEYS: &str =
    "hint: each line is `KIND BASE64 [COMMENT]`, as in `~/.ssh/id_ed25519.pub`, without options before it";
pub(super) const PRINT: &str = "SHA256:jfttvoypkHiQYUqUCwKeqd9d1fJj/ZiQlFOHVl6E9sI";

#[test]
fn words_that_make_no_sense_are_usage_errors() {
    let fake = Fake::new(&[]);
    for (arguments, message) in [
        (["0", "-v"], "MAX_IDLE is `0`, which is no number of seconds from 1 to 316224000"),
        (["--repeat", "x"], "--repeat is `x`, which is no number of seconds from 0 to 316224000"),
        (["--server", "a b"], "--server is `a b`: it is not HOST[:PORT]"),
        (["--fingerprint", "MD5:0"], "--fingerprint: `MD5:0` is not [rsa:|ecdsa:|ed25519:]SHA256:…"),
    ] {
        fake.session().args(arguments).start().ends(2, [&format!("start-tmate: error: {message}"), USAGE]);
    }
    let two = ["--fingerprint", PRINT, "--fingerprint", PRINT];
    let message = "start-tmate: error: --fingerprint: two fingerprints without a kind; write `ed25519:SHA256:…`";
    fake.session().args(two).start().ends(2, [message, USAGE]);
    let message =
        "start-tmate: error: BASH_TMATE_MAX_IDLE is `soon`, which is no number of seconds from 1 to 316224000";
    fake.session().env("BASH_TMATE_MAX_IDLE", "soon").start().ends(2, [message, USAGE]);
    assert_eq!(fake.asked(), 0);
}

#[test]
fn without_a_tmate_that_is_new_enough_it_is_127() {
    let empty = folder();
    let hint = "hint: install tmate 2.4 or newer";
    let message = "start-tmate: error: cannot find `tmate` in PATH";
    SessionBuilder::new(empty.path().to_str().unwrap()).start().ends(127, [message, hint]);
    for (version, how) in [("tmate 2.3.1", "is too old: tmate 2.3.1"), ("hang", "does not say its version")] {
        let fake = Fake::new(&[("version", version)]);
        let (status, stderr) = fake.session().start().finish();
        assert_eq!(status, 127);
        assert!(stderr[0].ends_with(&format!("/tmate` {how}")), "{stderr:?}");
        assert_eq!(stderr[1..], [hint]);
    }
}

#[test]
fn without_a_server_or_its_fingerprint_nothing_starts() {
    let fake = Fake::new(&[("link", "ssh x@h")]);
    let message = "start-tmate: error: no tmate server is set, and the public one, ssh.tmate.io, has been shut down";
    fake.session().start().ends(1, [message, NO_SERVER]);
    let message = "start-tmate: error: the public tmate server, ssh.tmate.io, has been shut down";
    fake.session().args(["--server", "ssh.tmate.io", "--fingerprint", PRINT]).start().ends(1, [message, NO_SERVER]);
    for (server, port, scan) in [("h.example", "22", "h.example"), ("h.example:2200", "2200", "-p 2200 h.example")] {
        let message =
            format!("start-tmate: error: no fingerprint is set for the tmate server `h.example`, port {port}");
        let hint =
            format!("hint: `ssh-keyscan {scan} | ssh-keygen -lf -` prints it; give it as `--fingerprint SHA256:…`");
        fake.session().args(["--server", server]).start().ends(1, [&message, &hint]);
    }
}

#[test]
fn keys_that_would_let_in_nobody_or_not_all_are_refused() {
    let fake = Fake::new(&[("link", "ssh x@h")]);
    let files = folder();
    let bad = files.path().join("bad keys");
    fs_err::write(&bad, "no-pty ssh-ed25519 AAAA\n").unwrap();
    let server = ["--server", "h", "--fingerprint", PRINT];
    let session = || fake.session().args(server);
    let empty = "it holds no key, so nobody could get in";
    let message = format!("start-tmate: error: cannot use the keys in BASH_TMATE_AUTHORIZED_KEYS: {empty}");
    session().env("BASH_TMATE_AUTHORIZED_KEYS", "").start().ends(1, [&message, KEYS]);
    let message = format!("start-tmate: error: cannot use the keys in standard input: {empty}");
    session().args(["--authorized-keys", "-"]).start().ends(1, [&message, KEYS]);
    session().args(["--authorized-keys", "-"]).stdin("# none\n").start().ends(1, [&message, KEYS]);
    let message = format!(
        "start-tmate: error: cannot use the keys in `{}`: line 1 has options before the key, so tmate would ignore it",
        bad.display()
    );
    session().args(["--authorized-keys", bad.to_str().unwrap()]).start().ends(1, [&message, KEYS]);
    fs_err::write(&bad, "# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqRdFjqSKuTmpDTE3l1N1jJj7LAI7Wl4VIlXEnr\n")
        .unwrap();
    let message =
        format!("start-tmate: error: cannot use the keys in `{}`: line 2 holds a key that is cut off", bad.display());
    session().args(["--authorized-keys", bad.to_str().unwrap()]).start().ends(1, [&message, KEYS]);
    let message = "start-tmate: error: cannot use the keys in BASH_TMATE_AUTHORIZED_KEYS: line 1 holds the key of a \
                   security token, which tmate's SSH library cannot verify";
    let token = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t me";
    session().env("BASH_TMATE_AUTHORIZED_KEYS", token).start().ends(1, [message, KEYS]);
    let message = "start-tmate: error: cannot read the keys in `/nowhere/keys`: failed to open file `/nowhere/keys`: \
                   No such file or directory (os error 2)";
    session().args(["--authorized-keys", "/nowhere/keys"]).start().ends(1, [message]);
    assert_eq!(fake.asked(), 0, "tmate was not started");
}

#[test]
fn a_signal_ends_it_while_it_waits_for_keys() {
    let fake = Fake::new(&[("link", "ssh x@h")]);
    let keys = folder();
    let fifo = keys.path().join("keys");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Somebody who could write, and does not.
    let _writer = fs_err::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let session = fake.session().args(["--server", "h", "--authorized-keys", fifo.to_str().unwrap()]).start();
    crate::support::until(|| {
        let descriptors = fs_err::read_dir(format!("/proc/{}/fd", session.worker().unwrap_or(session.pid())));
        descriptors.is_ok_and(|mut all| {
            all.any(|entry| entry.is_ok_and(|entry| fs_err::read_link(entry.path()).is_ok_and(|path| path == fifo)))
        })
    });
    session.signal(nix::sys::signal::Signal::SIGTERM);
    session.ends(143, ["start-tmate: interrupted by SIGTERM"]);
    assert_eq!(fake.asked(), 0);
}

#[test]
fn the_hidden_program_does_nothing_for_others() {
    let run = |words: &[&str]| {
        let output =
            std::process::Command::new(crate::support::installed().join("nixkit")).args(words).output().unwrap();
        assert_eq!(output.stdout, b"", "{words:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for words in [&["tmate-pane"][..], &["tmate-pane", "a", "b"]] {
        assert_eq!(run(words), (Some(1), "tmate-pane: error: this is for start-tmate alone\n".into()));
    }
    let file = folder();
    let file = file.path().join("window");
    fs_err::write(&file, "wrubbish").unwrap();
    let expected = "tmate-pane: error: the window's description is damaged\n";
    assert_eq!(run(&["tmate-pane", file.to_str().unwrap()]), (Some(1), expected.into()));
}
