//! `POST /v1/completions`: prompts without a chat template.

use super::answer::finish;
use super::chat::stream_options;
use super::constraint::Rule;
use super::format::Format;
use super::logprobs::{Lists, Offset};
use super::now;
use super::prompts::{self, RawPrompt};
use super::sampling::{Ending, ending, for_choice, sampling};
use super::tools::Tools;
use super::usage::Totals;
use crate::server::asked::{Planned, planned};
use crate::server::error::{ApiError, ApiResult, json_response};
use crate::server::fields::{Fields, completions};
use crate::server::generation::{Generation, Job};
use crate::server::models::Served;
use crate::server::stream::{Events, Gone, respond};
use crate::server::{App, ids};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::engine::{EngineEvent, EngineRequest, Usage};
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

/// What does not change from chunk to chunk.
struct Head {
    id: String,
    created: u64,
    model: String,
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

/// Answers a request.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan } = planned(&app, request, &completions::REQUEST, plan).await?;
    let plan = Arc::new(plan);
    let head = Head { id: ids::unique("cmpl-"), created: now(), model };
    let generation = Generation::start(&app, &caller, lease, jobs(&plan, caller.flow))?;
    if plan.stream {
        return Ok(respond(move |events| async move { write(events, generation, head, &plan).await }));
    }
    collect(generation, head, &plan).await
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Served) -> ApiResult<Plan> {
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

fn jobs(plan: &Arc<Plan>, flow: u64) -> Vec<Job> {
    let job = |index: usize| {
        let (plan, prompt, i) = (plan.clone(), index / plan.n, index % plan.n);
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
        };
        // The first answer ends too, if it has no tokens to wait for.
        Job { make: Box::new(make), after: (i > 0).then(|| index - i) }
    };
    (0..plan.prompts.len() * plan.n).map(job).collect()
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

    fn take(&mut self, event: EngineEvent, tokenizer: &Tokenizer) -> ApiResult<Option<Delta>> {
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
                (text, false, Some(finish(finish_reason)?))
            }
            EngineEvent::Started { .. }
            | EngineEvent::Prefill { .. }
            | EngineEvent::Embedding(_)
            | EngineEvent::Failed(_) => return Ok(None),
        };
        self.text.push_str(&text);
        self.logprobs.append(lists.clone());
        self.finish = finish.or(self.finish);
        Ok(Some(Delta { text, logprobs: has_logprobs.then_some(lists), finish }))
    }
}

fn totals(choices: &[Choice], n: usize) -> Totals {
    let mut totals = Totals::default();
    for (i, choice) in choices.iter().enumerate() {
        totals.add(&choice.usage, i % n == 0, 0);
    }
    totals
}

fn new_choices(plan: &Plan) -> Vec<Choice> {
    (0..plan.prompts.len() * plan.n).map(|_| Choice::default()).collect()
}

async fn collect(mut generation: Generation, head: Head, plan: &Plan) -> ApiResult<Response> {
    let tokenizer = generation.model().text.tokenizer.clone();
    let mut choices = new_choices(plan);
    for (i, choice) in choices.iter_mut().enumerate() {
        choice.echo(plan, i, &tokenizer);
    }
    while let Some((i, event)) = generation.next().await? {
        choices[i].take(event, &tokenizer)?;
    }
    let list = choices.iter().enumerate().map(|(i, choice)| {
        json!({
            "index": i,
            "text": choice.text,
            "logprobs": plan.logprobs.map(|_| choice.logprobs.json()),
            "finish_reason": choice.finish,
        })
    });
    Ok(json_response(&json!({
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "choices": list.collect::<Vec<_>>(),
        "usage": totals(&choices, plan.n).json(),
    })))
}

async fn write(events: Events, mut generation: Generation, head: Head, plan: &Plan) -> Result<(), Gone> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": head.id,
            "object": "text_completion",
            "created": head.created,
            "model": head.model,
            "choices": choices,
        });
        if plan.include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    };
    let choice = |i: usize, delta: &Delta| {
        let logprobs = delta.logprobs.as_ref().map(Lists::json);
        json!([{"index": i, "text": delta.text, "logprobs": logprobs, "finish_reason": delta.finish}])
    };
    let tokenizer = generation.model().text.tokenizer.clone();
    let mut choices = new_choices(plan);
    for (i, state) in choices.iter_mut().enumerate() {
        if let Some(delta) = state.echo(plan, i, &tokenizer) {
            events.data(&chunk(choice(i, &delta), None)).await?;
        }
    }
    loop {
        let next = match events.next(&mut generation).await? {
            Ok(Some((i, event))) => choices[i].take(event, &tokenizer).map(|delta| (i, delta)),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        match next {
            Ok((i, Some(delta)))
                if !delta.text.is_empty() || delta.logprobs.is_some() || delta.finish.is_some() =>
            {
                events.data(&chunk(choice(i, &delta), None)).await?;
            }
            Ok(_) => {}
            Err(error) => return events.error(&error).await,
        }
    }
    if plan.include_usage {
        events.data(&chunk(json!([]), Some(totals(&choices, plan.n).json()))).await?;
    }
    events.done().await
}
