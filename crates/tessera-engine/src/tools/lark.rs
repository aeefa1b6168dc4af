//! Texts as Lark writes them.

use serde_json::Value;

/// A text as a literal in Lark.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as a regular expression in Lark.
pub(super) fn literal_regex(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_string()
            } else {
                format!("\\x{{{:X}}}", c as u32)
            }
        })
        .collect()
}
