use proptest::prelude::*;
use tidegate_schemas::commit::{CommitRecord, Counts};
use tidegate_schemas::ids::{LogId, Position, ReceiptId, is_id};
use tidegate_schemas::receipt::Receipt;
use tidegate_schemas::{limits, table, time, varint};

#[test]
fn ids_are_safe_in_paths_and_labels() {
    for good in ["a", "lht65", "A-b_c.9", &"x".repeat(64)] {
        assert!(is_id(good), "{good}");
    }
    for bad in ["", "-a", ".", "..", "a/b", "a b", "\u{e9}", "a\n", &"x".repeat(65)] {
        assert!(!is_id(bad), "{bad}");
    }
}

#[test]
fn field_names_are_checked() {
    for good in ["t", "Temp_1", &"a".repeat(63)] {
        table::check_name(good).unwrap();
    }
    for bad in ["", "_t", "1a", "a-b", "tenant", "DATE", "Attributes", &"a".repeat(64)] {
        table::check_name(bad).unwrap_err();
    }
}

#[test]
fn times_are_micros() {
    assert_eq!(time::parse("2026-01-01T00:00:00.002Z"), Some(1_767_225_600_002_000));
    assert_eq!(time::parse("2026-01-01T01:00:00+01:00"), Some(1_767_225_600_000_000));
    assert_eq!(time::parse("2026-01-01"), None);
    assert_eq!(time::parse("yesterday"), None);
    assert_eq!(time::from_millis(1_767_225_600_000.25), Some(1_767_225_600_000_250));
    assert_eq!(time::from_millis(f64::NAN), None);
    assert_eq!(time::from_millis(1e300), None);
    let storable = |text: &str| time::STORABLE.contains(&time::parse(text).unwrap());
    for text in ["1900-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2262-04-11T23:47:16.854775Z", "2299-12-31T23:59:59.999999Z"] {
        assert!(storable(text), "{text}");
    }
    for text in ["0000-01-01T00:00:00Z", "1899-12-31T23:59:59.999999Z", "1900-01-01T00:00:00+00:01", "2300-01-01T00:00:00Z"] {
        assert!(!storable(text), "{text}");
    }
    assert_eq!(time::date(1_767_225_600_000_000 - 1), "2025-12-31");
    assert_eq!(time::day(-1), -1);
}

#[test]
fn every_limit_has_a_value_a_unit_and_a_reason() {
    assert!(limits::ALL.len() > 40);
    for limit in limits::ALL {
        assert!(limit.value > 0 && !limit.unit.is_empty() && limit.reason.len() >= 8, "{}", limit.name);
    }
}

#[test]
fn a_commit_record_must_add_up() {
    let commit = CommitRecord {
        epoch: 1,
        partition: 0,
        raw_from: Position::default(),
        raw_to: Position { offset: 1, ordinal: 0 },
        behind: vec![],
        revision: 1,
        recorded_at: 1,
        templates: vec![],
        counts: Counts { received: 2, transformed: 1, duplicate: 1, ..Counts::default() },
        tenants: vec![],
        rows: vec![],
        totals: Counts::default(),
        rows_total: 0,
        clean: 0..2,
        audit: 0..1,
        output_hash: String::new(),
        faults: vec![],
        quarantines: vec![],
        snapshot: None,
    };
    assert_eq!(CommitRecord::read(&commit.clone().into_record()).unwrap(), commit);
    let lossy = CommitRecord { counts: Counts { received: 3, ..commit.counts }, ..commit };
    CommitRecord::read(&lossy.into_record()).unwrap_err();
}

proptest! {
    #[test]
    fn varints_come_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
        let mut bytes = Vec::new();
        values.iter().for_each(|v| varint::put(&mut bytes, *v));
        let mut rest = &bytes[..];
        let read: Vec<u64> = std::iter::from_fn(|| varint::take(&mut rest)).collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn receipts_come_back(id in any::<[u8; 16]>(), log in any::<[u8; 16]>(), records in prop::collection::vec((any::<u32>(), any::<u64>()), 0..60)) {
        let receipt = Receipt::new(ReceiptId(id), LogId(log), records);
        prop_assert_eq!(receipt.to_string().parse::<Receipt>().unwrap(), receipt.clone());
        prop_assert!(receipt.is_of(LogId(log)));
    }

    #[test]
    fn any_text_is_a_receipt_or_not(text in "(rc_)?[A-Za-z0-9_-]{0,80}") {
        if let Ok(receipt) = text.parse::<Receipt>() {
            prop_assert_eq!(receipt.to_string().parse::<Receipt>().unwrap(), receipt);
        }
    }
}
