//! A tmate for the tests: it plays what tmate 2.4 does, as files in the folder `$FAKE_TMATE` say.
//! It must never do anything by itself: no network, no shell.
//!
//! | file | |
//! |---|---|
//! | `version` | the answer to `-V`, else `tmate 2.4.0`; `hang` |
//! | `lines` | what `-F` prints at its start, `{keys}` being the file of keys |
//! | `exit` | `-F` exits with this code after that |
//! | `deaf` | `-F` ignores TERM |
//! | `link` | the link; without it the session is not ready |
//! | `count` | the client count, else empty |
//! | `busy-after` | after so many answers somebody is connected; the socket's mode shows it an answer later |
//! | `hang`, `fail` | each control command hangs, fails |
//! | `options` | lines in place of those of the conf in the answer to `show-options` |
//!
//! `-F` reads the FIFO `control`: `say LINE`, `exit CODE`, `die`. It writes its process id to `pid`, and each
//! control command a byte to `asked`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, abort};
use std::{env, fs, io, thread};

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The folder of files, and the words it was called with.
struct Fake {
    files: PathBuf,
    words: Vec<String>,
}

impl Fake {
    fn text(&self, name: &str) -> Option<String> {
        Some(fs::read_to_string(self.files.join(name)).ok()?.trim_end().to_owned())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    fn after(&self, option: &str) -> PathBuf {
        let at = self.words.iter().position(|word| word == option);
        at.and_then(|at| self.words.get(at + 1)).map(PathBuf::from).unwrap_or_default()
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    /// The options that the conf sets, the later ones winning.
    fn options(conf: &Path) -> BTreeMap<String, String> {
        let text = fs::read_to_string(conf).unwrap_or_default();
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("set -g ")?.split_once(' ')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        text.lines().filter_map(line).collect()
    }

    fn hang() -> ! {
        loop {
            thread::park();
        }
    }

    fn foreground(&self) -> io::Result<ExitCode> {
        let deaf = self.files.join("deaf");
        if deaf.exists() {
            // The only way to ignore a signal without unsafe code. The mark must not make it happen again.
            fs::remove_file(deaf)?;
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' TERM; exec \"$0\" \"$@\""]).arg(env::current_exe()?).args(&self.words);
            return Err(shell.exec());
        }
        let (socket, conf) = (self.after("-S"), self.after("-f"));
        let _ = fs::remove_file(self.files.join("conf"));
        symlink(&conf, self.files.join("conf"))?;
        fs::write(self.files.join("pid"), std::process::id().to_string())?;
        let keys = Self::options(&conf).remove("tmate-authorized-keys").unwrap_or_default();
        if let Some(lines) = self.text("lines") {
            say(&(lines.replace("{keys}", &keys) + "\n"))?;
        }
        let _listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660))?;
        if let Some(code) = self.number("exit") {
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        loop {
            // Opened anew after each writer.
            let control = BufReader::new(fs::File::open(self.files.join("control"))?);
            for line in control.lines() {
                let line = line?;
                match line.split_once(' ').unwrap_or((&line, "")) {
                    ("say", text) => say(&format!("{text}\n"))?,
                    ("exit", code) => {
                        fs::remove_file(&socket)?;
                        return Ok(ExitCode::from(code.parse::<u8>().unwrap_or(1)));
                    }
                    _ => abort(),
                }
            }
        }
    }

    fn control(&self) -> io::Result<ExitCode> {
        let asked = self.files.join("asked");
        fs::OpenOptions::new().create(true).append(true).open(&asked)?.write_all(b".")?;
        if self.files.join("hang").exists() {
            Self::hang();
        }
        if self.files.join("fail").exists() || !self.after("-S").exists() {
            return Ok(ExitCode::FAILURE);
        }
        if self.has("show-options") {
            let mut options = Self::options(&self.files.join("conf"));
            options.entry("tmate-server-port".to_owned()).or_insert("22".to_owned());
            let lines: Vec<_> = options.iter().map(|(name, value)| format!("{name} \"{value}\"\n")).collect();
            say(&(lines.concat() + &self.text("options").unwrap_or_default() + "\n"))?;
        }
        if self.has("display-message") {
            let (count, link) = (self.text("count").unwrap_or_default(), self.text("link").unwrap_or_default());
            let read_only = if link.is_empty() { String::new() } else { link.replace("ssh ", "ssh ro-") };
            say(&format!("{count}\n{link}\n{read_only}\n\n\n"))?;
            let answers = self.files.join("answers");
            fs::OpenOptions::new().create(true).append(true).open(&answers)?.write_all(b".")?;
            let so_far = fs::metadata(&answers)?.len();
            // What the socket shows is older by an answer than what is so.
            let is_busy = self.number("busy-after").is_some_and(|after| so_far > after as u64 + 1);
            fs::set_permissions(self.after("-S"), fs::Permissions::from_mode(if is_busy { 0o770 } else { 0o660 }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn main() -> io::Result<ExitCode> {
    let files = env::var_os("FAKE_TMATE").map(PathBuf::from).unwrap_or_default();
    let fake = Fake { files, words: env::args().skip(1).collect() };
    if fake.has("-V") {
        let version = fake.text("version").unwrap_or_else(|| "tmate 2.4.0".to_owned());
        if version == "hang" {
            Fake::hang();
        }
        say(&(version + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if fake.has("-F") && fake.has("new-session") { fake.foreground() } else { fake.control() }
}
