//! What the blocks of one decoder compute, with the family's table, the config and the chosen meaning resolved.
//! A builder of programs reads nothing else but this and the parameters' roles.

use crate::config::{Activation, RopeScaling};
use serde::{Deserialize, Serialize};

/// Whose meaning of a family is computed, where the two differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Semantics {
    /// The model as its authors define it: what its weights are for.
    #[default]
    Authors,
    /// What MLC-LLM computes for the same folder, as pages in the field do.
    Mlc,
}

/// A decoder's arithmetic as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Norms over whole rows.
    pub norm: Norm,
    /// Factor on the embedding.
    pub embed_scale: f32,
    /// Whether attention and MLP both read the block's input and are added to it together. With one norm before them
    /// they share it.
    pub parallel: bool,
    /// Factor on each branch before it is added.
    pub branch_scale: f32,
    /// q, k and v are limited to plus and minus this before they are rotated.
    pub clip_qkv: Option<f32>,
    /// One for each layer.
    pub attention: Vec<Attention>,
    /// The rotary angles that layers name by index.
    pub ropes: Vec<Rotary>,
    /// `cap * tanh(score / cap)` on attention's scores.
    pub attention_cap: Option<f32>,
    /// How an MLP without experts is built.
    pub mlp: Mlp,
    /// Of the MLP.
    pub activation: Activation,
    /// One for each layer that has experts; `None` where the MLP is dense.
    pub experts: Vec<Option<Experts>>,
    /// One for each layer whose place of attention a recurrence takes.
    pub delta: Vec<Option<DeltaNet>>,
    /// Keys and values from a narrow latent row (DeepSeek). [`Attention::scale`] is that of `nope + rope` dimensions.
    pub latent: Option<Latent>,
    /// Epsilon of the norms of the latent rows: the authors' code does not take the config's.
    pub latent_eps: f32,
    /// Whether a call of one token reads the latent through `w_uk` and `w_uv`, which no scheme quantises, and not through
    /// `kv_b_proj` (MLC's; the same where nothing is quantised).
    pub absorbed: bool,
    /// Whether the norms after attention and after the MLP are of the sum, `x = norm(x + f(x))`, and not of the branch
    /// (BERT).
    pub post_sum: bool,
    /// Layers without attention, whose state is all that they keep of the text (RWKV 6).
    pub rwkv: Option<Rwkv>,
    /// Factor on the normed hidden state before the head.
    pub hidden_scale: f32,
    /// Factor on the logits.
    pub logit_scale: f32,
    /// `cap * tanh(logit / cap)`.
    pub logit_cap: Option<f32>,
}

impl Block {
    /// Whether all of a text sees all of it: what comes out is a hidden state of each token, and no logits.
    pub fn is_encoder(&self) -> bool {
        self.attention.iter().any(|attention| attention.mask == Mask::Full)
    }

    /// In what it computes something else than `other`, in a reader's words.
    pub fn differs_from(&self, other: &Block) -> Vec<&'static str> {
        let layers = |same: &dyn Fn(&Attention, &Attention) -> bool| {
            self.attention.iter().zip(&other.attention).all(|(a, b)| same(a, b))
        };
        let ropes = |same: &dyn Fn(&Rotary, &Rotary) -> bool| {
            self.attention.iter().zip(&other.attention).all(|(a, b)| {
                let of = |block: &Block, a: &Attention| a.rope.and_then(|i| block.ropes.get(i)).cloned();
                match (of(self, a), of(other, b)) {
                    (Some(a), Some(b)) => same(&a, &b),
                    (a, b) => a.is_none() && b.is_none(),
                }
            })
        };
        let same = [
            ("the attention's window", layers(&|a, b| a.mask == b.mask)),
            ("the factor on attention's scores", layers(&|a, b| a.scale == b.scale)),
            ("the factor on queries by position", layers(&|a, b| a.position_scale == b.position_scale)),
            ("the cap on attention's scores", self.attention_cap == other.attention_cap),
            ("the rotary base", ropes(&|a, b| a.theta == b.theta)),
            (
                "the rotary scaling",
                ropes(&|a, b| {
                    (&a.scaling, a.by_call, a.ramp_by_dim) == (&b.scaling, b.by_call, b.ramp_by_dim)
                }),
            ),
            ("which dimensions rotate", ropes(&|a, b| (a.dim, a.interleaved) == (b.dim, b.interleaved))),
            ("the activation", self.activation == other.activation),
            ("the factor on the logits", self.logit_scale == other.logit_scale),
            ("the cap on the logits", self.logit_cap == other.logit_cap),
        ];
        let mut words: Vec<_> = same.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect();
        if words.is_empty() && self != other {
            words.push("the arithmetic of its blocks");
        }
        words
    }
}

