//! Masking: values of recorded events in the form that they have, without what they say. A letter becomes `a` or `A`, a digit
//! `1`, a boolean `false`: so digits stay digits, Base64 stays Base64, and lengths stay. What was masked is masked wherever
//! else it stands as a value, and in the asset's id, its attributes and the headers.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tidegate_schemas::time::{self, Micros};

/// A masked value that is shorter is looked for as a whole value only: it stands in too many others by chance.
const WITHIN_CHARS_MIN: usize = 4;

/// Which values are masked.
#[derive(Debug, Default)]
pub struct Mask {
    /// Members' names, wherever they stand, and pointers (RFC 6901).
    places: BTreeSet<String>,
    met: BTreeSet<String>,
    /// What was masked in the event at hand, and what stands for it; the longest first, since one may hold another.
    hidden: Vec<(String, String)>,
}

/// What surrounds an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// The asset's id.
    pub asset: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Headers that the source lets through.
    pub meta: BTreeMap<String, String>,
    /// The event's type, where the source found one.
    pub event_type: Option<String>,
    /// Its own time, where the source found one; left out where it was masked, since no time stands for another.
    pub occurred_at: Option<Micros>,
}

/// The time that a source would find in a value: milliseconds since 1970, or RFC 3339.
fn time_of(text: &str) -> Option<Micros> {
    text.parse().map_or_else(|_| time::parse(text), time::from_millis)
}

impl Mask {
    /// Masks what these name: members by name, `/pointers`, and `asset`, which is the asset's id as well.
    ///
    /// # Errors
    /// One of them is empty.
    pub fn new(places: &[String]) -> Result<Self, String> {
        let places: BTreeSet<String> = places.iter().map(|p| p.trim().to_owned()).collect();
        if places.contains("") {
            return Err("a member to be masked has no name".into());
        }
        Ok(Self { places, ..Self::default() })
    }

    /// What was named and never met: a slip of the pen would leave a value as it is.
    pub fn unmet(&self) -> Vec<&str> {
        self.places.difference(&self.met).map(String::as_str).collect()
    }

    /// An event with its values masked; `text` is `None` where it is no JSON.
    ///
    /// # Errors
    /// It is no JSON after all.
    pub fn apply(&mut self, text: Option<&str>, around: &Around) -> Result<(Option<String>, Around), String> {
        if self.places.is_empty() {
            return Ok((text.map(str::to_owned), around.clone()));
        }
        self.hidden.clear();
        if let Some(text) = text {
            self.look(text, "", false)?;
        }
        let named = |mask: &mut Self, name: &str, value: &str| {
            if mask.names(name) {
                mask.hide(value);
            }
        };
        named(self, "asset", &around.asset);
        around.attributes.iter().chain(&around.meta).for_each(|(name, value)| named(self, name, value));
        self.hidden.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.hidden.dedup();
        let mut out = String::new();
        if let Some(text) = text {
            self.write(text, "", false, &mut out)?;
        }
        let all = |values: &BTreeMap<String, String>| values.iter().map(|(name, value)| (name.clone(), self.shown(value))).collect();
        let is_hidden = |at: &Micros| self.hidden.iter().any(|(text, _)| time_of(text) == Some(*at));
        let around = Around {
            asset: self.shown(&around.asset),
            attributes: all(&around.attributes),
            meta: all(&around.meta),
            event_type: around.event_type.as_deref().map(|name| self.shown(name)),
            occurred_at: around.occurred_at.filter(|at| !is_hidden(at)),
        };
        Ok((text.map(|_| out), around))
    }

    fn names(&mut self, place: &str) -> bool {
        let named = self.places.contains(place);
        if named {
            self.met.insert(place.to_owned());
        }
        named
    }

    fn hide(&mut self, value: &str) {
        if !value.is_empty() {
            self.hidden.push((value.to_owned(), masked(value)));
        }
    }

    /// Gathers what is to be hidden.
    fn look(&mut self, text: &str, at: &str, inside: bool) -> Result<(), String> {
        match parts(text)? {
            Parts::Members(members) => members.into_iter().try_for_each(|(name, value)| {
                let place = below(at, &name);
                let named = self.names(&name) | self.names(&place);
                self.look(value.get(), &place, inside || named)
            }),
            Parts::Items(items) => items.into_iter().enumerate().try_for_each(|(i, value)| {
                let place = below(at, &i.to_string());
                let named = self.names(&place);
                self.look(value.get(), &place, inside || named)
            }),
            Parts::Text(text) if inside => {
                self.hide(&text);
                Ok(())
            }
            Parts::Number(text) if inside => {
                self.hide(text);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes a value: as it was sent where nothing of it is hidden.
    fn write(&self, text: &str, at: &str, inside: bool, out: &mut String) -> Result<(), String> {
        let is_named = |name: &str| self.places.contains(name);
        match parts(text)? {
            Parts::Members(members) => {
                out.push('{');
                for (i, (name, value)) in members.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(&name));
                    out.push(':');
                    let place = below(at, &name);
                    self.write(value.get(), &place, inside || is_named(&name) || is_named(&place), out)?;
                }
                out.push('}');
            }
            Parts::Items(items) => {
                out.push('[');
                for (i, value) in items.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    let place = below(at, &i.to_string());
                    self.write(value.get(), &place, inside || is_named(&place), out)?;
                }
                out.push(']');
            }
            Parts::Text(found) => {
                let shown = if inside { masked(&found) } else { self.shown(&found) };
                out.push_str(&if shown == found { text.to_owned() } else { quoted(&shown) });
            }
            Parts::Number(found) => {
                let known = found.len() >= WITHIN_CHARS_MIN && self.hidden.iter().any(|(value, _)| value == found);
                let hidden = inside || known;
                out.push_str(&if hidden { masked_number(found) } else { found.to_owned() });
            }
            Parts::Bool if inside => out.push_str("false"),
            Parts::Bool | Parts::Null => out.push_str(text),
        }
        Ok(())
    }

