//! Which function answers which request, and what happens to every one of them.

use super::error::{ApiError, ApiResult, json_response};
use super::models::Slot;
use super::openai::{models, replies, responses, tokenize};
use super::shutdown::Phase;
use super::{App, Caller, ServeError, hosts, ids, page};
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any as AnyOrigin, CorsLayer};

/// The other end of a connection.
#[derive(Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The connection itself.
    pub stream: Arc<TcpStream>,
}

/// What a request is called in logs and responses, and when it came.
#[derive(Clone)]
struct Arrival {
    id: String,
    at: Instant,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken from a client.
const MAX_ID: usize = 128;

/// Everything that is served.
pub fn router(app: Arc<App>) -> Result<Router, ServeError> {
    let api = Router::new()
        .route("/v1/chat/completions", post(replies::chat))
        .route("/v1/completions", post(replies::completions))
        .route("/v1/embeddings", post(replies::embeddings))
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
        .layer(from_fn_with_state(app.clone(), hosts::guard))
        .layer(from_fn_with_state(app, note)))
}

/// The outermost layer: a name for the request, a line in the log, a count.
async fn note(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let usable = |id: &&str| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic());
    let id = given.filter(usable).map_or_else(|| ids::unique("req_"), str::to_owned);
    let at = Instant::now();
    let (method, path) = (request.method().clone(), start(request.uri().path()));
    request.extensions_mut().insert(Arrival { id: id.clone(), at });
    let mut response = next.run(request).await;
    let route = response.extensions().get::<Route>().map_or("other", |r| r.0.as_str()).to_owned();
    let status = response.status().as_u16();
    app.metrics.response(&route, status);
    let why = response.extensions().get::<ApiError>().map(|e| start(&e.message));
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

/// The beginning of a message: it may name a field that is as long as a body.
fn start(message: &str) -> String {
    const MOST: usize = 1000;
    match message.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
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
    let peer = extensions.get::<Peer>().cloned();
    let Peer { address, stream } = peer.ok_or_else(|| ApiError::internal("the request has no connection"))?;
    let arrival = extensions.get::<Arrival>().cloned();
    let Arrival { id, at } = arrival.ok_or_else(|| ApiError::internal("the request has no arrival"))?;
    let flow = app.gate.enter(request.headers(), address.ip())?;
    request.extensions_mut().insert(Caller { request_id: id, flow, arrived: at, stream });
    Ok(())
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let phase = *app.shutdown.phase().borrow();
    let (status, word) = match phase {
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Running => (StatusCode::OK, "ok"),
        Phase::Draining | Phase::Ending => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    // Other models are still served: what is wrong with one is said, and the server is up.
    let slots = app.models.slots().iter();
    let trouble: std::collections::BTreeMap<_, _> =
        slots.filter_map(|slot| Some((&slot.name, slot.trouble()?))).collect();
    let mut body = json!({"status": word});
    let loaded = |slot: &Arc<Slot>| Some((slot.name.clone(), slot.loaded()?.device.to_string()));
    let devices: std::collections::BTreeMap<_, _> = app.models.slots().iter().filter_map(loaded).collect();
    body["devices"] = json!(devices);
    if !trouble.is_empty() {
        body["failed"] = json!(trouble);
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
        // The origin is what is trusted, not the names of headers: SDKs send a dozen of their own.
        .allow_headers(AllowHeaders::mirror_request())
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
    use serde_json::Value;

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
