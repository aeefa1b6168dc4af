//! An OpenAI-compatible server for the models of this machine, in which nothing is silent: every field
//! of a request is honoured or refused ([`fields`]).
//!
//! A request goes through these files: `listen.rs` takes the connection, `gate.rs` asks who it is,
//! `json.rs` and `fields.rs` check the body, `openai/` makes it a job for the engine, `generation.rs`
//! runs the job, and `openai/` makes the answer, whole or through `stream.rs`.

mod error;
pub mod fields;
mod gate;
mod generation;
mod ids;
mod json;
mod listen;
mod logs;
mod metrics;
mod models;
mod openai;
mod page;
mod routes;
mod shutdown;
mod stream;

pub use gate::Keys;
pub use listen::{ServeError, serve};
pub use logs::{LogFormat, start_logs};
pub use models::{Load, LoadedModel};

use metrics::Metrics;
use models::Models;
use shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_engine::engine::EngineOptions;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Names that requests use, with what the loader makes of them.
    pub models: Vec<(String, String)>,
    /// How an engine shares its model.
    pub engine: EngineOptions,
    /// Keys; without any, everybody is let in.
    pub keys: Keys,
    /// Origins whose pages may ask, `*` for all.
    pub cors: Vec<String>,
    /// Longest body in bytes.
    pub max_body: usize,
    /// Requests a minute of one key (of one address where there are no keys).
    pub rate_limit: Option<u32>,
    /// Longest time for one request.
    pub timeout: Duration,
    /// A model that was not used for so long is unloaded.
    pub idle_unload: Option<Duration>,
    /// How long running requests may go on when the server ends.
    pub grace: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// A connection is closed when its client takes nothing for so long.
    pub write_timeout: Duration,
    /// And when a request's head, or its body, does not arrive in so long.
    pub read_timeout: Duration,
}

/// What every request can reach.
struct App {
    config: Config,
    models: Arc<Models>,
    metrics: Metrics,
    shutdown: Shutdown,
    gate: gate::Gate,
}

impl App {
    fn new(config: Config, load: Arc<Load>) -> App {
        let models = Arc::new(Models::new(config.models.clone(), load, config.engine));
        let metrics = Metrics::new(&models);
        let gate = gate::Gate::new(config.keys.clone(), config.rate_limit);
        App { config, models, metrics, shutdown: Shutdown::new(), gate }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
struct Caller {
    /// Of the request: the client's own, or made here.
    request_id: String,
    /// The key, or the address: flows take turns in the engine.
    flow: u64,
    /// When the request arrived.
    arrived: Instant,
}
