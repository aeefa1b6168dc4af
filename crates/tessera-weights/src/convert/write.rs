//! The manifest's text, byte for byte as MLC's converter prints it.

use std::fmt::Write;

use super::layout::Shard;
use crate::chat_config::python_json::{float, quoted};
use crate::dtype::{DType, Encoding};

/// The three advisory numbers of a manifest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metadata {
    /// Tensors written; a quantised weight and its scales count as two.
    pub param_size: usize,
    /// Bytes of the tensors in memory, float32 counted as four.
    pub param_bytes: f64,
    /// `param_bytes` over the elements that MLC's loader would have read.
    pub bits_per_param: f64,
}

/// Which dtypes the manifest states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// float32 tensors as float32, stored as their encoding says.
    Plain,
    /// The `-b16` manifest: float32 tensors as the bfloat16 that their bytes are.
    B16,
}

/// Renders a manifest. `md5` has one digest for each shard, or is `None` when nothing was written.
pub fn manifest(metadata: &Metadata, shards: &[Shard], md5: Option<&[String]>, flavour: Flavour) -> String {
    let mut out = Printer { text: String::new(), depth: 0, first: true };
    out.open(None, '{');
    out.open(Some("metadata"), '{');
    out.field("ParamSize", metadata.param_size);
    out.field("ParamBytes", float(metadata.param_bytes));
    out.field("BitsPerParam", float(metadata.bits_per_param));
    out.close('}');
    out.open(Some("records"), '[');
    for (i, shard) in shards.iter().enumerate() {
        out.open(None, '{');
        out.field("dataPath", quoted(&shard_name(i)));
        out.field("format", "\"raw-shard\"");
        out.field("nbytes", shard.nbytes);
        out.open(Some("records"), '[');
        for record in &shard.records {
            let (dtype, encoding) = match (flavour, record.tensor.dtype) {
                (Flavour::B16, DType::F32) if record.tensor.encoding == Encoding::F32ToBf16 => {
                    (DType::BF16, Encoding::Raw)
                }
                (_, dtype) => (dtype, record.tensor.encoding),
            };
            out.open(None, '{');
            out.field("name", quoted(&record.tensor.name));
            out.open(Some("shape"), '[');
            for size in &record.tensor.shape {
                out.item(size);
            }
            out.close(']');
            out.field("dtype", quoted(dtype.name()));
            out.field("format", quoted(encoding.name()));
            out.field("nbytes", record.nbytes);
            out.field("byteOffset", record.offset);
            out.close('}');
        }
        out.close(']');
        if let Some(md5) = md5 {
            out.field("md5sum", quoted(&md5[i]));
        }
        out.close('}');
    }
    out.close(']');
    out.close('}');
    out.text
}

/// The file name of a shard.
pub fn shard_name(number: usize) -> String {
    format!("params_shard_{number}.bin")
}

/// Python's `json.dumps(..., indent=4)`.
struct Printer {
    text: String,
    depth: usize,
    /// Whether nothing has been printed since the last bracket was opened.
    first: bool,
}

impl Printer {
    fn item(&mut self, value: impl std::fmt::Display) {
        if !self.first {
            self.text.push(',');
        }
        if self.depth > 0 {
            self.line();
        }
        let _ = write!(self.text, "{value}");
        self.first = false;
    }

    fn field(&mut self, key: &str, value: impl std::fmt::Display) {
        self.item(format_args!("\"{key}\": {value}"));
    }

    fn open(&mut self, key: Option<&str>, bracket: char) {
        match key {
            Some(key) => self.field(key, bracket),
            None => self.item(bracket),
        }
        self.depth += 1;
        self.first = true;
    }

    fn close(&mut self, bracket: char) {
        self.depth -= 1;
        if !self.first {
            self.line();
        }
        self.text.push(bracket);
        self.first = false;
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', 4 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_python_does() {
        assert_eq!(quoted("a\"\\\n\u{1}é😀\u{7f}"), "\"a\\\"\\\\\\n\\u0001\\u00e9\\ud83d\\ude00\\u007f\"");
    }

    #[test]
    fn an_empty_manifest_is_valid_json() {
        let metadata = Metadata { param_size: 0, param_bytes: 0.0, bits_per_param: 0.0 };
        let text = manifest(&metadata, &[], None, Flavour::Plain);
        assert!(text.ends_with("    \"records\": []\n}"), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
