//! `mlc-chat-config.json` of what is converted.

use super::{Settings, Summary, mlc_json};
use crate::checkpoint::{Checkpoint, MlcFolder, TOKENIZER_FILES, find};
use crate::output::{Output, hinted};
use serde_json::{Value, json};
use tessera_engine::template::{JinjaTemplate, differences};
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::chat_config::{
    ChatConfig, ChatConfigInputs, ConvTemplate, TokenizerInfo, detect_conv_template,
};
use tessera_weights::scheme::Scheme;

/// MLC's template for models that were not trained to chat.
const PLAIN: &str = "LM";

/// The text for a checkpoint.
pub fn chat_config(
    checkpoint: &Checkpoint,
    model_type: &str,
    scheme: &Scheme,
    settings: &Settings,
    summary: &mut Summary,
    out: &Output,
) -> anyhow::Result<String> {
    let lookup = |name: &str| checkpoint.file(name).map(<[u8]>::to_vec);
    let names: Vec<String> = TOKENIZER_FILES
        .iter()
        .filter(|name| find(&checkpoint.files, name).is_some())
        .map(|name| (*name).to_owned())
        .collect();
    let tokenizer = tokenizer(checkpoint)?;
    if tokenizer.is_none() {
        summary.note(out, "no tokenizer.json and no tokenizer.model: the folder can be verified but not run; put one beside it");
    }
    let tokenizer_json = match checkpoint.file("tokenizer.json") {
        Some(bytes) => Some(
            serde_json::from_slice::<Value>(bytes)
                .map_err(|e| hinted(format!("tokenizer.json: invalid JSON: {e}"), "fetch this file again"))?,
        ),
        None => None,
    };
    let tokenizer_info = match &tokenizer_json {
        Some(json) => TokenizerInfo::detect(json),
        None if tokenizer.is_some() => TokenizerInfo::sentencepiece(),
        None => TokenizerInfo::default(),
    };
    let active_vocab_size =
        tokenizer.as_ref().filter(|_| tokenizer_json.is_some()).map(Tokenizer::active_vocab_size);
    let jinja = JinjaTemplate::from_files(lookup)?;
    let embedding = tessera_weights::embedding::of_modules(|name| checkpoint.file(name).map(<[u8]>::to_vec))
        .map_err(|(name, what)| anyhow::anyhow!("{name}: {what}"))?;
    if let Some(embedding) = embedding {
        summary.note(out, format!("an embedding model: {embedding}"));
    }
    let conv = match jinja {
        // Nobody chats with it.
        None if embedding.is_some() && settings.conv_template.is_none() => {
            Some(ConvTemplate::builtin(PLAIN)?)
        }
        jinja => conversation(settings, jinja.as_ref(), tokenizer.as_ref(), summary, out)?,
    };
    let mut config = ChatConfig::generate(ChatConfigInputs {
        model_type,
        quantization: scheme.name,
        hf_config: &checkpoint.config,
        generation_config: checkpoint.generation_config.as_ref(),
        tokenizer_files: &names,
        tokenizer_info,
        active_vocab_size,
        conv_template: conv.clone().map_or_else(|| ConvTemplate::builtin(PLAIN), Ok)?,
        embedding,
    });
    summary.conv_template = conv.as_ref().and_then(|c| c.name.clone());
    if conv.is_none() {
        config.conv_template = None;
    }
    Ok(config.to_json())
}

/// The checkpoint's tokenizer, if it has one.
pub fn tokenizer(checkpoint: &Checkpoint) -> anyhow::Result<Option<Tokenizer>> {
    if ["tokenizer.json", "tokenizer.model"].iter().all(|name| checkpoint.file(name).is_none()) {
        return Ok(None);
    }
    Ok(Some(Tokenizer::from_files(|name| checkpoint.file(name).map(<[u8]>::to_vec))?))
}

/// The conversation template: the one that was named, else the one that the Hugging Face template stands
/// for. `None` if that is not known; tessera then uses the Hugging Face template itself.
fn conversation(
    settings: &Settings,
    jinja: Option<&JinjaTemplate>,
    tokenizer: Option<&Tokenizer>,
    summary: &mut Summary,
    out: &Output,
) -> anyhow::Result<Option<ConvTemplate>> {
    if let Some(name) = &settings.conv_template {
        return Ok(Some(ConvTemplate::builtin(name)?));
    }
    let Some(jinja) = jinja else {
        summary.note(
            out,
            format!("the source has no chat template; {PLAIN} (plain text) is written, --conv-template names another"),
        );
        return Ok(Some(ConvTemplate::builtin(PLAIN)?));
    };
    let id_of = |text: &str| tokenizer.and_then(|t| t.id_of(text));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (bos, eos) = (some(jinja.bos_token()), some(jinja.eos_token()));
    let Some(found) = detect_conv_template(jinja.source(), id_of, bos.as_deref(), eos.as_deref()) else {
        summary.note(
            out,
            "the chat template is none that MLC has a name for; conv_template is left out and the Hugging Face \
             template is kept, which tessera uses. MLC itself needs --conv-template NAME",
        );
        return Ok(None);
    };
    for warning in found.warnings {
        summary.note(out, format!("chat template: {warning}"));
    }
    let token_text = |id: u32| tokenizer.and_then(|t| t.token_text(id)).map(str::to_owned);
    for difference in differences(&found.template, jinja, token_text) {
        summary.note(out, format!("chat template, {difference}"));
    }
    Ok(Some(found.template))
}

/// The source's own text with another quantisation or template in it; `None` if it has none.
pub fn changed(mlc: &MlcFolder, scheme: &Scheme, settings: &Settings) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(text) = &mlc.description.chat_text else { return Ok(None) };
    let stated = mlc.description.chat.as_ref().and_then(|c| c.quantization.as_deref());
    if stated == Some(scheme.name) && settings.conv_template.is_none() {
        return Ok(Some(text.clone()));
    }
    let mut value: Value = serde_json::from_slice(text)?;
    value["quantization"] = json!(scheme.name);
    if let Some(name) = &settings.conv_template {
        value["conv_template"] = ConvTemplate::builtin(name)?.to_value();
    }
    Ok(Some(mlc_json(&value)))
}
