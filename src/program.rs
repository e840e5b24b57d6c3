//! Other programs, run to their end: what they printed, or what they complained about.
//! It must never outlive an interrupt: the program is ended then.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::failure::{hinted, shown};
use crate::interrupt::Interrupt;

/// How long a signal may go unnoticed while a program is working. Answers are not delayed by it.
const INTERRUPT_POLL: Duration = Duration::from_millis(50);

/// Finds `name` in `PATH`; `hint` says what to do where it is not.
pub fn find(name: &str, hint: &str) -> anyhow::Result<PathBuf> {
    which::which(name).map_err(|_| hinted(anyhow!("cannot find `{name}` in PATH"), hint))
}

/// Runs `command`, which messages call `name`, and returns what it printed. It reads nothing, unless its standard
/// input is set. A failure is told in the program's own words.
pub fn output(command: &mut Command, name: &str, interrupt: &Interrupt) -> anyhow::Result<String> {
    interrupt.check()?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command.get_program())))?;
    let (output, messages) = read_to_end(&mut child, interrupt)?;
    let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
    if !status.success() {
        let messages = String::from_utf8_lossy(&messages);
        let messages = messages.trim().strip_prefix("error: ").unwrap_or(messages.trim());
        let messages = if messages.is_empty() { "it did not say why" } else { messages };
        // A signal from the terminal reaches the child first.
        interrupt.check()?;
        bail!("`{name}` failed ({status}): {messages}");
    }
    String::from_utf8(output).with_context(|| format!("`{name}` printed text that is not UTF-8"))
}

/// Both outputs of `child`, read side by side so that neither pipe fills up.
fn read_to_end(child: &mut Child, interrupt: &Interrupt) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let stdout = child.stdout.take().map(in_background).transpose();
    let stderr = child.stderr.take().map(in_background).transpose();
    let collect = |answer: Option<Answer>| -> anyhow::Result<Vec<u8>> {
        let Some(answer) = answer else { return Ok(Vec::new()) };
        loop {
            match answer.recv_timeout(INTERRUPT_POLL) {
                Ok(read) => return Ok(read?),
                Err(mpsc::RecvTimeoutError::Timeout) => interrupt.check()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("cannot read from a program"),
            }
        }
    };
    let read = (|| Ok((collect(stdout?)?, collect(stderr?)?)))();
    if read.is_err() {
        // It may have ended by itself; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }
    read
}

type Answer = mpsc::Receiver<std::io::Result<Vec<u8>>>;

fn in_background(mut pipe: impl Read + Send + 'static) -> anyhow::Result<Answer> {
    let (sender, receiver) = mpsc::channel();
    let reader = move || {
        let mut bytes = Vec::new();
        let read = pipe.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody waits for it any more after an interrupt.
        let _ = sender.send(read);
    };
    std::thread::Builder::new().spawn(reader).context("cannot start a thread")?;
    Ok(receiver)
}
