//! ClickHouse's real engine, started by the tests: fetched once by pip into a cache, in a folder of its own, on a free port,
//! behind the HTTP interface that `engine.py` gives it. It lives no longer than the test process, however that one ends: its
//! input ends then.

use crate::{authority, python};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

const VERSION: &str = "chdb-core-26.9.0";
/// The engine alone: what it depends on is for data frames.
const PACKAGES: [&str; 2] = ["--no-deps", "chdb-core==26.9.0"];
const SHIM: &str = include_str!("engine.py");

/// Who may sign in.
pub const USER: &str = "tidegate";
pub const PASSWORD: &str = "right'horse\"";

/// An engine and the folder that it lives in.
pub struct Engine {
    folder: PathBuf,
    python: PathBuf,
    port: u16,
    /// Where it takes encrypted connections, too.
    encrypted: Option<u16>,
    running: Option<(Child, ChildStdin)>,
}

/// The engine that all tests of this process share, each in a database of its own.
pub fn shared() -> Option<&'static Engine> {
    static SHARED: OnceLock<Option<Engine>> = OnceLock::new();
    SHARED.get_or_init(own).as_ref()
}

/// An engine of one test alone, to be killed.
pub fn own() -> Option<Engine> {
    started(None)
}

/// An engine of one test alone that takes encrypted connections, too.
#[allow(dead_code)] // two crates share this file
pub fn encrypted() -> Option<Engine> {
    started(Some(free_port()))
}

fn started(encrypted: Option<u16>) -> Option<Engine> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(|| python::with(VERSION, &PACKAGES, "import chdb")) {
        Ok(python) => Some(Engine::start(python.clone(), encrypted)),
        Err(why) => {
            python::missing("ClickHouse engine", why);
            None
        }
    }
}

/// A database name that no other test has.
pub fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Engine {
    fn start(python: PathBuf, encrypted: Option<u16>) -> Self {
        let mut engine = Self { folder: tempfile::tempdir().unwrap().keep(), python, port: free_port(), encrypted, running: None };
        if encrypted.is_some() {
            authority::certificates(&engine.folder);
        }
        fs::write(engine.folder.join("engine.py"), SHIM).unwrap();
        engine.resume();
        engine
    }

    /// Starts it again after `kill`, on the same port with the same data.
    pub fn resume(&mut self) {
        let mut command = Command::new(&self.python);
        command.arg(self.folder.join("engine.py")).arg(&self.folder).arg(self.port.to_string());
        if let Some(port) = self.encrypted {
            command.arg(port.to_string()).args(["server.crt", "server.key"].map(|name| self.folder.join(name)));
        }
        command.env("ENGINE_USER", USER).env("ENGINE_PASSWORD", PASSWORD).env("ENGINE_REMOVE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(self.folder.join("stderr.log")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", fs::read_to_string(self.folder.join("stderr.log")).unwrap_or_default());
        let input = child.stdin.take().unwrap();
        self.running = Some((child, input));
    }

    /// As a power cut would end it.
    pub fn kill(&mut self) {
        if let Some((mut child, _input)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.running.as_ref().unwrap().0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its HTTP interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same for encrypted connections.
    #[allow(dead_code)]
    pub fn encrypted_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.encrypted.unwrap())
    }

    /// The certificate of who vouches for it.
    #[allow(dead_code)]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Its process.
    #[allow(dead_code)]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().0.id()
    }

    /// Settings of a server that delivers to a database of it; the password lies beside them.
    #[allow(dead_code)]
    pub fn settings(&self, database: &str) -> String {
        format!(
            "\n[sink.clickhouse]\nenabled = true\nurl = \"{}\"\ndatabase = \"{database}\"\nuser = \"{USER}\"\n\
             password = {{ file = \"clickhouse.password\" }}\n",
            self.url()
        )
    }

    /// It carries out the next inserts, and answers nothing.
    pub fn loses_replies(&self, inserts: u32) {
        self.post(&format!("/lose?inserts={inserts}"), USER, "").unwrap();
    }

    /// Runs a statement; its answer, or what it says is wrong.
    pub fn try_ask(&self, sql: &str) -> Result<String, String> {
        self.post("/", USER, sql)
    }

    pub fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    /// One number.
    pub fn number(&self, sql: &str) -> u64 {
        self.ask(sql).trim().parse().unwrap()
    }

    /// The rows of a query.
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        let answer = self.ask(&format!(
            "{sql} SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_quote_denormals = 1 FORMAT JSONEachRow"
        ));
        answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn post(&self, path: &str, user: &str, body: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {PASSWORD}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(body.to_owned()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A free port below those that the system gives to clients: a client that knocks at such a port while nobody listens there may
/// be connected to itself.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 8;
    loop {
        let port = begin + TRIED.fetch_add(1, Ordering::Relaxed) % 4_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
