//! Questions about regular expressions: whether a text matches, whether two can match the same text.

use crate::grammar::pattern;
use llguidance::derivre::{ExprRef, Regex, RegexAst, RegexBuilder};
use std::collections::{BTreeSet, HashMap};

/// Work for one question, in derivre's units of about 100 ns.
const FUEL: u64 = 5_000;
/// Questions about two patterns.
const MAX_QUESTIONS: usize = 400;

/// See the module. Patterns are in the form that [`pattern::whole`] writes.
#[derive(Default)]
pub(super) struct Patterns {
    compiled: HashMap<String, Option<Regex>>,
    apart: HashMap<(Vec<String>, Vec<String>), bool>,
}

/// The expression for the whole string; the anchors are the search's.
fn expression(builder: &mut RegexBuilder, pattern: &str) -> Option<ExprRef> {
    builder.mk_regex_for_serach(pattern).ok()
}

impl Patterns {
    /// Whether a pattern matches a text; nothing if it takes too much work to say.
    pub fn is_match(&mut self, pattern: &str, text: &str) -> Option<bool> {
        if !self.compiled.contains_key(pattern) {
            let mut builder = RegexBuilder::new();
            let regex =
                expression(&mut builder, pattern).and_then(|e| builder.to_regex_limited(e, FUEL).ok());
            self.compiled.insert(pattern.to_owned(), regex);
        }
        self.compiled.get_mut(pattern)?.as_mut().map(|regex| regex.is_match(text))
    }

    /// Whether no text is matched by all of `all` and by none of `none`. False if that takes too much work.
    pub fn is_empty(&mut self, all: &BTreeSet<String>, none: &[&str]) -> bool {
        let key: (Vec<String>, Vec<String>) =
            (all.iter().cloned().collect(), none.iter().map(|s| (*s).to_owned()).collect());
        if let Some(known) = self.apart.get(&key) {
            return *known;
        }
        if self.apart.len() >= MAX_QUESTIONS {
            return false;
        }
        let empty = question(all, none).unwrap_or(false);
        self.apart.insert(key, empty);
        empty
    }
}

fn question(all: &BTreeSet<String>, none: &[&str]) -> Option<bool> {
    let mut builder = RegexBuilder::new();
    let mut parts = Vec::new();
    for pattern in all {
        parts.push(RegexAst::ExprRef(expression(&mut builder, pattern)?));
    }
    for pattern in none {
        parts.push(RegexAst::Not(Box::new(RegexAst::ExprRef(expression(&mut builder, pattern)?))));
    }
    let meeting = builder.mk(&RegexAst::And(parts)).ok()?;
    Some(builder.to_regex_limited(meeting, FUEL).ok()?.always_empty())
}

/// A pattern for every string but these, as [`pattern::whole`] writes it: in other forms of a class that
/// leaves `"` out, derivre lets the escaped one through.
pub(super) fn all_but(texts: &BTreeSet<String>) -> Result<String, String> {
    let words: Vec<Vec<char>> = texts.iter().map(|t| t.chars().collect()).collect();
    let words: Vec<&[char]> = words.iter().map(Vec::as_slice).collect();
    pattern::whole(&format!("^(?:{})$", but(&words)))
}

/// Strings that are none of the words, of which all begin here.
fn but(words: &[&[char]]) -> String {
    let mut by_first: std::collections::BTreeMap<char, Vec<&[char]>> = std::collections::BTreeMap::new();
    for word in words {
        if let [first, rest @ ..] = word {
            by_first.entry(*first).or_default().push(rest);
        }
    }
    let mut ways = Vec::new();
    if words.iter().all(|word| !word.is_empty()) {
        ways.push(String::new());
    }
    let listed: String = by_first.keys().map(|c| format!("\\u{{{:X}}}", *c as u32)).collect();
    ways.push(if listed.is_empty() { "[\\s\\S]+".to_owned() } else { format!("[^{listed}][\\s\\S]*") });
    for (first, rest) in by_first {
        ways.push(format!("\\u{{{:X}}}(?:{})", first as u32, but(&rest)));
    }
    ways.join("|")
}

/// A pattern for strings of so many characters.
pub(super) fn of_length(min: u64, max: Option<u64>) -> String {
    let max = max.map(|n| n.to_string()).unwrap_or_default();
    format!("^(?:(?s:.{{{min},{max}}}))$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_strings_but_some() {
        let texts: BTreeSet<String> = ["", "a", "ab", "é\""].iter().map(|t| (*t).to_owned()).collect();
        let (pattern, mut patterns) = (all_but(&texts).unwrap(), Patterns::default());
        for text in &texts {
            assert_eq!(patterns.is_match(&pattern, text), Some(false), "{text}");
        }
        for text in ["b", "aa", "abc", "é", "é\"x", "\n"] {
            assert_eq!(patterns.is_match(&pattern, text), Some(true), "{text}");
        }
    }

    #[test]
    fn what_two_patterns_have_in_common() {
        let set = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<String>>();
        let mut patterns = Patterns::default();
        assert!(patterns.is_empty(&set(&["^(?:a(?s:.*))$", "^(?:b)$"]), &[]));
        assert!(!patterns.is_empty(&set(&["^(?:a(?s:.*))$", "^(?:[ab]c)$"]), &[]));
        assert!(patterns.is_empty(&set(&["^(?:ab)$"]), &["^(?:a(?s:.*))$"]));
        assert!(!patterns.is_empty(&set(&["^(?:a(?s:.*))$"]), &["^(?:ab)$"]));
    }
}
