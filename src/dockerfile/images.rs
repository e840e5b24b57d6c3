//! Which images the instructions of a Dockerfile name: FROM, `COPY --from=` and `RUN --mount=…,from=`.
//! It must never decide which of them are to change.

use std::collections::HashMap;
use std::ops::Range;

use super::chars::{Char, LineStarts, decode, from_text, is_blank, to_text};
use super::expand::{Lexer, Problem};
use super::scanner::{self, Instruction, Line, Scanner, Script};
use super::words::{Keyword, split_words};
use super::{Meaning, Occurrence, Place, Reason, Refused, instructions};

/// What every build sets by itself. Their values are those of one machine, so nothing of a reference that
/// comes from them stands in the file.
const BUILT_IN: [(&str, &str); 10] = [
    ("TARGETPLATFORM", "linux/amd64"),
    ("TARGETOS", "linux"),
    ("TARGETARCH", "amd64"),
    ("TARGETVARIANT", ""),
    ("TARGETSTAGE", ""),
    ("BUILDPLATFORM", "linux/amd64"),
    ("BUILDOS", "linux"),
    ("BUILDARCH", "amd64"),
    ("BUILDVARIANT", ""),
    ("TARGETOSVERSION", ""),
];
/// How much following variables may cost for each byte of the file, and for any file.
const STEPS: (usize, usize) = (64, 4 << 20);

/// The images and stages of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Each FROM that can be read, in the order of the file.
    pub stages: Vec<Stage>,
    /// Each place that names an image or could, in the order of the file.
    pub occurrences: Vec<Occurrence>,
    /// The first thing for which `docker build` refuses the file, if there is any.
    pub refused: Option<Refused>,
}

/// A build stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The name behind AS, in lower case as `BuildKit` has it.
    pub name: Option<String>,
    /// What `--platform=` says, as it stands there.
    pub platform: Option<String>,
    /// The first and the last line of the FROM, from 1.
    pub lines: (usize, usize),
}

/// The ARGs above the first FROM, with their values.
#[derive(Default)]
struct Globals {
    values: HashMap<String, Vec<Char>>,
    /// Those whose defaults have no value here: it comes from `--build-arg`.
    unknown: HashMap<String, Problem>,
    steps: usize,
    most: usize,
}

impl Globals {
    fn new(size: usize) -> Self {
        let values = BUILT_IN.iter().map(|(name, value)| ((*name).to_owned(), from_text(value))).collect();
        Self { values, unknown: HashMap::new(), steps: 0, most: STEPS.0 * size + STEPS.1 }
    }

    /// The value of a word, and whether it has a variable: then `--build-arg` may give it another one.
    fn expand(&mut self, word: &[Char], escape: u8) -> Result<(Vec<Char>, bool), Problem> {
        if self.steps > self.most {
            return Err(Problem::TooLong);
        }
        let values = &self.values;
        let lookup = |name: &str| values.get(name).map(Vec::as_slice);
        let mut lexer = Lexer::with_variables(word, char::from(escape), &lookup);
        let value = lexer.word();
        let (steps, has_variable) = (lexer.steps, lexer.has_variable);
        let unknown = lexer.unset.iter().find_map(|name| self.unknown.get(name)).cloned();
        self.steps += steps;
        match (value, unknown) {
            (Ok(_), Some(problem)) => Err(problem),
            (value, _) => value.map(|value| (value, has_variable)),
        }
    }

