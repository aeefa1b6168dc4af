//! The models of a server: loaded when a request needs one, unloaded when nobody has for a while.

use super::error::{ApiError, ApiResult};
use axum::http::StatusCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tessera_engine::engine::{Engine, EngineOptions, EngineStats};
use tessera_engine::model::{Device, Model};
use tessera_engine::text::Text;
use tessera_openai::subject::Subject;

/// What a loader gives.
pub struct LoadedModel {
    /// The model, with room for the sequences that run at once.
    pub model: Model,
    /// Its tokenizer and template.
    pub text: Text,
}

/// Opens the model that a source (a folder, a name of the store) means. The error is for people.
pub type Load = dyn Fn(&str) -> Result<LoadedModel, String> + Send + Sync;

/// A model that is loaded.
pub struct Served {
    /// What requests need to know of it.
    pub subject: Subject,
    /// The engine that runs it.
    pub engine: Engine,
    /// What it runs on.
    pub device: Device,
    leases: AtomicUsize,
    last_used: Mutex<Instant>,
}

impl std::ops::Deref for Served {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.subject
    }
}

/// Keeps a model loaded while a request uses it.
pub struct Lease(Arc<Served>);

/// One name that is served.
pub struct Slot {
    /// The name that requests use.
    pub name: String,
    /// Seconds since 1970 when the server learnt of it.
    pub created: u64,
    source: String,
    current: Mutex<Option<Arc<Served>>>,
    /// Why the last load failed; `None` after one that did not.
    failed: Mutex<Option<String>>,
    loading: Arc<tokio::sync::Mutex<()>>,
    /// Counts of engines that were unloaded.
    earlier: Mutex<EngineStats>,
}

/// All of them.
pub struct Models {
    slots: Vec<Arc<Slot>>,
    load: Arc<Load>,
    options: EngineOptions,
}

impl Models {
    /// For names and their sources.
    pub fn new(models: Vec<(String, String)>, load: Arc<Load>, options: EngineOptions) -> Models {
        let created = tessera_openai::now();
        let slot = |(name, source)| {
            Arc::new(Slot {
                name,
                created,
                source,
                current: Mutex::default(),
                failed: Mutex::default(),
                loading: Arc::default(),
                earlier: Mutex::default(),
            })
        };
        Models { slots: models.into_iter().map(slot).collect(), load, options }
    }

    /// In the order of the command line.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// The slot of a name.
    pub fn slot(&self, name: &str) -> ApiResult<&Arc<Slot>> {
        self.slots.iter().find(|slot| slot.name == name).ok_or_else(|| {
            let known = self.slots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("there is no model {name:?} here; there are: {known}");
            let error = ApiError::request(StatusCode::NOT_FOUND, "model_not_found", message);
            ApiError { param: Some("model".into()), ..error }
        })
    }

    /// The model of a name, loaded if it is not. A load goes on when the request that asked for it is
    /// gone: the next one finds it.
    pub async fn lease(&self, name: &str) -> ApiResult<Lease> {
        let slot = self.slot(name)?;
        if let Some(lease) = slot.lease() {
            return Ok(lease);
        }
        let (slot, load, options) = (slot.clone(), self.load.clone(), self.options);
        let task = tokio::spawn(async move {
            let _one_at_a_time = slot.loading.clone().lock_owned().await;
            if let Some(lease) = slot.lease() {
                return Ok(lease);
            }
            let own = slot.clone();
            let loaded = tokio::task::spawn_blocking(move || own.start(&*load, options)).await;
            let loaded = loaded.unwrap_or_else(|e| Err(format!("the loader failed: {e}")));
            *lock(&slot.failed) = loaded.as_ref().err().cloned();
            loaded.map_err(|why| {
                tracing::error!(model = slot.name, error = why, "the model cannot be loaded");
                let message = format!("the model {} cannot be loaded: {why}", slot.name);
                ApiError::unavailable("model_not_loaded", message)
            })
        });
        task.await.unwrap_or_else(|e| Err(ApiError::internal(format!("loading failed: {e}"))))
    }

    /// Unloads what has not been used for a while.
    pub fn unload_idle(&self, after: Duration) {
        for slot in &self.slots {
            let idle = |served: &Served| {
                served.leases.load(Ordering::SeqCst) == 0 && lock(&served.last_used).elapsed() >= after
            };
            if let Some(served) = slot.take_if(idle) {
                tracing::info!(model = slot.name, "unloaded: idle for {} s", after.as_secs());
                served.engine.clone().shutdown(Duration::ZERO);
            }
        }
    }
}

