//! GGUF headers, blocks and llama tensors against the Python package `gguf`, and against files made to
//! be wrong. The golden data come from `make_gguf_golden.py`.

mod gguf_writer;

use gguf_writer::{File, T, V, q4_llama};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use tessera_weights::bytes::Bytes;
use tessera_weights::gguf::{
    GgmlType, Gguf, GgufError, GgufModel, GgufSource, SUPPORTED, dequantize, hf_config, open,
};
use tessera_weights::source::{TensorSource, Values};

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/gguf/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn parse(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
    Gguf::parse(Bytes::from_vec(bytes))
}

fn parsed(file: &File) -> Gguf {
    parse(file.bytes()).unwrap()
}

fn f32s(values: &Values) -> Vec<f32> {
    match values {
        Values::F32(v) => v.clone(),
        Values::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
        Values::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
    }
}

/// The message of a failure, checked to hold all of `parts`.
#[track_caller]
fn refused<T>(result: Result<T, GgufError>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, expected an error with {parts:?}") };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}

#[test]
fn blocks_decode_to_the_bits_of_the_reference() {
    for name in SUPPORTED {
        let ty = GgmlType::from_name(name).unwrap();
        let (blocks, want) = (data(&format!("{name}.blocks")), data(&format!("{name}.f32")));
        let mut out = vec![0.0f32; want.len() / 4];
        assert!(dequantize(ty, &blocks, &mut out), "{name}");
        for (i, (got, want)) in out.iter().zip(want.chunks_exact(4)).enumerate() {
            let want = f32::from_le_bytes(want.try_into().unwrap());
            assert_eq!(got.to_bits(), want.to_bits(), "{name}: value {i} is {got}, expected {want}");
        }
        assert!(!dequantize(ty, &blocks[1..], &mut out), "{name}: a broken block must be refused");
        assert!(!dequantize(ty, &blocks, &mut out[1..]), "{name}: a short output must be refused");
    }
}

#[test]
fn a_llama_is_the_checkpoint_it_was_made_from() {
    let source = GgufSource::new(parse(data("tiny.gguf")).unwrap(), "tiny.gguf").unwrap();
    let golden: Vec<Value> = serde_json::from_slice(&data("tiny.json")).unwrap();
    assert_eq!(source.tensors().len(), golden.len());
    for (i, tensor) in source.tensors().iter().enumerate() {
        let want = golden.iter().find(|g| g["name"] == tensor.name.as_str());
        let want = want.unwrap_or_else(|| panic!("{} is not in the checkpoint", tensor.name));
        assert_eq!(json!(tensor.shape), want["shape"], "{}", tensor.name);
        let values = source.read(i).unwrap();
        assert_eq!(values.dtype(), tensor.dtype, "{}", tensor.name);
        let bytes: Vec<u8> = f32s(&values).iter().flat_map(|v| v.to_le_bytes()).collect();
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, want["sha256"], "{}", tensor.name);
    }
    let names: Vec<&str> = source.tensors().iter().take(11).map(|t| t.name.as_str()).collect();
    let layer = |n: &str| format!("model.layers.0.{n}.weight");
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight",
            &layer("self_attn.q_proj"),
            &layer("self_attn.k_proj"),
            &layer("self_attn.v_proj"),
            &layer("self_attn.o_proj"),
            &layer("mlp.gate_proj"),
            &layer("mlp.up_proj"),
            &layer("mlp.down_proj"),
            &layer("input_layernorm"),
            &layer("post_attention_layernorm"),
            "model.layers.1.self_attn.q_proj.weight",
        ]
    );
    assert!(source.read(golden.len()).is_err());
}

