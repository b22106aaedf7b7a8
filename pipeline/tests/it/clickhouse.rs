//! Both sinks at once, the real binary and ClickHouse's real engine: the same rows in both, each once, whatever dies.

#[path = "../../../sinks/tests/it/clickhouse/engine.rs"]
pub mod engine;

use crate::crash::{FAST, Fleet, Ledger, is_of_clickhouse, killed_at};
use crate::doctor::doctor;
use crate::support::{BINARY, Options, Place, files, wait_for};
use crate::tables;
use engine::{Engine, PASSWORD, USER, own, shared};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A place whose server delivers to a database of its own, too.
fn place(engine: &Engine, database: &str, more: &str) -> Place {
    place_with(engine, database, FAST, more)
}

pub fn place_with(engine: &Engine, database: &str, settings: &str, more: &str) -> Place {
    let place = Place::new(&format!("{settings}{}{more}", engine.settings(database)));
    sign_in(&place);
    place
}

/// Puts the password where the settings look for it.
pub fn sign_in(place: &Place) {
    std::fs::write(place.path("clickhouse.password"), format!("{PASSWORD}\n")).unwrap();
}

/// What all tables of a database hold of the tenants' events, by tenant and event id.
pub fn events(engine: &Engine, database: &str) -> BTreeMap<(String, String), u64> {
    let tables = engine.ask(&format!(
        "SELECT table FROM system.columns WHERE database = '{database}' AND name = '_epoch' AND table NOT IN ('rejections', 'script_runs') AND table NOT LIKE '%_latest'"
    ));
    let mut found = BTreeMap::new();
    for table in tables.lines() {
        for row in engine.rows(&format!("SELECT tenant, event_id, count() AS n FROM `{database}`.`{table}` GROUP BY tenant, event_id")) {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            *found.entry((text("tenant"), text("event_id"))).or_default() += row["n"].as_u64().unwrap();
        }
    }
    found
}

/// Every acknowledged event is there once, and nothing refused is.
pub fn there_once(engine: &Engine, database: &str, ledger: &Ledger) {
    let found = events(engine, database);
    let key = |(tenant, id): &(usize, String)| (["acme", "beta"][*tenant].to_owned(), id.clone());
    let lost: Vec<_> = ledger.acknowledged.iter().map(key).filter(|k| !found.contains_key(k)).take(5).collect();
    let twice: Vec<_> = found.iter().filter(|(_, n)| **n > 1).take(5).collect();
    let wrong: Vec<_> = ledger.refused.iter().map(key).filter(|k| found.contains_key(k)).take(5).collect();
    assert!(lost.is_empty() && twice.is_empty() && wrong.is_empty(), "lost {lost:?}, twice {twice:?}, refused but there {wrong:?}");
}

/// Rows by tenant and table, for each sink; `verify` finds no difference.
pub fn verified(place: &Place) -> BTreeMap<String, BTreeMap<(String, String), u64>> {
    let (report, ok) = place.verify();
    assert!(ok && report["differences_count"] == 0 && report["rows_pending"] == 0, "{report:#}");
    let mut sums: BTreeMap<String, BTreeMap<(String, String), u64>> = BTreeMap::new();
    for table in report["tables"].as_array().unwrap() {
        let text = |name: &str| table[name].as_str().unwrap().to_owned();
        sums.entry(text("sink")).or_default().insert((text("tenant"), text("table")), table["rows"].as_u64().unwrap());
    }
    sums
}

