//! A request of the API as it was asked: its body, whole and as JSON, and the work of reading it.

use super::error::{ApiError, ApiResult};
use super::fields::{Fields, Table};
use super::models::{Lease, Served};
use super::{App, Caller, json};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use futures_core::Stream;
use serde_json::Value;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that is too long is read and dropped up to here, so that the client sees the answer and not a
/// broken connection.
const MAX_DRAIN: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A request of the API.
struct Asked {
    /// Who asks.
    caller: Caller,
    /// What.
    body: Arc<Bytes>,
}

/// A body, with its share of the room that all bodies have together.
struct Bytes {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Bytes {
    /// Room is counted in units of so many bytes.
    const UNIT: usize = 1 << 10;

    /// Adds a part, if there is room for it.
    fn push(&mut self, part: &[u8], app: &App) -> ApiResult<()> {
        let taken = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = (self.bytes.len() + part.len()).div_ceil(Bytes::UNIT) - taken;
        if more > 0 {
            let room = app.bodies.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
            let room = room.map_err(|_| {
                let message = "the server holds as much of other requests' bodies as it has room for";
                ApiError::unavailable("too_many_bodies", message)
            })?;
            match &mut self.room {
                Some(own) => own.merge(room),
                none => *none = Some(room),
            }
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// Room for the bodies of all requests together: those that arrive slowly are held meanwhile.
pub fn room_for_bodies(max_body: usize) -> Semaphore {
    const BODIES: usize = 64;
    let units = max_body.max(1 << 20).saturating_mul(BODIES) / Bytes::UNIT;
    Semaphore::new(units.min(Semaphore::MAX_PERMITS))
}

/// Who asks, and the body.
async fn read(app: &App, request: Request) -> ApiResult<Asked> {
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| ApiError::internal("the request passed no gate"))?;
    check_type(&parts.headers)?;
    let bytes = tokio::time::timeout(app.config.read_timeout, collect(&parts.headers, body, app));
    let bytes = bytes.await.unwrap_or_else(|_| {
        let seconds = app.config.read_timeout.as_secs_f64();
        let message = format!("the body did not arrive within {seconds} s");
        Err(ApiError::request(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
    })?;
    Ok(Asked { caller, body: Arc::new(bytes) })
}

/// Whether making a plan of a body compiles grammars or tools, which may take long for short ones too.
fn compiles(body: &Value) -> bool {
    const COMPILED: [&str; 8] = [
        "response_format",
        "tools",
        "text",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_grammar",
        "regex",
    ];
    COMPILED.iter().any(|name| body.get(name).is_some_and(|v| !v.is_null()))
}

/// What a request asks for, with what it needs to run.
pub struct Planned<P> {
    /// Who asks.
    pub caller: Caller,
    /// The model, which stays loaded meanwhile.
    pub lease: Lease,
    /// Its name in the request.
    pub model: String,
    /// What the endpoint made of the body.
    pub plan: P,
}

/// From a request to a plan: the body is read and checked, the model loaded if it is not, and the plan made
/// where it holds nobody up.
///
/// The body is parsed twice: as JSON it may take thirty times its length, which would be held by every request
/// that waits for a model or its turn.
pub async fn planned<P: Send + 'static>(
    app: &App,
    request: Request,
    table: &'static Table,
    plan: impl FnOnce(&Value, &Served) -> ApiResult<P> + Send + 'static,
) -> ApiResult<Planned<P>> {
    let Asked { caller, body } = read(app, request).await?;
    let (len, again) = (body.bytes.len(), body.clone());
    let check = move || {
        let body = json::parse(&body.bytes)?;
        let model = Fields::check(&body, table, "")?.text("model").unwrap_or_default().to_owned();
        Ok((model, compiles(&body)))
    };
    let (model, compiles) = app.work.run(len, false, check).await?;
    let lease = app.models.lease(&model).await?;
    let work = move || {
        let plan = plan(&json::parse(&again.bytes)?, &lease)?;
        Ok((lease, plan))
    };
    let (lease, plan) = app.work.run(len, compiles, work).await?;
    Ok(Planned { caller, lease, model, plan })
}

fn check_type(headers: &HeaderMap) -> ApiResult<()> {
    let wrong = |message| {
        Err(ApiError::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
    };
    let content_type = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
    let essence = content_type.map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if essence.as_deref() != Some("application/json") {
        let found = content_type.unwrap_or("none");
        return wrong(format!("content-type: expected application/json, found {found}"));
    }
    match headers.get(header::CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?")) {
        None | Some("identity") => Ok(()),
        Some(found) => wrong(format!("content-encoding: expected identity, found {found}")),
    }
}

async fn collect(headers: &HeaderMap, body: Body, app: &App) -> ApiResult<Bytes> {
    let limit = app.config.max_body;
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let mut too_long = stated.is_some_and(|n| n > limit as u64);
    if too_long && headers.contains_key(header::EXPECT) {
        // The client waits for leave to send: it gets none.
        return Err(too_large(limit, stated));
    }
    let mut stream = pin!(body.into_data_stream());
    let mut bytes = Bytes { bytes: Vec::new(), room: None };
    let (mut read, begun) = (0usize, Instant::now());
    while let Some(chunk) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        let chunk = chunk.map_err(|e| {
            let message = format!("the body cannot be read: {e}");
            ApiError::request(StatusCode::BAD_REQUEST, "body_incomplete", message)
        })?;
        read = read.saturating_add(chunk.len());
        too_long |= read > limit;
        match too_long {
            false => bytes.push(&chunk, app)?,
            true if read > MAX_DRAIN || begun.elapsed() > DRAIN_TIME => break,
            true => bytes = Bytes { bytes: Vec::new(), room: None },
        }
    }
    if too_long { Err(too_large(limit, stated)) } else { Ok(bytes) }
}

fn too_large(limit: usize, stated: Option<u64>) -> ApiError {
    let found = stated.map_or("more".to_owned(), |n| format!("{n}"));
    let message = format!("the body may have {limit} bytes, found {found}");
    ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
