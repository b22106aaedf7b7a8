//! What an operator asks of the running process goes over a Unix socket in its data folder. `tidegate apply` reads and checks
//! a folder where it lies, and the process compares, publishes and answers; `tidegate rejections release` names what it means,
//! and the process, which may write to the log, does it.
//!
//! ```text
//! client: read, check ─ {"apply": {"definitions": […]}} ─▶ server: diff, append
//!                     ◀─ {"applied": {revision, changes, unchanged}} or {"refused": […]} or {"failed": …}
//!                     ─ {"release": {tenant, code, …}} ──▶ server: rejections that wait ─▶ raw
//!                     ◀─ {"released": {released, codes, …}} or {"failed": …}
//! ```
//! One request and one answer a connection, one connection at a time. The right to ask is the right to open the socket:
//! it belongs to the process's user alone (mode 0600), and the peer's user is asked for as well.

use super::check;
use super::diff::Refusal;
use super::folder::Folder;
use super::publish::{PublishError, Published, Publisher};
use crate::choice::RefusedChoice;
use crate::config::place::{Fault, Faults, FilePlace};
use crate::release::{self, Done, Order};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::definition::{Definition, DefinitionKey};
use tidegate_schemas::limits::CONTROL_SOCKET_BYTES_MAX;
use tidegate_schemas::log::{EventLog, LogName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// A client that sends or reads slower than this is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client waits so long for its answer: a hundred thousand definitions take seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// These definitions shall be all that there are; and no template version stays in quarantine, where that is wanted.
    Apply {
        definitions: Vec<Definition>,
        #[serde(default)]
        lift_quarantines: bool,
        /// Whether some may go from one tenant to another.
        #[serde(default)]
        between_tenants: bool,
    },
    /// These refused events shall come again.
    Release(RefusedChoice),
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    /// It is in effect.
    Applied(Published),
    /// Nothing was published.
    Refused(Vec<Refused>),
    /// They come again.
    Released(Done),
    /// It could not be done.
    Failed { detail: String },
}

/// A refused definition on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    definition: DefinitionKey,
    detail: String,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("control socket {socket}: {doing}; another data folder with a short path may help")]
pub struct SocketError {
    /// Its path.
    pub socket: PathBuf,
    /// What was under way.
    pub doing: &'static str,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// Why a folder was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The folder is wrong; nothing was sent, or nothing was published.
    #[error(transparent)]
    Folder(#[from] Faults),
    /// Nobody answers.
    #[error("{doing} {socket}; is tidegate running on this data folder, under this user?")]
    Unreachable {
        /// What was under way.
        doing: &'static str,
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The process could not do it.
    #[error("tidegate could not do it: {0}")]
    Failed(String),
}

/// What an operator allows besides what the folder says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// No template version stays in quarantine.
    pub lift_quarantines: bool,
    /// Definitions may go from one tenant to another.
    pub between_tenants: bool,
}

/// Checks a folder and publishes it through the process that serves `socket`. Blocking.
pub fn apply(folder: &Path, socket: &Path, allowed: Allowed) -> Result<Published, ApplyError> {
    let Allowed { lift_quarantines, between_tenants } = allowed;
    let checked = check::check(folder)?;
    let Folder { definitions, places, .. } = checked.folder;
    match ask(socket, &Request::Apply { definitions, lift_quarantines, between_tenants })? {
        Answer::Applied(published) => Ok(published),
        Answer::Refused(refused) => {
            let place = |key: &DefinitionKey| places.get(key).cloned().unwrap_or_else(|| FilePlace::file(&folder.display().to_string()));
            let remedy = "it does not fit what is published: correct it, or give it another name";
            let fault = |r: Refused| Fault::new(place(&r.definition), r.detail, remedy);
            Err(Faults(refused.into_iter().map(fault).collect()).into())
        }
        Answer::Failed { detail } => Err(ApplyError::Failed(detail)),
        Answer::Released(_) => Err(ApplyError::Failed("it answered another request".into())),
    }
}

/// Has the process that serves `socket` release refused events. Blocking.
pub fn release(choice: &RefusedChoice, socket: &Path) -> Result<Done, ApplyError> {
    match ask(socket, &Request::Release(choice.clone()))? {
        Answer::Released(done) => Ok(done),
        Answer::Failed { detail } => Err(ApplyError::Failed(detail)),
        Answer::Applied(_) | Answer::Refused(_) => Err(ApplyError::Failed("it answered another request".into())),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Answer, ApplyError> {
    let request = serde_json::to_vec(request).map_err(|e| ApplyError::Failed(e.to_string()))?;
    if request.len() > CONTROL_SOCKET_BYTES_MAX {
        let detail = format!("definitions of {} bytes, above {CONTROL_SOCKET_BYTES_MAX}", request.len());
        return Err(ApplyError::Failed(detail));
    }
    let answer = exchange(socket, &request)?;
    serde_json::from_slice(&answer).map_err(|e| ApplyError::Failed(format!("its answer is unreadable: {e}")))
}

fn exchange(socket: &Path, request: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let unreachable = |doing, cause| ApplyError::Unreachable { doing, socket: socket.to_owned(), cause };
    let mut stream = std::os::unix::net::UnixStream::connect(socket).map_err(|e| unreachable("cannot connect to", e))?;
    let prepared = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.set_read_timeout(Some(ANSWER_PATIENCE)));
    let sent = prepared.and_then(|()| stream.write_all(request)).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    sent.map_err(|e| unreachable("cannot send to", e))?;
    let mut answer = Vec::new();
    stream.take(CONTROL_SOCKET_BYTES_MAX as u64).read_to_end(&mut answer).map_err(|e| unreachable("no answer from", e))?;
    Ok(answer)
}

/// A control socket that others may knock at already.
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    owner: u32,
}

/// Serves a control socket until `stop` is cancelled; the one under way is answered first.
pub async fn serve(socket: ControlSocket, publisher: Publisher, log: Arc<dyn EventLog>, stop: CancellationToken) {
    let ControlSocket { path, listener, owner } = socket;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => answer_one(stream, owner, &publisher, &log).await,
            Err(error) => {
                // Out of files, most likely: a pause lets others free some.
                tracing::warn!(%error, "control socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Whoever comes later learns at once that nobody serves.
    let _ = std::fs::remove_file(&path);
}

/// The log's lock makes this process the only one in the data folder, so a socket that is there is left over.
pub fn bind(socket: &Path) -> Result<ControlSocket, SocketError> {
    let failed = |doing| move |cause| SocketError { socket: socket.to_owned(), doing, cause };
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("the one left over cannot be removed")(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed("cannot be bound"))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed("cannot be kept from others"))?;
    let owner = std::fs::metadata(socket).map_err(failed("cannot be looked at"))?.uid();
    Ok(ControlSocket { path: socket.to_owned(), listener, owner })
}

async fn answer_one(mut stream: UnixStream, owner: u32, publisher: &Publisher, log: &Arc<dyn EventLog>) {
    let peer = match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner || peer.uid() == 0 => peer.uid(),
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "control socket was opened by another user"),
        Err(error) => return tracing::warn!(%error, "control socket has a peer without a name"),
    };
    let answer = match tokio::time::timeout(PATIENCE, receive(&mut stream)).await {
        Ok(Ok(body)) => answer(body, publisher, log, &format!("uid:{peer}")).await,
        Ok(Err(error)) => Answer::Failed { detail: error.to_string() },
        Err(_) => Answer::Failed { detail: format!("the request took longer than {} s", PATIENCE.as_secs()) },
    };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    let sent = tokio::time::timeout(PATIENCE, async {
        stream.write_all(&body).await?;
        stream.shutdown().await
    });
    if let Ok(Err(error)) = sent.await {
        tracing::warn!(%error, "control socket could not answer");
    }
}

async fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    stream.take(CONTROL_SOCKET_BYTES_MAX as u64 + 1).read_to_end(&mut body).await?;
    if body.len() > CONTROL_SOCKET_BYTES_MAX {
        return Err(io::Error::other(format!("the request is larger than {CONTROL_SOCKET_BYTES_MAX} bytes")));
    }
    Ok(body)
}

async fn publish(publisher: &Publisher, definitions: Vec<Definition>, allowed: Allowed, actor: &str) -> Result<Published, PublishError> {
    let mut published = publisher.apply(definitions, allowed.between_tenants, actor).await?;
    if allowed.lift_quarantines {
        let lifted = publisher.lift_quarantines(actor).await?;
        published.revision = lifted.revision;
        published.changes.extend(lifted.changes);
    }
    Ok(published)
}

async fn answer(body: Vec<u8>, publisher: &Publisher, log: &Arc<dyn EventLog>, actor: &str) -> Answer {
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&body)).await;
    let (definitions, allowed) = match parsed {
        Ok(Ok(Request::Apply { definitions, lift_quarantines, between_tenants })) => {
            (definitions, Allowed { lift_quarantines, between_tenants })
        }
        Ok(Ok(Request::Release(choice))) => return released(choice, publisher, Arc::clone(log), actor.to_owned()).await,
        Ok(Err(e)) => return Answer::Failed { detail: format!("the request is unreadable: {e}") },
        Err(e) => return Answer::Failed { detail: e.to_string() },
    };
    match publish(publisher, definitions, allowed, actor).await {
        Ok(published) => Answer::Applied(published),
        Err(PublishError::Refused(refusals)) => {
            let refused = |r: Refusal| Refused { definition: r.definition, detail: r.cause.to_string() };
            Answer::Refused(refusals.into_iter().map(refused).collect())
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "definitions could not be published");
            Answer::Failed { detail: error.to_string() }
        }
    }
}

async fn released(choice: RefusedChoice, publisher: &Publisher, log: Arc<dyn EventLog>, actor: String) -> Answer {
    let (catalog, now, runtime) = (publisher.follower.current(), publisher.now, tokio::runtime::Handle::current());
    let by = actor.clone();
    let run = move || {
        let publish = |records| runtime.block_on(log.publish(LogName::Raw, records)).map(drop);
        release::release(&*log, &catalog, &Order { choice: &choice, by: &by, at: now() }, publish)
    };
    let detail = match tokio::task::spawn_blocking(run).await {
        Ok(Ok(done)) => {
            tracing::info!(actor, events = done.released, codes = ?done.codes, "rejections released");
            return Answer::Released(done);
        }
        Ok(Err(error)) => tidegate_schemas::causes::chain(&error),
        Err(error) => error.to_string(),
    };
    tracing::warn!(actor, error = detail, "rejections could not be released");
    Answer::Failed { detail }
}
