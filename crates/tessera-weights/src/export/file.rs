//! The files: header first, then values as they are decoded; final names only at the end.

use super::rows::for_each_block;
use super::{ExportError, ExportOptions, ExportTensor, Resolved, resolve};
use crate::dtype::DType;
use crate::folder::Folder;
use crate::tensor::Matrix;
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Writes the planned tensors to `dst` as `model.safetensors`, or, beyond `options.max_file_len`, as
/// `model-00001-of-0000N.safetensors` with their index. Gives the files in that order.
///
/// `decode` turns a matrix into `rows * cols` values, row after row. `progress` is told bytes written
/// and bytes in all, and may stop it. Files get their names after the last one was written and synced, the index last.
pub fn export_safetensors(
    folder: &Folder,
    plan: &[ExportTensor],
    options: &ExportOptions,
    dst: &Path,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Vec<PathBuf>, ExportError> {
    let tensors = resolve(folder, plan, options)?;
    let len_of = |t: &Resolved<'_>| t.numel() as u64 * options.dtype.size() as u64;
    let total: u64 = tensors.iter().map(len_of).sum();
    std::fs::create_dir_all(dst).map_err(io(dst))?;
    refuse_existing(dst)?;

    let files = cut(&tensors, options.max_file_len, len_of);
    let mut pending = Pending::default();
    let mut weight_map = Map::new();
    let mut done = 0;
    for (i, part) in files.iter().enumerate() {
        let name = match files.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        for tensor in *part {
            weight_map.insert(tensor.plan.name.clone(), json!(name));
        }
        let mut out = pending.create(dst, &name)?;
        out.write(&header(part, options.dtype))?;
        for tensor in *part {
            write_tensor(tensor, options.dtype, decode, &mut out, &mut |len| {
                done += len;
                match progress(done, total) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(ExportError::Stopped { name: tensor.plan.name.clone() }),
                }
            })?;
        }
        out.finish()?;
    }
    if files.len() > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        let text = serde_json::to_string_pretty(&index).expect("strings and numbers always serialise");
        let mut out = pending.create(dst, "model.safetensors.index.json")?;
        out.write(text.as_bytes())?;
        out.finish()?;
    }
    pending.commit(dst)
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ExportError + '_ {
    move |source| ExportError::Io { file: path.display().to_string(), source }
}

/// A stale `model.safetensors` beside new shards would win in every reader.
fn refuse_existing(dst: &Path) -> Result<(), ExportError> {
    for entry in std::fs::read_dir(dst).map_err(io(dst))? {
        let name = entry.map_err(io(dst))?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
            return Err(ExportError::Exists { file: dst.join(&*name).display().to_string() });
        }
    }
    Ok(())
}

/// Consecutive tensors, as many to a file as fit.
fn cut<'r, 'p>(
    tensors: &'r [Resolved<'p>],
    max: u64,
    len_of: impl Fn(&Resolved<'p>) -> u64,
) -> Vec<&'r [Resolved<'p>]> {
    let mut files = Vec::new();
    let (mut start, mut len) = (0, 0u64);
    for (i, tensor) in tensors.iter().enumerate() {
        let next = len_of(tensor);
        if i > start && len + next > max {
            files.push(&tensors[start..i]);
            (start, len) = (i, 0);
        }
        len += next;
    }
    files.push(&tensors[start..]);
    files
}

/// Eight bytes of length, then JSON, padded with spaces so that values start at a multiple of eight.
fn header(tensors: &[Resolved<'_>], dtype: DType) -> Vec<u8> {
    let name = match dtype {
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        _ => "F32",
    };
    let mut map = Map::new();
    // transformers refuses a file without it.
    map.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0u64;
    for tensor in tensors {
        let end = offset + tensor.numel() as u64 * dtype.size() as u64;
        let entry = json!({"dtype": name, "shape": tensor.plan.shape, "data_offsets": [offset, end]});
        map.insert(tensor.plan.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.append(&mut text);
    out
}

fn write_tensor(
    tensor: &Resolved<'_>,
    dtype: DType,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    out: &mut Output,
    written: &mut dyn FnMut(u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut bytes = Vec::new();
    let outcome = for_each_block(tensor, decode, &mut |values: &mut [f32]| {
        bytes.clear();
        narrow(&tensor.plan.name, dtype, values, &mut bytes)?;
        written(bytes.len() as u64)?;
        out.write(&bytes)
    });
    tensor.source.unchanged()?;
    outcome
}

/// Appends values as `dtype`, nearest even. A finite value must stay finite.
fn narrow(name: &str, dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), ExportError> {
    let overflow = |value| ExportError::Overflow { name: name.to_owned(), value, dtype };
    for &x in values {
        match dtype {
            DType::F16 => {
                let y = f16::from_f32(x);
                if x.is_finite() && !y.is_finite() {
                    return Err(overflow(x));
                }
                out.extend_from_slice(&y.to_le_bytes());
            }
            DType::BF16 => {
                let y = bf16::from_f32(x);
                if x.is_finite() && !y.is_finite() {
                    return Err(overflow(x));
                }
                out.extend_from_slice(&y.to_le_bytes());
            }
            _ => out.extend_from_slice(&x.to_le_bytes()),
        }
    }
    Ok(())
}

/// Files under temporary names; removed unless committed.
#[derive(Default)]
pub(super) struct Pending {
    files: Vec<(PathBuf, PathBuf)>,
}

impl Pending {
    pub(super) fn create(&mut self, dst: &Path, name: &str) -> Result<Output, ExportError> {
        let path = dst.join(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&path).map_err(io(&path))?;
        self.files.push((path.clone(), dst.join(name)));
        Ok(Output { path, file: BufWriter::with_capacity(1 << 20, file) })
    }

    pub(super) fn commit(mut self, dst: &Path) -> Result<Vec<PathBuf>, ExportError> {
        for (temporary, path) in &self.files {
            std::fs::rename(temporary, path).map_err(io(path))?;
        }
        // The names are durable once the folder is; systems without folder handles do it by themselves.
        if cfg!(unix) {
            File::open(dst).and_then(|folder| folder.sync_all()).map_err(io(dst))?;
        }
        Ok(std::mem::take(&mut self.files).into_iter().map(|(_, path)| path).collect())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // Best effort: the error that brought us here is the one to report.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.file.write_all(bytes).map_err(io(&self.path))
    }

    pub(super) fn finish(self) -> Result<(), ExportError> {
        let path = self.path;
        let file = self.file.into_inner().map_err(|e| io(&path)(e.into_error()))?;
        file.sync_all().map_err(io(&path))
    }
}
