//! Checks of regular expressions and Lark grammars that come from outside.

use super::pattern::MAX_PARTS;
use super::{GrammarError, JsonSpacing, MAX_LARK, MAX_REGEX, schema};
use serde_json::{Map, Value};
use std::fmt::Write;

/// Depth of brackets; llguidance reads them by recursion.
const MAX_DEPTH: usize = 100;

fn invalid(what: &'static str, message: impl Into<String>) -> GrammarError {
    GrammarError::Invalid { what, message: message.into() }
}

fn limit(what: &str, found: usize, limit: usize) -> Result<(), GrammarError> {
    if found <= limit {
        return Ok(());
    }
    Err(GrammarError::TooLarge { what: what.to_owned(), found, limit })
}

/// Checks what llguidance does not.
pub(super) fn check_regex(regex: &str) -> Result<(), GrammarError> {
    limit("length of the regex in bytes", regex.len(), MAX_REGEX)?;
    limit("depth of groups in the regex", depth(regex.bytes()), MAX_DEPTH)?;
    limit("the regex with its repetitions written out", parts(regex.as_bytes()), MAX_PARTS)?;
    if regex.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
        return Err(invalid("regex", "\\ at the end"));
    }
    // A group of this name is read as a look-ahead.
    if regex.contains("<stop>") {
        return Err(invalid("regex", "a group named \"stop\" is not taken"));
    }
    Ok(())
}

fn depth(bytes: impl Iterator<Item = u8>) -> usize {
    let mut now = 0usize;
    let mut most = 0;
    for byte in bytes {
        match byte {
            b'(' | b'[' | b'{' => now += 1,
            b')' | b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// How long a regex is with every `{n,m}` written out; about, since strings of grammars count as regexes.
fn parts(bytes: &[u8]) -> usize {
    // What comes before the last part of each open group, and the last part.
    let mut open = vec![(0usize, 0usize)];
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        i += 1;
        let mut part = 1;
        match byte {
            b'(' => {
                open.push((0, 0));
                continue;
            }
            b')' if open.len() > 1 => {
                let (before, last) = open.pop().unwrap_or_default();
                part = before.saturating_add(last);
            }
            b'[' => i += bytes[i..].iter().position(|b| *b == b']' || *b == b'\n').map_or(0, |n| n + 1),
            b'\\' => i += 1,
            b'{' => {
                let inside = &bytes[i..i + bytes[i..].iter().take(20).position(|b| *b == b'}').unwrap_or(0)];
                let numbers = inside
                    .split(|b| *b == b',')
                    .filter_map(|n| std::str::from_utf8(n).ok()?.trim().parse().ok());
                if let Some(most) = numbers.max().filter(|n: &usize| *n > 0) {
                    i += inside.len() + 1;
                    if let Some((_, last)) = open.last_mut() {
                        *last = last.saturating_mul(most);
                    }
                    continue;
                }
            }
            _ => {}
        }
        if let Some((before, last)) = open.last_mut() {
            *before = before.saturating_add(*last);
            *last = part;
        }
    }
    open.iter().fold(0, |sum, (before, last)| sum.saturating_add(*before).saturating_add(*last))
}

/// The grammar with its JSON schemas replaced by what is enforced exactly.
pub(super) fn checked(grammar: &str) -> Result<String, GrammarError> {
    limit("length of the grammar in bytes", grammar.len(), MAX_LARK)?;
    limit("depth of brackets in the grammar", depth(grammar.bytes()), MAX_DEPTH)?;
    limit("the grammar with its repetitions written out", parts(grammar.as_bytes()), MAX_PARTS)?;
    if grammar.trim().is_empty() {
        return Err(invalid("grammar", "empty"));
    }
    if grammar.contains("<stop>") {
        return Err(invalid("grammar", "a group named \"stop\" is not taken"));
    }
    let code = code_only(grammar);
    for (word, instead) in [("temperature", ""), ("stop", "; use suffix="), ("stop_capture", "")] {
        if has_attribute(&code, word) {
            return Err(invalid("grammar", format!("{word}= is not honoured{instead}")));
        }
    }
    if code.contains("%llguidance") && grammar.contains("allow_invalid_utf8") {
        return Err(invalid("grammar", "allow_invalid_utf8 is not honoured"));
    }
    let mut out = String::new();
    let mut rest = 0;
    let mut from = 0;
    while let Some(at) = code[from..].find("%json") {
        let start = from + at + "%json".len();
        let mut values = serde_json::Deserializer::from_str(&grammar[start..]).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => return Err(invalid("grammar", format!("after %json: {e}"))),
            None => return Err(invalid("grammar", "%json without a schema after it")),
        };
        let end = start + values.byte_offset();
        let mut normalizer = schema::Normalizer::new(schema::Mode::default());
        let root = normalizer.add(&value, "%json", false)?;
        out.push_str(&grammar[rest..start]);
        // Errors of llguidance name its own line of the grammar.
        let written = embedded(normalizer, schema::reference(root), JsonSpacing::Free)?;
        let _ = write!(out, " {} ", written.schema);
        rest = end;
        from = end;
    }
    out.push_str(&grammar[rest..]);
    Ok(out)
}

/// What follows `%json` in a grammar.
pub(super) fn embedded(
    normalizer: schema::Normalizer<'_>,
    root: Map<String, Value>,
    spacing: JsonSpacing,
) -> Result<schema::Written, GrammarError> {
    let mut whole = Map::new();
    whole.insert("x-guidance".to_owned(), spacing.options());
    whole.extend(root);
    normalizer.finish(whole)
}

/// Whether `word =` stands in the grammar's code.
fn has_attribute(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].trim_start();
        !before.is_some_and(is_name) && after.starts_with('=')
    })
}

