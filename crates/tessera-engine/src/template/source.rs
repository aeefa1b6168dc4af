//! What is done to a template's text before it is compiled.

use super::guard::{HELD, KEPT};

/// The text with Python's line ends, and with the blocks of transformers as blocks of Jinja.
///
/// transformers marks what the model said by `{% generation %}` blocks. They leave no text but have
/// names of their own, so they become `{% with %}` blocks. What is inside of a comment, a raw block or
/// a string is left alone.
///
/// Values that are set go through [`super::guard`], and each pass of a loop or a macro looks at the time.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut branches = Branches::default();
    while let Some(at) = rest.find(['{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let length = match from.as_bytes().get(1) {
            Some(b'#') => from.find("#}").map_or(from.len(), |end| end + 2),
            Some(b'{') => {
                let end = code_end(from, "}}");
                check_depth(&from[2..end])?;
                end
            }
            Some(b'%') => {
                let end = code_end(from, "%}");
                let tag = Tag::of(&from[..end]);
                check_depth(tag.word)?;
                branches.see(tag.first())?;
                match tag.first() {
                    "set" => out.push_str(&guarded(&tag).unwrap_or_else(|| from[..end].to_owned())),
                    "for" | "macro" => {
                        out.push_str(&from[..end]);
                        out.push_str(&Tag { left: "", ..tag }.with(&format!("do {TICK}()")));
                    }
                    _ => match tag.word {
                        "generation" => out.push_str(&tag.with("with")),
                        "endgeneration" => out.push_str(&tag.with("endwith")),
                        "raw" => {
                            let end = raw_end(from, end);
                            out.push_str(&from[..end]);
                            rest = &from[end..];
                            continue;
                        }
                        _ => out.push_str(&from[..end]),
                    },
                }
                rest = &from[end..];
                continue;
            }
            _ => 1,
        };
        out.push_str(&from[..length]);
        rest = &from[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The function that looks at the time.
pub(super) const TICK: &str = "__tick";

/// Levels of one expression. Each costs a place on the stack when it is compiled, and minijinja counts those in
/// brackets only. The longest chain of a known template has about forty.
const MAX_DEPTH: usize = 200;
/// Alternatives of the conditions that are open, which are levels too.
const MAX_BRANCHES: usize = 200;

/// The `if` and `elif` of the conditions that are open.
#[derive(Default)]
struct Branches {
    open: Vec<usize>,
    sum: usize,
}

impl Branches {
    fn see(&mut self, word: &str) -> Result<(), String> {
        match (word, self.open.last_mut()) {
            ("if", _) => self.open.push(1),
            ("elif", Some(last)) => *last += 1,
            ("endif", Some(_)) => {
                self.sum -= self.open.pop().unwrap_or(0);
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.sum += 1;
        if self.sum > MAX_BRANCHES {
            return Err(format!("conditions of more than {MAX_BRANCHES} alternatives"));
        }
        Ok(())
    }
}

/// Operators, and what stands between brackets, as an expression nests them: `a + b + c` has two levels.
#[derive(Clone, Copy, Default)]
struct Level {
    operators: usize,
    inner: usize,
    deepest: usize,
}

impl Level {
    fn next(&mut self) {
        *self = Level { deepest: self.depth(), ..Level::default() };
    }

    fn depth(self) -> usize {
        self.deepest.max(self.operators + self.inner)
    }
}

/// That code nests no deeper than [`MAX_DEPTH`].
fn check_depth(code: &str) -> Result<(), String> {
    let (mut level, mut around, mut word) = (Level::default(), Vec::new(), 0);
    each_mark(code, |at, byte| {
        if !byte.is_ascii_alphanumeric() && byte != b'_' {
            level.operators += usize::from(word < at && WORDS.contains(&&code[word..at]));
            word = at + 1;
        }
        match byte {
            b'(' | b'[' | b'{' => {
                level.operators += 1;
                around.push(std::mem::take(&mut level));
            }
            b')' | b']' | b'}' => {
                let inner = level.depth() + 1;
                level = around.pop().unwrap_or_default();
                level.inner = level.inner.max(inner);
            }
            b',' | b':' => level.next(),
            b'|' | b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'<' | b'>' | b'=' | b'!' => {
                level.operators += 1;
            }
            _ => {}
        }
    });
    let depth = around.iter().chain([&level]).map(|level| level.depth()).sum::<usize>();
    if depth > MAX_DEPTH {
        return Err(format!("an expression of more than {MAX_DEPTH} levels"));
    }
    Ok(())
}

/// Operators that are words.
const WORDS: [&str; 7] = ["and", "or", "not", "is", "in", "if", "else"];

/// Every byte of code that is outside of strings; a string is one quote.
fn each_mark(code: &str, mut see: impl FnMut(usize, u8)) {
    let bytes = code.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match quote {
            Some(_) if bytes[at] == b'\\' => at += 1,
            Some(q) if bytes[at] == q => quote = None,
            Some(_) => {}
            None => {
                if matches!(bytes[at], b'"' | b'\'') {
                    quote = Some(bytes[at]);
                }
                see(at, bytes[at]);
            }
        }
        at += 1;
    }
    // The last word ends too.
    see(bytes.len(), b' ');
}

/// `{% set name = value %}` with the value sent through a filter of [`super::guard`]; `None` where there is
/// nothing that could grow.
fn guarded(tag: &Tag<'_>) -> Option<String> {
    let (mut equals, mut depth, mut balanced) = (None, 0i64, true);
    each_mark(tag.word, |at, byte| match byte {
        b'(' | b'[' | b'{' => depth += 1,
        b')' | b']' | b'}' => {
            depth -= 1;
            balanced &= depth >= 0;
        }
        b'=' if depth == 0 && equals.is_none() => equals = Some(at),
        _ => {}
    });
    // What is not closed is no template, and is to be told in the template's own words.
    let at = equals.filter(|_| balanced && depth == 0)?;
    let (target, value) = (&tag.word[..at], &tag.word[at + 1..]);
    let names = target.strip_prefix("set")?;
    let dotted = names.contains('.');
    let plain = value.trim();
    let name = plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    let constant = matches!(plain, "true" | "false" | "none" | "True" | "False" | "None")
        || plain.starts_with(|c: char| c.is_ascii_digit());
    if plain.is_empty() || name && (!dotted || constant) {
        return None;
    }
    let filter = if dotted { KEPT } else { HELD };
    Some(tag.with(&format!("{target}= ({value}) | {filter}")))
}

/// A block's mark: what trims blanks on either side, and the words between.
struct Tag<'a> {
    left: &'a str,
    word: &'a str,
    right: &'a str,
}

impl<'a> Tag<'a> {
    fn of(text: &'a str) -> Tag<'a> {
        let inner = text.strip_prefix("{%").unwrap_or(text);
        let inner = inner.strip_suffix("%}").unwrap_or(inner);
        let trims = |c: char| c == '-' || c == '+';
        let (left, inner) = inner.split_at(usize::from(inner.starts_with(trims)));
        let (inner, right) = inner.split_at(inner.len() - usize::from(inner.ends_with(trims)));
        Tag { left, word: inner.trim(), right }
    }

    /// The block's name.
    fn first(&self) -> &'a str {
        self.word.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    }

    fn with(&self, word: &str) -> String {
        format!("{{%{} {word} {}%}}", self.left, self.right)
    }
}

/// Where code that begins with two marks ends, after `close`, which counts outside of strings only and,
/// for an expression, outside of its own braces.
fn code_end(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut quote, mut depth) = (2, None, 0usize);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(_) if byte == b'\\' => at += 1,
            Some(q) if byte == q => quote = None,
            Some(_) => {}
            None if depth == 0 && bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            None => match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        at += 1;
    }
    text.len()
}

/// Where a raw block ends, after its last mark.
fn raw_end(text: &str, mut from: usize) -> usize {
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        let Some(end) = text[start..].find("%}") else { break };
        if Tag::of(&text[start..start + end + 2]).word == "endraw" {
            return start + end + 2;
        }
        from = start + 2;
    }
    text.len()
}
