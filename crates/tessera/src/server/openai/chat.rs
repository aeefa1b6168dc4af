//! `POST /v1/chat/completions`.

use super::answer::{Answer, Call, CallDelta, Delta, Reading};
use super::constraint::Rule;
use super::format::Format;
use super::messages::{self, ChatPrompt, Rendering};
use super::sampling::{Ending, ending, for_choice, sampling};
use super::tools::Tools;
use super::usage::Totals;
use super::{now, prompts};
use crate::server::asked::{Planned, planned};
use crate::server::error::{ApiError, ApiResult, json_response};
use crate::server::fields::{Fields, chat};
use crate::server::generation::{Generation, Job};
use crate::server::models::Served;
use crate::server::stream::{Events, Gone, respond};
use crate::server::{App, ids};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tessera_engine::engine::EngineRequest;
use tessera_engine::sampler::SamplingParams;

/// What a request asks for, checked.
struct Plan {
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

/// What does not change from chunk to chunk.
struct Head {
    id: String,
    created: u64,
    model: String,
}

/// Answers a request.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan } = planned(&app, request, &chat::REQUEST, plan).await?;
    let (stream, include_usage, n) = (plan.stream, plan.include_usage, plan.n);
    let head = Head { id: ids::unique("chatcmpl-"), created: now(), model };
    let (wants_logprobs, answers) = (plan.logprobs.is_some(), vec![Answer::new(plan.reading.clone()); n]);
    let generation = Generation::start(&app, &caller, lease, jobs(plan, caller.flow))?;
    if stream {
        return Ok(respond(move |events| async move {
            write(events, generation, head, answers, include_usage, wants_logprobs).await
        }));
    }
    collect(generation, head, answers, wants_logprobs).await
}

fn plan(body: &Value, served: &Served) -> ApiResult<Plan> {
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

fn jobs(plan: Plan, flow: u64) -> Vec<Job> {
    let plan = Arc::new(plan);
    let job = |i: usize| {
        let plan = plan.clone();
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
        };
        Job { make: Box::new(make), after: (i > 0).then_some(0) }
    };
    (0..plan.n).map(job).collect()
}

async fn collect(
    mut generation: Generation,
    head: Head,
    mut answers: Vec<Answer>,
    logprobs: bool,
) -> ApiResult<Response> {
    while let Some((i, event)) = generation.next().await? {
        answers[i].take(event, generation.model())?;
    }
    let mut totals = Totals::default();
    let mut choices = Vec::new();
    for (i, answer) in answers.into_iter().enumerate() {
        totals.add(&answer.usage, i == 0, answer.reasoning_tokens);
        let logprobs = logprobs.then(|| json!({"content": answer.logprobs, "refusal": null}));
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
    Ok(json_response(&json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": totals.json(),
    })))
}

/// Writes the chunks of a stream.
async fn write(
    events: Events,
    mut generation: Generation,
    head: Head,
    mut answers: Vec<Answer>,
    include_usage: bool,
    logprobs: bool,
) -> Result<(), Gone> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "choices": choices,
        });
        if include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    };
    let choice = |i: usize, delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
        let logprobs = logprobs.unwrap_or(Value::Null);
        json!([{"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": finish}])
    };
    for i in 0..answers.len() {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        events.data(&chunk(choice(i, delta, None, None), None)).await?;
    }
    loop {
        let next = match events.next(&mut generation).await? {
            Ok(Some((i, event))) => answers[i].take(event, generation.model()).map(|delta| (i, delta)),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        let (i, delta) = match next {
            Ok(next) => next,
            Err(error) => return events.error(&error).await,
        };
        if delta.is_empty() {
            continue;
        }
        let finish = delta.finish;
        let (said, entries) = said(delta);
        let entries = (logprobs && !entries.is_empty()).then(|| json!({"content": entries, "refusal": null}));
        if !said.is_empty() || entries.is_some() {
            events.data(&chunk(choice(i, Value::Object(said), entries, None), None)).await?;
        }
        if finish.is_some() {
            events.data(&chunk(choice(i, json!({}), None, finish), None)).await?;
        }
    }
    if include_usage {
        let mut totals = Totals::default();
        for (i, answer) in answers.iter().enumerate() {
            totals.add(&answer.usage, i == 0, answer.reasoning_tokens);
        }
        events.data(&chunk(json!([]), Some(totals.json()))).await?;
    }
    events.done().await
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
