//! `tokenizer.model`, SentencePiece's `ModelProto`, read as far as GGUF has a place for it.

use super::vocab::{MAX_TOKEN, TokenType};

/// Pieces of a model with how it was made.
pub(crate) struct SpmModel {
    /// Text, score and type; the index is the id.
    pub pieces: Vec<(String, f32, TokenType)>,
    /// Whether it is a BPE.
    pub bpe: bool,
    /// Whether a space goes before the first word.
    pub space_prefix: bool,
    /// Whether runs of spaces become one.
    pub trims: bool,
    /// Whether text goes through a table of normalisations first.
    pub normalises: bool,
}

impl SpmModel {
    /// Reads the file (`sentencepiece_model.proto`); what it says otherwise is passed over.
    pub fn parse(bytes: &[u8]) -> Result<SpmModel, String> {
        let mut model =
            SpmModel { pieces: Vec::new(), bpe: false, space_prefix: true, trims: true, normalises: false };
        for field in fields(bytes) {
            match field? {
                (1, Wire::Bytes(piece)) => model.pieces.push(self::piece(piece, model.pieces.len())?),
                (2, Wire::Bytes(trainer)) => {
                    for field in fields(trainer) {
                        if let (3, Wire::Int(kind)) = field? {
                            model.bpe = kind == 2;
                        }
                    }
                }
                (3, Wire::Bytes(normalizer)) => {
                    for field in fields(normalizer) {
                        match field? {
                            (2, Wire::Bytes(table)) => model.normalises = !table.is_empty(),
                            (3, Wire::Int(flag)) => model.space_prefix = flag != 0,
                            (4, Wire::Int(flag)) => model.trims = flag != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("it has no pieces; fetch it again".to_owned());
        }
        Ok(model)
    }
}

fn piece(bytes: &[u8], id: usize) -> Result<(String, f32, TokenType), String> {
    let (mut text, mut score, mut ty) = (String::new(), 0.0, TokenType::Normal);
    for field in fields(bytes) {
        match field? {
            (1, Wire::Bytes(piece)) if piece.len() <= MAX_TOKEN => {
                text = String::from_utf8(piece.to_vec()).map_err(|_| format!("piece {id} is not UTF-8"))?;
            }
            (1, Wire::Bytes(piece)) => {
                return Err(format!("piece {id} has {} bytes, at most {MAX_TOKEN} are read", piece.len()));
            }
            (2, Wire::Four(bits)) => score = f32::from_bits(bits),
            (3, Wire::Int(kind)) => {
                ty = TokenType::from_id(kind)
                    .ok_or_else(|| format!("piece {id} has type {kind}, expected 1 to 6"))?;
            }
            _ => {}
        }
    }
    Ok((text, score, ty))
}

/// A field's value by its wire type.
enum Wire<'a> {
    Int(u64),
    Eight,
    Bytes(&'a [u8]),
    Four(u32),
}

/// The fields of a message, by number.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), String>> {
    std::iter::from_fn(move || {
        (!bytes.is_empty()).then(|| {
            let field = field(&mut bytes);
            if field.is_none() {
                bytes = &[];
            }
            field.ok_or_else(|| "it is not a SentencePiece model; fetch it again".to_owned())
        })
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = varint(bytes)?;
    let value = match key & 7 {
        0 => Wire::Int(varint(bytes)?),
        1 => {
            bytes.split_off(..8)?;
            Wire::Eight
        }
        2 => {
            let len = usize::try_from(varint(bytes)?).ok()?;
            Wire::Bytes(bytes.split_off(..len)?)
        }
        5 => Wire::Four(u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((key >> 3, value))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        out |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(out);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_an_error_and_never_a_panic() {
        // One piece "a" of score 1, then a trainer that says BPE.
        let whole = [10, 8, 10, 1, b'a', 21, 0, 0, 128, 63, 18, 2, 24, 2];
        let model = SpmModel::parse(&whole).unwrap();
        assert_eq!(model.pieces, [("a".to_owned(), 1.0, TokenType::Normal)]);
        assert!(model.bpe && model.space_prefix && model.trims && !model.normalises);
        for len in 0..whole.len() {
            // A cut between the two messages leaves a model that is not said to be a BPE.
            assert_eq!(SpmModel::parse(&whole[..len]).is_ok(), len == 10, "cut to {len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = SpmModel::parse(&bytes);
        }
        assert!(SpmModel::parse(&[0xff; 20]).is_err());
    }
}
