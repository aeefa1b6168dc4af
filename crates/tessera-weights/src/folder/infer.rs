//! The quantisation scheme from names, shapes and dtypes, for a folder whose config is missing.
//!
//! Scales tell the model's dtype, the lie of `q_weight` against `q_scale` tells the layout. Bits are
//! harder: both formats have four words a group, so only a known input size tells 32 from 40 weights a
//! group. Where sizes fit both (64 columns are two groups either way), the words do: 3-bit words leave
//! bits 30 and 31 zero, and in 4-bit words the zero point alone sets bit 30.

use super::{Folder, FolderError};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::manifest::{Manifest, Record};
use crate::scheme::{GroupFormat, Layout, SCHEMES, Scheme};
use std::collections::BTreeMap;

/// The scheme that a folder's tensors have, or why that cannot be told. A `b16` manifest gives the
/// bfloat16 scheme, since that is how it presents the tensors.
pub fn infer_scheme(folder: &Folder) -> Result<&'static Scheme, FolderError> {
    infer_from(&folder.manifest, &|i| Some(folder.tensors[i].bytes.clone()))
}

/// The same from a manifest, with the bytes of `records()[i]` where they are at hand.
pub(crate) fn infer_from(
    manifest: &Manifest,
    bytes: &dyn Fn(usize) -> Option<Bytes>,
) -> Result<&'static Scheme, FolderError> {
    refuse_other_packings(manifest)?;
    let pairs = pairs(manifest)?;
    if pairs.is_empty() {
        let dtype = plain_dtype(manifest)?;
        return find(dtype, None, Layout::Nk, None);
    }
    let mut dtype: Option<&Pair> = None;
    let mut layout: Option<(&Pair, Layout)> = None;
    for pair in &pairs {
        let first = *dtype.get_or_insert(pair);
        if first.scales.dtype != pair.scales.dtype {
            return unknown(format!(
                "{}.q_scale is {}, but {}.q_scale is {}",
                first.base, first.scales.dtype, pair.base, pair.scales.dtype
            ));
        }
        let Some(lies) = pair.layout()? else { continue };
        if is_embedding(pair.base) {
            continue;
        }
        let (first, first_lies) = *layout.get_or_insert((pair, lies));
        if first_lies != lies {
            return unknown(format!(
                "{} lies as {first_lies:?}, but {} as {lies:?} ([rows, words] or [words, rows])",
                first.base, pair.base
            ));
        }
    }
    let dtype = pairs[0].scales.dtype;
    let group = group_format(manifest, &pairs, bytes)?;
    let embedding = pairs.iter().any(|p| is_embedding(p.base));
    find(dtype, Some(group), layout.map_or(Layout::Nk, |(_, l)| l), Some(embedding))
}

fn unknown<T>(what: String) -> Result<T, FolderError> {
    Err(FolderError::UnknownScheme { what })
}

fn find(
    dtype: DType,
    group: Option<GroupFormat>,
    layout: Layout,
    embedding: Option<bool>,
) -> Result<&'static Scheme, FolderError> {
    let fits = |s: &&Scheme| {
        s.dtype == dtype
            && s.group == group
            && s.layout == layout
            && embedding.is_none_or(|quantised| s.embedding == quantised)
    };
    let what = || match group {
        None => format!("no scheme has plain weights of {dtype}"),
        Some(g) => format!(
            "no scheme has {} bits in groups of {} with {dtype} scales, layout {layout:?} and {} embedding",
            g.bits,
            g.group,
            if embedding == Some(true) { "a quantised" } else { "a plain" }
        ),
    };
    SCHEMES.iter().find(fits).ok_or_else(|| FolderError::UnknownScheme { what: what() })
}

/// Packings that MLC has and tessera does not read, each known by a name or a dtype.
fn refuse_other_packings(manifest: &Manifest) -> Result<(), FolderError> {
    for record in manifest.records() {
        let name = record.name.as_str();
        let why = match record.dtype {
            DType::F8E4M3 | DType::F8E5M2 => "fp8 weights are not supported",
            DType::U16 if name.ends_with(".q_weight") => "16-bit words are of the converter before 2024-03",
            DType::I8 if name.ends_with(".q_weight") => "q4f16_ft cannot be decoded away from its GPU",
            _ if name.ends_with(".qweight") || name.ends_with(".qzeros") => "AWQ packing is not supported",
            _ if name.ends_with(".weight_scale_inv") => "fp8 block scales are not supported",
            _ => continue,
        };
        return unknown(format!("{name} is {}: {why}", record.dtype));
    }
    Ok(())
}

/// A quantised weight's two records.
struct Pair<'a> {
    base: &'a str,
    index: usize,
    words: &'a Record,
    scales: &'a Record,
}

impl Pair<'_> {
    /// Which way both lie; `None` for stacks of experts, which only lie one way.
    fn layout(&self) -> Result<Option<Layout>, FolderError> {
        match (self.words.shape.as_slice(), self.scales.shape.as_slice()) {
            (&[n, w], &[m, g]) if n == m && g.checked_mul(4) == Some(w) => Ok(Some(Layout::Nk)),
            (&[w, n], &[g, m]) if n == m && g.checked_mul(4) == Some(w) => Ok(Some(Layout::Kn)),
            (&[e, n, w], &[f, m, g]) if (e, n) == (f, m) && g.checked_mul(4) == Some(w) => Ok(None),
            (words, scales) => unknown(format!(
                "{0}.q_weight {words:?} and {0}.q_scale {scales:?} do not have four words a group",
                self.base
            )),
        }
    }

    fn groups(&self, layout: Layout) -> usize {
        match (layout, self.scales.shape.as_slice()) {
            (Layout::Kn, &[g, _]) => g,
            (_, shape) => shape.last().copied().unwrap_or(0),
        }
    }
}

