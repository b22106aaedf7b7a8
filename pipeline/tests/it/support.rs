//! The real binary, started in folders of the tests' own, and a small client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// A folder with a configuration and definitions of two tenants with the same ids everywhere.
pub struct Place {
    pub root: tempfile::TempDir,
    pub keys: [String; 2],
    /// The server and the bucket that tables are in, where they are not in the data folder.
    pub bucket: Option<(String, String)>,
    server: String,
    extra: String,
}

/// What a test's server differs in.
#[derive(Default, Clone)]
pub struct Options {
    pub fault: Option<String>,
    /// More of the command line.
    pub args: Vec<String>,
}

impl Place {
    /// `extra` is appended to the configuration.
    pub fn new(extra: &str) -> Self {
        Self::with_server("", extra)
    }

    /// The same with more settings of `[server]`.
    pub fn with_server(server: &str, extra: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let keys = [key("acmekey", 1), key("betakey", 2)];
        let place = Self { root, keys, bucket: None, server: server.to_owned(), extra: extra.to_owned() };
        place.write_definitions();
        place.write_config();
        place
    }

    /// A folder that somebody else made.
    pub fn of(root: tempfile::TempDir) -> Self {
        Self { root, keys: Default::default(), bucket: None, server: String::new(), extra: String::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The tables, or a copy of them as they are now.
    pub fn tables(&self) -> PathBuf {
        match &self.bucket {
            Some((server, bucket)) => crate::objects::copy(server, bucket, "deep/tables", self.root.path()),
            None => self.data().join("tables"),
        }
    }

    /// Replaces the settings that were appended.
    pub fn configure(&mut self, extra: String) {
        self.extra = extra;
        self.write_config();
    }

    fn write_config(&self) {
        // A process that ends in order ends so however slow the machine is.
        let patience = if self.server.contains("shutdown_seconds_max") { "" } else { "shutdown_seconds_max = 120\n" };
        let text = format!(
            "[server]\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n{patience}{}\n[definitions]\nfolder = \"definitions\"\n\n[telemetry]\nlog_format = \"json\"\n\n{}",
            self.server, self.extra
        );
        std::fs::write(self.path("tidegate.toml"), text).unwrap();
    }

    fn write_definitions(&self) {
        let folder = self.path("definitions");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "organizations.toml",
            "[[organization]]\nid = \"vendor\"\nkind = \"vendor\"\nname = \"Vendor\"\n\n\
             [[organization]]\nid = \"acme\"\nkind = \"customer\"\nname = \"Acme\"\nparent = \"vendor\"\n\n\
             [[organization]]\nid = \"beta\"\nkind = \"customer\"\nname = \"Beta\"\nparent = \"vendor\"\n",
        );
        let mut sources = String::new();
        let mut keys = String::new();
        for (tenant, id, secret) in [("acme", "acmekey", 1u8), ("beta", "betakey", 2)] {
            sources.push_str(&format!(
                "[[source]]\nid = \"meters\"\nnode = \"{tenant}\"\ntemplate = \"meter\"\nasset = {{ pointer = \"/device\" }}\n\
                 event_id = {{ pointer = \"/id\" }}\noccurred_at = {{ pointer = \"/ts\" }}\n\n"
            ));
            sources.push_str(&format!(
                "[[source]]\nid = \"bytes\"\nnode = \"{tenant}\"\ntemplate = \"frame\"\nasset = {{ header = \"x-device\" }}\n\n"
            ));
            let hash = tidegate_ingest_http::hash_secret(&[secret; 32]);
            keys.push_str(&format!("[[key]]\nid = \"{id}\"\ntenant = \"{tenant}\"\nsource = \"meters\"\nsha256 = \"{hash}\"\n\n"));
            let hash = tidegate_ingest_http::hash_secret(&[secret + 10; 32]);
            keys.push_str(&format!("[[key]]\nid = \"{id}b\"\ntenant = \"{tenant}\"\nsource = \"bytes\"\nsha256 = \"{hash}\"\n\n"));
        }
        write("sources.toml", &sources);
        write("keys.toml", &keys);
        write(
            "templates/vendor/meter/template.toml",
            "id = \"meter\"\ntitle = \"Meter\"\ntable = \"meters\"\n\n\
             [[fields]]\nname = \"temperature\"\ntype = \"f64\"\nunit = \"Cel\"\nmin = -40\nmax = 85\nrequired = true\n\n\
             [[fields]]\nname = \"seq\"\ntype = \"i64\"\n\n\
             [[fields]]\nname = \"note\"\ntype = \"text\"\n",
        );
        write(
            "templates/vendor/meter/transform.luau",
            "function transform(e)\n  if e.skip then return nil end\n  if e.fail then error(\"asked to\") end\n  while e.forever do end\n  \
             return { temperature = e.temperature, seq = e.seq, note = e.note, extra = e.extra }\nend\n",
        );
        write(
            "templates/vendor/frame/template.toml",
            "id = \"frame\"\ntitle = \"Frame\"\ntable = \"frames\"\n\n[payload]\nencoding = \"none\"\nform = \"buffer\"\n\n\
             [[fields]]\nname = \"level\"\ntype = \"i64\"\nunit = \"mm\"\nrequired = true\n",
        );
        write(
            "templates/vendor/frame/decode.luau",
            "function decode(input)\n  if buffer.len(input.payload) ~= 2 then return { errors = { \"a frame has 2 bytes\" } } end\n  \
             return { data = { level = buffer.readu8(input.payload, 0) * 256 + buffer.readu8(input.payload, 1) } }\nend\n",
        );
    }

    /// Starts the server and waits until it serves.
    pub fn start(&self, options: &Options) -> Running {
        self.try_start(options).unwrap_or_else(|log| panic!("the server did not start:\n{log}"))
    }

    /// As `start`; the log where the process ended instead.
    pub fn try_start(&self, options: &Options) -> Result<Running, String> {
        let log = self.path(&format!("server-{}.log", std::fs::read_dir(self.root.path()).unwrap().count()));
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(self.path("tidegate.toml")).args(&options.args);
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        match &options.fault {
            Some(fault) => command.env("TIDEGATE_FAULT", fault),
            None => command.env_remove("TIDEGATE_FAULT"),
        };
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(told) = serde_json::from_str::<serde_json::Value>(&line) else {
            let status = child.wait().unwrap();
            return Err(format!("{status}\n{}", std::fs::read_to_string(&log).unwrap()));
        };
        let address = told["serving"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Ok(Running { child, address, log })
    }

    /// `tidegate verify --json` on the data folder: its object, and whether it exited with 0.
    pub fn verify(&self) -> (serde_json::Value, bool) {
        let output = Command::new(BINARY).args(["verify", "--json", "--config"]).arg(self.path("tidegate.toml")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        (value, output.status.success())
    }
}

/// An API key of the test definitions.
pub fn key(id: &str, secret: u8) -> String {
    tidegate_ingest_http::issue_key(&tidegate_schemas::ids::CredentialId::new(id).unwrap(), &[secret; 32])
}

/// A server at work. It is killed when the test lets go of it.
pub struct Running {
    pub child: Child,
    pub address: String,
    pub log: PathBuf,
}

impl Running {
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) {
        terminate(self.child.id());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", std::fs::read_to_string(&self.log).unwrap());
    }

    /// Waits until the process ended by itself; where it does not, tells what it is about.
    pub fn ends(&mut self, patience: Duration, why: &str) {
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if started.elapsed() > patience {
                let ready = String::from_utf8_lossy(&self.client().get("/ready", None).body).into_owned();
                let log = std::fs::read_to_string(&self.log).unwrap();
                panic!("{patience:?} after its start the server lives on, which was to die at {why}: {ready}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of its log that are no routine.
    pub fn complaints(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let lines: Vec<&str> =
            log.lines().filter(|l| l.contains("\"WARN\"") || l.contains("\"ERROR\"") || l.contains("partition")).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address)
    }

    /// Waits until everything that is in `raw` is committed and delivered.
    pub fn drain(&self) {
        self.drain_within(Duration::from_secs(60));
    }

    pub fn drain_within(&self, patience: Duration) {
        let (mut client, started) = (self.client(), Instant::now());
        loop {
            let told = client.get("/ready", None).json();
            if told["drained"] == true {
                return;
            }
            assert!(started.elapsed() < patience, "waited {patience:?} for all sinks to catch up: {told}\n{}", self.complaints());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGTERM by the system's own tool.
pub fn terminate(pid: u32) {
    signal(pid, "-TERM");
}

pub fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

pub fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < patience, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// HTTP/1.1 over one connection, opened anew where it broke.
pub struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    pub fn post(&mut self, path: &str, key: &str, content_type: &str, body: &[u8]) -> Answer {
        self.try_post(path, key, content_type, body, "").expect("an answer")
    }

    pub fn get(&mut self, path: &str, key: Option<&str>) -> Answer {
        self.try_get(path, key).expect("an answer")
    }

    pub fn try_get(&mut self, path: &str, key: Option<&str>) -> std::io::Result<Answer> {
        let auth = key.map(|k| format!("Authorization: Bearer {k}\r\n")).unwrap_or_default();
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n{auth}\r\n"), &[])
    }

    pub fn try_post(&mut self, path: &str, key: &str, content_type: &str, body: &[u8], headers: &str) -> std::io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.send(&head, body)
    }

    fn send(&mut self, head: &str, body: &[u8]) -> std::io::Result<Answer> {
        let result = self.exchange(head, body);
        if !matches!(&result, Ok(a) if !a.headers.contains("connection: close")) {
            self.stream = None;
        }
        result
    }

    fn exchange(&mut self, head: &str, body: &[u8]) -> std::io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(90)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let reader = self.stream.as_mut().unwrap();
        let stream = reader.get_mut();
        stream.write_all(head.as_bytes())?;
        // A server that refuses a body early may close before all of it is sent: its answer still counts.
        let sent = stream.write_all(body);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(sent.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
        }
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
        let mut headers = String::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            headers.push_str(&line.to_ascii_lowercase());
        }
        let len = headers.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|l| l.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }
}

/// Seconds since something that differs from run to run: seeds are printed, so a failure can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("seed {seed}: TIDEGATE_SEED={seed} repeats it");
    seed
}

/// SplitMix64: enough for test schedules.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Every file below a folder.
pub fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push(path);
        }
    }
}

