//! How a plan gets to the process of the fleet: as one JSON object on its standard input, so that keys are in no file, no
//! argument and no environment.

use super::FleetPlan;
use crate::demo::content::SenderKey;
use serde::{Deserialize, Serialize};
use std::io;
use tidegate_schemas::secret::Secret;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanForm<'a> {
    address: &'a str,
    seed: u64,
    events: u64,
    connections: usize,
    now: i64,
    #[serde(borrow)]
    keys: Vec<[&'a str; 3]>,
}

impl FleetPlan {
    /// The bytes for the other process.
    pub fn hand_over(&self) -> io::Result<Vec<u8>> {
        let key = |k: &'_ SenderKey| -> io::Result<String> { String::from_utf8(k.key.expose().to_vec()).map_err(io::Error::other) };
        let texts = self.keys.iter().map(key).collect::<io::Result<Vec<_>>>()?;
        let keys = self.keys.iter().zip(&texts).map(|(k, text)| [k.tenant.as_str(), k.source.as_str(), text.as_str()]);
        let form = PlanForm {
            address: &self.address,
            seed: self.seed,
            events: self.events,
            connections: self.connections,
            now: self.now,
            keys: keys.collect(),
        };
        Ok(serde_json::to_vec(&form)?)
    }

    /// Reads what [`FleetPlan::hand_over`] wrote.
    pub fn take_over(bytes: &[u8]) -> io::Result<Self> {
        let form: PlanForm<'_> = serde_json::from_slice(bytes)?;
        let key = |[tenant, source, key]: [&str; 3]| SenderKey {
            tenant: tenant.to_owned(),
            source: source.to_owned(),
            key: Secret::new(key.as_bytes().to_vec()),
        };
        Ok(Self {
            address: form.address.to_owned(),
            seed: form.seed,
            events: form.events,
            connections: form.connections,
            now: form.now,
            keys: form.keys.into_iter().map(key).collect(),
        })
    }
}
