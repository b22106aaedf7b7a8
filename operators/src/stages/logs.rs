//! What scripts logged, as rows for people: bounded for each tenant and epoch, and without secrets.

use crate::event::{Bundle, Event};
use regex::{Captures, Regex};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tidegate_schemas::block::{Attribution, Block, BlockError, LogRow, LogsBuilder};
use tidegate_schemas::limits::SCRIPT_LOG_TENANT_BYTES_MAX;

/// The `script_logs` blocks of an epoch, tenants in order and each one's events in raw order, and the bytes that were left
/// out. What finds no room is counted in the tenant's last line.
pub fn blocks(bundles: &[Bundle], of: &Attribution) -> Result<(Vec<Block>, u64), BlockError> {
    let mut tenants: BTreeMap<&str, Vec<(&Bundle, &Event)>> = BTreeMap::new();
    for bundle in bundles {
        for event in bundle.events.iter().filter(|e| !e.notes.is_empty()) {
            tenants.entry(event.envelope.tenant.as_str()).or_default().push((bundle, event));
        }
    }
    let (mut builder, mut cut) = (LogsBuilder::new(of.clone()), 0);
    for (tenant, mut events) in tenants {
        events.sort_unstable_by_key(|(_, e)| e.origin.at);
        cut += lines(tenant, &events, &mut builder)?;
    }
    Ok((builder.finish()?, cut))
}

/// Appends one tenant's lines; returns the bytes that were left out.
fn lines(tenant: &str, events: &[(&Bundle, &Event)], builder: &mut LogsBuilder) -> Result<u64, BlockError> {
    let (mut room, mut cut) = (SCRIPT_LOG_TENANT_BYTES_MAX, 0);
    let mut last: Option<(LogRow<'_>, String)> = None;
    for (bundle, event) in events {
        for (number, note) in event.notes.iter().enumerate() {
            cut += note.cut;
            let text = redacted(&note.text);
            if text.len() > room {
                room = 0;
                cut += note.text.len() as u64;
                if let Some((row, _)) = &mut last {
                    row.cut += note.cut + note.text.len() as u64;
                }
                continue;
            }
            room -= text.len();
            let row = LogRow {
                tenant,
                source: event.envelope.source.as_str(),
                origin: &event.origin,
                number: number as u32,
                template: bundle.plan.as_ref().map_or("", |p| &p.template.label),
                stage: note.stage.as_str(),
                text: "",
                cut: note.cut,
            };
            if let Some((row, text)) = last.replace((row, text.into_owned())) {
                builder.push(&LogRow { text: &text, ..row })?;
            }
        }
    }
    if let Some((row, text)) = last {
        builder.push(&LogRow { text: &text, ..row })?;
    }
    Ok(cut)
}

/// What stands in the place of a secret.
const HIDDEN: &str = "[redacted]";

/// A text without what looks like a secret: the catalog has hashes of keys only, so they are known by their form. A name
/// that stands before a secret stays.
fn redacted(text: &str) -> Cow<'_, str> {
    static SECRETS: OnceLock<Regex> = OnceLock::new();
    let secrets = SECRETS.get_or_init(|| match Regex::new(&FORMS.map(|form| format!("(?:{form})")).join("|")) {
        Ok(regex) => regex,
        // The forms are part of the program.
        Err(error) => panic!("the forms of secrets cannot be compiled: {error}"),
    });
    // Groups other than the whole are what stays.
    secrets.replace_all(text, |found: &Captures<'_>| {
        let kept = found.iter().skip(1).flatten().next().map_or("", |group| group.as_str());
        format!("{kept}{HIDDEN}")
    })
}

/// Forms of secrets; a group is what stands before one and stays.
const FORMS: [&str; 9] = [
    // Tidegate's own keys.
    r"\btg_[A-Za-z0-9]+_[A-Za-z0-9]+",
    // A PEM block, to its end or that of the text.
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    // JSON Web Tokens.
    r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?",
    // AWS, GitHub, GitLab, Slack, Google, Stripe.
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|AIza|[sr]k_live_)[A-Za-z0-9_-]{10,}",
    // Passwords in URLs.
    r"([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+",
    r"(?i)\b(bearer |basic )[A-Za-z0-9._~+/=-]{8,}",
    // `password = …`, `"api_key": "…"`.
    r#"(?i)((?:passw(?:or)?d|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)["']?\s*[:=]\s*)"[^"]*"?"#,
    r#"(?i)((?:passw(?:or)?d|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)["']?\s*[:=]\s*)[^\s"',;{}]+"#,
];

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn secrets_are_known_by_their_form() {
        for (text, shown) in [
            ("key tg_acmekey_5fA3c9 of a device", "key [redacted] of a device"),
            ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [redacted]"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl!", "[redacted]!"),
            ("AKIAIOSFODNN7EXAMPLE and ghp_0123456789abcdef", "[redacted] and [redacted]"),
            ("mqtt://user:pa55@broker:1883/t", "mqtt://user:[redacted]@broker:1883/t"),
            ("{\"api_key\": \"k 1\", \"a\": 2}", "{\"api_key\": [redacted], \"a\": 2}"),
            ("password=hunter2; user=me", "password=[redacted]; user=me"),
            ("-----BEGIN PRIVATE KEY-----\nMIIB", "[redacted]"),
            ("battery 3.1 nil token count", "battery 3.1 nil token count"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }
}