/// Norms over whole rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Added to the variance, or to the mean of squares.
    pub eps: f32,
    /// Added to the stored weights when they are read (Nemotron). Gemma's are stored with it.
    pub offset: f32,
    /// Whether norms stand before attention, before the MLP and before the head although they have no weights (OLMo).
    pub bare: bool,
}

/// Kind of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)`.
    Rms,
    /// `(x - mean) / sqrt(variance + eps)`.
    Layer,
}

/// Attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Index into [`Block::ropes`]; `None`: not rotated.
    pub rope: Option<usize>,
    /// What a query sees.
    pub mask: Mask,
    /// Factor on the scores.
    pub scale: f32,
    /// Epsilon of the norms of query and key heads, where the layer has them.
    pub qk_eps: f32,
    /// Whether attention's result is multiplied by the sigmoid of a gate that lies beside each query head (Qwen3.5).
    pub gated: bool,
    /// Factor on the queries that grows with their position.
    pub position_scale: Option<PositionScale>,
    /// Epsilon of the norm, without weights, of each query and key head after they were rotated (Llama 4).
    pub qk_norm_after_rope: Option<f32>,
}

/// The query at position `p` is multiplied by `1 + beta * ln(1 + floor((p + offset) / floor))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionScale {
    /// Factor on the logarithm.
    pub beta: f32,
    /// Positions of one step.
    pub floor: f32,
    /// Added to the position.
    pub offset: usize,
}

impl PositionScale {
    /// The factor of a position.
    pub fn at(&self, position: usize) -> f32 {
        let step = ((position + self.offset) as f32 / self.floor).floor();
        1.0 + self.beta * step.ln_1p()
    }
}

/// Which positions a query at `p` sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// `0..=p`.
    Causal,
    /// The last `n` of them, its own included.
    Window(usize),
    /// As [`Mask::Window`] for a token that is a call of its own; one of a longer call that begins at `s` sees
    /// `s - n ..= p` (layer windows of TVM's cache).
    CallWindow(usize),
    /// MLC's window of the whole cache: keys are kept unrotated, at most `window` of them, and their positions are
    /// places in the cache. A call of `n` tokens sees what is held and, causally, itself; after it the first `sink`
    /// of what is held and the last `window - sink` stay. The same for every layer. What stays moves together, so that
    /// only the first `sink` are at another distance from a query than they were: see [`Mask::sinks`].
    Cache {
        /// How many keys are kept.
        window: usize,
        /// How many of the first stay for ever.
        sink: usize,
    },
    /// All of the sequence, in one call (encoders).
    Full,
}

impl Mask {
    /// The first positions that the query at `position` sees apart from those of [`Mask::sees`]; `None` where there is no
    /// gap between them. `call` as there.
    pub fn sinks(self, position: usize, call: Option<usize>) -> Option<Sinks> {
        let Mask::Cache { window, sink } = self else { return None };
        let back = call.unwrap_or(position).checked_sub(window).filter(|back| *back > 0)?;
        Some(Sinks { count: sink, back })
    }

