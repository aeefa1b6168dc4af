//! The hyper-parameters of a decoder, from `mlc-chat-config.json`, from HF's `config.json`, or from
//! the shapes in a manifest.

mod fields;
mod infer;
pub mod known;
mod nested;
mod parse;
mod routing;
mod settings;

pub use nested::{flattened, model_type};
pub use parse::ConfigError;
pub use settings::{Settings, Windows};

/// How positions are turned into angles beyond the trained context. All of HF's llama kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions as they are.
    None,
    /// `linear`: positions divided by `factor`.
    Linear {
        /// Divisor of the position.
        factor: f64,
    },
    /// `dynamic` NTK: the base grows once the sequence is longer than the trained context.
    Dynamic {
        /// Growth factor.
        factor: f64,
        /// Trained context, in tokens.
        original_context: usize,
    },
    /// `llama3`: low frequencies are divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Trained context, in tokens.
        original_context: usize,
    },
    /// `yarn`.
    Yarn {
        /// Extension factor.
        factor: f64,
        /// Trained context, in tokens.
        original_context: usize,
        /// Rotations above which a dimension is extrapolated (32 by default).
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated (1 by default).
        beta_slow: f64,
        /// Factor on cos and sin; `None` derives it from `factor`, `mscale` and `mscale_all_dim`.
        attention_factor: Option<f64>,
        /// DeepSeek's attention scaling terms.
        mscale: Option<f64>,
        /// See `mscale`.
        mscale_all_dim: Option<f64>,
        /// Whether the correction range is rounded to whole dimensions (HF's `truncate`, default true).
        truncate: bool,
    },
    /// `longrope`: a divisor for each frequency, one list for short and one for long contexts.
    LongRope {
        /// `head_dim / 2` divisors within the trained context.
        short_factor: Vec<f64>,
        /// `head_dim / 2` divisors beyond it.
        long_factor: Vec<f64>,
        /// Trained context, in tokens.
        original_context: usize,
        /// Factor on cos and sin; `None` derives it from the extension ratio.
        attention_factor: Option<f64>,
        /// `max_position_embeddings / original_context` unless given.
        factor: Option<f64>,
    },
}

/// Activation of the MLP's gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Activation {
    Silu,
    /// Exact GELU (erf).
    Gelu,
    /// GELU's tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `1 / (1 + e^-x)`, of gates of attention; no config asks for it.
    Sigmoid,
}

impl Activation {
    /// One after another.
    pub const EACH: [Activation; 6] = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Relu2,
        Activation::Sigmoid,
    ];
}

/// The hyper-parameters of a decoder-only model. Every value is checked: sizes are positive, heads
/// divide, no product of two sizes overflows.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// MLC's `model_type`, for example `llama`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Scaling of the rotary angles.
    pub rope_scaling: RopeScaling,
    /// Longest sequence, in tokens.
    pub context_window_size: usize,
    /// Longest sequence of the model itself, which `longrope` compares with what it was first trained for. A
    /// packager may choose a shorter one for [`ModelConfig::context_window_size`].
    pub trained_context: usize,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether q, k and v have biases: whenever `attention_bias` is true, and in Qwen2, where o has none.
    pub qkv_bias: bool,
    /// Whether the MLP's linears have biases.
    pub mlp_bias: bool,
    /// Activation of the gate.
    pub activation: Activation,
    /// What only some families' arithmetic needs, with the families' own defaults filled in.
    pub settings: Settings,
    /// What had to be guessed, one sentence each, to be shown to the user.
    pub guesses: Vec<String>,
}
