//! Small forms: what is read is written again and read as the same. The first byte chooses the form.

use super::input::Input;
use object_store::memory::InMemory;
use std::sync::{Arc, OnceLock};
use tidegate_operators::duplicates::Duplicates;
use tidegate_pipeline::snapshot::{SnapshotError, Snapshots};
use tidegate_schemas::ids::{LogId, NodeId, ReceiptId, TenantId};
use tidegate_schemas::receipt::Receipt;
use tidegate_schemas::verdict::{Outcome, Verdict, cut};
use tidegate_schemas::{time, varint};
use tokio::runtime::Runtime;

const HORIZON: i64 = 1_000_000;

/// Reads one of the forms.
pub fn forms(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.u8() % 6 {
        0 => varints(input.0),
        1 => times(input.0),
        2 => receipts(input.0),
        3 => ids(input.0),
        4 => duplicates(input.0),
        _ => snapshots(input.0),
    }
}

fn varints(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(value) = varint::take(&mut rest) {
        let mut out = Vec::new();
        varint::put(&mut out, value);
        assert!(out.len() <= 10);
        assert_eq!(varint::take(&mut &out[..]), Some(value));
        for end in 0..out.len() {
            assert_eq!(varint::take(&mut &out[..end]), None, "a part of an integer is none");
        }
    }
}

fn times(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(at) = time::parse(text)
    {
        assert_eq!(time::parse(&time::format(at)), Some(at), "{text}");
        assert_eq!(time::date(at).len(), if at < time::parse("0000-01-01T00:00:00Z").unwrap() { 13 } else { 10 }, "{text}");
    }
    let mut input = Input(bytes);
    let mut next = || std::array::from_fn::<u8, 8, _>(|_| input.u8());
    let at = i64::from_le_bytes(next());
    let (text, day) = (time::format(at), time::date(at));
    assert!(text.starts_with(&day) || time::parse(&text).is_none(), "{text} is not on {day}");
    time::day(at);
    let millis = f64::from_le_bytes(next());
    if let Some(at) = time::from_millis(millis) {
        assert!(((at as f64) / 1_000.0 - millis).abs() <= 1.0, "{millis}");
        assert_eq!(time::parse(&time::format(at)), Some(at));
    }
}

fn receipts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(receipt) = text.parse::<Receipt>() {
        let written = receipt.to_string();
        assert_eq!(written.parse(), Ok(receipt));
        assert!(written.len() <= text.len(), "{text} reads as {written}");
    }
}

fn ids(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(id) = NodeId::new(&text) {
        assert!(!text.contains(['/', '\\', '%', ' ']) && id.as_str() == text && text != ".." && text != ".");
    }
    if let Ok(id) = ReceiptId::try_from(text.to_string()) {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
    for max in [0, 1, 7, 80] {
        let short = cut(text.to_string(), max);
        assert!(text.starts_with(&short) && short.len() <= max);
    }
}

fn duplicates(bytes: &[u8]) {
    let Some(mut state) = Duplicates::decode(HORIZON, 1_000, bytes) else { return };
    let written = state.encode();
    let again = Duplicates::decode(HORIZON, 1_000, &written).unwrap();
    assert_eq!((again.encode(), again.len()), (written, state.len()));
    // The state goes on from whatever was read.
    let Ok(tenant) = TenantId::new("acme") else { return };
    let outcome = Outcome { at: Default::default(), index: 0, tenant, verdict: Verdict::Transformed, key: [7; 16] };
    let known = state.contains(&outcome.key);
    state.fold(u64::MAX, 2 * HORIZON, std::slice::from_ref(&outcome));
    assert!(known || state.contains(&outcome.key));
    assert!(state.len() <= 1_000);
}

fn snapshots(bytes: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap());
    let log = LogId([3; 16]);
    let snapshots = Snapshots::new(Arc::new(InMemory::new()), runtime.handle().clone(), log);
    let mut input = Input(bytes);
    let (partition, epoch) = (u32::from(input.u8()), u64::from(input.u16()));
    let name = snapshots.put(partition, epoch, input.0).unwrap();
    assert_eq!(snapshots.put(partition, epoch, input.0).unwrap(), name, "a repeat finds it there");
    assert_eq!(snapshots.get(&name).unwrap(), input.0);
    // A name comes from a commit record; whatever it says, the bytes are those of its hash or none.
    let other = String::from_utf8_lossy(input.0);
    if let Ok(found) = snapshots.get(&other) {
        assert_eq!(found, input.0);
    }
    assert!(matches!(snapshots.get(&name.replace(".state", ".stat")), Err(SnapshotError::Store { .. })));
    runtime.block_on(snapshots.prune(partition, &name)).unwrap();
    assert_eq!(snapshots.get(&name).unwrap(), input.0, "what is referred to stays");
}
