//! Values at the edges: each comes back as it went in.

use super::engine::{self, shared};
use super::{cut_of, open};
use crate::rows::{of, table};
use std::sync::Arc;
use tidegate_schemas::block::{EpochHeader, Head, RejectionRow, RejectionsBuilder, RowsBuilder};
use tidegate_schemas::ids::Position;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::sink::Sink;
use tidegate_schemas::table::FieldType;
use tidegate_schemas::time;
use tidegate_schemas::verdict::{Rejection, StageName};

fn origin(i: usize, at: &EpochHeader) -> Origin {
    Origin {
        at: Position { offset: u64::from(u32::MAX) + i as u64, ordinal: i as u32 },
        index: i as u32,
        event_id: Arc::from(format!("e{i}\0\u{1f600}'\\`")),
        asset: Arc::from("pump \u{1f30a}"),
        received_at: at.recorded_at - 1,
    }
}

fn head(origin: &Origin) -> Head<'_> {
    Head { tenant: "acme", organization: "acme", source: "src", template: "t@1", origin, number: 0 }
}

#[tokio::test]
async fn every_value_comes_back_as_it_was() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let all = table(
        "edges-1",
        &[
            ("f", FieldType::F64, None),
            ("i", FieldType::I64, None),
            ("b", FieldType::Bool, None),
            ("t", FieldType::Text, None),
            ("at", FieldType::Timestamp, None),
        ],
    );
    let floats = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1 + 0.2];
    let integers = [0, -1, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN];
    let texts = ["", "\0", "a\0b", "\u{1f600}", "\\N", "\\", "'`\"", "\r\n\t", "\u{feff}"];
    let times = [time::STORABLE.start, -1, 0, 1, time::parse("2262-04-11T23:47:16.854775Z").unwrap(), time::STORABLE.end - 1];
    let count = 9;
    let make = |header: &EpochHeader| {
        let mut builder = RowsBuilder::new(of(2, header), &all, 0);
        for i in 0..count {
            let cells = vec![
                Cell::Null,
                Cell::F64(floats[i]),
                integers.get(i).map_or(Cell::Null, |v| Cell::I64(*v)),
                if i == 2 { Cell::Null } else { Cell::Bool(i % 2 == 0) },
                if i == 8 { Cell::Null } else { Cell::Text(texts[i].into()) },
                times.get(i).map_or(Cell::Null, |v| Cell::Timestamp(*v)),
            ];
            let attributes = vec![(format!("k\0{i}").into(), texts[i].into()), ("".into(), "\u{1f600}".into())];
            let occurred_at = times.get(i).copied().unwrap_or(7);
            let row = Row { occurred_at, event_type: texts[i].into(), cells, attributes };
            let origin = origin(i, header);
            builder.push(Head { organization: "acme/'north'\\", ..head(&origin) }, &row).unwrap();
        }
        // Nothing but nulls.
        let row = Row { occurred_at: 0, event_type: "none".into(), cells: vec![Cell::Null; 6], attributes: Vec::new() };
        let origin = origin(count, header);
        builder.push(Head { number: i32::MAX as u32, ..head(&origin) }, &row).unwrap();
        builder.finish().unwrap()
    };
    let sink = open(engine, &database);
    sink.deliver(cut_of(2, 1 << 40, make)).await.unwrap();
    let bits = "if(f IS NULL, NULL, toString(reinterpretAsUInt64(assumeNotNull(f))))";
    let rows = engine.rows(&format!(
        "SELECT _offset, {bits} AS f, toString(i) AS i, b, base64Encode(t) AS t, toString(toUnixTimestamp64Micro(at)) AS at, \
         toString(toUnixTimestamp64Micro(occurred_at)) AS occurred_at, base64Encode(event_type) AS kind, base64Encode(event_id) AS id, \
         mapKeys(attributes) AS keys, arrayMap(v -> base64Encode(assumeNotNull(v)), mapValues(attributes)) AS vals, \
         base64Encode(organization) AS org, base64Encode(asset) AS asset, _epoch, _index, _row, _partition, temperature \
         FROM `{database}`.`edges-1` ORDER BY _index"
    ));
    assert_eq!(rows.len(), count + 1);
    let encoded = |text: &str| serde_json::Value::from(base64(text));
    for (i, row) in rows.iter().take(count).enumerate() {
        assert_eq!(row["f"], floats[i].to_bits().to_string(), "{row}");
        assert_eq!(row["i"].as_str(), integers.get(i).map(ToString::to_string).as_deref(), "{row}");
        assert_eq!(row["b"].as_bool(), (i != 2).then_some(i % 2 == 0), "{row}");
        assert_eq!(row["t"].as_str(), (i != 8).then(|| base64(texts[i])).as_deref(), "{row}");
        assert_eq!(row["at"].as_str(), times.get(i).map(ToString::to_string).as_deref(), "{row}");
        assert_eq!(row["occurred_at"], times.get(i).copied().unwrap_or(7).to_string(), "{row}");
        assert_eq!(row["kind"], encoded(texts[i]), "{row}");
        assert_eq!(row["id"], encoded(&format!("e{i}\0\u{1f600}'\\`")), "{row}");
        assert_eq!(row["keys"], serde_json::json!([format!("k\0{i}"), ""]), "{row}");
        assert_eq!(row["vals"], serde_json::json!([base64(texts[i]), base64("\u{1f600}")]), "{row}");
        assert_eq!((&row["org"], &row["asset"]), (&encoded("acme/'north'\\"), &encoded("pump \u{1f30a}")), "{row}");
        assert_eq!((row["_offset"].as_u64(), row["_epoch"].as_u64()), (Some(u64::from(u32::MAX) + i as u64), Some(1 << 40)), "{row}");
        assert_eq!((row["_index"].as_u64(), row["_row"].as_u64(), row["_partition"].as_u64()), (Some(i as u64), Some(0), Some(2)), "{row}");
        assert!(row["temperature"].is_null(), "{row}");
    }
    let last = &rows[count];
    assert!(["f", "i", "b", "t", "at"].iter().all(|name| last[name].is_null()), "{last}");
    assert_eq!((last["_row"].as_i64(), last["keys"].as_array().map(Vec::len)), (Some(i32::MAX.into()), Some(0)), "{last}");
}

