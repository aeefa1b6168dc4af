//! Each way in which a manifest can be wrong, made from one that is right.

use super::parse::MAX_WARNINGS;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn tensor(name: &str, shape: Value, dtype: &str, nbytes: u64, offset: u64) -> Value {
    json!({"name": name, "shape": shape, "dtype": dtype, "format": "f32-to-bf16", "nbytes": nbytes,
           "byteOffset": offset})
}

/// Two shards; `a` is float32 stored as bfloat16, `b.q_weight` is uint32.
fn good() -> Value {
    json!({
        "metadata": {"ParamSize": 3, "ParamBytes": 56.0, "BitsPerParam": 5.0},
        "records": [
            {"dataPath": "params_shard_0.bin", "format": "raw-shard", "nbytes": 28, "records": [
                tensor("a.weight", json!([2, 3]), "float32", 12, 0),
                tensor("b.q_weight", json!([2, 2]), "uint32", 16, 12),
            ], "md5sum": "0123456789ABCDEF0123456789abcdef"},
            {"dataPath": "params_shard_1.bin", "format": "raw-shard", "nbytes": 8, "records": [
                tensor("b.q_scale", json!([4, 1]), "float32", 8, 0),
            ]},
        ],
    })
}

fn parse(value: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(value.to_string().as_bytes())
}

/// The error after one change.
fn broken(pointer: &str, to: Value) -> ManifestError {
    let mut value = good();
    *value.pointer_mut(pointer).unwrap() = to;
    parse(&value).unwrap_err()
}

fn without(pointer: &str, key: &str) -> Result<Manifest, ManifestError> {
    let mut value = good();
    value.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    parse(&value)
}

const SHARD: &str = "/records/0";
const TENSOR: &str = "/records/0/records/0";

#[test]
fn a_good_manifest_is_read() {
    let manifest = parse(&good()).unwrap();
    assert_eq!(manifest.warnings(), []);
    assert_eq!(manifest.stored_len(), 36);
    assert_eq!(manifest.memory_len(), 56);
    assert_eq!(manifest.metadata().param_size, Some(3));
    assert_eq!(manifest.shards()[0].md5sum.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(manifest.shards()[1].md5sum, None);
    let record = manifest.record("b.q_weight").unwrap();
    assert_eq!((record.range(), record.shard, record.dtype), (12..28, 0, DType::U32));
    assert!(manifest.record("c").is_none());
}

#[test]
fn a_byte_order_mark_and_white_space_may_come_first_and_nothing_else() {
    let text = good().to_string();
    assert!(Manifest::parse(format!("\u{feff}\n {text}\n").as_bytes()).is_ok());
    let error = Manifest::parse(format!("seed {text}").as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::Json { line: 1, column: 1, .. }), "{error}");
}

#[test]
fn json_errors_have_a_line_and_a_column() {
    let error = Manifest::parse(b"{\n  \"records\": [,]\n}").unwrap_err();
    let ManifestError::Json { line, column, what } = &error else { panic!("{error}") };
    assert_eq!((*line, *column), (2, 15));
    assert!(!what.contains("line"), "{what}");
    assert!(matches!(Manifest::parse(b"{} x").unwrap_err(), ManifestError::Json { .. }));
    assert!(matches!(Manifest::parse(b"").unwrap_err(), ManifestError::Json { .. }));
    assert!(matches!(Manifest::parse(b"{\"records\": \"\xff\"}").unwrap_err(), ManifestError::Json { .. }));
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert!(matches!(Manifest::parse(&deep).unwrap_err(), ManifestError::Json { .. }));
}

#[test]
fn a_key_given_twice_is_refused() {
    let text = good().to_string().replacen("\"byteOffset\":0", "\"byteOffset\":0,\"byteOffset\":4", 1);
    let error = Manifest::parse(text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("\"byteOffset\" is given twice"), "{error}");
}

#[test]
fn files_in_disguise_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    assert_eq!(Manifest::parse(pointer).unwrap_err(), ManifestError::LfsPointer);
    assert_eq!(Manifest::parse(b"<!DOCTYPE html>").unwrap_err(), ManifestError::Html);
    assert_eq!(Manifest::parse(b"\n<HTML>").unwrap_err(), ManifestError::Html);
}

