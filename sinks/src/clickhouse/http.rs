//! ClickHouse's HTTP interface: one statement a request, and its errors told apart.

use super::ClickHouseOptions;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_schemas::causes::chain;
use tidegate_schemas::limits::{CLICKHOUSE_ANSWER_BYTES_MAX, CLICKHOUSE_CONNECT_SECONDS_MAX};
use tidegate_schemas::sink::SinkError;

/// Connections that nobody used for so long are closed: below what servers themselves wait.
const IDLE: Duration = Duration::from_secs(2);
/// Characters of a server's message that are passed on.
const MESSAGE_MAX: usize = 600;

/// A client of one server. Connections are kept for the next statement.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Pieces>,
    url: String,
    user: HeaderValue,
    key: Option<HeaderValue>,
    patience: Duration,
}

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says so, with its code where it has one.
    Server(Option<u32>, String),
    /// Nobody knows what became of it.
    Unreachable(String),
}

impl Failure {
    /// Neither table nor database is there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Server(Some(60 | 81), _))
    }

    /// The table is not as it was when it was last looked at.
    pub(super) fn is_about_the_table(&self) -> bool {
        self.is_absence() || matches!(self, Self::Server(Some(code), _) if of_the_table(*code))
    }

    /// As a sink tells it. What a server says of a table's columns and rows it would say again; all else may pass.
    pub(super) fn of(self, doing: String) -> SinkError {
        match self {
            Self::Server(Some(code), detail) if of_the_table(code) => SinkError::Permanent { doing, detail },
            Self::Server(_, detail) | Self::Unreachable(detail) => SinkError::Retryable { doing, detail },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Server(_, detail) | Self::Unreachable(detail)) = self;
        f.write_str(detail)
    }
}

/// Codes of errors that lie in the table or in the rows, by ClickHouse's `ErrorCodes.cpp`. Others (memory, too many parts,
/// rights, a server that goes down) are mended over there, and nothing need be done here.
fn of_the_table(code: u32) -> bool {
    matches!(
        code,
        6 | 8
            | 10
            | 15
            | 16
            | 20
            | 26
            | 27
            | 36
            | 38
            | 41
            | 43
            | 44
            | 47
            | 48
            | 50
            | 53
            | 62
            | 69
            | 70
            | 72
            | 73
            | 115
            | 117
            | 122
            | 125
            | 131
            | 190
            | 321
            | 349
            | 395
            | 407
            | 435
            | 436
            | 469
    )
}

impl Http {
    /// Reads certificates where there is TLS; connects to nobody yet.
    pub(super) fn open(options: &ClickHouseOptions) -> Result<Self, SinkError> {
        let wrong = |detail: String| SinkError::Permanent { doing: format!("reaching ClickHouse at {}", options.url), detail };
        let url: Uri = options.url.parse().map_err(|e| wrong(format!("it is no address: {e}")))?;
        let header = |bytes: &[u8]| HeaderValue::from_bytes(bytes).map_err(|_| wrong("user or password hold a control character".into()));
        let key = options.password.as_ref().map(|password| header(password.expose())).transpose()?.map(|mut key| {
            key.set_sensitive(true);
            key
        });
        let roots = if url.scheme_str() == Some("https") {
            roots(options.ca_file.as_deref()).map_err(wrong)?
        } else {
            rustls::RootCertStore::empty()
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(|e| wrong(e.to_string()))?.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_connect_timeout(Some(Duration::from_secs(CLICKHOUSE_CONNECT_SECONDS_MAX as u64)));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(connector);
        let url = options.url.trim_end_matches('/').to_owned();
        Ok(Self { client, url, user: header(options.user.as_bytes())?, key, patience: options.patience })
    }

    /// Where the server is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Runs a statement; its answer as the server writes it.
    pub(super) async fn run(&self, sql: &str) -> Result<Bytes, Failure> {
        self.send(&[], vec![Bytes::copy_from_slice(sql.as_bytes())]).await
    }

    /// Runs a query; its rows.
    pub(super) async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let sql = format!("{sql} FORMAT JSONEachRow");
        let settings = [("output_format_json_quote_64bit_integers", "0"), ("output_format_json_quote_denormals", "1")];
        let answer = self.send(&settings, vec![Bytes::from(sql)]).await?;
        let lines = answer.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|e| Failure::Unreachable(format!("its answer is not understood: {e}"))))
            .collect()
    }

    /// Inserts data that stands outside the statement.
    pub(super) async fn insert(&self, sql: &str, settings: &[(&str, String)], data: Vec<Bytes>) -> Result<(), Failure> {
        let mut all = vec![("query", sql)];
        all.extend(settings.iter().map(|(name, value)| (*name, value.as_str())));
        self.send(&all, data).await.map(drop)
    }

    async fn send(&self, parameters: &[(&str, &str)], body: Vec<Bytes>) -> Result<Bytes, Failure> {
        // The whole result first, so that a status of 200 is the last word.
        let mut uri = format!("{}/?wait_end_of_query=1", self.url);
        for (name, value) in parameters {
            let _ = write!(uri, "&{name}=");
            encode(value, &mut uri);
        }
        let mut request = Request::new(Pieces(body.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.parse().map_err(|e| Failure::Server(None, format!("the request's address is unusable: {e}")))?;
        let headers = request.headers_mut();
        headers.insert("x-clickhouse-user", self.user.clone());
        if let Some(key) = &self.key {
            headers.insert("x-clickhouse-key", key.clone());
        }
        let answered = async {
            let response = self.client.request(request).await.map_err(|e| Failure::Unreachable(chain(&e)))?;
            read(response).await
        };
        let late = |_| Failure::Unreachable(format!("no answer within {} s", self.patience.as_secs_f64()));
        tokio::time::timeout(self.patience, answered).await.map_err(late)?
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let (head, mut body) = response.into_parts();
    let code = head.headers.get("x-clickhouse-exception-code").and_then(|c| c.to_str().ok()?.parse::<u32>().ok());
    let mut answer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::Unreachable(chain(&e)))?;
        let Ok(data) = frame.into_data() else { continue };
        if answer.len() + data.len() > CLICKHOUSE_ANSWER_BYTES_MAX {
            return Err(Failure::Server(None, format!("its answer is above {CLICKHOUSE_ANSWER_BYTES_MAX} bytes")));
        }
        answer.extend_from_slice(&data);
    }
    if head.status == StatusCode::OK && code.is_none() {
        return Ok(answer.into());
    }
    let text = String::from_utf8_lossy(&answer);
    let told = text.strip_prefix("Code: ").and_then(|t| t.split('.').next()?.parse().ok());
    let mut message: String = text.trim().chars().take(MESSAGE_MAX).collect();
    if message.is_empty() {
        message = head.status.to_string();
    }
    Err(Failure::Server(code.or(told), message))
}

/// The authorities that a certificate may be signed by.
fn roots(ca_file: Option<&Path>) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(path) => {
            let unfit =
                |e: &dyn std::fmt::Display| format!("{}: {e}; name a PEM file of certificates that this process may read", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unfit(&e))? {
                roots.add(certificate.map_err(|e| unfit(&e))?).map_err(|e| unfit(&e))?;
            }
        }
    }
    if roots.is_empty() { Err("there is no authority that its certificate could be signed by; name one".into()) } else { Ok(roots) }
}

fn encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

/// A body of known length: where the connection breaks before its end, the server stores nothing of it.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
