//! A GGUF llama as the checkpoint that it was made from: HF's names, shapes, order and row order.

use std::collections::HashSet;

use half::{bf16, f16};

use super::blocks::{check_supported, dequantize};
use super::codes;
use super::config::Hyper;
use super::error::GgufError;
use super::header::{Gguf, TensorInfo};
use super::rope::ROPE_FREQS;
use crate::dtype::DType;
use crate::source::{Codes, SourceError, SourceTensor, TensorSource, Values};

/// The tensors of a GGUF llama under their HF names.
pub struct GgufSource {
    gguf: Gguf,
    file: String,
    tensors: Vec<SourceTensor>,
    places: Vec<Place>,
}

/// Where a tensor comes from.
struct Place {
    /// Index in the file's table.
    index: usize,
    /// Length of a row: the innermost dimension, 1 for a bias.
    row: usize,
    /// Heads whose rows GGUF has interleaved.
    heads: Option<usize>,
}

impl GgufSource {
    /// Checks that the file is a dense llama with exactly the tensors that its metadata ask for, all
    /// of types that can be decoded. `file` is the name used in errors.
    pub fn new(gguf: Gguf, file: &str) -> Result<GgufSource, GgufError> {
        let hyper = Hyper::parse(&gguf)?;
        let mut plan = Plan { gguf: &gguf, used: HashSet::new(), tensors: Vec::new(), places: Vec::new() };
        plan.model(&hyper)?;
        plan.used.insert(ROPE_FREQS);
        for tensor in gguf.tensors() {
            if !plan.used.contains(tensor.name.as_str()) {
                return Err(unknown(tensor));
            }
        }
        let Plan { tensors, places, .. } = plan;
        Ok(GgufSource { file: file.to_string(), tensors, places, gguf })
    }

    /// The file's header.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    fn error(&self, index: usize, what: String) -> SourceError {
        let tensor = self.tensors.get(index).map_or_else(|| format!("number {index}"), |t| t.name.clone());
        SourceError { file: self.file.clone(), tensor, what }
    }
}

impl TensorSource for GgufSource {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        let values = self.values(index);
        self.gguf.bytes().check().map_err(|changed| self.error(index, changed.what))?;
        values
    }

    fn read_codes(&self, index: usize) -> Result<Option<Codes>, SourceError> {
        let codes = self.codes(index);
        self.gguf.bytes().check().map_err(|changed| self.error(index, changed.what))?;
        codes.map_err(|what| self.error(index, what))
    }
}

impl GgufSource {
    /// Codes of a Q4_0 matrix. A scale that is no number has no sign to turn over, and no weight to give.
    fn codes(&self, index: usize) -> Result<Option<Codes>, String> {
        let Some(place) = self.places.get(index) else { return Ok(None) };
        let info = &self.gguf.tensors()[place.index];
        if info.ty.name != "Q4_0" {
            return Ok(None);
        }
        let groups = info.numel / codes::GROUP;
        let (mut words, mut scales) = (reserve(groups * 4)?, reserve(groups)?);
        let (blocks, _) = self.gguf.data(info).as_chunks();
        for (i, block) in blocks.iter().enumerate() {
            let (codes, scale) = codes::group_of(block);
            if !scale.is_finite() {
                let (row, at) = (i * codes::GROUP / place.row, i * codes::GROUP % place.row);
                return Err(format!(
                    "the scale of row {row}, weights {at} to {} is {}, expected a finite number; fetch the file again",
                    at + codes::GROUP - 1,
                    -scale
                ));
            }
            words.extend(codes);
            scales.push(scale);
        }
        if let Some(heads) = place.heads {
            let groups = place.row / codes::GROUP;
            (words, scales) = (half_split(&words, heads, groups * 4)?, half_split(&scales, heads, groups)?);
        }
        Ok(Some(Codes { words, scales }))
    }

    fn values(&self, index: usize) -> Result<Values, SourceError> {
        let Some(place) = self.places.get(index) else {
            return Err(self.error(index, format!("there are {} tensors", self.places.len())));
        };
        let info = &self.gguf.tensors()[place.index];
        let bytes = self.gguf.data(info);
        let values = match info.ty.name {
            "F16" => plain(bytes, |b| f16::from_le_bytes([b[0], b[1]])).map(Values::F16),
            "BF16" => plain(bytes, |b| bf16::from_le_bytes([b[0], b[1]])).map(Values::BF16),
            _ => f32s(info, bytes).map(Values::F32),
        }
        .map_err(|what| self.error(index, what))?;
        let values = match (place.heads, values) {
            (None, values) => Ok(values),
            (Some(heads), Values::F32(v)) => half_split(&v, heads, place.row).map(Values::F32),
            (Some(heads), Values::F16(v)) => half_split(&v, heads, place.row).map(Values::F16),
            (Some(heads), Values::BF16(v)) => half_split(&v, heads, place.row).map(Values::BF16),
        };
        values.map_err(|what| self.error(index, what))
    }
}

/// Memory is asked for rather than taken: a hostile file may promise more than there is.
fn reserve<T>(len: usize) -> Result<Vec<T>, String> {
    let mut out = Vec::new();
    out.try_reserve_exact(len)
        .map_err(|_| format!("{len} elements of {} bytes do not fit in memory", size_of::<T>()))?;
    Ok(out)
}