#[test]
fn too_many_bytes_are_refused() {
    let error = Manifest::parse(&vec![b' '; MAX_MANIFEST_LEN as usize + 1]).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { limit: MAX_MANIFEST_LEN, .. }), "{error}");
}

#[test]
fn too_many_records_are_refused() {
    let zeros = vec!["0"; MAX_RECORDS + 1].join(",");
    let error = Manifest::parse(format!("{{\"records\":[{zeros}]}}").as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::TooMany { what: "shards", .. }), "{error}");
    let text = format!(
        "{{\"records\":[{{\"dataPath\":\"s\",\"format\":\"raw-shard\",\"nbytes\":1,\"records\":[{zeros}]}}]}}"
    );
    let error = Manifest::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::TooMany { what: "tensors", .. }), "{error}");
}

/// Values of two bytes take 32 in memory: a file within its limit took a gigabyte.
#[test]
fn too_many_values_are_refused() {
    let zeros = "0,".repeat(MAX_VALUES);
    for text in [
        format!("{{\"records\":[{zeros}0]}}"),
        format!("{{\"records\":[],\"other\":[{zeros}0]}}"),
        format!("{{\"metadata\":[{zeros}0"),
    ] {
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::TooMany { what: "values", limit: MAX_VALUES, .. }), "{error}");
    }
}

#[test]
fn every_required_field_is_missed() {
    for key in ["dataPath", "format", "nbytes", "records"] {
        let error = without(SHARD, key).unwrap_err();
        assert!(matches!(&error, ManifestError::Field { field, .. } if *field == key), "{error}");
    }
    for key in ["name", "shape", "dtype", "format", "nbytes", "byteOffset"] {
        let error = without(TENSOR, key).unwrap_err();
        let ManifestError::Field { place, field, found, .. } = &error else { panic!("{error}") };
        assert_eq!((*field, found.as_str()), (key, "nothing"));
        assert_eq!(place.shard.as_deref(), Some("params_shard_0.bin"));
        let tensor = if key == "name" { "records[0]" } else { "a.weight" };
        assert_eq!(place.tensor.as_deref(), Some(tensor));
    }
    assert!(without(SHARD, "md5sum").is_ok());
    let manifest = without("", "metadata").unwrap();
    assert_eq!(manifest.warnings()[0].message, "field metadata is missing");
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    let cases = [
        ("/records", json!({}), "records"),
        ("/records/0", json!(7), "records"),
        ("/metadata", json!([]), "metadata"),
        ("/records/0/dataPath", json!(null), "dataPath"),
        ("/records/0/format", json!("tar"), "format"),
        ("/records/0/nbytes", json!("28"), "nbytes"),
        ("/records/0/nbytes", json!(-1), "nbytes"),
        ("/records/0/nbytes", json!(28.0), "nbytes"),
        ("/records/0/nbytes", json!(1e300), "nbytes"),
        ("/records/0/nbytes", json!(u64::MAX), "nbytes"),
        ("/records/0/md5sum", json!("0123"), "md5sum"),
        ("/records/0/md5sum", json!("zz23456789abcdef0123456789abcdef"), "md5sum"),
        ("/records/0/records/0", json!("a"), "records"),
        ("/records/0/records/0/name", json!(""), "name"),
        ("/records/0/records/0/name", json!("a\u{1b}[2J"), "name"),
        ("/records/0/records/0/name", json!("n".repeat(MAX_NAME_LEN + 1)), "name"),
        ("/records/0/records/0/dtype", json!("float64"), "dtype"),
        ("/records/0/records/0/format", json!("zip"), "format"),
        ("/records/0/records/0/shape", json!("2x3"), "shape"),
        ("/records/0/records/0/shape", json!([2, -3]), "shape"),
        ("/records/0/records/0/shape", json!([2.0, 3]), "shape"),
        ("/records/0/records/0/nbytes", json!(-12), "nbytes"),
        ("/records/0/records/0/byteOffset", json!(-4), "byteOffset"),
        ("/records/0/records/0/byteOffset", json!(0.5), "byteOffset"),
        ("/records/0/records/0/byteOffset", json!(u64::MAX), "byteOffset"),
    ];
    for (pointer, to, key) in cases {
        let error = broken(pointer, to.clone());
        assert!(
            matches!(&error, ManifestError::Field { field, .. } if *field == key),
            "{pointer} {to}: {error}"
        );
        assert_eq!(error.details().field, key);
    }
    let error = broken("/records/0/records/0/byteOffset", json!(-4));
    assert_eq!(
        error.to_string(),
        "shard params_shard_0.bin: tensor a.weight: field byteOffset: expected an integer from 0 to \
         4398046511104, found -4"
    );
}

