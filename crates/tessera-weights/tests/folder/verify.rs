//! `verify` goes on after a defect and reports each with all its parts.

use crate::build::{Build, bf16s, f16s, shard_name, small, words};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use tessera_weights::dtype::DType;
use tessera_weights::verify::{Defect, ExpectedTensor, Progress, Report, VerifyOptions, verify};

fn check(path: &Path) -> Report {
    verify(path, VerifyOptions::default(), &|_| {})
}

fn fields(report: &Report) -> Vec<(&str, Option<&str>, &str)> {
    report.defects.iter().map(|d| (d.file.as_str(), d.tensor.as_deref(), d.field.as_str())).collect()
}

#[test]
fn a_clean_folder_is_clean_and_progress_reaches_the_end() {
    let folder = small().temp();
    let seen = Mutex::new(Vec::new());
    let report = verify(folder.path(), VerifyOptions::default(), &|p| seen.lock().unwrap().push(p));
    assert!(report.is_clean(), "{:#?}", report.defects);
    assert_eq!((report.shards, report.md5_matches, report.tensors, report.tensors_read), (2, 2, 4, 4));
    let last = seen.lock().unwrap().iter().map(|p| p.done).max();
    assert_eq!(last, Some(248));
    assert!(seen.lock().unwrap().iter().all(|&Progress { done, total }| done <= total && total == 248));
    // The scale of zero is legal, and the missing metadata is not a defect.
    assert_eq!(report.scheme.as_deref(), Some("q4f16_2"));
}

#[test]
fn every_defect_is_reported_not_only_the_first() {
    let good = small()
        .shard()
        .tensor("y.q_weight", &[1, 4], "uint32", &words(&[0; 4]))
        .shard()
        .tensor("z.q_scale", &[1, 2], "float16", &f16s(&[-1.0, f32::NAN]))
        .tensor("b.bias", &[2, 2], "float32", &bf16s(&[1.0, 2.0, f32::INFINITY, f32::NAN]));
    let folder = good.temp();
    fs::remove_file(folder.path().join(shard_name(0))).unwrap();
    let mut bytes = good.shards[1].clone();
    bytes[0] ^= 1;
    fs::write(folder.path().join(shard_name(1)), bytes).unwrap();
    let report = check(folder.path());
    assert_eq!(
        fields(&report),
        [
            ("params_shard_0.bin", None, "file"),
            ("params_shard_1.bin", None, "md5sum"),
            ("params_shard_3.bin", Some("z.q_scale"), "values"),
            ("params_shard_3.bin", Some("z.q_scale"), "values"),
            ("params_shard_3.bin", Some("b.bias"), "values"),
            ("params_shard_2.bin", Some("y.q_weight"), "tensor"),
            ("params_shard_3.bin", Some("z.q_scale"), "tensor"),
        ]
    );
    assert_eq!(report.defects[3].found, "1 of 2 are negative, the first at [0, 0]");
    assert_eq!(report.defects[4].found, "2 of 4 are NaN or infinite, the first at [1, 0]");
    assert_eq!(report.md5_matches, 2);
    assert!(report.scheme.is_none());

    // The JSON form has every part.
    let json = serde_json::to_value(&report).unwrap();
    for key in ["file", "tensor", "field", "expected", "found", "message"] {
        assert!(json["defects"][1].get(key).is_some(), "{key}");
    }
}

#[test]
fn a_truncated_shard_has_both_lengths() {
    let folder = small().temp();
    fs::write(folder.path().join(shard_name(1)), "short").unwrap();
    let report = check(folder.path());
    let [Defect { expected, found, .. }] = report.defects.as_slice() else { panic!("{report:#?}") };
    assert_eq!((expected.as_str(), found.as_str()), ("140 bytes", "5 bytes"));
    assert_eq!(report.tensors_read, 2);
}

