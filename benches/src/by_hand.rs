//! What the scripts, rules and mappings of the workloads say, written in Rust: the floor that they are measured against.
//! The same document comes in and the same row goes out; what is before and behind is what every event costs.

use crate::workload::Workload;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use tidegate_operators::event::{Bundle, Event, Progress};
use tidegate_schemas::document::{Kind, Value};
use tidegate_schemas::row::Cell;
use tidegate_schemas::time;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// What an event of a workload becomes: the cells of its row in the order of its table, and its own time.
type Made<'v, const N: usize> = Option<([Cell<'v>; N], Option<i64>)>;

/// Takes a bundle from its documents to its rows. What the workload's checks refuse is a rejection.
pub fn apply(bundle: &mut Bundle, workload: Workload) {
    match workload {
        Workload::W1 => each(bundle, w1),
        Workload::W2 => each(bundle, w2),
        Workload::W3 => each(bundle, w3),
    }
}

fn each<const N: usize>(bundle: &mut Bundle, make: impl Fn(&Event) -> Made<'_, N>) {
    let Bundle { plan: Some(plan), events, rows, .. } = bundle else { return };
    let event_type = Arc::from(plan.template.template.id.as_str());
    for event in events {
        event.progress = match make(event) {
            Some((cells, occurred_at)) => {
                let first = rows.len() as u32;
                cells.into_iter().enumerate().for_each(|(column, cell)| rows.set(column, cell));
                rows.end(occurred_at.or(event.occurred_at).unwrap_or(event.origin.received_at), &event_type, Vec::new());
                Progress::Transformed(first..first + 1)
            }
            None => Progress::Rejected(Rejection::new(StageName::Validate, Code::OutOfRange, "").into()),
        };
    }
}

/// The members of an object by their names, in one walk.
fn members<'v, const N: usize>(object: Value<'v>, names: [&str; N]) -> [Option<Value<'v>>; N] {
    let mut found = [None; N];
    for (name, value) in object.pairs() {
        if let Some(at) = names.iter().position(|n| **n == *name) {
            found[at] = Some(value);
        }
    }
    found
}

fn number(value: Option<Value<'_>>, low: f64, high: f64) -> Option<f64> {
    value?.as_f64().filter(|n| (low..=high).contains(n))
}

fn text<'v>(value: Option<Value<'v>>, most: usize) -> Option<&'v str> {
    value?.as_str().filter(|t| (1..=most).contains(&t.len()))
}

fn w1(event: &Event) -> Made<'_, 12> {
    let names = ["temperature", "humidity", "pressure", "battery", "rssi", "snr", "seq", "site", "fw", "loc"];
    let [temperature, humidity, pressure, battery, rssi, snr, seq, site, fw, loc] = members(event.document.root(), names);
    let [lat, lon, alt] = members(loc?, ["lat", "lon", "alt"]);
    let all = f64::NEG_INFINITY..=f64::INFINITY;
    let place = |value| number(value, *all.start(), *all.end()).map(Cell::F64);
    let cells = [
        Cell::F64(number(temperature, -40.0, 85.0)?),
        Cell::F64(number(humidity, 0.0, 100.0)?),
        Cell::F64(number(pressure, 300.0, 1_200.0)?),
        Cell::F64(number(battery, 0.0, 5.0)?),
        Cell::I64(number(rssi, -150.0, 0.0)? as i64),
        Cell::F64(number(snr, -30.0, 30.0)?),
        Cell::I64(number(seq, 0.0, f64::INFINITY)? as i64),
        Cell::Text(site?.as_str()?.into()),
        Cell::Text(fw?.as_str()?.into()),
        place(lat)?,
        place(lon)?,
        place(alt)?,
    ];
    Some((cells, None))
}

