//! The lines of `docs/ci-shells.md`, each with the command line that the tool or the CI system makes of it.

use std::path::Path;
use std::process::Command;

use super::sessions::PRINT;
use super::subshells::runner_scripts;
use super::terminal::Terminal;
use super::{path_with, shown};
use crate::support::{Fake, folder, installed, script, set_mode};

/// What fails.
const STEPS: &str = "cd /usr\nX=1\nsh -c 'exit 7'\necho no\n";

/// How a runner calls the shell.
struct Call {
    /// The row of the table in the page.
    row: &'static str,
    /// The words; `DIR` stands for the directory of the test and `BIN` for that of `bash-tmate`.
    words: Vec<String>,
    /// What it feeds to standard input.
    stdin: Option<String>,
    /// It gives the command a terminal.
    terminal: bool,
    /// Files that it, or the user, has written.
    files: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
    status: i32,
}

fn call(row: &'static str, words: &[&str]) -> Call {
    Call {
        row,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        stdin: None,
        terminal: false,
        files: Vec::new(),
        variables: vec![("CI", "true".to_owned())],
        status: 7,
    }
}

impl Call {
    fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    fn file(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.files.push((name, text.into()));
        self
    }

    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    fn status(mut self, status: i32) -> Self {
        self.status = status;
        self
    }
}

/// `BashDetectShellScript` of GitLab's runner, which the entrypoint gets as an argument.
const DETECT: &str = "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; \
                      then\n\texec /usr/bin/bash \nelse\n\techo shell not found\n\texit 1\nfi\n\n";

/// `shell.Script` of drone-runner-docker, without its own use of tmate.
fn drone_script(command: &str) -> String {
    format!(
        "\n\nif [ ! -z \"${{DRONE_NETRC_FILE}}\" ]; then\n\techo $DRONE_NETRC_FILE > $HOME/.netrc\n\tchmod 600 \
         $HOME/.netrc\nfi\n\nunset DRONE_SCRIPT\nunset DRONE_NETRC_MACHINE\nunset DRONE_NETRC_USERNAME\nunset \
         DRONE_NETRC_PASSWORD\nunset DRONE_NETRC_FILE\n\nset -e\n\n\necho + '{command}'\n{command}\n"
    )
}

/// `generateScriptPosix` of Woodpecker's agent.
fn woodpecker_script(command: &str) -> String {
    format!(
        "\nif [ -n \"$CI_NETRC_MACHINE\" ]; then\ncat <<EOF > $HOME/.netrc\nmachine $CI_NETRC_MACHINE\nlogin \
         $CI_NETRC_USERNAME\npassword $CI_NETRC_PASSWORD\nEOF\nchmod 0600 $HOME/.netrc\nfi\nunset \
         CI_NETRC_USERNAME\nunset CI_NETRC_PASSWORD\nunset CI_SCRIPT\nmkdir -p \"$CI_WORKSPACE\"\ncd \
         \"$CI_WORKSPACE\"\n\necho + 'make'\n{command}\n"
    )
}

fn base64(text: &str) -> String {
    let mut command = Command::new("base64");
    command.arg("-w0");
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
    shown(&child.wait_with_output().unwrap().stdout)
}

/// What the durable-task plugin of Jenkins starts (`BourneShellScript.scriptLauncherCmd`).
const JENKINS: &str = "pid=$$; { while [ \\( -d /proc/$pid -o \\! -d /proc/$$ \\) -a -d 'DIR/c' -a \\! -f \
                       'DIR/c/result' ]; do touch 'DIR/c/log'; sleep 3; done } & jsc=durable-1; \
                       JENKINS_SERVER_COOKIE=$jsc 'DIR/c/script.sh' > 'DIR/c/log' 2>&1; echo $? > 'DIR/c/result.tmp'; \
                       mv 'DIR/c/result.tmp' 'DIR/c/result'; wait";

