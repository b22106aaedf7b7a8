//! Who speaks. A credential names tenant and source; nothing else in a request does.
//!
//! One file for each kind of credential: a new kind is a file and an arm in [`authenticate`].

pub(crate) mod api_key;
mod presented;

pub use api_key::{hash_secret, issue_key};

use crate::problem::Problem;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use std::sync::Arc;
use tidegate_schemas::catalog::{Catalog, PinnedSource};
use tidegate_schemas::definition::ApiKey;
use tidegate_schemas::ids::{CredentialId, TenantId};
use tidegate_schemas::time::Micros;

/// A verified sender.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) credential: CredentialId,
    /// The one source that the credential opens.
    pub(crate) source: Arc<PinnedSource>,
    /// The definition, where the credential is a key: it may be bound to assets.
    pub(crate) key: Arc<ApiKey>,
}

/// Why a credential does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// None was sent.
    Absent,
    /// Not of a form that is known, or its checksum is wrong: a typing error, found without a look-up.
    Malformed,
    /// Unknown id or wrong secret; which of the two stays untold.
    Unknown,
    /// It was right once.
    Expired,
    /// It stands in the URL, where proxies and logs keep it.
    InQuery,
    /// Its source is no longer there.
    SourceGone,
}

/// Finds the sender of a request. `now` decides about expiry.
pub(crate) fn authenticate(catalog: &Catalog, headers: &HeaderMap, query: Option<&str>, now: Micros) -> Result<Caller, Denial> {
    if query.is_some_and(presented::in_query) {
        return Err(Denial::InQuery);
    }
    let text = presented::credential(headers)?;
    let key = api_key::verify(catalog, &text, now)?;
    let source = catalog.source(&key.tenant, &key.source).ok_or(Denial::SourceGone)?;
    Ok(Caller { tenant: key.tenant.clone(), credential: key.id.clone(), source: Arc::clone(source), key: Arc::clone(key) })
}

impl Denial {
    /// In metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::InQuery => "in_query",
            Self::SourceGone => "source_gone",
        }
    }

    pub(crate) fn into_problem(self) -> Box<Problem> {
        let unauthorized = |detail: &str, challenge: &'static str| {
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "No valid credential", detail)
                .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        };
        crate::metrics::denied(self.as_str());
        let invalid = "Bearer realm=\"tidegate\", error=\"invalid_token\"";
        let problem = match self {
            Self::Absent => unauthorized(
                "send the API key as `Authorization: Bearer`, as `X-API-Key`, or as the user name of Basic",
                "Bearer realm=\"tidegate\"",
            ),
            Self::Malformed => {
                unauthorized("this is no API key: it starts with tg_ and ends in a checksum; was it cut or mistyped?", invalid)
            }
            Self::Unknown => unauthorized("this API key is not known, or was revoked", invalid),
            Self::Expired => unauthorized("this API key has expired: ask for a new one", invalid),
            Self::InQuery => Problem::new(
                StatusCode::BAD_REQUEST,
                "credential-in-query",
                "Credential in the URL",
                "a credential is never taken from the query, where proxies and logs keep it: send it as a header, and replace this one",
            ),
            Self::SourceGone => Problem::new(
                StatusCode::FORBIDDEN,
                "source-gone",
                "Source not published",
                "the source of this credential is not published any more",
            ),
        };
        problem.logged(format!("credential denied: {}", self.as_str()))
    }
}