fn w2(event: &Event) -> Made<'_, 11> {
    let [port, data] = members(event.document.root(), ["fPort", "data"]);
    let mut p = [0; 32];
    let len = STANDARD.decode_slice(data?.as_str()?, &mut p).ok()?;
    let port = port?.as_f64()?;
    let u16 = |at: usize| u16::from_be_bytes([p[at], p[at + 1]]);
    let i32 = |at: usize| i32::from_be_bytes([p[at], p[at + 1], p[at + 2], p[at + 3]]);
    let (temperature, humidity) = (f64::from(u16(1) as i16) / 100.0, f64::from(u16(3)) / 100.0);
    if len < 12 || !(-40.0..=85.0).contains(&temperature) || !(0.0..=100.0).contains(&humidity) {
        return None;
    }
    let when = |there: bool, cell| if there { cell } else { Cell::Null };
    let cells = [
        Cell::I64(p[0].into()),
        Cell::F64(temperature),
        Cell::F64(humidity),
        Cell::F64(f64::from(u16(5)) / 10.0),
        Cell::F64(f64::from(u16(7)) / 1_000.0),
        Cell::I64(u16(9).into()),
        Cell::I64(p[11].into()),
        when(port >= 2.0, Cell::I64(u16(12).into())),
        when(port >= 2.0, Cell::I64(u16(14).into())),
        when(port == 3.0, Cell::F64(f64::from(i32(16)) / 1e6)),
        when(port == 3.0, Cell::F64(f64::from(i32(20)) / 1e6)),
    ];
    Some((cells, None))
}

fn w3(event: &Event) -> Made<'_, 14> {
    let names = ["id", "device", "tenant", "type", "ts", "seq", "battery", "rssi", "snr", "active", "location", "readings", "payload"];
    let [id, device, tenant, kind, ts, seq, battery, rssi, snr, active, location, readings, payload] =
        members(event.document.root(), names);
    text(id, 64)?;
    let device = text(device, 32)?;
    device.strip_prefix("dev-").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))?;
    text(tenant, 32)?;
    kind?.as_str().filter(|k| ["telemetry", "status", "alarm", "join"].contains(k))?;
    let ts = number(ts, 1.6e12, 4e12)?;
    let seq = number(seq, 0.0, 4_294_967_295.0).filter(|n| n.fract() == 0.0)?;
    let (battery, rssi, snr) = (number(battery, 0.0, 5.0)?, number(rssi, -150.0, 0.0)?, number(snr, -30.0, 30.0)?);
    if !matches!(active?.kind(), Kind::Bool(_)) {
        return None;
    }
    let [lat, lon, alt] = members(location?, ["lat", "lon", "alt"]);
    let (lat, lon, alt) = (number(lat, -90.0, 90.0)?, number(lon, -180.0, 180.0)?, number(alt, -500.0, 9_000.0)?);
    let (mut least, mut most, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0);
    for reading in readings?.elements() {
        let reading = number(Some(reading), -50.0, 150.0)?;
        (least, most, count) = (least.min(reading), most.max(reading), count + 1);
    }
    if count != 4 {
        return None;
    }
    let mut p = [0; 32];
    if STANDARD.decode_slice(payload?.as_str()?, &mut p).ok()? < 11 {
        return None;
    }
    let t = f64::from(i16::from_be_bytes([p[2], p[3]])) / 100.0;
    let rounded = |n: f64| (n + 0.5).floor();
    let cells = [
        Cell::Text(device.into()),
        Cell::Timestamp(time::from_millis(ts)?),
        Cell::F64(rounded(t * 100.0) / 100.0),
        Cell::F64(rounded((t * 9.0 / 5.0 + 32.0) * 100.0) / 100.0),
        Cell::F64(least),
        Cell::F64(most),
        Cell::I64(rounded(((battery - 2.8) / 1.4).clamp(0.0, 1.0) * 100.0) as i64),
        Cell::I64(rounded((2.0 * (rssi + 120.0) + snr).clamp(0.0, 100.0)) as i64),
        Cell::F64(f64::from(u16::from_be_bytes([p[4], p[5]])) / 100.0),
        Cell::I64(u32::from_be_bytes([0, p[6], p[7], p[8]]).into()),
        Cell::F64(lat),
        Cell::F64(lon),
        Cell::F64(alt),
        Cell::I64(seq as i64),
    ];
    Some((cells, None))
}
