//! The decoder as a program: which tensors of a folder go into which operation.

use std::collections::HashSet;
use tessera_compute::program::{Heads, MatrixId, Op, Program, Rows, Slot, VectorId};
use tessera_compute::rope::Rope;
use tessera_weights::config::ModelConfig;
use tessera_weights::folder::{Folder, FolderError};
use tessera_weights::scheme::{Layout, Scheme};

/// Families that can be run, by MLC's `model_type`.
pub const FAMILIES: &[&str] = &["llama", "mistral"];

/// A folder that cannot be made a program.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// A family whose blocks are not here.
    #[error(
        "model_type {0:?} can be opened and converted but not run; runnable are {known}",
        known = FAMILIES.join(", ")
    )]
    Family(String),
    /// A tensor is missing or has another shape.
    #[error(transparent)]
    Folder(#[from] FolderError),
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

/// Reads the weights of `folder` into a program. Matrices stay where they are in the mapped shards;
/// norms and biases are widened to f32.
pub fn program(folder: &Folder, config: &ModelConfig, scheme: &Scheme) -> Result<Program, DecoderError> {
    if !FAMILIES.contains(&&*config.model_type) {
        return Err(DecoderError::Family(config.model_type.clone()));
    }
    let c = config;
    let heads = Heads { q: c.num_attention_heads, kv: c.num_key_value_heads, dim: c.head_dim };
    let rope = Rope {
        dim: c.head_dim,
        theta: c.rope_theta,
        scaling: c.rope_scaling.clone(),
        context: c.trained_context,
    };
    let mut p = Program::new(heads, rope, c.num_hidden_layers, c.vocab_size);
    let mut w = Weights { folder, scheme, p: &mut p, used: HashSet::new() };

    let hidden = c.hidden_size;
    let table = w.embedding("model.embed_tokens", c.vocab_size, hidden)?;
    // Older converters wrote a head although the model ties it: a head that is there is used.
    let has_head = ["lm_head.q_weight", "lm_head.weight"].iter().any(|n| folder.tensor(n).is_some());
    let head =
        if has_head || !c.tie_word_embeddings { w.linear("lm_head", c.vocab_size, hidden)? } else { table };
    let final_norm = w.vector("model.norm.weight", hidden)?;

    let mut x = w.p.slot(Rows::All, hidden);
    w.p.ops.push(Op::Embed { table, out: x });
    // All layers share these; the last one computes only rows whose logits are wanted after its keys
    // and values are stored.
    let normed = w.p.slot(Rows::All, hidden);
    let qkv = w.p.slot(Rows::All, heads.qkv_width());
    let mut work = Work::new(w.p, Rows::All, c);
    for layer in 0..c.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let eps = c.norm_eps as f32;
        let weight = w.vector(&name("input_layernorm.weight"), hidden)?;
        w.p.ops.push(Op::RmsNorm { x, weight, eps, out: normed });
        let (weight, bias) = w.with_bias(&name("self_attn.qkv_proj"), heads.qkv_width(), hidden)?;
        w.p.ops.push(Op::Linear { x: normed, weight, bias, accumulate: false, out: qkv });
        if layer + 1 == c.num_hidden_layers {
            work = Work::new(w.p, Rows::Picked, c);
            let picked = w.p.slot(Rows::Picked, hidden);
            w.p.ops.push(Op::Pick { x, out: picked });
            x = picked;
        }
        w.p.ops.push(Op::Attend { qkv, layer, out: work.mixed });
        let (weight, bias) = w.with_bias(&name("self_attn.o_proj"), hidden, heads.q * heads.dim)?;
        w.p.ops.push(Op::Linear { x: work.mixed, weight, bias, accumulate: true, out: x });

        let weight = w.vector(&name("post_attention_layernorm.weight"), hidden)?;
        w.p.ops.push(Op::RmsNorm { x, weight, eps, out: work.normed });
        let (weight, bias) = w.with_bias(&name("mlp.gate_up_proj"), 2 * c.intermediate_size, hidden)?;
        w.p.ops.push(Op::Linear { x: work.normed, weight, bias, accumulate: false, out: work.wide });
        w.p.ops.push(Op::Gate { x: work.wide, activation: c.activation, out: work.gated });
        let (weight, bias) = w.with_bias(&name("mlp.down_proj"), hidden, c.intermediate_size)?;
        w.p.ops.push(Op::Linear { x: work.gated, weight, bias, accumulate: true, out: x });
    }
    let eps = c.norm_eps as f32;
    w.p.ops.push(Op::RmsNorm { x, weight: final_norm, eps, out: work.normed });
    let out = w.p.logits;
    w.p.ops.push(Op::Linear { x: work.normed, weight: head, bias: None, accumulate: false, out });
    let used = w.used;
    let mut unused = folder.tensors().filter(|t| !used.contains(&t.name));
    if let Some(first) = unused.next() {
        let (family, first) = (c.model_type.clone(), first.name.clone());
        return Err(DecoderError::Unused { family, count: 1 + unused.count(), first });
    }
    Ok(p)
}

/// Slots of a layer after attention.
struct Work {
    mixed: Slot,
    normed: Slot,
    wide: Slot,
    gated: Slot,
}

impl Work {
    fn new(p: &mut Program, rows: Rows, c: &ModelConfig) -> Work {
        Work {
            mixed: p.slot(rows, c.num_attention_heads * c.head_dim),
            normed: p.slot(rows, c.hidden_size),
            wide: p.slot(rows, 2 * c.intermediate_size),
            gated: p.slot(rows, c.intermediate_size),
        }
    }
}

struct Weights<'a> {
    folder: &'a Folder,
    scheme: &'a Scheme,
    p: &'a mut Program,
    used: HashSet<String>,
}

impl Weights<'_> {
    fn linear(&mut self, base: &str, rows: usize, cols: usize) -> Result<MatrixId, FolderError> {
        self.matrix(base, self.scheme.layout, rows, cols)
    }

    /// Embeddings lie row by row in every scheme.
    fn embedding(&mut self, base: &str, rows: usize, cols: usize) -> Result<MatrixId, FolderError> {
        self.matrix(base, Layout::Nk, rows, cols)
    }

    fn matrix(
        &mut self,
        base: &str,
        layout: Layout,
        rows: usize,
        cols: usize,
    ) -> Result<MatrixId, FolderError> {
        let matrix = self.folder.matrix(base, self.scheme.group, layout, rows, cols)?;
        self.used.extend(["weight", "q_weight", "q_scale"].map(|end| format!("{base}.{end}")));
        Ok(self.p.matrix(matrix))
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<VectorId, FolderError> {
        let vector = self.folder.vector(name, len)?;
        self.used.insert(name.to_owned());
        Ok(self.p.vector(vector))
    }

    /// A linear weight and its bias, where the folder has one.
    fn with_bias(
        &mut self,
        base: &str,
        rows: usize,
        cols: usize,
    ) -> Result<(MatrixId, Option<VectorId>), FolderError> {
        let weight = self.linear(base, rows, cols)?;
        let name = format!("{base}.bias");
        let bias = match self.folder.tensor(&name) {
            Some(_) => Some(self.vector(&name, rows)?),
            None => None,
        };
        Ok((weight, bias))
    }
}
