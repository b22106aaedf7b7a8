//! The topics and what they are called.

use super::settings::KafkaSettings;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::{LogError, LogName};

/// One topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One of the five logs.
    Log(LogName),
    /// The log's id, sinks' cursors and trim points.
    Meta,
}

impl Topic {
    /// All of them, `meta` first.
    pub const ALL: [Self; 6] = [
        Self::Meta,
        Self::Log(LogName::Raw),
        Self::Log(LogName::Clean),
        Self::Log(LogName::Audit),
        Self::Log(LogName::Commits),
        Self::Log(LogName::Control),
    ];

    /// Partitions, where the log has so many.
    pub fn width(self, partitions: u32) -> u32 {
        match self {
            Self::Log(LogName::Control) | Self::Meta => 1,
            Self::Log(_) => partitions,
        }
    }

    /// What brokers may do by themselves.
    pub fn cleanup(self) -> &'static str {
        if self == Self::Meta { "compact" } else { "delete" }
    }

    /// Whose time records carry: that of `meta` tells how far clocks are apart.
    pub fn clock(self) -> &'static str {
        if self == Self::Meta { "LogAppendTime" } else { "CreateTime" }
    }

    /// Whether an offset below the end may hold no record: markers of transactions take offsets, and compaction leaves
    /// gaps.
    pub fn has_gaps(self) -> bool {
        matches!(self, Self::Log(LogName::Clean | LogName::Audit | LogName::Commits) | Self::Meta)
    }

    /// A number for tables.
    pub fn index(self) -> usize {
        match self {
            Self::Log(LogName::Raw) => 0,
            Self::Log(LogName::Clean) => 1,
            Self::Log(LogName::Audit) => 2,
            Self::Log(LogName::Commits) => 3,
            Self::Log(LogName::Control) => 4,
            Self::Meta => 5,
        }
    }

    /// The log, or `meta`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log(name) => name.as_str(),
            Self::Meta => "meta",
        }
    }
}

/// Names of a log's topics.
pub struct Names {
    prefix: String,
    topics: [String; 6],
}

impl Names {
    /// Checks the prefix.
    pub fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        let prefix = settings.topic_prefix.clone();
        if prefix.len() > 200 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(LogError::Unfit {
                place: "log.kafka.topic_prefix".into(),
                detail: format!("{prefix:?} cannot begin the name of a topic"),
                remedy: "Kafka takes up to 200 characters of a-z, A-Z, 0-9, '.', '-' and '_'".into(),
            });
        }
        let mut topics: [String; 6] = Default::default();
        for topic in Topic::ALL {
            topics[topic.index()] = format!("{prefix}{}", topic.as_str());
        }
        Ok(Self { prefix, topics })
    }

    /// The name of a topic.
    pub fn of(&self, topic: Topic) -> &str {
        &self.topics[topic.index()]
    }

    /// What all of them begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The transactional id by which rights are tried; nothing is committed under it.
    pub fn doctor(&self) -> String {
        format!("{}doctor", self.prefix)
    }

    /// Who holds this id may commit to the partition; whoever takes it fences the one before.
    pub fn transactional_id(&self, log: LogId, partition: Partition) -> String {
        format!("{}{log}-{partition}", self.prefix)
    }
}
