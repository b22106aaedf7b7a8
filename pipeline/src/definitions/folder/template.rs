//! `templates/<owner>/<template>/`: one template each, and the tables that an owner's templates make together.

use super::Folder;
use super::entries::check_pointer;
use super::toml_entries::TomlText;
use crate::config::place::{Fault, FilePlace};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tidegate_operators::stages::transform;
use tidegate_schemas::definition::{
    Decode, Definition, DefinitionKey, Encoding, Mapping, Payload, Rule, Script, ScriptLimits, Template, Transform, Validate,
};
use tidegate_schemas::ids::{NodeId, TableId, TemplateId};
use tidegate_schemas::limits;
use tidegate_schemas::table::{Field, FieldType, Table};
use toml::de::DeTable;

/// A test of a template, not yet read.
#[derive(Clone, Debug)]
pub struct TestFile {
    /// The template.
    pub template: DefinitionKey,
    /// Path in the folder.
    pub file: String,
    /// JSON.
    pub text: String,
}

/// The opaque id of a table: its name in lower case and four digits of a hash of owner and name.
pub fn table_id(owner: &NodeId, name: &str) -> Result<TableId, tidegate_schemas::ids::IdError> {
    let hash = hex::encode(Sha256::digest(format!("{owner}/{name}")));
    TableId::new(&format!("{}-{}", name.to_ascii_lowercase(), &hash[..4]))
}

const SCRIPTS: [&str; 3] = ["decode.luau", "validate.luau", "transform.luau"];

/// Whether a path below a template's folder belongs there.
pub(super) fn is_part(inner: &[&str]) -> bool {
    match inner {
        [name] => *name == "template.toml" || SCRIPTS.contains(name),
        ["tests", name] => name.ends_with(".json"),
        _ => false,
    }
}

/// `template.toml` without its arrays of tables, which are read entry by entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    id: TemplateId,
    title: String,
    table: String,
    #[serde(default)]
    payload: Option<Payload>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    limits: ScriptLimits,
    #[serde(default)]
    decode: Option<DecodeForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodeForm {
    form: Form,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Json,
}

/// Name inside the template's folder, path, text.
pub(super) type Part<'a> = (&'a str, &'a str, &'a str);

/// The parts of each template, by owner and id.
pub(super) type Parts<'a> = BTreeMap<(&'a str, &'a str), Vec<Part<'a>>>;

/// Parses all templates and makes their tables.
pub(super) fn parse(templates: Parts<'_>, folder: &mut Folder, faults: &mut Vec<Fault>) {
    let mut tables: BTreeMap<DefinitionKey, Table> = BTreeMap::new();
    for ((owner, id), parts) in templates {
        let file = format!("templates/{owner}/{id}/template.toml");
        let Some((_, _, text)) = parts.iter().find(|(name, ..)| *name == "template.toml") else {
            faults.push(Fault::new(FilePlace::file(&file), "file is missing", "add it, or remove the folder of the template"));
            continue;
        };
        let toml = TomlText::new(&file, text);
        let Some(parsed) = one(&toml, owner, id, &parts, faults) else { continue };
        let Parsed { template, table_name, places } = parsed;
        add_columns(&mut tables, &template, &table_name, &places, faults);
        let definition = Definition::Template(Box::new(template));
        let tests = parts.iter().filter(|(name, ..)| name.starts_with("tests/"));
        folder.tests.extend(tests.map(|(_, path, text)| TestFile {
            template: definition.key(),
            file: (*path).to_owned(),
            text: (*text).to_owned(),
        }));
        folder.add(definition, FilePlace::file(&file), faults);
    }
    for table in tables.into_values() {
        // A table has no place of its own: messages about it are found where the template names it.
        let place = FilePlace::file(&format!("templates/{}", table.owner));
        folder.add(Definition::Table(table), place, faults);
    }
}

struct Parsed {
    template: Template,
    table_name: String,
    /// Of the table's name, then of each field.
    places: Vec<FilePlace>,
}

