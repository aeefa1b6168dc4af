//! From a JSON Schema `pattern` to a regular expression for the whole string.
//!
//! A pattern is an ECMA-262 expression that is searched for. Regex engines differ in what `.`, `\d` or
//! `\s` mean and in where `^` and `$` may stand, so the pattern is read here and written out again in
//! character classes that every engine reads alike. What has no such form (look-around, back references,
//! word boundaries, Unicode properties) is refused.

use std::fmt::Write;

/// Most parts of a regex or a grammar with its repetitions written out.
pub(super) const MAX_PARTS: usize = 1_000_000;

/// Longest pattern that is read.
pub(super) const MAX_PATTERN: usize = 16 << 10;
/// Depth of groups.
const MAX_DEPTH: usize = 50;
/// Largest count in `{n,m}`.
const MAX_REPEAT: u32 = 100_000;

type Ranges = Vec<(u32, u32)>;

const LAST: u32 = 0x10_ffff;
const DIGIT: [(u32, u32); 1] = [(0x30, 0x39)];
const WORD: [(u32, u32); 4] = [(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
/// ECMA-262 `WhiteSpace` and `LineTerminator`.
const SPACE: [(u32, u32); 10] = [
    (0x09, 0x0d),
    (0x20, 0x20),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x2028, 0x2029),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
    (0xfeff, 0xfeff),
];
const LINE_END: [(u32, u32); 3] = [(0x0a, 0x0a), (0x0d, 0x0d), (0x2028, 0x2029)];
/// Characters that strings are never given: they have no escape but `\u00XX`, which is not written
/// (see the options in `grammar.rs`). Surrogates are no characters.
const UNWRITABLE: [(u32, u32); 5] =
    [(0x00, 0x07), (0x0b, 0x0b), (0x0e, 0x1f), (0x7f, 0x7f), (0xd800, 0xdfff)];

/// Whether a string can be written without `\u00XX`.
pub(super) fn is_writable(text: &str) -> bool {
    !text.chars().any(|c| UNWRITABLE.iter().any(|(a, b)| (*a..=*b).contains(&(c as u32))))
}

enum Node {
    Class(Ranges),
    Concat(Vec<Node>),
    Alternatives(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
    Start,
    End,
}

/// The expression, anchored at both ends, that matches the strings in which `pattern` is found.
pub(super) fn whole(pattern: &str) -> Result<String, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("{} bytes, at most {MAX_PATTERN} are taken", pattern.len()));
    }
    let chars: Vec<char> = pattern.chars().collect();
    let mut parser = Parser { chars: &chars, at: 0, depth: 0 };
    let node = parser.alternatives()?;
    if parser.at < chars.len() {
        return Err(parser.wrong("a closing parenthesis without an opening one"));
    }
    let parts = parts(&node);
    if parts > MAX_PARTS {
        return Err(format!("{parts} parts with its repetitions written out, at most {MAX_PARTS} are taken"));
    }
    let mut out = String::from("^(?:");
    search(&node, false, false, &mut out)?;
    out.push_str(")$");
    Ok(out)
}

/// How many parts a pattern has with its repetitions written out.
fn parts(node: &Node) -> usize {
    match node {
        Node::Class(_) | Node::Start | Node::End => 1,
        Node::Concat(nodes) | Node::Alternatives(nodes) => {
            nodes.iter().fold(1, |sum, node| sum.saturating_add(parts(node)))
        }
        Node::Repeat(node, min, max) => parts(node).saturating_mul(max.unwrap_or(*min).max(1) as usize),
    }
}

/// Writes a node of which nothing but anchors says where it begins and ends.
fn search(node: &Node, mut start: bool, mut end: bool, out: &mut String) -> Result<(), String> {
    match node {
        Node::Alternatives(nodes) => {
            for (i, node) in nodes.iter().enumerate() {
                out.push_str(if i > 0 { "|" } else { "" });
                search(node, start, end, out)?;
            }
            Ok(())
        }
        Node::Concat(nodes) => {
            let mut nodes = nodes.as_slice();
            while let [Node::Start, rest @ ..] = nodes {
                (start, nodes) = (true, rest);
            }
            while let [rest @ .., Node::End] = nodes {
                (end, nodes) = (true, rest);
            }
            if let [inner @ (Node::Alternatives(_) | Node::Concat(_))] = nodes {
                out.push_str("(?:");
                search(inner, start, end, out)?;
                out.push(')');
                return Ok(());
            }
            out.push_str(if start { "" } else { "(?s:.*)" });
            for node in nodes {
                exact(node, out)?;
            }
            out.push_str(if end { "" } else { "(?s:.*)" });
            Ok(())
        }
        Node::Start | Node::End => {
            // Alone in the pattern: found in every string.
            out.push_str("(?s:.*)");
            Ok(())
        }
        Node::Class(_) | Node::Repeat(..) => {
            out.push_str(if start { "" } else { "(?s:.*)" });
            exact(node, out)?;
            out.push_str(if end { "" } else { "(?s:.*)" });
            Ok(())
        }
    }
}

