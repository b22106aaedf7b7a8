//! A validating scanner of RFC 8259 JSON: it finds where a value ends and how deep it goes, and builds nothing.
//!
//! It has no recursion: kinds of open containers are bits, so a body of brackets costs an eighth of a byte each and no
//! stack. Text must be UTF-8 already; lone surrogate escapes and numbers out of range are left to the decoder, whose
//! verdict is a rejection with the event beside it.

/// Where a value ends, and its nesting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// One past its last byte.
    pub(super) end: usize,
    /// Levels of containers, 0 for a scalar.
    pub(super) depth: usize,
}

/// Why bytes are no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// From 0.
    pub(super) offset: usize,
    /// Completes "not JSON: … at byte N".
    pub(super) detail: &'static str,
}

/// Scans the value whose first byte, after white space, is at `at`.
pub(super) fn value(text: &[u8], mut at: usize) -> Result<Scanned, Syntax> {
    let mut open = Open::default();
    let mut depth = 0;
    loop {
        at = space(text, at);
        match text.get(at) {
            Some(b'"') => at = string(text, at + 1)?,
            Some(b'-' | b'0'..=b'9') => at = number(text, at)?,
            Some(byte @ (b'{' | b'[')) => {
                let object = *byte == b'{';
                open.push(object);
                depth = depth.max(open.depth);
                at = space(text, at + 1);
                match text.get(at) {
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ if object => {
                        at = key(text, at)?;
                        continue;
                    }
                    _ => continue,
                }
                open.pop();
                at += 1;
            }
            Some(b't') => at = literal(text, at, b"true")?,
            Some(b'f') => at = literal(text, at, b"false")?,
            Some(b'n') => at = literal(text, at, b"null")?,
            Some(_) => return Err(Syntax { offset: at, detail: "expected a value" }),
            None => return Err(end(text)),
        }
        // A value has ended: close what ends with it, or go on to the next one.
        loop {
            if open.depth == 0 {
                return Ok(Scanned { end: at, depth });
            }
            at = space(text, at);
            match (text.get(at), open.is_object()) {
                (Some(b','), false) => {
                    at += 1;
                    break;
                }
                (Some(b','), true) => {
                    at = key(text, space(text, at + 1))?;
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    open.pop();
                    at += 1;
                }
                (Some(_), true) => return Err(Syntax { offset: at, detail: "expected ',' or '}'" }),
                (Some(_), false) => return Err(Syntax { offset: at, detail: "expected ',' or ']'" }),
                (None, _) => return Err(end(text)),
            }
        }
    }
}

/// The first byte from `at` on that is no white space.
#[inline]
pub(super) fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

pub(super) fn end(text: &[u8]) -> Syntax {
    Syntax { offset: text.len(), detail: "unexpected end" }
}

/// Kinds of the open containers, the innermost in the lowest bit.
#[derive(Default)]
struct Open {
    word: u64,
    full: Vec<u64>,
    depth: usize,
}

impl Open {
    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.full.push(self.word);
        }
        self.word = self.word << 1 | u64::from(object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.word >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.full.pop().unwrap_or_default();
        }
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.word & 1 == 1
    }
}

/// A key and its colon; returns the place after it.
#[inline]
fn key(text: &[u8], at: usize) -> Result<usize, Syntax> {
    match text.get(at) {
        Some(b'"') => {}
        Some(_) => return Err(Syntax { offset: at, detail: "expected a key in double quotes" }),
        None => return Err(end(text)),
    }
    let at = space(text, string(text, at + 1)?);
    match text.get(at) {
        Some(b':') => Ok(at + 1),
        Some(_) => Err(Syntax { offset: at, detail: "expected ':'" }),
        None => Err(end(text)),
    }
}

