//! `BuildKit`'s shell lexer (`frontend/dockerfile/shell/lex.go`): quotes, escapes and variables of a word, with
//! the place in the file of every character that comes out.
//! It must never know which variables there are: they are given to it.

use std::fmt;

use super::chars::{Char, from_text};
use super::pattern::Pattern;

/// Go's stack grows to a gigabyte; ours does not. Nobody nests `${a:-${b:-…}}` as deep.
const DEEPEST: usize = 100;
/// An image reference has at most some 700 characters; a longer word is none, and need not be followed.
pub const LONGEST: usize = 1024;

/// Why a word has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A quote or a brace is not closed, or `${…}` has a form that `BuildKit` does not know.
    Syntax(&'static str),
    /// `${name:?text}`, and it is not set.
    Required(String),
    /// Nested deeper than anybody does.
    TooDeep,
    /// Longer than any image reference.
    TooLong,
    /// The form is known, but not followed here.
    Unsupported(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) | Self::Unsupported(text) => f.write_str(text),
            Self::Required(name) => write!(f, "`{name}` is required and not set"),
            Self::TooDeep => f.write_str("its variables are nested too deep"),
            Self::TooLong => f.write_str("it is too long for an image reference"),
        }
    }
}

/// What the lexer is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Replaces variables and removes quotes and escapes; the escape character is given.
    Value(char),
    /// Leaves all of them, and only splits.
    HeredocLine,
    /// Leaves variables, and removes quotes and escapes.
    HeredocWord,
}

/// The value of a variable, or `None` where it is not set.
pub type Lookup<'a, 'v> = &'a dyn Fn(&str) -> Option<&'v [Char]>;

/// Reads one word, or one line.
pub struct Lexer<'a, 'v> {
    input: &'a [Char],
    at: usize,
    mode: Mode,
    raw_escapes: bool,
    depth: usize,
    lookup: Option<Lookup<'a, 'v>>,
    /// The variables that were asked for and are not set.
    pub unset: Vec<String>,
    /// Whether any variable was asked for.
    pub has_variable: bool,
    /// How much was done: roughly, in characters that were looked at.
    pub steps: usize,
}

/// What has been read: all of it, and cut at white space that is not quoted.
#[derive(Default)]
struct Read {
    /// Whether words are asked for at all.
    splits: bool,
    all: Vec<Char>,
    words: Vec<Vec<Char>>,
    word: Vec<Char>,
}

