//! What MLC's config says about a tokenizer, and which template a Hugging Face chat template is.

use super::fields::Fields;
use super::{ChatConfigError, ConvTemplate};
use serde_json::{Map, Value, json};

/// How tokens stand for bytes: `tokenizer_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerInfo {
    /// `byte_fallback` (`▁` and `<0xNN>`) or `byte_level` (GPT-2's alphabet).
    pub token_postproc_method: String,
    /// Whether a space is put before a text that is encoded.
    pub prepend_space_in_encode: bool,
    /// Whether the first space of a decoded text is dropped.
    pub strip_space_in_decode: bool,
}

impl Default for TokenizerInfo {
    fn default() -> TokenizerInfo {
        TokenizerInfo {
            token_postproc_method: "byte_fallback".to_owned(),
            prepend_space_in_encode: false,
            strip_space_in_decode: false,
        }
    }
}

/// Every step of a component: itself, or the members of a `Sequence`.
fn steps<'a>(component: &'a Value, members: &str) -> Vec<&'a Value> {
    match component.get(members).and_then(Value::as_array) {
        Some(list) => list.iter().collect(),
        None => vec![component],
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

impl TokenizerInfo {
    pub(super) fn from_map(map: &Map<String, Value>) -> Result<TokenizerInfo, ChatConfigError> {
        let fields = Fields::new("tokenizer_info.", map);
        let default = TokenizerInfo::default();
        Ok(TokenizerInfo {
            token_postproc_method: fields
                .string("token_postproc_method")?
                .unwrap_or(default.token_postproc_method),
            prepend_space_in_encode: fields.bool("prepend_space_in_encode")?.unwrap_or(false),
            strip_space_in_decode: fields.bool("strip_space_in_decode")?.unwrap_or(false),
        })
    }

    /// The object as MLC writes it.
    pub fn to_value(&self) -> Value {
        json!({
            "token_postproc_method": self.token_postproc_method,
            "prepend_space_in_encode": self.prepend_space_in_encode,
            "strip_space_in_decode": self.strip_space_in_decode,
        })
    }

    /// For a folder with `tokenizer.model` only: what MLC finds after it has converted such a model.
    pub fn sentencepiece() -> TokenizerInfo {
        TokenizerInfo {
            prepend_space_in_encode: true,
            strip_space_in_decode: true,
            ..TokenizerInfo::default()
        }
    }

    /// From the content of `tokenizer.json`, by MLC's rules: the decoder says how bytes are spelled
    /// and whether a space is stripped, the normalizer whether one is prepended.
    pub fn detect(tokenizer_json: &Value) -> TokenizerInfo {
        let mut info = TokenizerInfo::default();
        for step in steps(&tokenizer_json["decoder"], "decoders") {
            match kind(step) {
                "ByteLevel" => info.token_postproc_method = "byte_level".to_owned(),
                "Strip" => {
                    let strips = step["content"] == " " && step["start"] == 1 && step["stop"] == 0;
                    info.strip_space_in_decode |= strips;
                }
                _ => {}
            }
        }
        for step in steps(&tokenizer_json["normalizer"], "normalizers") {
            info.prepend_space_in_encode |= kind(step) == "Prepend" && step["prepend"] == "▁";
        }
        info
    }
}

/// A template made from a built-in one for a given tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Detected {
    /// The template.
    pub template: ConvTemplate,
    /// Where it is known to differ from the Hugging Face template, one sentence each.
    pub warnings: Vec<String>,
}

