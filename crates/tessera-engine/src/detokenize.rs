//! From tokens to text that is safe to show.
//!
//! A token may end in the middle of a character, and a stop string in the middle of a token. What is
//! handed out is never taken back: an unfinished character waits for its other bytes, and a text that
//! could be the beginning of a stop string waits until it is one or is not.

use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// How a stream is turned into text.
#[derive(Clone, Debug, PartialEq)]
pub struct DetokenizeOptions {
    /// Whether special tokens leave no text.
    pub skip_special: bool,
    /// Whether the first space is dropped; `None` leaves it to the tokenizer. An answer in a chat
    /// begins a text of its own, the continuation of a raw prompt does not.
    pub strip_leading_space: Option<bool>,
    /// Texts that end the stream. Empty ones mean nothing.
    pub stop: Vec<String>,
    /// Whether the text that ended the stream is a part of it.
    pub include_stop: bool,
}

impl Default for DetokenizeOptions {
    fn default() -> DetokenizeOptions {
        DetokenizeOptions {
            skip_special: true,
            strip_leading_space: None,
            stop: Vec::new(),
            include_stop: false,
        }
    }
}

/// The text of one stream of tokens.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    strip: bool,
    utf8: Utf8Stream,
    stops: StopStrings,
}

impl Detokenizer {
    /// Starts a stream.
    pub fn new(tokenizer: Arc<Tokenizer>, options: DetokenizeOptions) -> Detokenizer {
        let strip = options.strip_leading_space.unwrap_or_else(|| tokenizer.strip_space_in_decode());
        Detokenizer {
            tokenizer,
            skip_special: options.skip_special,
            strip,
            utf8: Utf8Stream::default(),
            stops: StopStrings { include: options.include_stop, ..StopStrings::new(options.stop) },
        }
    }

    /// Takes the next token and gives the text that has become certain. After a stop string there is
    /// no more. An id that no token has (rows that pad the head) leaves U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        if self.stopped().is_some() {
            return String::new();
        }
        let tokenizer = self.tokenizer.clone();
        if self.skip_special && tokenizer.is_special(id) {
            // A stop string is often the very text of a special token, which is not shown.
            return match tokenizer.token_text(id) {
                Some(text) if self.stops.matches_hidden(text) => {
                    let rest = self.utf8.finish();
                    self.stops.push_last(&rest, text)
                }
                _ => String::new(),
            };
        }
        let mut bytes = tokenizer.token_bytes(id).unwrap_or("\u{fffd}".as_bytes());
        if self.strip && !bytes.is_empty() {
            self.strip = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        let text = self.utf8.push(bytes);
        self.stops.push(&text)
    }

    /// Ends the stream: the text that was still held back. An unfinished character of a stream that was
    /// `cut` is left out, since its other bytes were still to come; where the model itself ended, they
    /// were not, and it becomes U+FFFD.
    pub fn finish(&mut self, cut: bool) -> String {
        if self.stopped().is_some() {
            return String::new();
        }
        let unfinished = self.utf8.finish();
        let rest = if cut { String::new() } else { unfinished };
        let mut text = self.stops.push(&rest);
        text.push_str(&self.stops.finish());
        text
    }

    /// The bytes of a token; empty for an id that no token has.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.tokenizer.token_bytes(id).unwrap_or_default()
    }

    /// The stop string that has ended the stream.
    pub fn stopped(&self) -> Option<&str> {
        self.stops.found()
    }
}

/// Bytes to text, at any cut. The whole is what [`String::from_utf8_lossy`] makes of the whole.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// The text that has become certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut start = 0;
        loop {
            match std::str::from_utf8(&self.pending[start..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    start = self.pending.len();
                }
                Err(error) => {
                    let valid = start + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[start..valid]));
                    start = valid;
                    // No length: the bytes may still become a character.
                    if let Some(broken) = error.error_len() {
                        text.push('\u{fffd}');
                        start += broken;
                        continue;
                    }
                }
            }
            break;
        }
        self.pending.drain(..start);
        text
    }

    /// Bytes that can no longer become a character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Looks for stop strings in a text that comes in parts. The first one to be complete ends the text;
