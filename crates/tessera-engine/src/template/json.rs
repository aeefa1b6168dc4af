//! The `tojson` of transformers: Python's `json.dumps`, without the escapes for HTML of Jinja's own.

use super::arguments::{Arguments, fail, items, pay};
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Error, State};
use serde_json::Value as Json;
use tessera_weights::chat_config::python_json::{Style, float, to_string};

/// Depth of a value, as Python's limit on recursion has one.
const MAX_DEPTH: usize = 200;
/// Longest indent of one level.
const MAX_INDENT: usize = 64;

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(state: &State, value: Value, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let arguments = arguments.into_values();
    let a = Arguments::bind(&arguments, ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match a.get(1) {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(_) => Some(" ".repeat(a.integer(1)?.unwrap_or(0).clamp(0, MAX_INDENT as i64 + 1) as usize)),
    };
    if indent.as_ref().is_some_and(|i| i.len() > MAX_INDENT) {
        return Err(fail(format!("tojson: an indent of more than {MAX_INDENT}")));
    }
    let (comma, colon) = match a.get(2) {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let parts: Vec<Value> = pair.try_iter()?.take(3).collect();
            match &parts[..] {
                [comma, colon] if comma.as_str().is_some() && colon.as_str().is_some() => {
                    (comma.to_string(), colon.to_string())
                }
                _ => return Err(fail("tojson: separators: expected two strings")),
            }
        }
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        paid: 0,
        style: Style { indent: None, ascii: a.truth(0) },
        indent,
        comma,
        colon,
        sort: a.truth(3),
    };
    writer.value(&value, 0)?;
    Ok(writer.out)
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    /// Bytes of `out` that have been paid for.
    paid: usize,
    style: Style,
    indent: Option<String>,
    comma: String,
    colon: String,
    sort: bool,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(fail(format!("tojson: a value of more than {MAX_DEPTH} levels")));
        }
        if self.out.len() > self.paid + 4096 {
            pay(self.state, self.out.len() - self.paid)?;
            self.paid = self.out.len();
        }
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            // A sum of lists is an iterable here.
            ValueKind::Seq | ValueKind::Iterable => {
                let items = items(self.state, value)?;
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.separate(i, depth);
                    self.value(item, depth + 1)?;
                }
                self.close(items.is_empty(), ']', depth);
            }
            ValueKind::Map => {
                let mut keys = items(self.state, value)?;
                if self.sort {
                    if keys.windows(2).any(|pair| pair[0].kind() != pair[1].kind()) {
                        return Err(fail("tojson: keys of different types have no order"));
                    }
                    keys.sort();
                }
                self.out.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.separate(i, depth);
                    let text = match key.as_str() {
                        Some(text) => text.to_owned(),
                        None => scalar(key)?,
                    };
                    self.string(&text);
                    self.out.push_str(&self.colon);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.close(keys.is_empty(), '}', depth);
            }
            _ => self.out.push_str(&scalar(value)?),
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push_str(&to_string(&Json::from(text), self.style));
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.comma);
        }
        self.newline(depth + 1);
    }

    fn close(&mut self, empty: bool, bracket: char, depth: usize) {
        if !empty {
            self.newline(depth);
        }
        self.out.push(bracket);
    }

    fn newline(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }
}

fn scalar(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(value.is_true().to_string()),
        ValueKind::Number if value.is_integer() => Ok(value.to_string()),
        ValueKind::Number => Ok(float(f64::try_from(value.clone())?)),
        other => Err(fail(format!("tojson: a value of the type {other} is not JSON"))),
    }
}
