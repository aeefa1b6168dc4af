//! `/metrics`: numbers for Prometheus, by model, and the log line of each generation.

use super::models::{Models, Slot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tessera_compute::batch::PAGE;
use tessera_engine::engine::{EngineEvent, EngineStats};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

type ByModel = Family<ModelLabel, Histogram, fn() -> Histogram>;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    queued: ByModel,
    first_token: ByModel,
    between_tokens: ByModel,
    whole: ByModel,
}

/// From 1 ms to 16 minutes.
const SECONDS: [f64; 16] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1000.0];

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// For these models.
    pub fn new(models: &Arc<Models>) -> Metrics {
        let mut registry = Registry::with_prefix("tessera");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "Responses by route and status", requests.clone());
        let mut by_model = |name: &str, help: &str| {
            let family = ByModel::new_with_constructor(histogram);
            registry.register(name, help, family.clone());
            family
        };
        let queued = by_model("request_queue_seconds", "Time from submission to the first step");
        let first_token = by_model("time_to_first_token_seconds", "Time from arrival to the first token");
        let between_tokens = by_model("inter_token_seconds", "Time between tokens of an answer");
        let whole = by_model("request_seconds", "Time from arrival to the end of the answer");
        registry.register_collector(Box::new(Gauges(models.clone())));
        Metrics { registry, requests, queued, first_token, between_tokens, whole }
    }

    /// A response was sent.
    pub fn response(&self, route: &str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), status }).inc();
    }

    /// The page.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    /// For one generation.
    pub fn meter(&self, model: &str, request_id: &str, arrived: Instant) -> Meter {
        let label = ModelLabel { model: model.to_owned() };
        let of = |family: &ByModel| family.get_or_create_owned(&label);
        Meter {
            model: model.to_owned(),
            request_id: request_id.to_owned(),
            arrived,
            last_token: None,
            queued: of(&self.queued),
            first_token: of(&self.first_token),
            between_tokens: of(&self.between_tokens),
            whole: of(&self.whole),
            prompt_tokens: 0,
            cached_tokens: 0,
            tokens: 0,
            ended: None,
        }
    }
}

/// Watches the events of a generation; tells the log when it is dropped.
pub struct Meter {
    model: String,
    request_id: String,
    arrived: Instant,
    last_token: Option<Instant>,
    queued: Histogram,
    first_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
    prompt_tokens: usize,
    cached_tokens: usize,
    tokens: usize,
    ended: Option<&'static str>,
}

impl Meter {
    /// Notes an event.
    pub fn note(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::Started { cached_tokens, queued } => {
                self.cached_tokens += cached_tokens;
                self.queued.observe(queued.as_secs_f64());
            }
            EngineEvent::Token { .. } => {
                let now = Instant::now();
                match self.last_token.replace(now) {
                    Some(last) => self.between_tokens.observe((now - last).as_secs_f64()),
                    None => self.first_token.observe((now - self.arrived).as_secs_f64()),
                }
                self.tokens += 1;
            }
            EngineEvent::Done { finish_reason, usage, .. } => {
                self.prompt_tokens += usage.prompt_tokens;
                self.ended = Some(finish_reason.name());
            }
            EngineEvent::Failed(_) => self.ended = Some("failed"),
            EngineEvent::Prefill { .. } | EngineEvent::PromptLogprobs(_) | EngineEvent::Embedding(_) => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let took = self.arrived.elapsed();
        self.whole.observe(took.as_secs_f64());
        tracing::info!(
            request_id = self.request_id,
            model = self.model,
            prompt_tokens = self.prompt_tokens,
            cached_tokens = self.cached_tokens,
            tokens = self.tokens,
            ms = took.as_millis() as u64,
            ended = self.ended.unwrap_or("cancelled"),
            "generation"
        );
    }
}

/// Numbers that are asked of the engines when the page is.
struct Gauges(Arc<Models>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

type Read = fn(&EngineStats) -> f64;

const GAUGES: &[(&str, &str, Read)] = &[
    ("requests_waiting", "Requests in the queue", |s| s.waiting as f64),
    ("requests_running", "Requests that run", |s| s.running as f64),
    ("kv_pages", "Pages for keys and values", |s| s.pages_total as f64),
    ("kv_pages_used", "Pages that running requests hold", |s| s.pages_used as f64),
    ("kv_pages_cached", "Pages kept for prompts to come", |s| s.pages_cached as f64),
    ("kv_usage_ratio", "Part of the pages that running requests hold, 0 to 1", |s| {
        s.pages_used as f64 / s.pages_total.max(1) as f64
    }),
];

const COUNTERS: &[(&str, &str, Read)] = &[
    ("prompt_tokens", "Tokens of prompts", |s| s.prompt_tokens as f64),
    ("cached_prompt_tokens", "Tokens of prompts that were in the cache", |s| s.cached_tokens as f64),
    ("generated_tokens", "Tokens of answers", |s| s.generated_tokens as f64),
    ("fed_tokens", "Tokens that the model was fed", |s| s.fed_tokens as f64),
    ("drafted_tokens", "Tokens drafted by look-up", |s| s.drafted_tokens as f64),
    ("accepted_tokens", "Drafted tokens that the model agreed with", |s| s.accepted_tokens as f64),
    ("generations_finished", "Generations that ended well, cancelled ones included", |s| s.finished as f64),
    ("generations_failed", "Generations that failed", |s| s.failed as f64),
    ("generations_cancelled", "Generations whose client went away", |s| s.cancelled as f64),
    ("preemptions", "Times that a request gave its pages back to others", |s| s.preemptions as f64),
    ("reloads", "Times that the model was loaded again because its device was lost", |s| s.reloads as f64),
    ("steps", "Steps of the model", |s| s.steps as f64),
    ("busy_seconds", "Time spent in steps", |s| s.busy_seconds),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all: Vec<(&Slot, EngineStats)> = self.0.slots().iter().map(|s| (&**s, s.stats())).collect();
        let label = |slot: &Slot| [("model", slot.name.clone())];
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (slot, stats) in &all {
                ConstGauge::new(read(stats)).encode(family.encode_family(&label(slot))?)?;
            }
        }
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (slot, stats) in &all {
                ConstCounter::new(read(stats)).encode(family.encode_family(&label(slot))?)?;
            }
        }
        let mut loaded =
            encoder.encode_descriptor("model_loaded", "Whether it is", None, MetricType::Gauge)?;
        for (slot, _) in &all {
            let value = i64::from(slot.loaded().is_some());
            ConstGauge::new(value).encode(loaded.encode_family(&label(slot))?)?;
        }
        let help = "1 for what a loaded model runs on";
        let mut device = encoder.encode_descriptor("model_device", help, None, MetricType::Gauge)?;
        for (slot, _) in &all {
            let Some(served) = slot.loaded() else { continue };
            let label = [("model", slot.name.clone()), ("device", served.device.to_string())];
            ConstGauge::new(1i64).encode(device.encode_family(&label)?)?;
        }
        let help = "Tokens in a page of keys and values";
        let mut page = encoder.encode_descriptor("kv_page_tokens", help, None, MetricType::Gauge)?;
        for (slot, _) in &all {
            ConstGauge::new(PAGE as i64).encode(page.encode_family(&label(slot))?)?;
        }
        if let Some(bytes) = resident_memory() {
            let help = "Memory of the process";
            let gauge = encoder.encode_descriptor("resident_memory_bytes", help, None, MetricType::Gauge)?;
            ConstGauge::new(bytes as i64).encode(gauge)?;
        }
        Ok(())
    }
}

/// Where the system tells it.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
