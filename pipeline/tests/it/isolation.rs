//! Two tenants with the same ids everywhere: nothing of one is found in anything of the other.

use crate::support::{Options, Place, files, key};

const FAST: &str = "[log]\npartitions = 1\n\n[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n\
                    [sink.parquet]\nsystem_tables = [\"rejections\", \"script_runs\"]\n\n[cut]\nrows = 10\nseconds_min = 0\nedge_seconds = 1\n";

const CANARIES: [&str; 2] = ["canaryofacme7731", "canaryofbeta9942"];

#[test]
fn nothing_of_one_tenant_is_in_anything_of_the_other() {
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let mut answers: [Vec<String>; 2] = Default::default();
    for round in 0..20 {
        for (tenant, canary) in CANARIES.iter().enumerate() {
            // The same devices, the same event ids, the same everything; only values and attributes tell them apart.
            let event = |i: i32, more: &str| {
                format!(
                    r#"{{"device":"same-device","id":"same-{round}-{i}","seq":{i},"temperature":{},"note":"{canary}","extra":"{canary}"{more}}}"#,
                    i + tenant as i32
                )
            };
            let body = format!("[{},{},{},{}]", event(1, ""), event(2, ",\"fail\":true"), event(3, ",\"skip\":true"), event(900, ""));
            let answer =
                client.try_post("/v1/events", &place.keys[tenant], "application/json", body.as_bytes(), "Prefer: wait=10\r\n").unwrap();
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let told = String::from_utf8(answer.body).unwrap();
            let receipt = serde_json::from_str::<serde_json::Value>(&told).unwrap()["receipt"].as_str().unwrap().to_owned();
            answers[tenant].push(told);
            answers[tenant]
                .push(String::from_utf8(client.get(&format!("/v1/receipts/{receipt}"), Some(&place.keys[tenant])).body).unwrap());
            assert_eq!(client.get(&format!("/v1/receipts/{receipt}"), Some(&place.keys[1 - tenant])).status, 404);
            assert_eq!(client.post("/v1/sources/bytes/events", &place.keys[tenant], "application/json", b"{}").status, 403);
        }
    }
    // A device id that is the other's canary belongs to whoever sends it.
    let _ = client.post("/v1/events", &key("betakeyb", 12), "application/octet-stream", &[0, 1]);
    server.drain();
    let metrics = String::from_utf8(client.get("/metrics", None).body).unwrap();
    let ready = String::from_utf8(client.get("/ready", None).body).unwrap();
    let log = server.log.clone();
    server.stop();

    let holds = |bytes: &[u8], canary: &str| bytes.windows(canary.len()).any(|w| w == canary.as_bytes());
    for (tenant, canary) in CANARIES.iter().enumerate() {
        for answer in &answers[1 - tenant] {
            assert!(!holds(answer.as_bytes(), canary), "{canary} in {answer}");
        }
        for text in [&metrics, &ready, &std::fs::read_to_string(&log).unwrap()] {
            assert!(!holds(text.as_bytes(), canary), "{canary} in {text}");
        }
    }
    let mut all = Vec::new();
    files(&place.data().join("tables"), &mut all);
    let (mut own, mut seen) = ([0; 2], 0);
    for file in all {
        let path = file.to_str().unwrap().to_owned();
        let owner = ["acme", "beta"]
            .iter()
            .position(|t| path.contains(&format!("/tables/{t}/")))
            .unwrap_or_else(|| panic!("{path} is no tenant's"));
        let bytes = std::fs::read(&file).unwrap();
        assert!(!holds(&bytes, CANARIES[1 - owner]), "{} in {path}", CANARIES[1 - owner]);
        let other: &[u8] = [b"beta".as_slice(), b"acme"][owner];
        assert!(!bytes.windows(4).any(|w| w == other), "{} in {path}", String::from_utf8_lossy(other));
        own[owner] += usize::from(holds(&bytes, CANARIES[owner]));
        seen += 1;
    }
    assert!(own.iter().all(|n| *n > 0) && seen > 10, "the canaries are where they belong: {own:?} of {seen}");
    // Both tenants' rows are all there: one's ids never made the other's events duplicates.
    let rows = crate::tables::rows(&place.data().join("tables").join("acme"));
    let meters = rows.iter().filter(|r| r.seq == Some(1)).count();
    assert_eq!(meters, 20);
}
