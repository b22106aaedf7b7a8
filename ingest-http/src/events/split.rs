//! Where the events of a body lie, and which of them are refused. Nothing is copied and no document is built.

use super::format::Format;
use super::json::{self, Syntax};
use tidegate_schemas::envelope::{Refusal, Span};
use tidegate_schemas::limits::{EVENT_BYTES_MAX, EVENT_TOO_LARGE_BYTES_KEPT, EVENTS_PER_REQUEST_MAX, JSON_DEPTH_MAX};
use tidegate_schemas::verdict::Code;

/// The events of a body, both lists in the order of the request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) accepted: Vec<Span>,
    pub(super) refused: Vec<Refusal>,
}

/// Why a body holds no events at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsplit {
    /// No bytes.
    Empty,
    /// An array or lines without an event.
    NoEvents,
    /// The body as a whole is broken.
    Syntax(Syntax),
    /// More than [`EVENTS_PER_REQUEST_MAX`].
    TooMany,
}

/// Splits a body. Its length fits in 32 bits: the caller has capped it.
pub(super) fn split(body: &[u8], format: Format) -> Result<Split, Unsplit> {
    if body.is_empty() {
        return Err(Unsplit::Empty);
    }
    let mut split = Split::default();
    match format {
        Format::Json => json(body, &mut split)?,
        Format::Ndjson => ndjson(body, &mut split)?,
        Format::Raw => split.add(0..body.len(), 0)?,
    }
    if split.count() == 0 { Err(Unsplit::NoEvents) } else { Ok(split) }
}

/// One value or an array: where it breaks, no later event can be told, so the whole is refused.
fn json(body: &[u8], split: &mut Split) -> Result<(), Unsplit> {
    if let Err(error) = simdutf8::compat::from_utf8(body) {
        return Err(Unsplit::Syntax(Syntax { offset: error.valid_up_to(), detail: "invalid UTF-8" }));
    }
    let mut at = json::space(body, 0);
    if body.get(at) != Some(&b'[') {
        let scanned = json::value(body, at).map_err(Unsplit::Syntax)?;
        split.add(at..scanned.end, scanned.depth)?;
        return nothing_after(body, scanned.end);
    }
    at = json::space(body, at + 1);
    if body.get(at) == Some(&b']') {
        return nothing_after(body, at + 1);
    }
    loop {
        at = json::space(body, at);
        let scanned = json::value(body, at).map_err(Unsplit::Syntax)?;
        split.add(at..scanned.end, scanned.depth)?;
        at = json::space(body, scanned.end);
        match body.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return nothing_after(body, at + 1),
            Some(_) => return Err(Unsplit::Syntax(Syntax { offset: at, detail: "expected ',' or ']'" })),
            None => return Err(Unsplit::Syntax(json::end(body))),
        }
    }
}

fn nothing_after(body: &[u8], at: usize) -> Result<(), Unsplit> {
    let at = json::space(body, at);
    if at == body.len() { Ok(()) } else { Err(Unsplit::Syntax(Syntax { offset: at, detail: "more after the end of the value" })) }
}

/// A value a line: a broken line is refused alone, since the next one can be told. Blank lines do not count.
fn ndjson(body: &[u8], split: &mut Split) -> Result<(), Unsplit> {
    let all_text = simdutf8::basic::from_utf8(body).is_ok();
    split.accepted.reserve((body.len() / 128).min(EVENTS_PER_REQUEST_MAX));
    let mut from = 0;
    while from < body.len() {
        let to = memchr::memchr(b'\n', &body[from..]).map_or(body.len(), |n| from + n);
        line(body, from, to, all_text, split)?;
        from = to + 1;
    }
    Ok(())
}

fn line(body: &[u8], from: usize, to: usize, all_text: bool, split: &mut Split) -> Result<(), Unsplit> {
    let text = &body[..to];
    let at = json::space(text, from);
    if at == to {
        return Ok(());
    }
    let scanned = match simdutf8::compat::from_utf8(if all_text { &[] } else { &text[at..] }) {
        Ok(_) => json::value(text, at),
        Err(error) => Err(Syntax { offset: at + error.valid_up_to(), detail: "invalid UTF-8" }),
    };
    let scanned = scanned.and_then(|scanned| match json::space(text, scanned.end) {
        past if past == to => Ok(scanned),
        past => Err(Syntax { offset: past, detail: "more after the end of the value" }),
    });
    match scanned {
        Ok(scanned) => split.add(at..scanned.end, scanned.depth),
        Err(syntax) => {
            let end = at + text[at..].trim_ascii_end().len();
            // A broken line above the bound could not stand in a rejection either.
            if end - at > EVENT_BYTES_MAX { split.add(at..end, 0) } else { split.refuse(at..end, Code::Syntax, syntax.message()) }
        }
    }
}

impl Syntax {
    /// For answers and rejections; the offset is one of the request's body.
    pub(super) fn message(self) -> String {
        format!("not JSON: {} at byte {} of the body", self.detail, self.offset)
    }
}

impl Split {
    /// Events seen so far.
    pub(super) fn count(&self) -> usize {
        self.accepted.len() + self.refused.len()
    }

    /// Takes an event that is well-formed, within the bounds of one event.
    fn add(&mut self, range: std::ops::Range<usize>, depth: usize) -> Result<(), Unsplit> {
        if range.len() > EVENT_BYTES_MAX {
            let detail = format!(
                "the event has {} bytes, more than {EVENT_BYTES_MAX}; where others of the request are stored, its first {EVENT_TOO_LARGE_BYTES_KEPT} are kept",
                range.len()
            );
            return self.refuse(range.start..range.start + EVENT_TOO_LARGE_BYTES_KEPT, Code::EventTooLarge, detail);
        }
        if depth > JSON_DEPTH_MAX {
            let detail = format!("the event is nested {depth} levels deep, more than {JSON_DEPTH_MAX}");
            return self.refuse(range, Code::TooDeep, detail);
        }
        let span = self.span(range)?;
        self.accepted.push(span);
        Ok(())
    }

    fn refuse(&mut self, range: std::ops::Range<usize>, code: Code, detail: String) -> Result<(), Unsplit> {
        let span = self.span(range)?;
        self.refused.push(Refusal { span, code: code.as_str().to_owned(), detail, pointer: String::new() });
        Ok(())
    }

    fn span(&self, range: std::ops::Range<usize>) -> Result<Span, Unsplit> {
        let index = self.count();
        if index >= EVENTS_PER_REQUEST_MAX {
            return Err(Unsplit::TooMany);
        }
        Ok(Span { index: index as u32, start: range.start as u32, len: range.len() as u32 })
    }
}
