//! Settings that only some families have, read under every spelling, with the family's published default where a
//! config is silent: MLC's drops many. Each default that decides an answer is said.

use serde_json::Value;

use super::ConfigError;
use super::fields::Fields;
use super::routing;
use crate::arch::{Experts, Parts, PositionScale, Sizes};

/// See [`super::ModelConfig::settings`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many of a head's dimensions turn.
    pub rotary_dim: usize,
    /// Rotary base of layers with windows, where they have their own.
    pub local_rope_theta: Option<f64>,
    /// Attention and MLP in parallel, where the config decides.
    pub parallel: bool,
    /// Limit of q, k and v.
    pub clip_qkv: Option<f64>,
    /// Soft cap of attention's scores.
    pub attention_cap: Option<f64>,
    /// Soft cap of the logits.
    pub logit_cap: Option<f64>,
    /// Scores are multiplied by its inverse root; the head's width unless given.
    pub query_pre_attn_scalar: Option<f64>,
    /// Whether the scores of layer `i` are divided by `i + 1`.
    pub scale_by_layer: bool,
    /// Factor on the embedding.
    pub embed_scale: f64,
    /// Factor on each branch.
    pub branch_scale: f64,
    /// Factor on the last hidden state.
    pub hidden_scale: f64,
    /// Factor on the logits.
    pub logit_scale: f64,
    /// Which layers see only the last tokens.
    pub windows: Option<Windows>,
    /// Sizes of what only some families have.
    pub parts: Parts,
    /// How experts are chosen.
    pub routing: Option<Experts>,
    /// Factor on queries by position.
    pub position_scale: Option<PositionScale>,
    /// Which layers turn, where not all do.
    pub rope_layers: Option<Vec<bool>>,
    /// Whether query and key heads are normed after they were rotated.
    pub qk_norm_after_rope: bool,
}

/// Layers that see only the last tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// How many tokens, the query's own included.
    pub size: usize,
    /// First tokens that MLC keeps beside them.
    pub sink: usize,
    /// For each layer, whether it is one of them.
    pub layers: Vec<bool>,
}

/// How much of a head turns: the field, and what its absence means.
const PARTIAL: &[(&str, &str, f64)] = &[
    ("phi", "partial_rotary_factor", 0.5),
    ("phi3", "partial_rotary_factor", 1.0),
    ("stablelm", "partial_rotary_factor", 0.25),
    ("nemotron", "partial_rotary_factor", 0.5),
    ("gpt_neox", "rotary_pct", 0.25),
    ("qwen3_5", "partial_rotary_factor", 0.25),
];

/// A family's published value of a field: it is assumed, aloud, where a config lacks it.
const PUBLISHED: &[(&str, &str, f64)] = &[
    ("gemma2", "attn_logit_softcapping", 50.0),
    ("gemma2", "final_logit_softcapping", 30.0),
    ("gemma2", "sliding_window", 4096.0),
    ("gemma3_text", "sliding_window", 512.0),
    ("gemma3_text", "rope_local_base_freq", 10000.0),
    ("cohere", "logit_scale", 0.0625),
    ("starcoder2", "sliding_window", 4096.0),
];

/// Which layers have the window.
#[derive(Clone, Copy)]
enum Pattern {
    All,
    /// All from `max_window_layers` on, where `use_sliding_window` is true.
    From,
    /// All but every n-th, n from the field of this name or as given.
    AllBut(&'static str, usize),
}

/// Families whose layers have windows.
const WINDOWED: &[(&str, Pattern)] = &[
    ("mistral", Pattern::All),
    ("ministral3", Pattern::All),
    ("mixtral", Pattern::All),
    ("phi3", Pattern::All),
    ("phi3_v", Pattern::All),
    ("qwen2_moe", Pattern::From),
    ("qwen3_moe", Pattern::From),
    ("starcoder2", Pattern::All),
    ("qwen2", Pattern::From),
    ("qwen3", Pattern::From),
    ("gemma2", Pattern::AllBut("sliding_window_pattern", 2)),
    ("gemma3_text", Pattern::AllBut("sliding_window_pattern", 6)),
];

fn of<T: Copy>(table: &[(&str, T)], model_type: &str) -> Option<T> {
    table.iter().find(|row| row.0 == model_type).map(|row| row.1)
}

/// Whether windows of this family are known to its blocks, so that they do not limit its context.
pub(super) fn windowed(model_type: &str) -> bool {
    of(WINDOWED, model_type).is_some()
}

/// What a family with windows was trained for, where MLC's config says -1 because its cache rolls.
pub(super) fn published_context(model_type: &str) -> Option<usize> {
    (model_type == "mistral").then_some(32768)
}

/// One family's config, and what is said of it.
struct Reader<'a> {
    model_type: &'a str,
    model: Fields<'a>,
    guesses: &'a mut Vec<String>,
}

