//! The tokenizer's files as GGUF's keys: byte-level BPE from `tokenizer.json`, SentencePiece from `tokenizer.model`.

use super::{GgufExportError, GgufInputs};
use crate::chat_config::eos_ids;
use crate::gguf::{Header, Pre, SpmModel, TokenType};
use serde_json::Value;

const JSON: &str = "tokenizer.json";
const MODEL: &str = "tokenizer.model";
const CONFIG: &str = "tokenizer_config.json";

/// A token as GGUF lists it.
#[derive(Clone)]
struct Token {
    text: String,
    score: f32,
    ty: TokenType,
}

/// Tokens with what is put around a text.
struct Vocab {
    tokens: Vec<Token>,
    bos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
}

pub(super) fn put(
    header: &mut Header,
    inputs: &GgufInputs<'_>,
    notes: &mut Vec<String>,
) -> Result<(), GgufExportError> {
    let find = |name: &str| inputs.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice());
    let json = |name: &'static str| match find(name) {
        Some(bytes) => crate::json::parse(bytes)
            .map(Some)
            .map_err(|e| wrong(name, format!("invalid JSON: {e}; fetch it again"))),
        None => Ok(None),
    };
    let (json, config) = (json(JSON)?, json(CONFIG)?.unwrap_or_default());
    let size = inputs.model.sizes.vocab;
    // What SentencePiece trained cuts text by scores, which its own file alone says.
    let pieces = |json: &Value| !is_byte_level(&json["pre_tokenizer"]);
    let vocab = match (&json, find(MODEL)) {
        (json, Some(model)) if json.as_ref().is_none_or(pieces) => {
            sentencepiece(header, model, json.as_ref(), &config, size)?
        }
        (Some(json), None) if pieces(json) => {
            let what = "GGUF needs the scores of tokenizer.model, which is not there; fetch it from the original model";
            return Err(wrong(JSON, what.to_owned()));
        }
        (Some(json), _) => byte_level(header, json, &config, size)?,
        (None, _) => {
            let what = "there is no tokenizer; fetch tokenizer.json or tokenizer.model from where the folder came from";
            return Err(wrong(inputs.name, what.to_owned()));
        }
    };
    let tokens = &vocab.tokens;
    header.strs("tokenizer.ggml.tokens", tokens.iter().map(|t| t.text.as_str()));
    header.i32s("tokenizer.ggml.token_type", tokens.iter().map(|t| t.ty as i32));

    let by_text = |name: &str| {
        let value = &config[name];
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        tokens.iter().position(|t| t.text == text).map(|id| id as u32)
    };
    let known = |ids: Vec<u32>| ids.into_iter().filter(|&id| (id as usize) < size).collect::<Vec<u32>>();
    let first = |value: &Option<Value>| known(eos_ids(value.as_ref())).first().copied();
    let ends = known(eos_ids(inputs.chat.eos_token_id.as_ref()));
    let eos =
        by_text("eos_token").filter(|id| ends.is_empty() || ends.contains(id)).or(ends.first().copied());
    let mut others = ends.iter().copied().filter(|id| Some(*id) != eos);
    let eot = others.next();
    if others.next().is_some() {
        notes.push(format!(
            "the model ends a text with {ends:?}; GGUF has a place for two, {eos:?} and {eot:?}"
        ));
    }
    let unknown = tokens.iter().position(|t| t.ty == TokenType::Unknown).map(|id| id as u32);
    for (name, id) in [
        ("bos", vocab.bos.or_else(|| by_text("bos_token")).or_else(|| first(&inputs.chat.bos_token_id))),
        ("eos", eos),
        ("eot", eot),
        ("unknown", unknown),
        ("padding", by_text("pad_token").or_else(|| first(&inputs.chat.pad_token_id))),
    ] {
        if let Some(id) = id {
            header.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    header.bool("tokenizer.ggml.add_bos_token", vocab.add_bos);
    header.bool("tokenizer.ggml.add_eos_token", vocab.add_eos);
    match find("chat_template.jinja").map(String::from_utf8_lossy) {
        Some(template) => header.str("tokenizer.chat_template", &template),
        None => template(header, &config["chat_template"], notes),
    }
    Ok(())
}

fn wrong(file: &str, what: String) -> GgufExportError {
    GgufExportError::Tokenizer { file: file.to_owned(), what }
}

/// One template, or some with names of which one is `default`.
fn template(header: &mut Header, template: &Value, notes: &mut Vec<String>) {
    const KEY: &str = "tokenizer.chat_template";
    match template {
        Value::String(text) => header.str(KEY, text),
        Value::Array(list) => {
            for entry in list {
                if let (Some(name), Some(text)) = (entry["name"].as_str(), entry["template"].as_str()) {
                    let key = if name == "default" { KEY.to_owned() } else { format!("{KEY}.{name}") };
                    header.str(&key, text);
                }
            }
        }
        _ => notes.push(
            "the folder has no Jinja template, and MLC's own cannot be said in GGUF: the file has none"
                .to_owned(),
        ),
    }
}

fn unused(size: usize) -> Vec<Token> {
    let token = |id| Token { text: format!("[PAD{id}]"), score: -10000.0, ty: TokenType::Unused };
    (0..size).map(token).collect()
}

/// Tokens of `tokenizer.json` and `tokenizer_config.json` beside the model's own: id, text, whether special.
fn added<'a>(json: Option<&'a Value>, config: &'a Value) -> Vec<(u64, &'a str, bool)> {
    let entry = |id: Option<u64>, token: &'a Value| {
        Some((id?, token["content"].as_str()?, token["special"].as_bool().unwrap_or(false)))
    };
    let mut out: Vec<_> = config["added_tokens_decoder"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| entry(id.parse().ok(), token))
        .collect();
    let list = json.and_then(|json| json["added_tokens"].as_array()).into_iter().flatten();
    out.extend(list.filter_map(|token| entry(token["id"].as_u64(), token)));
    out
}

