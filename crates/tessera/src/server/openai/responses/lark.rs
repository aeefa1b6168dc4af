//! A Lark grammar without recursion as one regular expression.
//!
//! The input of a `custom` tool is written as the text of a JSON string, and what is enforced inside of such a text is
//! regular expressions. A grammar whose rules do not lead back to themselves says no more than one. What is not
//! understood here, or would not mean exactly the same, is an error that says so.

use std::collections::HashMap;

/// Longest expression that a grammar may become.
const LONGEST: usize = 16 << 10;

/// Terminals of Lark's own library.
const COMMON: [(&str, &str); 16] = [
    ("CNAME", "[_a-zA-Z][_a-zA-Z0-9]*"),
    ("CR", r"\r"),
    ("DECIMAL", r"(?:[0-9]+\.[0-9]*|\.[0-9]+)"),
    ("DIGIT", "[0-9]"),
    ("HEXDIGIT", "[0-9a-fA-F]"),
    ("INT", "[0-9]+"),
    ("LCASE_LETTER", "[a-z]"),
    ("LETTER", "[a-zA-Z]"),
    ("LF", r"\n"),
    ("NEWLINE", r"(?:\r?\n)+"),
    ("NUMBER", r"(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+(?:[eE][-+]?[0-9]+)?)"),
    ("SIGNED_INT", "[-+]?[0-9]+"),
    ("UCASE_LETTER", "[A-Z]"),
    ("WORD", "[a-zA-Z]+"),
    ("WS", r"[ \t\f\r\n]+"),
    ("WS_INLINE", r"[ \t]+"),
];

type Parsed<T> = Result<T, String>;

/// The expression that matches what the grammar's `start` does.
pub fn regex(grammar: &str) -> Parsed<String> {
    let tokens = tokens(grammar)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let mut rules = HashMap::new();
    while parser.statement(&mut rules)? {}
    let mut done = HashMap::new();
    expand("start", &rules, &mut done, &mut Vec::new())
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    /// A string or an expression, as an expression.
    Regex(String),
    Number(String),
    Sign(char),
    Arrow,
    Line,
}

enum Rule {
    Regex(String),
    Name(String),
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Repeated(Box<Rule>, String),
}

fn tokens(grammar: &str) -> Parsed<Vec<Token>> {
    let chars: Vec<char> = grammar.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let next = chars.get(i + 1).copied();
        let run = |fits: fn(char) -> bool| chars[i..].iter().take_while(|c| fits(**c)).collect::<String>();
        let (token, length) = match c {
            '\n' => (Some(Token::Line), 1),
            c if c.is_whitespace() => (None, 1),
            '#' => (None, run(|c| c != '\n').chars().count()),
            '/' if next == Some('/') => (None, run(|c| c != '\n').chars().count()),
            '"' | '/' => {
                let text = literal(&chars[i..])?;
                let length = text.chars().count() + 2;
                let after = chars.get(i + length).copied().unwrap_or(' ');
                if after.is_ascii_alphabetic() {
                    return Err(format!("the flag {after:?} is not understood"));
                }
                let regex = if c == '"' { string(&text)? } else { exact(&text)? };
                (Some(Token::Regex(regex)), length)
            }
            '-' if next == Some('>') => (Some(Token::Arrow), 2),
            '0'..='9' => {
                let number = run(|c| c.is_ascii_digit());
                let length = number.len();
                (Some(Token::Number(number)), length)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let name = run(|c| c.is_ascii_alphanumeric() || c == '_');
                let length = name.len();
                (Some(Token::Name(name)), length)
            }
            ':' | '|' | '(' | ')' | '[' | ']' | '?' | '*' | '+' | '%' | '.' | '!' | '{' | '}' | ',' => {
                (Some(Token::Sign(c)), 1)
            }
            c => return Err(format!("{c:?} is not understood")),
        };
        out.extend(token);
        i += length;
    }
    out.push(Token::Line);
    Ok(out)
}

/// What stands between the marks.
fn literal(chars: &[char]) -> Parsed<String> {
    let mut escaped = false;
    for (i, c) in chars.iter().enumerate().skip(1) {
        match c {
            '\n' => break,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if *c == chars[0] => return Ok(chars[1..i].iter().collect()),
            _ => {}
        }
    }
    Err(format!("a text that {:?} begins has no end", chars[0]))
}

/// A string as an expression.
fn string(text: &str) -> Parsed<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('n' | 'r' | 't')) => out.extend(['\\', c]),
                Some(c @ ('"' | '\\' | '/')) => plain(c, &mut out),
                other => return Err(format!("the escape \\{} is not understood", other.unwrap_or(' '))),
            },
            c => plain(c, &mut out),
        }
    }
    Ok(out)
}

