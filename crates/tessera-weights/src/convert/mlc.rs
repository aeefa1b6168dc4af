//! An MLC folder as a source: its tensors decoded, under MLC's own names.

use std::collections::HashSet;

use crate::arch::{self, ArchError, Param, Sizes};
use crate::bytes::Changed;
use crate::chat_config::ChatConfig;
use crate::config::{ConfigError, ModelConfig};
use crate::dtype::DType;
use crate::folder::{Folder, FolderError};
use crate::quantize::decode;
use crate::scheme::{Layout, Scheme, SchemeError};
use crate::source::{SourceError, SourceTensor, TensorSource, Values};
use crate::tensor::{Matrix, MatrixData, widen};
use half::{bf16, f16};
use serde_json::Value;

/// What a folder's tensors are, by its config or, where there is none, by their shapes.
#[derive(Clone, Debug)]
pub struct FolderModel {
    /// MLC's name of the architecture.
    pub model_type: String,
    /// The quantisation.
    pub scheme: &'static Scheme,
    /// The architecture's parameters.
    pub params: Vec<Param>,
    /// Their sizes.
    pub sizes: Sizes,
    /// What had to be guessed, one sentence each.
    pub guesses: Vec<String>,
}

/// Why a folder's tensors cannot be told.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FolderModelError {
    #[error("mlc-chat-config.json: {0}")]
    Scheme(#[from] SchemeError),
    #[error("mlc-chat-config.json: quantization is {stated}, but the tensors are those of {found}")]
    OtherScheme { stated: &'static str, found: &'static str },
    #[error("mlc-chat-config.json: {0}")]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl FolderModel {
    /// From `mlc-chat-config.json`, if there is one that has what is needed, and from `shape`, which gives
    /// a tensor's shape by its name. `infer` is asked for the scheme when the config does not name it.
    pub fn of(
        chat: Option<&ChatConfig>,
        shape: &dyn Fn(&str) -> Option<Vec<usize>>,
        infer: impl FnOnce() -> Result<&'static Scheme, FolderError>,
    ) -> Result<FolderModel, FolderModelError> {
        let mut guesses = Vec::new();
        let scheme = match chat.and_then(|c| c.quantization.as_deref()) {
            Some(name) => {
                let stated = Scheme::find(name)?;
                // Where the tensors do not tell, each is still checked when it is read.
                match infer() {
                    Ok(found) if !stated.may_be(found) => {
                        let (stated, found) = (stated.name, found.name);
                        return Err(FolderModelError::OtherScheme { stated, found });
                    }
                    _ => stated,
                }
            }
            None => {
                let scheme = infer()?;
                guesses.push(format!("The quantisation is assumed to be {}, from the tensors.", scheme.name));
                scheme
            }
        };
        let stated = chat.filter(|c| !c.model_config.is_empty()).and_then(|c| {
            let inner = c.model_config.get("model_type").and_then(Value::as_str);
            Some((c.model_type.as_deref().or(inner)?.to_owned(), c))
        });
        let (model_type, sizes) = match stated {
            Some((model_type, chat)) => {
                let mut sizes = Sizes::from_json(&model_type, &Value::Object(chat.model_config.clone()))?;
                if matches!(model_type.as_str(), "llama" | "mistral") {
                    // MLC's config does not mention biases.
                    let has = |rest: &str| shape(&format!("model.layers.0.{rest}.bias")).is_some();
                    sizes.qkv_bias = has("self_attn.qkv_proj");
                    sizes.out_bias = has("self_attn.o_proj");
                    sizes.mlp_bias = has("mlp.gate_up_proj");
                }
                (model_type, sizes)
            }
            None => {
                let config = ModelConfig::from_shapes(shape)?;
                guesses.extend(config.guesses.iter().cloned());
                (config.model_type.clone(), Sizes::from(&config))
            }
        };
        let params = arch::params(&model_type, &sizes)?;
        Ok(FolderModel { model_type, scheme, params, sizes, guesses })
    }

    /// The same for an opened folder.
    pub fn of_folder(folder: &Folder, chat: Option<&ChatConfig>) -> Result<FolderModel, FolderModelError> {
        let shape = |name: &str| folder.tensor(name).map(|t| t.shape.clone());
        FolderModel::of(chat, &shape, || crate::folder::infer_scheme(folder))
    }
}

/// A folder's parameters as plain numbers, one at a time; for [`super::SourceNames::Mlc`].
pub struct MlcSource {
    file: String,
    tensors: Vec<SourceTensor>,
    /// For each tensor, where its values are; `None` for what the architecture has no place for.
    places: Vec<Option<Place>>,
}

enum Place {
    Matrix(Matrix),
    Vector(crate::tensor::Tensor),
}

