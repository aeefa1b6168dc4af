//! From the events of one choice to what is said, thought and called.

use crate::error::ApiResult;
use crate::ids;
use crate::logprobs::chat_entry;
use crate::subject::Subject;
use crate::tools::Tools;
use serde_json::Value;
use tessera_engine::reasoning::{Part, ReasoningSplitter};
use tessera_engine::request::{EngineEvent, FinishReason, Usage};
use tessera_engine::tools::{CallIds, ToolEvent, ToolParser};

/// How the text of an answer is read.
#[derive(Clone, Debug)]
pub struct Reading {
    splitter: Option<ReasoningSplitter>,
    parser: Option<ToolParser>,
    /// Whether what was thought is shown.
    shows_reasoning: bool,
}

impl Reading {
    /// `open`: the prompt ended inside of reasoning. `separate`: what is thought is no part of the content.
    pub fn new(
        served: &Subject,
        tools: &Tools,
        open: bool,
        separate: bool,
        shows_reasoning: bool,
    ) -> Reading {
        let splits = separate && (open || served.knows_reasoning);
        let format = served.tool_support.format;
        let parser = || ToolParser::new(format, tools.list.clone(), CallIds::new(ids::random()));
        Reading {
            splitter: splits.then(|| ReasoningSplitter::new(open)),
            parser: tools.active().then(parser),
            shows_reasoning,
        }
    }

    /// Whether marks in the text may be special tokens, which have to be kept then.
    pub fn keeps_special(&self, served: &Subject) -> bool {
        let tokenizer = &served.text.tokenizer;
        let is_special = |mark: &str| tokenizer.id_of(mark).is_some_and(|id| tokenizer.is_special(id));
        let tags = [tessera_engine::reasoning::OPEN, tessera_engine::reasoning::CLOSE];
        (self.splitter.is_some() && tags.iter().any(|tag| is_special(tag)))
            || (self.parser.is_some() && served.tool_support.keeps_special(tokenizer))
    }
}

/// A part of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallDelta {
    /// Number of the call in the answer.
    pub index: usize,
    /// Id and name, with the first part.
    pub begins: Option<(String, String)>,
    /// More of the arguments.
    pub arguments: String,
}

/// A whole call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// The id that the result comes back with.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON as text.
    pub arguments: String,
}

/// What an event adds.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// To the text.
    pub content: String,
    /// To what was thought.
    pub reasoning: String,
    /// To the calls.
    pub calls: Vec<CallDelta>,
    /// Entries of `logprobs.content`.
    pub logprobs: Vec<Value>,
    /// The end, by OpenAI's word.
    pub finish: Option<&'static str>,
}

impl Delta {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
            && self.reasoning.is_empty()
            && self.calls.is_empty()
            && self.logprobs.is_empty()
            && self.finish.is_none()
    }
}

/// One choice so far.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text.
    pub content: String,
    /// What was thought.
    pub reasoning: String,
    /// The calls.
    pub calls: Vec<Call>,
    /// Entries of `logprobs.content`.
    pub logprobs: Vec<Value>,
    /// The end.
    pub finish: Option<&'static str>,
    /// Tokens, at the end.
    pub usage: Usage,
    /// Tokens that were thought.
    pub reasoning_tokens: usize,
    reading: Reading,
}

impl Answer {
    /// Nothing yet.
    pub fn new(reading: Reading) -> Answer {
        Answer {
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            logprobs: Vec::new(),
            finish: None,
            usage: Usage::default(),
            reasoning_tokens: 0,
            reading,
        }
    }

    /// Takes an event.
    pub fn take(&mut self, event: EngineEvent, served: &Subject) -> ApiResult<Delta> {
        let mut delta = Delta::default();
        match event {
            EngineEvent::Token { text, logprob, .. } => {
                let thinks = |a: &Answer| a.reading.splitter.as_ref().is_some_and(|s| s.is_reasoning());
                let before = thinks(self);
                self.read(&text, &mut delta);
                // The tags count as what they enclose.
                self.reasoning_tokens += usize::from(before || thinks(self));
                delta.logprobs = logprob.iter().map(|l| chat_entry(l, &served.text.tokenizer)).collect();
            }
            EngineEvent::Done { text, finish_reason, usage, .. } => {
                self.read(&text, &mut delta);
                self.end(&mut delta);
                let word = finish(finish_reason);
                let calls = self.calls.len() + delta.calls.iter().filter(|c| c.begins.is_some()).count();
                delta.finish = Some(if word == "stop" && calls > 0 { "tool_calls" } else { word });
                self.usage = usage;
            }
            _ => {}
        }
        if !self.reading.shows_reasoning {
            delta.reasoning.clear();
        }
        self.add(&delta);
        Ok(delta)
    }

    fn read(&mut self, text: &str, delta: &mut Delta) {
        let parts = match &mut self.reading.splitter {
            Some(splitter) => splitter.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![Part::Content(text.to_owned())],
        };
        self.parts(parts, delta);
    }

    /// What was held back.
    fn end(&mut self, delta: &mut Delta) {
        let parts = self.reading.splitter.as_mut().map(ReasoningSplitter::finish).unwrap_or_default();
        self.parts(parts, delta);
        let events = self.reading.parser.as_mut().map(ToolParser::finish).unwrap_or_default();
        calls(events, delta);
    }

    fn parts(&mut self, parts: Vec<Part>, delta: &mut Delta) {
        for part in parts {
            match (part, &mut self.reading.parser) {
                (Part::Reasoning(text), _) => delta.reasoning.push_str(&text),
                (Part::Content(text), Some(parser)) => calls(parser.push(&text), delta),
                (Part::Content(text), None) => delta.content.push_str(&text),
            }
        }
    }

    fn add(&mut self, delta: &Delta) {
        self.content.push_str(&delta.content);
        self.reasoning.push_str(&delta.reasoning);
        self.logprobs.extend(delta.logprobs.iter().cloned());
        self.finish = delta.finish.or(self.finish);
        for part in &delta.calls {
            if let Some((id, name)) = &part.begins {
                self.calls.push(Call { id: id.clone(), name: name.clone(), arguments: String::new() });
            }
            if let Some(call) = self.calls.get_mut(part.index) {
                call.arguments.push_str(&part.arguments);
            }
        }
    }
}

fn calls(events: Vec<ToolEvent>, delta: &mut Delta) {
    for event in events {
        match event {
            // What looks like a call and is none is text, as the model wrote it.
            ToolEvent::Text { text, .. } => delta.content.push_str(&text),
            ToolEvent::Start { index, id, name } => {
                delta.calls.push(CallDelta { index, begins: Some((id, name)), arguments: String::new() });
            }
            ToolEvent::Arguments { index, text } => match delta.calls.last_mut() {
                Some(last) if last.index == index => last.arguments.push_str(&text),
                _ => delta.calls.push(CallDelta { index, begins: None, arguments: text }),
            },
            ToolEvent::End { .. } => {}
        }
    }
}

/// The word for an end: OpenAI's, and `abort` for an answer that its reader broke off.
pub fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Length => reason.name(),
        FinishReason::Cancelled => "abort",
    }
}
