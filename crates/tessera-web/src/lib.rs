//! The engine for JavaScript. What goes in and out is bytes and JSON; an error is thrown as a JSON text with at least
//! `code` and `message`.

#[cfg(feature = "gpu")]
mod adapter;
pub mod opening;
mod processor;
#[cfg(feature = "threads")]
mod threads;
mod woken;

use js_sys::{Function, Promise};
use opening::{FILES, Fault, OTHER_TOKENIZERS, Opening, cpu};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tessera_openai::desk::{Desk, Endpoint, News};
use tessera_openai::error::ApiError;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use woken::Woken;

/// Memory that a module of 32 bits can have.
const MOST_MEMORY: u64 = 4 << 30;
/// Of it, what is left for texts, tables and the allocator.
const KEPT_FREE: u64 = 192 << 20;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;

    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn report(text: &str);
}

fn now() -> Duration {
    Duration::from_secs_f64((milliseconds() / 1e3).max(0.0))
}

fn thrown(fault: Fault) -> JsValue {
    JsValue::from_str(&fault.json().to_string())
}

fn refused(error: &ApiError) -> Value {
    let mut json = error.json()["error"].take();
    json["status"] = error.status.as_u16().into();
    json
}

/// Version of the module, which its JavaScript compares with its own.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Called when the module is loaded: a panic ends it, and is told first.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        #[cfg(feature = "threads")]
        tessera_compute::lent::panicked();
        report(&info.to_string());
    }));
}

/// See [`FILES`].
#[wasm_bindgen]
pub fn files() -> Vec<String> {
    FILES.iter().map(|name| (*name).to_owned()).collect()
}

/// See [`OTHER_TOKENIZERS`].
#[wasm_bindgen(js_name = otherTokenizers)]
pub fn other_tokenizers() -> Vec<String> {
    OTHER_TOKENIZERS.iter().map(|name| (*name).to_owned()).collect()
}

/// Bytes of memory that the module has taken.
#[wasm_bindgen]
pub fn held() -> f64 {
    taken() as f64
}

#[cfg(target_arch = "wasm32")]
fn taken() -> u64 {
    core::arch::wasm32::memory_size(0) as u64 * (64 << 10)
}

#[cfg(not(target_arch = "wasm32"))]
fn taken() -> u64 {
    0
}

/// A folder that is being opened.
#[wasm_bindgen]
pub struct Folder(Opening);

#[wasm_bindgen]
impl Folder {
    /// Nothing has come yet.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Folder {
        Folder(Opening::default())
    }

    /// See [`Opening::file`].
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.file(name, bytes);
    }

    /// See [`Opening::manifest`]: a JSON array of `{path, nbytes, md5sum}`.
    ///
    /// # Errors
    /// As there.
    pub fn manifest(&mut self, bytes: Vec<u8>) -> Result<String, JsValue> {
        let free = MOST_MEMORY.saturating_sub(taken()).saturating_sub(KEPT_FREE);
        let shards = self.0.manifest(bytes, free).map_err(thrown)?;
        let list = shards
            .iter()
            .map(|shard| json!({"path": shard.path, "nbytes": shard.nbytes, "md5sum": shard.md5sum}));
        Ok(Value::Array(list.collect()).to_string())
    }

    /// See [`Opening::begin`].
    ///
    /// # Errors
    /// As there.
    pub fn begin(&mut self, shard: usize) -> Result<(), JsValue> {
        self.0.begin(shard).map_err(thrown)
    }

    /// See [`Opening::push`].
    ///
    /// # Errors
    /// As there.
    pub fn push(&mut self, shard: usize, part: &[u8]) -> Result<(), JsValue> {
        self.0.push(shard, part).map_err(thrown)
    }

    /// See [`Opening::end`].
    ///
    /// # Errors
    /// As there.
    pub fn end(&mut self, shard: usize) -> Result<(), JsValue> {
        self.0.end(shard).map_err(thrown)
    }

    /// Loads the model on the CPU, where up to so many threads compute, for so many requests at once.
    ///
    /// # Errors
    /// See [`Opening::read`] and [`Read::model`](opening::Read::model).
    pub fn open(self, name: &str, sequences: usize, threads: usize) -> Result<Engine, JsValue> {
        let read = self.0.read().map_err(thrown)?;
        let model = read.model(&cpu(threads), sequences).map_err(thrown)?;
        let (desk, notes) = read.desk(model, name, sequences).map_err(thrown)?;
        Ok(Engine::new(desk, notes))
    }
}

/// What was noticed.
type Notes = Arc<Mutex<Vec<String>>>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(|e| e.into_inner())
}

/// A model that answers.
#[wasm_bindgen]
pub struct Engine {
    desk: Desk,
    notes: Notes,
    /// Which adapter, and which of its kernels.
    #[cfg(feature = "gpu")]
    verified: Option<(tessera_gpu::Description, tessera_gpu::Config)>,
    woken: Arc<Woken>,
}

impl Engine {
    fn new(desk: Desk, notes: Vec<String>) -> Engine {
        Engine {
            desk,
            notes: Arc::new(Mutex::new(notes)),
            #[cfg(feature = "gpu")]
            verified: None,
            woken: Arc::default(),
        }
    }
}