    /// `ARG name=value …`: each value may use those before it. Fails for a value that no build accepts.
    fn define(&mut self, instruction: &Instruction<'_>, escape: u8) -> Result<(), Reason> {
        let line = &instruction.line;
        for word in split_words(&line.text, instruction.command.arguments.clone(), escape) {
            let Some(sign) = word.iter().position(|&(byte, _)| byte == b'=') else { continue };
            let name: Vec<u8> = word[..sign].iter().map(|&(byte, _)| byte).collect();
            let Ok(name) = String::from_utf8(name) else { continue };
            let bytes: Vec<u8> = word[sign + 1..].iter().map(|&(byte, _)| byte).collect();
            let value = decode(&bytes, |at| line.place(word[sign + 1 + at].1));
            self.unknown.remove(&name);
            match self.expand(&value, escape) {
                Ok((value, _)) => drop(self.values.insert(name, value)),
                Err(Problem::Syntax(text)) => return Err(Reason::Variable(text)),
                Err(problem) => {
                    self.values.remove(&name);
                    self.unknown.insert(name, problem);
                }
            }
        }
        Ok(())
    }
}

/// Reads a whole Dockerfile. Fails where `docker build` would refuse it before it looks at the instructions.
pub fn read(source: &[u8]) -> Result<Images, Refused> {
    let mut scanner = Scanner::new(source);
    let mut reading = Reading::new(source);
    while let Some(instruction) = scanner.instruction()? {
        reading.read(&instruction, scanner.escape(), scanner.has_own_frontend());
    }
    Ok(reading.finish())
}

/// As [`read`], of a file that has been scanned.
pub fn of(script: &Script<'_>, source: &[u8]) -> Images {
    let mut reading = Reading::new(source);
    for instruction in &script.instructions {
        reading.read(instruction, script.escape, script.has_own_frontend);
    }
    reading.finish()
}

struct Reading {
    globals: Globals,
    images: Images,
    /// The first stage of each name.
    names: HashMap<String, usize>,
    lines: LineStarts,
}

impl Reading {
    fn new(source: &[u8]) -> Self {
        Self {
            globals: Globals::new(source.len()),
            images: Images { stages: Vec::new(), occurrences: Vec::new(), refused: None },
            names: HashMap::new(),
            lines: LineStarts::of(source),
        }
    }

    fn read(&mut self, instruction: &Instruction<'_>, escape: u8, has_own_frontend: bool) {
        if !has_own_frontend {
            if let Err(reason) = instructions::check(instruction, escape) {
                self.refuse(instruction, reason);
            }
        }
        match instruction.command.keyword {
            Keyword::From if instruction.onbuild == 0 => return self.from(instruction, escape),
            Keyword::From => self.refuse(instruction, Reason::OnbuildTrigger),
            Keyword::Arg if instruction.onbuild == 0 && self.images.stages.is_empty() => {
                if let Err(reason) = self.globals.define(instruction, escape) {
                    self.refuse(instruction, reason);
                }
                return;
            }
            Keyword::Copy => self.flags(instruction, "--from=", Place::Copy),
            Keyword::Run => self.flags(instruction, "--mount=", Place::Mount),
            _ => {}
        }
        if self.images.stages.is_empty() && !has_own_frontend {
            self.refuse(instruction, Reason::NoStageYet);
        }
    }

    fn finish(mut self) -> Images {
        if self.images.stages.is_empty() {
            self.images.refused.get_or_insert(Refused { line: 0, reason: Reason::NoFrom });
        }
        self.images
    }

    fn refuse(&mut self, instruction: &Instruction<'_>, reason: Reason) {
        self.images.refused.get_or_insert(Refused { line: instruction.lines.0, reason });
    }

