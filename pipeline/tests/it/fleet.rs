//! The simulated fleet against an edge of a few lines, which refuses, stalls and hangs up now and then.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tidegate_pipeline::demo::content;
use tidegate_pipeline::demo::fleet::client::{Client, Post};
use tidegate_pipeline::demo::fleet::{self, FleetError, FleetPlan, FleetReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the edge has seen.
#[derive(Default)]
struct Seen {
    requests: u64,
    accepted: u64,
    malformed: u64,
    ids: BTreeSet<String>,
    repeated: u64,
}

struct Request {
    head: String,
    body: Vec<u8>,
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            while bytes.len() < end + 4 + length {
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
            return Some(Request { head, body: bytes.split_off(end + 4) });
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Splits a body as the real edge does, and remembers ids.
fn take(request: &Request, seen: &mut Seen) -> (u16, String) {
    let lines = request.head.contains("content-type: application/x-ndjson");
    let body = std::str::from_utf8(&request.body).unwrap();
    let events: Vec<Option<serde_json::Value>> = if lines {
        body.lines().map(|l| serde_json::from_str(l).ok()).collect()
    } else {
        match serde_json::from_str(body) {
            Ok(serde_json::Value::Array(events)) => events.into_iter().map(Some).collect(),
            Ok(event) => vec![Some(event)],
            Err(_) => return (400, "{\"title\":\"no JSON\"}".into()),
        }
    };
    let good: Vec<_> = events.iter().flatten().collect();
    for event in &good {
        let id = event.get("id").or_else(|| event.pointer("/event/eventId")).and_then(|i| i.as_str());
        if let Some(id) = id {
            seen.repeated += u64::from(!seen.ids.insert(id.to_owned()));
        } else {
            assert!(request.head.contains("idempotency-key: "), "{}", request.head);
        }
    }
    seen.accepted += good.len() as u64;
    seen.malformed += (events.len() - good.len()) as u64;
    (202, format!("{{\"receipt\":\"r-{}\",\"accepted\":{},\"rejected\":[]}}", seen.requests, good.len()))
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>, moody: bool) {
    while let Some(request) = read(&mut stream).await {
        assert!(request.head.contains("authorization: Bearer tg_"), "{}", request.head);
        let (status, body, extra) = {
            let mut seen = seen.lock().unwrap();
            seen.requests += 1;
            match seen.requests % 50 {
                7 if moody => (503, "{}".to_owned(), "retry-after: 0\r\n"),
                13 if moody => (429, "{}".to_owned(), "retry-after: 0\r\n"),
                // The connection is lost before anything is taken.
                21 if moody => return,
                n => {
                    let (status, body) = take(&request, &mut seen);
                    (status, body, if n == 30 { "connection: close\r\n" } else { "" })
                }
            }
        };
        let answer = format!("HTTP/1.1 {status} X\r\n{extra}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        if extra.starts_with("connection") {
            return;
        }
    }
}

async fn edge(moody: bool) -> (String, Arc<Mutex<Seen>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut tasks = JoinSet::new();
    let shared = Arc::clone(&seen);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&shared), moody));
        }
    });
    (address, seen, tasks)
}

fn plan(address: &str, seed: u64) -> FleetPlan {
    let keys = content::issue_keys().unwrap().1;
    let plan = FleetPlan { address: address.to_owned(), seed, events: 20_000, connections: 4, now: 1_700_000_000_000_000, keys };
    // As it gets to the process of the fleet.
    FleetPlan::take_over(&plan.hand_over().unwrap()).unwrap()
}

async fn run(seed: u64, moody: bool) -> (FleetReport, Arc<Mutex<Seen>>) {
    let (address, seen, _tasks) = edge(moody).await;
    let mut last = None;
    let report = fleet::run(plan(&address, seed), |progress| last = Some(progress)).await.unwrap();
    let last = last.unwrap();
    assert_eq!((last.requests, last.requests_planned), (report.requests, report.requests));
    assert_eq!((last.sent, last.acknowledged), (report.sent, report.acknowledged));
    (report, seen)
}

#[tokio::test]
async fn every_event_is_accounted_for_whatever_the_edge_does() {
    let (report, seen) = run(1, true).await;
    let seen = seen.lock().unwrap();
    assert!(report.retries > 5, "{report:?}");
    assert!(report.sent > 20_000, "{report:?}");
    assert_eq!(report.sent, report.acknowledged + report.refused);
    assert_eq!(report.acknowledged, seen.accepted);
    let e = report.expected;
    assert_eq!(report.sent, e.transformed + e.filtered + e.duplicate + e.rejected + e.malformed + e.spoiled);
    assert_eq!(report.refused, e.malformed + e.spoiled);
    assert_eq!(e.malformed, seen.malformed);
    assert!(e.malformed > 0 && e.spoiled > 0, "{e:?}");
    assert!(e.duplicate > 500 && e.duplicate <= seen.repeated, "{e:?} {}", seen.repeated);
    assert!(e.filtered > 100 && e.rejected > 100 && report.requests_refused > 0, "{report:?}");
    assert!(!report.receipts.is_empty());
}

