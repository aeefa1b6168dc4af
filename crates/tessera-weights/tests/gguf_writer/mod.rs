//! Writes GGUF files, wrong ones too.

// Each test program uses a part of it.
#![allow(dead_code)]

/// A metadata value.
#[derive(Clone)]
pub enum V {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(&'static str),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// A type number and the value's bytes.
    Raw(u32, Vec<u8>),
}

/// A string as the format has it.
pub fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

fn array(ty: u32, n: usize, bytes: Vec<u8>) -> (u32, Vec<u8>) {
    (9, [&ty.to_le_bytes()[..], &(n as u64).to_le_bytes(), &bytes].concat())
}

impl V {
    fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            V::U32(v) => (4, v.to_le_bytes().to_vec()),
            V::F32(v) => (6, v.to_le_bytes().to_vec()),
            V::Bool(v) => (7, vec![u8::from(*v)]),
            V::Str(v) => (8, string(v)),
            V::Strs(v) => array(8, v.len(), v.iter().flat_map(|s| string(s)).collect()),
            V::F32s(v) => array(6, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            V::I32s(v) => array(5, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            V::Raw(ty, bytes) => (*ty, bytes.clone()),
        }
    }
}

/// A row of the tensor table and its data.
#[derive(Clone)]
pub struct T {
    pub name: String,
    pub dims: Vec<u64>,
    pub ty: u32,
    pub data: Vec<u8>,
    /// Another offset than the next free one.
    pub offset: Option<u64>,
}

/// A file in parts.
#[derive(Clone)]
pub struct File {
    pub version: u32,
    pub meta: Vec<(String, V)>,
    pub tensors: Vec<T>,
    /// Counts other than the real ones.
    pub counts: Option<(u64, u64)>,
    pub alignment: u64,
}

impl File {
    pub fn empty() -> File {
        File { version: 3, meta: Vec::new(), tensors: Vec::new(), counts: None, alignment: 32 }
    }

    /// A llama with one head, a vocabulary of 8 and f32 weights; `biases` of layer 0 by GGUF's names.
    pub fn llama(width: u64, layers: u32, biases: &[(&str, bool)]) -> File {
        let mut file = File::empty();
        for (key, value) in [
            ("general.architecture", V::Str("llama")),
            ("llama.context_length", V::U32(64)),
            ("llama.embedding_length", V::U32(width as u32)),
            ("llama.block_count", V::U32(layers)),
            ("llama.feed_forward_length", V::U32(8)),
            ("llama.attention.head_count", V::U32(1)),
            ("llama.attention.layer_norm_rms_epsilon", V::F32(1e-6)),
        ] {
            file.set(key, value);
        }
        let mut add = |name: &str, dims: &[u64]| {
            file.tensor(name, dims, &vec![0.25; dims.iter().product::<u64>() as usize]);
        };
        add("token_embd.weight", &[width, 8]);
        for i in 0..layers {
            for (name, dims) in [
                ("attn_q", [width, width]),
                ("attn_k", [width, width]),
                ("attn_v", [width, width]),
                ("attn_output", [width, width]),
                ("ffn_gate", [width, 8]),
                ("ffn_up", [width, 8]),
                ("ffn_down", [8, width]),
            ] {
                add(&format!("blk.{i}.{name}.weight"), &dims);
                if biases.contains(&(name, true)) {
                    add(&format!("blk.{i}.{name}.bias"), &dims[1..]);
                }
            }
            add(&format!("blk.{i}.attn_norm.weight"), &[width]);
            add(&format!("blk.{i}.ffn_norm.weight"), &[width]);
        }
        add("output_norm.weight", &[width]);
        file
    }

    pub fn set(&mut self, key: &str, value: V) {
        self.remove(key);
        self.meta.push((key.to_string(), value));
    }

    pub fn remove(&mut self, key: &str) {
        self.meta.retain(|(k, _)| k != key);
    }

    /// Appends an f32 tensor.
    pub fn tensor(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push(T { name: name.to_string(), dims: dims.to_vec(), ty: 0, data, offset: None });
    }

    /// Replaces an f32 tensor.
    pub fn set_tensor(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        self.drop_tensor(name);
        self.tensor(name, dims, values);
    }

    pub fn drop_tensor(&mut self, name: &str) {
        self.tensors.retain(|t| t.name != name);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.meta.len() as u64));
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        for (key, value) in &self.meta {
            out.extend(string(key));
            let (ty, bytes) = value.encode();
            out.extend(ty.to_le_bytes());
            out.extend(bytes);
        }
        let mut data = Vec::new();
        for t in &self.tensors {
            pad(&mut data, self.alignment);
            out.extend(string(&t.name));
            out.extend((t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(t.ty.to_le_bytes());
            out.extend(t.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&t.data);
        }
        pad(&mut out, self.alignment);
        out.extend(data);
        out
    }
}

fn pad(out: &mut Vec<u8>, alignment: u64) {
    while !(out.len() as u64).is_multiple_of(alignment) {
        out.push(0);
    }
}
