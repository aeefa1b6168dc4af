//! `tessera-source.json`: beside the files of an installed model, where they came from.

use crate::hash::Digest;
use crate::kind::RECORD_FILE;
use crate::source::without_secrets;
use crate::{HubError, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tessera_weights::{files, json};

/// Largest record that is read back.
const MAX_LEN: u64 = 16 << 20;

/// Where a model came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The source as it can be given to `tessera pull`, but for what is secret in an address: the password
    /// is left out, and `?...` stands for the query.
    pub source: String,
    /// The exact revision, where the source has one (a commit of the hub, a package version).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Day and time of the fetch, UTC, ISO 8601.
    pub fetched: String,
    /// Licence, where the catalogue states one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What was done to the files after the fetch ("converted from GGUF to q4f32_1").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converted: Option<String>,
    /// The files as they came, with the digests that were checked or, where the source states none,
    /// those that were found.
    pub files: Vec<FileRecord>,
    /// Where these were converted: the files that were made of them, without the shards, whose MD5 the
    /// manifest states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<FileRecord>,
    /// Files that the user has changed on purpose, as they were when that was said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edited: Vec<FileRecord>,
}

/// One fetched file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path inside the folder or the source.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
    /// Whether the source stated the digest (true) or it was only computed on arrival (false).
    pub checked: bool,
}

impl SourceRecord {
    /// A record for a fetch that happens now.
    pub fn new(source: impl Into<String>) -> SourceRecord {
        SourceRecord { source: source.into(), fetched: utc_now(), ..SourceRecord::default() }
    }

    /// The record of an installed folder, if it has a readable one.
    pub fn read(dir: &Path) -> Option<SourceRecord> {
        SourceRecord::open(dir).ok().flatten()
    }

    /// The record of a folder; `None` if it has none.
    pub fn open(dir: &Path) -> Result<Option<SourceRecord>> {
        let path = dir.join(RECORD_FILE);
        let Some(bytes) = files::read(&path, MAX_LEN).map_err(HubError::io(&path))? else { return Ok(None) };
        let bad = |why: String| HubError::BadManifest { file: RECORD_FILE.to_string(), why };
        let record: SourceRecord = json::parse(&bytes).map_err(|e| bad(format!("not a record: {e}")))?;
        // Records of version 0.1 may hold a query.
        Ok(Some(SourceRecord { source: without_secrets(&record.source), ..record }))
    }

    /// The files that the folder was installed with, as far as their digests are known.
    pub fn installed(&self) -> &[FileRecord] {
        if self.converted.is_some() { &self.made } else { &self.files }
    }

    /// Replaces the record of a folder, at once.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(RECORD_FILE);
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| HubError::Io { path: path.clone(), source: std::io::Error::other(e) })?;
        text.push('\n');
        let new = dir.join(format!(".{RECORD_FILE}.new"));
        std::fs::write(&new, text).map_err(HubError::io(&new))?;
        std::fs::rename(&new, &path).map_err(HubError::io(&path))
    }
}

fn utc_now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or(0);
    utc_text(seconds)
}

/// Civil date from days since 1970 (Howard Hinnant's `civil_from_days`), for years this side of 0.
fn utc_text(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc_text;

    #[test]
    fn dates() {
        assert_eq!(utc_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc_text(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc_text(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
