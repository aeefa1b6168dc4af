//! The output of a response, item by item, with the events that tell of it.

use super::super::answer::Delta;
use super::tools::{input, split};
use crate::server::ids;
use serde_json::{Value, json};

/// An event: its name, and what it has besides type and sequence number.
pub type Event = (&'static str, Value);

/// An item that is being written.
enum Open {
    Reasoning { id: String, text: String },
    Message { id: String, text: String, logprobs: Vec<Value> },
    Call { id: String, call_id: String, name: String, arguments: String, custom: bool },
}

/// Items so far.
#[derive(Default)]
pub struct Items {
    done: Vec<Value>,
    open: Option<Open>,
    wants_logprobs: bool,
    /// Names of tools that take a text.
    custom: Vec<String>,
}

impl Items {
    /// Nothing yet.
    pub fn new(wants_logprobs: bool, custom: Vec<String>) -> Items {
        Items { wants_logprobs, custom, ..Items::default() }
    }

    /// The finished items.
    pub fn into_output(self) -> Vec<Value> {
        self.done
    }

    /// Takes what an event of the engine adds.
    pub fn take(&mut self, delta: Delta) -> Vec<Event> {
        let mut events = Vec::new();
        if !delta.reasoning.is_empty() {
            self.reasoning(&delta.reasoning, &mut events);
        }
        // Log-probabilities belong to the tokens of the text, whether or not their text is certain yet.
        let logprobs =
            if self.wants_logprobs && delta.reasoning.is_empty() { delta.logprobs } else { Vec::new() };
        if !delta.content.is_empty()
            || (!logprobs.is_empty() && matches!(self.open, Some(Open::Message { .. })))
        {
            self.text(&delta.content, logprobs, &mut events);
        }
        for part in delta.calls {
            if let Some((call_id, name)) = part.begins {
                let custom = self.custom.contains(&name);
                let id = ids::unique(if custom { "ctc_" } else { "fc_" });
                self.begin(Open::Call { id, call_id, name, arguments: String::new(), custom }, &mut events);
            }
            if let Some(Open::Call { id, arguments, custom, .. }) = &mut self.open
                && !part.arguments.is_empty()
            {
                arguments.push_str(&part.arguments);
                // The text inside of them is known when they are whole.
                if *custom {
                    continue;
                }
                let index = self.done.len();
                let event = json!({"item_id": id, "output_index": index, "delta": part.arguments});
                events.push(("response.function_call_arguments.delta", event));
            }
        }
        events
    }

    /// The end. There is always an item, if only an empty message.
    pub fn finish(&mut self, complete: bool) -> Vec<Event> {
        let mut events = Vec::new();
        if self.done.is_empty() && self.open.is_none() {
            self.begin(new_message(), &mut events);
        }
        self.end(complete, &mut events);
        events
    }

    fn reasoning(&mut self, more: &str, events: &mut Vec<Event>) {
        if !matches!(self.open, Some(Open::Reasoning { .. })) {
            self.begin(Open::Reasoning { id: ids::unique("rs_"), text: String::new() }, events);
        }
        if let Some(Open::Reasoning { id, text }) = &mut self.open {
            text.push_str(more);
            let place =
                json!({"item_id": id, "output_index": self.done.len(), "content_index": 0, "delta": more});
            events.push(("response.reasoning_text.delta", place));
        }
    }

    fn text(&mut self, more: &str, entries: Vec<Value>, events: &mut Vec<Event>) {
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.begin(new_message(), events);
        }
        if let Some(Open::Message { id, text, logprobs }) = &mut self.open {
            text.push_str(more);
            let event = json!({
                "item_id": id, "output_index": self.done.len(), "content_index": 0, "delta": more,
                "logprobs": entries,
            });
            logprobs.extend(entries);
            events.push(("response.output_text.delta", event));
        }
    }

    fn begin(&mut self, item: Open, events: &mut Vec<Event>) {
        self.end(true, events);
        let index = self.done.len();
        let mut shown = item.json("in_progress");
        if !matches!(item, Open::Call { .. }) {
            shown["content"] = json!([]);
        }
        events.push(("response.output_item.added", json!({"output_index": index, "item": shown})));
        if let Some(part) = item.part() {
            let event =
                json!({"item_id": item.id(), "output_index": index, "content_index": 0, "part": part});
            events.push(("response.content_part.added", event));
        }
        self.open = Some(item);
    }

    fn end(&mut self, complete: bool, events: &mut Vec<Event>) {
        let Some(item) = self.open.take() else { return };
        let index = self.done.len();
        let place = |more: Value| {
            let mut event = json!({"item_id": item.id(), "output_index": index});
            for (name, value) in more.as_object().into_iter().flatten() {
                event[name] = value.clone();
            }
            event
        };
        let done = match &item {
            Open::Reasoning { text, .. } => {
                ("response.reasoning_text.done", place(json!({"content_index": 0, "text": text})))
            }
            Open::Message { text, logprobs, .. } => (
                "response.output_text.done",
                place(json!({"content_index": 0, "text": text, "logprobs": logprobs})),
            ),
            Open::Call { arguments, custom: true, .. } => {
                let input = input(arguments);
                let delta = place(json!({"delta": input}));
                events.push(("response.custom_tool_call_input.delta", delta));
                ("response.custom_tool_call_input.done", place(json!({"input": input})))
            }
            Open::Call { name, arguments, .. } => (
                "response.function_call_arguments.done",
                place(json!({"name": split(name).1, "arguments": arguments})),
            ),
        };
        events.push(done);
        if let Some(part) = item.part() {
            events.push(("response.content_part.done", place(json!({"content_index": 0, "part": part}))));
        }
        let shown = item.json(if complete { "completed" } else { "incomplete" });
        events.push(("response.output_item.done", json!({"output_index": index, "item": shown})));
        self.done.push(shown);
    }
}

fn new_message() -> Open {
    Open::Message { id: ids::unique("msg_"), text: String::new(), logprobs: Vec::new() }
}

impl Open {
    fn id(&self) -> &str {
        match self {
            Open::Reasoning { id, .. } | Open::Message { id, .. } | Open::Call { id, .. } => id,
        }
    }

    /// The part of an item that has parts.
    fn part(&self) -> Option<Value> {
        match self {
            Open::Reasoning { text, .. } => Some(json!({"type": "reasoning_text", "text": text})),
            Open::Message { text, logprobs, .. } => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}))
            }
            Open::Call { .. } => None,
        }
    }

    fn json(&self, status: &str) -> Value {
        let content = self.part();
        match self {
            Open::Reasoning { id, .. } => {
                json!({"type": "reasoning", "id": id, "summary": [], "content": [content], "status": status})
            }
            Open::Message { id, .. } => {
                json!({"type": "message", "id": id, "role": "assistant", "content": [content], "status": status})
            }
            Open::Call { id, call_id, name, arguments, custom } => {
                let (namespace, name) = split(name);
                let mut call = match custom {
                    true => json!({"type": "custom_tool_call", "input": input(arguments)}),
                    false => json!({"type": "function_call", "arguments": arguments}),
                };
                for (field, value) in
                    [("id", id.as_str()), ("call_id", call_id), ("name", name), ("status", status)]
                {
                    call[field] = json!(value);
                }
                // Left out otherwise, as OpenAI does.
                if let Some(namespace) = namespace {
                    call["namespace"] = json!(namespace);
                }
                call
            }
        }
    }
}
