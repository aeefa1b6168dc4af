//! Text to token ids, and token ids to raw bytes.
//!
//! Three sorts of files are read: `tokenizer.json` (Hugging Face), `tokenizer.model` (SentencePiece),
//! and `vocab.json` with `merges.txt` (byte-level BPE). Whatever the sort, every token's bytes are put
//! into a table once, and decoding is done from that table: streams, stop strings and grammars all
//! need bytes, which no tokenizer library hands out.

mod bound;
mod bytes;
mod hf;
mod sentencepiece;
mod settings;
mod steps;

use bound::Shrink;
use settings::Settings;
use std::collections::HashMap;

/// A tokenizer that cannot be opened, or a text that it cannot encode.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// None of the files is there.
    #[error(
        "no tokenizer: looked for tokenizer.json, tokenizer.model, and vocab.json with merges.txt in {place}"
    )]
    Missing {
        /// Where they were looked for.
        place: String,
    },
    /// A file that cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file larger than any real one.
    #[error("{file}: {found} bytes, at most {limit} are read")]
    TooLarge {
        /// The file.
        file: String,
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A file that is not what its name says.
    #[error("{file}: {what}")]
    Invalid {
        /// The file.
        file: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A text that cannot be encoded.
    #[error("cannot encode a text of {len} bytes: {what}")]
    Encode {
        /// Length of the text.
        len: usize,
        /// What the tokenizer says.
        what: String,
    },
}

impl TokenizerError {
    fn invalid(file: &'static str, what: impl std::fmt::Display) -> TokenizerError {
        TokenizerError::Invalid { file, what: what.to_string() }
    }
}

/// Longest tokenizer file that is read; the largest known ones are about 35 MB.
const MAX_FILE: u64 = 256 << 20;

/// Most ids that no token has: there is a table with a place for each id up to the largest.
const MAX_UNUSED: u64 = 1 << 18;

/// One token.
#[derive(Clone, Debug)]
struct Entry {
    /// The text in the vocabulary's own spelling.
    text: String,
    /// The bytes that it stands for.
    bytes: Vec<u8>,
    /// Whether it is markup rather than text.
    special: bool,
}

enum Backend {
    Hf(Box<hf::HfTokenizer>),
    SentencePiece(Box<sentencepiece::SentencePiece>),
}

/// A tokenizer with the bytes of all its tokens.
pub struct Tokenizer {
    backend: Backend,
    table: Vec<Option<Entry>>,
    ids: HashMap<String, u32>,
    settings: Settings,
    bos: Option<u32>,
    eos: Option<u32>,
    /// What is put around a text, where that is not for `tokenizer.json` to say.
    around: Option<(Option<u32>, Option<u32>)>,
    strip_space_in_decode: bool,
    /// What a text may lose before it is cut, where that is known, and bytes of the longest token.
    shrink: Option<Shrink>,
    longest: usize,
    notes: Vec<String>,
}

/// What a backend gives when it is opened.
struct Opened {
    backend: Backend,
    entries: Vec<(u32, Entry)>,
    strip_space_in_decode: bool,
    shrink: Option<Shrink>,
    bos: Option<u32>,
    eos: Option<u32>,
    notes: Vec<String>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model folder.
    #[cfg(feature = "fs")]
    pub fn from_folder(folder: impl AsRef<std::path::Path>) -> Result<Tokenizer, TokenizerError> {
        let folder = folder.as_ref();
        let read = |name: &str| -> Result<Option<Vec<u8>>, TokenizerError> {
            let path = folder.join(name);
            tessera_weights::files::read(&path, MAX_FILE)
                .map_err(|source| TokenizerError::Io { file: path.display().to_string(), source })
        };
        Tokenizer::open(read, &folder.display().to_string())
    }

    /// Opens a tokenizer from files that the caller can look up by name.
    pub fn from_files(lookup: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Tokenizer, TokenizerError> {
        let read = |name: &str| match lookup(name) {
            Some(bytes) if bytes.len() as u64 > MAX_FILE => {
                let found = bytes.len() as u64;
                Err(TokenizerError::TooLarge { file: name.to_owned(), found, limit: MAX_FILE })
            }
            bytes => Ok(bytes),
        };
        Tokenizer::open(read, "the given files")
    }

    fn open(
        read: impl Fn(&str) -> Result<Option<Vec<u8>>, TokenizerError>,
        place: &str,
    ) -> Result<Tokenizer, TokenizerError> {
        let settings = Settings::read(&read)?;
        let opened = if let Some(json) = read("tokenizer.json")? {
            hf::open(&json, "tokenizer.json")?
        } else if let Some(model) = read("tokenizer.model")? {
            sentencepiece::open(&model, &settings)?
        } else if let (Some(vocab), Some(merges)) = (read("vocab.json")?, read("merges.txt")?) {
            hf::open_vocab_and_merges(&vocab, &merges, &settings)?
        } else {
            return Err(TokenizerError::Missing { place: place.to_owned() });
        };
        Tokenizer::build(opened, settings)
    }

    fn build(opened: Opened, settings: Settings) -> Result<Tokenizer, TokenizerError> {
        let file = opened.backend.file();
        let tokens = opened.entries.len() as u64;
        let largest = opened.entries.iter().max_by_key(|(id, _)| *id);
        let Some((largest, entry)) = largest else { return Err(TokenizerError::invalid(file, "no tokens")) };
        let (largest, limit) = (*largest, tokens + MAX_UNUSED);
        if u64::from(largest) > limit {
            let known = settings.added.get(&largest).is_some_and(|added| added.content == entry.text);
            let from = if known && file != "tokenizer.json" { " (from the files beside it)" } else { "" };
            let what = format!(
                "the token {:?}{from} has the id {largest}; with {tokens} tokens the largest that is taken is {limit}",
                entry.text
            );
            return Err(TokenizerError::invalid(file, what));
        }
        let mut table: Vec<Option<Entry>> = vec![None; largest as usize + 1];
        let mut ids = HashMap::with_capacity(opened.entries.len());
        for (id, entry) in opened.entries {
            ids.insert(entry.text.clone(), id);
            table[id as usize] = Some(entry);
        }
        let find = |text: &Option<String>| text.as_ref().and_then(|t| ids.get(t.as_str()).copied());
        let bos = find(&settings.bos_token).or(opened.bos);
        let eos = find(&settings.eos_token).or(opened.eos);
        // A token that the class would have to add and that is not there leaves it to the file.
        let around = settings.added_by_class().and_then(|(first, last)| {
            let wanted = |add: bool, id: Option<u32>| if add { id.map(Some) } else { Some(None) };
            Some((wanted(first, find(&settings.bos_token))?, wanted(last, find(&settings.eos_token))?))
        });
        let mut notes = opened.notes;
        for (id, added) in &settings.added {
            if ids.get(&added.content) != Some(id) {
                notes.push(format!(
                    "tokenizer_config.json says that {:?} has the id {id}, {file} does not",
                    added.content
                ));
            }
        }
        let longest = table.iter().flatten().map(|e| e.bytes.len().max(e.text.len())).max().unwrap_or(0);
        Ok(Tokenizer {
            backend: opened.backend,
            shrink: opened.shrink,
            longest: longest.max(1),
            table,
            ids,
            settings,
            bos,
            eos,
            around,
            strip_space_in_decode: opened.strip_space_in_decode,
            notes,
        })
    }

    /// Token ids of a text. The text of special tokens is recognised inside it. With `add_special`
    /// the tokens that the tokenizer itself puts around a text (a first token, most often) are added;
    /// prompts that come from a chat template bring their own.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        match &self.backend {
            Backend::Hf(hf) => match self.around.filter(|_| add_special) {
                None => hf.encode(text, add_special),
                Some((first, last)) => {
                    let mut ids = Vec::from_iter(first);
                    ids.extend(hf.encode(text, false)?);
                    ids.extend(last);
                    Ok(ids)
                }
            },
            Backend::SentencePiece(sp) => {
                let mut ids = Vec::new();
                if add_special && self.settings.add_bos_token.unwrap_or(true) {
                    ids.extend(self.bos);
                }
                sp.encode(text, &mut ids)?;
                if add_special && self.settings.add_eos_token.unwrap_or(false) {
                    ids.extend(self.eos);
                }
                Ok(ids)
            }
        }
    }

    /// A number of tokens that the text has at the very least, by its length alone; 0 where a length says
    /// nothing. It costs nothing beside [`Tokenizer::encode`].
    pub fn least_tokens(&self, text: &str) -> usize {
        self.shrink.map_or(0, |shrink| shrink.least(text) / self.longest)
    }

    /// Token ids of a text in which nothing is special: `</s>` is four characters. Added tokens that
    /// are not flagged special (runs of spaces, say) are recognised all the same.
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.backend {
            Backend::Hf(hf) => hf.encode_ordinary(text),
            Backend::SentencePiece(sp) => sp.encode_ordinary(text),
        }
    }

    /// The bytes that a token stands for; `None` for an id that no token has.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.entry(id).map(|e| e.bytes.as_slice())
    }

    /// A token in the vocabulary's own spelling, for display.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.entry(id).map(|e| e.text.as_str())
    }

    /// Whether a token is markup rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|e| e.special)
    }

    /// The id of a token in the vocabulary's own spelling.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// Number of tokens; what MLC calls the active vocabulary.
    pub fn active_vocab_size(&self) -> usize {
        self.table.iter().flatten().count()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the first space of a decoded text is no part of it.
    pub fn strip_space_in_decode(&self) -> bool {
        self.strip_space_in_decode
    }

    /// What had to be assumed or does not fit together, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The text of a whole sequence, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for id in ids.iter().filter(|id| !self.is_special(**id)) {
            bytes.extend_from_slice(self.token_bytes(*id).unwrap_or("\u{fffd}".as_bytes()));
        }
        let start = usize::from(self.strip_space_in_decode && bytes.first() == Some(&b' '));
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.table.get(id as usize)?.as_ref()
    }
}

impl Backend {
    fn file(&self) -> &'static str {
        match self {
            Backend::Hf(hf) => hf.file,
            Backend::SentencePiece(_) => "tokenizer.model",
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} tokens)", self.backend.file(), self.active_vocab_size())
    }
}

/// Runs code of a tokenizer library. Their checks of hostile files are not complete, so a panic in
/// there becomes an error here.
fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|cause| {
        let text = cause
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| cause.downcast_ref::<&str>().copied());
        format!("the tokenizer library failed: {}", text.unwrap_or("no message"))
    })
}
