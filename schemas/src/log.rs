//! The contract of the five logs. Two implementations (embedded, Apache Kafka) pass one suite of tests.

use crate::BoxFuture;
use crate::ids::{Epoch, LogId, Partition};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

/// One of the five logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// Requests as accepted.
    Raw,
    /// Rows of tenants' tables.
    Clean,
    /// Rows of system tables, and outcomes.
    Audit,
    /// One record for each epoch.
    Commits,
    /// Definitions by revision; one partition.
    Control,
}

impl LogName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Clean, Self::Audit, Self::Commits, Self::Control];

    /// As in topics and folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Clean => "clean",
            Self::Audit => "audit",
            Self::Commits => "commits",
            Self::Control => "control",
        }
    }
}

/// One header: a name and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// ASCII, lower case.
    pub name: Cow<'static, str>,
    /// Text where its meaning is one.
    pub value: Bytes,
}

impl Header {
    /// A header of a fixed name.
    pub fn new(name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        Self { name: Cow::Borrowed(name), value: Bytes::from(value.into()) }
    }
}

/// One record as it stands in a log. At most [`crate::limits::RECORD_BYTES_MAX`] bytes of value, and some of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What other clients partition by.
    pub key: Bytes,
    /// In order.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Bytes,
}

impl Record {
    /// The bytes of a header.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|h| h.name == name).map(|h| &*h.value)
    }

    /// Roughly the bytes that it takes.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.len() + self.headers.iter().map(|h| h.name.len() + h.value.len() + 8).sum::<usize>()
    }
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset; offsets rise and may have gaps.
    pub offset: u64,
    /// What stands there.
    pub record: Record,
}

/// The right to commit to one partition, until somebody else fences it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The partition.
    pub partition: Partition,
    /// Rises with each fence.
    pub generation: u64,
}

/// Where the records of an epoch came to stand; empty ranges where it had none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Offsets in `clean`, first to one past the last.
    pub clean: Range<u64>,
    /// Offsets in `audit`.
    pub audit: Range<u64>,
}

/// Everything that one epoch writes. It becomes visible as a whole or not at all.
pub struct CommitUnit {
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch's header and blocks for `clean`.
    pub clean: Vec<Record>,
    /// The epoch's header and blocks for `audit`.
    pub audit: Vec<Record>,
    /// Makes the record for `commits`, once the places of the others are known. Kafka gives other places to what is
    /// written again after an aborted transaction, so it may be asked more than once.
    pub commit: Box<dyn Fn(&Written) -> Record + Send>,
    /// Offset of the first record of `raw` that is still needed: what lies before is processed.
    pub raw_next: u64,
}

/// A sink's place in the output of one partition: only at common edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SinkCursor {
    /// The next offset to read in `clean`.
    pub clean: u64,
    /// The next offset to read in `audit`.
    pub audit: u64,
    /// The next epoch.
    pub epoch: Epoch,
}

/// Bytes of a log on its medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub bytes: u64,
    /// Allowed in all.
    pub budget: u64,
}

impl Usage {
    /// Per cent of the budget in use, rounded down.
    pub fn percent(self) -> u64 {
        self.bytes.saturating_mul(100) / self.budget.max(1)
    }

    /// So many per cent of the budget.
    pub fn share(self, percent: usize) -> u64 {
        (self.budget / 100).saturating_mul(percent as u64)
    }
}

/// What reading everything found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// The first damaged place of each file that has one.
    pub damage: Vec<LogError>,
}

