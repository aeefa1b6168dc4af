//! Short names for models, as data: `catalogue.json` in this crate, and after it
//! `catalogue.json` in the store's root, whose entries win.

use crate::source::ONE_FILE;
use crate::{Digest, HashKind, HubError, ModelName, Result, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tessera_weights::arch::Semantics;
use tessera_weights::files;

const BUILT_IN: &str = include_str!("catalogue.json");
const MAX_LEN: u64 = 4 << 20;

/// Sampling settings that an MLC chat config has a place for.
const GENERATION_KEYS: [&str; 5] =
    ["temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty"];

/// How codes are chosen where a source is converted; what is written is read alike by every reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimize {
    /// As MLC does, to the byte.
    #[default]
    None,
    /// The scale of each group that leaves the least squared error.
    Scales,
    /// Those that the outputs lose least by, for what a text feeds each matrix.
    Calibrated,
}

impl Optimize {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Optimize::None => "none",
            Optimize::Scales => "scales",
            Optimize::Calibrated => "calibrated",
        }
    }
}

/// One model and the places that it can be had from, best first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// The model's own name.
    pub title: String,
    /// One line about it.
    #[serde(default)]
    pub about: String,
    /// Its licence.
    #[serde(default)]
    pub licence: Option<String>,
    /// The quantisation to convert to, where a source is not an MLC folder.
    #[serde(default)]
    pub quantization: Option<String>,
    /// How its codes are chosen then; as MLC does unless said.
    #[serde(default)]
    pub optimize: Optimize,
    /// Sampling settings that the model's authors recommend, under the names of `generation_config.json`.
    /// A conversion writes them where the source has none of its own; a folder that is an MLC folder
    /// already is left as it is.
    #[serde(default)]
    pub generation: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whose meaning of the family is computed; the authors' unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantics: Option<Semantics>,
    /// Where to fetch it, in the order to try.
    pub sources: Vec<CatalogueSource>,
}

/// One place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueSource {
    /// As [`Source::parse`] reads it.
    pub source: String,
    /// Size of the file, or roughly of the folder.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// SHA-256 of the GGUF file, or of the manifest that a web address names; refused for a folder.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// All known names.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: BTreeMap<String, CatalogueEntry>,
}

impl Catalogue {
    /// The built-in catalogue, extended by `home/catalogue.json` if there is one.
    pub fn load(home: &Path) -> Result<Catalogue> {
        let mut entries = parse("the built-in catalogue", BUILT_IN.as_bytes())?;
        let path = home.join("catalogue.json");
        if let Some(bytes) = files::read(&path, MAX_LEN).map_err(HubError::io(&path))? {
            entries.extend(parse(&path.display().to_string(), &bytes)?);
        }
        Ok(Catalogue { entries })
    }

    /// The entry of a name.
    pub fn get(&self, name: &str) -> Option<&CatalogueEntry> {
        self.entries.get(name)
    }

    /// All names with their entries, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CatalogueEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

fn parse(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, CatalogueEntry>> {
    let bad = |why: String| HubError::BadCatalogue { file: file.to_string(), why };
    let entries: BTreeMap<String, CatalogueEntry> =
        tessera_weights::json::parse(bytes).map_err(|e| bad(e.to_string()))?;
    for (name, entry) in &entries {
        ModelName::parse(name).map_err(|e| bad(e.to_string()))?;
        if entry.sources.is_empty() {
            return Err(bad(format!("{name}: no sources")));
        }
        for (key, value) in entry.generation.iter().flatten() {
            if !GENERATION_KEYS.contains(&key.as_str()) || !value.is_number() {
                let known = GENERATION_KEYS.join(", ");
                return Err(bad(format!(
                    "{name}: generation.{key}: expected a number for one of {known}, found {value}"
                )));
            }
        }
        for place in &entry.sources {
            let source = Source::parse(&place.source).map_err(|e| bad(format!("{name}: {e}")))?;
            // A name that leads to a name could lead round in a circle.
            if let Source::Catalogue(other) = &source {
                return Err(bad(format!("{name}: the source \"{other}\" is itself a catalogue name")));
            }
            let Some(sha) = &place.sha256 else { continue };
            let Some(digest) = Digest::parse(HashKind::Sha256, sha) else {
                return Err(bad(format!("{name}: \"{sha}\" is not a SHA-256")));
            };
            if !source.may_be_one_file() {
                return Err(bad(format!("{name}: {source}: {ONE_FILE}")));
            }
            if let Source::Url { sha256: Some(other), .. } = &source
                && *other != digest.hex
            {
                return Err(bad(format!(
                    "{name}: the address states SHA-256 {other}, the entry {}",
                    digest.hex
                )));
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_right() {
        let home = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::load(home.path()).unwrap();
        let entry = catalogue.get("smollm2").unwrap();
        assert!(entry.sources[0].source.starts_with("HF://"));
        assert!(entry.sources.iter().any(|s| s.source.starts_with("pip://") && s.sha256.is_some()));
        assert_eq!(entry.generation.as_ref().unwrap()["temperature"], 0.2);
    }

    #[test]
    fn the_users_own_entries_win_and_are_checked() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("catalogue.json");
        std::fs::write(&file, r#"{"smollm2":{"title":"mine","sources":[{"source":"a/b"}]}}"#).unwrap();
        assert_eq!(Catalogue::load(home.path()).unwrap().get("smollm2").unwrap().title, "mine");
        let stated = |source: &str| {
            let sha = "0".repeat(64);
            format!(r#"{{"x":{{"title":"t","sources":[{{"source":"{source}","sha256":"{sha}"}}]}}}}"#)
        };
        for bad in [
            r#"{"x":{"title":"t","sources":[]}}"#,
            r#"{"x":{"title":"t","sources":[{"source":"y"}]}}"#,
            r#"{"x":{"title":"t","generation":{"heat":1},"sources":[{"source":"a/b"}]}}"#,
            r#"{"x":{"title":"t","generation":{"top_p":"1"},"sources":[{"source":"a/b"}]}}"#,
            r#"{"../x":{"title":"t","sources":[{"source":"a/b"}]}}"#,
            r#"{"x":{"title":"t","sources":[{"source":"a/b","sha256":"00"}]}}"#,
            &stated("https://h.example/m"),
            &stated("pip://p/folder"),
            &stated("./folder"),
            &stated(&format!("https://h.example/m.gguf#sha256={}", "1".repeat(64))),
        ] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(Catalogue::load(home.path()), Err(HubError::BadCatalogue { .. })), "{bad}");
        }
    }
}
