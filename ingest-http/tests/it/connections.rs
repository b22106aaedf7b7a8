//! Hostile and broken clients: silence, half requests, too many connections; and the end of the server.

use crate::support::*;
use std::time::Duration;

fn short(settings: &mut tidegate_ingest_http::EdgeSettings) {
    settings.head_deadline = Duration::from_millis(200);
    settings.body_deadline = Duration::from_millis(300);
    settings.idle_deadline = Duration::from_millis(600);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_half_heads_are_closed() {
    let server = start_with(short).await;
    let whole = String::from_utf8(request("GET /health", &[], b"")).unwrap();
    for half in ["", "G", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /health HTTP/1.1\r\nhost: t\r\n"] {
        let mut client = Client::connect(&server).await;
        client.send(half.as_bytes()).await;
        // HTTP/2 says its settings first; what counts is that the connection ends.
        while client.more().await {}
    }
    // The same after a request was answered: one idle, one in its second head.
    for half in ["", "GET /hea"] {
        let mut client = Client::connect(&server).await;
        client.send(format!("{whole}{half}").as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert!(!client.more().await, "{half:?}");
    }
    // A head that trickles in does not win time by trickling.
    let mut client = Client::connect(&server).await;
    client.send(b"GET /health HTTP/1.1\r\n").await;
    let mut sent = 0;
    use tokio::io::AsyncWriteExt;
    while client.stream.write_all(b"x: y\r\n").await.is_ok() {
        sent += 1;
        assert!(sent < 90, "it goes on for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_is_answered_408_and_closed() {
    let server = start_with(short).await;
    let key = key("open");
    let whole = request("POST /v1/events", &[("x-api-key", &key), ("content-type", JSON)], b"[1,2,3]");
    let mut client = Client::connect(&server).await;
    client.send(&whole[..whole.len() - 3]).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, &*answer.problem(), answer.header("connection")), (408, "body-late", Some("close")));
    assert!(!client.more().await);
    // A client that breaks off leaves nothing.
    let mut client = Client::connect(&server).await;
    client.send(&whole[..whole.len() - 3]).await;
    drop(client);
    assert_eq!(post_as(&server, "open", JSON, b"1").await.status, 202);
    assert_eq!(server.log.take().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_headers_end_in_an_answer_or_a_close() {
    let server = start().await;
    let one = "x-a: b\r\n".repeat(5_000);
    let long = format!("x-a: {}\r\n", "b".repeat(1 << 20));
    let name = format!("{}: b\r\n", "x".repeat(70_000));
    let target = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(100_000));
    for bytes in [&one, &long, &name].map(|h| format!("GET /health HTTP/1.1\r\nhost: t\r\n{h}\r\n")).into_iter().chain([target]) {
        let mut client = Client::connect(&server).await;
        use tokio::io::AsyncWriteExt;
        let _ = client.stream.write_all(bytes.as_bytes()).await;
        if let Some(answer) = client.answer().await {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\nx",
        b"POST /v1/events HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut client = Client::connect(&server).await;
        client.send(garbage).await;
        if let Some(answer) = client.answer().await {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    assert_eq!(post_as(&server, "open", JSON, b"1").await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_capped() {
    let server = start_with(|s| s.connections_per_address_max = 3).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(&server).await;
        assert_eq!(client.call("GET /health", &[], b"").await.status, 200);
        kept.push(client);
    }
    assert!(!Client::connect(&server).await.more().await, "the fourth is closed at once");
    kept.pop();
    // The place returns once the server has seen the end.
    loop {
        let mut client = Client::connect(&server).await;
        client.send(&request("GET /health", &[], b"")).await;
        if client.answer().await.is_some() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_cap_in_all_the_backlog_waits() {
    let server = start_with(|s| s.connections_max = 1).await;
    let mut first = Client::connect(&server).await;
    assert_eq!(first.call("GET /health", &[], b"").await.status, 200);
    let mut second = Client::connect(&server).await;
    second.send(&request("GET /health", &[], b"")).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), second.answer()).await.is_err(), "there is no place yet");
    drop(first);
    assert_eq!(second.answer().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_in_flight_end() {
    let server = start().await;
    let key = key("open");
    let bytes = request("POST /v1/events", &[("x-api-key", &key), ("content-type", JSON)], b"[1,2]");
    let mut idle = Client::connect(&server).await;
    assert_eq!(idle.call("GET /health", &[], b"").await.status, 200);
    server.log.set(Mode::Gated);
    let mut client = Client::connect(&server).await;
    client.send(&bytes).await;
    server.log.entered.notified().await;
    server.stop.cancel();
    assert!(!idle.more().await, "an idle connection is closed");
    server.log.gate.add_permits(1);
    assert_eq!(client.answer().await.unwrap().status, 202);
    assert!(!client.more().await);
    server.ended.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    let server = start_with(|s| s.shutdown_deadline = Duration::from_millis(100)).await;
    server.log.set(Mode::Silent);
    let key = key("open");
    let mut client = Client::connect(&server).await;
    client.send(&request("POST /v1/events", &[("x-api-key", &key), ("content-type", JSON)], b"1")).await;
    server.log.entered.notified().await;
    server.stop.cancel();
    server.ended.await.unwrap().unwrap();
    assert!(client.answer().await.is_none());
}
