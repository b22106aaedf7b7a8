//! Kafka's errors as ours.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::fmt::Display;
use tidegate_schemas::log::LogError;

/// The medium failed.
pub fn io(doing: impl Display, error: impl Display) -> LogError {
    LogError::Io { doing: doing.to_string(), detail: error.to_string() }
}

/// A topic that went away behind our back.
pub fn deleted(topic: &str) -> LogError {
    LogError::Unfit {
        place: format!("topic {topic}"),
        detail: "it is not there any more, or this user may not see it".into(),
        remedy: "restore it or the right to it, or begin a new log with another log.kafka.topic_prefix".into(),
    }
}

/// Fewer records than were known to be there.
pub fn truncated(topic: &str, partition: u32, end: u64, known: u64) -> LogError {
    LogError::Unfit {
        place: format!("topic {topic}, partition {partition}"),
        detail: format!("it ends at offset {end}, and offsets up to {known} are known to be written: it was truncated or made anew"),
        remedy: "restore it, or begin a new log with another log.kafka.topic_prefix".into(),
    }
}

/// The code of an error, of admin operations too.
pub fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Whether the topic or partition is not there.
pub fn is_missing(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
    matches!(code, Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition | UnknownTopicId))
}

/// Whether another broker leads since, or none for the moment.
pub fn is_moving(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{
        BrokerTransportFailure, FencedLeaderEpoch, LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable, UnknownLeaderEpoch,
        WaitingForCoordinator,
    };
    matches!(
        code,
        Some(
            BrokerTransportFailure
                | FencedLeaderEpoch
                | LeaderNotAvailable
                | NotLeaderForPartition
                | OffsetNotAvailable
                | UnknownLeaderEpoch
                | WaitingForCoordinator
        )
    )
}

/// Whether another producer of the same transactional id took over.
pub fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch)
}

/// An error on a topic.
pub fn of_topic(doing: &str, topic: &str, error: &KafkaError) -> LogError {
    let code = code(error);
    if is_missing(code) {
        return deleted(topic);
    }
    let right = |operation: &str| LogError::Unfit {
        place: format!("topic {topic}"),
        detail: format!("this user may not {doing}: {error}"),
        remedy: format!("allow it to {operation} (kafka-acls --add)"),
    };
    match code {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => right("describe, read and write the topic"),
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => right("write idempotently"),
        Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => right("describe and write the transactional ids of the prefix"),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => right("read the group of the prefix"),
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => LogError::Unfit {
            place: format!("topic {topic}"),
            detail: format!("the broker refuses a record as too large: {error}"),
            remedy: format!("set its max.message.bytes to {} at least", tidegate_schemas::limits::KAFKA_MESSAGE_BYTES_MAX),
        },
        _ => io(format!("{doing} topic {topic}"), error),
    }
}
