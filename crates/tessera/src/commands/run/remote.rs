//! `tessera run --server`, alias `chat --server`: the model is somewhere else, the commands are the same.

use super::INTERRUPTED;
use super::chat::{read_lines, save};
use crate::cli::RunArgs;
use crate::client::Client;
use crate::interrupt;
use crate::output::{Output, hinted, is_closed_stdout};
use anyhow::Context;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

const HELP: &str = "\
/help          this list
/reset         forget the conversation
/system TEXT   set the system message and forget the conversation; without TEXT the template's own
/model [NAME]  ask another model of the server from now on; without NAME list them
/stats         figures of the last answer
/save FILE     write the conversation to FILE (JSON messages); an existing file is kept
/exit          leave (also Ctrl-D)
Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.";

/// How often a waiting answer looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(30);

/// One answer, or a chat.
pub fn run(args: &RunArgs, address: &str, prompt: Option<String>, out: &Output) -> anyhow::Result<ExitCode> {
    let client = Client::new(address)?;
    interrupt::watch();
    let (system, model) = (args.system.clone(), args.model.clone());
    let mut chat = Remote { args, client, model, out, system, messages: Vec::new(), last: None };
    let Some(prompt) = prompt else {
        if out.json {
            return Err(hinted("no prompt was given", "give one, or pipe it in: --json has no chat"));
        }
        // Better now than after the first question.
        let models = chat.client.models()?;
        if !models.contains(&chat.model) {
            let hint = format!("it serves {}", models.join(", "));
            return Err(hinted(format!("{} does not serve {}", chat.client.address(), chat.model), hint));
        }
        out.note(format_args!(
            "{} at {} is ready. /help lists the commands.",
            chat.model,
            chat.client.address()
        ));
        return read_lines(out, |line| chat.take(line));
    };
    chat.messages.push(json!({ "role": "user", "content": prompt }));
    let answer = chat.ask()?;
    if out.json {
        out.print_json(&json!({
            "text": answer.text, "reasoning": answer.reasoning, "finish_reason": answer.finish_reason(),
            "usage": answer.usage, "timings": { "ttft_ms": answer.ttft_ms(), "decode_tokens_per_s": answer.rate() },
        }))?;
    } else {
        out.line("")?;
        out.detail(answer.line());
        chat.tell_end(&answer);
    }
    Ok(if answer.cancelled { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// 0.7 as JSON is 0.7; the nearest f32 as f64 would be 0.699999988079071.
fn as_typed(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or_else(|_| json!(value), Value::from)
}

struct Remote<'a> {
    args: &'a RunArgs,
    client: Client,
    model: String,
    out: &'a Output,
    system: Option<String>,
    /// Without the system message.
    messages: Vec<Value>,
    last: Option<Answer>,
}

#[derive(Default)]
struct Answer {
    text: String,
    reasoning: String,
    finish: Option<String>,
    usage: Option<Value>,
    cancelled: bool,
    /// From sending to the first text, and from there to the last.
    first: Option<Duration>,
    decode: Duration,
}

impl Answer {
    fn finish_reason(&self) -> Option<&str> {
        if self.cancelled { Some("cancelled") } else { self.finish.as_deref() }
    }

    fn ttft_ms(&self) -> Option<f64> {
        self.first.map(|d| (d.as_secs_f64() * 1e5).round() / 1e2)
    }

    fn count(&self, name: &str) -> Option<u64> {
        self.usage.as_ref()?[name].as_u64()
    }

    /// Tokens per second after the first.
    fn rate(&self) -> Option<f64> {
        let after_first = self.count("completion_tokens")?.checked_sub(1)?;
        let seconds = self.decode.as_secs_f64();
        (after_first > 0 && seconds > 0.0).then(|| after_first as f64 / seconds)
    }

    fn line(&self) -> String {
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        let cached = self.usage.as_ref().and_then(|u| u["prompt_tokens_details"]["cached_tokens"].as_u64());
        format!(
            "prompt {} tokens ({} from the cache); answer {} tokens, {} tokens/s; first token after {}",
            number(self.count("prompt_tokens")),
            number(cached),
            number(self.count("completion_tokens")),
            self.rate().map_or("-".to_owned(), |r| format!("{r:.1}")),
            self.ttft_ms().map_or("-".to_owned(), |t| format!("{t:.0} ms")),
        )
    }
}

impl Remote<'_> {
    /// One line; `false` to leave.
    fn take(&mut self, line: &str) -> anyhow::Result<bool> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "/exit" | "/quit" => return Ok(false),
            "/help" => self.out.line(HELP)?,
            "/reset" => self.reset()?,
            "/system" => {
                self.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.reset()?;
            }
            "/model" => self.choose(rest)?,
            "/stats" => self.out.line(self.last.as_ref().map_or("no answer yet".to_owned(), Answer::line))?,
            "/save" => save(&self.conversation(), rest, self.out)?,
            c if c.starts_with('/') => self.out.line(format_args!("no command {c}; /help lists them"))?,
            _ => self.answer(line)?,
        }
        Ok(true)
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        self.messages.clear();
        self.out.line("the conversation begins anew")
    }

    fn choose(&mut self, name: &str) -> anyhow::Result<()> {
        let models = match self.client.models() {
            Ok(models) => models,
            Err(error) => {
                self.out.report(&error);
                return Ok(());
            }
        };
        if models.iter().any(|m| m == name) {
            self.model = name.to_owned();
            return self.out.line(format_args!("{name} answers from now on"));
        }
        if !name.is_empty() {
            self.out.line(format_args!("the server does not serve {name}"))?;
        }
        for model in models {
            self.out.line(format_args!("{} {model}", if model == self.model { "*" } else { " " }))?;
        }
        Ok(())
    }

    fn conversation(&self) -> Vec<Value> {
        let system = self.system.iter().map(|s| json!({ "role": "system", "content": s }));
        system.chain(self.messages.iter().cloned()).collect()
    }

    fn answer(&mut self, line: &str) -> anyhow::Result<()> {
        self.messages.push(json!({ "role": "user", "content": line }));
        match self.ask() {
            Ok(answer) => {
                self.out.line("")?;
                // Stopped before its first word it is no answer, and templates refuse an empty one.
                match answer.text.is_empty() && answer.cancelled {
                    true => drop(self.messages.pop()),
                    false => self.messages.push(json!({ "role": "assistant", "content": answer.text })),
                }
                self.tell_end(&answer);
                self.last = Some(answer);
                Ok(())
            }
            Err(error) if is_closed_stdout(&error) => Err(error),
            Err(error) => {
                // The chat goes on without the line that failed.
                self.messages.pop();
                self.out.report(&error);
                Ok(())
            }
        }
    }

    /// What was typed and nothing else: the rest is the server's choice.
    fn body(&self) -> Value {
        let mut body = json!({
            "model": self.model, "messages": self.conversation(), "stream": true,
            "stream_options": { "include_usage": true },
        });
        let sampling = &self.args.sampling;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        set("temperature", sampling.temperature.map(as_typed));
        set("top_k", sampling.top_k.map(Value::from));
        set("top_p", sampling.top_p.map(as_typed));
        set("min_p", sampling.min_p.map(as_typed));
        set("repetition_penalty", sampling.repetition_penalty.map(as_typed));
        set("frequency_penalty", sampling.frequency_penalty.map(as_typed));
        set("presence_penalty", sampling.presence_penalty.map(as_typed));
        set("seed", sampling.seed.map(Value::from));
        set("max_completion_tokens", self.args.max_tokens.map(Value::from));
        set("stop", (!self.args.stop.is_empty()).then(|| json!(self.args.stop)));
        let bias: serde_json::Map<_, _> =
            sampling.logit_bias.iter().map(|(id, b)| (id.to_string(), as_typed(*b))).collect();
        set("logit_bias", (!bias.is_empty()).then(|| Value::Object(bias)));
        body
    }

    /// Streams the answer to the conversation onto the terminal.
    fn ask(&self) -> anyhow::Result<Answer> {
        interrupt::forget();
        let (body, client) = (self.body(), self.client.clone());
        let begun = Instant::now();
        // Reading blocks, and Ctrl-C must not wait for it. When the receiver is gone the thread ends at its next
        // event, which closes the connection and so cancels the request.
        let (sender, events) = sync_channel(64);
        let read = move || match client.stream(&body) {
            Ok(stream) => {
                for event in stream {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
            Err(error) => drop(sender.send(Err(error))),
        };
        std::thread::Builder::new()
            .spawn(read)
            .context("the thread that reads the answer cannot be started")?;
        let mut answer = Answer::default();
        loop {
            if interrupt::seen() {
                answer.cancelled = true;
                interrupt::forget();
                return Ok(answer);
            }
            match events.recv_timeout(LOOK) {
                Ok(event) => self.note(&event?, begun, &mut answer)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(answer),
            }
        }
    }

    fn note(&self, event: &Value, begun: Instant, answer: &mut Answer) -> anyhow::Result<()> {
        let choice = &event["choices"][0];
        let thought = choice["delta"]["reasoning_content"].as_str().unwrap_or("");
        let text = choice["delta"]["content"].as_str().unwrap_or("");
        if !(thought.is_empty() && text.is_empty()) {
            let now = begun.elapsed();
            answer.decode = now - *answer.first.get_or_insert(now);
        }
        if !thought.is_empty() {
            answer.reasoning.push_str(thought);
            if !self.out.quiet && !self.out.json {
                // On stderr: what is piped is the answer. Nobody to tell that stderr is gone.
                let _ = write!(std::io::stderr(), "{thought}");
            }
        }
        if !text.is_empty() {
            if answer.text.is_empty() && !answer.reasoning.is_empty() && !self.out.json {
                self.out.note("\n");
            }
            answer.text.push_str(text);
            if !self.out.json {
                self.out.text(text)?;
            }
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            answer.finish = Some(reason.to_owned());
        }
        if let Some(usage) = event.get("usage").filter(|u| u.is_object()) {
            answer.usage = Some(usage.clone());
        }
        Ok(())
    }

    fn tell_end(&self, answer: &Answer) {
        match answer.finish_reason() {
            Some("stop") => {}
            Some("cancelled") => self.out.note("(stopped)"),
            Some("length") => self.out.note("(cut: the context or --max-tokens is used up)"),
            Some(other) => self.out.note(format_args!("(ended: {other})")),
            None => self.out.note("(the server did not say why it ended)"),
        }
    }
}
