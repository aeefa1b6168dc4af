//! An adapter's folder: its config, and what its tensors change, by the names of the model's modules.

use super::{LoraConfig, LoraError, Misfit};
use crate::bytes::Bytes;
use crate::hf::{HfError, HfFolder};
use crate::source::{TensorSource, Values};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const WEIGHTS: &str = "adapter_model.safetensors";

/// What is done to one tensor of the model.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The tensor of the adapter that says so, for messages.
    pub key: String,
    /// The module that the tensor belongs to, as the adapter calls it.
    pub module: String,
    /// `weight` or `bias`.
    pub leaf: String,
    /// What is done.
    pub what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// B A is added, times the scale.
    Product(Arc<Product>),
    /// These values, times the scale, are added.
    Sum { values: Arc<Vec<f32>>, shape: Vec<usize>, scale: f64 },
    /// These values take the place of the model's.
    Instead { values: Arc<Vec<f32>>, shape: Vec<usize> },
}

/// A and B of a module.
#[derive(Debug)]
pub(super) struct Product {
    /// `[rank, inputs]`
    pub a: Vec<f32>,
    /// `[outputs, rank]`
    pub b: Vec<f32>,
    pub rank: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub scale: f64,
    /// Of an embedding, whose weight is `[inputs, outputs]`.
    pub embedding: bool,
    /// A's key, for messages.
    pub a_key: String,
}

/// A PEFT folder with LoRA in it.
#[derive(Debug)]
pub struct Adapter {
    /// The weight file, for messages.
    pub(super) file: String,
    /// In the order of their keys, replacements before sums.
    pub(super) changes: Vec<Change>,
}

/// A tensor as it lies in the file.
struct Tensor {
    key: String,
    index: usize,
    shape: Vec<usize>,
}

/// A module's tensors.
#[derive(Default)]
struct Module {
    a: Option<Tensor>,
    b: Option<Tensor>,
    b_bias: Option<Tensor>,
    embedding: bool,
    instead: Vec<(String, Tensor)>,
}

impl Adapter {
    /// Reads a folder. `scale` multiplies everything that is added.
    pub fn open(folder: &Path, scale: f64) -> Result<Adapter, LoraError> {
        let config = LoraConfig::open(folder)?;
        let path = folder.join(WEIGHTS);
        let file = path.display().to_string();
        let io = |source| HfError::Io { file: file.clone(), source };
        let opened = match crate::files::open(&path) {
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound && folder.join("adapter_model.bin").exists() =>
            {
                let what = format!("only adapter_model.bin is there; save the adapter as {WEIGHTS} first");
                return Err(LoraError::Config { file: folder.display().to_string(), what });
            }
            other => other.map_err(io)?,
        };
        let data = Bytes::map(&opened, &path).map_err(io)?;
        let tensors = HfFolder::of_file(&file, data)?;
        Adapter::of(file.clone(), &tensors, &config, scale)
    }

    fn of(
        file: String,
        tensors: &dyn TensorSource,
        config: &LoraConfig,
        scale: f64,
    ) -> Result<Adapter, LoraError> {
        let refused = |key: &str, what: &str| LoraError::Key {
            file: file.clone(),
            key: key.to_owned(),
            what: what.to_owned(),
        };
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        for (index, tensor) in tensors.tensors().iter().enumerate() {
            let key = tensor.name.as_str();
            let (name, part) = split(key).ok_or_else(|| refused(key, UNKNOWN))?;
            let module = modules.entry(name.to_owned()).or_default();
            let entry = Tensor { key: key.to_owned(), index, shape: tensor.shape.clone() };
            let slot = match part {
                Part::A { embedding } => {
                    module.embedding |= embedding;
                    &mut module.a
                }
                Part::B { embedding } => {
                    module.embedding |= embedding;
                    &mut module.b
                }
                Part::BBias => &mut module.b_bias,
                Part::Instead(leaf) => {
                    if module.instead.iter().any(|(other, _)| other == leaf) {
                        return Err(refused(key, "there are two tensors for the same place"));
                    }
                    module.instead.push((leaf.to_owned(), entry));
                    continue;
                }
            };
            if slot.replace(entry).is_some() {
                return Err(refused(key, "there are two tensors for the same place"));
            }
        }
        if modules.is_empty() {
            return Err(LoraError::Config { file, what: "it holds no tensors".to_owned() });
        }
        let mut changes = Vec::new();
        for (name, module) in modules {
            changes.extend(changes_of(&file, tensors, config, scale, name, module)?);
        }
        Ok(Adapter { file, changes })
    }

