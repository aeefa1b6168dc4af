//! JSON that comes one character at a time: a strict reader, and on top of it a reader of one tool call.

/// Nesting that is followed.
const MAX_DEPTH: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value; inside of a list just begun also its end.
    Value {
        or_end: bool,
    },
    /// A key; inside of an object just begun also its end.
    Key {
        or_end: bool,
    },
    Colon,
    /// A comma or the end of what is open.
    After,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Number(Number),
    /// What is missing of `true`, `false` or `null`.
    Word(&'static str),
    Done,
}

/// The character does not continue the text as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// Reads one object, and nothing after it.
#[derive(Clone, Debug)]
struct Scanner {
    /// Whether each open bracket is that of an object.
    open: Vec<bool>,
    state: State,
}

impl Scanner {
    fn new() -> Scanner {
        Scanner { open: Vec::new(), state: State::Value { or_end: false } }
    }

    fn push(&mut self, c: char) -> Result<(), NotJson> {
        let is_space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.state {
            State::Value { or_end } => match c {
                _ if is_space => {}
                ']' if or_end => self.close(false)?,
                '{' | '[' if self.open.len() >= MAX_DEPTH => return Err(NotJson),
                '{' => {
                    self.open.push(true);
                    self.state = State::Key { or_end: true };
                }
                // Other values do not say where they end, or are no call.
                _ if self.open.is_empty() => return Err(NotJson),
                '[' => {
                    self.open.push(false);
                    self.state = State::Value { or_end: true };
                }
                '"' => self.state = State::Text { key: false },
                '-' => self.state = State::Number(Number::Minus),
                '0' => self.state = State::Number(Number::Zero),
                '1'..='9' => self.state = State::Number(Number::Integer),
                't' => self.state = State::Word("rue"),
                'f' => self.state = State::Word("alse"),
                'n' => self.state = State::Word("ull"),
                _ => return Err(NotJson),
            },
            State::Key { or_end } => match c {
                _ if is_space => {}
                '"' => self.state = State::Text { key: true },
                '}' if or_end => self.close(true)?,
                _ => return Err(NotJson),
            },
            State::Colon => match c {
                _ if is_space => {}
                ':' => self.state = State::Value { or_end: false },
                _ => return Err(NotJson),
            },
            State::After => match (c, self.open.last()) {
                _ if is_space => {}
                (',', Some(true)) => self.state = State::Key { or_end: false },
                (',', Some(false)) => self.state = State::Value { or_end: false },
                ('}', _) => self.close(true)?,
                (']', _) => self.close(false)?,
                _ => return Err(NotJson),
            },
            State::Text { key } => match c {
                '"' => self.state = if key { State::Colon } else { State::After },
                '\\' => self.state = State::Escape { key },
                '\0'..='\x1f' => return Err(NotJson),
                _ => {}
            },
            State::Escape { key } => match c {
                'u' => self.state = State::Hex { key, left: 4 },
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => self.state = State::Text { key },
                _ => return Err(NotJson),
            },
            State::Hex { key, left } if c.is_ascii_hexdigit() => {
                self.state = if left > 1 { State::Hex { key, left: left - 1 } } else { State::Text { key } };
            }
            State::Hex { .. } | State::Done => return Err(NotJson),
            State::Word(rest) => {
                let rest = rest.strip_prefix(c).ok_or(NotJson)?;
                self.state = if rest.is_empty() { State::After } else { State::Word(rest) };
            }
            State::Number(number) => match after_digit(number, c)? {
                Some(number) => self.state = State::Number(number),
                None => {
                    self.state = State::After;
                    return self.push(c);
                }
            },
        }
        Ok(())
    }

    fn close(&mut self, object: bool) -> Result<(), NotJson> {
        if self.open.pop() != Some(object) {
            return Err(NotJson);
        }
        self.state = if self.open.is_empty() { State::Done } else { State::After };
        Ok(())
    }
}

/// Where a number is after one more character; `None` when it is over.
fn after_digit(number: Number, c: char) -> Result<Option<Number>, NotJson> {
    Ok(Some(match (number, c) {
        (Number::Minus, '0') => Number::Zero,
        (Number::Minus, '1'..='9') | (Number::Integer, '0'..='9') => Number::Integer,
        (Number::Zero | Number::Integer, '.') => Number::Point,
        (Number::Point | Number::Fraction, '0'..='9') => Number::Fraction,
        (Number::Zero | Number::Integer | Number::Fraction, 'e' | 'E') => Number::E,
        (Number::E, '+' | '-') => Number::ESign,
        (Number::E | Number::ESign | Number::Exponent, '0'..='9') => Number::Exponent,
        (Number::Zero | Number::Integer | Number::Fraction | Number::Exponent, _) => return Ok(None),
        _ => return Err(NotJson),
    }))
}

/// Where the reader of a call is, seen from the members of the call's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Between,
    Key,
    Name,
    Arguments,
    /// `id` and `type`, which models repeat from the prompt.
    Other,
}

/// What a character of a call has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// The name is complete.
    Name,
    /// One character of the arguments.
    Argument,
    /// The last one of them.
    LastArgument,
    /// The object is complete.
    End,
}

/// Reads `{"name": ..., "arguments": {...}}`, the members in any order; `parameters` is the same as
/// `arguments`.
#[derive(Clone, Debug)]
pub(super) struct CallReader {
    scanner: Scanner,
    slot: Slot,
    key: String,
    text: String,
    name: Option<String>,
    arguments: Option<String>,
}

