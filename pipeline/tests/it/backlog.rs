//! A sink that is stopped: intake and processing go on within the budget, memory stays flat, and at 85 % of the budget
//! the edge answers 503 with `Retry-After` and recovers by itself.

use crate::support::{Options, Place, wait_for};
use std::cell::Cell;
use std::time::Duration;

/// Edges, snapshots and horizons are far away in time: what a full log can free follows from bytes (decision 0006).
const SMALL: &str = "[log]\npartitions = 2\nbudget_bytes = 67108864\nsegment_bytes = 1048576\ntrim_milliseconds = 200\n\n\
                     [process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\nsnapshot_epochs = 1000000\n\n[cut]\nrows = 1\nseconds_min = 0\nedge_bytes = 8000000\n";

fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_stopped_sink_stops_nobody_until_the_budget_is_used() {
    let place = Place::new(SMALL);
    let tables = place.data().join("tables");
    let server = place.start(&Options::default());
    let mut client = server.client();
    let (sent, taken) = (Cell::new(0u64), Cell::new(0u64));
    let send = |client: &mut crate::support::Client| {
        let note = "n".repeat(900);
        let from = sent.replace(sent.get() + 100);
        let line = |n: u64| format!("{{\"device\":\"d{}\",\"id\":\"{n}\",\"seq\":{n},\"temperature\":20.5,\"note\":\"{note}\"}}\n", n % 50);
        let body: String = (from..from + 100).map(line).collect();
        let answer = client.post("/v1/events", &place.keys[(from / 100 % 2) as usize], "application/x-ndjson", body.as_bytes());
        taken.set(taken.get() + if answer.status == 202 { 100 } else { 0 });
        answer
    };
    for _ in 0..20 {
        assert_eq!(send(&mut client).status, 202);
    }
    server.drain();
    // The sink's folder becomes a file: every delivery fails, as on a disk that is gone.
    let aside = place.path("aside");
    std::fs::rename(&tables, &aside).unwrap();
    std::fs::write(&tables, b"").unwrap();
    let before = rss(server.child.id());
    let mut peak = before;
    let full = loop {
        let answer = send(&mut client);
        peak = peak.max(rss(server.child.id()));
        if answer.status != 202 {
            break answer;
        }
        assert!(sent.get() < 400_000, "the budget is never used up");
    };
    assert_eq!(full.status, 503, "{}", String::from_utf8_lossy(&full.body));
    assert!(full.headers.contains("retry-after:"), "{}", full.headers);
    assert!(taken.get() > 20_000, "the budget was used before it was full: {}", taken.get());
    assert!(peak < before + 150_000_000, "memory grew from {before} to {peak} bytes");
    let ready: serde_json::Value = client.get("/ready", None).json();
    assert!(ready["log"]["bytes"].as_u64().unwrap() <= 67_108_864, "{ready}");
    // The folder comes back: sinks catch up, the log is trimmed, the edge takes events again.
    std::fs::remove_file(&tables).unwrap();
    std::fs::rename(&aside, &tables).unwrap();
    wait_for("the edge to take events again", Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(200));
        (send(&mut client).status == 202).then_some(())
    });
    server.drain();
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!(crate::tables::rows(&tables).len() as u64, taken.get());
    // Gone tables are missed: the sink has let go of their rows.
    std::fs::remove_dir_all(&tables).unwrap();
    let (verified, ok) = place.verify();
    assert!(!ok && verified["differences_count"].as_u64() > Some(0), "{verified:#}");
}
