//! The usual JSON, to a tape in one pass and without a parser's generality: five times as fast.
//!
//! It gives up – and the full parser decides, with its words for what is wrong – on whatever is not usual: escapes in texts,
//! control characters, `-0`, integers of more than 18 digits, numbers beyond a double, deep nesting, and every mistake. What
//! it takes is what the full parser makes of it.

use super::Node;
use crate::limits::DOCUMENT_NODES_KEPT;
use std::cell::Cell;

/// Levels of the usual: room for them is made for each document.
const DEPTH_MAX: usize = 12;
/// More digits may pass what an `i64` holds.
const DIGITS_MAX: usize = 18;
/// Powers of ten, each of which a double holds exactly.
const TENS: [f64; DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
/// The largest integers of which a double holds each.
const EXACT_MAX: u64 = 1 << 53;

thread_local! {
    static TAPE: Cell<Vec<Node>> = const { Cell::new(Vec::new()) };
}

/// The nodes of one JSON value, in as much memory as they need: an epoch holds thousands of documents, and how many nodes a
/// text has is not known before. None where it is not for this scanner to say.
pub(super) fn nodes(text: &str) -> Option<Vec<Node>> {
    let mut nodes = TAPE.take();
    nodes.clear();
    let found = Scan::new(text).whole(&mut nodes).map(|()| nodes.as_slice().to_vec());
    nodes.truncate(DOCUMENT_NODES_KEPT);
    nodes.shrink_to(DOCUMENT_NODES_KEPT);
    TAPE.set(nodes);
    found
}

/// A container whose end has not come.
#[derive(Clone, Copy)]
struct Open {
    /// Its node.
    at: usize,
    len: u32,
    is_map: bool,
}

impl Open {
    fn close(self, nodes: &mut [Node]) {
        let (len, end) = (self.len, nodes.len() as u32);
        nodes[self.at] = if self.is_map { Node::Map { len, end } } else { Node::List { len, end } };
    }
}

/// A place in a text.
pub(super) struct Scan<'t> {
    text: &'t str,
    bytes: &'t [u8],
    pub(super) at: usize,
}

