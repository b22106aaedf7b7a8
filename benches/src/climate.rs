//! What analysts ask about: a fleet that tells the climate of rooms every ten minutes, for as long as its rows go, in the table
//! of W1. Values move as rooms do, so they compress as those of real sensors would, and better than W1's random ones.

use crate::committed::{BEGAN, Committed, Committing};
use crate::workload::Random;
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use tidegate_schemas::block::{Head, RowsBuilder};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::ids::Position;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;

/// Sites, halls of a site, sensors of a hall.
const SITES: u64 = 8;
const HALLS: u64 = 6;
const SENSORS: u64 = 36;
/// Sensors in all: ten million rows are forty days of theirs.
const ASSETS: u64 = SITES * HALLS * SENSORS;
/// Each tells so often.
const PERIOD: Micros = 600_000_000;
/// Rows of an epoch: two in a period, so that the edges of every quarter of an hour cut as they would in life.
const EPOCH: u64 = ASSETS / 2;
/// Readings that a gateway sends in one request.
const REQUEST: u64 = 36;
/// How long a reading takes to the edge.
const WAY: Micros = 400_000;

/// The tenant whose rows they are.
pub const TENANT: &str = "acme";
/// One asset among them.
pub const ASSET: &str = "urn:dev:mac:0024beff00061a80";
/// The month that is asked for.
pub const MONTH: [&str; 2] = ["2026-01-01 00:00:00", "2026-02-01 00:00:00"];

/// What never changes of one sensor.
struct Sensor {
    organization: String,
    site: Box<str>,
    firmware: Box<str>,
    asset: Arc<str>,
    place: [f64; 3],
    /// Degrees by which its room is warmer than others.
    warmth: f64,
}

impl Sensor {
    fn number(n: u64) -> Self {
        let (site, hall) = (n / (HALLS * SENSORS), n / SENSORS % HALLS);
        let mut random = Random(n);
        Self {
            organization: format!("bench/{TENANT}/site-{site}/hall-{hall}"),
            site: format!("plant-{site:02}").into(),
            firmware: format!("2.{}.{}", site % 3, random.below(4)).into(),
            asset: format!("urn:dev:mac:0024beff{:08x}", n * 400).into(),
            place: [47.0 + site as f64 + random.decimal(0, 1, 10_000), 6.0 + random.decimal(0, 1, 10_000), random.decimal(0, 30, 10)],
            warmth: random.decimal(-3, 3, 100),
        }
    }

    fn row(&self, at: Micros, sequence: u64, random: &mut Random) -> Row {
        let day = (at.rem_euclid(86_400_000_000)) as f64 / 86_400_000_000.0 * std::f64::consts::TAU;
        let rounded = |value: f64, steps: f64| Cell::F64((value * steps).round() / steps);
        let temperature = 20.0 + self.warmth - 4.0 * day.cos() + random.decimal(-1, 1, 100) / 4.0;
        let cells = vec![
            rounded(temperature, 100.0),
            rounded(50.0 + 12.0 * day.cos() + random.decimal(-2, 2, 10), 10.0),
            rounded(1_013.0 + 8.0 * (at as f64 / 4e11).sin() + random.decimal(-1, 1, 100) / 10.0, 100.0),
            rounded(3.6 - sequence as f64 / 20_000.0, 1_000.0),
            Cell::I64(-70 - random.below(12) as i64),
            rounded(7.0 + random.decimal(-2, 2, 10), 10.0),
            Cell::I64(sequence as i64),
            Cell::Text(self.site.to_string().into()),
            Cell::Text(self.firmware.to_string().into()),
            Cell::F64(self.place[0]),
            Cell::F64(self.place[1]),
            Cell::F64(self.place[2]),
        ];
        Row { occurred_at: at, event_type: "w1".into(), cells, attributes: Vec::new() }
    }
}

/// So many rows in a new log.
///
/// # Errors
/// The table of W1 is not the one that is meant here, or the disk refuses.
pub fn fill(folder: &Path, catalog: &Catalog, rows: u64) -> anyhow::Result<Committed> {
    let table: &Table = catalog.tables().find(|t| t.name == "w1").context("no table of W1")?;
    let sensors: Vec<Sensor> = (0..ASSETS).map(Sensor::number).collect();
    let (mut log, mut recorded_at) = (Committing::create(folder, catalog.cut())?, BEGAN);
    for from in (0..rows).step_by(EPOCH as usize) {
        let end = rows.min(from + EPOCH);
        recorded_at = told_at(end) + 2 * WAY;
        let of = log.next(recorded_at);
        let mut builder = RowsBuilder::new(of.clone(), table, (end - from) as usize);
        for n in from..end {
            // Sensors of all halls tell in turn; their number of assets is no multiple of this prime.
            let sensor = &sensors[(n * 1_103 % ASSETS) as usize];
            let mut random = Random(n);
            let (request, index) = (n / REQUEST, (n % REQUEST) as u32);
            let receipt = (u128::from(Random(request).next()) << 64) | u128::from(Random(!request).next());
            let origin = Origin {
                at: Position { offset: request, ordinal: index },
                index,
                event_id: format!("{receipt:032x}-{index}").into(),
                asset: Arc::clone(&sensor.asset),
                received_at: told_at(n) + WAY,
            };
            let row = sensor.row(told_at(n), n / ASSETS, &mut random);
            let organization = &*sensor.organization;
            let head = Head { tenant: TENANT, organization, source: "w1", template: "w1@1", origin: &origin, number: 0 };
            builder.push(head, &row)?;
        }
        log.commit(&of, builder.finish()?)?;
    }
    log.end(recorded_at)
}

/// When row `n` is read by its sensor.
fn told_at(n: u64) -> Micros {
    BEGAN + (u128::from(n) * PERIOD as u128 / u128::from(ASSETS)) as Micros
}
