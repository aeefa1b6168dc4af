//! `tessera perplexity`: how well a model predicts a text.

use crate::cli::PerplexityArgs;
use crate::load::load;
use crate::output::Output;
use anyhow::Context;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;
use tessera_compute::batch::Want;
use tessera_engine::generate::CHUNK;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Pick};
use tessera_engine::sampler::logprobs;
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::files;

/// Largest text that is read.
const MAX_TEXT: u64 = 256 << 20;

/// Runs the command: windows of the text, each begun anew; every token but a window's first is
/// predicted from those before it in the window.
pub fn run(args: PerplexityArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let file = args.file.display();
    let text = files::named(&args.file, MAX_TEXT).with_context(|| format!("cannot read {file}"))?;
    let text = String::from_utf8(text)
        .map_err(|e| anyhow::anyhow!("{file}: byte {} is not UTF-8", e.utf8_error().valid_up_to()))?;
    let mut loaded = load(&args.model, &args.compute, 1, out)?;
    let tokenizer = Tokenizer::from_folder(loaded.files.folder.path())?;
    let mut tokens = tokenizer.encode(&text, true)?;
    let all = tokens.len();
    tokens.truncate(args.max_tokens.map_or(all, |n| usize::try_from(n).unwrap_or(all)));
    if tokens.len() < all {
        out.note(format_args!("note: {} of the text's {all} tokens are read", tokens.len()));
    }
    let context = loaded.model.context();
    let window = args.window.map_or(512.min(context), |w| w as usize);
    anyhow::ensure!(window <= context, "--window is {window} tokens, the context holds {context}");
    let progress = out.progress(tokens.len() as u64, "tokens");
    let start = Instant::now();
    let (mut sum, mut count) = (0.0f64, 0usize);
    for part in tokens.chunks(window) {
        let mut sequence = Sequence::default();
        for (chunk, fed) in part.chunks(CHUNK).enumerate() {
            let feed = Feed {
                sequence: &mut sequence,
                tokens: fed,
                call: 0..part.len(),
                drafts: 0,
                pick: Pick::All,
            };
            let output = loaded.model.forward(&mut [feed], Want::Logits)?;
            let next = &part[chunk * CHUNK + 1..];
            let rows = output.logits.chunks_exact(loaded.files.config.vocab_size);
            for (row, &token) in rows.zip(next) {
                sum -= f64::from(logprobs(row, 0, token)?.1.logprob);
                count += 1;
            }
            progress.inc(fed.len() as u64);
        }
        loaded.model.release(sequence);
    }
    progress.finish_and_clear();
    anyhow::ensure!(count > 0, "{file}: at least two tokens are needed, found {}", tokens.len());
    let nll = sum / count as f64;
    let speed = tokens.len() as f64 / start.elapsed().as_secs_f64();
    if out.json {
        out.print_json(&json!({
            "perplexity": nll.exp(), "nll": nll, "tokens": tokens.len(), "predicted": count,
            "window": window, "tokens_per_s": speed,
        }))?;
    } else {
        out.line(format_args!(
            "perplexity {:.4} over {count} tokens in windows of {window} ({speed:.0} tokens/s)",
            nll.exp()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
