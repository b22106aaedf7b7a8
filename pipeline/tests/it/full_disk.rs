//! The real server on a disk that is full for a while: it says so, acknowledges nothing, and goes on by itself.

use crate::support::{Client, Options, Place, Restricted, Running, restricted, wait_for};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const JSON: &str = "application/json";

#[test]
fn server_survives_a_full_disk() {
    if let Some(dir) = std::env::var_os("TIDEGATE_RESTRICTED") {
        return fill_and_free(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    restricted("full_disk::server_survives_a_full_disk", dir.path(), Restricted::Disk("64m"));
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
                assert_eq!(answer.json()["type"], "urn:tidegate:problem:log-away");
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
        (status == 503 && reason.contains("No space left") && reason.contains("tried again")).then_some(())
    });
    let (told_before, failures_before) = (lines(&server, "request failed"), lines(&server, "the log failed"));
    assert!(failures_before > 0 && told_before > 0);
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
    assert!(lines(&server, "the log takes writes again") > 0);
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
