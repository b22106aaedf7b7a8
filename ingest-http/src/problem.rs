//! Errors as RFC 9457 problems. Each has two messages: one for the caller, one for the log.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer.
pub(crate) type Reply = Response<Full<Bytes>>;

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The last part of its type: what is counted together.
    pub(crate) code: &'static str,
    body: Body,
    /// Ends the connection: what is left of the request would be mistaken for the next one.
    close: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log; what the caller is told stands beside it.
    pub(crate) log: Option<String>,
}

#[derive(Debug, Serialize)]
struct Body {
    r#type: String,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

/// One entry of a problem's `errors`, and of `rejected` in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// The event in the request, where one is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u32>,
    /// As in `rejections`.
    pub(crate) code: String,
    /// For people.
    pub(crate) detail: String,
    /// JSON pointer, empty for the whole.
    pub(crate) pointer: String,
}

impl Problem {
    /// `code` is the last part of the problem's type; `title` says the same for people, `detail` what to do about it.
    pub(crate) fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Box<Self> {
        let body = Body {
            r#type: format!("urn:tidegate:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            id: None,
            errors: Vec::new(),
        };
        Box::new(Self { status, code, body, close: false, headers: Vec::new(), log: None })
    }

    /// A defect of ours: the caller learns an id and nothing else.
    pub(crate) fn internal(log: impl Into<String>) -> Box<Self> {
        let mut id = [0; 8];
        // Without randomness the id is zeros, and the time in the log must do.
        let _ = getrandom::fill(&mut id);
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", "");
        let id = hex::encode(id);
        problem.log = Some(format!("{} (id {id})", log.into()));
        problem.body.id = Some(id);
        problem
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn with_errors(mut self: Box<Self>, errors: Vec<Fault>) -> Box<Self> {
        self.body.errors = errors;
        self
    }

    pub(crate) fn with_header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn retry_after(self: Box<Self>, seconds: u64) -> Box<Self> {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(crate) fn closing(mut self: Box<Self>) -> Box<Self> {
        self.close = true;
        self
    }

    pub(crate) fn logged(mut self: Box<Self>, log: impl Into<String>) -> Box<Self> {
        self.log = Some(log.into());
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut reply = json(self.status, &self.body);
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.headers);
        if self.close {
            // HTTP/2 has no such header; hyper takes it out there.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// An answer of one JSON value.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    // Plain structs with text keys always serialise.
    let mut reply = Response::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap_or_default())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
