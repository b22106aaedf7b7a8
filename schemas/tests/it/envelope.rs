use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_schemas::envelope::{Envelope, Refusal, Release, Released, Span, partition_of};
use tidegate_schemas::ids::{CredentialId, NodeId, ReceiptId, SourceId, TenantId};
use tidegate_schemas::log::Header;

fn envelope(lens: &[(u8, u8, u8)], refused_last: bool) -> (Envelope, Bytes) {
    let (mut events, mut index, mut at) = (Vec::new(), 0u32, 0u32);
    for (skip_index, skip_bytes, len) in lens {
        index += u32::from(*skip_index);
        at += u32::from(*skip_bytes);
        events.push(Span { index, start: at, len: u32::from(*len) });
        index += 1;
        at += u32::from(*len);
    }
    let refused = if refused_last {
        events.pop().map(|span| Refusal { span, code: "syntax".into(), detail: "x".into(), pointer: String::new() }).into_iter().collect()
    } else {
        Vec::new()
    };
    // Of every other one the events come again.
    let released = |span: &Span| Released { id: format!("e{}", span.index), code: "quarantined".into(), epoch: 7 };
    let release = (refused.is_empty() && events.len() % 2 == 1).then(|| Release {
        by: "uid:0".into(),
        at: 9,
        offset: 3,
        events: events.iter().map(released).collect(),
    });
    let envelope = Envelope {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("site").unwrap(),
        source: SourceId::new("lns").unwrap(),
        credential: CredentialId::new("k1").unwrap(),
        receipt: ReceiptId([7; 16]),
        received_at: -5,
        revision: 3,
        content_type: "application/json".into(),
        idempotency: Some("key:1".into()),
        traceparent: None,
        meta: BTreeMap::from([("header:x-device".to_owned(), "d\u{e9}".to_owned())]),
        events,
        refused,
        release,
    };
    (envelope, Bytes::from(vec![b'x'; at as usize]))
}

proptest! {
    #[test]
    fn what_is_written_is_read(lens in prop::collection::vec(any::<(u8, u8, u8)>(), 0..40), refused in any::<bool>()) {
        let (envelope, value) = envelope(&lens, refused);
        let record = envelope.clone().into_record(value);
        prop_assert_eq!(Envelope::read(&record).unwrap(), envelope);
    }

    #[test]
    fn a_span_outside_the_value_is_refused(cut in 1usize..200, lens in prop::collection::vec((0u8..3, 0u8..3, 1u8..9), 1..40)) {
        let (envelope, value) = envelope(&lens, false);
        let short = value.slice(..value.len().saturating_sub(cut));
        prop_assert!(Envelope::read(&envelope.into_record(short)).is_err());
    }

    #[test]
    fn damaged_headers_never_panic(which in 0usize..11, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let (envelope, value) = envelope(&[(0, 0, 9), (1, 2, 3)], true);
        let mut record = envelope.into_record(value);
        let which = which % record.headers.len();
        record.headers[which] = Header { name: record.headers[which].name.clone(), value: bytes.into() };
        let _ = Envelope::read(&record);
    }
}

#[test]
fn a_release_is_about_the_events_of_its_record() {
    let (mut envelope, value) = envelope(&[(0, 0, 9), (1, 2, 3), (0, 0, 1)], false);
    envelope.release.as_mut().unwrap().events.pop();
    assert!(Envelope::read(&envelope.into_record(value)).is_err());
}

#[test]
fn partitions_are_stable() {
    // Both logs, and every later version, must agree: these figures may never change.
    let at = |t: &str| partition_of(&TenantId::new(t).unwrap(), 16);
    assert_eq!([at("acme"), at("beta"), at("gamma")], [14, 3, 1]);
}
