//! JSON that somebody else wrote: how much memory it may take once it is parsed.
//!
//! A value of two bytes (`0,`) becomes one of 32, so that a limit on a file's length alone is none on memory.

use serde::de::{DeserializeOwned, Error};

/// The most values of a file: keys of objects count with what they hold. The largest manifests and indexes that are
/// published have a quarter million.
pub const MAX_VALUES: usize = 2 << 20;

/// The most values of a tokenizer. The largest that are published have two million.
pub const MAX_TOKENIZER_VALUES: usize = 6 << 20;

/// How many values a text holds, if it is JSON; nothing is allocated for it.
pub fn values(text: &[u8]) -> usize {
    let (mut count, mut opened) = (1usize, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        // A list or an object that is not empty has one value more than it has commas.
        count += usize::from(opened && !matches!(byte, b']' | b'}'));
        opened = matches!(byte, b'[' | b'{');
        match byte {
            b',' => count += 1,
            b'"' => {
                while let Some(inner) = bytes.next() {
                    match inner {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    count
}

/// Parses a text of at most [`MAX_VALUES`].
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    check(text, MAX_VALUES)?;
    serde_json::from_slice(text)
}

/// Refuses a text of more than `limit` values.
pub fn check(text: &[u8], limit: usize) -> serde_json::Result<()> {
    // No value is shorter than a byte.
    let count = if text.len() > limit { values(text) } else { 0 };
    if count > limit {
        return Err(serde_json::Error::custom(format!("{count} values, at most {limit} are read")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(list) => list.iter().map(count).sum(),
            Value::Object(map) => map.values().map(count).sum(),
            _ => 0,
        }
    }

    #[test]
    fn values_are_counted() {
        for text in [
            "0",
            " [ ] ",
            "{}",
            "[1,2,3]",
            r#"{"a,[": "x\\\",[", "b": [[], {}, [ [1] ], {"c": null}], "d\\": "\\"}"#,
            r#"[{"a": [0, 1, {"b": ""}]}, "[,{"]"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(values(text.as_bytes()), count(&value), "{text}");
        }
        for text in ["", "\"", "[,", "\"\\", "{\"a"] {
            values(text.as_bytes());
        }
    }

    #[test]
    fn too_many_are_refused_with_both_numbers() {
        let text = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let error = parse::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, format!("{} values, at most {MAX_VALUES} are read", MAX_VALUES + 2));
        assert!(parse::<Value>(&text.as_bytes()[..9]).is_err());
    }
}
