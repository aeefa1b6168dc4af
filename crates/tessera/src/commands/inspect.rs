//! `tessera inspect`: what is in a model folder.

use crate::checkpoint::{self, Checkpoint, MlcFolder, Model};
use crate::cli::InspectArgs;
use crate::models;
use crate::output::{Bytes, Output};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::ExitCode;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::ModelConfig;
use tessera_weights::convert::FolderModel;
use tessera_weights::folder::infer_scheme;
use tessera_weights::manifest::MANIFEST_NAMES;

/// Facts in the order in which they are shown; the text form leaves nulls out.
#[derive(Serialize, Default)]
struct Facts {
    #[serde(flatten)]
    facts: Map<String, Value>,
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_list: Option<Vec<TensorFact>>,
}

#[derive(Serialize)]
struct TensorFact {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: u64,
    file: String,
}

impl Facts {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.facts.insert(key.to_owned(), value.into());
    }
}

/// Prints what is there.
pub fn run(args: InspectArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let path = models::locate(&args.path)?;
    let mut facts = Facts::default();
    facts.put("path", path.display().to_string());
    match checkpoint::open(&path, true)? {
        Model::Mlc(mlc) => of_mlc(&mlc, args.tensors, &mut facts),
        Model::Checkpoint(checkpoint) => of_checkpoint(&checkpoint, &path, args.tensors, &mut facts),
    }
    if out.json {
        out.print_json(&facts)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (key, value) in facts.facts.iter().filter(|(_, v)| !v.is_null()) {
        let sized = key.contains("bytes");
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(n) if sized => n.as_u64().map_or(n.to_string(), |n| format!("{} ({n})", Bytes(n))),
            Value::Array(list) => {
                let texts = list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                texts.collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        out.line(format_args!("{:<22}{text}", key.replace('_', " ")))?;
    }
    for note in &facts.notes {
        out.line(format_args!("{:<22}{note}", "note"))?;
    }
    if let Some(list) = &facts.tensor_list {
        out.line("")?;
        let row = |t: &TensorFact| {
            vec![
                t.name.clone(),
                format!("{:?}", t.shape),
                t.dtype.clone(),
                t.bytes.to_string(),
                t.file.clone(),
            ]
        };
        let rows: Vec<_> = list.iter().map(row).collect();
        out.table(&["TENSOR", "SHAPE", "DTYPE", "BYTES", "FILE"], &[3], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_mlc(mlc: &MlcFolder, tensors: bool, facts: &mut Facts) {
    let folder = &mlc.folder;
    facts.put("kind", "MLC folder");
    let names: Vec<&str> =
        MANIFEST_NAMES.iter().copied().filter(|n| folder.path().join(n).is_file()).collect();
    let shape = |name: &str| folder.tensor(name).map(|t| t.shape.clone());
    let chat_json = mlc.chat_text.as_deref().and_then(|t| serde_json::from_slice::<Value>(t).ok());
    let stated = mlc.chat.as_ref().filter(|c| !c.model_config.is_empty()).and(chat_json.as_ref());
    let mut guesses = Vec::new();
    let config = match stated {
        Some(json) => ModelConfig::from_mlc(json).map(|mut config| {
            config.see_biases(&|name| folder.tensor(name).is_some());
            config
        }),
        None => ModelConfig::from_shapes(&shape),
    };
    match &config {
        Ok(config) => {
            guesses.extend(config.guesses.iter().cloned());
            of_config(config, facts);
        }
        Err(error) => {
            facts.put("architecture", mlc.chat.as_ref().and_then(|c| c.model_type.clone()));
            facts.notes.push(format!("the architecture cannot be run: {error}"));
        }
    }
    let inferred = infer_scheme(folder);
    let named = mlc.chat.as_ref().and_then(|c| c.quantization.clone());
    match (&named, &inferred) {
        (None, Ok(scheme)) => {
            guesses.push(format!("The quantisation is assumed to be {}, from the tensors.", scheme.name))
        }
        (Some(named), Ok(scheme)) if named != scheme.name => facts
            .notes
            .push(format!("mlc-chat-config.json says {named}, the tensors look like {}", scheme.name)),
        (_, Err(error)) => facts.notes.push(error.to_string()),
        _ => {}
    }
    facts.put("quantization", named.or_else(|| inferred.ok().map(|s| s.name.to_owned())));
    facts.put("tensors", folder.tensors().len());
    facts.put("shards", folder.manifest().shards().len());
    facts.put("bytes_on_disk", folder.stored_len());
    facts.put("bytes_in_memory", folder.memory_len());
    facts.put("manifests", json!(names));
    of_tokenizer(&mlc.files, facts);
    if let Some(chat) = &mlc.chat {
        of_chat(chat, facts);
    } else {
        facts.notes.push("no mlc-chat-config.json; what it would say is guessed".to_owned());
    }
    if let Ok(model) = FolderModel::of_folder(folder, mlc.chat.as_ref()) {
        facts.put("parameters", model.params.iter().map(|p| p.numel() as u64).sum::<u64>());
    }
    facts.notes.extend(folder.manifest().warnings().iter().map(ToString::to_string));
    facts.notes.extend(guesses);
    if tensors {
        let fact =
            |(t, r): (&tessera_weights::tensor::Tensor, &tessera_weights::manifest::Record)| TensorFact {
                name: t.name.clone(),
                shape: t.shape.clone(),
                dtype: match t.stored() == t.dtype {
                    true => t.dtype.to_string(),
                    false => format!("{} as {}", t.dtype, t.stored()),
                },
                bytes: t.bytes.len() as u64,
                file: folder.manifest().shards()[r.shard].path.clone(),
            };
        facts.tensor_list = Some(folder.tensors().zip(folder.manifest().records()).map(fact).collect());
    }
}

fn of_config(config: &ModelConfig, facts: &mut Facts) {
    facts.put("architecture", config.model_type.clone());
    facts.put("hidden_size", config.hidden_size);
    facts.put("intermediate_size", config.intermediate_size);
    facts.put("layers", config.num_hidden_layers);
    facts.put("heads", config.num_attention_heads);
    facts.put("kv_heads", config.num_key_value_heads);
    facts.put("head_dim", config.head_dim);
    facts.put("vocab_size", config.vocab_size);
    facts.put("context", config.context_window_size);
    facts.put("tied_embeddings", config.tie_word_embeddings);
    facts.put("rope_theta", config.rope_theta);
    facts.put("rope_scaling", format!("{:?}", config.rope_scaling));
    // Keys and values, two bytes each.
    let per_token =
        2 * 2 * config.num_hidden_layers as u64 * config.num_key_value_heads as u64 * config.head_dim as u64;
    facts.put("kv_bytes_per_token", per_token);
}

fn of_chat(chat: &ChatConfig, facts: &mut Facts) {
    match chat.conv_template.as_ref().map(|c| c.resolve()) {
        Some(Ok(template)) => {
            facts.put("conv_template", template.name.clone());
            facts.put("stop_strings", json!(template.stop_str));
        }
        Some(Err(error)) => facts.notes.push(error.to_string()),
        None => facts.notes.push("mlc-chat-config.json names no conv_template".to_owned()),
    }
    if let Ok(ids) = chat.stop_token_ids() {
        facts.put("stop_token_ids", json!(ids));
    }
    for key in &chat.unknown {
        facts.notes.push(format!("mlc-chat-config.json: unknown key {key}"));
    }
    for key in &chat.legacy {
        facts.notes.push(format!(
            "mlc-chat-config.json: key {key} is of the flow before 2024 and has no meaning now"
        ));
    }
}

fn of_tokenizer(files: &[(String, Vec<u8>)], facts: &mut Facts) {
    let has = |name: &str| checkpoint::find(files, name).is_some();
    let kind = match (has("tokenizer.json"), has("tokenizer.model")) {
        (true, true) => "tokenizer.json (and tokenizer.model)",
        (true, false) => "tokenizer.json",
        (false, true) => "tokenizer.model (SentencePiece)",
        (false, false) => {
            facts.notes.push("no tokenizer.json and no tokenizer.model".to_owned());
            "none"
        }
    };
    facts.put("tokenizer", kind);
}

fn of_checkpoint(checkpoint: &Checkpoint, path: &Path, tensors: bool, facts: &mut Facts) {
    let file = if checkpoint.kind == "GGUF" { "GGUF file" } else { "Hugging Face folder" };
    facts.put("kind", file);
    facts.put("quantization", checkpoint.quantised.clone());
    match ModelConfig::from_hf(&checkpoint.config) {
        Ok(config) => {
            of_config(&config, facts);
            facts.notes.extend(config.guesses);
        }
        Err(error) => {
            facts.put("architecture", checkpoint.config.get("model_type").cloned().unwrap_or(Value::Null));
            facts.notes.push(format!("the architecture cannot be run: {error}"));
        }
    }
    match &checkpoint.weights {
        None => facts.notes.push("no weights, only a config".to_owned()),
        Some(source) => {
            facts.put("tensors", source.tensors().len());
            let elements = |t: &tessera_weights::source::SourceTensor| {
                t.shape.iter().map(|&n| n as u64).product::<u64>()
            };
            facts.put("parameters", source.tensors().iter().map(elements).sum::<u64>());
            if tensors {
                let fact = |(i, t): (usize, &tessera_weights::source::SourceTensor)| TensorFact {
                    name: t.name.clone(),
                    shape: t.shape.clone(),
                    dtype: t.dtype.to_string(),
                    bytes: elements(t) * t.dtype.size() as u64,
                    file: source.file(i).to_owned(),
                };
                facts.tensor_list = Some(source.tensors().iter().enumerate().map(fact).collect());
            }
        }
    }
    facts.put("bytes_on_disk", disk_bytes(path));
    of_tokenizer(&checkpoint.files, facts);
    facts.notes.push(format!("convert it to run it: tessera convert {} OUT --quant q4f16_1", path.display()));
}

/// Length of the file, or of the weights in a folder.
fn disk_bytes(path: &Path) -> u64 {
    let is_weights = |p: &Path| p.extension().is_some_and(|e| e == "safetensors" || e == "gguf");
    let len = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    match std::fs::read_dir(path) {
        Err(_) => len(path),
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| is_weights(p)).map(|p| len(&p)).sum(),
    }
}