/// `../shared/data`, where it is.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("{} is absent: what needs it is left out", path.display());
    assert!(std::env::var("TIDEGATE_REQUIRE_DATA").as_deref() != Ok("1"), "{} is absent", path.display());
    None
}

/// What a test is run again under.
pub enum Restricted {
    /// Files of at most so many blocks of 512 bytes; the process may lift it itself.
    FileBlocks(u32),
    /// A disk of its own of this size, mounted at the folder.
    Disk(&'static str),
    /// As `Disk`, and in it `disk`, a file system with more room than its medium has: writes to it are taken, and found
    /// to be impossible when they are synced.
    Overbooked(&'static str),
}

/// Runs a test in a process of its own, where it finds the folder that is restricted. Left out where the system has no such
/// thing to give.
pub fn run_restricted(test: &str, how: Restricted, run: impl FnOnce(&Path)) {
    match std::env::var_os("TIDEGATE_RESTRICTED") {
        Some(dir) => run(Path::new(&dir)),
        None => drop(restricted(test, tempfile::tempdir().unwrap().path(), how)),
    }
}

/// Runs this test program again for one test, which finds the folder in `TIDEGATE_RESTRICTED`. `false` where the system has
/// no such thing to give.
pub fn restricted(test: &str, dir: &Path, how: Restricted) -> bool {
    let run = format!("exec \"$0\" --exact {test} --nocapture");
    let program = std::env::current_exe().unwrap();
    let mut command = match &how {
        Restricted::FileBlocks(blocks) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {blocks}; {run}")]);
            command
        }
        Restricted::Disk(size) | Restricted::Overbooked(size) => {
            let mut mounting = format!("mount -t tmpfs -o size={size} none \"$TIDEGATE_RESTRICTED\"");
            // A device takes the rights of the machine's own administrator; all of it ends with the test's mounts.
            let mut apart = "-rm";
            if matches!(how, Restricted::Overbooked(_)) {
                apart = "-m";
                // A request of several pages, of which the medium takes the first, is told done by the loop device of Linux 6.18
                // (a sync succeeds, and what was written is lost): each page is a request of its own.
                mounting.push_str(
                    " && cd \"$TIDEGATE_RESTRICTED\" && truncate -s 256m image && mkdir disk \
                     && mkfs.ext4 -q -F -O ^has_journal -N 64 -E lazy_itable_init=0 image && mount -o loop image disk \
                     && device=$(findmnt -n -o SOURCE disk) && echo 4 >\"/sys/block/${device#/dev/}/queue/max_sectors_kb\"",
                );
            }
            let able = Command::new("unshare").args([apart, "sh", "-c", &mounting]).env("TIDEGATE_RESTRICTED", dir).output();
            if !able.is_ok_and(|o| o.status.success()) {
                eprintln!("this system lets nobody mount a disk for a test: {test} is left out");
                assert!(std::env::var("TIDEGATE_REQUIRE_SERVICES").as_deref() != Ok("1"), "no disk can be mounted");
                return false;
            }
            let mut command = Command::new("unshare");
            command.args([apart, "sh", "-c", &format!("{mounting} && {run}")]);
            command
        }
    };
    // Its output goes through a pipe: a file that this test program writes to would be limited as well.
    let child = command.arg(program).env("TIDEGATE_RESTRICTED", dir).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    true
}
