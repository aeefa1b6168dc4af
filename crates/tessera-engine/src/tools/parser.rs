//! Tool calls in a stream of text.
//!
//! The text is read one character at a time, so how it is cut makes no difference. Text that may be the
//! beginning of a call waits; a call whose name is known is handed on while it is written. What looks
//! like a call and is none comes out as the text that it is, with a flag.

use super::calls::{Calls, ToolEvent, search, text};
use super::json::{CallReader, Found};
use super::marks::{
    DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_END, DEEPSEEK_SEPARATOR, MISTRAL_ARGUMENTS, MISTRAL_ID,
};
use super::pythonic::Pythonic;
use super::tagged::Tagged;
use super::{CallIds, Tool, ToolFormat};

const FENCE: &str = "```";
/// Longest name, with what stands around it, in `name[ARGS]{...}`.
const MAX_NAME: usize = 300;

/// How a call lies in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An object with name and arguments.
    Object,
    /// The same in a list of calls.
    InList,
    /// The arguments alone, after the name.
    Bare,
}

#[derive(Clone, Debug)]
enum Mode {
    /// Text, in which the format's mark is looked for.
    Text,
    /// The beginning of an answer in a format without marks: white space, then perhaps a call.
    Start,
    /// White space before a call.
    Before(Form),
    /// `name[ARGS]` of newer Mistral models, or what DeepSeek's have around the name, up to the brace.
    Named,
    /// Inside of a call's JSON.
    Call(Box<CallReader>, Form),
    /// Between a call's end and its closing mark, or the next call.
    After(Form),
}

/// Finds the tool calls in an answer.
#[derive(Clone, Debug)]
pub struct ToolParser {
    calls: Calls,
    form: Reader,
}

/// How calls are spelled.
#[derive(Clone, Debug)]
enum Reader {
    Json(Json),
    Tagged(Tagged),
    Pythonic(Pythonic),
}

impl ToolParser {
    /// For an answer. A call of another tool than `tools` is malformed.
    pub fn new(format: ToolFormat, tools: Vec<Tool>, ids: CallIds) -> ToolParser {
        let form = match format {
            ToolFormat::Tagged => Reader::Tagged(Tagged::default()),
            ToolFormat::Pythonic => Reader::Pythonic(Pythonic::default()),
            _ => Reader::Json(Json::new(format)),
        };
        ToolParser { calls: Calls::new(tools, ids), form }
    }

    /// Calls begun so far.
    pub fn calls(&self) -> usize {
        self.calls.begun()
    }

    /// Takes text and gives what has become certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        let mut out = Vec::new();
        for c in text.chars() {
            match &mut self.form {
                Reader::Json(reader) => reader.take(c, &mut self.calls, &mut out),
                Reader::Tagged(reader) => reader.take(c, &mut self.calls, &mut out),
                Reader::Pythonic(reader) => reader.take(c, &mut self.calls, &mut out),
            }
        }
        out
    }

    /// Ends the answer: what was still held back.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let mut out = Vec::new();
        match &mut self.form {
            Reader::Json(reader) => reader.finish(&mut self.calls, &mut out),
            Reader::Tagged(reader) => reader.finish(&mut self.calls, &mut out),
            Reader::Pythonic(reader) => reader.finish(&mut self.calls, &mut out),
        }
        out
    }
}

/// Reads calls whose arguments are JSON.
#[derive(Clone, Debug)]
struct Json {
    format: ToolFormat,
    mode: Mode,
    /// Text that may still turn out to be something else.
    held: String,
}

impl Json {
    fn new(format: ToolFormat) -> Json {
        let mode = if format.has_marks() { Mode::Text } else { Mode::Start };
        Json { format, mode, held: String::new() }
    }

