//! The different values of a column, in the order in which they first come, and which of them each row has.
//!
//! The blocks of the log bring dictionaries of their names: each name is looked up once a block rather than once a row.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, PrimitiveArray, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::ops::Range;

/// Bytes of different names that are looked for, at most.
const NAMES_BYTES_MAX: usize = 1 << 20;
/// Bytes of different readings or texts, at most; and of each row, or their numbers save nothing.
const READINGS_BYTES_MAX: usize = 64 << 10;
const READINGS_ROW_BYTES: usize = 2;
/// Rows between two changes of a whole number or time, at least and in the mean: else its differences take fewer bytes.
const STEADY_ROWS: usize = 512;

/// A column by its different values.
pub(super) struct Distinct {
    /// Those.
    pub values: Values,
    /// The number of its value for each row that has one.
    pub numbers: Vec<u32>,
    /// Which rows have one; none where all have.
    pub valid: Option<BooleanBuffer>,
}

/// Different values.
pub(super) enum Values {
    Texts(Texts),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
}

/// Texts as a page of a file has them: each behind its length.
#[derive(Default)]
pub(super) struct Texts {
    pub page: Vec<u8>,
    places: Vec<Range<u32>>,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        // They were texts.
        (0..self.len()).filter_map(|n| str::from_utf8(self.at(n as u32)).ok())
    }

    fn at(&self, number: u32) -> &[u8] {
        let place = &self.places[number as usize];
        &self.page[place.start as usize..place.end as usize]
    }

    pub(super) fn push(&mut self, text: &str) -> u32 {
        self.page.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let start = self.page.len() as u32;
        self.page.extend_from_slice(text.as_bytes());
        self.places.push(start..self.page.len() as u32);
        self.places.len() as u32 - 1
    }
}

/// A column's different values; `None` where they are too many, or there are none, or it is of another type.
pub(super) fn distinct(kind: &DataType, arrays: &[&ArrayRef]) -> Option<Distinct> {
    let rows = arrays.iter().map(|a| a.len()).sum::<usize>();
    let readings = READINGS_BYTES_MAX.min(rows * READINGS_ROW_BYTES);
    let changes = rows / STEADY_ROWS + 1;
    let (values, numbers) = match kind {
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => names(arrays, rows)?,
        DataType::Utf8 => texts(arrays, rows, readings)?,
        DataType::Float64 => numbers_of::<Float64Type>(arrays, rows, readings / 8, rows, |v| v.to_bits(), Values::F64)?,
        DataType::Int32 => numbers_of::<Int32Type>(arrays, rows, changes, changes, |v| v as u64, Values::I32)?,
        DataType::Int64 => numbers_of::<Int64Type>(arrays, rows, changes, changes, |v| v as u64, Values::I64)?,
        DataType::Timestamp(..) => numbers_of::<TimestampMicrosecondType>(arrays, rows, changes, changes, |v| v as u64, Values::I64)?,
        _ => return None,
    };
    // A page of no values is what readers know least.
    (!numbers.is_empty()).then(|| Distinct { values, numbers, valid: valid(arrays, rows) })
}

fn valid(arrays: &[&ArrayRef], rows: usize) -> Option<BooleanBuffer> {
    if arrays.iter().all(|a| a.null_count() == 0) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(rows);
    for array in arrays {
        match array.nulls() {
            Some(nulls) => valid.append_buffer(nulls.inner()),
            None => valid.append_n(array.len(), true),
        }
    }
    Some(valid.finish())
}

fn each_valid(array: &dyn Array, mut each: impl FnMut(usize) -> Option<()>) -> Option<()> {
    match array.nulls().filter(|n| n.null_count() > 0) {
        Some(nulls) => nulls.valid_indices().try_for_each(each),
        None => (0..array.len()).try_for_each(&mut each),
    }
}

fn names(arrays: &[&ArrayRef], rows: usize) -> Option<(Values, Vec<u32>)> {
    const UNKNOWN: u32 = u32::MAX;
    let (mut known, mut numbers) = (Known::default(), Vec::with_capacity(rows));
    for array in arrays {
        let array = array.as_dictionary_opt::<Int32Type>()?;
        let texts = array.values().as_string_opt::<i32>().filter(|t| t.null_count() == 0)?;
        let keys = array.keys().values();
        let mut of_block = vec![UNKNOWN; texts.len()];
        each_valid(array, |row| {
            let number = of_block.get_mut(keys[row] as usize)?;
            if *number == UNKNOWN {
                *number = known.number(texts.value(keys[row] as usize), NAMES_BYTES_MAX)?;
            }
            numbers.push(*number);
            Some(())
        })?;
    }
    Some((Values::Texts(known.texts), numbers))
}

fn texts(arrays: &[&ArrayRef], rows: usize, bytes_max: usize) -> Option<(Values, Vec<u32>)> {
    let (mut known, mut numbers) = (Known::default(), Vec::with_capacity(rows));
    for array in arrays {
        let array: &StringArray = array.as_string_opt()?;
        each_valid(array, |row| {
            numbers.push(known.number(array.value(row), bytes_max)?);
            Some(())
        })?;
    }
    Some((Values::Texts(known.texts), numbers))
}

/// Texts that have a number.
#[derive(Default)]
struct Known {
    hash: DefaultHashBuilder,
    table: HashTable<u32>,
    texts: Texts,
}

impl Known {
    fn number(&mut self, text: &str, bytes_max: usize) -> Option<u32> {
        let (hash, texts) = (&self.hash, &mut self.texts);
        let code = hash.hash_one(text.as_bytes());
        if let Some(found) = self.table.find(code, |n| texts.at(*n) == text.as_bytes()) {
            return Some(*found);
        }
        if texts.page.len() + size_of::<u32>() + text.len() > bytes_max {
            return None;
        }
        let number = texts.push(text);
        self.table.insert_unique(code, number, |n| hash.hash_one(texts.at(*n)));
        Some(number)
    }
}

/// Values that are told apart by their bits: -0.0 is not 0.0. Nothing is looked up while a value stays.
fn numbers_of<T: ArrowPrimitiveType>(
    arrays: &[&ArrayRef],
    rows: usize,
    values_max: usize,
    changes_max: usize,
    bits: impl Fn(T::Native) -> u64,
    as_values: impl Fn(Vec<T::Native>) -> Values,
) -> Option<(Values, Vec<u32>)> {
    // Seeded: a sender must not find values that fall on one place.
    let hash = DefaultHashBuilder::default();
    let (mut values, mut numbers): (Vec<T::Native>, _) = (Vec::new(), Vec::with_capacity(rows));
    let (mut table, mut last, mut changes) = (HashTable::new(), None, 0);
    for array in arrays {
        let array: &PrimitiveArray<T> = array.as_primitive_opt()?;
        let of_block = array.values();
        each_valid(array, |row| {
            let value = bits(of_block[row]);
            if let Some((same, number)) = last
                && same == value
            {
                numbers.push(number);
                return Some(());
            }
            changes += 1;
            let code = hash.hash_one(value);
            let number = match table.find(code, |n: &u32| bits(values[*n as usize]) == value) {
                Some(found) => *found,
                None if values.len() >= values_max => return None,
                None => {
                    values.push(of_block[row]);
                    let number = values.len() as u32 - 1;
                    *table.insert_unique(code, number, |n| hash.hash_one(bits(values[*n as usize]))).get()
                }
            };
            numbers.push(number);
            last = Some((value, number));
            (changes <= changes_max).then_some(())
        })?;
    }
    Some((as_values(values), numbers))
}