#[tokio::test]
async fn the_same_seed_sends_the_same() {
    let account = |r: FleetReport| (r.requests, r.sent, r.acknowledged, r.refused, r.expected);
    let ((first, seen_first), (second, seen_second), (third, seen_third)) = (run(5, false).await, run(5, true).await, run(6, false).await);
    assert_eq!(account(first), account(second));
    assert_eq!(seen_first.lock().unwrap().ids, seen_second.lock().unwrap().ids);
    assert!(seen_first.lock().unwrap().ids.is_disjoint(&seen_third.lock().unwrap().ids));
    assert!(third.sent > 20_000);
}

/// The fleet knows beforehand what must become of its events; the whole chain agrees, template by template.
#[tokio::test]
async fn the_demonstration_ends_as_the_fleet_expects() {
    let (report, _) = run(7, false).await;
    let e = report.expected;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let mut demo = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    demo.args(["demo", "--exit", "--json", "--events", "20000", "--seed", "7", "--dir"]).arg(&dir).kill_on_drop(true);
    let output = demo.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found =
        ["transformed", "filtered", "duplicate", "rejected", "acknowledged", "refused_at_the_edge"].map(|n| figures[n].as_u64().unwrap());
    let expected = [e.transformed, e.filtered, e.duplicate, e.rejected + e.malformed, report.acknowledged, report.refused];
    assert_eq!(found, expected, "{figures:#}");
    // Each way of going wrong occurred.
    for code in [
        "syntax",
        "template_unknown",
        "payload_invalid",
        "decode_failed",
        "out_of_range",
        "broken_sensor",
        "script_error",
        "steps_exhausted",
    ] {
        assert!(figures["rejections"][code].as_u64().is_some_and(|n| n > 0), "{code}: {figures:#}");
    }
}

#[tokio::test]
async fn answers_that_must_not_be_end_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while read(&mut stream).await.is_some() {
                let _ = stream.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}").await;
            }
        }
    });
    let refused = fleet::run(FleetPlan { connections: 1, ..plan(&address, 1) }, |_| {}).await.unwrap_err();
    assert!(matches!(refused, FleetError::Answer { status: 401, .. }), "{refused}");
    let no_keys = fleet::run(FleetPlan { keys: vec![], ..plan(&address, 1) }, |_| {}).await.unwrap_err();
    assert!(matches!(no_keys, FleetError::Key { .. }), "{no_keys}");
}

#[tokio::test]
async fn the_client_reads_answers_in_pieces_and_connects_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::new(listener.local_addr().unwrap().to_string());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for close in [true, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for i in 0..2 {
                let request = read(&mut stream).await.unwrap();
                assert_eq!(request.body, format!("body {i}").as_bytes());
                for piece in ["HTTP/1.1 503 Full\r\nRetry-", "After: 7\r\nContent-Length: 4\r\n\r", "\nab", "cd"] {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            if close {
                drop(stream);
            } else {
                read(&mut stream).await;
            }
        }
    });
    let body = |i: u32| format!("body {i}").into_bytes();
    for round in 0..2 {
        for i in 0..2 {
            let body = body(i);
            let post = Post { path: "/v1/events", key: Some("k"), content_type: "text/plain", headers: &[("a", "b")], body: &body };
            let answer = client.post(&post).await.unwrap();
            assert_eq!((answer.status, answer.retry_after.unwrap().as_secs(), &*answer.body), (503, 7, &b"abcd"[..]));
        }
        if round == 0 {
            // The server hung up: the next request fails, and the one after connects anew.
            let lost = client.post(&Post { path: "/", key: None, content_type: "x", headers: &[], body: b"" }).await;
            assert!(lost.is_err());
        }
    }
}

#[test]
fn demo_that_is_there_already_names_the_way_to_serve_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("demo");
    let demo = || {
        let output = std::process::Command::new(crate::support::BINARY).args(["demo", "--exit", "--dir"]).arg(&folder).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::create_dir_all(folder.join("data")).unwrap();
    assert!(demo().contains("is not empty"));
    std::fs::write(folder.join("tidegate.toml"), "").unwrap();
    let told = demo();
    let remedy = format!("tidegate run --config {}", folder.join("tidegate.toml").display());
    assert!(told.contains(&remedy) && told.contains("--dir"), "{told}");
}

#[test]
fn demo_says_how_to_look_at_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::support::BINARY);
    command.args(["demo", "--events", "3000", "--dir"]).arg(dir.path().join("demo"));
    let mut demo = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(demo.stdout.take().unwrap())).map(Result::unwrap);
    let told: Vec<String> = lines.take_while(|line| line != "Ctrl-C ends.").collect();
    let after =
        |start: &str| told.iter().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{told:#?}")).trim().to_owned();
    // As they stand, in a shell.
    let run = |line: &str| std::process::Command::new("sh").args(["-c", line]).output().unwrap();
    let rows = run(&after("look at rows:"));
    assert!(rows.status.success() && String::from_utf8_lossy(&rows.stdout).lines().count() > 5, "{rows:?}");
    let sums = run(&after("add up:"));
    assert!(sums.status.success(), "{sums:?}");
    assert!(after("watch them:").contains(" tap --tenant ") && after("query them:").contains("polars.scan_delta("), "{told:#?}");
    demo.kill().unwrap();
    demo.wait().unwrap();
}
