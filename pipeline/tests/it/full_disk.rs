//! The real server on a disk that is full for a while: it says so, acknowledges nothing, and goes on by itself.

use crate::support::{Client, Options, Place, Restricted, Running, run_restricted, wait_for};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const JSON: &str = "application/json";

#[test]
fn server_survives_a_full_disk() {
    run_restricted("full_disk::server_survives_a_full_disk", Restricted::Disk("64m"), fill_and_free);
}

/// Takes what is left of the disk.
fn fill(disk: &Path) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(disk.join("filler")).unwrap();
    for size in [1 << 20, 4 << 10, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}

/// Sends events one by one until `enough` says so of the numbers of those that were taken and refused; adds up the taken ones.
fn send(client: &mut Client, place: &Place, taken: &mut u64, enough: impl Fn(u64, u64) -> bool) {
    let (mut took, mut refused) = (0, 0);
    while !enough(took, refused) {
        let (id, note) = (*taken + took + refused * 1_000_000, "n".repeat(3_000));
        let event = format!(r#"{{"device":"d1","id":"{id}","temperature":20,"note":"{note}"}}"#);
        let answer = client.post("/v1/events", &place.keys[0], JSON, event.as_bytes());
        match answer.status {
            202 => took += 1,
            503 => {
                refused += 1;
                assert!(answer.headers.contains("retry-after"), "{}", answer.headers);
                let problem = answer.json()["type"].as_str().unwrap().to_owned();
                assert!(["log-away", "log-full"].iter().any(|p| problem.ends_with(p)), "{problem}");
            }
            other => panic!("{other}: {}", answer.json()),
        }
    }
    *taken += took;
}

fn ready(client: &mut Client) -> (u16, serde_json::Value) {
    let answer = client.get("/ready", None);
    (answer.status, answer.json())
}

fn lines(server: &Running, message: &str) -> usize {
    let text = std::fs::read_to_string(&server.log).unwrap();
    text.lines().filter(|l| l.contains(&format!("\"{message}\""))).count()
}

fn fill_and_free(disk: &Path) {
    let place = Place::new("[cut]\nseconds_min = 1\nedge_seconds = 1\n");
    // Only the data lies on the disk: the server's own log lines must not be lost with it.
    std::fs::create_dir(disk.join("data")).unwrap();
    std::os::unix::fs::symlink(disk.join("data"), place.data()).unwrap();
    let server = place.start(&Options::default());
    let (mut client, mut taken) = (server.client(), 0);
    send(&mut client, &place, &mut taken, |took, _| took == 20);
    server.drain();
    assert_eq!(ready(&mut client).0, 200);

    // What is cut or tidied away makes room for a moment, so the disk is filled until nothing moves any more.
    wait_for("a disk that stays full", Duration::from_secs(60), || {
        fill(disk);
        send(&mut client, &place, &mut taken, |took, refused| refused > 0 || took > 500);
        let (status, body) = ready(&mut client);
        let reason = body["reason"].as_str().unwrap_or_default();
        (status == 503 && (reason.contains("log is full") || reason.contains("No space left"))).then_some(())
    });
    let (told_before, failures_before) = (lines(&server, "request failed"), lines(&server, "the log failed"));
    assert!(told_before > 0);
    let before = taken;
    send(&mut client, &place, &mut taken, |_, refused| refused == 300);
    let (told, failures) = (lines(&server, "request failed") - told_before, lines(&server, "the log failed") - failures_before);
    assert!(taken == before && told <= 1 && failures <= 1, "{} taken, {told} and {failures} lines", taken - before);

    std::fs::remove_file(disk.join("filler")).unwrap();
    wait_for("the server to be ready again", Duration::from_secs(60), || (ready(&mut client).0 == 200).then_some(()));
    // Refusals end where they have been absent for a second.
    wait_for("the edge to say so", Duration::from_secs(60), || {
        send(&mut client, &place, &mut taken, |took, _| took == 10);
        (lines(&server, "requests are taken again") > 0).then_some(())
    });
    server.drain();
    assert_eq!(ready(&mut client).1["reason"], serde_json::Value::Null);
    server.stop();
    let (report, fine) = place.verify();
    assert!(fine, "{report}");
    assert_eq!(
        (report["received"].as_u64(), report["transformed"].as_u64()),
        (Some(taken), Some(taken)),
        "none lost, none that was refused"
    );
}

#[test]
fn a_disk_below_the_budget_takes_many_times_its_size() {
    run_restricted("full_disk::a_disk_below_the_budget_takes_many_times_its_size", Restricted::Disk("64m"), pass_through);
}

/// Requests are refused now and then, and each is taken in the end: what is processed makes room.
fn pass_through(disk: &Path) {
    let settings = "[log]\npartitions = 2\nsegment_bytes = 1_048_576\ntrim_milliseconds = 100\n\n[cut]\nseconds_min = 1\nedge_seconds = 1\n\n\
                    [process]\ntick_milliseconds = 100\n";
    let place = Place::new(settings);
    std::fs::create_dir(disk.join("data")).unwrap();
    std::os::unix::fs::symlink(disk.join("data"), place.data()).unwrap();
    let server = place.start(&Options::default());
    let (mut client, mut refused) = (server.client(), 0);
    let (requests, events) = (150, 300);
    for request in 0..requests {
        let event = |i: usize| format!(r#"{{"device":"d{}","id":"{request}-{i}","temperature":20,"note":"{}"}}"#, i % 7, "n".repeat(3_000));
        let body = format!("[{}]", (0..events).map(event).collect::<Vec<_>>().join(","));
        wait_for("the request to be taken", Duration::from_secs(120), || {
            let answer = client.post("/v1/events", &place.keys[0], JSON, body.as_bytes());
            refused += u64::from(answer.status == 503);
            assert!(matches!(answer.status, 202 | 503), "{}", answer.json());
            (answer.status == 202).then_some(())
        });
    }
    assert!(refused > 0, "more than the disk takes at once was sent");
    assert_eq!(lines(&server, "the log failed"), 0, "the disk was never full");
    server.drain_within(Duration::from_secs(120));
    server.stop();
    let (report, fine) = place.verify();
    assert!(fine, "{report:#}");
    assert_eq!(report["transformed"].as_u64(), Some((requests * events) as u64));
}
