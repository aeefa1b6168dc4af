//! What a model can be asked: checked when a request is made, not when its turn comes.

use crate::request::{EngineRequest, MAX_LOGPROBS, SubmitError};

/// What requests are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest sequence in tokens.
    pub context: usize,
    /// Rows of the model's head.
    pub vocab_size: usize,
    /// Whether vectors are all that the model makes.
    pub encoder: bool,
}

impl Limits {
    /// Whether the request can be met.
    ///
    /// # Errors
    /// The first thing that cannot; never [`SubmitError::QueueFull`] or [`SubmitError::Closed`].
    pub fn check(&self, request: &EngineRequest) -> Result<(), SubmitError> {
        if self.encoder && !request.embed {
            return Err(SubmitError::Encoder);
        }
        let (prompt, context, vocab_size) = (request.prompt.len(), self.context, self.vocab_size);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        // An answer has at least one token.
        let answers = !request.embed && request.max_tokens != Some(0);
        if prompt.saturating_add(usize::from(answers)) > context {
            return Err(SubmitError::PromptTooLong { prompt, context });
        }
        let bias = request.sampling.logit_bias.iter().map(|(token, _)| token);
        let fields = request.prompt.iter().map(|t| ("prompt", t)).chain(bias.map(|t| ("logit_bias", t)));
        for (field, token) in fields {
            if *token as usize >= vocab_size {
                return Err(SubmitError::BadToken { field, token: *token, vocab_size });
            }
        }
        if let Some(asked) = request.logprobs
            && asked > MAX_LOGPROBS
        {
            return Err(SubmitError::Logprobs { asked, limit: MAX_LOGPROBS });
        }
        let others = [
            ("logprobs", request.logprobs.is_some()),
            ("prompt_logprobs", request.prompt_logprobs),
            ("a grammar", request.constraint.is_some()),
        ];
        if let Some((field, _)) = others.iter().find(|(_, given)| request.embed && *given) {
            return Err(SubmitError::Embed { field });
        }
        Ok(request.sampling.check()?)
    }
}
