//! Transform: from a document to rows of the template's table. A script, or a mapping that runs natively; without either,
//! each declared field is the member of its name.

pub(crate) mod fields;
pub(crate) mod places;

use crate::event::{Bundle, EpochContext, Event, Progress};
use crate::script::{self, Host};
use fields::{Declared, Draft, Fields, Problem, Scalar, absent, cell, event_type, occurred_at, set_plain};
use places::Both;
use tidegate_schemas::definition::{Decode, Mapping, Template, Transform};
use tidegate_schemas::document::{Document, Value};
use tidegate_schemas::row::Cell;
use tidegate_schemas::rows::Rows;
use tidegate_schemas::table::{Field, FieldType};
use tidegate_schemas::verdict::StageName;

/// Transforms the events that are at this stage.
pub fn apply(bundle: &mut Bundle, host: &mut Host, context: &EpochContext) {
    let Some(plan) = bundle.plan.clone() else { return };
    let template = &plan.template.template;
    let fields = || Fields::new(&template.fields, &plan.table, template.id.as_str());
    match &template.transform {
        Some(Transform::Script(_)) => script::fused(bundle, host, context, StageName::Transform),
        Some(Transform::Mapping(mapping)) => transform(bundle, &mut Mapped::new(template, fields(), mapping)),
        None => {
            let by_name = default_mapping(template);
            transform(bundle, &mut Mapped::new(template, fields(), &by_name));
        }
    }
}

/// Why an entry with a constant would refuse every event; nothing where it would not.
///
/// # Errors
/// What is wrong with the constant, as a rejection words it.
pub fn check_constant(fields: &[Field], mapping: &Mapping) -> Result<(), String> {
    let Some(text) = mapping.constant.as_deref() else { return Ok(()) };
    let checked = match (fields.iter().find(|f| f.name == mapping.field), mapping.field.as_str()) {
        (Some(field), _) if field.kind == FieldType::Json => {
            return Document::parse(text.to_owned().into()).map(drop).map_err(|e| format!("{} is no JSON: {e}", field.name));
        }
        (Some(field), _) => constant(field, Scalar::Text(text)).map(drop),
        (None, "occurred_at") => occurred_at(Scalar::Text(text)).map(drop),
        (None, "event_type") => event_type(Scalar::Text(text)).map(drop),
        _ => Ok(()),
    };
    checked.map_err(|problem| problem.detail)
}

fn transform(bundle: &mut Bundle, mapped: &mut Mapped<'_>) {
    let Bundle { events, rows, .. } = bundle;
    for event in events.iter_mut().filter(|e| e.is_at(StageName::Transform)) {
        let first = rows.len();
        let made = mapped.row(event, rows);
        event.go(match made {
            Ok(()) => Progress::Transformed(first as u32..rows.len() as u32),
            Err(problem) => {
                rows.truncate(first);
                Progress::Rejected(problem.into_rejection(StageName::Transform).into())
            }
        });
    }
}

/// Every declared field from the member of its name, of what was decoded or else sent.
fn default_mapping(template: &Template) -> Vec<Mapping> {
    let below = if matches!(template.decode, Some(Decode::Script(_))) { "/decoded" } else { "" };
    let of =
        |f: &Field| Mapping { field: f.name.clone(), from: Some(format!("{below}/{}", f.name)), constant: None, scale: None, offset: None };
    template.fields.iter().map(of).collect()
}

/// A mapping, ready to be applied to many events.
struct Mapped<'a> {
    fields: Fields<'a>,
    entries: Vec<Entry<'a>>,
    places: Both,
    /// Declared fields that nothing is mapped to.
    unmapped: Vec<usize>,
}

struct Entry<'a> {
    target: Target,
    mapping: &'a Mapping,
    /// The declared field that takes the value as it is found.
    direct: Option<Declared<'a>>,
}

#[derive(Clone, Copy)]
enum Target {
    /// Index of a declared field.
    Field(usize),
    OccurredAt,
    EventType,
    Attribute,
}

