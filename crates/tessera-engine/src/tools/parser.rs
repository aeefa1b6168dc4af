//! Tool calls in a stream of text.
//!
//! The text is read one character at a time, so how it is cut makes no difference. Text that may be the
//! beginning of a call waits; a call whose name is known is handed on while it is written. What looks
//! like a call and is none comes out as the text that it is, with a flag.

use super::json::{CallReader, Found};
use super::{CallIds, ToolFormat};

/// What a stream of text contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text of the answer.
    Text {
        /// The text.
        text: String,
        /// Whether it looked like a tool call and is none: broken JSON, an unknown name, no end.
        malformed: bool,
    },
    /// A call begins.
    Start {
        /// Its index in the answer.
        index: usize,
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// Some of a call's arguments: pieces of one JSON object.
    Arguments {
        /// The call's index.
        index: usize,
        /// The next piece.
        text: String,
    },
    /// A call ends.
    End {
        /// The call's index.
        index: usize,
        /// Whether its arguments are whole. If not, what follows the break is malformed text.
        complete: bool,
    },
}

const HERMES: &str = "<tool_call>";
const HERMES_END: &str = "</tool_call>";
const LLAMA: &str = "<|python_tag|>";
const MISTRAL: &str = "[TOOL_CALLS]";
const MISTRAL_ARGUMENTS: &str = "[ARGS]";
const MISTRAL_ID: &str = "[CALL_ID]";
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
    /// `name[ARGS]` of newer Mistral models, up to the brace.
    Named,
    /// Inside of a call's JSON.
    Call(Box<CallReader>, Form),
    /// Between a call's end and its closing mark, or the next call.
    After(Form),
}

/// Finds the tool calls in an answer.
#[derive(Clone, Debug)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    ids: CallIds,
    mode: Mode,
    /// Text that may still turn out to be something else.
    held: String,
    /// Calls begun so far.
    calls: usize,
    /// Whether the call that is read was announced.
    started: bool,
}

impl ToolParser {
    /// For an answer. `names` are the tools that there are: a call of another one is malformed.
    pub fn new(format: ToolFormat, names: Vec<String>, ids: CallIds) -> ToolParser {
        let mode = if format.has_marks() { Mode::Text } else { Mode::Start };
        ToolParser { format, names, ids, mode, held: String::new(), calls: 0, started: false }
    }

