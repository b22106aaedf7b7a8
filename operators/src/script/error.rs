//! What scripts' errors look like to users: the message without the machinery around it, and the script's own line.

use crate::script::tide::root;
use std::fmt;
use tidegate_schemas::limits::REJECTION_DETAIL_BYTES_MAX;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// Why a script cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScriptError {
    /// The stage.
    pub stage: StageName,
    /// Line in its source, from 1, where one is to blame.
    pub line: Option<i32>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage.as_str())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl ScriptError {
    /// As an event meets it.
    pub(crate) fn into_rejection(self) -> Rejection {
        Rejection { line: self.line, ..Rejection::new(self.stage, Code::ScriptError, self.message) }
    }
}

/// An error of `stage`, told to users.
pub(crate) fn describe(stage: StageName, error: &mlua::Error) -> ScriptError {
    let text = match root(error) {
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::MemoryError(_) => "out of memory".to_owned(),
        other => other.to_string(),
    };
    let (message, mut stack) = text.rsplit_once("\nstack traceback:").unwrap_or((&text, ""));
    if let mlua::Error::CallbackError { traceback, .. } = error {
        stack = traceback;
    }
    let (place, message) = split_place(message);
    let line = match place {
        Some(place) if place.script => Some(place.line),
        // What the library raised happened where the script called it: innermost comes first.
        _ => stack.lines().filter_map(|l| split_place(l.trim_start()).0).find(|p| p.script).map(|p| p.line),
    };
    ScriptError { stage, line, message: shown(without_address(message)) }
}

/// A message as tables and terminals can hold it: never empty, and without control characters.
fn shown(message: &str) -> String {
    if message.is_empty() {
        return "an error without a message was raised".to_owned();
    }
    let mut out = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// What a script raises that is no text of UTF-8 or would end at its first zero byte on the way out of Lua: its beginning,
/// the bytes that cannot be shown as `\xNN`. None where it can go as it is.
pub(crate) fn escaped(raised: &[u8]) -> Option<String> {
    if !raised.contains(&0) && std::str::from_utf8(raised).is_ok() {
        return None;
    }
    let mut out = String::new();
    for chunk in raised[..raised.len().min(REJECTION_DETAIL_BYTES_MAX)].utf8_chunks() {
        out.push_str(&chunk.valid().replace('\0', "\\x00"));
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    Some(out)
}

/// Where Luau says that something happened.
struct Place {
    /// In a user's script, not in the host's own Luau.
    script: bool,
    line: i32,
}

/// `decode:3: message` as place and message.
fn split_place(message: &str) -> (Option<Place>, &str) {
    let mut parts = message.splitn(3, ':');
    let (Some(name), Some(line), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return (None, message) };
    match (name, line.parse::<i32>()) {
        ("decode" | "validate" | "transform", Ok(line)) => (Some(Place { script: true, line }), rest.trim_start()),
        ("tidegate", Ok(line)) => (Some(Place { script: false, line }), rest.trim_start()),
        _ => (None, message),
    }
}

/// A script may raise a table; its address would differ from run to run.
fn without_address(message: &str) -> &str {
    const RAISED: [(&str, &str); 5] = [
        ("table", "a table was raised"),
        ("function", "a function was raised"),
        ("userdata", "an object was raised"),
        ("buffer", "a buffer was raised"),
        ("thread", "a thread was raised"),
    ];
    let bare = message.trim_start_matches('<');
    let of = |(name, _): &&(&str, &str)| bare.strip_prefix(name).is_some_and(|r| r.trim_start_matches([':', ' ']).starts_with("0x"));
    RAISED.iter().find(of).map_or(message, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_their_machinery() {
        let cases = [
            (
                "decode:3: boom\nstack traceback:\n\t[C]: in ?\n\tdecode:3: in function 'decode'\n\ttidegate:4: in function <tidegate:2>",
                Some(3),
                "boom",
            ),
            (
                "tidegate:70: string.rep makes more\nstack traceback:\n\ttidegate:70: in function 'rep'\n\tvalidate:9: in function 'validate'",
                Some(9),
                "string.rep makes more",
            ),
            ("table: 0x00007f\nstack traceback:\n\ttransform:2: in function 'transform'", Some(2), "a table was raised"),
            ("two\nlines: of text", None, "two\nlines: of text"),
            ("decode:3: \nstack traceback:\n\tdecode:3: in function 'decode'", Some(3), "an error without a message was raised"),
            ("decode:3: a\u{1b}[2Jb\nstack traceback:\n", Some(3), "a\\u{1b}[2Jb"),
        ];
        for (text, line, message) in cases {
            let found = describe(StageName::Decode, &mlua::Error::runtime(text));
            assert_eq!((found.line, found.message.as_str()), (line, message), "{text}");
        }
    }
}
