//! Small numbers as Parquet writes levels and dictionary indices: runs of one value, and eight and more packed into bits.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>

/// Values that are packed together.
const GROUP: usize = 8;

/// Appends the values, each of `width` bits, at most 32.
pub(super) fn write(out: &mut Vec<u8>, values: &[u32], width: u8) {
    // Those from `open` on are not written yet: they are packed unless a run begins behind a whole group of them.
    let (mut open, mut at) = (0, 0);
    while at < values.len() {
        let same = values[at..].iter().take_while(|v| **v == values[at]).count();
        let lent = (at - open).next_multiple_of(GROUP) - (at - open);
        if same >= lent + GROUP {
            pack(out, &values[open..at + lent], width);
            repeat(out, values[at], same - lent, width);
            open = at + same;
        }
        at += same;
    }
    pack(out, &values[open..], width);
}

/// So many times one value.
pub(super) fn repeat(out: &mut Vec<u8>, value: u32, times: usize, width: u8) {
    tidegate_schemas::varint::put(out, (times as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..usize::from(width).div_ceil(8)]);
}

/// Whole groups; the last is filled with zeros, which only the end of a page may be.
fn pack(out: &mut Vec<u8>, values: &[u32], width: u8) {
    if values.is_empty() {
        return;
    }
    tidegate_schemas::varint::put(out, (values.len().div_ceil(GROUP) as u64) << 1 | 1);
    out.reserve(values.len().div_ceil(GROUP) * usize::from(width));
    let end = out.len() + values.len().div_ceil(GROUP) * usize::from(width);
    let (mut bits, mut filled) = (0_u64, 0);
    for value in values {
        bits |= u64::from(*value) << filled;
        filled += u32::from(width);
        if filled >= 32 {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    out.extend_from_slice(&(bits as u32).to_le_bytes()[..(filled.div_ceil(8)) as usize]);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the book, one value at a time.
    fn read(mut bytes: &[u8], count: usize, width: u8) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let header = tidegate_schemas::varint::take(&mut bytes).unwrap();
            let length = usize::from(width).div_ceil(8);
            if header & 1 == 0 {
                let mut value = [0; 4];
                value[..length].copy_from_slice(&bytes[..length]);
                bytes = &bytes[length..];
                values.extend(std::iter::repeat_n(u32::from_le_bytes(value), (header >> 1) as usize));
                continue;
            }
            let (packed, rest) = bytes.split_at((header >> 1) as usize * usize::from(width));
            let bit = |at: usize| u32::from(packed[at / 8] >> (at % 8) & 1);
            let value = |n: usize| (0..usize::from(width)).fold(0, |value, i| value | bit(n * usize::from(width) + i) << i);
            values.extend((0..(header >> 1) as usize * GROUP).map(value));
            bytes = rest;
        }
        assert!(bytes.is_empty() && values[count..].iter().all(|v| *v == 0) && values.len() < count + GROUP);
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(width in 1_u8..=32, runs in prop::collection::vec((any::<u32>(), 1_usize..40, 1_u32..4), 0..60)) {
            let values: Vec<u32> = runs.iter().flat_map(|(value, times, of)| (0..*times as u32).map(move |n| value.wrapping_add(n / of * (of - 1)))).collect();
            let values: Vec<u32> = values.iter().map(|v| v & (u32::MAX >> (32 - width))).collect();
            let mut bytes = Vec::new();
            write(&mut bytes, &values, width);
            prop_assert_eq!(read(&bytes, values.len(), width), values);
        }
    }
}
