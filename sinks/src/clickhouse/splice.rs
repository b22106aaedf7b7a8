//! Blocks of one schema as one Arrow stream, without a look at their rows.
//!
//! ```text
//! block 1: schema ─ dictionaries ─ batch ─ end      ─▶  schema ─ dictionaries ─ batch ─ dictionaries ─ batch ─ end
//! block 2: schema ─ dictionaries ─ batch ─ end
//! ```

use bytes::Bytes;

/// What a stream ends with: a message of no length.
const END: [u8; 8] = [255, 255, 255, 255, 0, 0, 0, 0];
/// What each message begins with, before the length of its header.
const MARK: [u8; 4] = [255; 4];

/// The pieces of the one stream, in order. Two whole streams one after the other would not do: the server stores the first
/// alone and says that all is well.
pub(super) fn splice(blocks: &[Bytes]) -> Result<Vec<Bytes>, &'static str> {
    let first = blocks.first().ok_or("it holds no block")?;
    let head = first.slice(..schema_bytes(first)?);
    let mut pieces = Vec::with_capacity(blocks.len() + 2);
    pieces.push(head.clone());
    for block in blocks {
        let length = schema_bytes(block)?;
        if block[..length] != head[..] {
            return Err("its blocks name the same columns in different bytes: different versions of Tidegate wrote them");
        }
        pieces.push(block.slice(length..block.len() - END.len()));
    }
    pieces.push(Bytes::from_static(&END));
    Ok(pieces)
}

/// How many bytes the schema takes at the beginning of a whole stream.
fn schema_bytes(stream: &Bytes) -> Result<usize, &'static str> {
    let partial = "a block is no whole Arrow stream";
    if stream.len() < 16 || stream[..4] != MARK || stream[stream.len() - END.len()..] != END {
        return Err(partial);
    }
    let length = u32::from_le_bytes([stream[4], stream[5], stream[6], stream[7]]) as usize;
    let schema = length.checked_add(8).ok_or(partial)?;
    if schema + END.len() > stream.len() { Err(partial) } else { Ok(schema) }
}
