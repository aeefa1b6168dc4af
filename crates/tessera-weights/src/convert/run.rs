//! Running a plan: read, quantise, write, one parameter at a time; the folder appears when it is whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use md5::{Digest, Md5};
use rayon::prelude::*;

use super::exact;
use super::plan::{Plan, Step};
use super::rounding::{Loss, Rounding, Sums, round};
use super::staging::{Staging, io};
use super::values::Rows;
use super::write::{Flavour, shard_name};
use super::{ConvertError, ConvertOptions, ConvertReport, Progress};
use crate::arch::{Combine, Param, StoredTensor};
use crate::dtype::DType;
use crate::embedding::POOLING;
use crate::hf::is_plain_name;
use crate::pack::transpose;
use crate::quantize::store;
use crate::scheme::{GroupFormat, Layout, Scheme};
use crate::source::{SourceError, TensorSource, Values};

/// Converts `source` into a new folder `dst`, with `extra_files` (name and content) beside the weights.
///
/// Memory is taken for one source tensor and one parameter at a time. Everything is written to a sibling
/// of `dst` that is renamed when it is complete; the manifest comes last, so that not even the sibling of
/// a killed conversion opens.
pub fn convert(
    source: &dyn TensorSource,
    params: &[Param],
    scheme: &'static Scheme,
    options: &ConvertOptions<'_>,
    dst: &Path,
    extra_files: &[(String, Vec<u8>)],
) -> Result<ConvertReport, ConvertError> {
    let plan = Plan::new(source, params, scheme, options)?;
    check_extra_names(extra_files)?;
    check_tied_head(source, &plan)?;
    let staging = Staging::beside(dst)?;
    let mut shards = ShardFiles::new(&plan, staging.path());
    let total = plan.total_bytes();
    let mut report = ConvertReport {
        unused: plan.unused.clone(),
        removed: staging.removed().to_vec(),
        bytes: total,
        ..ConvertReport::default()
    };
    let mut done = 0;
    let tell = |done: u64, tensor: &str| match options.progress {
        Some(progress) => progress(&Progress { done, total, tensor }),
        None => ControlFlow::Continue(()),
    };
    for step in &plan.steps {
        if tell(done, &step.param.name).is_break() {
            return Err(ConvertError::Stopped { tensor: step.param.name.clone() });
        }
        let made = make(source, step, plan.scheme, options.rounding)?;
        if !made.finite {
            report.non_finite.push(step.param.name.clone());
        }
        report.rounded += usize::from(made.rounded);
        report.losses.extend(made.loss);
        report.quantised += usize::from(step.param.layout(plan.scheme).is_some());
        report.exact += usize::from(made.exact);
        for (tensor, bytes) in step.stored.iter().zip(&made.tensors) {
            shards.write(&tensor.name, bytes)?;
            done += bytes.len() as u64;
            report.tensors += 1;
        }
    }
    let md5 = shards.finish()?;
    report.shards = md5.len();
    for (name, bytes) in extra_files {
        staging.write(name, bytes)?;
    }
    if plan.has_b16() {
        let text = plan.manifest(Some(&md5), Flavour::B16);
        staging.write(options.manifest_name.b16_file(), text.as_bytes())?;
    }
    let text = plan.manifest(Some(&md5), Flavour::Plain);
    staging.write(options.manifest_name.file(), text.as_bytes())?;
    staging.publish(dst)?;
    let _ = tell(done, "");
    Ok(report)
}

/// The head that is left out because it is the embedding: that it is.
fn check_tied_head(source: &dyn TensorSource, plan: &Plan) -> Result<(), ConvertError> {
    const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];
    const EMBEDDINGS: [&str; 4] =
        ["embed_tokens.weight", "wte.weight", "embed_in.weight", "tok_embeddings.weight"];
    let Some(unused) = plan.unused.iter().find(|name| HEADS.contains(&name.as_str())) else { return Ok(()) };
    let tensors = source.tensors();
    let find = |test: &dyn Fn(&str) -> bool| tensors.iter().position(|t| test(&t.name));
    let head = find(&|name| name == unused);
    let embedding = find(&|name| EMBEDDINGS.iter().any(|end| name.ends_with(end)));
    let (Some(head), Some(embedding)) = (head, embedding) else { return Ok(()) };
    let different = if tensors[head].shape == tensors[embedding].shape {
        differing(&read(source, head)?, &read(source, embedding)?)
    } else {
        tensors[head].shape.iter().product()
    };
    if different == 0 {
        return Ok(());
    }
    Err(ConvertError::OtherHead {
        file: source.file(head).to_owned(),
        embedding: tensors[embedding].name.clone(),
        different,
        values: tensors[head].shape.iter().product(),
    })
}

