//! What a model thinks before it answers: told apart in the text, and left free by a constraint.
//!
//! Reasoning models write `<think>` ... `</think>` and then the answer. Some templates end the prompt with
//! `<think>` already. Only a tag at the very beginning opens reasoning: an answer may speak about tags.

use crate::constraint::{Constraint, ConstraintError};
use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// Opens reasoning.
pub const OPEN: &str = "<think>";
/// Ends it.
pub const CLOSE: &str = "</think>";

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of what the model thinks.
    Reasoning(String),
    /// Of the answer itself.
    Content(String),
}

/// Whether a prompt ends inside of reasoning, so that the answer begins there.
pub fn is_open(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

/// Whether a template knows reasoning at all.
pub fn is_known(template: &str) -> bool {
    template.contains(OPEN) || template.contains(CLOSE)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// White space, then perhaps the opening tag.
    Start,
    /// Line ends before reasoning.
    Opened,
    Reasoning,
    /// Line ends before the answer.
    Closed,
    Content,
}

/// Splits a stream. Line ends next to the tags belong to neither part; a stream without tags comes out as
/// it went in.
#[derive(Clone, Debug)]
pub struct ReasoningSplitter {
    state: State,
    /// Text that may still be a tag or white space before one.
    held: String,
}

impl ReasoningSplitter {
    /// Starts a stream; `open` says that the prompt ended inside of reasoning ([`is_open`]).
    pub fn new(open: bool) -> ReasoningSplitter {
        ReasoningSplitter { state: if open { State::Opened } else { State::Start }, held: String::new() }
    }

    /// Whether the stream is inside of reasoning.
    pub fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Opened | State::Reasoning)
    }

    /// Takes text and gives what has become certain, each part at most once in a row.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        let mut out = Vec::new();
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// Ends the stream: what was still held back.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start | State::Content => emit(&mut out, false, &held),
            State::Opened | State::Reasoning => emit(&mut out, true, &held),
            State::Closed => {}
        }
        out
    }

    fn take(&mut self, c: char, out: &mut Vec<Part>) {
        match self.state {
            State::Content => emit(out, false, c.encode_utf8(&mut [0; 4])),
            State::Closed if c == '\n' || c == '\r' => {}
            State::Closed => {
                self.state = State::Content;
                emit(out, false, c.encode_utf8(&mut [0; 4]));
            }
            State::Start => {
                self.held.push(c);
                let tag = self.held.trim_start();
                if tag == OPEN {
                    self.held.clear();
                    self.state = State::Opened;
                } else if !OPEN.starts_with(tag) {
                    self.state = State::Content;
                    emit(out, false, &std::mem::take(&mut self.held));
                }
            }
            State::Opened if c == '\n' || c == '\r' => {}
            State::Opened | State::Reasoning => {
                self.state = State::Reasoning;
                self.held.push(c);
                while !self.held.is_empty() {
                    let tag = self.held.trim_start_matches(['\n', '\r']);
                    if tag == CLOSE {
                        self.held.clear();
                        self.state = State::Closed;
                    } else if CLOSE.starts_with(tag) {
                        return;
                    } else {
                        let first: String = self.held.drain(..first_len(&self.held)).collect();
                        emit(out, true, &first);
                    }
                }
            }
        }
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn emit(out: &mut Vec<Part>, reasoning: bool, text: &str) {
    if text.is_empty() {
        return;
    }
    match (out.last_mut(), reasoning) {
        (Some(Part::Reasoning(last)), true) | (Some(Part::Content(last)), false) => last.push_str(text),
        (_, true) => out.push(Part::Reasoning(text.to_owned())),
        (_, false) => out.push(Part::Content(text.to_owned())),
    }
}

/// A constraint that holds for the answer only: reasoning before it is free, but has to end.
pub struct AfterReasoning<C> {
    inner: C,
    tokenizer: Arc<Tokenizer>,
    /// Tokens that the reasoning may consist of.
    free: Vec<u32>,
    /// Tokens that are line ends and nothing else.
    gap: Vec<u32>,
    mask: Vec<u32>,
    /// The last bytes, in which the closing tag is looked for; `None` after it.
    tail: Option<Vec<u8>>,
    answering: bool,
}

impl<C: Constraint> AfterReasoning<C> {
    /// For a prompt that ended inside of reasoning. `ends` are the tokens that end an answer: they may not
    /// end the reasoning.
    pub fn new(inner: C, tokenizer: Arc<Tokenizer>, ends: &[u32]) -> AfterReasoning<C> {
        let words = tokenizer.vocab_size().div_ceil(32);
        let (mut free, mut gap) = (vec![0u32; words], vec![0u32; words]);
        for id in 0..tokenizer.vocab_size() as u32 {
            let Some(bytes) = tokenizer.token_bytes(id) else { continue };
            let set = |words: &mut Vec<u32>| words[id as usize / 32] |= 1 << (id % 32);
            let is_tag = tokenizer.token_text(id) == Some(CLOSE);
            // The tag may end inside of a token only if no more than line ends come after it there.
            let after = find(bytes, CLOSE.as_bytes()).map(|at| &bytes[at + CLOSE.len()..]);
            let fits = after.is_none_or(|rest| rest.iter().all(|b| *b == b'\n'));
            if !ends.contains(&id) && !bytes.is_empty() && (is_tag || !tokenizer.is_special(id)) && fits {
                set(&mut free);
            }
            if !bytes.is_empty() && bytes.iter().all(|b| *b == b'\n') && !tokenizer.is_special(id) {
                set(&mut gap);
            }
        }
        let mask = Vec::new();
        AfterReasoning { inner, tokenizer, free, gap, mask, tail: Some(Vec::new()), answering: false }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

fn is_set(words: &[u32], token: u32) -> bool {
    words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

impl<C: Constraint> Constraint for AfterReasoning<C> {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        if let Some(tail) = &self.tail {
            self.mask.clone_from(&self.free);
            // A token that completes a tag begun before and goes on with the answer would get past the
            // constraint.
            let starts: Vec<usize> =
                (1..CLOSE.len()).filter(|n| tail.ends_with(&CLOSE.as_bytes()[..*n])).collect();
            if !starts.is_empty() {
                for id in 0..self.tokenizer.vocab_size() as u32 {
                    let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
                    let over = starts.iter().any(|n| {
                        let rest = bytes.strip_prefix(&CLOSE.as_bytes()[*n..]);
                        rest.is_some_and(|rest| !rest.iter().all(|b| *b == b'\n'))
                    });
                    if over {
                        self.mask[id as usize / 32] &= !(1 << (id % 32));
                    }
                }
            }
            return Ok(&self.mask);
        }
        let inner = self.inner.mask()?;
        if self.answering {
            return Ok(inner);
        }
        self.mask.clear();
        self.mask.extend_from_slice(inner);
        self.mask.resize(inner.len().max(self.gap.len()), 0);
        for (word, gap) in self.mask.iter_mut().zip(&self.gap) {
            *word |= gap;
        }
        Ok(&self.mask)
    }

    fn forced(&mut self) -> Vec<u32> {
        // Right after the tag the model may want an empty line first.
        if self.answering { self.inner.forced() } else { Vec::new() }
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let Some(tail) = &mut self.tail else {
            if !self.answering && is_set(&self.gap, token) && !is_set(self.inner.mask()?, token) {
                return Ok(());
            }
            self.answering = true;
            return self.inner.accept(token);
        };
        if !is_set(&self.free, token) {
            return Err(ConstraintError::NotAllowed { token });
        }
        tail.extend_from_slice(self.tokenizer.token_bytes(token).unwrap_or_default());
        if find(tail, CLOSE.as_bytes()).is_some() {
            self.tail = None;
        } else {
            let from = tail.len().saturating_sub(CLOSE.len() - 1);
            tail.drain(..from);
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.tail.is_none() && self.inner.finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(open: bool, pieces: &[&str]) -> (String, String) {
        let mut splitter = ReasoningSplitter::new(open);
        let mut parts: Vec<Part> = pieces.iter().flat_map(|p| splitter.push(p)).collect();
        parts.extend(splitter.finish());
        let mut out = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Reasoning(text) => out.0.push_str(&text),
                Part::Content(text) => out.1.push_str(&text),
            }
        }
        out
    }

    #[test]
    fn any_cut_gives_the_same_parts() {
        let cases = [
            (false, "<think>\nI see é.\n</think>\n\nYes.", "I see é.", "Yes."),
            (false, "\n<think>a</think>b", "a", "b"),
            (false, "<think></think>x", "", "x"),
            (true, "a < b\n\nand </thin so\n</think>\nc", "a < b\n\nand </thin so", "c"),
            (true, "never ended\n</thi", "never ended\n</thi", ""),
            (false, "No tags <think>x</think> here", "", "No tags <think>x</think> here"),
            (false, " <thinking>", "", " <thinking>"),
            (false, " <thi", "", " <thi"),
            (false, "<think>a</think>b</think><think>c", "a", "b</think><think>c"),
            (true, "", "", ""),
            (true, "a</think>\n", "a", ""),
        ];
        for (open, text, reasoning, content) in cases {
            let expected = (reasoning.to_owned(), content.to_owned());
            assert_eq!(split(open, &[text]), expected, "{text:?}");
            let chars: Vec<String> = text.chars().map(String::from).collect();
            assert_eq!(
                split(open, &chars.iter().map(String::as_str).collect::<Vec<_>>()),
                expected,
                "{text:?}"
            );
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                assert_eq!(split(open, &[&text[..at], &text[at..]]), expected, "{text:?} cut at {at}");
            }
        }
    }

    #[test]
    fn what_is_certain_comes_at_once() {
        let mut splitter = ReasoningSplitter::new(false);
        assert_eq!(splitter.push("Hi"), [Part::Content("Hi".into())]);
        let mut splitter = ReasoningSplitter::new(true);
        assert_eq!(splitter.push("one\n"), [Part::Reasoning("one".into())]);
        assert_eq!(splitter.push("two </"), [Part::Reasoning("\ntwo ".into())]);
        assert!(splitter.is_reasoning());
        assert_eq!(splitter.push("think>\n\n3"), [Part::Content("3".into())]);
        assert!(!splitter.is_reasoning());
    }

    #[test]
    fn prompts_say_whether_reasoning_is_open() {
        assert!(is_open("<|im_start|>assistant\n<think>\n"));
        assert!(!is_open("<think>\n\n</think>\n\n"));
        assert!(is_known("{{ '<think>' }}") && !is_known("{{ messages }}"));
    }
}
