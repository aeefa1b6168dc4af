//! Filters, tests and globals of Jinja that minijinja has not, or has with other arguments or results.

use super::arguments::{Arguments, fail, items, pay, text};
use super::python::strip;
use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Given = Rest<ValueOrKwargs>;

/// Puts them into an environment.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", super::json::tojson);
    environment.add_filter("trim", trim);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("center", center);
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_filter("forceescape", |state: &State, value: Value| {
        Ok::<_, Error>(Value::from_safe_string(escaped(&text(state, &value)?)))
    });
    environment.add_filter("filesizeformat", file_size);
    environment.add_filter("truncate", truncate);
    environment.add_filter("striptags", |state: &State, value: Value| {
        Ok::<_, Error>(minijinja_contrib::filters::striptags(text(state, &value)?))
    });
    environment.add_filter("wordcount", word_count);
    environment.add_filter("urlencode", url_encode);
    // minijinja's has a line for each item, Python's a width.
    environment.remove_filter("pprint");
    environment.add_test("callable", |state: &State, value: Value| callable(state, &value));
    environment.add_test("sequence", |value: Value| value.is_undefined() || value.len().is_some());
    // minijinja goes through none as through an empty list.
    environment.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("joiner", joiner);
    environment.add_function("cycler", cycler);
    environment.add_function("namespace", namespace);
}

fn trim(state: &State, value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["chars"])?;
    let text = text(state, &value)?;
    let text = strip(&text, a.text(0)?, true, true);
    Ok(if value.is_safe() { Value::from_safe_string(text.to_owned()) } else { Value::from(text) })
}

fn default(value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["default_value", "boolean"])?;
    let takes = value.is_undefined() || (a.truth(1) && !value.is_true());
    Ok(if takes { a.required(0).cloned().unwrap_or_else(|_| Value::from("")) } else { value })
}

/// `int(default=0, base=10)`: the default where it is no number.
fn int(value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["default", "base"])?;
    let otherwise = a.required(0).cloned().unwrap_or_else(|_| Value::from(0));
    let Some(text) = value.as_str() else {
        let whole = |f: f64| Value::from(f.trunc() as i128);
        return Ok(match value.kind() {
            ValueKind::Bool => Value::from(i64::from(value.is_true())),
            ValueKind::Number if value.is_integer() => value,
            ValueKind::Number => f64::try_from(value).ok().filter(|f| f.is_finite()).map_or(otherwise, whole),
            _ => otherwise,
        });
    };
    let base = a.integer(1)?.unwrap_or(10);
    let text = strip(text, None, true, true).replace('_', "");
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text.as_str()),
    };
    let digits = match base {
        16 => digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits),
        8 => digits.strip_prefix("0o").or_else(|| digits.strip_prefix("0O")).unwrap_or(digits),
        2 => digits.strip_prefix("0b").or_else(|| digits.strip_prefix("0B")).unwrap_or(digits),
        10 => digits,
        other => return Err(fail(format!("int: a base of {other}; 2, 8, 10 and 16 are known"))),
    };
    if let Ok(n) = i128::from_str_radix(digits, base as u32) {
        return Ok(Value::from(if negative { -n } else { n }));
    }
    match text.parse::<f64>() {
        Ok(f) if f.is_finite() => Ok(Value::from(f.trunc() as i128)),
        _ => Ok(otherwise),
    }
}

fn float(value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["default"])?;
    let found = match value.as_str() {
        Some(text) => strip(text, None, true, true).parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value).ok(),
    };
    Ok(found.map(Value::from).unwrap_or_else(|| a.get(0).cloned().unwrap_or_else(|| Value::from(0.0))))
}

/// `indent(width=4, first=False, blank=False)`; the width may be a text.
fn indent(state: &State, value: Value, given: Given) -> Result<String, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["width", "first", "blank"])?;
    let text = text(state, &value)?;
    let by = match a.get(0).and_then(Value::as_str) {
        Some(by) => by.to_owned(),
        None => {
            let width = usize::try_from(a.integer(0)?.unwrap_or(4)).unwrap_or(0);
            pay(state, width)?;
            " ".repeat(width)
        }
    };
    pay(state, text.matches('\n').count().saturating_add(1).saturating_mul(by.len()))?;
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let blank = i > 0 && !a.truth(2) && line.is_empty();
        if !blank && (i > 0 || a.truth(1)) {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn sort(state: &State, value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["reverse", "case_sensitive", "attribute"])?;
    if a.get(2).is_none() {
        let sorts = |v: &Value| match v.kind() {
            ValueKind::Bool => ValueKind::Number,
            kind => kind,
        };
        let kinds: Vec<ValueKind> = items(state, &value)?.iter().map(sorts).collect();
        if let Some(pair) = kinds.windows(2).find(|pair| pair[0] != pair[1]) {
            return Err(fail(format!("sort: {} and {} have no order", pair[0], pair[1])));
        }
    }
    let mut named = vec![("reverse", a.truth(0).into()), ("case_sensitive", a.truth(1).into())];
    named.extend(a.get(2).map(|attribute| ("attribute", attribute.clone())));
    filters::sort(state, value, named.into_iter().collect::<Kwargs>())
}

fn dictsort(state: &State, value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["case_sensitive", "by", "reverse"])?;
    state.consume_fuel(value.len().unwrap_or(0) as u64 * 16)?;
    let by = a.get(1).cloned().unwrap_or_else(|| Value::from("key"));
    let named = [("case_sensitive", a.truth(0).into()), ("by", by), ("reverse", a.truth(2).into())];
    filters::dictsort(&value, named.into_iter().collect::<Kwargs>())
}

