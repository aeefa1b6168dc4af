//! A GGUF's tokenizer as the files of a Hugging Face folder.

use serde_json::{Map, Value, json};

use super::error::GgufError;
use super::header::Gguf;
use super::pretokenizer::Pre;
use super::spm::Spm;
use super::value::required;
use super::vocab::{Vocab, tokenizer};

/// Rebuilds the tokenizer's files, as names and contents: always `tokenizer_config.json`;
/// `tokenizer.json` for byte-level BPE; `tokenizer.model` for SentencePiece, with `tokenizer.json`
/// beside it where that gives the same ids.
pub fn tokenizer_files(gguf: &Gguf) -> Result<Vec<(String, Vec<u8>)>, GgufError> {
    let key = "tokenizer.ggml.model";
    let vocab = Vocab::parse(gguf)?;
    let mut files = Vec::new();
    let config = match required(gguf.meta_str(key)?, key)? {
        "gpt2" => {
            let pre = Pre::find(gguf.meta_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
            let ends = Ends::parse(gguf, &vocab, pre.add_bos)?;
            let model = byte_level_model(gguf, &vocab, pre.ignore_merges)?;
            let normalizer = if pre.nfc { json!({ "type": "NFC" }) } else { Value::Null };
            let decoder = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
            let json = tokenizer_json(&vocab, &ends, normalizer, pre.json(), decoder, model);
            files.push(("tokenizer.json".to_string(), text(&json)));
            tokenizer_config(gguf, &vocab, &ends, "PreTrainedTokenizerFast")?
        }
        "llama" => {
            // llama.cpp's defaults for this kind, where such tokens are there.
            let mut vocab = vocab;
            let (bos, eos) = (vocab.control(1), vocab.control(2));
            vocab.bos = vocab.bos.or(bos);
            vocab.eos = vocab.eos.or(eos);
            vocab.unk = vocab.unk.or(vocab.unknown());
            let ends = Ends::parse(gguf, &vocab, true)?;
            let spm = Spm::parse(gguf, &vocab)?;
            if let Some(parts) = spm.json() {
                let json =
                    tokenizer_json(&vocab, &ends, parts.normalizer, Value::Null, parts.decoder, parts.model);
                files.push(("tokenizer.json".to_string(), text(&json)));
            }
            files.push(("tokenizer.model".to_string(), spm.proto()));
            tokenizer_config(gguf, &vocab, &ends, "LlamaTokenizer")?
        }
        other => {
            return Err(GgufError::BadValue {
                key: key.to_string(),
                found: format!("{other:?}"),
                what: "expected \"gpt2\" or \"llama\"".to_string(),
            });
        }
    };
    files.push(("tokenizer_config.json".to_string(), text(&config)));
    Ok(files)
}

fn text(json: &Value) -> Vec<u8> {
    let mut out = format!("{json:#}").into_bytes();
    out.push(b'\n');
    out
}

/// What is put around every text.
struct Ends {
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Ends {
    fn parse(gguf: &Gguf, vocab: &Vocab, bos_by_default: bool) -> Result<Ends, GgufError> {
        let end = |name: &str, id: Option<u32>, default: bool| {
            let key = format!("tokenizer.ggml.add_{name}_token");
            let declared = gguf.meta_bool(&key)?;
            match (declared.unwrap_or(default), id) {
                (false, _) => Ok(None),
                (true, Some(id)) => Ok(Some(id)),
                (true, None) if declared.is_none() => Ok(None),
                (true, None) => Err(GgufError::MissingKey { key: format!("tokenizer.ggml.{name}_token_id") }),
            }
        };
        Ok(Ends { bos: end("bos", vocab.bos, bos_by_default)?, eos: end("eos", vocab.eos, false)? })
    }

    /// The `post_processor` of `tokenizer.json`.
    fn json(&self, vocab: &Vocab) -> Value {
        if self.bos.is_none() && self.eos.is_none() {
            return Value::Null;
        }
        let special = |id: u32, ty: u32| json!({ "SpecialToken": { "id": vocab.text(id), "type_id": ty } });
        let sequence = |name: &str, ty: u32| {
            let mut out = Vec::new();
            out.extend(self.bos.map(|id| special(id, ty)));
            out.push(json!({ "Sequence": { "id": name, "type_id": ty } }));
            out.extend(self.eos.map(|id| special(id, ty)));
            out
        };
        let mut specials = Map::new();
        for id in [self.bos, self.eos].into_iter().flatten() {
            let token = vocab.text(id);
            specials.insert(token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }));
        }
        let (single, mut pair) = (sequence("A", 0), sequence("A", 0));
        pair.extend(sequence("B", 1));
        json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials })
    }
}

