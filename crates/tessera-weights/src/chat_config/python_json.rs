//! JSON as Python's `json.dumps` writes it. MLC's files and Hugging Face's chat templates both come
//! out of it, and both are compared byte for byte.

use serde_json::{Number, Value};

/// The arguments of `json.dumps` that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Spaces of one level; `None` writes one line.
    pub indent: Option<usize>,
    /// Whether everything beyond ASCII becomes `\uXXXX`.
    pub ascii: bool,
}

impl Style {
    /// `json.dump(value, file, indent=2)`: how `mlc-chat-config.json` is written.
    pub const CONFIG: Style = Style { indent: Some(2), ascii: true };
    /// `json.dumps(value, ensure_ascii=False)`: the `tojson` of chat templates.
    pub const TEMPLATE: Style = Style { indent: None, ascii: false };
}

/// The text of a value.
pub fn to_string(value: &Value, style: Style) -> String {
    let mut out = String::new();
    write_value(&mut out, value, style, 0);
    out
}

fn write_value(out: &mut String, value: &Value, style: Style, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(s) => write_string(out, s, style.ascii),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(out, i, style, depth);
                write_value(out, item, style, depth + 1);
            }
            close(out, items.is_empty(), ']', style, depth);
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                separate(out, i, style, depth);
                write_string(out, key, style.ascii);
                out.push_str(": ");
                write_value(out, item, style, depth + 1);
            }
            close(out, map.is_empty(), '}', style, depth);
        }
    }
}

fn separate(out: &mut String, index: usize, style: Style, depth: usize) {
    if index > 0 {
        out.push_str(if style.indent.is_some() { "," } else { ", " });
    }
    newline(out, style, depth + 1);
}

fn close(out: &mut String, empty: bool, bracket: char, style: Style, depth: usize) {
    if !empty {
        newline(out, style, depth);
    }
    out.push(bracket);
}

fn newline(out: &mut String, style: Style, depth: usize) {
    if let Some(indent) = style.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
}

/// A number as Python's `repr` writes it.
pub fn number(n: &Number) -> String {
    match (n.as_i64(), n.as_u64(), n.as_f64()) {
        (Some(i), _, _) => i.to_string(),
        (_, Some(u), _) => u.to_string(),
        (_, _, Some(f)) => float(f),
        _ => n.to_string(),
    }
}

/// A float as Python's `repr` writes it: the shortest digits that read back, in scientific notation
/// below 1e-4 and from 1e16 on, always with a point or an exponent of two digits.
pub fn float(f: f64) -> String {
    if f.is_nan() {
        return "NaN".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = f.abs();
    if f == 0.0 || (1e-4..1e16).contains(&magnitude) {
        let text = format!("{f}");
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = format!("{f:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(e) => ('-', e),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// A JSON string with everything outside printable ASCII escaped.
pub fn quoted(text: &str) -> String {
    let mut out = String::new();
    write_string(&mut out, text, true);
    out
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            // With `ensure_ascii` Python escapes DEL too; without it, it does not.
            c if (c as u32) < 0x20 || (ascii && (c as u32) > 0x7e) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_are_written_as_python_does() {
        // Left: what `python3 -c 'print(repr(x))'` prints.
        for text in [
            "0.0",
            "-0.0",
            "1.0",
            "0.7",
            "1e-05",
            "0.0001",
            "1.5e-07",
            "1e+16",
            "123456789012345.0",
            "1e+100",
            "9999999999999998.0",
            "-2.5e-10",
            "5e-324",
            "1.7976931348623157e+308",
        ] {
            assert_eq!(float(text.parse().unwrap()), text);
        }
    }

    #[test]
    fn styles_differ_in_spaces_and_escapes() {
        let value = json!({"a": [1, 2.5, "é🙂\u{7f}"], "b": {}, "c": [], "d": null, "e": true});
        assert_eq!(
            to_string(&value, Style::TEMPLATE),
            "{\"a\": [1, 2.5, \"é🙂\u{7f}\"], \"b\": {}, \"c\": [], \"d\": null, \"e\": true}"
        );
        assert_eq!(
            to_string(&json!({"a": ["é🙂"], "b": {}}), Style::CONFIG),
            "{\n  \"a\": [\n    \"\\u00e9\\ud83d\\ude42\"\n  ],\n  \"b\": {}\n}"
        );
    }
}