#[test]
fn rows_and_biases_of_q_and_k_return_to_half_split() {
    // One head of width 4; every element is its GGUF row.
    let mut file = llama_with(&[("attn_q", true), ("attn_k", true), ("attn_v", true), ("attn_output", true)]);
    file.set_tensor(
        "blk.0.attn_q.weight",
        &[4, 4],
        &[0., 0., 0., 0., 1., 1., 1., 1., 2., 2., 2., 2., 3., 3., 3., 3.],
    );
    file.set_tensor("blk.0.attn_q.bias", &[4], &[0., 1., 2., 3.]);
    file.set_tensor("blk.0.attn_v.bias", &[4], &[0., 1., 2., 3.]);
    let source = GgufSource::new(parsed(&file), "f").unwrap();
    let read = |name: &str| {
        let i = source.tensors().iter().position(|t| t.name.ends_with(name)).unwrap();
        f32s(&source.read(i).unwrap())
    };
    assert_eq!(read("q_proj.weight"), [0., 0., 0., 0., 2., 2., 2., 2., 1., 1., 1., 1., 3., 3., 3., 3.]);
    assert_eq!(read("q_proj.bias"), [0., 2., 1., 3.]);
    assert_eq!(read("v_proj.bias"), [0., 1., 2., 3.]);
    assert_eq!(hf_config(source.gguf()).unwrap()["attention_bias"], true);
}

#[test]
fn the_config_says_what_the_metadata_meant() {
    let config = hf_config(&parse(data("tiny.gguf")).unwrap()).unwrap();
    let want = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 269, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "rope_scaling": null, "tie_word_embeddings": true,
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2
    });
    assert_eq!(config, want);
    let mut untied = llama();
    untied.tensor("output.weight", &[4, 8], &[0.5; 32]);
    let config = hf_config(&parsed(&untied)).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["torch_dtype"], "float32");
    let source = GgufSource::new(parsed(&untied), "f").unwrap();
    assert_eq!(source.tensors().last().unwrap().name, "lm_head.weight");
}

fn scaling(file: &File) -> Result<Value, GgufError> {
    Ok(hf_config(&parsed(file))?["rope_scaling"].clone())
}

#[test]
fn rope_scaling_from_metadata() {
    let mut file = llama();
    file.set("llama.rope.scaling.type", V::Str("linear"));
    file.set("llama.rope.scaling.factor", V::F32(2.5));
    assert_eq!(scaling(&file).unwrap(), json!({ "type": "linear", "rope_type": "linear", "factor": 2.5 }));
    file.set("llama.rope.scaling.factor", V::F32(f32::NAN));
    refused(scaling(&file), &["llama.rope.scaling.factor", "finite"]);
    file.set("llama.rope.scaling.factor", V::F32(4.0));
    file.set("llama.rope.scaling.type", V::Str("yarn"));
    file.set("llama.rope.scaling.original_context_length", V::U32(64));
    file.set("llama.rope.scaling.yarn_beta_fast", V::F32(16.0));
    let want = json!({
        "type": "yarn", "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0
    });
    assert_eq!(scaling(&file).unwrap(), want);
    file.set("llama.rope.scaling.type", V::Str("longrope"));
    refused(scaling(&file), &["llama.rope.scaling.type", "longrope"]);
}

/// Llama 3.1's divisors as `convert_hf_to_gguf.py` computes them.
fn llama3_divisors(head_dim: usize, theta: f64, factor: f64) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            match wavelength {
                w if w < 2048.0 => 1.0,
                w if w > 8192.0 => factor as f32,
                _ => (1.0 / ((1.0 - smooth) / factor + smooth)) as f32,
            }
        })
        .collect()
}

#[test]
fn llama3_scaling_is_recognised_by_its_divisors() {
    for factor in [8.0, 32.0] {
        let divisors = llama3_divisors(64, 500000.0, factor);
        let mut file = File::llama(64, 1, &[]);
        file.set("llama.rope.freq_base", V::F32(500000.0));
        file.tensor("rope_freqs.weight", &[32], &divisors);
        let want = json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
        assert_eq!(scaling(&file).unwrap(), want);
        assert!(GgufSource::new(parsed(&file), "f").is_ok());

        let mut both = file.clone();
        both.set("llama.rope.scaling.factor", V::F32(2.0));
        refused(scaling(&both), &["rope_freqs.weight", "as well"]);
        let mut other = divisors.clone();
        other[17] *= 1.01;
        file.set_tensor("rope_freqs.weight", &[32], &other);
        refused(scaling(&file), &["rope_freqs.weight", "divisor 17"]);
        file.set_tensor("rope_freqs.weight", &[16], &[1.0; 16]);
        refused(scaling(&file), &["rope_freqs.weight", "[16]", "[32]"]);
        file.set_tensor("rope_freqs.weight", &[32], &[f32::NAN; 32]);
        refused(scaling(&file), &["rope_freqs.weight"]);
        file.set_tensor("rope_freqs.weight", &[32], &[1.0; 32]);
        assert_eq!(scaling(&file).unwrap(), Value::Null);
    }
}