/// How many values are not the same number.
fn differing(a: &Values, b: &Values) -> usize {
    let plain = |v: &Values, i: usize| match v {
        Values::F32(v) => v[i],
        Values::F16(v) => v[i].to_f32(),
        Values::BF16(v) => v[i].to_f32(),
    };
    (0..a.len()).filter(|i| plain(a, *i).to_bits() != plain(b, *i).to_bits()).count()
}

/// A parameter's stored tensors.
struct Made {
    tensors: Vec<Vec<u8>>,
    finite: bool,
    /// Whether float32 values lost something in their last 16 bits.
    rounded: bool,
    /// What was lost, where codes were not chosen as MLC does.
    loss: Option<Loss>,
    /// Whether all of it has the source's own codes.
    exact: bool,
}

fn make(
    source: &dyn TensorSource,
    step: &Step,
    scheme: &Scheme,
    rounding: Rounding<'_>,
) -> Result<Made, ConvertError> {
    let param = &step.param;
    match (param.layout(scheme), scheme.group) {
        (Some(layout), Some(format)) => make_quantised(source, step, (scheme, layout, format), rounding),
        _ => make_dense(source, step, &step.stored[0]),
    }
}

/// Rows and columns in which a parameter is worked on: reordered biases are columns of single values.
fn work_shape(param: &Param) -> (usize, usize) {
    match param.combine {
        Combine::PerHead { .. } | Combine::PerGroup { .. } if param.shape.len() == 1 => (param.numel(), 1),
        _ => (param.rows(), param.cols()),
    }
}

/// Reads a source tensor and checks that it has as many values as its shape says.
fn read(source: &dyn TensorSource, at: usize) -> Result<Values, ConvertError> {
    let values = source.read(at)?;
    let tensor = &source.tensors()[at];
    let expected: usize = tensor.shape.iter().product();
    if values.len() != expected {
        let what = format!("{} values, expected {expected} for shape {:?}", values.len(), tensor.shape);
        let (file, tensor) = (source.file(at).to_owned(), tensor.name.clone());
        return Err(SourceError { file, tensor, what }.into());
    }
    Ok(values)
}

fn make_quantised(
    source: &dyn TensorSource,
    step: &Step,
    form: (&Scheme, Layout, GroupFormat),
    rounding: Rounding<'_>,
) -> Result<Made, ConvertError> {
    let (scheme, layout, format) = form;
    let (rows, cols) = work_shape(&step.param);
    let (row_words, row_groups) = (format.words(cols), format.groups(cols));
    let found = match rounding {
        Rounding::Mlc => None,
        Rounding::Search => Some(None),
        Rounding::Found(all) => Some(all.of(&step.param.name)),
    };
    if let Some(Some(rounded)) = found {
        let (words, scales) = (rounded.words.len(), rounded.scales.len());
        assert_eq!((words, scales), (rows * row_words, rows * row_groups), "codes of {}", step.param.name);
    }
    let (mut sums, mut first) = (Vec::new(), 0);
    let mut words = vec![0u32; rows * row_words];
    let mut scales = vec![0f32; rows * row_groups];
    let (mut words_left, mut scales_left) = (&mut words[..], &mut scales[..]);
    let mut exact = true;
    for &at in &step.sources {
        if let Some((codes, part)) = exact::codes(source, at, &step.param, scheme)? {
            words_left.split_off_mut(..codes.len()).expect("rows of the plan").copy_from_slice(&codes);
            scales_left.split_off_mut(..part.len()).expect("rows of the plan").copy_from_slice(&part);
            first += part.len() / row_groups;
            continue;
        }
        exact = false;
        let values = read(source, at)?;
        let part = Rows {
            rows: values.len() / cols,
            values: &values,
            cols,
            combine: step.param.combine,
            dtype: scheme.dtype,
        };
        let (words, rest) = words_left.split_at_mut(part.rows * row_words);
        words_left = rest;
        let (scales, rest) = scales_left.split_at_mut(part.rows * row_groups);
        scales_left = rest;
        sums.extend(round(&part, first, form, found, words, scales));
        first += part.rows;
    }
    // What has the source's own codes was not rounded.
    let loss = (found.is_some() && !exact).then(|| Sums::loss(sums.into_iter(), &step.param.name));
    let finite = scales.iter().all(|s| s.is_finite());
    if layout == Layout::Kn {
        words = transpose(rows, row_words, &words);
        scales = transpose(rows, row_groups, &scales);
    }
    let mut stored = Vec::with_capacity(scales.len() * 2);
    store(scheme.dtype, &scales, &mut stored);
    Ok(Made { tensors: vec![little_endian(words), stored], finite, rounded: false, exact, loss })
}

