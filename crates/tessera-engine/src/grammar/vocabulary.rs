//! The tokenizer as llguidance sees it: the bytes of every token, and how text is cut into tokens.

use crate::tokenizer::Tokenizer;
use std::sync::Arc;
use toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// Longest token that fits the tree; longer ones are never allowed.
const MAX_TOKEN: usize = 1000;
/// Most tokens that fit the tree.
const MAX_ROWS: usize = 1 << 21;
/// Put before a text whose first token would else get a space that is not in the text.
const SENTINEL: &str = "\u{2}";

pub(super) struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl Vocabulary {
    pub fn new(tokenizer: Arc<Tokenizer>, rows: usize, ends: &[u32]) -> Result<Vocabulary, String> {
        if rows < tokenizer.vocab_size() || rows > MAX_ROWS {
            let least = tokenizer.vocab_size();
            return Err(format!("a vocabulary of {rows} rows, expected {least} to {MAX_ROWS}"));
        }
        let known: Vec<u32> = ends.iter().copied().filter(|id| (*id as usize) < rows).collect();
        let words: Vec<Vec<u8>> = (0..rows as u32).map(|id| word(&tokenizer, id, &known)).collect();
        let info = TokRxInfo::new(rows as u32, known.first().copied().unwrap_or(INVALID_TOKEN));
        let trie = TokTrie::from(&info, &words);
        let trie = if known.is_empty() { trie } else { trie.with_eos_tokens(&known) };
        Ok(Vocabulary { trie, tokenizer })
    }

    /// Tokens for exactly this text, if the tokenizer has any.
    fn encode(&self, text: &str) -> Option<Vec<TokenId>> {
        let ids = self.tokenizer.encode_ordinary(text).ok()?;
        if self.spells(&ids, text) {
            return Some(ids);
        }
        let ids = self.tokenizer.encode_ordinary(&format!("{SENTINEL}{text}")).ok()?;
        let mut before = 0;
        for (i, id) in ids.iter().enumerate() {
            before += self.tokenizer.token_bytes(*id)?.len();
            let rest = &ids[i + 1..];
            // The sentinel, with or without the tokenizer's own space.
            if before > SENTINEL.len() + 3 {
                return None;
            }
            if self.spells(rest, text) {
                return Some(rest.to_vec());
            }
        }
        None
    }

    fn spells(&self, ids: &[TokenId], text: &str) -> bool {
        let mut rest = text.as_bytes();
        for id in ids {
            // The tree's bytes, in which special tokens are none of the text.
            if *id as usize >= self.trie.vocab_size() {
                return false;
            }
            match rest.strip_prefix(self.trie.token(*id)) {
                Some(after) if after.len() < rest.len() => rest = after,
                _ => return false,
            }
        }
        rest.is_empty()
    }
}

/// A token's bytes. Special tokens and those that end an answer get a mark before their name, which no
/// text can match; a grammar reaches them by id only.
fn word(tokenizer: &Tokenizer, id: u32, ends: &[u32]) -> Vec<u8> {
    let Some(bytes) = tokenizer.token_bytes(id) else { return Vec::new() };
    if tokenizer.is_special(id) || ends.contains(&id) {
        let name = tokenizer.token_text(id).unwrap_or_default().as_bytes();
        let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        word.extend_from_slice(&name[..name.len().min(MAX_TOKEN)]);
        return word;
    }
    // UTF-8 has no such byte, so these tokens are never text, and must not look like a mark.
    if bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) || bytes.len() > MAX_TOKEN {
        return Vec::new();
    }
    bytes.to_vec()
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            self.encode(text).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}