#[test]
fn paths_stay_in_the_folder() {
    let paths = [
        "",
        ".",
        "..",
        "../x.bin",
        "a/b.bin",
        "/etc/passwd",
        "a\\b.bin",
        "..\\x",
        "C:x.bin",
        "x\0.bin",
        "x\n.bin",
        "shard:stream",
    ];
    for path in paths.into_iter().map(str::to_owned).chain([("x").repeat(256)]) {
        let error = broken("/records/0/dataPath", json!(path));
        assert!(matches!(error, ManifestError::UnsafePath { .. }), "{path:?}: {error}");
        assert!(!error.to_string().contains(['\0', '\n']));
    }
    assert!(matches!(
        broken("/records/1/dataPath", json!("params_shard_0.bin")),
        ManifestError::DuplicateShard { first: 0, second: 1, .. }
    ));
}

#[test]
fn names_are_unique() {
    for pointer in ["/records/0/records/1/name", "/records/1/records/0/name"] {
        let error = broken(pointer, json!("a.weight"));
        let ManifestError::DuplicateTensor { tensor, first, second } = &error else { panic!("{error}") };
        assert_eq!((tensor.as_str(), first.as_str()), ("a.weight", "params_shard_0.bin"));
        assert_eq!(second == "params_shard_1.bin", pointer.starts_with("/records/1"));
    }
}

#[test]
fn folders_that_only_look_readable_are_refused() {
    let error = broken("/records/0/records/0/name", json!("param_17"));
    assert!(matches!(error, ManifestError::LegacyName { .. }), "{error}");
    let error = broken("/records/0/records/0/name", json!("x.q_weight_shard-1"));
    assert!(matches!(error, ManifestError::Presharded { .. }), "{error}");
    for name in ["param_", "param_x", "my.param_1x", "x_shard-", "x_shard-a"] {
        let mut value = good();
        value["records"][0]["records"][0]["name"] = json!(name);
        assert!(parse(&value).is_ok(), "{name}");
    }
}

#[test]
fn absurd_shapes_are_refused() {
    let huge = 1u64 << 40;
    for shape in [
        json!([]),
        json!([0]),
        json!([2, 0, 3]),
        json!([1, 1, 1, 1, 1, 1, 1, 1, 1]),
        json!([huge, huge]),
        json!([u64::MAX]),
        json!([i64::MAX]),
        json!(vec![1; 5000]),
    ] {
        let error = broken("/records/0/records/0/shape", shape.clone());
        assert!(matches!(error, ManifestError::Shape { .. }), "{shape}: {error}");
        assert!(error.to_string().len() < 300);
    }
}

#[test]
fn sizes_must_match_shapes() {
    // float32 in f32-to-bf16 is halved, and nothing else is.
    for (tensor, nbytes, needed) in [(0, 24, 12), (1, 8, 16)] {
        let error = broken(&format!("/records/0/records/{tensor}/nbytes"), json!(nbytes));
        let ManifestError::WrongSize { stated, needed: n, .. } = error else { panic!("{error}") };
        assert_eq!((stated, n), (nbytes, needed));
    }
    let error = broken("/records/0/records/0/format", json!("raw"));
    assert!(matches!(error, ManifestError::WrongSize { stated: 12, needed: 24, .. }), "{error}");
    let error = broken("/records/0/records/0/nbytes", json!(1u64 << 32));
    assert!(matches!(error, ManifestError::WrongSize { stated: 4294967296, .. }), "{error}");
}

#[test]
fn records_stay_in_their_shard_and_apart() {
    for offset in [13u64, 4 << 30, MAX_SHARD_LEN] {
        let error = broken("/records/0/records/1/byteOffset", json!(offset));
        assert!(matches!(error, ManifestError::PastEnd { shard_len: 28, .. }), "{error}");
    }
    let error = broken("/records/0/records/1/byteOffset", json!(11));
    assert_eq!(
        error.to_string(),
        "shard params_shard_0.bin: tensor b.q_weight starts at byte 11, inside tensor a.weight, which ends at 12"
    );
    // Order in the list does not matter.
    let mut value = good();
    value["records"][0]["records"].as_array_mut().unwrap().reverse();
    assert!(parse(&value).is_ok());
}