impl CallReader {
    pub fn new() -> CallReader {
        CallReader {
            scanner: Scanner::new(),
            slot: Slot::Between,
            key: String::new(),
            text: String::new(),
            name: None,
            arguments: None,
        }
    }

    /// For a call whose name came before its arguments, without JSON around both.
    pub fn named(name: &str) -> CallReader {
        let mut reader = CallReader::new();
        reader.scanner.open.push(true);
        reader.scanner.state = State::Value { or_end: false };
        reader.name = Some(name.to_owned());
        reader.key = "arguments".to_owned();
        reader
    }

    /// The name, once it is complete.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The text of the arguments' object as far as it is there, as the model writes it.
    pub fn arguments(&self) -> Option<&str> {
        self.arguments.as_deref()
    }

    pub fn push(&mut self, c: char) -> Result<Found, NotJson> {
        let before = (self.scanner.open.len(), self.scanner.state);
        self.scanner.push(c)?;
        let state = self.scanner.state;
        let nothing = Ok(Found::Nothing);
        match self.slot {
            Slot::Between => self.begin(before, c),
            Slot::Key if state == State::Colon => {
                self.key = text_of(&self.text).ok_or(NotJson)?;
                self.slot = Slot::Between;
                match self.key.as_str() {
                    "name" | "arguments" | "parameters" | "id" | "type" => nothing,
                    _ => Err(NotJson),
                }
            }
            Slot::Name if state == State::After => {
                self.name = Some(text_of(&self.text).ok_or(NotJson)?);
                self.slot = Slot::Between;
                Ok(Found::Name)
            }
            Slot::Key | Slot::Name => {
                self.text.push(c);
                nothing
            }
            Slot::Arguments => {
                self.arguments.get_or_insert_default().push(c);
                if self.scanner.open.len() > 1 {
                    return Ok(Found::Argument);
                }
                self.slot = Slot::Between;
                Ok(Found::LastArgument)
            }
            Slot::Other if state == State::Done => Ok(Found::End),
            Slot::Other => {
                if self.scanner.open.len() == 1 && matches!(state, State::After | State::Key { .. }) {
                    self.slot = Slot::Between;
                }
                nothing
            }
        }
    }

    fn begin(&mut self, before: (usize, State), c: char) -> Result<Found, NotJson> {
        match before {
            _ if self.scanner.state == State::Done => return Ok(Found::End),
            (1, State::Key { .. }) if c == '"' => {
                self.text.clear();
                self.slot = Slot::Key;
            }
            (1, State::Value { .. }) if !c.is_ascii_whitespace() => match (self.key.as_str(), c) {
                ("name", '"') if self.name.is_none() => {
                    self.text.clear();
                    self.slot = Slot::Name;
                }
                ("arguments" | "parameters", '{') if self.arguments.is_none() => {
                    self.arguments = Some("{".to_owned());
                    self.slot = Slot::Arguments;
                    return Ok(Found::Argument);
                }
                ("id" | "type", _) => self.slot = Slot::Other,
                // Twice, or not of the right kind.
                _ => return Err(NotJson),
            },
            _ => {}
        }
        Ok(Found::Nothing)
    }
}

/// The text of a JSON string without its quotation marks.
fn text_of(inner: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{inner}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_object(text: &str) -> bool {
        let mut scanner = Scanner::new();
        text.chars().all(|c| scanner.push(c).is_ok()) && scanner.state == State::Done
    }

    #[test]
    fn a_call_is_read_in_any_order() {
        let arguments = r#"{"a": "}\"", "name": "x"}"#;
        let text = format!(
            r#" {{"id": [1, {{"name": 2}}], "arguments": {arguments}, "type": -1.5e3 , "n\u0061me": "f" }}"#
        );
        let mut reader = CallReader::new();
        let found: Vec<Found> = text.chars().map(|c| reader.push(c).unwrap()).collect();
        assert_eq!(found.last(), Some(&Found::End));
        assert_eq!((reader.name(), reader.arguments()), (Some("f"), Some(arguments)));
        let n = found.iter().filter(|f| matches!(f, Found::Argument | Found::LastArgument)).count();
        assert_eq!(n, arguments.len());
    }

    #[test]
    fn other_objects_are_no_calls() {
        for text in [
            r#"{"city":"#,
            r#"{"name": 1"#,
            r#"{"name": "a", "name": "b""#,
            r#"{"arguments": "{}""#,
            r#"{"arguments": {}, "parameters": {"#,
            "[",
            "\"",
            r#"{"id": nul "#,
        ] {
            let mut reader = CallReader::new();
            assert!(text.chars().any(|c| reader.push(c).is_err()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_scanner_agrees_with_serde_json(
            text in r#"\{("[a\\"u0-9]{0,6}"|[\[\]{}:,0-9eE.+\- \\tfn]|true|null|"a":|"a": ?[0-9e.\-]{1,4},){0,12}\}"#
        ) {
            let valid = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            // Numbers out of range and broken surrogates are about values, not about the form.
            let about_values = valid.as_ref().err().is_some_and(|e| {
                let e = e.to_string();
                e.contains("out of range") || e.contains("surrogate") || e.contains("hex escape")
            });
            prop_assume!(!about_values);
            prop_assert_eq!(is_object(&text), valid.is_ok(), "{}", text);
        }
    }
}
