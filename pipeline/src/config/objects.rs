//! Where objects go, and the one place that makes a store of it.

use super::secret::SecretPlace;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::limits;
use tidegate_schemas::secret::Secret;
use tidegate_sinks::objects::{Objects, ObjectsError};

/// A folder of this machine, or one of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// `tables`; relative to the configuration file's folder.
    Folder(PathBuf),
    /// `s3://bucket/tables`
    S3 {
        /// The bucket.
        bucket: String,
        /// The folder in it, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl Location {
    /// The folder of this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::S3 { .. } => None,
        }
    }

    /// The same, taken out.
    pub fn into_folder(self) -> Option<PathBuf> {
        match self {
            Self::Folder(path) => Some(path),
            Self::S3 { .. } => None,
        }
    }

    /// The same, to begin it elsewhere.
    pub fn folder_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Folder(path) => Some(path),
            Self::S3 { .. } => None,
        }
    }
}

impl TryFrom<String> for Location {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(text.into())) };
        if scheme != "s3" {
            return Err(format!("{scheme:?} is no store that Tidegate knows: write a folder, or s3://bucket/folder"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(named) {
            return Err(format!("{bucket:?} is no name of a bucket: write s3://bucket/folder"));
        }
        // What analysts' tools and policies take without escapes.
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'='))
        };
        if !prefix.is_empty() && !prefix.split('/').all(plain) {
            return Err(format!("{prefix:?} is no folder of a bucket: a-z, A-Z, 0-9, '-', '_', '.' and '=' between single slashes"));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// How S3 encrypts what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    /// By keys of its own.
    #[serde(rename = "AES256")]
    Own,
    /// By a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms,
    /// Twice, by such a key.
    #[serde(rename = "aws:kms:dsse")]
    KmsTwice,
}

/// `[s3]`: how buckets are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// Address of a store that is not Amazon's: `https://minio.example:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Absent: the environment's `AWS_REGION`, else `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket's name comes before the host's name rather than in the path.
    pub virtual_hosts: bool,
    /// Who signs; absent: what the environment says (`AWS_…`), a web identity, or the role of the container or machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Where its secret is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<SecretPlace>,
    /// Certificates of the authorities that the server is signed by, PEM, beside those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How objects are encrypted; absent: as the bucket says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The key of the key management service; absent: the bucket's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Where a key of our own is that S3 encrypts with and forgets (SSE-C), 32 bytes in base64. Readers need it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_key: Option<SecretPlace>,
    /// A request that takes longer has failed, and is tried again.
    pub request_seconds_max: u32,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            virtual_hosts: false,
            access_key_id: None,
            secret_access_key: None,
            ca_file: None,
            encryption: None,
            kms_key_id: None,
            customer_key: None,
            request_seconds_max: limits::OBJECT_REQUEST_SECONDS as u32,
        }
    }
}