/// Why a log could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The budget or a queue is full. Nothing was written.
    #[error("log is full: {used} of {budget} bytes")]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        budget: u64,
    },
    /// The owner was fenced by another.
    #[error("owner {generation} of partition {partition} was fenced by a newer one")]
    Fenced {
        /// The partition.
        partition: Partition,
        /// The generation that lost its right.
        generation: u64,
    },
    /// What was to be read is deleted.
    #[error(
        "offsets from {from} on of {log} {partition} are gone: the log starts at {start}; `tidegate run --accept-gap` goes on there, once"
    )]
    Gone {
        /// Name of the log.
        log: &'static str,
        /// The partition.
        partition: Partition,
        /// Asked for.
        from: u64,
        /// First offset that exists.
        start: u64,
    },
    /// The stored bytes are wrong.
    #[error("log is corrupt at {place}: {detail}; restore this file from a copy, or move the folder away")]
    Corrupt {
        /// File and byte.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Another process writes to the folder.
    #[error("{folder} is in use by another process (pid {pid}); stop it, or use another folder")]
    InUse {
        /// The folder.
        folder: String,
        /// Process id of the owner, 0 where unknown.
        pid: u32,
    },
    /// Not the log that was expected.
    #[error("log {found} with {found_partitions} partitions was found where {detail}")]
    Foreign {
        /// Its id.
        found: LogId,
        /// Its partitions.
        found_partitions: u32,
        /// What was expected.
        detail: String,
    },
    /// The log is not as it must be, and no retry mends it.
    #[error("{place}: {detail}; {remedy}")]
    Unfit {
        /// The topic or setting.
        place: String,
        /// What is wrong.
        detail: String,
        /// What mends it.
        remedy: String,
    },
    /// A record is larger than a log takes.
    #[error("record of {bytes} bytes is larger than the log takes ({max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The medium failed. What was not acknowledged may or may not be there.
    #[error("{doing}: {detail}")]
    Io {
        /// What was under way.
        doing: String,
        /// What the system said.
        detail: String,
    },
    /// The log is closing.
    #[error("log is closed")]
    Closed,
}

/// The five logs.
pub trait EventLog: Send + Sync + 'static {
    /// Minted once with the log.
    fn log_id(&self) -> LogId;

    /// Partitions of every log but `control`, which has one.
    fn partitions(&self) -> u32;

    /// Appends to `raw` or `control`; resolves once all records are durable, to their offsets in the order given.
    /// `raw` refuses at [`crate::limits::INTAKE_STOPS_PERCENT`]; `control` never does.
    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>>;

    /// Offsets from the first that exists to one past the last that is durable and committed.
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError>;

    /// Committed records from `from` on, in order: at least one where there is one, then as many as fit into `bytes_max`. Those
    /// of [`crate::limits::RECORD_ALONE_BYTES`] and more share no memory with others.
    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError>;

    /// The same for who reads on where it was: waits up to `timeout` for the first of them, and none is an answer. What was
    /// committed a moment ago may come a moment later than [`Self::read`] shows it; in turn nothing is asked of the log.
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError>;

    /// Takes the partition over: every earlier owner fails from now on.
    fn fence(&self, partition: Partition) -> Result<Owner, LogError>;

    /// Writes epochs atomically, each with all of its records; blocks until they are durable.
    /// Answers [`LogError::Full`] while the log is above [`crate::limits::SEALING_STOPS_PERCENT`], and for epochs without events above
    /// [`crate::limits::TICKS_STOP_PERCENT`].
    fn commit(&self, owner: &Owner, units: Vec<CommitUnit>) -> Result<Vec<Written>, LogError>;

    /// A sink's cursor.
    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError>;

    /// Stores a sink's cursor durably. What lies before every sink's cursor may be deleted.
    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError>;

    /// Names of the sinks that have a cursor, in order.
    fn sinks(&self) -> Result<Vec<String>, LogError>;

    /// Forgets a sink's cursors, durably: it holds nothing any more. One that comes back begins where the log does.
    fn forget_sink(&self, sink: &str) -> Result<(), LogError>;

    /// Keeps everything from `from` on in this log and partition, under a name; a later call replaces it, `None` lifts it.
    /// Holds live as long as the process: who needs one says so before it reads.
    fn hold(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>);

    /// Deletes what no cursor, hold or horizon needs. Returns the bytes freed.
    fn trim(&self) -> Result<u64, LogError>;

    /// Bytes in use and allowed.
    fn usage(&self) -> Usage;

    /// Why nothing can be written now, for as long as that lasts.
    fn failing(&self) -> Option<LogError> {
        None
    }

    /// Reads all that is stored against its checksums; blocks for as long as the disk takes. Nothing where the medium does
    /// so by itself.
    fn inspect(&self) -> Result<Inspection, LogError> {
        Ok(Inspection::default())
    }
}
