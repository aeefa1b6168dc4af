//! A GGUF file as the checkpoint that it was made from: HF's names, shapes, order and row order.

use std::collections::HashSet;

use half::{bf16, f16};

use super::blocks::{check_supported, dequantize};
use super::codes;
use super::config::hf_config;
use super::error::GgufError;
use super::header::{Gguf, TensorInfo};
use super::keys::Keys;
use super::rope::ROPE_FREQS;
use crate::arch::{self, Combine, Sizes};
use crate::dtype::DType;
use crate::pack::transpose;
use crate::source::{Codes, SourceError, SourceTensor, TensorSource, Values};

/// The tensors of a GGUF file under their HF names.
pub struct GgufSource {
    gguf: Gguf,
    /// Names of the files, in the order of [`Gguf::parts`].
    files: Vec<String>,
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
    /// Whether HF has the transpose.
    transposed: bool,
    /// Whether GGUF has one more.
    offset: bool,
}

impl GgufSource {
    /// Checks that the file holds exactly the tensors that its metadata ask for, all of types that can be
    /// decoded. `file` is the name used in errors.
    pub fn new(gguf: Gguf, file: &str) -> Result<GgufSource, GgufError> {
        GgufSource::of_parts(gguf, vec![file.to_string()])
    }

    /// The same for a model in several files.
    pub(super) fn of_parts(gguf: Gguf, files: Vec<String>) -> Result<GgufSource, GgufError> {
        let config = hf_config(&gguf)?;
        let keys = Keys::of(&gguf)?;
        // A hostile block_count ends at the first layer whose tensors are not there.
        let mut modules = keys.family.names.iter().copied().flatten();
        if let Some((module, _)) = modules.find(|(module, _)| module.contains("{i}")) {
            for layer in 0..keys.positive("block_count")? {
                let tensor = format!("{}.weight", module.replace("{i}", &layer.to_string()));
                if gguf.tensor(&tensor).is_none() {
                    return Err(GgufError::MissingTensor { tensor });
                }
            }
        }
        let mut plan =
            Plan { gguf: &gguf, used: HashSet::from([ROPE_FREQS]), tensors: Vec::new(), places: Vec::new() };
        plan.model(keys, &Sizes::from_json(keys.family.model_type, &config)?)?;
        for tensor in gguf.tensors() {
            if !plan.used.contains(tensor.name.as_str()) && !is_the_embedding(&gguf, tensor) {
                return Err(unknown(tensor));
            }
        }
        let Plan { tensors, places, .. } = plan;
        Ok(GgufSource { files, tensors, places, gguf })
    }

    /// The file's header.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    fn error(&self, index: usize, what: String) -> SourceError {
        let tensor = self.tensors.get(index).map_or_else(|| format!("number {index}"), |t| t.name.clone());
        SourceError { file: self.file(index).to_owned(), tensor, what }
    }

    /// That no file was changed meanwhile.
    fn unchanged(&self, index: usize) -> Result<(), SourceError> {
        let mut parts = self.gguf.parts().iter();
        parts.try_for_each(|part| part.check()).map_err(|changed| self.error(index, changed.what))
    }
}

impl TensorSource for GgufSource {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        let values = self.values(index);
        self.unchanged(index)?;
        values
    }

    fn file(&self, index: usize) -> &str {
        let part =
            self.places.get(index).map_or(0, |place| self.gguf.part(&self.gguf.tensors()[place.index]));
        self.files.get(part).map_or("the checkpoint", String::as_str)
    }

    fn read_codes(&self, index: usize) -> Result<Option<Codes>, SourceError> {
        let codes = self.codes(index);
        self.unchanged(index)?;
        codes.map_err(|what| self.error(index, what))
    }
}

