//! `POST /v1/responses`: stateless, nothing is stored.

mod input;
mod items;
mod lark;
mod tools;

use super::answer::{Answer, Reading};
use super::constraint::Rule;
use super::format::Format;
use super::messages::{self, ChatPrompt, Rendering};
use super::sampling::top_p;
use super::usage::Totals;
use super::{now, prompts};
use crate::server::asked::{Planned, planned};
use crate::server::error::{ApiError, ApiResult, json_response};
use crate::server::fields::{Fields, responses, short};
use crate::server::generation::{Generation, Job};
use crate::server::models::Served;
use crate::server::stream::{Events, Gone, respond};
use crate::server::{App, ids};
use axum::extract::{Request, State};
use axum::response::Response;
use items::{Event, Items};
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::engine::EngineRequest;
use tessera_engine::sampler::SamplingParams;
use tessera_engine::template::RenderOptions;
use tools::Offer;

/// What a request asks for, checked.
pub struct Plan {
    prompt: Arc<Vec<u32>>,
    sampling: SamplingParams,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
    rule: Option<Rule>,
    reading: Reading,
    /// Names of tools that take a text.
    custom: Vec<String>,
    /// The text has to keep special tokens, which are the marks of calls or reasoning.
    keep_special: bool,
    /// The chat template's.
    stop: Vec<String>,
    stop_token_ids: Vec<u32>,
    stream: bool,
    /// The response without its output: what was asked for comes back in it.
    head: Value,
}

/// Answers a request.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, plan, .. } = planned(&app, request, &responses::REQUEST, plan).await?;
    let (stream, wants_logprobs, head) = (plan.stream, plan.logprobs.is_some(), plan.head.clone());
    let (answer, custom) = (Answer::new(plan.reading.clone()), plan.custom.clone());
    let generation = Generation::start(&app, &caller, lease, vec![job(plan, caller.flow)])?;
    let writer = Writer { head, items: Items::new(wants_logprobs, custom), answer, sequence: 0 };
    if stream {
        return Ok(respond(move |events| writer.write(events, generation)));
    }
    writer.collect(generation).await
}

/// What a body asks of a model.
pub fn plan(body: &Value, served: &Served) -> ApiResult<Plan> {
    let fields = Fields::check(body, &responses::REQUEST, "")?;
    let stream = fields.bool("stream") == Some(true);
    if let Some(options) = fields.get("stream_options") {
        Fields::check(options, &responses::STREAM_OPTIONS, "stream_options")?;
    }
    if let Some(reasoning) = fields.get("reasoning") {
        Fields::check(reasoning, &responses::REASONING, "reasoning")?;
    }
    let metadata = metadata(&fields)?;
    let logprobs = logprobs(&fields)?;
    let (format, shown_format) = format(&fields)?;
    let Offer { tools, shown, custom, notes, .. } = Offer::new(&fields)?;
    let conversation = input::parse(&fields)?;
    let options = RenderOptions { now: i64::try_from(now()).ok(), ..RenderOptions::answer() };
    let rendering = Rendering { options, continues: false };
    let ChatPrompt { tokens: prompt, thinks } = messages::prompt(served, &conversation, &rendering, &tools)?;
    prompts::check_length(served, prompt.len(), "input")?;
    let reading = Reading::new(served, &tools, thinks, true, true);
    let rule = Rule::new(format.as_ref(), &tools, served, thinks)?;
    let defaults = &served.text.defaults;
    let temperature = fields.number("temperature").unwrap_or(defaults.temperature);
    // As for chat: temperature 0 asks for the likeliest token, without the model's penalties.
    let base = if temperature == 0.0 { SamplingParams::default() } else { defaults.clone() };
    let sampling =
        SamplingParams { temperature, top_p: top_p(&fields, defaults), seed: ids::random(), ..base };
    let mut head = json!({
        "id": ids::unique("resp_"),
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": fields.text("instructions"),
        "max_output_tokens": fields.int("max_output_tokens"),
        "metadata": metadata,
        "model": served.name,
        "output": [],
        "parallel_tool_calls": tools.parallel,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": false,
        "temperature": shortest(sampling.temperature),
        "text": {"format": shown_format},
        "tool_choice": fields.get("tool_choice").cloned().unwrap_or_else(|| json!("auto")),
        "tools": shown,
        "top_logprobs": logprobs.unwrap_or(0),
        "top_p": shortest(sampling.top_p),
        "truncation": "disabled",
        "usage": null,
    });
    // The one field that OpenAI's schema leaves out rather than gives as null.
    if let Some(user) = fields.text("user") {
        head["user"] = json!(user);
    }
    if !notes.is_empty() {
        tracing::info!(model = served.name, "{}", notes.join("; "));
        head["notes"] = json!(notes);
    }
    let max_tokens = fields.size("max_output_tokens");
    let (stop, stop_token_ids) = (served.text.stop_strings(), served.text.stop_token_ids.clone());
    let keep_special = reading.keeps_special(served);
    let prompt = Arc::new(prompt);
    Ok(Plan {
        prompt,
        sampling,
        max_tokens,
        logprobs,
        rule,
        reading,
        custom,
        keep_special,
        stop,
        stop_token_ids,
        stream,
        head,
    })
}

/// The number as it was written: 0.7, not what an f32 makes of it.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