impl S3 {
    /// Every file that is named.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        let secrets = [self.secret_access_key.as_mut(), self.customer_key.as_mut()];
        secrets.into_iter().flatten().filter_map(SecretPlace::file).chain(self.ca_file.as_mut()).collect()
    }

    /// Makes the store of a location. Nothing is asked of it yet.
    pub fn open(&self, location: &Location) -> Result<Objects, ObjectsError> {
        match location {
            Location::Folder(path) => Objects::folder(path),
            Location::S3 { bucket, .. } => {
                let store = self.builder(bucket)?.build().map_err(|e| failed(location, &e))?;
                Objects::new(Arc::new(store), &location.to_string())
            }
        }
    }

    fn builder(&self, bucket: &str) -> Result<AmazonS3Builder, ObjectsError> {
        let mut builder = match (&self.access_key_id, &self.secret_access_key) {
            (Some(id), Some(place)) => {
                let secret = place.load("s3.secret_access_key").map_err(unfit)?;
                AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(text("s3.secret_access_key", &secret)?)
            }
            _ => AmazonS3Builder::from_env(),
        };
        let seconds = |s: usize| Duration::from_secs(s as u64);
        let mut client = ClientOptions::new()
            .with_timeout(seconds(self.request_seconds_max as usize))
            .with_connect_timeout(seconds(limits::OBJECT_CONNECT_SECONDS_MAX));
        if let Some(file) = &self.ca_file {
            let fail = |e: &dyn fmt::Display| ObjectsError::Failed {
                doing: format!("s3.ca_file: reading {}", file.display()),
                detail: e.to_string(),
            };
            let pem = std::fs::read(file).map_err(|e| fail(&e))?;
            for certificate in Certificate::from_pem_bundle(&pem).map_err(|e| fail(&e))? {
                client = client.with_root_certificate(certificate);
            }
        }
        if let Some(endpoint) = &self.endpoint {
            // Otherwise a client takes no plain connection, whatever an answer says.
            client = client.with_allow_http(endpoint.starts_with("http://"));
            builder = builder.with_endpoint(self.address(endpoint, bucket));
        }
        // Also where the keys are those of the settings.
        if let Some(region) = self.region.clone().or_else(|| std::env::var("AWS_REGION").ok()) {
            builder = builder.with_region(region);
        }
        self.encrypted(builder).map(|builder| {
            builder
                .with_bucket_name(bucket)
                .with_virtual_hosted_style_request(self.virtual_hosts)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_client_options(client)
                .with_retry(RetryConfig {
                    backoff: BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2.0 },
                    max_retries: limits::OBJECT_RETRIES_MAX,
                    retry_timeout: seconds(limits::OBJECT_RETRY_SECONDS_MAX),
                })
        })
    }

    /// The store wants the bucket in the host's name, where it is to be there.
    fn address(&self, endpoint: &str, bucket: &str) -> String {
        match endpoint.split_once("://") {
            Some((scheme, host)) if self.virtual_hosts => format!("{scheme}://{bucket}.{host}"),
            _ => endpoint.to_owned(),
        }
    }

    fn encrypted(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, ObjectsError> {
        let kind = |builder: AmazonS3Builder, kind: &str| match "aws_server_side_encryption".parse::<AmazonS3ConfigKey>() {
            Ok(key) => Ok(builder.with_config(key, kind)),
            Err(error) => Err(ObjectsError::Failed { doing: "s3.encryption".into(), detail: error.to_string() }),
        };
        let key = self.kms_key_id.as_deref();
        match (self.encryption, key, &self.customer_key) {
            (None, _, None) => Ok(builder),
            (None, _, Some(place)) => {
                let secret = place.load("s3.customer_key").map_err(unfit)?;
                let key = text("s3.customer_key", &secret)?;
                // Said here: what the store would say might show it.
                if !BASE64_STANDARD.decode(&key).is_ok_and(|bytes| bytes.len() == 32) {
                    return Err(ObjectsError::Failed { doing: "s3.customer_key".into(), detail: "is no 32 bytes in base64".into() });
                }
                Ok(builder.with_ssec_encryption(key))
            }
            (Some(Encryption::Own), ..) => kind(builder, "AES256"),
            (Some(Encryption::Kms), None, _) => kind(builder, "aws:kms"),
            (Some(Encryption::KmsTwice), None, _) => kind(builder, "aws:kms:dsse"),
            (Some(Encryption::Kms), Some(key), _) => Ok(builder.with_sse_kms_encryption(key)),
            (Some(Encryption::KmsTwice), Some(key), _) => Ok(builder.with_dsse_kms_encryption(key)),
        }
    }
}

fn text(setting: &str, secret: &Secret) -> Result<String, ObjectsError> {
    let shown = std::str::from_utf8(secret.expose()).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
    shown.map(str::to_owned).ok_or_else(|| ObjectsError::Failed {
        doing: setting.to_owned(),
        detail: "holds something else than visible ASCII characters".into(),
    })
}

fn unfit(error: super::secret::SecretError) -> ObjectsError {
    ObjectsError::Failed { doing: error.setting.to_owned(), detail: format!("{}; {}", error.detail, error.remedy) }
}

fn failed(location: &Location, error: &dyn fmt::Display) -> ObjectsError {
    ObjectsError::Failed { doing: format!("opening {location}"), detail: error.to_string() }
}
