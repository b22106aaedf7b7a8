//! Which records of `control` count. Several processes may append to it at once, and only one of them knew what stood
//! there: each record names the one that it follows, so whatever was written without knowing the newest does not count,
//! for any reader.
//!
//! ```text
//! a1 ◀ a2 ◀ b3 ◀ b4        a3, which follows a2 as b3 does and stands behind it, does not count; nor what follows a3
//! ```

use super::{Change, ChangeError};
use crate::ids::Revision;
use crate::log::{Header, Record};
use sha2::{Digest, Sha256};

const FOLLOWS: &str = "tg-follows";

/// Names a record of `control`: the hash of its change and of all that counted before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeId([u8; 16]);

/// The sequence of changes up to some record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    newest: Revision,
    last: ChangeId,
}

impl Chain {
    /// Revision of the last change.
    pub fn newest(&self) -> Revision {
        self.newest
    }

    /// The last change.
    pub fn last(&self) -> ChangeId {
        self.last
    }

    /// Appends a change, which has the next revision, and returns its record.
    pub fn append(&mut self, change: &Change) -> Record {
        let mut record = change.record();
        record.headers.push(Header::new(FOLLOWS, hex::encode(self.last.0)));
        (self.newest, self.last) = (change.revision, self.id_of(&record));
        record
    }

    /// Takes the next record of the log; tells whether it counts.
    ///
    /// # Errors
    /// A record that says nothing of its place.
    pub fn take(&mut self, record: &Record) -> Result<bool, ChangeError> {
        let text = |name: &str| record.header(name).and_then(|v| std::str::from_utf8(v).ok());
        let revision: Revision =
            text("tg-revision").and_then(|r| r.parse().ok()).ok_or_else(|| ChangeError("it has no revision".into()))?;
        let follows = text(FOLLOWS).ok_or_else(|| ChangeError("it does not say what it follows".into()))?;
        if revision != self.newest + 1 || follows != hex::encode(self.last.0) {
            return Ok(false);
        }
        (self.newest, self.last) = (revision, self.id_of(record));
        Ok(true)
    }

    fn id_of(&self, record: &Record) -> ChangeId {
        let digest = Sha256::new().chain_update(self.last.0).chain_update(&record.value).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        ChangeId(id)
    }
}