    /// Which positions the query at `position` sees, of a sequence that holds `held` after the step. `call`: where the
    /// call began that it is part of, `None` for a token that is a call of its own.
    pub fn sees(self, position: usize, held: usize, call: Option<usize>) -> std::ops::Range<usize> {
        let end = position + 1;
        match (self, call) {
            (Mask::Causal, _) => 0..end,
            (Mask::Cache { sink, .. }, _) => match self.sinks(position, call) {
                None => 0..end,
                Some(Sinks { back, .. }) => back + sink..end,
            },
            (Mask::CallWindow(n), Some(start)) => start.saturating_sub(n)..end,
            (Mask::Window(n) | Mask::CallWindow(n), _) => end.saturating_sub(n)..end,
            (Mask::Full, _) => 0..held,
        }
    }
}

/// The first keys of a cache that has forgotten what came after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sinks {
    /// How many.
    pub count: usize,
    /// By how much less than its position the query is away from them.
    pub back: usize,
}

/// Rotary angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// How many of a head's dimensions turn, from the first on; even.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// What happens beyond the trained context.
    pub scaling: RopeScaling,
    /// Whether a pair is two neighbours, and not one of each half.
    pub interleaved: bool,
    /// Whether yarn's ramp goes by the dimension and not by the pair, so that a pair's members turn by two angles
    /// (TVM's). With [`Rotary::interleaved`], the dimension is counted after the first of all pairs were put before the
    /// second of all.
    pub ramp_by_dim: bool,
    /// Whether longrope's factors go by the tokens of the call and not by the length of the sequence (TVM's).
    pub by_call: bool,
}

/// How an MLP is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(f(gate) * up)`.
    Gated,
    /// `down(gate * f(up))`: the second half is activated (Qwen 1).
    GatedSecond,
    /// `down(f(up))`.
    Plain,
}

/// Experts of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// Width of each.
    pub width: usize,
    /// How many a row goes through.
    pub top_k: usize,
    /// What the router's logits become.
    pub score: Score,
    /// Whether the chosen scores are divided by their sum.
    pub renormalise: bool,
    /// Factor on the chosen scores.
    pub scale: f32,
    /// How many groups experts are chosen from, and how many of the groups are kept.
    pub groups: Option<Groups>,
    /// Whether the score multiplies an expert's input and not its output (Llama 4).
    pub on_input: bool,
}

/// A router's scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
}

/// Experts chosen within groups (DeepSeek).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub count: usize,
    /// How many are kept.
    pub kept: usize,
    /// Whether a group counts by the sum of its two best and not by its best.
    pub two_best: bool,
}

/// A gated delta net: a recurrence with a state of `key_dim` by `value_dim` for each value head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaNet {
    /// Query heads, and as many key heads; divides `value_heads`.
    pub key_heads: usize,
    /// Value heads. Head `h` reads query and key head `h / (value_heads / key_heads)`.
    pub value_heads: usize,
    /// Width of a query or key head.
    pub key_dim: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// Taps of the causal convolution over q, k and v.
    pub kernel: usize,
    /// Epsilon of the norm of each head's result.
    pub eps: f32,
}

/// Widths of attention whose keys and values come from one narrow row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Width that queries come from; `None` where they come from the hidden state.
    pub q_rank: Option<usize>,
    /// Width that keys and values come from.
    pub kv_rank: usize,
    /// Dimensions of a query or key head that do not turn; they are the first.
    pub nope: usize,
    /// Those that turn. Keys have one for all heads.
    pub rope: usize,
    /// Width of a value head.
    pub value: usize,
}

/// A receptance-weighted recurrence of version 6, with a state of `head_dim` by `head_dim` for each of the model's heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rwkv {
    /// Width of each of the five parts of the token shift's narrow row.
    pub mix: usize,
    /// Width of the decay's narrow row.
    pub decay: usize,
    /// The hidden state is halved after every so many layers; 0 for never. The weights of what is added to it were
    /// divided when the folder was made.
    pub rescale_every: usize,
    /// Epsilon of the norm of each head's result.
    pub group_eps: f32,
}
