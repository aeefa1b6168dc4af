//! `POST /v1/completions`: prompts without a chat template.

use crate::answer::finish;
use crate::chat::stream_options;
use crate::constraint::Rule;
use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, completions};
use crate::format::Format;
use crate::logprobs::{Lists, Offset};
use crate::prompts::{self, RawPrompt};
use crate::reply::{Head, Job, Reply};
use crate::sampling::{Ending, ending, for_choice, sampling};
use crate::subject::Subject;
use crate::tools::Tools;
use crate::usage::Totals;
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::request::{EngineEvent, EngineRequest, Usage};
use tessera_engine::sampler::SamplingParams;
use tessera_engine::tokenizer::Tokenizer;

/// Most prompts in one request.
const MAX_PROMPTS: usize = 128;

/// OpenAI's default.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What a request asks for, checked.
pub struct Plan {
    prompts: Vec<RawPrompt>,
    sampling: SamplingParams,
    ending: Ending,
    max_tokens: usize,
    /// Answers to each prompt.
    n: usize,
    logprobs: Option<usize>,
    echo: bool,
    rule: Option<Rule>,
    stream: bool,
    include_usage: bool,
}

/// One choice so far.
#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Lists,
    /// The end of the text that tokens stand for.
    offset: Offset,
    finish: Option<&'static str>,
    usage: Usage,
}

/// What an event adds.
struct Delta {
    text: String,
    logprobs: Option<Lists>,
    finish: Option<&'static str>,
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Subject) -> ApiResult<Plan> {
    let fields = Fields::check(body, &completions::REQUEST, "")?;
    let stream = fields.bool("stream") == Some(true);
    let include_usage = stream_options(&fields, stream)?;
    let echo = fields.bool("echo") == Some(true);
    let n = fields.size("n").unwrap_or(1);
    if let Some(best_of) = fields.size("best_of").filter(|best_of| *best_of != n) {
        let message =
            format!("best_of: answers are not ranked, so it must be n, which is {n}; found {best_of}");
        return Err(ApiError::unsupported("best_of", message));
    }
    let max_tokens = fields.size("max_tokens").unwrap_or(DEFAULT_MAX_TOKENS);
    if max_tokens == 0 && !echo {
        return Err(ApiError::value("max_tokens", "max_tokens: 0 asks for nothing unless echo is true"));
    }
    let add_special = fields.bool("add_special_tokens") != Some(false);
    let prompt = fields.get("prompt").unwrap_or(&Value::Null);
    let prompts = prompts::parse(prompt, "prompt", MAX_PROMPTS, add_special, served)?;
    for prompt in &prompts {
        prompts::fits(served, prompt.tokens.len(), usize::from(max_tokens > 0), &prompt.param)?;
    }
    Ok(Plan {
        prompts,
        sampling: sampling(&fields, served)?,
        ending: ending(&fields, served, false)?,
        max_tokens,
        n,
        logprobs: fields.size("logprobs"),
        echo,
        rule: Rule::new(Format::of_request(&fields)?.as_ref(), &Tools::default(), served, false)?,
        stream,
        include_usage,
    })
}

impl Choice {
    /// The prompt itself, if it is part of the text. With log-probabilities it comes with them.
    fn echo(&mut self, plan: &Plan, index: usize, tokenizer: &Tokenizer) -> Option<Delta> {
        if !plan.echo {
            return None;
        }
        let prompt = &plan.prompts[index / plan.n];
        let text = prompt.text.clone().unwrap_or_else(|| tokenizer.decode(&prompt.tokens));
        self.text.push_str(&text);
        if plan.logprobs.is_some() {
            self.logprobs.push_first(prompt.tokens[0], tokenizer, &mut self.offset);
        } else {
            self.offset = Offset::after(&text);
        }
        Some(Delta { text, logprobs: plan.logprobs.map(|_| self.logprobs.clone()), finish: None })
    }

