//! From the JSON tree to checked records, field by field.

use super::json::{Node, quoted};
use super::{
    MAX_NAME_LEN, MAX_RANK, MAX_RECORDS, MAX_SHARD_LEN, Manifest, ManifestError, Metadata, Place, Record,
    Shard, Warning,
};
use crate::dtype::{DType, Encoding};
use std::collections::HashMap;

/// Warnings kept; of the others only the number is told.
pub(super) const MAX_WARNINGS: usize = 100;

/// An object's values, taken out key by key so that what is left over can be told.
struct Object {
    place: Place,
    entries: Vec<(String, Node)>,
}

impl Object {
    fn new(node: Node, place: Place, field: &'static str) -> Result<Object, ManifestError> {
        match node {
            Node::Object(entries) => Ok(Object { place, entries }),
            other => Err(wrong(place, field, "an object", &other)),
        }
    }

    fn optional(&mut self, field: &'static str) -> Option<Node> {
        let at = self.entries.iter().position(|(key, _)| key == field)?;
        Some(self.entries.swap_remove(at).1)
    }

    fn required(&mut self, field: &'static str, expected: &str) -> Result<Node, ManifestError> {
        self.optional(field).ok_or_else(|| ManifestError::Field {
            place: self.place.clone(),
            field,
            expected: expected.to_owned(),
            found: "nothing".to_owned(),
        })
    }

    fn text(&mut self, field: &'static str) -> Result<String, ManifestError> {
        match self.required(field, "a string")? {
            Node::Text(text) => Ok(text),
            other => Err(wrong(self.place.clone(), field, "a string", &other)),
        }
    }

    fn list(&mut self, field: &'static str) -> Result<Vec<Node>, ManifestError> {
        match self.required(field, "a list")? {
            Node::List(list) => Ok(list),
            other => Err(wrong(self.place.clone(), field, "a list", &other)),
        }
    }

    fn length(&mut self, field: &'static str) -> Result<u64, ManifestError> {
        let expected = format!("an integer from 0 to {MAX_SHARD_LEN}");
        match self.required(field, &expected)? {
            Node::Unsigned(n) if n <= MAX_SHARD_LEN => Ok(n),
            other => Err(wrong(self.place.clone(), field, &expected, &other)),
        }
    }
}

fn wrong(place: Place, field: &'static str, expected: &str, found: &Node) -> ManifestError {
    ManifestError::Field { place, field, expected: expected.to_owned(), found: found.to_string() }
}

/// What was read so far.
#[derive(Default)]
pub(super) struct Parser {
    shards: Vec<Shard>,
    records: Vec<Record>,
    index: HashMap<String, usize>,
    warnings: Vec<Warning>,
    more_warnings: usize,
}

impl Parser {
    pub(super) fn root(mut self, root: Node) -> Result<Manifest, ManifestError> {
        let mut root = Object::new(root, Place::default(), "top level")?;
        let metadata = root.optional("metadata");
        let shards = root.list("records")?;
        self.unknown_keys(&root);
        if shards.len() > MAX_RECORDS {
            return Err(ManifestError::TooMany { what: "shards", count: shards.len(), limit: MAX_RECORDS });
        }
        let mut paths = HashMap::new();
        for (i, node) in shards.into_iter().enumerate() {
            let shard = self.shard(i, node)?;
            if let Some(first) = paths.insert(shard.path.clone(), i) {
                return Err(ManifestError::DuplicateShard { shard: shard.path, first, second: i });
            }
            self.coverage(&shard)?;
            self.shards.push(shard);
        }
        if self.records.is_empty() {
            return Err(ManifestError::Empty);
        }
        let metadata = self.metadata(metadata)?;
        if self.more_warnings > 0 {
            let message = format!("{} more warnings are not shown", self.more_warnings);
            self.warnings.push(Warning { file: None, tensor: None, message });
        }
        let Parser { shards, records, index, warnings, .. } = self;
        Ok(Manifest { metadata, shards, records, index, warnings })
    }

