//! The only holder of a secret. It is neither `Debug`, `Display` nor serialisable, so it cannot reach a log by accident.

use subtle::ConstantTimeEq;

/// Bytes that no output may show.
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Compares in a time that depends on the lengths only.
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from removing the store above as dead.
        std::hint::black_box(&self.0);
    }
}
