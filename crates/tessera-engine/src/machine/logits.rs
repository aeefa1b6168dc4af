//! What the model says of the token after a text: the numbers themselves, for whoever compares or chooses on their own.

use super::Machine;
use crate::generate::{CHUNK, GenerateError};
use crate::kv::Sequence;
use crate::model::{Feed, Model, Pick, StepError};
use crate::request::EngineRequest;
use std::task::{Context, Poll, ready};
use tessera_compute::backend;
use tessera_compute::batch::Want;

/// A text whose logits are asked for.
pub(super) struct Probe {
    tokens: Vec<u32>,
    sequence: Sequence,
    /// Tokens of the step that was begun.
    under_way: Option<usize>,
}

impl Machine {
    /// Asks for the logits after the last of these tokens, beside the requests and between their passes: no pass begins
    /// before [`Machine::poll_logits`] has given them. The tokens are one prompt; what the prefix cache has of them is not
    /// computed again.
    ///
    /// # Errors
    /// What a request with this prompt would be refused for, and where others are asked for and have not come.
    pub fn ask_logits(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        let prompt = tokens.to_vec();
        self.limits.check(&EngineRequest { prompt, max_tokens: Some(0), ..EngineRequest::default() })?;
        if self.probe.is_some() {
            let order = backend::StepError::Order("logits were asked for that have not come");
            return Err(GenerateError::Failed(StepError::from(order).into()));
        }
        let sequence = self.model.begin(&tokens[..tokens.len() - 1], tokens.len());
        self.probe = Some(Probe { tokens: tokens.to_vec(), sequence, under_way: None });
        Ok(())
    }

    /// The logits that were asked for, `[vocab]`; none if none were.
    ///
    /// # Errors
    /// What fails.
    pub fn poll_logits(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<f32>, GenerateError>> {
        let Machine { model, probe: Some(probe), .. } = self else { return Poll::Ready(Ok(Vec::new())) };
        let made = ready!(probe.poll(model, cx));
        if let Some(Probe { mut sequence, .. }) = self.probe.take() {
            self.model.offer(&mut sequence);
            self.model.release(sequence);
        }
        Poll::Ready(made.map_err(|error| GenerateError::Failed(error.into())))
    }
}

impl Probe {
    /// The next `n` tokens.
    fn feed(&mut self, n: usize) -> Feed<'_> {
        let (from, len) = (self.sequence.tokens.len(), self.tokens.len());
        let pick = if from + n == len { Pick::Last } else { Pick::None };
        let tokens = &self.tokens[from..from + n];
        Feed { sequence: &mut self.sequence, tokens, call: 0..len, drafts: 0, pick }
    }

    fn poll(&mut self, model: &mut Model, cx: &mut Context<'_>) -> Poll<Result<Vec<f32>, StepError>> {
        loop {
            let n = match self.under_way {
                Some(n) => n,
                None => match self.begin(model) {
                    Ok(n) => n,
                    Err(error) => return Poll::Ready(Err(error)),
                },
            };
            let made = ready!(model.poll(cx));
            self.under_way = None;
            let ends = self.sequence.tokens.len() + n == self.tokens.len();
            let mut feeds = [self.feed(n)];
            if let Err(error) = made {
                model.failed(&mut feeds);
                return Poll::Ready(Err(error));
            }
            match model.commit(&mut feeds) {
                Ok(output) if ends => return Poll::Ready(Ok(output.logits.clone())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Begins the next step; how many tokens it has.
    fn begin(&mut self, model: &mut Model) -> Result<usize, StepError> {
        let left = self.tokens.len() - self.sequence.tokens.len();
        // Where there is room for none, the step says so.
        let n = model.span_limit(&self.sequence, self.tokens.len(), CHUNK.min(left)).max(1);
        let mut feeds = [self.feed(n)];
        let begun = model.plan(&mut feeds, Want::Logits).and_then(|step| model.begin_step(step));
        match begun {
            Ok(()) => {
                self.under_way = Some(n);
                Ok(n)
            }
            Err(error) => {
                model.failed(&mut feeds);
                Err(error)
            }
        }
    }
}
