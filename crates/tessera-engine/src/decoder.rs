//! The decoder as a program: which tensors of a folder go into which operation. What a family computes is data
//! ([`Block`]); what its parameters are for, too ([`Role`]). Nothing here knows a family by its name.

mod delta;
mod latent;
mod mixture;
mod rwkv;
mod source;
mod weights;

pub use source::FolderWeights;

use std::collections::HashMap;

use tessera_compute::program::{Act, Attend, Function, Heads, Ids, Kv, NormKind, Op, Program, Rows};
use tessera_compute::rope::{Pairs, Rope};
use tessera_weights::arch::{self, ArchError, Attention, Block, Mlp, Place, Role, Semantics};
use tessera_weights::config::{Activation, ModelConfig};
use tessera_weights::folder::FolderError;
use tessera_weights::manifest::Manifest;
use tessera_weights::scheme::Scheme;
use weights::{Linear, Weights};

/// A folder that cannot be made a program.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// A family that is not known, or sizes that a family cannot have.
    #[error(transparent)]
    Sizes(#[from] ArchError),
    /// A tensor is missing or has another shape or type.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A part that every decoder has and this family's table has not.
    #[error("the family has no parameter for {role:?} in layer {layer:?}")]
    Part {
        /// Which.
        role: Role,
        /// Where; `None` outside of the layers.
        layer: Option<usize>,
    },
    /// Parts that are each here, but not beside each other.
    #[error("layer {layer}: {what} is not here")]
    Together {
        /// Where.
        layer: usize,
        /// What the blocks ask for.
        what: &'static str,
    },
    /// Tensors that this family's blocks do not read: the output without them would be wrong.
    #[error("{count} tensors have no place in a {family} decoder, the first is {first}")]
    Unused {
        /// `model_type`.
        family: String,
        /// How many.
        count: usize,
        /// The first of them, in the manifest's order.
        first: String,
    },
}

/// A program that computes what `semantics` says, of the tensors that the manifest lists. It describes each weight; the
/// bytes are asked for when a backend loads it ([`FolderWeights`]).
pub fn program(
    manifest: &Manifest,
    config: &ModelConfig,
    scheme: &Scheme,
    semantics: Semantics,
) -> Result<Program, DecoderError> {
    let block = config.block(semantics);
    let vocab = config.vocab_size;
    let mut p = if block.is_encoder() { Program::without_logits(vocab) } else { Program::new(vocab) };
    p.ropes = ropes(&block, config);
    let weights = Weights::new(manifest, scheme, config)?;
    let x = p.slot(Rows::All, config.hidden_size);
    let mut b = Builder { config, block, weights, p, x, rows: Rows::All, work: HashMap::new() };
    b.embed()?;
    for layer in 0..config.num_hidden_layers {
        b.layer(layer)?;
    }
    b.head()?;
    if let Some((count, first)) = b.weights.unused() {
        return Err(DecoderError::Unused { family: config.model_type.clone(), count, first });
    }
    Ok(b.p)
}

fn ropes(block: &Block, config: &ModelConfig) -> Vec<Rope> {
    let rope = |r: &arch::Rotary| Rope {
        dim: r.dim,
        theta: r.theta,
        scaling: r.scaling.clone(),
        context: config.trained_context,
        pairs: match (r.interleaved, r.ramp_by_dim) {
            (true, true) => Pairs::NeighboursApart,
            (true, false) => Pairs::Neighbours,
            (false, true) => Pairs::Apart,
            (false, false) => Pairs::Halves,
        },
    };
    block.ropes.iter().map(rope).collect()
}

/// What a slot beside the residual stream holds. Layers with the same width share these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// What attention reads, and the MLP where it reads the same.
    Normed,
    /// What the MLP reads beside attention.
    MlpNormed,
    Qkv,
    Mixed,
    Wide,
    Gated,
    /// A branch before it is added.
    Branch,
    /// Query heads that lie apart from their gates, and the gates.
    Query,
    QueryGate,
    GatedMixed,
    /// A router's logits, and what became of them.
    Scores,
    Experts,
    /// Between an expert's two matrices, and those of the one that every row goes through.
    Expert,
    Shared,
    SharedWide,
    /// Its factor.
    SharedScore,
    SharedGate,
    /// What the delta rule reads, before and after the convolution, and what it gives.
    DeltaIn,
    DeltaPast,
    DeltaZ,
    DeltaGates,
    DeltaOut,
    /// Of latent attention.
    LatentQuery,
    LatentHeads,
    Latent,
    LatentKv,
    LatentValues,
    /// The same as it is for single tokens, and what was taken of both.
    LatentSingle,
    LatentChosen,
    /// Of a layer of RWKV: the row before, what is made of both, how much of it, and what the recurrence reads.
    Shift,
    Shifted,
    Shares,
    Share,
    NarrowDecay,
    Decay,
    Key,
    Value,
    Receptance,
    RwkvGate,
}