#[test]
fn both_sinks_hold_the_same_and_say_so() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    // Receipts are asked for.
    let place = place_with(engine, &database, &FAST.replace("horizon_seconds = 0", "horizon_seconds = 600"), "");
    let server = place.start(&Options::default());
    let fleet = Fleet::new(4);
    let stop = Arc::new(AtomicBool::new(false));
    let senders = fleet.drive(&server.address, &place.keys, &stop);
    std::thread::sleep(Duration::from_millis(1_500));
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());

    // One event more, and its way through both.
    let mut client = server.client();
    let body = br#"{"device":"d","id":"the-one","temperature":20.5,"seq":9007199254740993}"#;
    let answer = client.post("/v1/events", &place.keys[0], "application/json", body).json();
    server.drain();
    let receipt = answer["receipt"].as_str().unwrap();
    let told = client.get(&format!("/v1/receipts/{receipt}"), Some(&place.keys[0])).json();
    let sinks = told["events"][0]["sinks"].as_array().unwrap_or_else(|| panic!("{told}"));
    let named: Vec<&str> = sinks.iter().map(|s| s["sink"].as_str().unwrap()).collect();
    assert_eq!(named, ["parquet", "clickhouse"], "{told}");
    assert!(sinks.iter().all(|s| s["durable"] == true), "{told}");
    let location = sinks[1]["location"].as_str().unwrap();
    assert!(location.starts_with(&format!("{database}.meters-")), "{told}");
    let table = location.split_once('.').unwrap().1;
    let row =
        engine.rows(&format!("SELECT temperature, seq, asset FROM `{database}`.`{table}` WHERE event_id = 'the-one' AND tenant = 'acme'"));
    assert_eq!(row, [serde_json::json!({ "temperature": 20.5, "seq": 9_007_199_254_740_993_i64, "asset": "d" })]);
    let ready = client.get("/ready", None).json();
    assert_eq!((&ready["sinks"][1]["sink"], &ready["sinks"][1]["failure"]), (&Value::from("clickhouse"), &Value::Null), "{ready}");
    server.stop();

    let sums = verified(&place);
    assert_eq!(sums["parquet"], sums["clickhouse"]);
    assert!(sums["clickhouse"].values().sum::<u64>() > 100, "{sums:?}");
    there_once(engine, &database, &fleet.ledger.lock().unwrap());
    assert_eq!(tables::rows(&place.data().join("tables")).len() as u64, sums["clickhouse"].values().sum::<u64>());
    // The system tables come by themselves, and comments carry the units.
    for (what, sql) in [
        ("rejections", "SELECT count() FROM DB.rejections WHERE tenant = 'beta' AND code = 'script_error'"),
        ("runs", "SELECT sum(runs) FROM DB.script_runs WHERE tenant = 'acme'"),
    ] {
        assert!(engine.number(&sql.replace("DB", &format!("`{database}`"))) > 0, "{what}");
    }
    let unit = engine
        .ask(&format!("SELECT comment FROM system.columns WHERE database = '{database}' AND table = '{table}' AND name = 'temperature'"));
    assert_eq!(unit, "Cel\n");
    // The password is nowhere but in its file.
    let mut all = Vec::new();
    files(place.root.path(), &mut all);
    for file in all.iter().filter(|f| !f.ends_with("clickhouse.password")) {
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "{}", file.display());
    }
}

/// A sink that is added gets what the log still holds, and the log keeps for one that is not configured any more what it has not
/// delivered, until somebody removes it.
#[test]
fn a_sink_comes_later_and_goes() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let alone = FAST.replace("horizon_seconds = 0", "horizon_seconds = 600");
    let (mut place, fleet) = (Place::new(&alone), Fleet::new(4));
    sign_in(&place);
    let run = |place: &Place| {
        let server = place.start(&Options::default());
        let stop = Arc::new(AtomicBool::new(false));
        let senders = fleet.drive(&server.address, &place.keys, &stop);
        std::thread::sleep(Duration::from_millis(1_000));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
        server.drain();
        server
    };
    let tidegate = |place: &Place, words: &[&str]| {
        let output = Command::new(BINARY).args(words).arg("--config").arg(place.path("tidegate.toml")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout) + &text(output.stderr))
    };
    run(&place).stop();
    let before = fleet.ledger.lock().unwrap().acknowledged.len();
    place.configure(format!("{alone}{}", engine.settings(&database)));
    let refused = tidegate(&place, &["sink", "remove", "clickhouse"]);
    assert!(!refused.0 && refused.1.contains("sink.clickhouse.enabled = false"), "{refused:?}");
    run(&place).stop();
    there_once(engine, &database, &fleet.ledger.lock().unwrap());
    assert!(before > 20 && fleet.ledger.lock().unwrap().acknowledged.len() > before);
    let sums = verified(&place);
    assert_eq!(sums["parquet"], sums["clickhouse"]);

    place.configure(alone);
    let server = run(&place);
    let told = std::fs::read_to_string(&server.log).unwrap();
    assert!(told.contains("tidegate sink remove clickhouse"), "{told}");
    let (_, listed) = tidegate(&place, &["sink", "list"]);
    assert!(listed.contains("NOT CONFIGURED"), "{listed}");
    let refused = tidegate(&place, &["sink", "remove", "clickhouse"]);
    assert!(!refused.0 && refused.1.contains("stop the server"), "{refused:?}");
    server.stop();
    let removed = tidegate(&place, &["sink", "remove", "clickhouse"]);
    assert!(removed.0 && removed.1.contains("clickhouse is removed"), "{removed:?}");
    let again = tidegate(&place, &["sink", "remove", "clickhouse"]);
    assert!(!again.0 && again.1.contains("parquet"), "{again:?}");
    assert!(!tidegate(&place, &["sink", "list"]).1.contains("NOT CONFIGURED"));
}

