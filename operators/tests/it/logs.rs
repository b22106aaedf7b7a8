//! What `tide.log` becomes: lines of `script_logs`, bounded and without secrets.

use crate::scripted::{CONTEXT, bundle, field, host, run, transforming};
use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::Bundle;
use tidegate_operators::stages::settle::{self, Settled};
use tidegate_schemas::block::Attribution;
use tidegate_schemas::definition::ScriptLimits;
use tidegate_schemas::ids::LogId;
use tidegate_schemas::limits::{SCRIPT_LOG_BYTES_MAX, SCRIPT_LOG_TENANT_BYTES_MAX};
use tidegate_schemas::table::FieldType;

fn settled(bundles: &[Bundle]) -> Settled {
    let of = Attribution { log: LogId([5; 16]), partition: 0, epoch: 1, recorded_at: CONTEXT.recorded_at };
    settle::apply(bundles, &Duplicates::new(i64::MAX / 2, 1_000), &of).unwrap()
}

/// (tenant, event id, number of the line, text, bytes cut)
fn lines(settled: &Settled) -> Vec<(String, String, i32, String, i64)> {
    let mut all = Vec::new();
    for block in settled.audit.iter().filter(|b| b.table == "script_logs") {
        let batch = block.batch().unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (tenants, ids, texts) = (column("tenant"), column("event_id"), column("text"));
        let (numbers, cuts) = (column("_row"), column("bytes_cut"));
        let tenants = tenants.as_dictionary::<Int32Type>();
        for i in 0..batch.num_rows() {
            all.push((
                tenants.values().as_string::<i32>().value(tenants.keys().value(i) as usize).to_owned(),
                ids.as_string::<i32>().value(i).to_owned(),
                numbers.as_primitive::<Int32Type>().value(i),
                texts.as_string::<i32>().value(i).to_owned(),
                cuts.as_primitive::<Int64Type>().value(i),
            ));
        }
    }
    all
}

fn logging(tenant: &str, body: &str, events: usize) -> Bundle {
    let source = format!("function transform(e) {body} return {{ v = 1 }} end");
    let mut template = transforming(&source, vec![field("v", FieldType::I64)]);
    template.limits = ScriptLimits { steps: 200_000, ..ScriptLimits::default() };
    let mut bundle = bundle(tenant, template, &vec![b"{}".as_slice(); events]);
    let mut host = host();
    host.keep_notes();
    run(&mut host, &mut bundle);
    bundle
}

#[test]
fn lines_come_with_their_event_and_without_secrets() {
    let body = "tide.log('battery', 3.1, nil) tide.log('sent with Bearer abcdefgh12345678 by tg_acmekey_5fA3c9d0')";
    let settled = settled(&[logging("beta", body, 1), logging("acme", "tide.log('only')", 2)]);
    let expected = [
        ("acme", "e0", 0, "only"),
        ("acme", "e1", 0, "only"),
        ("beta", "e0", 0, "battery 3.1 nil"),
        ("beta", "e0", 1, "sent with Bearer [redacted] by [redacted]"),
    ];
    let expected: Vec<_> = expected.iter().map(|(t, e, n, text)| ((*t).to_owned(), (*e).to_owned(), *n, (*text).to_owned(), 0)).collect();
    assert_eq!(lines(&settled), expected);
    assert_eq!(settled.log_bytes_cut, 0);
}

#[test]
fn what_finds_no_room_is_counted() {
    // One event: 2 KiB, the rest is counted at its last line.
    let one = settled(&[logging("acme", "for i = 1, 10 do tide.log(('x'):rep(500)) end", 1)]);
    let found = lines(&one);
    assert_eq!(found.iter().map(|l| l.3.len()).sum::<usize>(), SCRIPT_LOG_BYTES_MAX);
    assert_eq!(found.iter().map(|l| l.4).sum::<i64>(), 5_000 - SCRIPT_LOG_BYTES_MAX as i64);
    // One call.
    let long = settled(&[logging("acme", "tide.log(('x'):rep(5000))", 1)]);
    let found = lines(&long);
    assert_eq!((found[0].3.len(), found[0].4), (SCRIPT_LOG_BYTES_MAX, 5_000 - SCRIPT_LOG_BYTES_MAX as i64));
    // One tenant and epoch: 64 KiB; another tenant's room is its own.
    let flood = settled(&[logging("acme", "tide.log(('x'):rep(2000))", 100), logging("beta", "tide.log('here')", 1)]);
    let found = lines(&flood);
    let kept = SCRIPT_LOG_TENANT_BYTES_MAX / 2_000;
    assert_eq!(found.iter().filter(|l| l.0 == "acme").count(), kept);
    assert_eq!(found[kept - 1].4, (100 - kept as i64) * 2_000);
    assert_eq!(flood.log_bytes_cut, (100 - kept as u64) * 2_000);
    assert_eq!(found.last().map(|l| l.3.as_str()), Some("here"));
}

#[test]
fn an_event_that_is_tried_again_logs_once() {
    let body = "tide.log('try') local t = {} while true do t[#t + 1] = table.create(16000, 1) end";
    assert_eq!(lines(&settled(&[logging("acme", body, 1)])).len(), 1);
}