    fn take(&mut self, event: EngineEvent, tokenizer: &Tokenizer) -> Option<Delta> {
        let mut lists = Lists::default();
        let (text, has_logprobs, finish) = match event {
            EngineEvent::PromptLogprobs(logprobs) => {
                logprobs.iter().for_each(|l| lists.push(l, tokenizer, &mut self.offset));
                (String::new(), true, None)
            }
            EngineEvent::Token { text, logprob, .. } => {
                logprob.iter().for_each(|l| lists.push(l, tokenizer, &mut self.offset));
                (text, logprob.is_some(), None)
            }
            EngineEvent::Done { text, finish_reason, usage, .. } => {
                self.usage = usage;
                (text, false, Some(finish(finish_reason)))
            }
            EngineEvent::Started { .. }
            | EngineEvent::Prefill { .. }
            | EngineEvent::Embedding(_)
            | EngineEvent::Failed(_) => return None,
        };
        self.text.push_str(&text);
        self.logprobs.append(lists.clone());
        self.finish = finish.or(self.finish);
        Some(Delta { text, logprobs: has_logprobs.then_some(lists), finish })
    }
}

/// An answer.
pub struct Completion {
    plan: Arc<Plan>,
    head: Head,
    choices: Vec<Choice>,
}

impl Completion {
    /// To what was asked of a model by this name.
    pub fn new(plan: Plan, model: String) -> Completion {
        let head = Head::new("cmpl-", model, plan.include_usage);
        let choices = (0..plan.prompts.len() * plan.n).map(|_| Choice::default()).collect();
        Completion { plan: Arc::new(plan), head, choices }
    }

    fn choice(&self, i: usize, delta: &Delta) -> Value {
        let logprobs = delta.logprobs.as_ref().map(Lists::json);
        let choice = json!({
            "index": i, "text": delta.text, "logprobs": logprobs, "finish_reason": delta.finish,
        });
        self.head.part("text_completion", json!([choice]))
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (i, choice) in self.choices.iter().enumerate() {
            totals.add(&choice.usage, i % self.plan.n == 0, 0);
        }
        totals
    }
}

impl Reply for Completion {
    fn is_streamed(&self) -> bool {
        self.plan.stream
    }

    fn jobs(&self, flow: u64) -> Vec<Job> {
        let job = |index: usize| {
            let (plan, prompt, i) = (self.plan.clone(), index / self.plan.n, index % self.plan.n);
            let make = move || EngineRequest {
                prompt: plan.prompts[prompt].tokens.clone(),
                sampling: for_choice(&plan.sampling, i),
                max_tokens: Some(plan.max_tokens),
                stop: plan.ending.stop.clone(),
                stop_token_ids: plan.ending.stop_token_ids.clone(),
                begins_text: false,
                logprobs: plan.logprobs,
                prompt_logprobs: plan.echo && plan.logprobs.is_some(),
                constraint: plan.rule.as_ref().map(Rule::start),
                embed: false,
                flow,
                include_stop: plan.ending.include_stop,
                keep_special: plan.ending.keep_special,
                processor: None,
            };
            // The first answer ends too, if it has no tokens to wait for.
            Job { make: Box::new(make), after: (i > 0).then(|| index - i) }
        };
        (0..self.choices.len()).map(job).collect()
    }

    fn begin(&mut self, subject: &Subject) -> Vec<Value> {
        let (plan, tokenizer) = (self.plan.clone(), &subject.text.tokenizer);
        let echo = |(i, choice): (usize, &mut Choice)| Some((i, choice.echo(&plan, i, tokenizer)?));
        let echoes: Vec<(usize, Delta)> = self.choices.iter_mut().enumerate().filter_map(echo).collect();
        echoes.iter().map(|(i, delta)| self.choice(*i, delta)).collect()
    }

    fn take(&mut self, i: usize, event: EngineEvent, subject: &Subject) -> ApiResult<Vec<Value>> {
        let delta = self.choices[i].take(event, &subject.text.tokenizer);
        let says =
            |delta: &Delta| !delta.text.is_empty() || delta.logprobs.is_some() || delta.finish.is_some();
        let delta = delta.filter(|delta| self.plan.stream && says(delta));
        Ok(delta.iter().map(|delta| self.choice(i, delta)).collect())
    }

    fn end(&mut self) -> Vec<Value> {
        self.head.last("text_completion", &self.totals()).into_iter().collect()
    }

    fn whole(&mut self) -> ApiResult<Value> {
        let list = self.choices.iter().enumerate().map(|(i, choice)| {
            json!({
                "index": i,
                "text": choice.text,
                "logprobs": self.plan.logprobs.map(|_| choice.logprobs.json()),
                "finish_reason": choice.finish,
            })
        });
        Ok(self.head.whole("text_completion", list.collect(), &self.totals()))
    }
}