#[test]
fn a_manifest_without_tensors_is_refused() {
    assert_eq!(broken("/records", json!([])), ManifestError::Empty);
    for error in [broken("/records", json!([])), ManifestError::Html, ManifestError::LfsPointer] {
        let details = error.details();
        assert!(!details.expected.is_empty() && !details.found.is_empty());
    }
}

#[test]
fn oddities_are_warnings() {
    let mut value = good();
    value["records"][0]["nbytes"] = json!(40);
    value["records"][0]["records"][1]["byteOffset"] = json!(20);
    value["records"][0]["records"][1]["note"] = json!("x");
    value["records"][0]["more"] = json!(1);
    value["version"] = json!(2);
    value["metadata"] = json!({"ParamSize": 4, "ParamBytes": "many"});
    let manifest = parse(&value).unwrap();
    let shown: Vec<String> = manifest.warnings().iter().map(Warning::to_string).collect();
    for expected in [
        "unknown field \"version\" (2) is ignored",
        "shard params_shard_0.bin: unknown field \"more\" (1) is ignored",
        "shard params_shard_0.bin: tensor b.q_weight: unknown field \"note\" (\"x\") is ignored",
        "shard params_shard_0.bin: tensor b.q_weight: 8 bytes before it, from byte 12, belong to no tensor",
        "shard params_shard_0.bin: the last 4 bytes belong to no tensor",
        "metadata ParamBytes: expected a number, found \"many\"",
        "metadata ParamSize is 4, but the manifest lists 3 tensors",
    ] {
        assert!(shown.iter().any(|s| s == expected), "{expected} is not in {shown:#?}");
    }
    assert_eq!(shown.len(), 7);
}

#[test]
fn warnings_are_bounded() {
    let mut value = good();
    for i in 0..500 {
        value[format!("key{i}")] = json!(i);
    }
    let manifest = parse(&value).unwrap();
    assert_eq!(manifest.warnings().len(), MAX_WARNINGS + 1);
    assert_eq!(manifest.warnings()[MAX_WARNINGS].message, "400 more warnings are not shown");
}

/// Small numbers that often fit together, and some that never do.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..24u64, 1 => any::<u64>(), 1 => (0..64u32).prop_map(|bit| 1 << bit)]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1..4u64, 1 => number()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Acceptance is exactly the arithmetic of the format, done here in 128 bits.
    #[test]
    fn numbers_are_accepted_exactly_when_they_fit(
        shard_len in prop_oneof![number(), 0..64u64],
        shapes in [[size(), size()], [size(), size()]],
        lens in [number(), number()],
        offsets in [number(), number()],
        right in any::<bool>(),
    ) {
        let wide = |x: u64| u128::from(x);
        // Half of the time the lengths are those that the shapes need.
        let need = |i: usize| (wide(shapes[i][0]) * wide(shapes[i][1])).saturating_mul(2);
        let len = |i: usize| if right { u64::try_from(need(i)).unwrap_or(lens[i]) } else { lens[i] };
        let tensor = |i: usize| json!({"name": format!("t{i}"), "shape": shapes[i], "dtype": "float16",
            "format": "raw", "nbytes": len(i), "byteOffset": offsets[i]});
        let value = json!({"metadata": {}, "records": [{"dataPath": "s", "format": "raw-shard",
            "nbytes": shard_len, "records": [tensor(0), tensor(1)]}]});
        let end = |i: usize| wide(offsets[i]) + wide(len(i));
        let fits = |i: usize| {
            shapes[i].iter().all(|&size| size > 0) && need(i) == wide(len(i)) && end(i) <= wide(shard_len)
        };
        let apart = end(0) <= wide(offsets[1]) || end(1) <= wide(offsets[0]);
        let right = shard_len <= MAX_SHARD_LEN && fits(0) && fits(1) && apart;
        match parse(&value) {
            Ok(manifest) => {
                prop_assert!(right, "accepted {value}");
                let gaps = end(0) - wide(offsets[0]) + end(1) - wide(offsets[1]) < wide(shard_len);
                prop_assert_eq!(!manifest.warnings().is_empty(), gaps);
            }
            Err(error) => prop_assert!(!right, "refused {value}: {error}"),
        }
    }
}
