//! A model folder that comes in pieces: small files, the manifest, then shards as they arrive, each into its place and
//! through its checksum.

use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use tessera_compute::backend::Backend;
use tessera_compute::cpu::Cpu;
use tessera_compute::program::Program;
use tessera_engine::decoder::program;
use tessera_engine::generate::CHUNK;
use tessera_engine::machine::Machine;
use tessera_engine::model::Model;
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::{Budget, Room};
use tessera_engine::request::EngineOptions;
use tessera_engine::template::TemplateChoice;
use tessera_engine::text::Text;
use tessera_engine::tokenizer::Tokenizer;
use tessera_openai::desk::Desk;
use tessera_openai::subject::Subject;
use tessera_weights::bytes::Bytes;
use tessera_weights::folder::Folder;
use tessera_weights::manifest::{MAX_MANIFEST_LEN, Manifest, Shard};
use tessera_weights::model::Description;

/// Files beside the shards that say something; those that a folder lacks are left out.
pub const FILES: &[&str] = &[
    "mlc-chat-config.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
];
/// Those that are read where there is no `tokenizer.json`.
pub const OTHER_TOKENIZERS: &[&str] = &["tokenizer.model", "vocab.json", "merges.txt"];

/// What keys, values and activations may take beside the weights, where there is room for more: a page that grows is
/// a page that is ended.
const BESIDE_WEIGHTS: u64 = 512 << 20;

/// Tokens of a step, where a model does not need its text whole: a page waits for a step before it can break an answer
/// off, and each row has room for its logits.
const ROWS: usize = 128;

/// The CPU, with so many threads.
pub fn cpu(threads: usize) -> Cpu {
    Cpu { threads, ..Cpu::default() }
}

/// Why a folder cannot be opened: a word for programs, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `manifest`, `memory`, `length`, `checksum`, `order`, `folder`, `tokenizer`, `model`, `options` or
    /// `endpoint`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Fault {
    /// With both.
    pub fn new(code: &'static str, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    /// As an object with `code` and `message`.
    pub fn json(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}

/// A folder of which not everything has come.
#[derive(Default)]
pub struct Opening {
    files: BTreeMap<String, Vec<u8>>,
    manifest: Option<Manifest>,
    shards: Vec<Place>,
    /// Bytes that could be had when the manifest came.
    free: u64,
}

/// Where a shard goes.
#[derive(Default)]
enum Place {
    #[default]
    Empty,
    Filling {
        bytes: Vec<u8>,
        md5: Md5,
    },
    Full(Bytes),
}

impl Opening {
    /// Takes a small file.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_owned(), bytes);
    }

    /// Takes the manifest, and says whether the model fits into so many bytes. The shards that it lists come next.
    ///
    /// # Errors
    /// One that cannot be read, and a model that is too large.
    pub fn manifest(&mut self, bytes: Vec<u8>, free: u64) -> Result<Vec<Shard>, Fault> {
        if bytes.len() as u64 > MAX_MANIFEST_LEN {
            let found = bytes.len();
            return Err(Fault::new(
                "manifest",
                format!("the manifest has {found} bytes, at most {MAX_MANIFEST_LEN} are read"),
            ));
        }
        let manifest = Manifest::parse(&bytes).map_err(|e| Fault::new("manifest", e.to_string()))?;
        let needed = manifest.stored_len();
        if needed > free {
            let mib = |n: u64| n.div_ceil(1 << 20);
            let message = format!(
                "the weights take {} MiB of memory, a page can have {} MiB: take a smaller model or one with fewer bits",
                mib(needed),
                mib(free)
            );
            return Err(Fault::new("memory", message));
        }
        let shards = manifest.shards().to_vec();
        self.shards = shards.iter().map(|_| Place::Empty).collect();
        self.manifest = Some(manifest);
        self.free = free;
        Ok(shards)
    }

    /// A shard and its place.
    fn at(&mut self, index: usize) -> Result<(&Shard, &mut Place), Fault> {
        let shards = self.manifest.as_ref().map_or(&[][..], Manifest::shards);
        let both = shards.get(index).zip(self.shards.get_mut(index));
        both.ok_or_else(|| Fault::new("order", format!("there is no shard {index}")))
    }

    /// Makes room for a shard, also for one that is to come again.
    ///
    /// # Errors
    /// Where there is too little memory.
    pub fn begin(&mut self, index: usize) -> Result<(), Fault> {
        let (shard, place) = self.at(index)?;
        // What came of it before goes first.
        *place = Place::Empty;
        let len = usize::try_from(shard.nbytes).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            let message = format!("{}: there is no memory for its {len} bytes", shard.path);
            return Err(Fault::new("memory", message));
        }
        *place = Place::Filling { bytes, md5: Md5::new() };
        Ok(())
    }

    /// Takes the next bytes of a shard.
    ///
    /// # Errors
    /// More than the manifest says.
    pub fn push(&mut self, index: usize, part: &[u8]) -> Result<(), Fault> {
        let (shard, place) = self.at(index)?;
        let Place::Filling { bytes, md5 } = place else { return Err(not_awaited(shard)) };
        if (bytes.len() + part.len()) as u64 > shard.nbytes {
            let message =
                format!("{}: more than the {} bytes that the manifest says", shard.path, shard.nbytes);
            return Err(Fault::new("length", message));
        }
        bytes.extend_from_slice(part);
        md5.update(part);
        Ok(())
    }

    /// Ends a shard: its length and checksum are those of the manifest, or it has to come again.
    ///
    /// # Errors
    /// Where they are not, with both values.
    pub fn end(&mut self, index: usize) -> Result<(), Fault> {
        let (shard, place) = self.at(index)?;
        let Place::Filling { bytes, md5 } = std::mem::take(place) else { return Err(not_awaited(shard)) };
        if bytes.len() as u64 != shard.nbytes {
            let (found, expected) = (bytes.len(), shard.nbytes);
            let message = format!("{}: {found} bytes came, the manifest says {expected}", shard.path);
            return Err(Fault::new("length", message));
        }
        let found: String = md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(expected) = shard.md5sum.as_ref().filter(|expected| **expected != found) {
            let message = format!("{}: its md5 is {found}, the manifest says {expected}", shard.path);
            return Err(Fault::new("checksum", message));
        }
        *place = Place::Full(Bytes::from_vec(bytes));
        Ok(())
    }

    /// What the files say, when all of them have come.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn read(self) -> Result<Read, Fault> {
        let Some(manifest) = self.manifest else {
            return Err(Fault::new("order", "the manifest has not come"));
        };
        let stored = manifest.stored_len();
        let mut shards = self.shards.into_iter();
        let folder = Folder::from_manifest(manifest, |_| match shards.next() {
            Some(Place::Full(bytes)) => Some(bytes),
            _ => None,
        });
        let folder = folder.map_err(|e| Fault::new("folder", e.to_string()))?;
        // A file that nobody fetched is no file that is not there.
        let unknown = RefCell::new(None);
        let read = |name: &str| {
            if !FILES.contains(&name) && !OTHER_TOKENIZERS.contains(&name) {
                unknown.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            self.files.get(name).cloned()
        };
        let description = Description::of_opened(&folder, &|name| Ok(read(name)));
        let files = ModelFiles::of(folder, description).map_err(|e| Fault::new("folder", e.to_string()))?;
        let tokenizer = Tokenizer::from_files(read).map_err(|e| Fault::new("tokenizer", e.to_string()))?;
        let text = Text::of(&files, tokenizer, TemplateChoice::Auto, &|name| Ok(read(name)));
        let text = text.map_err(|e| Fault::new("tokenizer", e.to_string()))?;
        if let Some(name) = unknown.take() {
            return Err(Fault::new(
                "folder",
                format!("{name} is read, and is not among the files that are fetched"),
            ));
        }
        Ok(Read { files, text, share: stored.saturating_add(BESIDE_WEIGHTS), free: self.free })
    }
}

