//! Times `sync-dockerfile --check`, the whole process, on large files, and holds the result to its limits:
//! `bench-sync BINARY`. `make bench-sync` builds both and calls it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the hand")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Runs of each; the fastest counts against the limit, since everything else on the machine only adds.
const RUNS: usize = 30;
const COMMIT: &str = "3b1789322fcbcb5cf51228d732752714f1bf77da";

/// A Dockerfile with all that people write, repeated to a megabyte, and in step with [`COMMIT`].
fn dockerfile() -> String {
    let mut text = "# syntax=docker/dockerfile:1\nARG REV=".to_owned() + COMMIT + "\n";
    let mut stage = 0;
    while text.len() < 1_000_000 {
        write!(
            text,
            "FROM --platform=$BUILDPLATFORM niteo/nixpkgs-nixos-25.11:${{REV}} AS s{stage}\n\
             LABEL org.opencontainers.image.title=\"stage {stage}\" a=b\n\
             # what it is for\n\
             RUN --mount=type=cache,target=/root/.cache \\\n    nix-env -f /src -iA myEnv \\\n    # exported at once\n    && export-profile /dist\n\
             COPY --from=s{stage} --chown=1000:1000 /dist /\n\
             COPY <<EOF /etc/motd\nFROM is text here\nEOF\n\
             ENV PATH=/run/profile/bin\nCMD [\"my-program\", \"--flag\"]\n\n"
        )
        .unwrap();
        stage += 1;
    }
    text
}

/// A lock file of five megabytes, whose node `nixpkgs` is somebody else's.
fn flake_lock() -> String {
    let mut text = "{\n  \"nodes\": {\n".to_owned();
    let mut node = 0;
    while text.len() < 5_000_000 {
        write!(
            text,
            "    \"input_{node}\": {{\n      \"inputs\": {{\n        \"nixpkgs\": [\n          \"nixpkgs\"\n        ]\n      }},\n      \
             \"locked\": {{\n        \"lastModified\": 1700000000,\n        \"narHash\": \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\",\n        \
             \"owner\": \"owner\",\n        \"repo\": \"repo-{node}\",\n        \"rev\": \"{node:040x}\",\n        \"type\": \"github\"\n      }},\n      \
             \"original\": {{\n        \"owner\": \"owner\",\n        \"repo\": \"repo-{node}\",\n        \"type\": \"github\"\n      }}\n    }},\n"
        )
        .unwrap();
        node += 1;
    }
    let inputs: Vec<String> = (0..node).map(|node| format!("        \"input_{node}\": \"input_{node}\"")).collect();
    write!(
        text,
        "    \"n\": {{\n      \"locked\": {{\n        \"rev\": \"{COMMIT}\"\n      }},\n      \"original\": {{\n        \"ref\": \"nixos-25.11\"\n      }}\n    }},\n    \
         \"root\": {{\n      \"inputs\": {{\n        \"nixpkgs\": \"n\",\n{}\n      }}\n    }}\n  }},\n  \"root\": \"root\",\n  \"version\": 7\n}}\n",
        inputs.join(",\n")
    )
    .unwrap();
    text
}

/// Median and minimum of the whole process.
fn time(binary: &Path, folder: &Path) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let output =
                Command::new(binary).args(["sync-dockerfile", "--check"]).current_dir(folder).output().unwrap();
            let elapsed = started.elapsed();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            elapsed
        })
        .collect();
    times.sort();
    (times[RUNS / 2], times[0])
}

fn main() -> ExitCode {
    let binary = PathBuf::from(std::env::args_os().nth(1).expect("usage: bench-sync BINARY"));
    let binary = std::fs::canonicalize(binary).unwrap();
    let small_pin = format!(r#"{{"nixpkgs": {{"type": "tarball", "branch": "nixos-25.11", "rev": "{COMMIT}"}}}}"#);
    let small_file = format!("FROM niteo/nixpkgs-nixos-25.11:{COMMIT}\n");
    let mut within = true;
    for (what, dockerfile, place, pin, limit) in [
        ("a Dockerfile of 1 MB", dockerfile(), "nix/sources.json", small_pin, Duration::from_millis(20)),
        ("a flake.lock of 5 MB", small_file, "flake.lock", flake_lock(), Duration::from_millis(60)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("nix")).unwrap();
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
        std::fs::write(folder.path().join(place), pin).unwrap();
        let (median, least) = time(&binary, folder.path());
        println!("{what}: median {median:.1?}, fastest {least:.1?} of {RUNS} (limit {limit:.0?})");
        within &= least <= limit;
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
