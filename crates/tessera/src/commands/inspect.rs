//! `tessera inspect`: what is in a model folder.

use crate::checkpoint::{self, Checkpoint, MlcFolder, Model};
use crate::cli::InspectArgs;
use crate::conversion;
use crate::faults::{Fault, Faults};
use crate::models;
use crate::output::{Bytes, Output};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::ExitCode;
use tessera_weights::arch::Semantics;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::ModelConfig;
use tessera_weights::folder::infer_scheme;
use tessera_weights::manifest::MANIFEST_NAMES;
use tessera_weights::verify::Defect;

/// Facts in the order in which they are shown; the text form leaves nulls out.
#[derive(Serialize, Default)]
struct Facts {
    #[serde(flatten)]
    facts: Map<String, Value>,
    notes: Vec<String>,
    /// What is wrong.
    defects: Vec<Defect>,
    #[serde(skip)]
    hint: Option<String>,
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

    fn judge(&mut self, all: Faults) {
        self.notes.extend(all.notes);
        for Fault { defect, hint } in all.faults {
            self.hint = self.hint.take().or(hint);
            self.defects.push(defect);
        }
    }
}

/// Prints what is there, and then what is wrong with it; exit 1 if anything is.
pub fn run(args: InspectArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let path = models::locate(&args.path)?;
    let mut facts = Facts::default();
    facts.put("path", path.display().to_string());
    match checkpoint::open(&path, true)? {
        Model::Mlc(mlc) => of_mlc(&mlc, args.tensors, &mut facts),
        Model::Checkpoint(checkpoint) => of_checkpoint(&checkpoint, &path, args.tensors, &mut facts),
    }
    let code = if facts.defects.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if out.json {
        out.print_json(&facts)?;
        return Ok(code);
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
    for defect in &facts.defects {
        out.line(format_args!("{:<22}{}", "wrong", defect.message))?;
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
    if let Some(hint) = &facts.hint {
        out.note(format_args!("hint: {hint}"));
    }
    Ok(code)
}

fn of_mlc(mlc: &MlcFolder, tensors: bool, facts: &mut Facts) {
    let folder = &mlc.folder;
    facts.put("kind", "MLC folder");
    let names: Vec<&str> =
        MANIFEST_NAMES.iter().copied().filter(|n| folder.path().join(n).is_file()).collect();
    let found = &mlc.description;
    match &found.config {
        Some(config) => of_config(config, facts),
        None => facts.put("architecture", found.model_type.clone()),
    }
    if let Some(embedding) = found.embeddings.get(Semantics::Authors) {
        facts.put("embedding", embedding.to_string());
    }
    let named = found.chat.as_ref().and_then(|c| c.quantization.clone());
    if let (Some(_), Err(error)) = (&named, infer_scheme(folder)) {
        facts.notes.push(error.to_string());
    }
    facts.put("quantization", named.or_else(|| found.scheme.map(|s| s.name.to_owned())));
    facts.put("tensors", folder.tensors().len());
    facts.put("shards", folder.manifest().shards().len());
    facts.put("bytes_on_disk", folder.stored_len());
    facts.put("bytes_in_memory", folder.memory_len());
    facts.put("manifests", json!(names));
    of_tokenizer(&|name| folder.path().join(name).exists(), facts);
    if let Some(chat) = &found.chat {
        of_chat(chat, facts);
    } else if found.chat_text.is_none() {
        facts.notes.push("no mlc-chat-config.json; what it would say is guessed".to_owned());
    }
    if let Some(model) = &found.model {
        facts.put("parameters", model.params.iter().map(|p| p.numel() as u64).sum::<u64>());
    }
    facts.notes.extend(folder.manifest().warnings().iter().map(ToString::to_string));
    let mut all = Faults::default();
    all.of_description(found);
    all.of_files(folder.path(), folder.manifest_name(), found.chat.as_ref());
    all.of_use(folder);
    facts.judge(all);
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
    let block = config.block(Semantics::Authors);
    if !block.ropes.is_empty() {
        facts.put("rope_theta", config.rope_theta);
        facts.put("rope_scaling", format!("{:?}", config.rope_scaling));
    }
    // Keys and values, two bytes each; a recurrence keeps none.
    let width = match block.latent {
        Some(latent) => latent.kv_rank + latent.rope,
        None => config.num_key_value_heads * config.head_dim,
    };
    let recurrent = |layer: &usize| block.rwkv.is_some() || block.delta[*layer].is_some();
    let layers = (0..config.num_hidden_layers).filter(|layer| !recurrent(layer)).count();
    facts.put("kv_bytes_per_token", (2 * 2 * layers * width) as u64);
}

fn of_chat(chat: &ChatConfig, facts: &mut Facts) {
    match &chat.conv_template {
        // One that is not known is a fault.
        Some(conv) => {
            if let Ok(template) = conv.resolve() {
                facts.put("conv_template", template.name.clone());
                facts.put("stop_strings", json!(template.stop_str));
            }
        }
        None => facts.notes.push("mlc-chat-config.json names no conv_template".to_owned()),
    }
    if let Ok(ids) = chat.stop_token_ids() {
        facts.put("stop_token_ids", json!(ids));
    }
    for key in &chat.legacy {
        facts.notes.push(format!(
            "mlc-chat-config.json: key {key} is of the flow before 2024 and has no meaning now"
        ));
    }
}

fn of_tokenizer(has: &dyn Fn(&str) -> bool, facts: &mut Facts) {
    let kind = match (has("tokenizer.json"), has("tokenizer.model")) {
        (true, true) => "tokenizer.json (and tokenizer.model)",
        (true, false) => "tokenizer.json",
        (false, true) => "tokenizer.model (SentencePiece)",
        (false, false) => {
            facts.notes.push(
                "no tokenizer.json and no tokenizer.model: it can be verified and converted but not run"
                    .to_owned(),
            );
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
            facts.notes.push(format!("it cannot be run: {error}"));
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
    of_tokenizer(&|name| checkpoint.file(name).is_some(), facts);
    let mut all = Faults::default();
    if let Err(error) = conversion::check(checkpoint) {
        all.of_conversion(&error);
        return facts.judge(all);
    }
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
