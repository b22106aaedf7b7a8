//! `GET /v1/receipts/{receipt}` and `Prefer: wait`.

use crate::support::*;
use serde_json::json;
use std::time::Duration;
use tidegate_ingest_http::{EventState, EventStatus, ReceiptFailure, ReceiptStatus, SinkStatus};
use tidegate_schemas::ids::{LogId, ReceiptId, TenantId};
use tidegate_schemas::receipt::Receipt;

fn status(state: EventState) -> ReceiptStatus {
    ReceiptStatus::new("2026-09-21T14:13:20Z".into(), vec![EventStatus::new(0, state)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_tells_its_own_tenant_and_nobody_else() {
    let server = start().await;
    let receipt = |id: u8| Receipt::new(ReceiptId([id; 16]), LogId([9; 16]), vec![(3, 17)]);
    let acme = TenantId::new("acme").unwrap();
    let mut whole = ReceiptStatus::new(
        "2026-09-21T14:13:20Z".into(),
        vec![
            EventStatus {
                epoch: Some(7),
                sinks: vec![SinkStatus { sink: "parquet".into(), durable: false, location: Some("t/a.parquet".into()) }],
                ..EventStatus::new(0, EventState::Transformed)
            },
            EventStatus { code: Some("required".into()), pointer: Some("/t".into()), ..EventStatus::new(1, EventState::Rejected) },
        ],
    );
    {
        let mut known = server.receipts.statuses.lock().unwrap();
        known.insert(ReceiptId([1; 16]), (acme.clone(), vec![Ok(whole.clone())]));
        known.insert(ReceiptId([2; 16]), (acme.clone(), vec![Err(ReceiptFailure::Gone)]));
        known.insert(ReceiptId([3; 16]), (acme.clone(), vec![Err(ReceiptFailure::Unavailable("disk on fire".into()))]));
        known.insert(ReceiptId([4; 16]), (acme, vec![Ok(status(EventState::Stored)), Ok(status(EventState::Filtered))]));
    }
    let ask = async |id: &str, receipt: &str, prefer: Option<&str>| {
        let key = key(id);
        let headers: Vec<_> = [("x-api-key", &*key)].into_iter().chain(prefer.map(|p| ("prefer", p))).collect();
        Client::connect(&server).await.call(&format!("GET /v1/receipts/{receipt}"), &headers, b"").await
    };
    let answer = ask("open", &receipt(1).to_string(), None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "state": "processed", "events_rejected": 1, "received_at": "2026-09-21T14:13:20Z", "events": [
            { "index": 0, "state": "transformed", "epoch": 7, "sinks": [{ "sink": "parquet", "durable": false, "location": "t/a.parquet" }] },
            { "index": 1, "state": "rejected", "code": "required", "pointer": "/t" },
        ] })
    );
    whole.events[0].sinks[0].durable = true;
    let refused = vec![whole.events[1].clone()];
    assert_eq!(serde_json::to_value(ReceiptStatus::new(String::new(), whole.events)).unwrap()["state"], "delivered");
    let refused = serde_json::to_value(ReceiptStatus::new(String::new(), refused)).unwrap();
    assert_eq!(
        (&refused["state"], &refused["events_rejected"], &refused["events"][0]["code"]),
        (&json!("rejected"), &json!(1), &json!("required"))
    );

    let foreign = Receipt::new(ReceiptId([1; 16]), LogId([8; 16]), vec![(3, 17)]).to_string();
    for (key, text, code, problem) in [
        ("foreign", receipt(1).to_string(), 404, "receipt-unknown"),
        ("open", receipt(9).to_string(), 404, "receipt-unknown"),
        ("open", foreign, 404, "receipt-unknown"),
        ("open", "rc_nonsense".into(), 404, "receipt-unknown"),
        ("open", "%2e%2e".into(), 404, "receipt-unknown"),
        ("open", receipt(2).to_string(), 410, "receipt-gone"),
        ("open", receipt(3).to_string(), 503, "receipt-unavailable"),
    ] {
        let answer = ask(key, &text, None).await;
        assert_eq!((answer.status, &*answer.problem()), (code, problem), "{text}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("fire"));
    }
    assert_eq!(ask("open", &receipt(4).to_string(), Some("wait=10")).await.json()["state"], "delivered", "it waited for the second look");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_waits_where_asked() {
    let server = start_with(|s| s.wait_max = Duration::from_millis(300)).await;
    let key = key("open");
    let post = async |prefer: &str| {
        let headers = [("x-api-key", &*key), ("content-type", JSON), ("prefer", prefer)];
        Client::connect(&server).await.call("POST /v1/events", &headers, b"1").await
    };
    *server.receipts.others.lock().unwrap() = vec![status(EventState::Stored), status(EventState::Stored), status(EventState::Transformed)];
    let answer = post("respond-async, wait=5").await;
    let said = answer.json();
    assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait")));
    assert_eq!((&said["accepted"], &said["state"], &said["events"][0]["state"]), (&json!(1), &json!("delivered"), &json!("transformed")));
    // Without a verdict in time, and where nothing is known, it is the plain answer: the event is durable all the same.
    *server.receipts.others.lock().unwrap() = vec![status(EventState::Stored)];
    let stored = post("wait=5").await;
    assert_eq!((stored.status, &stored.json()["state"]), (202, &json!("stored")));
    // How far they came is told.
    let edge = Some("2026-09-21T14:15:00Z".to_owned());
    *server.receipts.others.lock().unwrap() = vec![in_sinks([true, false]).delivered_by(edge.clone())];
    let processed = post("wait=5; sink=*").await;
    let said = processed.json();
    assert_eq!((processed.status, processed.header("preference-applied")), (202, None));
    assert_eq!((&said["state"], &said["delivered_by"]), (&json!("processed"), &json!(edge)));
    assert_eq!((&said["events"][0]["sinks"][0]["durable"], &said["events"][0]["sinks"][1]["durable"]), (&json!(true), &json!(false)));
    // Where every sink has the rows nothing is to be waited for.
    assert_eq!(in_sinks([true, true]).delivered_by(edge).delivered_by, None);
    server.receipts.others.lock().unwrap().clear();
    for prefer in ["wait=5", "wait=0", "wait=x", "wait", "waits=3"] {
        let answer = post(prefer).await;
        assert_eq!(answer.status, 202, "{prefer}");
        assert!(answer.json().get("events").is_none());
    }
    // What cannot be read is no reason to refuse events, and is told; nothing to wait for is not, and neither is what we do not know.
    for (prefer, told) in [
        ("wait=x", Some("\"wait=x\" is no time to wait: it is a whole number of seconds, as in wait=5")),
        ("respond-async, wait=-1; sink=parquet", Some("\"wait=-1\" is no time to wait: it is a whole number of seconds, as in wait=5")),
        ("wait", Some("\"wait\" is no time to wait: it is a whole number of seconds, as in wait=5")),
        ("wait=5s", Some("\"wait=5s\" is no time to wait: it is a whole number of seconds, as in wait=5")),
        ("wait=0", None),
        ("waits=3", None),
        ("return=minimal", None),
    ] {
        let answer = post(prefer).await;
        assert_eq!((answer.status, answer.header("preference-applied")), (202, None), "{prefer}");
        assert_eq!(answer.json().get("not_waited").and_then(|told| told.as_str()), told, "{prefer}");
    }
}

/// One transformed event whose rows are durable in parquet, in clickhouse, or not; and one without rows.
fn in_sinks(durable: [bool; 2]) -> ReceiptStatus {
    let sinks = ["parquet", "clickhouse"].into_iter().zip(durable);
    let sinks = sinks.map(|(sink, durable)| SinkStatus { sink: sink.into(), durable, location: None }).collect();
    let rows = EventStatus { sinks, ..EventStatus::new(0, EventState::Transformed) };
    ReceiptStatus::new(String::new(), vec![rows, EventStatus::new(1, EventState::Filtered)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_waits_for_the_sinks_that_it_names() {
    let server = start_with(|s| s.wait_max = Duration::from_secs(60)).await;
    let key = key("open");
    let post = async |prefer: &str| {
        let headers = [("x-api-key", &*key), ("content-type", JSON), ("prefer", prefer)];
        Client::connect(&server).await.call("POST /v1/events", &headers, b"1").await
    };
    let (none, parquet, clickhouse, both) = ([false, false], [true, false], [false, true], [true, true]);
    for (prefer, looks) in [
        ("wait=60", &[none][..]),
        ("wait=60; sink=parquet", &[none, clickhouse, parquet]),
        ("wait=60;sink=clickhouse", &[none, parquet, clickhouse]),
        ("wait=60; sink=parquet; sink=clickhouse", &[none, parquet, both]),
        ("wait=60; sink=*", &[parquet, clickhouse, both]),
    ] {
        *server.receipts.others.lock().unwrap() = looks.iter().chain([&both]).map(|durable| in_sinks(*durable)).collect();
        let answer = post(prefer).await;
        assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait")), "{prefer}");
        let durable = [0, 1].map(|i| answer.json()["events"][0]["sinks"][i]["durable"] == true);
        assert_eq!(&durable, looks.last().unwrap(), "{prefer}");
    }
    *server.receipts.others.lock().unwrap() = vec![in_sinks(both)];
    let answer = post("wait=60; sink=parquet; sink=clickhouze").await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None));
    assert_eq!(answer.json()["not_waited"], "no sink is named \"clickhouze\"; these are there: parquet, clickhouse, and * for all");
}
