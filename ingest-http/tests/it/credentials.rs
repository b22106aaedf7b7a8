//! Who may send what: forged keys fail, places of keys, keys bound to assets.

use crate::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidegate_ingest_http::issue_key;
use tidegate_schemas::ids::CredentialId;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_taken_from_three_headers_and_from_nowhere_else() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    let key = key("open");
    let bearer = format!("Bearer {key}");
    let lower = format!("bearer   {key} ");
    let basic = format!("Basic {}", STANDARD.encode(format!("{key}:")));
    for header in [("authorization", &*bearer), ("authorization", &lower), ("authorization", &basic), ("x-api-key", &key)] {
        assert_eq!(client.call("POST /v1/events", &[header, ("content-type", JSON)], b"1").await.status, 202, "{header:?}");
    }
    for query in [format!("api_key={key}"), format!("anything={key}"), key.clone(), "access_token=abc".into(), key.replace('_', "%5F")] {
        let line = format!("POST /v1/events?{query}");
        let answer = client.call(&line, &[("x-api-key", &key), ("content-type", JSON)], b"1").await;
        assert_eq!((answer.status, &*answer.problem()), (400, "credential-in-query"), "{query}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(&key[8..]), "the answer does not repeat it");
    }
    let answer = client.call("POST /v1/events?device=1", &[("x-api-key", &key), ("content-type", JSON)], b"1").await;
    assert_eq!(answer.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_keys_fail() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    let good = key("open");
    let id = |text: &str| CredentialId::new(text).unwrap();
    let mut forged: Vec<String> = vec![
        String::new(),
        "x".into(),
        "tg_".into(),
        "tg_open_".into(),
        issue_key(&id("open"), &[0; 32]),
        issue_key(&id("open"), &secret("bound")),
        issue_key(&id("bound"), &secret("open")),
        issue_key(&id("nobody"), &secret("nobody")),
        issue_key(&id("nobody"), &[0; 32]),
        issue_key(&id("Open"), &secret("open")),
        key("old"),
        good.to_uppercase(),
        good[1..].to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}0"),
        format!("{good} {good}"),
        format!("tg_open_{}00000000", "0".repeat(64)),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhY21lIn0.".into(),
        "g".repeat(8_000),
    ];
    // Each changed digit, with the checksum left as it was, and with one that fits.
    for at in (3..good.len()).step_by(3) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        forged.push(String::from_utf8(bytes).unwrap());
    }
    for bit in 0..32 {
        let mut other = secret("open");
        other[bit] ^= 1 << (bit % 8);
        forged.push(issue_key(&id("open"), &other));
    }
    assert!(forged.len() >= 60, "{}", forged.len());
    for text in &forged {
        for header in [("x-api-key", text.clone()), ("authorization", format!("Bearer {text}")), ("authorization", STANDARD.encode(text))] {
            let answer = client.call("POST /v1/events", &[(header.0, &header.1), ("content-type", JSON)], b"1").await;
            assert_eq!((answer.status, &*answer.problem()), (401, "unauthorized"), "{header:?}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer realm="));
        }
    }
    assert!(server.log.take().is_empty());
    // Unknown ids and wrong secrets are answered alike.
    let ask = async |text: &str| {
        let answer = Client::connect(&server).await.call("POST /v1/events", &[("x-api-key", text)], b"").await;
        answer.json()["detail"].clone()
    };
    assert_eq!(ask(&issue_key(&id("open"), &[1; 32])).await, ask(&issue_key(&id("nobody"), &[1; 32])).await);
    assert_eq!(post_as(&server, "young", JSON, b"1").await.status, 202, "a key lives until it expires");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_bound_to_assets_cannot_post_as_another() {
    let server = start().await;
    let body = b"[{\"device\":\"a1\"},{\"device\":\"a3\"},{\"device\":\"a2\",\"device\":\"a3\"},{},{\"device\":\"\\u0061\\u0032\"},{\"device\":\"\\ud800\"}]";
    let answer = post_as(&server, "bound", JSON, body).await;
    let said = answer.json();
    assert_eq!((answer.status, &said["accepted"]), (202, &2.into()));
    let named: Vec<_> =
        said["rejected"].as_array().unwrap().iter().map(|r| (r["index"].as_u64().unwrap(), r["code"].as_str().unwrap())).collect();
    assert_eq!(named, [(1, "asset_not_allowed"), (2, "asset_not_allowed"), (3, "asset_missing"), (5, "syntax")]);
    assert_eq!(said["rejected"][0]["pointer"], "/device");
    let (envelope, _) = server.log.envelopes().pop().unwrap();
    assert_eq!((envelope.events.len(), envelope.refused.len()), (2, 4));

    // None good: nothing is stored, and the reason decides the status.
    let answer = post_as(&server, "bound", LINES, b"{\"device\":\"a3\"}\n{\"device\":\"a4\"}").await;
    assert_eq!((answer.status, &*answer.problem()), (403, "asset-not-allowed"));
    assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 2);
    let answer = post_as(&server, "bound", RAW, b"{\"device\":\"a1\"}").await;
    assert_eq!((answer.status, &*answer.problem()), (400, "all-refused"), "raw bytes hold no pointer");
    // The credential itself names the asset.
    assert_eq!(post_as(&server, "single", RAW, b"\x01").await.status, 202);
    server.log.take();

    // Header and query places: the values travel in the envelope.
    let key = key("head");
    let mut client = Client::connect(&server).await;
    let base = [("x-api-key", &*key), ("content-type", JSON), ("x-other", "hidden")];
    for (device, status) in [(Some("d1"), 202), (Some("d2"), 403), (None, 400)] {
        let headers: Vec<_> = base.into_iter().chain(device.map(|d| ("x-device", d))).collect();
        let answer = client.call("POST /v1/events?id=e%201&x=y", &headers, b"{\"device\":\"d1\"}").await;
        assert_eq!(answer.status, status, "{device:?}");
    }
    let [(envelope, _)] = &server.log.envelopes()[..] else { panic!("one record") };
    let meta: Vec<_> = envelope.meta.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(meta, ["header:x-device=d1", "query:id=e 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_carries_what_the_source_lets_through_and_no_secret() {
    let server = start().await;
    let key = key("open");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("x-api-key", &*key),
        ("content-type", JSON),
        ("x-site", "north"),
        ("x-tenant", "other"),
        ("traceparent", parent),
        ("idempotency-key", "\"order 1\""),
    ];
    let mut client = Client::connect(&server).await;
    for (body, times) in [("[1,2]", 2), ("[1,3]", 1)] {
        for _ in 0..times {
            assert_eq!(client.call("POST /v1/events", &headers, body.as_bytes()).await.status, 202);
        }
    }
    let records = server.log.take();
    let envelopes: Vec<_> = records.iter().map(|(_, r)| tidegate_schemas::envelope::Envelope::read(r).unwrap()).collect();
    assert_eq!(envelopes[0].meta.iter().collect::<Vec<_>>(), [(&"header:x-site".to_owned(), &"north".to_owned())]);
    assert_eq!((envelopes[0].traceparent.as_deref(), envelopes[0].tenant.as_str()), (Some(parent), "acme"));
    let ids: Vec<_> = envelopes.iter().map(|e| e.idempotency.clone().unwrap()).collect();
    assert!(ids[0].starts_with("order 1:") && ids[0].len() == 8 + 32, "{ids:?}");
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "the same body has the same id, another body another");
    for (_, record) in &records {
        assert!(!format!("{record:?}").contains(&key[8..72]));
    }
}
