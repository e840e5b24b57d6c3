//! What the numbers depend on besides the programs: the machine, its kernel, and the versions of the tools.
//! It must never tell whose machine it is: no host name, no user, no path.

use std::path::Path;

use crate::command::{Commands, command};

/// The tools, each with the argument that makes it tell its version.
const TOOLS: &[(&str, &str)] = &[
    ("nix", "--version"),
    ("cp", "--version"),
    ("rsync", "--version"),
    ("tar", "--version"),
    ("xcp", "--version"),
    ("cpz", "--version"),
    ("openssl", "version"),
    ("hyperfine", "--version"),
    ("mkfs.ext4", "-V"),
    ("mkfs.xfs", "-V"),
    ("mkfs.btrfs", "--version"),
];

/// Everything about the machine, for the report.
pub(crate) fn describe(commands: &Commands, output: &Path, nixkit: &Path) -> Vec<(String, String)> {
    let text = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = commands.output(&mut command(program, arguments)).ok()?;
        // mke2fs tells its version on stderr.
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let disk = output.display().to_string();
    let mut facts = vec![
        ("CPU".to_owned(), format!("{}, {cores} cores", field(&text("/proc/cpuinfo"), "model name"))),
        ("memory".to_owned(), memory(&text("/proc/meminfo"))),
        ("kernel".to_owned(), format!("Linux {}", text("/proc/sys/kernel/osrelease").trim())),
        ("distribution".to_owned(), quoted_field(&text("/etc/os-release"), "PRETTY_NAME=")),
        ("images lie on".to_owned(), said("findmnt", &["-n", "-o", "FSTYPE", "-T", &disk]).unwrap_or_default()),
        ("nixkit".to_owned(), said(&nixkit.display().to_string(), &["--version"]).unwrap_or_default()),
    ];
    for (tool, argument) in TOOLS {
        facts.push(((*tool).to_owned(), said(tool, &[argument]).unwrap_or_else(|| "not there".to_owned())));
    }
    facts
}

/// The value after `name : ` in the first line of that name.
fn field(text: &str, name: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    found.unwrap_or("unknown").trim().to_owned()
}

fn quoted_field(text: &str, name: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// `MemTotal: 24576000 kB` as GiB.
fn memory(text: &str) -> String {
    let kib: u64 = field(text, "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!("{:.1} GiB", crate::results::as_f64(kib) / 1024.0 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nmodel name\t: another\n";
        assert_eq!(field(text, "model name"), "A CPU @ 3 GHz");
        assert_eq!(field("", "model name"), "unknown");
        assert_eq!(memory("MemTotal:       8388608 kB\n"), "8.0 GiB");
        assert_eq!(quoted_field("NAME=x\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME="), "Debian 12");
    }
}
