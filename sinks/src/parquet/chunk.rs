//! A column of a file, written by its different values.
//!
//! ```text
//! page of different values │ page: levels, width, numbers │ page │ …      what no compression makes smaller stays uncompressed
//! ```
//! The library's own writer hashes each value of each row; here a block's names are hashed once each, and what readers skip by
//! is found among the different values alone.

use super::distinct::{Distinct, Texts, Values};
use super::hybrid;
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, SortOrder, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Rows of a page.
const PAGE_ROWS: usize = 20_000;
/// A column is compressed where that takes away one part of so many.
const WORTH: usize = 8;
/// Bytes of the least and the greatest text.
const BOUND_BYTES_MAX: usize = 64;

/// A whole column: its bytes, and what the footer says of it.
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub close: ColumnCloseResult,
}

/// Zstd, its memory kept for the whole file.
pub(super) type Compressor = zstd::bulk::Compressor<'static>;

/// Writes a column. No compressor: as it is. Not compared: without least and greatest value.
pub(super) fn write(
    column: &ColumnDescPtr,
    distinct: &Distinct,
    rows: usize,
    level: ZstdLevel,
    mut compressor: Option<&mut Compressor>,
    compared: bool,
) -> Result<Chunk> {
    let pages = pages(distinct, rows, column.max_def_level() > 0);
    if let Some(tried) = compressor.as_deref_mut()
        && !pays(&pages, tried)?
    {
        compressor = None;
    }
    let mut out = TrackedWrite::new(Vec::new());
    let mut writer = SerializedPageWriter::new(&mut out);
    let (count, mut whole, mut stored, mut dictionary) = (pages.len(), 0, 0, 0);
    for mut page in pages {
        let (length, is_dictionary) = (page.buffer().len(), page.is_dictionary_page());
        if let (Some(compressor), Page::DictionaryPage { buf, .. } | Page::DataPage { buf, .. }) = (&mut compressor, &mut page) {
            *buf = compress(compressor, buf)?;
        }
        let spec = writer.write_page(CompressedPage::new(page, length))?;
        (whole, stored) = (whole + spec.uncompressed_size, stored + spec.compressed_size);
        if is_dictionary {
            dictionary = spec.compressed_size;
        }
    }
    let kind = |page_type, encoding, count: usize| PageEncodingStats { page_type, encoding, count: count as i32 };
    let mut metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(if compressor.is_some() { Compression::ZSTD(level) } else { Compression::UNCOMPRESSED })
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
        .set_page_encoding_stats(vec![
            kind(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
            kind(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, count - 1),
        ])
        .set_total_uncompressed_size(whole as i64)
        .set_total_compressed_size(stored as i64)
        .set_num_values(rows as i64)
        .set_dictionary_page_offset(Some(0))
        .set_data_page_offset(dictionary as i64);
    if compared {
        metadata = metadata.set_statistics(statistics(column, distinct, rows));
    }
    let close = ColumnCloseResult {
        bytes_written: stored as u64,
        rows_written: rows as u64,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    Ok(Chunk { bytes: out.into_inner()?.into(), close })
}

/// Whether compression is worth its time, by the page of different values and the first of numbers.
fn pays(pages: &[Page], compressor: &mut Compressor) -> Result<bool> {
    let [values, first, ..] = pages else { return Ok(false) };
    let saved =
        |page: &Page, c: &mut Compressor| Ok::<_, ParquetError>(page.buffer().len().saturating_sub(compress(c, page.buffer())?.len()));
    let times = pages.len() - 1;
    let whole = values.buffer().len() + first.buffer().len() * times;
    Ok((saved(values, compressor)? + saved(first, compressor)? * times) * WORTH >= whole)
}

fn compress(compressor: &mut Compressor, page: &Bytes) -> Result<Bytes> {
    compressor.compress(page).map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)))
}