#[test]
fn connections_are_encrypted_to_a_server_that_is_known() {
    let Some(engine) = engine::encrypted() else { return };
    // Its receipt is asked for.
    let place = place_with(&engine, "encrypted", &FAST.replace("horizon_seconds = 0", "horizon_seconds = 600"), "");
    let file = place.path("tidegate.toml");
    let config = std::fs::read_to_string(&file).unwrap().replace(&engine.url(), &engine.encrypted_url());
    std::fs::write(&file, &config).unwrap();
    // Nobody of whom the system knows vouches for it, and nothing is sent to it.
    let (found, ok) = doctor(&place);
    assert!(!ok && found["sink.clickhouse.url"].1.contains("certificate"), "{found:?}");
    let trusting = config.replacen("[sink.clickhouse]\n", &format!("[sink.clickhouse]\nca_file = {:?}\n", engine.authority()), 1);
    // A server whose certificate is for another name is another server.
    std::fs::write(&file, trusting.replace("https://127.0.0.1", "https://localhost")).unwrap();
    let (found, ok) = doctor(&place);
    assert!(!ok && found["sink.clickhouse.url"].1.contains("certificate"), "{found:?}");
    assert_eq!(engine.number("SELECT count() FROM system.databases WHERE name = 'encrypted'"), 0);
    std::fs::write(&file, trusting).unwrap();
    let (found, ok) = doctor(&place);
    assert!(ok, "{found:?}");
    let server = place.start(&Options::default());
    let body = br#"[{"device":"d","id":"1","temperature":20.5},{"device":"d","id":"2","temperature":21}]"#;
    let prefer = "Prefer: wait=60; sink=clickhouse\r\n";
    let answer = server.client().try_post("/v1/events", &place.keys[0], "application/json", body, prefer).unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(events(&engine, "encrypted").len(), 2, "what it waited for is there");
    server.drain();
    server.stop();
    assert_eq!(verified(&place)["clickhouse"].values().sum::<u64>(), 2);
}

#[test]
fn killed_at_every_fault_point_of_an_insert() {
    let Some(engine) = shared() else { return };
    let points = tidegate_schemas::fault::POINTS.iter().filter(|p| is_of_clickhouse(p) || p.starts_with("cursor."));
    for point in points {
        let database = engine::database();
        let place = place(engine, &database, "");
        let ledger = killed_at(point, &place);
        there_once(engine, &database, &ledger);
        let sums = verified(&place);
        assert_eq!(sums["parquet"], sums["clickhouse"], "{point}");
        println!("{point}: {} acknowledged events are there once in both", ledger.acknowledged.len());
    }
}

#[test]
fn a_repeated_event_is_delivered_where_the_first_one_is() {
    let Some(mut engine) = own() else { return };
    // Its receipts are asked for.
    let place = place_with(&engine, "again", &FAST.replace("horizon_seconds = 0", "horizon_seconds = 600"), "");
    engine.kill();
    let server = place.start(&Options::default());
    let mut client = server.client();
    let body = br#"{"device":"d","id":"twice","temperature":20.5}"#;
    let post = |prefer: &str| server.client().try_post("/v1/events", &place.keys[0], "application/json", body, prefer).unwrap();
    assert_eq!(post("Prefer: wait=60; sink=parquet\r\n").status, 200);
    let again = post("Prefer: wait=2; sink=clickhouse\r\n");
    assert_eq!(again.status, 202, "the row is not there, whoever asks");
    let path = format!("/v1/receipts/{}", again.json()["receipt"].as_str().unwrap());
    let mut told = || client.get(&path, Some(&place.keys[0])).json();
    assert_eq!((&told()["state"], &told()["events"][0]["state"]), (&Value::from("processed"), &Value::from("duplicate")));
    engine.resume();
    wait_for("the row to be there", Duration::from_secs(60), || (told()["state"] == "delivered").then_some(()));
    assert_eq!(events(&engine, "again").into_values().collect::<Vec<_>>(), [1]);
    server.stop();
}

