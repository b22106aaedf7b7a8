//! The committed seeds: inputs to begin from, and what fuzzing found. `cargo run --release --bin seeds` makes the former
//! anew from the project's own writers and, where they are, from the shared real inputs; finds are kept as they are.

use super::record::framed;
use super::{body, definitions, request};
use anyhow::Context;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_operators::duplicates::Duplicates;
use tidegate_schemas::block::{
    Attribution, EpochHeader, Head, OutcomesBlock, RejectionRow, RejectionsBuilder, RowsBuilder, ScriptRun, encode, script_runs,
};
use tidegate_schemas::commit::{CommitRecord, Counts, Fault, SnapshotRef, TableRows, TenantCounts};
use tidegate_schemas::definition::{Chain, Change, Definition};
use tidegate_schemas::envelope::{Envelope, Refusal, Release, Released, Span};
use tidegate_schemas::ids::*;
use tidegate_schemas::receipt::Receipt;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::sink::CutParameters;
use tidegate_schemas::table::{Column, FieldType, Table};
use tidegate_schemas::varint;
use tidegate_schemas::verdict::{Code, Outcome, Rejection, StageName, Verdict};

/// Bytes of a seed of a real input.
const REAL_BYTES_MAX: usize = 1_500;
/// Real inputs of one folder.
const REAL_FILES_MAX: usize = 40;
const AT: i64 = 1_790_000_000_123_456;

/// A folder of definitions with a bit of everything, each file below its path.
pub(super) const FOLDER: &str = r#"=== organizations.toml
[[organization]]
id = "vend"
kind = "vendor"
name = "Vend"
[[organization]]
id = "cust"
kind = "customer"
name = "Cust"
parent = "vend"
[[organization]]
id = "site-1"
kind = "site"
name = "Site"
parent = "cust"
=== sources.toml
[[source]]
id = "src"
node = "cust"
template = "t1"
asset = { pointer = "/device" }
event_id = { header = "x-id" }
occurred_at = { pointer = "/at" }
meta = ["x-gateway"]
=== assets.toml
[[asset]]
id = "dev 1"
node = "site-1"
template = "t1"
attributes = { room = "4~/2" }
=== keys.toml
[[key]]
id = "k1"
tenant = "cust"
source = "src"
sha256 = "abababababababababababababababababababababababababababababababab"
expires_at = "2027-01-31T00:00:00Z"
assets = ["dev 1"]
=== templates/vend/t1/template.toml
id = "t1"
title = "One"
table = "Climate"
inputs = ["temperature", "p"]
[payload]
at = "/p"
encoding = "hex"
[limits]
steps = 5000
[decode]
form = "json"
[[validate]]
at = "/temperature"
type = "f64"
min = -40.1
max = 85.3
[[transform]]
field = "temperature"
from = "/temperature"
scale = 0.30000000000000004
offset = 90.08302973663159
[[transform]]
field = "note"
constant = "x"
[[fields]]
name = "temperature"
type = "f64"
unit = "Cel"
min = -40.0
[[fields]]
name = "seen"
type = "timestamp"
=== templates/vend/t1/tests/one.json
{"description": "one", "event": {"device": "dev 1", "temperature": 2}, "rows": [{"temperature": 1.6}]}
"#;

/// Where the committed seeds lie: a folder for each target.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

/// The committed seeds of a target, by name.
pub fn of(target: &str) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let folder = folder().join(target);
    let mut seeds = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).context("a seed's name is text")?;
        seeds.insert(name.to_owned(), fs::read(&path)?);
    }
    Ok(seeds)
}

