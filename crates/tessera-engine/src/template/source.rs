//! What is done to a template's text before it is compiled.

/// The text with Python's line ends, and with the blocks of transformers as blocks of Jinja.
///
/// transformers marks what the model said by `{% generation %}` blocks. They leave no text but have
/// names of their own, so they become `{% with %}` blocks. What is inside of a comment, a raw block or
/// a string is left alone.
pub(super) fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find(['{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let length = match from.as_bytes().get(1) {
            Some(b'#') => from.find("#}").map_or(from.len(), |end| end + 2),
            Some(b'{') => code_end(from, "}}"),
            Some(b'%') => {
                let end = code_end(from, "%}");
                let tag = Tag::of(&from[..end]);
                match tag.word {
                    "generation" => out.push_str(&tag.with("with")),
                    "endgeneration" => out.push_str(&tag.with("endwith")),
                    "raw" => {
                        let end = raw_end(from, end);
                        out.push_str(&from[..end]);
                        rest = &from[end..];
                        continue;
                    }
                    _ => out.push_str(&from[..end]),
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
    out
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