impl Slot {
    /// Loads it.
    pub fn start(&self, load: &Load, options: EngineOptions) -> Result<Lease, String> {
        let begun = Instant::now();
        let LoadedModel { model, text } = load(&self.source)?;
        for note in text.notes.iter().chain(model.notes()) {
            tracing::warn!(model = self.name, "{note}");
        }
        let (context, memory) = (model.context(), model.claim().plan.to_string());
        let mut subject = Subject::new(self.name.clone(), text, &model);
        let device = model.device();
        let engine =
            Engine::start(model, subject.text.tokenizer.clone(), options).map_err(|e| e.to_string())?;
        if engine.context() < context {
            let least = engine.context();
            tracing::warn!(
                model = self.name,
                "a text goes into one step: --max-batch-tokens limits it to {least} tokens of {context}"
            );
        }
        let context = engine.context();
        subject.context = context;
        tracing::info!(model = self.name, context, memory, ms = begun.elapsed().as_millis() as u64, "loaded");
        let served = Arc::new(Served {
            subject,
            engine,
            device,
            leases: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
        });
        let lease = Lease::new(&served);
        *lock(&self.current) = Some(served);
        Ok(lease)
    }

    /// The model if it is loaded. The lock is held until the lease counts, so nobody unloads it meanwhile. An engine
    /// that has ended by itself, because its files changed, makes place for another.
    fn lease(&self) -> Option<Lease> {
        let ended = self.take_if(|served| served.engine.has_ended());
        if ended.is_some() {
            tracing::warn!(model = self.name, "the engine has ended; the model is loaded again");
        }
        lock(&self.current).as_ref().map(Lease::new)
    }

    /// What is wrong with it: its last load failed, or its engine has ended.
    pub fn trouble(&self) -> Option<String> {
        let ended = lock(&self.current).as_ref().is_some_and(|served| served.engine.has_ended());
        let ended = ended.then(|| "its engine has ended; the next request loads it again".to_owned());
        lock(&self.failed).clone().or(ended)
    }

    /// The model if it is loaded, for a look.
    pub fn loaded(&self) -> Option<Arc<Served>> {
        lock(&self.current).clone()
    }

    /// Forgets an engine that ended; the next request starts another.
    pub fn forget(&self, ended: &Served) {
        if self.take_if(|served| std::ptr::eq(served, ended)).is_some() {
            tracing::error!(model = self.name, "the engine ended; the next request loads the model again");
        }
    }

    fn take_if(&self, wanted: impl Fn(&Served) -> bool) -> Option<Arc<Served>> {
        let mut current = lock(&self.current);
        let served = current.take_if(|served| wanted(served))?;
        let mut earlier = lock(&self.earlier);
        *earlier = sum(&earlier, &served.engine.stats());
        Some(served)
    }

    /// Counts since the server started, gauges of this moment.
    pub fn stats(&self) -> EngineStats {
        let current = lock(&self.current);
        let now = current.as_ref().map(|served| served.engine.stats()).unwrap_or_default();
        sum(&lock(&self.earlier), &now)
    }
}

/// Counts of both; gauges of the second.
fn sum(earlier: &EngineStats, now: &EngineStats) -> EngineStats {
    EngineStats {
        finished: earlier.finished + now.finished,
        failed: earlier.failed + now.failed,
        cancelled: earlier.cancelled + now.cancelled,
        prompt_tokens: earlier.prompt_tokens + now.prompt_tokens,
        cached_tokens: earlier.cached_tokens + now.cached_tokens,
        generated_tokens: earlier.generated_tokens + now.generated_tokens,
        preemptions: earlier.preemptions + now.preemptions,
        reloads: earlier.reloads + now.reloads,
        steps: earlier.steps + now.steps,
        fed_tokens: earlier.fed_tokens + now.fed_tokens,
        busy_seconds: earlier.busy_seconds + now.busy_seconds,
        drafted_tokens: earlier.drafted_tokens + now.drafted_tokens,
        accepted_tokens: earlier.accepted_tokens + now.accepted_tokens,
        ..*now
    }
}

impl Lease {
    fn new(served: &Arc<Served>) -> Lease {
        served.leases.fetch_add(1, Ordering::SeqCst);
        Lease(served.clone())
    }
}

impl std::ops::Deref for Lease {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.0.last_used) = Instant::now();
        self.0.leases.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The value, also after a panic elsewhere: every change is a single step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
