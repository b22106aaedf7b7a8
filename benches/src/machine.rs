//! How fast this machine is now, beside the one that the bars were set on: shared machines differ by a factor of two from
//! one day to the next, so a figure without it says little.

use crate::workload::Workload;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate_pipeline::usage::thread_cpu_seconds;

/// What parsing one event of W1 to a `serde_json::Value` took on the machine of the bars, in nanoseconds: the unit cost
/// that was published with them.
const PARSE_NANOSECONDS: f64 = 1_700.0;

/// Events that are parsed over and over; a cache holds them.
const EVENTS: u64 = 500;

/// How many times slower one thread of this machine is now than the machine of the bars: the median of several looks. In CPU time,
/// as all figures beside it: who else runs takes a share of the clock, which says nothing of them.
pub fn slowness() -> f64 {
    let events: Vec<String> = (0..EVENTS)
        .map(|n| {
            let mut out = String::new();
            Workload::W1.event(n, &mut out);
            out
        })
        .collect();
    let mut looks: Vec<f64> = (0..9).map(|_| look(&events)).collect();
    looks.sort_by(f64::total_cmp);
    looks[looks.len() / 2] / PARSE_NANOSECONDS
}

/// Nanoseconds an event.
fn look(events: &[String]) -> f64 {
    let (started, cpu, mut parsed) = (Instant::now(), thread_cpu_seconds(), 0u32);
    while started.elapsed() < Duration::from_millis(50) {
        for event in events {
            black_box(serde_json::from_str::<serde_json::Value>(black_box(event)).is_ok());
        }
        parsed += events.len() as u32;
    }
    (thread_cpu_seconds() - cpu) * 1e9 / f64::from(parsed)
}
