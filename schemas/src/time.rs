//! Time as microseconds since 1970 in UTC, the one unit that Delta and ClickHouse share.

use crate::limits::{TIMESTAMP_YEAR_MAX, TIMESTAMP_YEAR_MIN};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// A day has so many.
pub const DAY: Micros = 86_400_000_000;

/// What a row may carry: readers of tables do not all hold more. See [`TIMESTAMP_YEAR_MIN`] and [`TIMESTAMP_YEAR_MAX`].
pub const STORABLE: std::ops::Range<Micros> = year(TIMESTAMP_YEAR_MIN as i64)..year(TIMESTAMP_YEAR_MAX as i64 + 1);

/// The first microsecond of a year of the Gregorian calendar from 1 on.
const fn year(year: i64) -> Micros {
    let before = year - 1;
    let days = before * 365 + before / 4 - before / 100 + before / 400;
    // Days of the years 1 to 1969.
    (days - 719_162) * DAY
}

/// Reads RFC 3339 text; `None` where it is none or lies outside the years −9999 to 9999.
pub fn parse(text: &str) -> Option<Micros> {
    // RFC 3339 demands an offset; jiff refuses a text without one. Its last second has no microseconds.
    let at = text.parse::<Timestamp>().ok()?.as_microsecond();
    Timestamp::from_microsecond(at).is_ok().then_some(at)
}

/// Whether a text that [`parse`] does not read is a time all the same, at the edge of the years that it reads.
pub fn is_beyond(text: &str) -> bool {
    let pieces = DateTimeParser::new().parse_pieces(text);
    parse(text).is_none() && pieces.is_ok_and(|p| p.time().is_some() && p.to_numeric_offset().is_some())
}

/// Writes RFC 3339 text in UTC with as many digits as needed.
pub fn format(at: Micros) -> String {
    Timestamp::from_microsecond(at).map_or_else(|_| format!("{at}us"), |t| t.to_string())
}

/// Milliseconds since 1970, fraction to the microsecond; `None` where the number is not finite or out of range.
pub fn from_millis(millis: f64) -> Option<Micros> {
    let micros = (millis * 1_000.0).round();
    (micros.is_finite() && Timestamp::from_microsecond(micros as i64).is_ok() && micros.abs() < 9e18).then_some(micros as i64)
}

/// The day of `at` as `YYYY-MM-DD`.
pub fn date(at: Micros) -> String {
    let text = format(at);
    text.split_once('T').map_or(text.clone(), |(day, _)| day.to_owned())
}

/// The number of the day of `at` since 1970-01-01.
pub fn day(at: Micros) -> i32 {
    at.div_euclid(DAY) as i32
}
