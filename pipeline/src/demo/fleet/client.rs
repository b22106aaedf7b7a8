//! A light HTTP/1.1 client: one kept-alive connection, whole bodies, one write a request. It shares the machine with the
//! server that it drives, so it costs as little as it can; it knows what this edge answers and nothing beyond.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that takes longer is a lost connection.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
/// The largest answer taken: that to a request with a thousand refused events stays far below.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One connection.
pub struct Client {
    address: String,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    input: Vec<u8>,
}

/// One request with a body.
#[derive(Clone, Copy)]
pub struct Post<'a> {
    /// Path and query.
    pub path: &'a str,
    /// API key.
    pub key: Option<&'a str>,
    /// Media type.
    pub content_type: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of `host:port`. It connects with the first request, and again after a lost connection.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), stream: None, out: Vec::new(), input: Vec::new() }
    }

    /// Posts and awaits the answer.
    ///
    /// # Errors
    /// The connection failed: the server may or may not have the request. The next call connects anew.
    pub async fn post(&mut self, post: &Post<'_>) -> io::Result<Answer> {
        self.begin("POST", post.path, post.key);
        self.header("content-type", post.content_type);
        for (name, value) in post.headers {
            self.header(name, value);
        }
        self.header("content-length", &post.body.len().to_string());
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(post.body);
        self.exchange().await
    }

    /// Asks and awaits the answer.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn get(&mut self, path: &str, key: Option<&str>) -> io::Result<Answer> {
        self.begin("GET", path, key);
        self.out.extend_from_slice(b"\r\n");
        self.exchange().await
    }

    fn begin(&mut self, method: &str, path: &str, key: Option<&str>) {
        self.out.clear();
        self.out.extend_from_slice(format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address).as_bytes());
        if let Some(key) = key {
            self.out.extend_from_slice(b"authorization: Bearer ");
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn header(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    async fn exchange(&mut self) -> io::Result<Answer> {
        let answer = tokio::time::timeout(ANSWER_PATIENCE, self.send_and_receive()).await;
        let answer = answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn send_and_receive(&mut self) -> io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        stream.write_all(&self.out).await?;
        self.input.clear();
        loop {
            if let Some(head) = Head::parse(&self.input)? {
                while self.input.len() < head.len + head.body_len {
                    receive(stream, &mut self.input).await?;
                }
                let body = self.input[head.len..head.len + head.body_len].to_vec();
                if head.closes {
                    self.stream = None;
                }
                return Ok(Answer { status: head.status, retry_after: head.retry_after, body });
            }
            receive(stream, &mut self.input).await?;
        }
    }
}

async fn receive(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    if input.len() > ANSWER_BYTES_MAX {
        return Err(io::Error::other("the answer is larger than a client takes"));
    }
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What matters of an answer's head.
struct Head {
    len: usize,
    status: u16,
    body_len: usize,
    retry_after: Option<Duration>,
    closes: bool,
}

impl Head {
    /// `None` where it has not come whole.
    fn parse(input: &[u8]) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let len = match response.parse(input).map_err(io::Error::other)? {
            httparse::Status::Complete(len) => len,
            httparse::Status::Partial => return Ok(None),
        };
        let status = response.code.unwrap_or_default();
        let mut head = Self { len, status, body_len: 0, retry_after: None, closes: false };
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => match value.parse().map_err(io::Error::other)? {
                    fits @ 0..=ANSWER_BYTES_MAX => head.body_len = fits,
                    _ => return Err(io::Error::other("the answer is larger than a client takes")),
                },
                "retry-after" => head.retry_after = value.parse().ok().map(Duration::from_secs),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                "transfer-encoding" => return Err(io::Error::other("the answer comes in chunks, which this client does not read")),
                _ => {}
            }
        }
        Ok(Some(head))
    }
}
