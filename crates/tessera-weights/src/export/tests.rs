//! Exports read back with the safetensors crate, against values computed here.

use super::*;
use crate::bytes::Bytes;
use crate::tensor::{Matrix, MatrixData, widen};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The meaning of packed codes, written independently of the decoder.
fn decode(matrix: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows * matrix.cols];
    match &matrix.data {
        MatrixData::Dense { dtype, bytes } => assert!(widen(*dtype, bytes, &mut out)),
        MatrixData::Grouped { format, layout, words, scale_dtype, scales } => {
            let (n_words, n_groups) = (format.words(matrix.cols), format.groups(matrix.cols));
            let mut scale = vec![0.0; matrix.rows * n_groups];
            assert!(widen(*scale_dtype, scales, &mut scale));
            for row in 0..matrix.rows {
                for col in 0..matrix.cols {
                    let (word, group) = (col / format.per_word, col / format.group);
                    let (word, group) = match layout {
                        Layout::Nk => (row * n_words + word, row * n_groups + group),
                        Layout::Kn => (word * matrix.rows + row, group * matrix.rows + row),
                    };
                    let bytes: [u8; 4] = words[word * 4..word * 4 + 4].try_into().unwrap();
                    let shift = (col % format.per_word) as u32 * format.bits;
                    let code = (u32::from_le_bytes(bytes) >> shift) & ((1 << format.bits) - 1);
                    out[row * matrix.cols + col] = (code as i32 - format.zero()) as f32 * scale[group];
                }
            }
        }
    }
    out
}

/// `nk` and `kn` hold the same 6 x 70 matrix in both layouts; `norm` and `dense` are f16.
fn folder() -> Folder {
    let format = GroupFormat::INT4;
    let (rows, n_words, n_groups) = (6, format.words(70), format.groups(70));
    let word = |r: usize, w: usize| (r as u32 * 7919 + w as u32 * 104_729).wrapping_mul(2_654_435_761);
    let scale = |r: usize, g: usize| half::f16::from_f32(0.125 * (r + 1) as f32 + 0.5 * g as f32);
    let mut data = Vec::new();
    let mut records = Vec::new();
    let mut add = |name: &str, shape: Value, dtype: &str, bytes: Vec<u8>| {
        records.push(json!({"name": name, "shape": shape, "dtype": dtype, "format": "raw",
            "nbytes": bytes.len(), "byteOffset": data.len()}));
        data.extend(bytes);
    };
    let nk = |r: usize, n: usize| (0..r).flat_map(move |a| (0..n).map(move |b| (a, b)));
    let words = nk(rows, n_words).flat_map(|(r, w)| word(r, w).to_le_bytes()).collect();
    add("nk.q_weight", json!([rows, n_words]), "uint32", words);
    let scales = nk(rows, n_groups).flat_map(|(r, g)| scale(r, g).to_le_bytes()).collect();
    add("nk.q_scale", json!([rows, n_groups]), "float16", scales);
    let words = nk(n_words, rows).flat_map(|(w, r)| word(r, w).to_le_bytes()).collect();
    add("kn.q_weight", json!([n_words, rows]), "uint32", words);
    let scales = nk(n_groups, rows).flat_map(|(g, r)| scale(r, g).to_le_bytes()).collect();
    add("kn.q_scale", json!([n_groups, rows]), "float16", scales);
    let f16s = |v: &[f32]| v.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
    add("norm.weight", json!([3]), "float16", f16s(&[1.0, 2.5, -3.0]));
    add("dense.weight", json!([2, 3]), "float16", f16s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let big = [1e30f32, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    add("big.weight", json!([2]), "float32", big);
    let manifest = json!({"metadata": {}, "records": [{"dataPath": "s", "format": "raw-shard",
        "nbytes": data.len(), "records": records}]});
    Folder::from_parts(manifest.to_string().as_bytes(), |_| Some(Bytes::from_vec(data.clone()))).unwrap()
}

fn matrix(base: &str, layout: Layout) -> ExportSource {
    ExportSource::Matrix { base: base.to_owned(), rows: 6, cols: 70, layout }
}

fn vector(name: &str) -> ExportSource {
    ExportSource::Tensor { name: name.to_owned() }
}

fn plain(name: &str, shape: &[usize], from: ExportSource) -> ExportTensor {
    let (name, shape) = (name.to_owned(), shape.to_vec());
    ExportTensor { name, shape, from, rows: Vec::new(), transform: Transform::None }
}

fn options(dtype: DType) -> ExportOptions {
    ExportOptions::new(dtype, Some(GroupFormat::INT4))
}

fn export(
    plan: &[ExportTensor],
    options: &ExportOptions,
    dst: &Path,
) -> Result<Vec<std::path::PathBuf>, ExportError> {
    export_safetensors(&folder(), plan, options, dst, &decode, &mut |done, total| {
        assert!(done <= total);
        std::ops::ControlFlow::Continue(())
    })
}

fn read(file: &Path, name: &str) -> (safetensors::Dtype, Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let stored = match view.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        other => panic!("{other:?}"),
    };
    let mut values = vec![0.0; view.shape().iter().product()];
    assert!(widen(stored, view.data(), &mut values));
    (view.dtype(), view.shape().to_vec(), values)
}

#[test]
#[allow(clippy::single_range_in_vec_init)]
fn both_layouts_ranges_and_transforms_come_out_right() {
    let part = |from| ExportTensor { rows: vec![4..6, 1..2], ..plain("part", &[3, 70], from) };
    let plan = |from: ExportSource| {
        vec![
            plain("whole", &[6, 70], from.clone()),
            part(from.clone()),
            ExportTensor { transform: Transform::Transpose, ..plain("turned", &[70, 6], from) },
            ExportTensor { transform: Transform::Add(-1.0), ..plain("norm", &[3], vector("norm.weight")) },
            ExportTensor { rows: vec![1..2], ..plain("row", &[1, 3], vector("dense.weight")) },
        ]
    };
    let whole = decode(&folder().matrix("nk", Some(GroupFormat::INT4), Layout::Nk, 6, 70).unwrap());
    for (base, layout) in [("nk", Layout::Nk), ("kn", Layout::Kn)] {
        let dst = tempfile::tempdir().unwrap();
        let files = export(&plan(matrix(base, layout)), &options(DType::F32), dst.path()).unwrap();
        assert_eq!(files, [dst.path().join("model.safetensors")]);
        assert_eq!(fs::read_dir(dst.path()).unwrap().count(), 1, "a temporary file was left");
        let get = |name: &str| read(&files[0], name);
        assert_eq!(get("whole"), (safetensors::Dtype::F32, vec![6, 70], whole.clone()));
        assert_eq!(get("part").2, [&whole[280..420], &whole[70..140]].concat());
        let turned = get("turned").2;
        assert!((0..6).all(|r| (0..70).all(|c| turned[c * 6 + r] == whole[r * 70 + c])));
        assert_eq!(get("norm").2, [0.0, 1.5, -4.0]);
        assert_eq!(get("row").2, [4.0, 5.0, 6.0]);
    }
}

#[test]
fn narrower_types_are_rounded_and_do_not_overflow() {
    for (dtype, expected) in [(DType::F16, safetensors::Dtype::F16), (DType::BF16, safetensors::Dtype::BF16)]
    {
        let dst = tempfile::tempdir().unwrap();
        let plan = [plain("d", &[2, 3], vector("dense.weight"))];
        let files = export(&plan, &options(dtype), dst.path()).unwrap();
        let (found, _, values) = read(&files[0], "d");
        assert_eq!((found, values), (expected, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
    let dst = tempfile::tempdir().unwrap();
    let plan = [plain("b", &[2], vector("big.weight"))];
    let error = export(&plan, &options(DType::F16), dst.path()).unwrap_err();
    assert!(matches!(error, ExportError::Overflow { .. }), "{error}");
    assert_eq!(fs::read_dir(dst.path()).unwrap().count(), 0, "a failed export left a file");
    assert!(export(&plan, &options(DType::BF16), dst.path()).is_ok());
}

#[test]
fn large_exports_are_cut_and_indexed() {
    let dst = tempfile::tempdir().unwrap();
    let plan = [
        plain("a", &[2, 3], vector("dense.weight")),
        plain("b", &[6, 70], matrix("nk", Layout::Nk)),
        plain("c", &[3], vector("norm.weight")),
        plain("d", &[2], vector("big.weight")),
    ];
    let options = ExportOptions { max_file_len: 30, ..options(DType::F32) };
    let files = export(&plan, &options, dst.path()).unwrap();
    let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json"
        ]
    );
    let index: Value = serde_json::from_slice(&fs::read(&files[3]).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], json!((6 + 420 + 3 + 2) * 4));
    for (name, file) in index["weight_map"].as_object().unwrap() {
        read(&dst.path().join(file.as_str().unwrap()), name);
    }
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 4);
    let error = export(&plan, &options, dst.path()).unwrap_err();
    assert!(matches!(error, ExportError::Exists { .. }), "{error}");
}