#[test]
fn a_manifest_that_is_refused_is_one_defect() {
    let folder = small().temp();
    let mut manifest = small().manifest();
    manifest["records"][1]["records"][0]["byteOffset"] = json!(9);
    fs::write(folder.path().join("tensor-cache.json"), manifest.to_string()).unwrap();
    let report = check(folder.path());
    let [defect] = report.defects.as_slice() else { panic!("{report:#?}") };
    assert_eq!((defect.file.as_str(), defect.tensor.as_deref()), ("tensor-cache.json", Some("d.weight")));
    assert_eq!((defect.field.as_str(), defect.found.as_str()), ("byteOffset", "128"));

    // A refused or stale twin is a defect, and the shards are still looked at.
    let folder = small().temp();
    for twin in [manifest.to_string(), small().manifest().to_string().replace("x.q_", "y.q_")] {
        fs::write(folder.path().join("ndarray-cache.json"), twin).unwrap();
        let report = check(folder.path());
        assert_eq!((report.defects.len(), report.tensors_read), (1, 4), "{report:#?}");
    }

    let nowhere = check(&folder.path().join("nowhere"));
    assert_eq!(nowhere.defects.len(), 1);
    assert_eq!(nowhere.manifest, None);
}

#[test]
fn a_missing_md5sum_is_a_note() {
    let folder = small().temp();
    let mut manifest = small().manifest();
    manifest["records"][0].as_object_mut().unwrap().remove("md5sum");
    fs::write(folder.path().join("tensor-cache.json"), manifest.to_string()).unwrap();
    let report = check(folder.path());
    assert!(report.is_clean());
    assert_eq!(report.md5_matches, 1);
    let notes: Vec<_> = report.notes.iter().map(|n| (n.file.as_deref(), n.message.as_str())).collect();
    assert_eq!(notes, [(Some("params_shard_0.bin"), "no md5sum in the manifest")]);
}

#[test]
fn codes_that_no_converter_writes_are_a_note() {
    let build = Build::default()
        .shard()
        .tensor("x.q_weight", &[1, 4], "uint32", &words(&[0xf000_00f0, 0x7777_7777, 0, 0xe]))
        .tensor("x.q_scale", &[1, 1], "float16", &f16s(&[1.0]));
    let report = check(build.temp().path());
    assert!(report.is_clean());
    assert_eq!(report.notes.len(), 1);
    let message = "0 tensors have negative scales and 1 the last code";
    assert!(report.notes[0].message.starts_with(message), "{:?}", report.notes);
}

#[test]
fn the_architecture_is_compared_by_name_shape_and_dtype() {
    let folder = small().tensor("lm_head.weight", &[1, 1], "float16", &f16s(&[1.0])).temp();
    let want = |name: &str, shape: &[usize], dtype| ExpectedTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        dtype,
    };
    let mut expected = vec![
        want("x.q_weight", &[3, 8], DType::U32),
        want("x.q_scale", &[3, 2], DType::F16),
        want("norm.weight", &[64], DType::F32),
        want("d.weight", &[2, 3], DType::F16),
    ];
    let compare = |expected: &[ExpectedTensor]| {
        verify(folder.path(), VerifyOptions { expected: Some(expected), ..Default::default() }, &|_| {})
    };
    let report = compare(&expected);
    assert!(report.is_clean(), "{:#?}", report.defects);
    assert!(report.notes.iter().any(|n| n.tensor.as_deref() == Some("lm_head.weight")));

    expected[0].shape = vec![3, 9];
    expected[2].dtype = DType::F16;
    expected[3].name = "e.weight".to_owned();
    let report = compare(&expected);
    assert_eq!(
        fields(&report),
        [
            ("params_shard_0.bin", Some("x.q_weight"), "shape"),
            ("params_shard_1.bin", Some("norm.weight"), "dtype"),
            ("tensor-cache.json", Some("e.weight"), "tensor"),
            ("params_shard_1.bin", Some("d.weight"), "tensor"),
        ]
    );
    assert_eq!(
        report.defects[0].message,
        "shard params_shard_0.bin: tensor x.q_weight: shape: expected [3, 9], found [3, 8]"
    );
}

#[test]
fn checks_can_be_left_out() {
    let build = Build::default().shard().tensor("b.bias", &[1], "float16", &f16s(&[f32::NAN]));
    let folder = build.temp();
    let options = VerifyOptions { md5: false, values: false, ..Default::default() };
    let report = verify(folder.path(), options, &|_| {});
    assert!(report.is_clean());
    assert_eq!((report.md5_matches, report.tensors_read), (0, 0));
}
