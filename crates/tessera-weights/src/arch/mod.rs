//! Architectures as data: which tensors a model type has, how large they are, what quantisation does to
//! them, and what MLC makes them from.
//!
//! The tables are in `families.rs`; this file gives them sizes. The names and the sources were read out of
//! MLC's own loaders; what the loaders do to the values is in the format page, section 5.

mod block;
mod blocks;
mod families;
mod parts;
mod reader;
mod role;
mod sizes;

pub use block::{
    Attention, Block, DeltaNet, Experts, Groups, Latent, Mask, Mlp, Norm, NormKind, PositionScale, Rotary,
    Rwkv, Score, Semantics, Sinks,
};
pub use parts::{DeltaSizes, ExpertSizes, Parts, RwkvSizes};
pub use role::{Place, Role};
pub use sizes::Sizes;

use crate::dtype::{DType, Encoding};
use crate::scheme::{Layout, Scheme};
use families::{Dim, Family, From, Row};

/// What a parameter is, as far as quantisation cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A linear weight `[outputs, inputs]`.
    Linear,
    /// A linear weight that schemes count as the final layer. MLC goes by the module's name (`lm_head`,
    /// `lm_head.linear`, `embed_out`, `head`), so that InternLM2's `output` is an ordinary linear.
    Head,
    /// An embedding table `[entries, width]`, always in NK layout.
    Embedding,
    /// A norm or bias: never quantised, in the model's dtype.
    Vector,
    /// Never quantised, and float32 in every scheme.
    VectorF32,
    /// A linear weight whose name ends in `gate`: MLC takes it for a router and leaves it alone up to 256 outputs.
    Router,
    /// Linear weights of all experts, `[experts, outputs, inputs]`, always in NK layout.
    Experts,
    /// The same as `[experts, inputs, outputs]`, never quantised (Llama 4).
    ExpertsByInput,
    /// Of any shape, never quantised, in the model's dtype.
    Plain,
}

/// How a parameter's values come from its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The rows of the sources, one source after the other.
    Rows,
    /// Like `Rows`, from a source that is another parameter's too. MLC's loader meets these first.
    Copy,
    /// The source is `[inputs, outputs]` (GPT-2's Conv1D).
    Transpose,
    /// One is added, in the source's own dtype (Gemma's norms).
    AddOne,
    /// One is added in float32 (Qwen3.5's norms).
    AddOneWide,
    /// Rows come head by head as q, k, v and become all q, all k, all v (GPT-NeoX).
    PerHead {
        /// Number of heads.
        heads: usize,
        /// Rows of a head's q, of its k, of its v.
        head_dim: usize,
    },
    /// Rows come group by group as the q heads that share a k and v, then k, then v, and become all q,
    /// all k, all v (InternLM2).
    PerGroup {
        /// Number of key and value heads.
        groups: usize,
        /// Query heads of a group.
        queries: usize,
        /// Rows of a head.
        head_dim: usize,
    },
    /// The first rows of each head of `kv_b_proj`, turned over: `[heads, inputs, rows]` (DeepSeek's `w_uk`). Like
    /// `Copy`, the source is another parameter's too.
    HeadKeys {
        /// Rows of a head in the source.
        each: usize,
        /// Columns of the source.
        inputs: usize,
    },
    /// The last rows of each head of `kv_b_proj` (DeepSeek's `w_uv`).
    HeadValues {
        /// Rows of a head in the source.
        each: usize,
        /// How many of them come before.
        before: usize,
    },
    /// Divided by two, in the model's dtype (RWKV 6).
    Halved {
        /// How often.
        times: u32,
    },
}

impl Combine {
    /// Whether the source is that of another parameter, too, which MLC's loader meets after this one.
    pub(crate) fn copies(self) -> bool {
        matches!(self, Combine::Copy | Combine::HeadKeys { .. } | Combine::HeadValues { .. })
    }
}

/// A tensor of the checkpoint that a parameter needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its name in a checkpoint of the language model alone, where that is another.
    pub alone: Option<String>,
    /// The shape that it must have.
    pub shape: Vec<usize>,
}

/// A parameter of a model, before quantisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// MLC's name, ending in `.weight` or `.bias`.
    pub name: String,
    /// Logical shape, whatever the scheme: `[rows, cols]`, `[len]` for vectors, `[experts, rows, cols]` for experts.
    pub shape: Vec<usize>,
    /// What quantisation does to it.
    pub kind: ParamKind,
    /// What it is made from, in order.
    pub sources: Vec<Source>,
    /// How.
    pub combine: Combine,
    /// What it is for; a weight or a bias, as its name ends.
    pub role: Role,
    /// Its layer.
    pub layer: Option<usize>,
}

/// A tensor as a folder holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// The record's name.
    pub name: String,
    /// The record's shape.
    pub shape: Vec<usize>,
    /// The record's dtype.
    pub dtype: DType,
    /// How its values lie; MLC keeps the upper half of a float32.
    pub encoding: Encoding,
}

