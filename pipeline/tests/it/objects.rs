//! Tables and snapshots on a real HTTP S3 server, by the real binary: from the request to the row, whatever dies or is away.

use crate::crash::{FAST, Fleet, check, killed_at};
use crate::doctor::doctor;
use crate::s3::{self, S3, SECRET};
use crate::support::{Options, Place, files, wait_for};
use crate::tables;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A place whose tables and snapshots are in a bucket of its own.
pub fn place(s3: &S3, kind: &str) -> Place {
    place_with(s3, kind, "", FAST)
}

/// The same with settings of `[server]`, and others than the fast ones.
pub fn place_with(s3: &S3, kind: &str, server: &str, settings: &str) -> Place {
    let bucket = s3.bucket(kind);
    assert!(settings.contains("[process]\n"));
    let settings = settings.replace("[process]\n", &format!("[process]\nsnapshots = \"s3://{bucket}/deep/state\"\n"));
    let more = format!(
        "\n[sink.parquet]\npath = \"s3://{bucket}/deep/tables\"\n\n[s3]\nendpoint = \"{}\"\naccess_key_id = \"{}\"\n\
         secret_access_key = {{ file = \"s3.secret\" }}\nrequest_seconds_max = 5\n",
        s3.url(),
        s3::KEY
    );
    let mut place = Place::with_server(server, &format!("{settings}{more}"));
    std::fs::write(place.path("s3.secret"), format!("{SECRET}\n")).unwrap();
    place.bucket = Some((s3.url(), bucket));
    place
}

/// A copy of a bucket's folder on this machine; the folder is what is left of it there.
pub fn copy(server: &str, bucket: &str, folder: &str, into: &Path) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = s3::store(server, bucket, SECRET);
    let target = into.join(format!("copy-{}", std::fs::read_dir(into).unwrap().count()));
    runtime.block_on(async {
        let listed: Vec<_> = store.list(Some(&folder.into())).try_collect().await.unwrap();
        for found in listed {
            let file = target.join(found.location.as_ref());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, store.get(&found.location).await.unwrap().bytes().await.unwrap()).unwrap();
        }
    });
    target.join(folder)
}

fn events(from: u32, count: u32) -> Vec<u8> {
    let event = |n| serde_json::json!({ "device": "d", "id": format!("e{n}"), "seq": n, "temperature": 1.5 });
    Value::from((from..from + count).map(event).collect::<Vec<_>>()).to_string().into_bytes()
}

/// Nothing that the process wrote on this machine holds the secret.
fn tells_no_secret(place: &Place) {
    let mut all = Vec::new();
    files(place.root.path(), &mut all);
    for file in all.iter().filter(|f| !f.ends_with("s3.secret")) {
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "{}", file.display());
    }
}