fn place<'t>(
    file: &str,
    tokens: &'t mut [Token],
    id: Option<u64>,
    text: &str,
) -> Result<&'t mut Token, GgufExportError> {
    let size = tokens.len();
    let at = id.and_then(|id| usize::try_from(id).ok()).and_then(|id| tokens.get_mut(id));
    at.ok_or_else(|| {
        wrong(file, format!("token {text:?} has the id {id:?}, but the model has {size} tokens"))
    })
}

fn is_byte_level(pre: &Value) -> bool {
    let parts = pre["pretokenizers"].as_array().into_iter().flatten();
    pre["type"] == "ByteLevel" || parts.into_iter().any(is_byte_level)
}

fn byte_level(
    header: &mut Header,
    json: &Value,
    config: &Value,
    size: usize,
) -> Result<Vocab, GgufExportError> {
    let model = &json["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return Err(wrong(JSON, format!("the model is {}, and GGUF's readers know BPE", model["type"])));
    }
    let nfc = match &json["normalizer"] {
        Value::Null => Some(false),
        n if n["type"] == "NFC" => Some(true),
        n if n["type"] == "Sequence" && n["normalizers"].as_array().is_some_and(Vec::is_empty) => Some(false),
        _ => None,
    };
    let ignore_merges = model["ignore_merges"].as_bool().unwrap_or(false);
    let pre =
        nfc.and_then(|nfc| Pre::name_of(&json["pre_tokenizer"], nfc, ignore_merges)).ok_or_else(|| {
            let shown: String = json["pre_tokenizer"].to_string().chars().take(200).collect();
            wrong(
                JSON,
                format!("GGUF names the ways of cutting a text, and none is known that is this one: {shown}"),
            )
        })?;
    let Some(vocab) = model["vocab"].as_object() else {
        return Err(wrong(JSON, "model.vocab is missing".to_owned()));
    };
    let mut tokens = unused(size);
    for (text, id) in vocab {
        let token = place(JSON, &mut tokens, id.as_u64(), text)?;
        *token = Token { text: text.clone(), score: 0.0, ty: TokenType::Normal };
    }
    for (id, text, special) in added(Some(json), config) {
        let ty = if special { TokenType::Control } else { TokenType::UserDefined };
        *place(JSON, &mut tokens, Some(id), text)? = Token { text: text.to_owned(), score: 0.0, ty };
    }
    let merges = model["merges"].as_array().map_or(&[][..], |merges| merges);
    let merges = merges
        .iter()
        .map(|merge| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
            (Some(text), _) => Ok(text.to_owned()),
            (_, Some([Value::String(l), Value::String(r)])) if !l.contains(' ') && !r.contains(' ') => {
                Ok(format!("{l} {r}"))
            }
            _ => Err(wrong(JSON, format!("merge {merge} is not two tokens, which GGUF divides by a space"))),
        })
        .collect::<Result<Vec<String>, _>>()?;
    header.str("tokenizer.ggml.model", "gpt2");
    header.str("tokenizer.ggml.pre", pre);
    header.strs("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    let (bos, add_eos) = around(&json["post_processor"]);
    let add_bos = bos.is_some() || (json["post_processor"].is_null() && config["add_bos_token"] == true);
    Ok(Vocab { tokens, bos, add_bos, add_eos })
}