#[test]
fn while_clickhouse_is_away_the_rest_goes_on() {
    let Some(mut engine) = own() else { return };
    engine.kill();
    let place = place(&engine, "away", "");
    let server = place.start(&Options::default());
    let fleet = Fleet::new(4);
    let stop = Arc::new(AtomicBool::new(false));
    let senders = fleet.drive(&server.address, &place.keys, &stop);
    let mut client = server.client();
    let failure = wait_for("the failure in /ready", Duration::from_secs(30), || {
        let ready = client.get("/ready", None).json();
        assert!(ready["ready"] == true, "{ready}");
        ready["sinks"][1]["failure"].as_str().map(str::to_owned)
    });
    assert!(failure.contains("Connection refused") && !failure.contains(PASSWORD), "{failure}");
    let rows = wait_for("Parquet", Duration::from_secs(30), || {
        let rows = tables::rows(&place.data().join("tables")).len();
        (rows > 100).then_some(rows)
    });
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    // It comes back, dies once more, and comes back.
    engine.resume();
    wait_for("rows", Duration::from_secs(60), || engine.try_ask("SELECT 1 FROM away.rejections LIMIT 1").is_ok().then_some(()));
    engine.kill();
    engine.resume();
    // What it carried out and could not say is not carried out again.
    engine.loses_replies(5);
    server.drain();
    server.stop();
    let sums = verified(&place);
    assert_eq!(sums["parquet"], sums["clickhouse"]);
    assert!(sums["clickhouse"].values().sum::<u64>() >= rows as u64);
    there_once(&engine, "away", &fleet.ledger.lock().unwrap());
}

#[test]
fn verify_finds_what_is_missing_added_or_doubled() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let place = place(engine, &database, "");
    let server = place.start(&Options::default());
    let events: Vec<Value> = (0..50).map(|n| serde_json::json!({ "device": "d", "id": format!("e{n}"), "temperature": 1.5 })).collect();
    let answer = server.client().post("/v1/events", &place.keys[1], "application/json", Value::from(events).to_string().as_bytes());
    assert_eq!(answer.status, 202);
    server.drain();
    server.stop();
    let sums = verified(&place);
    let (_, table) = sums["clickhouse"].keys().next().unwrap().clone();
    let name = format!("`{database}`.`{table}`");
    let differences = || {
        let (report, ok) = place.verify();
        assert_eq!(ok, report["differences_count"] == 0);
        report["differences"].as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    engine.ask(&format!("CREATE TABLE `{database}`.kept ENGINE = MergeTree ORDER BY tenant AS SELECT * FROM {name} WHERE _index = 7"));
    engine.ask(&format!("ALTER TABLE {name} DELETE WHERE _index = 7 SETTINGS mutations_sync = 2"));
    let found = differences();
    assert!(
        found.iter().any(|d| d.starts_with(&format!("clickhouse beta/{table}:")) && d.contains("committed 50 rows, the table holds 49")),
        "{found:?}"
    );
    for _ in 0..2 {
        engine.ask(&format!("INSERT INTO {name} SELECT * FROM `{database}`.kept SETTINGS insert_deduplicate = 0"));
    }
    engine.ask(&format!("DROP TABLE `{database}`.kept SYNC"));
    let found = differences();
    assert!(found.iter().any(|d| d.contains("1 rows are there more than once, first at partition")), "{found:?}");
    engine.ask(&format!("DROP TABLE {name} SYNC"));
    let found = differences();
    assert!(found.iter().any(|d| d.contains("committed 50 rows, the table holds 0")), "{found:?}");
}

