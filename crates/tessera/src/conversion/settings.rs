//! That no setting of a checkpoint is lost on the way: every field of its configs is read, or has no effect, or is
//! told, or refused; and the config that was made is read back as `run` reads it.

use super::Summary;
use crate::checkpoint::Checkpoint;
use crate::faults::runs;
use crate::output::{Output, hinted};
use serde_json::Value;
use tessera_engine::text::sampling_defaults;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::known::{self, Contradiction};
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
    "max_length",
    "max_new_tokens",
    "use_cache",
    "cache_implementation",
    "trust_remote_code",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict_in_generate",
];

fn refuse(error: &ConfigError) -> anyhow::Error {
    hinted(
        format!("config.json: {error}"),
        "a folder with this setting left out would compute something else; correct the config if it is wrong",
    )
}

/// What a config says that a family that runs cannot compute.
pub fn refuse_config(checkpoint: &Checkpoint, model_type: &str) -> anyhow::Result<()> {
    if runs(model_type) {
        ModelConfig::from_hf(&checkpoint.config).map_err(|e| refuse(&e))?;
    }
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
    refuse_config(checkpoint, model_type)?;
    // Families that are converted only: what MLC makes of them is MLC's.
    for Contradiction { field, found, supported } in findings.contradictions {
        summary.note(
            out,
            format!("config.json: {field} is {found}; MLC's {model_type} has no place for it and computes {supported}"),
        );
    }
    if let Some(note) = known::unknown_note("config.json", &findings.unknown) {
        summary.note(out, note);
    }
    let Some(generation) = &checkpoint.generation_config else {
        return numbers("config.json", &checkpoint.config);
    };
    let Some(map) = generation.as_object() else {
        return Err(hinted(
            format!("generation_config.json: expected an object, found {}", short(generation)),
            "fetch this file again, or remove it",
        ));
    };
    numbers("generation_config.json", generation)?;
    numbers("config.json", &checkpoint.config)?;
    let silent = |key: &str, value: &Value| {
        value.is_null()
            || key.starts_with('_')
            || SAMPLING.contains(&key)
            || KNOWN.contains(&key)
            || key == "do_sample" && value == true
    };
    let left: Vec<&str> = map.iter().filter(|(k, v)| !silent(k, v)).map(|(k, _)| k.as_str()).collect();
    if !left.is_empty() {
        summary.note(
            out,
            format!(
                "generation_config.json: {} left out: a chat config has no place for it",
                left.join(", ")
            ),
        );
    }
    Ok(())
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
    if !runs(model_type) {
        return Ok(());
    }
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
