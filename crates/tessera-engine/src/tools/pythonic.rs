//! Calls as a list of Python's, `[weather(city="Köln"), now()]`, perhaps between `<|python_start|>` and
//! `<|python_end|>`. Arguments are literals of Python or JSON; each becomes JSON when it is whole.

use super::ToolFormat;
use super::calls::{Calls, ToolEvent, text};
use super::literal::Literal;
use serde_json::Value;

/// Longest name.
const MAX_NAME: usize = 256;

#[derive(Clone, Debug, Default)]
enum Mode {
    /// The beginning of an answer: white space, then perhaps calls.
    #[default]
    Start,
    /// Text to the end.
    Text,
    /// Before the name of a function.
    Function,
    /// Before the name of an argument, or the end of the call; whether one was there.
    Name,
    /// In the value of an argument.
    Value(String, Literal),
    /// After a call in the list.
    Between,
    /// After the list.
    After,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pythonic {
    mode: Mode,
    held: String,
    names: Vec<String>,
}

impl Pythonic {
    pub fn take(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        self.held.push(c);
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Text => text(out, &std::mem::take(&mut self.held), false),
            Mode::Start => self.start(out),
            Mode::Function => self.function(c, calls, out),
            Mode::Name => self.name(c, calls, out),
            Mode::Value(name, value) => self.value(name, value, c, calls, out),
            Mode::Between => match c {
                _ if c.is_ascii_whitespace() => self.mode = Mode::Between,
                ',' => self.next(Mode::Function),
                ']' => self.next(Mode::After),
                _ => self.give_up(calls, out),
            },
            Mode::After => {
                let (seen, end) = (self.held.trim_start(), ToolFormat::Pythonic.end_mark());
                if seen == end {
                    self.held.clear();
                    self.mode = Mode::After;
                } else if end.starts_with(seen) {
                    self.mode = Mode::After;
                } else {
                    text(out, &std::mem::take(&mut self.held), false);
                }
            }
        }
    }

    pub fn finish(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::After if ToolFormat::Pythonic.end_mark().starts_with(held.trim()) => {}
            Mode::Between if held.trim().is_empty() => {}
            Mode::Start | Mode::Text => text(out, &held, false),
            _ if calls.is_open() => calls.end(false, out),
            // A list of something else, as far as is known.
            Mode::Function if calls.none() && !held.contains(ToolFormat::Pythonic.mark()) => {
                text(out, &held, false);
            }
            _ => text(out, &held, true),
        }
    }

    fn start(&mut self, out: &mut Vec<ToolEvent>) {
        let (seen, mark) = (self.held.trim_start(), ToolFormat::Pythonic.mark());
        if seen.strip_prefix(mark).unwrap_or(seen).trim_start() == "[" {
            self.mode = Mode::Function;
        } else if mark.starts_with(seen) || seen.strip_prefix(mark).is_some_and(|rest| rest.trim().is_empty())
        {
            self.mode = Mode::Start;
        } else {
            let marked = seen.starts_with(mark);
            text(out, &std::mem::take(&mut self.held), marked);
        }
    }

    fn function(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let seen = match calls.none() {
            true => self.held.split_once('[').map_or("", |(_, rest)| rest),
            false => &self.held,
        };
        match c {
            '(' => {
                let name = seen.trim().trim_end_matches('(').trim_end().to_owned();
                if calls.tool(&name).is_none() {
                    return self.give_up(calls, out);
                }
                calls.start(&name, out);
                self.names.clear();
                self.next(Mode::Name);
            }
            _ if seen.len() > MAX_NAME => self.give_up(calls, out),
            _ if c.is_alphanumeric() || c.is_ascii_whitespace() || matches!(c, '_' | '-') => {
                self.mode = Mode::Function;
            }
            _ => self.give_up(calls, out),
        }
    }

    fn name(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim();
        match c {
            ')' if seen == ")" => {
                calls.argument(if self.names.is_empty() { "{}" } else { "}" }, out);
                calls.end(true, out);
                self.next(Mode::Between);
            }
            '=' => {
                let name = seen.trim_end_matches('=').trim_end().to_owned();
                if name.is_empty() || self.names.contains(&name) {
                    return self.broken(calls, out);
                }
                self.next(Mode::Value(name, Literal::default()));
            }
            _ if seen.len() > MAX_NAME => self.broken(calls, out),
            _ if c.is_alphanumeric() || c.is_ascii_whitespace() || c == '_' => self.mode = Mode::Name,
            _ => self.broken(calls, out),
        }
    }

    fn value(
        &mut self,
        name: String,
        mut value: Literal,
        c: char,
        calls: &mut Calls,
        out: &mut Vec<ToolEvent>,
    ) {
        if !value.ends_before(c) {
            self.mode = Mode::Value(name, value);
            return;
        }
        let Some(json) = value.json() else { return self.broken(calls, out) };
        let open = if self.names.is_empty() { "{" } else { ", " };
        calls.argument(&format!("{open}{}: {json}", Value::from(name.as_str())), out);
        self.names.push(name);
        self.held.clear();
        self.mode = Mode::Name;
        if c == ')' {
            self.held.push(c);
            self.name(c, calls, out);
        }
    }

    fn next(&mut self, mode: Mode) {
        self.held.clear();
        self.mode = mode;
    }

    fn broken(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        calls.end(false, out);
        self.give_up(calls, out);
    }

    /// What is held is no call.
    fn give_up(&mut self, calls: &Calls, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        // An answer may be a list of its own. With a mark, or after a call it was meant as one.
        let malformed = !calls.none() || held.contains(ToolFormat::Pythonic.mark()) || held.ends_with('(');
        text(out, &held, malformed);
        self.mode = Mode::Text;
    }
}
