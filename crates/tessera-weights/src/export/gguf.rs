//! MLC folder to a GGUF file: the same tensors under GGUF's names, in blocks that hold what the folder holds.
//!
//! Four-bit groups become Q4_0, which is the same numbers ([`crate::gguf::block_of`]); plain numbers stay what they are;
//! what GGUF has no block for is written so that little is lost, and the report says which.

mod metadata;
mod tensors;
mod tokenizer;

pub use tensors::export_gguf;

use super::{ExportError, ExportTensor, Transform, plan_export};
use crate::gguf::Family;
use crate::model::FolderModel;
use std::collections::BTreeMap;

/// What goes beside the tensors.
pub struct GgufInputs<'a> {
    /// The folder's model.
    pub model: &'a FolderModel,
    /// Its hyper-parameters.
    pub config: &'a crate::config::ModelConfig,
    /// The chat config, whose special tokens are taken.
    pub chat: &'a crate::chat_config::ChatConfig,
    /// Names and contents of the tokenizer's and the template's files.
    pub files: &'a [(String, Vec<u8>)],
    /// The model's name.
    pub name: &'a str,
    /// Whether scales that no f16 is may be rounded.
    pub allow_inexact: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufReport {
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors that are quantised in the folder.
    pub quantised: usize,
    /// Those of them whose values are the folder's to the last bit.
    pub exact: usize,
    /// How many tensors there are of each type.
    pub types: BTreeMap<&'static str, usize>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum GgufExportError {
    /// A model that GGUF's readers have no architecture for.
    #[error("model type {model_type:?} is not written as GGUF; written are {known}")]
    Family {
        /// The model type.
        model_type: String,
        /// Those that are.
        known: String,
    },
    /// A setting that GGUF has no key for, or that its readers compute otherwise.
    #[error("{field} is {found}, {what}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be needed.
        what: String,
    },
    /// A tokenizer that GGUF cannot say.
    #[error("{file}: {what}")]
    Tokenizer {
        /// The tokenizer's file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Scales that no f16 is.
    #[error("{count} tensor(s) have scales that no 16-bit float is, the first are {}", .tensors.join("; "))]
    Inexact {
        /// How many tensors.
        count: usize,
        /// The first of them, each with what is wrong.
        tensors: Vec<String>,
    },
    /// A scale that no number of GGUF's is.
    #[error(
        "{tensor}: the scale of row {row}, group {group} is {scale}, which no finite 16-bit float is near"
    )]
    Scale {
        /// The tensor.
        tensor: String,
        /// The row.
        row: usize,
        /// The group in the row.
        group: usize,
        /// The scale.
        scale: f32,
    },
    /// The folder's parameters cannot be taken apart.
    #[error(transparent)]
    Plan(#[from] super::PlanError),
    /// A tensor could not be read, or the file not written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The tensors under GGUF's names, with rows in GGUF's order. Norms keep the one that MLC adds, transposes stay away.
fn plan(model: &FolderModel) -> Result<(&'static Family, Vec<ExportTensor>), GgufExportError> {
    let refuse = || GgufExportError::Family { model_type: model.model_type.clone(), known: Family::known() };
    let family = Family::of_model(&model.model_type).ok_or_else(refuse)?;
    let mut plan = plan_export(&model.model_type, &model.params, model.scheme)?;
    for tensor in &mut plan {
        let name = family.gguf_name(&tensor.name).ok_or_else(refuse)?;
        if tensor.transform == Transform::Transpose {
            tensor.shape.reverse();
        }
        tensor.transform = Transform::None;
        if let Some(heads) = family.paired_heads(&name, model.sizes.heads, model.sizes.kv_heads) {
            let start = tensor.rows.first().map_or(0, |rows| rows.start);
            let (rows, half) = (tensor.shape[0], tensor.shape[0] / heads / 2);
            if half == 0 || rows != heads * half * 2 {
                let (field, found) = ("head_dim", model.sizes.head_dim.to_string());
                let what = "where GGUF pairs rows that rotate together".to_owned();
                return Err(GgufExportError::Setting { field, found, what });
            }
            // Row 2i + j of a head is row i + half * j of the checkpoint's.
            let of = |row: usize| row / (2 * half) * 2 * half + row % (2 * half) / 2 + row % 2 * half;
            tensor.rows = (0..rows).map(|row| start + of(row)..start + of(row) + 1).collect();
        }
        tensor.name = name;
    }
    Ok((family, plan))
}
