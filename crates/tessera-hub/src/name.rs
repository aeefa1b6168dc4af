//! The name of a model in the store: one plain folder name, on every platform.

use crate::{HubError, Result};
use std::fmt;

const MAX_LEN: usize = 128;
/// Device names that Windows keeps for itself, whatever the extension.
const RESERVED: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// A checked name. `org/repo` becomes `org--repo`, so that the store stays flat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

impl ModelName {
    /// Checks and normalises `text`.
    pub fn parse(text: &str) -> Result<ModelName> {
        let bad = |why| HubError::BadName { name: text.to_string(), why };
        let flat = match text.split_once('/') {
            None => text.to_string(),
            Some((org, repo)) => {
                plain(org).map_err(bad)?;
                plain(repo).map_err(bad)?;
                format!("{org}--{repo}")
            }
        };
        plain(&flat).map_err(bad)?;
        Ok(ModelName(flat))
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks one path component that comes from a user, a manifest, a hub's answer or an archive: it is
/// a plain file name and cannot lead anywhere else.
pub(crate) fn plain(part: &str) -> std::result::Result<(), &'static str> {
    if part.is_empty() {
        return Err("it is empty");
    }
    if part.len() > MAX_LEN {
        return Err("it is longer than 128 bytes");
    }
    if part.starts_with('.') || part.starts_with('-') || part.ends_with('.') {
        return Err("it starts with a dot or a dash, or ends with a dot");
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+')) {
        return Err("only letters, digits and . _ - + are allowed");
    }
    let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
    let device = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    if RESERVED.contains(&device) && stem.len() <= 4 {
        return Err("it is a device name on Windows");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_one_folder() {
        assert_eq!(ModelName::parse("org/repo-1.5B").unwrap().as_str(), "org--repo-1.5B");
        assert_eq!(ModelName::parse("smollm2").unwrap().as_str(), "smollm2");
        for bad in
            ["", ".", "..", "../x", "a/../b", "a/b/c", "a\\b", "/abs", "a b", "-rf", "nul", "COM1.bin", "a\0"]
        {
            assert!(ModelName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(ModelName::parse(&"x".repeat(129)).is_err());
        assert!(ModelName::parse("console").is_ok());
    }
}
