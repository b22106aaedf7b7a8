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

    /// The first byte of `span` in `text`. For many places in one text see [`TextPlaces`].
    pub fn of(file: &str, text: &str, span: Option<Range<usize>>) -> Self {
        TextPlaces::new(file, text).at(span)
    }
}

/// Places in one text: its lines are found once, so that a file of a hundred thousand entries is read in linear time.
pub struct TextPlaces<'a> {
    file: Arc<str>,
    text: &'a str,
    /// First byte of each line.
    lines: Vec<usize>,
}

impl<'a> TextPlaces<'a> {
    /// Finds the lines.
    pub fn new(file: &str, text: &'a str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { file: file.into(), text, lines: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The first byte of `span`; columns count characters.
    pub fn at(&self, span: Option<Range<usize>>) -> FilePlace {
        let at = span.map(|span| {
            let byte = (0..=span.start.min(self.text.len())).rev().find(|i| self.text.is_char_boundary(*i)).unwrap_or(0);
            let line = self.lines.partition_point(|start| *start <= byte);
            (line, self.text[self.lines[line - 1]..byte].chars().count() + 1)
        });
        FilePlace { file: Arc::clone(&self.file), at }
    }
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