impl<'t> Scan<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    /// Reads the one value that the text is.
    fn whole(&mut self, nodes: &mut Vec<Node>) -> Option<()> {
        let mut open = [Open { at: 0, len: 0, is_map: false }; DEPTH_MAX];
        let mut depth = 0;
        'value: loop {
            // At the beginning of a value.
            self.space();
            match self.peek()? {
                kind @ (b'{' | b'[') => {
                    *open.get_mut(depth)? = Open { at: nodes.len(), len: 0, is_map: kind == b'{' };
                    depth += 1;
                    nodes.push(Node::Null);
                    self.at += 1;
                    self.space();
                    if self.peek()? != if kind == b'{' { b'}' } else { b']' } {
                        if kind == b'{' {
                            nodes.push(self.name()?);
                        }
                        continue 'value;
                    }
                    self.at += 1;
                    depth -= 1;
                    open[depth].close(nodes);
                }
                _ => nodes.push(self.scalar()?),
            }
            // Behind a value, which may have been the last of its containers.
            loop {
                self.space();
                let Some(container) = depth.checked_sub(1).map(|i| &mut open[i]) else { break 'value };
                container.len += 1;
                match (self.peek()?, container.is_map) {
                    (b',', true) => {
                        self.at += 1;
                        self.space();
                        nodes.push(self.name()?);
                        continue 'value;
                    }
                    (b',', false) => {
                        self.at += 1;
                        continue 'value;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        depth -= 1;
                        open[depth].close(nodes);
                    }
                    _ => return None,
                }
            }
        }
        self.is_at_end().then_some(())
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Goes on behind these bytes, where they come next.
    #[inline]
    pub(super) fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        let text = self.bytes.get(self.at..self.at + bytes.len())?;
        // Most are short, and compared in two words they take no call.
        let is_same = match bytes.len() {
            1 => text.first() == bytes.first(),
            4..=8 => have_same_ends::<4>(text, bytes),
            9..=16 => have_same_ends::<8>(text, bytes),
            _ => text == bytes,
        };
        is_same.then(|| self.at += bytes.len())
    }

    /// A value that is no container.
    #[inline]
    pub(super) fn scalar(&mut self) -> Option<Node> {
        match self.peek()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true").map(|()| Node::Bool(true)),
            b'f' => self.literal(b"false").map(|()| Node::Bool(false)),
            b'n' => self.literal(b"null").map(|()| Node::Null),
            _ => None,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        // Most senders leave none.
        if self.peek().is_some_and(|byte| byte <= b' ') {
            while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
                self.at += 1;
            }
        }
    }

    /// The name of a member, with its colon.
    fn name(&mut self) -> Option<Node> {
        let name = self.string()?;
        self.space();
        self.literal(b":").map(|()| name)
    }

    /// A text that stands in the document as it is.
    #[inline]
    fn string(&mut self) -> Option<Node> {
        let start = self.at + 1;
        let rest = self.bytes.get(start..).filter(|_| self.bytes[self.at] == b'"')?;
        let len = plain(rest);
        if *rest.get(len)? != b'"' {
            return None;
        }
        self.at = start + len + 1;
        Some(Node::Text { start: start as u32, len: len as u32 })
    }

    fn number(&mut self) -> Option<Node> {
        let bytes = &self.bytes[self.at..];
        let is_negative = bytes.first() == Some(&b'-');
        let begin = usize::from(is_negative);
        let (mut mantissa, mut end) = digits(bytes, begin, 0);
        let whole = end - begin;
        // JSON has no leading zeros.
        if whole == 0 || (whole > 1 && bytes[begin] == b'0') {
            return None;
        }
        let next = bytes.get(end).copied().unwrap_or_default();
        if !matches!(next, b'.' | b'e' | b'E') {
            if whole > DIGITS_MAX || (is_negative && mantissa == 0) {
                return None;
            }
            self.at += end;
            let number = mantissa as i64;
            return Some(Node::Int(if is_negative { -number } else { number }));
        }
        let (mut fraction, mut has_exponent) = (0, next != b'.');
        if next == b'.' {
            let point = end + 1;
            (mantissa, end) = digits(bytes, point, mantissa);
            fraction = end - point;
            if fraction == 0 {
                return None;
            }
            has_exponent = matches!(bytes.get(end), Some(b'e' | b'E'));
        }
        if has_exponent {
            let begin = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            (_, end) = digits(bytes, begin, 0);
            if end == begin {
                return None;
            }
        } else if whole + fraction <= DIGITS_MAX && mantissa <= EXACT_MAX {
            self.at += end;
            // Both are exact, so their quotient is rounded once, as the number itself is.
            let number = mantissa as i64 as f64 / TENS[fraction];
            return Some(Node::Float(if is_negative { -number } else { number }));
        }
        let start = self.at;
        self.at += end;
        self.text[start..self.at].parse().ok().filter(|f: &f64| f.is_finite()).map(Node::Float)
    }
}

/// Whether both begin and end with the same `N` bytes.
#[inline]
fn have_same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
}

/// Adds digits from a place on to a number; where they end. It wraps where there are too many, which the caller asks for.
#[inline]
fn digits(bytes: &[u8], from: usize, mut number: u64) -> (u64, usize) {
    let mut at = from;
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (number, at)
}

/// How many bytes come before the first quote, backslash or control character, looked at in words of eight.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut len = 0;
    while let Some(word) = bytes[len..].first_chunk() {
        let word = u64::from_le_bytes(*word);
        // A byte's high bit is set where the byte is zero; above the first such byte a borrow may set others.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control) & HIGH;
        if found != 0 {
            return len + found.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + bytes[len..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len() - len)
}