    fn shard(&mut self, i: usize, node: Node) -> Result<Shard, ManifestError> {
        let place = Place { shard: Some(format!("records[{i}]")), tensor: None };
        let mut object = Object::new(node, place, "records")?;
        let path = object.text("dataPath")?;
        check_path(&path)?;
        object.place.shard = Some(path.clone());
        let format = object.text("format")?;
        if format != "raw-shard" {
            return Err(wrong(object.place, "format", "\"raw-shard\"", &Node::Text(format)));
        }
        let nbytes = object.length("nbytes")?;
        let md5sum = match object.optional("md5sum") {
            None => None,
            Some(Node::Text(hex)) if hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(hex.to_ascii_lowercase())
            }
            Some(other) => return Err(wrong(object.place, "md5sum", "32 hexadecimal digits", &other)),
        };
        let list = object.list("records")?;
        self.unknown_keys(&object);
        let count = self.records.len() + list.len();
        if count > MAX_RECORDS {
            return Err(ManifestError::TooMany { what: "tensors", count, limit: MAX_RECORDS });
        }
        let start = self.records.len();
        for (j, node) in list.into_iter().enumerate() {
            let record = self.record(&path, nbytes, j, node)?;
            if let Some(first) = self.index.insert(record.name.clone(), self.records.len()) {
                let first = self.shards.get(self.records[first].shard).map_or(&path, |s| &s.path).clone();
                return Err(ManifestError::DuplicateTensor { tensor: record.name, first, second: path });
            }
            self.records.push(record);
        }
        Ok(Shard { path, nbytes, md5sum, records: start..self.records.len() })
    }

    fn record(&mut self, shard: &str, shard_len: u64, j: usize, node: Node) -> Result<Record, ManifestError> {
        let place = Place { shard: Some(shard.to_owned()), tensor: Some(format!("records[{j}]")) };
        let mut object = Object::new(node, place, "records")?;
        let name = object.text("name")?;
        if name.is_empty() || name.len() > MAX_NAME_LEN || name.chars().any(char::is_control) {
            let expected = format!("1 to {MAX_NAME_LEN} bytes without control characters");
            return Err(wrong(object.place, "name", &expected, &Node::Text(name)));
        }
        object.place.tensor = Some(name.clone());
        check_name(shard, &name)?;
        let dtype = object.text("dtype")?;
        let dtype = DType::parse(&dtype).ok_or_else(|| {
            wrong(object.place.clone(), "dtype", "a dtype that MLC writes", &Node::Text(dtype))
        })?;
        let format = object.text("format")?;
        let encoding = Encoding::parse(&format).ok_or_else(|| {
            wrong(object.place.clone(), "format", "\"raw\" or \"f32-to-bf16\"", &Node::Text(format))
        })?;
        let (shape, needed) = check_shape(&mut object, shard, &name, dtype, encoding)?;
        let nbytes = object.length("nbytes")?;
        let offset = object.length("byteOffset")?;
        self.unknown_keys(&object);
        if nbytes != needed {
            return Err(ManifestError::WrongSize {
                shard: shard.to_owned(),
                tensor: name,
                stated: nbytes,
                needed,
                shape,
                dtype,
                format: encoding,
            });
        }
        // Both are at most MAX_SHARD_LEN, so the sum fits; checked all the same.
        if offset.checked_add(nbytes).is_none_or(|end| end > shard_len) {
            let shard = shard.to_owned();
            return Err(ManifestError::PastEnd { shard, tensor: name, offset, nbytes, shard_len });
        }
        Ok(Record { name, shape, dtype, encoding, nbytes, offset, shard: self.shards.len() })
    }

    /// Refuses overlaps in a shard and notes bytes that belong to no tensor.
    fn coverage(&mut self, shard: &Shard) -> Result<(), ManifestError> {
        let mut order: Vec<usize> = shard.records.clone().collect();
        order.sort_by_key(|&i| self.records[i].offset);
        for pair in order.windows(2) {
            let (first, second) = (&self.records[pair[0]], &self.records[pair[1]]);
            if second.offset < first.range().end {
                return Err(ManifestError::Overlap {
                    shard: shard.path.clone(),
                    tensor: second.name.clone(),
                    offset: second.offset,
                    other: first.name.clone(),
                    other_end: first.range().end,
                });
            }
        }
        let mut end = 0;
        for i in order {
            let record = &self.records[i];
            let (start, name) = (record.offset, record.name.clone());
            let next = record.range().end;
            if start > end {
                let message =
                    format!("{} bytes before it, from byte {end}, belong to no tensor", start - end);
                self.warn(Some(&shard.path), Some(&name), message);
            }
            end = next;
        }
        if end < shard.nbytes {
            let message = format!("the last {} bytes belong to no tensor", shard.nbytes - end);
            self.warn(Some(&shard.path), None, message);
        }
        Ok(())
    }

    fn metadata(&mut self, node: Option<Node>) -> Result<Metadata, ManifestError> {
        let Some(node) = node else {
            self.warn(None, None, "field metadata is missing".to_owned());
            return Ok(Metadata::default());
        };
        let mut object = Object::new(node, Place::default(), "metadata")?;
        let mut number = |parser: &mut Parser, field| match object.optional(field)? {
            Node::Unsigned(n) => Some(n as f64),
            Node::Float(x) if x >= 0.0 => Some(x),
            other => {
                let message = format!("metadata {field}: expected a number, found {other}");
                parser.warn(None, None, message);
                None
            }
        };
        let param_size = number(self, "ParamSize");
        let param_bytes = number(self, "ParamBytes");
        let bits_per_param = number(self, "BitsPerParam");
        if let Some(stated) = param_size
            && stated != self.records.len() as f64
        {
            let message = format!(
                "metadata ParamSize is {stated}, but the manifest lists {} tensors",
                self.records.len()
            );
            self.warn(None, None, message);
        }
        // A b16 manifest keeps the number of its f32 twin: there a raw bfloat16 tensor counts as f32.
        let bytes: u64 = self.records.iter().map(Record::memory_len).sum();
        let is_b16 = |r: &&Record| r.dtype == DType::BF16 && r.encoding == Encoding::Raw;
        let twin: u64 = bytes + self.records.iter().filter(is_b16).map(Record::memory_len).sum::<u64>();
        if let Some(stated) = param_bytes
            && stated != bytes as f64
            && stated != twin as f64
        {
            let message = format!("metadata ParamBytes is {stated}, but the tensors take {bytes} in memory");
            self.warn(None, None, message);
        }
        let param_size = param_size.map(|n| n as u64);
        Ok(Metadata { param_size, param_bytes, bits_per_param })
    }

    fn unknown_keys(&mut self, object: &Object) {
        for (key, value) in &object.entries {
            let message = format!("unknown field {} ({value}) is ignored", quoted(key));
            self.warn(object.place.shard.as_deref(), object.place.tensor.as_deref(), message);
        }
    }

    fn warn(&mut self, file: Option<&str>, tensor: Option<&str>, message: String) {
        if self.warnings.len() == MAX_WARNINGS {
            self.more_warnings += 1;
            return;
        }
        self.warnings.push(Warning {
            file: file.map(str::to_owned),
            tensor: tensor.map(str::to_owned),
            message,
        });
    }
}

