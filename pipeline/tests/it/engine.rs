//! Scripts that harm the host, in the real process: their versions are quarantined, their neighbours go on.

use crate::support::{BINARY, Client, Options, Place, Running, wait_for};
use crate::tables;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

const FAST: &str = "[log]\npartitions = 1\n\n[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n\
                    [sink.parquet]\nsystem_tables = [\"script_logs\", \"script_runs\", \"rejections\", \"releases\"]\n\n\
                    [cut]\nrows = 10\nseconds_min = 0\nedge_seconds = 1\n";

/// `hoard` runs out of memory, twice; `slow` is some milliseconds of work; `say` is logged.
pub const TRANSFORM: &str = "function transform(e)
  if e.say then tide.log(e.say) end
  if e.hoard then local t = {} while true do t[#t + 1] = table.create(16000, 1) end end
  if e.slow then for i = 1, 900000 do end end
  return { temperature = e.temperature, seq = e.seq }
end
";

const TEMPLATE: &str = "templates/vendor/meter/template.toml";
const SCRIPT: &str = "templates/vendor/meter/transform.luau";

pub fn place() -> Place {
    let place = Place::new(FAST);
    let template = place.path("definitions").join(TEMPLATE);
    let text = std::fs::read_to_string(&template).unwrap();
    std::fs::write(&template, text.replacen("\n\n", "\n\n[limits]\nsteps = 1_000_000\n\n", 1)).unwrap();
    write_script(&place, TRANSFORM);
    place
}

pub fn write_script(place: &Place, text: &str) {
    std::fs::write(place.path("definitions").join(SCRIPT), text).unwrap();
}

pub fn apply(place: &Place, more: &[&str]) -> Value {
    let mut command = Command::new(BINARY);
    command.arg("apply").arg(place.path("definitions")).args(["--json", "--config"]).arg(place.path("tidegate.toml")).args(more);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sends events and returns (state, code) of each once they are settled.
pub fn settled(client: &mut Client, key: &str, events: &[&str]) -> Vec<(String, String)> {
    let body = format!("[{}]", events.join(","));
    let answer = client.try_post("/v1/events", key, "application/json", body.as_bytes(), "Prefer: wait=30\r\n").unwrap();
    assert!(matches!(answer.status, 200 | 202), "{}", String::from_utf8_lossy(&answer.body));
    let receipt = answer.json()["receipt"].as_str().unwrap().to_owned();
    wait_for("every event's verdict", Duration::from_secs(60), || {
        let told = client.get(&format!("/v1/receipts/{receipt}"), Some(key)).json();
        let events: Vec<_> = told["events"].as_array().unwrap().iter().map(word).collect();
        events.iter().all(|(state, _)| state != "stored").then_some(events)
    })
}

fn word(event: &Value) -> (String, String) {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("code"))
}

pub fn codes(told: &[(String, String)]) -> Vec<&str> {
    told.iter().map(|(state, code)| if code.is_empty() { state.as_str() } else { code.as_str() }).collect()
}

fn metric(server: &Running, name: &str) -> f64 {
    let text = String::from_utf8(server.client().get("/metrics", None).body).unwrap();
    let of = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(of).unwrap_or(0.0)
}

pub fn event(id: &str, more: &str) -> String {
    format!("{{\"device\":\"d\",\"id\":\"{id}\",\"seq\":1,\"temperature\":20{more}}}")
}

#[test]
fn a_version_that_fails_the_host_is_quarantined_until_another_is_published() {
    let place = place();
    let server = place.start(&Options::default());
    let mut client = server.client();
    let (acme, beta) = (place.keys[0].clone(), place.keys[1].clone());
    let hoard = |id: &str| event(id, ",\"hoard\":true");
    // Two in a row are not enough, whatever comes between.
    let told = settled(&mut client, &acme, &[&hoard("a1"), &hoard("a2"), &event("a3", ""), &hoard("a4"), &hoard("a5"), &event("a6", "")]);
    let memory = "memory_exhausted";
    assert_eq!(codes(&told), [memory, memory, "transformed", memory, memory, "transformed"]);
    for id in ["b1", "b2", "b3"] {
        assert_eq!(codes(&settled(&mut client, &acme, &[&hoard(id)])), [memory]);
    }
    // From the next epoch on, and for this tenant only.
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("c1", ""), &hoard("c2")])), ["quarantined", "quarantined"]);
    assert_eq!(codes(&settled(&mut client, &beta, &[&event("c1", "")])), ["transformed"]);
    wait_for("the quarantine in control", Duration::from_secs(30), || {
        (metric(&server, "tidegate_quarantined_versions") == 1.0).then_some(())
    });
    // The same folder changes nothing, neither now nor at a start.
    assert_eq!(apply(&place, &[])["changes"].as_array().map(Vec::len), Some(0));
    server.stop();
    let server = place.start(&Options::default());
    let mut client = server.client();
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("d1", "")])), ["quarantined"]);
    assert_eq!(metric(&server, "tidegate_quarantined_versions"), 1.0);

    // A new version runs; a refused event may come again under its id.
    write_script(&place, &TRANSFORM.replace("if e.hoard then", "if e.hoard and e.seq == 2 then"));
    let changes = apply(&place, &[])["changes"].clone();
    let kinds: Vec<_> = changes.as_array().unwrap().iter().map(|c| (c["definition"]["kind"].clone(), c["action"].clone())).collect();
    assert_eq!(kinds, [("template".into(), "changed".into()), ("quarantine".into(), "removed".into())]);
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("d1", ""), &hoard("c2")])), ["transformed", "transformed"]);

    // Or the same version, where whoever applies says so.
    let again = |id: &str| hoard(id).replace("\"seq\":1", "\"seq\":2");
    assert_eq!(codes(&settled(&mut client, &acme, &[&again("e1"), &again("e2"), &again("e3")])), [memory; 3]);
    wait_for("the quarantine in control", Duration::from_secs(30), || {
        (metric(&server, "tidegate_quarantined_versions") == 1.0).then_some(())
    });
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("e4", "")])), ["quarantined"]);
    let lifted = apply(&place, &["--lift-quarantines"]);
    assert_eq!(lifted["changes"][0]["definition"]["kind"], "quarantine", "{lifted}");
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("e4", "")])), ["transformed"]);

    server.drain();
    let told = std::fs::read_to_string(&server.log).unwrap();
    assert_eq!(told.matches("template version quarantined").count(), 1, "the log says it once: {told}");
    server.stop();
    assert!(place.verify().1);
}

