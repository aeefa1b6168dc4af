//! Which function answers which request, and what happens to every one of them.

use super::error::{ApiError, ApiResult, json_response};
use super::listen::ServeError;
use super::openai::{chat, completions, embeddings, models, responses, tokenize};
use super::shutdown::Phase;
use super::{App, Caller, ids, json, page};
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_core::Stream;
use serde_json::{Value, json};
use std::any::Any;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any as AnyOrigin, CorsLayer};

/// The other end of a connection.
#[derive(Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What a request is called in logs and responses, and when it came.
#[derive(Clone)]
struct Arrival {
    id: String,
    at: Instant,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken from a client.
const MAX_ID: usize = 128;

/// A body that is too long is read and dropped up to here, so that the client sees the answer and not a
/// broken connection.
const MAX_DRAIN: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Everything that is served.
pub fn router(app: Arc<App>) -> Result<Router, ServeError> {
    let api = Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/responses", post(responses::handle))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route_layer(from_fn_with_state(app.clone(), gate));
    let open = Router::new()
        .route("/health", get(ready))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version));
    let cors = cors(&app.config.cors)?;
    Ok(api
        .merge(open)
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app.clone())
        .layer(cors)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app, note)))
}

/// The outermost layer: a name for the request, a line in the log, a count.
async fn note(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let usable = |id: &&str| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic());
    let id = given.filter(usable).map_or_else(|| ids::unique("req_"), str::to_owned);
    let at = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(Arrival { id: id.clone(), at });
    let mut response = next.run(request).await;
    let route = response.extensions().get::<Route>().map_or("other", |r| r.0.as_str()).to_owned();
    let status = response.status().as_u16();
    app.metrics.response(&route, status);
    let why = response.extensions().get::<ApiError>().map(|e| e.message.clone());
    let ms = at.elapsed().as_millis() as u64;
    match why {
        Some(why) if status >= 500 => {
            tracing::warn!(request_id = id, %method, path, status, ms, why, "request")
        }
        Some(why) => tracing::info!(request_id = id, %method, path, status, ms, why, "request"),
        None if ["/metrics", "/health", "/ready"].contains(&path.as_str()) => {
            tracing::debug!(request_id = id, %method, path, status, ms, "request");
        }
        None => tracing::info!(request_id = id, %method, path, status, ms, "request"),
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The route that answered, for the outermost layer.
#[derive(Clone)]
struct Route(String);

/// Before every request of the API: is the server up, who asks, how often.
async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|p| Route(p.as_str().to_owned()));
    let mut response = match admit(&app, &mut request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

fn admit(app: &App, request: &mut Request) -> ApiResult<()> {
    app.shutdown.check()?;
    let extensions = request.extensions();
    let address = extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.0.ip());
    let arrival = extensions.get::<Arrival>().cloned();
    let Arrival { id, at } = arrival.ok_or_else(|| ApiError::internal("the request has no arrival"))?;
    let flow = app.gate.enter(request.headers(), address)?;
    request.extensions_mut().insert(Caller { request_id: id, flow, arrived: at });
    Ok(())
}

/// A request of the API.
pub struct Asked {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub body: Value,
    /// Bytes of the body.
    pub len: usize,
}

/// Who asks, and the body as JSON.
pub async fn read(app: &App, request: Request) -> ApiResult<Asked> {
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
    let body = offload(len, move || json::parse(&bytes)).await?;
    Ok(Asked { caller, body, len })
}

impl Asked {
    /// How long it may take to make the body a job, in bytes: grammars and tools are compiled.
    pub fn effort(&self) -> usize {
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

/// Runs what takes long for long inputs where it holds nobody up.
pub async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    const SHORT: usize = 16 << 10;
    if bytes <= SHORT {
        return work();
    }
    let task = tokio::task::spawn_blocking(work).await;
    task.unwrap_or_else(|e| {
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

async fn ready(State(app): State<Arc<App>>) -> Response {
    let phase = *app.shutdown.phase().borrow();
    let (status, word) = match phase {
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Running => (StatusCode::OK, "ok"),
        Phase::Draining | Phase::Ending => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    // Other models are still served: what is wrong with one is said, and the server is up.
    let trouble: serde_json::Map<String, Value> = app
        .models
        .slots()
        .iter()
        .filter_map(|slot| Some((slot.name.clone(), Value::String(slot.trouble()?))))
        .collect();
    let mut body = json!({"status": word});
    if !trouble.is_empty() {
        body["failed"] = Value::Object(trouble);
    }
    let mut response = json_response(&body);
    *response.status_mut() = status;
    response
}

async fn version() -> Response {
    json_response(&json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn metrics(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let page = app.metrics.render().map_err(|e| ApiError::internal(format!("metrics: {e}")))?;
    let mut response = Response::new(Body::from(page));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.extensions_mut().insert(Route("/metrics".to_owned()));
    Ok(response)
}

async fn not_found(method: Method, request: Request) -> ApiError {
    let message = format!("there is no {method} {}", request.uri().path());
    ApiError::request(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(method: Method, request: Request) -> ApiError {
    let message = format!("{} does not take {method}", request.uri().path());
    ApiError::request(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// A defect of ours ends one request, not the server.
fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    tracing::error!("a request failed: {}", text.unwrap_or("no message"));
    ApiError::internal("the server failed; its log says how").into_response()
}

fn cors(origins: &[String]) -> Result<CorsLayer, ServeError> {
    let layer = CorsLayer::new();
    if origins.is_empty() {
        return Ok(layer);
    }
    let layer = layer
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, REQUEST_ID])
        .expose_headers([REQUEST_ID, header::RETRY_AFTER]);
    if origins.iter().any(|o| o == "*") {
        return Ok(layer.allow_origin(AnyOrigin));
    }
    let mut values = Vec::new();
    for origin in origins {
        // What a browser sends has a scheme and no path, or it would never match.
        let rest = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
        let host = rest.filter(|host| !host.is_empty() && !host.contains('/'));
        match (host, HeaderValue::from_str(origin)) {
            (Some(_), Ok(value)) => values.push(value),
            _ => {
                let what = format!("expected an origin such as https://example.org, or *; found {origin}");
                return Err(ServeError::Option { option: "--cors", what });
            }
        }
    }
    Ok(layer.allow_origin(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_in_the_usual_shape_and_the_next_request_is_answered() {
        async fn broken() -> Response {
            panic!("a defect")
        }
        let router: Router = Router::new()
            .route("/broken", get(broken))
            .route("/version", get(version))
            .layer(CatchPanicLayer::custom(panicked));
        let ask = async |path: &str| {
            use hyper::service::Service;
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
            service.call(request).await.unwrap()
        };
        let response = ask("/broken").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "server_error");
        assert_eq!(ask("/version").await.status(), StatusCode::OK);
    }
}