    /// A text without what is hidden elsewhere.
    fn shown(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for (value, mask) in &self.hidden {
            if shown == *value {
                return mask.clone();
            }
            if value.chars().count() >= WITHIN_CHARS_MIN {
                shown = shown.replace(value.as_str(), mask);
            }
        }
        shown
    }
}

fn masked(text: &str) -> String {
    let of = |c: char| match c {
        '0'..='9' => '1',
        c if c.is_uppercase() => 'A',
        c if c.is_alphabetic() => 'a',
        c => c,
    };
    text.chars().map(of).collect()
}

/// No digit becomes 0, so it stays a number of JSON.
fn masked_number(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '1' } else { c }).collect()
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value of JSON, one level deep: what is not masked stays as it was sent.
enum Parts<'a> {
    Members(Vec<(String, &'a RawValue)>),
    Items(Vec<&'a RawValue>),
    Text(String),
    Number(&'a str),
    Bool,
    Null,
}

fn parts(text: &str) -> Result<Parts<'_>, String> {
    let text = text.trim();
    let failed = |e: serde_json::Error| e.to_string();
    Ok(match text.as_bytes().first() {
        Some(b'{') => Parts::Members(serde_json::from_str::<Members<'_>>(text).map_err(failed)?.0),
        Some(b'[') => Parts::Items(serde_json::from_str(text).map_err(failed)?),
        Some(b'"') => Parts::Text(serde_json::from_str(text).map_err(failed)?),
        Some(b't' | b'f') => Parts::Bool,
        Some(b'n') => Parts::Null,
        Some(_) => Parts::Number(text),
        None => return Err("there is no value".into()),
    })
}

/// Members in the order in which they were sent, repeated ones included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(places: &[&str], event: &str, asset: &str) -> (String, String) {
        let mut mask = Mask::new(&places.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap();
        let around = Around { asset: asset.into(), ..Around::default() };
        let (text, around) = mask.apply(Some(event), &around).unwrap();
        assert_eq!(mask.unmet(), Vec::<&str>::new());
        (text.unwrap(), around.asset)
    }

    #[test]
    fn what_is_not_named_stays_as_it_was_sent() {
        let sent = r#"{"b": 1.50, "a":[1e3 ,{"x":"\u00e9"}], "b":12345678901234567890}"#;
        let mut none = Mask::new(&[]).unwrap();
        assert_eq!(none.apply(Some(sent), &Around::default()).unwrap().0.unwrap(), sent);
        let (text, _) = check(&["x"], sent, "");
        assert_eq!(text, r#"{"b":1.50,"a":[1e3,{"x":"a"}],"b":12345678901234567890}"#);
        assert_eq!(check(&["e"], r#"{"e":{},"f":[],"g":null,"h":true}"#, "").0, r#"{"e":{},"f":[],"g":null,"h":true}"#);
    }

    #[test]
    fn a_masked_value_is_masked_wherever_it_stands() {
        let sent = r#"{"device":"SN-0042x","topic":"up/SN-0042x/1","n":7,"other":"SN"}"#;
        assert_eq!(
            check(&["device"], sent, "SN-0042x"),
            (r#"{"device":"AA-1111a","topic":"up/AA-1111a/1","n":7,"other":"SN"}"#.into(), "AA-1111a".into())
        );
        // Numbers, whole objects, pointers and items.
        let sent = r#"{"id":4711,"owner":{"name":"Ann","age":37,"ok":true,"no":null},"list":["ab","cd"],"again":4711}"#;
        assert_eq!(
            check(&["/id", "owner", "/list/1"], sent, "4711"),
            (r#"{"id":1111,"owner":{"name":"Aaa","age":11,"ok":false,"no":null},"list":["ab","aa"],"again":1111}"#.into(), "1111".into())
        );
    }

    #[test]
    fn what_was_never_met_is_told() {
        let mut mask = Mask::new(&["device".into(), "/a/b".into(), "room".into(), "asset".into()]).unwrap();
        let attributes = BTreeMap::from([("room".to_owned(), "Lab 3".to_owned())]);
        let around = Around { asset: "d1".into(), attributes, ..Around::default() };
        let (_, shown) = mask.apply(None, &around).unwrap();
        assert_eq!((shown.asset.as_str(), shown.attributes["room"].as_str()), ("a1", "Aaa 1"));
        assert_eq!(mask.unmet(), ["/a/b", "device"]);
        assert!(Mask::new(&["".into()]).is_err());
    }
}
