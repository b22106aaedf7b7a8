//! `organizations.toml`, `sources.toml`, `assets.toml` and `keys.toml`.

use super::Folder;
use super::toml_entries::TomlText;
use crate::config::place::{Fault, FilePlace};
use serde::Deserialize;
use tidegate_schemas::definition::{ApiKey, Asset, Definition, Organization, Place, Source};
use tidegate_schemas::ids::{CredentialId, SourceId, TenantId};
use tidegate_schemas::limits::ASSET_ID_BYTES_MAX;
use tidegate_schemas::time;

/// An API key as people write it: its end as RFC 3339 text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    id: CredentialId,
    tenant: TenantId,
    source: SourceId,
    sha256: String,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    assets: Option<Vec<String>>,
}

/// Parses one of the four files.
pub(super) fn parse(file: &str, text: &str, folder: &mut Folder, faults: &mut Vec<Fault>) {
    let toml = TomlText::new(file, text);
    match file {
        "organizations.toml" => {
            for (entry, place) in toml.entries::<Organization>("organization", faults) {
                folder.add(Definition::Organization(entry), place, faults);
            }
        }
        "sources.toml" => {
            for (entry, place) in toml.entries::<Source>("source", faults) {
                check_source(&entry, &place, faults);
                folder.add(Definition::Source(Box::new(entry)), place, faults);
            }
        }
        "assets.toml" => {
            for (entry, place) in toml.entries::<Asset>("asset", faults) {
                check_asset_id(&entry.id, &place, faults);
                folder.add(Definition::Asset(entry), place, faults);
            }
        }
        _ => {
            for (form, place) in toml.entries::<KeyForm>("key", faults) {
                for id in form.assets.iter().flatten() {
                    check_asset_id(id, &place, faults);
                }
                let expires_at = form.expires_at.as_deref().and_then(|text| {
                    let at = time::parse(text);
                    if at.is_none() {
                        let detail = format!("expires_at {text:?} is no RFC 3339 time");
                        faults.push(Fault::new(place.clone(), detail, "write it like \"2027-01-31T00:00:00Z\""));
                    }
                    at
                });
                let KeyForm { id, tenant, source, sha256, assets, .. } = form;
                folder.add(Definition::Key(ApiKey { id, tenant, source, sha256, expires_at, assets }), place, faults);
            }
        }
    }
}

fn check_asset_id(id: &str, place: &FilePlace, faults: &mut Vec<Fault>) {
    if id.is_empty() || id.len() > ASSET_ID_BYTES_MAX {
        let detail = format!("asset id of {} bytes", id.len());
        faults.push(Fault::new(place.clone(), detail, format!("an asset's id has 1 to {ASSET_ID_BYTES_MAX} bytes")));
    }
}

fn check_source(source: &Source, place: &FilePlace, faults: &mut Vec<Fault>) {
    let optional = [&source.template_at, &source.event_id, &source.occurred_at, &source.event_type];
    for at in std::iter::once(&source.asset).chain(optional.into_iter().flatten()) {
        if let Place::Pointer(pointer) = at {
            check_pointer(pointer, place, faults);
        }
    }
    for name in &source.meta {
        if name.is_empty() || name.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii_graphic()) {
            let detail = format!("meta {name:?} is no header name in lower case");
            faults.push(Fault::new(place.clone(), detail, "write it like \"x-gateway\""));
        }
    }
}

/// Whether a text is an RFC 6901 JSON pointer.
pub(super) fn check_pointer(pointer: &str, place: &FilePlace, faults: &mut Vec<Fault>) {
    let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !(pointer.is_empty() || pointer.starts_with('/')) || !escapes {
        let detail = format!("{pointer:?} is no JSON pointer");
        faults.push(Fault::new(place.clone(), detail, "write it like \"/data/temperature\"; \"\" is the whole, ~1 is /, ~0 is ~"));
    }
}
