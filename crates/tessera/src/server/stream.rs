//! Server-sent events: a task writes them into a short channel, the connection takes them out.

use super::error::{ApiError, ApiResult};
use super::generation::Generation;
use super::socket::half_closed;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_core::Stream;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tessera_engine::engine::EngineEvent;
use tokio::sync::mpsc;

/// Events that wait for a slow reader; more wait in the engine's channel, where there is at most one for
/// each token.
const BUFFER: usize = 32;

/// A comment is sent after so much silence, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Nobody reads any more.
#[derive(Debug)]
pub struct Gone;

/// The writing end of a stream.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<Bytes>,
    /// A comment was sent because the client closed its side.
    probed: Arc<AtomicBool>,
}

struct Lines(mpsc::Receiver<Bytes>);

impl Stream for Lines {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

/// A response whose events a task writes. A panic of the task is an error event like any other.
pub fn respond<F>(write: impl FnOnce(Events) -> F) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BUFFER);
    let events = Events { sender, probed: Arc::default() };
    let task = tokio::spawn(write(events.clone()));
    tokio::spawn(async move {
        if let Err(failed) = task.await {
            tracing::error!("a stream failed: {failed}");
            let _ = events.error(&ApiError::internal("the server failed; its log says how")).await;
        }
    });
    let mut response = Response::new(Body::from_stream(Lines(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // For proxies that collect a response before they pass it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Events {
    async fn line(&self, line: String) -> Result<(), Gone> {
        self.sender.send(line.into()).await.map_err(|_| Gone)
    }

    /// An event without a name.
    pub async fn data(&self, value: &Value) -> Result<(), Gone> {
        self.line(format!("data: {value}\n\n")).await
    }

    /// An event with a name.
    pub async fn named(&self, name: &str, value: &Value) -> Result<(), Gone> {
        self.line(format!("event: {name}\ndata: {value}\n\n")).await
    }

    /// The end, as OpenAI marks it.
    pub async fn done(&self) -> Result<(), Gone> {
        self.line("data: [DONE]\n\n".to_owned()).await
    }

    /// A failure after the status was sent.
    pub async fn error(&self, error: &ApiError) -> Result<(), Gone> {
        self.data(&error.json()).await
    }

    /// The next event of the engine, while somebody reads. Silence is filled with comments. A client that closed
    /// its side gets one at once: if nobody is there, the system learns so by it.
    pub async fn next(
        &self,
        generation: &mut Generation,
    ) -> Result<ApiResult<Option<(usize, EngineEvent)>>, Gone> {
        let stream = generation.stream();
        loop {
            let unprobed = !self.probed.load(Ordering::Relaxed);
            tokio::select! {
                biased;
                () = self.sender.closed() => return Err(Gone),
                next = generation.next() => return Ok(next),
                _ = half_closed(&stream), if unprobed => {
                    self.probed.store(true, Ordering::Relaxed);
                    self.line(": keep-alive\n\n".to_owned()).await?;
                }
                () = tokio::time::sleep(KEEP_ALIVE) => self.line(": keep-alive\n\n".to_owned()).await?,
            }
        }
    }
}
