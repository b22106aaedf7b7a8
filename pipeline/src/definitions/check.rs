//! Everything about a folder that can be known without a running Tidegate: forms, references, scripts, and the tests of
//! its templates, which run through the very stages that production runs.

use super::diff::{Refusal, RefusalCause, stand_alone};
use super::folder::{Files, Folder};
use super::trial;
use crate::config::place::{Fault, Faults, FilePlace};
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_schemas::catalog::{Catalog, CatalogError};
use tidegate_schemas::definition::{Definition, Place};
use tidegate_schemas::ids::CredentialId;

/// A folder in which nothing was found.
#[derive(Debug)]
pub struct Checked {
    /// Its definitions.
    pub folder: Folder,
    /// Tests that passed.
    pub tests: usize,
}

/// Reads and checks a folder.
///
/// # Errors
/// All that is wrong: faults of form first; where there are none, those of references, scripts and tests together.
pub fn check(folder: &Path) -> Result<Checked, Faults> {
    check_folder(Folder::read(folder)?)
}

/// Checks the files of a folder.
pub fn check_files(files: &Files) -> Result<Checked, Faults> {
    check_folder(Folder::parse(files)?)
}

fn check_folder(folder: Folder) -> Result<Checked, Faults> {
    let mut faults = unsound(&folder);
    if faults.is_empty() {
        let templates = trial::Templates::of(&folder);
        folder.tests.iter().for_each(|test| trial::run(&templates, test, &mut faults));
    }
    if faults.is_empty() {
        let tests = folder.tests.len();
        return Ok(Checked { folder, tests });
    }
    faults.sort();
    Err(Faults(faults))
}

/// What is wrong with references and scripts; tests only run where nothing is.
pub(super) fn unsound(folder: &Folder) -> Vec<Fault> {
    let mut faults = Vec::new();
    if folder.definitions.is_empty() {
        // Published, it would take every definition away: nobody means that by the name of an empty folder.
        let remedy = "name the folder that holds organizations.toml, sources.toml, keys.toml and templates";
        faults.push(Fault::new(FilePlace::file("."), "the folder holds no definitions", remedy));
    }
    match catalog_of(folder) {
        Ok(catalog) => {
            check_credentials(folder, &catalog, &mut faults);
            check_secrets(folder, &mut faults);
        }
        Err(found) => faults = found,
    }
    for definition in &folder.definitions {
        if let Definition::Template(template) = definition {
            trial::check_scripts(template, &mut faults);
        }
    }
    faults
}

/// The catalog that the folder alone makes.
fn catalog_of(folder: &Folder) -> Result<Catalog, Vec<Fault>> {
    let fault = |refusal: Refusal| {
        let place = folder.places.get(&refusal.definition).cloned().unwrap_or_else(|| FilePlace::file("."));
        let remedy = match &refusal.cause {
            RefusalCause::Catalog(CatalogError::Missing { .. }) => "define it, or correct the name",
            RefusalCause::Catalog(CatalogError::Elsewhere { .. }) => "put its folder where it is found, or name one that is there",
            RefusalCause::Catalog(_) | RefusalCause::Table(_) => "correct it",
            RefusalCause::Twice => "remove one of them",
            RefusalCause::Tenants { .. } => "leave it with its tenant",
            RefusalCause::Circle(_) => "give one of them a parent outside the circle; a vendor has none",
        };
        Fault::new(place, refusal.cause.to_string(), remedy)
    };
    stand_alone(&folder.definitions).map_err(|refusals| refusals.into_iter().map(fault).collect())
}

/// Two keys with one secret are one key in two places: whoever holds the one holds the other, and neither can be taken back.
fn check_secrets(folder: &Folder, faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<String, &CredentialId> = BTreeMap::new();
    for definition in &folder.definitions {
        let Definition::Key(key) = definition else { continue };
        if let Some(first) = seen.insert(key.sha256.to_ascii_lowercase(), &key.id) {
            let place = folder.places.get(&definition.key()).cloned().unwrap_or_else(|| FilePlace::file("keys.toml"));
            let detail = format!("key {} has the same sha256 as key {first}", key.id);
            faults.push(Fault::new(place, detail, "make one of them anew: tidegate key ID"));
        }
    }
}

/// A source that takes the asset from the credential needs keys that are bound to one asset each.
fn check_credentials(folder: &Folder, catalog: &Catalog, faults: &mut Vec<Fault>) {
    for definition in &folder.definitions {
        let Definition::Key(key) = definition else { continue };
        let Some(source) = catalog.source(&key.tenant, &key.source) else { continue };
        if source.source.asset == Place::Credential && key.assets.as_ref().is_none_or(|assets| assets.len() != 1) {
            let place = folder.places.get(&definition.key()).cloned().unwrap_or_else(|| FilePlace::file("keys.toml"));
            let detail = format!("key {} is not bound to one asset, and source {} takes the asset from the credential", key.id, key.source);
            faults.push(Fault::new(place, detail, "give the key assets = [\"…\"] with one id, or the source another place"));
        }
    }
}
