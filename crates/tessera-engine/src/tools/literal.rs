//! Literals of Python, and JSON, which nearly is a part of them.

use serde_json::{Map, Number, Value};

/// Nesting that is followed.
const MAX_DEPTH: usize = 64;

/// The text of a literal that comes one character at a time, up to the comma or the bracket after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Literal {
    text: String,
    depth: usize,
    /// The quotation mark of the string that is open, and whether the next character is escaped.
    quoted: Option<(char, bool)>,
}

impl Literal {
    /// Takes a character; true if it stands after the literal.
    pub fn ends_before(&mut self, c: char) -> bool {
        match (self.quoted, c) {
            (Some((mark, true)), _) => self.quoted = Some((mark, false)),
            (Some((mark, false)), '\\') => self.quoted = Some((mark, true)),
            (Some((mark, false)), _) if c == mark => self.quoted = None,
            (Some(_), _) => {}
            (None, ',' | ')') if self.depth == 0 => return true,
            (None, '"' | '\'') => self.quoted = Some((c, false)),
            (None, '[' | '{' | '(') => self.depth += 1,
            (None, ']' | '}' | ')') => self.depth = self.depth.saturating_sub(1),
            (None, _) => {}
        }
        self.text.push(c);
        false
    }

    /// The value, if the text is a literal.
    pub fn json(&self) -> Option<Value> {
        let mut reader = Reader { rest: &self.text };
        let value = reader.value(0)?;
        reader.space();
        reader.rest.is_empty().then_some(value)
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.space();
        if depth > MAX_DEPTH {
            return None;
        }
        let first = self.rest.chars().next()?;
        match first {
            '"' | '\'' => self.string(first).map(Value::String),
            '[' => self.list(']', depth),
            '(' => self.list(')', depth),
            '{' => self.object(depth),
            '-' | '+' | '.' | '0'..='9' => self.number(),
            _ => {
                let len = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(len);
                self.rest = rest;
                match word {
                    "True" | "true" => Some(Value::Bool(true)),
                    "False" | "false" => Some(Value::Bool(false)),
                    "None" | "null" => Some(Value::Null),
                    _ => None,
                }
            }
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut out = Vec::new();
        let mut end_text = [0; 4];
        let end: &str = end.encode_utf8(&mut end_text);
        while !self.eat(end) {
            out.push(self.value(depth + 1)?);
            if !self.eat(",") {
                return self.eat(end).then_some(Value::Array(out));
            }
        }
        Some(Value::Array(out))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut out = Map::new();
        while !self.eat("}") {
            self.space();
            let mark = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let key = self.string(mark)?;
            if !self.eat(":") {
                return None;
            }
            let value = self.value(depth + 1)?;
            if out.insert(key, value).is_some() {
                return None;
            }
            if !self.eat(",") {
                return self.eat("}").then_some(Value::Object(out));
            }
        }
        Some(Value::Object(out))
    }

    fn number(&mut self) -> Option<Value> {
        let of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E' | '_');
        let len = self.rest.find(|c: char| !of_number(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(len);
        self.rest = rest;
        let number = number.replace('_', "");
        let number = number.strip_prefix('+').unwrap_or(&number);
        if let Ok(number) = serde_json::from_str::<Number>(number) {
            return Some(Value::Number(number));
        }
        number.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number)
    }

    fn string(&mut self, mark: char) -> Option<String> {
        let mut out = String::new();
        let mut chars = self.rest[mark.len_utf8()..].chars();
        loop {
            match chars.next()? {
                c if c == mark => break,
                '\\' => match chars.next()? {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    '0' => out.push('\0'),
                    '\n' => {}
                    'x' => out.push(code(&mut chars, 2)?),
                    'U' => out.push(code(&mut chars, 8)?),
                    'u' => out.push(wide(&mut chars)?),
                    c @ ('\\' | '\'' | '"' | '/') => out.push(c),
                    // As Python keeps what is no escape.
                    c => out.extend(['\\', c]),
                },
                c => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(out)
    }
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let text = chars.as_str().get(..digits)?;
    let code = text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())?;
    *chars = chars.as_str()[digits..].chars();
    code
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    char::from_u32(hex(chars, digits)?)
}

/// Four digits, or the two halves of a pair as JSON has them.
fn wide(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let high = hex(chars, 4)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    *chars = chars.as_str().strip_prefix("\\u")?.chars();
    let low = hex(chars, 4)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Option<Value> {
        let mut literal = Literal::default();
        let len = text.chars().take_while(|c| !literal.ends_before(*c)).map(char::len_utf8).sum::<usize>();
        assert_eq!(len, text.len(), "{text}");
        literal.json()
    }

    #[test]
    fn literals_are_read_as_python_does() {
        for (text, value) in [
            (r#""a, (b) \"c\" \u00e9\ud83d\ude42""#, json!("a, (b) \"c\" é🙂")),
            (r"'it\'s \x41\q \\'", json!(r"it's A\q \")),
            (" True ", json!(true)),
            ("None", json!(null)),
            ("-1_000", json!(-1000)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("+2e3", json!(2000.0)),
            ("[1, 'a', (2,), {}, [],]", json!([1, "a", [2], {}, []])),
            ("{'a': {\"b\": [None, false]}, }", json!({"a": {"b": [null, false]}})),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in [
            "",
            "x",
            "[1",
            "{'a'}",
            "{1: 2}",
            "1 2",
            "'a' 'b'",
            "{'a': 1, 'a': 2}",
            "1e999",
            r"'\u12'",
            "--1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))), None);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[\\[\\]{}'\"\\\\a1:,u. é🙂-]{0,20}") {
            let mut literal = Literal::default();
            for c in text.chars() {
                literal.ends_before(c);
            }
            literal.json();
        }

        #[test]
        fn a_string_comes_back(text in "\\PC{0,20}") {
            let json = Value::from(text.as_str());
            prop_assert_eq!(read(&json.to_string()), Some(json));
        }
    }
}