impl GgufSource {
    /// Codes of a Q4_0 matrix. A scale that is no number has no sign to turn over, and no weight to give.
    fn codes(&self, index: usize) -> Result<Option<Codes>, String> {
        let Some(place) = self.places.get(index) else { return Ok(None) };
        let info = &self.gguf.tensors()[place.index];
        // A bias is a column of single values.
        if info.ty.name != "Q4_0" || !place.row.is_multiple_of(codes::GROUP) {
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
            _ if place.offset => {
                f32s(info, bytes).map(|v| Values::F32(v.into_iter().map(|x| x - 1.0).collect()))
            }
            "F16" => plain(bytes, |b| f16::from_le_bytes([b[0], b[1]])).map(Values::F16),
            "BF16" => plain(bytes, |b| bf16::from_le_bytes([b[0], b[1]])).map(Values::BF16),
            _ => f32s(info, bytes).map(Values::F32),
        }
        .map_err(|what| self.error(index, what))?;
        let values = match values {
            Values::F32(v) => reordered(v, place).map(Values::F32),
            Values::F16(v) => reordered(v, place).map(Values::F16),
            Values::BF16(v) => reordered(v, place).map(Values::BF16),
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

/// Values in HF's order.
fn reordered<T: Copy + Default + Send + Sync>(values: Vec<T>, place: &Place) -> Result<Vec<T>, String> {
    match place.heads {
        Some(heads) => half_split(&values, heads, place.row),
        None if place.transposed => Ok(transpose(values.len() / place.row.max(1), place.row, &values)),
        None => Ok(values),
    }
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
    fn model(&mut self, keys: Keys<'_>, sizes: &Sizes) -> Result<(), GgufError> {
        let family = keys.family;
        let mut seen = HashSet::new();
        for param in arch::params(family.model_type, sizes)? {
            for source in &param.sources {
                // A head that is the embedding is read from it.
                if !seen.insert(source.name.clone()) {
                    continue;
                }
                let Some(from) = family.gguf_name(&source.name) else {
                    return Err(GgufError::MissingTensor { tensor: source.name.clone() });
                };
                let heads = family.paired_heads(&from, sizes.heads, sizes.kv_heads);
                let transposed = param.combine == Combine::Transpose;
                let offset = matches!(param.combine, Combine::AddOne | Combine::AddOneWide);
                self.add(&from, source, Order { heads, transposed, offset })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, from: &str, source: &arch::Source, order: Order) -> Result<(), GgufError> {
        let Some(index) = self.gguf.position(from) else {
            return Err(GgufError::MissingTensor { tensor: from.to_string() });
        };
        let info = &self.gguf.tensors()[index];
        let found: Vec<u64> = info.dims.iter().rev().copied().collect();
        let mut expected: Vec<u64> = source.shape.iter().map(|&d| d as u64).collect();
        if order.transposed {
            expected.reverse();
        }
        if found != expected {
            return Err(GgufError::TensorShape { tensor: from.to_string(), found, expected });
        }
        check_supported(from, info.ty)?;
        let dtype = match info.ty.name {
            _ if order.offset => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            _ => DType::F32,
        };
        // The cast keeps its value: the product of the shape is `numel`, a usize.
        let row = if found.len() > 1 { found[found.len() - 1] as usize } else { 1 };
        self.used.insert(&info.name);
        let Order { heads, transposed, offset } = order;
        self.places.push(Place { index, row, heads, transposed, offset });
        self.tensors.push(SourceTensor { name: source.name.clone(), dtype, shape: source.shape.clone() });
        Ok(())
    }
}

/// How a tensor lies in GGUF; see [`Place`].
struct Order {
    heads: Option<usize>,
    transposed: bool,
    offset: bool,
}

/// A head that says what the embedding says already, as older writers have it.
fn is_the_embedding(gguf: &Gguf, tensor: &TensorInfo) -> bool {
    let same = |other: &TensorInfo| {
        (&other.dims, other.ty) == (&tensor.dims, tensor.ty) && gguf.data(other) == gguf.data(tensor)
    };
    tensor.name == "output.weight" && gguf.tensor("token_embd.weight").is_some_and(same)
}

fn unknown(tensor: &TensorInfo) -> GgufError {
    let name = &tensor.name;
    let what = if name.contains("_exps") || name.contains("ffn_gate_inp") || name.contains("_shexp") {
        "mixture-of-experts tensors are not supported"
    } else if name.contains("rope_factors") {
        "longrope factors are not supported"
    } else if name.ends_with(".bias") {
        "a bias that this family does not have in HF, or only some of the linears have one"
    } else if name.contains(".lora_") {
        "LoRA adapters are not supported"
    } else {
        "it would be dropped"
    };
    GgufError::UnknownTensor { tensor: name.clone(), what }
}
