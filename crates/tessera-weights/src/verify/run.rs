//! The walk over a folder's files. Shards are read in parallel; each is mapped once, hashed, and then
//! its tensors are looked at while its pages are warm.

use super::values::{count_codes, count_values};
use super::{Defect, Note, Progress, Report, VerifyOptions};
use crate::bytes::Bytes;
use crate::dtype::{DType, Encoding};
use crate::folder::{self, FolderError, check_shard};
use crate::manifest::{Manifest, Record, Shard};
use crate::scheme::GroupFormat;
use md5::{Digest, Md5};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes between two calls of the progress function.
const STEP: usize = 1 << 20;

/// Verifies a folder, or the one that a manifest file lies in. Every defect is in the report: a
/// manifest that is refused is one, since nothing can be told beyond it. `progress` is called from
/// several threads.
pub fn verify(
    path: impl AsRef<Path>,
    options: VerifyOptions<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Report {
    let path = path.as_ref();
    let mut report = Report { path: path.display().to_string(), ..Report::default() };
    let mut located = match folder::locate(path) {
        Ok(located) => located,
        Err(error) => {
            report.defects.push(opening(&error, &report.path));
            return report;
        }
    };
    report.manifest = Some(located.manifest.clone());
    let mut manifest = folder::read_manifest(&located);
    if let (Err(error), Some(_)) = (&manifest, located.twin) {
        // Two manifests that disagree, or one that is refused, say nothing about the shards: go on with
        // the one that `open` would prefer, if it is in order.
        let error = opening(error, &located.manifest);
        located.twin = None;
        manifest = folder::read_manifest(&located);
        if manifest.is_ok() {
            report.defects.push(error);
        }
    }
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            report.defects.push(opening(&error, &located.manifest));
            return report;
        }
    };
    report.shards = manifest.shards().len();
    report.tensors = manifest.records().len();
    report.bytes = manifest.stored_len();
    report.notes.extend(manifest.warnings().iter().map(|w| Note {
        file: w.file.clone(),
        tensor: w.tensor.clone(),
        message: w.message.clone(),
    }));

    let shards = map_all(&located.folder, &manifest);
    let record_bytes = |i: usize| {
        let record = &manifest.records()[i];
        shards[record.shard].as_ref().ok().map(|bytes| folder::tensor(record, bytes).bytes)
    };
    let scheme = folder::infer_from(&manifest, &record_bytes);
    match &scheme {
        Ok(scheme) => report.scheme = Some(scheme.name.to_owned()),
        Err(error) => report.notes.push(note(None, None, error.to_string())),
    }
    let format = scheme.ok().and_then(|s| s.group);

    let done = AtomicU64::new(0);
    let total = report.bytes;
    let advance = |len: u64| {
        let done = done.fetch_add(len, Ordering::Relaxed) + len;
        progress(Progress { done, total });
    };
    let found: Vec<Findings> = manifest
        .shards()
        .par_iter()
        .zip(shards.par_iter())
        .map(|(shard, bytes)| match bytes {
            Ok(bytes) => read_shard(&manifest, shard, bytes, options, format, &advance),
            Err(error) => {
                advance(shard.nbytes);
                Findings { defects: vec![opening(error, &shard.path)], ..Findings::default() }
            }
        })
        .collect();
    let mut unusual = Unusual::default();
    for findings in found {
        report.md5_matches += usize::from(findings.md5_matches);
        report.tensors_read += findings.tensors_read;
        report.defects.extend(findings.defects);
        report.notes.extend(findings.notes);
        unusual.negative += findings.unusual.negative;
        unusual.last_code += findings.unusual.last_code;
    }
    report.notes.extend(unusual.note());
    check_pairs(&manifest, &mut report.defects);
    if let Some(expected) = options.expected {
        check_expected(&manifest, &located.manifest, expected, &mut report);
    }
    report
}

/// Every shard, or why it cannot be read.
fn map_all(folder: &Path, manifest: &Manifest) -> Vec<Result<Bytes, FolderError>> {
    let shards = manifest.shards();
    let mapped: Vec<_> = shards.iter().map(|shard| folder::map_shard(folder, shard)).collect();
    let missing = mapped.iter().filter(|m| matches!(m, Ok(None))).count();
    let total = shards.len();
    let check = |(shard, mapped): (&Shard, Result<Option<Bytes>, FolderError>)| {
        let shard_path = || shard.path.clone();
        let bytes =
            mapped?.ok_or_else(|| FolderError::MissingShard { shard: shard_path(), missing, total })?;
        check_shard(shard, &bytes)?;
        Ok(bytes)
    };
    shards.iter().zip(mapped).map(check).collect()
}