#[test]
fn a_quarantine_outlives_a_crash_before_it_is_in_control() {
    let place = place();
    let mut server = place.start(&Options { fault: Some("quarantine.before_publish:1".into()), ..Options::default() });
    let mut client = server.client();
    let hoard: Vec<String> = (0..3).map(|i| event(&format!("a{i}"), ",\"hoard\":true")).collect();
    let body = format!("[{}]", hoard.join(","));
    assert_eq!(client.post("/v1/events", &place.keys[0], "application/json", body.as_bytes()).status, 202);
    server.ends(Duration::from_secs(60), "quarantine.before_publish");
    let server = place.start(&Options::default());
    let mut client = server.client();
    assert_eq!(codes(&settled(&mut client, &place.keys[0], &[&event("b", "")])), ["quarantined"]);
    wait_for("the quarantine in control", Duration::from_secs(30), || {
        (metric(&server, "tidegate_quarantined_versions") == 1.0).then_some(())
    });
    server.stop();
    assert!(place.verify().1);
}

#[test]
fn what_scripts_log_is_a_table() {
    let place = place();
    let server = place.start(&Options::default());
    let mut client = server.client();
    let say = |id: &str, text: &str| event(id, &format!(",\"say\":\"{text}\""));
    settled(&mut client, &place.keys[0], &[&say("a1", "level 7"), &say("a2", "token=tg_acmekey_0123456789"), &event("a3", "")]);
    settled(&mut client, &place.keys[1], &[&say("b1", "of beta")]);
    server.drain();
    let log = server.log.clone();
    server.stop();
    let mut lines = Vec::new();
    for table in tables::find(&place.data().join("tables")).iter().filter(|t| t.ends_with("script_logs")) {
        let tenant = table.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        for batch in tables::batches(table) {
            let texts = batch.column_by_name("text").unwrap();
            let ids = batch.column_by_name("event_id").unwrap();
            for i in 0..batch.num_rows() {
                use arrow::array::AsArray;
                lines.push((tenant.clone(), ids.as_string::<i32>().value(i).to_owned(), texts.as_string::<i32>().value(i).to_owned()));
            }
        }
    }
    lines.sort();
    let expected = [("acme", "a1", "level 7"), ("acme", "a2", "token=[redacted]"), ("beta", "b1", "of beta")];
    assert_eq!(lines, expected.map(|(t, e, l)| (t.to_owned(), e.to_owned(), l.to_owned())));
    assert!(!std::fs::read_to_string(log).unwrap().contains("level 7"), "what tenants log is not in the server's log");
    assert!(place.verify().1);
}

