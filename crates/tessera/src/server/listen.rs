//! Sockets: accepting, time-outs, limits, and the end.

use super::error::ApiError;
use super::models::Load;
use super::routes::{Peer, router};
use super::socket::{Patient, gone, reset};
use super::work::cores;
use super::{App, Config, ServeError};
use axum::extract::Request;
use axum::http::Version;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tessera_compute::threads;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// Serves until the process is told to end (Ctrl-C, SIGTERM). `listening` is told the address.
pub fn serve(config: Config, load: Arc<Load>, listening: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    threads_are_given()?;
    // Requests wait for the engine almost all the time: one thread carries thousands of them, and two wake each other.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        // A core's worth of work on bodies, and for each model a load and an end, which must not wait for it.
        .max_blocking_threads(cores() + 2 * config.models.len() + 2)
        .thread_name("tessera-http")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(config, load, listening));
    // A load that still runs is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// The runtime panics where the system refuses its threads, so they are asked for once before: its own, and one that
/// loads a model.
fn threads_are_given() -> io::Result<()> {
    std::thread::scope(|scope| {
        let probe = || {
            let name = "tessera-http".to_owned();
            threads::room(threads::STACK)?;
            std::thread::Builder::new().name(name).spawn_scoped(scope, std::thread::park)
        };
        let probes: Vec<_> = [probe(), probe()].into();
        probes.iter().flatten().for_each(|probe| probe.thread().unpark());
        probes.into_iter().try_for_each(|probe| probe.map(drop))
    })
    .map_err(|e| io::Error::new(e.kind(), format!("the server's threads cannot be started: {e}")))
}

async fn run(config: Config, load: Arc<Load>, listening: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let address = config.address;
    let listener = TcpListener::bind(address).await.map_err(|cause| ServeError::Bind { address, cause })?;
    let app = Arc::new(App::new(config, load)?);
    let service = router(app.clone())?;
    let mut told = Signals::new()?;
    listening(listener.local_addr()?);

    let (close, closing) = watch::channel(false);
    let accepting = tokio::spawn(accept(listener, app.clone(), service, closing));
    let first = app.config.models.first().map(|(name, _)| name.clone());
    let mut warm = tokio::spawn(warm_up(app.clone(), first));
    if let Some(after) = app.config.idle_unload {
        tokio::spawn(unload_idle(app.clone(), after));
    }
    tokio::select! {
        () = told.next() => {}
        ended = &mut warm => return Err(ServeError::Model(match ended {
            Ok(error) => error.message,
            Err(failed) => format!("loading failed: {failed}"),
        })),
    }
    warm.abort();
    tracing::info!("shutting down: running requests have {} s", app.config.grace.as_secs_f64());
    let again = async {
        told.next().await;
        tracing::warn!("told twice: running requests are ended now");
    };
    tokio::select! {
        ended = app.shutdown.drain(app.config.grace) => if ended > 0 {
            tracing::warn!("{ended} requests had to be ended");
        },
        () = again => drop(app.shutdown.drain(Duration::ZERO).await),
    }
    close.send_replace(true);
    let _ = tokio::time::timeout(Duration::from_secs(2), accepting).await;
    for slot in app.models.slots() {
        if let Some(served) = slot.loaded() {
            let engine = served.engine.clone();
            let _ = tokio::task::spawn_blocking(move || engine.shutdown(Duration::ZERO)).await;
        }
    }
    Ok(())
}

/// Loads the first model and has it make a token: then the server is ready. Only a failure ends this.
async fn warm_up(app: Arc<App>, first: Option<String>) -> ApiError {
    let warm = async {
        if let Some(name) = first {
            let lease = app.models.lease(&name).await?;
            super::openai::warm_up(&lease).await?;
        }
        Ok(())
    };
    if let Err(error) = warm.await {
        return error;
    }
    app.shutdown.ready();
    tracing::info!("ready");
    std::future::pending().await
}

async fn unload_idle(app: Arc<App>, after: Duration) {
    let pause = (after / 4).clamp(Duration::from_millis(50), Duration::from_secs(10));
    loop {
        tokio::time::sleep(pause).await;
        let app = app.clone();
        // Ending an engine waits for its thread.
        let _ = tokio::task::spawn_blocking(move || app.models.unload_idle(after)).await;
    }
}

async fn accept(
    listener: TcpListener,
    app: Arc<App>,
    service: axum::Router,
    mut closing: watch::Receiver<bool>,
) {
    let free = Arc::new(Semaphore::new(app.config.max_connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { drop(closing.wait_for(|closing| *closing).await) } => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others will be closed.
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // A token is worth more than a full packet.
        let _ = stream.set_nodelay(true);
        let Ok(permit) = free.clone().try_acquire_owned() else {
            tracing::warn!("refused a connection: {} are open", app.config.max_connections);
            connections.spawn(refuse(stream, app.config.max_connections));
            continue;
        };
        let (service, app, closing) = (service.clone(), app.clone(), closing.clone());
        connections.spawn(async move {
            connection(stream, peer, service, &app.config, closing).await;
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: axum::Router,
    config: &Config,
    mut closing: watch::Receiver<bool>,
) {
    let inner = TowerToHyperService::new(router);
    let stream = Arc::new(stream);
    let io = TokioIo::new(Patient::new(stream.clone(), config.write_timeout));
    let watched = stream.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer { address: peer, stream: stream.clone() });
        let (stream, interim) = (stream.clone(), request.version() >= Version::HTTP_11);
        let answer = inner.call(request);
        async move {
            tokio::select! {
                biased;
                response = answer => response.map_err(|never| match never {}),
                error = gone(&stream, interim) => Err(error),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout)
        // A client may close its side once it has asked: it still gets its answer.
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // While an answer is sent, nothing is read: what the system says of a client that has gone is asked for.
        error = reset(&watched) => {
            tracing::debug!(%peer, "connection: {error}");
            return;
        }
        // What `wait_for` gives is a lock, which must not be held any longer.
        () = async { drop(closing.wait_for(|closing| *closing).await) } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "connection: {error}");
    }
}

/// One connection too many: it is told so.
async fn refuse(mut stream: TcpStream, limit: usize) {
    let message = format!("the server has {limit} connections open, which is its limit");
    let body = ApiError::unavailable("too_many_connections", message).json().to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n";
    let response = format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let talk = async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing while the request is unread would take the response back.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), talk).await;
}

/// The ways in which a process is told to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
