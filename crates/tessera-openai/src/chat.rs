//! `POST /v1/chat/completions`.

use crate::answer::{Answer, Call, CallDelta, Delta, Reading};
use crate::constraint::Rule;
use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, chat};
use crate::format::Format;
use crate::messages::{self, ChatPrompt, Rendering};
use crate::prompts;
use crate::reply::{Head, Job, Reply};
use crate::sampling::{Ending, ending, for_choice, sampling};
use crate::subject::Subject;
use crate::tools::Tools;
use crate::usage::Totals;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tessera_engine::request::{EngineEvent, EngineRequest};
use tessera_engine::sampler::SamplingParams;

/// What a request asks for, checked.
pub struct Plan {
    prompt: Arc<Vec<u32>>,
    sampling: SamplingParams,
    ending: Ending,
    max_tokens: Option<usize>,
    n: usize,
    logprobs: Option<usize>,
    begins_text: bool,
    rule: Option<Rule>,
    reading: Reading,
    stream: bool,
    include_usage: bool,
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Subject) -> ApiResult<Plan> {
    let fields = Fields::check(body, &chat::REQUEST, "")?;
    let stream = fields.bool("stream") == Some(true);
    let include_usage = stream_options(&fields, stream)?;
    let conversation = messages::parse(fields.list("messages").unwrap_or_default(), served)?;
    let mut rendering: Rendering = messages::rendering(&fields, &conversation)?;
    rendering.options.variables = messages::template_variables(&fields, served)?;
    let tools = Tools::chat(&fields)?;
    let format = Format::of_request(&fields)?;
    let ChatPrompt { tokens: prompt, thinks } = messages::prompt(served, &conversation, &rendering, &tools)?;
    prompts::check_length(served, prompt.len(), "messages")?;
    let flag = |name| fields.bool(name) != Some(false);
    let reading = Reading::new(served, &tools, thinks, flag("separate_reasoning"), flag("include_reasoning"));
    let mut ending = ending(&fields, served, true)?;
    ending.keep_special |= reading.keeps_special(served);
    let top = fields.size("top_logprobs");
    let logprobs = match (fields.bool("logprobs") == Some(true), top) {
        (true, top) => Some(top.unwrap_or(0)),
        (false, Some(1..)) => {
            return Err(ApiError::value("top_logprobs", "top_logprobs has no meaning without logprobs"));
        }
        (false, _) => None,
    };
    Ok(Plan {
        prompt: Arc::new(prompt),
        sampling: sampling(&fields, served)?,
        ending,
        max_tokens: max_tokens(&fields)?,
        n: fields.size("n").unwrap_or(1),
        logprobs,
        begins_text: !rendering.continues,
        rule: Rule::new(format.as_ref(), &tools, served, thinks)?,
        reading,
        stream,
        include_usage,
    })
}

/// Whether a last chunk has the usage.
pub fn stream_options(fields: &Fields<'_>, stream: bool) -> ApiResult<bool> {
    let Some(options) = fields.get("stream_options") else { return Ok(false) };
    let options = Fields::check(options, &chat::STREAM_OPTIONS, "stream_options")?;
    let include_usage = options.bool("include_usage") == Some(true);
    if !stream && include_usage {
        let message = "stream_options.include_usage has no meaning without stream";
        return Err(ApiError::value("stream_options", message));
    }
    Ok(include_usage)
}

