//! The files that a session's shell reads to stand where the script stood.
//! They must never print, nor take from the shell what an interactive one needs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::hook::is_kept;
use super::snapshot::Snapshot;
use crate::tmate::conf::shell_quoted;

/// Options with which nobody could work in a shell, or see what is typed.
const LEFT_OUT: [&str; 5] = ["errexit", "nounset", "noexec", "onecmd", "xtrace"];
/// Options that bash turns on for itself where it is interactive: that the script's were off says nothing.
const OF_INTERACTIVE_SHELLS: [&str; 5] = ["emacs", "vi", "history", "histexpand", "monitor"];

/// Options that were on and are not restored.
pub fn left_out(snapshot: &Snapshot) -> Vec<&'static str> {
    LEFT_OUT.into_iter().filter(|name| snapshot.options_on.iter().any(|on| on == name)).collect()
}

/// Paths of what a session's shell reads and writes when it starts.
#[derive(Clone, Debug)]
pub struct Paths {
    /// What restores the script's state ([`scene`]).
    pub scene: String,
    /// The script that writes a snapshot ([`super::hook::dump`]).
    pub dump: String,
    /// The file for the snapshot of what was restored.
    pub restored: String,
    /// The command that compares and reports, for a shell.
    pub report: String,
}

/// What `bash --rcfile` reads: the user's own file first; then the scene, which must not print; then a snapshot is
/// taken, and compared with the script's.
///
/// All of that is one command, which bash reads before it runs it: the scene may turn `verbose` on.
pub fn start_file(paths: &Paths) -> Vec<u8> {
    let Paths { scene, dump, restored, report } = paths;
    format!(
        "if [[ -r ~/.bashrc ]]; then . ~/.bashrc; fi\n\
         {{ \\builtin . {scene}; (\\builtin . {dump} {restored} 0 0); }} >/dev/null 2>&1; {report}\n"
    )
    .into_bytes()
}

/// The scene: options that change how the rest is read, the directory, variables, functions, options.
///
/// `given` names the variables that bash was given: those that the script has removed are removed here too.
/// `locals` restore the variables of the function that failed.
pub fn scene(snapshot: &Snapshot, given: &[OsString], locals: &[u8]) -> Vec<u8> {
    let mut text = b"\\builtin shopt -u expand_aliases\n".to_vec();
    for line in lines(&snapshot.shopts).filter(|line| !line.ends_with(b" expand_aliases\n")) {
        text.extend_from_slice(line);
    }
    if !snapshot.directory.is_empty() {
        text.extend_from_slice(b"\\builtin cd -- ");
        text.extend_from_slice(&shell_quoted(&snapshot.directory));
        text.push(b'\n');
    }
    for name in given.iter().filter(|name| is_removed(name, snapshot)) {
        text.extend_from_slice(b"\\builtin unset -v ");
        text.extend_from_slice(name.as_bytes());
        text.push(b'\n');
    }
    for variable in &snapshot.variables {
        text.extend_from_slice(&variable.declaration);
    }
    text.extend_from_slice(locals);
    text.extend_from_slice(&snapshot.functions);
    text.extend_from_slice(&snapshot.function_attributes);
    // Last, since posix mode would refuse some functions.
    for line in option_lines(snapshot) {
        text.extend_from_slice(line);
    }
    text.extend_from_slice(b"\\builtin shopt -s expand_aliases\n");
    text
}

fn is_removed(name: &OsStr, snapshot: &Snapshot) -> bool {
    let bytes = name.as_bytes();
    let is_a_name = !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_a_name && !is_kept(bytes) && snapshot.variables.iter().all(|variable| variable.name != *name)
}

/// The lines that restore options of `set -o`.
pub(super) fn option_lines(snapshot: &Snapshot) -> impl Iterator<Item = &[u8]> {
    lines(&snapshot.options).filter(|line| !is_dropped(line))
}

/// Whether `line`, such as `set +o emacs`, is not to be repeated.
fn is_dropped(line: &[u8]) -> bool {
    let is_one_of =
        |names: &[&str], prefix: &str| names.iter().any(|name| line == format!("set {prefix}o {name}\n").as_bytes());
    is_one_of(&LEFT_OUT, "-") || is_one_of(&LEFT_OUT, "+") || is_one_of(&OF_INTERACTIVE_SHELLS, "+")
}

/// Each with its newline.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Variable;
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            status: 1,
            depth: 0,
            pipe_status: vec![1],
            options_on: ["braceexpand", "errexit", "xtrace"].map(str::to_owned).to_vec(),
            command: "false".into(),
            stack: Vec::new(),
            directory: "/tmp/it's".into(),
            shopts: b"shopt -s extglob\nshopt -u expand_aliases\n".to_vec(),
            options: b"set +o emacs\nset -o vi\nset -o errexit\nset +o xtrace\nset -o noglob\n".to_vec(),
            variables: vec![Variable { name: "A".into(), declaration: b"declare -- A=\"1\"\n".to_vec() }],
            functions: b"f () \n{ \n    :\n}\n".to_vec(),
            function_attributes: b"declare -f f\n".to_vec(),
        }
    }

    #[test]
    fn the_scene_is_restored_in_an_order_that_can_be_read() {
        let given = ["A", "B", "TERM", "PS1", "BASH_FUNC_f%%", "1x", ""].map(OsString::from);
        let text = String::from_utf8(scene(&snapshot(), &given, b"declare -- l=\"2\"\n")).unwrap();
        let expected = "\\builtin shopt -u expand_aliases\n\
                        shopt -s extglob\n\
                        \\builtin cd -- '/tmp/it'\\''s'\n\
                        \\builtin unset -v B\n\
                        declare -- A=\"1\"\n\
                        declare -- l=\"2\"\n\
                        f () \n{ \n    :\n}\ndeclare -f f\n\
                        set -o vi\n\
                        set -o noglob\n\
                        \\builtin shopt -s expand_aliases\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn options_left_out_are_named() {
        assert_eq!(left_out(&snapshot()), ["errexit", "xtrace"]);
    }
}