#[test]
fn what_cannot_be_carried_over_is_refused_by_name() {
    let change = |f: fn(&mut File)| {
        let mut file = llama();
        f(&mut file);
        GgufSource::new(parsed(&file), "f").map(|_| ())
    };
    assert!(change(|_| ()).is_ok());
    refused(change(|f| f.set("general.architecture", V::Str("bert"))), &["general.architecture", "qwen2"]);
    refused(change(|f| f.remove("general.architecture")), &["general.architecture", "missing"]);
    refused(change(|f| f.set("general.type", V::Str("adapter"))), &["general.type", "adapter"]);
    refused(change(|f| f.set("split.count", V::U32(2))), &["split.count", "2"]);
    refused(change(|f| f.set("llama.expert_count", V::U32(8))), &["llama.expert_count", "8"]);
    refused(change(|f| f.set("llama.logit_scale", V::F32(0.5))), &["llama.logit_scale", "0.5"]);
    refused(
        change(|f| f.set("llama.rope.dimension_count", V::U32(2))),
        &["llama.rope.dimension_count", "2", "4"],
    );
    refused(change(|f| f.set("llama.attention.sliding_window", V::U32(8))), &["sliding_window", "8", "64"]);
    refused(
        change(|f| f.set("llama.attention.head_count", V::U32(0))),
        &["llama.attention.head_count", "positive"],
    );
    refused(change(|f| f.set("llama.attention.head_count_kv", V::U32(3))), &["head_count_kv", "3"]);
    refused(change(|f| f.set("llama.embedding_length", V::Str("4"))), &["llama.embedding_length", "integer"]);
    refused(change(|f| f.set("llama.block_count", V::U32(u32::MAX))), &["blk.1.attn_q.weight", "missing"]);
    refused(change(|f| f.set("llama.vocab_size", V::U32(9))), &["llama.vocab_size", "9", "8 rows"]);
    refused(change(|f| f.drop_tensor("output_norm.weight")), &["output_norm.weight", "missing"]);
    refused(change(|f| f.tensor("blk.0.attn_q_norm.weight", &[4], &[1.; 4])), &["blk.0.attn_q_norm.weight"]);
    refused(change(|f| f.tensor("blk.0.ffn_gate_inp.weight", &[4], &[1.; 4])), &["ffn_gate_inp", "experts"]);
    refused(change(|f| f.tensor("output_norm.bias", &[4], &[1.; 4])), &["output_norm.bias", "bias"]);
    // HF's llama has biases on all four attention linears or on none.
    refused(change(|f| f.tensor("blk.0.attn_q.bias", &[4], &[1.; 4])), &["blk.0.attn_k.bias", "missing"]);
    refused(
        change(|f| f.set_tensor("blk.0.ffn_up.weight", &[8, 4], &[1.; 32])),
        &["blk.0.ffn_up.weight", "[4, 8]", "[8, 4]"],
    );
    refused(
        change(|f| {
            f.drop_tensor("blk.0.attn_norm.weight");
            let t = T {
                name: "blk.0.attn_norm.weight".into(),
                dims: vec![4],
                ty: 24,
                data: vec![0; 4],
                offset: None,
            };
            f.tensors.push(t);
        }),
        &["blk.0.attn_norm.weight", "I8", "Q6_K"],
    );
    let mut file = llama();
    file.set("tokenizer.ggml.bos_token_id", V::U32(8));
    refused(hf_config(&parsed(&file)), &["tokenizer.ggml.bos_token_id", "8"]);
}

#[test]
fn a_layer_s_values_may_be_given_one_by_one() {
    let mut file = File::llama(4, 2, &[]);
    file.set("llama.feed_forward_length", V::I32s(vec![8, 8]));
    assert_eq!(hf_config(&parsed(&file)).unwrap()["intermediate_size"], 8);
    file.set("llama.feed_forward_length", V::I32s(vec![8, 16]));
    refused(hf_config(&parsed(&file)), &["llama.feed_forward_length", "[8, 16]"]);
}