/// Writes a node that has to match from its first character to its last.
fn exact(node: &Node, out: &mut String) -> Result<(), String> {
    match node {
        Node::Class(ranges) => {
            let ranges = minus(ranges, &UNWRITABLE);
            if ranges.is_empty() {
                return Err("a part that matches control characters only, which are not written".to_owned());
            }
            out.push('[');
            for (a, b) in ranges {
                // Writing to a string cannot fail.
                let _ = if a == b {
                    write!(out, "\\x{{{a:X}}}")
                } else {
                    write!(out, "\\x{{{a:X}}}-\\x{{{b:X}}}")
                };
            }
            out.push(']');
        }
        Node::Concat(nodes) => {
            for node in nodes {
                exact(node, out)?;
            }
        }
        Node::Alternatives(nodes) => {
            out.push_str("(?:");
            for (i, node) in nodes.iter().enumerate() {
                out.push_str(if i > 0 { "|" } else { "" });
                exact(node, out)?;
            }
            out.push(')');
        }
        Node::Repeat(node, min, max) => {
            out.push_str("(?:");
            exact(node, out)?;
            let _ = match max {
                Some(max) => write!(out, "){{{min},{max}}}"),
                None => write!(out, "){{{min},}}"),
            };
        }
        Node::Start => return Err("^ in the middle".to_owned()),
        Node::End => return Err("$ in the middle".to_owned()),
    }
    Ok(())
}

/// Sorted, joined ranges.
fn sorted(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut out: Ranges = Vec::with_capacity(ranges.len());
    for (a, b) in ranges {
        match out.last_mut() {
            Some(last) if a <= last.1.saturating_add(1) => last.1 = last.1.max(b),
            _ => out.push((a, b)),
        }
    }
    out
}

fn minus(ranges: &[(u32, u32)], without: &[(u32, u32)]) -> Ranges {
    let mut out = Vec::new();
    for (mut a, b) in sorted(ranges.to_vec()) {
        for (c, d) in without {
            if *d < a || *c > b {
                continue;
            }
            if *c > a {
                out.push((a, c - 1));
            }
            a = d + 1;
        }
        if a <= b {
            out.push((a, b));
        }
    }
    out
}