/// Finds the built-in template that a Hugging Face chat template stands for, by its marker tokens,
/// and adapts it: stop ids, the first token and the default system message are taken from this
/// tokenizer and template. `None` if nothing fits. The result is a proposal: compare both on a real
/// conversation before relying on it.
///
/// `id_of` gives the id of a token's text; `bos` and `eos` are the texts of those tokens.
pub fn detect_conv_template(
    chat_template: &str,
    id_of: impl Fn(&str) -> Option<u32>,
    bos: Option<&str>,
    eos: Option<&str>,
) -> Option<Detected> {
    let has = |marker: &str| chat_template.contains(marker);
    let (name, markers): (&str, &[&str]) = if has("<|start_header_id|>") {
        let name = if has("ipython") { "llama-3_1" } else { "llama-3" };
        (name, &["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
    } else if has("<|header_start|>") {
        ("llama-4", &["<|end_of_text|>", "<|eom|>", "<|eot|>"])
    } else if has("<|im_start|>") && has("<|im_sep|>") {
        return None;
    } else if has("<|im_start|>") {
        let name = match () {
            () if has("<think>") && has("</think>") => "qwen3",
            () if has("Qwen") || has("You are a helpful assistant.") => "qwen2",
            () => "chatml",
        };
        (name, &["<|im_end|>", "<|endoftext|>"])
    } else if has("[INST]") {
        (if has("<<SYS>>") { "llama-2" } else { "mistral_default" }, &[])
    } else if has("<start_of_turn>") {
        let gemma3 = id_of("<start_of_image>").is_some();
        (if gemma3 { "gemma3_instruction" } else { "gemma_instruction" }, &["<end_of_turn>"])
    } else if has("<|START_OF_TURN_TOKEN|>") {
        ("aya-23", &["<|END_OF_TURN_TOKEN|>"])
    } else if has("<｜User｜>") {
        (if has("<think>") { "deepseek_r1_qwen" } else { "deepseek_v3" }, &["<｜end▁of▁sentence｜>"])
    } else if has("<|end|>") && (has("<|user|>") || has("'<|' + message['role'] + '|>'")) {
        let newlines = has("|>\\n") || has("|>\n") || has("'\\n'");
        (if newlines { "phi-3" } else { "phi-4" }, &["<|end|>", "<|endoftext|>"])
    } else if has("<|user|>") && has("<|assistant|>") && has("eos_token") {
        ("tinyllama_v1_0", &[])
    } else {
        return None;
    };

    let mut template = ConvTemplate::builtin(name).ok()?;
    let mut warnings = Vec::new();
    let mut stop: Vec<u32> = eos.iter().chain(markers).filter_map(|text| id_of(text)).collect();
    stop.sort_unstable();
    stop.dedup();
    template.stop_token_ids = stop;
    template.strip_reasoning_in_history.get_or_insert(false);
    // A template may spell its first token out; where that token also marks turns, it says nothing.
    let spelled_out = |text: &str| has(text) && !template.roles.iter().any(|(_, role)| role.contains(text));
    let begins_with_bos = has("bos_token") || bos.is_some_and(spelled_out);
    template.system_prefix_token_ids = bos.filter(|_| begins_with_bos).and_then(&id_of).map(|id| vec![id]);

    match name {
        "chatml" | "qwen2" | "qwen3" => match default_system(chat_template) {
            Some(message) => template.system_message = message,
            None => warnings.push(no_default(&template.system_message)),
        },
        "llama-3" | "llama-3_1" | "llama-4" => {
            if has("Cutting Knowledge Date") {
                warnings.push(
                    "the Hugging Face template puts dates into the system message, this one does not"
                        .to_owned(),
                );
            } else {
                warnings.push(no_default(&template.system_message));
            }
        }
        "llama-2" => {
            // The built-in spells both ends of a turn out, and leaves a space where the model is to
            // begin, which the original does not.
            set_role(&mut template, "user", format!("{}[INST]", bos.unwrap_or_default()));
            template.seps = vec![" ".to_owned(), format!(" {}", eos.unwrap_or_default())];
            template.role_empty_sep = String::new();
            warnings.push(no_default(&template.system_message));
        }
        "mistral_default" => {
            // Mistral's own templates differ in their blanks: before a turn, and before an answer.
            let before = if has("' [INST] '") || has("\" [INST] \"") { " " } else { "" };
            let spaced = has("' ' + message['content']") || has("\" \" + message[\"content\"]");
            let (role_end, content_sep) = if spaced { ("", " ") } else { (" ", "") };
            template.system_template = format!("{before}[INST] {{system_message}}");
            template.system_message = String::new();
            set_role(&mut template, "user", format!("{before}[INST]{role_end}"));
            template.role_content_sep = content_sep.to_owned();
            template.seps = vec![" ".to_owned(), eos.unwrap_or_default().to_owned()];
            template.stop_str.clear();
            warnings.push(
                "a system message is not set off from the first question as in the Hugging Face template"
                    .to_owned(),
            );
        }
        "aya-23" => warnings.push(no_default(&template.system_message)),
        "deepseek_v3" | "deepseek_r1_qwen" => {
            // The first token is part of the system template's text here.
            template.system_prefix_token_ids = None;
            template.system_message = String::new();
        }
        "phi-3" => {
            template.system_template = "<|system|>\n{system_message}<|end|>\n".to_owned();
            warnings.push(no_default(&template.system_message));
        }
        "phi-4" => {
            template.system_template = "<|system|>{system_message}<|end|>".to_owned();
            template.seps = vec!["<|end|>".to_owned()];
            template.role_content_sep = String::new();
            template.role_empty_sep = String::new();
            warnings.push(no_default(&template.system_message));
        }
        "tinyllama_v1_0" => {
            let eos = eos.unwrap_or_default();
            template.system_template = format!("<|system|>\n{{system_message}}{eos}\n");
            template.seps = vec![format!("{eos}\n")];
            template.stop_str = vec![eos.to_owned()];
            warnings.push(no_default(&template.system_message));
        }
        _ => {}
    }
    Some(Detected { template, warnings })
}

fn no_default(message: &str) -> String {
    format!(
        "without a system message the Hugging Face template puts none in, this one says {message:?}: an \
         MLC template cannot leave its frame out"
    )
}

fn set_role(template: &mut ConvTemplate, role: &str, text: String) {
    if let Some(entry) = template.roles.iter_mut().find(|(r, _)| r == role) {
        entry.1 = text;
    }
}

/// The system message that a ChatML template spells out for conversations without one.
fn default_system(chat_template: &str) -> Option<String> {
    for (at, marker) in chat_template.match_indices("<|im_start|>system") {
        let rest = &chat_template[at + marker.len()..];
        let Some(rest) = rest.strip_prefix("\\n").or_else(|| rest.strip_prefix('\n')) else { continue };
        let Some((text, _)) = rest.split_once("<|im_end|>") else { continue };
        // A quote or a brace: the text is put together from pieces, so it is no literal.
        let text = text.replace("\\'", "’").replace("\\n", "\n");
        if text.is_empty() || text.contains(['\'', '"', '{', '}']) {
            continue;
        }
        return Some(text.replace('’', "'"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn smollm_id(token: &str) -> Option<u32> {
        match token {
            "<|endoftext|>" => Some(0),
            "<|im_start|>" => Some(1),
            "<|im_end|>" => Some(2),
            _ => None,
        }
    }

    #[test]
    fn chatml_takes_its_default_message_from_the_template() {
        let found =
            detect_conv_template(SMOLLM2, smollm_id, Some("<|im_start|>"), Some("<|im_end|>")).unwrap();
        assert_eq!(found.template.name.as_deref(), Some("chatml"));
        assert_eq!(
            found.template.system_message,
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        );
        assert_eq!(found.template.stop_token_ids, [0, 2]);
        // The first token is `<|im_start|>` by name only; the template puts none in front.
        assert_eq!(found.template.system_prefix_token_ids, None);
        assert!(found.warnings.is_empty());
    }

    #[test]
    fn an_unknown_template_is_not_guessed() {
        assert_eq!(detect_conv_template("{{ messages }}", |_| None, None, None), None);
        assert_eq!(default_system("'<|im_start|>system\\n' + m + '<|im_end|>'"), None);
        assert_eq!(default_system("'<|im_start|>system\\nIt\\'s me.<|im_end|>\\n'"), Some("It's me.".into()));
    }

    #[test]
    fn tokenizer_info_follows_decoder_and_normalizer() {
        let llama = json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
        });
        let info = TokenizerInfo::detect(&llama);
        assert_eq!(info.token_postproc_method, "byte_fallback");
        assert!(info.prepend_space_in_encode && info.strip_space_in_decode);
        let gpt2 = TokenizerInfo::detect(&json!({"normalizer": null, "decoder": {"type": "ByteLevel"}}));
        assert_eq!(gpt2.token_postproc_method, "byte_level");
        assert!(!gpt2.prepend_space_in_encode && !gpt2.strip_space_in_decode);
    }
}
