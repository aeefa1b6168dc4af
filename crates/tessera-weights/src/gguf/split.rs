//! A model in several GGUF files, as llama.cpp's `gguf-split` cuts them: `name-00001-of-0000N.gguf` and so on.
//!
//! The first file has the metadata; each has its own tensors and says which of how many it is.

use super::error::GgufError;
use super::header::Gguf;

/// More than any model has.
const MAX_PARTS: u32 = 1 << 12;

/// What a part says of itself: its number, from 0, and how many there are; `None` for a file that is whole.
pub(super) fn part_of(gguf: &Gguf) -> Result<Option<(u32, u32)>, GgufError> {
    let count = gguf.meta_u32("split.count")?.unwrap_or(0);
    match gguf.meta_u32("split.no")?.unwrap_or(0) {
        _ if count <= 1 => Ok(None),
        _ if count > MAX_PARTS => Err(GgufError::Limit {
            what: "split.count".to_string(),
            found: count.into(),
            limit: MAX_PARTS.into(),
        }),
        no => Ok(Some((no, count))),
    }
}

/// The name of part `no`, made of that of the first; `None` if that is not called as a first part is.
pub(super) fn name_of(first: &str, no: u32, count: u32) -> Option<String> {
    let stem = first.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some(format!("{stem}-{:05}-of-{count:05}.gguf", no + 1))
}

/// Puts the parts together; they are in order, each with its file's name for errors, which are about that file.
pub(super) fn join(first: Gguf, rest: Vec<(Gguf, String)>) -> Result<Gguf, GgufError> {
    let count = rest.len() as u32 + 1;
    let total = first.meta_u32("split.tensors.count")?;
    let mut whole = first;
    for (no, (part, file)) in (1..).zip(rest) {
        let foreign = |what: String| GgufError::Part { file: file.clone(), what };
        match part_of(&part)? {
            Some(found) if found == (no, count) => {}
            Some((found, of)) => {
                return Err(foreign(format!("split.no is {found} of {of}, expected {no} of {count}")));
            }
            None => return Err(foreign(format!("split.count is missing, expected {count}"))),
        }
        let found = part.meta_u32("split.tensors.count")?;
        if found != total {
            return Err(foreign(format!(
                "split.tensors.count is {found:?}, in the first part it is {total:?}"
            )));
        }
        if let Some(tensor) = part.tensors().iter().find(|t| whole.tensor(&t.name).is_some()) {
            return Err(foreign(format!("tensor {} is in a part before it too", tensor.name)));
        }
        whole.append(part);
    }
    match total {
        Some(total) if total as usize != whole.tensors().len() => Err(GgufError::BadValue {
            key: "split.tensors.count".to_string(),
            found: total.to_string(),
            what: format!("the {count} parts have {} tensors; fetch all parts again", whole.tensors().len()),
        }),
        _ => Ok(whole),
    }
}