/// The rest of a string; returns the place after its closing quote.
#[inline]
fn string(text: &[u8], mut at: usize) -> Result<usize, Syntax> {
    loop {
        while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let special = special_bytes(u64::from_le_bytes(*chunk));
            if special != 0 {
                at += (special.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = escape(text, at + 1)?,
            Some(0..=0x1f) => return Err(Syntax { offset: at, detail: "control character in a string" }),
            Some(_) => at += 1,
            None => return Err(end(text)),
        }
    }
}

/// The high bit of each byte that is a quote, a backslash or a control character. Bits above the lowest one may be wrong.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & (ONES * 0x80)
}

fn escape(text: &[u8], at: usize) -> Result<usize, Syntax> {
    match text.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => {
            let digits = (at + 1..at + 5).find(|i| !text.get(*i).is_some_and(u8::is_ascii_hexdigit));
            match digits {
                None => Ok(at + 5),
                Some(bad) if bad < text.len() => Err(Syntax { offset: bad, detail: "expected a hexadecimal digit" }),
                Some(_) => Err(end(text)),
            }
        }
        Some(_) => Err(Syntax { offset: at, detail: "unknown escape" }),
        None => Err(end(text)),
    }
}

fn number(text: &[u8], mut at: usize) -> Result<usize, Syntax> {
    if text[at] == b'-' {
        at += 1;
    }
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    // What follows a number is judged by whoever expects it; a digit after a leading zero can never be right.
    match text.get(at) {
        Some(b'0'..=b'9') => Err(Syntax { offset: at, detail: "number with a leading zero" }),
        _ => Ok(at),
    }
}

#[inline]
fn digits(text: &[u8], at: usize) -> Result<usize, Syntax> {
    let mut past = at;
    while let Some(b'0'..=b'9') = text.get(past) {
        past += 1;
    }
    match text.get(past) {
        _ if past > at => Ok(past),
        Some(_) => Err(Syntax { offset: past, detail: "expected a digit" }),
        None => Err(end(text)),
    }
}

fn literal(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Syntax> {
    if text[at..].starts_with(word) { Ok(at + word.len()) } else { Err(Syntax { offset: at, detail: "expected a value" }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> Result<usize, Syntax> {
        let scanned = value(text, 0)?;
        let at = space(text, scanned.end);
        if at < text.len() { Err(Syntax { offset: at, detail: "more after the value" }) } else { Ok(scanned.depth) }
    }

    #[test]
    fn depth_is_counted_and_nothing_overflows() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 100_000] {
            let lists = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(whole(lists.as_bytes()), Ok(depth));
            let maps = "{\"a\":[".repeat(depth) + "1" + &"]}".repeat(depth);
            assert_eq!(whole(maps.as_bytes()), Ok(2 * depth));
            let crossed = "{\"a\":[".repeat(depth) + "1" + &"}]".repeat(depth);
            assert!(whole(crossed.as_bytes()).is_err());
            assert_eq!(whole(&lists.as_bytes()[..2 * depth - 1]).unwrap_err().detail, "unexpected end");
        }
    }

    #[test]
    fn offsets_point_at_the_fault() {
        for (text, offset) in [
            ("{\"a\":1,}", 7),
            ("[1 2]", 3),
            ("\"ab\u{1}\"", 3),
            ("\"\\u12x4\"", 5),
            ("01", 1),
            ("-", 1),
            ("1.x", 2),
            ("nul", 0),
            ("{\"long key with text\" 1}", 22),
            ("", 0),
        ] {
            assert_eq!(whole(text.as_bytes()).unwrap_err().offset, offset, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        // Few characters, so that most texts come near to JSON.
        #[test]
        fn it_agrees_with_serde_json(text in "[\\[\\]{}\":,\\\\ue0123 .+\\-\ta-bE]{0,24}|(\\[|\\{\"a\":|1,?|\"[a-z\\\\\"äé\u{1}]{0,12}\"|\\]|\\}|,|:|null|true|false|-?[0-9]{1,3}\\.?[0-9]?(e[0-9])?){0,12}") {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(whole(text.as_bytes()).is_ok(), theirs, "{}", text);
        }
    }
}
