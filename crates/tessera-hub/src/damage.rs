//! From what a verification found to the fewest bytes that must come again.

use crate::altered::{allowed, altered};
use crate::download::sniff;
use crate::mlc::{MANIFEST_LIMIT, SIDE_FILES, shards_of, tokenizer_files};
use crate::{Digest, HubError, MANIFEST_NAMES, Result, SourceRecord};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use tessera_weights::files;
use tessera_weights::manifest::Manifest;
use tessera_weights::verify::{Defect, Report};

/// File systems and transfers leave whole blocks of zeros where bytes never arrived.
const BLOCK: usize = 4096;
/// Ranges that are closer than this are fetched as one.
const GAP: u64 = 64 << 10;
/// More of them are no better than the whole file: each is a request.
const MAX_PARTS: usize = 64;

/// A file that has to be mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Its name in the folder.
    pub file: String,
    /// Whether it is a shard, which nobody edits.
    pub shard: bool,
    /// The length that it should have, where that is known.
    pub bytes: Option<u64>,
    /// The digest that it should have, where that is known.
    pub digest: Option<Digest>,
    /// What has to come. The digest decides whether it was enough.
    pub need: Need,
}

/// What has to come of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// These bytes; none if the file is only too long.
    Parts(Vec<Range<u64>>),
    /// All of them.
    Whole,
}

impl Damage {
    /// How many bytes have to come, where that is known.
    pub fn to_fetch(&self) -> Option<u64> {
        match &self.need {
            Need::Parts(parts) => Some(parts.iter().map(|p| p.end - p.start).sum()),
            Need::Whole => self.bytes,
        }
    }
}

/// What of a folder has to come again. A manifest that is damaged is all that can be told: what the others
/// should be is in it.
pub fn damage_of(dir: &Path, report: &Report, record: Option<&SourceRecord>) -> Result<Vec<Damage>> {
    let changed = match record {
        Some(record) => altered(dir, record)?,
        None => Vec::new(),
    };
    let name = report.manifest.clone().or_else(|| {
        let recorded = changed.iter().map(|a| a.name.as_str()).find(|n| MANIFEST_NAMES.contains(n));
        recorded.map(str::to_string)
    });
    let name = name.unwrap_or_else(|| MANIFEST_NAMES[0].to_string());
    let read = files::need(&dir.join(&name), MANIFEST_LIMIT).ok();
    let parsed = read.and_then(|b| Some((shards_of(&name, &b).ok()?, Manifest::parse(&b).ok()?)));
    let is_altered = changed.iter().any(|a| a.name == name);
    let (Some((shards, manifest)), false) = (parsed, is_altered) else {
        return Ok(vec![whole(&name, record)]);
    };
    let mut found = Vec::new();
    for shard in &shards {
        let of_shard: Vec<&Defect> = report.defects.iter().filter(|d| d.file == shard.name).collect();
        if of_shard.is_empty() {
            continue;
        }
        let recorded = changed.iter().find(|a| a.name == shard.name).map(|a| a.expected.digest.clone());
        let digest = shard.md5.clone().or(recorded);
        let path = dir.join(&shard.name);
        let len = fs::metadata(&path).map(|m| m.len()).ok();
        let need = match (len, &digest) {
            (Some(_), Some(_)) if sniff(&path, &shard.name).is_err() => Need::Whole,
            (Some(len), Some(_)) if len > shard.bytes => Need::Parts(Vec::new()),
            (Some(len), Some(_)) if 0 < len && len < shard.bytes => {
                Need::Parts(std::iter::once(len..shard.bytes).collect())
            }
            (Some(len), Some(_)) if len == shard.bytes => {
                // What the digest calls right is what the source has.
                if !of_shard.iter().any(|d| matches!(d.field.as_str(), "md5sum" | "digest" | "file")) {
                    continue;
                }
                suspects(&path, len, &of_shard, &manifest)
            }
            _ => Need::Whole,
        };
        found.push(Damage { file: shard.name.clone(), shard: true, bytes: Some(shard.bytes), digest, need });
    }
    let shard_names: BTreeSet<&str> = shards.iter().map(|s| s.name.as_str()).collect();
    let mut others: BTreeSet<String> = changed.iter().map(|a| a.name.clone()).collect();
    let any_shard = !found.is_empty();
    for defect in &report.defects {
        // The other manifest does not open while a shard is damaged.
        let may_follow = any_shard && defect.file.ends_with("-b16.json");
        if !may_follow {
            others.extend(blamed(dir, defect, record));
        }
    }
    others.retain(|n| !shard_names.contains(n.as_str()));
    found.extend(others.iter().map(|name| whole(name, record)));
    Ok(found)
}

