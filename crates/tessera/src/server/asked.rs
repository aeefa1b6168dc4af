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
use std::time::{Duration, Instant};

/// A body that is too long is read and dropped up to here, so that the client sees the answer and not a
/// broken connection.
const MAX_DRAIN: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A request of the API.
struct Asked {
    /// Who asks.
    caller: Caller,
    /// What.
    body: Value,
    /// Bytes of the body.
    len: usize,
}

/// Who asks, and the body as JSON.
async fn read(app: &App, request: Request) -> ApiResult<Asked> {
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| ApiError::internal("the request passed no gate"))?;
    check_type(&parts.headers)?;
    let limit = app.config.max_body;
    let bytes = tokio::time::timeout(app.config.read_timeout, collect(&parts.headers, body, limit));
    let bytes = bytes.await.unwrap_or_else(|_| {
        let seconds = app.config.read_timeout.as_secs_f64();
        let message = format!("the body did not arrive within {seconds} s");
        Err(ApiError::request(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
    })?;
    let len = bytes.len();
    let body = offload(app, len, move || json::parse(&bytes)).await?;
    Ok(Asked { caller, body, len })
}

impl Asked {
    /// How long it may take to make the body a job, in bytes: grammars and tools are compiled.
    fn effort(&self) -> usize {
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
        let compiled = COMPILED.iter().any(|name| self.body.get(name).is_some_and(|v| !v.is_null()));
        if compiled { usize::MAX } else { self.len }
    }
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
pub async fn planned<P: Send + 'static>(
    app: &App,
    request: Request,
    table: &'static Table,
    plan: impl FnOnce(&Value, &Served) -> ApiResult<P> + Send + 'static,
) -> ApiResult<Planned<P>> {
    let asked = read(app, request).await?;
    let (effort, Asked { caller, body, .. }) = (asked.effort(), asked);
    let model = Fields::check(&body, table, "")?.text("model").unwrap_or_default().to_owned();
    let lease = app.models.lease(&model).await?;
    let (lease, plan) = offload(app, effort, move || {
        let plan = plan(&body, &lease)?;
        Ok((lease, plan))
    })
    .await?;
    Ok(Planned { caller, lease, model, plan })
}

/// Runs what takes long for long inputs where it holds nobody up: on as many threads as there are cores, so
/// that neither memory nor other requests suffer from many of them. Who waits for one and goes away has
/// cost nothing.
pub async fn offload<T: Send + 'static>(
    app: &App,
    bytes: usize,
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    const SHORT: usize = 16 << 10;
    if bytes <= SHORT {
        return work();
    }
    let permit = app.work.clone().acquire_owned().await;
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    task.await.unwrap_or_else(|e| {
        tracing::error!("a request failed: {e}");
        Err(ApiError::internal("the server failed; its log says how"))
    })
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

async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> ApiResult<Vec<u8>> {
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let mut too_long = stated.is_some_and(|n| n > limit as u64);
    if too_long && headers.contains_key(header::EXPECT) {
        // The client waits for leave to send: it gets none.
        return Err(too_large(limit, stated));
    }
    let mut stream = pin!(body.into_data_stream());
    let (mut bytes, mut read) = (Vec::new(), 0usize);
    let begun = Instant::now();
    while let Some(chunk) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        let chunk = chunk.map_err(|e| {
            let message = format!("the body cannot be read: {e}");
            ApiError::request(StatusCode::BAD_REQUEST, "body_incomplete", message)
        })?;
        read = read.saturating_add(chunk.len());
        too_long |= read > limit;
        match too_long {
            false => bytes.extend_from_slice(&chunk),
            true if read > MAX_DRAIN || begun.elapsed() > DRAIN_TIME => break,
            true => bytes = Vec::new(),
        }
    }
    if too_long { Err(too_large(limit, stated)) } else { Ok(bytes) }
}

fn too_large(limit: usize, stated: Option<u64>) -> ApiError {
    let found = stated.map_or("more".to_owned(), |n| format!("{n}"));
    let message = format!("the body may have {limit} bytes, found {found}");
    ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