/// Writes the seeds of all targets; `data` is the folder of shared real inputs.
pub fn write(data: &Path) -> anyhow::Result<usize> {
    let mut made = Made::default();
    for bytes in real(data, "jsontestsuite")? {
        made.add("document", "suite", bytes.clone());
        if made.count.get("body").is_none_or(|n| *n < REAL_FILES_MAX / 2) {
            made.add("body", "suite", [&[0, 0, 0], &*bytes].concat());
        }
    }
    for bytes in real(data, "workload")?.into_iter().chain(real(data, "simulator")?) {
        made.add("document", "workload", bytes);
    }
    cloud_events(data, &mut made)?;
    devices(data, &mut made)?;
    documents(&mut made);
    forms(&mut made);
    records(&mut made)?;
    blocks(&mut made)?;
    bodies(&mut made);
    requests(&mut made);
    drivers(&mut made);
    logs(&mut made);
    texts(&mut made)?;
    for (target, name, bytes) in &made.seeds {
        let folder = folder().join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(made.seeds.len())
}

#[derive(Default)]
struct Made {
    seeds: Vec<(&'static str, String, Vec<u8>)>,
    count: BTreeMap<&'static str, usize>,
}

impl Made {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        let count = self.count.entry(target).or_default();
        self.seeds.push((target, format!("{name}-{count:03}"), bytes.into()));
        *count += 1;
    }
}

/// Small files of a folder of real inputs, evenly chosen.
fn real(data: &Path, name: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = data.join(name);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder).with_context(|| folder.display().to_string())?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|p| p.is_file() && p.metadata().is_ok_and(|m| m.len() as usize <= REAL_BYTES_MAX));
    paths.sort();
    let step = paths.len().div_ceil(REAL_FILES_MAX).max(1);
    Ok(paths.iter().step_by(step).map(fs::read).collect::<Result<_, _>>()?)
}

fn cloud_events(data: &Path, made: &mut Made) -> anyhow::Result<()> {
    for file in ["valid-events.json", "invalid-events.json"] {
        let tests: Value = serde_json::from_slice(&fs::read(data.join("cloudevents").join(file))?)?;
        for test in tests["tests"].as_array().into_iter().flatten().step_by(4) {
            made.add("document", "cloudevent", test["event"].to_string());
            made.add("body", "cloudevent", [&[1, 0, 0], test["event"].to_string().as_bytes(), b"\n\n", b"{\"x\":1}"].concat());
        }
    }
    Ok(())
}

fn devices(data: &Path, made: &mut Made) -> anyhow::Result<()> {
    use base64::Engine as _;
    let folder = data.join("devices");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let device: Value = serde_json::from_slice(&fs::read(path)?)?;
        let Some(digits) = device["examples"][0]["bytes_hex"].as_str() else { continue };
        made.add("payload", "hex", [&[2], digits.as_bytes()].concat());
        let text = base64::engine::general_purpose::STANDARD.encode(hex::decode(digits)?);
        made.add("payload", "base64", [&[0], text.as_bytes()].concat());
    }
    for (kind, text) in [(0, "QQ"), (0, "QQ="), (0, "QR=="), (1, "_-=="), (1, ""), (2, "0x12"), (3, "aBc"), (3, ""), (4, "a\u{0}\u{e4}")] {
        made.add("payload", "edge", [&[kind], text.as_bytes()].concat());
    }
    Ok(())
}

fn documents(made: &mut Made) {
    for text in [
        r#"{"a":[1,-0,1.5e3,18446744073709551615,9223372036854775808],"a~b/c":{"":null},"t":"\u00e4\ud83d\ude00\n","d":true}"#,
        r#"{"k":1,"k":{"k":2},"k\u0041":[[],{}]}"#,
        "0.30000000000000004",
        "13.061600685119629",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        " \"\\ud800\" ",
        "1e400",
        "[0,1,2,3,4,5,6,7,8,9,10]",
    ] {
        made.add("document", "own", text);
    }
}

