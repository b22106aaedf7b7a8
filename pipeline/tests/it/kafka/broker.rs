//! A real Apache Kafka, started by the tests: fetched once by Maven into a cache, in a folder of its own, on free ports.
//! It lives no longer than the test process, however that one ends: a shell between them waits for the end of its input.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const VERSION: &str = "4.4.0";

const POM: &str = "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>kafka</artifactId>\
    <version>1</version><packaging>pom</packaging><dependencies>\
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>\
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>VERSION</version></dependency>\
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>\
    </dependencies></project>";

const LOGGING: &str = "status=error\nappender.f.type=File\nappender.f.name=f\nappender.f.fileName=${sys:kafka.logs.dir}/server.log\n\
    appender.f.layout.type=PatternLayout\nappender.f.layout.pattern=[%d] %p %m (%c)%n\nrootLogger.level=INFO\nrootLogger.appenderRef.f.ref=f\n";

/// One node, which is broker and controller. Internal topics have few partitions; groups notice a dead member within a second;
/// the broker keeps its place through some seconds of a busy machine, which is also what it waits for after it was killed.
const SERVER: &str = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:CONTROLLER_PORT\n\
    controller.listener.names=CONTROLLER\n\
    listeners=PLAINTEXT://127.0.0.1:PLAIN_PORT,CONTROLLER://127.0.0.1:CONTROLLER_PORT,SASL_SSL://127.0.0.1:SCRAM_PORT,SSL://127.0.0.1:MTLS_PORT\n\
    advertised.listeners=PLAINTEXT://127.0.0.1:PLAIN_PORT,SASL_SSL://127.0.0.1:SCRAM_PORT,SSL://127.0.0.1:MTLS_PORT\n\
    listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL\n\
    inter.broker.listener.name=PLAINTEXT\nlog.dirs=FOLDER/data\n\
    sasl.enabled.mechanisms=SCRAM-SHA-512\n\
    listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
    ssl.keystore.type=PEM\nssl.keystore.location=FOLDER/server.pem\nssl.truststore.type=PEM\nssl.truststore.location=FOLDER/ca.crt\n\
    listener.name.ssl.ssl.client.auth=required\n\
    default.replication.factor=1\nmin.insync.replicas=1\noffsets.topic.replication.factor=1\n\
    transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
    share.coordinator.state.topic.min.isr=1\noffsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\n\
    share.coordinator.state.topic.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
    num.network.threads=2\nnum.io.threads=4\nnum.recovery.threads.per.data.dir=2\nbackground.threads=2\n\
    log.cleaner.dedupe.buffer.size=16777216\nlog.cleaner.backoff.ms=1000\nlog.segment.bytes=67108864\n\
    broker.session.timeout.ms=5000\nbroker.heartbeat.interval.ms=500\n\
    transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\nauto.create.topics.enable=false\n";

pub const USER: &str = "tidegate";
pub const PASSWORD: &str = "right-horse";

/// A broker and the folder that it lives in.
pub struct Broker {
    folder: tempfile::TempDir,
    jars: PathBuf,
    ports: [u16; 4],
    /// Nobody drops it, so the shell removes its folder.
    to_the_end: bool,
    running: Option<(Child, ChildStdin)>,
}

/// The broker that all tests of this process share, each under a prefix of its own.
pub fn shared() -> Option<&'static Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    SHARED.get_or_init(|| Some(Broker::start(jars()?, true))).as_ref()
}

/// A broker of one test alone, to be killed.
pub fn own() -> Option<Broker> {
    Some(Broker::start(jars()?, false))
}

/// What tells a broker that leaves control to another.
const SECOND: [(&str, &str); 2] =
    [("process.roles=broker,controller\nnode.id=1", "process.roles=broker\nnode.id=2"), (",CONTROLLER://127.0.0.1:CONTROLLER_PORT", "")];

/// The jars, fetched on first use. `None` where they cannot be had, which is said.
fn jars() -> Option<PathBuf> {
    static JARS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match JARS.get_or_init(fetch) {
        Ok(jars) => Some(jars.clone()),
        Err(why) => {
            eprintln!("no Apache Kafka, so nothing is tested on it: {why}");
            assert!(std::env::var("TIDEGATE_REQUIRE_SERVICES").as_deref() != Ok("1"), "required: {why}");
            None
        }
    }
}

fn fetch() -> Result<PathBuf, String> {
    run(Command::new("java").arg("-version")).map_err(|e| format!("java: {e}"))?;
    let cache = std::env::var_os("TIDEGATE_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tidegate"));
    let cache = cache.or_else(home).unwrap_or_else(|| std::env::temp_dir().join("tidegate"));
    let jars = cache.join(format!("kafka-{VERSION}"));
    let failed = |e: std::io::Error| e.to_string();
    fs::create_dir_all(&cache).map_err(failed)?;
    // One process fetches, others wait for it.
    let lock = fs::File::create(cache.join("kafka.lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if jars.exists() {
        return Ok(jars);
    }
    let work = tempfile::tempdir_in(&cache).map_err(failed)?;
    let pom = work.path().join("pom.xml");
    fs::write(&pom, POM.replace("VERSION", VERSION)).map_err(failed)?;
    let to = work.path().join("jars");
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-ntp", "-f"]).arg(&pom).arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
    command.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", to.display()));
    run(&mut command).map_err(|e| format!("mvn: {e}"))?;
    fs::rename(&to, &jars).map_err(failed)?;
    Ok(jars)
}