/// The grammar with strings, regular expressions and comments blanked out; every byte keeps its place.
/// JSON schemas are not told from code, but have no attribute outside of strings.
fn code_only(grammar: &str) -> String {
    let mut out = grammar.as_bytes().to_vec();
    let mut i = 0;
    while i < out.len() {
        let end = match out[i] {
            b'"' => literal_end(&out, i, b'"'),
            b'/' if out.get(i + 1) == Some(&b'/') => line_end(&out, i),
            b'/' => literal_end(&out, i, b'/'),
            b'#' => line_end(&out, i),
            _ => {
                i += 1;
                continue;
            }
        };
        out[i..end].fill(b' ');
        i = end;
    }
    // Blanking whole literals leaves whole characters.
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| from + n)
}

/// Literals end at their mark or, being broken, at the end of the line.
fn literal_end(bytes: &[u8], from: usize, mark: u8) -> usize {
    let mut i = from + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'\n' => return i,
            b if b == mark => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_no_code() {
        let code =
            code_only("start: \"temperature=\" /stop=\\/x/ é // stop=\nx[temperature = 1]: \"a\\\"b\"");
        assert!(!code[..50].contains("stop"), "{code}");
        assert!(has_attribute(&code, "temperature"));
        assert!(!has_attribute(&code, "stop"));
        assert_eq!(code.len(), code_only(&code).len());
    }

    #[test]
    fn repetitions_multiply() {
        assert_eq!(parts(b"abc"), 3);
        assert_eq!(parts(br"a{3}[xyz]{2,5}\d\{9}"), 3 + 5 + 1 + 3);
        assert_eq!(parts(b"(ab{10}|c){100}d"), 12 * 100 + 1 + 100);
        assert!(check_regex(&(0..8).fold("a".to_owned(), |r, _| format!("({r}){{100}}"))).is_err());
        assert!(check_regex("(([a-z0-9]{1,63}[.]){1,8}[a-z]{2,63}){1,20}").is_ok());
    }

    #[test]
    fn schemas_inside_are_checked() {
        let text = checked("start: \"a\" %json {\"type\": \"string\", \"maxLength\": 3} \"b\"").unwrap();
        assert!(text.starts_with("start: \"a\" %json {\"x-guidance\"") && text.ends_with(" \"b\""), "{text}");
        let error = checked("start: %json {\"uniqueItems\": true}").unwrap_err();
        assert!(
            matches!(&error, GrammarError::Schema { keyword, .. } if keyword == "uniqueItems"),
            "{error}"
        );
        assert!(checked("start: %json").is_err());
        assert!(checked("start: x\nx[stop=\"a\"]: /b/").is_err());
    }
}
