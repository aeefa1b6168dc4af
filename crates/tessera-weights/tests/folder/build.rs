//! Small folders made by code.

use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::path::Path;

/// A folder that can still be changed before it is written.
#[derive(Clone, Default)]
pub struct Build {
    pub shards: Vec<Vec<u8>>,
    pub records: Vec<Vec<Value>>,
}

impl Build {
    /// Begins a shard.
    pub fn shard(mut self) -> Build {
        self.shards.push(Vec::new());
        self.records.push(Vec::new());
        self
    }

    /// Appends a tensor to the last shard.
    pub fn tensor(mut self, name: &str, shape: &[usize], dtype: &str, bytes: &[u8]) -> Build {
        let shard = self.shards.last_mut().unwrap();
        self.records.last_mut().unwrap().push(json!({
            "name": name, "shape": shape, "dtype": dtype, "format": "f32-to-bf16",
            "nbytes": bytes.len(), "byteOffset": shard.len(),
        }));
        shard.extend_from_slice(bytes);
        self
    }

    pub fn manifest(&self) -> Value {
        let shards = self.shards.iter().zip(&self.records).enumerate().map(|(i, (bytes, records))| {
            let md5: String = Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            json!({"dataPath": shard_name(i), "format": "raw-shard", "nbytes": bytes.len(),
                   "records": records, "md5sum": md5})
        });
        json!({"metadata": {}, "records": shards.collect::<Vec<_>>()})
    }

    pub fn write(&self, folder: &Path) {
        for (i, bytes) in self.shards.iter().enumerate() {
            std::fs::write(folder.join(shard_name(i)), bytes).unwrap();
        }
        std::fs::write(folder.join("tensor-cache.json"), self.manifest().to_string()).unwrap();
    }

    /// Written to a new folder.
    pub fn temp(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        folder
    }
}

pub fn shard_name(i: usize) -> String {
    format!("params_shard_{i}.bin")
}

pub fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
}

pub fn bf16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
}

pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A quantised 3 x 64 weight `x`, a norm of 64 stored as bfloat16, and a dense 2 x 3 weight `d`.
pub fn small() -> Build {
    Build::default()
        .shard()
        .tensor("x.q_weight", &[3, 8], "uint32", &words(&[0x7654_3210; 24]))
        .tensor("x.q_scale", &[3, 2], "float16", &f16s(&[0.5, 0.25, 0.0, 1.0, 2.0, 3.0]))
        .shard()
        .tensor("norm.weight", &[64], "float32", &bf16s(&[1.5; 64]))
        .tensor("d.weight", &[2, 3], "float16", &f16s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
}