#[derive(Default)]
struct Findings {
    md5_matches: bool,
    tensors_read: usize,
    defects: Vec<Defect>,
    notes: Vec<Note>,
    unusual: Unusual,
}

/// Tensors with what MLC's own rounding never writes and every reader decodes.
#[derive(Clone, Copy, Default)]
struct Unusual {
    /// Scales below zero.
    negative: usize,
    /// The last code, all ones.
    last_code: usize,
}

impl Unusual {
    fn note(self) -> Option<Note> {
        let Unusual { negative, last_code } = self;
        let message = format!(
            "{negative} tensors have negative scales and {last_code} the last code, which MLC's own rounding never writes              and every reader decodes: codes that were searched for (`convert --optimize`), or those of a GGUF file's Q4_0"
        );
        (negative + last_code > 0).then(|| note(None, None, message))
    }
}

fn read_shard(
    manifest: &Manifest,
    shard: &Shard,
    bytes: &Bytes,
    options: VerifyOptions<'_>,
    format: Option<GroupFormat>,
    advance: &(dyn Fn(u64) + Sync),
) -> Findings {
    let mut findings = Findings::default();
    if options.md5 {
        match &shard.md5sum {
            None => findings.notes.push(note(Some(shard), None, "no md5sum in the manifest".to_owned())),
            Some(expected) => {
                let mut md5 = Md5::new();
                for chunk in bytes.chunks(STEP) {
                    md5.update(chunk);
                    advance(chunk.len() as u64);
                }
                let found: String = md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
                findings.md5_matches = found == *expected;
                if !findings.md5_matches {
                    let message =
                        format!("shard {}: MD5 is {found}, the manifest says {expected}", shard.path);
                    findings.defects.push(Defect {
                        file: shard.path.clone(),
                        tensor: None,
                        field: "md5sum".to_owned(),
                        expected: expected.clone(),
                        found,
                        message,
                    });
                }
            }
        }
    }
    if !options.md5 || shard.md5sum.is_none() {
        advance(shard.nbytes);
    }
    if options.values {
        for record in &manifest.records()[shard.records.clone()] {
            let tensor = folder::tensor(record, bytes);
            read_tensor(shard, record, &tensor.bytes, format, &mut findings);
            findings.tensors_read += 1;
        }
    }
    if let Err(changed) = bytes.check() {
        // Whatever was found was found in something else.
        let message = format!("shard {}: {}", shard.path, changed.what);
        let defect = Defect {
            file: shard.path.clone(),
            tensor: None,
            field: "file".to_owned(),
            expected: "a file that nobody writes to meanwhile".to_owned(),
            found: changed.what,
            message,
        };
        return Findings { defects: vec![defect], ..Findings::default() };
    }
    findings
}

fn read_tensor(
    shard: &Shard,
    record: &Record,
    bytes: &[u8],
    format: Option<GroupFormat>,
    findings: &mut Findings,
) {
    let counts = count_values(record.encoding.stored(record.dtype), bytes);
    let of = record.numel();
    if let Some(first) = counts.first_not_finite {
        let at = position(&record.shape, first);
        let found = format!("{} of {of} are NaN or infinite, the first at {at}", counts.not_finite);
        findings.defects.push(defect(shard, record, "values", "finite values", found));
    }
    // A zero scale is legal: groups of zeros have it.
    if record.name.ends_with(".q_scale")
        && let Some(first) = counts.first_negative
    {
        let at = position(&record.shape, first);
        let found = format!("{} of {of} are negative, the first at {at}", counts.negative);
        match format {
            Some(_) => findings.unusual.negative += 1,
            None => findings.defects.push(defect(shard, record, "values", "scales of at least zero", found)),
        }
    }
    if let Some(format) = format
        && record.name.ends_with(".q_weight")
        && record.dtype == DType::U32
    {
        let counts = count_codes(format, bytes);
        findings.unusual.last_code += usize::from(counts.all_ones > 0);
        if counts.stray_bits > 0 {
            let message = format!("{} words have a bit set above their codes", counts.stray_bits);
            findings.notes.push(note(Some(shard), Some(record), message));
        }
    }
}

/// An element's index along each axis.
fn position(shape: &[usize], mut index: usize) -> String {
    let mut at = vec![0; shape.len()];
    for (at, &size) in at.iter_mut().zip(shape).rev() {
        *at = index % size;
        index /= size;
    }
    format!("{at:?}")
}

