//! The configuration file: its defaults, its example, and what it says about mistakes.

use expect_test::{Expect, expect};
use std::path::Path;
use tidegate_pipeline::config::objects::Location;
use tidegate_pipeline::config::{Config, LogFormat};
use tidegate_schemas::limits;

fn example() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tidegate.example.toml")).unwrap()
}

#[test]
fn the_example_is_the_default() {
    assert_eq!(Config::parse(&example(), "tidegate.example.toml").unwrap(), Config::default());
    assert_eq!(Config::parse("", "empty.toml").unwrap(), Config::default());
}

#[test]
fn the_example_names_every_setting_and_its_absent_ones_can_be_set() {
    let uncommented: String = example()
        .lines()
        .map(|line| match line.strip_prefix("# ").and_then(|l| l.split_once(" = ")) {
            Some((name, _)) if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => format!("{}\n", &line[2..]),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = Config::parse(&uncommented, "uncommented").unwrap();
    assert!(config.process.workers.is_some() && config.sink.parquet.path.is_some() && config.definitions.folder.is_some());
    // Whatever serialises is a setting; the example is what people read.
    let written: toml::Table = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    let shown: toml::Table = toml::from_str(&uncommented).unwrap();
    fn names(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
        for (name, value) in table {
            match value {
                toml::Value::Table(inner) => names(inner, &format!("{prefix}{name}."), out),
                _ => out.push(format!("{prefix}{name}")),
            }
        }
    }
    let (mut all, mut in_example) = (Vec::new(), Vec::new());
    names(&written, "", &mut all);
    names(&shown, "", &mut in_example);
    assert_eq!(all, in_example);
}

#[test]
fn relative_paths_begin_at_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    std::fs::write(
        &file,
        "[server]\ndata_dir = \"data\"\n[definitions]\nfolder = \"/etc/definitions\"\n[telemetry]\nlog_format = \"json\"\n",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.server.data_dir, folder.path().join("data"));
    assert_eq!(config.tables(), Location::Folder(folder.path().join("data/tables")));
    assert_eq!(config.snapshots(), Location::Folder(folder.path().join("data/state")));
    assert_eq!(config.control_socket(), folder.path().join("data/control.sock"));
    assert_eq!(config.definitions.folder.as_deref(), Some(Path::new("/etc/definitions")));
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    let missing = Config::load(&folder.path().join("nowhere.toml")).unwrap_err();
    assert!(
        missing.to_string().ends_with("cannot be read; name another file, or write it: tidegate manual settings shows every setting"),
        "{missing}"
    );
}

fn check(text: &str, message: Expect) {
    message.assert_eq(&Config::parse(text, "tidegate.toml").unwrap_err().to_string());
}

#[test]
fn unknown_settings_are_refused_with_their_place() {
    check(
        "[server]\nlissten = \"0.0.0.0:1\"\n",
        expect![
            "tidegate.toml:2:1: unknown field `lissten`, expected one of `roles`, `data_dir`, `state_dir`, `listen`, `connections_max`, `connections_per_address_max`, `head_seconds_max`, `body_seconds_max`, `idle_seconds_max`, `body_bytes_max`, `bodies_in_flight_bytes_max`, `publish_seconds_max`, `receipt_wait_seconds_max`, `shutdown_seconds_max`; tidegate manual settings shows every setting"
        ],
    );
    check(
        "[sinks.parquet]\nenabled = true\n",
        expect![
            "tidegate.toml:1:2: unknown field `sinks`, expected one of `server`, `log`, `process`, `sink`, `s3`, `cut`, `definitions`, `telemetry`; tidegate manual settings shows every setting"
        ],
    );
    check(
        "[sink.parquet]\n\nenable = true\n",
        expect![
            "tidegate.toml:3:1: unknown field `enable`, expected one of `enabled`, `path`, `system_tables`; tidegate manual settings shows every setting"
        ],
    );
    check(
        "[cut]\nrow = 1\n",
        expect![
            "tidegate.toml:2:1: unknown field `row`, expected one of `rows`, `rows_max`, `bytes_max`, `open_bytes_max`, `seconds_min`, `edge_seconds`, `edge_bytes`; tidegate manual settings shows every setting"
        ],
    );
}

#[test]
fn wrong_forms_are_told_with_their_place() {
    check("[server\n", expect!["tidegate.toml:1:8: unclosed table, expected `]`; tidegate manual settings shows every setting"]);
    check(
        "[server]\nlisten = \"localhost\"\n",
        expect!["tidegate.toml:2:10: invalid socket address syntax; tidegate manual settings shows every setting"],
    );
    check(
        "[log]\npartitions = \"four\"\n",
        expect![[r#"tidegate.toml:2:14: invalid type: string "four", expected u32; tidegate manual settings shows every setting"#]],
    );
    check(
        "[log]\nkind = \"nats\"\n",
        expect!["tidegate.toml:2:8: unknown variant `nats`, expected `embedded` or `kafka`; tidegate manual settings shows every setting"],
    );
    check(
        "[process]\nepoch_events = -1\n",
        expect!["tidegate.toml:2:16: invalid value: integer `-1`, expected u32; tidegate manual settings shows every setting"],
    );
}

#[test]
fn wrong_values_are_told_all_at_once() {
    check(
        "[log]\npartitions = 0\nsegment_bytes = 1\n[process]\ntick_milliseconds = 1\n",
        expect![[r#"
        tidegate.toml:2:14: log.partitions is 0; it is 1 to 1024: positions and state are kept for each
        tidegate.toml:3:17: log.segment_bytes is 1; it is 65536 to 1073741824: a segment holds at least one record, and retention deletes whole ones
        tidegate.toml:5:21: process.tick_milliseconds is 1; it is 10 to 60000: time passes in the log by empty epochs"#]],
    );
    check(
        "[log]\nbudget_bytes = 1000\n\n[cut]\nedge_bytes = 100_000_000\n",
        expect![[r#"
        tidegate.toml:2:16: log.budget_bytes is 1000; it is at least 134217728: it must hold two segments (log.segment_bytes) at least
        tidegate.toml:5:14: cut.edge_bytes is 100000000, above a quarter of log.budget_bytes for all partitions together (62 for each); the log would fill up between two edges: lower it, or raise log.budget_bytes"#]],
    );
    check(
        "[server]\nbodies_in_flight_bytes_max = 1000\n",
        expect![
            "tidegate.toml:2:30: server.bodies_in_flight_bytes_max is 1000, below server.body_bytes_max (16777216); the largest body would never be taken: raise it, or lower server.body_bytes_max"
        ],
    );
    check(
        "[sink.parquet]\nsystem_tables = [\"rejections\", \"alarms\"]\n",
        expect![[
            r#"tidegate.toml:2:17: sink.parquet.system_tables names "alarms", which is no system table; the system tables are rejections, script_runs, script_logs, releases"#
        ]],
    );
    check(
        "[cut]\nedge_seconds = 0\n",
        expect![[r#"
        tidegate.toml:2:16: cut.edge_seconds is 0; a cut would never hold anything: leave it out for the default
        tidegate.toml:1:2: cut.seconds_min is 60, above cut.edge_seconds (0); all cuts close at each edge, so a smaller value is meant"#]],
    );
}

/// What is said about each of some texts.
fn told(texts: impl IntoIterator<Item = String>) -> String {
    texts
        .into_iter()
        .map(|t| Config::parse(&t, "t.toml").map_or_else(|e| e.to_string(), |_| format!("taken: {t}")))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn values_that_only_the_start_would_find_wrong() {
    expect![[r#"
        t.toml:2:8: cut.rows is 600000, above cut.rows_max (500000); it would never be reached: lower it, or raise the other
        t.toml:1:2: cut.bytes_max is 33554432, above cut.open_bytes_max (1000); it would never be reached: lower it, or raise the other"#]]
    .assert_eq(&told(["[cut]\nrows = 600_000\nopen_bytes_max = 1000\n".to_owned()]));
    let filters = ["", " ,", "loud", "info,tidegate_sinks=loud", "info,loud"].map(|f| format!("[telemetry]\nlog_filter = \"{f}\"\n"));
    expect![[r#"
        t.toml:2:14: telemetry.log_filter is empty; write a level (off, error, warn, info, debug, trace), or directives such as "info,tidegate_sinks=debug"
        t.toml:2:14: telemetry.log_filter is empty; write a level (off, error, warn, info, debug, trace), or directives such as "info,tidegate_sinks=debug"
        t.toml:2:14: telemetry.log_filter is "loud", and "loud" is no level; write a level (off, error, warn, info, debug, trace), or directives such as "info,tidegate_sinks=debug"
        t.toml:2:14: telemetry.log_filter is "info,tidegate_sinks=loud": error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5; write a level (off, error, warn, info, debug, trace), or directives such as "info,tidegate_sinks=debug"
        t.toml:2:14: telemetry.log_filter is "info,loud", and "loud" is no level; write a level (off, error, warn, info, debug, trace), or directives such as "info,tidegate_sinks=debug""#]].assert_eq(&told(filters));
    for filter in ["off", "WARN", "info,tidegate_sinks=debug", "tidegate_sinks[span{field=1}]=debug,error"] {
        assert!(Config::parse(&format!("[telemetry]\nlog_filter = \"{filter}\"\n"), "t").is_ok(), "{filter}");
    }
    let roles = ["", "'process', 'process', 'sink'", "'ingest', 'all'"].map(|r| format!("[server]\nroles = [{r}]\n"));
    expect![[r#"
        t.toml:2:9: server.roles is empty; name each thing that this process does once, or leave it out: then it does everything
        t.toml:2:9: server.roles names process twice; name each thing that this process does once, or leave it out: then it does everything
        t.toml:2:20: unknown variant `all`, expected one of `ingest`, `process`, `sink`; tidegate manual settings shows every setting"#]]
    .assert_eq(&told(roles));
    for roles in ["'sink', 'ingest', 'process'", "'ingest'", "'process', 'sink'"] {
        assert!(Config::parse(&format!("[server]\nroles = [{roles}]\n"), "t").is_ok(), "{roles}");
    }
}

#[test]
fn places_of_objects() {
    let refused = |text: String, why: &str| {
        let told = Config::parse(&text, "t.toml").unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    };
    for (path, why) in [
        ("gs://b/t", "\"gs\" is no store that Tidegate knows"),
        ("s3://", "is no name of a bucket"),
        ("s3://UP/t", "is no name of a bucket"),
        ("s3://bucket/a//b", "is no folder of a bucket"),
        ("s3://bucket/../b", "is no folder of a bucket"),
        ("s3://bucket/a b", "is no folder of a bucket"),
    ] {
        refused(format!("[sink.parquet]\npath = \"{path}\"\n"), why);
    }
    for (path, shown) in [("s3://bucket", "s3://bucket"), ("s3://b.u-cket/a/b=c/", "s3://b.u-cket/a/b=c"), ("tables", "tables")] {
        let config = Config::parse(&format!("[sink.parquet]\npath = \"{path}\"\n[process]\nsnapshots = \"{path}\"\n"), "t").unwrap();
        assert_eq!((config.tables().to_string(), config.snapshots().to_string()), (shown.to_owned(), shown.to_owned()));
    }
    for (setting, why) in [
        ("endpoint = \"http://key:secret@host\"", "s3.endpoint is no plain address"),
        ("endpoint = \"ftp://host\"", "s3.endpoint is no plain address"),
        ("access_key_id = \"k\"", "goes with s3.secret_access_key"),
        ("secret_access_key = { env = \"S\" }", "goes with s3.secret_access_key"),
        ("kms_key_id = \"k\"", "s3.kms_key_id is set"),
        ("encryption = \"AES256\"\ncustomer_key = { env = \"K\" }", "s3.customer_key is set"),
        ("encryption = \"none\"", "unknown variant `none`"),
        ("request_seconds_max = 0", "s3.request_seconds_max is 0"),
    ] {
        refused(format!("[s3]\n{setting}\n"), why);
    }
}

/// Who copies one shall not be refused.
#[test]
fn configurations_of_the_guides_are_taken() {
    let mut taken = 0;
    for (name, guide) in [
        ("kafka.md", include_str!("../../guides/kafka.md")),
        ("clickhouse.md", include_str!("../../guides/clickhouse.md")),
        ("objects.md", include_str!("../../guides/objects.md")),
    ] {
        for block in guide.split("```toml\n").skip(1) {
            let text = block.split("```").next().unwrap();
            if let Err(refused) = Config::parse(text, name) {
                panic!("{name}: {refused}\n{text}");
            }
            taken += 1;
        }
    }
    assert!(taken > 2, "{taken}");
    let many = Config::parse("[log]\npartitions = 64\n", "tidegate.toml").unwrap();
    assert_eq!(many.cut.edge_bytes, many.log.share(limits::EDGES_PERCENT, 64));
}
