//! `GET /v1/models`.

use crate::server::App;
use crate::server::error::{ApiResult, json_response};
use crate::server::models::Slot;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// All of them.
pub async fn list(State(app): State<Arc<App>>) -> Response {
    let models: Vec<Value> = app.models.slots().iter().map(|slot| describe(slot)).collect();
    json_response(&json!({"object": "list", "data": models}))
}

/// One of them. Names may have slashes.
pub async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> ApiResult<Response> {
    Ok(json_response(&describe(app.models.slot(&id)?)))
}

fn describe(slot: &Slot) -> Value {
    let loaded = slot.loaded();
    json!({
        "id": slot.name,
        "object": "model",
        "created": slot.created,
        "owned_by": "tessera",
        // Not OpenAI's. The context is known while the model is loaded.
        "loaded": loaded.is_some(),
        "max_model_len": loaded.map(|served| served.engine.context()),
    })
}