    fn from(&mut self, instruction: &Instruction<'_>, escape: u8) {
        let line = &instruction.line;
        let words = split_at_blanks(&line.text, instruction.command.arguments.clone());
        let name = match words.as_slice() {
            [_] => None,
            [_, sign, name] if is_as(&line.text[sign.clone()]) => Some(name.clone()),
            _ => {
                self.refuse(instruction, Reason::FromArguments);
                // BuildKit's tree has this FROM too, though no build gets so far.
                if words.is_empty() {
                    return;
                }
                None
            }
        };
        let name = name.map(|name| String::from_utf8_lossy(&line.text[name]).to_lowercase());
        if name.as_deref().is_some_and(|name| !is_stage_name(name)) {
            self.refuse(instruction, Reason::StageName);
        }
        let token = words[0].clone();
        let word = decode(&line.text[token.clone()], |at| line.place(token.start + at));
        let (text, meaning) = match self.globals.expand(&word, escape) {
            Ok((text, has_variable)) => {
                let reference = to_text(text.iter().map(|char| char.value));
                if reference.trim().is_empty() && !has_variable {
                    self.refuse(instruction, Reason::BlankImage);
                }
                let meaning = match self.names.get(&reference) {
                    Some(stage) => Meaning::Stage(*stage),
                    None if reference == "scratch" => Meaning::Scratch,
                    None => Meaning::Image,
                };
                (text, meaning)
            }
            Err(problem) => {
                if let Problem::Syntax(text) = problem {
                    self.refuse(instruction, Reason::Variable(text));
                }
                (word, Meaning::Unreadable(problem))
            }
        };
        let stage = self.images.stages.len();
        self.occurrence(line, &token, Place::From, Some(stage), text, meaning);
        if let Some(name) = &name {
            self.names.insert(name.clone(), stage);
        }
        let platform = instruction.command.flags.iter().find_map(|flag| {
            let flag = to_text(flag.iter().map(|char| char.value));
            flag.strip_prefix("--platform=").map(str::to_owned)
        });
        self.images.stages.push(Stage { name, platform, lines: instruction.lines });
    }

    /// `--from=image`, or the `from=image` of `--mount=…`. Variables are not replaced in either.
    fn flags(&mut self, instruction: &Instruction<'_>, flag: &str, place: Place) {
        let Some(stage) = self.images.stages.len().checked_sub(1) else { return };
        for word in &instruction.command.flags {
            let length = flag.chars().count();
            if !word.iter().map(|char| char.value).take(length).eq(flag.chars()) {
                continue;
            }
            let value = &word[length..];
            let text = if place == Place::Mount { instructions::mounted_from(value) } else { Some(value.to_vec()) };
            let Some((first, last, text)) = text.and_then(|text| {
                let (first, last) = (text.first()?.at()?, text.last()?.at()?);
                Some((first, last, text))
            }) else {
                continue;
            };
            let line = &instruction.line;
            let in_the_file = |char: &Char| char.at().map_or(*char, |at| Char::new(char.value, line.place(at)));
            let text: Vec<Char> = text.iter().map(in_the_file).collect();
            let reference = to_text(text.iter().map(|char| char.value));
            let meaning = match self.names.get(&reference.to_lowercase()) {
                Some(stage) => Meaning::Stage(*stage),
                None => match reference.parse::<usize>() {
                    Ok(index) if index < self.images.stages.len() => Meaning::Stage(index),
                    _ if reference == "scratch" => Meaning::Scratch,
                    _ => Meaning::Image,
                },
            };
            self.occurrence(line, &(first..last + 1), place, Some(stage), text, meaning);
        }
    }

    fn occurrence(
        &mut self,
        line: &Line<'_>,
        token: &Range<usize>,
        place: Place,
        stage: Option<usize>,
        text: Vec<Char>,
        meaning: Meaning,
    ) {
        let span = scanner::span(line, token);
        let line = self.lines.line(span.start);
        self.images.occurrences.push(Occurrence { line, place, stage, text, span, meaning });
    }
}

/// `reWhitespace.Split`: words between blanks, of which Unicode's are none.
fn split_at_blanks(line: &[u8], range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let start = at;
        while at < range.end && !is_blank(line[at]) {
            at += 1;
        }
        words.push(start..at);
        while at < range.end && is_blank(line[at]) {
            at += 1;
        }
    }
    words
}

/// `strings.EqualFold(word, "as")`: the long s is one too.
fn is_as(word: &[u8]) -> bool {
    matches!(word, [b'a' | b'A', b's' | b'S'] | [b'a' | b'A', 0xc5, 0xbf])
}

/// `^[a-z][a-z0-9-_.]*$`, in lower case already.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
}