impl StoredTensor {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the shard.
    pub fn stored_len(&self) -> usize {
        self.numel() * self.encoding.stored(self.dtype).size()
    }
}

impl Param {
    /// Rows of the matrix, of all experts together where there are some; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, rows)| rows.iter().product())
    }

    /// Columns of the matrix; the length of a vector.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether `scheme` quantises the parameter, and in which layout.
    pub fn layout(&self, scheme: &Scheme) -> Option<Layout> {
        scheme.group?;
        match self.kind {
            ParamKind::Linear => Some(scheme.layout),
            ParamKind::Head => scheme.head.then_some(scheme.layout),
            ParamKind::Embedding => scheme.embedding.then_some(Layout::Nk),
            ParamKind::Router => (self.rows() > 256).then_some(scheme.layout),
            ParamKind::Experts => Some(Layout::Nk),
            ParamKind::Vector | ParamKind::VectorF32 | ParamKind::ExpertsByInput | ParamKind::Plain => None,
        }
    }

    /// The tensors that a folder in `scheme` holds for this parameter: `X.q_weight` and `X.q_scale`, or
    /// the parameter under its own name.
    pub fn stored(&self, scheme: &Scheme) -> Vec<StoredTensor> {
        let encoding = Encoding::F32ToBf16;
        if let (Some(layout), Some(format)) = (self.layout(scheme), scheme.group) {
            let base = self.name.strip_suffix(".weight").unwrap_or(&self.name);
            let lying = |inner: usize| match layout {
                Layout::Nk => self.shape.iter().copied().take(self.shape.len() - 1).chain([inner]).collect(),
                Layout::Kn => vec![inner, self.rows()],
            };
            return vec![
                StoredTensor {
                    name: format!("{base}.q_weight"),
                    shape: lying(format.words(self.cols())),
                    dtype: DType::U32,
                    encoding,
                },
                StoredTensor {
                    name: format!("{base}.q_scale"),
                    shape: lying(format.groups(self.cols())),
                    dtype: scheme.dtype,
                    encoding,
                },
            ];
        }
        let dtype = if self.kind == ParamKind::VectorF32 { DType::F32 } else { scheme.dtype };
        vec![StoredTensor { name: self.name.clone(), shape: self.shape.clone(), dtype, encoding }]
    }

    /// The same parameter made from a tensor that already has its name and shape: a source that was
    /// fused before, as an MLC folder is.
    pub fn from_itself(mut self) -> Param {
        self.sources = vec![Source { name: self.name.clone(), alone: None, shape: self.shape.clone() }];
        self.combine = Combine::Rows;
        self
    }
}

/// A model type or sizes that the tables cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchError {
    /// No table has this name.
    #[error("model type {model_type:?} is not supported; supported are {}", known().join(", "))]
    Unknown {
        /// The name as given.
        model_type: String,
    },
    /// The config lacks a size.
    #[error("config of a {model_type} model: {field} is missing")]
    Missing {
        /// The model type.
        model_type: String,
        /// The field's name.
        field: &'static str,
    },
    /// A size that cannot be.
    #[error("config of a {model_type} model: {field} is {found}, expected {expected}")]
    Invalid {
        /// The model type.
        model_type: String,
        /// The field's name.
        field: &'static str,
        /// The value.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// Every model type that has a table.
pub fn known() -> Vec<&'static str> {
    families::all().flat_map(|f| f.model_types.iter().copied()).collect()
}

/// How names begin, in a folder of this model type, of tensors that are no part of the language model: they are known,
/// and nothing here reads them.
pub fn left_out(model_type: &str) -> &'static [&'static str] {
    family(model_type).map_or(&[], |family| family.left_out)
}

/// The epsilon of norms of families that do not leave it to the config.
pub(crate) fn fixed_eps(model_type: &str) -> Option<f64> {
    family(model_type).ok()?.block.eps
}

fn family(model_type: &str) -> Result<&'static Family, ArchError> {
    families::all()
        .find(|f| f.model_types.contains(&model_type))
        .ok_or_else(|| ArchError::Unknown { model_type: model_type.to_owned() })
}

/// The parameters of a model, in module order: embedding, each layer, final norm, head.
pub fn params(model_type: &str, sizes: &Sizes) -> Result<Vec<Param>, ArchError> {
    let family = family(model_type)?;
    sizes.check(model_type)?;
    let mut out = Vec::new();
    for row in family.first.iter().copied().flatten() {
        push(&mut out, family, row, sizes, None);
    }
    for layer in 0..sizes.layers {
        for row in family.layer.iter().copied().flatten() {
            push(&mut out, family, row, sizes, Some(layer));
        }
    }
    for row in family.last.iter().copied().flatten() {
        push(&mut out, family, row, sizes, None);
    }
    Ok(out)
}

