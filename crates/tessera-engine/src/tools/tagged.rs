//! Calls whose arguments stand between tags, as Qwen3-Coder and Qwen3.5 write them:
//!
//! ```text
//! <tool_call>
//! <function=weather>
//! <parameter=city>
//! Köln
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! A value is text, or JSON where the tool's schema has another type. It becomes JSON when its tag closes.

use super::calls::{Calls, ToolEvent, search, text};
use super::marks::{FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END};
use super::{ToolFormat, types};
use serde_json::Value;

/// Longest name in a tag.
const MAX_NAME: usize = 256;

#[derive(Clone, Debug, Default)]
enum Mode {
    /// Text, in which a call is looked for.
    #[default]
    Text,
    /// Before the name of the function.
    Function,
    /// Between parameters.
    Between,
    /// In the value of a parameter.
    Value(String),
    /// After the function.
    After,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Tagged {
    mode: Mode,
    held: String,
    /// The function that is called, and its parameters so far.
    function: String,
    parameters: Vec<String>,
}

impl Tagged {
    pub fn take(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        self.held.push(c);
        match std::mem::take(&mut self.mode) {
            Mode::Text => match search(&mut self.held, ToolFormat::Tagged.marks(), out) {
                Some(_) => self.mode = Mode::Function,
                None => self.mode = Mode::Text,
            },
            Mode::Function => self.function(calls, out),
            Mode::Between => self.between(calls, out),
            Mode::Value(key) => self.value(key, calls, out),
            Mode::After => self.after(out),
        }
    }

    pub fn finish(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        let end = ToolFormat::Tagged.end_mark();
        match std::mem::take(&mut self.mode) {
            Mode::Text if !calls.none() && held.trim().is_empty() => {}
            Mode::After if end.starts_with(held.trim()) => {}
            Mode::Text => text(out, &held, false),
            _ if calls.is_open() => calls.end(false, out),
            _ => text(out, &held, true),
        }
    }

    /// Reads `<function=name>`.
    fn function(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim_start();
        let seen = seen.strip_prefix(ToolFormat::Tagged.mark()).unwrap_or(seen).trim_start();
        match tag(seen, FUNCTION) {
            Tag::Open => self.mode = Mode::Function,
            Tag::Name(name) if calls.tool(name).is_some() => {
                calls.start(name, out);
                self.function = name.to_owned();
                self.parameters.clear();
                self.held.clear();
                self.mode = Mode::Between;
            }
            Tag::Name(_) | Tag::Other => self.give_up(out),
        }
    }

    fn between(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim_start();
        if seen == FUNCTION_END {
            calls.argument(if self.parameters.is_empty() { "{}" } else { "}" }, out);
            calls.end(true, out);
            self.held.clear();
            self.mode = Mode::After;
        } else if FUNCTION_END.starts_with(seen) {
            self.mode = Mode::Between;
        } else {
            match tag(seen, PARAMETER) {
                Tag::Open => self.mode = Mode::Between,
                // A second value of a parameter says that one of them is wrong.
                Tag::Name(key) if !self.parameters.iter().any(|other| other == key) => {
                    self.mode = Mode::Value(key.to_owned());
                    self.held.clear();
                }
                Tag::Name(_) | Tag::Other => {
                    calls.end(false, out);
                    self.give_up(out);
                }
            }
        }
    }

    fn value(&mut self, key: String, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let Some(value) = self.held.strip_suffix(PARAMETER_END) else {
            self.mode = Mode::Value(key);
            return;
        };
        // The line ends next to the tags belong to them.
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let schema = calls.tool(&self.function).and_then(|tool| tool.parameters.as_ref());
        let value = types::of_text(value, schema, &key);
        let open = if self.parameters.is_empty() { "{" } else { ", " };
        calls.argument(&format!("{open}{}: {value}", Value::from(key.as_str())), out);
        self.parameters.push(key);
        self.held.clear();
        self.mode = Mode::Between;
    }

    /// What may stand after a call.
    fn after(&mut self, out: &mut Vec<ToolEvent>) {
        let (seen, end) = (self.held.trim_start(), ToolFormat::Tagged.end_mark());
        if seen == end {
            self.held.clear();
        } else if end.starts_with(seen) {
            self.mode = Mode::After;
        } else if ToolFormat::Tagged.marks().iter().any(|mark| mark.starts_with(seen)) {
            self.mode = Mode::Text;
        } else {
            self.give_up(out);
        }
    }

    /// What is held is no call.
    fn give_up(&mut self, out: &mut Vec<ToolEvent>) {
        text(out, &std::mem::take(&mut self.held), true);
        self.mode = Mode::Text;
    }
}

/// A tag with a name.
enum Tag<'a> {
    /// Not yet whole.
    Open,
    Name(&'a str),
    Other,
}

fn tag<'a>(seen: &'a str, opening: &str) -> Tag<'a> {
    match seen.strip_prefix(opening) {
        Some(rest) => match rest.strip_suffix('>') {
            Some(name) => Tag::Name(name.trim()),
            None if rest.len() > MAX_NAME || rest.contains('\n') => Tag::Other,
            None => Tag::Open,
        },
        None if opening.starts_with(seen) => Tag::Open,
        None => Tag::Other,
    }
}