    /// Calls begun so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes text and gives what has become certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        let mut out = Vec::new();
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// Ends the answer: what was still held back.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        // White space around calls is no text of the answer, and models often stop before the mark that
        // closes a call.
        let seen = held.trim();
        let known = seen.is_empty() || (self.format == ToolFormat::Hermes && HERMES_END.starts_with(seen));
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Call(..) if self.started => {
                self.started = false;
                out.push(ToolEvent::End { index: self.calls - 1, complete: false });
            }
            Mode::Text | Mode::Start if self.calls > 0 && seen.is_empty() => {}
            Mode::After(_) if known => {}
            Mode::Text | Mode::Start => text(&mut out, &held, false),
            Mode::Call(..) | Mode::Before(_) | Mode::Named | Mode::After(_) => text(&mut out, &held, true),
        }
        out
    }

    fn take(&mut self, c: char, out: &mut Vec<ToolEvent>) {
        if !self.started {
            self.held.push(c);
        }
        match &mut self.mode {
            Mode::Call(reader, _) => match reader.push(c) {
                Ok(found) => self.found(found, c, out),
                Err(_) => self.broken(c, out),
            },
            Mode::Text => self.search(out),
            Mode::Start => self.start_of_answer(out),
            Mode::Before(form) => {
                let (form, mistral) = (*form, self.format == ToolFormat::Mistral);
                match c {
                    ' ' | '\t' | '\n' | '\r' => {}
                    '[' if mistral && form == Form::Object => self.mode = Mode::Before(Form::InList),
                    '{' => self.call(CallReader::new(), form),
                    _ if mistral && form == Form::Object && !c.is_control() => self.mode = Mode::Named,
                    _ => self.give_up(out),
                }
            }
            Mode::Named => self.named(c, out),
            Mode::After(form) => {
                let form = *form;
                self.after(form, out);
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

    fn found(&mut self, found: Found, c: char, out: &mut Vec<ToolEvent>) {
        let Mode::Call(reader, form) = &self.mode else { return };
        let form = *form;
        match found {
            Found::Nothing => {}
            Found::Name if !self.names.iter().any(|n| Some(n.as_str()) == reader.name()) => {
                self.broken(c, out)
            }
            Found::Name | Found::Argument | Found::LastArgument if self.started => {
                self.argument(c.encode_utf8(&mut [0; 4]), out);
                if found == Found::LastArgument && form == Form::Bare {
                    self.end(form, out);
                }
            }
            Found::Name | Found::Argument | Found::LastArgument => {
                // Handed on from where both are known.
                if let (Some(name), Some(arguments)) = (reader.name(), reader.arguments()) {
                    let (name, arguments) = (name.to_owned(), arguments.to_owned());
                    self.start(name, out);
                    self.argument(&arguments, out);
                }
            }
            Found::End => {
                match reader.name() {
                    None => return self.broken(c, out),
                    Some(name) if !self.started => {
                        let name = name.to_owned();
                        self.start(name, out);
                        self.argument("{}", out);
                    }
                    Some(_) => {}
                }
                self.end(form, out);
            }
        }
    }

    fn start(&mut self, name: String, out: &mut Vec<ToolEvent>) {
        self.held.clear();
        self.started = true;
        out.push(ToolEvent::Start { index: self.calls, id: self.ids.next_id(), name });
        self.calls += 1;
    }

    fn argument(&mut self, piece: &str, out: &mut Vec<ToolEvent>) {
        match out.last_mut() {
            Some(ToolEvent::Arguments { text, .. }) => text.push_str(piece),
            _ => out.push(ToolEvent::Arguments { index: self.calls - 1, text: piece.to_owned() }),
        }
    }

    fn end(&mut self, form: Form, out: &mut Vec<ToolEvent>) {
        self.started = false;
        out.push(ToolEvent::End { index: self.calls - 1, complete: true });
        self.mode = Mode::After(form);
    }

    /// The call cannot go on with this character.
    fn broken(&mut self, c: char, out: &mut Vec<ToolEvent>) {
        if self.started {
            self.started = false;
            out.push(ToolEvent::End { index: self.calls - 1, complete: false });
            self.held = c.to_string();
        }
        self.give_up(out);
    }

    /// What is held is no call.
    fn give_up(&mut self, out: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        // An answer may be JSON of its own. With a mark, with a name, or after a call it was meant as one.
        let plain = self.calls == 0
            && held.trim_start().starts_with('{')
            && !matches!(&self.mode, Mode::Call(reader, _) if reader.name().is_some());
        self.mode = Mode::Text;
        text(out, &held, !plain);
    }

    /// Lets go of held text until its rest may be a mark; white space goes with what comes after it.
    fn search(&mut self, out: &mut Vec<ToolEvent>) {
        let mark = self.format.mark();
        while !self.held.is_empty() {
            let seen = self.held.trim_start();
            if !mark.is_empty() && mark.starts_with(seen) {
                if seen == mark {
                    self.mode = Mode::Before(Form::Object);
                }
                return;
            }
            let len = self.held.chars().next().map_or(0, char::len_utf8);
            let first: String = self.held.drain(..len).collect();
            text(out, &first, false);
        }
    }

    /// Newer Mistral models: the name, perhaps an id, then the arguments alone.
    fn named(&mut self, c: char, out: &mut Vec<ToolEvent>) {
        let rest = self.held.trim_start().strip_prefix(MISTRAL).unwrap_or_default().trim_start();
        let Some(before) = rest.strip_suffix('{') else {
            if c == '\n' || rest.len() > MAX_NAME {
                self.give_up(out);
            }
            return;
        };
        let before = before.trim_end();
        let before = before.strip_suffix(MISTRAL_ARGUMENTS).unwrap_or(before);
        let name = before.split(MISTRAL_ID).next().unwrap_or_default().trim().to_owned();
        if !self.names.contains(&name) {
            return self.give_up(out);
        }
        self.call(CallReader::named(&name), Form::Bare);
        self.start(name, out);
        self.argument("{", out);
    }

    /// What may stand after a call.
    fn after(&mut self, form: Form, out: &mut Vec<ToolEvent>) {
        let seen = self.held.trim_start();
        let further = seen.trim_start_matches([';', ',']).trim_start();
        if seen.is_empty() {
            return;
        }
        match (self.format, form) {
            (ToolFormat::Hermes, _) if seen == HERMES_END => self.next(Mode::Text),
            (ToolFormat::Hermes, _) if HERMES_END.starts_with(seen) => {}
            (ToolFormat::Mistral, Form::InList) if seen == "," => self.next(Mode::Before(Form::InList)),
            (ToolFormat::Mistral, Form::InList) if seen == "]" => self.next(Mode::Text),
            (ToolFormat::Mistral, Form::Object | Form::Bare) => {
                self.mode = Mode::Text;
                self.search(out);
            }
            (ToolFormat::Llama3 | ToolFormat::Generic, _) if further.is_empty() => {}
            (ToolFormat::Llama3 | ToolFormat::Generic, _) if further == "{" => {
                self.call(CallReader::new(), Form::Object);
            }
            (ToolFormat::Llama3, _) if further == LLAMA => self.mode = Mode::Before(Form::Object),
            (ToolFormat::Llama3, _) if LLAMA.starts_with(further) => {}
            _ => self.give_up(out),
        }
    }

    fn next(&mut self, mode: Mode) {
        self.held.clear();
        self.mode = mode;
    }
}

impl ToolFormat {
    /// What stands before a call; nothing for the generic format.
    pub(super) fn mark(self) -> &'static str {
        match self {
            ToolFormat::Hermes => HERMES,
            ToolFormat::Llama3 => LLAMA,
            ToolFormat::Mistral => MISTRAL,
            ToolFormat::Generic => "",
        }
    }

    /// What stands after a call.
    pub(super) fn end_mark(self) -> &'static str {
        if self == ToolFormat::Hermes { HERMES_END } else { "" }
    }

    /// Whether the mark has to be there, so that calls may follow text.
    fn has_marks(self) -> bool {
        matches!(self, ToolFormat::Hermes | ToolFormat::Mistral)
    }
}

fn text(out: &mut Vec<ToolEvent>, piece: &str, flag: bool) {
    if piece.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(ToolEvent::Text { text, malformed }) if *malformed == flag => text.push_str(piece),
        _ => out.push(ToolEvent::Text { text: piece.to_owned(), malformed: flag }),
    }
}