fn make_dense(source: &dyn TensorSource, step: &Step, to: &StoredTensor) -> Result<Made, ConvertError> {
    let (rows, cols) = work_shape(&step.param);
    let (dtype, lying) = (to.dtype, to.encoding.stored(to.dtype));
    let size = lying.size();
    let mut out = vec![0u8; rows * cols * size];
    let mut left = &mut out[..];
    let (finite, rounded) = (AtomicBool::new(true), AtomicBool::new(false));
    for &at in &step.sources {
        let values = read(source, at)?;
        // A fused vector is parts of one row.
        let cols = if step.param.shape.len() == 1 && rows == 1 { values.len() } else { cols };
        let part_rows = match step.param.combine {
            Combine::HeadKeys { .. } | Combine::HeadValues { .. } => rows,
            _ => values.len() / cols,
        };
        let part = Rows { rows: part_rows, values: &values, cols, combine: step.param.combine, dtype };
        let (bytes, rest) = left.split_at_mut(part_rows * cols * size);
        left = rest;
        bytes.par_chunks_mut(cols * size).enumerate().with_min_len(8).for_each_init(
            || (vec![0.0; cols], Vec::with_capacity(cols * size)),
            |(row, stored), (r, bytes)| {
                part.read(r, row);
                stored.clear();
                match lying {
                    DType::F32 => stored.extend(row.iter().flat_map(|x| x.to_le_bytes())),
                    _ => store(dtype, row, stored),
                }
                bytes.copy_from_slice(stored);
                if lying != dtype && row.iter().any(|x| x.to_bits() & 0xffff != 0) {
                    rounded.store(true, Ordering::Relaxed);
                }
                if !row.iter().all(|x| x.is_finite()) {
                    finite.store(false, Ordering::Relaxed);
                }
            },
        );
    }
    let (finite, rounded) = (finite.into_inner(), rounded.into_inner());
    Ok(Made { tensors: vec![out], finite, rounded, exact: false, loss: None })
}

fn little_endian(words: Vec<u32>) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(&words).to_vec()
    } else {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// The shard files that are being written: at most the pending one and one that a large tensor has to
/// itself.
struct ShardFiles<'a> {
    folder: &'a Path,
    plan: &'a Plan,
    /// Shard of each tensor.
    shard: HashMap<&'a str, usize>,
    open: HashMap<usize, Open>,
    md5: Vec<String>,
}

struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    md5: Md5,
    written: u64,
}

impl<'a> ShardFiles<'a> {
    fn new(plan: &'a Plan, folder: &'a Path) -> ShardFiles<'a> {
        let shard = plan
            .shards
            .iter()
            .enumerate()
            .flat_map(|(i, s)| s.records.iter().map(move |r| (r.tensor.name.as_str(), i)))
            .collect();
        let md5 = vec![String::new(); plan.shards.len()];
        ShardFiles { folder, plan, shard, open: HashMap::new(), md5 }
    }

    fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let number = self.shard[tensor];
        let mut open = match self.open.remove(&number) {
            Some(open) => open,
            None => {
                let path = self.folder.join(shard_name(number));
                let file = BufWriter::new(File::create_new(&path).map_err(|e| io(&path, e))?);
                Open { path, file, md5: Md5::new(), written: 0 }
            }
        };
        open.file.write_all(bytes).map_err(|e| io(&open.path, e))?;
        open.md5.update(bytes);
        open.written += bytes.len() as u64;
        if open.written < self.plan.shards[number].nbytes {
            self.open.insert(number, open);
            return Ok(());
        }
        let file = open.file.into_inner().map_err(|e| io(&open.path, e.into_error()))?;
        file.sync_all().map_err(|e| io(&open.path, e))?;
        self.md5[number] = open.md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(())
    }

    fn finish(self) -> Result<Vec<String>, ConvertError> {
        assert!(self.open.is_empty(), "every planned byte was written");
        Ok(self.md5)
    }
}

pub(super) fn check_extra_names(files: &[(String, Vec<u8>)]) -> Result<(), ConvertError> {
    for (i, (name, _)) in files.iter().enumerate() {
        let ours = name.starts_with("params_shard_")
            || ["ndarray-cache", "tensor-cache"].iter().any(|m| name.starts_with(m));
        let plain = is_plain_name(name) || name == POOLING;
        if ours || !plain || files[..i].iter().any(|(other, _)| other == name) {
            return Err(ConvertError::BadExtraName { name: name.clone() });
        }
    }
    Ok(())
}
