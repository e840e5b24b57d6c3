//! Which heredocs a line of RUN, COPY or ADD begins (`heredocsFromLine` in `parser.go`).
//! It must never look for their ends: [`super::scanner`] does.

use super::Reason;
use super::chars::{Char, decode};
use super::expand::{Lexer, Mode, Problem};

/// A heredoc that begins on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The line that ends it.
    pub name: String,
    /// `<<-`: tabs before the last line do not count.
    pub chomp: bool,
}

/// The heredocs of a whole joined line, in the order of their bodies.
///
/// A line whose quotes or variables do not come out even has none, as in `BuildKit`: only a word after `<<`
/// that cannot be read is an error.
pub fn find(line: &[u8]) -> Result<Vec<Heredoc>, Reason> {
    if memchr::memmem::find(line, b"<<").is_none() {
        return Ok(Vec::new());
    }
    let line = decode(line, |at| at);
    let words = match Lexer::new(&line, Mode::HeredocLine).words() {
        Ok(words) => words,
        // Here a line may be read in two ways; neither is taken.
        Err(Problem::TooDeep) => return Err(Reason::HeredocWord),
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for word in words {
        let Some((chomp, rest)) = after_sign(&word) else { continue };
        let names = Lexer::new(rest, Mode::HeredocWord).words().map_err(|_| Reason::HeredocWord)?;
        if let [name] = names.as_slice() {
            found.push(Heredoc { name: name.iter().map(|char| char.value).collect(), chomp });
        }
    }
    Ok(found)
}

/// `^(\d*)<<(-?)\s*([^<]*)$` with something in the last group: whether there is a `-`, and that group.
fn after_sign(word: &[Char]) -> Option<(bool, &[Char])> {
    let digits = word.iter().take_while(|char| char.value.is_ascii_digit()).count();
    let [Char { value: '<', .. }, Char { value: '<', .. }, rest @ ..] = &word[digits..] else { return None };
    let mut rest = rest;
    let chomp = rest.first().is_some_and(|char| char.value == '-');
    rest = &rest[usize::from(chomp)..];
    let blanks = rest.iter().take_while(|char| matches!(char.value, '\t' | '\n' | '\x0c' | '\r' | ' ')).count();
    rest = &rest[blanks..];
    (!rest.is_empty() && rest.iter().all(|char| char.value != '<')).then_some((chomp, rest))
}
