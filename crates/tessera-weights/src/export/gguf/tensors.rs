//! The file: a type for each tensor, then the header, then values as they are read.

use super::super::file::Pending;
use super::super::rows::{Source, for_each_block};
use super::super::{ExportError, ExportOptions, Resolved, resolve};
use super::{GgufExportError, GgufInputs, GgufReport, metadata, plan, tokenizer};
use crate::dtype::DType;
use crate::folder::Folder;
use crate::gguf::{GgmlType, Header, block_of, padding};
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::{Matrix, MatrixData, widen};
use half::{bf16, f16};
use std::ops::ControlFlow;
use std::path::Path;

/// Inexact tensors that an error lists.
const SHOWN: usize = 8;
/// Bytes between two calls of the progress function.
const STEP: usize = 1 << 20;

/// Writes the folder to the file `dst`, which must not be there. `decode` turns a matrix into `rows * cols` values;
/// `progress` is told bytes written and bytes in all, and may stop it.
pub fn export_gguf(
    folder: &Folder,
    inputs: &GgufInputs<'_>,
    dst: &Path,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<GgufReport, GgufExportError> {
    let (family, plan) = plan(inputs.model)?;
    let options = ExportOptions::new(DType::F32, inputs.model.scheme.group);
    let tensors = resolve(folder, &plan, &options)?;
    let mut report = GgufReport::default();
    let forms = tensors.iter().map(|t| Form::of(t, &mut report)).collect::<Vec<_>>();
    check_scales(&tensors, &forms, inputs.allow_inexact, &mut report)?;

    let mut header = Header::default();
    let extra = metadata::put(&mut header, family, inputs, file_type(&forms), &mut report.notes)?;
    tokenizer::put(&mut header, inputs, &mut report.notes)?;
    for (name, values) in &extra {
        header.tensor(name, &[values.len()], GgmlType::F32);
    }
    for (tensor, form) in tensors.iter().zip(&forms) {
        header.tensor(&tensor.plan.name, &tensor.plan.shape, form.ty());
        *report.types.entry(form.ty().name).or_default() += 1;
    }
    report.tensors = tensors.len() + extra.len();
    let (head, total) = (header.bytes(), header.data_len());
    report.bytes = head.len() as u64 + total;

    let (parent, name) = place(dst)?;
    let mut pending = Pending::default();
    let mut out = pending.create(parent, name)?;
    out.write(&head)?;
    let mut done = 0;
    for (_, values) in &extra {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.write(&bytes)?;
        out.write(&vec![0; padding(bytes.len() as u64)])?;
        done += (bytes.len() + padding(bytes.len() as u64)) as u64;
    }
    for (tensor, form) in tensors.iter().zip(&forms) {
        let mut len = 0u64;
        let mut emit = |bytes: &[u8]| {
            len += bytes.len() as u64;
            out.write(bytes)?;
            match progress(done + len, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ExportError::Stopped { name: tensor.plan.name.clone() }),
            }
        };
        let outcome = match (form, &tensor.source) {
            (Form::Codes, Source::Matrix(matrix)) => write_codes(tensor, matrix, &mut emit),
            _ => write_values(tensor, *form, decode, &mut emit),
        };
        tensor.source.unchanged().map_err(ExportError::from)?;
        outcome?;
        out.write(&vec![0; padding(len)])?;
        done += len + padding(len) as u64;
    }
    out.finish()?;
    pending.commit(parent)?;
    Ok(report)
}

/// The folder and the name of a file that is not there yet.
fn place(dst: &Path) -> Result<(&Path, &str), ExportError> {
    let exists = || ExportError::Exists { file: dst.display().to_string() };
    let name = dst.file_name().and_then(|name| name.to_str()).ok_or_else(exists)?;
    if dst.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let parent = dst.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .map_err(|source| ExportError::Io { file: parent.display().to_string(), source })?;
    Ok((parent, name))
}

/// What a tensor is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Q4_0 with the folder's codes.
    Codes,
    Q8_0,
    Plain(DType),
}