impl Reader<'_> {
    /// A positive number, the family's published one where the field is missing. An explicit null is none.
    fn number(&mut self, key: &str) -> Result<Option<f64>, ConfigError> {
        if let Some(x) = self.model.number(key, f64::MIN_POSITIVE)? {
            return Ok(Some(x));
        }
        if self.model.json.get(key).is_some_and(Value::is_null) {
            return Ok(None);
        }
        let published = PUBLISHED.iter().find(|row| (row.0, row.1) == (self.model_type, key));
        Ok(published.map(|&(.., x)| {
            self.guesses
                .push(format!("{key} is not in the config; {x} is assumed, as in the published models."));
            x
        }))
    }

    /// The field, where the family has it at all.
    fn only(&mut self, families: &[&str], key: &str) -> Result<Option<f64>, ConfigError> {
        if families.contains(&self.model_type) { self.number(key) } else { Ok(None) }
    }

    fn rotary_dim(&mut self, sizes: &Sizes) -> Result<usize, ConfigError> {
        if let Some(latent) = sizes.parts.latent {
            return Ok(latent.rope);
        }
        match self.model_type {
            "chatglm" => return Ok(sizes.head_dim / 4 * 2),
            "phi-msft" => {
                let Some(v) = self.model.get("rotary_dim") else { return Ok(sizes.head_dim.min(32)) };
                let dim = v.as_u64().filter(|n| *n > 0 && n % 2 == 0 && *n <= sizes.head_dim as u64);
                let expected = format!("an even number up to the head's {}", sizes.head_dim);
                return dim.map(|n| n as usize).ok_or_else(|| self.model.invalid("rotary_dim", v, &expected));
            }
            _ => {}
        }
        let Some(&(_, key, default)) = PARTIAL.iter().find(|row| row.0 == self.model_type) else {
            return Ok(sizes.head_dim);
        };
        let nested =
            self.model.get("rope_parameters").and_then(|json| json.get(key)).filter(|v| !v.is_null());
        let part = match nested {
            Some(json) => json.as_f64(),
            None => Some(self.model.number(key, 0.0)?.unwrap_or(default)),
        };
        let given = nested.or_else(|| self.model.get(key)).cloned().unwrap_or_else(|| Value::from(default));
        let dim = part
            .filter(|part| (0.0..=1.0).contains(part))
            .map(|part| (sizes.head_dim as f64 * part) as usize);
        dim.filter(|dim| *dim > 0 && dim % 2 == 0).ok_or_else(|| {
            let expected =
                format!("a part that makes an even number of the head's {} dimensions", sizes.head_dim);
            self.model.invalid(key, &given, &expected)
        })
    }

    fn query_scalar(&mut self, sizes: &Sizes) -> Result<Option<f64>, ConfigError> {
        let key = "query_pre_attn_scalar";
        match self.model_type {
            "gemma2" | "gemma3_text" => {}
            _ => return Ok(None),
        }
        if let Some(x) = self.number(key)? {
            return Ok(Some(x));
        }
        // The 27b models scale by hidden / heads, the others by the head's width.
        let x = match (sizes.hidden, sizes.heads) {
            (4608 | 5376, 32) => sizes.hidden / sizes.heads,
            _ => sizes.head_dim,
        };
        self.guesses.push(format!("{key} is not in the config; {x} is assumed, as in the published models."));
        Ok(Some(x as f64))
    }

    /// MiniCPM's factors on the embedding, on each branch and on the last hidden state.
    fn scales(&self, sizes: &Sizes) -> Result<(f64, f64, f64), ConfigError> {
        if self.model_type != "minicpm" {
            return Ok((1.0, 1.0, 1.0));
        }
        let need = |key| self.model.need_number(key, f64::MIN_POSITIVE);
        let (embed, depth, base) = (need("scale_emb")?, need("scale_depth")?, need("dim_model_base")?);
        if sizes.hidden as f64 % base != 0.0 {
            let expected = format!("a divisor of hidden_size, which is {}", sizes.hidden);
            return Err(self.model.invalid("dim_model_base", &Value::from(base), &expected));
        }
        Ok((embed, depth / (sizes.layers as f64).sqrt(), base / sizes.hidden as f64))
    }

    fn windows(&mut self, sizes: &Sizes, context: Option<usize>) -> Result<Option<Windows>, ConfigError> {
        let Some(pattern) = of(WINDOWED, self.model_type) else { return Ok(None) };
        if !self.model.flag("use_sliding_window")?.unwrap_or(!matches!(pattern, Pattern::From)) {
            return Ok(None);
        }
        let size = match self.model.tokens("sliding_window_size")? {
            Some(n) => Some(n),
            None => match self.model.tokens("sliding_window")? {
                Some(n) => Some(n),
                // Where the context is not longer, there is nothing to be said.
                None => {
                    let assumed =
                        PUBLISHED.iter().find(|r| (r.0, r.1) == (self.model_type, "sliding_window"));
                    let needed = assumed.is_some_and(|r| context.is_none_or(|c| c as f64 > r.2));
                    match self.model_type {
                        "phi3"
                            if context == Some(4096)
                                && sizes.hidden >= 3072
                                && self.model.json.get("sliding_window").is_none() =>
                        {
                            self.guesses.push("sliding_window is not in the config; 2047 is assumed, as in the published models.".to_owned());
                            Some(2047)
                        }
                        _ if needed => self.number("sliding_window")?.map(|n| n as usize),
                        _ => None,
                    }
                }
            },
        };
        let Some(size) = size else { return Ok(None) };
        let sink = match self.model.get("attention_sink_size") {
            Some(v) => match v.as_i64() {
                Some(n) => usize::try_from(n).unwrap_or(0).min(size),
                None => return Err(self.model.invalid("attention_sink_size", v, "a whole number")),
            },
            None if self.model_type == "ministral3" => 0,
            None => 4.min(size),
        };
        let layers = match self.model.get("layer_types") {
            Some(types) => self.layer_types(types, sizes.layers)?,
            None => match pattern {
                Pattern::All => vec![true; sizes.layers],
                Pattern::From => {
                    let key = "max_window_layers";
                    let first = match self.model.get(key) {
                        None => sizes.layers,
                        Some(v) => match v.as_u64() {
                            Some(n) => n as usize,
                            None => return Err(self.model.invalid(key, v, "a number of layers")),
                        },
                    };
                    (0..sizes.layers).map(|i| i >= first).collect()
                }
                Pattern::AllBut(key, default) => {
                    let n = match self.model.get(key) {
                        None => default,
                        Some(v) => match v.as_u64().filter(|n| (1..=1 << 12).contains(n)) {
                            Some(n) => n as usize,
                            None => return Err(self.model.invalid(key, v, "a number of layers")),
                        },
                    };
                    (0..sizes.layers).map(|i| (i + 1) % n != 0).collect()
                }
            },
        };
        // A window that is never full is none.
        let full = context.is_none_or(|context| size < context)
            || matches!(pattern, Pattern::AllBut(..))
            || matches!(self.model_type, "mistral" | "ministral3");
        Ok((full && layers.contains(&true)).then_some(Windows { size, sink, layers }))
    }

    fn layer_types(&self, types: &Value, layers: usize) -> Result<Vec<bool>, ConfigError> {
        let key = "layer_types";
        let list = types.as_array().filter(|list| list.len() == layers);
        let Some(list) = list else {
            return Err(self.model.invalid(key, types, &format!("one of each of {layers} layers")));
        };
        let kind = |v: &Value| match v.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(ConfigError::Unsupported {
                field: format!("{}{key}", self.model.path),
                found: v.to_string(),
                supported: "full_attention, sliding_attention",
            }),
        };
        list.iter().map(kind).collect()
    }
}

