//! What the model says of the token after a text: the numbers themselves, for whoever compares or chooses on their own.

use super::Machine;
use crate::generate::{CHUNK, GenerateError};
use crate::kv::Sequence;
use crate::model::{Feed, Model, Pick, StepError};
use crate::request::EngineRequest;
use tessera_compute::batch::Want;

impl Machine {
    /// The logits after the last of these tokens, `[vocab]`, beside the requests and between their passes. The tokens are
    /// one prompt; what the prefix cache has of them is not computed again.
    ///
    /// # Errors
    /// What a request with this prompt would be refused for, and what fails.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let prompt = tokens.to_vec();
        self.limits.check(&EngineRequest { prompt, max_tokens: Some(0), ..EngineRequest::default() })?;
        let model = &mut self.model;
        let mut sequence = model.begin(&tokens[..tokens.len() - 1], tokens.len());
        let logits = fed(model, tokens, &mut sequence);
        model.offer(&mut sequence);
        model.release(sequence);
        logits.map_err(|error| GenerateError::Failed(error.into()))
    }
}

fn fed(model: &mut Model, tokens: &[u32], sequence: &mut Sequence) -> Result<Vec<f32>, StepError> {
    loop {
        let held = sequence.tokens.len();
        let left = &tokens[held..];
        // Where there is room for none, the step says so.
        let n = model.span_limit(sequence, tokens.len(), CHUNK.min(left.len())).max(1);
        let ends = n == left.len();
        let pick = if ends { Pick::Last } else { Pick::None };
        let feed =
            Feed { sequence: &mut *sequence, tokens: &left[..n], call: 0..tokens.len(), drafts: 0, pick };
        let output = model.forward(&mut [feed], Want::Logits)?;
        if ends {
            return Ok(output.logits.clone());
        }
    }
}
