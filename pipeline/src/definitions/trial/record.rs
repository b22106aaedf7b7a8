//! Makes tests of recorded events: the input as it was sent, and the expected results as the template gives them now.

use super::form::TestForm;
use super::mask::{Around, Mask};
use super::update::line;
use crate::recorded::Recorded;
use sha2::{Digest, Sha256};
use tidegate_schemas::definition::Template;
use tidegate_schemas::time;

/// A test to be: its name, and its text without anything expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTest {
    /// `recorded-` and the first digits of a hash of its input: the same event gets the same name.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// JSON.
    pub text: String,
}

/// A recorded event as the input of a test.
///
/// # Errors
/// Why it cannot be one.
pub fn input(template: &Template, event: &Recorded, mask: &mut Mask) -> Result<NewTest, String> {
    let sent = if event.is_json { Some(std::str::from_utf8(&event.bytes).map_err(|e| e.to_string())?.trim()) } else { None };
    let around = Around {
        asset: event.asset.clone(),
        attributes: event.attributes.clone(),
        meta: event.meta.clone(),
        event_type: event.event_type.clone(),
        occurred_at: event.occurred_at,
    };
    let (sent, around) = mask.apply(sent, &around)?;
    let mut members: Vec<(&str, String)> = Vec::new();
    match sent {
        Some(text) => members.push(("event", text)),
        None if template.payload.as_ref().is_some_and(|p| p.at.is_none()) => members.push(("bytes_hex", line(&hex::encode(&event.bytes)))),
        None => return Err("it is bytes, and the template does not say that the event is its payload ([payload] without at)".into()),
    }
    let mut given = |name, is_there: bool, value: String| members.extend(is_there.then_some((name, value)));
    given("asset", !around.asset.is_empty(), line(&around.asset));
    given("attributes", !around.attributes.is_empty(), line(&around.attributes));
    given("meta", !around.meta.is_empty(), line(&around.meta));
    given("received_at", true, line(&time::format(event.received_at)));
    members.extend(around.occurred_at.map(|at| ("occurred_at", line(&time::format(at)))));
    members.extend(around.event_type.as_ref().map(|name| ("event_type", line(name))));
    let input: Vec<String> = members.iter().map(|(name, value)| format!("  {}: {value}", line(name))).collect();
    let input = input.join(",\n");
    let refused = event.refused.as_ref().map(|(stage, code)| format!(", refused at {stage}: {code}")).unwrap_or_default();
    let description = format!("recorded from {}/{}{refused}", event.tenant, event.source);
    let text = format!("{{\n  \"description\": {},\n{input}\n}}\n", line(&description));
    // Whatever was recorded must be read again as a test.
    serde_json::from_str::<TestForm<'_>>(&text).map_err(|e| e.to_string())?;
    let name = format!("recorded-{}.json", &hex::encode(Sha256::digest(&input))[..8]);
    Ok(NewTest { name, description, text })
}
