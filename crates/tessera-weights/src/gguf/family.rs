//! GGUF's architectures that are families here: their tensors under both names, and what llama.cpp's converter does to
//! them. One table for both directions.
//!
//! Names are those of the Python package `gguf` (`gguf.tensor_mapping`), which a test compares.

/// A family under its two names.
#[derive(Debug)]
pub(crate) struct Family {
    /// `general.architecture`.
    pub arch: &'static str,
    /// Hugging Face's `model_type`.
    pub model_type: &'static str,
    /// Hugging Face's class.
    pub class: &'static str,
    /// Names of modules, GGUF's and the checkpoint's; `{i}` is the layer. A tensor adds `.weight` or `.bias`.
    pub names: &'static [&'static [(&'static str, &'static str)]],
    /// Whether the rows of q and k are in the order of llama's first code: the two that rotate together are neighbours.
    pub paired: bool,
    /// What the config calls the norms' epsilon.
    pub eps: &'static str,
    /// Whether norms are layer norms: GGUF has another key for their epsilon.
    pub layer_norm: bool,
    /// Keys under the architecture's name, beside those that all have.
    pub keys: &'static [&'static str],
}

type Names = &'static [(&'static str, &'static str)];

const ENDS: Names =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
const ATTENTION: Names = &[
    ("blk.{i}.attn_q", "model.layers.{i}.self_attn.q_proj"),
    ("blk.{i}.attn_k", "model.layers.{i}.self_attn.k_proj"),
    ("blk.{i}.attn_v", "model.layers.{i}.self_attn.v_proj"),
    ("blk.{i}.attn_output", "model.layers.{i}.self_attn.o_proj"),
];
const QK_NORMS: Names = &[
    ("blk.{i}.attn_q_norm", "model.layers.{i}.self_attn.q_norm"),
    ("blk.{i}.attn_k_norm", "model.layers.{i}.self_attn.k_norm"),
];
const MLP: Names = &[
    ("blk.{i}.ffn_gate", "model.layers.{i}.mlp.gate_proj"),
    ("blk.{i}.ffn_up", "model.layers.{i}.mlp.up_proj"),
    ("blk.{i}.ffn_down", "model.layers.{i}.mlp.down_proj"),
];
const NORMS: Names = &[
    ("blk.{i}.attn_norm", "model.layers.{i}.input_layernorm"),
    ("blk.{i}.ffn_norm", "model.layers.{i}.post_attention_layernorm"),
];
const FOUR_NORMS: Names = &[
    ("blk.{i}.attn_norm", "model.layers.{i}.input_layernorm"),
    ("blk.{i}.post_attention_norm", "model.layers.{i}.post_attention_layernorm"),
    ("blk.{i}.ffn_norm", "model.layers.{i}.pre_feedforward_layernorm"),
    ("blk.{i}.post_ffw_norm", "model.layers.{i}.post_feedforward_layernorm"),
];
const RESULT_NORMS: Names = &[
    ("blk.{i}.post_attention_norm", "model.layers.{i}.post_attention_layernorm"),
    ("blk.{i}.post_ffw_norm", "model.layers.{i}.post_feedforward_layernorm"),
];
const FUSED: Names = &[
    ("blk.{i}.attn_qkv", "model.layers.{i}.self_attn.qkv_proj"),
    ("blk.{i}.attn_output", "model.layers.{i}.self_attn.o_proj"),
    // Gate and up as one, without a name of its own.
    ("blk.{i}.ffn_up", "model.layers.{i}.mlp.gate_up_proj"),
    ("blk.{i}.ffn_down", "model.layers.{i}.mlp.down_proj"),
];
const STARCODER2_MLP: Names =
    &[("blk.{i}.ffn_up", "model.layers.{i}.mlp.c_fc"), ("blk.{i}.ffn_down", "model.layers.{i}.mlp.c_proj")];
const PHI: Names = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.final_layernorm"),
    ("output", "lm_head"),
    ("blk.{i}.attn_norm", "model.layers.{i}.input_layernorm"),
    ("blk.{i}.attn_q", "model.layers.{i}.self_attn.q_proj"),
    ("blk.{i}.attn_k", "model.layers.{i}.self_attn.k_proj"),
    ("blk.{i}.attn_v", "model.layers.{i}.self_attn.v_proj"),
    ("blk.{i}.attn_output", "model.layers.{i}.self_attn.dense"),
    ("blk.{i}.ffn_up", "model.layers.{i}.mlp.fc1"),
    ("blk.{i}.ffn_down", "model.layers.{i}.mlp.fc2"),
];
const GPT2: Names = &[
    ("token_embd", "wte"),
    ("position_embd", "wpe"),
    ("output_norm", "ln_f"),
    ("blk.{i}.attn_norm", "h.{i}.ln_1"),
    ("blk.{i}.attn_qkv", "h.{i}.attn.c_attn"),
    ("blk.{i}.attn_output", "h.{i}.attn.c_proj"),
    ("blk.{i}.ffn_norm", "h.{i}.ln_2"),
    ("blk.{i}.ffn_up", "h.{i}.mlp.c_fc"),
    ("blk.{i}.ffn_down", "h.{i}.mlp.c_proj"),
];