impl Settings {
    /// Of a config whose sizes are known.
    pub(super) fn read(
        model_type: &str,
        model: Fields<'_>,
        sizes: &Sizes,
        context: Option<usize>,
        guesses: &mut Vec<String>,
    ) -> Result<Settings, ConfigError> {
        let mut r = Reader { model_type, model, guesses };
        let windows = r.windows(sizes, context)?;
        let local = windows.as_ref().map(|_| r.only(&["gemma3_text"], "rope_local_base_freq"));
        let (embed_scale, branch_scale, hidden_scale) = r.scales(sizes)?;
        Ok(Settings {
            rotary_dim: r.rotary_dim(sizes)?,
            local_rope_theta: local.transpose()?.flatten(),
            // Hugging Face's default, and MLC's config always has it.
            parallel: model_type == "gpt_neox" && model.flag("use_parallel_residual")?.unwrap_or(true),
            clip_qkv: r.only(&["olmo"], "clip_qkv")?,
            attention_cap: r.only(&["gemma2"], "attn_logit_softcapping")?,
            logit_cap: r.only(&["gemma2", "gemma3_text"], "final_logit_softcapping")?,
            query_pre_attn_scalar: r.query_scalar(sizes)?,
            scale_by_layer: model_type == "gpt2"
                && model.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            embed_scale,
            branch_scale,
            hidden_scale,
            logit_scale: r.only(&["cohere"], "logit_scale")?.unwrap_or(1.0),
            windows,
            parts: sizes.parts.clone(),
            routing: routing::routing(model_type, model, sizes)?,
            position_scale: routing::position_scale(model_type, model)?,
            rope_layers: routing::rope_layers(model_type, model, sizes.layers)?,
            qk_norm_after_rope: model_type == "llama4" && model.flag("use_qk_norm")?.unwrap_or(true),
        })
    }

    /// Of a llama with heads of this width.
    pub(super) fn plain(head_dim: usize) -> Settings {
        Settings {
            rotary_dim: head_dim,
            local_rope_theta: None,
            parallel: false,
            clip_qkv: None,
            attention_cap: None,
            logit_cap: None,
            query_pre_attn_scalar: None,
            scale_by_layer: false,
            embed_scale: 1.0,
            branch_scale: 1.0,
            hidden_scale: 1.0,
            logit_scale: 1.0,
            windows: None,
            parts: Parts::default(),
            routing: None,
            position_scale: None,
            rope_layers: None,
            qk_norm_after_rope: false,
        }
    }
}
