//! An MLC folder as a source: its tensors decoded, under MLC's own names.

use std::collections::HashSet;

use crate::arch::{Param, ParamKind};
use crate::bytes::Changed;
use crate::dtype::DType;
use crate::folder::{Folder, FolderError, Shape};
use crate::model::FolderModel;
use crate::quantize::decode;
use crate::scheme::{Layout, Scheme};
use crate::source::{SourceError, SourceTensor, TensorSource, Values};
use crate::tensor::{Matrix, MatrixData, widen};
use half::{bf16, f16};

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
    let base = param.name.strip_suffix(".weight").unwrap_or(&param.name);
    if let (ParamKind::Experts, &[count, rows, cols]) = (param.kind, param.shape.as_slice()) {
        let shape = Shape { stack: Some(count), rows, cols };
        return folder.stacked(base, scheme.group, Layout::Nk, shape).map(Place::Matrix);
    }
    // What no scheme quantises may have any name.
    let plain = matches!(param.kind, ParamKind::Plain | ParamKind::VectorF32);
    if let (false, &[rows, cols]) = (plain, param.shape.as_slice()) {
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
