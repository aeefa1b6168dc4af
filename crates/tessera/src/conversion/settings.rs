//! That no setting of a checkpoint is lost on the way: every field of its configs is read, or has no effect, or is
//! told, or refused; and the config that was made is read back as `run` reads it.

use super::Summary;
use crate::checkpoint::Checkpoint;
use crate::output::{Output, hinted};
use serde_json::Value;
use tessera_engine::text::sampling_defaults;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::known;
use tessera_weights::config::{ConfigError, ModelConfig};

/// Sampling settings that a chat config has a place for.
const SAMPLING: [&str; 5] =
    ["temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"];

/// Other fields of `generation_config.json` that are read, or that ask for nothing.
const KNOWN: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "transformers_version",
    "use_cache",
    "cache_implementation",
    "trust_remote_code",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict_in_generate",
];

/// Settings of an answer that older configs have in `config.json`, with the values that ask for nothing.
/// transformers reads them there where there is no `generation_config.json`.
const OLD_SAMPLING: [(&str, f64); 7] = [
    ("max_length", 20.0),
    ("min_length", 0.0),
    ("top_k", 50.0),
    ("min_p", 0.0),
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("no_repeat_ngram_size", 0.0),
];

fn refuse(error: &ConfigError) -> anyhow::Error {
    hinted(
        format!("config.json: {error}"),
        "a folder with this setting left out would compute something else; correct the config if it is wrong",
    )
}

/// What a config says that cannot be computed.
pub fn refuse_config(checkpoint: &Checkpoint) -> anyhow::Result<()> {
    ModelConfig::from_hf(&checkpoint.config).map_err(|e| refuse(&e))?;
    Ok(())
}

/// Before anything is written: what the configs ask for and nobody computes.
pub fn check(
    checkpoint: &Checkpoint,
    model_type: &str,
    summary: &mut Summary,
    out: &Output,
) -> anyhow::Result<()> {
    let findings = known::findings(model_type, &checkpoint.config);
    refuse_config(checkpoint)?;
    if let Some(note) = known::unknown_note("config.json", &findings.unknown) {
        summary.note(out, note);
    }
    if !checkpoint.unknown.is_empty() {
        let keys = checkpoint.unknown.join(", ");
        summary
            .note(out, format!("not known here and left out: {keys}; if texts need them, answers are wrong"));
    }
    let Some(generation) = &checkpoint.generation_config else {
        let old = |(key, nothing): &(&'static str, f64)| {
            let value = checkpoint.config.get(*key).filter(|v| !v.is_null())?;
            (value.as_f64() != Some(*nothing)).then_some(*key)
        };
        let mut left: Vec<&str> = OLD_SAMPLING.iter().filter_map(old).collect();
        left.extend(checkpoint.config.get("do_sample").filter(|v| *v == false).map(|_| "do_sample"));
        left_out("config.json", &left, summary, out);
        return numbers("config.json", &checkpoint.config);
    };
    let file = if checkpoint.kind == "GGUF" { "general.sampling" } else { "generation_config.json" };
    let Some(map) = generation.as_object() else {
        return Err(hinted(
            format!("{file}: expected an object, found {}", short(generation)),
            "fetch this file again, or remove it",
        ));
    };
    numbers(file, generation)?;
    numbers("config.json", &checkpoint.config)?;
    let silent = |key: &str, value: &Value| {
        value.is_null()
            || key.starts_with('_')
            || SAMPLING.contains(&key)
            || KNOWN.contains(&key)
            || key == "do_sample" && value == true
            // As long as the context is asks for nothing more.
            || key == "max_length" && Some(value) == checkpoint.config.get("max_position_embeddings")
    };
    let left: Vec<&str> = map.iter().filter(|(k, v)| !silent(k, v)).map(|(k, _)| k.as_str()).collect();
    left_out(file, &left, summary, out);
    Ok(())
}

fn left_out(file: &str, left: &[&str], summary: &mut Summary, out: &Output) {
    if !left.is_empty() {
        let left = left.join(", ");
        summary.note(out, format!("{file}: {left} left out: a chat config has no place for it"));
    }
}

/// Sampling settings are numbers: MLC takes its default for anything else, without a word.
fn numbers(file: &str, config: &Value) -> anyhow::Result<()> {
    for key in SAMPLING {
        if let Some(value) = config.get(key).filter(|v| !v.is_null() && !v.is_number()) {
            return Err(hinted(
                format!("{file}: {key}: expected a number, found {}", short(value)),
                format!("correct {file}, or remove the field"),
            ));
        }
    }
    Ok(())
}

/// The text of a chat config that was made of a checkpoint says the same as the checkpoint.
pub fn read_back(checkpoint: &Checkpoint, model_type: &str, text: &str) -> anyhow::Result<()> {
    let wrong = |why: String| {
        hinted(
            format!("the chat config that would be written cannot be used: {why}"),
            "correct this field in config.json or generation_config.json",
        )
    };
    let chat = ChatConfig::parse(text.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    sampling_defaults(Some(&chat)).map_err(|e| wrong(e.to_string()))?;
    let written = ModelConfig::from_mlc(&serde_json::from_str(text)?).map_err(|e| wrong(e.to_string()))?;
    let meant = ModelConfig::from_hf(&checkpoint.config).map_err(|e| refuse(&e))?;
    // Biases are seen in the tensors, and what was guessed is guessed again.
    let same = |c: ModelConfig| ModelConfig {
        guesses: Vec::new(),
        attention_bias: false,
        qkv_bias: false,
        mlp_bias: false,
        ..c
    };
    let (written, meant) = (same(written), same(meant));
    if written == meant {
        return Ok(());
    }
    let (written, meant) = (format!("{written:#?}"), format!("{meant:#?}"));
    let other = written.lines().zip(meant.lines()).find(|(a, b)| a != b).unwrap_or_default();
    Err(hinted(
        format!(
            "config.json means `{}`; MLC's {model_type} config has no place for it and would say `{}`",
            other.1.trim().trim_end_matches(','),
            other.0.trim().trim_end_matches(',')
        ),
        "a folder with this setting left out would compute something else; convert it as model_type llama if its \
         blocks are Llama's",
    ))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text }
}