impl Form {
    fn of(tensor: &Resolved<'_>, report: &mut GgufReport) -> Form {
        let (name, cols) = (&tensor.plan.name, tensor.plan.shape.last().copied().unwrap_or(0));
        let Source::Matrix(matrix) = &tensor.source else {
            // Readers add and multiply what has one axis in f32.
            let dtype = match &tensor.source {
                Source::Tensor(t) if t.shape.len() > 1 => t.stored(),
                _ => DType::F32,
            };
            return Form::Plain(dtype);
        };
        let format = match &matrix.data {
            MatrixData::Dense { dtype, .. } => return Form::Plain(*dtype),
            MatrixData::Grouped { format, .. } => *format,
        };
        report.quantised += 1;
        if !cols.is_multiple_of(32) {
            report.exact += 1;
            report
                .notes
                .push(format!("{name}: rows of {cols} are not whole blocks of 32, so it is written as F32"));
            return Form::Plain(DType::F32);
        }
        if format == GroupFormat::INT4 {
            report.exact += 1;
            return Form::Codes;
        }
        report.notes.push(format!(
            "{name}: GGUF has no block for {}-bit groups of {}; written as Q8_0, which rounds it by up to a 254th of \
             the largest of 32 weights",
            format.bits, format.group
        ));
        Form::Q8_0
    }

    fn ty(self) -> GgmlType {
        let name = match self {
            Form::Codes => "Q4_0",
            Form::Q8_0 => "Q8_0",
            Form::Plain(DType::F16) => "F16",
            Form::Plain(DType::BF16) => "BF16",
            Form::Plain(_) => "F32",
        };
        GgmlType::from_name(name).expect("ggml's table has it")
    }
}

/// `general.file_type`: llama.cpp's number of what most matrices are.
fn file_type(forms: &[Form]) -> u32 {
    let has = |form: Form| forms.contains(&form);
    match () {
        _ if has(Form::Codes) => 2,
        _ if has(Form::Q8_0) => 7,
        _ if has(Form::Plain(DType::F16)) => 1,
        _ if has(Form::Plain(DType::BF16)) => 32,
        _ => 0,
    }
}

/// Rows of a grouped matrix, whichever way it lies.
struct Groups<'a> {
    matrix: &'a Matrix,
    layout: Layout,
    words: &'a [u8],
    scale_dtype: DType,
    scales: &'a [u8],
}

