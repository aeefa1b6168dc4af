//! `POST /v1/embeddings`: a text's last hidden states as one vector, by the pooling that the model's folder names.

use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, other};
use crate::prompts::{self, RawPrompt};
use crate::reply::{Job, Reply};
use crate::subject::Subject;
use crate::usage::Totals;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tessera_engine::pool::normalize;
use tessera_engine::request::{EngineEvent, EngineRequest, FinishReason};

/// Most texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// What a request asks for, checked.
pub struct Plan {
    inputs: Vec<RawPrompt>,
    base64: bool,
    /// Whether vectors have the length 1.
    normalized: bool,
}

/// An answer.
pub struct Embeddings {
    plan: Plan,
    model: String,
    vectors: Vec<Vec<f32>>,
    totals: Totals,
}

impl Embeddings {
    /// To what was asked of a model by this name.
    pub fn new(plan: Plan, model: String) -> Embeddings {
        let vectors = vec![Vec::new(); plan.inputs.len()];
        Embeddings { plan, model, vectors, totals: Totals::default() }
    }
}

impl Reply for Embeddings {
    fn is_streamed(&self) -> bool {
        false
    }

    fn jobs(&self, flow: u64) -> Vec<Job> {
        let jobs = self.plan.inputs.iter().map(|input| {
            let tokens = input.tokens.clone();
            let make = move || EngineRequest {
                prompt: tokens.clone(),
                embed: true,
                flow,
                ..EngineRequest::default()
            };
            Job { make: Box::new(make), after: None }
        });
        jobs.collect()
    }

    fn begin(&mut self, _: &Subject) -> Vec<Value> {
        Vec::new()
    }

    fn take(&mut self, i: usize, event: EngineEvent, _: &Subject) -> ApiResult<Vec<Value>> {
        match event {
            EngineEvent::Embedding(vector) => self.vectors[i] = vector,
            EngineEvent::Done { finish_reason: FinishReason::Cancelled, .. } => {
                return Err(ApiError::unavailable("cancelled", "the request was broken off"));
            }
            EngineEvent::Done { usage, .. } => self.totals.add(&usage, true, 0),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn end(&mut self) -> Vec<Value> {
        Vec::new()
    }

    fn whole(&mut self) -> ApiResult<Value> {
        let mut data = Vec::new();
        for (i, mut vector) in std::mem::take(&mut self.vectors).into_iter().enumerate() {
            // Else the folder says that lengths mean something.
            if self.plan.normalized && !normalize(&mut vector) {
                return Err(ApiError::internal("the model gave a vector without a direction"));
            }
            let embedding = encode(&vector, self.plan.base64);
            data.push(json!({"object": "embedding", "index": i, "embedding": embedding}));
        }
        Ok(json!({
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": self.totals.embeddings(),
        }))
    }
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Subject) -> ApiResult<Plan> {
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
    let base64 = fields.text("encoding_format") == Some("base64");
    Ok(Plan { inputs, base64, normalized: served.embedding.normalize })
}

fn encode(vector: &[f32], base64: bool) -> Value {
    if !base64 {
        return json!(vector);
    }
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}