#[test]
fn broken_headers_are_refused_by_name() {
    let change = |f: fn(&mut File)| {
        let mut file = llama();
        f(&mut file);
        parse(file.bytes())
    };
    refused(parse(Vec::new()), &["not a GGUF file"]);
    refused(parse(b"GGML....".to_vec()), &["not a GGUF file"]);
    refused(change(|f| f.version = 1), &["version 1", "2 or 3"]);
    refused(change(|f| f.version = 4), &["version 4"]);
    refused(change(|f| f.version = 3u32.swap_bytes()), &["big-endian"]);
    assert!(change(|f| f.version = 2).is_ok());
    refused(change(|f| f.counts = Some((u64::MAX, 1))), &["number of tensors", "18446744073709551615"]);
    refused(change(|f| f.counts = Some((0, u64::MAX))), &["metadata keys"]);
    refused(change(|f| f.counts = Some((200_000, 7))), &["tensor"]);
    refused(
        change(|f| f.meta.push(("general.architecture".into(), V::Str("x")))),
        &["general.architecture", "twice"],
    );
    refused(change(|f| f.tensors.push(f.tensors[0].clone())), &["token_embd.weight", "twice"]);
    refused(change(|f| f.set("k", V::Raw(13, vec![]))), &["key k", "13"]);
    refused(change(|f| f.set("k", V::Raw(7, vec![2]))), &["key k", "boolean is 2"]);
    refused(
        change(|f| f.set("k", V::Raw(9, [&7u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[9]].concat()))),
        &["boolean is 9"],
    );
    refused(change(|f| f.set("k", V::Raw(8, u64::MAX.to_le_bytes().to_vec()))), &["key k", "limit"]);
    refused(
        change(|f| f.set("k", V::Raw(8, [&1u64.to_le_bytes()[..], &[0xff]].concat()))),
        &["key k", "UTF-8"],
    );
    refused(
        change(|f| {
            f.set("k", V::Raw(9, [4u32.to_le_bytes().to_vec(), (1u64 << 40).to_le_bytes().to_vec()].concat()))
        }),
        &["key k", "limit"],
    );
    refused(
        change(|f| {
            f.set("k", V::Raw(9, [4u32.to_le_bytes().to_vec(), (1u64 << 20).to_le_bytes().to_vec()].concat()))
        }),
        &["key k", "ends inside"],
    );
    let nest = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(50);
    let mut file = llama();
    file.set("k", V::Raw(9, nest));
    refused(parse(file.bytes()), &["nesting", "key k"]);

    refused(change(|f| f.set("general.alignment", V::U32(0))), &["general.alignment", "0"]);
    refused(change(|f| f.set("general.alignment", V::U32(24))), &["general.alignment", "24"]);
    refused(change(|f| f.set("general.alignment", V::Str("x"))), &["general.alignment", "unsigned"]);
    refused(change(|f| f.set("general.alignment", V::U32(64))), &["multiple of the alignment 64"]);
    let mut file = llama();
    (file.alignment, _) = (64, file.set("general.alignment", V::U32(64)));
    assert!(parse(file.bytes()).is_ok());

    refused(change(|f| f.tensors[2].ty = 4), &["blk.0.attn_k.weight", "type number 4"]);
    refused(change(|f| f.tensors[2].ty = 2), &["blk.0.attn_k.weight", "Q4_0", "32"]);
    refused(change(|f| f.tensors[2].dims = vec![1; 5]), &["blk.0.attn_k.weight", "dimensions", "5"]);
    refused(change(|f| f.tensors[2].dims = vec![4, 0]), &["blk.0.attn_k.weight", "zero"]);
    refused(change(|f| f.tensors[2].dims = vec![1 << 32, 1 << 32]), &["blk.0.attn_k.weight", "overflows"]);
    refused(change(|f| f.tensors[2].dims = vec![1 << 62]), &["blk.0.attn_k.weight", "bytes overflows"]);
    refused(change(|f| f.tensors[2].dims = vec![1 << 40]), &["blk.0.attn_k.weight", "data section"]);
    refused(change(|f| f.tensors[2].offset = Some(u64::MAX - 31)), &["blk.0.attn_k.weight", "data section"]);
    refused(change(|f| f.tensors[2].offset = Some(1)), &["blk.0.attn_k.weight", "alignment 32"]);
    refused(
        change(|f| f.tensors[2].offset = Some(0)),
        &["blk.0.attn_k.weight", "inside", "token_embd.weight"],
    );
}