impl<'a> Groups<'a> {
    fn of(matrix: &'a Matrix) -> Option<Groups<'a>> {
        match &matrix.data {
            MatrixData::Grouped { layout, words, scale_dtype, scales, .. } => {
                Some(Groups { matrix, layout: *layout, words, scale_dtype: *scale_dtype, scales })
            }
            MatrixData::Dense { .. } => None,
        }
    }

    fn place(&self, row: usize, at: usize, of: usize) -> usize {
        match self.layout {
            Layout::Nk => row * of + at,
            Layout::Kn => at * self.matrix.rows + row,
        }
    }

    /// The words of a group of four-bit codes.
    fn words(&self, row: usize, group: usize) -> [u32; 4] {
        let all = GroupFormat::INT4.words(self.matrix.cols);
        std::array::from_fn(|i| {
            let at = self.place(row, group * 4 + i, all) * 4;
            u32::from_le_bytes([self.words[at], self.words[at + 1], self.words[at + 2], self.words[at + 3]])
        })
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        let size = self.scale_dtype.size();
        let at = self.place(row, group, GroupFormat::INT4.groups(self.matrix.cols)) * size;
        let mut out = [0.0];
        let widened = widen(self.scale_dtype, &self.scales[at..at + size], &mut out);
        assert!(widened, "Matrix::check admits only float scales");
        out[0]
    }
}

/// That scales are 16-bit floats; all tensors are looked at before anything is written.
fn check_scales(
    tensors: &[Resolved<'_>],
    forms: &[Form],
    allow: bool,
    report: &mut GgufReport,
) -> Result<(), GgufExportError> {
    let mut inexact = Vec::new();
    for (tensor, form) in tensors.iter().zip(forms) {
        let (Form::Codes, Source::Matrix(matrix)) = (form, &tensor.source) else { continue };
        let Some(groups) = Groups::of(matrix) else { continue };
        let per_row = matrix.cols / GroupFormat::INT4.group;
        let (mut rounded, mut first) = (0usize, None);
        for (row, from) in tensor.rows.iter().cloned().flatten().enumerate() {
            for group in 0..per_row {
                let scale = groups.scale(from, group);
                let near = f16::from_f32(scale);
                if !near.is_finite() {
                    let tensor = tensor.plan.name.clone();
                    return Err(GgufExportError::Scale { tensor, row, group, scale });
                }
                if near.to_f32() != scale {
                    rounded += 1;
                    first.get_or_insert((row, group, scale, near));
                }
            }
        }
        if let Some((row, group, scale, near)) = first {
            report.exact -= 1;
            inexact.push(format!(
                "{}: {rounded} of {} scales, that of row {row}, group {group} is {scale:e} and not {near:e}",
                tensor.plan.name,
                tensor.plan.shape[0] * per_row,
            ));
        }
    }
    if inexact.is_empty() {
        return Ok(());
    }
    if allow {
        report.notes.extend(inexact.into_iter().map(|what| format!("rounded to 16-bit floats: {what}")));
        return Ok(());
    }
    let count = inexact.len();
    inexact.truncate(SHOWN);
    Err(GgufExportError::Inexact { count, tensors: inexact })
}

type Emit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), ExportError>;

fn write_codes(tensor: &Resolved<'_>, matrix: &Matrix, emit: Emit<'_>) -> Result<(), ExportError> {
    let Some(groups) = Groups::of(matrix) else { return Ok(()) };
    let mut bytes = Vec::with_capacity(STEP + 4096);
    for row in tensor.rows.iter().cloned().flatten() {
        for group in 0..matrix.cols / GroupFormat::INT4.group {
            let scale = f16::from_f32(groups.scale(row, group));
            bytes.extend(block_of(groups.words(row, group), scale));
        }
        if bytes.len() >= STEP {
            emit(&bytes)?;
            bytes.clear();
        }
    }
    emit(&bytes)
}

fn write_values(
    tensor: &Resolved<'_>,
    form: Form,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    emit: Emit<'_>,
) -> Result<(), ExportError> {
    let mut bytes = Vec::new();
    for_each_block::<ExportError>(tensor, decode, &mut |values| {
        bytes.clear();
        match form {
            Form::Plain(DType::F16) => {
                bytes.extend(values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()))
            }
            Form::Plain(DType::BF16) => {
                bytes.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
            }
            Form::Q8_0 => values.chunks_exact(32).for_each(|block| q8_0(block, &mut bytes)),
            _ => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        }
        emit(&bytes)
    })
}

/// |d f16|qs i8 x 32|, a value is `q * d`; `quantize_row_q8_0_ref` of ggml's `ggml-quants.c`.
fn q8_0(values: &[f32], out: &mut Vec<u8>) {
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(values.iter().map(|x| (x * inverse).round() as i8 as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q8_0_is_that_of_the_gguf_package() {
        let data = |name: &str| {
            std::fs::read(format!("{}/tests/data/gguf/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let bytes = data("made.f32");
        let mut values = vec![0.0; bytes.len() / 4];
        assert!(widen(DType::F32, &bytes, &mut values));
        let mut blocks = Vec::new();
        values.chunks_exact(32).for_each(|block| q8_0(block, &mut blocks));
        for (i, (found, want)) in blocks.chunks(34).zip(data("made.Q8_0").chunks(34)).enumerate() {
            assert_eq!(found, want, "block {i}");
        }
        assert_eq!(blocks.len(), 64 * 34);
    }
}
