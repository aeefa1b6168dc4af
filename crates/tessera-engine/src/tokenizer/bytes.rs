//! From a token's spelling in the vocabulary to the bytes that it stands for.

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet: each byte is one printable character.
    ByteLevel,
    /// `▁` is a space, `<0xNN>` a byte.
    ByteFallback,
    /// Words have a space before them, what goes on with a word has `##`. With `cleanup` punctuation has no space.
    WordPiece {
        /// As `cleanup` in the decoder of `tokenizer.json`.
        cleanup: bool,
    },
    /// As it is.
    Plain,
}

impl Spelling {
    /// The bytes of a token.
    pub fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            // A token with a character outside the alphabet was added as plain text.
            Spelling::ByteLevel => text
                .chars()
                .map(byte_of)
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| text.as_bytes().to_vec()),
            Spelling::ByteFallback => match fallback_byte(text) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            },
            Spelling::WordPiece { cleanup } => match text.strip_prefix("##") {
                Some(rest) => rest.as_bytes().to_vec(),
                None if cleanup && TIGHT.contains(&text) => text.as_bytes().to_vec(),
                None => format!(" {text}").into_bytes(),
            },
            Spelling::Plain => text.as_bytes().to_vec(),
        }
    }
}

/// Words that the clean-up of Hugging Face's WordPiece decoder puts against the word before.
const TIGHT: [&str; 9] = [".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"];

/// The byte of `<0xNN>`.
fn fallback_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    // `from_str_radix` takes a sign.
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The byte that a character of GPT-2's alphabet stands for: printable bytes are themselves, the
/// other 68 follow from U+0100 on, in order.
fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_alphabet_covers_each_byte_once() {
        let bytes: BTreeSet<u8> = (0..0x200u32).filter_map(char::from_u32).filter_map(byte_of).collect();
        let letters = (0..0x200u32).filter_map(char::from_u32).filter(|c| byte_of(*c).is_some()).count();
        assert_eq!((bytes.len(), letters), (256, 256));
        assert_eq!(Spelling::ByteLevel.bytes("ĠHiĊ"), b" Hi\n");
        assert_eq!(Spelling::ByteLevel.bytes("Ã©"), "é".as_bytes());
        assert_eq!(Spelling::ByteLevel.bytes("<｜x｜>"), "<｜x｜>".as_bytes());
    }

    #[test]
    fn pieces_of_words() {
        let text = |cleanup, pieces: &[&str]| {
            let bytes = pieces.iter().flat_map(|piece| Spelling::WordPiece { cleanup }.bytes(piece));
            String::from_utf8(bytes.collect()).unwrap()
        };
        assert_eq!(text(true, &["em", "##bed", "##ding", "it", "."]), " embedding it.");
        assert_eq!(text(false, &["em", "##bed", "."]), " embed .");
    }

    #[test]
    fn fallback_bytes_are_two_hex_digits() {
        assert_eq!(Spelling::ByteFallback.bytes("<0xE2>"), [0xe2]);
        assert_eq!(Spelling::ByteFallback.bytes("<0x+1>"), b"<0x+1>");
        assert_eq!(Spelling::ByteFallback.bytes("▁▁a"), b"  a");
    }
}