#[test]
fn every_truncation_is_an_error_and_no_flipped_bit_is_a_panic() {
    let whole = data("tiny.gguf");
    let header = whole.len() - 26_000;
    for len in (0..header).chain((header..whole.len()).step_by(509)) {
        assert!(parse(whole[..len].to_vec()).is_err(), "cut to {len} of {} bytes", whole.len());
    }
    let small = llama().bytes();
    for bit in 0..small.len().min(1200) * 8 {
        let mut bytes = small.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(model) = GgufModel::from_bytes(Bytes::from_vec(bytes), "f") else { continue };
        for i in 0..model.source.tensors().len() {
            model.source.read(i).unwrap();
        }
    }
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    refused(open(&path), &["model.gguf"]);
    std::fs::write(&path, b"GGUX").unwrap();
    refused(open(&path), &["model.gguf", "not a GGUF file"]);
    std::fs::write(&path, data("tiny.gguf")).unwrap();
    let model = open(&path).unwrap();
    let names: Vec<&str> = model.tokenizer_files.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json"]);
}

fn llama() -> File {
    File::llama(4, 1, &[])
}

fn llama_with(biases: &[(&str, bool)]) -> File {
    File::llama(4, 1, biases)
}

/// The file in three parts, the metadata in the first, as llama.cpp's `gguf-split` writes them.
fn parts(file: &File) -> Vec<File> {
    let (total, each) = (file.tensors.len(), file.tensors.len().div_ceil(3));
    let mut parts: Vec<File> = file
        .tensors
        .chunks(each)
        .map(|tensors| File { tensors: tensors.to_vec(), ..File::empty() })
        .collect();
    parts[0].meta = file.meta.clone();
    for (no, part) in parts.iter_mut().enumerate() {
        part.set("split.no", V::U16(no as u16));
        part.set("split.count", V::U16(3));
        part.set("split.tensors.count", V::I32(total as i32));
    }
    parts
}

#[test]
fn a_model_in_several_files_is_the_model_in_one() {
    let file = q4_llama(17);
    let dir = tempfile::tempdir().unwrap();
    let path = |no: usize| dir.path().join(format!("m-{no:05}-of-00003.gguf"));
    let write = |parts: &[File]| {
        for (no, part) in parts.iter().enumerate() {
            std::fs::write(path(no + 1), part.bytes()).unwrap();
        }
    };
    let good = parts(&file);
    write(&good);
    let (whole, cut) = (GgufSource::new(parsed(&file), "f").unwrap(), open(path(1)).unwrap().source);
    assert_eq!(whole.tensors(), cut.tensors());
    for (i, tensor) in whole.tensors().iter().enumerate() {
        assert_eq!(f32s(&whole.read(i).unwrap()), f32s(&cut.read(i).unwrap()), "{}", tensor.name);
    }
    let named: HashSet<&str> = (0..cut.tensors().len()).map(|i| cut.file(i)).collect();
    assert_eq!(named.len(), 3, "each tensor names its own file: {named:?}");

    refused(open(path(2)), &["00002-of-00003", "part 2 of 3", "00001-of-00003"]);
    let broken = |change: &dyn Fn(&mut Vec<File>)| {
        let mut parts = good.clone();
        change(&mut parts);
        write(&parts);
        open(path(1))
    };
    refused(
        broken(&|p| p[1].set("split.no", V::U16(2))),
        &["00002-of-00003", "split.no is 2 of 3, expected 1"],
    );
    refused(broken(&|p| p[2].remove("split.count")), &["00003-of-00003", "split.count is missing"]);
    refused(broken(&|p| p[2].set("split.count", V::U16(4))), &["00003-of-00003", "2 of 4"]);
    refused(
        broken(&|p| p[1].set("split.tensors.count", V::I32(7))),
        &["00002-of-00003", "split.tensors.count"],
    );
    refused(
        broken(&|p| p[1].tensors[0].name = "token_embd.weight".into()),
        &["00002-of-00003", "token_embd.weight"],
    );
    refused(broken(&|p| drop(p[2].tensors.pop())), &["split.tensors.count", "20", "19"]);
    refused(broken(&|p| p[0].set("split.count", V::U16(60000))), &["split.count", "60000"]);
    write(&good);
    std::fs::rename(path(1), dir.path().join("m.gguf")).unwrap();
    refused(open(dir.path().join("m.gguf")), &["m.gguf", "00001-of-00003"]);
    std::fs::rename(dir.path().join("m.gguf"), path(1)).unwrap();
    std::fs::remove_file(path(3)).unwrap();
    refused(open(path(1)), &["m-00003-of-00003.gguf"]);
}