fn pairs(manifest: &Manifest) -> Result<Vec<Pair<'_>>, FolderError> {
    let mut pairs = Vec::new();
    for (index, words) in manifest.records().iter().enumerate() {
        let Some(base) = words.name.strip_suffix(".q_weight") else { continue };
        let Some(scales) = manifest.record(&format!("{base}.q_scale")) else {
            return unknown(format!("{base}.q_weight is there without {base}.q_scale"));
        };
        if words.dtype != DType::U32 || !scales.dtype.is_float() {
            return unknown(format!(
                "{base}.q_weight is {} and its q_scale {}; they should be uint32 and a float type",
                words.dtype, scales.dtype
            ));
        }
        pairs.push(Pair { base, index, words, scales });
    }
    Ok(pairs)
}

/// The names that embeddings have in MLC's architectures; `embed_out` is a head.
fn is_embedding(base: &str) -> bool {
    let last = base.rsplit('.').next().unwrap_or(base);
    matches!(last, "wte" | "wpe" | "embd") || (last.contains("embed") && last != "embed_out")
}

fn plain_dtype(manifest: &Manifest) -> Result<DType, FolderError> {
    let mut found: Option<&Record> = None;
    for record in manifest.records() {
        if record.shape.len() < 2 || !record.name.ends_with(".weight") || !record.dtype.is_float() {
            continue;
        }
        let first = *found.get_or_insert(record);
        if first.dtype != record.dtype {
            let (a, b) = (&first.name, &record.name);
            return unknown(format!("{a} is {}, but {b} is {}", first.dtype, record.dtype));
        }
    }
    found.map(|r| r.dtype).ok_or_else(|| FolderError::UnknownScheme {
        what: "there is no matrix called *.weight or *.q_weight".to_owned(),
    })
}

fn group_format(
    manifest: &Manifest,
    pairs: &[Pair<'_>],
    bytes: &dyn Fn(usize) -> Option<Bytes>,
) -> Result<GroupFormat, FolderError> {
    let known = known_inputs(manifest, pairs)?;
    let fits = |format: GroupFormat| known.iter().all(|&(cols, groups, _)| format.groups(cols) == groups);
    match (fits(GroupFormat::INT4), fits(GroupFormat::INT3)) {
        (true, false) => Ok(GroupFormat::INT4),
        (false, true) => Ok(GroupFormat::INT3),
        (false, false) => {
            let list = known.iter().map(|(k, g, base)| format!("{base}: {k} inputs in {g} groups"));
            let list = list.take(3).collect::<Vec<_>>().join(", ");
            unknown(format!("the groups are neither of 32 nor of 40 weights ({list})"))
        }
        (true, true) => by_top_bits(pairs, bytes),
    }
}

/// Input size and number of groups of the weights whose input size is told by another tensor.
fn known_inputs<'a>(
    manifest: &Manifest,
    pairs: &[Pair<'a>],
) -> Result<Vec<(usize, usize, &'a str)>, FolderError> {
    let mut known = Vec::new();
    // The residual stream's width is the commonest length of a norm.
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for record in manifest.records() {
        let name = record.name.as_str();
        let per_head = name.contains("q_norm") || name.contains("k_norm");
        if let &[len] = record.shape.as_slice()
            && name.ends_with(".weight")
            && (name.contains("norm") || name.contains("ln"))
            && !per_head
        {
            *lengths.entry(len).or_default() += 1;
        }
    }
    let hidden = lengths.iter().max_by_key(|(_, count)| **count).map(|(&len, _)| len);
    for pair in pairs {
        let layout = pair.layout()?.unwrap_or(Layout::Nk);
        let last = pair.base.rsplit('.').next().unwrap_or(pair.base);
        let cols = match last {
            // Its inputs are the outputs of gate and up, which are stacked.
            "down_proj" => {
                let gate_up = format!("{}gate_up_proj.q_scale", &pair.base[..pair.base.len() - last.len()]);
                manifest.record(&gate_up).and_then(|scales| match (layout, scales.shape.as_slice()) {
                    (Layout::Nk, &[n, _]) | (Layout::Kn, &[_, n]) => Some(n / 2),
                    _ => None,
                })
            }
            "lm_head" | "embed_out" | "qkv_proj" | "gate_up_proj" => hidden,
            _ if is_embedding(pair.base) => hidden,
            _ => None,
        };
        if let Some(cols) = cols {
            known.push((cols, pair.groups(layout), pair.base));
        }
    }
    Ok(known)
}

/// 3-bit words have two zero bits at the top. In 4-bit words any weight of at least zero in the last
/// place sets one of them.
fn by_top_bits(
    pairs: &[Pair<'_>],
    bytes: &dyn Fn(usize) -> Option<Bytes>,
) -> Result<GroupFormat, FolderError> {
    const ENOUGH: usize = 1 << 16;
    let mut non_zero = 0;
    for pair in pairs {
        let Some(words) = bytes(pair.index) else { continue };
        for word in words.chunks_exact(4).take(ENOUGH) {
            // The top byte of a little-endian word.
            if word[3] & 0xc0 != 0 {
                return Ok(GroupFormat::INT4);
            }
            non_zero += usize::from(word != [0; 4]);
        }
        if non_zero >= ENOUGH {
            break;
        }
    }
    if non_zero >= 64 {
        return Ok(GroupFormat::INT3);
    }
    unknown("its groups may be of 32 weights of 4 bits or of 40 weights of 3 bits".to_owned())
}
