//! Writes GGUF files, wrong ones too.

// Each test program uses a part of it.
#![allow(dead_code)]

/// A metadata value.
#[derive(Clone)]
pub enum V {
    U16(u16),
    I32(i32),
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
            V::U16(v) => (2, v.to_le_bytes().to_vec()),
            V::I32(v) => (5, v.to_le_bytes().to_vec()),
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

/// Numbers without a pattern, the same every time.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32 ^ (self.0 >> 11) as u32
    }
}

/// Random Q4_0 blocks: all codes, scales of both signs of every exponent below 1, zeros among them.
pub fn q4_0(n: usize, noise: &mut Noise) -> Vec<u8> {
    let mut out = Vec::with_capacity(n * 18);
    for i in 0..n {
        let bits = noise.next() as u16;
        // The top bit of the exponent cleared: at most 2, and never infinite.
        let scale = if i % 11 == 0 { bits & 0x8000 } else { bits & 0xbfff };
        out.extend(scale.to_le_bytes());
        out.extend((0..16).map(|_| noise.next() as u8));
    }
    out
}

/// A llama whose matrices are Q4_0: two layers, hidden size 64, two heads of 32 that share one key head.
pub fn q4_llama(seed: u64) -> File {
    let mut noise = Noise(seed);
    let mut file = File::llama(64, 0, &[]);
    file.tensors.clear();
    for (key, value) in [
        ("llama.block_count", V::U32(2)),
        ("llama.feed_forward_length", V::U32(128)),
        ("llama.attention.head_count", V::U32(2)),
        ("llama.attention.head_count_kv", V::U32(1)),
        ("tokenizer.ggml.eos_token_id", V::U32(2)),
        ("tokenizer.ggml.model", V::Str("llama")),
        (
            "tokenizer.ggml.tokens",
            V::Strs(["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "bc"].map(String::from).to_vec()),
        ),
        ("tokenizer.ggml.scores", V::F32s(vec![0., 0., 0., -3., -4., -5., -1., -2.])),
        ("tokenizer.ggml.token_type", V::I32s(vec![2, 3, 3, 1, 1, 1, 1, 1])),
    ] {
        file.set(key, value);
    }
    let mut matrix = |file: &mut File, name: &str, cols: u64, rows: u64| {
        let data = q4_0((cols * rows / 32) as usize, &mut noise);
        file.tensors.push(T { name: name.to_string(), dims: vec![cols, rows], ty: 2, data, offset: None });
    };
    matrix(&mut file, "token_embd.weight", 64, 8);
    for i in 0..2 {
        for (name, cols, rows) in [
            ("attn_q", 64, 64),
            ("attn_k", 64, 32),
            ("attn_v", 64, 32),
            ("attn_output", 64, 64),
            ("ffn_gate", 64, 128),
            ("ffn_up", 64, 128),
            ("ffn_down", 128, 64),
        ] {
            matrix(&mut file, &format!("blk.{i}.{name}.weight"), cols, rows);
        }
        for name in ["attn_norm", "ffn_norm"] {
            file.tensor(&format!("blk.{i}.{name}.weight"), &[64], &[0.5; 64]);
        }
    }
    file.tensor("output_norm.weight", &[64], &[1.0; 64]);
    file
}