/// The token before a text, and whether there is one after it.
fn around(processor: &Value) -> (Option<u32>, bool) {
    let parts = processor["processors"].as_array();
    let mut all = std::iter::once(processor).chain(parts.into_iter().flatten());
    let Some(template) = all.find(|p| p["type"] == "TemplateProcessing") else { return (None, false) };
    let single = template["single"].as_array().map_or(&[][..], |single| single);
    let id = |token: &Value| {
        let name = token["SpecialToken"]["id"].as_str()?;
        template["special_tokens"][name]["ids"][0].as_u64()?.try_into().ok()
    };
    let last = single.last().is_some_and(|token| token.get("SpecialToken").is_some());
    (single.first().and_then(id), single.len() > 1 && last)
}

fn sentencepiece(
    header: &mut Header,
    model: &[u8],
    json: Option<&Value>,
    config: &Value,
    size: usize,
) -> Result<Vocab, GgufExportError> {
    let model = SpmModel::parse(model).map_err(|what| wrong(MODEL, what))?;
    if !model.bpe {
        let what =
            "the model is not a BPE, and GGUF's readers know no other SentencePiece for models of text";
        return Err(wrong(MODEL, what.to_owned()));
    }
    if model.normalises {
        let what = "it normalises text by a table of its own, which GGUF's readers do not";
        return Err(wrong(MODEL, what.to_owned()));
    }
    let mut tokens = unused(size);
    for (id, (text, score, ty)) in (0u64..).zip(model.pieces) {
        let token = place(MODEL, &mut tokens, Some(id), &text)?;
        *token = Token { text, score, ty };
    }
    for (id, text, special) in added(json, config) {
        let token = place(JSON, &mut tokens, Some(id), text)?;
        let marked = matches!(token.ty, TokenType::Control | TokenType::Unknown | TokenType::Byte);
        if token.text == text && marked {
            continue;
        }
        let ty = if special { TokenType::Control } else { TokenType::UserDefined };
        // Readers look for these in the text as it is, where a space is a space.
        let text = if special { text.to_owned() } else { text.replace('\u{2581}', " ") };
        *token = Token { text, score: -1000.0, ty };
    }
    header.str("tokenizer.ggml.model", "llama");
    header.str("tokenizer.ggml.pre", "default");
    header.f32s("tokenizer.ggml.scores", tokens.iter().map(|t| t.score));
    header.bool("tokenizer.ggml.add_space_prefix", model.space_prefix);
    if model.trims {
        header.bool("tokenizer.ggml.remove_extra_whitespaces", true);
    }
    let flag = |name: &str, default| config[name].as_bool().unwrap_or(default);
    let (add_bos, add_eos) = (flag("add_bos_token", true), flag("add_eos_token", false));
    Ok(Vocab { tokens, bos: None, add_bos, add_eos })
}