#[tokio::test]
async fn original_bytes_of_a_refused_event_come_back() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let bytes: Vec<u8> = (0..=255).collect();
    let sink = open(engine, &database);
    let cut = cut_of(0, 5, |header| {
        let mut builder = RejectionsBuilder::new(of(0, header));
        for i in 0..2 {
            let rejection = Rejection {
                stage: StageName::Decode,
                code: "bad_bytes".into(),
                detail: "it\0s".into(),
                pointer: String::new(),
                line: (i == 1).then_some(12),
            };
            let origin = origin(i, header);
            let row = RejectionRow {
                tenant: "acme",
                organization: "acme",
                source: "src",
                template: "t@1",
                origin: &origin,
                rejection: &rejection,
                content_type: "application/octet-stream",
                original: if i == 0 { &bytes } else { b"" },
            };
            builder.push(&row).unwrap();
        }
        builder.finish().unwrap()
    });
    sink.deliver(cut).await.unwrap();
    let rows = engine.rows(&format!("SELECT hex(original) AS original, line, code, detail FROM `{database}`.rejections ORDER BY _index"));
    let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
    assert_eq!(rows[0], serde_json::json!({ "original": hex, "line": null, "code": "bad_bytes", "detail": "it\0s" }));
    assert_eq!(rows[1], serde_json::json!({ "original": "", "line": 12, "code": "bad_bytes", "detail": "it\0s" }));
}

/// A thousand device dates in one epoch are one insert into one partition: rows go by the date at which they were recorded.
#[tokio::test]
async fn a_thousand_device_dates_are_one_part() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let sink = open(engine, &database);
    let cut = cut_of(0, 1, |header| {
        let mut builder = RowsBuilder::new(of(0, header), &climate, 0);
        for i in 0..1_000 {
            let row = Row {
                occurred_at: time::STORABLE.start + i as i64 * 146 * time::DAY,
                event_type: "r".into(),
                cells: vec![Cell::F64(i as f64)],
                attributes: Vec::new(),
            };
            builder.push(head(&origin(i, header)), &row).unwrap();
        }
        builder.finish().unwrap()
    });
    sink.deliver(cut).await.unwrap();
    let told = engine.ask(&format!("SELECT count(), uniqExact(toDate32(occurred_at)), uniqExact(_part) FROM `{database}`.climate"));
    assert_eq!(told, "1000\t1000\t1\n");
    let partition = engine.ask(&format!("SELECT DISTINCT partition FROM system.parts WHERE database = '{database}' AND table = 'climate'"));
    assert_eq!(partition, "2026-11-25\n");
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            out.push(if i <= chunk.len() { char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]) } else { '=' });
        }
    }
    out
}