#[test]
fn a_wrong_plan_is_refused_before_anything_is_written() {
    let dst = tempfile::tempdir().unwrap();
    let nk = || matrix("nk", Layout::Nk);
    let fail = |plan: &[ExportTensor]| export(plan, &options(DType::F32), dst.path()).unwrap_err();
    let error = fail(&[plain("a", &[3], vector("nothing"))]);
    assert!(matches!(error, ExportError::Source { .. }), "{error}");
    let error = fail(&[plain("a", &[6, 12], vector("nk.q_weight"))]);
    let ExportError::Source { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, FolderError::WrongDType { .. }), "{error}");
    let twice = plain("a", &[3], vector("norm.weight"));
    assert!(matches!(fail(&[twice.clone(), twice]), ExportError::DuplicateName { .. }));
    #[allow(clippy::reversed_empty_ranges)]
    for rows in [5..7, 7..7, 4..3] {
        let error = fail(&[ExportTensor { rows: vec![rows], ..plain("a", &[2, 70], nk()) }]);
        assert!(matches!(error, ExportError::NoSuchRows { rows: 6, .. }), "{error}");
    }
    let error = fail(&[plain("a", &[70, 6], nk())]);
    assert!(matches!(error, ExportError::WrongShape { .. }), "{error}");
    let turned = ExportTensor { transform: Transform::Transpose, ..plain("a", &[3], vector("norm.weight")) };
    assert!(matches!(fail(&[turned]), ExportError::WrongShape { .. }));
    let error = export(&[], &options(DType::U32), dst.path()).unwrap_err();
    assert!(matches!(error, ExportError::NotAFloat { dtype: DType::U32 }), "{error}");
    let error = export_safetensors(
        &folder(),
        &[plain("a", &[6, 70], nk())],
        &options(DType::F32),
        dst.path(),
        &|_| vec![0.0; 3],
        &mut |_, _| std::ops::ControlFlow::Continue(()),
    )
    .unwrap_err();
    assert!(matches!(error, ExportError::Decode { expected: 420, found: 3, .. }), "{error}");
    assert_eq!(fs::read_dir(dst.path()).unwrap().count(), 0);
}