const LLAMA: Family = Family {
    arch: "llama",
    model_type: "llama",
    class: "LlamaForCausalLM",
    names: &[ENDS, ATTENTION, MLP, NORMS],
    paired: true,
    eps: "rms_norm_eps",
    layer_norm: false,
    keys: &[],
};

const PLAIN: Family = Family { paired: false, ..LLAMA };

const SOFT_CAPS: &[&str] = &["attn_logit_softcapping", "final_logit_softcapping"];

/// Every family.
pub(crate) const FAMILIES: &[Family] = &[
    LLAMA,
    Family { arch: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", ..PLAIN },
    Family {
        arch: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        names: &[ENDS, ATTENTION, QK_NORMS, MLP, NORMS],
        ..PLAIN
    },
    Family { arch: "gemma", model_type: "gemma", class: "GemmaForCausalLM", ..PLAIN },
    Family {
        arch: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        names: &[ENDS, ATTENTION, MLP, FOUR_NORMS],
        keys: SOFT_CAPS,
        ..PLAIN
    },
    Family {
        arch: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        names: &[ENDS, ATTENTION, QK_NORMS, MLP, FOUR_NORMS],
        keys: &["rope.freq_base_swa", "final_logit_softcapping"],
        ..PLAIN
    },
    Family {
        arch: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        names: &[ENDS, FUSED, NORMS],
        ..PLAIN
    },
    Family {
        arch: "phi2",
        model_type: "phi",
        class: "PhiForCausalLM",
        names: &[PHI],
        eps: "layer_norm_eps",
        layer_norm: true,
        ..PLAIN
    },
    Family {
        arch: "orion",
        model_type: "orion",
        class: "OrionForCausalLM",
        // The config's name for it is that of another norm.
        layer_norm: true,
        ..PLAIN
    },
    Family {
        arch: "command-r",
        model_type: "cohere",
        class: "CohereForCausalLM",
        eps: "layer_norm_eps",
        layer_norm: true,
        keys: &["logit_scale"],
        ..PLAIN
    },
    Family {
        arch: "olmo",
        model_type: "olmo",
        class: "OlmoForCausalLM",
        names: &[ENDS, ATTENTION, MLP],
        paired: true,
        eps: "layer_norm_eps",
        layer_norm: true,
        keys: &["attention.clamp_kqv"],
    },
    Family {
        arch: "stablelm",
        model_type: "stablelm",
        class: "StableLmForCausalLM",
        eps: "layer_norm_eps",
        layer_norm: true,
        keys: &["use_parallel_residual"],
        ..PLAIN
    },
    Family {
        arch: "olmo2",
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        names: &[ENDS, ATTENTION, QK_NORMS, MLP, RESULT_NORMS],
        ..PLAIN
    },
    Family {
        arch: "starcoder2",
        model_type: "starcoder2",
        class: "Starcoder2ForCausalLM",
        names: &[ENDS, ATTENTION, STARCODER2_MLP, NORMS],
        eps: "norm_epsilon",
        layer_norm: true,
        ..PLAIN
    },
    Family {
        arch: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        names: &[GPT2],
        eps: "layer_norm_epsilon",
        layer_norm: true,
        ..PLAIN
    },
];

impl Family {
    /// By GGUF's name.
    pub fn of_arch(arch: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|f| f.arch == arch)
    }

    /// By Hugging Face's name. Mistral is a llama there.
    pub fn of_model(model_type: &str) -> Option<&'static Family> {
        let name = if model_type == "mistral" { "llama" } else { model_type };
        FAMILIES.iter().find(|f| f.model_type == name)
    }

    /// GGUF's name of a checkpoint's tensor.
    pub fn gguf_name(&self, tensor: &str) -> Option<String> {
        let (module, end) = tensor.rsplit_once('.')?;
        let layer: Option<&str> = module.split('.').find(|part| part.bytes().all(|b| b.is_ascii_digit()));
        self.names.iter().copied().flatten().find_map(|(gguf, hf)| {
            let fits = match layer {
                Some(layer) => hf.contains("{i}") && hf.replace("{i}", layer) == module,
                None => *hf == module,
            };
            fits.then(|| format!("{}.{end}", gguf.replace("{i}", layer.unwrap_or_default())))
        })
    }

    /// Heads of q or k whose rows are neighbours where they were in halves; `None` for any other tensor.
    pub fn paired_heads(&self, gguf: &str, heads: usize, kv_heads: usize) -> Option<usize> {
        match gguf.rsplit('.').nth(1) {
            Some("attn_q") if self.paired => Some(heads),
            Some("attn_k") if self.paired => Some(kv_heads),
            _ => None,
        }
    }

    /// The names of all architectures.
    pub fn known() -> String {
        FAMILIES.iter().map(|f| f.arch).collect::<Vec<_>>().join(", ")
    }
}
