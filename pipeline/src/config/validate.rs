//! What values a setting may have. Pure: forms are right before, and nothing is looked at but the values.

use super::Config;
use super::objects::Encryption;
use tidegate_schemas::limits;
use tidegate_schemas::system::SystemTable;

/// What is wrong with a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The setting, as `section.name`.
    pub setting: &'static str,
    /// What is wrong with it; follows the setting's name.
    pub detail: String,
    /// What mends it.
    pub remedy: String,
}

impl Config {
    /// What is wrong with the values, apart from their form.
    pub fn validate(&self) -> Vec<Objection> {
        let mut found = Vec::new();
        self.validate_server(&mut found);
        self.validate_log_and_process(&mut found);
        self.validate_clickhouse(&mut found);
        self.validate_s3(&mut found);
        let mut check = |holds: bool, setting, detail: String, remedy: &str| {
            if !holds {
                found.push(Objection { setting, detail, remedy: remedy.to_owned() });
            }
        };
        let (parquet, clickhouse) = (&self.sink.parquet, &self.sink.clickhouse);
        for (setting, names) in
            [("sink.parquet.system_tables", &parquet.system_tables), ("sink.clickhouse.system_tables", &clickhouse.system_tables)]
        {
            let known = SystemTable::ALL.map(SystemTable::as_str).join(", ");
            for name in names {
                let detail = format!("names {name:?}, which is no system table");
                check(SystemTable::named(name).is_some(), setting, detail, &format!("the system tables are {known}"));
            }
        }
        let cut = &self.cut;
        for (setting, value) in [
            ("cut.rows_max", cut.rows_max),
            ("cut.bytes_max", cut.bytes_max),
            ("cut.open_bytes_max", cut.open_bytes_max),
            ("cut.edge_seconds", cut.edge_seconds),
            ("cut.edge_bytes", cut.edge_bytes),
        ] {
            check(value > 0, setting, "is 0".into(), "a cut would never hold anything: leave it out for the default");
        }
        for (setting, value, above, most) in [
            ("cut.rows", cut.rows, "cut.rows_max", cut.rows_max),
            ("cut.bytes_max", cut.bytes_max, "cut.open_bytes_max", cut.open_bytes_max),
        ] {
            let detail = format!("is {value}, above {above} ({most})");
            check(value <= most, setting, detail, "it would never be reached: lower it, or raise the other");
        }
        check(
            cut.seconds_min <= cut.edge_seconds,
            "cut.seconds_min",
            format!("is {}, above cut.edge_seconds ({})", cut.seconds_min, cut.edge_seconds),
            "all cuts close at each edge, so a smaller value is meant",
        );
        let share = self.log.share(limits::EDGES_PERCENT, self.log.partitions);
        check(
            cut.edge_bytes <= share,
            "cut.edge_bytes",
            format!("is {}, above a quarter of log.budget_bytes for all partitions together ({share} for each)", cut.edge_bytes),
            "the log would fill up between two edges: lower it, or raise log.budget_bytes",
        );
        if let Err(wrong) = crate::telemetry::filter(&self.telemetry.log_filter) {
            check(
                false,
                "telemetry.log_filter",
                wrong,
                "write a level (off, error, warn, info, debug, trace), or directives such as \"info,tidegate_sinks=debug\"",
            );
        }
        found
    }

    fn validate_clickhouse(&self, found: &mut Vec<Objection>) {
        let c = &self.sink.clickhouse;
        let mut check = |holds: bool, setting, detail: String, remedy: &str| {
            if !holds {
                found.push(Objection { setting, detail, remedy: remedy.to_owned() });
            }
        };
        let after = c.url.strip_prefix("http://").or_else(|| c.url.strip_prefix("https://"));
        let plain = |host: &str| !host.is_empty() && !host.contains(['@', '?', '#', ' ']);
        let remedy =
            "write http://host:port or https://host:port; the user is in sink.clickhouse.user, and its password in a file or variable";
        // Not shown: somebody may have put a password there.
        check(after.is_some_and(plain), "sink.clickhouse.url", "is no plain address".into(), remedy);
        for (setting, value) in [("sink.clickhouse.database", &c.database), ("sink.clickhouse.user", &c.user)] {
            check(
                !value.is_empty() && !value.contains(char::is_control),
                setting,
                format!("is {value:?}"),
                "name one, or leave it out for the default",
            );
        }
        if c.enabled {
            for (setting, value, most, unit) in [
                ("cut.rows_max", self.cut.rows_max, limits::CLICKHOUSE_BLOCK_ROWS_MAX / 4, "rows"),
                ("cut.bytes_max", self.cut.bytes_max, limits::CLICKHOUSE_CUT_BYTES_MAX, "bytes"),
            ] {
                let detail = format!("is {value}, and a cut is one insert of ClickHouse");
                check(value <= most as u64, setting, detail, &format!("at most {most} {unit} are stored as a whole: lower it"));
            }
        }
        let mut bounded = |setting, value: u32, max, reason: &str| found.extend(out_of_bounds(setting, value.into(), 1, max, reason));
        bounded("sink.clickhouse.request_seconds_max", c.request_seconds_max, 3_600, "a partition waits for it");
        bounded("sink.clickhouse.retention_days", c.retention_days.unwrap_or(1), 36_500, "rows are dropped a whole day at a time");
    }