/// Up to 16 pairs of strings, as OpenAI has it.
fn metadata(fields: &Fields<'_>) -> ApiResult<Value> {
    let Some(map) = fields.get("metadata").and_then(Value::as_object) else { return Ok(json!({})) };
    if map.len() > 16 {
        let message = format!("metadata: at most 16 entries are taken, found {}", map.len());
        return Err(ApiError::value("metadata", message));
    }
    for (name, value) in map {
        if !value.is_string() {
            let param = format!("metadata.{name}");
            let message = format!("{param}: expected a string, found {}", short(value));
            return Err(ApiError::field(param, "invalid_type", message));
        }
    }
    Ok(Value::Object(map.clone()))
}

/// What an answer has none of: results of OpenAI's own tools, images, and thoughts that only its server can
/// read.
const NOTHING_TO_INCLUDE: [&str; 7] = [
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

fn logprobs(fields: &Fields<'_>) -> ApiResult<Option<usize>> {
    const WORD: &str = "message.output_text.logprobs";
    let mut included = false;
    for (i, value) in fields.list("include").unwrap_or_default().iter().enumerate() {
        let word = value.as_str().unwrap_or_default();
        if word != WORD && !NOTHING_TO_INCLUDE.contains(&word) {
            let param = format!("include[{i}]");
            let known = NOTHING_TO_INCLUDE.join("\", \"");
            let message = format!("{param}: expected \"{WORD}\" or \"{known}\", found {}", short(value));
            return Err(ApiError::unsupported(param, message));
        }
        included |= word == WORD;
    }
    match (included, fields.size("top_logprobs")) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, Some(1..)) => {
            let message = format!("top_logprobs has no meaning without include of \"{WORD}\"");
            Err(ApiError::value("top_logprobs", message))
        }
        (false, _) => Ok(None),
    }
}

/// `text.format`, and as it comes back in the response.
fn format(fields: &Fields<'_>) -> ApiResult<(Option<Format>, Value)> {
    let plain = json!({"type": "text"});
    let Some(text) = fields.get("text") else { return Ok((None, plain)) };
    let text = Fields::check(text, &responses::TEXT, "text")?;
    let Some(value) = text.get("format") else { return Ok((None, plain)) };
    Ok((Format::of_text(value)?, value.clone()))
}

fn job(plan: Plan, flow: u64) -> Job {
    let make = move || EngineRequest {
        prompt: plan.prompt.to_vec(),
        sampling: plan.sampling.clone(),
        max_tokens: plan.max_tokens,
        stop: plan.stop.clone(),
        stop_token_ids: plan.stop_token_ids.clone(),
        begins_text: true,
        constraint: plan.rule.as_ref().map(Rule::start),
        keep_special: plan.keep_special,
        processor: None,
        logprobs: plan.logprobs,
        flow,
        ..EngineRequest::default()
    };
    Job { make: Box::new(make), after: None }
}

/// Makes the response and its events.
struct Writer {
    head: Value,
    items: Items,
    answer: Answer,
    sequence: u64,
}

impl Writer {
    async fn collect(mut self, mut generation: Generation) -> ApiResult<Response> {
        while let Some((_, event)) = generation.next().await? {
            let delta = self.answer.take(event, generation.model())?;
            self.items.take(delta);
        }
        self.items.finish(self.is_complete());
        Ok(json_response(&self.finished()))
    }

    async fn write(mut self, events: Events, mut generation: Generation) -> Result<(), Gone> {
        let begun = json!({"response": self.head});
        self.send(&events, ("response.created", begun.clone())).await?;
        self.send(&events, ("response.in_progress", begun)).await?;
        loop {
            let next = match events.next(&mut generation).await? {
                Ok(Some((_, event))) => self.answer.take(event, generation.model()),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match next {
                Ok(delta) => {
                    for event in self.items.take(delta) {
                        self.send(&events, event).await?;
                    }
                }
                Err(error) => return self.fail(&events, &error).await,
            }
        }
        let complete = self.is_complete();
        for event in self.items.finish(complete) {
            self.send(&events, event).await?;
        }
        let name = if complete { "response.completed" } else { "response.incomplete" };
        let finished = self.finished();
        self.sequence_of(&events, name, json!({"response": finished})).await
    }

    async fn send(&mut self, events: &Events, (name, body): Event) -> Result<(), Gone> {
        self.sequence_of(events, name, body).await
    }

    async fn sequence_of(&mut self, events: &Events, name: &str, mut body: Value) -> Result<(), Gone> {
        body["type"] = json!(name);
        body["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        events.named(name, &body).await
    }

    async fn fail(&mut self, events: &Events, error: &ApiError) -> Result<(), Gone> {
        let mut failed = self.head.clone();
        failed["status"] = json!("failed");
        failed["error"] = json!({"code": "server_error", "message": error.message});
        self.sequence_of(events, "response.failed", json!({"response": failed})).await
    }

    fn is_complete(&self) -> bool {
        self.answer.finish != Some("length")
    }

    /// The whole response.
    fn finished(&mut self) -> Value {
        let mut response = self.head.clone();
        let complete = self.is_complete();
        response["status"] = json!(if complete { "completed" } else { "incomplete" });
        if complete {
            response["completed_at"] = json!(now());
        } else {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        response["output"] = std::mem::take(&mut self.items).into_output().into();
        let mut totals = Totals::default();
        totals.add(&self.answer.usage, true, self.answer.reasoning_tokens);
        response["usage"] = totals.responses();
        response
    }
}