fn forms(made: &mut Made) {
    let mut varints = Vec::new();
    for value in [0, 127, 128, 1 << 32, u64::MAX] {
        varint::put(&mut varints, value);
    }
    made.add("forms", "varint", [&[0], &*varints].concat());
    for text in ["2026-11-25T08:00:00.123456+02:00", "-009999-01-02T01:59:59Z", "2024-02-30T00:00:00Z", "9999-12-30T22:00:00.9999999Z"] {
        made.add("forms", "time", [&[1], text.as_bytes()].concat());
    }
    for at in [i64::MIN, -1, AT] {
        made.add("forms", "time", [&[1], &at.to_le_bytes()[..], &(at as f64 / 1e3).to_le_bytes()].concat());
    }
    let receipt = Receipt::new(ReceiptId([5; 16]), LogId([1; 16]), vec![(3, 9_000), (u32::MAX, u64::MAX)]);
    made.add("forms", "receipt", [&[2], receipt.to_string().as_bytes()].concat());
    for text in ["climate-7f3a", "..", "00ff00ff00ff00ff00ff00ff00ff00ff", "ä".repeat(50).as_str()] {
        made.add("forms", "id", [&[3], text.as_bytes()].concat());
    }
    let mut state = Duplicates::new(1_000_000, 100);
    for epoch in 1..5 {
        state.fold(epoch, epoch as i64, &outcomes(3, epoch as u8));
    }
    made.add("forms", "duplicates", [&[4], &*state.encode()].concat());
    made.add("forms", "snapshot", [&[5, 1, 9, 0], &*state.encode()].concat());
    made.add("forms", "snapshot", &b"\x05\x01\x09\x00../../01010101/1/2-ab.state"[..]);
}

fn outcomes(count: u8, salt: u8) -> Vec<Outcome> {
    let (Ok(acme), Ok(beta)) = (TenantId::new("acme"), TenantId::new("beta")) else { return Vec::new() };
    let verdicts = [Verdict::Transformed, Verdict::Duplicate, Verdict::Rejected, Verdict::Filtered];
    let one = |n: u8| Outcome {
        at: Position { offset: u64::from(n) * 1_000, ordinal: n.into() },
        index: n.into(),
        tenant: if n.is_multiple_of(3) { beta.clone() } else { acme.clone() },
        verdict: verdicts[usize::from(n) % 4],
        key: [n ^ salt; 16],
    };
    (0..count).map(one).collect()
}

