//! The program under its several names, and under its own: `--list`, `--install`, `--help`, `--version`.

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Tree, call, chroot, folder, installed, names, nixkit, root_for};

/// Each applet, in the order of the table.
const APPLETS: &[&str] =
    &["export-profile", "export-image", "sync-dockerfile", "start-tmate", "bash-tmate", "update-images"];

/// The hint below an unknown name; `meant` is the applet whose name is like it.
fn hint(meant: &str) -> String {
    format!("hint: did you mean `{meant}`? Or call it `nixkit`, or by the name of an applet: {}\n", APPLETS.join(", "))
}

fn list() -> String {
    APPLETS.iter().fold(String::new(), |list, applet| list + applet + "\n")
}

/// Status, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn program() -> Command {
    Command::new(installed().join("nixkit"))
}

fn done(stdout: &str) -> (i32, String, String) {
    (0, stdout.into(), String::new())
}

fn refused(status: i32, stderr: &str) -> (i32, String, String) {
    (status, String::new(), stderr.into())
}

fn version_of(name: &str) -> (i32, String, String) {
    done(&format!("{name} {}\n", env!("CARGO_PKG_VERSION")))
}

#[test]
fn each_form_of_argv_zero_runs_the_applet() {
    let folder = folder();
    for name in ["export-profile", ".export-profile-wrapped"] {
        let link = folder.path().join(name);
        symlink(installed().join("nixkit"), &link).unwrap();
        assert_eq!(run(Command::new(&link).arg("--version")), version_of("export-profile"), "{name}");
    }
    for name in ["-export-profile", "/bin/-export-profile", "-.export-profile-wrapped", "x/.export-profile-wrapped"] {
        assert_eq!(run(program().arg0(name).arg("--version")), version_of("export-profile"), "{name}");
    }
    for name in ["-nixkit", ".nixkit-wrapped"] {
        assert_eq!(run(program().arg0(name).arg("--version")), version_of("nixkit"), "{name}");
    }
    assert_eq!(run(program().args(["export-profile", "--version"])), version_of("export-profile"));
}

#[test]
fn an_unknown_name_is_127_and_lists_the_valid_ones() {
    for (arguments, name) in
        [(vec!["export-prfile"], "export-prfile"), (vec!["export-profile\n", "/dist"], "export-profile\\n")]
    {
        let expected =
            refused(127, &format!("nixkit: error: no applet is called `{name}`\n{}", hint("export-profile")));
        assert_eq!(run(program().args(&arguments)), expected);
        assert_eq!(run(program().arg0(arguments[0]).args(&arguments[1..])), expected);
    }
    for name in ["--export-profile", "export-profile-wrapped", "my-export-profile"] {
        let shown = name.strip_prefix('-').unwrap_or(name);
        let expected =
            refused(127, &format!("nixkit: error: no applet is called `{shown}`\n{}", hint("export-profile")));
        assert_eq!(run(program().arg0(name).arg("--version")), expected);
    }
    let (status, _, stderr) = run(program().arg("ls"));
    assert!(status == 127 && stderr.contains("\nhint: call it `nixkit`"), "{stderr}");
    // Options too.
    for (arguments, meant) in [(&["--instal", "x"][..], "--install"), (&["export-profile", "--dryrun"], "--dry-run")] {
        let (status, _, stderr) = run(program().args(arguments));
        assert!(status == 2 && stderr.contains(&format!("tip: a similar argument exists: '{meant}'")), "{stderr}");
    }
}

#[test]
fn the_list_is_one_name_a_line() {
    assert_eq!(run(program().arg("--list")), done(&list()));
    let mut links: Vec<_> = APPLETS.iter().copied().chain(["nixkit"]).collect();
    links.sort_unstable();
    assert_eq!(names(installed()), links, "each has a symlink");
}

#[test]
fn help_goes_to_stdout_and_names_the_applets() {
    let (status, stdout, stderr) = run(program().arg("--help"));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.contains("Usage: nixkit APPLET [ARGUMENT]...\n       nixkit --list\n"), "{stdout}");
    assert!(stdout.contains("Applets:\n  export-profile   Copy a Nix profile"), "{stdout}");
    assert_eq!(run(program().arg("help")), done(&stdout));
    assert_eq!(run(program().arg("-h")).0, 0);
    assert_eq!(run(program().arg("--version")), version_of("nixkit"));
    // Without a word there is nothing to do: the help stands in for an error.
    assert_eq!(run(&mut program()), refused(2, &stdout));

    let (status, stdout, stderr) = run(program().args(["export-profile", "--help"]));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.contains("Usage: export-profile [OPTIONS] [ROOT]"), "{stdout}");
}

