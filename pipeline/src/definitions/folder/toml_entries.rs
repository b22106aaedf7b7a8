//! TOML read piece by piece, so that one wrong entry does not hide the others, and each message has its line and column.

use crate::config::place::{Fault, FilePlace, TextPlaces};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error, ValueDeserializer};

/// One file under way.
pub(super) struct TomlText<'a> {
    /// As messages call it.
    pub(super) file: &'a str,
    text: &'a str,
    places: TextPlaces<'a>,
}

/// Syntax errors named of one file: after some they are consequences.
const SYNTAX_ERRORS_MAX: usize = 5;

impl<'a> TomlText<'a> {
    /// A file by the name that messages give it.
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, places: TextPlaces::new(file, text) }
    }

    /// A place in it.
    pub(super) fn place(&self, span: Option<std::ops::Range<usize>>) -> FilePlace {
        self.places.at(span)
    }

    /// The document, or `None` where its syntax is wrong.
    pub(super) fn document(&self, faults: &mut Vec<Fault>) -> Option<Spanned<DeTable<'a>>> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        let ok = errors.is_empty();
        faults.extend(errors.iter().take(SYNTAX_ERRORS_MAX).map(|e| self.fault(e)));
        ok.then_some(document)
    }

    /// The entries of `[[name]]`, which is all that the document may hold.
    pub(super) fn entries<T: DeserializeOwned>(&self, name: &str, faults: &mut Vec<Fault>) -> Vec<(T, FilePlace)> {
        let Some(document) = self.document(faults) else { return Vec::new() };
        let mut out = Vec::new();
        for (key, value) in document.into_inner() {
            if key.get_ref() == name {
                out.extend(self.array(value, faults));
            } else {
                let remedy = format!("every entry of this file is headed [[{name}]]");
                faults.push(Fault::new(self.place(Some(key.span())), format!("unknown key {:?}", key.get_ref()), remedy));
            }
        }
        out
    }

    /// The elements of an array, each with its place: that of its id where it has one.
    pub(super) fn array<T: DeserializeOwned>(&self, value: Spanned<DeValue<'a>>, faults: &mut Vec<Fault>) -> Vec<(T, FilePlace)> {
        let span = value.span();
        let DeValue::Array(array) = value.into_inner() else {
            faults.push(Fault::new(self.place(Some(span)), "an array of tables is wanted here", "head each entry with its name in [[ ]]"));
            return Vec::new();
        };
        let mut out = Vec::new();
        for element in array {
            let named = match element.get_ref() {
                DeValue::Table(table) => table.get("id").map(Spanned::span),
                _ => None,
            };
            let place = self.place(Some(named.unwrap_or_else(|| element.span())));
            match T::deserialize(ValueDeserializer::from(element)) {
                Ok(entry) => out.push((entry, place)),
                Err(e) => faults.push(self.fault_at(&e, &place)),
            }
        }
        out
    }

    /// A whole table.
    pub(super) fn table<T: DeserializeOwned>(&self, table: Spanned<DeTable<'a>>, faults: &mut Vec<Fault>) -> Option<T> {
        T::deserialize(Deserializer::from(table)).map_err(|e| faults.push(self.fault(&e))).ok()
    }

    fn fault(&self, error: &Error) -> Fault {
        self.fault_at(error, &FilePlace::file(self.file))
    }

    /// The parser's own place where it has one.
    fn fault_at(&self, error: &Error, entry: &FilePlace) -> Fault {
        let place = error.span().map_or_else(|| entry.clone(), |span| self.place(Some(span)));
        let message = error.message();
        let remedy = if message.starts_with("unknown field") {
            "correct its name, or remove it"
        } else if message.starts_with("missing field") {
            "add it"
        } else {
            "correct it"
        };
        Fault::new(place, message, remedy)
    }
}
