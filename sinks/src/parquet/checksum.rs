//! What makes a flipped bit in a file show: the footer of each file tells the CRC-32 of all that comes before it. The library
//! writes no checksums of pages, and readers of other makers pass over what they do not know.

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, KeyValue, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;
use std::io::Read;

/// In the key-value metadata of the footer: eight hexadecimal digits.
const KEY: &str = "tidegate.crc32";
/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What the footer tells of the bytes before it.
pub(super) fn of(before: &[u8]) -> KeyValue {
    KeyValue::new(KEY.to_owned(), hex(crc32fast::hash(before)))
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

/// Reads a file whole. One without a checksum, from before there were any or of another maker, has its columns decoded instead.
pub(super) fn check(file: &impl ChunkReader) -> Result<(), String> {
    let footer = ParquetMetaDataReader::new().parse_and_finish(file).map_err(|e| e.to_string())?;
    let pairs = footer.file_metadata().key_value_metadata();
    let told = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == KEY)?.value.as_deref());
    let Some(told) = told else { return decode(file) };
    let tail = FOOTER_SIZE as u64;
    let end = file.get_bytes(file.len() - tail, FOOTER_SIZE).map_err(|e| e.to_string())?;
    let tail_of_footer = FooterTail::try_from(end.as_ref()).map_err(|e| e.to_string())?;
    let (mut rest, mut crc) = (file.len() - tail - tail_of_footer.metadata_length() as u64, crc32fast::Hasher::new());
    let mut bytes = file.get_read(0).map_err(|e| e.to_string())?;
    let mut piece = vec![0; PIECE_BYTES];
    while rest > 0 {
        let length = rest.min(PIECE_BYTES as u64) as usize;
        bytes.read_exact(&mut piece[..length]).map_err(|e| e.to_string())?;
        crc.update(&piece[..length]);
        rest -= length as u64;
    }
    let found = hex(crc.finalize());
    if found == told { Ok(()) } else { Err(format!("its rows have the checksum {found}, and its footer says {told}: it is damaged")) }
}

fn decode(file: &impl ChunkReader) -> Result<(), String> {
    let bytes = file.get_bytes(0, usize::try_from(file.len()).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build()).map_err(|e| e.to_string())?;
    reader.into_iter().try_for_each(|batch| batch.map(drop)).map_err(|e| e.to_string())
}
