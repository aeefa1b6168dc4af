//! A Hugging Face folder as a [`TensorSource`]: `config.json` and one or many `.safetensors`.
//!
//! The order of tensors is what MLC's converter would follow: that of `weight_map` in an index file, and
//! without an index the names of the lone file in sorted order.

#![cfg(feature = "fs")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::source::{SourceError, SourceTensor, TensorSource, Values};

/// A folder that cannot be read as a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum HfError {
    /// The operating system said no.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// What it said.
        source: std::io::Error,
    },
    /// Not JSON, or not the JSON that the file should hold.
    #[error("{file}: {what}")]
    Json {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// There is nothing to convert.
    #[error("{folder}: {what}")]
    NoWeights {
        /// The folder.
        folder: String,
        /// What is there instead, and what to do.
        what: &'static str,
    },
    /// A safetensors file is damaged, or is something else.
    #[error("{file}: {what}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The index names a file outside the folder.
    #[error("{index}: tensor {tensor} is said to be in {file:?}, expected a plain file name")]
    Outside {
        /// The index file.
        index: String,
        /// The tensor.
        tensor: String,
        /// The name given.
        file: String,
    },
    /// The index names a tensor that its file lacks.
    #[error("{index}: tensor {tensor} is said to be in {file}, which does not hold it")]
    NotThere {
        /// The index file.
        index: String,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// Two files hold the same tensor.
    #[error("tensor {tensor} is both in {first} and in {second}")]
    Twice {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}

const JSON_LIMIT: u64 = 64 << 20;

/// An open Hugging Face folder; its weights are mapped, not read.
#[derive(Debug)]
pub struct HfFolder {
    folder: PathBuf,
    tensors: Vec<SourceTensor>,
    places: Vec<Place>,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    name: String,
    data: Bytes,
}

#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    range: std::ops::Range<usize>,
}

struct Header {
    data: Bytes,
    /// Name, type, shape, bytes; sorted by name.
    tensors: Vec<(String, Dtype, Vec<usize>, std::ops::Range<usize>)>,
}

impl Header {
    /// Of a weight file that messages call `file`.
    fn parse(data: Bytes, file: &str) -> Result<Header, HfError> {
        let bad = |what: String| HfError::BadFile { file: file.to_owned(), what };
        if data.starts_with(b"version https://git-lfs") {
            return Err(bad(format!(
                "{} bytes, a git-LFS pointer instead of weights; fetch it with `git lfs pull`",
                data.len()
            )));
        }
        if data.starts_with(b"<!DOCTYPE") || data.starts_with(b"<html") {
            return Err(bad("a web page instead of weights; download it again".to_owned()));
        }
        let stated = data.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        let end = usize::try_from(stated).ok().and_then(|len| len.checked_add(8));
        let header = end.and_then(|end| data.get(8..end)).unwrap_or_default();
        crate::json::check(header, crate::json::MAX_VALUES).map_err(|e| bad(format!("header: {e}")))?;
        let (header_len, metadata) =
            SafeTensors::read_metadata(&data).map_err(|e| bad(format!("not a safetensors file: {e}")))?;
        let start = 8 + header_len;
        let mut tensors: Vec<_> = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (from, to) = info.data_offsets;
                (name, info.dtype, info.shape.clone(), start + from..start + to)
            })
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some((tensor, ..)) = tensors.iter().find(|(.., range)| range.end > data.len()) {
            return Err(bad(format!("tensor {tensor} ends after the file's {} bytes", data.len())));
        }
        Ok(Header { data, tensors })
    }
}

impl HfFolder {
    /// Opens a folder: reads its index and the headers of its weight files.
    pub fn open(folder: &Path) -> Result<HfFolder, HfError> {
        let mut weights = Vec::new();
        let mut indexes = Vec::new();
        let mut pickles = false;
        for entry in std::fs::read_dir(folder).map_err(|e| io(folder, e))? {
            let name = entry.map_err(|e| io(folder, e))?.file_name().to_string_lossy().into_owned();
            pickles |= name.ends_with(".bin") && !name.starts_with("params_shard_");
            if name.ends_with(".safetensors") {
                weights.push(name);
            } else if name.ends_with(".safetensors.index.json") {
                indexes.push(name);
            }
        }
        weights.sort();
        indexes.sort();
        let mut open = HfFolder { folder: folder.into(), tensors: vec![], places: vec![], files: vec![] };
        match (indexes.as_slice(), weights.as_slice()) {
            ([index, ..], _) => open.follow_index(index)?,
            ([], []) => {
                let what = if pickles {
                    "only .bin weights are there; save the model as .safetensors first"
                } else {
                    "no .safetensors file is there"
                };
                return Err(HfError::NoWeights { folder: folder.display().to_string(), what });
            }
            ([], _) => {
                let mut seen: HashMap<String, usize> = HashMap::new();
                for name in weights {
                    let header = open.header(&name)?;
                    for (tensor, ..) in &header.tensors {
                        if let Some(&first) = seen.get(tensor) {
                            let first = open.files[first].name.clone();
                            return Err(HfError::Twice { tensor: tensor.clone(), first, second: name });
                        }
                        seen.insert(tensor.clone(), open.files.len());
                    }
                    open.add(name, header, &[], &|_| true);
                }
            }
        }
        Ok(open)
    }