/// Whether a checkpoint of this model type may hold `tensor` although no parameter is made from it:
/// buffers that are computed anew, the copy of a tied head, and what MLC leaves out of its folders: the part that sees of
/// models of which it runs the language part, layers that predict further tokens, and BERT's pooler.
pub fn may_be_unused(tensor: &str) -> bool {
    let left_out = [
        "vision_tower.",
        "vision_model.",
        "multi_modal_projector.",
        "model.visual.",
        "mtp.",
        "pooler.dense.",
        "embeddings.position_ids",
    ];
    ["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias"]
        .iter()
        .any(|end| tensor.ends_with(end))
        || left_out.iter().any(|start| tensor.starts_with(start))
        || matches!(tensor, "lm_head.weight" | "language_model.lm_head.weight")
}

fn push(out: &mut Vec<Param>, family: &Family, row: &Row, sizes: &Sizes, layer: Option<usize>) {
    if !row.when.holds(sizes, layer) {
        return;
    }
    let named = |template: &str| match layer {
        Some(i) => template.replace("{i}", &i.to_string()),
        None => template.to_owned(),
    };
    let cols = row.cols.map(|cols| sizes.dim(cols));
    let lead = row.lead.map(|lead| sizes.dim(lead));
    let source_shape = |rows: usize| match cols {
        Some(cols) if row.combine == families::How::Transpose => vec![cols, rows],
        Some(cols) => vec![rows, cols],
        None => vec![rows],
    };
    let source = |template: &str, rows: Dim| {
        let (alone, shape) = (named(template), source_shape(sizes.dim(rows)));
        let name = begun(family.sourced, alone.clone());
        let beside = name != alone && family.sourced.1.contains("language_model");
        Source { alone: beside.then_some(alone), name, shape }
    };
    let stacked = |rows: usize| lead.into_iter().chain([rows]).chain(cols).collect::<Vec<_>>();
    let sum = |list: &[(&str, Dim)]| list.iter().map(|&(_, rows)| sizes.dim(rows)).sum();
    let (rows, mut sources) = match row.from {
        From::Same(rows) => (sizes.dim(rows), vec![source(row.name, rows)]),
        From::Names(list) => (sum(list), list.iter().map(|&(name, rows)| source(name, rows)).collect()),
        From::Experts(list) => {
            let one =
                |e: usize| list.iter().map(move |&(name, rows)| (name.replace("{e}", &e.to_string()), rows));
            let all = (0..lead.unwrap_or(0)).flat_map(one);
            (sum(list), all.map(|(name, rows)| source(&name, rows)).collect())
        }
    };
    let shape = stacked(rows);
    // A parameter with one source has its shape, where the table does not say otherwise.
    let latent = sizes.parts.latent;
    if let (families::How::HeadKeys | families::How::HeadValues, Some(latent)) = (row.combine, latent) {
        let rows = sizes.heads * (latent.nope + latent.value);
        sources.iter_mut().for_each(|source| source.shape = vec![rows, latent.kv_rank]);
    } else if lead.is_some() && !matches!(row.from, From::Experts(_)) {
        sources.iter_mut().for_each(|source| source.shape = shape.clone());
    }
    let combine = match row.combine {
        families::How::Rows => Combine::Rows,
        families::How::Copy => Combine::Copy,
        families::How::Transpose => Combine::Transpose,
        families::How::AddOne => Combine::AddOne,
        families::How::AddOneWide => Combine::AddOneWide,
        families::How::PerHead => Combine::PerHead { heads: sizes.heads, head_dim: sizes.head_dim },
        families::How::PerGroup => Combine::PerGroup {
            groups: sizes.kv_heads,
            queries: sizes.heads / sizes.kv_heads,
            head_dim: sizes.head_dim,
        },
        families::How::HeadKeys => Combine::HeadKeys {
            each: latent.map_or(0, |latent| latent.nope + latent.value),
            inputs: latent.map_or(0, |latent| latent.kv_rank),
        },
        families::How::Halved => Combine::Halved {
            times: match (layer, sizes.parts.rwkv) {
                (Some(layer), Some(rwkv)) => layer.checked_div(rwkv.rescale_every).unwrap_or(0) as u32,
                _ => 0,
            },
        },
        families::How::HeadValues => Combine::HeadValues {
            each: latent.map_or(0, |latent| latent.nope + latent.value),
            before: latent.map_or(0, |latent| latent.nope),
        },
    };
    out.push(Param {
        name: begun(family.named, named(row.name)),
        shape,
        kind: row.kind,
        sources,
        combine,
        role: row.role,
        layer,
    });
}

/// The name with another beginning, if it begins so.
fn begun((as_is, instead): (&str, &str), name: String) -> String {
    match name.strip_prefix(as_is) {
        Some(rest) => format!("{instead}{rest}"),
        None => name,
    }
}

#[cfg(test)]
mod tests;