fn one(toml: &TomlText<'_>, owner: &str, id: &str, parts: &[Part<'_>], faults: &mut Vec<Fault>) -> Option<Parsed> {
    let errors_before = faults.len();
    let mut document = toml.document(faults)?;
    let whole = document.span();
    let spans = |document: &DeTable<'_>, name: &str| toml.place(document.get(name).map(toml::Spanned::span));
    let (id_place, table_place) = (spans(document.get_ref(), "id"), spans(document.get_ref(), "table"));
    let mut take = |name: &str| document.get_mut().remove(name);
    let (fields, rules, mappings) = (take("fields"), take("validate"), take("transform"));
    let (fields, field_places): (Vec<Field>, Vec<FilePlace>) = fields.map_or_else(Vec::new, |v| toml.array(v, faults)).into_iter().unzip();
    let rules: Option<Vec<(Rule, FilePlace)>> = rules.map(|v| toml.array(v, faults));
    let mappings: Option<Vec<(Mapping, FilePlace)>> = mappings.map(|v| toml.array(v, faults));
    let head: Option<Head> = toml.table(toml::Spanned::new(whole, document.into_inner()), faults);
    let head = head?;

    if head.id.as_str() != id {
        faults.push(Fault::new(id_place, format!("id is {:?}, and the folder is {id:?}", head.id.as_str()), "give both the same name"));
    }
    let owner =
        NodeId::new(owner).map_err(|e| faults.push(Fault::new(table_place.clone(), e.to_string(), "rename the owner's folder"))).ok();
    let table = owner.as_ref().and_then(|owner| {
        let remedy = "name it with letters, digits, '-' and '_', at most 59 of them";
        table_id(owner, &head.table).map_err(|e| faults.push(Fault::new(table_place.clone(), e.to_string(), remedy))).ok()
    });
    check_head(&head, &toml.place(None), faults);
    for (field, place) in fields.iter().zip(&field_places) {
        check_field(field, place, faults);
    }
    for (rule, place) in rules.iter().flatten() {
        check_rule(rule, place, faults);
    }
    let mut mapped: Vec<&str> = Vec::new();
    for (mapping, place) in mappings.iter().flatten() {
        check_mapping(mapping, &fields, place, faults);
        if mapped.contains(&mapping.field.as_str()) {
            faults.push(Fault::new(place.clone(), format!("field {} is mapped twice", mapping.field), "remove one of them"));
        }
        mapped.push(&mapping.field);
    }
    let mut script = |name: &str, declared: bool| script_of(name, declared, toml.file, parts, faults);
    let decode = script("decode", head.decode.is_some());
    let validate = script("validate", rules.is_some());
    let transform = script("transform", mappings.is_some());
    if faults.len() > errors_before {
        return None;
    }
    let places = std::iter::once(table_place).chain(field_places).collect();
    let template = Template {
        id: head.id,
        owner: owner?,
        title: head.title,
        table: table?,
        payload: head.payload,
        inputs: head.inputs,
        fields,
        limits: head.limits,
        decode: decode.map(Decode::Script).or(head.decode.map(|DecodeForm { form: Form::Json }| Decode::Json)),
        validate: validate.map(Validate::Script).or(rules.map(|r| Validate::Rules(r.into_iter().map(|(r, _)| r).collect()))),
        transform: transform.map(Transform::Script).or(mappings.map(|m| Transform::Mapping(m.into_iter().map(|(m, _)| m).collect()))),
    };
    Some(Parsed { template, table_name: head.table, places })
}

fn script_of(name: &str, declared: bool, toml_file: &str, parts: &[Part<'_>], faults: &mut Vec<Fault>) -> Option<Script> {
    let (file, path, text) = parts.iter().find(|(part, ..)| part.strip_suffix(".luau") == Some(name))?;
    if declared {
        let detail = format!("stage {name} is given twice: as {file} and in {toml_file}");
        faults.push(Fault::new(FilePlace::file(path), detail, "remove one of them"));
    }
    if text.len() > limits::SCRIPT_SOURCE_BYTES {
        let detail = format!("script of {} bytes", text.len());
        faults.push(Fault::new(FilePlace::file(path), detail, format!("a stage has at most {} bytes", limits::SCRIPT_SOURCE_BYTES)));
    }
    Some(Script { source: (*text).to_owned() })
}

fn check_head(head: &Head, place: &FilePlace, faults: &mut Vec<Fault>) {
    if let Some(payload) = &head.payload {
        for pointer in payload.at.iter().chain(&payload.f_port) {
            check_pointer(pointer, place, faults);
        }
        if payload.at.is_none() && payload.encoding == Encoding::Base64 && payload.f_port.is_some() {
            let detail = "f_port points into an event that is the payload itself";
            faults.push(Fault::new(place.clone(), detail, "say where in the event the payload lies: payload.at"));
        }
    }
    for (name, value, max) in [
        ("limits.steps", head.limits.steps, limits::SCRIPT_STEPS_HARD),
        ("limits.memory_bytes", head.limits.memory_bytes, limits::SCRIPT_MEMORY_BYTES_HARD),
        ("limits.result_bytes", head.limits.result_bytes, limits::RESULT_BYTES_MAX_HARD),
    ] {
        if value == 0 || value > max as u64 {
            faults.push(Fault::new(place.clone(), format!("{name} is {value}"), format!("it is 1 to {max}")));
        }
    }
}

fn check_field(field: &Field, place: &FilePlace, faults: &mut Vec<Fault>) {
    check_bounds(field.min, field.max, place, faults);
    let bounded = field.min.is_some() || field.max.is_some();
    if bounded && !matches!(field.kind, FieldType::I64 | FieldType::F64) {
        let detail = format!("field {} is no number (type {}), and has min or max", field.name, word(field.kind));
        faults.push(Fault::new(place.clone(), detail, "remove them: bounds are for i64 and f64"));
    }
    if field.unit.as_ref().is_some_and(|u| u.is_empty() || u.len() > 32 || !u.bytes().all(|b| b.is_ascii_graphic())) {
        let detail = format!("unit of field {} is no UCUM code", field.name);
        faults.push(Fault::new(place.clone(), detail, "write it like \"Cel\", \"%\", \"V\" or \"[ppm]\", or leave it out"));
    }
}

fn check_bounds(min: Option<f64>, max: Option<f64>, place: &FilePlace, faults: &mut Vec<Fault>) {
    check_finite(&[("min", min), ("max", max)], place, faults);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        faults.push(Fault::new(place.clone(), format!("min {min} is above max {max}"), "exchange them"));
    }
}