    /// A lone weight file from memory, as if it lay in a folder of its own without an index.
    pub fn of_file(name: &str, data: Bytes) -> Result<HfFolder, HfError> {
        let mut open = HfFolder { folder: PathBuf::new(), tensors: vec![], places: vec![], files: vec![] };
        let header = Header::parse(data, name)?;
        open.add(name.to_owned(), header, &[], &|_| true);
        Ok(open)
    }

    /// The parsed `config.json`.
    pub fn config(&self) -> Result<Value, HfError> {
        read_json(&self.folder.join("config.json"))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    fn follow_index(&mut self, index: &str) -> Result<(), HfError> {
        let path = self.folder.join(index);
        let json = read_json(&path)?;
        let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
            return Err(HfError::Json {
                file: path.display().to_string(),
                what: "weight_map is missing or not an object".to_owned(),
            });
        };
        // Files in order of first appearance, each with its tensors in the map's order.
        let mut files: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut number: HashMap<&str, usize> = HashMap::new();
        for (tensor, file) in map {
            let Some(file) = file.as_str().filter(|f| is_plain_name(f)) else {
                return Err(HfError::Outside {
                    index: index.to_owned(),
                    tensor: tensor.clone(),
                    file: file.to_string(),
                });
            };
            let at = *number.entry(file).or_insert(files.len());
            if at == files.len() {
                files.push((file, Vec::new()));
            }
            files[at].1.push(tensor);
        }
        for (file, tensors) in files {
            let header = self.header(file)?;
            if let Some(missing) = tensors
                .iter()
                .find(|t| header.tensors.binary_search_by(|(name, ..)| name.as_str().cmp(t)).is_err())
            {
                return Err(HfError::NotThere {
                    index: index.to_owned(),
                    tensor: (*missing).to_owned(),
                    file: file.to_owned(),
                });
            }
            self.add(file.to_owned(), header, &tensors, &|tensor| !map.contains_key(tensor));
        }
        Ok(())
    }

    fn header(&self, name: &str) -> Result<Header, HfError> {
        let path = self.folder.join(name);
        let file = crate::files::open(&path).map_err(|e| io(&path, e))?;
        let data = Bytes::map(&file, &path).map_err(|e| io(&path, e))?;
        Header::parse(data, &path.display().to_string())
    }

    /// Adds a file's tensors: those of `first` in that order, then by name all others that `wanted` admits.
    /// MLC loads whole files, so that the others count as its parameters too.
    fn add(&mut self, name: String, header: Header, first: &[&str], wanted: &dyn Fn(&str) -> bool) {
        let file = self.files.len();
        let mut rest: HashMap<String, usize> =
            header.tensors.iter().enumerate().map(|(i, t)| (t.0.clone(), i)).collect();
        let mut order: Vec<usize> = first.iter().filter_map(|t| rest.remove(*t)).collect();
        let mut others: Vec<usize> = rest.into_iter().filter(|(t, _)| wanted(t)).map(|(_, i)| i).collect();
        others.sort_unstable();
        order.extend(others);
        for i in order {
            let (name, dtype, shape, range) = header.tensors[i].clone();
            self.tensors.push(SourceTensor { name, dtype: listed(dtype), shape });
            self.places.push(Place { file, dtype, range });
        }
        self.files.push(File { name, data: header.data });
    }
}

impl TensorSource for HfFolder {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        let place = &self.places[index];
        let File { name, data } = &self.files[place.file];
        let bytes = &data[place.range.clone()];
        let refused =
            |what| SourceError { file: name.clone(), tensor: self.tensors[index].name.clone(), what };
        let values = match place.dtype {
            Dtype::F32 => Values::F32(
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
            Dtype::F16 => {
                Values::F16(bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]])).collect())
            }
            Dtype::BF16 => {
                Values::BF16(bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]])).collect())
            }
            other => return Err(refused(format!("dtype is {other:?}, expected F32, F16 or BF16"))),
        };
        data.check().map_err(|changed| refused(changed.what))?;
        Ok(values)
    }

    fn file(&self, index: usize) -> &str {
        &self.files[self.places[index].file].name
    }
}

/// The type under which a tensor is listed. Types that cannot be read are listed as bytes, so that they
/// are counted and, when needed, refused with their true name.
fn listed(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F8_E4M3 => DType::F8E4M3,
        Dtype::F8_E5M2 => DType::F8E5M2,
        Dtype::I32 => DType::I32,
        _ => DType::U8,
    }
}

/// Whether `name` names a file in the same folder and nothing else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}

fn io(path: &Path, source: std::io::Error) -> HfError {
    HfError::Io { file: path.display().to_string(), source }
}

fn read_json(path: &Path) -> Result<Value, HfError> {
    let text = crate::files::need(path, JSON_LIMIT).map_err(|e| io(path, e))?;
    crate::json::parse(&text)
        .map_err(|e| HfError::Json { file: path.display().to_string(), what: format!("not valid JSON: {e}") })
}