#[test]
fn from_a_request_to_its_row_in_a_bucket() {
    let Some(s3) = s3::shared() else { return };
    let place = place(s3, "whole");
    let server = place.start(&Options::default());
    let mut client = server.client();
    for round in 0..20 {
        for tenant in 0..2 {
            let answer = client.post("/v1/events", &place.keys[tenant], "application/json", &events(round * 10, 10));
            assert_eq!(answer.status, 202);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    server.drain();
    let (_, bucket) = place.bucket.clone().unwrap();
    // A partition that is taken over elsewhere finds its snapshot: of the outcomes before it nothing is left in the log.
    wait_for("snapshots", Duration::from_secs(20), || {
        let snapshots = copy(&s3.url(), &bucket, "deep/state", place.root.path());
        let mut found = Vec::new();
        files(&snapshots, &mut found);
        (found.len() >= 2).then_some(())
    });
    server.kill();
    let mut local = Vec::new();
    files(&place.data(), &mut local);
    assert!(!local.iter().any(|f| f.extension().is_some_and(|e| e == "state" || e == "parquet")), "{local:?}");
    let server = place.start(&Options::default());
    let again = server.client().post("/v1/events", &place.keys[0], "application/json", &events(0, 200));
    assert_eq!(again.status, 202);
    server.drain();
    server.stop();
    let (report, ok) = place.verify();
    assert!(ok && report["differences_count"] == 0, "{report:#}");
    assert_eq!((report["duplicate"].as_u64(), report["rows_committed"].as_u64()), (Some(200), Some(400)), "{report:#}");
    let found = report["tables"].as_array().unwrap();
    assert!(found.iter().all(|t| t["path"].as_str().unwrap().starts_with(&format!("s3://{bucket}/deep/tables/"))), "{report:#}");
    let rows = tables::rows(&place.tables());
    assert_eq!(rows.len(), 400);
    // Nothing of one tenant lies below the other's name.
    for (own, other) in [("acme", "beta"), ("beta", "acme")] {
        let mut below = Vec::new();
        files(&place.tables().join(own), &mut below);
        assert!(!below.is_empty());
        for file in below {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(other.len()).any(|w| w == other.as_bytes()), "{} holds {other}", file.display());
        }
    }
    tells_no_secret(&place);
}

#[test]
fn a_receipt_says_where_in_the_bucket() {
    let Some(s3) = s3::shared() else { return };
    // Receipts are asked for.
    let place = place_with(s3, "receipt", "", &FAST.replace("horizon_seconds = 0", "horizon_seconds = 600"));
    let server = place.start(&Options::default());
    let mut client = server.client();
    let answer = client.post("/v1/events", &place.keys[0], "application/json", &events(0, 1)).json();
    server.drain();
    let told = client.get(&format!("/v1/receipts/{}", answer["receipt"].as_str().unwrap()), Some(&place.keys[0])).json().to_string();
    let wanted = format!("s3://{}/deep/tables/acme/meters-", place.bucket.as_ref().unwrap().1);
    assert!(told.contains(&wanted), "{wanted} is not in {told}");
}

/// Points whose meaning depends on the store.
fn is_of_objects(point: &str) -> bool {
    ["put.", "delta.", "snapshot.", "cursor.", "cut."].iter().any(|of| point.starts_with(of))
}

#[test]
fn killed_at_every_point_that_a_bucket_sees() {
    let Some(s3) = s3::shared() else { return };
    for point in tidegate_schemas::fault::POINTS.iter().filter(|p| is_of_objects(p)) {
        let acknowledged = killed_at(point, &place(s3, "killed")).acknowledged.len();
        println!("{point}: {acknowledged} acknowledged events are there once");
    }
}

/// A store that fails in every way, under load, beside a process that is killed now and then.
#[test]
fn killed_at_random_moments_over_a_failing_bucket() {
    let Some(s3) = s3::shared() else { return };
    let place = place(s3, "random");
    let (_, bucket) = place.bucket.clone().unwrap();
    let fleet = Fleet::new(6);
    for round in 0..8 {
        let server = place.start(&Options::default());
        s3.faults(&bucket, round, (5, 5, 5));
        let stop = Arc::new(AtomicBool::new(false));
        let senders = fleet.drive(&server.address, &place.keys, &stop);
        std::thread::sleep(Duration::from_millis(600 + 100 * round));
        server.kill();
        s3.faults(&bucket, 0, (0, 0, 0));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
    let server = place.start(&Options::default());
    server.drain();
    server.stop();
    let ledger = fleet.ledger.lock().unwrap();
    check(&place, &place.tables(), &ledger);
    println!("{} acknowledged events are there once", ledger.acknowledged.len());
}

/// The intake goes on while the store hangs, also where it hung at the start; then everything is delivered.
#[test]
fn a_store_that_hangs_stops_nothing_else() {
    let Some(s3) = s3::own() else { return };
    let place = place(&s3, "hung");
    s3.signal("-STOP");
    let began = Instant::now();
    let server = place.start(&Options::default());
    println!("started in {:.1} s beside a store that hangs", began.elapsed().as_secs_f64());
    let fleet = Fleet::new(4);
    let stop = Arc::new(AtomicBool::new(false));
    let senders = fleet.drive(&server.address, &place.keys, &stop);
    let told = wait_for("the failure to be told", Duration::from_secs(60), || {
        let ready = server.client().get("/ready", None).json();
        assert_eq!(ready["ready"], true, "{ready}");
        ready["sinks"][0]["failure"].as_str().map(str::to_owned)
    });
    assert!(told.contains("s3://") && !told.contains(SECRET), "{told}");
    // Commits wait for no snapshot.
    let taken = || fleet.ledger.lock().unwrap().acknowledged.len();
    let before = taken();
    std::thread::sleep(Duration::from_secs(5));
    let during = taken() - before;
    // It can be ended, too.
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    let began = Instant::now();
    server.stop();
    println!("stopped in {:.1} s", began.elapsed().as_secs_f64());
    let server = place.start(&Options::default());
    s3.signal("-CONT");
    let stop = Arc::new(AtomicBool::new(false));
    let senders = fleet.drive(&server.address, &place.keys, &stop);
    std::thread::sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    server.drain_within(Duration::from_secs(120));
    server.stop();
    println!("{during} events were taken in 5 s while the store hung");
    assert!(during > 50);
    check(&place, &place.tables(), &fleet.ledger.lock().unwrap());
    tells_no_secret(&place);
}

#[test]
fn doctor_and_the_start_look_at_the_store() {
    let Some(s3) = s3::shared() else { return };
    let right = place(s3, "right");
    let (found, ok) = doctor(&right);
    assert!(ok, "{found:?}");
    let (_, bucket) = right.bucket.clone().unwrap();
    for (check, folder) in [("sink.parquet.path", "tables"), ("snapshots", "state")] {
        let wanted = format!("s3://{bucket}/deep/{folder}: of 8 writers of one name exactly one wins");
        assert_eq!(found[check], ("ok".to_owned(), wanted));
    }
    std::fs::write(right.path("s3.secret"), "wrong\n").unwrap();
    let (found, ok) = doctor(&right);
    assert!(!ok && found["sink.parquet.path"].1.contains("SignatureDoesNotMatch"), "{found:?}");
    std::fs::remove_file(right.path("s3.secret")).unwrap();
    let (found, _) = doctor(&right);
    assert!(found["sink.parquet.path"].1.starts_with("s3.secret_access_key: "), "{found:?}");
    let Err(told) = right.try_start(&Options::default()) else { panic!("it started") };
    assert!(told.contains("s3.secret_access_key"), "{told}");
    // A store that breaks its word is refused, with the reason.
    let careless = place(s3, "careless");
    let (found, ok) = doctor(&careless);
    assert!(!ok && found["sink.parquet.path"].1.contains("8 of 8 writers of one name were told that they made it"), "{found:?}");
    let Err(told) = careless.try_start(&Options::default()) else { panic!("it started") };
    assert!(told.contains("sink.parquet.path") && told.contains("If-None-Match"), "{told}");
    let (_, bucket) = careless.bucket.clone().unwrap();
    assert!(!copy(&s3.url(), &bucket, "deep/tables", careless.root.path()).exists(), "nothing was written");
}

#[test]
fn connections_are_encrypted_to_a_server_that_is_known() {
    let Some(s3) = s3::encrypted() else { return };
    let place = place(&s3, "known");
    let file = place.path("tidegate.toml");
    let config = std::fs::read_to_string(&file).unwrap().replace(&s3.url(), &s3.encrypted_url());
    std::fs::write(&file, &config).unwrap();
    // Nobody of whom the system knows vouches for it.
    let (found, ok) = doctor(&place);
    assert!(!ok && found["sink.parquet.path"].1.contains("certificate"), "{found:?}");
    std::fs::write(&file, format!("{config}ca_file = {:?}\n", s3.authority())).unwrap();
    let (found, ok) = doctor(&place);
    assert!(ok, "{found:?}");
    let server = place.start(&Options::default());
    let answer = server.client().post("/v1/events", &place.keys[0], "application/json", &events(0, 10));
    assert_eq!(answer.status, 202);
    server.drain();
    server.stop();
    let (report, ok) = place.verify();
    assert!(ok && report["rows_committed"] == 10, "{report:#}");
    assert_eq!(tables::rows(&place.tables()).len(), 10);
}

#[test]
fn objects_are_encrypted_as_the_settings_say() {
    let Some(s3) = s3::shared() else { return };
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    for (settings, headers) in [
        ("", serde_json::json!({})),
        ("encryption = \"AES256\"\n", serde_json::json!({ "x-amz-server-side-encryption": "AES256" })),
        ("encryption = \"aws:kms\"\n", serde_json::json!({ "x-amz-server-side-encryption": "aws:kms" })),
        (
            "encryption = \"aws:kms\"\nkms_key_id = \"a-key\"\n",
            serde_json::json!({ "x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "a-key" }),
        ),
        (
            "customer_key = { file = \"customer.key\" }\n",
            serde_json::json!({
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": key,
                "x-amz-server-side-encryption-customer-key-md5": "KYvwGXoFFJ42a2u2GDWhwQ==",
            }),
        ),
    ] {
        let place = place(s3, "encrypted");
        let config = std::fs::read_to_string(place.path("tidegate.toml")).unwrap();
        std::fs::write(place.path("tidegate.toml"), format!("{config}{settings}")).unwrap();
        std::fs::write(place.path("customer.key"), format!("{key}\n")).unwrap();
        let (found, _) = doctor(&place);
        let (_, bucket) = place.bucket.clone().unwrap();
        assert_eq!(s3.seen(&bucket), headers, "{settings}: {found:?}");
        assert!(!format!("{found:?}").contains(key));
    }
}