/// A `dataPath` must be the name of a file in the folder, on every system.
fn check_path(path: &str) -> Result<(), ManifestError> {
    let why = if path.is_empty() {
        "it is empty"
    } else if path.len() > 255 {
        "it is longer than 255 bytes"
    } else if path.contains(['/', '\\']) {
        "it has a path separator, and every shard lies in the folder itself"
    } else if path == "." || path == ".." {
        "it is a folder"
    } else if path.contains(':') {
        "it has a colon, which names a drive or a stream on some systems"
    } else if path.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(ManifestError::UnsafePath { path: path.to_owned(), why })
}

/// Refuses the names of two kinds of folder that look readable and are not.
fn check_name(shard: &str, name: &str) -> Result<(), ManifestError> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if name.strip_prefix("param_").is_some_and(digits) {
        return Err(ManifestError::LegacyName { shard: shard.to_owned(), tensor: name.to_owned() });
    }
    if name.rsplit_once("_shard-").is_some_and(|(_, n)| digits(n)) {
        return Err(ManifestError::Presharded { shard: shard.to_owned(), tensor: name.to_owned() });
    }
    Ok(())
}

/// The shape, and the stored length that it needs.
fn check_shape(
    object: &mut Object,
    shard: &str,
    name: &str,
    dtype: DType,
    encoding: Encoding,
) -> Result<(Vec<usize>, u64), ManifestError> {
    let list = object.list("shape")?;
    let mut sizes = Vec::new();
    for node in &list {
        match node {
            Node::Unsigned(n) => sizes.push(*n),
            other => return Err(wrong(object.place.clone(), "shape", "a list of positive integers", other)),
        }
        if sizes.len() > 2 * MAX_RANK {
            break;
        }
    }
    let refuse = |why| {
        let shape = sizes.clone();
        Err(ManifestError::Shape { shard: shard.to_owned(), tensor: name.to_owned(), shape, why })
    };
    if sizes.is_empty() || sizes.len() > MAX_RANK {
        return refuse("a tensor has 1 to 8 axes");
    }
    if sizes.contains(&0) {
        return refuse("an axis has no elements");
    }
    // In-memory bytes must fit too, and on a 32-bit machine they must be addressable.
    let numel = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(size));
    let Some(numel) =
        numel.filter(|n| n.checked_mul(dtype.size() as u64).is_some_and(|len| isize::try_from(len).is_ok()))
    else {
        return refuse("it has more elements than can be addressed");
    };
    // Every size divides numel, which fits isize.
    let shape = sizes.iter().map(|&n| n as usize).collect();
    Ok((shape, numel * encoding.stored(dtype).size() as u64))
}