fn not(ranges: &[(u32, u32)]) -> Ranges {
    minus(&[(0, LAST)], &sorted(ranges.to_vec()))
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("{what} at character {}", self.at)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn eat_all(&mut self, text: &str) -> bool {
        let found = self.chars[self.at..].iter().take(text.len()).copied().eq(text.chars());
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn alternatives(&mut self) -> Result<Node, String> {
        let mut all = vec![self.concat()?];
        while self.eat('|') {
            all.push(self.concat()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::Alternatives(all) })
    }

    fn concat(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            let atom = self.atom()?;
            match (self.quantified(atom)?, nodes.is_empty()) {
                // A group that is not repeated is no more than its parts.
                (Node::Concat(inner), _) => nodes.extend(inner),
                (node, _) => nodes.push(node),
            }
        }
        Ok(Node::Concat(nodes))
    }

    fn quantified(&mut self, atom: Node) -> Result<Node, String> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                let min = self.count()?.ok_or_else(|| self.wrong("{ without a number after it"))?;
                let max = if self.eat(',') { self.count()? } else { Some(min) };
                if self.peek() != Some('}') {
                    return Err(self.wrong("{ without }"));
                }
                if max.is_some_and(|max| max < min) {
                    return Err(self.wrong("a repetition whose numbers are out of order"));
                }
                (min, max)
            }
            _ => return Ok(atom),
        };
        self.at += 1;
        // Lazy or not, the same strings match.
        self.eat('?');
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err(self.wrong("a repetition of a repetition"));
        }
        if has_anchor(&atom) {
            return Err(self.wrong("a repeated anchor"));
        }
        Ok(Node::Repeat(Box::new(atom), min, max))
    }

    fn count(&mut self) -> Result<Option<u32>, String> {
        let from = self.at;
        let mut value = 0u32;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            value = value.saturating_mul(10).saturating_add(digit);
            self.at += 1;
        }
        if value > MAX_REPEAT {
            return Err(self.wrong(&format!("a repetition of more than {MAX_REPEAT}")));
        }
        Ok((self.at > from).then_some(value))
    }

    fn atom(&mut self) -> Result<Node, String> {
        let Some(c) = self.peek() else { return Err(self.wrong("an unexpected end")) };
        self.at += 1;
        match c {
            '^' => Ok(Node::Start),
            '$' => Ok(Node::End),
            '.' => Ok(Node::Class(not(&LINE_END))),
            '[' => self.class(),
            '(' => self.group(),
            '\\' => self.escape(false).map(Node::Class),
            '*' | '+' | '?' | '{' => {
                self.at -= 1;
                Err(self.wrong("a repetition of nothing"))
            }
            c => Ok(Node::Class(vec![(c as u32, c as u32)])),
        }
    }

    fn group(&mut self) -> Result<Node, String> {
        if self.eat('?') {
            if self.eat_all("<=") || self.eat_all("<!") || self.eat('=') || self.eat('!') {
                return Err(self.wrong("look-around"));
            }
            if self.eat('<') {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                    self.at += 1;
                }
                if !self.eat('>') {
                    return Err(self.wrong("a group name without >"));
                }
            } else if !self.eat(':') {
                return Err(self.wrong("an unknown kind of group"));
            }
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(&format!("groups more than {MAX_DEPTH} deep")));
        }
        let node = self.alternatives()?;
        self.depth -= 1;
        if !self.eat(')') {
            return Err(self.wrong("a group without )"));
        }
        Ok(node)
    }

    fn class(&mut self) -> Result<Node, String> {
        let negated = self.eat('^');
        let mut ranges = Ranges::new();
        loop {
            if self.eat(']') {
                break;
            }
            let first = self.class_atom()?;
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|c| *c != ']');
            if !is_range {
                ranges.extend(first);
                continue;
            }
            self.at += 1;
            let last = self.class_atom()?;
            match (first.as_slice(), last.as_slice()) {
                ([(a, b)], [(c, d)]) if a == b && c == d && a <= d => ranges.push((*a, *d)),
                _ => return Err(self.wrong("a range that is none")),
            }
        }
        Ok(Node::Class(if negated { not(&ranges) } else { sorted(ranges) }))
    }

    fn class_atom(&mut self) -> Result<Ranges, String> {
        let Some(c) = self.peek() else { return Err(self.wrong("a class without ]")) };
        self.at += 1;
        match c {
            '\\' => self.escape(true),
            c => Ok(vec![(c as u32, c as u32)]),
        }
    }

    fn escape(&mut self, in_class: bool) -> Result<Ranges, String> {
        let Some(c) = self.peek() else { return Err(self.wrong("\\ at the end")) };
        self.at += 1;
        let code = match c {
            'd' => return Ok(DIGIT.to_vec()),
            'D' => return Ok(not(&DIGIT)),
            'w' => return Ok(WORD.to_vec()),
            'W' => return Ok(not(&WORD)),
            's' => return Ok(SPACE.to_vec()),
            'S' => return Ok(not(&SPACE)),
            't' => 0x09,
            'n' => 0x0a,
            'v' => 0x0b,
            'f' => 0x0c,
            'r' => 0x0d,
            'b' if in_class => 0x08,
            '0' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => 0,
            'c' => {
                let letter = self.peek().filter(char::is_ascii_alphabetic);
                let letter = letter.ok_or_else(|| self.wrong("\\c without a letter"))?;
                self.at += 1;
                letter as u32 % 32
            }
            'x' => self.hex(2)?,
            'u' => self.unicode()?,
            'b' | 'B' => return Err(self.wrong("a word boundary")),
            'p' | 'P' => return Err(self.wrong("a Unicode property")),
            '1'..='9' | 'k' => return Err(self.wrong("a back reference")),
            c if c.is_ascii_punctuation() && c != '_' => c as u32,
            c => return Err(self.wrong(&format!("the unknown escape \\{c}"))),
        };
        Ok(vec![(code, code)])
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..digits {
            let digit =
                self.peek().and_then(|c| c.to_digit(16)).ok_or_else(|| self.wrong("a missing hex digit"))?;
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    fn unicode(&mut self) -> Result<u32, String> {
        let code = if self.eat('{') {
            let mut value = 0u32;
            while let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) {
                value = value.saturating_mul(16).saturating_add(digit);
                self.at += 1;
            }
            if !self.eat('}') {
                return Err(self.wrong("\\u{ without }"));
            }
            value
        } else {
            let high = self.hex(4)?;
            if (0xd800..0xdc00).contains(&high) && self.eat_all("\\u") {
                let low = self.hex(4)?;
                match low {
                    0xdc00..0xe000 => 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00),
                    _ => high,
                }
            } else {
                high
            }
        };
        match char::from_u32(code) {
            Some(_) => Ok(code),
            None => Err(self.wrong(&format!("U+{code:X}, which is no character"))),
        }
    }
}

fn has_anchor(node: &Node) -> bool {
    match node {
        Node::Start | Node::End => true,
        Node::Class(_) => false,
        Node::Concat(nodes) | Node::Alternatives(nodes) => nodes.iter().any(has_anchor),
        Node::Repeat(node, ..) => has_anchor(node),
    }
}