pub fn run(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(error.to_string()),
    }
}

impl Broker {
    fn start(jars: PathBuf, to_the_end: bool) -> Self {
        Self::start_with(jars, to_the_end, ports(), SERVER.into())
    }

    /// Another broker of the same cluster.
    pub fn second(&self) -> Self {
        let mut ports = ports();
        ports[1] = self.ports[1];
        let server = SECOND.iter().fold(SERVER.to_owned(), |text, (from, to)| text.replace(from, to));
        Self::start_with(self.jars.clone(), false, ports, server)
    }

    fn start_with(jars: PathBuf, to_the_end: bool, ports: [u16; 4], server: String) -> Self {
        let mut broker = Self { folder: tempfile::tempdir().unwrap(), jars, ports, to_the_end, running: None };
        certificates(broker.folder());
        let [plain, controller, scram, mtls] = ports.map(|p| p.to_string());
        let text = server.replace("FOLDER", broker.folder().to_str().unwrap());
        let text = text.replace("PLAIN_PORT", &plain).replace("CONTROLLER_PORT", &controller);
        fs::write(broker.folder().join("server.properties"), text.replace("SCRAM_PORT", &scram).replace("MTLS_PORT", &mtls)).unwrap();
        fs::write(broker.folder().join("log4j2.properties"), LOGGING).unwrap();
        let mut format = broker.java(&["-XX:TieredStopAtLevel=1"], "kafka.tools.StorageTool");
        format.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"]).arg(broker.folder().join("server.properties"));
        format.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
        run(&mut format).unwrap();
        broker.resume();
        broker
    }

    /// Starts it again after `kill`, with the same ports and data.
    pub fn resume(&mut self) {
        let java = self.java(&["-Xms512m", "-Xmx512m"], "kafka.Kafka");
        let mut shell = Command::new("sh");
        let _ = fs::remove_file(self.folder().join("stdout.log.pid"));
        // Ends when its input does: with this process, or before.
        shell.args(["-c", r#"out=$1; shift; "$@" </dev/null >"$out" 2>&1 & echo $! >"$out.new"; mv "$out.new" "$out.pid"; cat >/dev/null; kill -9 $!; wait; [ -z "$REMOVE" ] || rm -rf "$REMOVE""#, "sh"]);
        shell.arg(self.folder().join("stdout.log")).arg(java.get_program()).args(java.get_args());
        shell.arg(self.folder().join("server.properties"));
        let remove = if self.to_the_end { self.folder().as_os_str() } else { Default::default() };
        let mut shell = shell.env("REMOVE", remove).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let input = shell.stdin.take().unwrap();
        self.running = Some((shell, input));
        let asker: BaseConsumer = ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap();
        let started = Instant::now();
        let answers = || {
            let output = self.folder().join("stdout.log");
            let pid = fs::read_to_string(self.folder().join("stdout.log.pid")).ok()?;
            // One that has ended is still listed, but has no program any more.
            let lives = fs::read_link(format!("/proc/{}/exe", pid.trim())).is_ok();
            assert!(lives, "{}", fs::read_to_string(output).unwrap());
            asker.fetch_metadata(None, Duration::from_millis(500)).ok().filter(|m| !m.brokers().is_empty())
        };
        while answers().is_none() {
            assert!(started.elapsed() < Duration::from_secs(90), "Kafka does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As a power cut would end it.
    pub fn kill(&mut self) {
        if let Some((mut shell, input)) = self.running.take() {
            drop(input);
            shell.wait().unwrap();
        }
    }

    fn java(&self, flags: &[&str], class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(flags).args(["-XX:+UseSerialGC", "-Djava.awt.headless=true"]);
        java.arg(format!("-Dkafka.logs.dir={}", self.folder().display()));
        java.arg(format!("-Dlog4j2.configurationFile={}", self.folder().join("log4j2.properties").display()));
        java.arg("-cp").arg(format!("{}/*", self.jars.display())).arg(class);
        java
    }

    /// Kafka's own console consumer.
    pub fn console_consumer(&self) -> Command {
        let mut command = self.java(&["-XX:TieredStopAtLevel=1"], "org.apache.kafka.tools.consumer.ConsoleConsumer");
        command.args(["--bootstrap-server", &self.address()]);
        command
    }

    /// Where certificates lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Plain text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// SCRAM over TLS.
    pub fn scram_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    /// TLS with certificates of both.
    pub fn mtls_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[3])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Free ports below those that the system gives to clients: a client that knocks at a port of its own kind while nobody
/// listens there may be connected to itself, and then has the port.
fn ports() -> [u16; 4] {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let begin = 15_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 12;
    std::array::from_fn(|_| {
        loop {
            let port = begin + TRIED.fetch_add(1, Ordering::Relaxed) % 4_000;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        }
    })
}

/// A test authority, and certificates of a server and a client.
fn certificates(folder: &Path) {
    let script = r#"set -e; cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=test-ca -keyout ca.key -out ca.crt
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > names
for n in server client; do
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$n" -keyout $n.key -out $n.csr
  openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out $n.crt -extfile names
  cat $n.key $n.crt > $n.pem
done"#;
    run(Command::new("sh").args(["-c", script, "sh"]).arg(folder)).unwrap();
}