impl MlcSource {
    /// Finds every parameter in the folder and checks its form. Parameters come in the order of the
    /// folder's records. Tensors that are no parameter's are listed too, but cannot be read.
    pub fn new(folder: &Folder, model: &FolderModel) -> Result<MlcSource, FolderError> {
        let scheme = model.scheme;
        let mut found: Vec<(usize, SourceTensor, Option<Place>)> = Vec::new();
        let mut known = HashSet::new();
        for param in &model.params {
            let stored = param.stored(scheme);
            let place = find(folder, param, scheme)?;
            let dtype = match &place {
                Place::Matrix(Matrix { data: MatrixData::Dense { dtype, .. }, .. }) => *dtype,
                Place::Matrix(_) => DType::F32,
                Place::Vector(tensor) => tensor.stored(),
            };
            // A scheme may leave a matrix alone that the folder has quantised, and the other way round.
            let names = stored.into_iter().map(|t| t.name).chain([param.name.clone()]);
            let base = param.name.strip_suffix(".weight").unwrap_or(&param.name);
            let names = names.chain(["q_weight", "q_scale"].map(|end| format!("{base}.{end}")));
            let names: Vec<String> = names.filter(|name| folder.tensor(name).is_some()).collect();
            let first = names.iter().filter_map(|name| folder.manifest().position(name)).min();
            known.extend(names);
            let tensor = SourceTensor { name: param.name.clone(), dtype, shape: param.shape.clone() };
            found.push((first.unwrap_or(usize::MAX), tensor, Some(place)));
        }
        for (i, tensor) in folder.tensors().enumerate().filter(|(_, t)| !known.contains(&t.name)) {
            let listed =
                SourceTensor { name: tensor.name.clone(), dtype: DType::F32, shape: tensor.shape.clone() };
            found.push((i, listed, None));
        }
        found.sort_by_key(|(at, ..)| *at);
        let file = match folder.path().as_os_str().is_empty() {
            true => folder.manifest_name().to_owned(),
            false => folder.path().display().to_string(),
        };
        let (tensors, places) = found.into_iter().map(|(_, tensor, place)| (tensor, place)).unzip();
        Ok(MlcSource { file, tensors, places })
    }
}

fn find(folder: &Folder, param: &Param, scheme: &Scheme) -> Result<Place, FolderError> {
    if let &[rows, cols] = param.shape.as_slice() {
        let base = param.name.strip_suffix(".weight").unwrap_or(&param.name);
        let layout = param.layout(scheme).unwrap_or(Layout::Nk);
        return folder.matrix(base, scheme.group, layout, rows, cols).map(Place::Matrix);
    }
    let missing = || FolderError::MissingTensor { tensor: param.name.clone() };
    let tensor = folder.tensor(&param.name).ok_or_else(missing)?;
    if !tensor.dtype.is_float() {
        return Err(FolderError::WrongDType {
            tensor: param.name.clone(),
            expected: "float32, float16 or bfloat16".to_owned(),
            found: tensor.dtype.to_string(),
        });
    }
    if tensor.shape != param.shape {
        return Err(FolderError::WrongShape {
            tensor: param.name.clone(),
            expected: param.shape.clone(),
            found: tensor.shape.clone(),
            hint: "",
        });
    }
    Ok(Place::Vector(tensor.clone()))
}

impl TensorSource for MlcSource {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        let values = match &self.places[index] {
            Some(Place::Matrix(matrix)) => match &matrix.data {
                MatrixData::Dense { dtype, bytes } => plain(*dtype, bytes),
                MatrixData::Grouped { .. } => Some(Values::F32(decode(matrix))),
            },
            Some(Place::Vector(tensor)) => plain(tensor.stored(), &tensor.bytes),
            None => None,
        };
        let tensor = || self.tensors[index].name.clone();
        match &self.places[index] {
            Some(Place::Matrix(matrix)) => matrix.unchanged(),
            Some(Place::Vector(tensor)) => tensor.bytes.check(),
            None => Ok(()),
        }
        .map_err(|Changed { file, what }| SourceError { file, tensor: tensor(), what })?;
        values.ok_or_else(|| SourceError {
            file: self.file.clone(),
            tensor: tensor(),
            what: "no parameter of the architecture, so it cannot be decoded".to_owned(),
        })
    }

    fn file(&self, _index: usize) -> &str {
        &self.file
    }
}

/// Stored elements in their own type.
fn plain(stored: DType, bytes: &[u8]) -> Option<Values> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match stored {
        DType::F16 => Values::F16(pairs().map(f16::from_le_bytes).collect()),
        DType::BF16 => Values::BF16(pairs().map(bf16::from_le_bytes).collect()),
        DType::F32 => {
            let mut out = vec![0.0; bytes.len() / 4];
            return widen(stored, bytes, &mut out).then_some(Values::F32(out));
        }
        _ => return None,
    })
}
