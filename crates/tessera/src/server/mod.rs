//! An OpenAI-compatible server for the models of this machine, in which nothing is silent: every field
//! of a request is honoured or refused ([`fields`]).
//!
//! A request goes through these files: `listen.rs` takes the connection, `hosts.rs` asks where it was sent to
//! and `gate.rs` who it is, `asked.rs`, `json.rs` and `fields.rs` read and check the body, `openai/` makes it a
//! job for the engine, `generation.rs` runs the job, and `openai/` makes the answer, whole or through
//! `stream.rs`.

mod asked;
mod dry;
mod gate;
mod generation;
mod hosts;
mod listen;
mod logs;
mod metrics;
mod models;
mod openai;
mod page;
mod routes;
mod shutdown;
mod socket;
mod stream;
mod work;

pub use dry::Endpoints;
pub use gate::Keys;
pub use listen::serve;
pub use logs::{LogFormat, start_logs};
pub use models::{Load, LoadedModel};

pub use tessera_openai::fields;
use tessera_openai::{error, ids, json};

use metrics::Metrics;
use models::Models;
use shutdown::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_engine::engine::EngineOptions;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// A server that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// An option that no server can have.
    #[error("{option}: {what}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The first model cannot be loaded.
    #[error("{0}")]
    Model(String),
    /// The system gave no threads, sockets or signals.
    #[error(transparent)]
    System(#[from] io::Error),
}

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
    /// Names of this machine that requests may be sent to, besides its own; `*` for any.
    pub allow_host: Vec<String>,
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
    /// Names that requests may be sent to.
    hosts: hosts::Hosts,
    /// Where work on long bodies is done.
    work: work::Work,
    /// Room for bodies while they are read and made plans.
    bodies: Arc<Semaphore>,
}

impl App {
    fn new(config: Config, load: Arc<Load>) -> Result<App, ServeError> {
        let models = Arc::new(Models::new(config.models.clone(), load, config.engine));
        let metrics = Metrics::new(&models);
        let gate = gate::Gate::new(config.keys.clone(), config.rate_limit);
        let hosts = hosts::Hosts::new(&config.allow_host, &config.cors)?;
        let work = work::Work::new();
        let bodies = Arc::new(asked::room_for_bodies(config.max_body));
        Ok(App { config, models, metrics, shutdown: Shutdown::new(), gate, hosts, work, bodies })
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
    /// The connection that it came on.
    stream: Arc<TcpStream>,
}
