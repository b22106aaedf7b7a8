//! The one place where clients are configured.
//!
//! ```text
//! publisher      one, idempotent: raw, control, meta        transactional  one for each owned partition: output, commits
//! reader, probe  read committed records, in no group        member         a group over raw or clean: membership, never a record
//! asker          metadata and offsets                       admin          creates, describes, deletes
//! ```

use super::client::{Context, PUBLISHER, Told};
use super::errors::io;
use super::membership::MemberContext;
use super::producer::{Deliveries, Producer};
use super::settings::KafkaSettings;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use std::path::Path;
use std::sync::Arc;
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;
use tidegate_schemas::secret::Secret;

/// Milliseconds: a member hears of a rebalance by its next heartbeat, so this is what a move of partitions waits for.
const HEARTBEAT_MAX: u32 = 1_000;

/// Makes clients.
pub struct Clients {
    settings: KafkaSettings,
    password: Option<Secret>,
    key_password: Option<Secret>,
    /// What brokers say to them.
    pub told: Arc<Told>,
}

impl Clients {
    /// Fetches the secrets.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        let password = settings.sasl.as_ref().map(|s| s.password.load("log.kafka.sasl.password")).transpose()?;
        let key_password = settings.tls.as_ref().and_then(|t| t.key_password.as_ref());
        let key_password = key_password.map(|p| p.load("log.kafka.tls.key_password")).transpose()?;
        Ok(Self { settings, password, key_password, told: Arc::default() })
    }

    /// How Kafka is reached.
    pub fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    /// Appends outside transactions.
    pub fn publisher(&self) -> Result<Producer, LogError> {
        let mut config = self.producer()?;
        config.set("message.timeout.ms", self.settings.delivery_milliseconds.to_string()).set("linger.ms", "2");
        // The one client whose statistics are looked at: they also tell when a broker is back.
        config.set("statistics.interval.ms", "1000");
        Producer::start(&config, Deliveries(self.context(PUBLISHER))).map_err(|e| self.failed(PUBLISHER, &e))
    }

    /// Appends in transactions, and fences whoever had this id before.
    pub fn transactional(&self, id: &str) -> Result<Producer, LogError> {
        let mut config = self.producer()?;
        let (transaction, delivery) = (self.settings.transaction_milliseconds, self.settings.delivery_milliseconds);
        config.set("transactional.id", id).set("transaction.timeout.ms", transaction.to_string());
        config.set("message.timeout.ms", transaction.min(delivery).to_string());
        // Whole epochs are handed over at once: there is nothing to wait for.
        config.set("linger.ms", "0");
        Producer::start(&config, Deliveries(self.context("committer"))).map_err(|e| self.failed("committer", &e))
    }

    /// Reads committed records from a place of its own. What it asks stays with the broker until something new comes, or for so
    /// long, and everything else that it asks waits behind that, wherever it is sent meanwhile. So one that follows waits for long,
    /// and is idle; one for stretches soon comes back.
    pub fn reader(&self, follows: bool) -> Result<BaseConsumer<Context>, LogError> {
        let wait_milliseconds = if follows { "500" } else { "10" };
        self.create(self.consumer(wait_milliseconds, limits::KAFKA_MESSAGE_BYTES_MAX)?, "reader")
    }

    /// Finds out whether there is a record at all: it learns of an end within milliseconds, and is idle otherwise.
    pub fn probe(&self) -> Result<BaseConsumer<Context>, LogError> {
        // One batch is enough: it is the first record that is wanted.
        self.create(self.consumer("5", 1)?, "probe")
    }

    /// Asks for metadata and offsets; transactions under way end what is seen of a log.
    pub fn asker(&self) -> Result<BaseConsumer<Context>, LogError> {
        let mut config = self.base()?;
        config.set("isolation.level", "read_committed");
        self.create(config, "asker")
    }

    /// A member of a group.
    pub fn member(&self, group: &str, context: impl FnOnce(Context) -> MemberContext) -> Result<BaseConsumer<MemberContext>, LogError> {
        let session = self.settings.session_milliseconds;
        let mut config = self.base()?;
        config.set("group.id", group).set("partition.assignment.strategy", "cooperative-sticky");
        config
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 5).clamp(1, HEARTBEAT_MAX).to_string());
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false").set("auto.offset.reset", "error");
        config.create_with_context(context(self.context("member"))).map_err(|e| self.failed("member", &e))
    }

    /// Creates topics, describes them, deletes records. Nobody polls it, so it is made for one task and dropped.
    pub fn admin(&self) -> Result<AdminClient<Context>, LogError> {
        self.base()?.create_with_context(self.context("admin")).map_err(|e| self.failed("admin", &e))
    }

    fn producer(&self) -> Result<ClientConfig, LogError> {
        let mut config = self.base()?;
        config.set("enable.idempotence", "true").set("acks", "all").set("compression.type", "lz4");
        config.set("message.max.bytes", limits::KAFKA_MESSAGE_BYTES_MAX.to_string()).set("batch.size", "1000000");
        // What is refused is refused by us, before: an epoch of many records or one publisher too many never meets these.
        config.set("queue.buffering.max.messages", "2000000");
        config.set("queue.buffering.max.kbytes", (2 * limits::COMMIT_BYTES_MAX / 1024).to_string());
        Ok(config)
    }

    fn create(&self, config: ClientConfig, role: &'static str) -> Result<BaseConsumer<Context>, LogError> {
        config.create_with_context(self.context(role)).map_err(|e| self.failed(role, &e))
    }

    fn consumer(&self, wait_milliseconds: &str, fetch_bytes: usize) -> Result<ClientConfig, LogError> {
        let mut config = self.base()?;
        // It never joins: librdkafka wants a name before it lets anyone assign.
        config.set("group.id", format!("{}readers", self.settings.topic_prefix));
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false").set("check.crcs", "true");
        config.set("fetch.wait.max.ms", wait_milliseconds).set("fetch.error.backoff.ms", "100");
        let ahead = self.settings.read_ahead_bytes.max(limits::KAFKA_MESSAGE_BYTES_MAX as u64);
        config.set("queued.max.messages.kbytes", (ahead / 1024).to_string()).set("queued.min.messages", "10000");
        // One that has fetched enough ahead goes on this soon after somebody took of it: with the second that it waits otherwise,
        // no partition gives more than this and a second's worth.
        config.set("fetch.queue.backoff.ms", "5");
        config.set("max.partition.fetch.bytes", fetch_bytes.to_string());
        config.set("fetch.max.bytes", (2 * limits::KAFKA_MESSAGE_BYTES_MAX).to_string());
        Ok(config)
    }

    fn base(&self) -> Result<ClientConfig, LogError> {
        let s = &self.settings;
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.set("bootstrap.servers", s.brokers.join(",")).set("client.id", "tidegate");
        // Back within a second after a broker's restart instead of five to seven.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
        config.set("socket.keepalive.enable", "true").set("socket.nagle.disable", "true").set("allow.auto.create.topics", "false");
        // A topic that does not show up within this is not there.
        config.set("topic.metadata.propagation.max.ms", "5000");
        // A client that is idle for long is no news.
        config.set("log.connection.close", "false");
        let protocol = match (&s.tls, &s.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &s.tls {
            let ca = tls.ca_file.as_deref().map_or(Ok("probe".into()), |p| text(p, "log.kafka.tls.ca_file"))?;
            config.set("ssl.ca.location", ca);
            for (key, setting, path) in [
                ("ssl.certificate.location", "log.kafka.tls.certificate_file", &tls.certificate_file),
                ("ssl.key.location", "log.kafka.tls.key_file", &tls.key_file),
            ] {
                if let Some(path) = path {
                    config.set(key, text(path, setting)?);
                }
            }
            if let Some(password) = &self.key_password {
                config.set("ssl.key.password", exposed(password, "log.kafka.tls.key_password")?);
            }
        }
        if let (Some(sasl), Some(password)) = (&s.sasl, &self.password) {
            config.set("sasl.mechanism", sasl.mechanism.as_str()).set("sasl.username", &sasl.username);
            config.set("sasl.password", exposed(password, "log.kafka.sasl.password")?);
        }
        Ok(config)
    }

    fn context(&self, role: &'static str) -> Context {
        Context { role, told: Arc::clone(&self.told) }
    }

    fn failed(&self, role: &str, error: &rdkafka::error::KafkaError) -> LogError {
        io(format!("make a Kafka {role}"), error)
    }
}

/// A path as librdkafka takes it; a file that cannot be read is found here, by the setting's name.
fn text(path: &Path, setting: &str) -> Result<String, LogError> {
    let unfit = |detail: String| LogError::Unfit {
        place: setting.into(),
        detail: format!("{} {detail}", path.display()),
        remedy: "name a PEM file that this process may read".into(),
    };
    std::fs::File::open(path).map_err(|e| unfit(format!("cannot be read: {e}")))?;
    path.to_str().map(str::to_owned).ok_or_else(|| unfit("is no UTF-8".into()))
}

fn exposed<'a>(secret: &'a Secret, setting: &str) -> Result<&'a str, LogError> {
    std::str::from_utf8(secret.expose()).map_err(|_| LogError::Unfit {
        place: setting.into(),
        detail: "is no UTF-8".into(),
        remedy: "Kafka passwords are text".into(),
    })
}
