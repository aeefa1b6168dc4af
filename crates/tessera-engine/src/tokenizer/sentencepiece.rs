//! `tokenizer.model`: SentencePiece by kitoken, with special tokens handled here.

use super::bound::Shrink;
use super::bytes::Spelling;
use super::settings::Settings;
use super::{Backend, Entry, Opened, TokenizerError, contained};
use kitoken::convert::convert_sentencepiece;
use kitoken::{Kitoken, Normalization, SpecialTokenKind};
use sentencepiece_model::{SentencePieceModel, Type};
use std::collections::BTreeMap;

const FILE: &str = "tokenizer.model";

/// Pieces longer than this are refused: the library tries every way of cutting each in two.
const MAX_PIECE: usize = 4096;

pub(super) struct SentencePiece {
    model: Kitoken,
    /// For a text after a special token, where no space goes in front of it.
    inner: Option<Kitoken>,
    /// Texts of special tokens, longest first, by their first byte.
    special: BTreeMap<u8, Vec<(String, u32)>>,
}

pub(super) fn open(bytes: &[u8], settings: &Settings) -> Result<Opened, TokenizerError> {
    let invalid = |what: String| TokenizerError::invalid(FILE, what);
    let proto = SentencePieceModel::from_slice(bytes).map_err(|e| invalid(format!("not a model: {e}")))?;
    let normal = proto.pieces.iter().filter(|p| p.r#type() == Type::Normal && !p.piece().is_empty()).count();
    if normal == 0 {
        return Err(invalid("the model has no pieces".to_owned()));
    }
    for (id, piece) in proto.pieces.iter().enumerate() {
        if piece.piece().len() > MAX_PIECE || !piece.score().is_finite() {
            let found = format!("{} bytes and a score of {}", piece.piece().len(), piece.score());
            return Err(invalid(format!("piece {id}: at most {MAX_PIECE} bytes, found {found}")));
        }
    }

    let (model, inner) = contained(|| {
        let definition = convert_sentencepiece(bytes).map_err(|e| e.to_string())?;
        // Hugging Face's tokenizers of 2023 and before ("legacy", the default) treat a text after a
        // special token like one at the beginning.
        let inner = match settings.legacy {
            Some(false) => {
                let mut bare = definition.clone();
                bare.config.normalization.retain(|step| !matches!(step, Normalization::Extend { .. }));
                Some(Kitoken::from_definition(bare).map_err(|e| e.to_string())?)
            }
            _ => None,
        };
        let model = Kitoken::from_definition(definition).map_err(|e| e.to_string())?;
        Ok::<_, String>((model, inner))
    })
    .and_then(|r| r)
    .map_err(invalid)?;

    let id_of = |id: i32| u32::try_from(id).ok().filter(|id| (*id as usize) < proto.pieces.len());
    let mut entries = Vec::with_capacity(proto.pieces.len());
    let mut special = BTreeMap::new();
    for (id, piece) in (0u32..).zip(&proto.pieces) {
        let kind = piece.r#type();
        let marks = matches!(kind, Type::Control | Type::Unknown);
        let bytes = match kind {
            Type::Unknown => proto.trainer().map_or(" \u{2047} ", |t| t.unk_surface()).as_bytes().to_vec(),
            Type::Byte | Type::Normal | Type::UserDefined | Type::Unused => {
                Spelling::ByteFallback.bytes(piece.piece())
            }
            Type::Control => piece.piece().as_bytes().to_vec(),
        };
        if marks {
            special.insert(piece.piece().to_owned(), id);
        }
        entries.push((id, Entry { text: piece.piece().to_owned(), bytes, special: marks }));
    }
    for (id, added) in &settings.added {
        special.insert(added.content.clone(), *id);
        let bytes = added.content.as_bytes().to_vec();
        entries.push((*id, Entry { text: added.content.clone(), bytes, special: added.special }));
    }
    let mut by_first: BTreeMap<u8, Vec<(String, u32)>> = BTreeMap::new();
    for (text, id) in special {
        if let Some(first) = text.bytes().next() {
            by_first.entry(first).or_default().push((text, id));
        }
    }
    for texts in by_first.values_mut() {
        texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    let bos = proto.trainer().and_then(|t| id_of(t.bos_id()));
    let eos = proto.trainer().and_then(|t| id_of(t.eos_id()));
    let strip_space_in_decode = proto.normalizer().is_none_or(|n| n.add_dummy_prefix());
    // Llama's kind: nothing is normalised, and what is unknown is spelled in bytes.
    let plain = proto
        .normalizer()
        .is_some_and(|n| n.precompiled_charsmap().is_empty() && !n.remove_extra_whitespaces.unwrap_or(true));
    let shrink = (plain && proto.trainer().is_some_and(|t| t.byte_fallback()))
        .then_some(Shrink { factor: 1, spaces: false });
    let backend = Backend::SentencePiece(Box::new(SentencePiece { model, inner, special: by_first }));
    Ok(Opened { backend, entries, strip_space_in_decode, shrink, bos, eos, notes: Vec::new() })
}

impl SentencePiece {
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut start = 0;
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at) {
            let found = self.special.get(byte).and_then(|texts| {
                texts.iter().find(|(special, _)| text.as_bytes()[at..].starts_with(special.as_bytes()))
            });
            match found {
                Some((special, id)) => {
                    self.encode_part(&text[start..at], start == 0, ids)?;
                    ids.push(*id);
                    at += special.len();
                    start = at;
                }
                None => at += 1,
            }
        }
        self.encode_part(&text[start..], start == 0, ids)
    }

    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_part(text, true, &mut ids)?;
        Ok(ids)
    }

    fn encode_part(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let model = match &self.inner {
            Some(inner) if !first => inner,
            _ => &self.model,
        };
        // Pieces that the model's author defined are words like others; control pieces are not text.
        let words: &[SpecialTokenKind] = &[SpecialTokenKind::Priority];
        let part = contained(|| model.encode(text, words))
            .and_then(|result| result.map_err(|e| e.to_string()))
            .map_err(|what| TokenizerError::Encode { len: text.len(), what })?;
        ids.extend(part);
        Ok(())
    }
}