    /// How many tensors of the model it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

const UNKNOWN: &str = "not a tensor of LoRA, expected one that ends in lora_A.weight, lora_B.weight, \
                       lora_embedding_A, lora_embedding_B, or a bias or module that was trained whole";

enum Part<'a> {
    A { embedding: bool },
    B { embedding: bool },
    BBias,
    Instead(&'a str),
}

/// The module and the part of it that a key is about.
fn split(key: &str) -> Option<(&str, Part<'_>)> {
    let key = key.strip_prefix("base_model.model.").unwrap_or(key);
    // Older files keep the adapter's name, which is `default` unless somebody chose another.
    for (marker, part) in [
        (".lora_A", Part::A { embedding: false }),
        (".lora_B", Part::B { embedding: false }),
        (".lora_embedding_A", Part::A { embedding: true }),
        (".lora_embedding_B", Part::B { embedding: true }),
    ] {
        let Some((module, rest)) = key.rsplit_once(marker) else { continue };
        let rest = rest.strip_prefix(".default").unwrap_or(rest);
        return match (part, rest) {
            (Part::B { embedding: false }, ".bias") => Some((module, Part::BBias)),
            (part @ (Part::A { embedding: false } | Part::B { embedding: false }), ".weight") => {
                Some((module, part))
            }
            (part @ (Part::A { embedding: true } | Part::B { embedding: true }), "") => Some((module, part)),
            _ => None,
        };
    }
    if key.contains("lora_") {
        return None;
    }
    let (module, leaf) = key.rsplit_once('.').filter(|(_, leaf)| matches!(*leaf, "weight" | "bias"))?;
    let module = module.strip_suffix(".default").unwrap_or(module);
    let module = module.strip_suffix(".modules_to_save").unwrap_or(module);
    Some((module.strip_suffix(".base_layer").unwrap_or(module), Part::Instead(leaf)))
}

fn changes_of(
    file: &str,
    tensors: &dyn TensorSource,
    config: &LoraConfig,
    scale: f64,
    name: String,
    module: Module,
) -> Result<Vec<Change>, LoraError> {
    let refused =
        |key: &str, what: String| LoraError::Key { file: file.to_owned(), key: key.to_owned(), what };
    let values = |t: &Tensor| -> Result<Vec<f32>, LoraError> {
        let expected = t.shape.iter().product::<usize>();
        let values = tensors.read(t.index).map_err(|e| refused(&t.key, e.what))?;
        let values = plain(values);
        if values.len() != expected {
            let what = format!("{} values, expected {expected} for shape {:?}", values.len(), t.shape);
            return Err(refused(&t.key, what));
        }
        Ok(values)
    };
    let mut changes = Vec::new();
    for (leaf, tensor) in &module.instead {
        if scale != 1.0 {
            let what = format!("it was trained whole, so that a scale of {scale} would mean nothing");
            return Err(refused(&tensor.key, what));
        }
        let what = What::Instead { values: Arc::new(values(tensor)?), shape: tensor.shape.clone() };
        changes.push(Change { key: tensor.key.clone(), module: name.clone(), leaf: leaf.clone(), what });
    }
    let (a, b) = match (module.a, module.b) {
        (Some(a), Some(b)) => (a, b),
        (Some(alone), None) | (None, Some(alone)) => {
            let partner = if alone.key.contains("_A") { "B" } else { "A" };
            return Err(refused(&alone.key, format!("the {partner} beside it is missing")));
        }
        (None, None) => match module.b_bias {
            Some(bias) => return Err(refused(&bias.key, "the A and B beside it are missing".to_owned())),
            None => return Ok(changes),
        },
    };
    let rank = config.rank(&name);
    let shape = |key: &Tensor, other: &Tensor, what: String| {
        LoraError::from(Box::new(Misfit {
            file: file.to_owned(),
            key: key.key.clone(),
            found: key.shape.clone(),
            other: other.key.clone(),
            other_shape: other.shape.clone(),
            what,
        }))
    };
    let (&[a_rank, inputs], &[outputs, b_rank]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(shape(&a, &b, "expected [r, inputs] and [outputs, r]".to_owned()));
    };
    if a_rank != b_rank || a_rank as u64 != rank {
        let what = format!("expected [r, inputs] and [outputs, r] with r = {rank}, as the config has it");
        return Err(shape(&a, &b, what));
    }
    let factor = scale * config.scale(&name);
    let product = Product {
        a: values(&a)?,
        b: values(&b)?,
        rank: a_rank,
        inputs,
        outputs,
        scale: factor,
        embedding: module.embedding,
        a_key: a.key,
    };
    let what = What::Product(Arc::new(product));
    changes.push(Change { key: b.key, module: name.clone(), leaf: "weight".to_owned(), what });
    if let Some(bias) = module.b_bias {
        let what = What::Sum { values: Arc::new(values(&bias)?), shape: bias.shape.clone(), scale: factor };
        changes.push(Change { key: bias.key, module: name, leaf: "bias".to_owned(), what });
    }
    Ok(changes)
}

/// Values as f32, which holds all of them.
pub(super) fn plain(values: Values) -> Vec<f32> {
    match values {
        Values::F32(v) => v,
        Values::F16(v) => v.into_iter().map(half::f16::to_f32).collect(),
        Values::BF16(v) => v.into_iter().map(half::bf16::to_f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_age_name_the_same_modules() {
        let module = |key| split(key).map(|(module, _)| module);
        for key in [
            "base_model.model.model.layers.0.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.q_proj.lora_B.default.weight",
            "model.layers.0.q_proj.lora_B.bias",
            "base_model.model.model.layers.0.q_proj.bias",
            "base_model.model.model.layers.0.q_proj.base_layer.bias",
            "base_model.model.model.layers.0.q_proj.modules_to_save.default.weight",
            "base_model.model.model.layers.0.q_proj.lora_embedding_A",
        ] {
            assert_eq!(module(key), Some("model.layers.0.q_proj"), "{key}");
        }
        for key in
            ["x", "a.lora_A", "a.lora_A.bias", "a.lora_magnitude_vector", "a.lora_C.weight", "a.scales"]
        {
            assert_eq!(module(key), None, "{key}");
        }
    }
}