/// The page of different values, and those of numbers.
fn pages(distinct: &Distinct, rows: usize, optional: bool) -> Vec<Page> {
    let count = distinct.values.len() as u32;
    let width = (u32::BITS - count.saturating_sub(1).leading_zeros()) as u8;
    let first = Page::DictionaryPage { buf: distinct.values.page(), num_values: count, encoding: Encoding::PLAIN, is_sorted: false };
    let mut numbers = distinct.numbers.as_slice();
    let page = |from: usize| {
        let rows = PAGE_ROWS.min(rows - from);
        let valid = distinct.valid.as_ref().map(|valid| valid.slice(from, rows));
        let (these, rest) = numbers.split_at(valid.as_ref().map_or(rows, BooleanBuffer::count_set_bits));
        numbers = rest;
        let mut page = Vec::with_capacity(these.len() * usize::from(width) / 8 + rows / 8 + 64);
        if optional {
            levels(&mut page, valid.as_ref(), rows);
        }
        page.push(width);
        hybrid::write(&mut page, these, width);
        Page::DataPage {
            buf: page.into(),
            num_values: rows as u32,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    };
    std::iter::once(first).chain((0..rows).step_by(PAGE_ROWS).map(page)).collect()
}

/// Which rows have a value, behind the length of saying so.
fn levels(page: &mut Vec<u8>, valid: Option<&BooleanBuffer>, rows: usize) {
    page.extend_from_slice(&[0; 4]);
    match valid {
        Some(valid) => hybrid::write(page, &valid.iter().map(u32::from).collect::<Vec<_>>(), 1),
        None => hybrid::repeat(page, 1, rows, 1),
    }
    let length = page.len() as u32 - 4;
    page[..4].copy_from_slice(&length.to_le_bytes());
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }

    fn page(&self) -> Bytes {
        let page: Vec<u8> = match self {
            Self::Texts(texts) => texts.page.clone(),
            Self::F64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        page.into()
    }
}

fn statistics(column: &ColumnDescPtr, distinct: &Distinct, rows: usize) -> Statistics {
    let nulls = Some((rows - distinct.numbers.len()) as u64);
    let signed = column.sort_order() == SortOrder::SIGNED;
    match &distinct.values {
        Values::Texts(texts) => bounds(texts, nulls),
        Values::F64(values) => {
            // As the footer says that they are ordered: -0.0 before 0.0, and what is no number apart.
            let real = || values.iter().copied().filter(|v| !v.is_nan());
            let nan: Vec<bool> = values.iter().map(|v| v.is_nan()).collect();
            let nans = distinct.numbers.iter().filter(|n| nan[**n as usize]).count() as u64;
            ValueStatistics::new(real().min_by(f64::total_cmp), real().max_by(f64::total_cmp), None, nulls, false)
                .with_nan_count(Some(nans))
                .with_backwards_compatible_min_max(signed)
                .into()
        }
        Values::I64(values) => ValueStatistics::new(values.iter().min().copied(), values.iter().max().copied(), None, nulls, false)
            .with_backwards_compatible_min_max(signed)
            .into(),
        Values::I32(values) => ValueStatistics::new(values.iter().min().copied(), values.iter().max().copied(), None, nulls, false)
            .with_backwards_compatible_min_max(signed)
            .into(),
    }
}

/// The least and the greatest text, or what lies just below and above where they are long.
fn bounds(texts: &Texts, nulls: Option<u64>) -> Statistics {
    const LAST: char = char::MAX;
    let cut = |text: &str| (text.len() > BOUND_BYTES_MAX).then(|| text.floor_char_boundary(BOUND_BYTES_MAX - LAST.len_utf8()));
    let (least, greatest) = (texts.iter().min(), texts.iter().max());
    let (low, high) = (least.and_then(cut), greatest.and_then(cut));
    let bytes = |text: &str| ByteArray::from(text);
    let below = least.map(|text| bytes(low.map_or(text, |end| &text[..end])));
    let above = greatest.and_then(|text| match high {
        None => Some(bytes(text)),
        // Nothing lies above the last of all characters.
        Some(end) => (!text[end..].starts_with(LAST)).then(|| bytes(&format!("{}{LAST}", &text[..end]))),
    });
    ValueStatistics::new(below, above, None, nulls, false).with_min_is_exact(low.is_none()).with_max_is_exact(high.is_none()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_lies_outside_its_bounds() {
        let long = "é".repeat(40);
        let last = char::MAX.to_string().repeat(20);
        for (texts, exact, above) in [
            (vec!["b", "a", ""], true, true),
            (vec![&long, "z"], false, true),
            (vec!["a", &long], false, true),
            // Nothing is known to lie above it.
            (vec!["a", &last], true, false),
        ] {
            let mut known = Texts::default();
            texts.iter().for_each(|text| {
                known.push(text);
            });
            check(&known, &texts, exact, above);
        }
    }

    fn check(known: &Texts, texts: &[&str], exact: bool, above: bool) {
        let told = bounds(known, Some(0));
        let (low, high) = (told.min_bytes_opt().unwrap(), told.max_bytes_opt());
        assert!(texts.iter().all(|t| low <= t.as_bytes() && high.is_none_or(|high| high >= t.as_bytes())), "{texts:?}: {told:?}");
        assert!(low.len() <= BOUND_BYTES_MAX && high.is_none_or(|high| high.len() <= BOUND_BYTES_MAX));
        assert_eq!((told.min_is_exact() && (told.max_is_exact() || !above), high.is_some()), (exact, above), "{texts:?}");
        assert!(str::from_utf8(low).is_ok() && high.is_none_or(|high| str::from_utf8(high).is_ok()));
    }
}