    fn validate_s3(&self, found: &mut Vec<Objection>) {
        let s3 = &self.s3;
        let mut check = |holds: bool, setting, detail: &str, remedy: &str| {
            if !holds {
                found.push(Objection { setting, detail: detail.to_owned(), remedy: remedy.to_owned() });
            }
        };
        let plain = |endpoint: &String| {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']))
        };
        // Not shown: somebody may have put a secret there.
        check(
            s3.endpoint.as_ref().is_none_or(plain),
            "s3.endpoint",
            "is no plain address",
            "write http://host:port or https://host:port; keys are in s3.access_key_id and s3.secret_access_key",
        );
        check(
            s3.access_key_id.is_some() == s3.secret_access_key.is_some(),
            "s3.access_key_id",
            "goes with s3.secret_access_key, and one of them is absent",
            "set both, or neither: then the environment or the machine's role signs",
        );
        let shown = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        for (setting, value) in [("s3.access_key_id", &s3.access_key_id), ("s3.region", &s3.region), ("s3.kms_key_id", &s3.kms_key_id)] {
            check(
                value.as_ref().is_none_or(shown),
                setting,
                "is empty, or holds what no key or region does",
                "leave it out, or write it as it was given",
            );
        }
        check(
            s3.kms_key_id.is_none() || matches!(s3.encryption, Some(Encryption::Kms | Encryption::KmsTwice)),
            "s3.kms_key_id",
            "is set, and s3.encryption does not ask for a key of that service",
            "set s3.encryption to \"aws:kms\" or \"aws:kms:dsse\"",
        );
        check(
            s3.customer_key.is_none() || s3.encryption.is_none(),
            "s3.customer_key",
            "is set, and s3.encryption too",
            "an object is encrypted by one of them: leave the other out",
        );
        found.extend(out_of_bounds("s3.request_seconds_max", s3.request_seconds_max.into(), 1, 3_600, "a partition waits for it"));
    }

    fn validate_roles(&self, found: &mut Vec<Objection>) {
        let roles = &self.server.roles;
        let twice = roles.iter().enumerate().find(|(i, role)| roles[..*i].contains(role));
        let detail = match twice {
            Some((_, role)) => format!("names {role:?} twice").to_lowercase(),
            None if roles.is_empty() => "is empty".to_owned(),
            None => return,
        };
        let remedy = "name each thing that this process does once, or leave it out: then it does everything".into();
        found.push(Objection { setting: "server.roles", detail, remedy });
    }

    fn validate_names(&self, found: &mut Vec<Objection>) {
        let kafka = &self.log.kafka;
        let mut check = |holds: bool, setting, detail: String, remedy: &str| {
            if !holds {
                found.push(Objection { setting, detail, remedy: remedy.to_owned() });
            }
        };
        let data = self.server.data_dir.as_os_str();
        check(!data.is_empty(), "server.data_dir", "is empty".into(), "name a folder, or leave it out for the default");
        check(!kafka.brokers.is_empty(), "log.kafka.brokers", "is empty".into(), "name one broker at least, as host:port");
        for broker in &kafka.brokers {
            let named = broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
            check(named, "log.kafka.brokers", format!("names {broker:?}"), "a broker is written as host:port");
        }
        let prefix = &kafka.topic_prefix;
        let fits = prefix.len() <= 200 && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        check(
            fits,
            "log.kafka.topic_prefix",
            format!("is {prefix:?}"),
            "Kafka takes up to 200 characters of a-z, A-Z, 0-9, '.', '-' and '_'",
        );
    }