#[test]
fn doctor_says_what_is_wrong_with_clickhouse() {
    let Some(mut engine) = own() else { return };
    let right = place(&engine, "checkup", "");
    let (found, ok) = doctor(&right);
    assert!(ok, "{found:?}");
    assert!(found["server.listen"].1.ends_with("is free"), "{found:?}");
    assert!(found["sink.clickhouse.url"].1.contains("version 26."), "{found:?}");
    assert_eq!(found["ClickHouse's rights"], ("ok".to_owned(), format!("{USER} may make, widen, fill, read and drop tables; tokens hold")));
    assert_eq!(found["ClickHouse's clock"].0, "ok");
    std::fs::write(right.path("clickhouse.password"), "wrong\n").unwrap();
    let (found, ok) = doctor(&right);
    let told = &found["sink.clickhouse.url"].1;
    assert!(!ok && told.contains("AUTHENTICATION_FAILED") && told.ends_with("are not those of a user of that server"), "{found:?}");
    std::fs::remove_file(right.path("clickhouse.password")).unwrap();
    let (found, _) = doctor(&right);
    assert!(found["sink.clickhouse"].1.starts_with("sink.clickhouse.password: "), "{found:?}");
    let config = std::fs::read_to_string(right.path("tidegate.toml")).unwrap();
    let config = config.replace(&format!("user = \"{USER}\""), "user = \"reader\"").replace("password = {", "# password = {");
    std::fs::write(right.path("tidegate.toml"), config).unwrap();
    let (found, ok) = doctor(&right);
    assert!(!ok && found["ClickHouse's rights"].1.contains("READONLY"), "{found:?}");
    assert!(found["ClickHouse's rights"].1.ends_with("tidegate manual clickhouse has the grants"), "{found:?}");
    // Nobody waits here as long as a sink does.
    engine.signal("-STOP");
    let (found, _) = doctor(&right);
    engine.signal("-CONT");
    assert!(found["sink.clickhouse.url"].1.contains("no answer within 10 s"), "{found:?}");
    engine.kill();
    let (found, _) = doctor(&right);
    assert!(found["sink.clickhouse.url"].1.contains("Connection refused"), "{found:?}");
}