fn plain(c: char, out: &mut String) {
    if "\\^$.|?*+()[]{}/".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

/// An expression of which each part means the same, or less, where patterns of JSON Schema are read.
fn exact(regex: &str) -> Parsed<String> {
    let mut out = String::from("(?:");
    let mut chars = regex.chars().peekable();
    // Whether we are in a class, and in one of what is not listed.
    let mut class = None;
    while let Some(c) = chars.next() {
        match (c, class) {
            ('\\', _) => {
                let c = chars.next().unwrap_or(' ');
                match (c, class) {
                    ('n' | 'r' | 't' | 'f', _) => out.extend(['\\', c]),
                    ('d', None | Some(false)) => out.push_str(if class.is_some() { "0-9" } else { "[0-9]" }),
                    ('w', None) => out.push_str("[0-9A-Za-z_]"),
                    ('w', Some(false)) => out.push_str("0-9A-Za-z_"),
                    ('s', None) => out.push_str(r"[ \t\n\r\f]"),
                    ('s', Some(false)) => out.push_str(r" \t\n\r\f"),
                    (c, _) if c.is_ascii_punctuation() => out.extend(['\\', c]),
                    _ => return Err(format!("\\{c} in an expression is not understood")),
                }
            }
            ('[', None) => {
                let not = chars.next_if_eq(&'^').is_some();
                class = Some(not);
                out.push_str(if not { "[^" } else { "[" });
            }
            (']', Some(_)) => {
                class = None;
                out.push(c);
            }
            ('[' | '&' | '~', Some(_)) => return Err(format!("{c:?} in a class is not understood")),
            ('.', None) => out.push_str(r"[^\n]"),
            ('^' | '$', None) => return Err(format!("{c:?} in an expression is not understood")),
            ('(', None) if chars.next_if_eq(&'?').is_some() => {
                if chars.next() != Some(':') {
                    return Err("(? in an expression is not understood".to_owned());
                }
                out.push_str("(?:");
            }
            ('(', None) => out.push_str("(?:"),
            _ => out.push(c),
        }
    }
    out.push(')');
    Ok(out)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn take(&mut self, sign: char) -> bool {
        let there = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, sign: char) -> Parsed<()> {
        if self.take(sign) { Ok(()) } else { Err(format!("expected {sign:?}, found {:?}", self.peek())) }
    }

    fn name(&mut self) -> Parsed<String> {
        match self.next() {
            Some(Token::Name(name)) => Ok(name.clone()),
            other => Err(format!("expected a name, found {other:?}")),
        }
    }

    /// A rule or a directive; false at the end.
    fn statement(&mut self, rules: &mut HashMap<String, Rule>) -> Parsed<bool> {
        while self.peek() == Some(&Token::Line) {
            self.at += 1;
        }
        if self.peek().is_none() {
            return Ok(false);
        }
        if self.take('%') {
            self.import(rules)?;
        } else {
            while self.take('?') || self.take('!') {}
            let name = self.name()?;
            self.priority();
            self.expect(':')?;
            let rule = self.any()?;
            if rules.insert(name.clone(), rule).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        match self.next() {
            Some(Token::Line) | None => Ok(true),
            other => Err(format!("{other:?} is not understood")),
        }
    }

    /// `%import common.NAME`; priorities and aliases change nothing about what fits.
    fn import(&mut self, rules: &mut HashMap<String, Rule>) -> Parsed<()> {
        let (what, from) = (self.name()?, self.name()?);
        if what != "import" || from != "common" {
            return Err(format!("%{what} {from} is not understood"));
        }
        self.expect('.')?;
        let name = self.name()?;
        let known = COMMON.iter().find(|(common, _)| *common == name);
        let (_, regex) = known.ok_or_else(|| format!("common.{name} is not known"))?;
        let name = if self.peek() == Some(&Token::Arrow) {
            self.at += 1;
            self.name()?
        } else {
            name
        };
        rules.insert(name, Rule::Regex(format!("(?:{regex})")));
        Ok(())
    }

    fn priority(&mut self) {
        if let [Token::Sign('.'), Token::Number(_), ..] = self.tokens[self.at..] {
            self.at += 2;
        }
    }

    fn any(&mut self) -> Parsed<Rule> {
        let mut all = vec![self.all()?];
        loop {
            // An alternative may begin a line.
            let lines = self.tokens[self.at..].iter().take_while(|token| **token == Token::Line).count();
            if self.tokens.get(self.at + lines) != Some(&Token::Sign('|')) {
                return Ok(Rule::Any(all));
            }
            self.at += lines + 1;
            all.push(self.all()?);
        }
    }

    fn all(&mut self) -> Parsed<Rule> {
        let mut parts = Vec::new();
        loop {
            let part = match self.peek() {
                Some(Token::Name(name)) => Rule::Name(name.clone()),
                Some(Token::Regex(regex)) => Rule::Regex(regex.clone()),
                Some(Token::Sign(open @ ('(' | '['))) => {
                    let (open, close) = (*open, if *open == '(' { ')' } else { ']' });
                    self.at += 1;
                    self.depth += 1;
                    if self.depth > 50 {
                        return Err("brackets are too deep".to_owned());
                    }
                    let inner = self.any()?;
                    self.depth -= 1;
                    if self.peek() != Some(&Token::Sign(close)) {
                        return Err(format!("expected {close:?}, found {:?}", self.peek()));
                    }
                    if open == '(' { inner } else { Rule::Repeated(Box::new(inner), "?".to_owned()) }
                }
                Some(Token::Arrow) => {
                    self.at += 1;
                    self.name()?;
                    return Ok(Rule::All(parts));
                }
                _ => return Ok(Rule::All(parts)),
            };
            self.at += 1;
            let times = match self.peek() {
                Some(Token::Sign(sign @ ('?' | '*' | '+'))) => {
                    let sign = sign.to_string();
                    self.at += 1;
                    Some(sign)
                }
                Some(Token::Sign('{')) => Some(self.times()?),
                _ => None,
            };
            parts.push(match times {
                Some(times) => Rule::Repeated(Box::new(part), times),
                None => part,
            });
        }
    }

    fn times(&mut self) -> Parsed<String> {
        let mut out = String::new();
        loop {
            match self.next() {
                Some(Token::Sign(c @ ('{' | ','))) => out.push(*c),
                Some(Token::Number(n)) => out.push_str(n),
                Some(Token::Sign('}')) if out.len() > 1 && !out.starts_with("{,") => return Ok(out + "}"),
                other => return Err(format!("{other:?} in a repetition is not understood")),
            }
        }
    }
}

/// A rule's expression, which is made once.
fn expand(
    name: &str,
    rules: &HashMap<String, Rule>,
    done: &mut HashMap<String, String>,
    open: &mut Vec<String>,
) -> Parsed<String> {
    if let Some(regex) = done.get(name) {
        return Ok(regex.clone());
    }
    if open.iter().any(|other| other == name) {
        return Err(format!("the rule {name} leads back to itself"));
    }
    if open.len() > 100 {
        return Err("rules are too deep".to_owned());
    }
    let rule = rules.get(name).ok_or_else(|| format!("there is no rule {name}"))?;
    open.push(name.to_owned());
    let regex = write(rule, &mut |name| expand(name, rules, done, open))?;
    open.pop();
    done.insert(name.to_owned(), regex.clone());
    Ok(regex)
}

fn write(rule: &Rule, of: &mut dyn FnMut(&str) -> Parsed<String>) -> Parsed<String> {
    let regex = match rule {
        Rule::Regex(regex) => regex.clone(),
        Rule::Name(name) => of(name)?,
        Rule::All(parts) => parts.iter().map(|part| write(part, of)).collect::<Parsed<String>>()?,
        Rule::Any(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| write(part, of)).collect::<Parsed<_>>()?;
            if parts.len() == 1 { parts.concat() } else { format!("(?:{})", parts.join("|")) }
        }
        Rule::Repeated(part, times) => format!("(?:{}){times}", write(part, of)?),
    };
    if regex.len() > LONGEST {
        return Err(format!("as one expression it is longer than {LONGEST} bytes"));
    }
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::regex;

    #[test]
    fn rules_become_one_expression() {
        let grammar = "start: head line+ [\"end\"] // c\nhead: \"*** [\" NAME \"]\" LF\n?line: \"+\" /(.*)/ LF -> added\n    | \"-\" /[^\"\\n]{1,3}\\d/\n\nNAME.2: /[a-z]/ \"/\"?\n%import common.LF\n";
        assert_eq!(
            regex(grammar).unwrap(),
            r#"\*\*\* \[(?:[a-z])(?:\/)?\](?:\n)(?:(?:\+(?:(?:[^\n]*))(?:\n)|-(?:[^"\n]{1,3}[0-9])))+(?:end)?"#
        );
        assert_eq!(regex("start: a{2,3} a{4}\na: \"x\"").unwrap(), "(?:x){2,3}(?:x){4}");
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for (grammar, why) in [
            ("start: \"(\" start \")\" |", "leads back"),
            ("start: a", "no rule a"),
            ("start: \"a\"i", "flag"),
            ("start: /^a/", "'^'"),
            ("start: /[^\\s]/", "\\s"),
            ("start: /(?=a)b/", "(?"),
            ("start: \"a\"\n%ignore \" \"", "name"),
            ("start: \"a", "no end"),
            ("start: a ~ 3", "'~'"),
            ("start: %json {}", "Sign('%')"),
            ("start: (\"a\"", "')'"),
            ("", "no rule start"),
        ] {
            let error = regex(grammar).unwrap_err();
            assert!(error.contains(why), "{grammar}: {error}");
        }
        let doubled: String = (0..40).map(|i| format!("a{i}: a{} a{}\n", i + 1, i + 1)).collect();
        assert!(regex(&format!("start: a0\n{doubled}a40: \"x\"")).unwrap_err().contains("longer"));
    }
}