/// The llama of `File::llama` as another family with the same tensors.
fn as_family(arch: &'static str, changes: &[(&str, V)]) -> File {
    let mut file = llama();
    for (key, _) in &mut file.meta {
        if let Some(name) = key.strip_prefix("llama.") {
            *key = format!("{arch}.{name}");
        }
    }
    file.set("general.architecture", V::Str(arch));
    for (key, value) in changes {
        file.set(&format!("{arch}.{key}"), value.clone());
    }
    file
}

#[test]
fn a_family_is_read_as_its_converter_wrote_it() {
    let mut file = as_family("gemma", &[]);
    let named = |source: &GgufSource, name: &str| {
        let i = source.tensors().iter().position(|t| t.name == name).unwrap();
        f32s(&source.read(i).unwrap())
    };
    file.set_tensor("output_norm.weight", &[4], &[1.0, 1.5, 0.25, 3.0]);
    file.set_tensor("blk.0.attn_q.weight", &[4, 4], &(0..16).map(|x| x as f32).collect::<Vec<_>>());
    let source = GgufSource::new(parsed(&file), "f").unwrap();
    // The one that is added is taken away, and rows stay where they are.
    assert_eq!(named(&source, "model.norm.weight"), [0.0, 0.5, -0.75, 2.0]);
    assert_eq!(named(&source, "model.layers.0.self_attn.q_proj.weight")[4..8], [4.0, 5.0, 6.0, 7.0]);
    let config = hf_config(source.gguf()).unwrap();
    assert_eq!(
        (&config["model_type"], &config["hidden_act"]),
        (&json!("gemma"), &json!("gelu_pytorch_tanh"))
    );

    // Older writers have the head although it is the embedding.
    file.tensor("output.weight", &[4, 8], &[0.25; 32]);
    assert_eq!(GgufSource::new(parsed(&file), "f").unwrap().tensors(), source.tensors());
    file.set_tensor("output.weight", &[4, 8], &[0.5; 32]);
    refused(GgufSource::new(parsed(&file), "f"), &["output.weight", "dropped"]);

    // Keys are those of the family, and no other's.
    refused(
        hf_config(&parsed(&as_family("qwen2", &[("attn_logit_softcapping", V::F32(50.0))]))),
        &["softcapping"],
    );
    refused(
        hf_config(&parsed(&as_family("qwen2", &[("rope.dimension_count", V::U32(2))]))),
        &["qwen2.rope.dimension_count"],
    );
    refused(
        GgufSource::new(parsed(&as_family("qwen2", &[("attention.head_count", V::U32(4097))])), "f"),
        &["qwen2.attention.head_count", "4097"],
    );
    let mut qwen = as_family("qwen2", &[]);
    refused(GgufSource::new(parsed(&qwen), "f"), &["blk.0.attn_q.bias", "missing"]);
    for module in ["attn_q", "attn_k", "attn_v"] {
        qwen.tensor(&format!("blk.0.{module}.bias"), &[4], &[0.0; 4]);
    }
    assert!(GgufSource::new(parsed(&qwen), "f").is_ok());
    refused(
        GgufSource::new(parsed(&as_family("phi3", &[("rope.dimension_count", V::U32(5))])), "f"),
        &["phi3.rope.dimension_count", "5", "4"],
    );
}