/// Each of these events is up to the hard limit of steps: some milliseconds to tens of them.
fn flood(client: &mut Client, key: &str, from: usize, events: usize) -> String {
    let all: Vec<String> = (from..from + events).map(|i| event(&format!("flood-{i}"), ",\"endless\":true")).collect();
    let answer = client.post("/v1/events", key, "application/json", format!("[{}]", all.join(",")).as_bytes());
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["receipt"].as_str().unwrap().to_owned()
}

/// Epochs of a receipt's events and the codes that they ended with.
fn epochs(client: &mut Client, key: &str, receipt: &str) -> Vec<(Option<u64>, String)> {
    let told = client.get(&format!("/v1/receipts/{receipt}"), Some(key));
    assert_eq!(told.status, 200, "{}", String::from_utf8_lossy(&told.body));
    let events = told.json()["events"].as_array().unwrap().clone();
    events.iter().map(|e| (e["epoch"].as_u64(), word(e).1)).collect()
}

const FLOOD: usize = 150;

#[test]
fn a_flood_at_the_hard_limit_does_not_hold_its_neighbours() {
    let place = place();
    write_script(&place, &TRANSFORM.replace("if e.hoard then", "while e.endless do end\n  if e.hoard then"));
    let server = place.start(&Options::default());
    let mut client = server.client();
    let (acme, beta) = (place.keys[0].clone(), place.keys[1].clone());
    let started = Instant::now();
    let first = flood(&mut client, &acme, 0, FLOOD);
    let second = flood(&mut client, &acme, FLOOD, FLOOD);
    // After both of them in raw; and one of the flood's own tenant behind it.
    let neighbour = client.post("/v1/events", &beta, "application/json", event("n", "").as_bytes()).json()["receipt"].clone();
    let own = client.post("/v1/events", &acme, "application/json", event("own", "").as_bytes()).json()["receipt"].clone();
    let neighbour =
        wait_for("the neighbour's verdict", Duration::from_secs(60), || epochs(&mut client, &beta, neighbour.as_str().unwrap())[0].0);
    let waited = started.elapsed().as_secs_f64();
    server.drain_within(Duration::from_secs(300));
    println!("the neighbour waited {waited:.1} s, the flood of {} events took {:.1} s", 2 * FLOOD, started.elapsed().as_secs_f64());
    let told: Vec<_> = [&first, &second].into_iter().flat_map(|r| epochs(&mut client, &acme, r)).collect();
    assert!(told.iter().all(|(epoch, code)| epoch.is_some() && code == "steps_exhausted"), "{told:?}");
    assert!(told.is_sorted_by_key(|(epoch, _)| *epoch), "a tenant's events keep their order");
    let last = told.last().unwrap().0.unwrap();
    assert!(neighbour < last, "the neighbour came in epoch {neighbour}, the flood ended in {last}");
    assert!(epochs(&mut client, &acme, own.as_str().unwrap())[0].0.unwrap() >= last);
    server.stop();
    assert!(place.verify().1);
}

#[test]
fn scripts_are_watched_until_the_last_one_has_stopped() {
    let place = place();
    // Few steps that take long: each copies a large string.
    let drag = "local s = string.rep('x', 20000) while e.endless do local t = s .. e.seq end";
    write_script(&place, &TRANSFORM.replace("if e.hoard then", &format!("{drag}\n  if e.hoard then")));
    let server = place.start(&Options::default());
    let receipt = flood(&mut server.client(), &place.keys[0], 0, 40);
    // They are under way when it is told to stop.
    std::thread::sleep(Duration::from_millis(300));
    server.stop();
    let server = place.start(&Options::default());
    server.drain_within(Duration::from_secs(120));
    let told = epochs(&mut server.client(), &place.keys[0], &receipt);
    let codes: std::collections::BTreeSet<&str> = told.iter().map(|(_, code)| code.as_str()).collect();
    assert!(codes.contains("timed_out") && codes.iter().all(|c| ["timed_out", "quarantined"].contains(c)), "{codes:?}");
    server.stop();
}

#[test]
fn what_is_behind_outlives_crashes() {
    let place = place();
    write_script(&place, &TRANSFORM.replace("if e.hoard then", "while e.endless do end\n  if e.hoard then"));
    let acme = place.keys[0].clone();
    let mut receipts = Vec::new();
    for round in 0..4 {
        let server = place.start(&Options::default());
        let mut client = server.client();
        receipts.push(flood(&mut client, &acme, round * FLOOD, FLOOD));
        client.post("/v1/events", &place.keys[1], "application/json", event(&format!("n{round}"), "").as_bytes());
        wait_for("some of the flood", Duration::from_secs(60), || epochs(&mut client, &acme, &receipts[round])[0].0);
        server.kill();
    }
    let server = place.start(&Options::default());
    server.drain_within(Duration::from_secs(300));
    let mut client = server.client();
    for receipt in &receipts {
        let told = epochs(&mut client, &acme, receipt);
        assert!(told.iter().all(|(epoch, code)| epoch.is_some() && code == "steps_exhausted"), "{told:?}");
    }
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!((&verified["received"], &verified["rejected"]), (&(4 * FLOOD as u64 + 4).into(), &(4 * FLOOD as u64).into()));
    assert_eq!(crate::tables::rows(&place.data().join("tables")).len(), 4);
}

