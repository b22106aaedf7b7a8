//! Holds: who needs what of a log, for as long as the process lives.

use hashbrown::HashMap;
use std::sync::{Mutex, PoisonError};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::LogName;

/// First offsets that somebody still needs, by name.
#[derive(Default)]
pub struct Holds(Mutex<HashMap<(String, LogName, Partition), u64>>);

impl Holds {
    /// Replaces or lifts a hold.
    pub fn set(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), log, partition);
        match from {
            Some(from) => holds.insert(key, from),
            None => holds.remove(&key),
        };
    }

    /// Lowers `to` (by partition) to the holds on a log.
    pub fn lower(&self, log: LogName, mut to: Vec<u64>) -> Vec<u64> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, of, partition), from) in holds.iter() {
            if let Some(to) = to.get_mut(*partition as usize).filter(|_| *of == log) {
                *to = (*to).min(*from);
            }
        }
        to
    }
}