fn records(made: &mut Made) -> anyhow::Result<()> {
    let value = Bytes::from_static(br#"[{"device":"d1","t":21.5},{"device":"d2"} ,oops]"#);
    let span = |index, start, len| Span { index, start, len };
    let refusal = Refusal { span: span(2, 43, 4), code: Code::Syntax.as_str().into(), detail: "not JSON".into(), pointer: String::new() };
    let envelope = Envelope {
        tenant: TenantId::new("acme")?,
        node: NodeId::new("acme.site-1")?,
        source: SourceId::new("lns")?,
        credential: CredentialId::new("k1")?,
        receipt: ReceiptId([5; 16]),
        received_at: AT,
        revision: 3,
        content_type: "application/json".into(),
        idempotency: Some("abc:0011".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        meta: BTreeMap::from([("header:x-site".into(), "S1".into())]),
        events: vec![span(0, 1, 24), span(1, 26, 15)],
        refused: vec![refusal],
        release: None,
    };
    let released = |id: &str| Released { id: id.into(), code: Code::Quarantined.as_str().into(), epoch: 6 };
    let release = Release { by: "uid:0".into(), at: AT, offset: 5, events: vec![released("e1"), released("e2")] };
    let again = Envelope { refused: Vec::new(), release: Some(release), ..envelope.clone() };
    made.add("record", "envelope", framed(&envelope.into_record(value.clone())));
    made.add("record", "released", framed(&again.into_record(value)));
    let header = EpochHeader { epoch: 7, recorded_at: AT, revision: 3, cut: CutParameters::default(), blocks: 2, audit: 3, bytes: 4_000 };
    made.add("record", "header", framed(&header.into_record()));
    let counts = Counts { received: 4, transformed: 1, duplicate: 1, rejected: 1, filtered: 1 };
    let commit = CommitRecord {
        epoch: 7,
        partition: 2,
        raw_from: Position { offset: 8, ordinal: 1 },
        raw_to: Position { offset: 9, ordinal: 0 },
        behind: vec![],
        revision: 3,
        recorded_at: AT,
        templates: vec!["t1@0123456789ab".into()],
        counts,
        tenants: vec![TenantCounts { tenant: TenantId::new("acme")?, counts, steps: 99 }],
        rows: vec![TableRows { tenant: TenantId::new("acme")?, table: "climate-7f3a".into(), rows: 1 }],
        totals: counts.plus(counts),
        rows_total: 2,
        clean: 4..6,
        audit: 5..9,
        output_hash: "00".repeat(32),
        faults: vec![Fault { at: Position { offset: 8, ordinal: 2 }, code: "timed_out".into() }],
        quarantines: vec![],
        snapshot: Some(SnapshotRef { epoch: 6, name: "n.state".into(), audit_next: 5, commit: 6 }),
    };
    let wrapped = Counts { received: 1, transformed: u64::MAX, duplicate: 2, rejected: 0, filtered: 0 };
    made.add("record", "sum-too-large", framed(&CommitRecord { counts: wrapped, ..commit.clone() }.into_record()));
    made.add("record", "commit", framed(&commit.into_record()));
    let mut block = OutcomesBlock::build(9, &outcomes(2, 0))?.remove(0).into_record();
    made.add("record", "block", framed(&block));
    let part = block.headers.iter_mut().find(|h| h.name == "tg-part").context("a block has its part")?;
    part.value = Bytes::from_static(b"4294967297");
    made.add("record", "number-too-large", framed(&block));
    for change in changes()?.into_iter().step_by(2) {
        made.add("record", "change", framed(&Chain::default().append(&change)));
    }
    Ok(())
}

fn changes() -> anyhow::Result<Vec<Change>> {
    use tidegate_pipeline::definitions::{Extent, Folder, Known, diff};
    let folder = Folder::parse(&definitions::files(FOLDER))?;
    let nothing = (Default::default(), Known::default());
    diff(&nothing.0, &nothing.1, &folder.definitions, Extent::Whole, "seed", AT).map_err(|refused| anyhow::anyhow!("{refused:?}"))
}

fn blocks(made: &mut Made) -> anyhow::Result<()> {
    let of = Attribution { log: LogId([1; 16]), partition: 2, epoch: 9, recorded_at: AT };
    let column = |name: &str, kind, unit: Option<&str>| Column { name: name.into(), kind, unit: unit.map(Into::into) };
    let table = Table {
        id: TableId::new("climate-7f3a")?,
        owner: NodeId::new("acme")?,
        name: "climate".into(),
        fields: vec![column("temperature", FieldType::F64, Some("Cel")), column("label", FieldType::Text, None)],
    };
    let origin = Origin { at: Position::default(), index: 0, event_id: "id-1".into(), asset: "a-1".into(), received_at: 7 };
    let row = Row {
        occurred_at: AT,
        event_type: "reading".into(),
        cells: vec![Cell::F64(21.5), Cell::Null],
        attributes: vec![("site".into(), "S1".into())],
    };
    let mut rows = RowsBuilder::new(of.clone(), &table, 0);
    for tenant in ["acme", "acme", "other"] {
        let head = Head { tenant, organization: "v/c", source: "lns", template: "t@1", origin: &origin, number: 0 };
        rows.push(head, &row)?;
    }
    let rejection = Rejection::new(StageName::Decode, Code::PayloadInvalid, "not hex").at("/p");
    let mut rejections = RejectionsBuilder::new(of.clone());
    rejections.push(&RejectionRow {
        tenant: "acme",
        organization: "v/acme",
        source: "lns",
        origin: &origin,
        template: "t@1",
        rejection: &rejection,
        content_type: "application/json",
        original: b"{\"p\":\"zz\"}",
    })?;
    let run = ScriptRun { tenant: "acme".into(), template: "t@1".into(), stage: "decode".into(), runs: 3, ..ScriptRun::default() };
    let parts = [rows.finish()?, rejections.finish()?, script_runs(&of, &[run])?, OutcomesBlock::build(9, &outcomes(5, 0))?];
    for block in parts.into_iter().flatten() {
        made.add("block", "empty", encode(&block.batch()?.slice(0, 0))?.to_vec());
        made.add("block", "own", block.stream.to_vec());
    }
    Ok(())
}

fn bodies(made: &mut Made) {
    for (kind, body) in [
        (0, "[{\"a\":1}, 2 ,\"x\", [ ] ]"),
        (0, " [ ] "),
        (0, "[1,2"),
        (0, "[1,\u{feff}2]"),
        (3, "{\"a\":[{\"b\":\"\\ud800 \\\" ]\"}]}"),
        (1, "1\r\n\n {\"a\":[]} \n{oops\n\"\u{1}\"\nnull 1\n\t\r\n-0e+1"),
        (2, "\u{0}any"),
    ] {
        made.add("body", "own", [&[kind, 0, 0], body.as_bytes()].concat());
    }
    let line = format!("{{\"device\":\"d1\",\"text\":\"{}\"}}", "x".repeat(300));
    let [low, high] = body::checksum_of(line.as_bytes()).to_le_bytes();
    for kind in [1, 2] {
        made.add("body", "large", [&[kind, low, high], line.as_bytes()].concat());
    }
    let (deep, end) = ("[".repeat(65), "]".repeat(65));
    made.add("body", "deep", [&[1, 0, 0], format!("{deep}{end}\n[{end}\n{}", &deep[1..]).as_bytes()].concat());
}

fn requests(made: &mut Made) {
    let open = request::key("open");
    let body = "{\"device\":\"d1\",\"t\":1}";
    let basic = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{open}:"))
    };
    for (how, text) in [
        (0, format!("/v1/events\nauthorization: Bearer {open}\ncontent-type: application/json; charset=\"utf-8\"\n\n{body}")),
        (
            0,
            format!("/v1/events\nAuthorization: basic {basic}\nprefer: respond-async, wait=\"3\"; x=1\nx-site: a\nX-Site: b\n\n[{body},1]"),
        ),
        (0, format!("/v1/sources/plant/events?x=1\nx-api-key: {open}\nidempotency-key: \"k 1\"\ncontent-encoding: identity\n\n{body}")),
        (
            0,
            format!(
                "/v1/events\nx-api-key: {open}\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n\
                 content-type: application/x-ndjson\n\n{body}\n\noops\n{body}"
            ),
        ),
        (0, format!("/v1/events?id=%C3%A4+1&id=2\nx-api-key: {}\nx-device: d1\nx-time: 1790000000000\n\n{body}", request::key("head"))),
        (0, format!("/v1/events?api_key={open}\n\n{body}")),
        (0, "/v1/events\nauthorization: Bearer tg_open_00\n\n1".to_owned()),
        (0, format!("/v1/events\nx-api-key: {open}\ncontent-type: text/csv\n\n1")),
        (1, "/health\n".to_owned()),
        (1, "/ready?x\n".to_owned()),
        (1, "/metrics\n".to_owned()),
        (1, "/v1/events\n".to_owned()),
        (1, format!("/v1/receipts/rc_AAAA\nx-api-key: {open}\nprefer: wait=1\n")),
        (1, format!("/v1/receipts/{}\nx-api-key: {open}\n", Receipt::new(ReceiptId([5; 16]), LogId([9; 16]), vec![(1, 2)]))),
        (0xf0, "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nretry-after: 3\r\nConnection: close\r\n\r\n{}".to_owned()),
        (0xf0, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (0xf0, "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n{}".to_owned()),
        (0xf0, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned()),
    ] {
        made.add("request", "own", [&[how], text.as_bytes()].concat());
    }
}

/// Edits, by file in the order of names: commits, control, cursors, log.json, output and raw.
/// Each body in each stage: as much as it wants, few steps, little memory, and another tenant's event behind it.
fn drivers(made: &mut Made) {
    let document = br#"{"a":[1,null,{"b":"\u00e9"}],"v":9007199254740993,"n":-0.5,"a":2}"#;
    for body in 0..20_u8 {
        let mut seed = Vec::new();
        for (stages, steps, memory) in [(1, 60_000_u16, 60_000_u16), (3, 40, 60_000), (7, 60_000, 11_000), (4, 60_000, 60_000)] {
            let kind: u8 = stages | (body & 3) << 4 | (body & 4) << 4;
            seed.extend([kind, body % 3]);
            seed.extend([steps.to_le_bytes(), memory.to_le_bytes()].concat());
            seed.extend([14, body * 7]);
            seed.extend((0..stages.count_ones() as u8).map(|stage| if stage == 0 { body } else { body + 5 * stage }));
            seed.extend((document.len() as u16).to_le_bytes());
            seed.extend(document);
        }
        made.add("driver", "body", seed);
    }
    let free = b"local t = setmetatable({}, { __index = function(_, k) return x[k] end }) return { n = t.a, v = t }";
    made.add("driver", "free", [&[0x84, 0, 255, 255, 255, 255, 14, 3, free.len() as u8][..], free, &[2, 0], b"[]"].concat());
}

fn logs(made: &mut Made) {
    made.add("log", "sound", vec![0]);
    made.add("log", "sealed", vec![1]);
    for file in 0..10 {
        made.add("log", "flip", vec![0, file, 120, 0, 0, 3]);
        made.add("log", "cut", vec![0, file, 200, 0, 2]);
        made.add("log", "number", vec![1, file, 118, 0, 1, 255, 255, 255, 255, 255, 255, 255, 127]);
    }
    made.add("log", "append", [&[0, 8, 0, 0, 3, 40][..], &[7; 40]].concat());
    made.add("log", "copy", vec![0, 8, 88, 1, 4, 8, 92, 0, 0, 2]);
    made.add("log", "remove", vec![0, 5, 0, 0, 5]);
    made.add("log", "rename", vec![1, 7, 0, 0, 6, 5]);
    let manifest = br#"{"format":1,"log_id":"00000000000000000000000000000000","partitions":4294967295,"ready":true}"#;
    made.add("log", "manifest", [&[0, 3, 0, 0, 7, manifest.len() as u8, 0][..], manifest].concat());
    made.add("log", "cursors", [&[0, 2, 0, 0, 7, 2, 0][..], b"{}"].concat());
}

fn texts(made: &mut Made) -> anyhow::Result<()> {
    made.add("definitions", "folder", [&[0], FOLDER.as_bytes()].concat());
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tidegate.example.toml"))?;
    let settings: String = example.lines().filter(|l| !l.starts_with("# ")).map(|l| format!("{l}\n")).collect();
    made.add("definitions", "config", [&[1], settings.as_bytes()].concat());
    made.add("definitions", "config", [&[1], "[log]\npartitions = 0\n[process]\nworkers = 3\n".as_bytes()].concat());
    let changes = changes()?;
    let line = |c: &Change| serde_json::to_string(c);
    let lines = changes.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    made.add("definitions", "changes", [&[2], lines.join("\n").as_bytes()].concat());
    let removal = |c: &Change| {
        let before: Option<Definition> = c.after.clone();
        Change { revision: 1, before, after: None, ..c.clone() }
    };
    let removed = changes.iter().rev().map(removal).collect::<Vec<_>>();
    let lines = changes.iter().chain(&removed).map(line).collect::<Result<Vec<_>, _>>()?;
    made.add("definitions", "changes", [&[2], lines.join("\n").as_bytes()].concat());
    let infinite = FOLDER.replace("scale = 0.30000000000000004", "scale = inf").replace("max = 85.3", "max = nan");
    made.add("definitions", "not-finite", [&[0], infinite.as_bytes()].concat());
    for test in [
        json!({"description": "d", "event": {"temperature": 20.5, "p": "00"}, "valid": true, "rows": [{"temperature": 6.15, "attributes": {"note": "x"}}]}),
        json!({"description": "d", "bytes_hex": "0aff", "fPort": 2, "event": {"a": 1}, "received_at": "2026-01-01T00:00:00Z", "filtered": true}),
        json!({"description": "d", "event": {"temperature": 1e9}, "rejected": {"stage": "validate", "code": "out_of_range"}, "decoded": {}}),
    ] {
        made.add("definitions", "test", [&[3], test.to_string().as_bytes()].concat());
    }
    Ok(())
}