/// Starts until the server lives, as a supervisor would; tells how often the process died.
fn restarted(place: &Place, fault: &str, most: usize) -> (Running, usize) {
    for deaths in 0..=most {
        let options = Options { fault: Some(fault.to_owned()), ..Options::default() };
        let Ok(mut server) = place.try_start(&options) else { continue };
        let settled = wait_for("the death or the end of all work", Duration::from_secs(60), || {
            if server.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let ready = server.client().try_get("/ready", None).ok()?;
            (ready.json()["drained"] == true).then_some(true)
        });
        if settled {
            return (server, deaths);
        }
    }
    panic!("the process still dies after {most} starts");
}

#[test]
fn an_event_that_kills_the_process_ends_as_a_rejection() {
    for end in ["abort", "kill", "memory"] {
        let place = place();
        let fault = format!("script.event=canary7731:{end}");
        let server = place.start(&Options { fault: Some(fault.clone()), ..Options::default() });
        let mut client = server.client();
        // Around the poison there are events of both tenants, also of the very same device.
        let good = |from: usize| -> String { (from..from + 20).map(|i| event(&format!("g{i}"), "")).collect::<Vec<_>>().join(",") };
        let poison = event("poison", ",\"note\":\"canary7731\"");
        let body = format!("[{},{poison},{}]", good(0), good(20));
        let mut receipts = Vec::new();
        for (key, body) in [(1, format!("[{}]", good(0))), (0, body), (1, format!("[{}]", good(20)))] {
            // It may die before the last one is answered.
            if let Ok(answer) = client.try_post("/v1/events", &place.keys[key], "application/json", body.as_bytes(), "") {
                receipts.push((key, answer.json()["receipt"].as_str().unwrap().to_owned()));
            }
        }
        drop(server);
        let (server, deaths) = restarted(&place, &fault, 8);
        assert!(deaths <= 5, "{end}: it died {deaths} times after the first");
        let mut client = server.client();
        for (key, receipt) in &receipts {
            for (index, (epoch, code)) in epochs(&mut client, &place.keys[*key], receipt).iter().enumerate() {
                let expected = match (key, index) {
                    (0, 20) => "crashed",
                    // The version is quarantined from the next epoch on.
                    (0, 21..) => "quarantined",
                    _ => "",
                };
                assert_eq!((epoch.is_some(), code.as_str()), (true, expected), "{end}: event {index} of tenant {key}");
            }
        }
        // Its neighbours go on, and so does the process.
        assert_eq!(codes(&settled(&mut client, &place.keys[1], &[&event("after", "")])), ["transformed"]);
        assert_eq!(codes(&settled(&mut client, &place.keys[0], &[&event("after", "")])), ["quarantined"]);
        server.drain();
        server.stop();
        let (verified, ok) = place.verify();
        assert!(ok, "{end}: {verified:#}");
        let rows = crate::tables::rows(&place.data().join("tables"));
        assert_eq!(rows.iter().filter(|r| r.tenant == "acme").count(), 20, "{end}");
        assert!(verified["duplicate"] == 0, "{end}: nothing came twice: {verified:#}");
    }
}

#[test]
fn kills_from_outside_accuse_no_event() {
    let place = place();
    write_script(&place, &TRANSFORM.replace("if e.hoard then", "while e.endless do end\n  if e.hoard then"));
    let (acme, mut receipts) = (place.keys[0].clone(), Vec::new());
    for round in 0..6 {
        let server = place.start(&Options::default());
        let mut client = server.client();
        // Scripts of the same events are under way whenever it is killed.
        if round == 0 {
            receipts.push(flood(&mut client, &acme, 0, FLOOD));
        }
        std::thread::sleep(Duration::from_millis(150));
        server.kill();
    }
    let server = place.start(&Options::default());
    server.drain_within(Duration::from_secs(300));
    let mut client = server.client();
    let told = epochs(&mut client, &acme, &receipts[0]);
    assert!(told.iter().all(|(_, code)| code == "steps_exhausted"), "{told:?}");
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("after", "")])), ["transformed"]);
    server.stop();
    assert!(place.verify().1);
}
