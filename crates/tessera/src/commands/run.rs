//! `tessera run`: one answer, or a chat.

mod chat;
mod remote;
mod stats;

use crate::cli::{RunArgs, SamplingArgs, Template};
use crate::interrupt;
use crate::load::load;
use crate::output::{Output, hinted};
use anyhow::Context;
use serde_json::json;
use stats::Stats;
use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;
use tessera_engine::generate::{Answer, generate};
use tessera_engine::machine::Machine;
use tessera_engine::request::{EngineEvent, EngineOptions, EngineRequest, FinishReason};
use tessera_engine::sampler::SamplingParams;
use tessera_engine::template::{Message, RenderOptions, TemplateChoice};
use tessera_engine::text::Text;

/// Longest prompt that is read from stdin, in bytes.
const MAX_STDIN: u64 = 64 << 20;

/// Exit status of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs the command.
pub fn run(args: RunArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let piped = !std::io::stdin().is_terminal();
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if piped => Some(read_stdin()?),
        None => None,
    };
    if let Some(address) = &args.server {
        return remote::run(&args, address, prompt, out);
    }
    let loaded = load(&args.model, &args.compute, 1, out)?;
    let text = Text::open(&loaded.files, choice(args.template))?;
    for note in &text.notes {
        out.note(format_args!("note: {note}"));
    }
    let options = EngineOptions::one_by_one(!args.no_drafts);
    let mut machine = Machine::new(loaded.model, text.tokenizer.clone(), options)?;
    interrupt::watch();
    let Some(prompt) = prompt else {
        if out.json {
            return Err(hinted("no prompt was given", "give one, or pipe it in: --json has no chat"));
        }
        return chat::chat(&args, machine, text, out);
    };
    let prompt_ids = match args.raw {
        true => text.tokenizer.encode(&prompt, true)?,
        false => {
            let mut messages = Vec::new();
            messages.extend(args.system.as_ref().map(|s| Message::new("system", s)));
            messages.push(Message::new("user", prompt));
            text.chat_prompt(&messages, &render_options())?
        }
    };
    let request = request(&args, &text, prompt_ids);
    one_shot(&mut machine, loaded.took, request, out)
}

fn one_shot(
    machine: &mut Machine,
    load: Duration,
    request: EngineRequest,
    out: &Output,
) -> anyhow::Result<ExitCode> {
    let prompt = request.prompt.clone();
    let shown = |piece: &str| if out.json { Ok(()) } else { out.text(piece) };
    let (answer, stats) = answer(machine, request, shown)?;
    if out.json {
        out.print_json(&json!({
            "text": answer.text,
            "token_ids": answer.token_ids,
            "prompt_token_ids": prompt,
            "finish_reason": answer.finish_reason.name(),
            "usage": {
                "prompt_tokens": prompt.len(),
                "completion_tokens": answer.token_ids.len(),
            },
            "timings": stats.json(load),
        }))?;
    } else {
        out.line("")?;
        out.detail(stats.line());
    }
    Ok(match answer.finish_reason {
        FinishReason::Cancelled => ExitCode::from(INTERRUPTED),
        _ => ExitCode::SUCCESS,
    })
}

/// Makes an answer and shows its text as it comes; Ctrl-C breaks it off, and so does text that cannot be shown.
fn answer(
    machine: &mut Machine,
    request: EngineRequest,
    mut show: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<(Answer, Stats)> {
    let mut stats = Stats::start(request.prompt.len());
    let mut shown = Ok(());
    let answer = generate(machine, request, &mut |event| {
        stats.note(event);
        if let EngineEvent::Token { text, .. } | EngineEvent::Done { text, .. } = event
            && !text.is_empty()
        {
            shown = show(text);
        }
        match shown.is_err() || interrupt::seen() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    shown?;
    stats.finish(&answer.usage);
    Ok((answer, stats))
}

fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_STDIN + 1).read_to_end(&mut bytes).context("cannot read stdin")?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_STDIN, "stdin: more than {MAX_STDIN} bytes");
    String::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("stdin: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
}

const fn choice(template: Template) -> TemplateChoice {
    match template {
        Template::Auto => TemplateChoice::Auto,
        Template::Conv => TemplateChoice::Conv,
        Template::Jinja => TemplateChoice::Jinja,
    }
}

/// For a prompt that is answered now.
pub(super) fn render_options() -> RenderOptions {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok();
    RenderOptions { now: now.map(|d| d.as_secs() as i64), ..RenderOptions::answer() }
}

fn request(args: &RunArgs, text: &Text, prompt: Vec<u32>) -> EngineRequest {
    let mut stop = args.stop.clone();
    if !args.raw {
        stop.extend(text.stop_strings());
    }
    EngineRequest {
        prompt,
        sampling: sampling(&args.sampling, &text.defaults),
        max_tokens: args.max_tokens.map(|n| n as usize),
        stop,
        stop_token_ids: text.stop_token_ids.clone(),
        begins_text: !args.raw,
        ..EngineRequest::default()
    }
}

/// What was typed, over the folder's own defaults. Without a seed each run has another.
///
/// `--temperature 0` asks for the likeliest token, so the folder's penalties, which would make it another,
/// are left out; typed ones count.
fn sampling(args: &SamplingArgs, defaults: &SamplingParams) -> SamplingParams {
    let plain = SamplingParams::default();
    let penalties = if args.temperature == Some(0.0) { &plain } else { defaults };
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    SamplingParams {
        temperature: args.temperature.unwrap_or(defaults.temperature),
        top_k: args.top_k.map_or(defaults.top_k, |k| k as usize),
        top_p: args.top_p.unwrap_or(defaults.top_p),
        min_p: args.min_p.unwrap_or(defaults.min_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(penalties.repetition_penalty),
        frequency_penalty: args.frequency_penalty.unwrap_or(penalties.frequency_penalty),
        presence_penalty: args.presence_penalty.unwrap_or(penalties.presence_penalty),
        logit_bias: args.logit_bias.clone(),
        seed: args.seed.unwrap_or_else(|| time.map_or(0, |d| d.as_nanos() as u64)),
    }
}
