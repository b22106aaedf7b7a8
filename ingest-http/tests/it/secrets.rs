//! No secret in any output: a canary key goes through every path, and logs, metrics and answers are searched for it.

use crate::support::*;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tidegate_ingest_http::issue_key;
use tidegate_schemas::ids::CredentialId;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// One thread, so that subscriber and recorder can be this test's own.
#[tokio::test(flavor = "current_thread")]
async fn a_canary_key_is_in_no_log_metric_or_answer() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let server = start_process(|_| {}, Process { ready: true, render: Box::new(move || rendered.render()) }).await;

    let canary = [0xca; 32];
    let known = key("open");
    let forged = issue_key(&CredentialId::new("open").unwrap(), &canary);
    let mut answers = Vec::new();
    for key in [&*known, &forged, &forged[..forged.len() - 1]] {
        for mode in [Mode::Takes, Mode::Full, Mode::Fails, Mode::Panics] {
            server.log.set(mode);
            let bearer = format!("Bearer {key}");
            for (line, header) in [
                ("POST /v1/events".to_owned(), ("x-api-key", key)),
                ("POST /v1/events".to_owned(), ("authorization", &*bearer)),
                (format!("POST /v1/events?key={key}"), ("x-api-key", key)),
                (format!("POST /v1/sources/{key}/events"), ("x-api-key", key)),
                (format!("GET /v1/receipts/{key}"), ("x-api-key", key)),
                (format!("GET /{key}"), ("x-api-key", key)),
                (format!("PUT /v1/events?{key}"), ("x-api-key", key)),
            ] {
                let answer = Client::connect(&server).await.call(&line, &[header, ("content-type", JSON)], b"{\"device\":1}").await;
                answers.extend_from_slice(answer.head.as_bytes());
                answers.extend_from_slice(&answer.body);
            }
        }
    }
    server.log.set(Mode::Takes);
    post_as(&server, "open", LINES, b"1\n2\nx").await;
    let metrics = Client::connect(&server).await.call("GET /metrics", &[], b"").await.body;
    let logs = captured.0.lock().unwrap().clone();
    for (name, output) in [("answers", &answers), ("metrics", &metrics), ("logs", &logs)] {
        let output = String::from_utf8_lossy(output);
        for secret in [known.split('_').nth(2).unwrap(), &forged[8..40]] {
            assert!(!output.contains(&secret[..32]), "{name} holds a secret");
        }
    }
    let text = String::from_utf8(metrics).unwrap();
    for line in [
        "tidegate_ingest_events_total{result=\"refused\"} 1",
        "tidegate_http_requests_total{route=\"/v1/events\",status=\"500\"} 2",
        "tidegate_http_requests_total{route=\"none\",status=\"404\"} 12",
        "tidegate_ingest_publish_seconds_count",
        "tidegate_http_connections ",
        "tidegate_http_bodies_in_flight_bytes",
        "tidegate_ingest_bytes_total",
        "tidegate_http_requests_in_flight 1",
        "tidegate_http_denials_total{reason=\"malformed\"}",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let logs = String::from_utf8(logs).unwrap();
    // The 500 carries an id that the log has too.
    let ids = String::from_utf8(answers).unwrap();
    let id = ids.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(logs.contains(id) && logs.contains("the log has a defect") && logs.contains("disk on fire"), "causes are in the log");
}
