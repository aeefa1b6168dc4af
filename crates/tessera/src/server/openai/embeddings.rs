//! `POST /v1/embeddings`: a text's last hidden states as one vector, by the pooling that the model's folder names.

use super::prompts::{self, RawPrompt};
use super::usage::Totals;
use crate::server::App;
use crate::server::asked::{Planned, planned};
use crate::server::error::{ApiError, ApiResult, json_response};
use crate::server::fields::{Fields, other};
use crate::server::generation::{Generation, Job};
use crate::server::models::Served;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::engine::{EngineEvent, EngineRequest};
use tessera_engine::pool::normalize;

/// Most texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// Answers a request.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan: (inputs, base64) } =
        planned(&app, request, &other::EMBEDDINGS, plan).await?;
    let (count, normalized) = (inputs.len(), lease.embedding.normalize);
    let flow = caller.flow;
    let jobs = inputs.into_iter().map(|input| {
        let tokens = input.tokens;
        let make =
            move || EngineRequest { prompt: tokens.clone(), embed: true, flow, ..EngineRequest::default() };
        Job { make: Box::new(make), after: None }
    });
    let mut generation = Generation::start(&app, &caller, lease, jobs.collect())?;
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); count];
    let mut totals = Totals::default();
    while let Some((i, event)) = generation.next().await? {
        match event {
            EngineEvent::Embedding(vector) => vectors[i] = vector,
            EngineEvent::Done { usage, .. } => totals.add(&usage, true, 0),
            _ => {}
        }
    }
    let mut data = Vec::new();
    for (i, mut vector) in vectors.into_iter().enumerate() {
        // Else the folder says that lengths mean something.
        if normalized && !normalize(&mut vector) {
            return Err(ApiError::internal("the model gave a vector without a direction"));
        }
        data.push(json!({"object": "embedding", "index": i, "embedding": encode(&vector, base64)}));
    }
    Ok(json_response(&json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": totals.embeddings(),
    })))
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Served) -> ApiResult<(Vec<RawPrompt>, bool)> {
    let fields = Fields::check(body, &other::EMBEDDINGS, "")?;
    if let Some(asked) = fields.size("dimensions").filter(|n| *n != served.hidden_size) {
        let message =
            format!("dimensions: {} makes vectors of {}, found {asked}", served.name, served.hidden_size);
        return Err(ApiError::unsupported("dimensions", message));
    }
    let add_special = fields.bool("add_special_tokens") != Some(false);
    let input = fields.get("input").unwrap_or(&Value::Null);
    let inputs = prompts::parse(input, "input", MAX_INPUTS, add_special, served)?;
    for input in &inputs {
        prompts::fits(served, input.tokens.len(), 0, &input.param)?;
    }
    Ok((inputs, fields.text("encoding_format") == Some("base64")))
}

fn encode(vector: &[f32], base64: bool) -> Value {
    if !base64 {
        return json!(vector);
    }
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}
