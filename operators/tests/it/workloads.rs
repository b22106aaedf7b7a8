//! The workloads of the benches come out as computed without Lua.

use crate::scripted::*;
use serde_json::Value;
use tidegate_schemas::definition::*;
use tidegate_schemas::row::{Cell, Row};
use tidegate_schemas::table::{Field, FieldType};
use tidegate_schemas::time;

pub fn lines(name: &str) -> Option<Vec<String>> {
    let path = shared("workload")?.join(name);
    Some(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())
}

fn through(template: &Template, lines: &[String]) -> (Vec<Ended>, Vec<tidegate_schemas::block::ScriptRun>) {
    let mut host = host();
    let events: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
    let mut bundle = bundle("acme", template.clone(), &events);
    run(&mut host, &mut bundle);
    (ended(&bundle), bundle.runs)
}

fn number(cell: &Cell<'_>) -> f64 {
    match cell {
        Cell::F64(f) => *f,
        Cell::I64(i) => *i as f64,
        Cell::Timestamp(at) => *at as f64 / 1_000.0,
        other => panic!("{other:?}"),
    }
}

/// The three scripts of S5.
pub fn w3(folder: &std::path::Path) -> Template {
    let source = |stage: &str| script(&std::fs::read_to_string(folder.join(format!("{stage}.luau"))).unwrap());
    let names = [
        "time",
        "temperatureC",
        "temperatureF",
        "minC",
        "maxC",
        "batteryPct",
        "linkQuality",
        "humidity",
        "pulses",
        "lat",
        "lon",
        "alt",
        "seq",
    ];
    let kind = |name: &str| match name {
        "time" => FieldType::Timestamp,
        "batteryPct" | "linkQuality" | "pulses" | "seq" => FieldType::I64,
        _ => FieldType::F64,
    };
    let mut fields: Vec<Field> = names.iter().map(|n| field(n, kind(n))).collect();
    fields.push(field("deviceId", FieldType::Text));
    Template {
        payload: Some(Payload { at: Some("/payload".into()), encoding: Encoding::Base64, form: PayloadForm::Buffer, f_port: None }),
        decode: Some(Decode::Script(source("decode"))),
        validate: Some(Validate::Script(source("validate"))),
        transform: Some(Transform::Script(source("transform"))),
        ..template(fields)
    }
}

#[test]
fn w3_by_three_scripts() {
    let (Some(sample), Some(expected), Some(folder)) = (lines("w3-sample.ndjson"), lines("w3-expected.ndjson"), shared("workload/s5"))
    else {
        return;
    };
    let template = w3(&folder);
    let names: Vec<&str> = template.fields.iter().map(|f| f.name.as_str()).take(13).collect();
    let (progress, runs) = through(&template, &sample);
    for ((progress, expected), line) in progress.into_iter().zip(&expected).zip(&sample) {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let rows: Vec<Row> = rows(progress);
        assert_eq!(rows.len(), 1);
        for (cell, name) in rows[0].cells.iter().zip(&names) {
            assert_eq!(number(cell), expected[*name].as_f64().unwrap(), "{name} of {line}");
        }
        assert_eq!(rows[0].cells[13], Cell::Text(expected["deviceId"].as_str().unwrap().into()));
        assert!(rows[0].attributes.is_empty());
    }
    let told: Vec<_> = runs.iter().map(|r| (r.stage.as_str(), r.runs, r.failures, r.steps % r.runs)).collect();
    let all = sample.len() as u64;
    assert_eq!(told, [("decode", all, 0, 0), ("validate", all, 0, 0), ("transform", all, 0, 0)]);
    assert!(runs.iter().all(|r| r.steps > 0 && r.bytes > 250_000), "{runs:?}");
}

