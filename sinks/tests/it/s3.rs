//! A real HTTP S3 server, started by the tests: moto, fetched once by pip into a cache, on a free port, with `s3.py` in front
//! that checks signatures and makes faults. It lives no longer than the test process: its input ends then.

use crate::{authority, python};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_sinks::objects::Objects;

const VERSION: &str = "moto-5.2.5";
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];
const SHIM: &str = include_str!("s3.py");

/// Who may sign.
pub const KEY: &str = "tidegate-tests";
pub const SECRET: &str = "canary/S3+secret=of.the.tests";

/// A server.
pub struct S3 {
    port: u16,
    folder: tempfile::TempDir,
    /// Where it takes encrypted connections, too.
    encrypted: Option<u16>,
    running: Option<(Child, ChildStdin)>,
}

/// The server that all tests of this process share, each with buckets of its own.
pub fn shared() -> Option<&'static S3> {
    static SHARED: OnceLock<Option<S3>> = OnceLock::new();
    SHARED.get_or_init(own).as_ref()
}

/// A server of one test alone, to be stopped.
pub fn own() -> Option<S3> {
    python().map(|python| S3::start(python, None))
}

/// A server of one test alone that takes encrypted connections, too.
#[allow(dead_code)]
pub fn encrypted() -> Option<S3> {
    python().map(|python| S3::start(python, Some(free_port())))
}

fn python() -> Option<&'static PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(|| python::with(VERSION, &PACKAGES, "import moto.server, moto.s3, flask_cors")) {
        Ok(python) => Some(python),
        Err(why) => {
            python::missing("S3 server", why);
            None
        }
    }
}

// Two crates share this file, and neither needs all of it.
#[allow(dead_code)]
impl S3 {
    fn start(python: &PathBuf, encrypted: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (shim, log) = (folder.path().join("s3.py"), folder.path().join("stderr.log"));
        fs::write(&shim, SHIM).unwrap();
        let port = free_port();
        let mut command = Command::new(python);
        command.arg(&shim).arg(port.to_string()).env("S3_KEY", KEY).env("S3_SECRET", SECRET);
        if let Some(port) = encrypted {
            authority::certificates(folder.path());
            command.arg(port.to_string()).args(["server.crt", "server.key"].map(|name| folder.path().join(name)));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", fs::read_to_string(&log).unwrap_or_default());
        let input = child.stdin.take().unwrap();
        Self { port, folder, encrypted, running: Some((child, input)) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its address for encrypted connections.
    pub fn encrypted_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.encrypted.unwrap())
    }

    /// The certificate of who vouches for it.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// What it has to complain about.
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr.log")).unwrap_or_default()
    }

    /// Makes a bucket that no other test has; its name begins so.
    pub fn bucket(&self, begin: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{begin}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.ask(&format!("bucket?name={name}"));
        name
    }

    /// So many per cent of the requests to a bucket are served and not answered, served and answered as if the server had
    /// failed, and not served.
    pub fn faults(&self, bucket: &str, seed: u64, (lose, late, refuse): (u32, u32, u32)) {
        self.ask(&format!("faults?bucket={bucket}&seed={seed}&lose={lose}&late={late}&refuse={refuse}"));
    }

    /// So many requests to a bucket are answered, then one is served and not answered.
    pub fn loses_one(&self, bucket: &str, after: u32) {
        self.ask(&format!("faults?bucket={bucket}&after={after}"));
    }

    /// So many requests to delete from a bucket are not served.
    pub fn keeps(&self, bucket: &str, deletes: u32) {
        self.ask(&format!("faults?bucket={bucket}&keep={deletes}"));
    }

    /// How many requests to a bucket were served and not answered, by method.
    pub fn lost(&self, bucket: &str) -> BTreeMap<String, u64> {
        serde_json::from_str(&self.ask(&format!("lost?bucket={bucket}"))).unwrap()
    }

    /// The headers about encryption of the last object that was put into a bucket.
    pub fn seen(&self, bucket: &str) -> serde_json::Value {
        serde_json::from_str(&self.ask(&format!("seen?bucket={bucket}"))).unwrap()
    }

    /// A folder of a bucket, by a client of its own.
    pub fn objects(&self, bucket: &str, secret: &str) -> Objects {
        Objects::new(Arc::new(store(&self.url(), bucket, secret)), &format!("s3://{bucket}/deep/tables")).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.running.as_ref().unwrap().0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn ask(&self, what: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!("POST /-/{what} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}\n{}", self.complaints());
        body.to_owned()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some((mut child, _input)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A bucket of a server.
pub fn store(url: &str, bucket: &str, secret: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(url)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(20)))
        .with_access_key_id(KEY)
        .with_secret_access_key(secret)
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(5), max_backoff: Duration::from_millis(50), base: 2.0 },
            max_retries: 3,
            retry_timeout: Duration::from_secs(10),
        })
        .build()
        .unwrap()
}

/// A free port below those that the system gives to clients, and beside those of other servers of the tests.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let begin = 28_000 + u16::try_from(std::process::id() % 500).unwrap() * 8;
    loop {
        let port = begin + TRIED.fetch_add(1, Ordering::Relaxed) % 500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
