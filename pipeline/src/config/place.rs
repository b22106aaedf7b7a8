//! Where something stands in a file that people wrote: every message about a file begins with it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePlace {
    /// The file, as the user named it or as it is called inside the folder.
    pub file: Arc<str>,
    /// Line and column from 1; `None` where the whole file is meant.
    pub at: Option<(usize, usize)>,
}

impl FilePlace {
    /// The whole file.
    pub fn file(file: &str) -> Self {
        Self { file: file.into(), at: None }
    }

    /// The first byte of `span` in `text`. The column counts characters.
    pub fn of(file: &str, text: &str, span: Option<Range<usize>>) -> Self {
        Self { file: file.into(), at: span.map(|s| line_and_column(text, s.start)) }
    }
}

/// Line and column from 1 of a byte.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let end = (0..=byte.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Something that a person has to mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: FilePlace,
    /// What is wrong.
    pub detail: String,
    /// What mends it.
    pub remedy: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(place: FilePlace, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place, detail: detail.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.detail, self.remedy)
    }
}

/// All that is wrong, one a line, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);