#[test]
fn w2_by_a_decoder_and_rules() {
    let Some(sample) = lines("w2-sample.ndjson") else { return };
    let decode = "
        local function u16(p, at) return buffer.readu8(p, at) * 256 + buffer.readu8(p, at + 1) end
        local function s16(p, at) local v = u16(p, at) return if v >= 32768 then v - 65536 else v end
        local function s32(p, at) return s16(p, at) * 65536 + u16(p, at + 2) end
        function decode(input)
          local p, port = input.payload, input.fPort
          local d = {
            temperature = s16(p, 1) / 100, humidity = u16(p, 3) / 100, pressure = u16(p, 5) / 10,
            battery = u16(p, 7) / 1000, co2 = u16(p, 9), status = buffer.readu8(p, 11),
          }
          if port >= 2 then d.lux, d.counter = u16(p, 12), u16(p, 14) end
          if port == 3 then d.lat, d.lon = s32(p, 16) / 1e6, s32(p, 20) / 1e6 end
          return { data = d }
        end";
    let rule = |at: &str, min, max| Rule {
        at: at.into(),
        kind: Some(FieldType::F64),
        required: true,
        min: Some(min),
        max: Some(max),
        one_of: vec![],
        pattern: None,
    };
    let mut fields = vec![
        field("temperature", FieldType::F64),
        field("humidity", FieldType::F64),
        field("co2", FieldType::I64),
        field("lux", FieldType::I64),
    ];
    fields.push(field("lat", FieldType::F64));
    let native = Template {
        payload: Some(Payload {
            at: Some("/data".into()),
            encoding: Encoding::Base64,
            form: PayloadForm::Buffer,
            f_port: Some("/fPort".into()),
        }),
        decode: Some(Decode::Script(script(decode))),
        validate: Some(Validate::Rules(vec![rule("/decoded/temperature", -40.0, 85.0), rule("/decoded/humidity", 0.0, 100.0)])),
        ..template(fields)
    };
    let scripted = Template {
        validate: Some(Validate::Script(script(
            "function validate(e) local d = e.decoded
               if d.temperature < -40 or d.temperature > 85 then return false, { code = 'out_of_range', pointer = '/decoded/temperature' } end
               if d.humidity > 100 then return false, { code = 'out_of_range', pointer = '/decoded/humidity' } end
               return true end",
        ))),
        ..native.clone()
    };
    let (by_rules, by_script) = (through(&native, &sample).0, through(&scripted, &sample).0);
    let mut bad = 0;
    for ((a, b), line) in by_rules.iter().zip(&by_script).zip(&sample) {
        let sent: Value = serde_json::from_str(line).unwrap();
        match (a, b) {
            (Ended::Rows(a), Ended::Rows(b)) => {
                assert_eq!(a, b, "{line}");
                assert!((-40.0..=85.0).contains(&number(&a[0].cells[0])) && number(&a[0].cells[1]) <= 100.0);
                assert_eq!(a[0].cells[3] == Cell::Null, sent["fPort"] == 1, "{line}");
                assert_eq!(a[0].cells[4] == Cell::Null, sent["fPort"] != 3, "{line}");
            }
            (Ended::Rejected(a), Ended::Rejected(b)) => {
                assert_eq!((a.code.as_str(), &a.pointer), (b.code.as_str(), &b.pointer), "{line}");
                bad += 1;
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    assert!((2..25).contains(&bad), "{bad}");
}

#[test]
fn w1_declared_only() {
    let Some(sample) = lines("w1-sample.ndjson") else { return };
    let map = |field: &str, from: &str| Mapping { field: field.into(), from: Some(from.into()), constant: None, scale: None, offset: None };
    let bounded = |name: &str, min, max| Field { min: Some(min), max: Some(max), required: true, ..field(name, FieldType::F64) };
    let template = Template {
        decode: Some(Decode::Json),
        validate: Some(Validate::Rules(vec![Rule {
            at: "/device".into(),
            kind: Some(FieldType::Text),
            required: true,
            min: None,
            max: None,
            one_of: vec![],
            pattern: Some("^urn:dev:mac:[0-9a-f]{16}$".into()),
        }])),
        transform: Some(Transform::Mapping(vec![
            map("temperature", "/temperature"),
            Mapping { scale: Some(9.0 / 5.0), offset: Some(32.0), ..map("fahrenheit", "/temperature") },
            map("seq", "/seq"),
            map("lat", "/loc/lat"),
            map("site", "/site"),
            map("place", "/loc"),
            map("occurred_at", "/ts"),
            Mapping { from: None, constant: Some("telemetry".into()), ..map("event_type", "") },
            map("fw", "/fw"),
        ])),
        ..template(vec![
            bounded("temperature", -60.0, 100.0),
            field("fahrenheit", FieldType::F64),
            field("seq", FieldType::I64),
            bounded("lat", -90.0, 90.0),
            field("site", FieldType::Text),
            field("place", FieldType::Json),
        ])
    };
    for (progress, line) in through(&template, &sample).0.into_iter().zip(&sample) {
        let sent: Value = serde_json::from_str(line).unwrap();
        let row = rows(progress).remove(0);
        let temperature = sent["temperature"].as_f64().unwrap();
        assert_eq!(row.cells[0], Cell::F64(temperature));
        assert_eq!(row.cells[1], Cell::F64(temperature * (9.0 / 5.0) + 32.0));
        assert_eq!(row.cells[2], Cell::I64(sent["seq"].as_i64().unwrap()));
        assert_eq!(row.cells[3], Cell::F64(sent["loc"]["lat"].as_f64().unwrap()));
        assert_eq!(row.cells[4], Cell::Text(sent["site"].as_str().unwrap().into()));
        let Cell::Text(place) = &row.cells[5] else { panic!() };
        assert_eq!(serde_json::from_str::<Value>(place).unwrap(), sent["loc"]);
        assert_eq!(row.occurred_at, time::parse(sent["ts"].as_str().unwrap()).unwrap());
        assert_eq!(&*row.event_type, "telemetry");
        assert_eq!(row.attributes, [("fw".into(), sent["fw"].as_str().unwrap().into())]);
    }
}