#[test]
fn bad_options_are_usage_errors() {
    for (arguments, first) in [
        (&["--lost"][..], "nixkit: error: unexpected argument '--lost' found"),
        (&["--force"], "nixkit: error: the following required arguments were not provided:"),
        (&["--list", "--install", "x"], "nixkit: error: the argument '--list' cannot be used with '--install <DIR>'"),
        (&["--list", "--lost"], "nixkit: error: unexpected argument '--lost' found"),
    ] {
        let (status, stdout, stderr) = run(program().args(arguments));
        assert_eq!((status, stdout.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(stderr.lines().next(), Some(first), "{arguments:?}");
        assert!(stderr.ends_with("For more information, try '--help'.\n"), "{stderr}");
    }
}

fn install(directory: &Path, force: bool) -> (i32, String, String) {
    run(program().arg("--install").arg(directory).args(force.then_some("--force")))
}

#[test]
fn install_makes_a_link_once_and_leaves_a_right_one() {
    let folder = folder();
    let link = folder.path().join("export-profile");
    assert_eq!(install(folder.path(), false), done(""));
    assert_eq!(fs_err::read_link(&link).unwrap(), installed().join("nixkit"));
    assert_eq!(run(Command::new(&link).arg("--version")), version_of("export-profile"));

    let before = Tree::read(folder.path());
    assert_eq!(install(folder.path(), false), done(""));
    assert_eq!(install(folder.path(), true), done(""));
    assert_eq!(Tree::read(folder.path()), before, "the same link, not one like it");

    // Right by another way: a link to a link.
    fs_err::remove_file(&link).unwrap();
    symlink(installed().join("export-profile"), &link).unwrap();
    let before = Tree::read(folder.path());
    assert_eq!(install(folder.path(), false), done(""));
    assert_eq!(Tree::read(folder.path()), before);
}

#[test]
fn beside_the_program_the_link_is_relative() {
    let folder = folder();
    call("cp", [&installed().join("nixkit"), &folder.path().join("nixkit")]);
    let install = |directory: &Path| run(Command::new(folder.path().join("nixkit")).arg("--install").arg(directory));
    assert_eq!(install(folder.path()), done(""));
    let link = folder.path().join("export-profile");
    assert_eq!(fs_err::read_link(&link).unwrap(), Path::new("nixkit"));
    let before = Tree::read(folder.path());
    assert_eq!(install(&folder.path().join(".")), done(""));
    assert_eq!(Tree::read(folder.path()), before);
}

#[test]
fn a_different_file_is_replaced_by_force_alone() {
    let folder = folder();
    let link = folder.path().join("export-profile");
    let message = format!(
        "nixkit: error: cannot install: `{}` exists and is not this program\nhint: `--force` replaces it\n",
        link.display()
    );
    for make in [
        |link: &Path| fs_err::write(link, "mine").unwrap(),
        |link: &Path| symlink("nowhere", link).unwrap(),
        |link: &Path| symlink("/bin/sh", link).unwrap(),
    ] {
        make(&link);
        let before = Tree::read(folder.path());
        assert_eq!(install(folder.path(), false), refused(1, &message));
        assert_eq!(Tree::read(folder.path()), before);
        assert_eq!(install(folder.path(), true), done(""));
        assert_eq!(fs_err::read_link(&link).unwrap(), installed().join("nixkit"));
        assert_eq!(names(folder.path()).len(), APPLETS.len(), "nothing but the links");
        fs_err::remove_file(&link).unwrap();
        fs_err::remove_file(folder.path().join("export-image")).unwrap();
    }
}

#[test]
fn install_fails_where_a_directory_is_in_the_way_or_none_is_there() {
    let folder = folder();
    let link = folder.path().join("export-profile");
    fs_err::create_dir(&link).unwrap();
    let before = Tree::read(folder.path());
    for force in [false, true] {
        let message = format!("nixkit: error: cannot install: `{}` is a directory\n", link.display());
        assert_eq!(install(folder.path(), force), refused(1, &message));
        let missing = folder.path().join("missing");
        let message = format!(
            "nixkit: error: cannot install into `{0}`: failed to canonicalize path `{0}`: No such file or directory \
             (os error 2)\nhint: make it first: mkdir -p {0}\n",
            missing.display()
        );
        assert_eq!(install(&missing, force), refused(1, &message));
    }
    assert_eq!(Tree::read(folder.path()), before);
}

#[test]
fn a_full_stdout_is_an_error_and_a_closed_one_is_not() {
    let shell = |redirection: &str| {
        let text = format!("exec \"$0\" --list {redirection}");
        run(Command::new("sh").args(["-c", &text]).arg(installed().join("nixkit")))
    };
    let full = "nixkit: error: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(shell(">/dev/full"), refused(1, full));
    assert_eq!(shell(">&-"), done(""));
    // Who cannot be told is not told, and the status stays.
    assert_eq!(shell(">/dev/full 2>&-"), refused(1, ""));

    let mut child = program().arg("--list").stdout(reader_that_is_gone()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The writing end of a pipe without a reading end.
fn reader_that_is_gone() -> Stdio {
    let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = child.stdin.take().unwrap();
    child.wait().unwrap();
    pipe.into()
}

#[test]
fn the_binary_runs_where_nothing_else_is() {
    if !root_for("chroot") {
        return;
    }
    let folder = folder();
    fs_err::copy(installed().join("nixkit"), folder.path().join("nixkit")).unwrap();
    let chroot = || chroot(folder.path());
    assert_eq!(run(chroot().args(["/nixkit", "--list"])), done(&list()));
    let message = "nixkit: error: cannot find out where this program lies: \
                   no /proc/self/exe available. Is /proc mounted?\n";
    assert_eq!(run(chroot().args(["/nixkit", "--install", "/"])), refused(1, message));
    let message = "export-profile: error: cannot find `nix-store` in PATH\n\
                   hint: run this where Nix is installed, such as the build stage of a Dockerfile\n";
    assert_eq!(run(chroot().args(["/nixkit", "export-profile", "/dist"])), refused(1, message));
    assert_eq!(names(folder.path()), ["nixkit"]);
}

#[test]
fn the_binary_is_static_and_small() {
    let elf = fs_err::read(nixkit()).unwrap();
    assert!(elf.starts_with(b"\x7fELF\x02\x01"), "64 bits, little-endian");
    let number = |at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    // e_phoff, e_phentsize and e_phnum; then p_type of each program header (elf(5)).
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<_> = (0..count).map(|i| number(start + i * size, 4)).collect();
    let (load, interpreter) = (1, 3);
    assert!(kinds.contains(&load), "{kinds:?}");
    assert!(!kinds.contains(&interpreter), "{kinds:?}");
    let length = fs_err::metadata(nixkit()).unwrap().size();
    assert!(length <= 8 << 20, "{length} bytes");
}

#[test]
fn completions_work_in_a_real_bash_and_are_read_by_the_other_shells() {
    let folder = folder();
    let file = |shell: &str| {
        let (status, stdout, stderr) = run(program().args(["--completions", shell]));
        assert_eq!((status, stderr.as_str()), (0, ""));
        let path = folder.path().join(shell);
        fs_err::write(&path, stdout).unwrap();
        path
    };
    // What bash would offer for these words, the last of which is being typed.
    let offered = |words: &[&str]| -> Vec<String> {
        let script = r#"source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            "$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')" "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash").args(["-c", script]).arg(file("bash")).args(words).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(offered(&["export-profile", "--prof"]), ["--profile", "--profile-path"]);
    assert_eq!(offered(&["export-profile", "--link-mode", "h"]), ["hardlink"]);
    assert_eq!(offered(&["nixkit", "export-prof"]), ["export-profile"]);
    assert_eq!(offered(&["nixkit", "export-profile", "--dr"]), ["--dry-run"]);
    assert_eq!(offered(&["nixkit", "--inst"]), ["--install"]);
    for applet in APPLETS {
        assert!(offered(&[applet, "--he"]).contains(&"--help".to_owned()), "{applet}");
    }
    // They say nothing where they understand all.
    assert_eq!(run(Command::new("zsh").arg("-n").arg(file("zsh"))), done(""));
    assert_eq!(run(Command::new("fish").arg("--no-execute").arg(file("fish"))), done(""));
    let fish = r#"source $argv[1]; complete -C "export-profile --dry" | string split -f1 \t; complete -C "nixkit export-pr" | string split -f1 \t"#;
    let (status, stdout, _) = run(Command::new("fish").args(["--no-config", "-c", fish]).arg(file("fish")));
    assert_eq!((status, stdout.as_str()), (0, "--dry-run\nexport-profile\n"));
    let zsh = r#"autoload -U compinit; compinit -D; source "$1"; for name in nixkit export-profile; do echo $_comps[$name]; done"#;
    let (status, stdout, stderr) = run(Command::new("zsh").args(["-f", "-c", zsh, "zsh"]).arg(file("zsh")));
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, "_nixkit\n_export-profile\n", ""));
}

#[test]
fn manual_pages_are_made_for_each_applet() {
    let folder = folder();
    let directory = folder.path().join("share/man1");
    assert_eq!(run(program().arg("--man").arg(&directory)), done(""));
    let mut pages: Vec<_> = APPLETS.iter().chain(&["nixkit"]).map(|name| format!("{name}.1")).collect();
    pages.sort_unstable();
    assert_eq!(names(&directory), pages);
    let before = Tree::read(&directory);
    let page = fs_err::read_to_string(directory.join("export-profile.1")).unwrap();
    assert!(page.contains(".TH export-profile 1") && page.contains("\\-\\-dry\\-run"), "{page}");
    // Again, over what is there.
    assert_eq!(run(program().arg("--man").arg(&directory)), done(""));
    assert_eq!(names(&directory), pages);
    assert!(Tree::read(&directory).shape().keys().eq(before.shape().keys()));
    let (status, _, stderr) = run(program().arg("--man").arg("/dev/null/x"));
    assert!(status == 1 && stderr.starts_with("nixkit: error: "), "{stderr}");
}
