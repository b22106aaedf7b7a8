//! Regular expressions in time linear in the text: the `regex` crate, over bytes, with ASCII classes unless a pattern says
//! `(?u)`.
//!
//! The crate's worst case is text times program, so a program's size decides what a search costs and how long a text it may
//! get; and walking over all matches is worst text times text, so each of them is charged for what is left of the text. A
//! pattern is compiled once in a state while it is among the last used, and charged once in every event: what an event
//! costs must not depend on those before it.

use crate::script::meter::Meter;
use hashbrown::HashSet;
use regex::bytes::{Captures, Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use tidegate_schemas::limits::{
    SCRIPT_PATTERN_BYTES_MAX, SCRIPT_PATTERN_PROGRAM_BYTES_MAX, SCRIPT_PATTERN_TEXT_BYTES_MAX, SCRIPT_PATTERNS_KEPT,
    SCRIPT_STRING_BYTES_MAX,
};

/// The smallest class of programs; each further one is four times as large.
const SMALLEST_PROGRAM_BYTES: usize = SCRIPT_PATTERN_PROGRAM_BYTES_MAX >> 4;
/// Steps of a pattern's first use in an event, beside one for each of its bytes: about what compiling it takes.
const FIRST_USE_STEPS: f64 = 100.0;
/// The same where a pattern turns Unicode on: its classes are large automata.
const FIRST_USE_UNICODE_STEPS: f64 = 500.0;

/// A compiled pattern.
struct Pattern {
    text: Box<str>,
    regex: Regex,
    /// How much larger than the smallest class its program is: 1, 4 or 16.
    weight: usize,
}

/// The patterns of a state.
pub(super) struct Patterns {
    meter: Rc<Meter>,
    /// The last used comes last.
    kept: RefCell<VecDeque<Rc<Pattern>>>,
    paid: RefCell<Paid>,
}

/// What the event at hand has used.
#[derive(Default)]
struct Paid {
    event: u64,
    patterns: HashSet<Box<str>>,
}

/// What is wrong, told to the script; or the error that ends it.
pub(super) type Told<T> = mlua::Result<Result<T, String>>;

impl Patterns {
    pub(super) fn new(meter: &Rc<Meter>) -> Self {
        Self { meter: Rc::clone(meter), kept: RefCell::default(), paid: RefCell::default() }
    }

    fn pattern(&self, text: &str) -> Told<Rc<Pattern>> {
        if text.len() > SCRIPT_PATTERN_BYTES_MAX {
            return Ok(Err(format!("the pattern has {} bytes, above {SCRIPT_PATTERN_BYTES_MAX}", text.len())));
        }
        self.pay(text)?;
        let mut kept = self.kept.borrow_mut();
        let known = kept.iter().position(|p| &*p.text == text).and_then(|at| kept.remove(at));
        let pattern = match known {
            Some(pattern) => pattern,
            None => match compile(text) {
                Ok((regex, weight)) => Rc::new(Pattern { text: text.into(), regex, weight }),
                Err(problem) => return Ok(Err(problem)),
            },
        };
        if kept.len() >= SCRIPT_PATTERNS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Rc::clone(&pattern));
        Ok(Ok(pattern))
    }

    fn pay(&self, text: &str) -> mlua::Result<()> {
        let mut paid = self.paid.borrow_mut();
        if paid.event != self.meter.serial() {
            *paid = Paid { event: self.meter.serial(), ..Paid::default() };
        }
        if paid.patterns.contains(text) {
            return Ok(());
        }
        let compiling = if turns_unicode_on(text) { FIRST_USE_UNICODE_STEPS } else { FIRST_USE_STEPS };
        self.meter.charge(compiling + text.len() as f64)?;
        paid.patterns.insert(text.into());
        Ok(())
    }

    /// The pattern, where it may search so long a text.
    fn searching(&self, pattern: &str, text: &[u8]) -> Told<Rc<Pattern>> {
        let pattern = match self.pattern(pattern)? {
            Ok(pattern) => pattern,
            Err(problem) => return Ok(Err(problem)),
        };
        let longest = SCRIPT_PATTERN_TEXT_BYTES_MAX / pattern.weight;
        if text.len() > longest {
            return Ok(Err(format!("the text has {} bytes, and a pattern of this size searches {longest}", text.len())));
        }
        Ok(Ok(pattern))
    }

    fn charge(&self, pattern: &Pattern, bytes: usize) -> mlua::Result<()> {
        self.meter.charge((bytes / 64 * pattern.weight) as f64)
    }

    /// Where the first match from byte `from` on begins and ends, counted from 0.
    pub(super) fn find(&self, pattern: &str, text: &[u8], from: usize) -> Told<Option<(usize, usize)>> {
        let pattern = match self.searching(pattern, text)? {
            Ok(pattern) => pattern,
            Err(problem) => return Ok(Err(problem)),
        };
        self.charge(&pattern, text.len().saturating_sub(from))?;
        let found = (from <= text.len()).then(|| pattern.regex.find_at(text, from)).flatten();
        Ok(Ok(found.map(|m| (m.start(), m.end()))))
    }

    /// Hands the groups of the first match to `read`, with the name of each.
    pub(super) fn groups<T>(
        &self,
        pattern: &str,
        text: &[u8],
        read: impl FnOnce(&Regex, &Captures<'_>) -> mlua::Result<T>,
    ) -> Told<Option<T>> {
        let pattern = match self.searching(pattern, text)? {
            Ok(pattern) => pattern,
            Err(problem) => return Ok(Err(problem)),
        };
        self.charge(&pattern, text.len())?;
        let Some(captures) = pattern.regex.captures(text) else { return Ok(Ok(None)) };
        let bytes: usize = captures.iter().flatten().map(|m| m.len()).sum();
        if bytes > SCRIPT_STRING_BYTES_MAX {
            return Ok(Err(format!("the groups have {bytes} bytes together, above {SCRIPT_STRING_BYTES_MAX}")));
        }
        Ok(Ok(Some(read(&pattern.regex, &captures)?)))
    }

    /// Hands each match to `take` until it says stop, and charges each before it is looked for.
    fn each(&self, pattern: &Pattern, text: &[u8], mut take: impl FnMut(&Captures<'_>) -> mlua::Result<bool>) -> mlua::Result<()> {
        let (mut at, mut last_end) = (0, None);
        while at <= text.len() {
            self.meter.charge(1.0)?;
            self.charge(pattern, text.len() - at)?;
            let Some(captures) = pattern.regex.captures_at(text, at) else { break };
            let (start, end) = captures.get(0).map_or((at, at), |m| (m.start(), m.end()));
            at = if start == end { end + 1 } else { end };
            // An empty match right behind another is none of its own.
            if start == end && last_end == Some(end) {
                continue;
            }
            last_end = Some(end);
            if !take(&captures)? {
                break;
            }
        }
        Ok(())
    }

    /// Every match, one after the other.
    pub(super) fn all(&self, pattern: &str, text: &[u8], mut take: impl FnMut(&[u8]) -> mlua::Result<()>) -> Told<()> {
        let pattern = match self.searching(pattern, text)? {
            Ok(pattern) => pattern,
            Err(problem) => return Ok(Err(problem)),
        };
        self.each(&pattern, text, |captures| {
            take(captures.get(0).map_or(&[], |m| m.as_bytes()))?;
            Ok(true)
        })?;
        Ok(Ok(()))
    }

    /// The text with up to `max` matches replaced, and how many were; `$1` and `${name}` in `by` are groups, `$$` is `$`.
    pub(super) fn replace(&self, pattern: &str, text: &[u8], by: &[u8], max: usize) -> Told<(Vec<u8>, usize)> {
        let pattern = match self.searching(pattern, text)? {
            Ok(pattern) => pattern,
            Err(problem) => return Ok(Err(problem)),
        };
        let parts = match parts(by, &pattern.regex) {
            Ok(parts) => parts,
            Err(problem) => return Ok(Err(problem)),
        };
        let (mut out, mut count, mut copied, mut too_long) = (Vec::with_capacity(text.len()), 0, 0, false);
        self.each(&pattern, text, |captures| {
            if count == max {
                return Ok(false);
            }
            count += 1;
            if let Some(whole) = captures.get(0) {
                out.extend_from_slice(&text[copied..whole.start()]);
                copied = whole.end();
            }
            // A replacement may name a long group many times: its size is known before it is written.
            let bytes: usize = parts.iter().map(|part| part.of(captures).len()).sum();
            self.meter.charge((bytes / 64 + parts.len() / 16) as f64)?;
            if out.len() + bytes > SCRIPT_STRING_BYTES_MAX {
                too_long = true;
                return Ok(false);
            }
            parts.iter().for_each(|part| out.extend_from_slice(part.of(captures)));
            Ok(true)
        })?;
        out.extend_from_slice(&text[copied..]);
        if too_long || out.len() > SCRIPT_STRING_BYTES_MAX {
            return Ok(Err(format!("the replacement makes more than {SCRIPT_STRING_BYTES_MAX} bytes")));
        }
        Ok(Ok((out, count)))
    }
}

/// A piece of a replacement.
enum Part<'a> {
    Literal(&'a [u8]),
    Group(usize),
}

impl<'a> Part<'a> {
    fn of<'t: 'a>(&self, captures: &Captures<'t>) -> &'a [u8] {
        match self {
            Self::Literal(bytes) => bytes,
            Self::Group(group) => captures.get(*group).map_or(&[], |m| m.as_bytes()),
        }
    }
}

/// `$1`, `${1}`, `${name}`, `$$`; everything else stands for itself.
fn parts<'a>(by: &'a [u8], regex: &Regex) -> Result<Vec<Part<'a>>, String> {
    let mut parts = Vec::new();
    let mut rest = by;
    while let Some(dollar) = rest.iter().position(|b| *b == b'$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        parts.push(Part::Literal(before));
        let (name, behind) = match after.first() {
            Some(b'$') => {
                parts.push(Part::Literal(b"$"));
                rest = &after[1..];
                continue;
            }
            Some(b'{') => match after.iter().position(|b| *b == b'}') {
                Some(end) => (&after[1..end], &after[end + 1..]),
                None => return Err("the replacement has a ${ without its }".into()),
            },
            _ => after.split_at(after.iter().take_while(|b| b.is_ascii_digit()).count()),
        };
        let name = String::from_utf8_lossy(name);
        let group = name.parse().ok().or_else(|| regex.capture_names().position(|n| n == Some(&*name)));
        match group {
            Some(group) if group < regex.captures_len() => parts.push(Part::Group(group)),
            _ => return Err(format!("the replacement names group {name:?}, which the pattern lacks; a dollar sign is $$")),
        }
        rest = behind;
    }
    parts.push(Part::Literal(rest));
    Ok(parts)
}

/// Whether a group of flags such as `(?u)` or `(?iu:` may be in it.
fn turns_unicode_on(text: &str) -> bool {
    text.split("(?").skip(1).any(|group| group.bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'-').any(|b| b == b'u'))
}

/// Compiles in the smallest class that fits.
fn compile(text: &str) -> Result<(Regex, usize), String> {
    let mut weight = 1;
    loop {
        let program = SMALLEST_PROGRAM_BYTES * weight;
        let made = RegexBuilder::new(text).unicode(false).size_limit(program).dfa_size_limit(4 * program).nest_limit(50).build();
        match made {
            Ok(regex) => return Ok((regex, weight)),
            Err(regex::Error::CompiledTooBig(_)) if program < SCRIPT_PATTERN_PROGRAM_BYTES_MAX => weight *= 4,
            Err(regex::Error::CompiledTooBig(_)) => return Err("the pattern is too large: repeat less, or without (?u)".into()),
            Err(error) => {
                // The reason stands below a drawing of the pattern.
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
                return Err(format!("the pattern is none: {reason}"));
            }
        }
    }
}