    fn validate_server(&self, found: &mut Vec<Objection>) {
        self.validate_roles(found);
        self.validate_names(found);
        let s = &self.server;
        let mut bounded =
            |setting, value: u64, max: usize, reason: &str| found.extend(out_of_bounds(setting, value, 1, max as u64, reason));
        bounded("server.connections_max", s.connections_max.into(), 1 << 20, "each takes a file descriptor");
        bounded("server.connections_per_address_max", s.connections_per_address_max.into(), 1 << 20, "each takes a file descriptor");
        bounded("server.head_seconds_max", s.head_seconds_max.into(), 300, "slow heads are how an edge is starved");
        bounded("server.body_seconds_max", s.body_seconds_max.into(), 3_600, "slow bodies are how an edge is starved");
        bounded("server.idle_seconds_max", s.idle_seconds_max.into(), 86_400, "an idle connection keeps its place");
        bounded("server.body_bytes_max", s.body_bytes_max, 256 << 20, "a body is held in memory");
        bounded("server.bodies_in_flight_bytes_max", s.bodies_in_flight_bytes_max, 16 << 30, "bodies are held in memory");
        bounded("server.publish_seconds_max", s.publish_seconds_max.into(), 300, "a waiting request holds its body in memory");
        bounded("server.receipt_wait_seconds_max", s.receipt_wait_seconds_max.into(), 3_600, "a held request holds its connection");
        bounded("server.shutdown_seconds_max", s.shutdown_seconds_max.into(), 600, "whoever stops the process waits for it");
        if s.bodies_in_flight_bytes_max < s.body_bytes_max {
            found.push(Objection {
                setting: "server.bodies_in_flight_bytes_max",
                detail: format!("is {}, below server.body_bytes_max ({})", s.bodies_in_flight_bytes_max, s.body_bytes_max),
                remedy: "the largest body would never be taken: raise it, or lower server.body_bytes_max".into(),
            });
        }
    }

    fn validate_log_and_process(&self, found: &mut Vec<Objection>) {
        let (l, p) = (&self.log, &self.process);
        let mut bounded =
            |setting, value: u64, min: u64, max: u64, reason: &str| found.extend(out_of_bounds(setting, value, min, max, reason));
        bounded("log.partitions", l.partitions.into(), 1, limits::PARTITIONS_MAX as u64, "positions and state are kept for each");
        bounded(
            "log.segment_bytes",
            l.segment_bytes,
            64 << 10,
            1 << 30,
            "a segment holds at least one record, and retention deletes whole ones",
        );
        // Each of the 4 P + 1 chains has an open segment of its own, and the budget must hold more than those.
        let least = l.segment_bytes.saturating_mul(2);
        bounded("log.budget_bytes", l.budget_bytes, least, u64::MAX, "it must hold two segments (log.segment_bytes) at least");
        let k = &l.kafka;
        bounded("log.kafka.replication_factor", k.replication_factor.into(), 1, 100, "each copy is on a broker of its own");
        bounded(
            "log.kafka.min_insync_replicas",
            k.min_insync_replicas.into(),
            1,
            k.replication_factor.into(),
            "more copies than there are cannot be there",
        );
        bounded("log.kafka.session_milliseconds", k.session_milliseconds.into(), 1_000, 1_800_000, "brokers take no others");
        bounded("log.kafka.transaction_milliseconds", k.transaction_milliseconds.into(), 1_000, 900_000, "brokers take no others");
        bounded(
            "log.kafka.delivery_milliseconds",
            k.delivery_milliseconds.into(),
            100,
            300_000,
            "requests wait for it with their bodies in memory",
        );
        bounded("log.kafka.readers_max", k.readers_max.into(), 2, 1_024, "each has three threads");
        bounded("log.kafka.read_ahead_bytes", k.read_ahead_bytes, 64 << 10, 1 << 30, "each reader holds so many in memory");
        bounded(
            "process.workers",
            p.workers.unwrap_or(1).into(),
            1,
            limits::PARTITIONS_MAX as u64,
            "a partition is processed by one worker",
        );
        bounded("process.epoch_events", p.epoch_events.into(), 1, 10 * limits::EPOCH_EVENTS_MAX as u64, "an epoch is held in memory");
        bounded("process.epoch_bytes", p.epoch_bytes, 1, limits::EPOCH_OUTPUT_BYTES_MAX as u64, "an epoch is held in memory");
        bounded("process.epoch_milliseconds", p.epoch_milliseconds.into(), 1, 60_000, "rows wait for the end of their epoch");
        bounded("process.tick_milliseconds", p.tick_milliseconds.into(), 10, 60_000, "time passes in the log by empty epochs");
        bounded("process.snapshot_epochs", p.snapshot_epochs.into(), 1, 1 << 20, "recovery folds what came after the newest snapshot");
        bounded("process.duplicate_horizon_seconds", p.duplicate_horizon_seconds, 1, 366 * 86_400, "the log must keep outcomes that long");
        bounded("process.duplicate_keys_max", p.duplicate_keys_max, 1, 1 << 32, "each key takes 16 bytes of memory and some");
        bounded("log.trim_milliseconds", l.trim_milliseconds.into(), 10, 3_600_000, "what nobody needs takes disk until then");
    }
}

fn out_of_bounds(setting: &'static str, value: u64, min: u64, max: u64, reason: &str) -> Option<Objection> {
    let range = if max == u64::MAX { format!("it is at least {min}") } else { format!("it is {min} to {max}") };
    (!(min..=max).contains(&value)).then(|| Objection { setting, detail: format!("is {value}"), remedy: format!("{range}: {reason}") })
}
