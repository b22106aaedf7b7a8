//! The same routes over HTTP/2.

use crate::support::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_over_http2() {
    let server = start().await;
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let post = |body: Vec<u8>| {
        let request = Request::post(format!("http://{}/v1/events", server.address));
        request
            .header("authorization", format!("Bearer {}", key("open")))
            .header("content-type", LINES)
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    };
    let many: Vec<_> = (0..100).map(|i| sender.send_request(post(format!("{i}\n").into_bytes()))).collect();
    for answer in many {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 202);
        let body: serde_json::Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(body["accepted"], 1);
    }
    assert_eq!(server.log.take().len(), 100);
    // Larger than a window, and above the cap.
    let large = "\"0123456789\"\n".repeat(49_000).into_bytes();
    assert_eq!(sender.send_request(post(large)).await.unwrap().status(), 202);
    let answer = sender.send_request(post(vec![b' '; 17 << 20])).await.unwrap();
    assert_eq!(
        (answer.status(), answer.headers()["content-type"].to_str().unwrap()),
        (413.try_into().unwrap(), "application/problem+json")
    );
    // The connection lives on.
    assert_eq!(sender.send_request(post(b"1".to_vec())).await.unwrap().status(), 202);
    drop(sender);
    tasks.join_next().await.unwrap().unwrap().unwrap();
}