impl Read {
    fn split_at_spaces(&mut self, chars: &[Char]) {
        for char in chars.iter().filter(|_| self.splits) {
            if !char.value.is_whitespace() {
                self.word.push(*char);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn extend_word(&mut self, chars: &[Char]) {
        if self.splits {
            self.word.extend_from_slice(chars);
        }
    }

    fn into_words(mut self) -> Vec<Vec<Char>> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl<'a, 'v> Lexer<'a, 'v> {
    /// A lexer over `input` that knows no variables.
    pub fn new(input: &'a [Char], mode: Mode) -> Self {
        // As Go's text/scanner does with a byte order mark.
        let at = usize::from(input.first().is_some_and(|char| char.value == '\u{feff}'));
        Self {
            input,
            at,
            mode,
            raw_escapes: mode == Mode::HeredocLine,
            depth: 0,
            lookup: None,
            unset: Vec::new(),
            has_variable: false,
            steps: 0,
        }
    }

    /// The same with variables.
    pub fn with_variables(input: &'a [Char], escape: char, lookup: Lookup<'a, 'v>) -> Self {
        Self { lookup: Some(lookup), ..Self::new(input, Mode::Value(escape)) }
    }

    /// `ProcessWords`: the words between white space.
    pub fn words(&mut self) -> Result<Vec<Vec<Char>>, Problem> {
        Ok(self.until(None, self.raw_escapes)?.into_words())
    }

    /// `ProcessWord`: the whole as one word.
    pub fn word(&mut self) -> Result<Vec<Char>, Problem> {
        Ok(self.until(None, self.raw_escapes)?.all)
    }

    fn escape(&self) -> char {
        if let Mode::Value(escape) = self.mode { escape } else { '\\' }
    }

    fn raw_quotes(&self) -> bool {
        self.mode == Mode::HeredocLine
    }

    fn peek(&self) -> Option<char> {
        self.input.get(self.at).map(|char| char.value)
    }

    fn next(&mut self) -> Option<Char> {
        let char = self.input.get(self.at).copied();
        self.at += usize::from(char.is_some());
        char
    }

    /// `processStopOn`.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Read, Problem> {
        if self.depth == DEEPEST {
            return Err(Problem::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let read = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        read
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<Read, Problem> {
        let splits = self.keeps_unset();
        let room = (self.input.len() - self.at).min(LONGEST);
        let mut read = Read { splits, all: Vec::with_capacity(room), ..Read::default() };
        while let Some(value) = self.peek() {
            if Some(value) == stop {
                self.next();
                return Ok(read);
            }
            match value {
                '$' => {
                    let chars = self.dollar()?;
                    read.split_at_spaces(&chars);
                    read.all.extend(chars);
                }
                '\'' | '"' | '<' => {
                    let chars = match value {
                        '\'' => self.single_quote()?,
                        '"' => self.double_quote()?,
                        _ => self.heredoc_sign(),
                    };
                    read.extend_word(&chars);
                    read.all.extend(chars);
                }
                _ => {
                    let Some(mut char) = self.next() else { break };
                    if value == self.escape() {
                        if self.raw_escapes {
                            read.extend_word(&[char]);
                            read.all.push(char);
                        }
                        let Some(escaped) = self.next() else { break };
                        char = escaped;
                        read.extend_word(&[char]);
                    } else {
                        read.split_at_spaces(&[char]);
                    }
                    read.all.push(char);
                }
            }
            if matches!(self.mode, Mode::Value(_)) && read.all.len() > LONGEST {
                return Err(Problem::TooLong);
            }
        }
        if stop.is_some() { Err(Problem::Syntax("a `${` is not closed")) } else { Ok(read) }
    }

    fn single_quote(&mut self) -> Result<Vec<Char>, Problem> {
        let mut chars = Vec::new();
        let raw = self.raw_quotes();
        chars.extend(self.next().filter(|_| raw));
        loop {
            match self.next() {
                None => return Err(Problem::Syntax("a ' is not closed")),
                Some(char @ Char { value: '\'', .. }) => {
                    chars.extend(raw.then_some(char));
                    return Ok(chars);
                }
                Some(char) => chars.push(char),
            }
        }
    }

    fn double_quote(&mut self) -> Result<Vec<Char>, Problem> {
        let mut chars = Vec::new();
        let raw = self.raw_quotes();
        chars.extend(self.next().filter(|_| raw));
        loop {
            match self.peek() {
                None => return Err(Problem::Syntax("a \" is not closed")),
                Some('"') => {
                    chars.extend(self.next().filter(|_| raw));
                    return Ok(chars);
                }
                Some('$') => chars.extend(self.dollar()?),
                Some(value) => {
                    let Some(mut char) = self.next() else { continue };
                    if value == self.escape() {
                        if self.raw_escapes {
                            chars.push(char);
                        }
                        match self.peek() {
                            None => continue,
                            // Every other one keeps the escape character before it.
                            Some(next) if next == '"' || next == '$' || next == value => {
                                char = self.next().unwrap_or(char);
                            }
                            Some(_) => {}
                        }
                    }
                    chars.push(char);
                }
            }
        }
    }

    /// `processPossibleHeredoc`: the white space after `<<` belongs to the word.
    fn heredoc_sign(&mut self) -> Vec<Char> {
        let mut chars: Vec<Char> = self.next().into_iter().collect();
        if self.peek() == Some('<') {
            chars.extend(self.next());
            while let Some('\t' | '\r' | ' ') = self.peek() {
                chars.extend(self.next());
            }
        }
        chars
    }

    /// `processDollar`.
    fn dollar(&mut self) -> Result<Vec<Char>, Problem> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok(self.input[start..=start].to_vec());
            }
            return Ok(match self.value(&name) {
                None if self.keeps_unset() => self.input[start..self.at].to_vec(),
                value => value.unwrap_or_default().to_vec(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(Problem::Syntax("a `${` is not closed")),
            Some('{' | '}' | ':') => return Err(Problem::Syntax("bad substitution")),
            Some(_) => {}
        }
        let name = self.name();
        let mut operator = self.next().map(|char| char.value);
        let mut empty_is_unset = false;
        if operator == Some('}') {
            return Ok(match self.value(&name) {
                None if self.keeps_unset() => self.input[start..self.at].to_vec(),
                value => value.unwrap_or_default().to_vec(),
            });
        }
        if operator == Some(':') {
            empty_is_unset = true;
            operator = self.next().map(|char| char.value);
        } else if operator == Some('/') {
            return self.replaced(&name);
        } else if !matches!(operator, Some('+' | '-' | '?' | '#' | '%')) {
            return Err(Problem::Syntax("unsupported modifier in substitution"));
        }
        let word = self.until(Some('}'), matches!(operator, Some('#' | '%')))?.all;
        let value = self.value(&name);
        if self.keeps_unset() && value.is_none() {
            // After its quotes and escapes, as BuildKit has it.
            let sign = if empty_is_unset { ":" } else { "" };
            let operator = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
            let mut kept = from_text(&format!("${{{name}{sign}{operator}"));
            kept.extend(word);
            kept.push(Char::nowhere('}'));
            return Ok(kept);
        }
        let is_set = value.is_some_and(|value| !(empty_is_unset && value.is_empty()));
        let value = value.unwrap_or_default();
        match operator {
            Some('-') => Ok(if is_set { value.to_vec() } else { word }),
            Some('+') => Ok(if is_set { word } else { Vec::new() }),
            Some('?') => {
                if is_set {
                    Ok(value.to_vec())
                } else {
                    Err(Problem::Required(name))
                }
            }
            Some(sign @ ('#' | '%')) => {
                let greedy = word.first().is_some_and(|char| char.value == sign);
                let pattern = Pattern::parse(&word[usize::from(greedy)..])?;
                self.steps += word.len() * value.len();
                Ok(if sign == '#' {
                    value[pattern.prefix(value, greedy).unwrap_or(0)..].to_vec()
                } else {
                    value[..value.len() - pattern.suffix(value, greedy).unwrap_or(0)].to_vec()
                })
            }
            _ => Err(Problem::Syntax("unsupported modifier in substitution")),
        }
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`, from behind the first `/`.
    fn replaced(&mut self, name: &str) -> Result<Vec<Char>, Problem> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until(Some('/'), true)?.all;
        let replacement = self.until(Some('}'), true)?.all;
        let value = self.value(name);
        if self.keeps_unset() && value.is_none() {
            // (One slash, also for two: BuildKit prints it so.)
            let mut kept = from_text(&format!("${{{name}/"));
            kept.extend(pattern);
            kept.push(Char::nowhere('/'));
            kept.extend(replacement);
            kept.push(Char::nowhere('}'));
            return Ok(kept);
        }
        let value = value.unwrap_or_default();
        self.steps += pattern.len() * value.len() * if all { value.len() } else { 1 };
        Pattern::parse(&pattern)?.replaced(value, &replacement, all)
    }

    fn keeps_unset(&self) -> bool {
        !matches!(self.mode, Mode::Value(_))
    }

    fn value(&mut self, name: &str) -> Option<&'v [Char]> {
        let value = self.lookup.and_then(|lookup| lookup(name));
        self.steps += name.len() + value.map_or(0, <[Char]>::len);
        self.has_variable = true;
        if value.is_none() && self.lookup.is_some() {
            self.unset.push(name.to_owned());
        }
        value
    }

    /// `processName`: letters, digits and `_`; or only digits; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(value) = self.peek() {
            if name.is_empty() && value.is_numeric() {
                while let Some(digit) = self.peek().filter(|value| value.is_numeric()) {
                    name.push(digit);
                    self.next();
                }
                return name;
            }
            let special = name.is_empty() && matches!(value, '@' | '*' | '#' | '?' | '-' | '$' | '!');
            if special || value.is_alphanumeric() || value == '_' {
                name.push(value);
                self.next();
            } else {
                break;
            }
            if special {
                break;
            }
        }
        name
    }
}
