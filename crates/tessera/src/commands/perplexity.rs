//! `tessera perplexity`: how well a model predicts a text.

use crate::cli::PerplexityArgs;
use crate::load::load;
use crate::output::Output;
use crate::quality::measure;
use anyhow::Context;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;
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
    let mut base = match &args.base {
        Some(name) => Some(load(name, &args.compute, 1, out)?),
        None => None,
    };
    if let Some(base) = &base {
        let (own, other) = (loaded.files.config.vocab_size, base.files.config.vocab_size);
        anyhow::ensure!(
            own == other,
            "{}: the vocabulary has {own} tokens, that of the base {other}",
            args.model
        );
    }
    let progress = out.progress(tokens.len() as u64, "tokens");
    let start = Instant::now();
    let windows: Vec<&[u32]> = tokens.chunks(window).collect();
    let sums = measure(&mut loaded.model, base.as_mut().map(|base| &mut base.model), &windows, &mut |n| {
        progress.inc(n as u64);
        Ok(())
    })?;
    progress.finish_and_clear();
    let count = sums.predicted;
    anyhow::ensure!(count > 0, "{file}: at least two tokens are needed, found {}", tokens.len());
    let nll = sums.mean(sums.nll);
    let speed = tokens.len() as f64 / start.elapsed().as_secs_f64();
    if out.json {
        let mut value = json!({
            "perplexity": nll.exp(), "nll": nll, "tokens": tokens.len(), "predicted": count,
            "window": window, "tokens_per_s": speed,
        });
        if base.is_some() {
            let base_nll = sums.mean(sums.base_nll);
            value["base"] = json!({
                "perplexity": base_nll.exp(), "nll": base_nll, "kl": sums.mean(sums.kl), "top1": sums.top1(),
            });
        }
        out.print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    out.line(format_args!(
        "perplexity {:.4} over {count} tokens in windows of {window} ({speed:.0} tokens/s)",
        nll.exp()
    ))?;
    if base.is_some() {
        out.line(format_args!(
            "the base {:.4}; KL to it {:.4} nats; the same likeliest token {:.1} % of the time",
            sums.mean(sums.base_nll).exp(),
            sums.mean(sums.kl),
            100.0 * sums.top1(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