fn max_tokens(fields: &Fields<'_>) -> ApiResult<Option<usize>> {
    match (fields.size("max_completion_tokens"), fields.size("max_tokens")) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("max_tokens is {old} and max_completion_tokens is {new}: give one of them");
            Err(ApiError::value("max_tokens", message))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// An answer.
pub struct Chat {
    plan: Arc<Plan>,
    head: Head,
    answers: Vec<Answer>,
}

impl Chat {
    /// To what was asked of a model by this name.
    pub fn new(plan: Plan, model: String) -> Chat {
        let head = Head::new("chatcmpl-", model, plan.include_usage);
        let answers = vec![Answer::new(plan.reading.clone()); plan.n];
        Chat { plan: Arc::new(plan), head, answers }
    }

    fn choice(&self, i: usize, delta: Value, logprobs: Option<Value>, finish: Option<&str>) -> Value {
        let logprobs = logprobs.unwrap_or(Value::Null);
        let choice = json!({"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.head.part("chat.completion.chunk", json!([choice]))
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (i, answer) in self.answers.iter().enumerate() {
            totals.add(&answer.usage, i == 0, answer.reasoning_tokens);
        }
        totals
    }
}

impl Reply for Chat {
    fn is_streamed(&self) -> bool {
        self.plan.stream
    }

    fn jobs(&self, flow: u64) -> Vec<Job> {
        let job = |i: usize| {
            let plan = self.plan.clone();
            let make = move || EngineRequest {
                prompt: plan.prompt.to_vec(),
                sampling: for_choice(&plan.sampling, i),
                max_tokens: plan.max_tokens,
                stop: plan.ending.stop.clone(),
                stop_token_ids: plan.ending.stop_token_ids.clone(),
                begins_text: plan.begins_text,
                logprobs: plan.logprobs,
                prompt_logprobs: false,
                constraint: plan.rule.as_ref().map(Rule::start),
                embed: false,
                flow,
                include_stop: plan.ending.include_stop,
                keep_special: plan.ending.keep_special,
                processor: None,
            };
            Job { make: Box::new(make), after: (i > 0).then_some(0) }
        };
        (0..self.plan.n).map(job).collect()
    }

    fn begin(&mut self, _: &Subject) -> Vec<Value> {
        let delta = || json!({"role": "assistant", "content": "", "refusal": null});
        (0..self.answers.len()).map(|i| self.choice(i, delta(), None, None)).collect()
    }

    fn take(&mut self, i: usize, event: EngineEvent, subject: &Subject) -> ApiResult<Vec<Value>> {
        let delta = self.answers[i].take(event, subject)?;
        let mut chunks = Vec::new();
        if !self.plan.stream || delta.is_empty() {
            return Ok(chunks);
        }
        let finish = delta.finish;
        let (said, entries) = said(delta);
        let logprobs = self.plan.logprobs.is_some() && !entries.is_empty();
        let entries = logprobs.then(|| json!({"content": entries, "refusal": null}));
        if !said.is_empty() || entries.is_some() {
            chunks.push(self.choice(i, Value::Object(said), entries, None));
        }
        if finish.is_some() {
            chunks.push(self.choice(i, json!({}), None, finish));
        }
        Ok(chunks)
    }

    fn end(&mut self) -> Vec<Value> {
        self.head.last("chat.completion.chunk", &self.totals()).into_iter().collect()
    }

    fn whole(&mut self) -> ApiResult<Value> {
        let totals = self.totals();
        let mut choices = Vec::new();
        for (i, answer) in std::mem::take(&mut self.answers).into_iter().enumerate() {
            let wanted = self.plan.logprobs.is_some();
            let logprobs = wanted.then(|| json!({"content": answer.logprobs, "refusal": null}));
            // OpenAI's clients tell a call from an answer by the missing text.
            let content = (!answer.content.is_empty() || answer.calls.is_empty()).then_some(answer.content);
            let mut message = json!({"role": "assistant", "content": content, "refusal": null});
            if !answer.calls.is_empty() {
                let call = |call: &Call| {
                    let function = json!({"name": call.name, "arguments": call.arguments});
                    json!({"id": call.id, "type": "function", "function": function})
                };
                message["tool_calls"] = answer.calls.iter().map(call).collect();
            }
            if !answer.reasoning.is_empty() {
                message["reasoning_content"] = answer.reasoning.into();
            }
            choices.push(json!({
                "index": i,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": answer.finish,
            }));
        }
        Ok(self.head.whole("chat.completion", Value::Array(choices), &totals))
    }
}

fn said(delta: Delta) -> (Map<String, Value>, Vec<Value>) {
    let mut said = Map::new();
    if !delta.reasoning.is_empty() {
        said.insert("reasoning_content".to_owned(), delta.reasoning.into());
    }
    if !delta.content.is_empty() {
        said.insert("content".to_owned(), delta.content.into());
    }
    if !delta.calls.is_empty() {
        said.insert("tool_calls".to_owned(), delta.calls.into_iter().map(call_chunk).collect());
    }
    (said, delta.logprobs)
}

/// A part of a call: id and name come with the first.
fn call_chunk(part: CallDelta) -> Value {
    match part.begins {
        Some((id, name)) => json!({
            "index": part.index, "id": id, "type": "function",
            "function": {"name": name, "arguments": part.arguments},
        }),
        None => json!({"index": part.index, "function": {"arguments": part.arguments}}),
    }
}
