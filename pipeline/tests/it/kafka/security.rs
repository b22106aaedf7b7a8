//! TLS with certificates of both sides, SCRAM over TLS, and what is told where they do not fit.

use super::{broker, open, options};
use crate::log::{commit, only_texts, publish, unit};
use std::path::PathBuf;
use tidegate_pipeline::config::secret::SecretPlace;
use tidegate_pipeline::log::kafka::{KafkaLog, KafkaSettings, Mechanism, Options, Sasl, Tls};
use tidegate_schemas::log::{EventLog, Header, LogName, Record};

fn roundtrip(options: &Options) {
    let log = open(options);
    publish(&*log, LogName::Raw, 0, &["in"]);
    let owner = log.fence(0).unwrap();
    commit(&*log, &owner, unit(1, &["out"], &[], 1));
    let (_membership, events) = log.join(tidegate_pipeline::log::Work::Process, std::time::Duration::from_secs(1)).unwrap();
    assert!(events.recv_timeout(std::time::Duration::from_secs(30)).is_ok());
    assert_eq!(only_texts(&*log, LogName::Clean, 0), ["out"]);
    assert!(log.trim().unwrap() > 0);
}

fn told(options: &Options) -> String {
    let Err(error) = KafkaLog::open(options.clone()) else { panic!("it was opened") };
    error.to_string()
}

#[test]
fn passwords_and_certificates() {
    let Some(broker) = broker::shared() else { return };
    let file = |name: &str| broker.folder().join(name);
    let folder = tempfile::tempdir().unwrap();
    let password = |text: &str| {
        let path: PathBuf = folder.path().join(text);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        SecretPlace::File(path)
    };
    let mut scram = options(broker);
    scram.kafka.brokers = vec![broker.scram_address()];
    scram.kafka.tls = Some(Tls { ca_file: Some(file("ca.crt")), ..Tls::default() });
    let user = |password| Some(Sasl { mechanism: Mechanism::ScramSha512, username: broker::USER.into(), password });
    scram.kafka.sasl = user(password(broker::PASSWORD));
    roundtrip(&scram);
    // The settings can be shown, and the password is not among them.
    let shown = format!("{:?} {}", scram.kafka, toml::to_string(&scram.kafka).unwrap());
    assert!(!shown.replace(&folder.path().join(broker::PASSWORD).display().to_string(), "").contains(broker::PASSWORD));
    assert_eq!(toml::from_str::<KafkaSettings>(&toml::to_string(&scram.kafka).unwrap()).unwrap(), scram.kafka);
    assert!(toml::from_str::<KafkaSettings>("broker = [\"x\"]").is_err());

    scram.kafka.sasl = user(password("wrong-donkey"));
    let message = told(&scram);
    assert!(message.to_lowercase().contains("authentication failed") && message.contains("log.kafka.sasl"), "{message}");
    assert!(!message.contains("wrong-donkey"), "{message}");
    scram.kafka.sasl = user(SecretPlace::Env("TIDEGATE_NO_SUCH_VARIABLE".into()));
    assert!(told(&scram).contains("log.kafka.sasl.password"));
    scram.kafka.sasl = user(SecretPlace::File(folder.path().join("missing")));
    assert!(told(&scram).contains("log.kafka.sasl.password"));

    let mut mutual = options(broker);
    mutual.kafka.brokers = vec![broker.mtls_address()];
    let certificate = |name: &str| Tls {
        ca_file: Some(file("ca.crt")),
        certificate_file: Some(file(&format!("{name}.crt"))),
        key_file: Some(file(&format!("{name}.key"))),
        key_password: None,
    };
    mutual.kafka.tls = Some(certificate("client"));
    roundtrip(&mutual);
    mutual.kafka.tls = Some(Tls { ca_file: Some(file("client.crt")), ..certificate("client") });
    let message = told(&mutual);
    assert!(message.contains("certificate") && message.contains("log.kafka.tls"), "{message}");
    mutual.kafka.tls = Some(Tls { key_file: Some(file("none.key")), ..certificate("client") });
    assert!(told(&mutual).contains("log.kafka.tls.key_file"));
}

#[test]
fn other_clients_read_what_we_write() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let log = open(&options);
    let header = |name, value: &str| Header::new(name, value);
    let headers = vec![header("tg-tenant", "acme"), header("content-type", "application/json")];
    let event = Record { key: "acme".into(), headers, value: r#"{"temperature":21.5}"#.into() };
    crate::log::wait(log.publish(LogName::Raw, vec![(2, event)])).unwrap();
    let owner = log.fence(2).unwrap();
    let written = commit(&*log, &owner, unit(1, &["a block"], &[], 1));
    let shown = |topic: &str| {
        let mut console = broker.console_consumer();
        console.args(["--topic", &format!("{}{topic}", options.kafka.topic_prefix), "--from-beginning", "--max-messages", "1"]);
        console.args(["--isolation-level", "read_committed", "--timeout-ms", "30000"]);
        for property in ["print.headers=true", "print.key=true", "print.partition=true"] {
            console.args(["--formatter-property", property]);
        }
        broker::run(&mut console).unwrap()
    };
    let raw = shown("raw");
    assert!(raw.contains("Partition:2\ttg-tenant:acme,content-type:application/json\tacme\t{\"temperature\":21.5}"), "{raw}");
    let commits = shown("commits");
    let (headers, epoch) = (
        format!("tg-kind:test,tg-raw-next:1,tg-clean-next:{},tg-audit-next:", written.clean.end),
        format!("epoch 1: {}..{}", written.clean.start, written.clean.end),
    );
    assert!(commits.contains(&headers) && commits.contains(&epoch), "{commits}");
}
