//! The engine as one library: everything that the `tessera` program does, without its command line.
//!
//! A folder goes through four crates, each usable alone and re-exported here:
//!
//! | module | turns | into |
//! | --- | --- | --- |
//! | [`weights`] | bytes on disk | checked, named, quantised tensors, and back |
//! | [`compute`] | a program of operations and a batch of sequences | logits, on a backend |
//! | [`engine`] | a prompt | tokens and text: tokenizer, template, decoder, KV pages, sampler |
//! | [`hub`] | a name or an address | a checked folder in the local store |
//!
//! An answer from a folder on this machine:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::path::Path;
//! use tessera::compute::cpu::Cpu;
//! use tessera::engine::generate::generate;
//! use tessera::engine::machine::Machine;
//! use tessera::engine::model::Model;
//! use tessera::engine::open::ModelFiles;
//! use tessera::engine::plan::Room;
//! use tessera::engine::request::{EngineEvent, EngineOptions, EngineRequest};
//! use tessera::engine::template::{Message, RenderOptions, TemplateChoice};
//! use tessera::engine::text::Text;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let files = ModelFiles::open(Path::new("my-model-q4f16_1-MLC"))?;
//! let text = Text::open(&files, TemplateChoice::Auto)?;
//! let room = Room { context: Some(2048), sequences: 1, memory: None };
//! let model = Model::load(&files, &Cpu::default(), room)?;
//! for note in files.notes.iter().chain(&text.notes) {
//!     eprintln!("{note}"); // what had to be guessed
//! }
//! let mut machine = Machine::new(model, text.tokenizer.clone(), EngineOptions::one_by_one(true))?;
//!
//! let question = [Message::new("user", "Why is the sky blue?")];
//! let request = EngineRequest {
//!     prompt: text.chat_prompt(&question, &RenderOptions::answer())?,
//!     sampling: text.defaults.clone(),
//!     max_tokens: Some(256),
//!     stop: text.stop_strings(),
//!     stop_token_ids: text.stop_token_ids.clone(),
//!     begins_text: true,
//!     ..EngineRequest::default()
//! };
//! let answer = generate(&mut machine, request, &mut |event| {
//!     if let EngineEvent::Token { text, .. } | EngineEvent::Done { text, .. } = event {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n({} tokens, {})", answer.token_ids.len(), answer.finish_reason.name());
//! # Ok(())
//! # }
//! ```
//!
//! `docs/api.md` in the repository has examples for verifying and converting.

pub use tessera_compute as compute;
pub use tessera_engine as engine;
pub use tessera_hub as hub;
pub use tessera_weights as weights;

#[cfg(feature = "server")]
pub mod server;

// The examples of that page are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/api.md")]
struct Api;
