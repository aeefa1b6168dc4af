//! The vocabulary in `tokenizer.ggml.*`, checked.

use std::collections::HashMap;

use super::error::GgufError;
use super::header::Gguf;
use super::value::required;

/// Longest token, in bytes. The longest in use are runs of some hundred spaces.
pub(super) const MAX_TOKEN: usize = 4096;

/// SentencePiece's piece types, which GGUF uses for all tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl TokenType {
    /// By its number; GGUF's 0 is a token like any.
    pub(super) fn from_id(id: u64) -> Option<TokenType> {
        use TokenType::*;
        [Normal, Normal, Unknown, Control, UserDefined, Unused, Byte].get(usize::try_from(id).ok()?).copied()
    }
}

/// Tokens with their types and roles. The index of a token is its id.
pub(super) struct Vocab {
    pub tokens: Vec<String>,
    pub types: Vec<TokenType>,
    pub ids: HashMap<String, u32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    /// End of turn, where it is not the end of text.
    pub eot: Option<u32>,
}

impl Vocab {
    pub fn parse(gguf: &Gguf) -> Result<Vocab, GgufError> {
        let key = "tokenizer.ggml.tokens";
        let list = required(gguf.meta_strings(key)?, key)?;
        let mut tokens = Vec::new();
        let mut ids = HashMap::new();
        for (i, token) in list.iter().enumerate() {
            if token.len() > MAX_TOKEN {
                return Err(GgufError::Limit {
                    what: format!("the length of token {i}"),
                    found: token.len() as u64,
                    limit: MAX_TOKEN as u64,
                });
            }
            // Some files hold empty tokens for unused ids; llama.cpp names them like this.
            let token = if token.is_empty() { format!("[EMPTY_{i}]") } else { token.clone() };
            let id =
                u32::try_from(i).map_err(|_| tokenizer(format!("{} tokens are too many", list.len())))?;
            if let Some(first) = ids.insert(token.clone(), id) {
                return Err(tokenizer(format!("token {token:?} has two ids, {first} and {id}")));
            }
            tokens.push(token);
        }
        let types = types(gguf, tokens.len())?;
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.meta_u32(&key)? {
                Some(id) if id as usize >= tokens.len() => Err(GgufError::BadValue {
                    key,
                    found: id.to_string(),
                    what: format!("there are {} tokens", tokens.len()),
                }),
                id => Ok(id),
            }
        };
        let (bos, eos, unk) = (id("bos")?, id("eos")?, id("unknown")?);
        let (pad, eot) = (id("padding")?, id("eot")?);
        Ok(Vocab { types, ids, bos, eos, unk, pad, eot, tokens })
    }

    /// The token's text; the id is one of [`Vocab`]'s fields, which were checked.
    pub fn text(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("", String::as_str)
    }

    /// The id, if it is that of a control token.
    pub fn control(&self, id: u32) -> Option<u32> {
        (self.types.get(id as usize) == Some(&TokenType::Control)).then_some(id)
    }

    /// The first token of type unknown.
    pub fn unknown(&self) -> Option<u32> {
        self.types.iter().zip(0u32..).find(|(ty, _)| **ty == TokenType::Unknown).map(|(_, id)| id)
    }

    /// Tokens that are recognised in text as a whole, with whether they are special (dropped from
    /// output) or just words that the user defined.
    pub fn added(&self) -> impl Iterator<Item = (u32, &str, bool)> {
        let roles = [self.bos, self.eos, self.pad, self.eot];
        self.tokens.iter().zip(&self.types).zip(0u32..).filter_map(move |((token, ty), id)| {
            let special = matches!(ty, TokenType::Control | TokenType::Unknown) || roles.contains(&Some(id));
            (special || *ty == TokenType::UserDefined).then_some((id, token.as_str(), special))
        })
    }
}

fn types(gguf: &Gguf, n: usize) -> Result<Vec<TokenType>, GgufError> {
    let key = "tokenizer.ggml.token_type";
    let Some(list) = gguf.meta_u32s(key)? else { return Ok(vec![TokenType::Normal; n]) };
    same_len(key, list.len(), n)?;
    list.iter()
        .enumerate()
        .map(|(i, &ty)| {
            let unknown = || tokenizer(format!("token {i} has type {ty}, expected 0 to 6"));
            TokenType::from_id(ty.into()).ok_or_else(unknown)
        })
        .collect()
}

/// Whether a list has one entry for each token.
pub(super) fn same_len(key: &str, found: usize, tokens: usize) -> Result<(), GgufError> {
    if found == tokens {
        return Ok(());
    }
    Err(GgufError::BadValue {
        key: key.to_string(),
        found: format!("an array of {found}"),
        what: format!("there are {tokens} tokens"),
    })
}

pub(super) fn tokenizer(what: String) -> GgufError {
    GgufError::Tokenizer { what }
}