/// What attention reads.
struct Attended {
    q: Act,
    k: Act,
    v: Act,
    /// What its result is multiplied by, after a sigmoid.
    gate: Option<Act>,
}

struct Builder<'a> {
    config: &'a ModelConfig,
    block: Block,
    weights: Weights<'a>,
    p: Program,
    /// The residual stream.
    x: Act,
    /// Its rows: the last layer computes only those whose logits are wanted, after its keys and values are stored.
    rows: Rows,
    work: HashMap<(Work, Rows, usize), Act>,
}

impl Builder<'_> {
    fn slot(&mut self, work: Work, width: usize) -> Act {
        let Builder { p, rows, .. } = self;
        *self.work.entry((work, *rows, width)).or_insert_with(|| p.slot(*rows, width))
    }

    fn push(&mut self, op: Op) {
        self.p.ops.push(op);
    }

    fn embed(&mut self) -> Result<(), DecoderError> {
        let out = self.x;
        let table = self.weights.embedding(&mut self.p, Role::Embed)?;
        let scale = self.block.embed_scale;
        self.push(Op::Embed { table, ids: Ids::Tokens, scale, accumulate: false, out });
        if self.weights.has(None, Role::Positions) {
            let table = self.weights.embedding(&mut self.p, Role::Positions)?;
            self.push(Op::Embed { table, ids: Ids::Positions, scale: 1.0, accumulate: true, out });
        }
        if self.weights.has(None, Role::TokenTypes) {
            // All of a text is of the first type: the second is for the other text of a pair.
            let table = self.weights.embedding(&mut self.p, Role::TokenTypes)?;
            self.push(Op::Embed { table, ids: Ids::First, scale: 1.0, accumulate: true, out });
        }
        self.norm(None, Place::Embed, out, out)?;
        Ok(())
    }

    fn layer(&mut self, layer: usize) -> Result<(), DecoderError> {
        if let Some(rwkv) = self.block.rwkv {
            self.rwkv(layer, rwkv)?;
            // The row before the last is part of the state, in the MLP too.
            if layer + 1 == self.config.num_hidden_layers {
                self.pick();
            }
            return Ok(());
        }
        let hidden = self.config.hidden_size;
        let normed = self.slot(Work::Normed, hidden);
        let attended = self.norm(Some(layer), Place::PreAttention, self.x, normed)?;
        let last = layer + 1 == self.config.num_hidden_layers;
        if let Some(delta) = self.block.delta[layer] {
            let mut mixed = self.delta(layer, attended, delta)?;
            if last {
                self.pick();
                mixed = self.picked(Work::Mixed, mixed);
            }
            self.branch(layer, Role::Out, mixed, Place::PostAttention)?;
            return self.feed_forward(layer, None);
        }
        let mut heads = self.heads();
        let mut latent = None;
        let Attended { q, k, v, gate } = match self.block.latent {
            Some(sizes) => {
                let (attended, rows, through) = self.latent(layer, attended, sizes)?;
                (heads, latent) = (rows, Some((sizes, through)));
                attended
            }
            None => self.qkv(layer, attended)?,
        };
        let mut shared = attended;
        if last {
            self.pick();
            if self.block.parallel {
                let normed = self.slot(Work::Normed, hidden);
                shared = self.norm(Some(layer), Place::PreAttention, self.x, normed)?;
            }
        }
        // Before attention's result is added to it.
        let beside = match self.block.parallel {
            true if self.has_norm(Some(layer), Place::PreMlp) => {
                let normed = self.slot(Work::MlpNormed, hidden);
                Some(self.norm(Some(layer), Place::PreMlp, self.x, normed)?)
            }
            true => Some(shared),
            false => None,
        };
        let mut mixed = self.attend(layer, heads, [q, k, v]);
        if let Some((latent, through)) = latent {
            mixed = self.latent_values(mixed, latent, through);
        }
        if let Some(gate) = gate {
            let gate = if last { self.picked(Work::QueryGate, gate) } else { gate };
            let out = self.slot(Work::GatedMixed, mixed.width);
            self.push(Op::Gate { gate, up: mixed, activation: Activation::Sigmoid, out });
            mixed = out;
        }
        self.branch(layer, Role::Out, mixed, Place::PostAttention)?;
        self.feed_forward(layer, beside)
    }

    /// From here on only the rows whose logits are wanted.
    fn pick(&mut self) {
        self.rows = Rows::Picked;
        let picked = self.p.slot(Rows::Picked, self.config.hidden_size);
        self.push(Op::Pick { x: self.x, out: picked });
        self.x = picked;
    }

    /// The picked rows of an activation.
    fn picked(&mut self, work: Work, x: Act) -> Act {
        let out = self.slot(work, x.width);
        self.push(Op::Pick { x, out });
        out
    }

    /// The MLP, or the experts. `beside`: what is read where the MLP stands beside attention.
    fn feed_forward(&mut self, layer: usize, beside: Option<Act>) -> Result<(), DecoderError> {
        let hidden = self.config.hidden_size;
        let read = match beside {
            Some(read) => read,
            None => {
                let normed = self.slot(Work::Normed, hidden);
                self.norm(Some(layer), Place::PreMlp, self.x, normed)?
            }
        };
        if let Some(experts) = self.block.experts[layer] {
            if self.block.branch_scale != 1.0 || self.has_norm(Some(layer), Place::PostMlp) {
                return Err(DecoderError::Together {
                    layer,
                    what: "a mixture whose result is scaled or normed",
                });
            }
            return self.mixture(layer, read, experts);
        }
        let gated = self.mlp(layer, read)?;
        self.branch(layer, Role::Down, gated, Place::PostMlp)
    }

    /// Query, key and value heads of every row, limited and normed as the family has it.
    fn qkv(&mut self, layer: usize, x: Act) -> Result<Attended, DecoderError> {
        let heads = self.heads();
        let attention = self.block.attention[layer];
        let wide = heads.q * heads.dim;
        let qkv = self.slot(Work::Qkv, heads.qkv_width() + if attention.gated { wide } else { 0 });
        let (mut parts, mut gate) = (heads.split(qkv), None);
        if attention.gated {
            // Each query head has its gate behind it.
            let (kv, dim) = (heads.kv * heads.dim, heads.dim);
            parts = [self.slot(Work::Query, wide), qkv.part(2 * wide, kv), qkv.part(2 * wide + kv, kv)];
            let gates = self.slot(Work::QueryGate, wide);
            gate = Some(gates);
            self.linear(layer, Role::Qkv, x, qkv)?;
            for (from, out) in [(0, parts[0]), (dim, gates)] {
                let (x, count) = (qkv.part(from, 2 * wide - from), heads.q);
                self.push(Op::Columns { x, from: 2 * dim, each: dim, count, to: dim, out });
            }
        } else if self.weights.has(Some(layer), Role::Qkv) {
            self.linear(layer, Role::Qkv, x, qkv)?;
        } else {
            for (role, out) in [Role::Q, Role::K, Role::V].into_iter().zip(parts) {
                self.linear(layer, role, x, out)?;
            }
        }
        if let Some(limit) = self.block.clip_qkv {
            for x in if attention.gated { parts.to_vec() } else { vec![qkv] } {
                self.push(Op::Map { x, f: Function::Clip(limit), out: x });
            }
        }
        for (role, x) in [(Role::QNorm, parts[0]), (Role::KNorm, parts[1])] {
            if self.weights.has(Some(layer), role) {
                let w = self.weights.norm(&mut self.p, Some(layer), role, self.block.norm.offset)?;
                let (kind, eps) = (self.block.norm.kind, self.block.attention[layer].qk_eps);
                let (weight, bias) = (Some(w.weight), w.bias);
                self.push(Op::Norm { kind, x, each: w.len, weight, bias, eps, out: x });
            }
        }
        let [q, k, v] = parts;
        if let Some(eps) = attention.qk_norm_after_rope {
            // A rotation leaves the mean of the squares as it is, unless its scaling has a factor.
            if attention.rope.is_some_and(|rope| self.p.ropes[rope].frequencies(1).factor != 1.0) {
                return Err(DecoderError::Together { layer, what: "a norm behind rotations with a factor" });
            }
            let (kind, each, weight, bias) = (NormKind::Rms, heads.dim, None, None);
            for x in [q, k] {
                self.push(Op::Norm { kind, x, each, weight, bias, eps, out: x });
            }
        }
        if let Some(scale) = attention.position_scale {
            self.push(Op::ByPosition { x: q, scale, out: q });
        }
        Ok(Attended { q, k, v, gate })
    }

    fn attend(&mut self, layer: usize, heads: Heads, [q, k, v]: [Act; 3]) -> Act {
        let out = self.slot(Work::Mixed, heads.q * heads.dim);
        let Attention { rope, mask, scale, .. } = self.block.attention[layer];
        let cap = self.block.attention_cap;
        self.p.kv.push(Kv { heads: heads.kv, dim: heads.dim });
        let layer = self.p.kv.len() - 1;
        self.push(Op::Attend(Attend { q, k, v, heads, layer, rope, mask, scale, cap, out }));
        out
    }

    /// What the MLP's last matrix reads.
    fn mlp(&mut self, layer: usize, x: Act) -> Result<Act, DecoderError> {
        let width = self.config.intermediate_size;
        let activation = self.block.activation;
        let out = self.slot(Work::Gated, width);
        if self.block.mlp == Mlp::Plain {
            self.linear(layer, Role::Up, x, out)?;
            self.push(Op::Map { x: out, f: Function::Activation(activation), out });
            return Ok(out);
        }
        let wide = self.slot(Work::Wide, 2 * width);
        let (first, second) = (wide.part(0, width), wide.part(width, width));
        if self.weights.has(Some(layer), Role::GateUp) {
            self.linear(layer, Role::GateUp, x, wide)?;
        } else {
            self.linear(layer, Role::Gate, x, first)?;
            self.linear(layer, Role::Up, x, second)?;
        }
        let (gate, up) = if self.block.mlp == Mlp::Gated { (first, second) } else { (second, first) };
        self.push(Op::Gate { gate, up, activation, out });
        Ok(out)
    }

    /// Adds what `role` makes of `x` to the residual stream.
    fn branch(&mut self, layer: usize, role: Role, x: Act, place: Place) -> Result<(), DecoderError> {
        let scale = self.block.branch_scale;
        let Linear { weight, bias } = self.weights.linear(&mut self.p, Some(layer), role)?;
        let out = self.x;
        if scale == 1.0 && (self.block.post_sum || !self.has_norm(Some(layer), place)) {
            self.push(Op::Linear { x, weight, bias, accumulate: true, out });
            if self.block.post_sum {
                self.norm(Some(layer), place, out, out)?;
            }
            return Ok(());
        }
        let branch = self.slot(Work::Branch, self.config.hidden_size);
        self.push(Op::Linear { x, weight, bias, accumulate: false, out: branch });
        self.norm(Some(layer), place, branch, branch)?;
        self.push(Op::Add { x: branch, scale, out });
        Ok(())
    }

    fn head(&mut self) -> Result<(), DecoderError> {
        let normed = self.slot(Work::Normed, self.config.hidden_size);
        let x = self.norm(None, Place::Final, self.x, normed)?;
        let Some(out) = self.p.logits else {
            self.p.begin_head(x);
            return Ok(());
        };
        let head = match self.weights.head(&mut self.p, self.config)? {
            Some(head) => head,
            None => self.tied(),
        };
        self.p.begin_head(x);
        let Linear { weight, bias } = head;
        self.push(Op::Linear { x, weight, bias, accumulate: false, out });
        // A factor on what the head reads is one on what it makes: no family with such a factor has a bias there.
        let scale = self.block.hidden_scale * self.block.logit_scale;
        let scale = (scale != 1.0).then_some(Function::Scale(scale));
        for f in scale.into_iter().chain(self.block.logit_cap.map(Function::Cap)) {
            self.push(Op::Map { x: out, f, out });
        }
        Ok(())
    }

    /// The embedding as the head: it was read first.
    fn tied(&self) -> Linear {
        let table = self.p.ops.iter().find_map(|op| match op {
            Op::Embed { table, ids: Ids::Tokens, .. } => Some(*table),
            _ => None,
        });
        Linear { weight: table.expect("a decoder embeds tokens"), bias: None }
    }

    fn linear(&mut self, layer: usize, role: Role, x: Act, out: Act) -> Result<(), DecoderError> {
        let Linear { weight, bias } = self.weights.linear(&mut self.p, Some(layer), role)?;
        self.push(Op::Linear { x, weight, bias, accumulate: false, out });
        Ok(())
    }

    fn has_norm(&self, layer: Option<usize>, place: Place) -> bool {
        let bare =
            matches!(place, Place::PreAttention | Place::PreMlp | Place::Final) && self.block.norm.bare;
        bare || self.weights.has(layer, Role::Norm(place))
    }

    /// The norm at `place`, written to `out`; `x` itself where the family has none there.
    fn norm(&mut self, layer: Option<usize>, place: Place, x: Act, out: Act) -> Result<Act, DecoderError> {
        if !self.has_norm(layer, place) {
            return Ok(x);
        }
        let arch::Norm { kind, eps, offset, .. } = self.block.norm;
        let (mut weight, mut bias) = (None, None);
        if self.weights.has(layer, Role::Norm(place)) {
            let w = self.weights.norm(&mut self.p, layer, Role::Norm(place), offset)?;
            (weight, bias) = (Some(w.weight), w.bias);
        }
        self.push(Op::Norm { kind, x, each: x.width, weight, bias, eps, out });
        Ok(out)
    }

    fn heads(&self) -> Heads {
        let c = self.config;
        Heads { q: c.num_attention_heads, kv: c.num_key_value_heads, dim: c.head_dim }
    }
}