fn center(state: &mut State, value: Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["width"])?;
    let width = Value::from(a.integer(0)?.unwrap_or(80));
    let text = text(state, &value)?;
    super::python::method(state, &Value::from(text), "center", &[width])
}

fn escape(state: &State, value: Value) -> Result<Value, Error> {
    let text = text(state, &value)?;
    pay(state, text.len())?;
    Ok(if value.is_safe() { value } else { Value::from_safe_string(escaped(&text)) })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn file_size(value: Value, given: Given) -> Result<String, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["binary"])?;
    let bytes = match value.as_str() {
        Some(text) => text.trim().parse().map_err(|_| fail("filesizeformat: not a number"))?,
        None => f64::try_from(value)?,
    };
    let (base, middle) = if a.truth(0) { (1024.0, "i") } else { (1000.0, "") };
    if bytes == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc()));
    }
    let mut unit = base;
    let letters = if a.truth(0) { "KMGTPEZY" } else { "kMGTPEZY" };
    for (i, letter) in letters.char_indices() {
        unit *= base;
        if bytes < unit || i == letters.len() - 1 {
            return Ok(format!("{:.1} {letter}{middle}B", base * bytes / unit));
        }
    }
    Err(fail("filesizeformat: not a number"))
}

fn truncate(state: &State, value: Value, given: Given) -> Result<String, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["length", "killwords", "end", "leeway"])?;
    let size = |at: usize, default: usize| -> Result<usize, Error> {
        a.integer(at)?.map_or(Ok(default), |n| usize::try_from(n).map_err(|_| fail("truncate: below zero")))
    };
    let (length, leeway, end) = (size(0, 255)?, size(3, 5)?, a.text(2)?.unwrap_or("..."));
    let text = text(state, &value)?;
    let room = length.checked_sub(end.chars().count());
    let room = room.ok_or_else(|| fail(format!("truncate: a length of {length} is less than its end")))?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(room).collect();
    let cut =
        if a.truth(1) { cut.as_str() } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(kept, _)| kept) };
    Ok(format!("{cut}{end}"))
}

fn word_count(state: &State, value: Value) -> Result<usize, Error> {
    let text = text(state, &value)?;
    pay(state, text.len().saturating_mul(4))?;
    Ok(text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count())
}

fn url_encode(state: &State, value: Value) -> Result<String, Error> {
    let pairs: Vec<(Value, Value)> = match value.kind() {
        ValueKind::Map => items(state, &value)?
            .into_iter()
            .map(|k| Ok((k.clone(), value.get_item(&k)?)))
            .collect::<Result<_, Error>>()?,
        ValueKind::Seq | ValueKind::Iterable => {
            let pair = |v: Value| Ok((v.get_item_by_index(0)?, v.get_item_by_index(1)?));
            items(state, &value)?.into_iter().map(pair).collect::<Result<_, Error>>()?
        }
        _ => {
            let text = text(state, &value)?;
            pay(state, text.len() * 3)?;
            return Ok(percent(&text, false));
        }
    };
    let mut out = Vec::new();
    for (key, value) in pairs {
        let (key, value) = (text(state, &key)?, text(state, &value)?);
        pay(state, (key.len() + value.len()) * 3)?;
        out.push(format!("{}={}", percent(&key, true), percent(&value, true)));
    }
    Ok(out.join("&"))
}

fn percent(text: &str, query: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn callable(state: &State, value: &Value) -> bool {
    let is_global = |(_, global): (&str, Value)| &global == value;
    value.is_undefined()
        || (value.kind() == ValueKind::Plain && value.as_object().is_some())
            && (state.env().globals().any(is_global)
                || value.get_attr("arguments").is_ok_and(|a| !a.is_undefined()))
}

/// `namespace(mapping, name=value)`, without names that begin with an underscore.
fn namespace(state: &State, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let mut all: Vec<(String, Value)> = Vec::new();
    for argument in &given {
        for key in items(state, argument)? {
            let name = key.as_str().ok_or_else(|| fail("namespace: expected names"))?;
            if name.starts_with('_') {
                return Err(fail(format!("namespace: {name:?} begins with an underscore")));
            }
            all.push((name.to_owned(), super::guard::kept(state, argument.get_item(&key)?)?));
        }
    }
    let named = Value::from(all.into_iter().collect::<Kwargs>());
    minijinja::functions::namespace(Some(ValueOrKwargs::from(named)))
}

#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicUsize,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, given: &[Value]) -> Result<Value, Error> {
        Arguments::bind(given, [])?;
        let first = self.used.swap(1, Ordering::Relaxed) == 0;
        Ok(if first { Value::from("") } else { self.separator.clone() })
    }
}

fn joiner(state: &State, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let a = Arguments::bind(&given, ["sep"])?;
    let separator = a.get(0).cloned().unwrap_or_else(|| Value::from(", "));
    let separator = super::guard::kept(state, separator)?;
    Ok(Value::from_object(Joiner { separator, used: AtomicUsize::new(0) }))
}

#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.at.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        given: &[Value],
    ) -> Result<Value, Error> {
        Arguments::bind(given, [])?;
        match name {
            "next" => {
                let item = self.current();
                self.at.fetch_add(1, Ordering::Relaxed);
                Ok(item)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn cycler(state: &State, items: Rest<Value>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(fail("cycler: at least one item is needed"));
    }
    let items = items.0.into_iter().map(|item| super::guard::kept(state, item)).collect::<Result<_, _>>()?;
    Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) }))
}
