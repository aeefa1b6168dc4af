//! What the endpoints make of bodies, without sockets and without answers: for fuzzing.

use super::error::ApiError;
use super::json;
use super::models::{Lease, Load, LoadedModel, Models, lock};
use super::openai::responses;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tessera_engine::engine::EngineOptions;
use tessera_openai::{chat, completions, embeddings};

/// The endpoints that generate, over one model. Its name is not looked at.
pub struct Endpoints(Lease);

impl Endpoints {
    /// Over a model.
    pub fn new(model: LoadedModel) -> Result<Endpoints, String> {
        let once = Mutex::new(Some(model));
        let load: Arc<Load> = Arc::new(move |_| lock(&once).take().ok_or_else(|| "loaded twice".to_owned()));
        let models = Models::new(vec![("m".into(), "m".into())], load.clone(), EngineOptions::default());
        let slot = models.slots().first().ok_or("no model")?;
        Ok(Endpoints(slot.start(&*load, EngineOptions::default())?))
    }

    /// From a body to the point where the engine would be asked. The error is the response's body; `None` for
    /// a path that is none of these endpoints'.
    pub fn plan(&self, path: &str, body: &[u8]) -> Option<Result<(), Value>> {
        let served = &*self.0;
        let body = match json::parse(body) {
            Ok(body) => body,
            Err(error) => return Some(Err(error.json())),
        };
        let planned = match path {
            "/v1/chat/completions" => chat::plan(&body, served).map(drop),
            "/v1/completions" => completions::plan(&body, served).map(drop),
            "/v1/embeddings" => embeddings::plan(&body, served).map(drop),
            "/v1/responses" => responses::plan(&body, served).map(drop),
            _ => return None,
        };
        Some(planned.map_err(|error: ApiError| error.json()))
    }
}
