//! Whether `BuildKit` accepts an instruction: its name, its flags and how many arguments it has
//! (`frontend/dockerfile/instructions`).
//! It must never look at what only a build knows, such as files, values of variables, or other images.

use super::chars::{Char, is_blank, to_text};
use super::scanner::Instruction;
use super::words::{Keyword, split_words};
use super::{Reason, heredoc};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// `--flag`, `--flag=true` or `--flag=false`.
    Bool,
    /// `--flag=value`.
    Value,
    /// The same, several times.
    Values,
    /// A length of time.
    Duration,
    /// A number that is not negative.
    Number,
}

/// The flags of the instructions, those of experimental frontends too.
const ADD: &[(&str, Takes)] = &[
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Value),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Values),
];
const COPY: &[(&str, Takes)] = &[
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Values),
];
const FROM: &[(&str, Takes)] = &[("platform", Takes::Value)];
const RUN: &[(&str, Takes)] =
    &[("mount", Takes::Values), ("network", Takes::Value), ("security", Takes::Value), ("device", Takes::Values)];
const HEALTHCHECK: &[(&str, Takes)] = &[
    ("interval", Takes::Duration),
    ("timeout", Takes::Duration),
    ("start-period", Takes::Duration),
    ("start-interval", Takes::Duration),
    ("retries", Takes::Number),
];
/// Nanoseconds in the units of a length of time.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("\u{b5}s", 1e3), ("\u{3bc}s", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10)];
const HOUR: f64 = 3.6e12;
/// The shortest time of a health check, in nanoseconds.
const SHORTEST: f64 = 1e6;

/// Checks an instruction. What ONBUILD is followed by is checked when it is triggered, in another build.
pub fn check(instruction: &Instruction<'_>, escape: u8) -> Result<(), Reason> {
    let command = &instruction.command;
    if instruction.onbuild > 1 || instruction.onbuild == 1 && command.keyword == Keyword::Onbuild {
        return Err(Reason::OnbuildOnbuild);
    }
    if instruction.onbuild == 1 {
        return if command.keyword == Keyword::Maintainer { Err(Reason::OnbuildTrigger) } else { Ok(()) };
    }
    let arguments = &instruction.line.text[command.arguments.clone()];
    let needs_argument = || if arguments.is_empty() { Err(Reason::NoArgument) } else { Ok(()) };
    let flags: &[(&str, Takes)] = match command.keyword {
        Keyword::Other => return Err(Reason::UnknownInstruction),
        // Their flags are not looked at.
        Keyword::Arg => return check_arg(instruction, escape),
        Keyword::Stopsignal => return needs_argument(),
        Keyword::Add | Keyword::Copy => {
            check_copy(arguments, command.is_json)?;
            if command.keyword == Keyword::Add { ADD } else { COPY }
        }
        Keyword::From => FROM,
        Keyword::Run => RUN,
        Keyword::Healthcheck => {
            if check_healthcheck(arguments, command.is_json)? {
                return Ok(());
            }
            HEALTHCHECK
        }
        Keyword::Shell => {
            needs_argument()?;
            if !command.is_json {
                return Err(Reason::NotJson);
            }
            if strings(arguments).is_empty() {
                return Err(Reason::NoArgument);
            }
            &[]
        }
        Keyword::Volume => {
            needs_argument()?;
            let volumes = if command.is_json { strings(arguments) } else { Vec::new() };
            if command.is_json && volumes.is_empty() {
                return Err(Reason::NoArgument);
            }
            if volumes.iter().any(|volume| volume.trim().is_empty()) {
                return Err(Reason::BlankVolume);
            }
            &[]
        }
        Keyword::Cmd | Keyword::Entrypoint => &[],
        Keyword::Env
        | Keyword::Label
        | Keyword::Expose
        | Keyword::Maintainer
        | Keyword::Onbuild
        | Keyword::User
        | Keyword::Workdir => {
            needs_argument()?;
            &[]
        }
    };
    check_flags(&command.flags, flags)
}

/// `BFlags.Parse`. Most flags are compared as they are: a large file has thousands.
fn check_flags(given: &[Vec<Char>], known: &[(&str, Takes)]) -> Result<(), Reason> {
    let mut used = 0_u32;
    for flag in given {
        let flag = flag.get(2..).unwrap_or_default();
        let sign = flag.iter().position(|char| char.value == '=');
        let (name, value) = sign.map_or((flag, None), |sign| (&flag[..sign], Some(&flag[sign + 1..])));
        let is_named = |(known, _): &(&str, Takes)| name.iter().map(|char| char.value).eq(known.chars());
        let Some(index) = known.iter().position(is_named) else { return Err(Reason::UnknownFlag) };
        let (name, takes) = known[index];
        if used & 1 << index != 0 && takes != Takes::Values {
            return Err(Reason::FlagTwice);
        }
        used |= 1 << index;
        match (takes, value) {
            (Takes::Bool, None) => {}
            (Takes::Bool, Some([])) | (_, None) => return Err(Reason::FlagWithoutValue),
            (Takes::Value | Takes::Values, Some(value)) if name == "mount" => check_mount(value)?,
            (Takes::Value | Takes::Values, Some(_)) => {}
            (_, Some(value)) => {
                let value = to_text(value.iter().map(|char| char.value));
                let is_good = match takes {
                    Takes::Duration => is_duration(&value),
                    Takes::Number => value.is_empty() || value.parse::<i32>().is_ok_and(|number| number >= 0),
                    _ => ["true", "false"].contains(&value.to_lowercase().as_str()),
                };
                if !is_good {
                    return Err(Reason::FlagValue);
                }
            }
        }
    }
    Ok(())
}