fn calls() -> Vec<Call> {
    let [runner, ..] = &runner_scripts(STEPS)[..] else { panic!("there are some") };
    let recipe = "cd /usr; X=1; sh -c 'exit 7'; echo no";
    let github = || call("GitHub Actions", &["bash-tmate", "DIR/temp/3e0f"]).file("temp/3e0f", STEPS).stdin("");
    vec![
        // make says 2 whatever its recipes say.
        call("make", &["make"]).file("Makefile", format!("SHELL = bash-tmate\nall:\n\t@{recipe}\n")).status(2),
        call("just", &["just"])
            .file("justfile", format!("set shell := [\"bash-tmate\", \"-uc\"]\n\nall:\n  @{recipe}\n")),
        github().env("GITHUB_RUN_ID", "1").env("GITHUB_JOB", "test"),
        call("Forgejo, Gitea", &["bash-tmate", "DIR/var/run/act/workflow/0"])
            .file("var/run/act/workflow/0", format!("\n{STEPS}\n")),
        call("GitLab CI, Docker executor", &["bash-tmate", "-s", "--", "sh", "-c", DETECT]).stdin(&*runner.1).status(1),
        call("GitLab CI, other executors", &["bash"])
            .stdin(runner_scripts("bash-tmate ci/test.sh\n")[0].1.clone())
            .file("ci/test.sh", STEPS)
            .status(1),
        call("CircleCI", &["bash-tmate", "-eo", "pipefail", "-c", STEPS]).terminal(),
        call("CircleCI", &["bash-tmate", "-eo", "pipefail", "DIR/step.sh"]).file("step.sh", STEPS).terminal(),
        call("Buildkite", &["bash-tmate", "-e", "-c", STEPS]).terminal().env("BUILDKITE_JOB_ID", "b"),
        call("Jenkins", &["nohup", "sh", "-c", JENKINS])
            .file("c/script.sh", format!("#!BIN/bash-tmate -xe\n{STEPS}"))
            .env("BUILD_TAG", "jenkins-test-1")
            .status(0),
        call("Drone", &["/bin/sh", "-c", "echo \"$DRONE_SCRIPT\" | /bin/sh"])
            .env("DRONE_SCRIPT", drone_script("bash-tmate ci/test.sh"))
            .file("ci/test.sh", STEPS),
        call("Woodpecker", &["/bin/sh", "-c", "echo $CI_SCRIPT | base64 -d | bash-tmate"])
            .env("CI_SCRIPT", base64(&woodpecker_script(STEPS)))
            .env("CI_WORKSPACE", "DIR/src"),
    ]
}

/// The rows of the page: where, and the line.
fn rows() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci-shells.md");
    let page = fs_err::read_to_string(page).unwrap();
    let row = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix("` |")?;
        let (name, line) = line.split_once(" | `")?;
        Some((name.to_owned(), line.replace("\\|", "|")))
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn each_line_of_the_page_opens_a_session_as_the_runner_calls_it() {
    let rows = rows();
    let calls = calls();
    let tested: std::collections::BTreeSet<_> = calls.iter().map(|call| call.row).collect();
    assert_eq!(tested, rows.iter().map(|(name, _)| &**name).collect());
    for call in calls {
        let (_, line) = rows.iter().find(|(name, _)| name == call.row).unwrap();
        // The words of the line are in what is run.
        let all = format!("{:?} {:?} {:?} {:?}", call.words, call.files, call.stdin, call.variables);
        for word in line.split(|c: char| !(c.is_alphanumeric() || c == '-')) {
            let is_of_the_setting =
                ["SHELL", "shell", "set", "entrypoint", "script", "commands", "usr", "local", "bin", "0"];
            assert!(is_of_the_setting.contains(&word) || all.contains(word), "{}: no {word} in {all}", call.row);
        }
        run(&call);
    }
}

fn run(call: &Call) {
    let fake = Fake::new(&[("link", "ssh x"), ("lines", "ssh session: ssh x")]);
    let place = folder();
    let filled =
        |text: &str| text.replace("DIR", place.path().to_str().unwrap()).replace("BIN", installed().to_str().unwrap());
    for (name, text) in &call.files {
        let path = place.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, filled(text)).unwrap();
        set_mode(&path, 0o755);
    }
    let words: Vec<_> = call.words.iter().map(|word| filled(word)).collect();
    let (status, said) = if call.terminal {
        let job = place.path().join("job");
        script(&job, &format!("exec {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")));
        let variables: Vec<_> = call.variables.iter().map(|(name, value)| (*name, &**value)).collect();
        Terminal::start(&fake, &format!("exec {}", job.display()), &variables, &[]).finish()
    } else {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let path = format!("{}:{}", fake.bin().display(), path_with(installed()));
        let mut builder = fake.session().instead(&command).directory(place.path());
        builder = builder.env("PATH", path).env("BASH_TMATE_SERVER", "h").env("BASH_TMATE_FINGERPRINT", PRINT);
        builder = builder.env("BASH_TMATE_MAX_IDLE", "1").env("HOME", place.path());
        for (name, value) in &call.variables {
            builder = builder.env(name, filled(value));
        }
        if let Some(text) = &call.stdin {
            builder = builder.stdin(text);
        }
        let (status, stdout, stderr) = builder.start().finish_with_output();
        let log = fs_err::read_to_string(place.path().join("c/log")).unwrap_or_default();
        (status, stdout.join("\n") + &stderr.join("\n") + &log)
    };
    assert_eq!(status, call.status, "{}: {said}", call.row);
    assert_eq!(said.matches("bash-tmate: connect with: ssh x").count(), 1, "{}: {said}", call.row);
    // For an `eval` in a pipeline bash itself says 1.
    let status = if call.row.ends_with("Docker executor") { 1 } else { 7 };
    assert!(said.contains(&format!("failed with exit status {status}: `sh -c 'exit 7'`")), "{}: {said}", call.row);
    if call.row == "Jenkins" {
        assert_eq!(fs_err::read_to_string(place.path().join("c/result")).unwrap(), "7\n");
    }
}

/// A word for `sh`.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