/// of several that end at the same place, the one that began first. So the result does not depend on
/// how the text is cut.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Whether the one that is found is handed out too.
    include: bool,
    held: String,
    found: Option<usize>,
}

impl StopStrings {
    /// Empty strings are left out.
    pub fn new(stops: Vec<String>) -> StopStrings {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        StopStrings { stops, include: false, held: String::new(), found: None }
    }

    /// The stop string that was found.
    pub fn found(&self) -> Option<&str> {
        self.found.and_then(|i| self.stops.get(i)).map(String::as_str)
    }

    /// Takes a part and gives the text before a stop string that is now certain.
    pub fn push(&mut self, part: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(part);
        let first = self
            .stops
            .iter()
            .enumerate()
            .filter_map(|(i, stop)| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at, i)))
            .min();
        if let Some((end, at, stop)) = first {
            self.found = Some(stop);
            let mut text = std::mem::take(&mut self.held);
            text.truncate(if self.include { end } else { at });
            return text;
        }
        let keep = self.undecided();
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// The text that was held back and is no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the held text that a stop string could begin with.
    fn undecided(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).saturating_sub(1);
        let len = self.held.len();
        let from = len.saturating_sub(longest);
        (from..len)
            .filter(|at| self.held.is_char_boundary(*at))
            .find(|at| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..])))
            .map_or(0, |at| len - at)
    }

    fn matches_hidden(&self, text: &str) -> bool {
        self.stops.iter().any(|stop| stop == text)
    }

    /// Ends the text with a stop string that is no part of it.
    fn push_last(&mut self, rest: &str, hidden: &str) -> String {
        let mut text = self.push(rest);
        if self.found.is_none() {
            text.push_str(&self.finish());
            self.found = self.stops.iter().position(|stop| stop == hidden);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the stop strings mean, one character at a time.
    fn reference(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in (0..=text.len()).filter(|i| text.is_char_boundary(*i)) {
            let complete = stops.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
            if let Some(stop) = complete.max_by_key(|s| s.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    fn cut(len: usize, cuts: &[prop::sample::Index]) -> Vec<usize> {
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(len + 1)).chain([0, len]).collect();
        at.sort_unstable();
        at
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_gives_the_same_text(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xe4), Just(0xbd), Just(0xf0), Just(0x9f)], 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = Utf8Stream::default();
            let mut text = String::new();
            for pair in cut(bytes.len(), &cuts).windows(2) {
                text.push_str(&stream.push(&bytes[pair[0]..pair[1]]));
            }
            text.push_str(&stream.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_whole_character_is_never_shown_broken(text in "\\PC{0,12}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let text = text.replace('\u{fffd}', "");
            let mut stream = Utf8Stream::default();
            for pair in cut(text.len(), &cuts).windows(2) {
                let part = stream.push(&text.as_bytes()[pair[0]..pair[1]]);
                prop_assert_eq!(part.contains('\u{fffd}'), false);
            }
            prop_assert_eq!(stream.finish(), "");
        }

        #[test]
        fn stop_strings_do_not_depend_on_the_cut(
            text in "[abé]{0,30}",
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let (expected, stop) = reference(&text, &stops);
            let mut utf8 = Utf8Stream::default();
            let mut stream = StopStrings::new(stops);
            let mut shown = String::new();
            for pair in cut(text.len(), &cuts).windows(2) {
                shown.push_str(&stream.push(&utf8.push(&text.as_bytes()[pair[0]..pair[1]])));
                prop_assert!(expected.starts_with(&shown), "shown {:?} of {:?}", shown, expected);
            }
            if stream.found().is_none() {
                shown.push_str(&stream.finish());
            }
            prop_assert_eq!(shown, expected);
            prop_assert_eq!(stream.found(), stop.as_deref());
        }
    }

    #[test]
    fn only_what_could_begin_a_stop_string_is_held() {
        let mut stream = StopStrings::new(vec!["###".into(), "User:".into(), String::new()]);
        assert_eq!(stream.push("one #"), "one ");
        assert_eq!(stream.push("two Us"), "#two ");
        assert_eq!(stream.push("ed ##"), "Used ");
        assert_eq!(stream.push("# hidden"), "");
        assert_eq!(stream.found(), Some("###"));
        assert_eq!(stream.push("more"), "");
    }
}