    fn finish(&mut self, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        // White space around calls is no text of the answer, and models often stop before the mark that
        // closes a call.
        let seen = held.trim();
        let known = self.is_closing(seen) == Closing::Begun;
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Call(..) if calls.is_open() => calls.end(false, out),
            Mode::Text | Mode::Start if !calls.none() && seen.is_empty() => {}
            Mode::After(_) if seen.is_empty() || known => {}
            Mode::Text | Mode::Start => text(out, &held, false),
            Mode::Call(..) | Mode::Before(_) | Mode::Named | Mode::After(_) => text(out, &held, true),
        }
    }

    fn take(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        if !calls.is_open() {
            self.held.push(c);
        }
        match &mut self.mode {
            Mode::Call(reader, _) => match reader.push(c) {
                Ok(found) => self.found(found, c, calls, out),
                Err(_) => self.broken(c, calls, out),
            },
            Mode::Text => self.search(out),
            Mode::Start => self.start_of_answer(out),
            Mode::Before(form) => {
                let form = *form;
                let outside = form == Form::Object;
                match c {
                    ' ' | '\t' | '\n' | '\r' => {}
                    '[' if outside && self.format.may_list() => self.mode = Mode::Before(Form::InList),
                    '{' => self.call(CallReader::new(), form),
                    _ if outside && self.format.may_name() && !c.is_control() => self.mode = Mode::Named,
                    _ => self.give_up(calls, out),
                }
            }
            Mode::Named => self.named(c, calls, out),
            Mode::After(form) => {
                let form = *form;
                self.after(form, calls, out);
            }
        }
    }

    /// Begins a call with the brace that was just seen.
    fn call(&mut self, mut reader: CallReader, form: Form) {
        // A brace always begins an object.
        let _ = reader.push('{');
        self.mode = Mode::Call(Box::new(reader), form);
    }

    fn start_of_answer(&mut self, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim_start();
        let mark = self.format.mark();
        if seen == "{" {
            self.call(CallReader::new(), Form::Object);
        } else if !mark.is_empty() && seen == mark {
            self.mode = Mode::Before(Form::Object);
        } else if !seen.is_empty() && !mark.starts_with(seen) {
            self.mode = Mode::Text;
            self.search(out);
        }
    }

    fn found(&mut self, found: Found, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let Mode::Call(reader, form) = &self.mode else { return };
        let form = *form;
        match found {
            Found::Nothing => {}
            Found::Name if reader.name().is_none_or(|name| calls.tool(name).is_none()) => {
                self.broken(c, calls, out)
            }
            Found::Name | Found::Argument | Found::LastArgument if calls.is_open() => {
                calls.argument(c.encode_utf8(&mut [0; 4]), out);
                if found == Found::LastArgument && form == Form::Bare {
                    self.end(form, calls, out);
                }
            }
            Found::Name | Found::Argument | Found::LastArgument => {
                // Handed on from where both are known.
                if let (Some(name), Some(arguments)) = (reader.name(), reader.arguments()) {
                    calls.start(name, out);
                    calls.argument(arguments, out);
                    self.held.clear();
                }
            }
            Found::End => {
                match reader.name() {
                    None => return self.broken(c, calls, out),
                    Some(name) if !calls.is_open() => {
                        calls.start(name, out);
                        calls.argument("{}", out);
                        self.held.clear();
                    }
                    Some(_) => {}
                }
                self.end(form, calls, out);
            }
        }
    }

    fn end(&mut self, form: Form, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        calls.end(true, out);
        self.mode = Mode::After(form);
    }

    /// The call cannot go on with this character.
    fn broken(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        if calls.is_open() {
            calls.end(false, out);
            self.held = c.to_string();
        }
        self.give_up(calls, out);
    }

    /// What is held is no call.
    fn give_up(&mut self, calls: &Calls, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        // An answer may be JSON of its own. With a mark, with a name, or after a call it was meant as one.
        let plain = calls.none()
            && held.trim_start().starts_with('{')
            && !matches!(&self.mode, Mode::Call(reader, _) if reader.name().is_some());
        self.mode = Mode::Text;
        text(out, &held, !plain);
    }

    fn search(&mut self, out: &mut Vec<ToolEvent>) {
        if let Some(mark) = search(&mut self.held, self.format.marks(), out) {
            self.mode = if mark == DEEPSEEK_CALL { Mode::Named } else { Mode::Before(Form::Object) };
        }
    }

    /// The name, perhaps an id or a type, then the arguments alone.
    fn named(&mut self, c: char, calls: &mut Calls, out: &mut Vec<ToolEvent>) {
        let fenced = self.format.is_deepseek();
        let rest = self.held.trim_start();
        let rest = rest.strip_prefix(self.format.mark()).unwrap_or(rest).trim_start();
        let Some(before) = rest.strip_suffix('{') else {
            if c == '\n' && !fenced || rest.len() > MAX_NAME {
                self.give_up(calls, out);
            }
            return;
        };
        let before = before.trim_end();
        let name = if fenced {
            // `function`, separator, name and a fence, or name and separator.
            let before = before.strip_suffix("```json").unwrap_or(before);
            let before = before.strip_prefix(DEEPSEEK_CALL).unwrap_or(before);
            before.split(DEEPSEEK_SEPARATOR).map(str::trim).filter(|part| !part.is_empty()).last()
        } else {
            let before = before.strip_suffix(MISTRAL_ARGUMENTS).unwrap_or(before);
            before.split(MISTRAL_ID).next().map(str::trim)
        };
        let Some(name) = name.filter(|name| calls.tool(name).is_some()) else {
            return self.give_up(calls, out);
        };
        let reader = CallReader::named(name);
        calls.start(name, out);
        calls.argument("{", out);
        self.held.clear();
        self.call(reader, Form::Bare);
    }

    /// What may stand after a call.
    fn after(&mut self, form: Form, calls: &Calls, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim_start();
        let further = seen.trim_start_matches([';', ',']).trim_start();
        if seen.is_empty() {
            return;
        }
        match (self.format, form) {
            (_, Form::InList) if seen == "," => self.next(Mode::Before(Form::InList)),
            (ToolFormat::Phi4, Form::InList) if seen == "]" => self.next(Mode::After(Form::Object)),
            (_, Form::InList) if seen == "]" => self.next(Mode::Text),
            (ToolFormat::Mistral | ToolFormat::MistralNamed, Form::Object | Form::Bare) => {
                self.mode = Mode::Text;
                self.search(out);
            }
            (_, Form::InList) => self.give_up(calls, out),
            _ if self.is_closing(seen) == Closing::Whole => match seen {
                // What closes one call of several.
                FENCE | DEEPSEEK_CALL_END => self.held.clear(),
                _ => self.next(Mode::Text),
            },
            _ if self.is_closing(seen) == Closing::Begun => {}
            (ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31, _) if seen == DEEPSEEK_CALL => {
                self.mode = Mode::Named;
            }
            (ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31, _) if DEEPSEEK_CALL.starts_with(seen) => {}
            (ToolFormat::Llama3 | ToolFormat::Llama4 | ToolFormat::Generic, _) if further.is_empty() => {}
            (ToolFormat::Llama3 | ToolFormat::Llama4 | ToolFormat::Generic, _) if further == "{" => {
                self.call(CallReader::new(), Form::Object);
            }
            (ToolFormat::Llama3 | ToolFormat::Llama4, _) if further == self.format.mark() => {
                self.mode = Mode::Before(Form::Object);
            }
            (ToolFormat::Llama3 | ToolFormat::Llama4, _) if self.format.mark().starts_with(further) => {}
            _ => self.give_up(calls, out),
        }
    }

    fn next(&mut self, mode: Mode) {
        self.held.clear();
        self.mode = mode;
    }

    /// Whether a text is a mark that may stand after a call.
    fn is_closing(&self, seen: &str) -> Closing {
        let ends: &[&str] = match self.format {
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => &[FENCE, DEEPSEEK_CALL_END, DEEPSEEK_END],
            _ => &[self.format.end_mark()],
        };
        match seen {
            "" => Closing::Not,
            seen if ends.contains(&seen) => Closing::Whole,
            seen if ends.iter().any(|end| end.starts_with(seen)) => Closing::Begun,
            _ => Closing::Not,
        }
    }
}

/// How far a closing mark is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    Not,
    Begun,
    Whole,
}
