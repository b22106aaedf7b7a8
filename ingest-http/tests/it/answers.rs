//! Every status of the table in the manual, and what is stored with it.

use crate::support::*;
use serde_json::json;
use std::time::Duration;
use tidegate_ingest_http::{Access, ROUTES};
use tidegate_schemas::receipt::Receipt;

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_format_become_records() {
    let server = start().await;
    // content type, body, events expected
    let cases: &[(&str, &str, &[&str])] = &[
        (JSON, "{\"device\":\"a\"}", &["{\"device\":\"a\"}"]),
        (JSON, " \n[ {\"a\":1} , 2,\"x\" ,[3] ]\t", &["{\"a\":1}", "2", "\"x\"", "[3]"]),
        (JSON, " 17 ", &["17"]),
        (JSON, "null", &["null"]),
        ("application/json; charset=UTF-8", "\"ä\"", &["\"ä\""]),
        (LINES, "{\"a\":1}\n\n  {\"a\":2}  \r\n3", &["{\"a\":1}", "{\"a\":2}", "3"]),
        ("Application/JSONL", "1\n2\n", &["1", "2"]),
        (RAW, "{\"not parsed", &["{\"not parsed"]),
        (RAW, "\u{0}\u{1}", &["\u{0}\u{1}"]),
    ];
    for (content_type, body, events) in cases {
        let answer = post_as(&server, "open", content_type, body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
        let said = answer.json();
        assert_eq!((said["accepted"].as_u64().unwrap() as usize, &said["rejected"]), (events.len(), &json!([])));
        let receipt: Receipt = said["receipt"].as_str().unwrap().parse().unwrap();
        let [(envelope, value)] = &server.log.envelopes()[..] else { panic!("{body} is one record") };
        assert_eq!((envelope.receipt, envelope.tenant.as_str(), envelope.source.as_str()), (receipt.id, "acme", "plant"));
        assert_eq!((envelope.credential.as_str(), envelope.received_at, envelope.revision), ("open", NOW, catalog().revision()));
        assert_eq!(envelope.content_type, if *content_type == RAW { RAW } else { JSON });
        assert_eq!(envelope.events.iter().map(|s| s.index).collect::<Vec<_>>(), (0..events.len() as u32).collect::<Vec<_>>());
        assert_eq!(envelope.events.iter().map(|s| s.of(value)).collect::<Vec<_>>(), *events);
        assert_eq!(value, body, "the body is stored as it was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_wrong_is_told_and_leaves_nothing() {
    let server = start().await;
    let deep = "[".repeat(100_000);
    let deep_closed = format!("{deep}{}", "]".repeat(100_000));
    let deep_event = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let large = format!("\"{}\"", "x".repeat(600 << 10));
    let many = "1\n".repeat(50_001);
    let broken = "x\n".repeat(2_000) + "1";
    let cases: &[(&str, &[u8], u16, &str, &str)] = &[
        (JSON, b"", 400, "empty-body", "no bytes"),
        (JSON, b"[]", 400, "no-events", ""),
        (JSON, b"[ ] x", 400, "syntax", "byte 4"),
        (LINES, b"\n \n", 400, "no-events", ""),
        (RAW, b"", 400, "empty-body", ""),
        (JSON, b"{\"a\":1,}", 400, "syntax", "byte 7"),
        (JSON, b"[1,2,{\"a\"},4]", 400, "syntax", "byte 9"),
        (JSON, b"[1,2", 400, "syntax", "byte 4"),
        (JSON, b"1 2", 400, "syntax", "byte 2"),
        (JSON, b"\"\xff\"", 400, "syntax", "UTF-8 at byte 1"),
        (JSON, deep.as_bytes(), 400, "syntax", "byte 100000"),
        (JSON, deep_closed.as_bytes(), 400, "all-refused", "99999 levels"),
        (LINES, deep.as_bytes(), 400, "all-refused", ""),
        (JSON, deep_event.as_bytes(), 400, "all-refused", "65 levels"),
        (LINES, b"x\ny", 400, "all-refused", "2 events"),
        (JSON, large.as_bytes(), 413, "event-too-large", "614402 bytes"),
        (LINES, many.as_bytes(), 413, "too-many-events", "50000"),
        (LINES, broken.as_bytes(), 400, "too-many-refused", "nothing is stored"),
        ("text/plain", b"1", 415, "unsupported-media-type", "application/x-ndjson"),
        ("application/json; charset=latin1", b"1", 415, "unsupported-media-type", "UTF-8"),
    ];
    for (content_type, body, status, code, detail) in cases {
        let answer = post_as(&server, "open", content_type, body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
        assert_eq!((answer.status, &*answer.problem()), (*status, *code), "{shown}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{shown}: {answer:?}");
    }
    let key = key("open");
    let auth = ("x-api-key", &*key);
    let mut client = Client::connect(&server).await;
    let id = "k".repeat(193);
    for (headers, status, code) in [
        (vec![auth], 415, "unsupported-media-type"),
        (vec![auth, ("content-type", JSON), ("content-encoding", "gzip")], 415, "unsupported-encoding"),
        (vec![auth, ("content-type", JSON), ("content-encoding", "identity"), ("idempotency-key", &id)], 400, "idempotency-key"),
        (vec![auth, ("content-type", JSON), ("idempotency-key", "\"\"")], 400, "idempotency-key"),
        (vec![auth, ("content-type", JSON), ("x-site", &"s".repeat(5_000))], 431, "meta-too-large"),
        (vec![auth, ("content-type", JSON), ("x-any", &"s".repeat(20_000))], 431, "head-too-large"),
    ] {
        let answer = client.call("POST /v1/events", &headers, b"1").await;
        assert_eq!((answer.status, &*answer.problem()), (status, code), "{headers:?}");
    }
    assert!(server.log.take().is_empty(), "none of them left anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_some_bad_events_is_stored_and_names_them() {
    let server = start().await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let body = format!("{{\"a\":1}}\n{{\"a\":\n\n{deep}\n4\nnul");
    let answer = post_as(&server, "open", LINES, body.as_bytes()).await;
    assert_eq!(answer.status, 202);
    let said = answer.json();
    assert_eq!(said["accepted"], 2);
    let rejected = said["rejected"].as_array().unwrap();
    let named: Vec<_> = rejected.iter().map(|r| (r["index"].as_u64().unwrap(), r["code"].as_str().unwrap())).collect();
    assert_eq!(named, [(1, "syntax"), (2, "too_deep"), (4, "syntax")]);
    assert!(rejected[0]["detail"].as_str().unwrap().contains("byte 13"), "{rejected:?}");
    assert_eq!(rejected[0]["pointer"], "");
    let [(envelope, value)] = &server.log.envelopes()[..] else { panic!("one record") };
    assert_eq!(envelope.events.iter().map(|s| (s.index, s.of(value))).collect::<Vec<_>>(), [(0, "{\"a\":1}".into()), (3, "4".into())]);
    let refused: Vec<_> = envelope.refused.iter().map(|r| (r.span.index, r.code.as_str(), r.span.of(value))).collect();
    assert_eq!(refused, [(1, "syntax", "{\"a\":".into()), (2, "too_deep", deep.into()), (4, "syntax", "nul".into())]);

    // Bytes that are no UTF-8 spoil their own line only.
    let answer = post_as(&server, "open", LINES, b"{\"a\":\"\xff\"}\n\"\xc3\xa4\"\n").await;
    assert_eq!((answer.status, &answer.json()["rejected"][0]["detail"]), (202, &json!("not JSON: invalid UTF-8 at byte 6 of the body")));

    // An event above the bound is refused with its beginning.
    let body = format!("[1,\"{}\",2]", "x".repeat(700 << 10));
    let answer = post_as(&server, "open", JSON, body.as_bytes()).await;
    assert_eq!((answer.status, &answer.json()["rejected"][0]["code"]), (202, &json!("event_too_large")));
    let (envelope, value) = server.log.envelopes().pop().unwrap();
    assert_eq!(envelope.refused[0].span.of(&value).len(), 64 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_are_not_there() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    let key = key("open");
    let auth = [("x-api-key", &*key)];
    for line in
        ["GET /", "GET /v1/receipts/", "GET /v1/receipts/a/b", "POST /v1/sources//events", "POST /v1/sources/a/b/events", "POST /V1/events"]
    {
        let answer = client.call(line, &auth, b"").await;
        assert_eq!((answer.status, &*answer.problem()), (404, "not-found"), "{line}");
    }
    for (line, allow) in [("GET /v1/events", "POST"), ("DELETE /v1/sources/plant/events", "POST"), ("POST /health", "GET, HEAD")] {
        let answer = client.call(line, &auth, b"").await;
        assert_eq!((answer.status, &*answer.problem(), answer.header("allow")), (405, "method-not-allowed", Some(allow)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_has_its_authorization_case() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    for route in ROUTES {
        let method = route.methods.split(", ").next().unwrap();
        let path = route.pattern.replace("{source}", "plant").replace("{receipt}", "rc_x");
        let answer = client.call(&format!("{method} {path}"), &[("content-type", JSON)], b"").await;
        match route.access {
            Access::Open => assert_eq!(answer.status, 200, "{path}"),
            Access::Credential => assert_eq!((answer.status, &*answer.problem()), (401, "unauthorized"), "{path}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_the_url_must_be_the_credentials_own() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    let key = key("open");
    let headers = [("x-api-key", &*key), ("content-type", JSON)];
    assert_eq!(client.call("POST /v1/sources/plant/events", &headers, b"1").await.status, 202);
    let answer = client.call("POST /v1/sources/own/events", &headers, b"1").await;
    assert_eq!((answer.status, &*answer.problem()), (403, "source-not-allowed"));
    assert_eq!(server.log.take().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_take_events_is_told_apart_from_a_defect() {
    let server = start_with(|s| s.publish_deadline = Duration::from_millis(200)).await;
    for (mode, status, code) in [(Mode::Full, 503, "log-full"), (Mode::Fails, 503, "log-away"), (Mode::Silent, 503, "log-away")] {
        server.log.set(mode);
        let answer = post_as(&server, "open", JSON, b"1").await;
        assert_eq!((answer.status, &*answer.problem()), (status, code));
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
        assert!(!String::from_utf8_lossy(&answer.body).contains("fire"), "the cause is for the log only");
    }
    server.log.set(Mode::Panics);
    let answer = post_as(&server, "open", JSON, b"1").await;
    assert_eq!((answer.status, &*answer.problem()), (500, "internal"));
    let body = answer.json();
    assert_eq!(body["id"].as_str().unwrap().len(), 16);
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "status", "title", "type"], "an id and nothing else");
    server.log.set(Mode::Takes);
    assert_eq!(post_as(&server, "open", JSON, b"1").await.status, 202, "the server lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics() {
    let server = start_process(|_| {}, Process { ready: false, render: Box::new(|| "tidegate_up 1\n".into()) }).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.call("GET /health", &[], b"").await.status, 200);
    let ready = client.call("GET /ready", &[], b"").await;
    assert_eq!((ready.status, ready.json()), (503, json!({ "log": false, "sinks": [] })));
    let metrics = client.call("GET /metrics", &[], b"").await;
    assert_eq!((metrics.status, &*metrics.body), (200, &b"tidegate_up 1\n"[..]));
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_cap_are_answered_and_the_connection_ends() {
    let server = start().await;
    let key = key("open");
    let announce = |length: usize| {
        format!("POST /v1/events HTTP/1.1\r\nhost: t\r\nx-api-key: {key}\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n")
    };
    // 100 MB: the sender that goes on sending gets to read the answer.
    let mut client = Client::connect(&server).await;
    client.send(announce(100_000_000).as_bytes()).await;
    let chunk = vec![b' '; 1_000_000];
    for _ in 0..100 {
        client.send(&chunk).await;
    }
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, &*answer.problem(), answer.header("connection")), (413, "body-too-large", Some("close")));
    assert!(!client.more().await, "the connection is closed");

    // Without a length, the cap counts what comes.
    let server = start_with(|s| s.body_wire_bytes_max = 1_000).await;
    let mut client = Client::connect(&server).await;
    let head = announce(0).replace("content-length: 0", "transfer-encoding: chunked");
    client.send(format!("{head}400\r\n{}\r\n", " ".repeat(0x400)).as_bytes()).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (413, "body-too-large"));

    // Exactly at the cap, in chunks of a byte each.
    let mut client = Client::connect(&server).await;
    let chunks = "1\r\n1\r\n".repeat(1_000);
    client.send(format!("{head}{chunks}0\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 202);
    assert_eq!(server.log.envelopes()[0].1, "1".repeat(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_for_bodies_is_bounded() {
    let server = start_with(|s| s.bodies_in_flight_bytes_max = 10_000).await;
    server.log.set(Mode::Silent);
    let body = format!("\"{}\"", "x".repeat(5_000));
    let key = key("open");
    let bytes = request("POST /v1/events", &[("x-api-key", &key), ("content-type", JSON)], body.as_bytes());
    let mut first = Client::connect(&server).await;
    first.send(&bytes).await;
    // The first waits for the log and holds its share, so the second has no room.
    server.log.entered.notified().await;
    let mut second = Client::connect(&server).await;
    second.send(&bytes).await;
    let refused = second.answer().await.unwrap();
    assert_eq!((refused.status, &*refused.problem(), refused.header("retry-after")), (503, "busy", Some("1")));
    drop(first);
    server.log.set(Mode::Takes);
    // A client that has gone costs nothing: its share comes back.
    while post_as(&server, "open", JSON, body.as_bytes()).await.status != 202 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_sending_is_told_before_sending() {
    let server = start().await;
    let key = key("open");
    let head = |key: &str, length: usize| {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: t\r\nx-api-key: {key}\r\ncontent-type: {JSON}\r\nexpect: 100-continue\r\ncontent-length: \
             {length}\r\n\r\n"
        )
    };
    for (key, length, status) in [(&*key, 100_000_000, 413), ("tg_x", 10, 401)] {
        let mut client = Client::connect(&server).await;
        client.send(head(key, length).as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, status);
    }
    let mut client = Client::connect(&server).await;
    client.send(head(&key, 3).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 100);
    client.send(b"[1]").await;
    assert_eq!(client.answer().await.unwrap().status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_on_after_a_refusal() {
    let server = start().await;
    let key = key("open");
    let mut client = Client::connect(&server).await;
    let good = request("POST /v1/events", &[("x-api-key", &key), ("content-type", JSON)], b"[1]");
    // The bodies of refused requests are read away, so what follows them is understood; also where all come at once.
    let bad = request("POST /v1/events", &[("x-api-key", "tg_x"), ("content-type", JSON)], &vec![b'G'; 50_000]);
    let all = [&*bad, &good, &bad, &good].concat();
    client.send(&all).await;
    for status in [401, 202, 401, 202] {
        assert_eq!(client.answer().await.unwrap().status, status);
    }
}
