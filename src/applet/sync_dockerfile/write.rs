//! Writes the files that must change.
//! It must never end without saying which of them were written.

use std::path::Path;

use anyhow::Context;

use super::{Arguments, judge};
use crate::applet::options;
use crate::failure::{Stopped, shown};
use crate::interrupt::Interrupt;
use crate::report::Voice;
use crate::report::sync::{Mode, Synced};
use crate::sink::replace::{self, Replacement};

/// What is open beside the drafts.
const OTHER_DESCRIPTORS: u64 = 32;

pub(super) fn sync(arguments: &Arguments, voice: Voice, interrupt: &Interrupt) -> anyhow::Result<u8> {
    let judged = judge::all(arguments, voice, interrupt)?;
    let changed = |file: &&Synced| file.judgement.text.is_some();
    // Each draft is open until it is published, if so many files can be open.
    let most_open = options::raise_descriptor_limit().saturating_sub(OTHER_DESCRIPTORS);
    let paths = judged.sources.iter().zip(&judged.synced).filter(|(_, file)| changed(file));
    replace::remove_left_overs(paths.map(|(source, _)| source.path.as_path()));
    // All drafts are written before the first is renamed: what fails, fails here.
    let mut replacements = Vec::new();
    let mut names = Vec::new();
    for (source, file) in judged.sources.iter().zip(&judged.synced) {
        interrupt.check()?;
        let Some(text) = &file.judgement.text else { continue };
        let prepared = Replacement::prepare(&source.path, &source.bytes, text);
        let failed = || format!("cannot write `{}`", shown(&source.path));
        if let Some(mut replacement) = prepared.with_context(failed)? {
            if replacements.len() as u64 >= most_open {
                replacement.close().with_context(failed)?;
            }
            replacements.push(replacement);
            names.push(source.path.as_path());
        }
    }
    replace::sync(&replacements)?;
    interrupt.check()?;
    publish(replacements, &names, voice, interrupt)?;
    let mode = Mode::Write;
    voice.synced(&judged.synced, &judged.skipped, mode, arguments.json).with_context(|| match names.as_slice() {
        [] => "nothing had to be written".to_owned(),
        names => format!("{} written", list(names)),
    })?;
    Ok(0)
}

/// Puts all drafts in the places of their files.
fn publish(replacements: Vec<Replacement>, names: &[&Path], voice: Voice, interrupt: &Interrupt) -> anyhow::Result<()> {
    for (index, replacement) in replacements.into_iter().enumerate() {
        let (written, name) = (&names[..index], names[index]);
        if let Err(interrupted) = interrupt.check() {
            let signal = interrupted.signal;
            return Err(match written {
                [] => interrupted.into(),
                written => Stopped { signal, done: format!("{} written", list(written)) }.into(),
            });
        }
        for remark in &replacement.remarks {
            voice.warning(remark);
        }
        let in_place = replacement.publish().with_context(|| match written {
            [] => format!("cannot write `{}`", shown(name)),
            written => format!("{} written, but `{}` cannot be", list(written), shown(name)),
        })?;
        if in_place {
            voice.warning(&format!("`{}` is a mount point, so it was written in place", shown(name)));
        }
    }
    Ok(())
}

/// `` `a` was``, `` `a` and `b` were``, `` `a`, `b` and 3 others were``.
fn list(names: &[&Path]) -> String {
    let quoted = |name: &&Path| format!("`{}`", shown(name));
    match names {
        [] => "nothing was".to_owned(),
        [name] => format!("{} was", quoted(name)),
        [one, other] => format!("{} and {} were", quoted(one), quoted(other)),
        [one, other, third] => format!("{}, {} and {} were", quoted(one), quoted(other), quoted(third)),
        [one, other, rest @ ..] => format!("{}, {} and {} others were", quoted(one), quoted(other), rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_listed() {
        let names: Vec<_> = ["a", "b", "c", "d"].iter().map(Path::new).collect();
        let lists: Vec<_> = (0..=4).map(|count| list(&names[..count])).collect();
        assert_eq!(
            lists,
            ["nothing was", "`a` was", "`a` and `b` were", "`a`, `b` and `c` were", "`a`, `b` and 2 others were"]
        );
    }
}
