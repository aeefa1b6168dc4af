//! The chat on a terminal.

use super::stats::Stats;
use super::{answer, render_options, request};
use crate::cli::RunArgs;
use crate::interrupt;
use crate::output::{Bytes, Output};
use rustyline::error::ReadlineError;
use serde::Serialize;
use std::process::ExitCode;
use tessera_engine::machine::Machine;
use tessera_engine::request::FinishReason;
use tessera_engine::template::Message;
use tessera_engine::text::Text;

const HELP: &str = "\
/help          this list
/reset         forget the conversation
/system TEXT   set the system message and forget the conversation; without TEXT the template's own
/stats         speed of the last answer, tokens held, memory
/save FILE     write the conversation to FILE (JSON messages); an existing file is kept
/exit          leave (also Ctrl-D)
Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.";

struct Chat<'a> {
    args: &'a RunArgs,
    machine: Machine,
    text: Text,
    out: &'a Output,
    system: Option<String>,
    /// Without the system message.
    messages: Vec<Message>,
    /// Tokens of the last prompt and answer.
    held: usize,
    last: Option<Stats>,
}

/// Reads lines and answers until the input ends.
pub fn chat(args: &RunArgs, machine: Machine, text: Text, out: &Output) -> anyhow::Result<ExitCode> {
    if let (false, Err(e)) = (args.raw, &text.template) {
        return Err(crate::output::hinted(e.to_string(), "a chat without a template: --raw"));
    }
    out.note(format_args!("{} is ready. /help lists the commands.", args.model));
    let system = args.system.clone();
    let mut chat = Chat { args, machine, text, out, system, messages: Vec::new(), held: 0, last: None };
    read_lines(out, |line| chat.take(line))
}

/// Hands over each line that is typed, until one says that it is the last, or the input ends.
pub fn read_lines(
    out: &Output,
    mut take: impl FnMut(&str) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let mut editor = rustyline::DefaultEditor::new()?;
    let mut pending = String::new();
    loop {
        let prompt = if pending.is_empty() { ">>> " } else { "... " };
        match editor.readline(prompt) {
            Ok(line) => {
                if let Some(begun) = line.strip_suffix('\\') {
                    pending.push_str(begun);
                    pending.push('\n');
                    continue;
                }
                let line = std::mem::take(&mut pending) + &line;
                if line.trim().is_empty() {
                    continue;
                }
                // A history that cannot take a line is no reason to stop.
                let _ = editor.add_history_entry(&line);
                if !take(&line)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                out.note("(to leave, press Ctrl-D or type /exit)");
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Writes a conversation to a file that is not there yet, and tells how that went.
pub fn save(messages: &[impl Serialize], file: &str, out: &Output) -> anyhow::Result<()> {
    if file.is_empty() {
        return out.line("/save needs the name of a file");
    }
    let text = serde_json::to_string_pretty(messages)? + "\n";
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()));
    match written {
        Ok(()) => out.line(format_args!("{} messages are in {file}", messages.len())),
        Err(e) => out.line(format_args!("{file}: {e}")),
    }
}

impl Chat<'_> {
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
            "/stats" => self.stats()?,
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

    fn stats(&mut self) -> anyhow::Result<()> {
        let last = self.last.as_ref().map_or("no answer yet".to_owned(), Stats::line);
        self.out.line(last)?;
        self.out.line(format_args!(
            "{} of {} tokens of context held; {} set aside for keys and values; {}",
            self.held,
            self.machine.limits().context,
            Bytes(self.machine.model().kv_len() as u64),
            self.machine.model().describe(),
        ))
    }

    fn conversation(&self) -> Vec<Message> {
        let system = self.system.iter().map(|s| Message::new("system", s));
        system.chain(self.messages.iter().cloned()).collect()
    }

    fn answer(&mut self, line: &str) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", line));
        let prompt = match self.args.raw {
            true => self.raw_prompt(line).map_err(anyhow::Error::from),
            false => {
                self.text.chat_prompt(&self.conversation(), &render_options()).map_err(anyhow::Error::from)
            }
        };
        let outcome = prompt.and_then(|prompt| self.generate(prompt));
        match outcome {
            Ok(text) => {
                self.messages.push(Message::new("assistant", text));
                Ok(())
            }
            Err(error) if crate::output::is_closed_stdout(&error) => Err(error),
            Err(error) => {
                // The chat goes on without the line that failed.
                self.messages.pop();
                self.out.report(&error);
                Ok(())
            }
        }
    }

    /// Raw lines follow one another as one text.
    fn raw_prompt(&self, line: &str) -> Result<Vec<u32>, tessera_engine::tokenizer::TokenizerError> {
        if self.messages.len() <= 1 {
            return self.text.tokenizer.encode(line, true);
        }
        let before: String =
            self.messages[..self.messages.len() - 1].iter().filter_map(|m| m.content.as_deref()).collect();
        self.text.tokenizer.encode(&(before + line), true)
    }

    fn generate(&mut self, prompt: Vec<u32>) -> anyhow::Result<String> {
        let request = request(self.args, &self.text, prompt);
        let out = self.out;
        interrupt::forget();
        let (answer, stats) = answer(&mut self.machine, request, |piece| out.text(piece))?;
        interrupt::forget();
        self.held = answer.usage.prompt_tokens + answer.usage.completion_tokens;
        self.last = Some(stats);
        self.out.line("")?;
        match answer.finish_reason {
            FinishReason::Stop => {}
            FinishReason::Cancelled => self.out.note("(stopped)"),
            FinishReason::Length => self.out.note("(cut: the context or --max-tokens is used up)"),
        }
        Ok(answer.text)
    }
}
