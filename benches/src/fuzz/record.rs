//! Records of the logs, in a form for seeds: what one of them says is said again by its own writer.
//!
//! ```text
//! record   key: length 1, bytes | headers: number 1 | … | value: the rest
//! header   name: its number in the embedded log 1, or 255, length 1, bytes | value: length 2, bytes
//! ```

use super::input::Input;
use bytes::Bytes;
use std::borrow::Cow;
use tidegate_pipeline::log::embedded::HEADER_NAMES;
use tidegate_schemas::block::Output;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::definition::{Chain, Change};
use tidegate_schemas::envelope::{Envelope, partition_of};
use tidegate_schemas::limits::PARTITIONS_MAX;
use tidegate_schemas::log::{Header, Record};

/// Reads a record as each of those that logs hold.
pub fn record(bytes: &[u8]) {
    let record = unframed(bytes);
    if let Ok(envelope) = Envelope::read(&record) {
        for span in envelope.events.iter().chain(envelope.refused.iter().map(|r| &r.span)) {
            assert_eq!(span.of(&record.value).len(), span.len as usize);
        }
        assert!(envelope.events.is_sorted_by(|a, b| a.index < b.index && a.start + a.len <= b.start));
        assert!(partition_of(&envelope.tenant, PARTITIONS_MAX as u32) < PARTITIONS_MAX as u32);
        let again = envelope.clone().into_record(record.value.clone());
        assert_eq!(Envelope::read(&again).unwrap(), envelope);
    }
    if let Ok(Output::Header(header)) = Output::read(&record) {
        let Ok(Output::Header(again)) = Output::read(&header.clone().into_record()) else { panic!("a header is a header") };
        assert_eq!(again, header);
    }
    if let Ok(Output::Block(block)) = Output::read(&record) {
        for (name, number) in [("tg-part", block.part), ("tg-parts", block.parts), ("tg-rows", block.rows)] {
            let said = record.header(name).and_then(|b| std::str::from_utf8(b).ok()).and_then(|t| t.parse::<u64>().ok());
            assert_eq!(said, Some(number.into()), "{name}");
        }
    }
    if let Ok(commit) = CommitRecord::read(&record) {
        assert_eq!(CommitRecord::read(&commit.clone().into_record()).unwrap(), commit);
    }
    let _ = Chain::default().take(&record);
    if let Ok(change) = Change::read(&record) {
        assert_eq!(Change::read(&Chain::default().append(&change)).unwrap(), change);
    }
}

/// A record of its seed's bytes.
pub(super) fn unframed(bytes: &[u8]) -> Record {
    let mut input = Input(bytes);
    let len = input.u8().into();
    let key = Bytes::copy_from_slice(input.take(len));
    let mut headers = Vec::new();
    for _ in 0..input.u8() {
        let name = match usize::from(input.u8()) {
            255 => {
                let len = input.u8().into();
                Cow::Owned(String::from_utf8_lossy(input.take(len)).into_owned())
            }
            number => Cow::Borrowed(HEADER_NAMES[number % HEADER_NAMES.len()]),
        };
        let len = input.u16().into();
        headers.push(Header { name, value: Bytes::copy_from_slice(input.take(len)) });
    }
    Record { key, headers, value: Bytes::copy_from_slice(input.0) }
}

/// The seed of a record.
pub(super) fn framed(record: &Record) -> Vec<u8> {
    let mut out = vec![record.key.len() as u8];
    out.extend_from_slice(&record.key);
    out.push(record.headers.len() as u8);
    for header in &record.headers {
        match HEADER_NAMES.iter().position(|n| *n == header.name) {
            Some(number) => out.push(number as u8),
            None => {
                out.extend_from_slice(&[255, header.name.len() as u8]);
                out.extend_from_slice(header.name.as_bytes());
            }
        }
        out.extend_from_slice(&(header.value.len() as u16).to_le_bytes());
        out.extend_from_slice(&header.value);
    }
    out.extend_from_slice(&record.value);
    out
}
