//! Receipts: where the records of one request stand. The text is opaque to clients; nothing in it is trusted without
//! comparing tenant and id with the record itself.

use crate::ids::{LogId, Partition, ReceiptId};
use crate::limits::RECEIPT_POSITIONS_MAX;
use crate::varint;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;

/// A receipt as an answer carries it: `rc_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The request.
    pub id: ReceiptId,
    /// First four bytes of the log's id, so that another log's receipt is told apart.
    pub log: [u8; 4],
    /// Places of its records in `raw`: partition and offset.
    pub records: Vec<(Partition, u64)>,
}

/// The text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no receipt: it must be the text that an answer to a POST carried, rc_ and what follows")]
pub struct ReceiptError;

impl Receipt {
    /// The receipt of a request whose records stand at `records`.
    pub fn new(id: ReceiptId, log: LogId, records: Vec<(Partition, u64)>) -> Self {
        Self { id, log: short(log), records }
    }

    /// Whether it was given by this log.
    pub fn is_of(&self, log: LogId) -> bool {
        self.log == short(log)
    }
}

fn short(log: LogId) -> [u8; 4] {
    let [a, b, c, d, ..] = log.0;
    [a, b, c, d]
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.log);
        for (partition, offset) in &self.records {
            varint::put(&mut bytes, u64::from(*partition));
            varint::put(&mut bytes, *offset);
        }
        write!(f, "rc_{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;
    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let bytes = text.strip_prefix("rc_").and_then(|t| URL_SAFE_NO_PAD.decode(t).ok()).ok_or(ReceiptError)?;
        let (id, rest) = bytes.split_first_chunk::<16>().ok_or(ReceiptError)?;
        let (log, mut rest) = rest.split_first_chunk::<4>().ok_or(ReceiptError)?;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let partition = varint::take(&mut rest).and_then(|p| u32::try_from(p).ok()).ok_or(ReceiptError)?;
            records.push((partition, varint::take(&mut rest).ok_or(ReceiptError)?));
            if records.len() > RECEIPT_POSITIONS_MAX {
                return Err(ReceiptError);
            }
        }
        Ok(Self { id: ReceiptId(*id), log: *log, records })
    }
}
