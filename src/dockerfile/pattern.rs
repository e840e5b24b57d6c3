//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*`, `?` and escapes.
//! It must never take more steps than the pattern's length times the text's.

use super::chars::Char;
use super::expand::{LONGEST, Problem};

/// A parsed pattern.
pub struct Pattern(Vec<Token>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// This character.
    One(char),
    /// Any character but a line end.
    Any,
    /// Any number of them.
    Many,
}

impl Token {
    fn matches(self, value: char) -> bool {
        match self {
            Self::One(own) => own == value,
            Self::Any | Self::Many => value != '\n',
        }
    }
}

impl Pattern {
    /// `convertShellPatternToRegex`.
    pub fn parse(pattern: &[Char]) -> Result<Self, Problem> {
        if pattern.len() > LONGEST {
            return Err(Problem::TooLong);
        }
        let mut tokens = Vec::new();
        let mut chars = pattern.iter().map(|char| char.value).peekable();
        while let Some(value) = chars.next() {
            tokens.push(match value {
                '*' => Token::Many,
                '?' => Token::Any,
                // `\}` and `\/` stand for what they escape.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Token::One(escaped),
                    _ => return Err(Problem::Syntax("invalid escape in a pattern")),
                },
                value => Token::One(value),
            });
        }
        Ok(Self(tokens))
    }

    /// How many characters at the beginning of `text` it matches: as many as possible, or as few.
    pub fn prefix(&self, text: &[Char], greedy: bool) -> Option<usize> {
        ends(self.0.iter(), text.iter().map(|char| char.value), text.len(), greedy)
    }

    /// The same at the end.
    pub fn suffix(&self, text: &[Char], greedy: bool) -> Option<usize> {
        ends(self.0.iter().rev(), text.iter().rev().map(|char| char.value), text.len(), greedy)
    }

    /// The leftmost and longest match: its start and its end.
    fn find(&self, text: &[Char]) -> Option<(usize, usize)> {
        // For each end the smallest start from which the tokens so far match up to it.
        let mut starts: Vec<Option<usize>> = (0..=text.len()).map(Some).collect();
        for token in &self.0 {
            let mut next = vec![None; text.len() + 1];
            if *token == Token::Many {
                let mut least: Option<usize> = None;
                for (end, slot) in next.iter_mut().enumerate() {
                    if end > 0 && !token.matches(text[end - 1].value) {
                        least = None;
                    }
                    least = least.into_iter().chain(starts[end]).min();
                    *slot = least;
                }
            } else {
                for end in 1..=text.len() {
                    next[end] = starts[end - 1].filter(|_| token.matches(text[end - 1].value));
                }
            }
            starts = next;
        }
        let start = starts.iter().flatten().min().copied()?;
        let end = starts.iter().rposition(|found| *found == Some(start))?;
        Some((start, end))
    }

    /// `text` with the first match, or all of them, replaced.
    pub fn replaced(&self, text: &[Char], replacement: &[Char], all: bool) -> Result<Vec<Char>, Problem> {
        if all && replacement.iter().any(|char| char.value == '$') {
            return Err(Problem::Unsupported("a `$` in the text that replaces another is not followed"));
        }
        if all && text.len() > LONGEST / 4 {
            return Err(Problem::TooLong);
        }
        let mut result = Vec::new();
        let mut rest = text;
        while let Some((start, end)) = self.find(rest) {
            if all && end == start {
                return Err(Problem::Unsupported("a pattern that matches nothing is not followed"));
            }
            result.extend_from_slice(&rest[..start]);
            result.extend_from_slice(replacement);
            rest = &rest[end..];
            if !all || result.len() > LONGEST {
                break;
            }
        }
        result.extend_from_slice(rest);
        if result.len() > LONGEST { Err(Problem::TooLong) } else { Ok(result) }
    }
}

/// The end of the longest or shortest match of `tokens` from the beginning of `text`.
fn ends<'a>(
    tokens: impl Iterator<Item = &'a Token>,
    text: impl Iterator<Item = char>,
    length: usize,
    greedy: bool,
) -> Option<usize> {
    let text: Vec<char> = text.collect();
    let mut reached = vec![false; length + 1];
    reached[0] = true;
    for token in tokens {
        if *token == Token::Many {
            for end in 1..=length {
                reached[end] |= reached[end - 1] && token.matches(text[end - 1]);
            }
        } else {
            for end in (1..=length).rev() {
                reached[end] = reached[end - 1] && token.matches(text[end - 1]);
            }
            reached[0] = false;
        }
    }
    if greedy { reached.iter().rposition(|end| *end) } else { reached.iter().position(|end| *end) }
}
