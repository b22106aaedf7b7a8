//! Validate: whether a document is what its template promises. A script, or rules that run natively.

use crate::event::{Bundle, EpochContext, Event, Progress};
use crate::script::leave::together;
use crate::script::{self, Host};
use crate::stages::transform::places::Both;
use regex::Regex;
use tidegate_schemas::definition::{Rule, Validate, has_type};
use tidegate_schemas::document::{Kind, Value};
use tidegate_schemas::table::FieldType;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// Judges the events that are at this stage. Where script stages follow without a gap, they run as well.
pub fn apply(bundle: &mut Bundle, host: &mut Host, context: &EpochContext) {
    let Some(plan) = &bundle.plan else { return };
    let template = std::sync::Arc::clone(&plan.template);
    match &template.template.validate {
        Some(Validate::Script(_)) => script::fused(bundle, host, context, StageName::Validate),
        Some(Validate::Rules(rules)) => {
            let Some(source) = &bundle.source else { return };
            let compiled = host.compiled(&source.tenant, &template);
            let mut places = Both::new(&template.template);
            rules.iter().for_each(|r| places.add(&r.at));
            for event in bundle.events.iter_mut().filter(|e| e.is_at(StageName::Validate)) {
                event.progress = match &*compiled {
                    Ok(compiled) => judge(rules, &compiled.patterns, &mut places, event),
                    Err(error) => Progress::Rejected(error.clone().into_rejection().into()),
                };
            }
        }
        None => {
            for event in bundle.events.iter_mut().filter(|e| e.is_at(StageName::Validate)) {
                event.progress = Progress::At(StageName::Transform);
            }
        }
    }
}

fn judge(rules: &[Rule], patterns: &[Option<Regex>], places: &mut Both, event: &Event) -> Progress {
    let found = places.find(event);
    let mut broken = rules.iter().zip(&found).zip(patterns).filter_map(|((rule, value), pattern)| broken(rule, *value, pattern.as_ref()));
    match broken.next() {
        Some(first) => Progress::Rejected(together(first, broken).into()),
        None => Progress::At(StageName::Transform),
    }
}

/// What is wrong with the value at a rule's place.
fn broken(rule: &Rule, value: Option<Value<'_>>, pattern: Option<&Regex>) -> Option<Rejection> {
    let refuse =
        |code: Code, detail: String| Some(Rejection::new(StageName::Validate, code, format!("{} {detail}", rule.at)).at(&*rule.at));
    let kind = match value.map(Value::kind) {
        None | Some(Kind::Null) if rule.required => return refuse(Code::Required, "is required".into()),
        None | Some(Kind::Null) => return None,
        Some(kind) => kind,
    };
    if let Some(expected) = rule.kind
        && !has_type(expected, kind)
    {
        return refuse(Code::WrongType, format!("is not {}", name_of(expected)));
    }
    if rule.min.is_some() || rule.max.is_some() {
        let number = match kind {
            Kind::Int(i) => i as f64,
            Kind::Uint(u) => u as f64,
            Kind::Float(f) => f,
            _ => return refuse(Code::WrongType, "is no number".into()),
        };
        if let Some(min) = rule.min.filter(|min| number < *min) {
            return refuse(Code::OutOfRange, format!("is {number}, below {min}"));
        }
        if let Some(max) = rule.max.filter(|max| number > *max) {
            return refuse(Code::OutOfRange, format!("is {number}, above {max}"));
        }
    }
    if rule.one_of.is_empty() && pattern.is_none() {
        return None;
    }
    let Kind::Text(text) = kind else { return refuse(Code::WrongType, "is no text".into()) };
    if !rule.one_of.is_empty() && !rule.one_of.iter().any(|o| o == text) {
        return refuse(Code::NotAllowed, format!("is none of {}", rule.one_of.join(", ")));
    }
    match pattern {
        Some(pattern) if !pattern.is_match(text) => refuse(Code::PatternMismatch, format!("does not match {pattern}")),
        _ => None,
    }
}

fn name_of(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Bool => "a boolean",
        FieldType::I64 => "an integer of 64 bits",
        FieldType::F64 => "a number",
        FieldType::Text => "a text",
        FieldType::Timestamp => "milliseconds since 1970 or RFC 3339",
        FieldType::Json => "JSON",
    }
}
