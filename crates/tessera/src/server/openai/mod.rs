//! The endpoints: from a checked body to jobs for the engine, and from its events to the answer.

pub mod models;
pub mod replies;
pub mod responses;
pub mod tokenize;

use super::error::{ApiError, ApiResult};
use super::models::Served;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tessera_engine::engine::{EngineEvent, EngineRequest};
use tessera_engine::sampler::SamplingParams;
use tessera_openai::{answer, constraint, format, messages, now, prompts, sampling, tools, usage};
use tokio::sync::oneshot;

/// Has a model make one token, to see that it can.
pub async fn warm_up(served: &Served) -> ApiResult<()> {
    let (sender, receiver) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let seen = Arc::new(AtomicBool::new(false));
    let sink = Box::new(move |event| {
        let outcome = match event {
            EngineEvent::Token { .. } | EngineEvent::Embedding(_) => {
                seen.store(true, Ordering::Relaxed);
                return;
            }
            EngineEvent::Done { .. } if seen.load(Ordering::Relaxed) => Ok(()),
            EngineEvent::Done { .. } => Err("the model made nothing".to_owned()),
            EngineEvent::Failed(failure) => Err(failure.to_string()),
            _ => return,
        };
        if let Some(sender) = super::models::lock(&sender).take() {
            let _ = sender.send(outcome);
        }
    });
    let prompt = vec![served.text.tokenizer.bos().unwrap_or(0)];
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let request = EngineRequest {
        prompt,
        sampling,
        max_tokens: Some(1),
        embed: served.encoder,
        ..EngineRequest::default()
    };
    let failed = |why: String| ApiError::unavailable("model_not_loaded", format!("{}: {why}", served.name));
    let ticket = served.engine.submit(request, sink).map_err(|e| failed(e.to_string()))?;
    let outcome = receiver.await.unwrap_or_else(|_| Err("the engine ended".to_owned()));
    drop(ticket);
    outcome.map_err(failed)
}
