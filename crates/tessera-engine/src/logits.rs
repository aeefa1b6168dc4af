//! What a model says of the token after a text: the numbers themselves, for whoever compares or samples on their own.

use crate::generate::CHUNK;
use crate::kv::Sequence;
use crate::model::{Feed, Model, Pick, StepError};
use tessera_compute::batch::Want;

/// The logits after the last of these tokens, `[vocab]`; empty for no tokens. What the prefix cache has is not computed
/// again.
///
/// # Errors
/// More tokens than the context holds, one that does not exist, or what the device says.
pub fn logits(model: &mut Model, tokens: &[u32]) -> Result<Vec<f32>, StepError> {
    let Some(last) = tokens.len().checked_sub(1) else { return Ok(Vec::new()) };
    let context = model.context();
    if tokens.len() > context {
        return Err(StepError::Context { asked: tokens.len(), context });
    }
    let mut sequence = model.begin(&tokens[..last], tokens.len());
    let logits = fed(model, tokens, &mut sequence);
    model.offer(&mut sequence);
    model.release(sequence);
    logits
}

fn fed(model: &mut Model, tokens: &[u32], sequence: &mut Sequence) -> Result<Vec<f32>, StepError> {
    loop {
        let from = sequence.tokens.len();
        let n = model.span_limit(sequence, tokens.len(), CHUNK.min(tokens.len() - from));
        let ends = from + n == tokens.len();
        let pick = if ends { Pick::Last } else { Pick::None };
        let feed = Feed {
            sequence: &mut *sequence,
            tokens: &tokens[from..from + n],
            call: 0..tokens.len(),
            drafts: 0,
            pick,
        };
        let output = model.forward(&mut [feed], Want::Logits)?;
        if ends {
            return Ok(output.logits.clone());
        }
    }
}
