//! API keys: `tg_<id>_<secret><checksum>`.
//!
//! The id finds the key, the secret (256 bits, 64 hex digits) proves it, and the checksum (CRC-32, 8 hex digits, over all
//! before it) tells a typing error from an unknown key and lets scanners of source code recognise one. Only a SHA-256 of
//! the secret is stored; a fast hash is right here, because 256 random bits cannot be guessed.

use super::Denial;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::ApiKey;
use tidegate_schemas::ids::CredentialId;
use tidegate_schemas::secret::Secret;
use tidegate_schemas::time::Micros;

const PREFIX: &str = "tg_";
const SECRET_DIGITS: usize = 64;
const CHECKSUM_DIGITS: usize = 8;
/// Compared on a miss, so that a miss takes as long as a hit.
const NOBODY: [u8; 32] = [0; 32];

/// The printable key: shown once, to whom it is issued. `id` is letters and digits only.
pub fn issue_key(id: &CredentialId, secret: &[u8; 32]) -> String {
    let mut key = format!("{PREFIX}{id}_{}", hex::encode(secret));
    let checksum = crc32fast::hash(key.as_bytes());
    // Writing to a String cannot fail.
    let _ = write!(key, "{checksum:08x}");
    key
}

/// What is stored of a secret: its SHA-256 in hex, as [`ApiKey::sha256`] holds it.
pub fn hash_secret(secret: &[u8; 32]) -> String {
    hex::encode(Sha256::digest(secret))
}

/// The key's definition, where `text` is a live key of the catalog.
pub(crate) fn verify<'c>(catalog: &'c Catalog, text: &str, now: Micros) -> Result<&'c Arc<ApiKey>, Denial> {
    let (id, secret) = parse(text).ok_or(Denial::Malformed)?;
    let found = catalog.key(id);
    let mut stored = NOBODY;
    if let Some(key) = found {
        // The catalog checked its form when the key was published.
        hex::decode_to_slice(&key.sha256, &mut stored).map_err(|_| Denial::Unknown)?;
    }
    let right = Secret::new(stored.to_vec()).matches(&Sha256::digest(secret.expose()));
    let key = found.filter(|_| right).ok_or(Denial::Unknown)?;
    if key.expires_at.is_some_and(|end| end <= now) {
        return Err(Denial::Expired);
    }
    Ok(key)
}

/// Whether a text that is no credential has the looks of one.
pub(super) fn looks_like_one(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<(&str, Secret)> {
    let (body, checksum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_DIGITS)?)?;
    let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
    if secret.len() != SECRET_DIGITS || u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(body.as_bytes()) {
        return None;
    }
    Some((id, Secret::new(hex::decode(secret).ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_reads_back_and_no_changed_byte_passes() {
        let id = CredentialId::new("k1").unwrap();
        let key = issue_key(&id, &[7; 32]);
        let (found, secret) = parse(&key).unwrap();
        assert_eq!((found, secret.expose()), ("k1", &[7; 32][..]));
        for at in 0..key.len() {
            let mut bytes = key.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(parse(&changed).is_none(), "{changed}");
            assert!(parse(&key[..at]).is_none());
        }
        for text in ["", "tg_", "tg_k1_", "tg_k1_00000000", "ää_ääääääää"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