#[test]
fn a_parked_table_is_listed_resumed_and_whole_again() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let place = place(engine, &database, "");
    let sink = |args: &[&str]| {
        let output = Command::new(BINARY).arg("sink").args(args).arg("--config").arg(place.path("tidegate.toml")).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let parked = || {
        let (listed, ok, told) = sink(&["list", "--json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|_| panic!("{listed}\n{told}"));
        assert!(ok && listed["sinks"][1]["sink"] == "clickhouse", "{listed}");
        listed["sinks"][1]["parked"].as_array().unwrap().clone()
    };
    let server = place.start(&Options::default());
    let mut client = server.client();
    let mut send = |tenant: usize, from: u32| {
        let events: Vec<Value> =
            (from..from + 60).map(|n| serde_json::json!({ "device": "d", "id": format!("e{n}"), "temperature": 1.5 })).collect();
        let answer = client.post("/v1/events", &place.keys[tenant], "application/json", Value::from(events).to_string().as_bytes());
        assert_eq!(answer.status, 202);
    };
    send(0, 0);
    server.drain();
    let table = table_of(&place);
    // The owner of the database finds a rule that rows break.
    engine.ask(&format!("ALTER TABLE `{database}`.`{table}` ADD CONSTRAINT owners CHECK tenant = 'nobody'"));
    for round in 1..4 {
        send(0, round * 60);
        send(1, round * 60);
        wait_for("the parked table", Duration::from_secs(30), || (!parked().is_empty()).then_some(()));
    }
    let found = parked();
    assert!(
        found.iter().all(|p| p["table"] == table.as_str() && p["reason"].as_str().unwrap().contains("VIOLATED_CONSTRAINT")),
        "{found:?}"
    );
    // Until the sink's place has gone past them, they are pending.
    wait_for("an account of what is parked", Duration::from_secs(30), || {
        let (report, _) = place.verify();
        assert_eq!(report["differences_count"], 0, "{report:#}");
        (report["rows_parked"].as_u64() > Some(0) && report["parked"][0]["sink"] == "clickhouse").then_some(())
    });
    let failure = server.client().get("/ready", None).json()["sinks"][1]["failure"].as_str().unwrap().to_owned();
    assert!(
        failure.contains("is parked: ") && failure.contains("VIOLATED_CONSTRAINT") && failure.contains("tidegate sink list"),
        "{failure}"
    );
    let (text, _, _) = sink(&["list"]);
    assert!(text.contains(&format!("  PARKED {table} partition ")), "{text}");
    // In vain while the rule stands.
    let (told, ok, _) = sink(&["resume", "clickhouse", &table]);
    assert!(ok && told.contains("a running server does it within seconds"), "{told}");
    let (_, ok, told) = sink(&["resume", "clickhouse", "no-such-table"]);
    assert!(!ok && told.contains("clickhouse has not parked no-such-table; `tidegate sink list` shows what is parked"), "{told}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!parked().is_empty());
    engine.ask(&format!("ALTER TABLE `{database}`.`{table}` DROP CONSTRAINT owners"));
    assert!(sink(&["resume", "clickhouse", &table]).1);
    wait_for("its end", Duration::from_secs(30), || parked().is_empty().then_some(()));
    send(1, 1_000);
    server.drain();
    server.stop();
    let sums = verified(&place);
    assert_eq!(sums["parquet"], sums["clickhouse"]);
    assert_eq!(sums["clickhouse"].values().sum::<u64>(), 60 * 8);
}

/// The one table of tenants' rows.
fn table_of(place: &Place) -> String {
    let (report, _) = place.verify();
    report["tables"].as_array().unwrap().iter().find(|t| t["sink"] == "clickhouse").unwrap()["table"].as_str().unwrap().to_owned()
}

/// The engine of the tests knows no users, so the statements are read by its parser and their conditions tried as they are.
#[test]
fn row_policies_show_each_tenant_its_own_rows() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let place = place(engine, &database, "");
    let server = place.start(&Options::default());
    for (tenant, count) in [(0, 30), (1, 20)] {
        // The same ids everywhere.
        let events: Vec<Value> = (0..count)
            .map(|n| serde_json::json!({ "device": "d", "id": format!("e{n}"), "temperature": 1.5, "note": tenant.to_string() }))
            .collect();
        server.client().post("/v1/events", &place.keys[tenant], "application/json", Value::from(events).to_string().as_bytes());
    }
    server.drain();
    server.stop();
    let table = table_of(&place);
    let sink =
        |args: &[&str]| Command::new(BINARY).arg("sink").args(args).arg("--config").arg(place.path("tidegate.toml")).output().unwrap();
    let printed = String::from_utf8(sink(&["policies"]).stdout).unwrap();
    expect_test::expect![[r#"
        CREATE ROW POLICY IF NOT EXISTS `tidegate sink` ON `DB`.* FOR SELECT USING 1 AS PERMISSIVE TO `tidegate`;
        CREATE ROW POLICY IF NOT EXISTS `tidegate nobody` ON `DB`.* FOR SELECT USING 0 AS PERMISSIVE TO ALL;
        CREATE ROLE IF NOT EXISTS `tidegate_acme`;
        GRANT SELECT ON `DB`.* TO `tidegate_acme`;
        CREATE ROW POLICY IF NOT EXISTS `tidegate tenant acme` ON `DB`.* FOR SELECT USING tenant = 'acme' AS PERMISSIVE TO `tidegate_acme`;
        CREATE ROLE IF NOT EXISTS `tidegate_beta`;
        GRANT SELECT ON `DB`.* TO `tidegate_beta`;
        CREATE ROW POLICY IF NOT EXISTS `tidegate tenant beta` ON `DB`.* FOR SELECT USING tenant = 'beta' AS PERMISSIVE TO `tidegate_beta`;
    "#]]
    .assert_eq(&printed.replace(&database, "DB"));
    for sql in printed.lines() {
        engine.ask(&format!("EXPLAIN AST {}", sql.trim_end_matches(';')));
    }
    for (tenant, note, count) in [("acme", "0", 30), ("beta", "1", 20)] {
        let line = printed.lines().find(|l| l.contains(&format!("`tidegate tenant {tenant}`"))).unwrap();
        let condition = line.split(" USING ").nth(1).unwrap().split(" AS ").next().unwrap();
        for name in [table.clone(), format!("{table}_latest")] {
            let told = engine.ask(&format!("SELECT uniqExact(note), any(note) FROM `{database}`.`{name}` WHERE {condition}"));
            assert_eq!(told, format!("1\t{note}\n"), "{name}");
        }
        assert_eq!(engine.number(&format!("SELECT count() FROM `{database}`.`{table}` WHERE {condition}")), count);
    }
    // Whoever has not the right to is told what he cannot carry out.
    let refused = sink(&["policies", "--apply"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("carrying out CREATE ROW POLICY") && told.contains("ACCESS_DENIED"), "{told}");
}