/// Codes without scales, and scales without codes.
fn check_pairs(manifest: &Manifest, defects: &mut Vec<Defect>) {
    for record in manifest.records() {
        let partner = if let Some(base) = record.name.strip_suffix(".q_weight") {
            // e5m2 weights are the ones that need no scale.
            if record.dtype == DType::F8E5M2 {
                continue;
            }
            format!("{base}.q_scale")
        } else if let Some(base) = record.name.strip_suffix(".q_scale") {
            format!("{base}.q_weight")
        } else {
            continue;
        };
        if manifest.record(&partner).is_none() {
            let shard = &manifest.shards()[record.shard];
            defects.push(defect(shard, record, "tensor", &format!("{partner} beside it"), "nothing".into()));
        }
    }
}

fn check_expected(
    manifest: &Manifest,
    manifest_name: &str,
    expected: &[super::ExpectedTensor],
    report: &mut Report,
) {
    let b16 = manifest_name.contains("-b16");
    for want in expected {
        let Some(record) = manifest.record(&want.name) else {
            let expected = format!("{} {:?}", want.dtype, want.shape);
            let message = format!("tensor {} is missing: expected {expected}", want.name);
            report.defects.push(Defect {
                file: manifest_name.to_owned(),
                tensor: Some(want.name.clone()),
                field: "tensor".to_owned(),
                expected,
                found: "nothing".to_owned(),
                message,
            });
            continue;
        };
        let shard = &manifest.shards()[record.shard];
        if record.shape != want.shape {
            let (expected, found) = (format!("{:?}", want.shape), format!("{:?}", record.shape));
            report.defects.push(defect(shard, record, "shape", &expected, found));
        }
        // The b16 manifest presents every float32 tensor as raw bfloat16.
        let as_b16 = b16 && want.dtype == DType::F32 && record.dtype == DType::BF16;
        if record.dtype != want.dtype && !(as_b16 && record.encoding == Encoding::Raw) {
            report.defects.push(defect(shard, record, "dtype", want.dtype.name(), record.dtype.to_string()));
        }
    }
    let names: HashSet<&str> = expected.iter().map(|t| t.name.as_str()).collect();
    for record in manifest.records().iter().filter(|r| !names.contains(r.name.as_str())) {
        let shard = &manifest.shards()[record.shard];
        // Older converters wrote the head of models that tie it to the embedding.
        if record.name.starts_with("lm_head.") && !names.iter().any(|n| n.starts_with("lm_head.")) {
            let message =
                "the architecture ties its head to the embedding, yet the folder has one".to_owned();
            report.notes.push(note(Some(shard), Some(record), message));
            continue;
        }
        let found = format!("{} {:?}", record.dtype, record.shape);
        report.defects.push(defect(shard, record, "tensor", "no tensor of this name", found));
    }
}

fn defect(shard: &Shard, record: &Record, field: &str, expected: &str, found: String) -> Defect {
    let (file, name) = (&shard.path, &record.name);
    Defect {
        file: file.clone(),
        tensor: Some(name.clone()),
        field: field.to_owned(),
        expected: expected.to_owned(),
        message: format!("shard {file}: tensor {name}: {field}: expected {expected}, found {found}"),
        found,
    }
}

fn note(shard: Option<&Shard>, record: Option<&Record>, message: String) -> Note {
    Note { file: shard.map(|s| s.path.clone()), tensor: record.map(|r| r.name.clone()), message }
}

/// A defect that keeps a file from being opened.
fn opening(error: &FolderError, file: &str) -> Defect {
    let message = error.to_string();
    let file = error.file().unwrap_or(file).to_owned();
    let length = |expected: &u64, found: &u64| (format!("{expected} bytes"), format!("{found} bytes"));
    let (expected, found) = match error {
        FolderError::Manifest { source, .. } => {
            let d = source.details();
            let (field, expected, found) = (d.field.to_owned(), d.expected, d.found);
            return Defect { file, tensor: d.tensor, field, expected, found, message };
        }
        FolderError::MissingShard { .. } => ("a file".to_owned(), "nothing".to_owned()),
        FolderError::LfsPointer { found, expected, .. } => {
            let (expected, found) = length(expected, found);
            (expected, format!("a git-LFS pointer of {found}"))
        }
        FolderError::Html { found, expected, .. } => {
            let (expected, found) = length(expected, found);
            (expected, format!("an HTML page of {found}"))
        }
        FolderError::TruncatedShard { found, expected, .. }
        | FolderError::LongShard { found, expected, .. } => length(expected, found),
        FolderError::Io { source, .. } => ("a file that can be read".to_owned(), source.to_string()),
        _ => ("an MLC folder".to_owned(), message.clone()),
    };
    Defect { file, tensor: None, field: "file".to_owned(), expected, found, message }
}