#[wasm_bindgen]
impl Engine {
    /// Takes a request, whose number it returns: the body of `endpoint`, one of `chat`, `completions`, `embeddings`.
    /// `process` takes logits and returns others, as many; `chosen` hears of the tokens.
    ///
    /// # Errors
    /// The API's error object, with the `status` that a server would give it.
    pub fn ask(
        &mut self,
        endpoint: &str,
        body: &str,
        process: Option<Function>,
        chosen: Option<Function>,
    ) -> Result<u32, JsValue> {
        let endpoint = match endpoint {
            "chat" => Endpoint::Chat,
            "completions" => Endpoint::Completions,
            "embeddings" => Endpoint::Embeddings,
            other => {
                return Err(thrown(Fault {
                    code: "options",
                    message: format!("no endpoint is called {other}"),
                }));
            }
        };
        let processor = process.zip(chosen).map(|(process, chosen)| processor::maker(process, chosen));
        let id = self.desk.ask_with(endpoint, body.as_bytes(), processor, now());
        // Numbers beyond 32 bits would take a thousand requests a second for fifty days.
        id.map(|id| id as u32).map_err(|error| JsValue::from_str(&refused(&error).to_string()))
    }

    /// Breaks a request off.
    pub fn cancel(&mut self, id: u32) {
        self.desk.cancel(id.into());
    }

    /// One step for all that runs; what happened, as a JSON array of `[id, kind, value]`. Kinds: `prefill`, `part`,
    /// `whole`, `end`, `failed`. Nothing where the step is not made yet, see [`Engine::made`], or the adapter is lost, see
    /// `Engine::regain`: it is to be called again then.
    pub fn turn(&mut self) -> Option<String> {
        let waker = Waker::from(self.woken.clone());
        if self.desk.turn(&mut Context::from_waker(&waker), &now).is_pending() {
            return None;
        }
        let news = self.desk.news().into_iter().map(|(id, news)| match news {
            News::Prefill { done, total } => json!([id, "prefill", {"done": done, "total": total}]),
            News::Part(part) => json!([id, "part", part]),
            News::Whole(whole) => json!([id, "whole", whole]),
            News::End { timing } => json!([id, "end", {
                "queued_s": timing.queued.as_secs_f64(),
                "prefill_s": timing.prefill.as_secs_f64(),
                "decode_s": timing.decode.as_secs_f64(),
            }]),
            News::Failed(error) => json!([id, "failed", refused(&error)]),
        });
        Some(Value::Array(news.collect()).to_string())
    }

    /// A promise that is kept when a step that was not made is worth asking for again.
    pub fn made(&self) -> Promise {
        let woken = self.woken.clone();
        future_to_promise(async move {
            poll_fn(|cx| woken.poll(cx)).await;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Whether the adapter is lost.
    #[wasm_bindgen(js_name = isLost)]
    pub fn is_lost(&mut self) -> bool {
        self.desk.machine().is_lost()
    }

    /// Whether nothing is left to do.
    #[wasm_bindgen(js_name = isIdle)]
    pub fn is_idle(&self) -> bool {
        self.desk.is_idle()
    }

    /// What runs, and what was noticed.
    pub fn describe(&mut self) -> String {
        let model = self.desk.machine().model();
        let (device, memory) = (model.describe(), model.claim().plan.to_string());
        let subject = self.desk.subject();
        json!({
            "model": subject.name,
            "context": subject.context,
            "vocab_size": subject.vocab_size,
            "encoder": subject.encoder,
            "backend": if device.starts_with("gpu") { "webgpu" } else { "cpu" },
            "device": device,
            "memory": memory,
            "notes": *locked(&self.notes),
        })
        .to_string()
    }

    /// Ids of a text, without the tokens that a conversation begins with.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        let ids = self.desk.subject().text.tokenizer.encode(text, false);
        ids.map_err(|e| thrown(Fault::new("tokenizer", e.to_string())))
    }

    /// Text of ids.
    pub fn detokenize(&self, ids: &[u32]) -> String {
        self.desk.subject().text.tokenizer.decode(ids)
    }

    /// Asks for the logits after the last of these tokens. No turn is made before they are there.
    ///
    /// # Errors
    /// No ids, one that does not exist, or too many.
    #[wasm_bindgen(js_name = askLogits)]
    pub fn ask_logits(&mut self, ids: &[u32]) -> Result<(), JsValue> {
        let asked = self.desk.machine().ask_logits(ids);
        asked.map_err(|e| thrown(Fault::new("model", e.to_string())))
    }

    /// Those that were asked for, `[vocab_size]`; nothing where they are not made yet, see [`Engine::made`].
    ///
    /// # Errors
    /// What fails.
    pub fn logits(&mut self) -> Result<Option<Vec<f32>>, JsValue> {
        let waker = Waker::from(self.woken.clone());
        match self.desk.machine().poll_logits(&mut Context::from_waker(&waker)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(logits)) => Ok(Some(logits)),
            Poll::Ready(Err(e)) => Err(thrown(Fault::new("model", e.to_string()))),
        }
    }
}