impl<'a> Mapped<'a> {
    fn new(template: &Template, fields: Fields<'a>, mapping: &'a [Mapping]) -> Self {
        let mut places = Both::new(template);
        let mut entries = Vec::with_capacity(mapping.len());
        let mut unmapped: Vec<usize> = (0..fields.declared.len()).collect();
        for mapping in mapping {
            // An entry without a place has a constant; its own place is found nowhere.
            places.add(mapping.from.as_deref().unwrap_or("-"));
            let target = match (mapping.field.as_str(), fields.index(&mapping.field)) {
                (_, Some(index)) => {
                    unmapped.retain(|i| *i != index);
                    Target::Field(index)
                }
                ("occurred_at", _) => Target::OccurredAt,
                ("event_type", _) => Target::EventType,
                _ => Target::Attribute,
            };
            let is_direct = mapping.from.is_some() && mapping.scale.is_none() && mapping.offset.is_none();
            let direct = match target {
                Target::Field(index) if is_direct => Some(fields.declared[index]),
                _ => None,
            };
            entries.push(Entry { target, mapping, direct });
        }
        Self { fields, entries, places, unmapped }
    }

    fn row(&mut self, event: &Event, rows: &mut Rows) -> Result<(), Problem> {
        let found = self.places.find(event);
        let mut draft = Draft::default();
        for (entry, value) in self.entries.iter().zip(&found) {
            if let (Some(declared), Some(value)) = (entry.direct, value)
                && set_plain(declared, value.kind().into(), rows)
            {
                continue;
            }
            self.apply(entry, *value, &mut draft, rows)?;
        }
        for index in &self.unmapped {
            absent(self.fields.declared[*index].field)?;
        }
        self.fields.end(event, draft, rows)
    }

    fn apply(&self, entry: &Entry<'_>, value: Option<Value<'_>>, draft: &mut Draft, rows: &mut Rows) -> Result<(), Problem> {
        let mapping = entry.mapping;
        let scalar = match (&mapping.from, &mapping.constant, value) {
            (Some(_), _, Some(value)) => converted(mapping, value.kind().into()),
            (None, Some(constant), _) => Scalar::Text(constant),
            _ => Scalar::Null,
        };
        match entry.target {
            Target::Field(index) => {
                let declared = self.fields.declared[index];
                let cell = match (declared.field.kind, value) {
                    (FieldType::Json, Some(value)) if !matches!(scalar, Scalar::Null) => Cell::Text(json(value).into()),
                    _ if mapping.from.is_none() => constant(declared.field, scalar)?,
                    _ => cell(declared.field, scalar)?,
                };
                rows.set(declared.cell, cell);
            }
            Target::OccurredAt => draft.occurred_at = occurred_at(scalar)?,
            Target::EventType => draft.event_type = event_type(scalar)?,
            Target::Attribute => {
                let text = match (scalar, value) {
                    (Scalar::Null, _) => return Ok(()),
                    (Scalar::Text(text), _) => text.to_owned(),
                    (Scalar::Float(number), _) if mapping.scale.is_some() || mapping.offset.is_some() => number.to_string(),
                    (_, Some(value)) => json(value),
                    (_, None) => return Ok(()),
                };
                draft.attributes.push((mapping.field.as_str().into(), text.into()));
            }
        }
        Ok(())
    }
}

fn json(value: Value<'_>) -> String {
    let mut out = String::new();
    value.write_json(&mut out);
    out
}

/// A number in the unit of its field; anything else as it is.
fn converted<'v>(mapping: &Mapping, scalar: Scalar<'v>) -> Scalar<'v> {
    if mapping.scale.is_none() && mapping.offset.is_none() {
        return scalar;
    }
    let number = match scalar {
        Scalar::Int(i) => i as f64,
        Scalar::Float(f) => f,
        other => return other,
    };
    Scalar::Float(number * mapping.scale.unwrap_or(1.0) + mapping.offset.unwrap_or(0.0))
}

/// A constant is written as text, whatever its field's type.
fn constant<'a>(field: &Field, scalar: Scalar<'a>) -> Result<Cell<'a>, Problem> {
    let Scalar::Text(text) = scalar else { return cell(field, scalar) };
    let parsed = match field.kind {
        FieldType::Json => return Ok(Cell::Text(text.into())),
        FieldType::Bool => text.parse().ok().map(Scalar::Bool),
        FieldType::I64 => text.parse().ok().map(Scalar::Int),
        FieldType::F64 => text.parse().ok().map(Scalar::Float),
        FieldType::Text | FieldType::Timestamp => None,
    };
    cell(field, parsed.unwrap_or(scalar))
}
