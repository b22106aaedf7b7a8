//! Whatever the batch: each accepted event is in exactly one record, in order, byte for byte; each refused one once, in the
//! first record.

use crate::support::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate_schemas::envelope::partition_of;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX};
use tidegate_schemas::receipt::Receipt;

/// One line of a batch: bytes, and the code that refuses them.
fn event() -> impl Strategy<Value = (String, Option<&'static str>)> {
    prop_oneof![
        20 => "[a-z ä]{0,40}".prop_map(|t| (format!("{{\"device\":\"{t}\"}}"), None)),
        4 => (1..200_000usize).prop_map(|n| (format!("[\"{}\"]", "x".repeat(n)), None)),
        1 => Just((format!("\"{}\"", "y".repeat((512 << 10) - 2)), None)),
        2 => "[x{\\]]{1,30}".prop_map(|t| (t, Some("syntax"))),
        1 => (65..90usize).prop_map(|n| ("[".repeat(n) + &"]".repeat(n), Some("too_deep"))),
        1 => Just((format!("\"{}\"", "z".repeat(513 << 10)), Some("event_too_large"))),
    ]
}

#[test]
fn no_event_is_lost_or_doubled_between_body_and_records() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(start());
    let (whole, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let strategy = (proptest::collection::vec(event(), 1..40), 1..30usize, any::<bool>(), "[ \t\r]{0,2}");
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(150) });
    let outcome = runner.run(&strategy, |(batch, repeat, as_array, space)| {
        let mut batch: Vec<_> = std::iter::repeat_n(batch, repeat).flatten().collect();
        if as_array {
            // In an array a broken event breaks the whole.
            batch.retain(|(_, code)| *code != Some("syntax"));
        }
        let mut total = 0;
        batch.retain(|(text, _)| {
            total += text.len() + 8;
            total < 15 << 20
        });
        prop_assume!(!batch.is_empty());
        let texts: Vec<_> = batch.iter().map(|(text, _)| format!("{space}{text}{space}")).collect();
        let body = if as_array { format!("[{}]", texts.join(",")) } else { texts.join("\n\n") };
        let answer = runtime.block_on(post_as(&server, "open", if as_array { JSON } else { LINES }, body.as_bytes()));
        let records = server.log.take();
        let good: Vec<_> = (0u32..).zip(&batch).filter(|(_, (_, code))| code.is_none()).map(|(i, (t, _))| (i, t.clone())).collect();
        if answer.status != 202 {
            // Refused as a whole: only for a reason that a request can have, and then nothing is stored.
            prop_assert!(records.is_empty());
            let problem = answer.problem();
            let reasons = ["all-refused", "event-too-large", "too-many-refused", "refused-too-large"];
            prop_assert!(reasons.contains(&&*problem), "{}", problem);
            prop_assert!(good.is_empty() || problem.ends_with("refused") || problem == "refused-too-large");
            return Ok(());
        }
        if records.len() == 1 { &whole } else { &cut }.fetch_add(1, Ordering::Relaxed);
        let said = answer.json();
        let receipt: Receipt = said["receipt"].as_str().unwrap().parse().unwrap();
        prop_assert_eq!(receipt.records.len(), records.len());
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (at, (partition, record)) in records.iter().enumerate() {
            let envelope = tidegate_schemas::envelope::Envelope::read(record).unwrap();
            prop_assert_eq!(*partition, partition_of(&TenantId::new("acme").unwrap(), 8));
            prop_assert_eq!(envelope.receipt, receipt.id);
            prop_assert!(record.value.len() <= RECORD_BYTES_MAX);
            prop_assert!(record.size() - record.value.len() <= RECORD_HEADERS_BYTES_MAX);
            prop_assert!(at == 0 || envelope.refused.is_empty(), "refused events stand in the first record");
            let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            accepted.extend(envelope.events.iter().map(|s| (s.index, text(s.of(&record.value)))));
            refused.extend(envelope.refused.iter().map(|r| (r.span.index, r.code.clone(), text(r.span.of(&record.value)))));
        }
        prop_assert!(accepted == good, "accepted events differ");
        let expected: Vec<_> = (0u32..)
            .zip(&batch)
            .filter_map(|(i, (text, code))| code.map(|c| (i, c.to_owned(), text.trim().to_owned())))
            .map(|(i, code, text)| if code == "event_too_large" { (i, code, text[..64 << 10].to_owned()) } else { (i, code, text) })
            .collect();
        prop_assert!(refused == expected, "refused events differ");
        prop_assert_eq!(said["accepted"].as_u64().unwrap() as usize, good.len());
        prop_assert_eq!(said["rejected"].as_array().unwrap().len(), expected.len());
        Ok(())
    });
    outcome.unwrap();
    let (whole, cut) = (whole.into_inner(), cut.into_inner());
    assert!(whole >= 5 && cut >= 5, "both forms were seen: {whole} whole, {cut} cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_events_are_cut_by_their_places() {
    let server = start().await;
    let key = key("head");
    // The worst of everything: most events, refused ones, and meta of control characters.
    let meta = "%01".repeat(4_000);
    let body = "1\n".repeat(49_700) + &"x\n".repeat(300);
    for (query, body, records_min) in [("", "1\n".repeat(50_000), 5), (&*meta, body, 5)] {
        let line = format!("POST /v1/events?id={query}");
        let headers = [("x-api-key", &*key), ("content-type", LINES), ("x-device", "d1")];
        let answer = Client::connect(&server).await.call(&line, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let said = answer.json();
        let (accepted, refused) = (said["accepted"].as_u64().unwrap() as usize, said["rejected"].as_array().unwrap().len());
        assert_eq!(accepted + refused, 50_000);
        let envelopes = server.log.envelopes();
        assert!(envelopes.len() >= records_min, "{}", envelopes.len());
        let indexes: Vec<_> = envelopes.iter().flat_map(|(e, _)| e.events.iter().map(|s| s.index)).collect();
        assert_eq!(indexes, (0..accepted as u32).collect::<Vec<_>>());
        assert_eq!(envelopes[0].0.refused.len(), refused);
    }
}