/// The model of a byte-level BPE. All tokens stay in its vocabulary, the special ones too, so that
/// every id is what the file says.
fn byte_level_model(gguf: &Gguf, vocab: &Vocab, ignore_merges: bool) -> Result<Value, GgufError> {
    let key = "tokenizer.ggml.merges";
    let merges = required(gguf.meta_strings(key)?, key)?;
    for (i, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(tokenizer(format!(
                "merge {i} is {merge:?}, expected two tokens with a space between"
            )));
        };
        for part in [left, right, &format!("{left}{right}")] {
            if !vocab.ids.contains_key(part) {
                return Err(tokenizer(format!("merge {i} is {merge:?}, but {part:?} is not a token")));
            }
        }
    }
    // A line that begins like this is a comment to HF's reader of merges in one string.
    let merges: Vec<Value> = if merges.iter().any(|m| m.starts_with("#version")) {
        merges.iter().filter_map(|m| m.split_once(' ')).map(|(l, r)| json!([l, r])).collect()
    } else {
        merges.iter().map(|m| json!(m)).collect()
    };
    let ids: Map<String, Value> =
        vocab.tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), json!(id))).collect();
    Ok(json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": ignore_merges,
        "vocab": ids,
        "merges": merges,
    }))
}

fn tokenizer_json(
    vocab: &Vocab,
    ends: &Ends,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
) -> Value {
    let added: Vec<Value> = vocab
        .added()
        .map(|(id, content, special)| {
            json!({
                "id": id,
                "content": content,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": special,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": ends.json(vocab),
        "decoder": decoder,
        "model": model,
    })
}

fn tokenizer_config(gguf: &Gguf, vocab: &Vocab, ends: &Ends, class: &str) -> Result<Value, GgufError> {
    let added: Map<String, Value> = vocab
        .added()
        .map(|(id, content, special)| {
            let token = json!({
                "content": content,
                "lstrip": false,
                "normalized": false,
                "rstrip": false,
                "single_word": false,
                "special": special,
            });
            (id.to_string(), token)
        })
        .collect();
    let mut config = json!({
        "add_bos_token": ends.bos.is_some(),
        "add_eos_token": ends.eos.is_some(),
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": false,
        "tokenizer_class": class,
    });
    let arch = gguf.meta_str("general.architecture")?.unwrap_or_default();
    if let Some(context) = gguf.meta_u32(&format!("{arch}.context_length"))? {
        config["model_max_length"] = json!(context);
    }
    for (name, id) in [
        ("bos_token", vocab.bos),
        ("eos_token", vocab.eos),
        ("unk_token", vocab.unk),
        ("pad_token", vocab.pad),
    ] {
        if let Some(id) = id {
            config[name] = json!(vocab.text(id));
        }
    }
    if let Some(template) = chat_template(gguf)? {
        config["chat_template"] = template;
    }
    Ok(config)
}

/// One template, or a list of named ones where the file has several.
fn chat_template(gguf: &Gguf) -> Result<Option<Value>, GgufError> {
    let key = "tokenizer.chat_template";
    let default = gguf.meta_str(key)?;
    let mut named: Vec<Value> = Vec::new();
    for (key, _) in gguf.metadata().range("tokenizer.chat_template.".to_string()..) {
        let Some(name) = key.strip_prefix("tokenizer.chat_template.") else { break };
        named.push(json!({ "name": name, "template": gguf.meta_str(key)? }));
    }
    if named.is_empty() {
        return Ok(default.map(|t| json!(t)));
    }
    if let Some(default) = default {
        named.insert(0, json!({ "name": "default", "template": default }));
    }
    Ok(Some(Value::Array(named)))
}
