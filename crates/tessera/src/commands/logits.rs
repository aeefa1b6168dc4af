//! `tessera logits`: raw logits of a prompt, as one f32 tensor in a safetensors file.

use crate::cli::LogitsArgs;
use crate::load::load;
use crate::output::Output;
use anyhow::Context;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tessera_compute::batch::Want;
use tessera_engine::generate::CHUNK;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Pick};

/// Runs the command.
pub fn run(args: LogitsArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let mut loaded = load(&args.model, &args.compute, 1, out)?;
    let vocab = loaded.files.config.vocab_size;
    let mut sequence = Sequence::default();
    let mut logits: Vec<u8> = Vec::new();
    for tokens in args.tokens.chunks(CHUNK) {
        let prompt_len = args.tokens.len();
        let feed = Feed { sequence: &mut sequence, tokens, call: 0..prompt_len, drafts: 0, pick: Pick::All };
        let output = loaded.model.forward(&mut [feed], Want::Logits)?;
        logits.extend(output.logits.iter().flat_map(|x| x.to_le_bytes()));
    }
    let shape = vec![args.tokens.len(), vocab];
    let view = TensorView::new(Dtype::F32, shape.clone(), &logits)?;
    let bytes = safetensors::serialize([("logits", view)], None)?;
    write_whole(&args.out, &bytes).with_context(|| format!("cannot write {}", args.out.display()))?;
    if out.json {
        out.print_json(&json!({ "file": args.out, "tensor": "logits", "dtype": "F32", "shape": shape }))?;
    } else {
        out.line(format_args!("{}: logits f32 [{}, {vocab}]", args.out.display(), shape[0]))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file appears under its name only when it is whole. What a killed process leaves is the file `NAME.tmp`,
/// which the next one to the same place takes over; a lock says that its process lives.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let file = loop {
        let file = File::options().write(true).create(true).truncate(false).open(&temporary)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let taken = format!("{} is being written by another process", temporary.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, taken));
        }
        // Between its opening and its locking another process may have given it the final name.
        if temporary.exists() {
            break file;
        }
    };
    let written = file
        .set_len(0)
        .and_then(|()| (&file).write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
