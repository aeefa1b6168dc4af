//! What an answer must follow, for each of its choices anew.

use crate::error::{ApiError, ApiResult};
use crate::format::Format;
use crate::subject::Subject;
use crate::tools::Tools;
use std::sync::Arc;
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::GrammarConstraint;
use tessera_engine::reasoning::AfterReasoning;
use tessera_engine::tokenizer::Tokenizer;

/// A grammar at its beginning.
pub struct Rule {
    constraint: GrammarConstraint,
    /// The prompt ended inside of reasoning, which is free: its tokens and what ends an answer.
    after_reasoning: Option<(Arc<Tokenizer>, Vec<u32>)>,
}

impl Rule {
    /// From a format and tools; `None` where anything goes.
    pub fn new(
        format: Option<&Format>,
        tools: &Tools,
        served: &Subject,
        open: bool,
    ) -> ApiResult<Option<Rule>> {
        let constraint = match (format, tools.constraint(served)?) {
            (Some(format), _) if tools.active() && tools.may_answer() => {
                let param = format.param();
                let message = format!(
                    "{param}: a form for the answer together with tools that may or may not be called is not \
                     implemented; set tool_choice to \"none\" or \"required\""
                );
                return Err(ApiError::unsupported(param, message));
            }
            // An answer that is a call has no text that a format could hold for.
            (Some(format), None) => format.constraint(served)?,
            (_, Some(calls)) => calls,
            (None, None) => return Ok(None),
        };
        let ends = || (served.text.tokenizer.clone(), served.text.stop_token_ids.clone());
        Ok(Some(Rule { constraint, after_reasoning: open.then(ends) }))
    }

    /// For one answer.
    pub fn start(&self) -> Box<dyn Constraint> {
        let constraint = self.constraint.clone();
        match &self.after_reasoning {
            Some((tokenizer, ends)) => Box::new(AfterReasoning::new(constraint, tokenizer.clone(), ends)),
            None => Box::new(constraint),
        }
    }
}