/// A folder that was read.
pub struct Read {
    files: ModelFiles,
    text: Text,
    /// Bytes that the model may take where there are more, and those that there are in the page's own memory.
    share: u64,
    free: u64,
}

impl Read {
    /// What the model computes.
    ///
    /// # Errors
    /// Tensors that do not make one.
    pub fn program(&self) -> Result<Program, Fault> {
        let ModelFiles { folder, config, scheme, semantics, .. } = &self.files;
        let program = program(folder.manifest(), config, scheme, *semantics);
        program.map_err(|e| Fault::new("model", e.to_string()))
    }

    /// Tokens of a step.
    fn rows(&self) -> usize {
        if self.files.embeddings.encoder { CHUNK } else { ROWS }
    }

    /// Loads the model with room for so many sequences.
    ///
    /// # Errors
    /// What the device refuses, and what does not fit.
    pub fn model(&self, backend: &dyn Backend, sequences: usize) -> Result<Model, Fault> {
        // An adapter's memory is not told in a page.
        let free = if backend.name() == "gpu" { self.share } else { self.free };
        let memory = Some(Budget { free, share: self.share.min(free), fewer: true, rows: self.rows() });
        let room = Room { context: None, sequences, memory };
        let model = Model::load(&self.files, backend, room);
        model.map_err(|e| Fault::new("model", e.to_string()))
    }

    /// What answers with a model of [`Read::model`], for as many requests at once as it has sequences. They call it `name`.
    /// With it comes what a user should be told.
    ///
    /// # Errors
    /// More or fewer requests than can be.
    pub fn desk(self, model: Model, name: &str, sequences: usize) -> Result<(Desk, Vec<String>), Fault> {
        let rows = self.rows();
        let Read { files, text, .. } = self;
        let mut notes = files.notes;
        notes.extend(text.notes.iter().chain(model.notes()).cloned());
        let (tokenizer, subject) = (text.tokenizer.clone(), Subject::new(name.to_owned(), text, &model));
        let options =
            EngineOptions { max_sequences: sequences, max_batch_tokens: rows, ..EngineOptions::default() };
        let machine =
            Machine::new(model, tokenizer, options).map_err(|e| Fault::new("options", e.to_string()))?;
        Ok((Desk::new(machine, subject), notes))
    }
}

fn not_awaited(shard: &Shard) -> Fault {
    Fault::new("order", format!("{}: its bytes were not awaited", shard.path))
}