fn plain<T>(bytes: &[u8], element: impl Fn(&[u8]) -> T) -> Result<Vec<T>, String> {
    let mut out = reserve(bytes.len() / 2)?;
    out.extend(bytes.chunks_exact(2).map(element));
    Ok(out)
}

fn f32s(info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let mut out = reserve(info.numel)?;
    out.resize(info.numel, 0.0);
    if !dequantize(info.ty, bytes, &mut out) {
        return Err(format!(
            "{} bytes are not {} elements of type {}",
            bytes.len(),
            info.numel,
            info.ty.name
        ));
    }
    Ok(out)
}

/// Undoes the row order of GGUF's llama. There the two rows that rotate together are neighbours,
/// `2i` and `2i + 1` of a head; in HF they are `i` and `i + head_dim / 2`.
fn half_split<T: Copy>(values: &[T], heads: usize, row: usize) -> Result<Vec<T>, String> {
    let mut out = reserve(values.len())?;
    let head_len = values.len() / heads.max(1);
    for head in values.chunks_exact(head_len.max(1)) {
        for j in 0..2 {
            for pair in head.chunks_exact(2 * row) {
                out.extend_from_slice(&pair[j * row..(j + 1) * row]);
            }
        }
    }
    Ok(out)
}

/// Collects the tensors of the model in HF's order.
struct Plan<'a> {
    gguf: &'a Gguf,
    used: HashSet<&'a str>,
    tensors: Vec<SourceTensor>,
    places: Vec<Place>,
}

impl Plan<'_> {
    /// HF's module order, which is that of a checkpoint's parameters.
    fn model(&mut self, h: &Hyper) -> Result<(), GgufError> {
        // u64 of two u32: no overflow.
        let q = u64::from(h.heads) * u64::from(h.head_dim);
        let kv = u64::from(h.kv_heads) * u64::from(h.head_dim);
        let (heads, kv_heads) = (Some(h.heads), Some(h.kv_heads));

        self.add("token_embd.weight", "model.embed_tokens.weight".to_string(), &[h.vocab, h.hidden], None)?;
        // A hostile block_count ends at the first layer whose tensors are not there.
        for layer in 0..h.layers {
            let linears = [
                ("attn_q", "self_attn.q_proj", q, h.hidden, h.attention_bias, heads),
                ("attn_k", "self_attn.k_proj", kv, h.hidden, h.attention_bias, kv_heads),
                ("attn_v", "self_attn.v_proj", kv, h.hidden, h.attention_bias, None),
                ("attn_output", "self_attn.o_proj", h.hidden, q, h.attention_bias, None),
                ("ffn_gate", "mlp.gate_proj", h.ffn, h.hidden, h.mlp_bias, None),
                ("ffn_up", "mlp.up_proj", h.ffn, h.hidden, h.mlp_bias, None),
                ("ffn_down", "mlp.down_proj", h.hidden, h.ffn, h.mlp_bias, None),
            ];
            let norms = [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];
            for (from, to, rows, cols, bias, heads) in linears {
                let (from, to) = (format!("blk.{layer}.{from}"), format!("model.layers.{layer}.{to}"));
                self.add(&format!("{from}.weight"), format!("{to}.weight"), &[rows, cols], heads)?;
                if bias {
                    self.add(&format!("{from}.bias"), format!("{to}.bias"), &[rows], heads)?;
                }
            }
            for (from, to) in norms {
                let (from, to) =
                    (format!("blk.{layer}.{from}.weight"), format!("model.layers.{layer}.{to}.weight"));
                self.add(&from, to, &[h.hidden], None)?;
            }
        }
        self.add("output_norm.weight", "model.norm.weight".to_string(), &[h.hidden], None)?;
        if !h.tied {
            self.add("output.weight", "lm_head.weight".to_string(), &[h.vocab, h.hidden], None)?;
        }
        Ok(())
    }

    fn add(&mut self, from: &str, name: String, shape: &[u64], heads: Option<u32>) -> Result<(), GgufError> {
        let Some(index) = self.gguf.position(from) else {
            return Err(GgufError::MissingTensor { tensor: from.to_string() });
        };
        let info = &self.gguf.tensors()[index];
        let found: Vec<u64> = info.dims.iter().rev().copied().collect();
        if found != shape {
            return Err(GgufError::TensorShape { tensor: from.to_string(), found, expected: shape.to_vec() });
        }
        check_supported(from, info.ty)?;
        let dtype = match info.ty.name {
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            _ => DType::F32,
        };
        // The casts keep their values: the product of the shape is `numel`, a usize.
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let row = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
        self.used.insert(&info.name);
        self.places.push(Place { index, row, heads: heads.map(|h| h as usize) });
        self.tensors.push(SourceTensor { name, dtype, shape });
        Ok(())
    }
}

fn unknown(tensor: &TensorInfo) -> GgufError {
    let name = &tensor.name;
    let what = if name.contains("_exps") || name.contains("ffn_gate_inp") || name.contains("_shexp") {
        "mixture-of-experts tensors are not supported"
    } else if name.contains("rope_factors") {
        "longrope factors are not supported"
    } else if name.ends_with(".bias") {
        "a bias that HF's llama does not have, or only some of the linears have one"
    } else if name.contains(".lora_") {
        "LoRA adapters are not supported"
    } else {
        "it would be dropped"
    };
    GgufError::UnknownTensor { tensor: name.clone(), what }
}