/// What a rule asks of a value must be possible for its type, or it would refuse every event.
fn check_rule(rule: &Rule, place: &FilePlace, faults: &mut Vec<Fault>) {
    check_pointer(&rule.at, place, faults);
    check_bounds(rule.min, rule.max, place, faults);
    let Some(kind) = rule.kind else { return };
    let (bounded, listed) = (rule.min.is_some() || rule.max.is_some(), !rule.one_of.is_empty() || rule.pattern.is_some());
    for (given, what, possible) in [
        (bounded, "min or max", !matches!(kind, FieldType::Bool | FieldType::Text)),
        (listed, "one_of or pattern", !matches!(kind, FieldType::Bool | FieldType::I64 | FieldType::F64)),
    ] {
        if given && !possible {
            let detail = format!("the rule for {:?} wants type {}, and has {what}", rule.at, word(kind));
            faults.push(Fault::new(place.clone(), detail, "no value can be both: correct the type, or remove them"));
        }
    }
}

/// A type as it is written.
fn word(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Bool => "bool",
        FieldType::I64 => "i64",
        FieldType::F64 => "f64",
        FieldType::Text => "text",
        FieldType::Timestamp => "timestamp",
        FieldType::Json => "json",
    }
}

/// TOML has numbers that JSON has not: a definition with one would be read back without it, and so as another version.
fn check_finite(numbers: &[(&str, Option<f64>)], place: &FilePlace, faults: &mut Vec<Fault>) {
    for (name, number) in numbers {
        if let Some(number) = number.filter(|n| !n.is_finite()) {
            faults.push(Fault::new(place.clone(), format!("{name} is {number}"), "write a finite number, or leave it out"));
        }
    }
}

fn check_mapping(mapping: &Mapping, fields: &[Field], place: &FilePlace, faults: &mut Vec<Fault>) {
    check_finite(&[("scale", mapping.scale), ("offset", mapping.offset)], place, faults);
    match (&mapping.from, &mapping.constant) {
        (Some(pointer), None) => check_pointer(pointer, place, faults),
        (None, Some(_)) => {}
        _ => {
            let detail = format!("field {} has both a place and a constant, or neither", mapping.field);
            faults.push(Fault::new(place.clone(), detail, "give it either from or constant"));
        }
    }
    let field = fields.iter().find(|f| f.name == mapping.field);
    if let Err(detail) = transform::check_constant(fields, mapping) {
        let kind = field.map_or("", |f| word(f.kind));
        let remedy =
            if kind.is_empty() { "correct it".to_owned() } else { format!("write a constant of type {kind} (as text), within its bounds") };
        faults.push(Fault::new(place.clone(), format!("constant {:?}: {detail}", mapping.constant.as_deref().unwrap_or_default()), remedy));
    }
    let no_number = field.is_some_and(|f| matches!(f.kind, FieldType::Bool | FieldType::Text | FieldType::Json));
    if (mapping.scale.is_some() || mapping.offset.is_some()) && (mapping.constant.is_some() || no_number) {
        let detail = format!("field {} has scale or offset, and no number to convert", mapping.field);
        faults.push(Fault::new(place.clone(), detail, "remove them: they are for numbers from a place"));
    }
}

/// Adds a template's fields to the table that it names, one by one, so that each message has the field's place.
fn add_columns(
    tables: &mut BTreeMap<DefinitionKey, Table>,
    template: &Template,
    name: &str,
    places: &[FilePlace],
    faults: &mut Vec<Fault>,
) {
    let empty = Table { id: template.table.clone(), owner: template.owner.clone(), name: name.to_owned(), fields: Vec::new() };
    let table = tables.entry(Definition::Table(empty.clone()).key()).or_insert(empty);
    let mut seen: Vec<&str> = Vec::new();
    for (field, place) in template.fields.iter().zip(places.iter().skip(1)) {
        if seen.iter().any(|s| s.eq_ignore_ascii_case(&field.name)) {
            faults.push(Fault::new(place.clone(), format!("field {:?} occurs twice", field.name), "remove one of them, or rename it"));
            continue;
        }
        seen.push(&field.name);
        match table.with(std::slice::from_ref(field)) {
            Ok(wider) => *table = wider,
            Err(e) => {
                faults.push(Fault::new(place.clone(), e.to_string(), format!("rename the field, or use another table than {name:?}")))
            }
        }
    }
}
