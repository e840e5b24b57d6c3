//! What is sent to `bash-tmate` reaches bash and what it runs, once; nothing is left, and there is no session.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::path_with;
use crate::support::{Fake, folder, installed, processes_of, until};

/// A session that is asked for would be seen: the fake tmate says that it was called.
fn fake() -> Fake {
    Fake::new(&[("link", "ssh x"), ("lines", "ssh session: ssh x")])
}

/// Runs `text`, and once it has started as many programs `sleep` as it has such words sends `signals` to
/// `bash-tmate`. It must end with `status`, and print nothing but `stderr`.
///
/// Earlier than that bash itself would go on to wait for a program that nobody has told.
fn interrupted(scene: &str, text: &str, signals: &[Signal], status: i32, stderr: &[&str]) {
    let fake = fake();
    let session = fake.session().bash().env("BASH_TMATE_SCENE", scene).args(["-c", text]).start();
    let asleep = || processes_of(session.mark()).iter().filter(|(_, line)| line.starts_with("sleep ")).count();
    until(|| asleep() == text.matches("sleep 1").count());
    for signal in signals {
        session.signal(*signal);
    }
    // Nor are there any processes: `finish` looks for them.
    let (ended, mut said) = session.finish();
    // What bash says of a program that it waited for.
    said.retain(|line| line != "Terminated" && line != "Hangup" && !line.contains(" Quit "));
    assert_eq!((ended, said.iter().map(String::as_str).collect::<Vec<_>>()), (status, stderr.to_vec()), "{text}");
    assert_eq!(fake.asked(), 0, "there was a session");
}

const SCENES: [&str; 2] = ["0", "1"];

#[test]
fn three_signals_end_the_job_and_all_that_it_started() {
    for scene in SCENES {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let status = 128 + signal as i32;
            for text in [
                "sleep 1000",
                "exec sleep 1000",
                "sleep 1000; echo no",
                "sleep 1000 | sleep 1001; echo no",
                "(sleep 1000; echo no); echo no",
                "x=$(sleep 1000; echo no); echo no",
                "while :; do sleep 1000; done",
            ] {
                interrupted(scene, text, &[signal], status, &[]);
            }
        }
        interrupted(scene, "sleep 1000 & wait", &[Signal::SIGTERM], 143, &[]);
    }
}

#[test]
fn a_script_that_handles_a_signal_does_so_once() {
    for scene in SCENES {
        for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
            let text = format!("trap 'echo got >&2; exit 7' {name}; sleep 1000");
            interrupted(scene, &text, &[signal], 7, &["got"]);
            // It goes on, and then fails: nobody waits for it any more.
            let text = format!("trap 'echo got >&2' {name}; sleep 1000 || :; echo on >&2; exit 3");
            interrupted(scene, &text, &[signal], 3, &["got", "on"]);
        }
        // Others are passed on to bash, and are no reason to stop.
        let text = "trap 'kill $!; echo got >&2' USR1; sleep 1000 & wait || :; exit 0";
        interrupted(scene, text, &[Signal::SIGUSR1], 0, &["got"]);
        let text = "trap 'exit 6' TERM; sleep 1000";
        interrupted(scene, text, &[Signal::SIGURG, Signal::SIGWINCH, Signal::SIGTERM], 6, &[]);
        // bash ignores QUIT, what it runs does not.
        interrupted(scene, "ulimit -c 0; sleep 1000; echo no", &[Signal::SIGQUIT], 131, &[]);
    }
}

#[test]
fn what_the_caller_ignores_is_ignored() {
    let fake = fake();
    let place = folder();
    let (ready, go) = (place.path().join("ready"), place.path().join("go"));
    for fifo in [&ready, &go] {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let builder = fake.session().bash().under(["nohup"]).env("READY", &ready).env("GO", &go);
    let session = builder.args(["-c", "echo > $READY; read x < $GO; [ $x = on ]"]).start();
    std::fs::read(&ready).unwrap();
    session.signal(Signal::SIGHUP);
    std::fs::write(&go, "on\n").unwrap();
    assert_eq!(session.finish().0, 0);
}

#[test]
fn killed_it_takes_bash_with_it() {
    let fake = fake();
    let place = folder();
    let ready = place.path().join("ready");
    nix::unistd::mkfifo(&ready, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = "echo $$ > $READY; while :; do read x < $READY; done";
    let session = fake.session().bash().env("READY", &ready).args(["-c", text]).start();
    std::fs::read(&ready).unwrap();
    let (_, mark) = session.kill();
    until(|| processes_of(&mark).is_empty());
}

/// A job is stopped and goes on, as a shell that manages jobs does it.
#[test]
fn a_job_that_stops_is_seen_to_stop_and_goes_on() {
    let place = folder();
    let text = "set -m; bash-tmate -c 'kill -STOP $$; exit 5' & wait -f -n || echo first $?; jobs -l | grep -c Stopped; \
                kill -CONT %1; wait %1; echo then $?";
    let text = text.replace("wait -f -n || echo first $?; ", "until jobs -l | grep -q Stopped; do :; done; ");
    let output = Command::new("bash")
        .args(["-c", &text])
        .env("PATH", path_with(installed()))
        .env("BASH_TMATE_SKIP_CODES", "5")
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(&*stdout, "1\nthen 5\n", "{stderr}");
}