fn whole(name: &str, record: Option<&SourceRecord>) -> Damage {
    let known = record.and_then(|r| r.installed().iter().find(|f| f.name == name));
    Damage {
        file: name.to_string(),
        shard: false,
        bytes: known.map(|k| k.bytes),
        digest: known.map(|k| k.digest.clone()),
        need: Need::Whole,
    }
}

/// Files beside the shards that a defect speaks of and that no digest is known of.
fn blamed(dir: &Path, defect: &Defect, record: Option<&SourceRecord>) -> Vec<String> {
    const TOKENIZERS: [&str; 6] = [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
    ];
    let listed = || tokenizer_files(&dir.join("mlc-chat-config.json")).unwrap_or_default();
    let mut names: Vec<String> = match defect.file.as_str() {
        "tokenizer" => {
            let here = TOKENIZERS.iter().filter(|n| dir.join(n).is_file()).map(|n| n.to_string());
            here.chain(listed()).collect()
        }
        name if SIDE_FILES.contains(&name) || defect.field == "tokenizer_files" => vec![name.to_string()],
        _ => Vec::new(),
    };
    let recorded = |name: &String| record.is_some_and(|r| r.installed().iter().any(|f| f.name == *name));
    names.retain(|name| allowed(name).is_ok() && !recorded(name));
    names
}

/// The parts of a shard that look wrong: tensors with values that no converter writes, and blocks of zeros.
fn suspects(path: &Path, len: u64, defects: &[&Defect], manifest: &Manifest) -> Need {
    let tensors = defects.iter().filter(|d| d.field == "values").filter_map(|d| d.tensor.as_deref());
    let mut ranges: Vec<Range<u64>> =
        tensors.filter_map(|name| manifest.record(name)).map(|record| record.range()).collect();
    match zero_blocks(path) {
        Ok(zeros) => ranges.extend(zeros),
        Err(_) => return Need::Whole,
    }
    let ranges = joined(ranges);
    let bytes: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    // Of little use, where all may have to come after it.
    let count = ranges.len();
    if count == 0 || count > MAX_PARTS || bytes > len / 2 || ranges.iter().any(|r| r.end > len) {
        return Need::Whole;
    }
    Need::Parts(ranges)
}

fn zero_blocks(path: &Path) -> Result<Vec<Range<u64>>> {
    let mut file = files::open(path).map_err(HubError::io(path))?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (mut at, mut buffer) = (0u64, vec![0u8; 256 * BLOCK]);
    loop {
        // Filled whole, so that blocks stay where they are in the file.
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(HubError::io(path)(e)),
            }
        }
        for block in buffer[..filled].chunks(BLOCK) {
            let end = at + block.len() as u64;
            if block.iter().all(|&b| b == 0) {
                match ranges.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => ranges.push(at..end),
                }
            }
            at = end;
        }
        if filled < buffer.len() {
            return Ok(ranges);
        }
    }
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one() {
        let far = 10 * GAP;
        assert_eq!(joined(vec![far..far + 1, 5..9, 0..6]), [0..9, far..far + 1]);
        assert_eq!(joined(vec![far..far + 1, GAP..GAP + 2, 0..1]), [0..GAP + 2, far..far + 1]);
    }

    #[test]
    fn blocks_of_zeros_are_found_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = vec![1u8; 600 * BLOCK + 100];
        for block in [3, 4, 255, 256, 599] {
            bytes[block * BLOCK..(block + 1) * BLOCK].fill(0);
        }
        bytes[600 * BLOCK..].fill(0);
        bytes[7 * BLOCK + 1..8 * BLOCK].fill(0); // not all of it
        fs::write(&path, bytes).unwrap();
        let at = |from: usize, to: usize| (from * BLOCK) as u64..(to * BLOCK) as u64;
        let last = (599 * BLOCK) as u64..(600 * BLOCK + 100) as u64;
        assert_eq!(zero_blocks(&path).unwrap(), [at(3, 5), at(255, 257), last]);
    }

    #[test]
    fn a_file_that_is_full_of_holes_comes_whole() {
        let manifest = r#"{"metadata":{},"records":[{"dataPath":"s.bin","format":"raw-shard","nbytes":1,"records":[{"name":"w","shape":[1],"dtype":"uint8","format":"raw","nbytes":1,"byteOffset":0}]}]}"#;
        let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.bin");
        let apart = 2 * GAP as usize;
        for (holes, parts) in [(0, None), (MAX_PARTS, Some(MAX_PARTS)), (MAX_PARTS + 1, None)] {
            let mut bytes = vec![1u8; (MAX_PARTS + 2) * apart];
            for hole in 0..holes {
                bytes[hole * apart..hole * apart + BLOCK].fill(0);
            }
            fs::write(&path, &bytes).unwrap();
            let found = match suspects(&path, bytes.len() as u64, &[], &manifest) {
                Need::Parts(parts) => Some(parts.len()),
                Need::Whole => None,
            };
            assert_eq!(found, parts, "{holes}");
        }
    }
}
