//! RFC 4648 base64, padded or not.

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Puts what a text stands for in place of what `out` held. Most texts are right and padded: they are read many bytes at a time;
/// the others are judged, in words, by who reads one after the other.
pub(crate) fn from_base64(text: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.clear();
    if base64_simd::STANDARD.decode_append(text, &mut *out).is_ok() {
        return Ok(());
    }
    out.clear();
    BASE64.decode_vec(text, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        // Texts that are right, and such with a character or two that are not.
        #[test]
        fn both_readers_agree(bytes in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), other in "[A-Za-z0-9+/=_ \n-]{0,2}", cut in 0..4usize) {
            let mut text = to_base64(&bytes);
            if !text.is_empty() {
                text.truncate(text.len() - cut.min(text.len()));
                let at = at.index(text.len() + 1);
                text.replace_range(at..(at + other.len()).min(text.len()), &other);
            }
            let mut out = vec![1, 2, 3];
            let read = from_base64(text.as_bytes(), &mut out).map(|()| out);
            prop_assert_eq!(read, BASE64.decode(&text), "{}", text);
        }
    }
}