fn check_arg(instruction: &Instruction<'_>, escape: u8) -> Result<(), Reason> {
    let words = split_words(&instruction.line.text, instruction.command.arguments.clone(), escape);
    if words.is_empty() {
        return Err(Reason::NoArgument);
    }
    let is_blank = |word: &Vec<(u8, usize)>| word.first().is_some_and(|&(byte, _)| byte == b'=');
    if words.iter().any(is_blank) { Err(Reason::BlankName) } else { Ok(()) }
}

fn check_copy(arguments: &[u8], is_json: bool) -> Result<(), Reason> {
    if is_json {
        return if strings(arguments).len() < 2 { Err(Reason::NoDestination) } else { Ok(()) };
    }
    let Some(blank) = arguments.iter().rposition(|&byte| is_blank(byte)) else { return Err(Reason::NoDestination) };
    let destination = &arguments[blank + 1..];
    if heredoc::find(destination)?.is_empty() { Ok(()) } else { Err(Reason::HeredocDestination) }
}

/// Whether it is `HEALTHCHECK NONE`, whose flags are not looked at.
fn check_healthcheck(arguments: &[u8], is_json: bool) -> Result<bool, Reason> {
    let end = arguments.iter().position(|&byte| is_blank(byte)).unwrap_or(arguments.len());
    let (kind, rest) = arguments.split_at(end);
    let rest = rest.trim_ascii_start();
    if kind.is_empty() {
        return Err(Reason::NoArgument);
    }
    if kind.eq_ignore_ascii_case(b"none") {
        return if rest.is_empty() { Ok(true) } else { Err(Reason::Healthcheck) };
    }
    let has_command = if is_json { !strings(rest).is_empty() } else { !rest.is_empty() };
    if kind.eq_ignore_ascii_case(b"cmd") && has_command { Ok(false) } else { Err(Reason::Healthcheck) }
}

/// The strings of a JSON array that has been found to be one.
fn strings(array: &[u8]) -> Vec<String> {
    serde_json::from_str(&String::from_utf8_lossy(array)).unwrap_or_default()
}

/// `time.ParseDuration`, and not shorter than a health check may be.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text.is_empty() || rest == "0" {
        return true;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let Ok(count) = rest[..number].parse::<f64>() else { return false };
        rest = &rest[number..];
        let unit = rest.chars().take_while(|c| !c.is_ascii_digit() && *c != '.').map(char::len_utf8).sum();
        let size = match &rest[..unit] {
            "h" => HOUR,
            unit => match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, size)) => *size,
                None => return false,
            },
        };
        sum += count * size;
        rest = &rest[unit..];
    }
    sum == 0.0 || !text.starts_with('-') && sum >= SHORTEST
}

fn check_mount(value: &[Char]) -> Result<(), Reason> {
    // Without these there is nothing to be wrong.
    if !value.is_empty() && !value.iter().any(|char| matches!(char.value, '"' | '$')) {
        return Ok(());
    }
    let fields = fields(value).ok_or(Reason::MountFields)?;
    for field in fields {
        let field = to_text(field.iter().map(|char| char.value));
        let Some((key, value)) = field.split_once('=') else { continue };
        if key.eq_ignore_ascii_case("from") && value.find('$').is_some_and(|at| at + 1 < value.len()) {
            return Err(Reason::MountVariable);
        }
    }
    Ok(())
}

/// The value of `from` in the fields of a mount: of several the last one counts.
pub(super) fn mounted_from(value: &[Char]) -> Option<Vec<Char>> {
    fields(value)?.into_iter().rev().find_map(|field| {
        let sign = field.iter().position(|char| char.value == '=')?;
        let key = to_text(field[..sign].iter().map(|char| char.value));
        key.eq_ignore_ascii_case("from").then(|| field[sign + 1..].to_vec())
    })
}

/// The fields of a line of CSV, as Go's `encoding/csv` reads it: quotes around a whole field only.
fn fields(value: &[Char]) -> Option<Vec<Vec<Char>>> {
    if value.is_empty() {
        return None;
    }
    let mut fields = Vec::new();
    let mut chars = value.iter().peekable();
    loop {
        let mut field = Vec::new();
        if chars.next_if(|char| char.value == '"').is_some() {
            loop {
                match chars.next()? {
                    Char { value: '"', .. } => match chars.next_if(|char| char.value == '"') {
                        Some(quote) => field.push(*quote),
                        None => break,
                    },
                    char => field.push(*char),
                }
            }
        } else {
            while let Some(char) = chars.next_if(|char| char.value != ',') {
                if char.value == '"' {
                    return None;
                }
                field.push(*char);
            }
        }
        fields.push(field);
        match chars.next() {
            None => return Some(fields),
            Some(Char { value: ',', .. }) => {}
            Some(_) => return None,
        }
    }
}
