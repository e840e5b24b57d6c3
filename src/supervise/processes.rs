//! Which processes a shell has started itself, from what `/proc` says of all.
//! It must never send a signal, and a process that it cannot read is none.

use std::os::unix::ffi::OsStrExt;

/// A process as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its own number.
    pub id: i32,
    /// Its parent's.
    pub parent: i32,
}

/// All processes that can be seen; none without `/proc`.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| std::fs::read(entry.path().join("stat")).ok())
        .filter_map(|stat| parse_stat(&stat))
        .collect()
}

/// The number by which this `/proc` knows this process: another than `getpid` returns, where it is another
/// namespace's.
pub fn own_number() -> Option<i32> {
    std::fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// The parent of the process `id`.
pub fn parent(id: i32) -> Option<i32> {
    Some(parse_stat(&std::fs::read(format!("/proc/{id}/stat")).ok()?)?.parent)
}

/// The session (setsid(2)) that the process `id` belongs to.
pub fn session(id: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
    // After the name: state, parent, group, session.
    field(&stat, 3)
}

/// Reads `PID (NAME) STATE PARENT …` (proc(5)). NAME may hold anything, parentheses too.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    Some(Process { id: number(stat.get(..open)?)?, parent: field(stat, 1)? })
}

/// The field that comes `at` places after the first one behind the name.
fn field(stat: &[u8], at: usize) -> Option<i32> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    number(stat.get(close + 1..)?.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).nth(at)?)
}

fn number(bytes: &[u8]) -> Option<i32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// What tells a shell from the programs that it runs: the program file and its arguments. A subshell, which
/// has never executed anything, has those of its shell.
fn identity(id: i32) -> Option<(std::path::PathBuf, Vec<u8>)> {
    let program = std::fs::read_link(format!("/proc/{id}/exe")).ok()?;
    let arguments = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    Some((program, arguments))
}

/// A process that a shell has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its number.
    pub id: i32,
    /// It is a part of the shell that runs as a process of its own, and has executed nothing.
    pub is_subshell: bool,
}

/// The direct children of `shell`, and those of its subshells, which a shell waits for in the same way.
pub fn children(shell: i32) -> Vec<Child> {
    let own = identity(shell);
    below(shell, &all(), |id| own.is_some() && identity(id) == own)
}

/// Children of `shell` in `processes`, and of those children that are subshells.
fn below(shell: i32, processes: &[Process], is_subshell: impl Fn(i32) -> bool) -> Vec<Child> {
    let mut found: Vec<Child> = Vec::new();
    let mut shells = vec![shell];
    while let Some(parent) = shells.pop() {
        for &Process { id, .. } in processes.iter().filter(|process| process.parent == parent) {
            // `/proc` is no snapshot: a number that is used again must not lead round in a circle.
            if id == shell || found.iter().any(|child| child.id == id) {
                continue;
            }
            let is_subshell = is_subshell(id);
            found.push(Child { id, is_subshell });
            if is_subshell {
                shells.push(id);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_whatever_the_name_is() {
        for (stat, expected) in [
            (&b"7 (bash) S 3 7 7 0"[..], Some((7, 3))),
            (b"7 (a) b) (c) S 3 7", Some((7, 3))),
            (b"7 ()) R 1 7", Some((7, 1))),
            (b"7 (x\n1 (y)) S 3 7 7 0", Some((7, 3))),
            (b"7 (\xff) S 3 7", Some((7, 3))),
            (b"7 (bash) S", None),
            (b"7 (bash", None),
            (b")7 (", None),
            (b"", None),
            (b"x (bash) S 3", None),
            (b"7 (bash) S x", None),
        ] {
            let found = parse_stat(stat).map(|process| (process.id, process.parent));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn children_of_subshells_count_and_no_others() {
        let processes = [(1, 0), (10, 1), (20, 10), (21, 10), (30, 20), (31, 21), (40, 30), (50, 1)]
            .map(|(id, parent)| Process { id, parent });
        let found = |shell, is_subshell: fn(i32) -> bool| {
            let mut found: Vec<_> =
                below(shell, &processes, is_subshell).into_iter().map(|child| (child.id, child.is_subshell)).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found(10, |id| id == 21), [(20, false), (21, true), (31, false)]);
        assert_eq!(found(50, |_| true), []);
        let circle = [(2, 3), (3, 2)].map(|(id, parent)| Process { id, parent });
        assert_eq!(below(2, &circle, |_| true), [Child { id: 3, is_subshell: true }]);
    }

    #[test]
    fn this_process_has_its_parent() {
        let id = i32::try_from(std::process::id()).unwrap();
        let parent = nix::unistd::getppid().as_raw();
        assert!(all().contains(&Process { id, parent }));
        assert_eq!((own_number(), super::parent(id)), (Some(id), Some(parent)));
        assert_eq!(session(id), Some(nix::unistd::getsid(None).unwrap().as_raw()));
    }
}
